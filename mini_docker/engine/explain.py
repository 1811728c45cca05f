# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#explain
"""What --explain tells: each step of a start, with its module, its manual page and its time."""

from __future__ import annotations

import json
import re
from collections import namedtuple

from mini_docker.engine.store import replace_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple

    from mini_docker.runtime.plan import Planned

    class Done(NamedTuple):
        """One line: where ("outside" or "init"), the module that planned it, its name, man page, time."""

        where: str
        module: str
        step: str
        call: str
        nanoseconds: int

else:
    Done = namedtuple("Done", ("where", "module", "step", "call", "nanoseconds"))

MAN_PAGE = re.compile(r"[a-z_][a-z_0-9]*\([1-8]\)")
SYSTEM_CALLS = frozenset(
    "dup2 setsid chdir mkdir symlink umask setgroups setresuid setresgid".split()
)
STEPS = "steps.json"


def man_page(call: Callable[..., Any]) -> str:
    """Return the manual page of a call: the first that its docstring names, or its own."""
    name = getattr(call, "__name__", "")
    if name in SYSTEM_CALLS:
        return f"{name}(2)"
    found = MAN_PAGE.search(call.__doc__ or "")
    return found.group() if found else name


def write_steps(directory: str, planned: Sequence[Planned], nanoseconds: Sequence[int]) -> None:
    """Write down what init did, with the time of each step: whoever started it knows both."""
    done = zip(planned, nanoseconds, strict=True)
    steps = [(module, step.name, man_page(step.call), spent) for (module, step), spent in done]
    replace_file(f"{directory}/{STEPS}", json.dumps(steps).encode())


def read_steps(directory: str) -> list[Done]:
    """Return what init did."""
    with open(f"{directory}/{STEPS}", "rb") as file:
        steps = json.loads(file.read())
    return [Done("init", *step) for step in steps]
