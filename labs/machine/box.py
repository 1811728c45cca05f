"""The image as a Vagrant box for libvirt: a disk that boots by itself, with Vagrant's user and key."""

from __future__ import annotations

import json
import platform
import shutil
import time
from pathlib import Path

from labs.machine.image import DISK_SIZE, STEP_LIMIT, require_space
from labs.machine.tasks import Trouble, run_logged, say, step

NEEDED_MB = 5000
PARTITION = 1 << 20  # bytes before it: the partition table and GRUB
VAGRANT_KEYS = ("opt/vagrant/embedded/gems", "usr/share/rubygems-integration", "usr/share/vagrant")

# Vagrant's key is known to everybody: "vagrant up" puts one of its own in its place.
# A loop device whose number has been let go ends with its last user, so a kill -9 leaves none.
MAKE = f"""
set -e
image=$1 key=$2
cd "$0"
truncate -s {DISK_SIZE + PARTITION} box.raw
echo 'start={PARTITION // 512}, type=83, bootable' | sfdisk -q --label dos box.raw
dd if="$image/disk.raw" of=box.raw bs={PARTITION} seek=1 conv=sparse,notrunc status=none
mkdir root
disk=$(losetup --find --show box.raw)
exec 9<"$disk"
losetup --detach "$disk"
part=$(losetup --find --show --offset {PARTITION} box.raw)
exec 8<"$part"
losetup --detach "$part"
mount "$part" root

rm root/root/.ssh/authorized_keys root/etc/systemd/system/multi-user.target.wants/book.service
: >root/etc/machine-id
echo 'LABEL=mini_docker / ext4 defaults,noatime,discard 0 1' >root/etc/fstab
chroot root useradd --create-home --shell /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' >root/etc/sudoers.d/vagrant
chmod 440 root/etc/sudoers.d/vagrant
install -d -m 700 root/home/vagrant/.ssh
install -m 600 "$key" root/home/vagrant/.ssh/authorized_keys
chroot root chown -R vagrant:vagrant /home/vagrant/.ssh
mkdir -p root/var/cache/mini_docker
cp -r "$image/wheels" root/var/cache/mini_docker/wheels

kernel=$(basename root/boot/vmlinuz-*)
initrd=$(basename root/boot/initrd.img-*)
grub-install --target=i386-pc --boot-directory=root/boot --no-floppy \\
    --modules='part_msdos ext2 biosdisk search search_label normal linux serial' "$disk"
cat >root/boot/grub/grub.cfg <<END
serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
search --no-floppy --label mini_docker --set=root
menuentry mini_docker {{
    linux /boot/$kernel root=LABEL=mini_docker rw console=tty0 console=ttyS0 quiet
    initrd /boot/$initrd
}}
END
umount root
exec 8<&- 9<&-
qemu-img convert -O qcow2 box.raw box.img
rm box.raw
tar -czf mini_docker.box metadata.json Vagrantfile box.img
"""


def make_box(image: Path, box: Path) -> None:
    """Make the file `box` of `image`."""
    require_tools()
    making = image.parent / "making-box"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    began = time.monotonic()
    try:
        require_space(making, NEEDED_MB)
        metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": whole_gigabytes()}
        (making / "metadata.json").write_text(json.dumps(metadata))
        (making / "Vagrantfile").write_text('Vagrant.configure("2") { |config| }\n')
        with step("box"):
            words = map(str, (making, image, vagrant_key()))
            run_logged(["sh", "-c", MAKE, *words], image.parent / "box.log", STEP_LIMIT)
        box.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(making / "mini_docker.box", box)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    say(f"box: {box}, {box.stat().st_size >> 20} MB, made in {time.monotonic() - began:.0f} s")


def whole_gigabytes() -> int:
    """Return the disk's size in GB, rounded up: Vagrant makes the machine's disk of this size, not ours.

    A disk one megabyte smaller than its only partition boots as far as "(initramfs)".
    """
    return -(-(DISK_SIZE + PARTITION) // (1 << 30))


def require_tools() -> None:
    """Raise Trouble unless this machine has what makes a box."""
    if platform.machine() != "x86_64":
        raise Trouble("boxes are made on x86_64 only")
    wanted = ("grub-install", "sfdisk", "losetup", "qemu-img")
    missing = [name for name in wanted if not shutil.which(name)]
    if missing:
        raise Trouble(f"a box needs {', '.join(missing)}. Remedy: sudo labs/provision.sh --machine")


def vagrant_key() -> Path:
    """Return the public key that every Vagrant can log in with, from the Vagrant that is here."""
    for folder in VAGRANT_KEYS:
        for key in Path("/", folder).glob("**/keys/vagrant.pub"):
            return key
    raise Trouble("a box needs Vagrant's public key. Remedy: sudo labs/provision.sh --vagrant")
