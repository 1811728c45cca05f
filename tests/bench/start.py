"""How long the command needs to say its version, and what an import would add: medians in ms.

    /usr/bin/python3 tests/bench/start.py

The numbers of docs/decisions.md come from here.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = "/usr/bin/python3"
LAUNCHER = f"{ROOT}/labs/bin/mini_docker"
CONSOLE_SCRIPT = f"{ROOT}/.venv/bin/mini_docker"
MODULES = ("json", "argparse", "typing", "sqlite3", "subprocess", "dataclasses")
REPEATS = 21


def median_ms(command: list[str]) -> float:
    """Return the median wall time of `command` in ms. Raises CalledProcessError if it ever fails."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter_ns()
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter_ns() - start)
    return statistics.median(times) / 1e6


def show(label: str, command: list[str], less: float = 0.0) -> float:
    """Print a line of the table, less `less` ms; return the whole time in ms, 0 where it cannot run."""
    try:
        time_ms = median_ms(command)
    except OSError as error:
        print(f"  {label:<32} cannot run here, because {error}")
        return 0.0
    except subprocess.CalledProcessError as error:
        print(f"  {label:<32} failed with exit status {error.returncode}")
        return 0.0
    print(f"  {label:<32} {time_ms - less:6.1f}", flush=True)
    return time_ms


def main() -> None:
    """Print the table."""
    print(f"ms, median of {REPEATS}; Python {sys.version.split()[0]}, {os.cpu_count()} CPUs")
    print("\nThe interpreter")
    bare = show("python3 -ISE -c pass", [PYTHON, "-ISE", "-c", "pass"])
    show("python3 -c pass", [PYTHON, "-c", "pass"])
    print("\nThe command")
    show("labs/bin/mini_docker version", [LAUNCHER, "version"])
    show(".venv/bin/mini_docker version", [CONSOLE_SCRIPT, "version"])
    print("\nWhat an import adds to the interpreter's own time")
    for module in MODULES:
        show(f"import {module}", [PYTHON, "-ISE", "-c", f"import {module}"], less=bare)


if __name__ == "__main__":
    main()
