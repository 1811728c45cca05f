"""labs/vm: what goes wrong is said in one clear line with status 125, and nothing is left running.

The machines here are fakes: shell scripts in the place of qemu, virtiofsd and ssh. Those marked `vm`
are real: `make vm-test` runs them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from labs.machine import box, image, machine, tasks
from labs.machine.settings import read_settings
from labs.machine.tasks import Trouble
from tests.conftest import cannot_run_here

VM = str(ROOT / "labs" / "vm")

# What FAKE says happens to the machine; its serial log is where the real command line puts it.
QEMU = r"""
echo $$ >>"$FAKE_PIDS"
serial=$(sed 's/.*-serial file:\([^ ]*\).*/\1/' <<<"$*")
case $FAKE in
    ready) echo "mini_docker: ready, shared" >"$serial" ;;
    copied) echo "mini_docker: ready, copied" >"$serial" ;;
    panic) echo "Kernel panic - not syncing: VFS: Unable to mount root fs" >"$serial" ;;
    silent) echo "SeaBIOS" >"$serial" ;;
    refused) echo "Could not access KVM kernel module" >&2; exit 1 ;;
    brief)
        echo $$ >"$FAKE_PIDS.brief"
        echo "mini_docker: ready, shared" >"$serial"
        until [[ -e $FAKE_PIDS.asked ]]; do sleep 0.05; done
        exit ;;
esac
exec sleep 100
"""
VIRTIOFSD = r"""
echo $$ >>"$FAKE_PIDS"
touch "${1#--socket-path=}"
exec sleep 100
"""
SSH = r"""
line=${@: -1}
exec bash -c "${line/cd \/book/cd \/}"
"""


SSH_TO_ONE_THAT_GOES_DOWN = r"""
touch "$FAKE_PIDS.asked"
machine=/proc/$(<"$FAKE_PIDS.brief")/stat
while [[ -e $machine && $(sed 's/.*) //' "$machine") != Z* ]]; do sleep 0.05; done
exit 255
"""


class Bench:
    """labs/vm with fakes in its PATH, and folders of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.run = folder / "run"
        self.programs = folder / "programs"
        self.pids = folder / "pids"
        self.environment = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "FAKE_PIDS": str(self.pids),
            "MINI_DOCKER_VM_CACHE": str(self.cache),
            "MINI_DOCKER_VM_RUN": str(self.run),
            "MINI_DOCKER_VM_ACCEL": "tcg",
            "MINI_DOCKER_VM_MEMORY": "512",
            "MINI_DOCKER_VM_VIRTIOFSD": str(self.programs / "virtiofsd"),
        }
        self.programs.mkdir()
        self.pids.touch()

    def fake(self, name: str, text: str) -> None:
        """Put a bash script into PATH."""
        program = self.programs / name
        program.write_text(f"#!/bin/bash\n{text}")
        program.chmod(0o755)

    def start(self, fake: str, *words: str, **variables: str) -> subprocess.Popen[str]:
        environment = {**self.environment, "FAKE": fake}
        environment |= {f"MINI_DOCKER_VM_{name}": value for name, value in variables.items()}
        return subprocess.Popen(
            [VM, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, fake: str, *words: str, **variables: str) -> tuple[int, str, str]:
        """Run labs/vm to its end; return status, stdout and stderr."""
        process = self.start(fake, *words, **variables)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def alive(self) -> list[int]:
        """Return which fakes are still there."""
        return [int(pid) for pid in self.pids.read_text().split() if tasks.birth(int(pid))]

    def folders(self) -> list[str]:
        """Return the folders of machines that run, or are thought to."""
        return [path.name for path in self.run.glob("*") if path.is_dir()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench with an image that looks finished; afterwards no fake may be alive."""
    if os.geteuid() != 0:
        cannot_run_here("you are not root (remedy: sudo make test)")
    bench = Bench(tmp_path)
    bench.fake(machine.HARDWARE[os.uname().machine].qemu, QEMU)
    bench.fake("virtiofsd", VIRTIOFSD)
    bench.fake("ssh", SSH)
    finished = bench.cache / image.fingerprint()
    finished.mkdir(parents=True)
    for name in ("disk.raw", "vmlinuz", "initrd", "id_ed25519", "known_hosts"):
        (finished / name).touch()
    yield bench
    left = bench.alive()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


def eventually(true: Callable[[], object]) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + 240
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- a command in a machine of its own ------------------------------------------------------------------


def test_output_and_status_are_the_commands_own(bench: Bench) -> None:
    status, out, err = bench.call("ready", "run", "echo here; exit 7")
    assert (status, out) == (7, "here\n")
    assert re.fullmatch(
        r"machine: booting, software emulation \.\.\. up after .* s, checkout shared\n", err
    )
    assert bench.folders() == []


def test_where_nothing_can_be_shared_the_checkout_is_copied(bench: Bench) -> None:
    bench.fake("ssh", 'line=${@: -1}; [[ $line == tar* ]] && exec tar -t >"$FAKE_PIDS.tar"; exit 3')
    status, _, err = bench.call("copied", "run", "true", VIRTIOFSD="")
    assert status == 3
    assert "checkout copied" in err
    sent = Path(f"{bench.pids}.tar").read_text().splitlines()
    assert "./labs/vm" in sent
    assert not any(name.startswith("./.venv") for name in sent)


def test_a_kernel_panic_is_shown_and_the_serial_log_kept(bench: Bench) -> None:
    status, out, err = bench.call("panic", "run", "true")
    assert (status, out) == (125, "")
    assert "labs/vm: the machine does not boot: Kernel panic - not syncing: VFS" in err
    assert f"The whole serial log: {bench.cache}/serial.log" in err
    assert "Kernel panic" in (bench.cache / "serial.log").read_text()


def test_a_machine_that_says_nothing_is_given_up(bench: Bench) -> None:
    for limit in (1, 8, 64):  # until one is enough for its first word
        status, _, err = bench.call("silent", "run", "true", BOOT_LIMIT=str(limit))
        assert status == 125
        if "SeaBIOS" in err:
            break
    assert f"the machine did not boot within {limit} s\n    SeaBIOS" in err
    assert f"MINI_DOCKER_VM_BOOT_LIMIT={2 * limit}" in err


def test_what_qemu_says_when_it_refuses_is_shown(bench: Bench) -> None:
    status, _, err = bench.call("refused", "run", "true")
    assert status == 125
    assert "labs/vm: qemu ended:\n    Could not access KVM kernel module" in err


def test_a_virtiofsd_that_does_not_start_is_said(bench: Bench) -> None:
    bench.fake("virtiofsd", "echo no such option >&2; exit 1")
    status, _, err = bench.call("ready", "run", "true")
    assert status == 125
    assert "labs/vm: virtiofsd did not start:\n    no such option" in err


def test_a_command_that_hangs_is_stopped_and_the_next_one_runs(bench: Bench) -> None:
    status, _, err = bench.call("ready", "run", "exec sleep 60", LIMIT="1")
    assert status == 125
    assert "labs/vm: stopped after 1 s: exec sleep 60\n" in err
    assert bench.alive() == []
    assert bench.call("ready", "run", "exit 0")[0] == 0


def test_a_machine_that_goes_down_under_the_command_is_said(bench: Bench) -> None:
    bench.fake("ssh", SSH_TO_ONE_THAT_GOES_DOWN)
    status, _, err = bench.call("brief", "run", "true")
    assert status == 125
    assert "labs/vm: the machine went down while the command ran" in err


def test_a_kill_takes_the_machine_along_and_the_next_call_clears_its_folder(bench: Bench) -> None:
    process = bench.start("ready", "run", "sleep 60")
    eventually(lambda: len(bench.alive()) == 2)
    eventually(bench.folders)
    process.kill()
    process.communicate()
    eventually(lambda: not bench.alive())
    assert len(bench.folders()) == 1
    assert bench.call("ready", "run", "exit 0")[0] == 0
    assert bench.folders() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_cleans_up(bench: Bench, number: signal.Signals) -> None:
    process = bench.start("ready", "run", "sleep 60")
    eventually(lambda: len(bench.alive()) == 2)
    process.send_signal(number)
    process.communicate(timeout=240)
    assert process.returncode == 128 + number
    eventually(lambda: not bench.alive())
    assert bench.folders() == []


# ---- the machine that stays up --------------------------------------------------------------------------


def test_a_machine_stays_up_until_it_is_taken_down(bench: Bench) -> None:
    assert bench.call("ready", "status")[0] == 1
    assert bench.call("ready", "up")[0] == 0
    assert bench.call("ready", "up")[::2] == (0, "machine: already up\n")
    assert bench.call("ready", "status")[0] == 0
    assert bench.call("ready", "run", "echo again; exit 5") == (5, "again\n", "")
    assert bench.call("ready", "down")[::2] == (0, "machine: down\n")
    assert (bench.alive(), bench.folders()) == ([], [])
    assert bench.call("ready", "down")[::2] == (0, "machine: none is up\n")


def test_a_machine_that_does_not_come_up_leaves_nothing(bench: Bench) -> None:
    status, _, err = bench.call("panic", "up")
    assert status == 125
    assert err.count("Kernel panic") == 2  # the sentence, and the end of the serial log
    assert (bench.alive(), bench.folders()) == ([], [])


def test_a_killed_holder_takes_its_machine_along_and_counts_for_nothing(bench: Bench) -> None:
    assert bench.call("ready", "up")[0] == 0
    os.kill(int((bench.run / "resident").read_text().partition("-")[0]), signal.SIGKILL)
    eventually(lambda: not bench.alive())
    assert bench.call("ready", "status")[0] == 1
    assert bench.call("ready", "up")[0] == 0
    assert bench.call("ready", "down")[0] == 0
    assert bench.folders() == []


def test_a_caller_who_leaves_before_it_is_up_leaves_nothing(bench: Bench) -> None:
    process = bench.start("silent", "up")
    eventually(lambda: len(bench.alive()) == 2)
    process.kill()
    process.communicate()
    eventually(lambda: not bench.alive())
    eventually(lambda: not bench.folders())


def test_a_machine_goes_with_the_process_that_it_was_for(bench: Bench) -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        assert bench.call("ready", "up", "--with", str(process.pid))[0] == 0
        assert len(bench.alive()) == 2
        process.kill()
    eventually(lambda: not bench.alive())
    assert bench.call("ready", "status")[0] == 1


def test_a_machine_that_boots_goes_with_the_process_that_it_was_for(bench: Bench) -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        booting = bench.start("silent", "up", "--with", str(process.pid))
        eventually(lambda: len(bench.alive()) == 2)
        process.kill()
    assert booting.wait(240) == 125
    booting.communicate()
    eventually(lambda: not bench.alive())


def test_a_command_that_hangs_there_takes_it_down(bench: Bench) -> None:
    assert bench.call("ready", "up")[0] == 0
    assert bench.call("ready", "run", "exec sleep 60", LIMIT="1")[0] == 125
    assert bench.call("ready", "status")[0] == 1
    assert bench.alive() == []


def test_a_pid_that_went_to_somebody_else_is_not_taken_for_a_machine(bench: Bench) -> None:
    bench.run.mkdir()
    (bench.run / "resident").write_text(f"{os.getpid()}-1 22 {ROOT}")
    assert bench.call("ready", "status")[0] == 1
    assert bench.call("ready", "down")[0] == 0


# ---- what is missing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "variables", "line"),
    [
        (["fly"], {}, "what is 'fly'? See labs/vm --help"),
        (["down", "now"], {}, "what is 'now'? See labs/vm --help"),
        (["run"], {}, "run what? labs/vm run 'uname -r'"),
        (
            ["run", "true"],
            {"ACCEL": "warp"},
            "MINI_DOCKER_VM_ACCEL is 'warp', and can be auto, kvm, tcg",
        ),
        (
            ["run", "true"],
            {"MEMORY": "4G"},
            "MINI_DOCKER_VM_MEMORY is '4G', and can be 512 to 1048576",
        ),
        (["run", "true"], {"CPUS": "0"}, "MINI_DOCKER_VM_CPUS is '0', and can be 1 to "),
        (
            ["run", "true"],
            {"MEMORY": "1048576"},
            "the machine is to have 1048576 MB of memory, and ",
        ),
    ],
)
def test_bad_words_and_settings_get_one_line(
    bench: Bench, words: list[str], variables: dict[str, str], line: str
) -> None:
    status, out, err = bench.call("ready", *words, **variables)
    assert (status, out) == (125, "")
    assert err.startswith(f"labs/vm: {line}")
    assert err.count("\n") == 1
    assert bench.pids.read_text() == ""


def test_a_port_that_is_taken_is_named_with_the_next_one(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        status, _, err = bench.call("ready", "run", "true", PORT=str(port))
    assert status == 125
    assert f"port {port} is taken (Address already in use)" in err
    assert f"MINI_DOCKER_VM_PORT={port + 1}" in err


def test_without_qemu_the_package_is_named_before_an_image_is_made(bench: Bench) -> None:
    for name in ("setpriv", "env", "sh"):
        (bench.programs / name).symlink_to(shutil.which(name) or name)
    (bench.programs / machine.HARDWARE[os.uname().machine].qemu).unlink()
    shutil.rmtree(bench.cache)
    bench.environment["PATH"] = str(bench.programs)
    status, _, err = bench.call("ready", "run", "true")
    assert status == 125
    assert err == "labs/vm: there is no qemu here. Remedy: sudo labs/provision.sh --machine\n"


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=rf"{tmp_path} has \d+ MB free, and 1000000000 are needed"):
        image.require_space(tmp_path, 1_000_000_000)


@pytest.mark.parametrize(
    ("kernel", "chosen"),
    [("echo 'Kernel panic - not syncing'; exec sleep 100", "kvm"), ("exec sleep 100", "tcg")],
)
def test_kvm_is_chosen_when_a_kernel_says_a_word_under_it(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str, chosen: str
) -> None:
    qemu = machine.HARDWARE[os.uname().machine].qemu
    bench.fake(qemu, f'echo "$*" >>{tmp_path}/asked\n{kernel}')
    monkeypatch.setenv("PATH", bench.environment["PATH"])
    monkeypatch.setattr(os, "access", lambda *_: True)
    monkeypatch.setattr(machine, "PROBE_LIMIT", 240.0 if chosen == "kvm" else 1.0)
    (tmp_path / "asked").touch()
    settings = read_settings({})._replace(run=tmp_path / "noted", accel="auto")
    settings.run.mkdir()
    for _ in range(2):
        assert machine.choose_accelerator(tmp_path, settings).accel == chosen
    assert len((tmp_path / "asked").read_text().splitlines()) <= 1  # the second time it is known


# ---- the image ------------------------------------------------------------------------------------------


def test_the_image_has_the_packages_that_the_provisioner_installs() -> None:
    assert {"python3", "python3-venv", "busybox-static", "nftables"} <= set(image.lab_packages())
    assert not any("#" in name or "(" in name for name in image.lab_packages())


def test_sources_of_the_distribution_are_taken_and_others_left(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    (tmp_path / "sources.list").write_text("# deb mirror bookworm main\ndeb mirror sid main\n")
    (lists / "debian.sources").write_text("URIs: mirror\nSuites: bookworm bookworm-updates\n")
    (lists / "old.list").write_text("deb [signed-by=/k] mirror bookworm main contrib\n")
    (lists / "cloud.list").write_text("deb mirror cloud-sdk-bookworm main\n")
    (lists / "node.sources").write_text("Suites: nodistro\n")
    (lists / "old.list.save").write_text("deb mirror bookworm main\n")
    found = [path.name for path in image.apt_sources("bookworm", tmp_path)]
    assert found == ["debian.sources", "old.list"]


def test_a_build_that_was_killed_is_begun_anew(bench: Bench) -> None:
    shutil.rmtree(bench.cache)
    bench.fake("mmdebstrap", 'mkdir "${@: -2:1}/half"; sleep 100')
    process = bench.start("ready", "build")
    eventually(lambda: list(bench.cache.glob("making/root/half")) or process.poll() is not None)
    process.kill()
    process.communicate()
    eventually(lambda: not running_in(bench.cache))
    assert bench.call("ready", "status")[1].startswith("image: not built")

    bench.fake("mmdebstrap", f"ls {bench.cache}/making/root; echo no such mirror; exit 1")
    status, _, err = bench.call("ready", "build")
    assert status == 125
    assert re.search(
        r"\nlabs/vm: mmdebstrap failed:\n[^$]*\$ mmdebstrap .*\n    no such mirror\n", err
    )
    assert f"The whole log: {bench.cache}/build.log\n" in err
    assert not (bench.cache / "making").exists()


def running_in(folder: Path) -> list[str]:
    """Return the processes whose arguments name `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = path.read_bytes()
        except OSError:
            continue
        if os.fsencode(folder) in arguments and int(path.parent.name) != os.getpid():
            found.append(path.parent.name)
    return found


def test_builds_at_the_same_time_wait_for_each_other(bench: Bench) -> None:
    shutil.rmtree(bench.cache)
    bench.fake("mmdebstrap", "until [[ -e $FAKE_PIDS.go ]]; do sleep 0.05; done; exit 1")
    first = bench.start("ready", "build")
    eventually(lambda: list(bench.cache.glob("making")))
    second, said = bench.start("ready", "build"), b""
    assert second.stderr is not None
    while b"Another build is under way" not in said:
        piece = os.read(second.stderr.fileno(), 4096)
        assert piece, said
        said += piece
    Path(f"{bench.pids}.go").touch()
    assert "Another build is under way" not in first.communicate(timeout=240)[1]
    second.communicate(timeout=240)


# ---- what has passed there ------------------------------------------------------------------------------

RECORD = "source labs/vm-record.sh; "


def test_the_record_names_what_changed_since_everything_passed(tmp_path: Path) -> None:
    """By the files' content alone: a fresh clone has no times and no history to trust."""
    (tmp_path / "labs").mkdir()
    shutil.copy(ROOT / "labs" / "vm-record.sh", tmp_path / "labs")
    chapter, module = tmp_path / "notebooks" / "one.ipynb", tmp_path / "mini_docker" / "one.py"
    for path in (chapter, module, tmp_path / "README.md"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("first\n")

    def shell(script: str) -> str:
        return subprocess.run(
            ["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    shell("git init -q; echo __pycache__/ >.gitignore")
    assert shell(RECORD + "changed") == "the machine, the package, the chapters, the tests"
    assert shell(RECORD + "write_record 'all well'; changed; how_it_went") == "all well\n"
    (tmp_path / "README.md").write_text("second\n")
    (module.parent / "__pycache__").mkdir()
    (module.parent / "__pycache__" / "one.pyc").touch()
    assert shell(RECORD + "changed") == ""
    chapter.write_text("second\n")
    assert shell(RECORD + "changed") == "the chapters"
    chapter.write_text("first\n")
    (module.parent / "two.py").touch()
    assert shell(RECORD + "changed") == "the package"
    module.unlink()
    (module.parent / "two.py").unlink()
    assert shell(RECORD + "changed") == "the package"


def test_every_chapter_and_every_file_that_asks_the_kernel_is_a_job_once(tmp_path: Path) -> None:
    script = "source labs/vm-test.sh; CACHE=$0 QUEUE=$0/queue; fill_queue; cat $QUEUE >&2; "
    script += (
        'mkdir $0/seen; work() { while job=$(take_job); do mkdir "$0/seen/${job// /,}"; done; }; '
    )
    done = subprocess.run(
        ["bash", "-c", script + "work & work; wait", tmp_path],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    jobs = [line.split() for line in done.stderr.splitlines()]
    assert sorted(os.listdir(tmp_path / "seen")) == sorted(",".join(words) for words in jobs)
    chapters = [name for kind, *names in jobs for name in names if kind == "notebooks"]
    assert sorted(chapters) == sorted(path.stem for path in ROOT.glob("notebooks/*.ipynb"))
    files = [name for kind, *names in jobs for name in names if kind == "tests"]
    assert len(files) == len(set(files))
    assert {"run", "cgroups", "seccomp", "daemon", "networks", "volumes", "systemd"} <= set(files)


def test_no_room_on_the_disk_is_said_and_nothing_begun(bench: Bench) -> None:
    """A run wants a gigabyte for what the machine writes, and a build four."""
    small = bench.folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", small], check=True)
    try:
        shutil.copytree(bench.cache, small / "cache")
        bench.environment["MINI_DOCKER_VM_CACHE"] = str(small / "cache")
        for words, needed in ((["run", "true"], 1000), (["build", "--again"], 4000)):
            status, _, err = bench.call("ready", *words)
            assert status == 125
            assert re.search(
                rf"^labs/vm: {small}/cache has 1\d MB free, and {needed} are needed", err, re.M
            )
            assert "Remedy: make room, or set MINI_DOCKER_VM_CACHE" in err
            assert set(os.listdir(small / "cache")) <= {image.fingerprint(), "lock"}
    finally:
        subprocess.run(["umount", small], check=True)


# ---- a real one -----------------------------------------------------------------------------------------


def real(command: str) -> tuple[int, str]:
    """Run `command` in the machine that `make vm-test` has brought up."""
    done = subprocess.run(
        [VM, "run", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


@pytest.mark.vm
def test_a_real_machine_has_control_groups_v2_and_our_checkout() -> None:
    kinds = "stat -fc %T /sys/fs/cgroup && git rev-parse --show-toplevel && pwd"
    assert real(kinds) == (0, "cgroup2fs\n/book\n/book\n")


@pytest.mark.vm
def test_a_real_machine_passes_status_streams_and_files() -> None:
    assert real("echo to stderr >&2; exit 7") == (7, "")
    name = ROOT / f"vm-test-{os.getpid()}"
    try:
        assert real(f"echo written inside >/book/{name.name}") == (0, "")
        assert name.read_text() == "written inside\n"
    finally:
        name.unlink(missing_ok=True)


@pytest.mark.vm
def test_a_real_machine_runs_a_container_on_its_own_disk() -> None:
    status, out = real("mini_docker setup >&2 && mini_docker run --rm busybox echo hello")
    assert (status, out) == (0, "hello\n")
    assert real("findmnt -no FSTYPE -T /var/lib/mini_docker") == (0, "ext4\n")


@pytest.mark.vm
def test_a_real_machine_provisions_twice_and_finds_everything_there() -> None:
    status, out = real("labs/provision.sh --offline")
    assert status == 0
    assert out.count("already there") == 2


def test_a_box_says_that_its_disk_holds_its_partition() -> None:
    """Vagrant makes the disk of the size that the box names: one megabyte less, and it does not boot."""
    assert box.whole_gigabytes() << 30 >= image.DISK_SIZE + box.PARTITION
