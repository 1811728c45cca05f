# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#types-module
"""`mypy --strict` over the cells of notebooks: what `types` does."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mini_docker.lab.book.blocks import read_blocks
from mini_docker.lab.book.notebook import PACKAGE, place, read_notebook


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
