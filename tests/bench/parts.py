"""Where the milliseconds of an exec and of a `run --rm` go, by the kernel's own trace of its scheduler.

    .venv/bin/python tests/bench/parts.py          30 of each
    .venv/bin/python tests/bench/parts.py 100      100 of each

For every process on the way: its processor time, and the pages that it had to be given or to copy (a fault
costs some microseconds). Then the way itself by the clock: from the order until init is born, until it is
the command, until the command has ended, until its shim has. All are medians, and the least beside it,
which a busy machine changes little. Needs root and tracefs; source: ftrace in the kernel's documentation.
"""

from __future__ import annotations

import collections
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tests.bench.engine import COMMAND, NONE, Bench, our_daemon, stay_apart  # noqa: E402

NAMES = ("md-*", "mini_docker*", "true")
FORK = "sched/sched_process_fork"
# what is noted, and the fields of which one is to be a name of ours: a busy machine has much to tell
OTHERS = {
    "sched/sched_switch": ("prev_comm", "next_comm"),
    "sched/sched_wakeup": ("comm",),
    "sched/sched_process_exec": (),
    "sched/sched_process_exit": ("comm",),
    "exceptions/page_fault_user": ("COMM",),
}
LINE = re.compile(r"\s*(.+)-(\d+)\s+\[(\d+)\] \S+\s+([\d.]+): (\w+): ?(.*)")
WAY = ("order to birth", "birth to command", "command", "its end to the shim's")
Figures = dict[str, list[float]]


class Event(NamedTuple):
    """A line of the trace: milliseconds, the process that ran and where, what happened, and the details."""

    at: float
    name: str
    pid: int
    processor: int
    what: str
    more: str

    def value(self, key: str) -> str:
        """Return the value of key=value."""
        found = re.search(rf"\b{key}=(\S+)", self.more)
        return found[1] if found else ""


class Trace:
    """An instance of the kernel's trace, which ends with us."""

    def __init__(self, directory: str) -> None:
        """Begin to note who forks whom: so we know our own processes among all. Raises OSError."""
        subprocess.run(["mount", "-t", "tracefs", "none", directory], check=True)
        self.place = pathlib.Path(directory, "instances", "mini_docker_parts")
        self.place.mkdir()
        for name, text in (("trace_clock", "mono"), ("buffer_size_kb", "30000"), ("trace", "")):
            (self.place / name).write_text(text)
        for event, fields in OTHERS.items():
            ours = " || ".join(f'{field} ~ "{name}"' for field in fields for name in NAMES)
            (self.place / "events" / event / "filter").write_text(ours or "0")
        self.enable(FORK)
        (self.place / "trace_marker").write_text("here\n")

    def enable(self, *events: str, on: bool = True) -> None:
        """Note such events, or no longer."""
        for event in events:
            (self.place / "events" / event / "enable").write_text(str(int(on)))

    def read(self) -> list[Event]:
        """Return what was noted."""
        found = map(LINE.match, (self.place / "trace").read_text(errors="replace").splitlines())
        return [
            Event(float(one[4]) * 1000, one[1].strip(), int(one[2]), int(one[3]), one[5], one[6])
            for one in found
            if one
        ]

    def end(self) -> None:
        """Forget all."""
        self.enable(FORK, *OTHERS, on=False)
        self.place.rmdir()


@contextmanager
def tracing() -> Iterator[Trace]:
    """Have a trace meanwhile."""
    with tempfile.TemporaryDirectory(prefix="mini_docker_trace_") as directory:
        trace = Trace(directory)
        try:
            yield trace
        finally:
            trace.end()
            subprocess.run(["umount", directory], check=True)


class Family:
    """Our own processes in a trace: who forked whom, how long each ran, how many faults it had."""

    def __init__(self, events: list[Event], begun: float) -> None:
        """Follow the forks from the marker on; count from `begun`."""
        marker = next(event for event in events if event.what == "tracing_mark_write")
        self.parents = {marker.pid: 0}
        self.born: dict[int, float] = {}
        self.faults: collections.Counter[int] = collections.Counter()
        self.spent: collections.Counter[int] = collections.Counter()
        for event in events:
            if event.what == "sched_process_fork" and event.pid in self.parents:
                self.parents[int(event.value("child_pid"))] = event.pid
                self.born[int(event.value("child_pid"))] = event.at
        self.events = [event for event in events if event.at >= begun]
        self._count()

    def _count(self) -> None:
        since: dict[int, float] = {}
        for event in self.events:
            if event.what == "sched_switch":
                if event.pid in self.parents and event.processor in since:
                    self.spent[event.pid] += int((event.at - since[event.processor]) * 1000)
                since[event.processor] = event.at
            elif event.what == "page_fault_user":
                self.faults[event.pid] += 1

    def named(self, name: str) -> set[int]:
        """Return our processes that once had a name."""
        return {
            event.pid for event in self.events if event.name == name and event.pid in self.parents
        }

    def moment(self, pid: int, what: str) -> float | None:
        """Return when something first happened to a process."""
        return next(
            (event.at for event in self.events if event.pid == pid and event.what == what), None
        )

    def ways(self) -> Iterator[tuple[int, int, list[float]]]:
        """Yield the shim, the first process, and the moments on the way of each that came to its end."""
        zygotes = self.named("md-zygote") - self.named("md-shim")
        woken = {"at": 0.0}
        orders: dict[int, float] = {}
        for event in self.events:
            if event.what == "sched_wakeup" and int(event.value("pid") or 0) in zygotes:
                woken["at"] = event.at
            elif event.what == "sched_process_fork" and event.pid in zygotes:
                orders[int(event.value("child_pid"))] = woken["at"]
        for shim, order in orders.items():
            for pid in [child for child, parent in self.parents.items() if parent == shim]:
                command = self.moment(pid, "sched_process_exec")
                ends = (
                    self.moment(pid, "sched_process_exit"),
                    self.moment(shim, "sched_process_exit"),
                )
                if command and all(ends):
                    yield (
                        shim,
                        pid,
                        [order, self.born[pid], command, *(end for end in ends if end)],
                    )


def parts(family: Family, repeats: int) -> tuple[Figures, Figures]:
    """Return the processor time and the faults of each process on the way, and the times on the way."""
    spent: Figures = collections.defaultdict(list)
    way: Figures = collections.defaultdict(list)
    for shim, first, moments in family.ways():
        for name, pid in (("shim", shim), ("init and command", first)):
            spent[name].append(family.spent[pid] / 1000)
            spent[f"{name}, faults"].append(family.faults[pid])
        for name, begin, end in zip(WAY, moments, moments[1:], strict=False):
            way[name].append(end - begin)
    for name in ("mini_dockerd", "md-zygote"):
        pids = family.named(name) - family.named("md-shim")
        spent[name] = [sum(family.spent[pid] for pid in pids) / 1000 / repeats]
        spent[f"{name}, faults"] = [sum(family.faults[pid] for pid in pids) / repeats]
    return spent, way


def show(title: str, found: tuple[Figures, Figures]) -> None:
    """Print the parts of one kind of work."""
    spent, way = found
    print(f"\n{title:28}{'median':>8}{'least':>8}{'faults':>8}")
    for name in ("mini_dockerd", "md-zygote", "shim", "init and command"):
        times, faults = spent[name], spent[f"{name}, faults"]
        if times:
            print(f"  {name:26}{statistics.median(times):8.2f}{min(times):8.2f}"
                  f"{statistics.median(faults):8.0f}")  # fmt: skip
    for name in WAY:
        if way[name]:
            print(f"  {name:26}{statistics.median(way[name]):8.2f}{min(way[name]):8.2f}")


def main() -> None:
    """Trace execs, then runs."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    stay_apart()
    with (
        tempfile.TemporaryDirectory(prefix="mini_docker_bench_") as directory,
        tracing() as trace,
        our_daemon(directory) as path,
    ):
        bench = Bench(path, 0, 0)
        keeper = bench.call("run", "-d", "busybox", "sleep", "10000")
        kinds = {
            "exec, docker's client": bench.docker("exec", keeper, "true"),
            "run --rm, our client": [COMMAND, "-H", f"unix://{path}", "run", "--rm", *NONE,
                                     "busybox", "true"],
        }  # fmt: skip
        for title, words in kinds.items():
            for _ in range(5):
                subprocess.run(words, check=True)
            trace.enable(*OTHERS)
            begun = time.clock_gettime(time.CLOCK_MONOTONIC) * 1000
            for _ in range(repeats):
                subprocess.run(words, check=True)
            trace.enable(*OTHERS, on=False)
            show(title, parts(Family(trace.read(), begun), repeats))


if __name__ == "__main__":
    main()
