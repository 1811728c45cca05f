"""Two stages and a second process: the gate between create and start, hooks, and enter."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.process import CLONE_NEWUTS, unshare
from mini_docker.runtime.create import make_gate
from mini_docker.runtime.enter import enter, other_namespaces, plan_enter
from mini_docker.runtime.hooks import run_hooks
from mini_docker.runtime.init import StartError, release, start
from mini_docker.runtime.jsontext import dumps, loads
from mini_docker.runtime.plan import Resources, plan
from mini_docker.runtime.talk import Talk, listen, say
from tests.system import has_ended

ROOT = Path(__file__).resolve().parents[1]
chapter = importlib.import_module("exercises.ch11")
make_root, running, small_document = chapter.make_root, chapter.running, chapter.small_document
pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    directory = make_root()
    for name in ("proc", "dev"):  # root of a user namespace could not make them
        os.mkdir(f"{directory}/{name}")
    yield directory
    shutil.rmtree(directory)


def hook(script: str, **keys: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **keys}


def result(function: Any, *arguments: Any) -> Any:
    outcome = run_in_child(function, *arguments)
    assert outcome.status == 0, outcome
    return outcome.value


def created(spec: dict[str, Any], watch: Any = None) -> tuple[int, int, int]:
    """Create a container with a gate of pipes; return init's pid and our ends: report, word."""
    (report_fd, their_report), (their_word, word_fd) = os.pipe(), os.pipe()
    gate = Talk(their_report, their_word)
    planned = plan(spec, Resources((), None, None, None, gate, True))
    process = start(spec, [step for _, step in planned], None, watch)
    os.close(their_report)
    return process.pid, report_fd, word_fd


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


# ---- the gate ---------------------------------------------------------------------------------------


def create_then_start(root: str) -> tuple[str, int, str, int]:
    spec = small_document(root, "sh", "-c", "sleep 1000; exit 3")
    pid, report_fd, word_fd = created(spec)
    before = os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    times = release(word_fd, report_fd)
    after = name_of(pid)
    os.kill(pid, signal.SIGKILL)
    return before, len(times), after, os.waitpid(pid, 0)[1]


def test_a_container_waits_until_its_word(root: str) -> None:
    before, times, after, status = result(create_then_start, root)
    assert before.startswith("python") and times > 20 and after == "sh" and status == 9


def created_failure(root: str, command: str) -> str:
    try:
        created(small_document(root, command))
    except StartError as error:
        return str(error)
    return "created"


def test_a_command_that_is_not_there_fails_create(root: str) -> None:
    words = 'exec: "nosuch": executable file not found in $PATH'
    assert result(created_failure, root, "nosuch") == words


def start_fails(root: str) -> str:
    Path(root, "bin", "odd").write_bytes(b"\x7fELF")
    Path(root, "bin", "odd").chmod(0o755)
    pid, report_fd, word_fd = created(small_document(root, "odd"))
    try:
        release(word_fd, report_fd)
    except StartError as error:
        return f"{error.errno} {error}"
    finally:
        os.waitpid(pid, 0)
    return "started"


def test_a_command_that_execve_refuses_fails_start(root: str) -> None:
    assert result(start_fails, root) == f'{errno.ENOEXEC} exec: "odd": exec format error'


def make_and_die(root: str, at_gate: bool, write_fd: int) -> None:
    """Create a container, say its pid, and get killed: at the gate, or before by the second watch."""
    spec = small_document(root, "sleep", "1000")
    if not at_gate:
        spec["hooks"] = {"prestart": [hook("true")]}
    seen: list[int] = []

    def watch(pid: int) -> bytes:
        seen.append(pid)
        if len(seen) == 1:
            os.write(write_fd, b"%d" % pid)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        return b""

    gate = make_gate(os.environ["GATE"])  # FIFOs: a pipe would end with its maker
    steps = [step for _, step in plan(spec, Resources((), None, None, None, gate, True))]
    start(spec, steps, None, watch)
    os.kill(os.getpid(), signal.SIGKILL)


def survivors(root: str, at_gate: bool) -> bool:
    """Let the maker die before or behind the gate; return whether init lives on."""
    read_fd, write_fd = os.pipe()
    maker = os.fork()
    if maker == 0:
        try:
            make_and_die(root, at_gate, write_fd)
        finally:
            os._exit(1)
    os.waitpid(maker, 0)
    init = int(os.read(read_fd, 20))
    end = time.monotonic() + (0.2 if at_gate else 240)
    while not has_ended(init) and time.monotonic() < end:
        time.sleep(0.01)
    return not has_ended(init)


@pytest.mark.parametrize("at_gate", [False, True])
def test_init_outlives_its_maker_from_the_gate_on(
    root: str, at_gate: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATE", str(tmp_path))
    assert result(survivors, root, at_gate) is at_gate


# ---- hooks ------------------------------------------------------------------------------------------


def all_hooks(root: str, directory: str) -> list[int]:
    note = "readlink /proc/self/ns/mnt; ls -d /bin/true 2>/dev/null"
    spec = small_document(root, "sleep", "1000")
    spec["hooks"] = {
        "createContainer": [hook(f"cat >{directory}/inside; ({note}) >>{directory}/inside")],
        "startContainer": [hook("cat >/late; readlink /proc/self/ns/mnt >>/late")],
    }
    words = iter([b"born", b"state of create"])
    pid, report_fd, word_fd = created(spec, lambda _: next(words))
    theirs = os.readlink(f"/proc/{pid}/ns/mnt")
    release(word_fd, report_fd, b"state of start" + b"!" * 100_000)
    inside = Path(directory, "inside").read_text()
    late = Path(root, "late").read_text()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return [
        inside.startswith("state of create" + theirs),
        late.startswith("state of start!!!"),
        late.endswith("!" + theirs + "\n"),
        len(late) > 100_000,
    ]


def test_hooks_inside_get_their_state_and_the_container_s_namespaces(
    root: str, tmp_path: Path
) -> None:
    assert result(all_hooks, root, str(tmp_path)) == [True] * 4


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (hook("echo no address; exit 3"), "hook #1 /bin/sh: exit status 3: no address"),
        (hook("kill -9 $$"), "hook #1 /bin/sh: killed by signal 9"),
        (hook("sleep 1000", timeout=1), "hook #1 /bin/sh: timed out after 1 s"),
        ({"path": "/no/such"}, "hook #1 /no/such: exit status 127: No such file or directory"),
    ],
)
def test_a_hook_that_fails_says_why(bad: dict[str, Any], words: str) -> None:
    with pytest.raises(OSError) as caught:
        run_hooks([hook('test "$A$0" = 1me', env=["A=1"], args=["sh", "-c", "true"]), bad], b"{}")
    assert caught.value.strerror == words


def test_a_hook_has_its_own_arguments_and_environment(tmp_path: Path) -> None:
    script = f'echo "$0 $A ${{HOME-none}}" >{tmp_path}/said'
    run_hooks([{"path": "/bin/sh", "args": ["sh", "-c", script, "me"], "env": ["A=1"]}], b"")
    assert (tmp_path / "said").read_text() == "me 1 none\n"


def test_a_daemon_that_a_hook_leaves_behind_holds_nobody_up(tmp_path: Path) -> None:
    run_hooks([hook(f"sleep 1000 & echo $! >{tmp_path}/pid")], b"")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)  # it is still there


def test_a_word_is_whole_or_an_end(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    say(write_fd, b"x" * 5000)
    assert listen(read_fd) == b"x" * 5000
    os.write(write_fd, b".\x05\0\0\0abc")
    os.close(write_fd)
    with pytest.raises(EOFError):
        listen(read_fd)
    os.close(read_fd)


# ---- enter ------------------------------------------------------------------------------------------


def visit(root: str, process: dict[str, Any], namespaces: list[str] | None = None) -> str:
    """Run `process` in a container and return its output, or what was refused."""
    spec = small_document(root, "sleep", "1000")
    if namespaces:
        spec["linux"]["namespaces"] += [{"type": kind} for kind in namespaces]
        ids = [{"containerID": 0, "hostID": 100_000, "size": 1000}]
        spec["linux"].update(uidMappings=ids, gidMappings=ids)
    read_fd, write_fd = os.pipe()
    full = {"env": ["PATH=/bin"], "cwd": "/", **process}
    with running(spec) as pid:
        try:
            visitor = enter(pid, spec, full, Resources((), None, (0, write_fd, write_fd), None))
        except StartError as error:
            return f"refused: {error}"
        os.close(write_fd)
        output = b""
        while chunk := os.read(read_fd, 4096):
            output += chunk
        os.waitpid(visitor.pid, 0)
    return output.decode()


def shell(script: str, **keys: Any) -> dict[str, Any]:
    return {"args": ["sh", "-c", script], **keys}


def test_a_visitor_is_in_the_same_world(root: str) -> None:
    assert result(visit, root, shell("hostname; cat /proc/1/comm; echo $PPID; pwd")) == (
        "web\nsleep\n0\n/\n"
    )


def test_a_visitor_is_who_the_document_says(root: str) -> None:
    user = {"uid": 7, "gid": 8, "additionalGids": [9], "umask": 0o77}
    script = "id -u; id -g; id -G; umask; ls /proc/self/fd | wc -l; grep CapEff /proc/self/status"
    words = result(visit, root, shell(script, user=user, capabilities={})).split()
    assert words == ["7", "8", "8", "9", "0077", "4", "CapEff:", "0" * 16]


@pytest.mark.parametrize(
    ("process", "words"),
    [
        (shell("true", cwd="/nosuch"), "refused: change directory to /nosuch: "),
        ({"args": ["nosuch"]}, 'refused: exec: "nosuch": executable file not found in $PATH'),
        ({"args": ["/proc/self/exe"]}, 'refused: exec: "/proc/self/exe": permission denied'),
    ],
)
def test_a_visitor_that_cannot_be(root: str, process: dict[str, Any], words: str) -> None:
    assert result(visit, root, process).startswith(words)


def test_a_visitor_of_a_user_namespace_is_its_root(root: str) -> None:
    script = "id -u; cat /proc/self/uid_map; cat /proc/1/comm"
    words = result(visit, root, shell(script), ["user", "cgroup"]).split()
    assert words == ["0", "0", "100000", "1000", "sleep"]


def gone(root: str) -> str:
    spec = small_document(root, "true")
    with running(spec) as pid:
        while Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
        try:
            enter(pid, spec, shell("true", cwd="/"), Resources((), None, None, None))
        except OSError as error:
            return str(error.strerror)
    return "entered"


def test_a_container_that_has_ended_is_not_entered(root: str) -> None:
    assert result(gone, root) == "the container has ended"


def test_the_tail_of_the_plan_keeps_its_order() -> None:
    """CVE-2019-5736: hidden before the first step inside; CVE-2024-21626: the cwd before the user."""
    spec = {"process": {"args": ["sh"], "cwd": "/", "user": {"uid": 7}, "capabilities": {}}}
    names = [step.name for _, step in plan_enter(spec, Resources((), None, (0, 1, 2), None))]
    order = ["change directory to /", "limit the bounding set", "become user 7", "set capabilities"]
    assert [name for name in names if name in order] == order
    assert names[-1] == "hide from ptrace until exec"


def own(root: str) -> int:
    unshare(CLONE_NEWUTS)
    return other_namespaces(os.getpid())


def test_our_own_namespaces_are_not_joined(root: str) -> None:
    assert result(own, root) == 0


# ---- born inside ------------------------------------------------------------------------------------


def pod(root: str) -> list[str]:
    """Start a container in the pid and network namespaces of another one, by path."""
    first = small_document(root, "sleep", "1000")
    read_fd, write_fd = os.pipe()
    with running(first) as pid:
        second = small_document(root, "sh", "-c", "cat /proc/1/comm; test $$ != 1 && echo not 1")
        for entry in second["linux"]["namespaces"]:
            if entry["type"] in ("pid", "network"):
                name = {"network": "net"}.get(entry["type"], entry["type"])
                entry["path"] = f"/proc/{pid}/ns/{name}"
        planned = plan(second, Resources((), None, (0, write_fd, write_fd), None))
        process = start(second, [step for _, step in planned])
        os.close(write_fd)
        os.waitpid(process.pid, 0)
        return os.read(read_fd, 4096).decode().splitlines()


def test_a_container_is_born_in_the_pid_namespace_of_another(root: str) -> None:
    assert result(pod, root) == ["sleep", "not 1"]


def wrong_kind(root: str) -> str:
    spec = small_document(root, "true")
    spec["linux"]["namespaces"] = [
        {"type": "pid", "path": "/proc/self/ns/uts"},
        {"type": "mount"},
    ]
    try:
        start(spec, [step for _, step in plan(spec, Resources((), None, None, None))])
    except OSError as error:
        return f"{error.errno} {error.strerror}"
    return "started"


def test_a_path_of_another_kind_is_refused_with_its_step(root: str) -> None:
    assert result(wrong_kind, root).startswith(f"{errno.EINVAL} join pid namespace")


@pytest.mark.parametrize(
    "text", ["", "{", "[1,]", "x", "1 2", '{"a" 1}', "nul", '"\x01"', '"', '{"a":', "[", "-"]
)
def test_a_text_that_is_no_json_is_a_value_error(text: str) -> None:
    """Without the json module the scanner has no error to raise, so a fresh interpreter tries it."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); from mini_docker.runtime.jsontext import loads; "
    words = ["/usr/bin/python3", "-ISE", "-c", f"{code}loads({text!r})", str(ROOT)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "json.decoder.JSONDecodeError: " in done.stderr.splitlines()[-1]


def test_json_is_what_the_module_makes_of_it() -> None:
    value: dict[str, Any] = {"a": [1, -2.5, None, True, {"é\n": '"\\'}], "b": {}, "": [[]]}
    assert json.loads(dumps(value)) == value == loads(f" {json.dumps(value, indent=3)}\n")
    with pytest.raises(TypeError, match="bytes is nothing that JSON knows"):
        dumps([b""])


# ---- nothing is imported inside ---------------------------------------------------------------------


def imports_inside(root: str) -> str:
    """Hand a plan a step that imports: in a container it would be the container's file."""
    from mini_docker.linux.step import Step

    spec = small_document(root, "true")
    try:
        start(spec, [Step("import", __import__, ("this",))])
    except StartError as error:
        return str(error)
    return "imported"


def test_init_imports_nothing(root: str) -> None:
    """CVE-2019-14271 was this for C libraries."""
    assert "No module named 'this'" in result(imports_inside, root)


def test_json_of_a_state_travels(root: str) -> None:
    read_fd, write_fd = os.pipe()
    say(write_fd, json.dumps({"id": "é"}).encode())
    assert json.loads(listen(read_fd)) == {"id": "é"}
    os.close(read_fd)
    os.close(write_fd)
