# Exported from notebooks/11b_create_and_start.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11b_create_and_start.ipynb#talk-module
"""The conversation of init and its parent: stages, words, and the gate between create and start."""

from __future__ import annotations

import os
import struct
from collections import namedtuple

from mini_docker.linux.process import close_range
from mini_docker.runtime.hooks import run_hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NamedTuple

    class Talk(NamedTuple):
        """Init's ends of the conversation with its parent: reports go out, words come in."""

        report_fd: int
        word_fd: int

else:
    Talk = namedtuple("Talk", ("report_fd", "word_fd"))


# %% notebooks/11b_create_and_start.ipynb#words
#   parent  WORD length state           begin, or go on; `state` is JSON for the hooks that run inside
#   init    PAUSED                      a stage is done, nothing more happens before the next word
#   init    READY or FAILED             the end: see init.py
WORD = b"."
PAUSED = b"P"


def say(word_fd: int, state: bytes = b"") -> None:
    """Give a word to a process that waits for one, with the state that its hooks get."""
    message = WORD + struct.pack("=I", len(state)) + state
    while message:
        message = message[os.write(word_fd, message) :]


def listen(word_fd: int) -> bytes:
    """Wait for a word and return the state in it. Raises EOFError if the speaker is gone."""
    head = _read_exactly(word_fd, 5)
    return _read_exactly(word_fd, struct.unpack("=xI", head)[0])


def _read_exactly(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = os.read(fd, size - len(data))
        if not chunk:
            raise EOFError("the process that made this container is gone")
        data += chunk
    return data


# %% notebooks/11b_create_and_start.ipynb#pause
def pause(
    talk: Talk, hooks: Sequence[dict[str, Any]], gate: Talk | None = None, first_fd: int = 3
) -> Talk:
    """Report that a stage is done, wait for the word, run `hooks`; the one step that init itself takes.

    At a `gate` (two FIFOs, or the ends of two pipes) the conversation goes on there: whoever made the
    container may be gone, and another process says the word and reads the rest of the report. From
    `first_fd` on nothing else stays open: somebody may wait for the end of a pipe that we inherited.
    """
    os.write(talk.report_fd, PAUSED)
    if gate is not None:
        talk = gate
        _close_all_but(sorted(gate), first_fd)
    state = listen(talk.word_fd)
    run_hooks(hooks, state)
    return talk


def _close_all_but(keep: Sequence[int], first: int) -> None:
    """Close every descriptor from `first` on that is not in `keep`, which is sorted, close_range(2)."""
    for fd in keep:
        if first < fd:
            close_range(first, fd - 1)
        first = max(first, fd + 1)
    close_range(first)
