"""Write docs/conformance.md: each point of the OCI runtime specification, its tests, their results here.

    sudo .venv/bin/python tests/conformance.py

A test names its point by `@pytest.mark.oci(document, point)`; the table holds what was run, nothing else.
"""

from __future__ import annotations

import pathlib
import sys
from collections import defaultdict

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "conformance.md"
HEAD = """# Conformance

Each point of the OCI runtime specification 1.2 that a test shows, with its result, written by

    sudo .venv/bin/python tests/conformance.py

A number counts the cases of a test. *Cannot run here* is said by `pytest -rs` with its reason.

"""


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


def table(results: dict[tuple[str, str], dict[str, list[str]]]) -> str:
    """Return the results as Markdown, a table for each document of the specification."""
    parts = [HEAD]
    for document in sorted({document for document, _ in results}):
        parts.append(f"## {document}\n\n| Point | Test | Result |\n|-|-|-|\n")
        for (where, point), tests in sorted(results.items()):
            if where == document:
                for test, outcomes in sorted(tests.items()):
                    parts.append(f"| {point} | `{test}` | {verdict(outcomes)} |\n")
        parts.append("\n")
    return "".join(parts).rstrip() + "\n"


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
    status = pytest.main(["-q", "-p", "no:cacheprovider", str(ROOT / "tests")], plugins=[collector])
    TARGET.write_text(table(collector.results))
    points = len(collector.results)
    print(f"{TARGET.relative_to(ROOT)}: {points} points")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
