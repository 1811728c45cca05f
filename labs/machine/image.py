"""A Debian image with the lab provisioned, made of Debian packages and kept by the hash of its inputs.

CACHE/HASH/    disk.raw, vmlinuz, initrd, id_ed25519, known_hosts, wheels/
CACHE/making/  the same while it is made, renamed at the end. So an image is there or it is not, and what a
               kill -9 leaves is cleared by the next build.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labs.machine.settings import ROOT
from labs.machine.tasks import Trouble, run_logged, say, step

PROVISION = ROOT / "labs" / "provision.sh"
NEEDED_MB = 4000  # while an image is made; about 1,200 stay
DISK_SIZE = 8 << 30  # bytes; the file has holes
STEP_LIMIT = 1800  # seconds
BOOK = "/book"  # where the machine has this checkout

# What makes a machine of the root file system. All that the labs use comes from labs/provision.sh.
# AppArmor's parser, podman and runc are here, and no other peer: they show what only a machine with
# systemd can, and chapter 11e calls runc by hand.
MACHINE_PACKAGES = """
    systemd-sysv systemd-resolved udev dbus kmod initramfs-tools zstd openssh-server sudo rsync
    iputils-ping iptables libcap2-bin git less ca-certificates apparmor podman runc
""".split()
IDLE_UNITS = """
    docker-registry.service podman.socket podman.service podman-restart.service podman-auto-update.timer
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service
    fstrim.timer
""".split()  # a machine that lives for an hour needs none of them, and an emulated processor notices
KERNELS = {"debian": "linux-image-cloud-{}", "ubuntu": "linux-image-virtual"}  # Ubuntu: not tried
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}

FILES = {
    "etc/hostname": "mini-docker\n",
    "etc/hosts": "127.0.0.1 localhost mini-docker\n::1 localhost\n",
    "etc/fstab": "/dev/vda / ext4 defaults,noatime,discard 0 1\n",
    "etc/systemd/network/20-wired.network": "[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n",
    "etc/ssh/sshd_config.d/book.conf": "UseDNS no\nPrintMotd no\nPrintLastLog no\n",
    "etc/gitconfig": f"[safe]\n\tdirectory = {BOOK}\n",  # whoever owns it outside
    "etc/systemd/system/book.service": """\
[Unit]
Description=The checkout at /book, with this machine's own Python environment
After=ssh.service
[Service]
Type=oneshot
ExecStart=/usr/local/sbin/book
[Install]
WantedBy=multi-user.target
""",
    # No virtiofs: the checkout is copied to /book later, and the same mounts lie below it.
    "usr/local/sbin/book": f"""\
#!/bin/sh
mount -t virtiofs book {BOOK} 2>/dev/null && share=shared || share=copied
for name in .venv .cache; do
    mkdir -p {BOOK}/$name /var/lib/book/$name
    mount --bind /var/lib/book/$name {BOOK}/$name
done
echo "mini_docker: ready, $share" >/dev/console
""",
}

# Run in the root file system: the labs' own provisioner, which finds the packages there and makes the rest.
FINISH = f"""
set -e
mount -t proc proc "$0/proc"
mount --rbind /dev "$0/dev"
in_there="env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root chroot $0"
$in_there {BOOK}/labs/provision.sh --offline --as "make vm"
$in_there systemctl enable systemd-networkd systemd-resolved ssh book
for unit in {" ".join(IDLE_UNITS)}; do
    $in_there systemctl disable "$unit" || echo "no unit $unit"
done
$in_there passwd --lock root
mkdir -p "$0/var/lib/book/.cache"
mv "$0{BOOK}/.venv" "$0/var/lib/book/.venv"
"""


# ---- what it is made of -------------------------------------------------------------------------------


def os_release(name: str) -> str:
    """Return a value of /etc/os-release, os-release(5); empty if it is not there."""
    found = re.search(rf'^{name}="?([^"\n]*)', Path("/etc/os-release").read_text(), re.M)
    return found[1] if found else ""


def apt_sources(suite: str, apt: Path = Path("/etc/apt")) -> list[Path]:
    """Return the files by which this machine's apt has `suite`, and not those of third parties."""
    files = sorted([*apt.glob("sources.list"), *apt.glob("sources.list.d/*")])
    name = rf"(?<![\w-]){re.escape(suite)}(?![\w-])"
    has_suite = re.compile(rf"^(Suites:.*{name}|deb .*{name}.* main\b)", re.M)
    return [
        file
        for file in files
        if file.suffix in (".list", ".sources") and has_suite.search(file.read_text())
    ]


def lab_packages() -> list[str]:
    """Return the Debian packages that labs/provision.sh installs: what CI tests is what students get."""
    listed = re.search(r"^PACKAGES=\(\n(.*?)^\)", PROVISION.read_text(), re.M | re.S)
    if listed is None:
        raise Trouble(f"{PROVISION} has no list PACKAGES")
    return re.sub(r"#.*", "", listed[1]).split()


def packages() -> list[str]:
    """Return all Debian packages of the image."""
    kernel = KERNELS.get(os_release("ID"))
    if kernel is None or platform.machine() not in DEBIAN_NAMES:
        raise Trouble("images are made on Debian or Ubuntu. Remedy: vagrant up (see README.md)")
    return [kernel.format(DEBIAN_NAMES[platform.machine()]), *MACHINE_PACKAGES, *lab_packages()]


def fingerprint() -> str:
    """Return the hash of everything that decides what the image becomes, but for newer packages."""
    digest = hashlib.sha256()
    inputs = [Path(__file__), PROVISION, ROOT / "pyproject.toml", Path("/etc/os-release")]
    for path in [*inputs, *apt_sources(os_release("VERSION_CODENAME"))]:
        digest.update(path.read_bytes() + b"\0")
    digest.update(platform.machine().encode())
    return digest.hexdigest()[:16]


# ---- making it ----------------------------------------------------------------------------------------


def built_image(cache: Path) -> Path | None:
    """Return the folder of the image of the present inputs, if it has been built."""
    image = cache / fingerprint()
    return image if image.is_dir() else None


def ensure_image(cache: Path, again: bool = False) -> Path:
    """Return the image of the present inputs; build it if it is not there, or `again`."""
    if (image := built_image(cache)) and not again:
        return image
    require_builder()
    with locked(cache):
        if not (image := built_image(cache)) or again:
            image = build(cache)
    return image


def require_builder() -> None:
    """Raise Trouble unless this machine has what makes an image."""
    packages()
    wanted = ("mmdebstrap", "mke2fs", "ssh-keygen", "unshare", "setpriv")
    missing = [name for name in wanted if not shutil.which(name)]
    if not (ROOT / ".venv" / "bin" / "python").exists():
        missing.append(".venv")
    if missing:
        raise Trouble(
            f"an image needs {', '.join(missing)}. Remedy: sudo labs/provision.sh --machine"
        )


@contextmanager
def locked(cache: Path) -> Iterator[None]:
    """Hold the lock of `cache`: one build at a time, the others wait and then find the image."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another build is under way; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(cache: Path) -> Path:
    """Make the image, then put it in place by one rename; older images go."""
    making, log, image = cache / "making", cache / "build.log", cache / fingerprint()
    shutil.rmtree(making, ignore_errors=True)
    require_space(cache, NEEDED_MB)
    log.unlink(missing_ok=True)
    began = time.monotonic()
    root = making / "root"
    root.mkdir(parents=True)
    try:
        with step("[1/4] root file system from Debian packages"):
            make_root(root, log)
        with step("[2/4] Python packages"):
            copy_book(root)
            fetch_wheels(root, log)
        with step("[3/4] labs/provision.sh in there"):
            configure(root, making, log)
            run_logged(["sh", "-c", FINISH, root], log, STEP_LIMIT)
            (root / BOOK[1:] / ".cache" / "wheels").rename(making / "wheels")  # for make_box
        with step("[4/4] disk"):
            make_disk(root, making, log)
            put_in_place(making, image)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    say(f"image: built in {time.monotonic() - began:.0f} s ({image})")
    return image


def require_space(directory: Path, wanted_mb: int) -> None:
    """Raise Trouble unless `directory` has `wanted_mb` MB to spare."""
    free_mb = shutil.disk_usage(directory).free >> 20
    if free_mb < wanted_mb:
        raise Trouble(
            f"{directory} has {free_mb} MB free, and {wanted_mb} are needed."
            " Remedy: make room, or set MINI_DOCKER_VM_CACHE to a larger disk"
        )


def make_root(root: Path, log: Path) -> None:
    """Install the Debian packages into `root`."""
    suite = os_release("VERSION_CODENAME")
    sources = apt_sources(suite)
    if not sources:
        raise Trouble(
            f"this machine's apt has no source for {suite}. Remedy: see /etc/apt/sources.list"
        )
    options = ["--variant=minbase", "--mode=root", f"--include={','.join(packages())}"]
    options += [
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
    ]
    run_logged(["mmdebstrap", *options, suite, root, *sources], log, STEP_LIMIT)


def copy_book(root: Path) -> None:
    """Copy what the provisioner reads of this checkout to its place in `root`."""
    book = root / BOOK[1:]
    without = shutil.ignore_patterns("__pycache__")
    for name in ("labs", "mini_docker"):
        shutil.copytree(ROOT / name, book / name, ignore=without)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, book / name)


def fetch_wheels(root: Path, log: Path) -> None:
    """Download what pip will install, by this machine's own pip settings, to where `--offline` looks."""
    wheels = root / BOOK[1:] / ".cache" / "wheels"
    wheels.mkdir(parents=True)
    pip = f"{ROOT}/.venv/bin/python -m pip download --progress-bar=off --no-build-isolation".split()
    what = ["setuptools>=70.1", "wheel", f"{ROOT}[lab,test]"]
    run_logged([*pip, "--dest", str(wheels), *what], log, STEP_LIMIT)


def configure(root: Path, making: Path, log: Path) -> None:
    """Write the machine's own files, and a new key by which its owner comes in."""
    for name, text in FILES.items():
        (root / name).write_text(text)
    (root / "usr/local/sbin/book").chmod(0o755)
    key = making / "id_ed25519"
    run_logged(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], log, 60)
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copy(f"{key}.pub", root / "root/.ssh/authorized_keys")
    host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
    (making / "known_hosts").write_text(f"mini-docker {host_key}")


def make_disk(root: Path, making: Path, log: Path) -> None:
    """Make the ext4 file of `root`, and take the kernel out for qemu to start."""
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        shutil.copy(max((root / "boot").glob(pattern)), making / name)
    disk = making / "disk.raw"
    with open(disk, "wb") as file:
        file.truncate(DISK_SIZE)
    run_logged(
        ["mke2fs", "-q", "-t", "ext4", "-L", "mini_docker", "-d", root, disk], log, STEP_LIMIT
    )
    shutil.rmtree(root)


def put_in_place(making: Path, place: Path) -> None:
    """Give the finished image its name, and remove the others; a name never stands for half an image."""
    removing = place.parent / "removing"
    shutil.rmtree(removing, ignore_errors=True)
    removing.mkdir()
    for old in place.parent.iterdir():
        if re.fullmatch("[0-9a-f]{16}", old.name):
            old.rename(removing / old.name)
    os.sync()
    making.rename(place)
    shutil.rmtree(removing)
