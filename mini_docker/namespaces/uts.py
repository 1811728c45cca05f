# Exported from notebooks/06_uts.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/06_uts.ipynb#uts-module
"""The UTS namespace: a host name and a domain name of one's own, and the machine one pretends to be."""

from __future__ import annotations

from mini_docker.linux.process import personality, setdomainname, sethostname
from mini_docker.linux.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/06_uts.ipynb#plan-uts
LONGEST_NAME = 64
PERSONALITIES = {"LINUX": 0x0000, "LINUX32": 0x0008}


def plan_uts(spec: dict[str, Any]) -> list[Step]:
    """Plan hostname, domainname and linux.personality of the document.

    Raises ValueError, with the JSON path, for a name of more than 64 bytes or an unknown personality.
    Source: OCI config.md, uts_namespaces(7), personality(2).
    """
    steps = []
    for key, call in (("hostname", sethostname), ("domainname", setdomainname)):
        name = spec.get(key)
        if not name:
            continue
        if len(name.encode()) > LONGEST_NAME:
            raise ValueError(f"{key}: '{name}' is longer than {LONGEST_NAME} bytes")
        steps.append(Step(f"set {key} '{name}'", call, (name.encode(),)))
    domain = spec.get("linux", {}).get("personality", {}).get("domain")
    if domain is None:
        return steps
    if domain not in PERSONALITIES:
        raise ValueError(f"linux.personality.domain: unknown domain {domain!r}")
    return [*steps, Step(f"personality {domain}", personality, (PERSONALITIES[domain],))]
