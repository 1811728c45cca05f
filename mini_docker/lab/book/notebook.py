# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#imports
"""A notebook as a file: found by name, read, and written in the one form that is stored."""

from __future__ import annotations

import copy
import importlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

# %% notebooks/B_book_tools.ipynb#types
PACKAGE = "mini_docker"

Notebook = dict[str, Any]
Cell = dict[str, Any]

METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


class BookError(Exception):
    """What is wrong and where, one fault a line: `notebooks/06_uts.ipynb#set-name:3: ...`."""


def library(name: str) -> Any:
    """Import a library when it is first needed, so that `export` starts without any of them.

    Where there is a parser of addresses in all languages, jsonschema has it made: a second, and no
    notebook needs it.
    """
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    return importlib.import_module(name)


# %% notebooks/B_book_tools.ipynb#find
def find_root(start: Path) -> Path:
    """Return the nearest folder, at or above `start`, that holds a `notebooks` folder."""
    for folder in (start, *start.parents):
        if (folder / "notebooks").is_dir():
            return folder
    raise BookError(f"no notebooks/ in {start} nor above it")


def find_notebooks(root: Path, names: Sequence[str] = ()) -> list[Path]:
    """Return the notebooks named by path, file name or stem; all of them when none is named."""
    every = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    wanted = [Path(name).stem for name in names] or list(every)
    if missing := [name for name in wanted if name not in every]:
        raise BookError(f"no such notebook: {', '.join(missing)}")
    return [every[name] for name in wanted]


def place(path: Path) -> str:
    """Return a notebook's name in messages and markers: `notebooks/06_uts.ipynb`."""
    return f"{path.parent.name}/{path.name}"


# %% notebooks/B_book_tools.ipynb#read-write
def read_notebook(path: Path) -> Notebook:
    """Return the notebook's JSON, each cell's source joined to one string."""
    try:
        notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            cell["source"] = "".join(cell["source"])
    except (ValueError, KeyError, TypeError) as error:
        raise BookError(f"{place(path)}: not a notebook: {error}") from None
    return notebook


def jupyter_text(notebook: Notebook) -> str:
    """Return what Jupyter would write; outputs must be in the form that is stored."""
    stored = copy.deepcopy(notebook)
    for cell in stored["cells"]:
        cell["source"] = "".join(cell["source"]).splitlines(keepends=True)
    return json.dumps(stored, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def write_text(path: Path, text: str) -> bool:
    """Replace a file in one step; return False, and touch nothing, when it says `text` already."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    return True


def is_newer(path: Path, sources: Iterable[Path]) -> bool:
    """Tell whether a file exists and was written after each of its sources."""
    return path.exists() and all(path.stat().st_mtime > s.stat().st_mtime for s in sources)


# %% notebooks/B_book_tools.ipynb#tags
def tags_of(cell: Cell) -> list[str]:
    """Return a cell's tags."""
    tags: list[str] = cell["metadata"].get("tags", [])
    return tags


def with_jupyter_tags(tags: Sequence[str]) -> list[str]:
    """Return the tags; `expected-failure` brings the tag by which nbclient and nbval allow it."""
    allow = "expected-failure" in tags and "raises-exception" not in tags
    return [*tags, "raises-exception"] if allow else list(tags)
