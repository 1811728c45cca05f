"""One machine from start to end: virtiofsd shares the checkout, qemu boots the image, ssh runs commands.

Machine.start -> virtiofsd and qemu, children that die with us; the disk's changes go with them
serial.log    -> "mini_docker: ready", or a kernel panic, or silence until the limit
Machine.run   -> exit status of a command in the checkout
Machine.stop  -> nothing is left; after a failure the serial log is kept beside the images
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from labs.machine.image import BOOK, require_space
from labs.machine.settings import ROOT, Settings
from labs.machine.tasks import Trouble, end, is_alive, last_lines, own_name, pulse, say, start

DISK_MB = 1000  # that a machine may write
# What the kernel answers stays, and an emulated processor has less to do: no fences against other guests, no
# page cleared twice, no pages of 2 MB for small processes, no long waits for every processor (RCU).
LESS_WORK = (
    "mitigations=off init_on_alloc=0 hardened_usercopy=off transparent_hugepage=never"
    " rcupdate.rcu_expedited=1"
)
PROBE_LIMIT = 10.0  # seconds for a kernel to say a word under KVM
PANIC = re.compile(r"^.*(Kernel panic.*|You are in emergency mode.*|ALERT!.*)$", re.M)
READY = re.compile(r"mini_docker: ready, (shared|copied)")


class Hardware(NamedTuple):
    """What differs between the processors."""

    qemu: str
    machine: str
    console: str
    emulated: str  # the processor that software emulation imitates fastest


HARDWARE = {
    "x86_64": Hardware("qemu-system-x86_64", "q35", "ttyS0", "Nehalem"),
    "aarch64": Hardware("qemu-system-aarch64", "virt", "ttyAMA0", "max"),  # not tried
}


def hardware() -> Hardware:
    """Return this processor's hardware; Trouble without its qemu."""
    ours = HARDWARE.get(platform.machine())
    if ours is None or not shutil.which(ours.qemu):
        raise Trouble("there is no qemu here. Remedy: sudo labs/provision.sh --machine")
    return ours


# ---- plans: command lines, nothing done -----------------------------------------------------------------


def plan_boot(image: Path, accel: str) -> list[str]:
    """Return the part of qemu's command line that boots `image`'s kernel and nothing else."""
    ours = hardware()
    emulated = "tcg,thread=multi" if accel == "tcg" else accel
    cpu = ours.emulated if accel == "tcg" else "host"
    append = f"root=/dev/vda rw console={ours.console} panic=-1 quiet {LESS_WORK}"
    return [
        *(ours.qemu, "-M", ours.machine, "-accel", emulated, "-cpu", cpu),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd"), "-append", append),
    ]


def plan_machine(image: Path, settings: Settings, directory: Path, ssh_port: int) -> list[str]:
    """Return qemu's whole command line; its ports are of 127.0.0.1 alone."""
    forwards = f",hostfwd=tcp:127.0.0.1:{ssh_port}-:22"
    if settings.port:
        forwards += f",hostfwd=tcp:127.0.0.1:{settings.port}-:8888"
    memory = f"{settings.memory}M"
    arguments = [
        *plan_boot(image, settings.accel),
        *("-smp", str(settings.cpus), "-m", memory),
        *("-drive", f"file={image / 'disk.raw'},if=virtio,format=raw,snapshot=on,discard=unmap"),
        *("-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci", "-serial", f"file:{directory / 'serial.log'}"),
    ]
    if settings.virtiofsd:
        arguments += ["-object", f"memory-backend-memfd,id=memory,size={memory},share=on"]
        arguments += ["-numa", "node,memdev=memory"]
        arguments += ["-chardev", f"socket,id=share,path={directory / 'share'}"]
        arguments += ["-device", "vhost-user-fs-pci,chardev=share,tag=book"]
    return arguments


def plan_share(virtiofsd: str, directory: Path) -> list[str]:
    """Return virtiofsd's command line: the checkout, read and written as root."""
    options = ["-o", f"source={ROOT}", "-o", "cache=auto", "-o", "sandbox=chroot"]
    return [virtiofsd, f"--socket-path={directory / 'share'}", *options]


def plan_ssh(directory: Path, port: int, *options: str) -> list[str]:
    """Return ssh's command line up to the remote command: our key, the machine's key, no one's settings."""
    ours = {
        "IdentityFile": directory / "id_ed25519",
        "UserKnownHostsFile": directory / "known_hosts",
        "HostKeyAlias": "mini-docker",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
        "LogLevel": "ERROR",
        "ConnectTimeout": 60,
        "ServerAliveInterval": 30,
        "ServerAliveCountMax": 10,
    }
    settings = [word for name, value in ours.items() for word in ("-o", f"{name}={value}")]
    return ["ssh", "-F", "none", *settings, "-p", str(port), *options, "root@127.0.0.1"]


# ---- what must be there ---------------------------------------------------------------------------------


def require_memory(wanted_mb: int, meminfo: Path = Path("/proc/meminfo")) -> None:
    """Raise Trouble unless `wanted_mb` MB of memory are to be had, proc_meminfo(5)."""
    found = re.search(r"^MemAvailable: *(\d+) kB", meminfo.read_text(), re.M)
    free_mb = int(found[1]) >> 10 if found else 0
    if free_mb < wanted_mb:
        raise Trouble(
            f"the machine is to have {wanted_mb} MB of memory, and {free_mb} are free."
            " Remedy: MINI_DOCKER_VM_MEMORY=1024, or close something"
        )


def require_port(port: int) -> None:
    """Raise Trouble if somebody listens at `port` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Trouble(
                f"port {port} is taken ({error.strerror}). Remedy: MINI_DOCKER_VM_PORT={port + 1}"
            ) from None


def free_port() -> int:
    """Return a port of 127.0.0.1 where nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def choose_accelerator(image: Path, settings: Settings) -> Settings:
    """Put "kvm" or "tcg" for "auto".

    A /dev/kvm can open and yet run no kernel, so a kernel is asked, once in the uptime of this computer.
    """
    if settings.accel != "auto":
        return settings
    noted = settings.run / "accel"
    if not noted.exists():
        works = os.access("/dev/kvm", os.R_OK | os.W_OK) and kernel_speaks_under_kvm(image)
        noted.write_text("kvm" if works else "tcg")
    return settings._replace(accel=noted.read_text())


def kernel_speaks_under_kvm(image: Path) -> bool:
    """Boot the kernel under KVM until it says that it has no root file system."""
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "serial.log")
        qemu = [*plan_boot(image, "kvm"), "-m", "512M", "-serial", "stdio"]
        process = start(qemu, log)
        deadline = time.monotonic() + PROBE_LIMIT
        try:
            while process.poll() is None and time.monotonic() < deadline:
                if PANIC.search(log.read_text(errors="replace")):
                    return True
                time.sleep(0.1)
            return bool(PANIC.search(log.read_text(errors="replace")))
        finally:
            end(process)


# ---- the machine ----------------------------------------------------------------------------------------


class Machine:
    """A running machine, to be used in a `with`; whatever happens, nothing is left after it.

    Its folder, for sockets, logs and keys, is RUN/PID-BIRTH, after the process that holds it.
    """

    def __init__(self, image: Path, settings: Settings) -> None:
        """Start nothing yet."""
        self.image = image
        self.settings = settings
        self.directory = settings.run / own_name()
        self.kept_log = settings.cache / "serial.log"
        self.port = 0
        self.children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Machine:
        """Make the folder."""
        clear_stale(self.settings.run)
        self.directory.mkdir(parents=True, mode=0o700)
        self.settings = choose_accelerator(self.image, self.settings)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End qemu and virtiofsd; keep the serial log after a failure."""
        for child in reversed(self.children):
            end(child)
        serial = self.directory / "serial.log"
        if kind is not None and serial.exists():
            shutil.copy(serial, self.kept_log)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def qemu(self) -> subprocess.Popen[bytes]:
        """The last child."""
        return self.children[-1]

    def boot(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Start the machine and wait until a command can be run; give up when it is no longer `wanted`."""
        began = time.monotonic()
        self.check()
        slow = "software emulation" if self.settings.accel == "tcg" else "hardware virtualisation"
        say(f"machine: booting, {slow} ... ", end="")
        try:
            self.launch()
            state = self.wait_until_ready(wanted)
            if state == "copied":
                self.copy_checkout()
        except BaseException:
            say("failed")
            raise
        say(f"up after {time.monotonic() - began:.1f} s, checkout {state}")

    def check(self) -> None:
        """Raise Trouble for what can be known to be missing before anything is started."""
        hardware()
        if not shutil.which("ssh"):
            raise Trouble("there is no ssh here. Remedy: sudo labs/provision.sh --machine")
        require_memory(self.settings.memory)
        require_space(self.settings.cache, DISK_MB)
        if self.settings.port:
            require_port(self.settings.port)

    def launch(self) -> None:
        """Start virtiofsd, where there is one, and qemu."""
        for name in ("id_ed25519", "known_hosts"):  # a new build removes the image's own
            shutil.copy(self.image / name, self.directory / name)
        for name in (".venv", ".cache"):  # the machine mounts its own there
            (ROOT / name).mkdir(exist_ok=True)
        log, settings = self.directory / "log", self.settings
        if settings.virtiofsd:
            self.children.append(start(plan_share(settings.virtiofsd, self.directory), log))
            self.wait_for_socket(log)
        self.port = free_port()
        qemu = plan_machine(self.image, settings, self.directory, self.port)
        environment = {**os.environ, "TMPDIR": str(settings.cache)}  # what the machine writes
        self.children.append(start(qemu, log, environment))

    def wait_for_socket(self, log: Path) -> None:
        """Wait until virtiofsd listens."""
        deadline = time.monotonic() + 20
        while not (self.directory / "share").exists():
            if self.children[0].poll() is not None or time.monotonic() > deadline:
                raise Trouble(f"virtiofsd did not start:{last_lines(log)}")
            time.sleep(0.05)

    def wait_until_ready(self, wanted: Callable[[], bool]) -> str:
        """Read the serial log until it says "ready"; return "shared" or "copied"."""
        deadline = time.monotonic() + self.settings.boot_limit
        serial, beat = self.directory / "serial.log", pulse()
        while wanted():
            dead = self.qemu.poll() is not None
            text = serial.read_text(errors="replace") if serial.exists() else ""
            if ready := READY.search(text):
                return ready[1]
            if panic := PANIC.search(text):
                raise Trouble(f"the machine does not boot: {panic[1].strip()}{self.evidence()}")
            if dead:
                raise Trouble(f"qemu ended:{last_lines(self.directory / 'log')}{self.evidence()}")
            if time.monotonic() > deadline:
                limit = self.settings.boot_limit
                raise Trouble(
                    f"the machine did not boot within {limit} s{self.evidence()}\n"
                    f"Remedy, if it is only slow: MINI_DOCKER_VM_BOOT_LIMIT={limit * 2}"
                )
            next(beat)
        raise Trouble("nobody waits for the machine any more")

    def evidence(self) -> str:
        """Return the end of the serial log, and where all of it is kept."""
        shown = last_lines(self.directory / "serial.log")
        return f"{shown}\nThe whole serial log: {self.kept_log}" if shown else ""

    def copy_checkout(self) -> None:
        """Send the checkout by tar, where it cannot be shared: what the machine changes stays there."""
        without = [f"--exclude=./{name}" for name in (".venv", ".cache", ".vagrant")]
        tar = ["tar", "-C", str(ROOT), *without, "-cf", "-", "."]
        unpack = [*plan_ssh(self.directory, self.port), f"tar -C {BOOK} -xf -"]
        with subprocess.Popen(tar, stdout=subprocess.PIPE) as sender:
            if subprocess.run(unpack, stdin=sender.stdout, timeout=600).returncode != 0:
                raise Trouble("the checkout could not be copied into the machine")

    def run(self, command: str, limit: float) -> int:
        """Run `command` and return its exit status; Trouble when the machine dies under it."""
        status = run_by_ssh(self.directory, self.port, command, limit)
        if status == 255 and self.qemu.poll() is not None:
            raise Trouble(f"the machine went down while the command ran{self.evidence()}")
        return status

    def is_up(self) -> bool:
        """Tell whether the machine has not gone down by itself."""
        return self.qemu.poll() is None


def run_by_ssh(directory: Path, port: int, command: str, limit: float) -> int:
    """Run `command` in the checkout of the machine at `port`, as a shell would; return its exit status."""
    terminal = ["-t"] if os.isatty(0) and os.isatty(1) else []
    line = f"cd {BOOK} && {{ {command}\n}}"
    try:
        return subprocess.run(
            [*plan_ssh(directory, port, *terminal), line], timeout=limit
        ).returncode
    except subprocess.TimeoutExpired:
        raise Trouble(
            f"stopped after {limit:g} s: {command}\n"
            "The machine is shut off with it. Remedy: MINI_DOCKER_VM_LIMIT=SECONDS"
        ) from None


def clear_stale(run: Path) -> None:
    """Remove the folders of processes that are gone: they were killed, and their children with them."""
    run.mkdir(parents=True, exist_ok=True, mode=0o700)
    for directory in run.iterdir():
        if directory.is_dir() and not is_alive(directory.name):
            shutil.rmtree(directory, ignore_errors=True)


def shut_off(name: str) -> None:
    """End the process called "PID-BIRTH", and with it its machine."""
    pid = int(name.partition("-")[0])
    deadline = time.monotonic() + 15
    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        if is_alive(name):
            os.kill(pid, signal_number)
        while is_alive(name) and time.monotonic() < deadline:
            time.sleep(0.05)
        deadline = time.monotonic() + 5
