# Exported from notebooks/01_system_calls.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/01_system_calls.ipynb#step
"""A system call as data: decided now, printed or compared, made later."""

from __future__ import annotations

from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NamedTuple

    class Step(NamedTuple):
        """One thing to do: what a person would say of it, the function to call, its arguments."""

        name: str
        call: Callable[..., object]
        arguments: tuple[Any, ...]

else:
    # typing costs a third of the interpreter's own start; the runtime's path does without it.
    Step = namedtuple("Step", ("name", "call", "arguments"))


# %% notebooks/01_system_calls.ipynb#apply
class StepFailed(OSError):
    """A step of a plan failed: `step` is its name, `errno` the kernel's answer."""

    def __init__(self, step: str, error: OSError) -> None:
        """Keep the step's name beside the error that the kernel gave."""
        super().__init__(error.errno, f"{step}: {error.strerror or error}")
        self.step = step


def apply(steps: Sequence[Step]) -> None:
    """Make the calls of `steps` in order; the first error ends it.

    Raises StepFailed (an OSError) that carries errno, the step's name and the kernel's words.
    """
    for step in steps:
        try:
            step.call(*step.arguments)
        except OSError as error:
            raise StepFailed(step.name, error) from error
