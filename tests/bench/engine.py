"""Our daemon and dockerd under the same docker client: run, exec, and ps with many containers.

/work/box or a virtual machine is a good place: .venv/bin/python tests/bench/engine.py [CONTAINERS]
Prints the median of each, in milliseconds.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")
DOCKER = shutil.which("docker") or "/usr/bin/docker"


def docker(host: str, *words: str) -> str:
    return subprocess.run(
        [DOCKER, "-H", host, *words], capture_output=True, text=True, check=True
    ).stdout


def median(repeats: int, host: str, *words: str) -> float:
    """Return the median time of a docker command, in milliseconds."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        docker(host, *words)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def wait_for(host: str) -> None:
    while subprocess.run([DOCKER, "-H", host, "version"], capture_output=True).returncode:
        time.sleep(0.2)


def measure(name: str, host: str, containers: int) -> None:
    docker(host, "run", "--rm", "--network", "none", "busybox", "true")
    run = median(10, host, "run", "--rm", "--network", "none", "busybox", "true")
    bridge = median(10, host, "run", "--rm", "busybox", "true")
    keeper = docker(host, "run", "-d", "--network", "none", "busybox", "sleep", "1000").strip()
    inside = median(20, host, "exec", keeper, "true")
    for _ in range(containers):
        docker(host, "create", "--network", "none", "busybox", "true")
    listed = median(10, host, "ps", "-a")
    print(f"{name:12} run {run:5.0f}  with a network {bridge:5.0f}  exec {inside:5.0f}  "
          f"ps -a of {containers} {listed:5.0f}")  # fmt: skip
    every = docker(host, "ps", "-aq").split()
    for start in range(0, len(every), 100):
        docker(host, "rm", "-f", *every[start : start + 100])


def main() -> None:
    containers = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    from mini_docker.engine.store import Store
    from mini_docker.images.busybox import install_busybox

    with tempfile.TemporaryDirectory() as directory:
        ours, theirs = f"unix://{directory}/ours.sock", f"unix://{directory}/theirs.sock"
        store = Store(f"{directory}/ours")
        install_busybox(store.layout)
        words = [COMMAND, "daemon", "--data-root", f"{directory}/ours", "-H", ours]
        daemon = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        wait_for(ours)
        archive = f"{directory}/busybox.tar"
        docker(ours, "save", "-o", archive, "busybox")
        measure("mini_docker", ours, containers)
        daemon.terminate()
        daemon.wait()
        subprocess.run([COMMAND, "--data-root", f"{directory}/ours", "reset"], capture_output=True)
        if shutil.which("dockerd") is None:
            print("there is no dockerd here to compare with")
            return
        words = ["dockerd", "-H", theirs, "--data-root", f"{directory}/theirs", "--exec-root",
                 f"{directory}/exec", "-p", f"{directory}/pid", "--storage-driver", "overlay2"]  # fmt: skip
        daemon = subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ})
        try:
            wait_for(theirs)
            docker(theirs, "load", "-i", archive)
            measure("dockerd", theirs, containers)
        finally:
            daemon.terminate()
            daemon.wait()
            subprocess.run(["umount", "-R", f"{directory}/theirs"], capture_output=True)


if __name__ == "__main__":
    main()
