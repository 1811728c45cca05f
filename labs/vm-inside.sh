#!/usr/bin/env bash
# One job of labs/vm-test.sh: run in the machine, by labs/vm. Its last line is "N passed, N failed, N skipped".
#
#   labs/vm-inside.sh setup
#   labs/vm-inside.sh tests [run cgroups ...]
#   labs/vm-inside.sh notebooks 08_control_groups ...
#
# Of the tests, those that ask the kernel: all that need root, but for those marked "anywhere", whose subject is
# words, files, registries or many at once, and those that drive a peer: the machine has none but podman and runc.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh
export MINI_DOCKER_LAB_PATIENCE=8 # an emulated processor may take so much longer
ASK_THE_KERNEL="root and not peers and not anywhere"
NBVAL=(--nbval --nbval-current-env --nbval-cell-timeout 600 --nbval-sanitize-with tests/nbval_sanitize.cfg)
STATUS=0

tests() { # NAME...: without names all
    local files=("${@/#/tests/test_}")
    counted pytest -q -m "$ASK_THE_KERNEL" --durations=25 "${files[@]/%/.py}" ||
        [[ $? == 5 ]] # none of them asks the kernel
}

notebooks() { # NAME...
    local files=("${@/#/notebooks/}")
    counted pytest -q "${NBVAL[@]}" --durations=5 "${files[@]/%/.ipynb}"
}

setup() {
    printf '%s, %s, %s\n' "$(uname -sr)" "$(stat -fc %T /sys/fs/cgroup)" "$(python -V)"
    [[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] && labs/bin/mini_docker setup
    exit
}

case ${1:-} in
    tests | notebooks | setup) ;;
    *) printf 'labs/vm-inside.sh: setup, tests or notebooks?\n' >&2 && exit 2 ;;
esac
"$@" || STATUS=1
printf '%s: %s\n' "$([[ $STATUS == 0 ]] && echo ok || echo FAILED)" "$*"
finish "$STATUS"
