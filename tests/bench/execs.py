"""Many execs at once through Docker's SDK for Python, with our daemon and with dockerd: is anything lost?

    .venv/bin/python tests/bench/execs.py              500 execs, 16 at once
    .venv/bin/python tests/bench/execs.py 2000 40      2,000, 40 at once

Each writes its number to both outputs and exits with it. A line for each daemon: how many came back whole,
how many lost output or had another exit code, how many failed, and how many there were in a second.
"""

from __future__ import annotations

import collections
import pathlib
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import docker  # type: ignore[import-untyped]

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.bench.engine import Bench, our_daemon, stay_apart, their_daemon  # noqa: E402

SCRIPT = "echo {0}; echo {0} >&2; exit {1}"


class Many:
    """Execs in one container, each thread with a client of its own: the SDK's is for one thread."""

    def __init__(self, path: str, container: str) -> None:
        """Name the daemon's socket and the container."""
        self.path, self.container = path, container
        self.mine = threading.local()

    def one(self, number: int) -> str:
        """Have one exec; return what became of it."""
        if not hasattr(self.mine, "container"):
            client = docker.DockerClient(
                base_url=f"unix://{self.path}", version="1.41", timeout=300
            )
            self.mine.container = client.containers.get(self.container)
        words = ["sh", "-c", SCRIPT.format(number, number % 256)]
        try:
            code, outputs = self.mine.container.exec_run(words, demux=True)
        except Exception as error:  # whatever it is, it is counted
            return f"failed: {type(error).__name__}"
        if tuple(outputs) != (f"{number}\n".encode(),) * 2:
            return "output lost"
        return "whole" if code == number % 256 else "another exit code"


def count(path: str, execs: int, at_once: int) -> str:
    """Return a line about many execs with the daemon at `path`."""
    container = Bench(path, 0, 0).call("run", "-d", "busybox", "sleep", "10000")
    many = Many(path, container)
    began = time.monotonic()
    with ThreadPoolExecutor(at_once) as pool:
        became = collections.Counter(pool.map(many.one, range(execs)))
    a_second = execs / (time.monotonic() - began)
    found = ", ".join(f"{number} {what}" for what, number in sorted(became.items()))
    return f"{found}; {a_second:.0f} a second"


def main() -> None:
    """Count with ours, and with dockerd where there is one."""
    execs, at_once = [*map(int, sys.argv[1:]), *(500, 16)[len(sys.argv) - 1 :]]
    stay_apart()
    with tempfile.TemporaryDirectory(prefix="mini_docker_bench_") as directory:
        with our_daemon(directory) as path:
            print(f"ours     {count(path, execs, at_once)}", flush=True)
        if shutil.which("dockerd"):
            with their_daemon(directory) as path:
                print(f"dockerd  {count(path, execs, at_once)}")


if __name__ == "__main__":
    main()
