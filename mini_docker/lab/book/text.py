# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#text-module
"""A notebook as py:percent text, and back: what `text` and `untext` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mini_docker.lab.book.notebook import (
    METADATA,
    BookError,
    Cell,
    Notebook,
    is_newer,
    jupyter_text,
    library,
    place,
    read_notebook,
    with_jupyter_tags,
    write_text,
)

# %% notebooks/B_book_tools.ipynb#percent
PERCENT = {
    "extension": ".py",
    "format_name": "percent",
    "comment_magics": False,
    "cell_metadata_filter": "id,tags,-all",
    "notebook_metadata_filter": "-all",
}


def write_percent(path: Path, force: bool = False) -> int:
    """Write the notebook's text beside it, `notebooks/NAME.py`."""
    notebook = library("nbformat").from_dict({**read_notebook(path), "metadata": {}})
    for cell in notebook.cells:
        cell.metadata = {"id": cell.id, **cell.metadata}
    text = library("jupytext").writes(notebook, fmt=PERCENT).rstrip("\n") + "\n"
    target = path.with_suffix(".py")
    if not force and is_newer(target, [path]) and target.read_text(encoding="utf-8") != text:
        raise BookError(f"{place(target)} is newer than the notebook: `untext`, or `text --force`")
    print(f"{place(target)}: {'written' if write_text(target, text) else 'unchanged'}")
    return 0


def read_percent(path: Path, force: bool = False) -> int:
    """Carry `notebooks/NAME.py` into the notebook beside it, a new one if there is none."""
    target = path.with_suffix(".ipynb")
    old = read_notebook(target) if target.exists() else {"cells": []}
    notebook: Notebook = {"cells": percent_cells(path, old), "metadata": METADATA}
    notebook |= {"nbformat": 4, "nbformat_minor": 5}
    if not force and is_newer(target, [path]) and sources(old) != sources(notebook):
        raise BookError(f"{place(target)} is newer than the text: `text`, or `untext --force`")
    written = write_text(target, jupyter_text(notebook))
    print(f"{place(target)}: {'written' if written else 'unchanged'}")
    return 0


# %% notebooks/B_book_tools.ipynb#percent-cells
def percent_cells(path: Path, old: Notebook) -> list[Cell]:
    """Return the text's cells; each must have an id of its own, and keeps what `old` knows of it."""
    known = {cell.get("id"): cell for cell in old["cells"]}
    made: dict[str, Cell] = {}
    for cell in library("jupytext").reads(path.read_text(encoding="utf-8"), fmt=PERCENT).cells:
        name = cell.metadata.get("id")
        if not name or name in made:
            said = f"two cells have the id {name}" if name else "a cell has no id"
            raise BookError(f"{place(path)}: {said}: {cell.source.partition(chr(10))[0]!r}")
        made[name] = merge_cell(cell, known.get(name, {}))
    return list(made.values())


def merge_cell(cell: Any, old: Cell) -> Cell:
    """Return a cell of the text as it is stored, with the old outputs when its source is the same."""
    made: Cell = {"cell_type": cell.cell_type, "id": cell.metadata.id, "source": cell.source}
    tags = with_jupyter_tags(cell.metadata.get("tags", []))
    made["metadata"] = {"tags": tags} if tags else {}
    if cell.cell_type == "code":
        same = (old.get("cell_type"), old.get("source")) == ("code", cell.source)
        made["outputs"] = old["outputs"] if same else []
        made["execution_count"] = old["execution_count"] if same else None
    return made


def sources(notebook: Notebook) -> list[tuple[str, str]]:
    """Return the id and source of each cell."""
    return [(cell.get("id", ""), cell["source"]) for cell in notebook["cells"]]
