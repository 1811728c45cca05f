"""A container's life where something goes wrong that nobody thought of, and what is told of it."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from mini_docker.engine.accidents import SENTENCE, is_accident, sentence, told
from mini_docker.engine.orders import StartFailed
from mini_docker.engine.store import Conflict
from tests.daemons import CLIENT, Daemon, all_of
from tests.system import until

pytestmark = [pytest.mark.root, pytest.mark.anywhere]

# A daemon whose functions fail as long as a file says so: MODULE NAME ERROR in each line.
FAULTY = """
import importlib, os, sys
from mini_docker.api.daemon import main
def break_(module, name):
    place = importlib.import_module(module)
    *within, name = name.split(".")
    for part in within:
        place = getattr(place, part)
    whole = getattr(place, name)
    def broken(*arguments, **more):
        for line in open(os.environ["FAULTS"]):
            where, what, error = line.split()
            if (where, what.rpartition(".")[2]) == (module, name):
                raise eval(error)
        return whole(*arguments, **more)
    setattr(place, name, broken)
for words in (
    ("mini_docker.engine.lives", "first_word"),
    ("mini_docker.engine.connect", "Wiring.attach"),
    ("mini_docker.engine.roster", "remove_cgroup"),
    ("mini_docker.engine.store", "remove_tree"),
    ("mini_docker.engine.execs", "first_word"),
    ("mini_docker.api.containers", "inspect"),
):
    break_(*words)
sys.exit(main(sys.argv[1:]))
"""


class Faulty(Daemon):
    """A daemon that fails where `fail` says."""

    def prepare(self) -> None:
        self.faults = self.root / "faults"
        self.faults.touch()

    def command(self) -> list[str]:
        return ["env", f"FAULTS={self.faults}", sys.executable, "-c", FAULTY]

    def fail(self, *lines: str) -> None:
        self.faults.write_text("".join(f"{line}\n" for line in lines))

    def log_lines(self, part: str) -> list[str]:
        return [line for line in self.words().splitlines() if part in line]


@pytest.fixture(scope="module")
def faulty_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    daemon = Faulty(tmp_path_factory.mktemp("faulty"))
    try:
        yield daemon
    finally:
        daemon.fail()
        daemon.close()


@pytest.fixture
def faulty(faulty_daemon: Faulty) -> Iterator[Faulty]:
    yield faulty_daemon
    faulty_daemon.fail()
    faulty_daemon.clear()


STARTS = (
    "mini_docker.engine.lives first_word KeyError('pid')",
    "mini_docker.engine.connect Wiring.attach AttributeError('x')",
)


@pytest.mark.parametrize("fault", STARTS)
def test_an_accident_in_a_start_lets_the_attached_go(faulty: Faulty, fault: str) -> None:
    faulty.create("one", "echo", "hi", HostConfig={"NetworkMode": "bridge"})
    stream = faulty.upgrade("/containers/one/attach?stream=1&stdout=1")
    faulty.fail(fault)
    assert faulty.ask("POST", "/containers/one/start") == (500, {"message": SENTENCE})
    all_of(stream)  # which ends
    (line,) = faulty.log_lines("POST /containers/one/start")
    kind = fault.split()[2].partition("(")[0]
    assert f"{kind}: " in line and " < lives.py:" in line, line
    state = faulty.state("one")
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 128, SENTENCE)
    faulty.fail()
    assert faulty.ask("POST", "/containers/one/start") == (204, "")
    assert faulty.ask("POST", "/containers/one/wait")[1]["StatusCode"] == 0
    assert faulty.logs("one").endswith(b"hi\n")


def test_an_accident_of_a_container_that_goes_with_its_end(faulty: Faulty) -> None:
    """The client that ran it comes back, too."""
    faulty.fail(STARTS[0])
    words = [
        CLIENT,
        "-H",
        f"unix://{faulty.path}",
        "run",
        "--rm",
        "--network=none",
        "busybox",
        "true",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 125  # before its error the client may log of its own
    assert f"docker: Error response from daemon: {SENTENCE}." in done.stderr.splitlines()
    assert faulty.ask("GET", "/containers/json?all=1") == (200, [])


def test_an_end_is_noted_where_the_clean_up_fails(faulty: Faulty) -> None:
    """Whoever waits comes back; the next start cleans first, and so does a removal."""
    fault = "mini_docker.engine.roster remove_cgroup RuntimeError('busy')"
    faulty.create("one", "true")
    faulty.fail(fault)
    assert faulty.ask("POST", "/containers/one/start") == (204, "")
    assert faulty.ask("POST", "/containers/one/wait")[1]["StatusCode"] == 0
    assert faulty.log_lines("is not cleaned up: RuntimeError: busy in")
    assert faulty.ask("POST", "/containers/one/start") == (500, {"message": SENTENCE})
    faulty.fail()
    faulty.run("two", "sleep", "1000")  # nothing has been broken for others
    assert faulty.ask("POST", "/containers/one/start") == (204, "")
    assert faulty.ask("POST", "/containers/one/wait")[1]["StatusCode"] == 0
    faulty.fail(fault)
    assert faulty.ask("POST", "/containers/one/start") == (204, "")
    assert faulty.ask("POST", "/containers/one/wait")[1]["StatusCode"] == 0
    faulty.fail()
    assert faulty.ask("DELETE", "/containers/one") == (204, "")


def test_what_cannot_be_removed_is_dead_and_can_be_removed_again(faulty: Faulty) -> None:
    fault = "mini_docker.engine.store remove_tree OSError(16,'something')"
    one = faulty.create("one", "true")
    two = faulty.create("two", "true", HostConfig={"AutoRemove": True})
    faulty.fail(fault)
    words = f"container {one} cannot be removed: something"
    assert faulty.ask("DELETE", "/containers/one") == (500, {"message": words})
    assert (faulty.state("one")["Status"], faulty.state("one")["Error"]) == ("dead", words)
    assert faulty.ask("POST", "/containers/one/start")[0] == 409
    assert faulty.ask("POST", "/containers/two/start") == (204, "")
    # for a moment nobody finds it, until it is known that it stays
    until(lambda: faulty.ask("POST", "/containers/two/wait?condition=removed")[0] == 200)
    assert faulty.state(two)["Status"] == "dead"
    faulty.fail()
    assert faulty.ask("DELETE", "/containers/one") == (204, "")
    assert faulty.ask("DELETE", "/containers/two") == (204, "")


def test_an_accident_elsewhere_is_one_sentence_too(faulty: Faulty) -> None:
    faulty.run("one", "sleep", "1000")
    faulty.fail("mini_docker.api.containers inspect TypeError('what')")
    assert faulty.ask("GET", "/containers/one/json") == (500, {"message": SENTENCE})
    (line,) = faulty.log_lines("GET /containers/one/json")
    assert "TypeError: what in <string>:" in line and " < containers.py:" in line
    made = faulty.ask("POST", "/containers/one/exec", {"Cmd": ["true"], "AttachStdout": True})[1]
    faulty.fail("mini_docker.engine.execs first_word KeyError('pid')")
    stream = faulty.upgrade(f"/exec/{made['Id']}/start", json.dumps({"Detach": False}).encode())
    assert SENTENCE.encode() in all_of(stream)
    found = faulty.ask("GET", f"/exec/{made['Id']}/json")[1]
    assert (found["Running"], found["ExitCode"]) == (False, 126)


def test_what_is_an_accident() -> None:
    for error in (Conflict("a"), StartFailed("a", False, 1), ValueError("a"), OSError(2, "a")):
        assert not is_accident(error) and sentence(error) == "a"
    assert sentence(FileNotFoundError(2, "no such file", "/x")) == "/x: no such file"
    try:
        json.loads("{")
    except ValueError as error:
        assert is_accident(error) and sentence(error) == SENTENCE
        assert told(error).startswith("JSONDecodeError: ") and "test_lives.py:" in told(error)


# ---- legacy links ----


def hosts_of(daemon: Daemon, name: str) -> list[str]:
    """Return the lines that a container's /etc/hosts has beside those of all."""
    path = daemon.ask("GET", f"/containers/{name}/json")[1]["HostsPath"]
    return pathlib.Path(path).read_text().splitlines()[6:]


def test_links_follow_whom_they_lead_to_and_are_removed_alone(daemon: Daemon) -> None:
    on_bridge = {"NetworkMode": "default"}
    db = daemon.run("db", "sleep", "1000", HostConfig=on_bridge)
    links = {**on_bridge, "Links": ["db:base", "db:base", db[:12] + ":other"]}
    daemon.run("web", "sleep", "1000", HostConfig=links)
    names = [one["Names"] for one in daemon.ask("GET", "/containers/json")[1]]
    assert names == [["/web"], ["/db", "/web/base", "/web/other"]]
    assert daemon.ask("POST", "/containers/web/base/stop?t=0") == (204, "")
    daemon.run("thief", "sleep", "1000", HostConfig=on_bridge)
    assert daemon.ask("POST", "/containers/db/start") == (204, "")
    ip = daemon.ask("GET", "/containers/web/base/json")[1]["NetworkSettings"]["IPAddress"]
    assert hosts_of(daemon, "web")[:2] == [f"{ip}\tbase {db[:12]} db", f"{ip}\tother {db[:12]} db"]
    daemon.kill()
    daemon.start()
    assert daemon.ask("DELETE", "/containers/web/other?link=1") == (204, "")
    assert daemon.ask("DELETE", "/containers/web/other?link=1")[0] == 404
    assert [line.split()[1] for line in hosts_of(daemon, "web")[:-1]] == ["base"]
    assert daemon.ask("POST", "/containers/db/rename?name=store") == (204, "")
    shown = daemon.ask("GET", "/containers/web/json")[1]["HostConfig"]["Links"]
    assert shown == ["/store:/web/base"]
    assert daemon.ask("DELETE", "/containers/web/base?force=1") == (204, "")
    assert daemon.ask("GET", "/containers/web/base/json")[0] == 404
    assert daemon.ask("GET", "/containers/web/json")[1]["HostConfig"]["Links"] == shown
    words = (
        "Cannot restart container web: Cannot link to a non running container: /store AS /web/base"
    )
    assert daemon.ask("POST", "/containers/web/restart?t=0") == (500, {"message": words})


# ---- ends, and what is told of them ----


def events_of(daemon: Daemon, name: str) -> list[str]:
    """Return the actions of a container from its last start on."""
    path = f"/events?since=1&until={time.time():.9f}&filters=" + '{"type":["container"]}'
    lines = [json.loads(line) for line in daemon.ask("GET", path)[1].splitlines()]
    found = [one["Action"] for one in lines if one["Actor"]["Attributes"].get("name") == name]
    return found[len(found) - found[::-1].index("start") :]


def test_a_stop_is_told_before_the_removal(daemon: Daemon) -> None:
    for turn in range(2):
        daemon.run(f"gone{turn}", "sleep", "1000", HostConfig={"AutoRemove": True})
        assert daemon.ask("POST", f"/containers/gone{turn}/stop?t=0") == (204, "")
        until(lambda: daemon.ask("GET", "/containers/json?all=1") == (200, []))
        until(lambda: "destroy" in events_of(daemon, f"gone{turn}"))  # noqa: B023
        assert events_of(daemon, f"gone{turn}") == ["kill", "kill", "die", "stop", "destroy"]


def test_a_container_with_rm_is_started_again(daemon: Daemon, tmp_path: pathlib.Path) -> None:
    """The kernel refuses a second mount of an overlay whose first was volatile."""
    daemon.run("again", "sh", "-c", "echo more >>/f; sleep 1000", HostConfig={"AutoRemove": True})
    for _ in range(2):
        assert daemon.ask("POST", "/containers/again/restart?t=0") == (204, "")
    (tmp_path / "file").write_text("x")
    docker = [CLIENT, "-H", f"unix://{daemon.path}"]
    made = [*docker, "create", "--rm", "--name=made", "--network=none", "busybox", "cat", "/file"]
    subprocess.run(made, check=True, capture_output=True)
    subprocess.run([*docker, "cp", f"{tmp_path}/file", "made:/"], check=True, capture_output=True)
    done = subprocess.run([*docker, "start", "-a", "made"], capture_output=True, timeout=120)
    assert (done.stdout, done.stderr) == (b"x", b"")


def test_a_container_between_two_lives_is_taken_for_one_that_runs(daemon: Daemon) -> None:
    daemon.run("again", "true", HostConfig={"RestartPolicy": {"Name": "always"}})
    for method, place, words in (
        ("DELETE", "", "You cannot remove a restarting container"),
        ("GET", "/top", "is restarting, wait until the container is running"),
    ):
        until(lambda: words in str(daemon.ask(method, f"/containers/again{place}")))  # noqa: B023
    assert daemon.ask("POST", "/containers/again/start")[0] == 304
    assert daemon.ask("POST", "/containers/again/kill") == (204, "")
    until(lambda: daemon.state("again")["Status"] == "exited")
    assert daemon.ask("POST", "/containers/again/kill")[0] == 409
