# Exported from notebooks/19e_dashboard.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19e_dashboard.ipynb#playground-module
"""A daemon of one's own for an experiment: temporary data root, network namespace, and the end of both."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import mini_docker
from mini_docker.cli.client import Client
from mini_docker.cli.context import endpoint
from mini_docker.cli.errors import CommandError

COMMAND = Path(str(mini_docker.__file__)).resolve().parents[1] / "labs" / "bin" / "mini_docker"
NEW_NETWORK = ("unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh")


# %% notebooks/19e_dashboard.ipynb#playground-client
def client_of(host: str = "") -> Client:
    """Return a client of the daemon at `host`, or of the one that the docker command would speak to.

    It starts no daemon: a window that opens should change nothing.
    """
    client = Client(endpoint({"host": [host]} if host else {}, ""), "")
    client.start_nothing()
    return client


# %% notebooks/19e_dashboard.ipynb#playground
class Playground:
    """A daemon in a network of its own, with the image busybox and nothing else."""

    def __init__(self) -> None:
        """Make the data root and start the daemon. Raises CommandError when it does not answer."""
        self.root = tempfile.mkdtemp(prefix="mini_docker_play_")
        self.host = f"unix://{self.root}/docker.sock"
        self.client = client_of(self.host)
        self.netns_fd = -1
        self._command("setup")
        self.start()

    def _command(self, word: str) -> None:
        words = [str(COMMAND), "--data-root", self.root, word]
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self, seconds: float = 240.0) -> None:
        """Start the daemon, again if it was killed, and wait until it answers. Raises CommandError."""
        words = [str(COMMAND), "daemon", "--data-root", self.root, "--host", self.host]
        again = ("nsenter", f"--net=/proc/self/fd/{self.netns_fd}")
        self.daemon = subprocess.Popen(
            [*(NEW_NETWORK if self.netns_fd < 0 else again), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=() if self.netns_fd < 0 else (self.netns_fd,),
        )
        deadline = time.monotonic() + seconds
        while not self.answers():
            if time.monotonic() > deadline or self.daemon.poll() is not None:
                raise CommandError("the daemon of the playground does not answer")
            time.sleep(0.02)
        if self.netns_fd < 0:
            self.netns_fd = os.open(f"/proc/{self.daemon.pid}/ns/net", os.O_RDONLY)

    def answers(self) -> bool:
        """Say whether the daemon is there."""
        try:
            return self.client.call("GET", "/_ping").read() == b"OK"
        except CommandError:
            return False

    def kill(self) -> None:
        """Kill the daemon as no daemon likes it; containers go on, until `start`."""
        self.daemon.kill()
        self.daemon.wait()

    def run(self, name: str, script: str, network: str = "none", **host_config: Any) -> str:
        """Start a container that runs a shell script; return its id. Raises CommandError."""
        body = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", script],
            "HostConfig": {"NetworkMode": network, **host_config},
        }
        made = self.client.json("POST", "/containers/create", {"name": name}, body)
        self.client.json("POST", f"/containers/{made['Id']}/start")
        return str(made["Id"])

    def close(self) -> None:
        """Remove the containers, end the daemon, leave nothing."""
        if self.answers():
            for one in self.client.json("GET", "/containers/json", {"all": True}):
                self.client.call("DELETE", f"/containers/{one['Id']}", {"force": True, "v": True})
        self.daemon.terminate()
        self.daemon.wait()
        os.close(self.netns_fd)
        self._command("reset")
        shutil.rmtree(self.root)
