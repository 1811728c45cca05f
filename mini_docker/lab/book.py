# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#imports
"""The book's tools: notebooks are the source, and this keeps everything else in step with them.

    python -m mini_docker.lab.book export [--check] [NB ...]      exported cells  ->  modules
    python -m mini_docker.lab.book carry [MODULE ...]             edited modules  ->  their cells
    python -m mini_docker.lab.book text NB ... | untext NB ...    notebook  <->  py:percent text
    python -m mini_docker.lab.book execute [--check] NB ...       run it, store normalised outputs
    python -m mini_docker.lab.book check [NB ...]                 normal form, without running
    python -m mini_docker.lab.book types [NB ...]                 mypy over the cells

Notebooks are named by path, file name or stem. Status 0: done; 1: faults, one a line; 2: usage.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import difflib
import functools
import importlib
import json
import keyword
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

# %% notebooks/B_book_tools.ipynb#types
PACKAGE = "mini_docker"

Notebook = dict[str, Any]
Cell = dict[str, Any]


class BookError(Exception):
    """What is wrong and where, one fault a line: `notebooks/06_uts.ipynb#set-name:3: ...`."""


def library(name: str) -> Any:
    """Import a library when it is first needed, so that `export` starts without any of them."""
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


# %% notebooks/B_book_tools.ipynb#blocks
DIRECTIVE = re.compile(r"#\|[ \t]*(\S+)[ \t]*(.*?)[ \t]*$")


class Block(NamedTuple):
    """The code of an exported cell."""

    where: str
    """Its cell: `notebooks/06_uts.ipynb#set-name`."""
    module: str
    """Where it goes, inside the package: `linux.calls`."""
    line: int
    """The line of the cell on which the code begins, counted from 1."""
    code: str

    @property
    def notebook(self) -> str:
        """The notebook it is written in: `notebooks/06_uts.ipynb`."""
        return self.where.partition("#")[0]


def split_directives(source: str) -> tuple[dict[str, str], int]:
    """Return the directives that open a cell, and the number of lines they take."""
    found: dict[str, str] = {}
    for line in source.splitlines():
        if not (directive := DIRECTIVE.match(line)):
            break
        found[directive[1]] = directive[2]
    return found, len(found)


def read_blocks(name: str, notebook: Notebook) -> Iterator[Block]:
    """Yield the exported cells of a notebook that have a module to go to."""
    default = ""
    for cell in notebook["cells"]:
        directives, lines = split_directives(cell["source"])
        if cell["cell_type"] == "code" and directives:
            default = directives.get("default_exp", default)
            module = directives.get("export", "-") or default
            if is_module_name(module):
                code = "\n".join(cell["source"].splitlines()[lines:])
                blank = len(code) - len(code.lstrip("\n"))
                yield Block(f"{name}#{cell.get('id')}", module, lines + blank + 1, code.strip("\n"))


def is_module_name(name: str) -> bool:
    """Tell whether a name can be a module's: `linux.calls`, `lab.__init__`."""
    return all(
        re.fullmatch(r"[a-z_][a-z0-9_]*", part) and not keyword.iskeyword(part)
        for part in name.split(".")
    )


# %% notebooks/B_book_tools.ipynb#cell-faults
def cell_faults(name: str, notebook: Notebook) -> Iterator[str]:
    """Yield what is wrong with a notebook's ids and directives."""
    default, seen = "", {""}
    for number, cell in enumerate(notebook["cells"], 1):
        cell_id = cell.get("id", "")
        where = f"{name}#{cell_id or f'(cell {number})'}"
        if cell_id in seen:
            yield f"{where}:1: {'two cells have this id' if cell_id else 'the cell has no id'}"
        seen.add(cell_id)
        if cell["cell_type"] == "code":
            yield from directive_faults(where, cell["source"], default)
            default = split_directives(cell["source"])[0].get("default_exp", default)


def directive_faults(where: str, source: str, default: str) -> Iterator[str]:
    """Yield what is wrong with a cell's directives: unknown, misplaced, naming no module."""
    directives, lines = split_directives(source)
    for name, value in directives.items():
        if name not in ("default_exp", "export"):
            yield f"{where}:1: unknown directive '#| {name}'"
        elif name == "export" and not value and not default and "default_exp" not in directives:
            yield f"{where}:1: '#| export' before any '#| default_exp MODULE'"
        elif (value or name == "default_exp") and not is_module_name(value):
            yield f"{where}:1: not a module's name: {value!r}"
    for number, line in enumerate(source.splitlines()[lines:], lines + 1):
        if DIRECTIVE.match(line):
            yield f"{where}:{number}: directives stand on the first lines of a cell"


# %% notebooks/B_book_tools.ipynb#code-faults
parse = functools.cache(ast.parse)


def code_faults(blocks: Sequence[Block]) -> Iterator[str]:
    """Yield what is wrong with a module: not Python, a late `__future__`, a name defined twice."""
    first: dict[str, str] = {}
    for block in blocks:
        try:
            tree = parse(block.code)
        except SyntaxError as error:
            yield syntax_fault(block, error)
            continue
        for node in tree.body:
            at = f"{block.where}:{block.line - 1 + node.lineno}"
            late = block != blocks[0] and isinstance(node, ast.ImportFrom)
            if late and ast.unparse(node).startswith("from __future__"):
                yield f"{at}: from __future__ belongs to the first cell of the module"
            for name in defined_names(node):
                if name in first:
                    yield f"{at}: {name} is defined twice in the module, first in {first[name]}"
                first.setdefault(name, at)


def syntax_fault(block: Block, error: SyntaxError) -> str:
    """Return the message for a cell that is not Python; magics are the usual reason."""
    number = error.lineno or 1
    line = [*block.code.splitlines(), ""][number - 1]
    magic = re.match(r"\s*(?:\w+\s*=\s*)?[%!]", line)
    said = "a magic or '!' command cannot be exported" if magic else error.msg
    return f"{block.where}:{block.line - 1 + number}: {said}"


def defined_names(node: ast.stmt) -> list[str]:
    """Return the names a top-level statement defines; imports and overloads may be repeated."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        overload = any(ast.unparse(d).endswith("overload") for d in node.decorator_list)
        return [] if overload else [node.name]
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [name.id for t in targets for name in ast.walk(t) if isinstance(name, ast.Name)]


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


# %% notebooks/B_book_tools.ipynb#percent
PERCENT = {
    "extension": ".py",
    "format_name": "percent",
    "comment_magics": False,
    "cell_metadata_filter": "id,tags,-all",
    "notebook_metadata_filter": "-all",
}
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


def tags_of(cell: Cell) -> list[str]:
    """Return a cell's tags."""
    tags: list[str] = cell["metadata"].get("tags", [])
    return tags


def with_jupyter_tags(tags: Sequence[str]) -> list[str]:
    """Return the tags; `expected-failure` brings the tag by which nbclient and nbval allow it."""
    allow = "expected-failure" in tags and "raises-exception" not in tags
    return [*tags, "raises-exception"] if allow else list(tags)


# %% notebooks/B_book_tools.ipynb#kernel
def kernel_environment(root: Path, scratch: str) -> dict[str, str]:
    """Return the environment of a notebook's kernel: this checkout, an empty lab, a plain locale.

    With PYTEST_CURRENT_TEST set, ipykernel would not capture file descriptors 1 and 2.
    """
    dropped = ("PYTEST_CURRENT_TEST", "PYTHONHASHSEED", "PYTHONSTARTUP", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), kept.get("PYTHONPATH")])),
        "MINI_DOCKER_LAB_DIR": f"{scratch}/lab",
        "IPYTHONDIR": f"{scratch}/ipython",
        "LC_ALL": "C.UTF-8",
    }


def kernel_client(root: Path, notebook: Any, scratch: str) -> Any:
    """Return nbclient's client for a kernel of *this* interpreter, whatever kernels are installed.

    Its sockets are files in the private folder `scratch`: TCP ports would be open to every user.
    """
    specs, manager = library("jupyter_client.kernelspec"), library("jupyter_client.manager")
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernels = specs.KernelSpecManager()
    kernels.get_kernel_spec = lambda name: specs.KernelSpec(argv=argv, display_name=name)
    client = library("nbclient").NotebookClient(
        notebook,
        km=manager.AsyncKernelManager(
            kernel_spec_manager=kernels, transport="ipc", ip=f"{scratch}/kernel"
        ),
        resources={"metadata": {"path": str(root / "notebooks")}},
        timeout=120,
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
    )
    client.owns_km = True  # so that nbclient ends the kernel we gave it
    return client


# %% notebooks/B_book_tools.ipynb#run-cells
def run_cells(root: Path, notebook: Any, only: str = "") -> str:
    """Run the code cells, or those with the tag `only`; return `ID:LINE: error` of a failure, or ""."""
    errors = library("nbclient.exceptions")
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        client = kernel_client(root, notebook, scratch)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        stack.enter_context(client.setup_kernel(env=kernel_environment(root, scratch), **quiet))
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code" or (only and only not in tags_of(cell)):
                continue
            try:
                client.execute_cell(cell, index)
            except errors.CellExecutionError as error:
                return f"{cell.id}:{describe_error(cell, error)}"
            except (errors.CellTimeoutError, errors.DeadKernelError) as error:
                return f"{cell.id}:1: {str(error).splitlines()[0]}"
    return ""


def describe_error(cell: Any, error: Any) -> str:
    """Return `LINE: Error: words` and that line, for the cell's own line in the traceback."""
    shown = "\n".join(line for o in cell.outputs for line in o.get("traceback", []))
    lines = re.findall(r"Cell In\[\d+\], line (\d+)", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    number = int(lines[0]) if lines else 1
    line = cell.source.splitlines()[number - 1].strip()
    return f"{number}: {error.ename}: {error.evalue}\n    {line}"


# %% notebooks/B_book_tools.ipynb#normalise
WIDGET = "application/vnd.jupyter.widget-view+json"


def normalise(notebook: Notebook) -> None:
    """Leave only what is the same in every run: counts 1..n, stable widget ids, no timing."""
    notebook.update(metadata=METADATA, nbformat=4, nbformat_minor=5)
    models: dict[str, str] = {}
    count = 0
    for cell in notebook["cells"]:
        tags = with_jupyter_tags(tags_of(cell))
        cell["metadata"] = {"tags": tags} if tags else {}
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            for output in cell["outputs"]:
                normalise_output(output, count, models)


def normalise_output(output: Any, count: int, models: dict[str, str]) -> None:
    """Replace what differs between two runs; `models` maps widget ids to stable ones."""
    data = output.get("data", {})
    if "execution_count" in output:
        output["execution_count"] = count
    if output["output_type"] == "error":
        output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
    if "text/plain" in data:
        data["text/plain"] = re.sub(r"\bat 0x[0-9a-f]+", "at 0x0", data["text/plain"])
    if WIDGET in data:
        model = data[WIDGET]["model_id"]
        data[WIDGET]["model_id"] = models.setdefault(model, f"{len(models) + 1:032x}")


# %% notebooks/B_book_tools.ipynb#execute
def executed_text(root: Path, path: Path, only: str = "") -> str:
    """Return the notebook's text after a run; raises BookError naming a cell that failed."""
    notebook = library("nbformat").read(path, as_version=4)
    normalise(notebook)
    failure = run_cells(root, notebook, only)
    if failure:
        raise BookError(f"{place(path)}#{failure}")
    normalise(notebook)
    return f"{library('nbformat').writes(notebook)}\n"


def execute(root: Path, path: Path, check: bool = False, quick: bool = False) -> int:
    """Run a notebook and store it; with `check` compare only, with `quick` run only quick cells."""
    started = time.monotonic()
    text = executed_text(root, path, "quick" if quick else "")
    difference = first_difference(path, path.read_text(encoding="utf-8"), text) if check else ""
    if quick:
        verdict = "quick cells run alone"
    elif check:
        verdict = difference or "same"
    else:
        verdict = "written" if write_text(path, text) else "unchanged"
    print(f"{place(path)} {time.monotonic() - started:6.1f} s  {verdict}", flush=True)
    return int(bool(difference))


def first_difference(path: Path, stored: str, executed: str) -> str:
    """Return the first cell that differs, with a diff, or "" when the texts are the same."""
    if stored == executed:
        return ""
    for old, new in zip(json.loads(stored)["cells"], json.loads(executed)["cells"], strict=True):
        if old != new:
            before, after = (
                json.dumps(cell, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
                for cell in (old, new)
            )
            diff = difflib.unified_diff(before, after, "stored", "executed", lineterm="", n=1)
            return f"{place(path)}#{new['id']} differs\n" + "\n".join(diff)
    return f"{place(path)}: its metadata or layout is not in normal form"


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


# %% notebooks/B_book_tools.ipynb#mypy
def types(root: Path, paths: Sequence[Path]) -> int:
    """Run `mypy --strict` over the cells of notebooks, in one process; errors name cell and line."""
    places: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            module = Path(folder, f"nb_{path.stem}.py")
            text, places[module.name] = plain_module(path)
            module.write_text(text, encoding="utf-8")
        said = run_mypy(root, [f"{folder}/{name}" for name in places])
    for line in said:
        name, number, words = [*line.split(":", 2), "", ""][:3]
        known = places.get(os.path.basename(name))
        print(f"{known[int(number) - 1]}:{words}" if known else line)
    if not said:
        print(f"notebooks well typed: {len(paths)}")
    return int(bool(said))


def plain_module(path: Path) -> tuple[str, list[str]]:
    """Return a notebook as one module, and for each of its lines the `notebook#cell:line`."""
    lines = ["from __future__ import annotations", "def display(*objects: object) -> None: ..."]
    places = [place(path)] * len(lines)
    notebook = read_notebook(path)
    own = {f"{PACKAGE}.{block.module}" for block in read_blocks(path.name, notebook)}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            plain = plain_lines(cell["source"], own)
            lines += plain
            places += [f"{place(path)}#{cell['id']}:{number + 1}" for number in range(len(plain))]
    return "\n".join(lines) + "\n", places


def plain_lines(source: str, own: set[str]) -> list[str]:
    """Return the lines of a cell without magics, and without imports of what its notebook defines.

    `own` are the modules that the notebook exports: to mypy their names would be two different things.
    """
    magic = ".*" if source.startswith("%%") else r"\s*[%!]|from __future__"
    lines = [passed(line) if re.match(magic, line) else line for line in source.splitlines()]
    try:
        tree = ast.parse("\n".join(lines))
    except SyntaxError:
        return lines  # mypy says it better
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in own:
            for number in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[number] = passed(lines[node.lineno - 1])
    return lines


def passed(line: str) -> str:
    """Return `pass`, as deep as `line`."""
    return line[: len(line) - len(line.lstrip())] + "pass"


def run_mypy(root: Path, files: Sequence[str]) -> list[str]:
    """Return what mypy says; a name may be both defined in a notebook and imported there."""
    settings = root / "pyproject.toml"
    options = ["--strict", "--disable-error-code=no-redef", "--follow-imports=silent"]
    options += ["--no-error-summary", "--no-pretty", "--no-color-output", "--hide-error-context"]
    options += ["--config-file", str(settings) if settings.exists() else ""]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *files],
        cwd=root,
        env=os.environ | {"MYPYPATH": f"{root}{os.pathsep}{root / 'notebooks'}"},
        capture_output=True,
        text=True,
    )
    return (done.stdout + done.stderr).splitlines()


# %% notebooks/B_book_tools.ipynb#main
COMMANDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "export": ("cells marked '#| export' -> mini_docker/**.py", "*", ("check", "force")),
    "carry": ("edited modules -> the cells they came from", "*", ("force",)),
    "text": ("notebook -> notebooks/NAME.py, to edit as text", "+", ("force",)),
    "untext": ("notebooks/NAME.py -> notebook", "+", ("force",)),
    "execute": ("run top to bottom, store normalised outputs", "+", ("check", "quick")),
    "check": ("normal form, without running", "*", ()),
    "types": ("mypy --strict over the cells", "*", ()),
}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return command, names and flags; argparse ends the program with status 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="mini_docker.lab.book")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, (words, count, flags) in COMMANDS.items():
        sub = commands.add_parser(command, help=words, description=words)
        sub.add_argument("names", nargs=count, metavar="NAME")
        for flag in flags:
            sub.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args(argv)


def run(root: Path, given: argparse.Namespace) -> int:
    """Run one command and return its exit status."""
    names: list[str] = given.names
    match given.command:
        case "export" if given.check:
            return check_export(root, names)
        case "export":
            return export(root, names, given.force)
        case "carry":
            return carry(root, names, given.force)
        case "untext":
            return max(read_percent(path, given.force) for path in find_texts(root, names))
        case "text":
            return max(write_percent(path, given.force) for path in find_notebooks(root, names))
        case "execute":
            return execute_all(root, names, given.check, given.quick)
        case "types":
            return types(root, find_notebooks(root, names))
    return check_all(root, find_notebooks(root, names))


def find_texts(root: Path, names: Sequence[str]) -> list[Path]:
    """Return the py:percent files named by path, file name or stem."""
    paths = [root / "notebooks" / f"{Path(name).stem}.py" for name in names]
    if missing := [place(path) for path in paths if not path.exists()]:
        raise BookError(f"no such file: {', '.join(missing)}")
    return paths


def check_all(root: Path, paths: Sequence[Path]) -> int:
    """Print the faults in the form of notebooks; return 1 when there are any."""
    faults = [fault for path in paths for fault in check(root, path)]
    print("\n".join(faults) or f"notebooks in normal form: {len(paths)}")
    return int(bool(faults))


def execute_all(root: Path, names: Sequence[str], check: bool, quick: bool) -> int:
    """Execute notebook after notebook; one that fails does not stop the others."""
    status = 0
    for path in find_notebooks(root, names):
        try:
            status = max(status, execute(root, path, check, quick))
        except BookError as error:
            print(error, file=sys.stderr)
            status = 1
    return status


def main(argv: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Run the command line on the book at `root`, or else the one around the current folder."""
    given = parse_arguments(argv)
    try:
        return run(root or find_root(Path.cwd()), given)
    except BookError as error:
        print(error, file=sys.stderr)
    except ImportError as error:
        print(f"{error.name} is missing: pip install -e .[lab,test]", file=sys.stderr)
    return 1


# A notebook's kernel is "__main__" too, but has no __file__.
if __name__ == "__main__" and "__file__" in globals():
    sys.exit(main())
