"""environment.yml, solved by conda's kind of solver over a channel made of what is installed here.

tests/test_start_path.py holds its names and ranges against pyproject.toml; that conda-forge has them is for
somebody with internet to see. Here: the file is in conda's own syntax, and its ranges have a solution
together with what every installed package requires.
"""

from __future__ import annotations

import asyncio
import json
import platform
import re
from importlib import import_module
from importlib.metadata import Distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from conftest import ROOT
from tests.conftest import cannot_run_here
from tests.test_start_path import CONDA_NAMES

OTHERS = {"python": platform.python_version(), "graphviz": "2.43.0", "pip": "23.0"}
PYPI_TO_CONDA = {pypi: conda for conda, pypi in CONDA_NAMES.items() if pypi}


def specs() -> list[str]:
    """Return the lines of environment.yml that conda itself reads: "ipykernel>=6.29"."""
    listed = (ROOT / "environment.yml").read_text().partition("dependencies:\n")[2]
    return re.findall(r"^  - ([^:\n]+)$", listed, re.M)


def conda_name(name: str) -> str:
    normal = re.sub("[-_.]+", "-", name).lower()
    return PYPI_TO_CONDA.get(normal, normal)


def depends(distribution: Distribution) -> list[str]:
    """Return the requirements that hold here, in conda's words."""
    wanted = [Requirement(line) for line in distribution.requires or []]
    return [
        f"{conda_name(one.name)} {one.specifier}".strip()
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
    ]


def records() -> dict[str, dict[str, Any]]:
    """Return the entries of a channel: every installed package under conda's name."""
    found = {
        conda_name(one.metadata["Name"]): (one.version, depends(one)) for one in distributions()
    }
    found |= {name: (version, []) for name, version in OTHERS.items()}
    return {
        f"{name}-{version}-0.conda": {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "depends": needs,
            "subdir": "noarch",
            "sha256": "0" * 64,
            "md5": "0" * 32,
            "size": 1,
        }
        for name, (version, needs) in found.items()
    }


def make_channel(channel: Path) -> None:
    """Write the channel's two indexes; all packages are in noarch."""
    for subdir, packages in (("linux-64", {}), ("noarch", records())):
        (channel / subdir).mkdir()
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages}
        (channel / subdir / "repodata.json").write_text(json.dumps(index | {"repodata_version": 1}))


def solve(channel: Path, wanted: list[str]) -> dict[str, str]:
    """Return what the solver takes: {"ipykernel": "6.29.5", ...}."""
    if find_spec("rattler") is None:
        cannot_run_here("there is no py-rattler (remedy: sudo labs/provision.sh --peers)")
    rattler: Any = import_module("rattler")
    matches = [rattler.MatchSpec(spec, strict=True) for spec in wanted]
    solving = rattler.solve(
        sources=[channel.as_uri()], specs=matches, platforms=["linux-64", "noarch"]
    )
    taken = asyncio.run(solving)
    return {record.name.normalized: str(record.version) for record in taken}


def test_it_has_a_solution_with_everything_that_it_names(tmp_path: Path) -> None:
    make_channel(tmp_path)
    taken = solve(tmp_path, specs())
    assert {re.split("[<>=]", spec)[0] for spec in specs()} <= set(taken)
    assert "traitlets" in taken  # by way of ipykernel: requirements are followed


def test_a_range_that_nothing_meets_has_none(tmp_path: Path) -> None:
    make_channel(tmp_path)
    with pytest.raises(Exception, match="ipykernel"):
        solve(tmp_path, ["ipykernel>=999"])
