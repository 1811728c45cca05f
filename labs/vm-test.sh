#!/usr/bin/env bash
# Tests and notebooks inside the virtual machine, where control groups are v2 and the kernel is Debian's.
#
#   labs/vm-test.sh           all, as "make vm-test"
#   labs/vm-test.sh --part    what a run costs little and finds much: the machine, "run", two notebooks
#
# It brings up a fresh machine and takes it down at the end. labs/vm-inside.sh is the half that runs in there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh
INSIDE_LOG=$CACHE/vm-inside.log
STATUS=0

bring_up() {
    labs/vm build && labs/vm down && labs/vm up --with $$ # whatever ends this script ends the machine
}

inside() {
    local counts
    labs/vm run "labs/vm-inside.sh $1" </dev/null | tee "$INSIDE_LOG" || STATUS=1
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$INSIDE_LOG" | tail -n 1)
    PASSED=$((PASSED + $(count passed "$counts")))
    FAILED=$((FAILED + $(count failed "$counts")))
    SKIPPED=$((SKIPPED + $(count skipped "$counts")))
}

mkdir -p "$CACHE"
exec 2>&1
trap 'exit 143' TERM
trap 'labs/vm down' EXIT
bring_up || STATUS=1
if ((STATUS == 0)); then
    counted pytest -q -p no:cacheprovider -m vm tests/test_vm.py || STATUS=1
    inside "${1:-}"
fi
((STATUS == 0 || FAILED > 0)) || FAILED=1
printf '\n'
finish "$STATUS"
