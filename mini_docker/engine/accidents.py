# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#accidents
"""Errors that nobody expected: one sentence for the user, and for the log one line that finds the place."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading

SENTENCE = "an unexpected error of mini_docker itself; its log says where"
LONGEST_LINE = 1000
CALLERS = 6


def log(words: str) -> None:
    """Write one line to standard error; nothing in it can write over others, or colour a terminal."""
    line = "".join(char if char.isprintable() else " " for char in words[:LONGEST_LINE])
    print(line, file=sys.stderr, flush=True)


def is_accident(error: BaseException) -> bool:
    """Say whether an error is none of those that we raise, with words for the user, or the kernel's."""
    kind = type(error)
    ours = kind.__module__.partition(".")[0] == "mini_docker"
    return not (ours or kind is ValueError or isinstance(error, OSError))


def sentence(error: BaseException) -> str:
    """Return what a user is told of an error: its words without the number that Python writes before them."""
    if is_accident(error):
        return SENTENCE
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def told(error: BaseException) -> str:
    """Return an error for the log; of an accident, or what came of one, also where it happened."""
    import traceback

    cause = error
    while cause.__cause__:
        cause = cause.__cause__
    if not is_accident(cause):
        return f"{type(error).__name__}: {error}"
    frames = traceback.extract_tb(cause.__traceback__)[: -CALLERS - 1 : -1]
    way = [f"{os.path.basename(one.filename)}:{one.lineno} {one.name}" for one in frames]
    return f"{type(cause).__name__}: {cause} in {' < '.join(way)}"


def log_thread(arguments: threading.ExceptHookArgs) -> None:
    """Log what has ended a thread, as `threading.excepthook`."""
    if arguments.exc_value is not None:
        name = arguments.thread.name if arguments.thread else "a thread"
        log(f"{name}: {told(arguments.exc_value)}")
