"""The engine: claims across processes, names, and what is left when a process dies half way."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine import upkeep
from mini_docker.engine.container import Container
from mini_docker.engine.containers import Containers
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.events import Events
from mini_docker.engine.execs import Execs, NoSuchExec
from mini_docker.engine.launch import Launch, wiring_of
from mini_docker.engine.names import random_name, valid_name
from mini_docker.engine.orders import StartFailed
from mini_docker.engine.store import Claim, Conflict, NoSuchContainer, Store
from mini_docker.linux.process import set_process_name
from tests.system import Lab, lab  # noqa: F401 (a fixture)

pytestmark = pytest.mark.root
ID, OTHER = "a" * 64, "ab" + "c" * 62


def in_other_process(function: Callable[[], object]) -> tuple[int, Callable[[], None]]:
    """Fork a process that calls `function` and then waits; return its pid and a way to kill it."""
    ready, done = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os.write(done, b"!")
            signal.pause()
        finally:
            os._exit(1)
    os.close(done)
    assert os.read(ready, 1) == b"!"
    os.close(ready)

    def end() -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

    return pid, end


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "root"))


def test_a_claim_holds_as_long_as_its_process_lives(store: Store) -> None:
    claims: list[Claim] = []
    _, end = in_other_process(lambda: claims.append(store.claim(ID)))
    try:
        assert store.abandoned() == []
        assert store.running() == {ID}
        with pytest.raises(OSError, match=ID):
            store.claim(ID)
    finally:
        end()
    ((found, claim),) = store.abandoned()
    assert (found, store.abandoned()) == (ID, [])  # a claim is taken by one
    claim.release()
    assert store.running() == set()
    store.claim(ID).release()


def test_a_claim_that_was_released_a_moment_ago_is_not_abandoned(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its container has ended well and its record says so: recovering it would write 137 over that."""
    monkeypatch.setattr(store, "running", lambda: {ID})
    assert store.abandoned() == []
    assert os.listdir(f"{store.root}/running") == []


def test_the_lock_keeps_the_other_process_out(store: Store) -> None:
    lock = store.lock()
    _, end = in_other_process(lock.__enter__)
    waiter = os.fork()
    if waiter == 0:
        try:
            with store.lock():
                os._exit(7)
        finally:
            os._exit(1)
    try:
        assert os.waitpid(waiter, os.WNOHANG) == (0, 0)
    finally:
        end()
        assert os.waitstatus_to_exitcode(os.waitpid(waiter, 0)[1]) == 7


def test_records_are_whole_or_not_there(store: Store) -> None:
    for name in (ID, OTHER):
        os.mkdir(store.directory(name))
    store.write({"Id": ID, "Name": "x"})
    Path(store.directory(OTHER), "container.json").write_text('{"Id": ')
    assert list(store.records()) == [{"Id": ID, "Name": "x"}]
    assert store.ids() == [ID, OTHER]
    for _ in range(2):
        store.remove(ID)
        assert (store.read(ID), store.ids()) == (None, [OTHER])


def test_no_user_of_the_host_reaches_setuid_programs_of_layers(store: Store) -> None:
    """CVE-2021-41091: everybody could execute what lay below /var/lib/docker."""
    closed = [os.stat(path).st_mode & 0o007 == 0 for path in (store.root, f"{store.root}/layers")]
    assert any(closed)


@pytest.mark.parametrize("name", ["ab", "/web", "Web_1.a-b", "0x"])
def test_a_good_name(name: str) -> None:
    assert valid_name(name) == name.removeprefix("/")


@pytest.mark.parametrize(
    "name", ["", "a", "/", "//ab", "-ab", ".ab", "_ab", "a b", "a/b", "..", "é1", "ab\n"]
)
def test_a_bad_name_is_refused_in_dockers_words(name: str) -> None:
    with pytest.raises(InvalidRequest, match=r"^Invalid container name \(") as error:
        valid_name(name)
    assert f"({name})" in str(error.value)


def test_a_made_up_name_is_valid_and_numbered_from_the_second_on() -> None:
    for retry in range(50):
        name = random_name(retry)
        assert valid_name(name) == name
        assert name[-1].isdigit() == (retry > 0)


# Containers, on a data root of their own with an image that has no layers: none of them starts


class NoNetworks:
    """What the manager needs of networks to create and remove."""

    def __init__(self, store: Store) -> None:
        self.wiring = wiring_of(store)

    def connect(self, launch: Launch, spec: dict[str, Any]) -> int | None:
        raise AssertionError("nothing is started here")

    def disconnect(self, record: dict[str, Any]) -> None:
        pass


class Maker:
    """The manager of containers without a zygote, and the empty image."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.containers = Containers(store, None, Events(), NoNetworks(store))  # type: ignore[arg-type]
        store.layout.create()
        config = store.layout.put(b'{"config": {"Cmd": ["sh"]}, "rootfs": {"diff_ids": []}}', "")
        store.layout.name_image("empty", {"config": {"digest": config.digest}, "layers": []})

    def create(self, name: str = "", **host: Any) -> dict[str, Any]:
        image = self.store.layout.image("empty")
        request = {"Image": "empty", "HostConfig": host}
        return self.containers.create(request, name, image, image.id).record


@pytest.fixture
def maker(store: Store, monkeypatch: pytest.MonkeyPatch) -> Maker:
    """A manager that waits for no shim's end: a daemon's thread would never end."""
    monkeypatch.setattr("mini_docker.engine.lives.Watch", lambda: None)
    return Maker(store)


def test_execs_are_forgotten_a_while_after_their_end(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = maker.create("web")
    container = maker.containers.find(record["Id"])
    container.record["State"] = {"Status": "running", "Pid": 1}
    execs = Execs(maker.containers)
    first, second = (execs.create(container, {"Cmd": ["true"]}) for _ in range(2))
    first.started = second.started = True
    execs._ended(first, b"")
    assert execs.find(first.id).exit_code == 137
    monkeypatch.setattr("mini_docker.engine.execs.KEPT_SECONDS", -1)
    execs.create(container, {"Cmd": ["true"]})
    with pytest.raises(NoSuchExec):
        execs.find(first.id)
    assert second.id in execs.by_id
    container.record["State"] = {"Status": "exited", "Pid": 0}


def test_an_exec_that_comes_too_late_is_refused_in_runcs_words(maker: Maker) -> None:
    container = maker.containers.find(maker.create("web")["Id"])
    ended = subprocess.Popen(["true"])
    ended.wait()
    container.record["State"] = {"Status": "running", "Pid": ended.pid}
    execs = Execs(maker.containers)
    one = execs.create(container, {"Cmd": ["true"]})
    with pytest.raises(StartFailed, match="cannot exec in a stopped container: unknown$"):
        execs.start(one, None, {}, [])
    assert one.exit_code == 126


def traces(store: Store) -> list[str]:
    """Return the files of containers, claims and names that are there."""
    return [
        f"{name}/{entry}"
        for name in ("containers", "running", "names")
        for entry in sorted(os.listdir(f"{store.root}/{name}"))
    ]


def test_create_find_and_remove(maker: Maker) -> None:
    record = maker.create("web")
    found = record["Id"]
    for reference in ("web", found, found[:12]):
        assert maker.store.find(reference)["Id"] == found
    assert record["Config"]["Hostname"] == found[:12]
    assert traces(maker.store) == [f"containers/{found}", "names/web"]
    assert upkeep.remove(maker.store, "web") == found
    assert traces(maker.store) == []


@pytest.mark.parametrize("work", ["rename", "update", "changes", "size"])
def test_what_comes_after_a_removal_finds_nothing_and_leaves_nothing(
    maker: Maker, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = maker.containers.find(maker.create("web")["Id"])
    maker.containers.remove("web", force=False)
    monkeypatch.setattr(maker.containers, "find", lambda reference: container)  # a moment ago
    with pytest.raises(NoSuchContainer, match=container.id):
        if work == "rename":
            maker.containers.rename("web", "cab")
        elif work == "update":
            maker.containers.update("web", {"Memory": 64 << 20})
        else:
            container.look(lambda: getattr(maker.store.roots, work)(container.record))
    assert traces(maker.store) == []


def test_a_removal_while_somebody_looks_makes_the_look_worthless(maker: Maker) -> None:
    container = maker.containers.find(maker.create("web")["Id"])
    with pytest.raises(NoSuchContainer):
        container.look(lambda: maker.containers.remove("web", force=False))


def test_a_container_that_has_just_ended_has_no_network_to_connect(maker: Maker) -> None:
    record = maker.create("web")
    ended = subprocess.Popen(["true"])
    ended.wait()
    record["State"] = {"Status": "running", "Pid": ended.pid}
    before = copy.deepcopy(record)
    with pytest.raises(Conflict, match="is not running"):
        maker.containers.network.wiring.connect(record, "bridge", None)
    assert record == before


@pytest.mark.parametrize("reference", ["", "nosuch", "../containers"])
def test_an_unknown_reference_is_named(maker: Maker, reference: str) -> None:
    maker.create("web")
    with pytest.raises(NoSuchContainer, match=f"^No such container: {reference}$"):
        maker.store.find(reference)


def test_an_ambiguous_start_of_an_id_is_a_conflict_and_a_name_goes_first(store: Store) -> None:
    for container_id, name in ((ID, "one"), (OTHER, "two"), ("c" * 64, "ab")):
        os.mkdir(store.directory(container_id))
        store.write({"Id": container_id, "Name": name})
    with pytest.raises(Conflict, match="Multiple IDs found with provided prefix: a$"):
        store.find("a")
    assert store.find("ab")["Id"] == "c" * 64
    assert store.find("abc")["Id"] == OTHER


def test_what_cannot_be_created_leaves_nothing(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker.create("web")
    before = traces(maker.store)
    with pytest.raises(
        Conflict, match='The container name "/web" is already in use by container "'
    ):
        maker.create("web")
    with pytest.raises(InvalidRequest):
        maker.create("-x")

    def full(record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maker.store, "write", full)
    with pytest.raises(OSError, match="No space left"):
        maker.create("new")
    assert traces(maker.store) == before


def test_removing_a_claimed_container_needs_force(maker: Maker) -> None:
    claim = maker.store.claim(maker.create("web")["Id"])
    with pytest.raises(Conflict, match="You cannot remove a running container"):
        upkeep.remove(maker.store, "web")
    assert maker.store.find("web")["Name"] == "web"
    claim.release()


def is_free(lock: threading.RLock) -> bool:
    """Say whether a lock can be taken, and leave it as it is."""
    free = lock.acquire(blocking=False)
    if free:
        lock.release()
    return free


class Unsignalled(Containers):
    """Containers that no signal ends."""

    def signal(self, container: Container, number: int) -> None:
        pass


def test_a_paused_container_cannot_end_between_the_look_and_the_thaw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    container = Container({"Id": ID, "HostConfig": {}, "State": {"Status": "paused"}})
    held = []

    class Group:
        def thaw(self) -> None:
            """End the container, as its group would be gone; who tells of the end must wait for the lock."""
            with ThreadPoolExecutor(1) as pool:
                held.append(not pool.submit(is_free, container.lock).result())
            container.exits += 1

    monkeypatch.setattr("mini_docker.engine.lives.cgroup_of", lambda *_: Group())
    Unsignalled.__new__(Unsignalled).end_now(container)
    assert held == [True]


DEATHS = {"kept": False, "removed": True}


@pytest.mark.parametrize("auto_remove", DEATHS.values(), ids=DEATHS)
def test_recover_cleans_after_a_dead_process_once(maker: Maker, auto_remove: bool) -> None:
    store, container_id = maker.store, maker.create("web", AutoRemove=auto_remove)["Id"]
    claims: list[Claim] = []
    _, end = in_other_process(lambda: claims.append(store.claim(container_id)))
    assert upkeep.recover(store) == []
    group = Cgroup(hierarchies(), f"/mini_docker/{container_id}")
    group.create({})
    end()
    assert upkeep.recover(store) == [container_id]
    assert upkeep.recover(store) == []
    assert not any(map(os.path.exists, group.directories.values()))
    if auto_remove:
        assert traces(store) == []
    else:
        state = store.find("web")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        upkeep.remove(store, "web")


@pytest.mark.parametrize("what", ["claim", "claim, name", "claim, name, directory"])
def test_a_half_made_container_is_forgotten_and_its_name_is_free(maker: Maker, what: str) -> None:
    """What a process leaves that is killed at some point of `create`, or while it forgets."""
    root = maker.store.root
    os.close(maker.store.claim(ID).fd)
    if "name" in what:
        os.symlink(ID, f"{root}/names/web")
    if "directory" in what:
        os.makedirs(f"{root}/containers/{ID}/upper/d")
    assert upkeep.recover(Store(root)) == [ID]
    maker.create("web")
    upkeep.remove(maker.store, "web")
    assert traces(maker.store) == []


def test_one_process_serves_a_data_root(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert upkeep.end_daemon(root) == 0
    fds: list[int] = []

    def be_the_daemon() -> None:
        set_process_name(upkeep.NAME)
        fds.append(upkeep.serve(root))

    pid, _ = in_other_process(be_the_daemon)
    with pytest.raises(BlockingIOError):
        upkeep.serve(root, patience=0.02)
    assert upkeep.end_daemon(root) == pid
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGTERM
    assert upkeep.end_daemon(root) == 0
    os.close(upkeep.serve(root))


def test_a_lock_of_somebody_else_is_no_reason_to_kill_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PATIENCE", 0.02)

    def hold_the_lock() -> None:
        set_process_name(b"somebody")  # a test before may have run a daemon's main() here
        fds.append(upkeep.serve(str(tmp_path)))

    fds: list[int] = []
    pid, end = in_other_process(hold_the_lock)
    try:
        with pytest.raises(BlockingIOError):
            upkeep.end_daemon(str(tmp_path))
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        end()


def test_reset_leaves_containers_of_other_data_roots_alone(lab: Lab, tmp_path: Path) -> None:
    running = lab.popen("run", "--rm", "-i", "--network", "none", "busybox", "sh", "-c",
                        "echo up; read x", stdin=-1, stdout=-1)  # fmt: skip
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    try:
        other = Lab(tmp_path / "other", lab.netns_fd)
        done = other.call("reset")
        assert (done.returncode, done.stderr) == (0, "")
        assert lab.call("ps", "-q").stdout != ""
    finally:
        running.communicate(timeout=120)
