# Exported from notebooks/07_user_cgroup_time.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/07_user_cgroup_time.ipynb#plan-cgroup-namespace
"""The cgroup namespace: the control group one is in becomes the root of what one sees."""

from __future__ import annotations

from mini_docker.linux.process import CLONE_NEWCGROUP, unshare
from mini_docker.linux.step import Step
from mini_docker.namespaces.kinds import new_namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def plan_cgroup_namespace(spec: dict[str, Any]) -> list[Step]:
    """Plan a new cgroup namespace, to be made after the process has entered its control group.

    The root of the namespace is where the process is at that moment, so this kind cannot be among the
    flags of the clone. Source: cgroup_namespaces(7).
    """
    if not new_namespaces(spec) & CLONE_NEWCGROUP:
        return []
    return [Step("new cgroup namespace", unshare, (CLONE_NEWCGROUP,))]
