# Exported from notebooks/09_privileges.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09_privileges.ipynb#limits-module
"""Resource limits of a process, and its OOM score: what setrlimit and /proc/self/oom_score_adj hold."""

from __future__ import annotations

import resource

from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/09_privileges.ipynb#plan-limits
def plan_limits(spec: dict[str, Any]) -> list[Step]:
    """Plan process.rlimits and process.oomScoreAdj. Raises ValueError for an unknown limit.

    Source: OCI config.md, setrlimit(2), proc(5).
    """
    process, steps = spec["process"], []
    for index, limit in enumerate(process.get("rlimits", ())):
        which = getattr(resource, limit["type"], None)
        if not limit["type"].startswith("RLIMIT_") or which is None:
            raise ValueError(f"process.rlimits[{index}].type: unknown limit '{limit['type']}'")
        pair = (limit["soft"], limit["hard"])
        steps.append(Step(f"limit {limit['type']}", resource.setrlimit, (which, pair)))
    if "oomScoreAdj" in process:
        steps.append(Step("set OOM score", _write_oom_score, (process["oomScoreAdj"],)))
    return steps


def _write_oom_score(value: int) -> None:
    """Write /proc/self/oom_score_adj, proc(5)."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(str(value))
