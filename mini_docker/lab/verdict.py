# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#verdict-head
"""What a check answers: passed, failed with a diagnosis, or cannot run here; never a silent pass."""

from __future__ import annotations

import functools
import os
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, Literal, NamedTuple, ParamSpec

import mini_docker

P = ParamSpec("P")
MARKS = {"passed": "✔", "failed": "✘", "cannot run": "–"}


# %% notebooks/A_lab_kit.ipynb#cannot-run
class CannotRun(RuntimeError):
    """This machine cannot do it: `reason` says why (without "because"), `remedy` what to do about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        """Join both in the message; the reason alone stays in `reason`."""
        self.reason = reason.removeprefix("because ")
        self.remedy = remedy
        tail = f"\n  remedy: {remedy}" if remedy else ""
        super().__init__(f"cannot run here, because {self.reason}{tail}")


# %% notebooks/A_lab_kit.ipynb#verdict-class
@dataclass(frozen=True, repr=False)
class Verdict:
    """The answer of a check; its repr is one line. Ask for `outcome`: three do not fit into a bool."""

    outcome: Literal["passed", "failed", "cannot run"]
    words: str

    def __repr__(self) -> str:
        """Return the mark and the words: `✔ ...`, `✘ ...` or `– cannot run here, because ...`."""
        return f"{MARKS[self.outcome]} {self.words}"

    def __bool__(self) -> bool:
        """Raise TypeError: `if verdict` would take "failed" for "nothing to say", or a refusal for a pass."""
        raise TypeError("a verdict is passed, failed or cannot run: compare verdict.outcome")


def passed(words: str) -> Verdict:
    """Return the verdict "it is right", with what was seen in `words`."""
    return Verdict("passed", words)


def failed(words: str) -> Verdict:
    """Return the verdict "it is wrong": `words` say what is wrong, never how to mend it."""
    return Verdict("failed", words)


def cannot_run(words: str) -> Verdict:
    """Return the verdict "this machine cannot tell": `words` are the reason, with or without "because"."""
    return Verdict("cannot run", f"cannot run here, because {words.removeprefix('because ')}")


# %% notebooks/A_lab_kit.ipynb#check-decorator
def check(function: Callable[P, Verdict]) -> Callable[P, Verdict]:
    """Make `function` a check: what the learner's answer raises becomes a verdict, not a traceback.

    What the check itself raises is a failure too: it got something of another kind than it asked for.
    """

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> Verdict:
        try:
            return function(*args, **kwargs)
        except CannotRun as error:
            return cannot_run(error.reason)
        except Exception as error:
            code = getattr(function, "__code__", None)
            if origin(error) is code:
                return failed(f"the check can do nothing with your answer: {describe(error)}")
            path = code.co_filename if code else ""
            return failed(f"your function raised {describe(error)}{asked(error, path)}")

    return checked


def origin(error: BaseException) -> CodeType | None:
    """Return the code of the innermost function that an exception came from."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return trace.tb_frame.f_code if trace else None


def asked(error: BaseException, check_path: str) -> str:
    """Return what the learner's function was asked when it raised: " (text='/data')", or "".

    Its frame is the outermost one that is not of the check's file, this package or Python's library.
    """
    ours = tuple(os.path.dirname(module.__file__ or "") for module in (mini_docker, os))
    trace = error.__traceback__
    while trace:
        code, held = trace.tb_frame.f_code, trace.tb_frame.f_locals
        if code.co_filename != check_path and not code.co_filename.startswith(ours):
            names = [name for name in code.co_varnames[: code.co_argcount] if name in held]
            text = ", ".join(f"{name}={reprlib.repr(held[name])}" for name in names)
            return f" ({text})" if text else ""
        trace = trace.tb_next
    return ""


def describe(error: BaseException) -> str:
    """Return an exception as one line: its class, and its message if it has one."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class Exercise(NamedTuple):
    """An exercise with all that proves its check: see tests/test_exercises.py.

    `blank` and every answer in `wrong` must fail (the latter with the given words in the diagnosis),
    `solution` must pass.
    """

    name: str
    check: Callable[[Any], Verdict]
    blank: Any
    solution: Any
    wrong: Sequence[tuple[Any, str]]
