#!/usr/bin/env bash
# Tests and notebooks inside the virtual machine, where control groups are v2 and the kernel is Debian's.
#
#   labs/vm-test.sh           all, as "make vm-test"; when it passes, labs/vm-passed says so (labs/vm-record.sh)
#   labs/vm-test.sh --part    what costs little and finds much
#   labs/vm-test.sh --jobs FILE   the jobs in FILE: lines as "tests run cgroups", "notebooks 08_control_groups"
#
# Two fresh machines of one processor take jobs from one queue: each job watches that nothing is left behind, and
# in one machine would see the other's things. labs/vm-inside.sh runs a job in there. Both go at the end.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh
source labs/vm-record.sh
export MINI_DOCKER_VM_CPUS=${MINI_DOCKER_VM_CPUS:-1} MINI_DOCKER_VM_MEMORY=${MINI_DOCKER_VM_MEMORY:-2560}
export MINI_DOCKER_VM_LIMIT=${MINI_DOCKER_VM_LIMIT:-7200} MINI_DOCKER_VM_BOOT_LIMIT=${MINI_DOCKER_VM_BOOT_LIMIT:-900}
RUN=${MINI_DOCKER_VM_RUN:-/run/mini_docker-vm}-test
MACHINES=(1 2)
QUEUE=$CACHE/vm-queue
LOG=$CACHE/vm-inside.log # .1 and .2: each machine has one, for a line of the other may come in the middle of its own
TOGETHER=(8 7) # files of tests and notebooks in a job: a start of pytest takes half a minute, and the last should be short
PART=${1:-} JOBS=${2:-}
STATUS=0

machine() { # MACHINE WORDS...: labs/vm for the machine of that name
    MINI_DOCKER_VM_RUN=$RUN/$1 labs/vm "${@:2}"
}

fill_queue() {
    if [[ $PART == --jobs ]]; then
        cat "$JOBS"
    elif [[ $PART ]]; then
        printf '%s\n' "tests run cgroups cgroup_devices runtime storage systemd" \
            "notebooks 07_user_cgroup_time 08_control_groups 10b_drivers 14_containers"
    else
        basename -s .ipynb notebooks/*.ipynb | grep -vx 08_control_groups | xargs -n "${TOGETHER[1]}" echo notebooks
        grep -l 'mark\.root' tests/test_*.py | sed 's/.*test_//; s/\.py$//' | xargs -n "${TOGETHER[0]}" echo tests
        echo notebooks 08_control_groups # alone, to see what one takes
    fi >"$QUEUE"
}

take_job() {
    (
        flock 9
        read -r job <"$QUEUE" || exit
        sed -i 1d "$QUEUE"
        printf '%s' "$job"
    ) 9>"$QUEUE.lock"
}

work() { # MACHINE: every line says which one it is
    local job status=0
    while job=$(take_job); do
        machine "$1" run "labs/vm-inside.sh $job" </dev/null 2>&1 | tee -a "$LOG.$1" | sed -u "s/^/$1 | /" || status=1
    done
    return "$status"
}

# Compiled here, Python's files need not be compiled by an emulated processor.
compile() {
    env -u PYTHONDONTWRITEBYTECODE python -m compileall -q mini_docker labs notebooks &&
        env -u PYTHONDONTWRITEBYTECODE pytest -q --collect-only tests >/dev/null
}

in_each_machine() { # COMMAND...: at the same time, with the machine's name as last word
    local name jobs=() job status=0
    for name in "${MACHINES[@]}"; do
        "$@" "$name" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do
        wait "$job" || status=1
    done
    return "$status"
}

bring_up() { machine "$1" up --with $$; } # whatever ends this script ends the machines
set_up() { machine "$1" run "labs/vm-inside.sh setup"; }
take_down() { machine "$1" down; }

add_counts() { # JOBS: one without counts is a failure
    local line counted=0
    while read -r line; do
        counted=$((counted + 1))
        PASSED=$((PASSED + $(count passed "$line")))
        FAILED=$((FAILED + $(count failed "$line")))
        SKIPPED=$((SKIPPED + $(count skipped "$line")))
    done < <(grep -hE '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$LOG".*)
    FAILED=$((FAILED + $1 - counted))
}

tests_of_the_machine() {
    MINI_DOCKER_VM_RUN=$RUN/1 counted pytest -q -m vm tests/test_vm.py
}

run_jobs() {
    local jobs
    fill_queue && jobs=$(wc -l <"$QUEUE") && rm -f "$LOG".*
    in_each_machine work || STATUS=1
    add_counts "$jobs"
}

main() {
    local before
    mkdir -p "$CACHE"
    exec 2>&1
    trap 'exit 143' TERM
    trap 'in_each_machine take_down' EXIT
    before=$(hashes)
    if labs/vm build && compile && in_each_machine bring_up && in_each_machine set_up; then
        [[ $PART == --jobs ]] || tests_of_the_machine || STATUS=1
        run_jobs
    else
        STATUS=1
    fi
    ((STATUS == 0 || FAILED > 0)) || FAILED=1
    [[ $STATUS != 0 || $FAILED != 0 || $PART || $(hashes) != "$before" ]] || note_success
    printf '\n'
    finish "$STATUS"
}

note_success() {
    write_record "$(date +%F), $PASSED passed, $SKIPPED cannot run there, $((SECONDS - BEGAN)) s on $(nproc) processors"
    printf '\nWritten: %s. Commit it, and CI will say what has changed since.\n' "$RECORD"
}

# Sourced by the tests for its functions.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main
fi
