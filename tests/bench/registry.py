"""How long a pull and a push take: mini_docker beside docker, podman and skopeo, in one run on loopback.

    .venv/bin/python tests/bench/registry.py [--rounds 3] [--megabytes 320]

The image has five layers of this machine's own files below /usr, packed with gzip. All talk to one real
docker-registry; each push goes to a fresh one. docker, podman and mini_docker download, verify and unpack;
skopeo only downloads and verifies, so `mini_docker, not unpacked` stands beside it. Prints, asserts nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mini_docker.images.compression import compress, expand  # noqa: E402
from mini_docker.images.layout import (  # noqa: E402
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    Layout,
    as_json,
    this_platform,
)
from mini_docker.images.reference import parse_reference  # noqa: E402
from mini_docker.images.unpack import unpack_pieces  # noqa: E402
from mini_docker.lab.registry import RealRegistry  # noqa: E402
from mini_docker.registry.push import push  # noqa: E402

COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")
LAYERS, BLOCK = 5, 1 << 20
NOT_UNPACKED = """
import sys; sys.path.insert(0, sys.argv[1])
from mini_docker.images.layout import Layout
from mini_docker.images.reference import parse_reference
from mini_docker.registry.pull import pull
layout = Layout(sys.argv[2]); layout.create()
pull(layout, parse_reference(sys.argv[3]))
"""


class CannotRun(Exception):
    """A peer that cannot run here; the text is the reason."""


class Peer(NamedTuple):
    """How a peer pulls, forgets what it pulled, and pushes: each gets the image's name."""

    name: str
    pull: Callable[[str], list[str]]
    forget: Callable[[str], object]
    push: Callable[[str], list[list[str]]] | None


def run(command: list[str]) -> tuple[float, int]:
    """Return the seconds that a command took and the most kilobytes that it had. Raises CannotRun."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    words = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise CannotRun(f"{command[0]}: {words.decode(errors='replace').strip()[-300:]}")
    return time.perf_counter() - began, usage.ru_maxrss


# ---- the image --------------------------------------------------------------------------------------


def files_of(megabytes: int) -> Iterator[Path]:
    """Yield regular files of this machine, in a fixed order, until there are enough."""
    left = megabytes << 20
    for directory, names, files in os.walk("/usr/lib"):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            size = path.lstat().st_size
            if path.is_file() and not path.is_symlink() and size < 20 << 20:
                yield path
                left -= size
                if left < 0:
                    return


def make_image(layout: Layout, name: str, megabytes: int) -> tuple[int, int]:
    """Make the image; return its packed and its raw bytes."""
    paths = list(files_of(megabytes))
    layers, diff_ids, raw = [], [], 0
    for number in range(LAYERS):
        with tempfile.TemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for path in paths[number::LAYERS]:
                    archive.add(path)
            raw += file.tell()
            file.seek(0)
            found = hashlib.sha256()
            with layout.ingest(Descriptor(f"{MEDIA_TYPE_LAYER}+gzip", "", -1)) as ingest:
                for piece in compress(hashed(file.read, found.update), "gzip", 5):
                    ingest.write(piece)
                layers.append(ingest.commit())
            diff_ids.append(f"sha256:{found.hexdigest()}")
    system, architecture = this_platform().split("/")[:2]
    config = {"os": system, "architecture": architecture, "config": {},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}  # fmt: skip
    described = layout.put(json.dumps(config).encode(), MEDIA_TYPE_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": as_json(described),
        "layers": [as_json(layer) for layer in layers],
    }
    layout.name_image(name, manifest)
    return sum(layer.size for layer in layers), raw


def hashed(read: Callable[[int], bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    while block := read(BLOCK):
        update(block)
        yield block


# ---- peers ------------------------------------------------------------------------------------------


def remover(root: Path) -> Callable[[str], object]:
    """Return what removes all that a peer keeps below `root`."""
    return lambda _: shutil.rmtree(root, ignore_errors=True)


def ours(root: Path) -> Peer:
    def command(word: str, name: str) -> list[str]:
        return [COMMAND, "--data-root", str(root), word, name]

    def pushes(name: str) -> list[list[str]]:
        source = name.replace(name.partition("/")[0], "bench.invalid:1")
        run([COMMAND, "--data-root", str(root), "tag", source, name])
        return [command("push", name)]

    return Peer(
        "mini_docker",
        lambda name: command("pull", name),
        remover(root),
        pushes,
    )


def not_unpacked(root: Path) -> Peer:
    python = [sys.executable, "-ISE", "-c", NOT_UNPACKED, str(ROOT), str(root)]
    return Peer(
        "mini_docker, not unpacked",
        lambda name: [*python, name],
        remover(root),
        None,
    )


def skopeo(root: Path, source: Path) -> Peer:
    plain = ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
    return Peer(
        "skopeo (not unpacked)",
        lambda name: [*plain, f"docker://{name}", f"oci:{root}:x"],
        remover(root),
        lambda name: [[*plain, f"oci:{source}:bench.invalid:1/bench:1", f"docker://{name}"]],
    )


def podman(root: Path) -> Peer:
    base = [
        "podman",
        "--root",
        f"{root}/root",
        "--runroot",
        f"{root}/run",
        "--storage-driver",
        "overlay",
    ]

    def forget(name: str) -> None:
        subprocess.run([*base, "rmi", "-af"], capture_output=True)

    def pushes(name: str) -> list[list[str]]:
        have = run_text([*base, "images", "-q"]).split()[0]
        return [[*base, "push", "-q", "--tls-verify=false", have, f"docker://{name}"]]

    return Peer(
        "podman", lambda name: [*base, "pull", "-q", "--tls-verify=false", name], forget, pushes
    )


def docker(socket: Path) -> Peer:
    base = ["docker", "-H", f"unix://{socket}"]

    def forget(name: str) -> None:
        for one in run_text([*base, "images", "-q", "--no-trunc"]).split():
            subprocess.run([*base, "rmi", "-f", one], capture_output=True)

    def pushes(name: str) -> list[list[str]]:
        have = run_text([*base, "images", "-q"]).split()[0]
        run([*base, "tag", have, name])
        return [[*base, "push", "-q", name]]

    return Peer("docker", lambda name: [*base, "pull", "-q", name], forget, pushes)


def run_text(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"{command[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


@contextmanager
def dockerd(folder: Path) -> Iterator[Path]:
    """Run a dockerd with files of its own; yield its socket. Raises CannotRun."""
    if not shutil.which("dockerd"):
        raise CannotRun("dockerd is not installed")
    folder.mkdir()
    socket = folder / "socket"
    places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    words = [
        "dockerd",
        "-H",
        f"unix://{socket}",
        "--bridge=none",
        "--iptables=false",
        "--ip6tables=false",
    ]
    words += [f"--{flag}={folder}/{name}" for flag, name in places.items()]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 30
        while (
            not socket.exists()
            or subprocess.run(
                ["docker", "-H", f"unix://{socket}", "info"], capture_output=True
            ).returncode
        ):
            if process.poll() is not None or time.monotonic() > end:
                last = (folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
                raise CannotRun(f"dockerd: {' '.join(last)[-200:]}")
            time.sleep(0.2)
        yield socket
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["umount", "-l", f"{folder}/data"], capture_output=True)


# ---- the run ----------------------------------------------------------------------------------------


def bench_pull(peer: Peer, name: str, rounds: int) -> tuple[list[float], int]:
    times, most = [], 0
    for _ in range(rounds):
        peer.forget(name)
        seconds, kilobytes = run(peer.pull(name))
        times.append(seconds)
        most = max(most, kilobytes)
    return times, most


def bench_push(peer: Peer, folder: Path, rounds: int) -> tuple[list[float], int]:
    assert peer.push is not None
    times, most = [], 0
    for number in range(rounds):
        registry = RealRegistry(folder / f"push{number}").start()
        try:
            for command in peer.push(f"{registry.host}/bench:1"):
                seconds, kilobytes = run(command)
                times.append(seconds)
                most = max(most, kilobytes)
        finally:
            registry.stop()
            shutil.rmtree(folder / f"push{number}")
    return times, most


def row(what: str, who: str, times: list[float], megabytes: float, most: int) -> None:
    best, middle = min(times), statistics.median(times)
    rate = megabytes / best
    print(
        f"{what:5} {who:26} {best:6.2f} s  {middle:6.2f} s  {rate:6.0f} MB/s  {most / 1024:5.0f} MB",
        flush=True,
    )


def stages(layout: Layout, name: str, folder: Path) -> None:
    """Print what each stage of an unpack does alone, on one processor."""
    image = layout.image(name)
    packed = [Path(layout.blob_path(layer.digest)) for layer in image.layers]
    size = sum(path.stat().st_size for path in packed) / 1e6

    def clock(what: str, work: Callable[[], float]) -> None:
        began = time.perf_counter()
        done = work()
        print(f"  {what:34} {done / (time.perf_counter() - began):6.0f} MB/s")

    def read() -> float:
        for path in packed:
            with open(path, "rb") as file:
                for _ in hashed(file.read, lambda block: None):
                    pass
        return size

    def sha256() -> float:
        for path in packed:
            with open(path, "rb") as file:
                for _ in hashed(file.read, hashlib.sha256().update):
                    pass
        return size

    def inflate() -> float:
        total = 0
        for path in packed:
            with open(path, "rb") as file:
                total += sum(map(len, expand(iter(lambda: file.read(BLOCK), b""))))
        return total / 1e6

    def unpack() -> float:
        total = 0
        for number, path in enumerate(packed):
            root = folder / f"stage{number}"
            root.mkdir()
            with open(path, "rb") as file:
                plain = list(map(bytes, expand(iter(lambda: file.read(BLOCK), b""))))
            total += sum(map(len, plain))
            unpack_pieces(iter(plain), str(root))
        return total / 1e6

    print("stages alone, one processor:")
    clock("read the blobs", read)
    clock("read and sha256", sha256)
    clock("read and inflate (raw bytes)", inflate)
    clock("inflate and unpack (raw bytes)", unpack)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=320, help="raw size of the image: 320")
    parser.add_argument("--without", default="", help="peers to leave out: docker,podman,skopeo")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mini_docker_bench_")))
        source = Layout(f"{folder}/ours/images")
        source.create()
        registry = RealRegistry(folder / "registry").start()
        stack.callback(registry.stop)
        name = f"{registry.host}/bench:1"
        packed, raw = make_image(source, "bench.invalid:1/bench:1", chosen.megabytes)
        source.tag(name, Descriptor(MEDIA_TYPE_MANIFEST, *digest_and_size(source)))
        push(source, parse_reference(name))
        print(
            f"{LAYERS} layers, {packed / 1e6:.0f} MB packed, {raw / 1e6:.0f} MB raw; {chosen.rounds} rounds"
        )
        sys.stdout.flush()
        print(f"{'':5} {'':26} {'best':>8}  {'median':>8}  {'rate':>11}  {'memory':>8}")
        peers = [
            ours(folder / "pulled"),
            not_unpacked(folder / "blobs"),
            skopeo(folder / "skopeo", folder / "ours" / "images"),
            podman(folder / "podman"),
        ]
        try:
            peers.append(docker(stack.enter_context(dockerd(folder / "docker"))))
        except CannotRun as error:
            print(f"docker: cannot run here, because {error}")
        without = chosen.without.split(",")
        for peer in peers:
            if peer.name.partition(" ")[0] not in without:
                bench_peer(peer, name, folder, chosen.rounds, packed / 1e6)
        stages(source, "bench.invalid:1/bench:1", folder)


def bench_peer(peer: Peer, name: str, folder: Path, rounds: int, megabytes: float) -> None:
    try:
        times, most = bench_pull(peer, name, rounds)
        row("pull", peer.name, times, megabytes, most)
        if peer.push:
            pusher = ours(folder / "ours") if peer.name == "mini_docker" else peer
            times, most = bench_push(pusher, folder, rounds)
            row("push", peer.name, times, megabytes, most)
    except (CannotRun, OSError) as error:
        print(f"{peer.name}: cannot run here, because {error}")


def digest_and_size(layout: Layout) -> tuple[str, int]:
    entry = layout.entries()[0]
    return entry["digest"], entry["size"]


if __name__ == "__main__":
    main()
