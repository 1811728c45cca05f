"""Write docs/conformance.md: each point of the OCI runtime specification, its tests, their results.

    sudo .venv/bin/python tests/conformance.py
    sudo labs/vm run .venv/bin/python tests/conformance.py

A test names its point by `@pytest.mark.oci(document, point)`. A run fills the column of the control groups it
finds, v1 (hybrid) here or v2 in the machine; the other column stays as it was.
"""

from __future__ import annotations

import pathlib
import re
import sys
from collections import defaultdict

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from mini_docker.cgroups.tree import hierarchies  # noqa: E402

TARGET = ROOT / "docs" / "conformance.md"
PLACES = ("v1", "v2")
HEAD = """# Conformance

Each point of the OCI runtime specification 1.2 that a test shows, with its result on a machine with control
groups v1 (hybrid) and in the labs' virtual machine, which has v2 and systemd. Written by

    sudo .venv/bin/python tests/conformance.py
    sudo labs/vm run .venv/bin/python tests/conformance.py

A number counts the cases of a test. *Cannot run here* is said by `pytest -rs` with its reason.

"""
ROW = re.compile(r"\| (.+) \| `(.+)` \| (.*) \| (.*) \|")
Results = dict[tuple[str, str, str], dict[str, str]]  # (document, point, test): place: verdict


class Collector:
    """A pytest plugin: the points of the tests, and how each ended."""

    def __init__(self) -> None:
        self.points: dict[str, tuple[str, str]] = {}
        self.results: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(
            lambda: defaultdict(list)
        )

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        mark = item.get_closest_marker("oci")
        if mark is not None:
            document, point = mark.args
            self.points[item.nodeid] = (document, point)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.points]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self.points and (report.when == "call" or report.outcome != "passed"):
            test = report.nodeid.partition("[")[0]
            self.results[self.points[report.nodeid]][test].append(report.outcome)


def read_table(text: str) -> Results:
    """Return the results that a table of ours holds."""
    document, found = "", {}
    for line in text.splitlines():
        if line.startswith("## "):
            document = line[3:]
        elif row := ROW.fullmatch(line):
            point, test, *verdicts = row.groups()
            found[document, point, test] = dict(zip(PLACES, verdicts, strict=True))
    return found


def table(results: Results) -> str:
    """Return the results as Markdown, a table for each document of the specification."""
    parts = [HEAD]
    for document in sorted({document for document, _, _ in results}):
        parts.append(f"## {document}\n\n| Point | Test | v1 | v2 |\n|-|-|-|-|\n")
        for (where, point, test), verdicts in sorted(results.items()):
            if where == document:
                columns = " | ".join(verdicts.get(place, "not run") for place in PLACES)
                parts.append(f"| {point} | `{test}` | {columns} |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


def merged(old: Results, new: dict[tuple[str, str], dict[str, list[str]]], place: str) -> Results:
    """Return `new` in the column of `place`, beside what `old` has in the other; tests that are gone go."""
    return {
        (*point, test): old.get((*point, test), {}) | {place: verdict(outcomes)}
        for point, tests in new.items()
        for test, outcomes in tests.items()
    }


def verdict(outcomes: list[str]) -> str:
    """Return "passed", "passed (4)", "failed" or "cannot run here"."""
    if "failed" in outcomes:
        return "**failed**"
    passed = outcomes.count("passed")
    if not passed:
        return "cannot run here"
    return "passed" if passed == 1 else f"passed ({passed})"


def main() -> int:
    collector = Collector()
    files = [str(file) for file in ROOT.glob("tests/test_*.py") if ".oci" in file.read_text()]
    status = pytest.main(["-q", "-p", "no:cacheprovider", *files], plugins=[collector])
    place = "v2" if hierarchies().version == "v2" else "v1"
    old = read_table(TARGET.read_text()) if TARGET.exists() else {}
    TARGET.write_text(table(merged(old, collector.results, place)))
    points = len(collector.results)
    print(f"{TARGET.relative_to(ROOT)}: {points} points in the column {place}")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
