"""What is written from the tables of commands: the manual, and completion for three shells."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from mini_docker.cli.main import all_paths, find_command
from mini_docker.cli.manual import SHELLS, bash, manual_text
from tests.conftest import ROOT, cannot_run_here


def test_the_manual_is_what_the_tables_say() -> None:
    written = Path(ROOT, "docs", "commands.md").read_text(encoding="utf-8")
    assert written == manual_text(), "write it again: mini_docker manual > docs/commands.md"


def test_every_path_leads_to_a_command() -> None:
    assert len(all_paths()) > 100
    assert [path for path in all_paths() if find_command(path) is None] == []
    assert find_command("container nothing") is None


def completed(line: str) -> list[str]:
    """Return what bash offers after a line."""
    script = f"""{bash()}
    COMP_WORDS=({line}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
    mini_docker() {{ echo web; echo job; }}
    _mini_docker; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_flags_and_names() -> None:
    assert completed("mini_docker re") == ["rename", "reset", "restart"]
    assert completed("mini_docker network c") == ["connect", "create"]
    assert completed("mini_docker run --memory-s") == ["--memory-swap", "--memory-swappiness"]
    assert completed("mini_docker container run --cidf") == ["--cidfile"]
    assert completed("mini_docker stop w") == ["web"]
    assert completed("mini_docker -H x nothing") == []


@pytest.mark.parametrize("shell", SHELLS)
def test_a_completion_is_accepted_by_its_shell(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        cannot_run_here(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(SHELLS[shell](), encoding="utf-8")
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
