#!/usr/bin/env bash
# The inner half of labs/vm-test.sh: run in the machine, by labs/vm. Goes on after a failure, and counts.
#
# Left out: what does not ask the kernel (the book's tools, the scripts, the machine itself), which is slow
# under software emulation and has been tested outside.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh

OUTSIDE=(book start_path vm imports import_budget notebooks_are_source environment_yml)
NBVAL=(--nbval --nbval-current-env --nbval-cell-timeout 300 --nbval-sanitize-with tests/nbval_sanitize.cfg)
STATUS=0

pytest_here() {
    counted pytest -q -p no:cacheprovider "$@"
}

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

all_tests() {
    local name ignored=()
    for name in "${OUTSIDE[@]}"; do
        ignored+=("--ignore=tests/test_$name.py")
    done
    pytest_here "${ignored[@]}"
}

everything() {
    step "tests" all_tests
    step "one notebook" pytest_here "${NBVAL[@]}" notebooks/08_control_groups.ipynb
    step "every notebook" pytest_here "${NBVAL[@]}" notebooks/*.ipynb
}

part() {
    step "tests of run, groups, runtime, storage" pytest_here tests/test_run.py tests/test_cgroups.py \
        tests/test_cgroup_devices.py tests/test_runtime.py tests/test_storage.py
    step "four notebooks" pytest_here "${NBVAL[@]}" notebooks/07_user_cgroup_time.ipynb \
        notebooks/08_control_groups.ipynb notebooks/10b_drivers.ipynb notebooks/14_containers.ipynb
}

printf '%s, %s\n' "$(uname -sr)" "$(stat -fc %T /sys/fs/cgroup)"
[[ $(stat -fc %T /sys/fs/cgroup) == cgroup2fs ]] || STATUS=1
step "mini_docker setup" labs/bin/mini_docker setup
case ${1:-} in
    --part) part ;;
    *) everything ;;
esac
finish "$STATUS"
