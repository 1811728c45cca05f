# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#main-module
"""The command line of the book's tools: `python -m mini_docker.lab.book`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mini_docker.lab.book.carry import carry
from mini_docker.lab.book.check import check
from mini_docker.lab.book.execute import execute
from mini_docker.lab.book.export import check_export, export
from mini_docker.lab.book.notebook import BookError, find_notebooks, find_root, place
from mini_docker.lab.book.text import read_percent, write_percent
from mini_docker.lab.book.types import types

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
