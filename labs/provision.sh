#!/usr/bin/env bash
# Prepare a Debian or Ubuntu machine: packages, the Python environment, the mini_docker command.
#
#   labs/provision.sh [--peers] [--machine] [--vagrant] [--offline] [--dry-run] [--as "make run"]
#
#   --peers     also the programs that the tests hold ours against (runc, podman, dockerd, ...)
#   --machine   also what makes and starts a virtual machine (labs/vm)
#   --vagrant   also Vagrant with libvirt, for labs/vagrant-test.sh
#   --offline   fetch nothing: use what lies in apt's cache, .cache/wheels and /var/cache/mini_docker/wheels
#   --dry-run   say what each step would do; change nothing, need no root
#   --as WORDS  the command to name when root is needed
#
# A step is two functions: NAME_there looks whether the result exists, NAME_make makes it. So a second
# run only looks, and whatever a killed run left behind is found and finished by the next one.
set -euo pipefail
umask 022
export LC_ALL=C.UTF-8
# What the caller's shell uses for its own Python must not find its way into our environment.
unset PYTHONHOME PYTHONPATH PYTHONUSERBASE PYTHONSTARTUP PYTHONDONTWRITEBYTECODE PYTHONOPTIMIZE
unset VIRTUAL_ENV PIP_USER PIP_TARGET PIP_PREFIX PIP_REQUIRE_VIRTUALENV
export PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 # no options: Ubuntu 22.04's pip is older

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
CACHE=$ROOT/.cache
LOG=$CACHE/provision.log
LOCK=/run/mini_docker-provision.lock
PYTHON=/usr/bin/python3 # Debian's own: a conda or pyenv in PATH is somebody's project
VENV=$ROOT/.venv
STAMP=$VENV/mini_docker-stamp
PEERS_STAMP=$VENV/mini_docker-peers
WHEELS=/var/cache/mini_docker/wheels # in a box from "make box"
LAUNCHER=$ROOT/labs/bin/mini_docker
LINK=/usr/local/bin/mini_docker
POLICY=/usr/sbin/policy-rc.d
POLICY_SAVED=$POLICY.before-mini_docker
NOT_IN_APT=$CACHE/peers-not-in-apt
NOT_IN_NPM=$CACHE/dockerode-not-in-npm
DOCKERODE=$ROOT/tests/dockerode
OLDEST_KERNEL=5.10

PACKAGES=(
    python3 python3-venv                       # the runtime is the standard library, the rest a venv
    busybox-static                             # the embedded image
    python3-h11                                # HTTP/1.1 for the daemon
    tini                                       # docker run --init
    util-linux iproute2 procps                 # unshare, nsenter, lsns; ip; ps
    curl                                       # the API by hand
    nftables libnftables1                      # nft by hand; the library that our NAT calls
    libisal2 libzstd1                          # layers: gzip twice as fast as zlib, and zstd
    strace                                     # what does Docker do here? ask the kernel
    graphviz fonts-dejavu-core                 # pictures
    docker-registry openssl                    # a registry for a room without internet; its certificates
    btrfs-progs                                # mkfs.btrfs: one of the storage drivers
    uidmap                                     # newuidmap: user namespaces of ordinary users
    bsdextrautils                              # column: tables by hand (chapter 19b)
    make
)
PEERS=( # a command or file, and the package that brings it
    runc:runc crun:crun podman:podman dockerd:docker.io docker:docker-cli skopeo:skopeo umoci:umoci
    docker-compose:docker-compose /usr/lib/python3/dist-packages/docker/__init__.py:python3-docker
    node:nodejs npm:npm # for dockerode, see tests/dockerode
    zsh:zsh fish:fish # each reads the completion written for it
    chromium:chromium chromedriver:chromium-driver # a browser for the widgets
    gcc:gcc /usr/include/stdio.h:libc6-dev /usr/include/linux/version.h:linux-libc-dev
    /usr/aarch64-linux-gnu/include/asm/unistd.h:linux-libc-dev-arm64-cross # the numbers of the other machine
    /usr/arm-linux-gnueabihf/include/asm/unistd.h:linux-libc-dev-armhf-cross
)
MACHINE=(mmdebstrap qemu-utils e2fsprogs openssh-client)
VAGRANT=(vagrant vagrant-libvirt libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
    dnsmasq-base rsync curl)
PEER_UNITS=(docker.service docker.socket containerd.service podman.service podman.socket
    podman-restart.service podman-auto-update.timer
    libvirtd.service libvirtd.socket virtlogd.socket virtlockd.socket libvirt-guests.service)

STEPS=(system kernel root packages python command)
DRY_RUN=0 OFFLINE=0 AS=labs/provision.sh
REMARK="" # set by NAME_there: what was found, or what is missing
WARNING="" # set by NAME_there: a sentence to print below the step's line
REFUSED=0  # set by refuse in a dry run

title() {
    case $1 in # a function and no associative array, so that a Mac's old bash gets as far as the sentence
        system) printf 'System' ;;
        kernel) printf 'Kernel' ;;
        root) printf 'Root' ;;
        packages) printf 'Debian packages' ;;
        python) printf 'Python environment' ;;
        command) printf 'mini_docker command' ;;
        peers) printf 'Peer programs' ;;
        machine) printf 'Virtual machine' ;;
        vagrant) printf 'Vagrant with libvirt' ;;
    esac
}

# ---- steps that only look: what they miss, nobody can make ------------------------------------------

system_there() {
    [[ $(uname -s) == Linux ]] ||
        refuse "this is $(uname -s), and containers are made by the Linux kernel. Remedy: vagrant up (see README.md)"
    { have apt-get && have dpkg-query; } ||
        refuse "there is no apt here. Remedy: Debian 12 or 13, Ubuntu 22.04 or 24.04, or: vagrant up (see README.md)"
    case $(uname -m) in
        x86_64 | aarch64) ;;
        *) refuse "mini_docker knows the system calls of x86_64 and aarch64, and this is $(uname -m)" ;;
    esac
    warn_in_container
    REMARK="$(os_name), $(uname -m)"
}

os_name() {
    (. /etc/os-release 2>/dev/null && printf '%s' "${PRETTY_NAME:-Linux}") || printf 'Linux'
}

warn_in_container() {
    local sign
    for sign in /.dockerenv /run/.containerenv; do
        [[ -e $sign ]] || continue
        WARNING="This looks like the inside of a container ($sign). If the kernel refuses something below,
      start it with --privileged, or use the virtual machine: vagrant up."
        return
    done
}

kernel_there() {
    local release
    release=$(uname -r)
    at_least "$OLDEST_KERNEL" "${release%%[^0-9.]*}" ||
        refuse "Linux $release is too old. Remedy: Linux $OLDEST_KERNEL or newer, as Debian 12 and Ubuntu 22.04 have"
    REMARK="Linux $release"
}

root_there() {
    ((EUID == 0)) || refuse "Containers need root here: sudo $AS"
    ((DRY_RUN)) || take_lock
    REMARK="yes"
}

# ---- Debian packages --------------------------------------------------------------------------------

packages_there() {
    missing_packages "${PACKAGES[@]}"
    REMARK="missing: ${MISSING[*]}"
    ((${#MISSING[@]} == 0)) || return 1
    REMARK="already there"
}

missing_packages() { # NAME...
    local name status
    declare -A installed=()
    while read -r name status; do
        [[ $status == installed ]] && installed[$name]=1
    done < <(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null)
    MISSING=()
    for name in "$@"; do
        [[ -n ${installed[$name]:-} ]] || MISSING+=("$name")
    done
}

packages_make() {
    refresh_apt
    apt_install "${MISSING[@]}"
}

refresh_apt() {
    # A killed dpkg must be finished first. What neither of these can do, the installation will name.
    logged dpkg --configure -a || true
    ((OFFLINE)) || logged apt-get -q -o DPkg::Lock::Timeout=300 update || true
}

apt_install() {
    local options=(-q -y --no-install-recommends --no-remove --fix-broken
        -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0)
    ((OFFLINE)) && options+=(--no-download)
    logged env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get "${options[@]}" install "$@"
}

# ---- the Python environment -------------------------------------------------------------------------

python_there() {
    REMARK="no environment of this checkout in .venv"
    [[ -x $VENV/bin/python && -r $STAMP && $(<"$STAMP") == "$(fingerprint)" ]] || return 1
    REMARK="the one in .venv is broken"
    "$VENV/bin/python" -I -c '
import mini_docker
from importlib.util import find_spec
raise SystemExit(not all(map(find_spec, ("jupyterlab", "ipykernel", "nbval", "pytest", "mypy"))))
' 2>/dev/null || return 1
    REMARK="already there"
}

# A venv cannot be moved, copied or given another Python: the first line. The second: what is in it.
fingerprint() {
    printf '%s %s\n' "$VENV" "$("$PYTHON" -V 2>&1)"
    sha256sum <"$ROOT/pyproject.toml"
}

python_make() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        refuse "$("$PYTHON" -V) is too old. Remedy: Python 3.10 or newer, as Debian 12 and Ubuntu 22.04 have"
    if only_requirements_changed && rm "$STAMP" && install_requirements && write_stamp && python_there; then
        return
    fi
    rm -rf "$VENV"
    logged "$PYTHON" -m venv "$VENV" && install_requirements && write_stamp
}

only_requirements_changed() {
    [[ -r $STAMP && $(head -n 1 "$STAMP") == "$(fingerprint | head -n 1)" && $(<"$STAMP") != "$(fingerprint)" ]]
}

write_stamp() {
    fingerprint >"$STAMP.new" && mv "$STAMP.new" "$STAMP"
}

# setuptools goes in first, and builds without isolation: so a later change needs no network for it.
install_requirements() { # [",peers"]
    local install=("$VENV/bin/python" -m pip install --progress-bar off)
    ((OFFLINE)) && install+=(--no-index --find-links "$CACHE/wheels" --find-links "$WHEELS")
    logged "${install[@]}" 'setuptools>=70.1' wheel &&
        logged "${install[@]}" --no-build-isolation -e "${ROOT}[lab,test${1:-}]"
}

# ---- the command ------------------------------------------------------------------------------------

command_there() {
    local target
    target=$(readlink "$LINK" || true)
    REMARK=$LINK
    case $target in
        "$LAUNCHER") return ;;
        */labs/bin/mini_docker) REMARK="$LINK leads to another checkout" && return 1 ;;
    esac
    REMARK="no $LINK"
    [[ -e $LINK || -L $LINK ]] || return 1
    REMARK="left alone"
    WARNING="$LINK is not ours, so it stays. Ours is $LAUNCHER."
}

command_make() {
    mkdir -p "${LINK%/*}" && ln -sfn "$LAUNCHER" "$LINK"
}

# ---- peers: real engines, installed without starting them -------------------------------------------

peers_there() {
    missing_peers
    REMARK="missing: ${MISSING[*]}"
    ((${#MISSING[@]} == 0)) || return 1
    [[ ! -e $POLICY ]] || ! is_our_policy || return 1
    REMARK="missing: the Python packages"
    [[ -r $PEERS_STAMP && $(<"$PEERS_STAMP") == "$(fingerprint)" ]] || return 1
    REMARK="missing: dockerode"
    [[ -d $DOCKERODE/node_modules/dockerode || -e $NOT_IN_NPM ]] || ((OFFLINE)) || ! have npm || return 1
    REMARK="all there"
    [[ ! -s $NOT_IN_APT ]] || REMARK="there, but for $(<"$NOT_IN_APT"), which this machine's apt does not have"
}

# What apt did not know last time is not looked for again: "make clean" forgets it.
missing_peers() {
    local peer unknown=" "
    [[ ! -r $NOT_IN_APT ]] || unknown=" $(<"$NOT_IN_APT") "
    MISSING=()
    for peer in "${PEERS[@]}"; do
        have "${peer%%:*}" || [[ $unknown == *" ${peer#*:} "* ]] || MISSING+=("${peer#*:}")
    done
}

peers_make() {
    local name known=() status=0
    ((${#MISSING[@]} == 0)) || refresh_apt
    for name in "${MISSING[@]}"; do
        ! apt-cache show --no-all-versions "$name" >/dev/null 2>&1 || known+=("$name")
    done
    forbid_starts || return
    ((${#known[@]} == 0)) || apt_install "${known[@]}" || status=$?
    allow_starts
    ((status == 0)) || return "$status"
    rm -f "$NOT_IN_APT"
    missing_peers
    mkdir -p "$CACHE" && printf '%s' "${MISSING[*]}" >"$NOT_IN_APT"
    install_requirements ",peers" && fingerprint >"$PEERS_STAMP"
    dockerode_make
}

# Without it one test says why it cannot run: no reason to stop here. "make clean" has it tried again.
dockerode_make() {
    rm -f "$NOT_IN_NPM"
    ((OFFLINE)) || ! have npm || logged npm ci --prefix "$DOCKERODE" && return
    touch "$NOT_IN_NPM"
    WARNING="dockerode could not be fetched from npm's registry: its test will say so."
}

# Debian asks policy-rc.d(8) before it starts a freshly installed service; 101 means no. A dockerd that
# starts here would change the host's firewall. The policy that was there comes back, after kill -9 too:
# the next run knows ours by its second line, and the third says which services are new.
forbid_starts() {
    trap allow_starts EXIT
    ! is_our_policy || return 0
    [[ ! -e $POLICY ]] || cp -p "$POLICY" "$POLICY_SAVED" || return
    printf '#!/bin/sh\n# mini_docker labs/provision.sh\n# keep stopped: %s\nexit 101\n' "$(new_units)" \
        >"$POLICY.new" && chmod 755 "$POLICY.new" && mv "$POLICY.new" "$POLICY"
}

is_our_policy() {
    [[ -e $POLICY ]] && grep -qs '^# mini_docker labs/provision.sh$' "$POLICY"
}

new_units() {
    local unit
    for unit in "${PEER_UNITS[@]}"; do
        [[ -e /lib/systemd/system/$unit || -e /etc/systemd/system/$unit ]] || printf '%s ' "$unit"
    done
}

# Services that came with us are not started at the next boot either.
allow_starts() {
    local unit
    is_our_policy || return 0
    # shellcheck disable=SC2013
    for unit in $(sed -n "s/^# keep stopped: //p" "$POLICY"); do
        ! have systemctl || [[ ! -e /lib/systemd/system/$unit ]] || logged systemctl disable "$unit" || true
    done
    if [[ -e $POLICY_SAVED ]]; then mv "$POLICY_SAVED" "$POLICY"; else rm "$POLICY"; fi
}

# ---- what makes and starts a virtual machine --------------------------------------------------------

machine_there() {
    # shellcheck disable=SC2046
    missing_packages "${MACHINE[@]}" $(machine_of_processor)
    REMARK="missing: ${MISSING[*]}"
    ((${#MISSING[@]} == 0)) || return 1
    REMARK="already there"
}

machine_of_processor() {
    case $(uname -m) in
        aarch64) printf 'qemu-system-arm' ;;
        *) printf 'qemu-system-x86 fdisk grub-pc-bin grub2-common' ;; # the last three: "make box"
    esac
}

machine_make() {
    packages_make
}

vagrant_there() {
    missing_packages "${VAGRANT[@]}"
    REMARK="missing: ${MISSING[*]}"
    ((${#MISSING[@]} == 0)) || return 1
    REMARK="already there"
}

vagrant_make() {
    local status=0
    refresh_apt
    forbid_starts || return
    apt_install "${MISSING[@]}" || status=$?
    allow_starts
    return "$status"
}

# ---- tools ------------------------------------------------------------------------------------------

have() {
    if [[ $1 == /* ]]; then [[ -e $1 ]]; else command -v "$1" >/dev/null; fi
}

at_least() {
    [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]
}

refuse() {
    ((DRY_RUN)) || { printf 'no\n' && printf '\n%s\n' "$1" >&2 && exit 1; }
    WARNING=$1 REFUSED=1
}

take_lock() {
    exec 9>"$LOCK" # apt and pip inherit it: they may outlive a killed run
    flock -n 9 || printf 'waiting for another provision run ... '
    flock -w 1800 9 || refuse "another labs/provision.sh has been running for half an hour. Remedy: see what it does: ps -ef"
    rm -f "$LOG"
}

# Run a command: what it says goes into the log, and a sign of life to the screen.
logged() {
    mkdir -p "$CACHE"
    printf '\n$ %s\n' "$*" >>"$LOG"
    "$@" </dev/null 2>&1 | show_progress
}

show_progress() {
    local line status shown=$SECONDS start=$SECONDS
    while :; do
        status=0
        IFS= read -r -t 5 line || status=$?
        if ((status == 0)); then
            line=${line##*$'\r'}
            printf '%s\n' "$line" >>"$LOG"
        fi
        if [[ -t 1 ]]; then
            printf '\r\e[K%s%s s  %.40s' "$HEAD" $((SECONDS - start)) "$line"
        elif ((SECONDS - shown >= 5)); then
            printf '.'
            shown=$SECONDS
        fi
        ((status == 0 || status > 128)) || break
    done
    [[ ! -t 1 ]] || printf '\r\e[K%s' "$HEAD"
}

now() { # microseconds
    printf '%s' "${EPOCHREALTIME:-$SECONDS.000000}" | tr -d .
}

seconds_since() {
    local tenths=$((($(now) - $1) / 100000))
    printf '%d.%d s' $((tenths / 10)) $((tenths % 10))
}

# ---- the run ----------------------------------------------------------------------------------------

run_step() {
    local step=$1 start
    start=$(now)
    REMARK="" WARNING="" REFUSED=0
    HEAD="[$2/${#STEPS[@]}] $(title "$step") ... "
    printf '%s' "$HEAD"
    if "${step}_there"; then
        ((REFUSED == 0)) || REMARK=no
        printf '%s (%s)\n' "$REMARK" "$(seconds_since "$start")"
    elif ((DRY_RUN)); then
        printf 'to do: %s\n' "$REMARK"
    else
        make_step "$step" "$start"
    fi
    [[ -z $WARNING ]] || printf '      %s\n' "$WARNING"
}

make_step() {
    local looked=$REMARK
    if "$1_make" && "$1_there"; then
        printf 'installed (%s)\n' "$(seconds_since "$2")"
        return
    fi
    printf 'failed (%s): %s\n' "$(seconds_since "$2")" "$looked"
    [[ ! -r $LOG ]] || { printf '\n' && tail -n 12 "$LOG" | sed 's/^/    /'; }
    printf '\n%s\nThe whole log: %s. Known troubles: labs/TROUBLESHOOTING.md. Then run it again.\n' \
        "$(remedy_for "$1")" "$LOG" >&2
    exit 1
}

remedy_for() {
    if ((OFFLINE)); then
        printf 'Not everything is in the caches of this machine. Remedy: run it once without --offline.'
    elif [[ $1 == peers ]]; then
        printf 'The peers are for comparison only. Remedy: go without them: make test PEERS='
    else
        printf 'Remedy: is the network up, and does "sudo apt-get update" work by itself?'
    fi
}

read_arguments() {
    while (($#)); do
        case $1 in
            --peers) STEPS+=(peers) ;;
            --machine) STEPS+=(machine) ;;
            --vagrant) STEPS+=(vagrant) ;;
            --offline) OFFLINE=1 ;;
            --dry-run) DRY_RUN=1 ;;
            --as) AS=${2:?--as needs the words of the command} && shift ;;
            -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" && exit ;;
            *) printf 'labs/provision.sh: unknown option %s; see --help\n' "$1" >&2 && exit 2 ;;
        esac
        shift
    done
}

main() {
    read_arguments "$@"
    trap 'printf "\nInterrupted. Run it again: it goes on where it was.\n" >&2; exit 130' INT
    trap 'exit 143' TERM
    local i
    for i in "${!STEPS[@]}"; do
        run_step "${STEPS[i]}" $((i + 1))
    done
}

# Sourced by the tests for its functions, run by everybody else.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main "$@"
fi
