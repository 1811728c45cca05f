"""The house rules, read from the source: imports point down, nothing dear on the run path, no giants."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "mini_docker"
# A package imports only what has a lower rank, and itself; cli/ imports itself alone. lab/ has no rank:
# nobody imports it.
RANKS = {
    "linux": 0,
    "namespaces": 1,
    "cgroups": 1,
    "security": 1,
    "storage": 1,
    "runtime": 2,
    "images": 2,
    "registry": 2,
    "engine": 3,
    "api": 4,
    "cli": 5,
}
SAME_FLOOR = {("registry", "images")}  # a registry client is of no use without a store
LAB_MAY_IMPORT = {"linux", "lab", "cli"}  # the dashboard is one more client of the API
LAB_MODELS = {
    "lab/one_bridge.py"
}  # what a chapter builds to learn from, of the parts that it exports
LONGEST = 60  # lines of a function, docstring included
# Each costs a start of the command a millisecond or more: import them where they are needed, in a function.
DEAR = frozenset(
    "argparse asyncio contextlib dataclasses enum logging pathlib shutil subprocess tempfile typing".split()
)
# Modules that no start of a container loads, and why they may be dear.
OFF_THE_RUN_PATH: dict[str, str] = {
    f"registry/{name}.py": "a pull waits for the network"
    for name in "client credentials download errors push queries repository settings together tokens "
    "transport uploads".split()
}

MODULES = sorted(Path(ROOT, PACKAGE).rglob("*.py"))
RUN_PATH = [
    path for path in MODULES if not {"lab", "api"} & set(path.parts)
]  # the daemon loads api/


def name_of(path: Path) -> str:
    """Return a module's path inside the package: `linux/step.py`."""
    return path.relative_to(Path(ROOT, PACKAGE)).as_posix()


def package_of(name: str) -> str:
    """Return the package of a module's path; the root's `__init__.py` has none."""
    return name.partition("/")[0] if "/" in name else ""


def imported(node: ast.AST) -> list[str]:
    """Return the full names of the modules that a statement imports; a relative import is an error."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"line {node.lineno}: a relative import"
    if node.module == PACKAGE:
        return [f"{PACKAGE}.{alias.name}" for alias in node.names]
    return [node.module or ""]


def all_imports(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports anywhere: at its top, in functions, for types only."""
    for node in ast.walk(tree):
        yield from imported(node)


def top_imports(body: list[ast.stmt]) -> Iterator[str]:
    """Yield what importing a module imports: not what stands in functions or under TYPE_CHECKING."""
    for node in body:
        yield from imported(node)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from top_imports(node.orelse)
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            for part in ("body", "orelse", "finalbody"):
                yield from top_imports(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from top_imports(handler.body)


def upward_imports(name: str, source: str) -> list[str]:
    """Return the imports of our own that do not point down."""
    package = package_of(name)
    wrong = []
    for module in all_imports(ast.parse(source)):
        ours, _, rest = module.partition(".")
        target = rest.partition(".")[0]
        if ours != PACKAGE or target in ("", "__version__", package):
            continue
        if package == "lab":
            allowed = target in LAB_MAY_IMPORT or name in LAB_MODELS
        elif package == "cli":
            allowed = False  # a client of the HTTP API: it has no other way to know anything
        else:
            below = RANKS.get(target, 99) < RANKS.get(package, -1)
            allowed = below or (package, target) in SAME_FLOOR
        if not allowed:
            wrong.append(module)
    return wrong


def dear_imports(source: str) -> list[str]:
    """Return the imports that a module of the run path must not make when it is imported."""
    return [m for m in top_imports(ast.parse(source).body) if m.partition(".")[0] in DEAR]


def foreign_imports(source: str) -> list[str]:
    """Return the imports of what is neither ours nor in the standard library."""
    known = sys.stdlib_module_names | {PACKAGE}
    return [m for m in all_imports(ast.parse(source)) if m.partition(".")[0] not in known]


def long_functions(source: str) -> list[str]:
    """Return `name: lines` of the functions that are too long."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            found += [f"{node.name}: {lines} lines"] if lines > LONGEST else []
    return found


def found_in(paths: list[Path], rule: Callable[[str, str], list[str]]) -> dict[str, list[str]]:
    """Return what a rule, which is given a module's name and source, finds in which module."""
    found = {name_of(path): rule(name_of(path), path.read_text(encoding="utf-8")) for path in paths}
    return {name: wrong for name, wrong in found.items() if wrong}


def test_imports_point_down() -> None:
    assert found_in(MODULES, upward_imports) == {}


def test_the_run_path_imports_the_standard_library_only() -> None:
    assert found_in(RUN_PATH, lambda _, source: foreign_imports(source)) == {}


def test_the_run_path_imports_nothing_dear() -> None:
    """A module that is not dear any more is taken off the list."""
    assert (
        found_in(RUN_PATH, lambda _, source: dear_imports(source)).keys() == OFF_THE_RUN_PATH.keys()
    )


def test_no_function_is_a_giant() -> None:
    assert found_in(MODULES, lambda _, source: long_functions(source)) == {}


def test_every_package_has_a_rank() -> None:
    packages = {package_of(name_of(path)) for path in MODULES} - {"", "lab"}
    assert packages <= set(RANKS)


# The rules themselves: each must find what it is there for.


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("linux/step.py", "from mini_docker.runtime import plan"),
        ("namespaces/pid.py", "from mini_docker.cgroups.tree import Cgroup"),
        ("engine/containers.py", "def f():\n    import mini_docker.cli.main"),
        (
            "runtime/init.py",
            "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from mini_docker import engine",
        ),
        ("cli/main.py", "from mini_docker.lab import sh"),
        ("cli/ps.py", "def f():\n    from mini_docker.engine.store import Store"),
        ("lab/doctor.py", "from mini_docker.engine import store"),
        ("__init__.py", "import mini_docker.linux.syscall"),
        ("images/layout.py", "from mini_docker.registry import pull"),
    ],
)
def test_an_import_that_points_up_is_found(name: str, source: str) -> None:
    assert len(upward_imports(name, source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("cli/main.py", "from mini_docker import __version__"),
        ("engine/store.py", "from mini_docker.linux.step import Step\nimport os"),
        ("lab/doctor.py", "from mini_docker.linux import mount\nfrom mini_docker.lab import draw"),
    ],
)
def test_an_import_that_points_down_is_let_alone(name: str, source: str) -> None:
    assert upward_imports(name, source) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import subprocess", ["subprocess"]),
        ("from typing import Any", ["typing"]),
        ("try:\n    import os\nexcept ImportError:\n    import shutil", ["shutil"]),
        ("if TYPE_CHECKING:\n    import typing\nelse:\n    import enum", ["enum"]),
        ("class A:\n    import logging", ["logging"]),
        ("def f():\n    import subprocess", []),
        ("if TYPE_CHECKING:\n    from typing import Any", []),
        ("import os, collections.abc", []),
    ],
)
def test_a_dear_import_is_found_where_it_costs(source: str, found: list[str]) -> None:
    assert dear_imports(source) == found


def test_a_giant_is_found() -> None:
    body = "".join(f"    x = {n}\n" for n in range(LONGEST))
    assert long_functions(f"def f():\n{body}") == [f"f: {LONGEST + 1} lines"]
    assert long_functions("def f():\n" + body.partition("\n")[2]) == []
