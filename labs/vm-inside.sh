#!/usr/bin/env bash
# The inner half of labs/vm-test.sh: run in the machine, by labs/vm. Goes on after a failure, and counts.
#
#   labs/vm-inside.sh tests|notebooks [--part]
#
# Of the tests, those that ask the kernel: they need root, and carry the mark. The others were run outside, and so
# were those that drive a peer: the machine has none of them but podman.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh
export MINI_DOCKER_LAB_PATIENCE=8 # an emulated processor may take so much longer
ASK_THE_KERNEL="root and not peers"
NBVAL=(--nbval --nbval-current-env --nbval-cell-timeout 600 --nbval-sanitize-with tests/nbval_sanitize.cfg)
PART_TESTS=(run cgroups cgroup_devices runtime storage systemd)
PART_NOTEBOOKS=(07_user_cgroup_time 08_control_groups 10b_drivers 14_containers)
STATUS=0

step() { # WORDS COMMAND...
    local words=$1 began=$SECONDS
    printf '\n[vm] %s\n' "$words"
    if "${@:2}"; then
        printf '     ok: %s, %s s\n' "$words" $((SECONDS - began))
    else
        printf '     FAILED: %s, %s s\n' "$words" $((SECONDS - began))
        STATUS=1
    fi
}

tests() { # NAME...: without names all
    counted pytest -q -p no:cacheprovider -m "$ASK_THE_KERNEL" --durations=15 "${@/#/tests/test_}"
}

notebooks() { # NAME...
    counted pytest -q -p no:cacheprovider "${NBVAL[@]}" --durations=10 "${@/#/notebooks/}"
}

printf '%s, %s, Python %s\n' "$(uname -sr)" "$(stat -fc %T /sys/fs/cgroup)" "$(python -V)"
[[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] || STATUS=1
step "mini_docker setup" labs/bin/mini_docker setup
case "$*" in
    tests) step "tests that ask the kernel" tests ;;
    "tests --part") step "tests of ${PART_TESTS[*]}" tests "${PART_TESTS[@]/%/.py}" ;;
    notebooks)
        step "one notebook" notebooks 08_control_groups.ipynb
        shopt -s extglob
        names=(notebooks/!(08_control_groups).ipynb)
        step "every other notebook" notebooks "${names[@]#notebooks/}"
        ;;
    "notebooks --part") step "notebooks ${PART_NOTEBOOKS[*]}" notebooks "${PART_NOTEBOOKS[@]/%/.ipynb}" ;;
    *) printf 'labs/vm-inside.sh: tests or notebooks?\n' && STATUS=2 ;;
esac
finish "$STATUS"
