# Exported from notebooks/09_privileges.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09_privileges.ipynb#limits-module
"""Resource limits of a process, and its OOM score: what setrlimit and /proc/self/oom_score_adj hold."""

from __future__ import annotations

import os

from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/09_privileges.ipynb#plan-limits
INFINITE = 2**64 - 1  # in the document; Python says -1


def plan_limits(spec: dict[str, Any]) -> list[Step]:
    """Plan process.rlimits.

    The largest number means no limit. Raises ValueError, with the JSON path, for an unknown limit, one
    given twice, or a soft one above the hard one. Source: OCI config.md, setrlimit(2).
    """
    limits, steps, seen = spec["process"].get("rlimits"), [], set()
    if not limits:
        return []
    import resource  # a shared library of its own, which most starts do without

    for index, limit in enumerate(limits):
        where, name = f"process.rlimits[{index}]", limit["type"]
        if not name.startswith("RLIMIT_") or not hasattr(resource, name):
            raise ValueError(f"{where}.type: unknown limit '{name}'")
        if name in seen:
            raise ValueError(f"{where}.type: '{name}' stands there twice")
        if limit["soft"] > limit["hard"]:
            raise ValueError(
                f"{where}.soft: {limit['soft']} is above the hard limit {limit['hard']}"
            )
        seen.add(name)
        pair = tuple(
            resource.RLIM_INFINITY if v == INFINITE else v for v in (limit["soft"], limit["hard"])
        )
        steps.append(Step(f"limit {name}", resource.setrlimit, (getattr(resource, name), pair)))
    return steps


def plan_oom_score(spec: dict[str, Any]) -> list[Step]:
    """Plan process.oomScoreAdj, to be written before a user namespace takes the right to. Source: proc(5)."""
    if "oomScoreAdj" not in spec["process"]:
        return []
    return [Step("set OOM score", _write_oom_score, (spec["process"]["oomScoreAdj"],))]


def _write_oom_score(value: int) -> None:
    """Write /proc/self/oom_score_adj, proc(5)."""
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"%d" % value)
    finally:
        os.close(fd)
