"""Every command and flag of the installed docker clients is ours too, or stands in docs/differences.md."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mini_docker.cli.flags import flag_table
from mini_docker.cli.main import all_paths, find_command
from tests.conftest import ROOT, cannot_run_here

CLIENTS = ("/usr/bin/docker", "/usr/local/bin/docker")  # 20.10 of Debian, and a newer one
HEADING = "### Commands and flags of Docker's clients that are not here"
COMMAND = re.compile(r"^  ([a-z][\w-]*)\*? ", re.MULTILINE)
FLAG = re.compile(r"^ +(?:-(\w), )?--([\w-]+)", re.MULTILINE)


def help_of(docker: str, path: str) -> str:
    words = [docker, *path.split(), "--help"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def commands_in(text: str) -> list[str]:
    """Return the names in the sections of a help that list commands, plugins' (with a *) left out."""
    parts = [part.partition("\n") for part in text.split("\n\n")]
    bodies = [body for head, _, body in parts if head.endswith("ommands:")]
    return [name for body in bodies for name in COMMAND.findall(body.replace("* ", "  # "))]


def explained() -> tuple[set[str], set[str]]:
    """Return the commands and flags that differences.md names as absent, each with its reason."""
    text = Path(ROOT, "docs", "differences.md").read_text(encoding="utf-8")
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    return {n for n in names if "--" not in n}, {n for n in names if "--" in n}


def is_explained(command: str, flag: str, flags: set[str]) -> bool:
    return f"--{flag}" in flags or f"{command} --{flag}" in flags


@pytest.mark.peers
@pytest.mark.parametrize("docker", CLIENTS)
def test_each_command_and_flag_is_here_or_explained(docker: str) -> None:
    if not shutil.which(docker):
        cannot_run_here(f"there is no {docker}")
    commands, flags = explained()
    ours = set(all_paths())
    missing = []
    for top in commands_in(help_of(docker, "")):
        below = [f"{top} {verb}" for verb in commands_in(help_of(docker, top))]
        for path in below or [top]:
            known = path if path in ours else top  # `completion bash` is a word of ours
            if known not in ours:
                missing += [] if {top, path} & commands else [path]
                continue
            if known != path:
                continue
            command = find_command(known)
            assert command is not None
            here = {flag.name: flag.letter for flag in flag_table(command.flags)}
            for letter, name in FLAG.findall(help_of(docker, path).partition("ptions:")[2]):
                same = name in here and letter in ("", *here.values())
                if name != "help" and not same and not is_explained(command.name, name, flags):
                    missing.append(f"{path} --{name}")
    assert missing == []


def test_what_is_explained_as_missing_is_missing() -> None:
    commands, flags = explained()
    assert commands and flags
    assert not commands & set(all_paths())
    for text in flags:
        path, _, name = text.rpartition("--")
        command = find_command(path.strip()) if path else None
        assert command is None or name not in {f.name for f in flag_table(command.flags)}, text
