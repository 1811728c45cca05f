"""The run path's imports are countable: modules are counted, not milliseconds."""

from __future__ import annotations

from tests.bench.imports import ps_modules, run_path_modules

BUDGET = 130
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
