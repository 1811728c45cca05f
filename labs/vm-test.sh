#!/usr/bin/env bash
# Tests and notebooks inside the virtual machine, where control groups are v2 and the kernel is Debian's.
#
#   labs/vm-test.sh           all, as "make vm-test"; when it passes, labs/vm-passed says so (labs/vm-record.sh)
#   labs/vm-test.sh --part    what costs little and finds much
#
# Two fresh machines of one processor, side by side: one has the tests and one the notebooks, for each watches
# that nothing is left behind. Both are taken down at the end. labs/vm-inside.sh is the half that runs in there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh
source labs/vm-record.sh
export MINI_DOCKER_VM_CPUS=${MINI_DOCKER_VM_CPUS:-1} MINI_DOCKER_VM_MEMORY=${MINI_DOCKER_VM_MEMORY:-2560}
export MINI_DOCKER_VM_LIMIT=${MINI_DOCKER_VM_LIMIT:-7200} MINI_DOCKER_VM_BOOT_LIMIT=${MINI_DOCKER_VM_BOOT_LIMIT:-900}
RUN=${MINI_DOCKER_VM_RUN:-/run/mini_docker-vm}-test
HALVES=(tests notebooks)
PART=${1:-}
STATUS=0

machine() { # HALF WORDS...: labs/vm for the machine of that half
    MINI_DOCKER_VM_RUN=$RUN/$1 labs/vm "${@:2}"
}

# Compiled here, Python's files need not be compiled by an emulated processor.
compile() {
    env -u PYTHONDONTWRITEBYTECODE python -m compileall -q mini_docker labs notebooks &&
        env -u PYTHONDONTWRITEBYTECODE pytest -q -p no:cacheprovider --collect-only tests >/dev/null
}

bring_up() {
    local half jobs=() job status=0
    labs/vm build && compile || return
    for half in "${HALVES[@]}"; do
        machine "$half" up --with $$ & # whatever ends this script ends the machines
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || status=1
    done
    return "$status"
}

take_down() {
    local half
    for half in "${HALVES[@]}"; do
        machine "$half" down
    done
}

inside() { # HALF: every line says which one it is
    machine "$1" run "labs/vm-inside.sh $1 $PART" </dev/null 2>&1 | tee "$CACHE/vm-$1.log" | sed -u "s/^/$1 | /"
}

add_counts() { # HALF: a half without counts is a failure
    local counts
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$CACHE/vm-$1.log" | tail -n 1)
    [[ $counts ]] || FAILED=$((FAILED + 1))
    PASSED=$((PASSED + $(count passed "$counts")))
    FAILED=$((FAILED + $(count failed "$counts")))
    SKIPPED=$((SKIPPED + $(count skipped "$counts")))
}

run_halves() {
    local notebooks half
    inside notebooks &
    notebooks=$!
    MINI_DOCKER_VM_RUN=$RUN/tests counted pytest -q -p no:cacheprovider -m vm tests/test_vm.py || STATUS=1
    inside tests || STATUS=1
    wait "$notebooks" || STATUS=1
    for half in "${HALVES[@]}"; do
        add_counts "$half"
    done
}

mkdir -p "$CACHE"
exec 2>&1
trap 'exit 143' TERM
trap take_down EXIT
BEFORE=$(hashes)
if bring_up; then run_halves; else STATUS=1; fi
((STATUS == 0 || FAILED > 0)) || FAILED=1
if [[ $STATUS == 0 && ! $PART && $(hashes) == "$BEFORE" ]]; then
    write_record "$(date +%F), $PASSED passed, $SKIPPED cannot run there, $((SECONDS - BEGAN)) s on $(nproc) processors"
    printf '\nWritten: %s. Commit it, and CI will run a part until something changes.\n' "$RECORD"
fi
printf '\n'
finish "$STATUS"
