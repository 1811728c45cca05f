"""Experiments in a child: what they print and return, and that nothing of them survives."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mini_docker.lab import CannotRun, in_child, run_in_child, sh
from mini_docker.lab.experiment import OUTPUT_LIMIT
from mini_docker.lab.leaks import read_mounts
from mini_docker.linux.mount import mount
from mini_docker.linux.process import default_action
from tests.conftest import cannot_run_here
from tests.system import children as named_children
from tests.system import ignore_hidden_signal, until

pytestmark = pytest.mark.usefixtures("leak_free")


def running(argument: str) -> list[int]:
    """Return the pids of the processes whose last argument is `argument`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().endswith(argument.encode() + b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def rare() -> str:
    """A number of seconds that no other `sleep` on this machine uses."""
    return f"{90_000 + os.getpid()}.{time.monotonic_ns() % 1_000_000:06d}"


def test_value_comes_back() -> None:
    assert run_in_child(lambda a, b: {"sum": a + b}, 2, 3).value == {"sum": 5}
    assert len(run_in_child(lambda: b"x" * 3_000_000).value) == 3_000_000


def test_a_slow_machine_is_given_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_DOCKER_LAB_PATIENCE", "1000")
    outcome = run_in_child(time.sleep, 0.1, timeout=0.01)
    assert (outcome.status, outcome.timed_out) == (0, False)


def test_pids_are_the_same_in_every_run() -> None:
    assert run_in_child(lambda: (os.getpid(), os.getppid())).value == (2, 1)
    pids = run_in_child(lambda: [n for n in os.listdir("/proc") if n.isdigit()]).value
    assert sorted(pids) == ["1", "2"]


def test_output_is_in_order() -> None:
    def experiment() -> None:
        print("first")
        subprocess.run(["echo", "second"])
        print("third", file=sys.stderr)
        print("no newline", end="")

    assert run_in_child(experiment).output == "first\nsecond\nthird\nno newline"


def test_forked_child_does_not_print_twice() -> None:
    def experiment() -> None:
        print("once;", end=" ")
        if os.fork() == 0:
            print("child", flush=True)
            os._exit(0)
        os.wait()

    assert run_in_child(experiment).output == "once; child\n"


def test_a_forked_child_that_returns_does_not_answer() -> None:
    def experiment() -> str:
        if os.fork() == 0:
            return "child"
        os.wait()
        return "parent"

    assert run_in_child(experiment).value == "parent"


@pytest.mark.parametrize(
    ("experiment", "printed"),
    [
        (lambda: os.kill(1, 99), "OSError: [Errno 22] Invalid argument\n"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL\n"),
        (lambda: sys.exit("good bye"), "good bye\n(exit status 1)\n"),
        (lambda: sys.exit(3), "(exit status 3)\n"),
        (lambda: os._exit(4), "(exit status 4)\n"),
        (lambda: sys.exit(), ""),
        (lambda: os.write(1, b"part of a line") and None, "part of a line\n"),
        (lambda: os.write(1, b"\xff\n") and None, "\N{REPLACEMENT CHARACTER}\n"),
    ],
)
def test_how_an_end_is_printed(
    experiment: Callable[[], object], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_child(experiment) is None
    assert capsys.readouterr().out == printed


def test_a_value_that_cannot_be_pickled_is_an_error() -> None:
    outcome = run_in_child(lambda: lambda: None)
    assert outcome.value is None
    assert outcome.error is not None and "pickle" in outcome.error


def test_shell_session(capsys: pytest.CaptureFixture[str]) -> None:
    sh("""
        for n in 1 2; do
            echo $n
        done
        false
    """)
    printed = capsys.readouterr().out
    assert printed == (
        "$ for n in 1 2; do\n>     echo $n\n> done\n$ false\n1\n2\n(exit status 1)\n"
    )


def test_timeout_stops_everything(
    rare: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINI_DOCKER_LAB_PATIENCE", "1")
    for seconds in (0.3, 3, 30):  # until one is enough to begin
        sh(f"echo begun; sleep {rare} & sleep {rare}", timeout=seconds)
        shown = capsys.readouterr().out
        if "\nbegun" in shown:
            break
    assert shown.endswith(f"begun\nstopped after {seconds:g} s\n")
    assert running(rare) == []


def test_endless_output_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_DOCKER_LAB_PATIENCE", "1")
    outcome = run_in_child(os.execvp, "yes", ["yes"], timeout=0.2)
    assert outcome.timed_out
    assert len(outcome.output) < OUTPUT_LIMIT + 100


def test_long_output_is_cut() -> None:
    outcome = run_in_child(os.execvp, "sh", ["sh", "-c", f"yes | head -c {2 * OUTPUT_LIMIT}"])
    assert OUTPUT_LIMIT < len(outcome.output) < OUTPUT_LIMIT + 100
    assert outcome.status == 0


def daemonise(seconds: str) -> str:
    """Double-fork a daemon in its own session that ignores SIGTERM; return once it is an orphan."""
    script = f"trap '' TERM HUP INT; exec setsid setsid --fork sleep {seconds}"
    subprocess.run(["sh", "-c", script], check=True)
    while not (pids := running(seconds)):
        time.sleep(0.005)
    stat = Path(f"/proc/{pids[0]}/stat").read_text()
    return stat.split(") ")[1].split()[1]


def test_a_daemon_dies_with_its_experiment(rare: str) -> None:
    # The daemon holds the output pipe open as well: waiting for the pipe's end would take a day.
    outcome = run_in_child(daemonise, rare)
    assert outcome.value == "1", "the daemon was not reparented to pid 1"
    assert running(rare) == []


def test_interrupt_stops_the_experiment(rare: str) -> None:
    def interrupt() -> None:
        while not running(rare):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run_in_child(os.execvp, "sleep", ["sleep", rare], timeout=60)
    thread.join()
    assert running(rare) == []


def test_the_experiment_dies_with_the_kernel(rare: str) -> None:
    program = (
        "import os; from mini_docker.lab import CannotRun, in_child;"
        f"in_child(os.execvp, 'sleep', ['sleep', '{rare}'], timeout=60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    kernel = subprocess.Popen([sys.executable, "-c", program], env=environment)
    while not running(rare):
        assert kernel.poll() is None
        time.sleep(0.01)
    kernel.kill()
    kernel.wait()
    until(lambda: not running(rare))


def test_mounts_stay_inside() -> None:
    before = set(read_mounts())

    def experiment() -> bool:
        mount("tmpfs", "/mnt", "tmpfs")
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        shared = [line for line in lines if " shared:" in line or " master:" in line]
        return ("/mnt", "tmpfs") in set(read_mounts()) and not shared

    assert run_in_child(experiment).value is True
    assert set(read_mounts()) == before


def test_only_the_value_pipe_is_inherited() -> None:
    with open("/dev/null") as file:
        os.set_inheritable(file.fileno(), True)
        assert run_in_child(lambda: sorted(os.listdir("/proc/self/fd"))).value == list("01234")
    outcome = run_in_child(os.execvp, "ls", ["ls", "/proc/self/fd"])
    assert outcome.output.split() == list("0123")  # 3 is ls' own


def test_signals_are_as_after_a_login() -> None:
    def experiment() -> tuple[str, str]:
        lines = Path("/proc/self/status").read_text().splitlines()
        fields = dict(line.split(":\t") for line in lines if ":\t" in line)
        return fields["SigBlk"], fields["SigIgn"]

    ignore_hidden_signal()
    try:
        assert run_in_child(experiment).value == ("0" * 16, "0" * 16)
    finally:
        default_action(32)


def test_it_works_from_a_thread_and_inside_itself() -> None:
    values = []
    thread = threading.Thread(target=lambda: values.append(run_in_child(os.getpid).value))
    thread.start()
    thread.join()
    values.append(run_in_child(lambda: run_in_child(os.getpid).value).value)
    assert values == [2, 2]


def children() -> set[str]:
    """Return our children, zombies too: those of other tests' fixtures among them."""
    found: set[str] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
            found.update(path.read_text().split())
    return found


def test_it_leaves_no_descriptor_and_no_zombie() -> None:
    before = sorted(os.listdir("/proc/self/fd")), children()
    for _ in range(5):
        run_in_child(os.getpid)
    assert (sorted(os.listdir("/proc/self/fd")), children()) == before


def test_the_experiment_dies_with_its_supervisor(rare: str) -> None:
    before = children()

    def kill_the_supervisor() -> None:
        while not running(rare):
            time.sleep(0.005)
        (supervisor,) = children() - before
        os.kill(int(supervisor), signal.SIGKILL)

    thread = threading.Thread(target=kill_the_supervisor)
    thread.start()
    outcome = run_in_child(os.execvp, "sleep", ["sleep", rare], timeout=60)
    thread.join()
    assert (outcome.status, outcome.timed_out) == (-signal.SIGKILL, False)
    until(lambda: not running(rare))


def is_in_state(pid: int, state: str) -> bool:
    return f"State:\t{state}" in Path(f"/proc/{pid}/status").read_text()


def waits_still(pid: int) -> bool:
    """Say whether a process sleeps and has taken every SIGCHLD that was sent to it."""
    about = Path(f"/proc/{pid}/status").read_text()
    pending = [int(mask, 16) for mask in re.findall(r"(?:Sig|Shd)Pnd:\s+(\w+)", about)]
    return is_in_state(pid, "S") and not any(mask >> signal.SIGCHLD - 1 & 1 for mask in pending)


def test_a_stopped_experiment_goes_on(rare: str) -> None:
    """A stop, and going on, send the supervisor the signal of an end: it must look what has happened."""
    before = children()

    def stop_and_go_on() -> None:
        until(lambda: running(rare))
        (supervisor,) = map(int, children() - before)
        (init,) = named_children(supervisor, "lab-init")
        for number, state in ((signal.SIGSTOP, "T"), (signal.SIGCONT, "S")):
            os.kill(init, number)
            until(partial(is_in_state, init, state))
            until(partial(waits_still, supervisor))
        os.kill(running(rare)[0], signal.SIGKILL)

    thread = threading.Thread(target=stop_and_go_on)
    thread.start()
    outcome = run_in_child(subprocess.call, ["sh", "-c", f"sleep {rare}; exit 7"], timeout=600)
    thread.join()
    assert (outcome.value, outcome.status, outcome.timed_out) == (7, 0, False)


@pytest.mark.root
def test_an_ordinary_user_is_root_of_a_user_namespace() -> None:
    program = (
        "import os; from mini_docker.lab import CannotRun, in_child;"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534);"
        "from mini_docker.linux.process import PR_SET_DUMPABLE, prctl; prctl(PR_SET_DUMPABLE, 1)\n"
        "try:\n    print(in_child(lambda: (os.getuid(), os.getpid())))\n"
        "except CannotRun as error:\n    print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    if run.stdout.startswith("cannot run here"):
        cannot_run_here(run.stdout.partition("because ")[2].splitlines()[0])
    assert (run.stdout, run.stderr) == ("(0, 2)\n", "")


def test_where_namespaces_are_forbidden_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(flags: int) -> None:
        raise PermissionError(1, "unshare: Operation not permitted")

    monkeypatch.setattr("mini_docker.lab.experiment.unshare", refuse)
    with pytest.raises(CannotRun, match="because PermissionError.*unshare") as caught:
        run_in_child(os.getpid)
    assert "sudo make lab" in caught.value.remedy


def test_what_a_shell_makes_with_mktemp_goes_with_the_experiment(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sh("made=$(mktemp -d); touch $made/file; ls -d $made/file")
    made = capsys.readouterr().out.splitlines()[-1]
    assert made.endswith("/file") and not os.path.exists(os.path.dirname(os.path.dirname(made)))
