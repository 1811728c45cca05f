"""Chapter 2: the table of namespaces, fresh signals, and what PID 1 owes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux import process
from mini_docker.linux.process import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, unshare
from mini_docker.linux.step import apply
from mini_docker.namespaces.kinds import (
    FLAGS,
    PROC_NAMES,
    entries,
    new_namespaces,
    plan_births,
    plan_joins,
)
from mini_docker.namespaces.pid import plan_signals, reap_until
from tests.system import ignore_hidden_signal


def spec_of(*namespaces: Any) -> dict[str, Any]:
    return {"linux": {"namespaces": list(namespaces)}}


def test_the_table_names_what_the_kernel_names() -> None:
    assert {f"CLONE_NEW{PROC_NAMES[kind].upper().replace('MNT', 'NS')}" for kind in FLAGS} == {
        name for name in vars(process) if name.startswith("CLONE_NEW")
    }
    for kind, flag in FLAGS.items():
        name = "CLONE_NEW" + {"mount": "NS", "network": "NET"}.get(kind, kind.upper())
        assert flag == getattr(process, name)
        assert os.path.exists(f"/proc/self/ns/{PROC_NAMES[kind]}")


def test_what_is_new_and_what_is_joined() -> None:
    spec = spec_of({"type": "mount"}, {"type": "uts", "path": "/u"}, {"type": "pid", "path": ""},
                   {"type": "user", "path": "/x"}, {"type": "network", "path": "/n"})  # fmt: skip
    assert new_namespaces(spec) == CLONE_NEWNS | CLONE_NEWPID
    assert [step.arguments[0] for step in plan_births(spec)] == ["/x"]
    assert [step.arguments[0] for step in plan_joins(spec)] == ["/n", "/u"]  # as in FLAGS
    assert new_namespaces({}) == 0 and plan_joins({"linux": {}}) == []


@pytest.mark.parametrize(
    ("namespaces", "words"),
    [
        ([{"type": "pid"}, {"type": "moon"}], r"^linux\.namespaces\[1\]\.type: .*'moon'"),
        ([{}], r"^linux\.namespaces\[0\]\.type: .*None"),
        (
            [{"type": "pid"}, {"type": "pid", "path": "/x"}],
            r"^linux\.namespaces\[1\]\.type: .*twice",
        ),
    ],
)
def test_a_wrong_entry_has_a_path(namespaces: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        entries(spec_of(*namespaces))


def joined() -> tuple[bool, bool]:
    """Keep a UTS namespace open, leave it, join it by path; then try it as the wrong kind."""
    here = os.readlink("/proc/self/ns/uts")
    fd = os.open("/proc/self/ns/uts", os.O_RDONLY)
    unshare(CLONE_NEWUTS | CLONE_NEWNET)
    moved = os.readlink("/proc/self/ns/uts") != here
    apply(plan_joins(spec_of({"type": "uts", "path": f"/proc/self/fd/{fd}"})))
    with pytest.raises(OSError, match="setns"):
        apply(plan_joins(spec_of({"type": "network", "path": f"/proc/self/fd/{fd}"})))
    return moved, os.readlink("/proc/self/ns/uts") == here


@pytest.mark.root
def test_a_namespace_is_joined_by_path_and_only_as_its_kind() -> None:
    assert run_in_child(joined).value == (True, True)


def signals_after_the_plan() -> list[str]:
    ignore_hidden_signal()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
    apply(plan_signals({}))
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]


def test_no_signal_is_blocked_ignored_or_caught_after_the_plan() -> None:
    blocked, ignored, caught = run_in_child(signals_after_the_plan).value
    assert (int(blocked, 16), int(ignored, 16), int(caught, 16)) == (0, 0, 0)


def with_orphans(script: str) -> tuple[int, int]:
    """Adopt a shell's orphans (PR_SET_CHILD_SUBREAPER) and reap until it has ended."""
    process.prctl(process.PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid == 0:
        try:
            os.execv("/bin/sh", ["sh", "-c", script])
        finally:
            os._exit(127)
    code = reap_until(pid)
    left = 0
    while True:
        try:
            os.wait()
            left += 1
        except ChildProcessError:
            return code, left


# two orphans; kill -0 finds each of them, dead or alive, until somebody has reaped it
ORPHANS = """
for seconds in 0.05 0.02; do
    orphan=$(sleep $seconds >/dev/null & echo $!)
    while kill -0 $orphan 2>/dev/null; do sleep 0.01; done
done
exit 7
"""


@pytest.mark.parametrize(
    ("script", "code"),
    [(ORPHANS, 7), ("kill -9 $$", 137), ("exit 0", 0)],
)
def test_orphans_are_reaped_and_the_code_is_the_main_child_s(script: str, code: int) -> None:
    assert run_in_child(with_orphans, script).value == (code, 0)


INIT = """
import os, sys
from mini_docker.namespaces.pid import run_init
variables = {name.encode(): value.encode() for name, value in os.environ.items()}
sys.exit(run_init([word.encode() for word in sys.argv[1:]], variables))
"""


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 3", 3),
        ("kill -TERM $$", 143),
        ("trap 'exit 5' TERM; kill -TERM $PPID; while :; do sleep 0.02; done", 5),
        ("(sleep 0.05 &); exit 4", 4),
    ],
)
def test_the_small_init_forwards_and_reaps(script: str, code: int) -> None:
    command = [sys.executable, "-c", INIT, "sh", "-c", script]
    assert subprocess.run(command, timeout=240).returncode == code
    missing = subprocess.run([sys.executable, "-c", INIT, "/no/such"], capture_output=True)
    assert missing.returncode == 127
