# Exported from notebooks/09_privileges.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09_privileges.ipynb#capabilities-module
"""Capabilities: root's power in 41 pieces, and how a container keeps fourteen of them or fewer."""

from __future__ import annotations

from mini_docker.linux.process import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    capset,
    prctl,
)
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any


# %% notebooks/09_privileges.ipynb#names
# linux/capability.h: the position in this tuple is the bit
NAMES = tuple(
    "CAP_" + name.upper()
    for name in (
        "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable "
        "net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio "
        "sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time "
        "sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin syslog "
        "wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
    ).split()
)
# Docker's own list; CAP_MKNOD is harmless under the device rules of chapter 8b.
DEFAULT = tuple(
    "CAP_" + name.upper()
    for name in (
        "chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw "
        "sys_chroot mknod audit_write setfcap"
    ).split()
)


def mask(names: Iterable[str]) -> int:
    """Return the bit mask of capability names such as "CAP_KILL". Raises ValueError for others."""
    bits = 0
    for name in names:
        if name not in NAMES:
            raise ValueError(f"process.capabilities: unknown capability '{name}'")
        bits |= 1 << NAMES.index(name)
    return bits


# %% notebooks/09_privileges.ipynb#sets
def _last_capability() -> int:
    """Return the highest bit that this kernel knows, without a file: there may be a limit on open ones."""
    known, unknown = 0, 64
    while unknown - known > 1:
        bit = (known + unknown) // 2
        try:
            prctl(PR_CAPBSET_READ, bit)
            known = bit
        except OSError:
            unknown = bit
    return known


def available() -> list[str]:
    """Return the names of the capabilities that we could give: those of our own bounding set, prctl(2)."""
    last = _last_capability()
    return [n for bit, n in enumerate(NAMES) if bit <= last and prctl(PR_CAPBSET_READ, bit)]


def limit_bounding_set(keep: int) -> None:
    """Drop from the bounding set all that `keep` (a mask) lacks: no exec can give it back, prctl(2)."""
    for bit in range(_last_capability() + 1):
        if not keep >> bit & 1:
            prctl(PR_CAPBSET_DROP, bit)


def set_capabilities(effective: int, permitted: int, inheritable: int, ambient: int) -> None:
    """Set the four sets of the calling thread from masks, capset(2). Raises PermissionError.

    An ambient capability has to be permitted and inheritable; what is not is left out, as runc does, and
    so is what this kernel has never heard of.
    """
    last = _last_capability()
    known = (2 << last) - 1
    capset(effective & known, permitted & known, inheritable & known)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    for bit in range(last + 1):
        if (ambient & permitted & inheritable) >> bit & 1:
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, bit)


# %% notebooks/09_privileges.ipynb#plan-capabilities
def plan_bounding_set(spec: dict[str, Any]) -> list[Step]:
    """Plan what must happen while still root: the bounding set, and keeping capabilities over setuid.

    Obeys process.capabilities.bounding. Source: OCI config.md, capabilities(7).
    """
    sets = spec["process"].get("capabilities")
    if sets is None:
        return []
    return [
        Step("limit the bounding set", limit_bounding_set, (mask(sets.get("bounding", ())),)),
        Step("keep capabilities over setuid", prctl, (PR_SET_KEEPCAPS, 1)),
    ]


def plan_capabilities(spec: dict[str, Any]) -> list[Step]:
    """Plan what happens as the container's user: the other four sets, then no_new_privs.

    Obeys process.capabilities and process.noNewPrivileges. Source: OCI config.md, capabilities(7).
    """
    process, steps = spec["process"], []
    sets = process.get("capabilities")
    if sets is not None:
        masks = tuple(
            mask(sets.get(name, ()))
            for name in ("effective", "permitted", "inheritable", "ambient")
        )
        steps.append(Step("set capabilities", set_capabilities, masks))
    if process.get("noNewPrivileges"):
        steps.append(Step("no new privileges", prctl, (PR_SET_NO_NEW_PRIVS, 1)))
    return steps
