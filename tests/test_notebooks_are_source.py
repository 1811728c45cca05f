"""The notebooks are the source: nothing in the package was written, or left, beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import ROOT
from mini_docker.lab import book

NOTEBOOKS = book.find_notebooks(ROOT)


def test_the_modules_are_the_export_of_the_notebooks(capsys: pytest.CaptureFixture[str]) -> None:
    assert book.main(["export", "--check"], ROOT) == 0, capsys.readouterr().out


def test_no_module_was_written_by_hand() -> None:
    modules = sorted((ROOT / book.PACKAGE).rglob("*.py"))
    assert [str(path.relative_to(ROOT)) for path in modules if not book.is_exported(path)] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.stem))
def test_a_notebook_is_in_normal_form(path: Path) -> None:
    pytest.importorskip("nbformat", reason="cannot run here, because nbformat is not installed")
    assert book.check(ROOT, path) == []
