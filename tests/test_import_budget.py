"""The run path's imports are countable: modules are counted, not milliseconds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from tests.bench.imports import ROOT, ps_modules, run_path_modules

BUDGET = 56
PS_BUDGET = 49
# each of these costs a start more than a container's whole file system does
TOO_DEAR = {
    "argparse", "asyncio", "concurrent", "contextlib", "dataclasses", "hashlib", "http", "inspect",
    "ipaddress", "logging", "pathlib", "pickle", "random", "shutil", "sqlite3", "subprocess", "tarfile",
    "tempfile",
    "threading", "typing", "urllib", "uuid",
}  # fmt: skip
# and each of these more than a module of ours; their C halves (_json, _signal, _socket) cost nothing
PYTHON_HALVES = {"enum", "functools", "json", "re", "signal", "socket"}


@pytest.mark.parametrize(
    ("modules", "most"), [(run_path_modules, BUDGET), (ps_modules, PS_BUDGET)], ids=["run", "ps"]
)
def test_the_client_stays_within_its_budget(modules: Callable[[], list[str]], most: int) -> None:
    names = modules()
    assert len(names) <= most, f"{len(names)} modules: {names}"
    assert not {name.partition(".")[0] for name in names} & (
        TOO_DEAR | PYTHON_HALVES | {"collections"}
    )
    ours = [name for name in names if name.startswith("mini_docker.")]
    assert all(name.startswith("mini_docker.cli") for name in ours), ours


def test_the_runtime_s_commands_stay_within_theirs() -> None:
    """mini_runc starts four times for a `docker run`: neither re nor enum, and so neither json nor signal."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import mini_docker.runtime.commands"
    words = ["/usr/bin/python3", "-ISE", "-c", f"{code}; print(*sys.modules)"]
    names = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert len(names) <= 99, f"{len(names)} modules: {names}"
    assert not {name.partition(".")[0] for name in names} & (TOO_DEAR | PYTHON_HALVES)
