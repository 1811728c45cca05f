"""Time what a container's connection costs, in a network namespace of its own. Root.

.venv/bin/python tests/bench/attach.py
"""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from mini_docker.engine.networks import Networks
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import new_netns


def milliseconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    """Attach 20 containers without and with a published port; print best and median."""
    unshare(CLONE_NEWNET)
    with tempfile.TemporaryDirectory() as root:
        networks = Networks(root)
        print(f"create a network: {milliseconds(lambda: networks.create({'Name': 'web'})):.1f} ms")
        for words, ports in (("attach", None), ("attach, -p", {"80/tcp": [{}]})):
            found = []
            for n in range(20):
                netns_fd, name = new_netns(), f"{n:02}{len(words):02}" * 16
                found.append(
                    milliseconds(lambda: networks.attach(netns_fd, name, name, "web", None, ports))  # noqa: B023
                )
            print(f"{words}: best {min(found):.1f}, median {statistics.median(found):.1f} ms")
        networks.reset()


if __name__ == "__main__":
    main()
