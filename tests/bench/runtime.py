"""How long a bare runtime takes: `mini_runc run` beside runc and crun, on the same bundle.

    .venv/bin/python tests/bench/runtime.py [--rounds 20]

The document is the same for all: six namespaces, Docker's capabilities and seccomp policy, limits of
memory and processes, masked paths. The three take turns, so that a noisy machine is noisy for all, and the
processor's time is counted beside the clock's: it depends less on who else is working. Then where the time
of ours goes, the memory that each keeps before and after the start, and the two doors of a v1 group. Asserts
nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
MINI_RUNC = str(ROOT / "labs" / "bin" / "mini_runc")

from mini_docker.cgroups.tree import hierarchies  # noqa: E402
from mini_docker.runtime.about import example  # noqa: E402
from mini_docker.security.policy import default_policy  # noqa: E402


def make_bundle(directory: pathlib.Path) -> pathlib.Path:
    """Make a bundle that every runtime takes."""
    (directory / "rootfs" / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "busybox", directory / "rootfs" / "bin" / "busybox")
    install = ["chroot", str(directory / "rootfs"), "/bin/busybox", "--install", "-s", "/bin"]
    subprocess.run(install, check=True)
    document = example(rootless=False)
    document["ociVersion"] = "1.0.2"
    document["process"].update(terminal=False, args=["true"])
    capabilities = document["process"]["capabilities"]["bounding"]
    document["linux"]["seccomp"] = default_policy(capabilities, os.uname().machine)
    document["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 64})
    write(directory, document)
    return directory


def write(bundle: pathlib.Path, document: dict[str, Any]) -> None:
    (bundle / "config.json").write_text(json.dumps(document))


class Taken(NamedTuple):
    """What one call took: seconds by the clock, and of the processor, user and system."""

    clock: float
    processor: float


def once(words: list[str]) -> Taken:
    """Call, and return what it took, wait4(2). Raises RuntimeError with its words if it fails."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as stderr:
        null = subprocess.DEVNULL
        process = subprocess.Popen(words, stdin=null, stdout=null, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        clock = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            stderr.seek(0)
            raise RuntimeError(stderr.read().strip().splitlines()[-1][:120])
    return Taken(clock, usage.ru_utime + usage.ru_stime)


def measure(bundle: pathlib.Path, rounds: int) -> dict[str, list[Taken]]:
    """Time the runtimes in turns; say which cannot run here."""
    words = {}
    for name, program in (("mini_runc", MINI_RUNC), ("runc", "runc"), ("crun", "crun")):
        command = [
            program,
            "--root",
            str(bundle / f"state-{name}"),
            "run",
            "-b",
            str(bundle),
            "bench",
        ]
        try:
            once(command)
            words[name] = command
        except (OSError, RuntimeError) as error:
            print(f"{name} cannot run here, because {error}")
    times: dict[str, list[Taken]] = {name: [] for name in words}
    for _ in range(rounds):
        for name, command in words.items():
            times[name].append(once(command))
    return times


def report(times: dict[str, list[Taken]]) -> None:
    for what, index in (("run: by the clock", 0), ("run: processor's time", 1)):
        ours = statistics.median(taken[index] for taken in times["mini_runc"])
        print(f"{what:24}{'min':>9}{'median':>10}   ours / theirs (median)")
        for name, values in times.items():
            seconds = [taken[index] for taken in values]
            median = statistics.median(seconds)
            ratio = "" if name == "mini_runc" else f"   {ours / median:.2f}"
            print(f"  {name:22}{min(seconds) * 1e3:6.1f} ms{median * 1e3:7.1f} ms{ratio}")


def where_time_goes(bundle: pathlib.Path) -> None:
    """Print the parts of one `run` of ours: interpreter, imports, what the parent does, init's steps."""
    run = [MINI_RUNC, "--root", str(bundle / "state"), "run", "-b", str(bundle), "bench"]
    bare, imports, whole = (
        min(once(words).processor for _ in range(15))
        for words in (["/usr/bin/python3", "-ISE", "-c", "pass"], [MINI_RUNC, "--version"], run)
    )
    print("\nwhere the processor's time of ours goes (min)")
    print(f"  interpreter             {bare * 1e3:6.1f} ms")
    print(f"  modules, from a pack    {(imports - bare) * 1e3:6.1f} ms")
    print(f"  create, start, delete   {(whole - imports) * 1e3:6.1f} ms")


def what_stays(bundle: pathlib.Path, names: Iterable[str]) -> None:
    """Print the private memory of all processes that are there only because a container is."""
    document = json.loads((bundle / "config.json").read_text())
    document["process"]["args"] = ["sleep", "60"]
    write(bundle, document)
    print("\nwhat stays for one idle container (private memory)")
    for name in names:
        words = [
            MINI_RUNC if name == "mini_runc" else name,
            "--root",
            str(bundle / f"state-{name}"),
        ]
        before = set(os.listdir("/proc"))
        for command in (["create", "-b", str(bundle)], ["start"]):
            once([*words, *command, "idle"])
            found = ", ".join(f"{program} {size} kB" for program, size in _private(before))
            print(f"  {name:10} after {command[0]:7}{found}")
        once([*words, "delete", "--force", "idle"])


def _private(before: set[str]) -> list[tuple[str, int]]:
    found = []
    for pid in sorted(set(os.listdir("/proc")) - before):
        try:
            lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        found.append((name, sum(int(line.split()[1]) for line in lines if "Private" in line)))
    return found


REST = 0.1  # seconds, in which the kernel forgets that somebody has just moved


def doors(rounds: int) -> None:
    """Print what it takes a process of one thread to move itself into a v1 group, by each file.

    Source: cgroups(7). Who uses cgroup.procs first waits for every CPU; others, for a moment after, need not.
    """
    root = hierarchies().mounts.get("freezer")
    lines = pathlib.Path("/proc/self/cgroup").read_text().splitlines()
    own = next((line.split(":", 2)[2] for line in lines if ":freezer:" in line), None)
    if root is None or own is None:
        print("\nthere is no tree of v1 here to move in")
        return
    above = pathlib.Path(f"{root}{own}")
    group = above / f"mini_docker_bench-{os.getpid()}"
    group.mkdir()
    try:
        if (pid := os.fork()) == 0:
            _move(above, group, rounds)
        os.waitpid(pid, 0)
    finally:
        group.rmdir()


def _move(above: pathlib.Path, group: pathlib.Path, rounds: int) -> NoReturn:
    print("\nto move oneself into a group of v1, by the clock (min, median)")
    for door in ("cgroup.procs", "tasks"):
        times = []
        for _ in range(rounds):
            time.sleep(REST)
            began = time.perf_counter()
            (group / door).write_text("0")
            times.append((time.perf_counter() - began) * 1e3)
            (above / "tasks").write_text("0")
        print(f"  {door:22}{min(times):6.2f} ms{statistics.median(times):7.2f} ms", flush=True)
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="mini_docker_bench_") as directory:
        bundle = make_bundle(pathlib.Path(directory))
        times = measure(bundle, rounds)
        report(times)
        where_time_goes(bundle)
        what_stays(bundle, times)
        doors(rounds)


if __name__ == "__main__":
    main()
