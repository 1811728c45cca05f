"""Docker's SDK for Python, over one daemon of ours: its whole surface, a test for each part."""

from __future__ import annotations

import io
import json
import os
import pathlib
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from mini_docker.lab.registry import RealRegistry
from mini_docker.linux.process import CLONE_NEWNET, setns
from tests.conftest import cannot_run_here
from tests.daemons import WAIT, Daemon, go
from tests.registries import real
from tests.system import until

docker = pytest.importorskip("docker", reason="cannot run here, because there is no docker SDK")
errors: Any = docker.errors
pytestmark = [pytest.mark.root, pytest.mark.peers]


@contextmanager
def registry_in(netns_fd: int, folder: pathlib.Path) -> Iterator[RealRegistry]:
    """Start a registry from a thread that is in that network; it dies with the thread."""
    with ThreadPoolExecutor(1, initializer=setns, initargs=(netns_fd, CLONE_NEWNET)) as pool:
        registry = pool.submit(real, folder).result()
        try:
            yield registry
        finally:
            registry.stop()


@pytest.fixture
def client(daemon: Daemon) -> Iterator[Any]:
    """A client; what the test leaves is removed."""
    client = docker.DockerClient(base_url=f"unix://{daemon.path}", timeout=240)
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True, v=True)
    client.networks.prune()
    client.volumes.prune()
    client.close()


def run(client: Any, *words: str, **more: Any) -> Any:
    """Run a container in the background, without network unless one is asked for."""
    if "network" not in more:
        more["network_mode"] = "none"
    return client.containers.run("busybox", list(words) or ["sleep", "1000"], detach=True, **more)


def tar_of(name: str, data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def test_the_system(client: Any) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.41"
    assert client.info()["OSType"] == "linux"
    assert [image["RepoTags"] for image in client.df()["Images"]] == [["busybox:latest"]]


def test_a_container_in_every_state(client: Any) -> None:
    box = client.containers.create(
        "busybox", "sleep 1000", name="one", labels={"a": "b"}, network_mode="none"
    )
    assert (box.status, box.labels) == ("created", {"a": "b"})
    box.start()
    box.reload()
    assert box.status == "running" and box.image.tags == ["busybox:latest"]
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.rename("two")
    box.update(mem_limit="64m", memswap_limit=-1, cpu_shares=512)
    box.restart(timeout=0)
    box.reload()
    assert (box.name, box.attrs["HostConfig"]["Memory"]) == ("two", 64 << 20)
    assert client.containers.list(filters={"label": ["a=b"], "status": "running"}) == [box]
    assert "CMD" in box.top()["Titles"] and "PID" in box.top(ps_args="aux")["Titles"]
    box.kill("SIGKILL")
    assert box.wait(condition="not-running")["StatusCode"] == 137
    box.remove()
    with pytest.raises(errors.NotFound, match="No such container: two"):
        client.containers.get("two")


def test_run_in_the_foreground(client: Any) -> None:
    more = {"network_mode": "none", "remove": True}
    assert client.containers.run("busybox", "echo out", **more) == b"out\n"
    both = client.containers.run("busybox", ["sh", "-c", "echo err >&2"], stderr=True, **more)
    assert both == b"err\n"
    lines = client.containers.run("busybox", "seq 3", stream=True, **more)
    assert list(lines) == [b"1\n", b"2\n", b"3\n"]
    with pytest.raises(errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "echo no >&2; exit 3"], **more)
    assert (failed.value.exit_status, failed.value.stderr) == (3, b"no\n")
    with pytest.raises(errors.APIError, match="executable file not found"):
        client.containers.run("busybox", "nosuch", **more)
    assert client.containers.list(all=True, filters={"status": "exited"}) == []


def test_every_condition_of_wait(client: Any, daemon: Daemon) -> None:
    box = run(client, "sh", "-c", f"{WAIT} exit 4", name="four")
    pid, tasks = daemon.state("four")["Pid"], pathlib.Path(f"/proc/{daemon.process.pid}/task")
    codes: list[int] = []
    before = len(os.listdir(tasks))
    waits = [
        threading.Thread(target=lambda c=c: codes.append(box.wait(condition=c)["StatusCode"]))
        for c in ("not-running", "next-exit", "removed")
    ]
    for thread in waits:
        thread.start()
    until(lambda: len(os.listdir(tasks)) >= before + 2)  # a thread for each new connection
    go(pid)
    waits[0].join(240)
    waits[1].join(1)
    while waits[1].is_alive():  # on a busy machine the next exit may be the second
        box.start()
        box.wait()
        waits[1].join(1)
    assert codes == [4, 4] and waits[2].is_alive()
    box.remove()
    waits[2].join(240)
    assert codes == [4, 4, 4]
    again = run(client, "sleep", "1", restart_policy={"Name": "always"})
    assert again.wait()["StatusCode"] == 0, "between two lives it does not run"


def test_logs_in_all_ways(client: Any) -> None:
    box = run(client, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done; echo e >&2")
    lines = list(box.logs(stream=True, follow=True))
    assert sorted(lines) == [b"1\n", b"2\n", b"3\n", b"e\n"]
    assert [line for line in lines if line != b"e\n"] == [b"1\n", b"2\n", b"3\n"]
    assert box.logs(stdout=False) == b"e\n"
    assert box.logs(tail=1, stderr=False) in (b"3\n", b"")
    stamped = box.logs(timestamps=True, stderr=False).splitlines()
    assert all(b"Z " in line for line in stamped)
    assert box.logs(since=int(time.time()) + 5) == b""
    assert box.logs(until=1) == b""


def test_attach_and_its_socket(client: Any) -> None:
    said = run(client, "echo", "hello")
    said.wait()
    assert said.attach(stream=False, logs=True) == b"hello\n"
    box = client.containers.create("busybox", "cat", stdin_open=True, network_mode="none")
    stream = box.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    box.start()
    stream._sock.sendall(b"typed\n")
    stream._sock.settimeout(240)
    assert stream._sock.recv(100) == b"\1\0\0\0\0\0\0\6typed\n"
    stream._sock.shutdown(socket.SHUT_WR)
    stream.close()
    tty = client.containers.create("busybox", "tty", tty=True, network_mode="none")
    tty.start()
    tty.wait()
    assert tty.logs() == b"/dev/pts/0\r\n"
    assert tty.attach(stream=False, logs=True) == b"/dev/pts/0\r\n"


def test_exec_in_all_ways(client: Any) -> None:
    """Once each: the daemon waits with what would come together with an answer's head, and be lost here."""
    box = run(client)
    for command, more, wanted in (
        ("echo hi", {}, (0, b"hi\n")),
        (["sh", "-c", "echo o; echo e >&2; exit 7"], {"demux": True}, (7, (b"o\n", b"e\n"))),
        ("pwd", {"workdir": "/tmp"}, (0, b"/tmp\n")),
        (["sh", "-c", "echo $A"], {"environment": {"A": "b"}}, (0, b"b\n")),
        ("id -u", {"user": "1000"}, (0, b"1000\n")),
    ):
        assert box.exec_run(command, **more) == wanted
    assert b"".join(box.exec_run("seq 3", stream=True).output) == b"1\n2\n3\n"
    code, missing = box.exec_run("nosuch")
    assert code == 126 and b"executable file not found" in missing

    def tty(**more: Any) -> bytes:
        made = client.api.exec_create(box.id, "tty", tty=True)
        said: bytes = client.api.exec_start(made, **more)
        return said

    assert tty(tty=True) == b"/dev/pts/0\r\n"
    assert tty() == b"/dev/pts/0\r\n", "frames are the start's to choose"
    made = client.api.exec_create(box.id, "cat", stdin=True)
    stream = client.api.exec_start(made, socket=True)
    stream._sock.sendall(b"x")
    stream._sock.shutdown(socket.SHUT_WR)
    stream._sock.settimeout(240)
    assert stream._sock.recv(100) == b"\1\0\0\0\0\0\0\1x"
    stream.close()
    assert client.api.exec_inspect(made)["OpenStdin"] is True
    made = client.api.exec_create(box.id, "sleep 30", tty=True)
    client.api.exec_start(made, detach=True)
    client.api.exec_resize(made, height=30, width=100)


def test_archives_of_what_runs_and_what_does_not(client: Any) -> None:
    box = run(
        client, "sh", "-c", "echo kept >/vol/data; sleep 1000", volumes={"vol": {"bind": "/vol"}}
    )
    assert box.put_archive("/tmp", tar_of("note", b"words"))
    assert box.exec_run("cat /tmp/note").output == b"words"
    box.exec_run(["sh", "-c", "until grep -q kept /vol/data; do sleep 0.1; done"])
    box.kill()
    box.wait()
    for path, name, data in (("/tmp/note", "note", b"words"), ("/vol/data", "data", b"kept\n")):
        pieces, about = box.get_archive(path)
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
            held = archive.extractfile(name)
            assert held and held.read() == data
        assert (about["name"], about["size"]) == (name, len(data))
    assert box.put_archive("/vol", tar_of("late", b"x"))
    changed = {(one["Path"], one["Kind"]) for one in box.diff()}
    assert ("/tmp/note", 1) in changed and ("/tmp", 0) in changed
    assert len(b"".join(box.export())) > 1 << 20
    with pytest.raises(errors.NotFound):
        box.get_archive("/nosuch")
    with pytest.raises(errors.APIError, match="not a directory"):
        box.put_archive("/tmp/note", tar_of("x", b""))


def test_stats_once_and_as_a_stream(client: Any) -> None:
    box = run(client)
    assert box.stats(stream=False)["precpu_stats"]["cpu_usage"]["total_usage"] >= 0
    stream = box.stats(decode=True)
    first, second = next(stream), next(stream)
    assert first["preread"].startswith("0001-") and second["preread"] == first["read"]
    stream.close()
    box.kill()
    assert box.stats(stream=False)["memory_stats"] == {}


def test_images_and_what_they_are_made_of(client: Any) -> None:
    box = run(client, "sh", "-c", "echo new >/new")
    box.wait()
    image = box.commit("made", "1", message="said", author="me", changes='CMD ["cat", "/new"]')
    assert image.tags == ["made:1"] and image.attrs["Container"] == box.id
    assert client.containers.run("made:1", network_mode="none", remove=True) == b"new\n"
    assert image.history()[0]["Comment"] == "said"
    assert image.tag("other", "2") and sorted(client.images.get("made:1").tags) == [
        "made:1",
        "other:2",
    ]
    saved = b"".join(image.save(named=True))
    client.images.remove("made:1")
    client.images.remove("other:2")
    with pytest.raises(errors.ImageNotFound):
        client.images.get("made:1")
    assert [loaded.tags for loaded in client.images.load(saved)] == [["made:1"]]
    with pytest.raises(errors.ImageLoadError):
        client.images.load(b"no archive")
    client.images.remove("made:1")
    said = client.api.import_image_from_data(tar_of("a", b"b"), repository="flat", tag="1")
    assert json.loads(said.splitlines()[0])["status"].startswith("sha256:")
    assert [one.tags for one in client.images.list(name="flat")] == [["flat:1"]]
    client.images.remove("flat:1")
    assert client.images.prune()["SpaceReclaimed"] >= 0


def test_a_registry(client: Any, daemon: Daemon, tmp_path: pathlib.Path) -> None:
    with registry_in(daemon.netns_fd, tmp_path / "registry") as registry:
        name, who = f"{registry.host}/lab/hello", {"username": "u", "password": "p"}
        client.images.get("busybox").tag(name, "1")
        pushed = [
            json.loads(line) for line in client.images.push(name, "1", auth_config=who).splitlines()
        ]
        assert any("1: digest: sha256:" in one.get("status", "") for one in pushed)
        digest = client.images.get_registry_data(f"{name}:1").id
        client.images.remove(f"{name}:1")
        assert client.images.pull(name, tag="1").attrs["RepoDigests"] == [f"{name}@{digest}"]
        client.images.remove(f"{name}:1")
        assert client.images.pull(f"{name}@{digest}").attrs["RepoDigests"] == [f"{name}@{digest}"]
        client.images.remove(f"{name}@{digest}")
        with pytest.raises(errors.NotFound):
            client.images.pull(name, tag="nosuch")
        assert client.login("u", "p", registry=registry.host)["Status"] == "Login Succeeded"
        missing = [
            json.loads(line)
            for line in client.images.push(name, "no", auth_config=who).splitlines()
        ]
        assert "does not exist locally" in missing[-1]["error"]


def test_networks(client: Any) -> None:
    pool = docker.types.IPAMPool(subnet="10.98.0.0/24", gateway="10.98.0.1")
    ipam = docker.types.IPAMConfig(pool_configs=[pool])
    lan = client.networks.create("lan", ipam=ipam, labels={"a": "b"}, driver="bridge")
    assert client.networks.list(filters={"label": "a=b"}) == [lan]
    server = run(
        client, "sh", "-c", "while :; do echo row | nc -l -p 80; done", name="server", network="lan"
    )
    other = run(client, name="other", network="lan")
    lan.disconnect(other)
    lan.connect(other, aliases=["alias"], ipv4_address="10.98.0.9")
    other.reload()
    mine = other.attrs["NetworkSettings"]["Networks"]["lan"]
    assert mine["IPAddress"] == "10.98.0.9" and "alias" in mine["Aliases"]
    ask = "until nc server 80 2>/dev/null; do sleep 0.1; done"
    assert other.exec_run(["sh", "-c", ask]).output == b"row\n"
    assert server.exec_run("nslookup alias").exit_code == 0
    lan.reload()
    assert {one.name for one in lan.containers} == {"server", "other"}
    with pytest.raises(errors.APIError, match="has active endpoints"):
        lan.remove()
    for forced in (True, True):
        if forced and other in lan.containers:
            lan.disconnect(other, force=forced)
            lan.reload()
    with pytest.raises(errors.APIError, match="is not connected"):
        lan.disconnect(other, force=True)
    with pytest.raises(errors.APIError, match="already exists"):
        client.networks.create("lan")
    with pytest.raises(errors.APIError, match="[Pp]ool overlaps"):
        client.networks.create("over", ipam=ipam)


def test_volumes(client: Any) -> None:
    kept = client.volumes.create("kept", labels={"a": "b"})
    assert client.volumes.get("kept").attrs["Labels"] == {"a": "b"}
    assert client.volumes.list(filters={"label": "a=b"}) == [kept]
    box = run(client, "sh", "-c", "echo x >/v/f", volumes={"kept": {"bind": "/v", "mode": "rw"}})
    box.wait()
    with pytest.raises(errors.APIError, match="volume is in use"):
        kept.remove()
    with pytest.raises(errors.APIError, match="read-only|Read-only|status"):
        raise_for(run(client, "touch", "/v/g", volumes={"kept": {"bind": "/v", "mode": "ro"}}))
    tmpfs = run(client, "mount", tmpfs={"/t": "size=1m"})
    tmpfs.wait()
    assert b"tmpfs on /t" in tmpfs.logs()
    box.remove()
    for container in client.containers.list(all=True):
        container.remove(force=True)
    kept.remove()
    with pytest.raises(errors.NotFound, match="no such volume"):
        client.volumes.get("kept")


def raise_for(container: Any) -> None:
    """Turn a container's exit code into the error that `run` in the foreground would raise."""
    if code := container.wait()["StatusCode"]:
        raise errors.APIError(f"status {code}")


def test_events_of_all_kinds(client: Any) -> None:
    seen: list[tuple[str, str]] = []
    stream = client.events(decode=True, filters={"type": ["container", "network", "volume"]})

    def follow() -> None:
        for event in stream:
            seen.append((event["Type"], event["Action"]))

    thread = threading.Thread(target=follow)
    thread.start()
    client.volumes.create("told")
    client.networks.create("told")
    run(client, "true", name="told", network="told", volumes={"told": {"bind": "/v"}}).wait()
    client.containers.get("told").remove()
    client.networks.get("told").remove()
    client.volumes.get("told").remove()
    until(lambda: ("volume", "destroy") in seen)
    stream.close()
    thread.join(240)
    wanted = [
        ("volume", "create"), ("network", "create"), ("container", "create"), ("volume", "mount"),
        ("network", "connect"), ("container", "start"), ("container", "die"), ("network", "disconnect"),
        ("volume", "unmount"), ("container", "destroy"), ("network", "destroy"), ("volume", "destroy"),
    ]  # fmt: skip
    assert sorted(set(wanted) - set(seen)) == []


def test_a_kill_is_told_before_the_end(client: Any) -> None:
    container = run(client)
    container.kill()
    container.wait()
    until(lambda: told_of(client, container) == ["kill", "die"])


def told_of(client: Any, container: Any) -> list[str]:
    """Return what events have said of a container's end so far, in their order."""
    filters = {"container": container.id, "event": ["kill", "die"]}
    events = client.events(since=1, until=int(time.time()) + 1, filters=filters, decode=True)
    return [event["Action"] for event in events]


def test_prune_and_what_it_frees(client: Any) -> None:
    run(client, "sh", "-c", "head -c 100000 /dev/zero >/big", labels={"keep": "no"}).wait()
    kept = run(client, "true", labels={"keep": "yes"})
    kept.wait()
    done = client.containers.prune(filters={"label": "keep=no"})
    assert len(done["ContainersDeleted"]) == 1 and done["SpaceReclaimed"] >= 100_000
    assert client.containers.list(all=True) == [kept]
    client.networks.create("unused")
    assert client.networks.prune()["NetworksDeleted"] == ["unused"]
    client.volumes.create("unused")
    assert client.volumes.prune()["VolumesDeleted"] == ["unused"]


def test_what_is_not_here_says_so(client: Any) -> None:
    assert client.swarm.attrs == {} or cannot_run_here("this SDK asks for the swarm at once")
    with pytest.raises(errors.APIError, match="not a swarm manager"):
        client.services.list()
    assert client.plugins.list() == []
    with pytest.raises(errors.APIError, match="501"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox"))


def test_an_old_client(daemon: Daemon) -> None:
    old = docker.APIClient(base_url=f"unix://{daemon.path}", version="1.24")
    assert old.version()["ApiVersion"] == "1.41" and old.containers() == []
    old.close()
    with pytest.raises(errors.APIError, match="too new"):
        docker.APIClient(base_url=f"unix://{daemon.path}", version="1.99").containers()
