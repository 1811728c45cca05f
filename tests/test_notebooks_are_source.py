"""The notebooks are the source: nothing in the package was written, or left, beside them."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import ROOT
from mini_docker.lab.book.__main__ import main
from mini_docker.lab.book.check import check
from mini_docker.lab.book.export import is_exported
from mini_docker.lab.book.notebook import PACKAGE, find_notebooks, read_notebook

NOTEBOOKS = find_notebooks(ROOT)
ROW = re.compile(r"^\| (\w+) \| \[.*?\]\(notebooks/(\w+\.ipynb)\)", re.MULTILINE)
NEXT = re.compile(r"\*\*Next:\*\* (?:.*?)\[[^]]+\]\((\w+\.ipynb)\)")


def test_the_modules_are_the_export_of_the_notebooks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--check"], ROOT) == 0, capsys.readouterr().out


def test_no_module_was_written_by_hand() -> None:
    modules = sorted((ROOT / PACKAGE).rglob("*.py"))
    assert [str(path.relative_to(ROOT)) for path in modules if not is_exported(path)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.stem))
def test_a_notebook_is_in_normal_form(path: Path) -> None:
    pytest.importorskip("nbformat", reason="cannot run here, because nbformat is not installed")
    assert check(ROOT, path) == []


def prose_of(name: str) -> str:
    cells = read_notebook(ROOT / "notebooks" / name)["cells"]
    return "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def test_each_chapter_leads_to_the_next_row_of_the_readme() -> None:
    rows = ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert {name for _, name in rows} == {path.name for path in NOTEBOOKS}
    chapters = [name for number, name in rows if number[0].isdigit()]
    wrong = []
    for name, following in pairwise(chapters[1:]):  # chapter 0 has a table of its own
        found = NEXT.search(prose_of(name))
        if found is None or found.group(1) != following:
            wrong.append(f"{name} leads to {found and found.group(1)}, not {following}")
    assert wrong == []
