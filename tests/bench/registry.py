"""How long a pull and a push take: mini_docker beside docker, podman and skopeo, in one run on loopback.

    .venv/bin/python tests/bench/registry.py [--rounds 3] [--megabytes 200] [--directory /dev/shm]

The image has five layers of this machine's own files, packed with gzip. All talk to one real
docker-registry; each push goes to a fresh one, each pull into a fresh directory, and nothing is removed
before the end (ext4 without a journal is slow for minutes after that; `--directory` can be a tmpfs).
In each round all take turns. The same docker client drives dockerd and our daemon; podman and
`mini_docker, alone` do it in a process of their own; skopeo only downloads and verifies, so
`mini_docker, not unpacked` stands beside it. CPU is user and system time of all processes that worked,
without the registry's; memory is the most that they had together (PSS).
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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
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
    as_descriptor,
    as_json,
    this_platform,
)
from mini_docker.images.reference import parse_reference  # noqa: E402
from mini_docker.images.unpack import unpack_pieces  # noqa: E402
from mini_docker.lab.registry import RealRegistry  # noqa: E402
from mini_docker.registry.push import push  # noqa: E402

COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")
LAYERS, BLOCK = 5, 1 << 20
SOURCE = "bench.invalid:1/bench:1"
HERTZ = os.sysconf("SC_CLK_TCK")
ALONE = """
import sys; sys.path.insert(0, sys.argv[1])
from mini_docker.images.child import unpack_beside
from mini_docker.images.layout import Layout, as_descriptor
from mini_docker.images.reference import parse_reference
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
verb, root, name = sys.argv[2:]
layout = Layout(root + "/images"); layout.create()
layers = lambda layer, diff_id: unpack_beside(layout, layer, diff_id, root + "/layers")
if verb == "push":
    layout.tag(name, as_descriptor(layout.entries()[0]))
    push(layout, parse_reference(name))
else:
    pull(layout, parse_reference(name), unpack=layers if verb == "pull" else None)
"""


class CannotRun(Exception):
    """A peer that cannot run here; the text is the reason."""


class Peer(NamedTuple):
    """How a peer pulls and pushes in a directory of its own: commands, and the daemon that does the work."""

    name: str
    pull: Callable[[Path, str], list[str]]
    push: Callable[[Path, str], list[str]] | None
    daemon: Callable[[Path], AbstractContextManager[int]]


class Cost(NamedTuple):
    """What one command took: seconds on the clock and of processors, and the most memory in bytes."""

    seconds: float
    cpu: float
    memory: int


# ---- measuring --------------------------------------------------------------------------------------


def tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                children = Path(f"/proc/{one}/task/{task}/children").read_text().split()
                waiting += map(int, children)
        except OSError:
            pass  # it has just ended
    return found


def cpu_of(pids: list[int]) -> float:
    """Return the seconds of processors that processes, and what they have waited for, have used."""
    ticks = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / HERTZ


def memory_of(pids: list[int]) -> int:
    """Return the bytes that processes have, shared ones divided."""
    total = 0
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()
        except OSError:
            continue
        total += int(words[0]) * 1024 if words else 0
    return total


def run(command: list[str], daemon: int = 0) -> Cost:
    """Run a command, with `daemon` working for it, and return what it took. Raises CannotRun."""
    before = cpu_of(tree(daemon)) if daemon else 0.0
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    most, ended = [0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            most[0] = max(most[0], memory_of(tree(process.pid) + (tree(daemon) if daemon else [])))

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout is not None
    words = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = status
    ended.set()
    watcher.join()
    if status:
        raise CannotRun(f"{command[0]}: {words.decode(errors='replace').strip()[-300:]}")
    worked = cpu_of(tree(daemon)) - before if daemon else 0.0
    return Cost(seconds, usage.ru_utime + usage.ru_stime + worked, most[0])


# ---- the image --------------------------------------------------------------------------------------


def files_of(directory: str) -> Iterator[Path]:
    """Yield regular files of this machine, in a fixed order."""
    for folder, names, files in os.walk(directory):
        names.sort()
        for name in sorted(files):
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink() and path.lstat().st_size < 20 << 20:
                yield path


def make_layer(layout: Layout, paths: Iterator[Path], size: int) -> tuple[Descriptor, str, int]:
    """Store a layer of about `size` packed bytes; return it, its diff_id and the bytes of its tar."""
    raw = hashlib.sha256()
    length = 0
    with tempfile.TemporaryFile() as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            known: set[Path] = set()
            while file.tell() < 2.7 * size and (path := next(paths, None)):
                for parent in [*reversed(path.parents[:-1]), path]:
                    if parent not in known:
                        archive.add(parent, recursive=False)
                        known.add(parent)
        length = file.tell()
        file.seek(0)
        with layout.ingest(Descriptor(f"{MEDIA_TYPE_LAYER}+gzip", "", -1)) as ingest:
            for piece in compress(hashed(file.read, raw.update), "gzip", 5):
                ingest.write(piece)
            return ingest.commit(), f"sha256:{raw.hexdigest()}", length


def make_image(layout: Layout, name: str, megabytes: int) -> tuple[int, int]:
    """Make the image of about so many packed megabytes; return its packed and its raw bytes."""
    paths = files_of("/usr")
    made = [make_layer(layout, paths, (megabytes * 1_000_000) // LAYERS) for _ in range(LAYERS)]
    system, architecture = this_platform().split("/")[:2]
    diff_ids = [diff_id for _, diff_id, _ in made]
    config = {"os": system, "architecture": architecture, "config": {},
              "rootfs": {"type": "layers", "diff_ids": diff_ids}}  # fmt: skip
    described = layout.put(json.dumps(config).encode(), MEDIA_TYPE_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": as_json(described),
        "layers": [as_json(layer) for layer, _, _ in made],
    }
    layout.name_image(name, manifest)
    return sum(layer.size for layer, _, _ in made), sum(length for _, _, length in made)


def hashed(read: Callable[[int], bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    while block := read(BLOCK):
        update(block)
        yield block


# ---- peers ------------------------------------------------------------------------------------------


def alone(verb: str) -> Callable[[Path, str], list[str]]:
    """Return our library's pull or push in a process of its own."""
    python = [sys.executable, "-ISE", "-c", ALONE, str(ROOT), verb]
    return lambda root, name: [*python, str(root), name]


def skopeo() -> Peer:
    plain = ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
    return Peer(
        "skopeo, not unpacked",
        lambda root, name: [*plain, f"docker://{name}", f"oci:{root}/images:{SOURCE}"],
        lambda root, name: [*plain, f"oci:{root}/images:{SOURCE}", f"docker://{name}"],
        no_daemon,
    )


def podman() -> Peer:
    def base(root: Path) -> list[str]:
        places = ["--root", f"{root}/root", "--runroot", f"{root}/run"]
        return ["podman", *places, "--storage-driver", "overlay"]

    def pushes(root: Path, name: str) -> list[str]:
        have = run_text([*base(root), "images", "-q"]).split()[0]
        return [*base(root), "push", "-q", "--tls-verify=false", have, f"docker://{name}"]

    def pulls(root: Path, name: str) -> list[str]:
        return [*base(root), "pull", "-q", "--tls-verify=false", name]

    return Peer("podman", pulls, pushes, no_daemon)


def by_docker(name: str, daemon: Callable[[Path], AbstractContextManager[int]]) -> Peer:
    """Return what the docker client does with a daemon whose socket is `root`/socket."""

    def base(root: Path) -> list[str]:
        return ["docker", "-H", f"unix://{root}/socket"]

    def pushes(root: Path, name: str) -> list[str]:
        have = run_text([*base(root), "images", "-q"]).split()[0]
        run([*base(root), "tag", have, name])
        return [*base(root), "push", "-q", name]

    return Peer(name, lambda root, name: [*base(root), "pull", "-q", name], pushes, daemon)


def run_text(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"{command[0]}: {done.stderr.strip()[-300:]}")
    return done.stdout


@contextmanager
def daemon_of(command: list[str], root: Path) -> Iterator[int]:
    """Run a daemon that listens at `root`/socket; yield its pid. Raises CannotRun."""
    for program in (command[0], "docker"):
        if not shutil.which(program):
            raise CannotRun(f"{program} is not installed")
    root.mkdir(exist_ok=True)
    with open(root / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, "-H", f"unix://{root}/socket"], stdout=log, stderr=log
        )
    try:
        end = time.monotonic() + 30
        ask = ["docker", "-H", f"unix://{root}/socket", "version"]
        while subprocess.run(ask, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() > end:
                last = (root / "log").read_text(errors="replace").strip().splitlines()[-1:]
                raise CannotRun(f"{command[0]}: {' '.join(last)[-200:]}")
            time.sleep(0.1)
        yield process.pid
    finally:
        process.terminate()
        process.wait()
        subprocess.run(["umount", "-l", f"{root}/data"], capture_output=True)


def dockerd(root: Path) -> AbstractContextManager[int]:
    """Run a dockerd with files of its own."""
    places = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    words = ["dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"]
    return daemon_of([*words, *(f"--{flag}={root}/{name}" for flag, name in places.items())], root)


def our_daemon(root: Path) -> AbstractContextManager[int]:
    """Run our daemon with files of its own."""
    return daemon_of([COMMAND, "daemon", "--data-root", f"{root}/data"], root)


def no_daemon(root: Path) -> AbstractContextManager[int]:
    """Make the directory; no process."""
    root.mkdir()
    return nullcontext(0)


PEERS = (
    by_docker("mini_docker", our_daemon),
    by_docker("docker", dockerd),
    Peer("mini_docker, alone", alone("pull"), alone("push"), no_daemon),
    podman(),
    Peer("mini_docker, not unpacked", alone("fetch"), None, no_daemon),
    skopeo(),
)


# ---- the run ----------------------------------------------------------------------------------------


def bench_peer(peer: Peer, name: str, place: Path) -> dict[str, Cost]:
    """Return what one pull by a peer took, and one push. Raises CannotRun."""
    with peer.daemon(place) as pid:
        costs = {"pull": run(peer.pull(place, name), pid)}
        if peer.push:
            registry = RealRegistry(Path(f"{place}-registry")).start()
            try:
                costs["push"] = run(peer.push(place, f"{registry.host}/bench:1"), pid)
            finally:
                registry.stop()
    return costs


def bench_all(
    name: str, folder: Path, rounds: int, without: list[str]
) -> dict[str, dict[str, list[Cost]]]:
    """Return, for pull and push, each peer's costs in the rounds."""
    found: dict[str, dict[str, list[Cost]]] = {"pull": {}, "push": {}}
    left = [peer for peer in PEERS if peer.name.partition(",")[0] not in without]
    for number in range(rounds):
        for peer in list(left):
            place = folder / f"{peer.name.replace(', ', '-').replace(' ', '_')}{number}"
            try:
                for verb, cost in bench_peer(peer, name, place).items():
                    found[verb].setdefault(peer.name, []).append(cost)
            except (CannotRun, OSError) as error:
                print(f"{peer.name}: cannot run here, because {error}", flush=True)
                left.remove(peer)
    return found


def show(what: str, found: dict[str, list[Cost]], megabytes: float) -> None:
    """Print a table: each peer's best round, its median, and how it stands to ours."""
    print(
        f"\n{what:27} {'best':>8} {'median':>8} {'rate':>10} {'CPU':>8} {'memory':>8}   times ours"
    )
    for who, costs in found.items():
        best, cpu = min(c.seconds for c in costs), min(c.cpu for c in costs)
        middle, most = statistics.median(c.seconds for c in costs), max(c.memory for c in costs)
        mine = found.get(compared_with(who), costs)
        clock = best / min(c.seconds for c in mine)
        work = cpu / min(c.cpu for c in mine)
        print(f"  {who:25} {best:6.2f} s {middle:6.2f} s {megabytes / best:5.0f} MB/s {cpu:6.2f} s "
              f"{most >> 20:5} MB   {clock:4.1f} (CPU {work:4.1f})", flush=True)  # fmt: skip


def compared_with(who: str) -> str:
    """Return which of ours does the same work as a peer."""
    return {
        "podman": "mini_docker, alone",
        "skopeo, not unpacked": "mini_docker, not unpacked",
    }.get(who, "mini_docker")


def stages(layout: Layout, folder: Path) -> None:
    """Print what each stage of a pull does alone, beside what this machine can do."""
    path = layout.blob_path(layout.image(SOURCE).layers[0].digest)
    plain = folder / "layer.tar"
    with open(path, "rb") as file, open(plain, "wb") as out:
        for piece in expand(iter(lambda: file.read(BLOCK), b"")):
            out.write(piece)
    packed_size, raw_size = (os.stat(p).st_size / 1e6 for p in (path, plain))

    def ours(work: Callable[[Iterator[bytes]], object], source: str | Path) -> Cost:
        began, before = time.perf_counter(), time.process_time()
        with open(source, "rb") as file:
            work(iter(lambda: file.read(1 << 18), b""))
        return Cost(time.perf_counter() - began, time.process_time() - before, 0)

    def digest(pieces: Iterator[bytes]) -> None:
        found = hashlib.sha256()
        for piece in pieces:
            found.update(piece)

    def inflate(pieces: Iterator[bytes]) -> None:
        for _ in expand(pieces):
            pass

    folders = [f"{folder}/{name}" for name in ("unpack", "both", "tar", "tarz")]
    for name in folders:
        os.mkdir(name)
    unpack, both, tar, tarz = folders
    table: list[tuple[str, float, Cost, list[str]]] = [
        ("sha256", packed_size, ours(digest, path), ["openssl", "dgst", "-sha256", path]),
        ("inflate", raw_size, ours(inflate, path), ["gzip", "-dkc", path]),
        ("tar to disk", raw_size, ours(lambda p: unpack_pieces(p, unpack), plain),
         ["tar", "-xf", str(plain), "-C", tar]),
        ("inflate and tar to disk", raw_size, ours(lambda p: unpack_pieces(expand(p), both), path),
         ["tar", "-xzf", path, "-C", tarz]),
    ]  # fmt: skip
    print(f"\n{'stages alone':27} {'ours':>10} {'CPU':>8}   the machine's")
    for what, size, cost, command in table:
        print(f"  {what:25} {size / cost.seconds:5.0f} MB/s {size / cost.cpu:5.0f}/s", end="   ")
        try:
            theirs = run(command)
            print(
                f"{' '.join(command[:2]):15} {size / theirs.seconds:5.0f} MB/s {size / theirs.cpu:5.0f}/s"
            )
        except (OSError, CannotRun) as error:
            print(f"cannot run here, because {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=200, help="packed size of the image: 200")
    parser.add_argument("--without", default="", help="peers to leave out: docker,podman,skopeo")
    parser.add_argument("--directory", help="where all of it lies; a tmpfs leaves the disk out")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="mini_docker_bench_", dir=chosen.directory)
            )
        )
        source = Layout(f"{folder}/source")
        source.create()
        registry = RealRegistry(folder / "registry").start()
        stack.callback(registry.stop)
        packed, raw = make_image(source, SOURCE, chosen.megabytes)
        name = f"{registry.host}/bench:1"
        source.tag(name, as_descriptor(source.entries()[0]))
        push(source, parse_reference(name))
        sizes = f"{packed / 1e6:.0f} MB packed, {raw / 1e6:.0f} MB raw"
        print(f"{LAYERS} layers, {sizes}; {chosen.rounds} rounds", flush=True)
        found = bench_all(name, folder, chosen.rounds, chosen.without.split(","))
        for verb, costs in found.items():
            show(verb, costs, packed / 1e6)
        stages(source, folder)


if __name__ == "__main__":
    main()
