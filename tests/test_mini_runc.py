"""mini_runc as engines call it: life cycle, words, exit statuses, state that survives."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import random
import signal
import socket
import subprocess
import time
from typing import Any

import pytest

from tests.bundles import MINI_RUNC, Runtime, rootfs, runtime  # noqa: F401 (fixtures)
from tests.system import catches, has_ended, until

pytestmark = pytest.mark.root
oci = pytest.mark.oci


# ---- life cycle -------------------------------------------------------------------------------------


@oci("runtime.md", "Lifecycle: create, start, end, delete")
def test_a_life(runtime: Runtime) -> None:
    pid = runtime.create("sleep", "1000")
    state = json.loads(runtime.call("state", runtime.id).stdout)
    assert state == {
        "ociVersion": "1.2.0",
        "id": runtime.id,
        "status": "created",
        "pid": pid,
        "bundle": str(runtime.bundle),
        "annotations": {},
    }
    assert runtime.call("start", runtime.id).returncode == 0
    assert runtime.status() == "running"
    refused = runtime.call("delete", runtime.id)
    assert refused.returncode == 1 and "that is not stopped: running" in refused.stderr
    assert runtime.call("kill", runtime.id, "9").returncode == 0
    runtime.wait_for("stopped")
    assert json.loads(runtime.call("state", runtime.id).stdout)["pid"] == 0
    assert runtime.call("delete", runtime.id).returncode == 0
    assert runtime.status() == "none"
    assert runtime.leftovers() == []


@oci("runtime.md", "Create: the process is not run")
def test_create_runs_nothing_yet(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    shared = {"destination": "/mnt", "source": str(tmp_path), "options": ["bind"]}
    runtime.create("touch", "/mnt/ran", more_mounts=[shared])
    time.sleep(0.2)
    assert not (tmp_path / "ran").exists()
    assert runtime.call("start", runtime.id).returncode == 0
    runtime.wait_for("stopped")
    assert (tmp_path / "ran").exists()


@oci("runtime.md", "Create: an id that is in use is an error")
def test_an_id_is_unique(runtime: Runtime) -> None:
    runtime.create("sleep", "1000")
    again = runtime.call("create", "--bundle", str(runtime.bundle), runtime.id)
    assert again.returncode == 1 and "already exists" in again.stderr
    assert runtime.status() == "created"


@oci("runtime.md", "State, Start, Kill, Delete: an unknown id is an error")
@pytest.mark.parametrize("command", ["state", "start", "kill", "delete", "pause", "resume", "ps"])
def test_an_unknown_id(runtime: Runtime, command: str) -> None:
    done = runtime.call(command, "nobody")
    assert (done.returncode, done.stderr) == (1, 'mini_runc: container "nobody" does not exist\n')


@pytest.mark.parametrize("name", ["", "..", ".", ".x", "a/b", "a\nb", "é", "x" * 1025])
def test_an_id_is_a_plain_name(runtime: Runtime, name: str) -> None:
    done = runtime.call("state", name)
    assert done.returncode == 1 and "invalid container ID format" in done.stderr


@oci("runtime.md", "Start: a container that is not created is an error")
def test_start_needs_a_created_container(runtime: Runtime) -> None:
    runtime.start("true")
    runtime.wait_for("stopped")
    done = runtime.call("start", runtime.id)
    assert (done.returncode, done.stderr) == (
        1,
        "mini_runc: cannot start a container that is stopped\n",
    )


@oci("runtime.md", "Kill: a container that does not run is an error")
def test_kill_needs_a_process(runtime: Runtime) -> None:
    runtime.start("true")
    runtime.wait_for("stopped")
    done = runtime.call("kill", runtime.id, "TERM")
    assert (done.returncode, done.stderr) == (1, "mini_runc: container not running\n")


@oci("runtime.md", "Kill: the signal arrives")
@pytest.mark.parametrize("name", ["10", "SIGUSR1", "usr1"])
def test_signals_have_many_names(runtime: Runtime, name: str) -> None:
    pid = runtime.start("sh", "-c", 'trap "exit 0" USR1; while :; do sleep 0.05; done')
    until(lambda: catches(pid, signal.SIGUSR1))
    assert runtime.call("kill", runtime.id, name).returncode == 0
    runtime.wait_for("stopped")


def test_an_unknown_signal(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    assert "unknown signal 'MOON'" in runtime.call("kill", runtime.id, "MOON").stderr


@oci("the command line, as runc's", "kill: --all")
def test_kill_all_reaches_every_process(runtime: Runtime) -> None:
    kinds = [{"type": kind} for kind in ("mount", "uts", "ipc", "network", "cgroup")]
    runtime.start("sh", "-c", "sleep 1001 & sleep 1002", namespaces=kinds)
    ps = ("ps", "--format", "json", runtime.id)
    until(lambda: len(json.loads(runtime.call(*ps).stdout)) == 2)
    assert runtime.call("kill", "--all", runtime.id, "KILL").returncode == 0
    runtime.wait_for("stopped")


@oci("runtime.md", "Delete: everything is removed, by force also what runs")
def test_delete_by_force(runtime: Runtime) -> None:
    pid = runtime.start("sh", "-c", "sleep 1001 & sleep 1002")
    assert runtime.call("delete", "--force", runtime.id).returncode == 0
    assert has_ended(pid)
    assert runtime.leftovers() == []
    assert runtime.call("delete", "--force", runtime.id).returncode == 0


@oci("runtime.md", "Delete: a created container")
def test_a_created_container_can_be_deleted(runtime: Runtime) -> None:
    pid = runtime.create("sleep", "1000")
    assert runtime.call("delete", runtime.id).returncode == 0
    assert has_ended(pid)


# ---- what engines rely on ---------------------------------------------------------------------------


@oci("the command line, as runc's", "create: a command that cannot be executed")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("nosuch", 'exec: "nosuch": executable file not found in $PATH'),
        ("/etc", 'exec: "/etc": is a directory'),
        ("/nosuch", 'exec: "/nosuch": stat /nosuch: no such file or directory'),
    ],
)
def test_a_command_that_cannot_be_executed_fails_create(
    runtime: Runtime, command: str, words: str
) -> None:
    assert runtime.refused(command) == words


@oci("the command line, as runc's", "run: exit status and streams")
def test_run_passes_the_code_and_the_streams_through(runtime: Runtime) -> None:
    done = runtime.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    kinds = [
        {"type": kind} for kind in ("mount", "uts", "ipc")
    ]  # no PID 1, which a signal may not kill
    assert runtime.run("sh", "-c", "kill -9 $$", namespaces=kinds).returncode == 137


def test_run_reads_its_stdin(runtime: Runtime) -> None:
    runtime.write(runtime.document("cat"))
    words = ("run", "--bundle", str(runtime.bundle), runtime.id)
    done = runtime.call(*words, stdin=None, input="hello")
    assert done.stdout == "hello"


@oci("the command line, as runc's", "run: signals are passed on")
def test_run_passes_signals_on(runtime: Runtime) -> None:
    runtime.write(
        runtime.document("sh", "-c", 'trap "exit 5" TERM; echo up; while :; do sleep 0.05; done')
    )
    process = subprocess.Popen(
        [MINI_RUNC, "--root", runtime.state_root, "run", "-b", runtime.bundle, runtime.id],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(240) == 5
    process.stdout.close()


def test_a_signal_before_run_can_pass_it_on_is_passed_on_later(runtime: Runtime) -> None:
    """The command signals the runtime itself, in its first moment: the runtime must not die of it."""
    kinds = [{"type": kind} for kind in ("mount", "uts", "ipc", "network", "cgroup")]
    script = 'trap "exit 5" TERM; kill -TERM $RUNTIME; while :; do sleep 0.05; done'
    shell = f'exec {MINI_RUNC} --root "$1" run -b "$2" "$3"'
    document = runtime.document("sh", "-c", script, namespaces=kinds)
    words = ["sh", "-c", f"read go; {shell}", "-", str(runtime.state_root), str(runtime.bundle)]
    process = subprocess.Popen([*words, runtime.id], stdin=subprocess.PIPE)
    document["process"]["env"].append(f"RUNTIME={process.pid}")
    runtime.write(document)
    process.communicate(b"go\n", timeout=120)
    assert process.returncode == 5


@oci("the command line, as runc's", "run: --detach")
def test_run_can_be_detached(runtime: Runtime) -> None:
    runtime.write(runtime.document("sleep", "1000"))
    null = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "capture_output": False}
    done = runtime.call("run", "--detach", "-b", str(runtime.bundle), runtime.id, **null)
    assert done.returncode == 0 and runtime.status() == "running"


@oci("the command line, as runc's", "create, run, exec: --pid-file")
def test_the_pid_file_is_a_bare_number(runtime: Runtime) -> None:
    pid = runtime.create("sleep", "1000")
    assert (runtime.directory / "pid").read_bytes() == b"%d" % pid


@oci("the command line, as runc's", "--log, --log-format json")
def test_an_error_is_a_line_of_json_in_the_log(runtime: Runtime) -> None:
    log = runtime.directory / "log"
    runtime.write(runtime.document("nosuch"))
    words = (
        "--log",
        str(log),
        "--log-format",
        "json",
        "create",
        "-b",
        str(runtime.bundle),
        runtime.id,
    )
    assert runtime.call(*words).returncode == 1
    line = json.loads(log.read_text())
    assert line["level"] == "error" and "executable file not found in $PATH" in line["msg"]
    assert runtime.call("--log", str(log), "state", "nobody").returncode == 1
    assert 'level=error msg="container' in log.read_text().splitlines()[1]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["dance"], "no command 'dance'"),
        (["create"], "exactly one container ID is needed"),
        (["create", "a", "b"], "exactly one container ID is needed"),
        (["create", "--moon", "a"], "flag provided but not defined: -moon"),
        (["create", "a", "--bundle"], "exactly one container ID is needed"),
        (["create", "--bundle"], "flag needs an argument: -bundle"),
        (["run", "--preserve-fds", "x", "a"], "--preserve-fds x: not a number"),
        (["create", "--bundle", "/proc/nosuch", "a"], "no document /proc/nosuch/config.json"),
    ],
)
def test_bad_words_are_one_line(runtime: Runtime, words: list[str], text: str) -> None:
    done = runtime.call(*words)
    assert done.returncode == 1 and text in done.stderr and done.stderr.count("\n") == 1


def test_help_and_version() -> None:
    shown = subprocess.run([MINI_RUNC, "--help"], capture_output=True, text=True).stdout
    for command in "create start state kill delete run exec ps pause resume update events".split():
        assert f"   {command} " in shown
    version = subprocess.run([MINI_RUNC, "--version"], capture_output=True, text=True).stdout
    assert version.startswith("mini_runc version ") and "spec: 1.2.0" in version


def test_closed_streams_are_no_trouble(runtime: Runtime) -> None:
    runtime.write(runtime.document("sh", "-c", "cat && echo x >&2 && echo fine"))
    words = f"{MINI_RUNC} --root {runtime.state_root} run -b {runtime.bundle} {runtime.id}"
    done = subprocess.run(["sh", "-c", f"{words} <&- 2>&-"], stdout=subprocess.PIPE, text=True)
    assert (done.returncode, done.stdout) == (0, "fine\n")


@oci("the command line, as runc's", "list")
def test_list_shows_all(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    table = runtime.call("list").stdout.splitlines()
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert table[1].split()[0] == runtime.id and "running" in table[1]
    assert runtime.call("list", "-q").stdout == f"{runtime.id}\n"
    rows = json.loads(runtime.call("list", "--format", "json").stdout)
    assert rows[0]["id"] == runtime.id and rows[0]["rootfs"] == runtime.rootfs


@oci("the command line, as runc's", "ps")
def test_ps_shows_the_container_s_processes_and_runs_no_shell(runtime: Runtime) -> None:
    pid = runtime.start("sleep", "1000")
    lines = runtime.call("ps", runtime.id).stdout.splitlines()
    assert len(lines) == 2 and str(pid) in lines[1].split()
    lines = runtime.call("ps", runtime.id, "-eo", "pid,comm").stdout.splitlines()
    assert lines[1].split() == [str(pid), "sleep"]
    done = runtime.call("ps", runtime.id, "-eo", "comm; touch /tmp/mini_runc_ps")
    assert done.returncode == 1 and "shows no column PID" in done.stderr
    assert not os.path.exists("/tmp/mini_runc_ps")


# ---- terminal ---------------------------------------------------------------------------------------


def received_fd(server: socket.socket) -> tuple[bytes, int, bytes]:
    """Return the message on a console socket, its descriptor, and what follows."""
    server.settimeout(240)
    connection, _ = server.accept()
    connection.settimeout(240)
    with connection:
        data, fds, _, _ = socket.recv_fds(connection, 64, 4)
        assert len(fds) == 1
        return data, fds[0], connection.recv(64)


@oci("config.md", "process.terminal, process.consoleSize")
def test_the_terminal_goes_to_the_console_socket(runtime: Runtime) -> None:
    path = str(runtime.directory / "console")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        size = {"height": 33, "width": 77}
        script = "tty; stty size; readlink /proc/1/fd/0; test -c /dev/console && echo console"
        runtime.write(runtime.document("sh", "-c", script, terminal=True, consoleSize=size))
        words = ("create", "-b", str(runtime.bundle), "--console-socket", path, runtime.id)
        assert runtime.call(*words).returncode == 0
        _, master, after = received_fd(server)
    assert after == b""
    runtime.call("start", runtime.id)
    output = b""
    while True:
        try:
            output += os.read(master, 4096)
        except OSError:
            break
    os.close(master)
    assert output.split() == [b"/dev/pts/0", b"33", b"77", b"/dev/pts/0", b"console"]


def test_a_terminal_needs_its_socket(runtime: Runtime) -> None:
    runtime.write(runtime.document("true", terminal=True))
    done = runtime.call("create", "-b", str(runtime.bundle), runtime.id)
    assert "process.terminal needs --console-socket" in done.stderr
    runtime.write(runtime.document("true"))
    done = runtime.call("create", "-b", str(runtime.bundle), "--console-socket", "/x", runtime.id)
    assert "process.terminal is not set" in done.stderr
    assert runtime.leftovers() == []


@oci("the command line, as runc's", "run: a terminal without --console-socket")
def test_run_lends_our_terminal(runtime: Runtime) -> None:
    runtime.write(
        runtime.document("sh", "-c", "tty; read line; echo got $line; exit 4", terminal=True)
    )
    pid, master = pty.fork()
    if pid == 0:
        words = ["--root", str(runtime.state_root), "run", "-b", str(runtime.bundle), runtime.id]
        try:
            os.execv(MINI_RUNC, [MINI_RUNC, *words])
        finally:
            os._exit(127)
    output = b""
    while b"/dev/pts/0" not in output:
        output += os.read(master, 4096)
    os.write(master, b"hello\r")
    while b"got hello" not in output:
        output += os.read(master, 4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    os.close(master)


# ---- exec -------------------------------------------------------------------------------------------


def test_exec_runs_beside_init(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    done = runtime.call("exec", runtime.id, "sh", "-c", "cat /proc/1/comm; hostname; exit 4")
    assert (done.returncode, done.stdout) == (4, "sleep\nweb\n")


@oci("the command line, as runc's", "exec: --env --cwd --user --additional-gids")
def test_exec_has_flags_for_all(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    words = ("--env", "A=1", "-e", "B=2", "--cwd", "/etc", "--user", "7:8", "-g", "9")
    script = "echo $A $B $PWD $(id -u) $(id -g) $(id -G)"
    done = runtime.call("exec", *words, runtime.id, "sh", "-c", script)
    assert done.stdout == "1 2 /etc 7 8 8 9\n", done.stderr


@oci("the command line, as runc's", "exec: --process --detach --pid-file")
def test_exec_takes_a_process_object(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    process: dict[str, Any] = {
        "args": ["sh", "-c", "id -u; sleep 1000"],
        "env": ["PATH=/bin"],
        "cwd": "/",
    }
    (runtime.directory / "process.json").write_text(json.dumps({**process, "user": {"uid": 3}}))
    pid_file = runtime.directory / "exec.pid"
    done = runtime.call(
        "exec", "--process", str(runtime.directory / "process.json"), "--detach",
        "--pid-file", str(pid_file), runtime.id,
        capture_output=False, stdout=(runtime.directory / "out").open("w"),
    )  # fmt: skip
    assert done.returncode == 0
    pids = json.loads(runtime.call("ps", "--format", "json", runtime.id).stdout)
    assert int(pid_file.read_text()) in pids
    until(lambda: (runtime.directory / "out").read_text() == "3\n")


@oci("the command line, as runc's", "exec: in the same control groups")
def test_exec_is_in_the_same_control_groups(runtime: Runtime) -> None:
    runtime.start("sleep", "1000", namespaces=[{"type": kind} for kind in ("mount", "uts", "ipc")])
    script = "cat /proc/self/cgroup; echo; cat /proc/$1/cgroup"
    pid = (runtime.directory / "pid").read_text()
    done = runtime.call("exec", runtime.id, "sh", "-c", script, "sh", pid)
    ours, _, theirs = done.stdout.partition("\n\n")
    assert ours.splitlines() == theirs.splitlines()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH'),
        (["--cwd", "/nosuch", "true"], "no such file or directory"),
        (["--user", "root", "true"], "not uid[:gid] in numbers"),
        ([], "a command or --process is needed"),
        (["--cap", "CAP_MOON", "true"], "unknown capability 'CAP_MOON'"),
        (["--env", "A", "true"], "process.env[1]: 'A' is not NAME=value"),
    ],
)
def test_exec_that_fails_is_255(runtime: Runtime, words: list[str], text: str) -> None:
    runtime.start("sleep", "1000")
    done = runtime.call("exec", *words[:-1], runtime.id, *words[-1:])
    assert done.returncode == 255 and text.lower() in done.stderr.lower(), done.stderr


def test_exec_needs_a_running_container(runtime: Runtime) -> None:
    runtime.start("true")
    runtime.wait_for("stopped")
    done = runtime.call("exec", runtime.id, "true")
    assert done.returncode == 255 and "cannot exec in a stopped container" in done.stderr
    assert runtime.call("exec", "nobody", "true").returncode == 255


@oci("the command line, as runc's", "exec: --tty --console-socket")
def test_exec_with_a_terminal(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    path = str(runtime.directory / "console")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        words = ("exec", "--tty", "--detach", "--console-socket", path, runtime.id, "tty")
        assert runtime.call(*words).returncode == 0
        _, master, after = received_fd(server)
    assert after == b"" and os.read(master, 100) == b"/dev/pts/0\r\n"
    os.close(master)


# ---- pause, update, events --------------------------------------------------------------------------


@oci("the command line, as runc's", "pause, resume")
def test_pause_and_resume(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    assert runtime.call("pause", runtime.id).returncode == 0
    assert runtime.status() == "paused"
    assert "cannot exec in a paused container" in runtime.call("exec", runtime.id, "true").stderr
    assert "cannot pause a container that is paused" in runtime.call("pause", runtime.id).stderr
    assert runtime.call("resume", runtime.id).returncode == 0
    assert runtime.status() == "running"
    assert "not paused" in runtime.call("resume", runtime.id).stderr


def test_a_paused_container_can_be_deleted(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    runtime.call("pause", runtime.id)
    assert runtime.call("delete", runtime.id).returncode == 1
    assert runtime.call("delete", "--force", runtime.id).returncode == 0
    assert runtime.leftovers() == []


@oci("config-linux.md", "resources.pids, and update")
def test_limits_and_their_update(runtime: Runtime) -> None:
    runtime.start("sleep", "1000", resources={"pids": {"limit": 9}})
    stats = json.loads(runtime.call("events", "--stats", runtime.id).stdout)
    assert stats["type"] == "stats" and stats["id"] == runtime.id
    assert stats["data"]["pids"] == {"current": 1, "limit": 9}
    assert runtime.call("update", "--pids-limit", "7", runtime.id).returncode == 0
    done = runtime.call("update", "-r", "-", runtime.id, stdin=None, input='{"cpu": {"shares": 0}}')
    assert done.returncode == 0, done.stderr
    stats = json.loads(runtime.call("events", "--stats", runtime.id).stdout)
    assert stats["data"]["pids"]["limit"] == 7


@oci("the command line, as runc's", "events: --interval, until the container ends")
def test_events_come_until_the_container_ends(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    words = [MINI_RUNC, "--root", str(runtime.state_root), "events", "--interval", "1s", runtime.id]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as events:
        assert events.stdout is not None
        assert json.loads(events.stdout.readline())["data"]["pids"]["current"] == 1
        runtime.call("kill", runtime.id, "KILL")
        assert events.wait(120) == 0


def test_an_update_that_is_wrong_has_a_path(runtime: Runtime) -> None:
    runtime.start("sleep", "1000")
    done = runtime.call(
        "update", "-r", "-", runtime.id, stdin=None, input='{"pids": {"limit": "x"}}'
    )
    assert "linux.resources.pids.limit: a whole number is needed" in done.stderr


# ---- what it says of itself -------------------------------------------------------------------------


@oci("features.md", "the features structure")
def test_features(runtime: Runtime) -> None:
    features = json.loads(runtime.call("features").stdout)
    assert features["ociVersionMax"] == "1.2.0" and "rro" in features["mountOptions"]
    assert set(features["linux"]["namespaces"]) >= {"pid", "time", "cgroup"}


@oci("the command line, as runc's", "spec")
def test_spec_writes_a_document_that_runs(runtime: Runtime) -> None:
    assert runtime.call("spec", "--bundle", str(runtime.bundle)).returncode == 0
    again = runtime.call("spec", "--bundle", str(runtime.bundle))
    assert again.returncode == 1 and "is there already" in again.stderr
    document = json.loads((runtime.bundle / "config.json").read_text())
    document["root"]["path"] = runtime.rootfs
    document["linux"]["cgroupsPath"] = f"/{runtime.id}"
    document["process"].update(terminal=False, args=["sh", "-c", "hostname; touch /x 2>&1"])
    runtime.write(document)
    done = runtime.call("run", "-b", str(runtime.bundle), runtime.id)
    assert done.stdout == "mini_runc\ntouch: /x: Read-only file system\n", done.stderr


def test_without_a_path_the_control_group_is_below_ours_and_all_of_it_goes(
    runtime: Runtime,
) -> None:
    document = runtime.document("sleep", "1000")
    del document["linux"]["cgroupsPath"]
    runtime.write(document)
    null = {"capture_output": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    done = runtime.call("run", "--detach", "-b", str(runtime.bundle), runtime.id, **null)
    assert done.returncode == 0
    pid = json.loads(runtime.call("state", runtime.id).stdout)["pid"]
    lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    assert all(line.endswith(f":/mini_runc/{runtime.id}") for line in lines)
    runtime.call("delete", "--force", runtime.id)
    left = [d for d, _, _ in os.walk("/sys/fs/cgroup") if d.endswith(f"/{runtime.id}")]
    assert left == []


# ---- crashes ----------------------------------------------------------------------------------------


ROUNDS = max(6, int(os.environ.get("MINI_DOCKER_SOAK", "0")) // 10)  # `make soak` asks for 1,000


def killed_at_random(runtime: Runtime, words: list[str], seed: int) -> None:
    """Call the runtime and kill it, at any moment of the time that a create takes on this machine now."""
    spare, runtime.id = runtime.id, f"{runtime.id}-timed"
    began = time.monotonic()
    runtime.create("sleep", "1000")
    longest = time.monotonic() - began
    runtime.call("delete", "--force", runtime.id)
    runtime.id = spare
    process = subprocess.Popen(
        [MINI_RUNC, "--root", runtime.state_root, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    time.sleep(random.Random(seed).uniform(0.01, longest))
    process.kill()
    process.wait()


@oci("the command line, as runc's", "delete: --force after kill -9 of create")
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_create_killed_at_a_random_moment(runtime: Runtime, seed: int) -> None:
    other = runtime.directory / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(runtime.document("sleep", "1000")))
    killed_at_random(runtime, ["create", "-b", str(other), runtime.id], seed)
    assert runtime.status() in ("none", "created", "stopped")
    assert runtime.call("delete", "--force", runtime.id).returncode == 0
    runtime.call("list")  # removes what had no name yet
    assert runtime.leftovers() == []


@oci("the command line, as runc's", "delete: --force after kill -9 of start")
@pytest.mark.parametrize("seed", range(ROUNDS // 2))
def test_start_killed_at_a_random_moment(runtime: Runtime, seed: int) -> None:
    runtime.create("sleep", "1000")
    killed_at_random(runtime, ["start", runtime.id], seed)
    if runtime.status() == "created":
        assert runtime.call("start", runtime.id).returncode == 0
    assert runtime.status() == "running"
    assert runtime.call("delete", "--force", runtime.id).returncode == 0
    assert runtime.leftovers() == []


@oci("the command line, as runc's", "delete: --force after kill -9 of delete")
@pytest.mark.parametrize("seed", range(ROUNDS // 2))
def test_delete_killed_at_a_random_moment(runtime: Runtime, seed: int) -> None:
    pid = runtime.start("sleep", "1000")
    killed_at_random(runtime, ["delete", "--force", runtime.id], seed)
    assert runtime.call("delete", "--force", runtime.id).returncode == 0
    assert has_ended(pid) and runtime.leftovers() == []


def test_a_pid_of_somebody_else_is_not_killed(runtime: Runtime) -> None:
    runtime.start("true")
    runtime.wait_for("stopped")
    path = runtime.state_root / runtime.id / "state.json"
    innocent = subprocess.Popen(["sleep", "1000"])
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "pid": innocent.pid}))
    assert runtime.status() == "stopped"
    assert runtime.call("kill", runtime.id, "9").returncode == 1
    assert runtime.call("delete", "--force", runtime.id).returncode == 0
    assert innocent.poll() is None
    innocent.send_signal(signal.SIGKILL)
    innocent.wait()


def test_nothing_of_ours_stays_while_a_container_runs(runtime: Runtime) -> None:
    def ours() -> list[str]:
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    command = pathlib.Path(f"/proc/{name}/cmdline").read_bytes()
                except OSError:
                    continue
                found += [name] if b"mini_runc" in command.split(b"\0")[0:3] else []
        return found

    runtime.start("sleep", "1000")
    assert ours() == []
