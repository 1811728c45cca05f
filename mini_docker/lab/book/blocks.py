# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#blocks-module
"""The exported cells of notebooks: the blocks of modules, and what is wrong with them."""

from __future__ import annotations

import ast
import functools
import keyword
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mini_docker.lab.book.notebook import Notebook

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
