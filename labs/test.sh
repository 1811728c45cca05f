#!/usr/bin/env bash
# Everything that CI checks, in the order in which mistakes are cheap to find. Stops at the first failure.
#
#   labs/test.sh            all, as "make test"
#   labs/test.sh --quick    without running tests and notebooks, as "make check"
#
# The last line is "N passed, N failed, N skipped", counted over the pytest runs; a failed step that
# is no pytest run counts as one failure. Skipped means: cannot run here, and the reason is above.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
PATH=$PWD/.venv/bin:$PATH
CACHE=.cache
PASSED=0 FAILED=0 SKIPPED=0
UNSTEADY=() # tests that failed, and passed when they were run once more
BEGAN=$SECONDS

style() { ruff check -q .; }
format() { ruff format -q --check .; }
types() { mypy --strict mini_docker tests; }
notebook_types() { python -m mini_docker.lab.book types; }
normal_form() { python -m mini_docker.lab.book check; }
exported() { python -m mini_docker.lab.book export --check; }
tests() { counted pytest -q; }
notebooks() {
    counted pytest -q --nbval --nbval-current-env --nbval-cell-timeout 600 \
        --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks/*.ipynb
}

QUICK=(
    "style:the code is written as ruff wants it (ruff check)"
    "format:and laid out so (remedy: ruff format)"
    "types:types of package and tests (mypy --strict)"
    "notebook_types:types of the notebooks"
    "normal_form:notebooks are in normal form (remedy: make execute)"
    "exported:mini_docker/ is what the notebooks export (remedy: make export, or make carry)"
)
SLOW=(
    "tests:unit and system tests (pytest)"
    "notebooks:every notebook prints what it has stored (nbval)"
)

# Run pytest and add what its closing line counts: "3 failed, 120 passed, 2 skipped in 8.1s".
#
# Where up to three tests failed, they are run once more without the others. If all pass, they are unsteady: told by
# name at the end, for that is a fault too, but seldom one of the change that is looked at. What was left behind
# (an error) is not forgiven.
counted() {
    local status=0 closing failed errors
    rm -rf "$CACHE/pytest"
    once "$@" || status=$?
    closing=$(closing_line) failed=$(count failed "$closing") errors=$(count 'errors?' "$closing")
    PASSED=$((PASSED + $(count passed "$closing")))
    SKIPPED=$((SKIPPED + $(count skipped "$closing")))
    if [[ $status == 1 && $errors == 0 ]] && pass_alone "$@"; then
        PASSED=$((PASSED + failed)) failed=0 status=0
    fi
    FAILED=$((FAILED + failed + errors))
    return "$status"
}

once() {
    "$@" -o cache_dir="$CACHE/pytest" 2>&1 | tee "$CACHE/pytest.log"
}

closing_line() {
    grep -E ' in [0-9.]+s' "$CACHE/pytest.log" | tail -n 1
}

pass_alone() { # the words that pytest was called with
    local word options=() again=()
    mapfile -t again < <(failed_before)
    ((${#again[@]} >= 1 && ${#again[@]} <= 3)) || return 1
    for word in "$@"; do
        [[ $word =~ ^(tests|notebooks)/.*\.(py|ipynb)$ ]] || options+=("$word")
    done
    printf '\nOnce more, without the others: %s\n' "${again[*]}"
    once "${options[@]}" "${again[@]}" && UNSTEADY+=("${again[@]}")
}

failed_before() { # tests by their names; of notebooks the whole, for a cell needs those before it
    sed -nE 's/^  "(.*)": true,?$/\1/p' "$CACHE/pytest/v/cache/lastfailed" 2>/dev/null | sed -E 's/(\.ipynb)::.*/\1/' | sort -u
}

count() {
    local found
    found=$(grep -oE "[0-9]+ $1\b" <<<"$2" | head -n 1)
    printf '%d' "${found%% *}"
}

run_step() {
    local name=${1%%:*} words=${1#*:} began=$SECONDS failed=$FAILED
    printf '\n[%s/%s] %s\n' "$2" "$3" "$words"
    if "$name"; then
        printf '      ok (%s s)\n' $((SECONDS - began))
        return
    fi
    ((FAILED > failed)) || FAILED=$((FAILED + 1))
    printf '      FAILED (%s s)\n\nStopped at step %s of %s: %s\n' $((SECONDS - began)) "$2" "$3" "$words"
    finish 1
}

finish() {
    ((${#UNSTEADY[@]} == 0)) || printf 'UNSTEADY, failed once and then passed: %s\n' "${UNSTEADY[@]}"
    printf 'Cannot run here: %s (each says why above). Took %s s.\n' "$SKIPPED" $((SECONDS - BEGAN))
    printf '%s passed, %s failed, %s skipped\n' "$PASSED" "$FAILED" "$SKIPPED" | tee "$CACHE/counts"
    exit "$1"
}

main() {
    local i steps=("${QUICK[@]}" "${SLOW[@]}")
    [[ ${1:-} != --quick ]] || steps=("${QUICK[@]}")
    mkdir -p "$CACHE"
    for i in "${!steps[@]}"; do
        run_step "${steps[i]}" $((i + 1)) "${#steps[@]}"
    done
    printf '\n'
    finish 0
}

# Sourced by the tests for its functions.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
