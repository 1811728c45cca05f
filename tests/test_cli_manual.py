"""What is written from the tables of commands: the manual, and completion for three shells."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from mini_docker.cli.command import Command, flags_of
from mini_docker.cli.flags import parse
from mini_docker.cli.main import all_paths, find_command, split_path
from mini_docker.cli.man import escaped, page_name, pages, write_pages
from mini_docker.cli.manual import SHELLS, bash, manual_text, table
from tests.conftest import ROOT, cannot_run_here


def test_the_manual_is_what_the_tables_say() -> None:
    written = Path(ROOT, "docs", "commands.md").read_text(encoding="utf-8")
    assert written == manual_text(), "write it again: mini_docker manual > docs/commands.md"


def test_every_path_leads_to_a_command() -> None:
    assert len(all_paths()) > 100
    assert [path for path in all_paths() if find_command(path) is None] == []
    assert find_command("container nothing") is None


COMMANDS = {command.name: command for command in table().values()}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_command_is_told_whole(command: Command) -> None:
    """Its help has a sentence, an explanation of each flag, and examples that it would take."""
    assert command.about and command.examples
    assert [flag.name for flag in flags_of(command) if not flag.help] == []
    for example in command.examples:
        alone = re.sub(r"\$\(.*?\)", "some", re.split(r" [|<>] ", example)[0])
        words = shlex.split(alone)
        path, rest = split_path(words)
        named = find_command(path)
        assert named is not None and named.name == command.name, example
        given = parse(flags_of(command), rest, command.loose).words
        most = len(given) if command.most is None else command.most
        assert command.least <= len(given) <= most, example


def test_a_page_for_man_has_all_that_the_help_has() -> None:
    found = pages()
    assert set(found) == {"mini_docker.1", *(f"{page_name(name)}.1" for name in COMMANDS)}
    for name, command in COMMANDS.items():
        page = found[f"{page_name(name)}.1"]
        for words in (command.about, *(flag.help for flag in flags_of(command))):
            assert escaped(words) in page
        for words in (*command.examples, *(f"--{flag.name}" for flag in flags_of(command))):
            assert escaped(words) in page
        assert escaped(command.about) in found["mini_docker.1"]


def test_man_reads_the_pages_without_a_complaint(tmp_path: Path) -> None:
    if not shutil.which("groff"):
        cannot_run_here("there is no groff (remedy: apt-get install groff-base)")
    write_pages(str(tmp_path))
    names = sorted(str(path) for path in tmp_path.iterdir())
    command = ["groff", "-ww", "-Wbreak", "-man", "-Tutf8", "-rHY=0", "-P-cbou", *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--memory-swappiness int" in done.stdout and r"\f" not in done.stdout


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
