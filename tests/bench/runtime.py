"""How long a bare runtime takes: `mini_runc run` beside runc and crun, on the same bundle.

    .venv/bin/python tests/bench/runtime.py [--rounds 20]

The document is the same for all: six namespaces, Docker's capabilities and seccomp policy, limits of
memory and processes, masked paths. The three take turns, so that a noisy machine is noisy for all. Then
where the time of ours goes, and the memory that stays while a container runs. Asserts nothing.
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
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
MINI_RUNC = str(ROOT / "labs" / "bin" / "mini_runc")

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


def once(words: list[str]) -> float:
    """Return the seconds that one call takes. Raises RuntimeError with its words if it fails."""
    began = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    taken = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1][:120])
    return taken


def measure(bundle: pathlib.Path, rounds: int) -> dict[str, list[float]]:
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
    times: dict[str, list[float]] = {name: [] for name in words}
    for _ in range(rounds):
        for name, command in words.items():
            times[name].append(once(command))
    return times


def report(times: dict[str, list[float]]) -> None:
    ours = statistics.median(times["mini_runc"])
    print(f"{'run, the same bundle':24}{'min':>9}{'median':>10}   ours / theirs (median)")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = "" if name == "mini_runc" else f"   {ours / median:.2f}"
        print(f"{name:24}{min(values) * 1e3:6.1f} ms{median * 1e3:7.1f} ms{ratio}")


def where_time_goes(bundle: pathlib.Path) -> None:
    """Print the parts of one `run` of ours: interpreter, imports, what the parent does, init's steps."""
    bare = min(once(["/usr/bin/python3", "-ISE", "-c", "pass"]) for _ in range(9))
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import mini_docker.runtime.commands"
    imports = min(once(["/usr/bin/python3", "-ISE", "-c", code]) for _ in range(9))
    count = "; print(len(sys.modules))"
    done = subprocess.run(
        ["/usr/bin/python3", "-ISE", "-c", code + count], capture_output=True, text=True
    )
    words = [MINI_RUNC, "--root", str(bundle / "state"), "run", "-b", str(bundle), "bench"]
    whole = min(once(words) for _ in range(9))
    print("\nwhere the time of ours goes (min)")
    print(f"  interpreter             {bare * 1e3:6.1f} ms")
    print(f"  imports, {done.stdout.strip():3} modules    {(imports - bare) * 1e3:6.1f} ms")
    print(f"  create, start, delete   {(whole - imports) * 1e3:6.1f} ms")


def what_stays(bundle: pathlib.Path) -> None:
    """Print the private memory of all processes that are there only because a container runs."""
    document = json.loads((bundle / "config.json").read_text())
    document["process"]["args"] = ["sleep", "60"]
    write(bundle, document)
    words = [MINI_RUNC, "--root", str(bundle / "state")]
    quiet = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    before = set(os.listdir("/proc"))
    subprocess.run([*words, "create", "-b", str(bundle), "idle"], check=True, **quiet)  # type: ignore[call-overload]
    created = _private(before)
    subprocess.run([*words, "start", "idle"], check=True, **quiet)  # type: ignore[call-overload]
    started = _private(before)
    subprocess.run([*words, "delete", "--force", "idle"], check=True)
    print("\nwhat stays for one idle container (private memory)")
    for label, found in (("created", created), ("running", started)):
        print(f"  {label:8}" + ", ".join(f"{name} {size} kB" for name, size in found))


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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="mini_docker_bench_") as directory:
        bundle = make_bundle(pathlib.Path(directory))
        report(measure(bundle, rounds))
        where_time_goes(bundle)
        what_stays(bundle)


if __name__ == "__main__":
    main()
