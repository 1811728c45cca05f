# Exported from notebooks/11e_mini_runc.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11e_mini_runc.ipynb#pack-module
"""All modules of a command in one file: what Python looks up for each of them, it looks up once."""

from __future__ import annotations

import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, ModuleType
    from typing import Any

    # of one module: its file, that file's time and size, whether it is a package, its code
    Entry = tuple[str, int, int, bool, CodeType]


# %% notebooks/11e_mini_runc.ipynb#pack
class Packed:
    """Imports within a `with` statement come from a pack, if every file is as it was packed.

    Otherwise they are ordinary imports, and make a new pack, where we may write.
    """

    def __init__(self, directory: str, name: str) -> None:
        """Name the pack, in a `__pycache__`: it is trusted as the .pyc files are, and this Python's alone."""
        self.path = f"{directory}/{name}.{sys.implementation.cache_tag}.pack"
        self.entries: dict[str, Entry] = {}

    def __enter__(self) -> None:
        """Read the pack, and be the first to be asked for modules."""
        self.before = set(sys.modules)
        try:
            with open(self.path, "rb") as file:
                made_as, self.entries = marshal.loads(file.read())
            self.fresh = made_as == self.path and all(
                _is_as(*entry[:3]) for entry in self.entries.values()
            )
        except (OSError, EOFError, ValueError, TypeError, AttributeError):
            self.fresh = False
        if self.fresh:
            sys.meta_path.insert(0, self)

    def __exit__(self, failed: object, *_: object) -> None:
        """Step back; make a new pack, if there was none and all went well."""
        if self.fresh:
            sys.meta_path.remove(self)
        elif failed is None:
            self._write()

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        """Return where a module comes from, None for one that is not ours to give: a finder's part."""
        if name not in self.entries:
            return None
        spec: Any = type(__spec__)(name, None, origin=self.entries[name][0])
        spec.loader = self
        if self.entries[name][3]:
            spec.submodule_search_locations = [os.path.dirname(self.entries[name][0])]
        return spec

    def create_module(self, spec: object) -> None:
        """Leave it to Python to make the module: a loader's part."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        module.__file__ = self.entries[module.__name__][0]
        exec(self.entries[module.__name__][4], module.__dict__)

    def _write(self) -> None:
        """Write it under another name first: two commands may do it at once, and one may be killed."""
        temporary = f"{self.path}.{os.getpid()}"
        try:
            with open(temporary, "wb") as file:
                # with its own path: in a copy of the checkout it would lead to the first one's modules
                marshal.dump((self.path, dict(_loaded(self.before))), file)
            os.rename(temporary, self.path)
        except OSError:
            return  # a folder that is not ours: no pack, and nothing lost but time


def _is_as(path: str, time: int, size: int) -> bool:
    status = os.stat(path)
    return status.st_mtime_ns == time and status.st_size == size


def _loaded(before: set[str]) -> Iterator[tuple[str, Entry]]:
    """Yield what is to be packed: the modules that came from files of Python's, but for those `before`."""
    for name in sys.modules.keys() - before:
        spec = sys.modules[name].__spec__
        if spec is None or not spec.has_location or not str(spec.origin).endswith(".py"):
            continue
        code = spec.loader.get_code(name)  # type: ignore[union-attr]
        status = os.stat(spec.origin)  # type: ignore[arg-type]
        package = spec.submodule_search_locations is not None
        yield name, (spec.origin, status.st_mtime_ns, status.st_size, package, code)  # type: ignore[misc]
