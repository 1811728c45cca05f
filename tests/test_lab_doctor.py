"""The doctor, on machines that are imagined and on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from mini_docker.lab import CannotRun, require
from mini_docker.lab.doctor import as_json, as_table, main
from mini_docker.lab.facts import CONTROLLERS, NAMESPACES, PROGRAMS, Facts, attempt, gather_facts
from mini_docker.lab.preflight import Check, checks, readiness

GOOD = Facts(
    machine="x86_64",
    kernel="6.1.0-18-amd64",
    uid=0,
    capabilities=(1 << 41) - 1,
    container="",
    namespaces=dict.fromkeys(NAMESPACES, ""),
    ordinary_user="",
    sysctls={},
    data_dir="/var/lib",
    overlay="",
    free_bytes=1 << 35,
    cgroup_version="v2",
    controllers=frozenset(CONTROLLERS),
    cgroups="",
    nftables="",
    links={"veth": "", "bridge": ""},
    mqueue="",
    btrfs="",
    seccomp="",
    programs=frozenset(PROGRAMS),
)


def stopped(facts: Facts) -> dict[str, tuple[str, str]]:
    """Return {chapter number: (reason, remedy)} of the chapters that cannot run."""
    return {
        ready.chapter.number: (ready.reason, ready.remedy)
        for ready in readiness(checks(facts))
        if not ready.ok
    }


def one(facts: Facts, name: str) -> Check:
    (found,) = [check for check in checks(facts) if check.name == name]
    return found


def test_a_good_machine_runs_everything() -> None:
    assert all(check.ok for check in checks(GOOD))
    assert stopped(GOOD) == {}


def test_not_root() -> None:
    refused = dict.fromkeys(NAMESPACES, "PermissionError: [Errno 1] unshare")
    facts = replace(GOOD, uid=1000, capabilities=0, namespaces=refused, overlay="not tried")
    assert "0" not in stopped(facts)
    reason, remedy = stopped(facts)["4"]
    assert reason == "you are not root but user 1000"
    assert "sudo make lab" in remedy
    assert one(facts, "overlay").ok is None
    table = as_table(checks(facts), readiness(checks(facts)))
    assert "cannot run here, because you are not root but user 1000" in table


def test_root_without_capabilities() -> None:
    facts = replace(GOOD, capabilities=0xA80425FB, container="/.dockerenv exists")
    assert "CAP_SYS_ADMIN" in stopped(facts)["2"][0]
    assert one(facts, "own machine").ok is None


@pytest.mark.parametrize(
    ("kernel", "ok"), [("5.10.0", True), ("5.4.0-150", False), ("4.19", False)]
)
def test_old_kernel(kernel: str, ok: bool) -> None:
    facts = replace(GOOD, kernel=kernel)
    assert one(facts, "kernel").ok is ok
    assert ("1" in stopped(facts)) is not ok


def test_no_cgroups() -> None:
    facts = replace(GOOD, cgroup_version="", controllers=frozenset())
    assert {"8", "11", "14", "19"} <= set(stopped(facts))
    assert not {"0", "1", "4", "7", "10", "12"} & set(stopped(facts))
    assert "no cgroup file system" in stopped(facts)["8"][0]


def test_a_missing_controller_is_named() -> None:
    facts = replace(GOOD, controllers=frozenset({"cpu", "pids"}))
    assert stopped(facts)["8"][0] == "control groups: no controller memory (v2)"


def test_inside_a_container_is_a_warning_with_a_remedy() -> None:
    facts = replace(GOOD, container="/.dockerenv exists")
    assert stopped(facts) == {}
    assert "virtual machine" in one(facts, "own machine").remedy


def test_no_overlay() -> None:
    facts = replace(GOOD, overlay="OSError: [Errno 22] mount: Invalid argument")
    assert {"10", "10b", "14", "19"} <= set(stopped(facts))
    assert not {"0", "1", "4", "8", "11", "12"} & set(stopped(facts))
    assert "MINI_DOCKER_ROOT" in stopped(facts)["10"][1]


@pytest.mark.parametrize(
    ("change", "stop", "run"),
    [
        ({"links": {"veth": "", "bridge": "EOPNOTSUPP"}}, "3 3b 14 15 19", "1 4 8 11"),
        ({"nftables": "OSError: libnftables.so.1"}, "3b 14 15 19", "1 3 4 11"),
        ({"btrfs": "there is no mkfs.btrfs"}, "10b", "10 11 14 19"),
        ({"mqueue": "ENODEV"}, "5 11 14 19", "1 4 6 10"),
        ({"machine": "riscv64"}, "1 2 3 4 8 11 14", "0"),
        ({"free_bytes": 1 << 20}, "12 14 19", "1 4 10 11"),
        ({"namespaces": {**GOOD.namespaces, "time": "EINVAL"}}, "7", "1 6 11 14"),
    ],
)
def test_what_stops_what(change: dict[str, object], stop: str, run: str) -> None:
    found = set(stopped(replace(GOOD, **change)))  # type: ignore[arg-type]
    assert set(stop.split()) <= found
    assert not set(run.split()) & found


def test_ordinary_users_behind_apparmor() -> None:
    name = "kernel/apparmor_restrict_unprivileged_userns"
    check = one(
        replace(GOOD, ordinary_user="PermissionError", sysctls={name: "1"}), "ordinary users"
    )
    assert check.ok is None
    assert "kernel.apparmor_restrict_unprivileged_userns is 1" in check.detail


def test_programs_name_their_packages() -> None:
    check = one(replace(GOOD, programs=frozenset({"mount"})), "programs")
    assert check.ok is None
    assert check.remedy.startswith("sudo apt install busybox-static graphviz iproute2 nftables")


def test_every_failure_has_a_remedy() -> None:
    bad = Facts(
        "riscv64", "4.4", 0, 0, "docker", dict.fromkeys(NAMESPACES, "EINVAL"), "EPERM", {}, "/",
        "EINVAL", 0, "", frozenset(), "", "missing", {"veth": "x", "bridge": "y"}, "x", "x", "x", frozenset(),
    )  # fmt: skip
    assert [check.name for check in checks(bad) if not check.ok and not check.remedy] == []


def test_json() -> None:
    document = json.loads(as_json(checks(GOOD), readiness(checks(GOOD))))
    assert document["chapters"][0] == {
        "number": "0",
        "title": "Start here",
        "ok": True,
        "reason": "",
        "remedy": "",
    }
    assert {check["name"] for check in document["checks"]} >= {"root", "overlay"}


def test_this_machine(leak_free: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert gather_facts().machine == os.uname().machine
    assert main([]) in (0, 1)
    assert "Chapters" in capsys.readouterr().out
    assert main(["--nonsense"]) == 2


@pytest.mark.root
def test_an_ordinary_user_gets_a_table_not_a_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = (
        "import os, sys; from mini_docker.lab.doctor import main; import ctypes.util;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(main([]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 1
    assert run.stderr == ""
    assert run.stdout.endswith("Remedy: start the notebooks as root: sudo make lab\n")


def test_require(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MINI_DOCKER_CHAPTER", "")
    old = replace(GOOD, kernel="4.19")
    monkeypatch.setattr("mini_docker.lab.preflight.gather_facts", lambda: old)
    with pytest.raises(CannotRun, match="older than 5.10"):
        require(4)
    assert capsys.readouterr().out.startswith("cannot run here, because Linux 4.19 is older")
    monkeypatch.setattr("mini_docker.lab.preflight.gather_facts", lambda: GOOD)
    require("3b")
    assert capsys.readouterr().out == "This chapter can run here.\n"
    assert os.environ["MINI_DOCKER_CHAPTER"] == "3b"
    with pytest.raises(ValueError, match="no chapter 99"):
        require(99)


def test_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(1, "no")

    assert attempt(lambda: None) == ""
    assert attempt(fail) == "PermissionError: [Errno 1] no"
    monkeypatch.setenv("MINI_DOCKER_LAB_PATIENCE", "0.1")
    assert attempt(lambda: __import__("time").sleep(60), seconds=1) == (
        "the attempt did not end in time"
    )
