"""Many at once: containers, starts, listings, readers, output. What was taken is given back.

MINI_DOCKER_SOAK=1000 makes it as large as it is meant (200 running, 1,000 cycles, 1,000 stopped, 100 readers,
1 GB of output); by default it is small. The numbers are printed: `make soak` shows them.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest

from tests.daemons import WAIT, Daemon, UnixConnection, go
from tests.system import until
from tests.test_daemon_kills import litter
from tests.test_faults import shim_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.anywhere,
    pytest.mark.usefixtures("leak_free"),
]
FULL = int(os.environ.get("MINI_DOCKER_SOAK", "0")) >= 1000
MB = 1 << 20


def size(full: int, small: int) -> int:
    """Return how many there shall be."""
    return full if FULL else small


class Use(NamedTuple):
    """What a process has in hand; memory that is its own, in bytes."""

    private: int
    descriptors: int
    threads: int


def use(pid: int) -> Use:
    """Return what a process has in hand now."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {words[0]: int(words[1]) * 1024 for words in map(str.split, lines)}
    private = sizes["Private_Dirty:"] + sizes["Private_Clean:"]
    return Use(private, *(len(os.listdir(f"/proc/{pid}/{what}")) for what in ("fd", "task")))


def settles(daemon: Daemon, before: Use) -> None:
    """Wait until the daemon has let go of what it had in hand since `before`."""
    until(lambda: use(daemon.process.pid)[1:] <= before[1:])


def one_life(daemon: Daemon, number: int) -> tuple[int, ...]:
    """Create, start, wait for and remove a container; return the statuses and its exit code."""
    name = f"life{number}"
    container_id = daemon.create(name, "sh", "-c", f"exit {number % 200}")
    started = daemon.ask("POST", f"/containers/{container_id}/start")[0]
    code = daemon.ask("POST", f"/containers/{name}/wait")[1]["StatusCode"]
    return started, code - number % 200, daemon.ask("DELETE", f"/containers/{name}")[0]


def test_many_lives_at_once_leave_nothing(daemon: Daemon) -> None:
    count = size(1000, 24)
    one_life(daemon, 0)
    before = use(daemon.process.pid)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda number: one_life(daemon, number), range(count)))
    seconds = time.monotonic() - began
    assert set(results) == {(204, 0, 204)}
    assert litter(daemon) == []
    settles(daemon, before)
    grown = use(daemon.process.pid).private - before.private
    print(f"\n{count} lives, 8 at once: {seconds:.1f} s, the daemon grew by {grown / MB:.1f} MB")
    assert grown < 8 * MB


def test_many_run_at_once(daemon: Daemon) -> None:
    count = size(200, 8)
    daemon.run("first", "sleep", "1000")
    before = use(daemon.process.pid)
    began = time.monotonic()
    for number in range(count):
        daemon.run(f"many{number}", "sleep", "1000")
    seconds = time.monotonic() - began
    assert len(daemon.ask("GET", "/containers/json")[1]) == count + 1
    until(lambda: use(daemon.process.pid).threads <= before.threads + 2)
    full = use(daemon.process.pid)
    pids = [daemon.state(f"many{number}")["Pid"] for number in range(count)]
    shims = [use(shim_of(pid)) for pid in pids]
    mean = sum(shim.private for shim in shims) / count
    each = (full.private - before.private) / count
    print(f"\n{count} running: {seconds / count * 1000:.0f} ms for a start; the daemon has "
          f"{full.private / MB:.1f} MB, {full.descriptors} descriptors, {full.threads} threads; "
          f"for a container {each / MB:.2f} MB and its shim {mean / MB:.2f} MB")  # fmt: skip
    assert full.descriptors <= before.descriptors + count + 4
    assert mean < 1.5 * MB and (not FULL or each < 0.2 * MB)
    with ThreadPoolExecutor(8) as pool:
        paths = [f"/containers/many{number}?force=1" for number in range(count)]
        assert set(pool.map(lambda path: daemon.ask("DELETE", path)[0], paths)) == {204}
    settles(daemon, before)


def test_many_stopped_are_listed(daemon: Daemon) -> None:
    count = size(1000, 40)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: daemon.create(f"still{number}", "true"), range(count)))
    times = []
    for _ in range(3):
        began = time.monotonic()
        found = daemon.ask("GET", "/containers/json?all=1")[1]
        times.append(time.monotonic() - began)
        assert len(found) == count
    assert daemon.ask("GET", "/containers/json") == (200, [])
    daemon.kill()
    began = time.monotonic()
    daemon.start()
    print(f"\n{count} stopped: listed in {min(times) * 1000:.0f} ms; a daemon begins in "
          f"{time.monotonic() - began:.2f} s with {use(daemon.process.pid).private / MB:.1f} MB")  # fmt: skip
    assert len(daemon.ask("GET", "/containers/json?all=1")[1]) == count


def test_many_readers_follow_one_log(daemon: Daemon) -> None:
    readers, lines = size(100, 10), size(5000, 500)
    script = f"i=0; while [ $i -lt {lines} ]; do echo line $i of many; i=$((i+1)); done; read x"
    daemon.run("talks", "sh", "-c", script, OpenStdin=True, Tty=False)
    before = use(daemon.process.pid)
    got: list[bytes] = []

    def follow() -> None:
        got.append(daemon.logs("talks", "stdout=1&stderr=1&follow=1"))

    threads = [threading.Thread(target=follow) for _ in range(readers)]
    for thread in threads:
        thread.start()
    until(lambda: use(daemon.process.pid).threads > readers)  # one that is late finds the log whole
    assert daemon.ask("POST", "/containers/talks/kill")[0] == 204
    for thread in threads:
        thread.join(600)
    wanted = daemon.logs("talks")
    assert wanted.count(b"\n") == lines and wanted.endswith(f"{lines - 1} of many\n".encode())
    assert [data == wanted for data in got] == [True] * readers
    settles(daemon, before)


def speaker(daemon: Daemon, name: str, amount: int, **log: str) -> tuple[str, int]:
    """Run a container that says `amount` bytes in lines of 100, once told to `go`; return id and pid."""
    script = f"{WAIT} yes {'x' * 99} | head -c {amount}"
    config = {"Type": "json-file", "Config": log}
    container_id = daemon.run(name, "sh", "-c", script, HostConfig={"LogConfig": config})
    return container_id, daemon.state(name)["Pid"]


def test_much_output_is_kept_whole_and_costs_no_memory(daemon: Daemon) -> None:
    amount = size(1 << 30, 1 << 24) // 100 * 100
    _, pid = speaker(daemon, "loud", amount)
    shim, most, began = shim_of(pid), 0, time.monotonic()
    go(pid)
    while daemon.state("loud")["Running"]:
        try:
            most = max(most, use(shim).private)
        except (FileNotFoundError, ProcessLookupError, KeyError):
            break
        time.sleep(0.1)
    assert daemon.ask("POST", "/containers/loud/wait")[1]["StatusCode"] == 0
    written = time.monotonic() - began
    before, began = use(daemon.process.pid), time.monotonic()
    connection = UnixConnection(daemon.path)
    connection.request("GET", "/containers/loud/logs?stdout=1")
    answer, read = connection.getresponse(), 0
    while data := answer.read(1 << 20):
        read += len(data)
        most_daemon = use(daemon.process.pid).private
    connection.close()
    print(
        f"\n{amount / MB:.0f} MB said in {written:.1f} s, the shim at most {most / MB:.1f} MB; read in "
        f"{time.monotonic() - began:.1f} s, the daemon {(most_daemon - before.private) / MB:+.1f} MB"
    )
    assert read == amount // 100 * 108  # each line has a frame of eight bytes
    assert most < 8 * MB and most_daemon - before.private < 16 * MB


def test_rotation_bounds_the_disk(daemon: Daemon) -> None:
    amount = size(1 << 28, 1 << 23) // 100 * 100
    container_id, pid = speaker(daemon, "turns", amount, **{"max-size": "1m", "max-file": "3"})
    go(pid)
    directory = daemon.root / "containers" / container_id
    most = 0
    while daemon.state("turns")["Running"]:
        done = subprocess.run(["du", "-sb", str(directory)], capture_output=True, text=True)
        most = max(most, int((done.stdout or "0").split()[0]))
    assert daemon.ask("POST", "/containers/turns/wait")[1]["StatusCode"] == 0
    logs = sorted(path.name for path in directory.glob("*-json.log*"))
    assert len(logs) == 3
    assert all((directory / name).stat().st_size <= MB for name in logs)
    assert most < 5 * MB
    assert daemon.logs("turns", "stdout=1&tail=1")[8:] == b"x" * 99 + b"\n"


def test_a_slow_reader_of_logs_does_not_stop_the_container(daemon: Daemon) -> None:
    amount = size(1 << 28, 1 << 24) // 100 * 100
    daemon.create("loud", "sh", "-c", f"yes {'x' * 99} | head -c {amount}")
    connection: Any = UnixConnection(daemon.path)
    assert daemon.ask("POST", "/containers/loud/start")[0] == 204
    connection.request("GET", "/containers/loud/logs?stdout=1&follow=1")
    answer = connection.getresponse()
    assert daemon.ask("POST", "/containers/loud/wait")[1]["StatusCode"] == 0, "nobody has read yet"
    assert len(answer.read()) == amount // 100 * 108
    connection.close()


def test_attach_with_a_long_log_and_a_slow_client_costs_no_memory(daemon: Daemon) -> None:
    amount = size(1 << 27, 1 << 24)
    daemon.run("loud", "sh", "-c", f"head -c {amount} /dev/zero; echo; echo end; sleep 1000")
    until(lambda: daemon.logs("loud", "stdout=1&tail=1")[8:] == b"end\n", 600)
    shim = shim_of(daemon.state("loud")["Pid"])
    stream = daemon.upgrade("/containers/loud/attach?logs=1&stream=1&stdout=1")
    most, got = 0, b""
    while not got.endswith(b"end\n"):
        most = max(most, use(shim).private)
        got = got[-8:] + stream.recv(1 << 20)
    stream.close()
    assert most < 16 * MB
