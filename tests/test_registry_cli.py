"""pull, push, login, logout, search, tag and run as a user calls them; and pulls that are killed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mini_docker.images.child import unpack_beside
from mini_docker.images.ingest import Ingest
from mini_docker.images.layout import Layout
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
from mini_docker.registry.repository import Repository
from mini_docker.registry.transport import Response
from tests.conftest import ROOT
from tests.registries import (
    PASSWORD,
    USER,
    Authority,
    Place,
    authority,
    careful_registry,
    contents,
    make_image,
    make_store,
    open_registry,
)

__all__ = ["authority", "careful_registry", "open_registry"]
COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")
Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def call(tmp_path: Path) -> Iterator[Call]:
    """Give `call(words..., input="")`, which runs mini_docker with a data root and a HOME of its own."""
    environment = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}

    def run(*words: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, "--data-root", str(tmp_path / "root"), *words],
            input=input, capture_output=True, text=True, timeout=240, env=environment)  # fmt: skip

    run("ps")  # its line about the daemon that it starts is said once
    yield run
    run("reset")


def stored(place: Place, tmp_path: Path, name: str, *layers: dict[str, bytes]) -> None:
    """Put an image into a registry."""
    layout = make_store(tmp_path / "source")
    make_image(layout, place.reference(name).familiar(), *layers)
    push(layout, place.reference(name), credentials=place.credentials, settings=place.settings)


@pytest.mark.root
@pytest.mark.anywhere
def test_pull_tag_push_and_pull_again(open_registry: Place, tmp_path: Path, call: Call) -> None:
    host = open_registry.host
    stored(open_registry, tmp_path, "cli/a", {"a": b"a"})
    first = call("pull", f"{host}/cli/a")
    lines = first.stdout.splitlines()
    assert (first.returncode, first.stderr) == (0, "")
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from cli/a"]
    assert [line.partition(": ")[2] for line in lines[2:7]] == [
        "Pulling fs layer", "Verifying Checksum", "Download complete",
        "Extracting", "Pull complete"]  # fmt: skip
    assert lines[7].startswith("Digest: sha256:")
    assert lines[8:] == [
        f"Status: Downloaded newer image for {host}/cli/a:latest",
        f"{host}/cli/a:latest",
    ]
    assert call("tag", f"{host}/cli/a", f"{host}/cli/b:2").returncode == 0
    pushed = call("push", f"{host}/cli/b:2").stdout.splitlines()
    assert pushed[0] == f"The push refers to repository [{host}/cli/b]"
    assert any(line.endswith(": Mounted from cli/a") for line in pushed)
    assert pushed[-1].startswith("2: digest: sha256:")
    quiet = call("pull", "-q", f"{host}/cli/b:2")
    assert quiet.stdout == f"{host}/cli/b:2\n"
    every = call("pull", "--all-tags", f"{host}/cli/b")
    assert every.stdout.endswith(f"Image is up to date for {host}/cli/b:2\n{host}/cli/b\n")
    assert "NAME" in call("search", f"{host}/cli").stdout


@pytest.mark.root
@pytest.mark.anywhere
def test_what_is_wrong_is_one_line(open_registry: Place, call: Call) -> None:
    for words, status, text in (
        (("pull", "127.0.0.1:1/x"), 1, "nothing listens at 127.0.0.1:1"),
        (
            ("pull", f"{open_registry.host}/nothing"),
            1,
            "nothing:latest: not found: manifest unknown",
        ),
        (("pull", "Busybox"), 1, "must be lowercase"),
        (("pull", "x:1", "-a"), 1, "tag can't be used with --all-tags/-a"),
        (("pull",), 1, "'mini_docker pull' requires 1 argument"),
        (("push", "nothing"), 1, "An image does not exist locally with the tag: nothing"),
        (("tag", "nothing", "x"), 1, "nothing"),
        (
            ("tag", "x", f"y@sha256:{'0' * 64}"),
            1,
            "refusing to create a tag with a digest reference",
        ),
        (("login", "-u", "x", open_registry.host), 1, "Cannot perform an interactive login"),
        (("login", "--password-stdin", open_registry.host), 1, "Must provide --username"),
        (("search", "--limit", "101", "x"), 1, "outside the range of [1, 100]"),
        (
            ("run", "--rm", "--network", "none", "127.0.0.1:1/x"),
            125,
            "nothing listens at 127.0.0.1:1",
        ),
    ):
        done = call(*words)
        assert done.returncode == status, (words, done)
        assert text in done.stderr and "Traceback" not in done.stderr, (words, done)


@pytest.mark.root
@pytest.mark.anywhere
def test_login_pull_logout(
    careful_registry: Place, authority: Authority, tmp_path: Path, call: Call
) -> None:
    host = careful_registry.host
    refused = call("login", "-u", USER, "--password-stdin", host, input=PASSWORD)
    assert refused.returncode == 1 and "is not trusted" in refused.stderr
    folder = Path("/etc/mini_docker/certs.d", host)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True)
    try:
        (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
        wrong = call("login", "-u", USER, "-p", "wrong", host)
        assert wrong.returncode == 1 and "login needed" in wrong.stderr
        assert not (tmp_path / "docker").exists()
        done = call("login", "-u", USER, "--password-stdin", host, input=f"{PASSWORD}\n")
        assert (done.returncode, done.stdout) == (0, "Login Succeeded\n")
        assert "stored unencrypted" in done.stderr
        stored(careful_registry, tmp_path, "cli/login")
        assert call("pull", "-q", f"{host}/cli/login").returncode == 0
        assert f"{host}/cli/login" in call("search", f"{host}/login").stdout
        assert call("logout", host).stdout == f"Removing login credentials for {host}\n"
        assert call("logout", host).returncode == 0
        assert call("pull", f"{host}/cli/login").returncode == 1
    finally:
        (folder / "ca.crt").unlink()
        for path in made:
            path.rmdir()


@pytest.mark.root
@pytest.mark.anywhere
def test_run_fetches_what_is_not_there(open_registry: Place, tmp_path: Path, call: Call) -> None:
    assert call("setup").returncode == 0
    name = f"{open_registry.host}/run/busybox:1"
    assert call("tag", "busybox", name).returncode == 0
    assert call("push", name).returncode == 0
    other = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "docker")}
    command = [COMMAND, "--data-root", str(tmp_path / "other")]
    subprocess.run([*command, "ps"], capture_output=True, env=other)
    words = ["run", "--rm", "--network", "none", name, "echo", "hi"]
    done = subprocess.run(
        [*command, *words], capture_output=True, text=True, timeout=240, env=other)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "hi\n"), done.stderr
    assert done.stderr.startswith(
        f"Unable to find image '{name}' locally\n1: Pulling from run/busybox\n"
    )
    assert done.stderr.endswith(f"Status: Downloaded newer image for {name}\n")
    for root in ("root", "other"):
        reset = [COMMAND, "--data-root", str(tmp_path / root), "reset"]
        assert subprocess.run(reset, capture_output=True).returncode == 0


# ---- kill -9 ----------------------------------------------------------------------------------------


def tree(layers: Path) -> dict[str, str]:
    """Return the digests of the files in all unpacked layers that have got their names."""
    return {
        str(path.relative_to(layers)): hashlib.sha256(path.read_bytes()).hexdigest()
        for layer in (layers.iterdir() if layers.exists() else ())
        if not layer.name.endswith(".tmp")
        for path in layer.iterdir()
    }


def damaged(root: Path) -> list[str]:
    """Return the blobs below a data root whose bytes are not those of their names."""
    blobs = (root / "images" / "blobs" / "sha256").glob("*")
    return [
        path.name for path in blobs if hashlib.sha256(path.read_bytes()).hexdigest() != path.name
    ]


def forked(action: Callable[[], object]) -> int:
    """Do something in a fork of this process; return the fork's pid."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(0)
    return pid


def fetch_and_die(fetch: Callable[[], object]) -> None:
    """Fetch until one block of a longer blob is written, and end there by kill -9; called in a fork."""
    write = Ingest.write

    def write_once(self: Ingest, data: bytes | memoryview) -> None:
        if self.offset:
            os.kill(os.getpid(), signal.SIGKILL)
        write(self, data)

    Ingest.write = write_once  # type: ignore[method-assign]
    fetch()


@pytest.mark.root
@pytest.mark.anywhere
def test_a_pull_that_is_killed_at_any_moment(
    open_registry: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each kill all that has a name is whole; the next goes on by Range, and nothing is left over."""
    chance = random.Random(13)
    sizes = (1 << 21, 1 << 18, 1 << 19, 1 << 18)  # the first is unpacked by a process of its own
    stored(
        open_registry, tmp_path, "kill/me", *({"file": chance.randbytes(size)} for size in sizes)
    )
    reference, root = open_registry.reference("kill/me"), tmp_path / "root"
    layout, layers, asked = Layout(f"{root}/images"), root / "layers", tmp_path / "asked"
    ask = Repository.blob

    def noted(self: Repository, digest: str, offset: int = 0) -> Response:
        with open(asked, "a") as file:
            file.write(f"{offset}\n")
        return ask(self, digest, offset)

    def begin_anew() -> None:
        while root.exists():  # an unpacker may outlive its parent for a moment
            shutil.rmtree(root, ignore_errors=True)

    def fetch() -> None:
        layout.create()
        pull(layout, reference, settings=open_registry.settings,
             unpack=lambda layer, diff_id: unpack_beside(layout, layer, diff_id, str(layers)))  # fmt: skip

    monkeypatch.setattr(Repository, "blob", noted)
    monkeypatch.setattr("mini_docker.images.child.WORTH_A_PROCESS", 1 << 20)
    began = time.monotonic()
    fetch()
    whole, wanted = time.monotonic() - began, (contents(layout), tree(layers))
    for turn in range(50):
        if turn % 5 == 0 or layout.names():
            begin_anew()
        pid = forked(fetch)
        time.sleep(chance.uniform(0, whole))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        assert damaged(root) == []
        assert set(tree(layers).items()) <= set(wanted[1].items())
        if layout.names():
            image = layout.image(reference.familiar())
            assert all(layout.has(layer.digest) for layer in image.layers)
    begin_anew()
    os.waitpid(forked(lambda: fetch_and_die(fetch)), 0)
    asked.unlink()
    fetch()
    assert any(line != "0" for line in asked.read_text().split()), "it did not go on by Range"
    assert (contents(layout), tree(layers)) == wanted
    assert not os.listdir(root / "images/ingest") and not os.listdir(root / "images/leases")
    assert not [name for name in os.listdir(layers) if name.endswith(".tmp")]
