# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#carry-module
"""From edited modules back to the cells: what `carry` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mini_docker.lab.book.blocks import Block, read_blocks, split_directives
from mini_docker.lab.book.export import MARK, is_exported, lay_out
from mini_docker.lab.book.notebook import (
    BookError,
    Notebook,
    find_notebooks,
    is_newer,
    jupyter_text,
    place,
    read_notebook,
    write_text,
)


# %% notebooks/B_book_tools.ipynb#carry
def carry(root: Path, names: Sequence[str] = (), force: bool = False) -> int:
    """Carry the edited blocks of modules, all or those named, back into their cells.

    Raises BookError, and writes nothing, when blocks and cells are not the same.
    """
    notebooks = {place(path): read_notebook(path) for path in find_notebooks(root)}
    files = lay_out(b for name, notebook in notebooks.items() for b in read_blocks(name, notebook))
    faults = [f"no notebook exports {name}" for name in names if name not in files]
    changes: dict[str, str] = {}
    for file, blocks in files.items():
        if (root / file).exists() and file in (names or files):
            faults += carry_faults(root, file, blocks, force)
            changes |= edited_blocks(root, file, blocks)
    if faults:
        raise BookError("\n".join(faults))
    write_changes(root, notebooks, changes)
    return 0


def split_module(root: Path, file: str) -> tuple[str, list[tuple[str, str]]]:
    """Return what stands above the first marker, and the cell and code of each block."""
    head, *pieces = MARK.split((root / file).read_text(encoding="utf-8"))
    codes = (piece.strip("\n") for piece in pieces[1::2])
    return head, list(zip(pieces[::2], codes, strict=True))


def edited_blocks(root: Path, file: str, blocks: Sequence[Block]) -> dict[str, str]:
    """Return cell -> new code for the blocks that were edited in the module."""
    old = {block.where: block.code for block in blocks}
    return {where: code for where, code in split_module(root, file)[1] if old.get(where) != code}


def carry_faults(root: Path, file: str, blocks: Sequence[Block], force: bool) -> list[str]:
    """Return why a module cannot be carried: its blocks are not the cells, or it is the older."""
    if not is_exported(root / file):
        return [f"{file}: written by hand, it has no markers; `export --force` replaces it"]
    head, pieces = split_module(root, file)
    have, want = [where for where, _ in pieces], [block.where for block in blocks]
    faults = [f"{file}: {where} is no exported cell" for where in have if where not in want]
    faults += [f"{file}: the block of {where} is missing" for where in want if where not in have]
    if len(head.strip().splitlines()) != 1:
        faults.append(f"{file}:1: text above the first marker belongs to no cell")
    if not faults and have != want:
        faults.append(f"{file}: blocks are repeated, or not in the order of their cells")
    edited = {root / where.partition("#")[0] for where in edited_blocks(root, file, blocks)}
    if not faults and not force and edited and not is_newer(root / file, edited):
        faults.append(f"{file}: its notebook is newer: `export`, or `carry --force`")
    return faults


def write_changes(root: Path, notebooks: dict[str, Notebook], changes: dict[str, str]) -> None:
    """Put new code below the directives of its cells; outputs stay, and want a new run."""
    for name in sorted({where.partition("#")[0] for where in changes}):
        for cell in notebooks[name]["cells"]:
            if f"{name}#{cell['id']}" in changes:
                lines = cell["source"].splitlines()[: split_directives(cell["source"])[1]]
                cell["source"] = "\n".join([*lines, changes[f"{name}#{cell['id']}"]])
                print(f"carried {name}#{cell['id']}")
        write_text(root / name, jupyter_text(notebooks[name]))
    print("now: execute" if changes else "nothing to carry")
