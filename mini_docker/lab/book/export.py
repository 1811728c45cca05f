# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#export-module
"""From exported cells to modules: what `export` does."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from mini_docker.lab.book.blocks import Block, cell_faults, code_faults, parse, read_blocks
from mini_docker.lab.book.notebook import (
    PACKAGE,
    BookError,
    find_notebooks,
    is_newer,
    place,
    read_notebook,
    write_text,
)

# %% notebooks/B_book_tools.ipynb#render
EXPORTED_BY = "by mini_docker.lab.book"


def lay_out(blocks: Iterable[Block]) -> dict[str, list[Block]]:
    """Return the blocks of each file; a module with submodules is the `__init__.py` of a folder."""
    blocks = list(blocks)
    parts = [block.module.split(".") for block in blocks]
    folders = {".".join(names[:depth]) for names in parts for depth in range(1, len(names))}
    files: dict[str, list[Block]] = {}
    for block in blocks:
        name = f"{block.module}.__init__" if block.module in folders else block.module
        files.setdefault(f"{PACKAGE}/{name.replace('.', '/')}.py", []).append(block)
    return files


def render(blocks: Sequence[Block]) -> str:
    """Return a module's text: a header, then each block under a marker that names its cell."""
    notebooks = list(dict.fromkeys(block.notebook for block in blocks))
    more = f" and {len(notebooks) - 1} more" if len(notebooks) > 1 else ""
    text = f"# Exported from {notebooks[0]}{more} {EXPORTED_BY}: edit there, not here.\n\n"
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        text += f"# %% {block.where}\n{block.code}\n"
        if following:
            text += "\n" if ends_imports(block.code, following.code) else "\n\n"
    return text


def ends_imports(code: str, following: str) -> bool:
    """Tell whether isort wants one blank line, not two: imports, then neither def nor class."""
    last, first = parse(code).body[-1:], parse(following).body[:1]
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    imports = [node for node in last if isinstance(node, (ast.Import, ast.ImportFrom))]
    return bool(imports and first) and not isinstance(first[0], definitions)


# %% notebooks/B_book_tools.ipynb#plan
def plan_export(root: Path, names: Sequence[str] = ()) -> dict[str, str]:
    """Return every exported file and its text, or only those to which the named notebooks add.

    Raises BookError with every fault of the notebooks concerned.
    """
    notebooks = {place(path): read_notebook(path) for path in find_notebooks(root)}
    chosen = {place(path) for path in find_notebooks(root, names)}
    every = lay_out(b for name, notebook in notebooks.items() for b in read_blocks(name, notebook))
    files = {file: bs for file, bs in every.items() if chosen & {b.notebook for b in bs}}
    concerned = chosen | {block.notebook for blocks in files.values() for block in blocks}
    faults = [f for name in sorted(concerned) for f in cell_faults(name, notebooks[name])]
    faults += [fault for blocks in files.values() for fault in code_faults(blocks)]
    if faults:
        raise BookError("\n".join(faults))
    inits = {f: text for f, text in plain_inits(root, files).items() if f not in every}
    return {file: render(blocks) for file, blocks in files.items()} | inits


def plain_inits(root: Path, files: Iterable[str]) -> dict[str, str]:
    """Return a plain `__init__.py` for each folder, unless one was written by hand."""
    folders = {folder for file in files for folder in Path(file).parents if folder.name}
    inits = {f"{folder.as_posix()}/__init__.py": ".".join(folder.parts) for folder in folders}
    return {
        file: f'# Exported {EXPORTED_BY}.\n\n"""The modules of {name}."""\n'
        for file, name in sorted(inits.items())
        if not (root / file).exists() or is_exported(root / file)
    }


def is_exported(path: Path) -> bool:
    """Tell whether a file carries the export header; one that does not was written by hand."""
    with path.open(encoding="utf-8") as file:
        line = file.readline()
    return line.startswith("# Exported ") and EXPORTED_BY in line


# %% notebooks/B_book_tools.ipynb#export
MARK = re.compile(r"^# %% (notebooks/\S+\.ipynb#\S+)\n", re.MULTILINE)


def export(root: Path, names: Sequence[str] = (), force: bool = False) -> int:
    """Write the modules; one that was edited after its notebooks is kept, and the status is 1."""
    texts = plan_export(root, names)
    stale, gone = find_stale(root, texts), find_leftovers(root, texts, names)
    kept = [f for f in stale if not force and is_newer(root / f, origins(root, texts[f]))]
    for file in stale:
        if file in kept:
            print(f"kept {file}: edited after its notebook; `carry {file}`, or `export --force`")
        elif write_text(root / file, texts[file]):
            print(f"wrote {file}")
    for file in gone:
        remove_module(root / file)
        print(f"removed {file}")
    if not stale and not gone:
        print(f"modules up to date: {len(texts)}")
    return int(bool(kept))


def check_export(root: Path, names: Sequence[str] = ()) -> int:
    """Write nothing; list the stale files and return 1 when there are any."""
    texts = plan_export(root, names)
    stale = [*find_stale(root, texts), *find_leftovers(root, texts, names)]
    print("\n".join(f"stale: {file}" for file in stale) or f"modules up to date: {len(texts)}")
    return int(bool(stale))


def find_stale(root: Path, texts: dict[str, str]) -> list[str]:
    """Return the files that do not say what they should."""
    on_disk = {file: (root / file).read_text("utf-8") for file in texts if (root / file).exists()}
    return [file for file in texts if on_disk.get(file) != texts[file]]


def find_leftovers(root: Path, texts: dict[str, str], names: Sequence[str]) -> list[str]:
    """Return the exported files no notebook produces any more; only a full export can know them."""
    found = {path.relative_to(root).as_posix() for path in (root / PACKAGE).rglob("*.py")}
    return sorted(f for f in found - set(texts) if not names and is_exported(root / f))


def remove_module(path: Path) -> None:
    """Remove a module, and its folder when nothing but compiled files would stay in it."""
    path.unlink()
    if not [entry for entry in path.parent.iterdir() if entry.name != "__pycache__"]:
        shutil.rmtree(path.parent)


def origins(root: Path, text: str) -> set[Path]:
    """Return the notebooks that a module's markers name."""
    return {root / where.partition("#")[0] for where in MARK.findall(text)}
