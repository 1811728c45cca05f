"""How long a container takes: `mini_docker run` beside docker, podman, runc and crun, in one run.

    .venv/bin/python tests/bench/run.py [--rounds 15]

Every peer runs `true` from the same busybox. Peers that cannot run here say why. Engines (docker,
podman) are compared with `mini_docker run`; the bare runtimes (runc, crun) run a bundle without a
network, so `mini_docker run --network none` stands beside them. Prints ratios, asserts nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")


class CannotRun(Exception):
    """A peer that cannot run here; the text is the reason."""


def timed(command: list[str], rounds: int) -> list[float]:
    """Return the seconds each of `rounds` calls took, after one that warms up."""
    times = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise CannotRun(f"{command[0]}: {lines[-1][:150]}")
    return times[1:]


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        raise CannotRun(f"{program} is not installed")
    return found


def bundle(directory: pathlib.Path, layer: pathlib.Path) -> str:
    """Make an OCI bundle of the busybox layer, with runc's own default document and no terminal."""
    directory.mkdir()
    subprocess.run(["cp", "-a", f"{layer}/.", str(directory / "rootfs")], check=True)
    subprocess.run([need("runc"), "spec"], cwd=directory, check=True)
    path = directory / "config.json"
    document = json.loads(path.read_text())
    document["process"].update(terminal=False, args=["true"])
    document["process"].pop("rlimits", None)  # raising a limit needs CAP_SYS_RESOURCE
    path.write_text(json.dumps(document))
    return str(directory)


@contextmanager
def dockerd(work: pathlib.Path) -> Iterator[list[str]]:
    """A real dockerd with a data root and a network namespace of its own; yields the client's words."""
    need("dockerd")
    socket = work / "docker.sock"
    words = [need("docker"), "-H", f"unix://{socket}"]
    daemon = subprocess.Popen(
        ["unshare", "--net", "--mount", "sh", "-c",
         "ip link set lo up; mount -t tmpfs none /run; exec dockerd \"$@\"", "dockerd",
         f"--data-root={work}/data", f"--exec-root={work}/exec", f"--host=unix://{socket}",
         f"--pidfile={work}/pid"],
        stdout=(work / "dockerd.log").open("w"), stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while subprocess.run([*words, "version"], capture_output=True).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                last = (work / "dockerd.log").read_text().strip().splitlines()[-1:]
                raise CannotRun(f"dockerd did not come up: {last}")
            time.sleep(0.2)
        yield words
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def measure_docker(work: pathlib.Path, tar: str, rounds: int) -> dict[str, list[float]]:
    work.mkdir()
    with dockerd(work) as words:
        subprocess.run([*words, "import", tar, "busybox"], check=True, capture_output=True)
        run = [*words, "run", "--rm"]
        return {
            "docker run": timed([*run, "busybox", "true"], rounds),
            "docker run --network none": timed(
                [*run, "--network", "none", "busybox", "true"], rounds
            ),
        }


def measure_podman(work: pathlib.Path, tar: str, rounds: int) -> dict[str, list[float]]:
    work.mkdir()
    conf = work / "containers.conf"
    conf.write_text('[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=32768:32768"]\n')
    os.environ["CONTAINERS_CONF"] = str(conf)
    words = [
        need("podman"),
        "--root",
        f"{work}/root",
        "--runroot",
        f"{work}/run",
        "--runtime",
        need("runc"),
    ]
    words += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    loaded = subprocess.run([*words, "import", tar, "busybox"], capture_output=True, text=True)
    if loaded.returncode:
        raise CannotRun(f"podman import: {loaded.stderr.strip()[-150:]}")
    try:
        run = [*words, "run", "--rm", "--network", "none", "busybox", "true"]
        return {"podman run --network none": timed(run, rounds)}
    finally:
        subprocess.run([*words, "unmount", "--all"], capture_output=True)


def measure_runtime(name: str, path: str, rounds: int) -> dict[str, list[float]]:
    container = f"bench-{os.getpid()}"
    return {f"{name} run (bundle)": timed([need(name), "run", "--bundle", path, container], rounds)}


def measure_ours(data_root: pathlib.Path, rounds: int) -> dict[str, list[float]]:
    ours = [COMMAND, "--data-root", str(data_root)]
    run = [*ours, "run", "--rm"]  # the first, which warms up, starts the daemon
    try:
        return {
            "mini_docker run": timed([*run, "busybox", "true"], rounds),
            "mini_docker run --network none": timed(
                [*run, "--network", "none", "busybox", "true"], rounds
            ),
        }
    finally:
        subprocess.run([*ours, "reset"], capture_output=True)


def collect(work: pathlib.Path, rounds: int) -> tuple[dict[str, list[float]], list[str]]:
    """Measure all; return times by name, and a line for each that cannot run here."""
    data_root = work / "ours"
    subprocess.run(
        [COMMAND, "--data-root", str(data_root), "setup"], check=True, capture_output=True
    )
    layer = next((data_root / "layers").iterdir())
    tar = str(work / "busybox.tar")
    subprocess.run(["tar", "-C", str(layer), "-cf", tar, "."], check=True)
    results, missing = measure_ours(data_root, rounds), []
    peers: list[tuple[str, Callable[[], dict[str, list[float]]]]] = [
        ("runc", lambda: measure_runtime("runc", bundle(work / "runc", layer), rounds)),
        ("crun", lambda: measure_runtime("crun", bundle(work / "crun", layer), rounds)),
        ("podman", lambda: measure_podman(work / "podman", tar, rounds)),
        ("docker", lambda: measure_docker(work / "docker", tar, rounds)),
    ]
    for name, peer in peers:
        try:
            results |= peer()
        except (CannotRun, subprocess.CalledProcessError, OSError) as reason:
            missing.append(f"{name} cannot run here, because {reason}")
    return results, missing


def report(results: dict[str, list[float]], missing: list[str]) -> None:
    print(f"{'':34}{'min':>9}{'median':>9}   ours / theirs (median)")
    none = statistics.median(results["mini_docker run --network none"])
    bridge = statistics.median(results["mini_docker run"])
    for name, times in results.items():
        median = statistics.median(times)
        ours = none if "none" in name or "bundle" in name else bridge
        ratio = "" if name.startswith("mini") else f"   {ours / median:.2f}"
        print(f"{name:34}{min(times) * 1e3:6.1f} ms{median * 1e3:6.1f} ms{ratio}")
    print("".join(f"{line}\n" for line in missing), end="")
    modules = subprocess.run(
        [sys.executable, str(ROOT / "tests/bench/imports.py")], capture_output=True, text=True
    )
    print(modules.stdout, end="")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if "MINI_DOCKER_BENCH" not in os.environ:
        # a network namespace for us alone: our bridge and table end with it
        os.environ["MINI_DOCKER_BENCH"] = "1"
        os.execvp("unshare", ["unshare", "--net", sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory(prefix="mini_docker_bench_") as directory:
        report(*collect(pathlib.Path(directory), arguments.rounds))


if __name__ == "__main__":
    main()
