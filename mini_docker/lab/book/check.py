# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#check-module
"""Normal form, seen without running: what `check` does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from mini_docker.lab.book.notebook import (
    METADATA,
    Cell,
    Notebook,
    jupyter_text,
    library,
    place,
    read_notebook,
    tags_of,
)

# %% notebooks/B_book_tools.ipynb#check-rules
CELL_ID = re.compile(r"[a-z][a-z0-9-]*")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)")
TAGS = frozenset(
    "quick exercise expected-failure raises-exception hide-input hide-output hide-cell".split()
)
HEADINGS = (
    "Preflight",
    "The question",
    "Predict",
    "By hand",
    "Build",
    "Compare",
    "Break it",
    "Exercises",
    "Clean up",
)
VOLATILE = {
    r"\bat 0x[0-9a-f]{2,}": "an address",
    r"\b(?:cgroup|ipc|mnt|net|pid|time|user|uts):\[\d+\]": "a namespace's inode number",
    r"/tmp/(?:tmp|ipykernel_)\w+|/home/\w+|/Users/\w+": "a path of one machine",
}


# %% notebooks/B_book_tools.ipynb#check
def check(root: Path, path: Path) -> list[str]:
    """Return what is wrong with the form of a stored notebook, one fault a line."""
    notebook = read_notebook(path)
    faults = [f"{place(path)}: {fault}" for fault in notebook_faults(path, notebook)]
    count = 0
    for cell in notebook["cells"]:
        found = list(form_faults(cell))
        if cell["cell_type"] == "code":
            count += 1
            found += output_faults(root, cell, count)
        elif cell["cell_type"] == "markdown":
            found += link_faults(path, cell["source"])
        faults += [f"{place(path)}#{cell.get('id', '?')}: {fault}" for fault in found]
    return faults


def notebook_faults(path: Path, notebook: Notebook) -> Iterator[str]:
    """Yield faults of the notebook as a whole: version, metadata, ids, layout, headings."""
    if (notebook["nbformat"], notebook["nbformat_minor"]) != (4, 5):
        yield "not nbformat 4.5"
    elif not library("nbformat").validator.isvalid(json.loads(path.read_text(encoding="utf-8"))):
        yield "not a valid notebook"
    if notebook["metadata"] != METADATA:
        yield "its metadata is not the fixed one (execute it)"
    if path.read_text(encoding="utf-8") != jupyter_text(notebook):
        yield "not written as Jupyter writes it (execute it)"
    ids = [cell.get("id", "") for cell in notebook["cells"]]
    yield from (f"two cells have the id {name}" for name in sorted(set(ids)) if ids.count(name) > 1)
    if re.match(r"\d\d_", path.name):
        yield from heading_faults(int(path.name[:2]), notebook)


def form_faults(cell: Cell) -> Iterator[str]:
    """Yield what is wrong with a cell's id, tags and metadata."""
    if not CELL_ID.fullmatch(cell.get("id", "")):
        yield "not a readable id (small letters, digits, hyphens)"
    for tag in sorted(set(tags_of(cell)) - TAGS):
        yield f"unknown tag {tag!r}"
    for key in sorted(set(cell["metadata"]) - {"tags"}):
        yield f"metadata {key!r} (execute the notebook)"


def link_faults(path: Path, source: str) -> Iterator[str]:
    """Yield the relative links of a markdown cell that lead nowhere."""
    for link in LINK.findall(re.sub(r"```.*?```|`[^`\n]*`", "", source, flags=re.DOTALL)):
        if not (path.parent / link).exists():
            yield f"the link to {link} leads nowhere"


# %% notebooks/B_book_tools.ipynb#check-outputs
def output_faults(root: Path, cell: Cell, count: int) -> Iterator[str]:
    """Yield stored outputs that another run, or another machine, would not repeat."""
    if cell["execution_count"] != count:
        yield f"execution count {cell['execution_count']}, not {count} (execute the notebook)"
    rules = {**VOLATILE, re.escape(str(root)): "the path of this checkout"}
    for output in cell["outputs"]:
        if output["output_type"] == "error" and "expected-failure" not in tags_of(cell):
            yield f"stored error {output['ename']}, and no tag 'expected-failure'"
        texts = [output.get("text", ""), *output.get("data", {}).values()]
        text = "\n".join("".join(part) for part in texts if isinstance(part, (str, list)))
        for pattern, what in rules.items():
            if match := re.search(pattern, text):
                yield f"{what} in its output: {match[0]}"


def heading_faults(number: int, notebook: Notebook) -> Iterator[str]:
    """Yield the parts that a chapter lacks or has out of order; chapter 0 may lack some."""
    prose = "\n".join(c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown")
    if not prose.startswith(f"# {number}. "):
        yield f"does not begin with '# {number}. Title'"
    found = [heading.lower() for heading in re.findall(r"^## (.*)", prose, re.MULTILINE)]
    last = -1
    for wanted in HEADINGS:
        places = [i for i, heading in enumerate(found) if wanted.lower() in heading]
        if places and places[-1] <= last:
            yield f"heading '## {wanted}' is out of order"
        elif places:
            last = min(place for place in places if place > last)
        elif number:
            yield f"no heading '## {wanted}'"
