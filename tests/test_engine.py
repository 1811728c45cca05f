"""The engine: claims across processes, names, and what is left when a process dies half way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mini_docker.cgroups.tree import Cgroup, hierarchies
from mini_docker.engine.direct import Container, Direct
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.names import random_name, valid_name
from mini_docker.engine.store import Claim, Conflict, NoSuchContainer, Store
from mini_docker.images.layout import Layout, NoSuchImage
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
        with store.lock():
            os._exit(7)
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


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Direct]:
    engine = Direct(str(tmp_path / "root"))
    engine.store.layout.create()
    name_empty_image(engine.store.layout)
    yield engine


def name_empty_image(layout: Layout) -> None:
    config = layout.put(b'{"config": {"Cmd": ["sh"]}, "rootfs": {"diff_ids": []}}', "")
    layout.name_image("empty", {"config": {"digest": config.digest}, "layers": []})


def create(engine: Direct, name: str | None = None, **host: Any) -> Container:
    return engine.create({"Image": "empty", "HostConfig": host}, name)


def traces(engine: Direct) -> list[str]:
    """Return the files of containers, claims and names that are there."""
    return [
        f"{name}/{entry}"
        for name in ("containers", "running", "names")
        for entry in sorted(os.listdir(f"{engine.store.root}/{name}"))
    ]


def test_create_find_and_finish(engine: Direct) -> None:
    container = create(engine, "web")
    found = container.record["Id"]
    for reference in ("web", found, found[:12]):
        assert engine.find(reference)["Id"] == found
    assert container.record["Config"]["Hostname"] == found[:12]
    assert traces(engine) == [f"containers/{found}", f"running/{found}", "names/web"]
    for _ in range(2):  # "repeating it, or having another process do it, comes to the same"
        container.finish(3, keep=True)
        assert engine.find("web")["State"]["ExitCode"] == 3
        assert engine.store.running() == set()
    assert engine.remove("web") == found
    assert traces(engine) == []


@pytest.mark.parametrize("reference", ["", "nosuch", "../containers"])
def test_an_unknown_reference_is_named(engine: Direct, reference: str) -> None:
    create(engine, "web").finish(0, keep=True)
    with pytest.raises(NoSuchContainer, match=f"^No such container: {reference}$"):
        engine.find(reference)


def test_an_ambiguous_start_of_an_id_is_a_conflict_and_a_name_goes_first(engine: Direct) -> None:
    for container_id, name in ((ID, "one"), (OTHER, "two"), ("c" * 64, "ab")):
        os.mkdir(engine.store.directory(container_id))
        engine.store.write({"Id": container_id, "Name": name})
    with pytest.raises(Conflict, match="Multiple IDs found with provided prefix: a$"):
        engine.find("a")
    assert engine.find("ab")["Id"] == "c" * 64
    assert engine.find("abc")["Id"] == OTHER


def test_what_cannot_be_created_leaves_nothing(
    engine: Direct, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(engine, "web").finish(0, keep=True)
    before = traces(engine)
    with pytest.raises(
        Conflict, match='The container name "/web" is already in use by container "'
    ):
        create(engine, "web")
    with pytest.raises(InvalidRequest):
        create(engine, "-x")
    with pytest.raises(NoSuchImage):
        engine.create({"Image": "nosuch"})

    def full(record: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine.store, "write", full)
    with pytest.raises(OSError, match="No space left"):
        create(engine, "new")
    assert traces(engine) == before


def test_removing_a_claimed_container_needs_force(engine: Direct) -> None:
    create(engine, "web")
    with pytest.raises(Conflict, match="You cannot remove a running container"):
        engine.remove("web")
    assert engine.find("web")["Name"] == "web"


DEATHS = {"kept": False, "removed": True}


@pytest.mark.parametrize("auto_remove", DEATHS.values(), ids=DEATHS)
def test_recover_cleans_after_a_dead_process_once(engine: Direct, auto_remove: bool) -> None:
    _, end = in_other_process(lambda: create(engine, "web", AutoRemove=auto_remove))
    (container_id,) = engine.store.ids()
    assert engine.recover() == []
    group = Cgroup(hierarchies(), f"/mini_docker/{container_id}")
    group.create({})
    end()
    assert engine.recover() == [container_id]
    assert engine.recover() == []
    assert not any(map(os.path.exists, group.directories.values()))
    if auto_remove:
        assert traces(engine) == []
    else:
        state = engine.find("web")["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 137)
        engine.remove("web")


@pytest.mark.parametrize("what", ["claim", "claim, name", "claim, name, directory"])
def test_a_half_made_container_is_forgotten_and_its_name_is_free(engine: Direct, what: str) -> None:
    """What a process leaves that is killed at some point of `create`, or while it forgets."""
    root = engine.store.root
    os.close(engine.store.claim(ID).fd)
    if "name" in what:
        os.symlink(ID, f"{root}/names/web")
    if "directory" in what:
        os.makedirs(f"{root}/containers/{ID}/upper/d")
    assert Direct(root).recover() == []
    create(engine, "web").finish(0, keep=False)
    assert traces(engine) == []


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
