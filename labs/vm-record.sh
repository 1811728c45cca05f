#!/usr/bin/env bash
# What has been seen to pass in the virtual machine: labs/vm-passed holds a hash for each area of the project,
# written when a whole labs/vm-test.sh passes, and committed. A checkout with the same hashes has been seen to
# pass; of another, .ci/run says what differs. Sourced, from the top of the checkout.

RECORD=labs/vm-passed
AREAS=(
    "the machine:labs/vm labs/vm-inside.sh labs/machine labs/provision.sh labs/bin labs/mini_docker.service labs/mini_docker.socket pyproject.toml"
    "the package:mini_docker"
    "the chapters:notebooks"
    "the tests:tests conftest.py"
)

hashes() { # a line for each area: its words, a colon, a hash of the files that git would commit there
    local area
    for area in "${AREAS[@]}"; do
        # shellcheck disable=SC2086
        printf '%s: %s\n' "${area%%:*}" "$(git ls-files -co --exclude-standard -z -- ${area#*:} 2>/dev/null | sort -zu |
            xargs -0 sha256sum 2>/dev/null | sha256sum | cut -c 1-16)"
    done
}

changed() { # the areas that differ from the record, "the package, the tests"; nothing if all are the same
    local line words=""
    while read -r line; do
        grep -qxF "$line" "$RECORD" 2>/dev/null || words+="${words:+, }${line%%:*}"
    done < <(hashes)
    printf '%s' "$words"
}

write_record() { # WORDS: how it went
    { hashes && printf 'passed: %s\n' "$1"; } >"$RECORD.new" && mv "$RECORD.new" "$RECORD"
}

how_it_went() {
    sed -n 's/^passed: //p' "$RECORD"
}
