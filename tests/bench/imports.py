"""Print what the client imports for `mini_docker run`, ours and the standard library's, and the dearest.

.venv/bin/python tests/bench/imports.py
"""

from __future__ import annotations

import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
RUN_PATH = (
    "import sys; sys.path.insert(0, {root!r}); "
    "import mini_docker.cli.main, mini_docker.cli.command, mini_docker.cli.attach as attach; "
    "from mini_docker.cli.flags import flag_table, parse; "
    "attach.create_body(parse(flag_table(attach.RUN_FLAGS), ['--rm', 'busybox', 'true'])); "
    "print(*sorted(sys.modules))"
)
PS_PATH = (
    "import sys; sys.path.insert(0, {root!r}); "
    "import mini_docker.cli.main, mini_docker.cli.command, mini_docker.cli.ps; "
    "print(*sorted(sys.modules))"
)


def run_path_modules() -> list[str]:
    """Return the names of all modules that `mini_docker run` has imported when it asks a daemon."""
    code = RUN_PATH.format(root=str(ROOT))
    done = subprocess.run(
        ["/usr/bin/python3", "-ISE", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def ps_modules() -> list[str]:
    """Return the names of all modules that `mini_docker ps` has imported when it asks a daemon."""
    code = PS_PATH.format(root=str(ROOT))
    done = subprocess.run(
        ["/usr/bin/python3", "-ISE", "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def main() -> None:
    names = run_path_modules()
    ours = [name for name in names if name.startswith("mini_docker")]
    print(f"imported by the run path: {len(names)} modules, {len(ours)} of them ours")
    code = RUN_PATH.format(root=str(ROOT))
    done = subprocess.run(
        ["/usr/bin/python3", "-ISE", "-X", "importtime", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split("|") for line in done.stderr.splitlines() if line.count("|") == 2][1:]
    costs = sorted(((int(own.split(":")[1]), name.strip()) for own, _, name in rows), reverse=True)
    print(
        f"import time {sum(cost for cost, _ in costs) / 1e3:.1f} ms; dearest: "
        + ", ".join(f"{name} {cost / 1e3:.1f}" for cost, name in costs[:8])
    )


if __name__ == "__main__":
    main()
