"""The leak detector: each kind of leak is made, and named."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mini_docker.lab import find_leaks, report_leaks, run_in_child, snapshot
from mini_docker.lab.facts import cgroup_hierarchies, make_link
from mini_docker.lab.leaks import CLEAN, Process, compare, descendants, read_cgroups, take
from mini_docker.linux.mount import mount
from mini_docker.linux.process import CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWUTS, sethostname, unshare
from tests.conftest import cannot_run_here


def leaks_of(leak: Callable[[], object], prepare: Callable[[], object] = lambda: None) -> list[str]:
    """Call `leak` in a child, and return what the detector says there."""

    def experiment() -> list[str]:
        prepare()
        before = snapshot()
        leak()
        return find_leaks(before, patience=0)

    outcome = run_in_child(experiment)
    assert outcome.error is None, outcome.output
    found: list[str] = outcome.value
    return found


def fresh_network() -> None:
    unshare(CLONE_NEWNET)


def test_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report_leaks(snapshot())
    assert capsys.readouterr().out == CLEAN + "\n"


def test_mount() -> None:
    assert leaks_of(lambda: mount("tmpfs", "/mnt", "tmpfs")) == ["mount /mnt (tmpfs)"]


def test_mount_point_with_a_space(tmp_path: Path) -> None:
    point = tmp_path / "two words"
    point.mkdir()
    assert leaks_of(lambda: mount("tmpfs", str(point), "tmpfs")) == [f"mount {point} (tmpfs)"]


@pytest.mark.root
def test_link() -> None:
    def link() -> None:
        subprocess.run(["ip", "link", "add", "lab0", "type", "bridge"], check=True)

    if not shutil.which("ip"):
        cannot_run_here("iproute2 is not installed")
    assert leaks_of(link, fresh_network) == ["network link lab0"]


@pytest.mark.root
def test_named_network_namespace() -> None:
    def prepare() -> None:
        mount("tmpfs", "/run", "tmpfs")
        os.mkdir("/run/netns")

    def name() -> None:
        Path("/run/netns/blue").touch()
        mount("/proc/self/ns/net", "/run/netns/blue", None, 4096)

    assert leaks_of(name, prepare) == ["namespace kept by a file /run/netns/blue"]


@pytest.mark.root
def test_control_group() -> None:
    _, hierarchies = cgroup_hierarchies()
    if "pids" not in hierarchies:
        cannot_run_here("there is no pids controller")
    directory = Path(hierarchies["pids"], f"mini_docker_test_{os.getpid()}")
    before = snapshot()
    directory.joinpath("inner").mkdir(parents=True)
    try:
        assert f"control group {directory}" in find_leaks(before, patience=0)
        assert not [leak for leak in find_leaks(before, patience=0) if "inner" in leak]
    finally:
        directory.joinpath("inner").rmdir()
        directory.rmdir()
    assert not [leak for leak in find_leaks(before, patience=0) if str(directory) in leak]


def test_systemd_units_are_not_ours(tmp_path: Path) -> None:
    for name in ("apt.service/inner", "user.slice/session-1.scope", "mini_docker.slice/web", "lab"):
        (tmp_path / name).mkdir(parents=True)
    found = {os.path.relpath(path, tmp_path) for path in read_cgroups([(str(tmp_path), "cgroup2")])}
    assert found == {"mini_docker.slice", "mini_docker.slice/web", "lab"}


@pytest.mark.root
def test_nft_table() -> None:
    if not shutil.which("nft"):
        cannot_run_here("nft is not installed")
    table = ["nft", "add table ip lab_leak"]
    assert leaks_of(lambda: subprocess.run(table), fresh_network) == ["nft table ip lab_leak"]


def test_loop_device() -> None:
    before = snapshot()
    after = replace(before, loops=before.loops | {"loop7: /var/disk.img"})
    assert compare(before, after) == ["loop device loop7: /var/disk.img"]


def test_descriptor_of_a_namespace() -> None:
    before = snapshot()
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        assert find_leaks(before, patience=0) == [f"open descriptor of a namespace {fd} (net)"]
    finally:
        os.close(fd)


def test_child_zombie_and_orphan() -> None:
    before = snapshot()
    child = subprocess.Popen(["sleep", "600"])
    try:
        assert find_leaks(before, patience=0) == [f"process {child.pid} (sleep)"]
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert find_leaks(before, patience=0) == [f"process {child.pid} (sleep, a zombie)"]
    finally:
        child.kill()
        child.wait()
    script = "setsid sleep 600 >/dev/null 2>&1 & echo $!"
    orphan = int(subprocess.run(["sh", "-c", script], capture_output=True).stdout)
    try:
        while "sleep" not in Path(f"/proc/{orphan}/comm").read_text():
            time.sleep(0.005)
        assert find_leaks(before, patience=0) == [f"process {orphan} (sleep)"]
    finally:
        os.kill(orphan, signal.SIGKILL)
    assert find_leaks(before, patience=240) == []


def test_forked_orphan_without_exec_is_found_by_its_command_line() -> None:
    before = snapshot()
    read_fd, write_fd = os.pipe()
    middle = os.fork()
    if middle == 0:
        try:
            os.setsid()
            if pid := os.fork():
                os.write(write_fd, str(pid).encode())
            else:
                time.sleep(600)
        finally:
            os._exit(0)
    os.waitpid(middle, 0)
    orphan = int(os.read(read_fd, 20))
    os.close(read_fd)
    os.close(write_fd)
    try:
        found = find_leaks(before, patience=0)
        assert [leak for leak in found if leak.startswith(f"process {orphan} ")] == found != []
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_what_a_marked_orphan_started_is_ours_whatever_its_environment() -> None:
    before = snapshot()
    script = "setsid sh -c 'env -i setsid sleep 600 & wait' >/dev/null 2>&1 & echo $!"
    orphan = int(subprocess.run(["sh", "-c", script], capture_output=True).stdout)
    try:
        while len(found := find_leaks(before, patience=0)) < 2 or "sleep" not in found[1]:
            time.sleep(0.005)
        assert found[0] == f"process {orphan} (sh)"
    finally:
        for pid in [orphan, *descendants(orphan, snapshot().processes)]:
            os.kill(pid, signal.SIGKILL)


def test_processes_of_others_are_not_ours() -> None:
    before = snapshot()
    environment = {**os.environ, "MINI_DOCKER_LAB": "another learner"}
    script = "setsid sleep 600 >/dev/null 2>&1 & echo $!"
    run = subprocess.run(["sh", "-c", script], capture_output=True, env=environment)
    orphan = int(run.stdout)
    try:
        assert find_leaks(before, patience=0) == []
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_patience_for_what_goes_away_by_itself() -> None:
    before = snapshot()
    child = subprocess.Popen(["sleep", "0.2"])
    reaper = threading.Thread(target=child.wait)
    reaper.start()
    assert find_leaks(before, patience=240) == []
    reaper.join()


def test_report_names_each(capsys: pytest.CaptureFixture[str]) -> None:
    before = snapshot()
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    report_leaks(before, patience=0)
    os.close(fd)
    assert capsys.readouterr().out == (
        f"Left behind:\n  open descriptor of a namespace {fd} (uts)\n"
    )


def test_descendants() -> None:
    tree = [Process(pid, 0, parent, 0, "S", "") for pid, parent in ((2, 1), (3, 2), (4, 3), (9, 8))]
    assert descendants(2, tree) == {3, 4}


@pytest.mark.root
def test_links_can_be_made_for_the_doctor() -> None:
    assert run_in_child(lambda: make_link("veth")).error is None


@pytest.mark.root
def test_a_changed_host_name_and_a_queue_are_named() -> None:
    """An experiment without a UTS namespace of its own once renamed the machine, and nobody noticed."""

    def experiment() -> list[str]:
        unshare(CLONE_NEWUTS | CLONE_NEWIPC)  # stands for the host
        before = snapshot()
        sethostname(b"renamed")
        subprocess.run(["ipcmk", "-Q"], check=True, capture_output=True)
        return [leak.partition(",")[0] for leak in compare(before, take())]

    assert run_in_child(experiment).value == [
        "changed: System V msg 0",
        "changed: host name renamed",
    ]
