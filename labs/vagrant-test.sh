#!/usr/bin/env bash
# "vagrant up" for real, as a class without internet would: with vagrant-libvirt and the box of "make box".
#
#   labs/vagrant-test.sh          as "make vagrant-test"; about five minutes without hardware virtualisation
#
# libvirtd, its bridge, dnsmasq and the machine live in namespaces of this script's own, and end with it, however it
# ends. The last line is "N passed, N failed, N skipped".
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
source labs/test.sh
STATE=$PWD/$CACHE/vagrant
BOX=build/mini_docker.box
STATUS=0

main_outside() {
    ((EUID == 0)) || { echo "This needs root. Remedy: sudo make vagrant-test" >&2 && exit 1; }
    if ! command -v vagrant >/dev/null || ! command -v libvirtd >/dev/null; then
        echo "cannot run here, because there is no vagrant-libvirt (remedy: sudo labs/provision.sh --vagrant)"
        SKIPPED=1
        finish 0
    fi
    [[ -e $BOX ]] || { echo "There is no $BOX. Remedy: sudo make box" >&2 && exit 1; }
    rm -rf "$STATE" && mkdir -p "$STATE" /var/lib/libvirt
    exec unshare --mount --net --pid --ipc --fork --kill-child --mount-proc --propagation private "$0" --inside
}

# ---- in namespaces of its own -------------------------------------------------------------------------

start_libvirt() {
    mount -t tmpfs tmpfs /run && mkdir -p /run/dbus /run/libvirt /run/lock
    mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts /dev/pts # qemu, no root, opens a terminal
    mkdir -p "$STATE/libvirt/images" && mount --bind "$STATE/libvirt" /var/lib/libvirt
    ip link set lo up
    dbus-daemon --system --fork --nopidfile
    virtlogd --daemon
    libvirtd --daemon --timeout 0
    for _ in $(seq 50); do
        virsh -q -c qemu:///system version >/dev/null 2>&1 && break
        sleep 0.2
    done
    virsh -q -c qemu:///system net-list --all --name | grep -q default ||
        virsh -q -c qemu:///system net-define /usr/share/libvirt/networks/default.xml
}

vagrant_() { # without the thousand lines of a progress bar
    vagrant --no-color "$@" 2>&1 | stdbuf -oL tr '\r' '\n' | grep --line-buffered -v -e Progress -e '^ *$'
    return "${PIPESTATUS[0]}"
}

check() { # WORDS COMMAND...
    local words=$1 began=$SECONDS
    printf '\n[vagrant] %s\n' "$words"
    if "${@:2}"; then
        PASSED=$((PASSED + 1))
        printf '          ok: %s, %s s\n' "$words" $((SECONDS - began))
    else
        FAILED=$((FAILED + 1)) STATUS=1
        printf '          FAILED: %s, %s s\n' "$words" $((SECONDS - began))
    fi
}

inside() { vagrant_ ssh -c "$1"; }
exit_status_passes() {
    inside 'exit 7'
    (($? == 7))
}
is_unified() { inside 'stat -fc %T /sys/fs/cgroup' | grep -x cgroup2fs; }
runs() { inside 'sudo mini_docker run --rm busybox echo hello from a container' | grep -x 'hello from a container'; }
chapter() {
    inside 'sudo .venv/bin/pytest -q -p no:cacheprovider --nbval --nbval-current-env --nbval-cell-timeout 300 \
        --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks/06_uts.ipynb'
}
provisioned_again() { vagrant_ provision | tee "$STATE/again.log" && ! grep -q 'installed (' "$STATE/again.log"; }

# The address is the one that "make lab" prints in the machine: it must open here, and only with the token.
opens_jupyter() {
    local address page
    inside 'sudo systemd-run -q --unit=lab --working-directory=/vagrant make lab; for i in $(seq 200); do
        sudo journalctl -o cat -u lab | grep -o "http://127.0.0.1:8888/lab.*" && break; sleep 1; done' >"$STATE/address"
    address=$(grep -o 'http://127.0.0.1:8888/lab.*' "$STATE/address" | tr -d '\r' | head -n 1)
    [[ $address ]] || return
    for _ in $(seq 100); do
        page=$(curl -s "${address/lab\/tree\/notebooks/api\/contents\/notebooks}") && [[ $page ]] && break
        sleep 2
    done
    grep -o '00_start_here.ipynb' <<<"$page" | head -n 1
    [[ $page == *00_start_here.ipynb* ]] &&
        [[ $(curl -s -o "$STATE/refused" -w '%{http_code}' http://127.0.0.1:8888/api/contents/notebooks) == 403 ]]
}

main_inside() {
    export VAGRANT_HOME=$STATE/home VAGRANT_DOTFILE_PATH=$STATE/machine VAGRANT_CHECKPOINT_DISABLE=1
    export VAGRANT_DEFAULT_PROVIDER=libvirt MINI_DOCKER_BOX=build/mini_docker.box MINI_DOCKER_OFFLINE=1
    export MINI_DOCKER_LIBVIRT_DRIVER=${MINI_DOCKER_LIBVIRT_DRIVER:-qemu}
    export MINI_DOCKER_MEMORY=${MINI_DOCKER_MEMORY:-2048}
    check "libvirt answers" start_libvirt
    check "the Vagrantfile is valid" vagrant_ validate
    check "vagrant up" vagrant_ up
    if ((STATUS == 0)); then
        check "an exit status passes" exit_status_passes
        check "control groups are v2" is_unified
        check "a container runs" runs
        check "provisioned again, nothing is done twice" provisioned_again
        check "a chapter prints what it has stored" chapter
        check "JupyterLab answers here, with its token only" opens_jupyter
    fi
    check "vagrant destroy" vagrant_ destroy --force
    printf '\n'
    finish "$STATUS"
}

if [[ ${1:-} == --inside ]]; then
    main_inside
else
    main_outside
fi
