"""The run path's imports are countable: modules are counted, not milliseconds."""

from __future__ import annotations

import subprocess

from tests.bench.imports import ROOT, ps_modules, run_path_modules

BUDGET = 145
PS_BUDGET = 76
# each of these costs a start more than a container's whole file system does
TOO_DEAR = {
    "argparse", "asyncio", "concurrent", "contextlib", "dataclasses", "hashlib", "http", "inspect",
    "ipaddress", "logging", "pathlib", "pickle", "random", "shutil", "sqlite3", "subprocess", "tarfile",
    "tempfile",
    "threading", "typing", "urllib", "uuid",
}  # fmt: skip


def test_the_run_path_stays_within_its_budget() -> None:
    names = run_path_modules()
    assert len(names) <= BUDGET, f"{len(names)} modules: {names}"


def test_the_run_path_imports_nothing_dear() -> None:
    assert not {name.partition(".")[0] for name in run_path_modules()} & TOO_DEAR


def test_a_client_that_lists_containers_stays_within_its_budget() -> None:
    names = ps_modules()
    assert len(names) <= PS_BUDGET, f"{len(names)} modules: {names}"
    assert not {name.partition(".")[0] for name in names} & TOO_DEAR
    ours = [name for name in names if name.startswith("mini_docker.")]
    assert all(name.startswith("mini_docker.cli") for name in ours), ours


def test_the_runtime_s_commands_stay_within_theirs() -> None:
    """mini_runc starts four times for a `docker run`: neither re nor enum, and so neither json nor signal."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import mini_docker.runtime.commands"
    words = ["/usr/bin/python3", "-ISE", "-c", f"{code}; print(*sys.modules)"]
    names = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert len(names) <= 95, f"{len(names)} modules: {names}"
    dear = TOO_DEAR | {"re", "enum", "json", "signal", "socket", "functools"}
    assert not {name.partition(".")[0] for name in names} & dear
