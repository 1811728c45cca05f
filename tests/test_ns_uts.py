"""Chapter 6: names and the personality, planned, refused, and asked of the kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.process import CLONE_NEWUTS, personality, unshare
from mini_docker.linux.step import apply
from mini_docker.namespaces.uts import plan_uts

NOTHING: list[dict[str, Any]] = [
    {},
    {"linux": {}},
    {"hostname": "", "domainname": ""},
    {"linux": {"personality": {}}},
]


@pytest.mark.parametrize("spec", NOTHING)
def test_what_is_not_asked_for_is_not_planned(spec: dict[str, Any]) -> None:
    assert plan_uts(spec) == []


def named(spec: dict[str, Any]) -> tuple[str, str, int]:
    unshare(CLONE_NEWUTS)
    apply(plan_uts(spec))
    domain = Path("/proc/sys/kernel/domainname").read_text().strip()
    return os.uname().nodename, domain, personality(0xFFFFFFFF)


@pytest.mark.root
@pytest.mark.parametrize("name", ["web", "a" * 64, "bücher"])
def test_the_kernel_has_the_names(name: str) -> None:
    spec = {
        "hostname": name,
        "domainname": "example.org",
        "linux": {"personality": {"domain": "LINUX32"}},
    }
    before = os.uname().nodename
    assert run_in_child(named, spec).value == (name, "example.org", 0x0008)
    assert os.uname().nodename == before


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"hostname": "x" * 65}, r"^hostname: 'x+' is longer than 64 bytes"),
        ({"domainname": "ä" * 33}, "^domainname: .*longer than 64 bytes"),
        ({"linux": {"personality": {"domain": "VAX"}}}, r"^linux\.personality\.domain: .*'VAX'"),
    ],
)
def test_a_wrong_value_has_a_path(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_uts(spec)
