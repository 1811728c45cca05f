"""Our daemon and dockerd under the same docker client, one line for each kind of work.

    .venv/bin/python tests/bench/engine.py             1,000 containers, a log of 1 GB: some ten minutes
    .venv/bin/python tests/bench/engine.py --quick     100 containers, a log of 50 MB

Each line has the median time of the command with ours and with dockerd in milliseconds, the ratio, the time
of the docker client alone (against a server that answers at once), and the ratio without that. The last two
columns are processor time of everything, which a busy machine does not change; they need a control group
of one's own: run it in a virtual machine, or in a box, or on a machine that does nothing else. Then the
private memory of each daemon, and of what it keeps for a container that runs. All happens in a network and
a mount namespace that end with it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
COMMAND = str(ROOT / "labs" / "bin" / "mini_docker")
DOCKER = shutil.which("docker") or "/usr/bin/docker"
BENCH = "MINI_DOCKER_BENCH"  # set in the namespaces of our own
UP_SECONDS = 120
USAGE = ("/sys/fs/cgroup/cpuacct/cpuacct.usage", "/sys/fs/cgroup/cpu.stat")
NONE = ("--network", "none")


class Cost(NamedTuple):
    """What a command took, in milliseconds: the median by the clock, the mean of processor time."""

    clock: float
    processor: float


class Api(http.client.HTTPConnection):
    """Docker's API over a socket that is a file, for what is only set-up."""

    def __init__(self, path: str) -> None:
        super().__init__("docker", timeout=600)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        head = {"Content-Type": "application/json"}
        self.request(method, path, json.dumps(body) if body else None, head)
        return json.loads(self.getresponse().read() or b"null")


def processor_time() -> float:
    """Return the processor time of this control group up to now, in milliseconds."""
    for path in USAGE:
        if os.path.exists(path):
            text = pathlib.Path(path).read_text()
            usec = re.search(r"usage_usec (\d+)", text)
            return int(usec[1]) / 1e3 if usec else int(text) / 1e6
    return 0.0


def measure(repeats: int, *words: str) -> Cost:
    """Run a command again and again; say what it took."""
    times = []
    before = processor_time()
    for _ in range(repeats):
        began = time.perf_counter()
        subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
        times.append((time.perf_counter() - began) * 1000)
    return Cost(statistics.median(times), (processor_time() - before) / repeats)


# ---- a server that answers at once: what is left is the client ----------------------------------------


class Stub:
    """The answers that `docker run`, `exec` and the rest need, with nothing behind them."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.started = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            connection = self.listener.accept()[0]
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            while first := lines.readline():
                length = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                lines.read(length)
                method, path = first.decode().split()[:2]
                if not self._answer(connection, method, re.sub(r"^/v1\.\d+", "", path)):
                    return

    def _answer(self, connection: socket.socket, method: str, path: str) -> bool:
        """Answer a request; return whether the connection goes on."""
        if re.match(r"/containers/x/attach|/exec/x/start", path):
            connection.sendall(
                b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
            if path.startswith("/containers"):
                self.started.wait(10)
            return False
        if path.startswith("/containers/x/wait"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            self.started.wait(10)
            self.started.clear()
            connection.sendall(b'11\r\n{"StatusCode": 0}\r\n0\r\n\r\n')
            return True
        if path.endswith("/start"):
            self.started.set()
        body = b"" if method == "HEAD" or path.endswith("/start") else self._body(path)
        status = b"204 No Content" if path.endswith("/start") else b"200 OK"
        head = b"HTTP/1.1 %b\r\nApi-Version: 1.41\r\nOstype: linux\r\nContent-Type: application/json\r\n"
        connection.sendall(head % status + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        return True

    @staticmethod
    def _body(path: str) -> bytes:
        if path.startswith("/containers/json"):
            return b"[]"
        state = {"Running": True, "Status": "running"}
        found = {"Id": "x", "ID": "x", "Warnings": [], "ExitCode": 0, "Running": False, "Pid": 1,
                 "State": state, "Config": {"Tty": False}}  # fmt: skip
        return json.dumps(found).encode()


# ---- the work ---------------------------------------------------------------------------------------


def floors(path: str, docker: Callable[..., list[str]]) -> dict[str, Cost]:
    """Return what the docker client itself takes."""
    Stub(path)
    return {
        "run --rm": measure(10, *docker("run", "--rm", *NONE, "busybox", "true")),
        "exec": measure(10, *docker("exec", "x", "true")),
        "ps": measure(10, *docker("ps", "-a")),
        "connect": measure(10, *docker("network", "connect", "net", "x")),
    }


class Bench:
    """One daemon under measurement."""

    def __init__(self, path: str, containers: int, megabytes: int) -> None:
        self.path, self.containers, self.megabytes = path, containers, megabytes
        self.api = Api(path)

    def docker(self, *words: str) -> list[str]:
        return [DOCKER, "-H", f"unix://{self.path}", *words]

    def call(self, *words: str) -> str:
        done = subprocess.run(self.docker(*words), capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def run(self) -> Iterator[tuple[str, Cost]]:
        """Yield a name and a cost for each kind of work."""
        self.call("run", "--rm", *NONE, "busybox", "true")
        yield "run --rm", measure(10, *self.docker("run", "--rm", *NONE, "busybox", "true"))
        yield "run --rm, bridge", measure(10, *self.docker("run", "--rm", "busybox", "true"))
        keeper = self.call("run", "-d", "busybox", "sleep", "10000")
        yield "exec", measure(20, *self.docker("exec", keeper, "true"))
        yield from self._files(keeper)
        yield "stats --no-stream", measure(3, *self.docker("stats", "--no-stream", keeper))
        yield from self._networks(keeper)
        yield from self._logs()
        yield from self._listing()

    def memory(self) -> list[str]:
        """Return a line for each program of the daemon while one container runs: its private memory."""
        self.call("run", "-d", *NONE, "busybox", "sleep", "10000")
        time.sleep(1)  # whatever the start has left to do
        return private_memory(os.path.dirname(self.path))

    def _files(self, keeper: str) -> Iterator[tuple[str, Cost]]:
        with tempfile.TemporaryDirectory() as directory:
            with open(f"{directory}/file", "wb") as file:
                for _ in range(50):
                    file.write(os.urandom(1 << 20))
            into = self.docker("cp", f"{directory}/file", f"{keeper}:/file")
            yield "cp 50 MB into", measure(3, *into)
            yield (
                "cp 50 MB out of",
                measure(3, *self.docker("cp", f"{keeper}:/file", f"{directory}/x")),
            )

    def _networks(self, keeper: str) -> Iterator[tuple[str, Cost]]:
        names = [f"net{number}" for number in range(5)]
        for name in names:
            self.call("network", "create", name)
        costs = [measure(1, *self.docker("network", "connect", name, keeper)) for name in names]
        clock = statistics.median(cost.clock for cost in costs)
        yield "network connect", Cost(clock, statistics.mean(cost.processor for cost in costs))
        for name in names:
            self.call("network", "disconnect", name, keeper)
            self.call("network", "rm", name)

    def _logs(self) -> Iterator[tuple[str, Cost]]:
        lines = self.megabytes * 10_000
        script = f"yes {'x' * 99} | head -n {lines}"
        speak = self.docker("run", "-d", "--name", "loud", *NONE, "busybox", "sh", "-c", script)
        before, began = processor_time(), time.perf_counter()
        subprocess.run(speak, check=True, stdout=subprocess.DEVNULL)
        self.call("wait", "loud")
        clock = (time.perf_counter() - began) * 1000
        yield f"{self.megabytes} MB of output", Cost(clock, processor_time() - before)
        yield f"logs of {self.megabytes} MB", measure(1, *self.docker("logs", "loud"))

    def _listing(self) -> Iterator[tuple[str, Cost]]:
        host = {"NetworkMode": "none"}
        for _ in range(self.containers):
            self.api.ask("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
        yield f"ps -a of {self.containers}", measure(10, *self.docker("ps", "-a"))

    def clear(self) -> None:
        """Remove all containers."""
        for one in self.api.ask("GET", "/containers/json?all=1"):
            self.api.ask("DELETE", f"/containers/{one['Id']}?force=1")


def private_memory(directory: str) -> list[str]:
    """Return "name: MB" for each process on whose command line the directory is, but for clients and us."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        if directory in " ".join(words):
            kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
            found.append(f"{name}: {kilobytes / 1024:.2f}")
    return sorted(found)


@contextmanager
def running(words: list[str], path: str) -> Iterator[None]:
    """Have a daemon run meanwhile."""
    daemon = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + UP_SECONDS
    try:
        while True:
            try:
                Api(path).ask("GET", "/info")
                break
            except OSError:
                if daemon.poll() is not None:
                    sys.exit(f"{words[0]} ended with {daemon.returncode}")
                if time.monotonic() > deadline:
                    sys.exit(f"{words[0]} does not answer at {path}")
                time.sleep(0.1)
        yield
    finally:
        daemon.terminate()
        daemon.wait()


def stay_apart() -> None:
    """Go on in namespaces of our own: what is made there ends with them, links, rules and mounts."""
    if BENCH not in os.environ:
        script = 'ip link set lo up; mount -t tmpfs none /run; exec "$@"'
        words = ["unshare", "--net", "--mount", "sh", "-c", script, "bench", sys.executable]
        os.execvpe("unshare", [*words, *sys.argv], {**os.environ, BENCH: "1"})


class Result(NamedTuple):
    """What was measured of one daemon: the costs, and lines about memory."""

    costs: dict[str, Cost]
    memory: list[str]


@contextmanager
def our_daemon(directory: str) -> Iterator[str]:
    """Have our daemon run, with a busybox, which it leaves as an archive for the other; yield its socket."""
    from mini_docker.engine.store import Store
    from mini_docker.images.busybox import install_busybox

    root, path = f"{directory}/ours", f"{directory}/ours.sock"
    install_busybox(Store(root).layout)
    words = [COMMAND, "daemon", "--data-root", root, "-H", f"unix://{path}"]
    try:
        with running(words, path):
            bench = Bench(path, 0, 0)
            bench.call("save", "-o", f"{directory}/busybox.tar", "busybox")
            yield path
            bench.clear()
    finally:
        subprocess.run([COMMAND, "--data-root", root, "reset"], capture_output=True)


def ours(directory: str, containers: int, megabytes: int) -> Result:
    """Measure our daemon."""
    with our_daemon(directory) as path:
        bench = Bench(path, containers, megabytes)
        memory = bench.memory()
        costs = dict(bench.run())
        own = [COMMAND, "-H", f"unix://{path}", "run", "--rm", *NONE, "busybox", "true"]
        costs["run --rm, our client"] = measure(10, *own)
    return Result(costs, memory)


@contextmanager
def their_daemon(directory: str) -> Iterator[str]:
    """Have dockerd run, with the busybox that ours has left; yield its socket."""
    path = f"{directory}/theirs.sock"
    words = ["dockerd", "-H", f"unix://{path}", "--data-root", f"{directory}/theirs",
             "--exec-root", f"{directory}/exec", "-p", f"{directory}/pid"]  # fmt: skip
    before = set(pathlib.Path("/sys/fs/cgroup").glob("*/docker"))
    try:
        with running([*words, "--storage-driver", "overlay2"], path):
            bench = Bench(path, 0, 0)
            bench.call("load", "-i", f"{directory}/busybox.tar")
            yield path
            bench.clear()
    finally:
        for place in (f"{directory}/theirs", f"{directory}/exec"):
            subprocess.run(["umount", "-R", place], capture_output=True)
        for group in set(pathlib.Path("/sys/fs/cgroup").glob("*/docker")) - before:
            subprocess.run(["rmdir", str(group)], capture_output=True)


def theirs(directory: str, containers: int, megabytes: int) -> Result:
    """Measure dockerd."""
    with their_daemon(directory) as path:
        bench = Bench(path, containers, megabytes)
        memory = bench.memory()
        costs = dict(bench.run())
        costs["run --rm, our client"] = costs["run --rm"]
    return Result(costs, memory)


def floor_of(name: str, floor: dict[str, Cost]) -> float:
    """Return what the client alone takes of this kind of work; 0 where that does not matter."""
    if "our client" in name:
        return 0.0
    return next((cost.clock for kind, cost in floor.items() if kind in name), 0.0)


def show(one: dict[str, Cost], other: dict[str, Cost], floor: dict[str, Cost]) -> None:
    """Print a line for each kind of work."""
    titles = ("ours", "dockerd", "ratio", "client", "without", "cpu ours", "dockerd")
    print(f"{'milliseconds':24}" + "".join(f"{title:>10}" for title in titles))
    for name, mine in one.items():
        its = other.get(name, Cost(0, 0))
        client = floor_of(name, floor)
        ratio = f"{mine.clock / its.clock:.2f}" if its.clock else "-"
        without = f"{(mine.clock - client) / max(its.clock - client, 1):.2f}" if its.clock else "-"
        print(f"{name:24}{mine.clock:10.0f}{its.clock:10.0f}{ratio:>10}{client:10.0f}{without:>10}"
              f"{mine.processor:10.0f}{its.processor:10.0f}")  # fmt: skip


def main() -> None:
    """Measure the client, our daemon, and dockerd where there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 containers, a log of 50 MB")
    parser.add_argument("--containers", type=int)
    parser.add_argument("--megabytes", type=int)
    given = parser.parse_args()
    containers = given.containers or (100 if given.quick else 1000)
    megabytes = given.megabytes or (50 if given.quick else 1000)
    stay_apart()
    with tempfile.TemporaryDirectory(prefix="mini_docker_bench_") as directory:
        stub = f"{directory}/stub.sock"
        floor = floors(stub, lambda *words: [DOCKER, "-H", f"unix://{stub}", *words])
        one = ours(directory, containers, megabytes)
        peer = bool(shutil.which("dockerd"))
        other = theirs(directory, containers, megabytes) if peer else Result({}, [])
        show(one.costs, other.costs, floor)
        print("\nprivate memory with one container running, MB")
        print(f"  ours     {', '.join(one.memory)}")
        print(f"  dockerd  {', '.join(other.memory)}" if peer else "there is no dockerd here")


if __name__ == "__main__":
    main()
