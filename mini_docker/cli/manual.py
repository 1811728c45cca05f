# Exported from notebooks/H_the_command_itself.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/H_the_command_itself.ipynb#manual-module
"""What is written from the tables of commands: completion for three shells, and the manual."""

from __future__ import annotations

from mini_docker.cli.command import PROGRAM, Command, flags_of, help_text
from mini_docker.cli.errors import CommandError
from mini_docker.cli.flags import shown
from mini_docker.cli.main import (
    GLOBAL_FLAGS,
    GROUPS,
    all_paths,
    find_command,
    load,
    modules,
    real_name,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Flag, Parsed


# %% notebooks/H_the_command_itself.ipynb#completion-words
# what the words after a command are: lines of another command
NAMES = {
    "CONTAINER": f"{PROGRAM} ps -a --format '{{{{.Names}}}}'",
    "IMAGE": f"{PROGRAM} images --format '{{{{.Repository}}}}:{{{{.Tag}}}}'",
    "NETWORK": f"{PROGRAM} network ls --format '{{{{.Name}}}}'",
    "VOLUME": f"{PROGRAM} volume ls -q",
    "CONTEXT": f"{PROGRAM} context ls -q",
}


def table() -> dict[str, Command]:
    """Return every path with its command."""
    found = {path: find_command(path) for path in all_paths()}
    return {path: command for path, command in found.items() if command}


def asked_names(command: Command) -> str:
    """Return the command line that lists what may stand after a command; "" for what cannot be listed."""
    for word, line in NAMES.items():
        if word in command.words.replace("NAME|ID", "CONTAINER"):
            return line
    return ""


def flag_words(flags: tuple[Flag, ...]) -> list[str]:
    """Return "--all" and "-a" of each flag."""
    return [text for flag in flags for text in (f"--{flag.name}", f"-{flag.letter}") if text != "-"]


# %% notebooks/H_the_command_itself.ipynb#completion-bash
BASH = """# bash completion of {program}: written by "{program} completion bash"
_{program}() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} path= at=1 words=
    while ((at < COMP_CWORD)) && [[ ${{COMP_WORDS[at]}} == -* ]]; do ((at++)); done
    if ((at < COMP_CWORD)); then path=${{COMP_WORDS[at]}}; fi
    case $path in
        {groups}) if ((at + 1 < COMP_CWORD)); then path="$path ${{COMP_WORDS[at + 1]}}"; fi ;;
    esac
    case $path in
{cases}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -o default -F _{program} {program}
"""


def bash() -> str:
    """Return the completion for bash."""
    top = sorted({path.partition(" ")[0] for path in all_paths()})
    cases = [_bash_case('""', [*top, *flag_words(GLOBAL_FLAGS)], "")]
    cases += [_bash_case(group, _verbs(group), "") for group in GROUPS]
    for path, command in table().items():
        cases.append(_bash_case(f'"{path}"', flag_words(flags_of(command)), asked_names(command)))
    return BASH.format(program=PROGRAM, groups="|".join(GROUPS), cases="\n".join(cases))


def _bash_case(path: str, words: list[str], names: str) -> str:
    """Return the case of one command; `names` is what lists the objects that it takes."""
    text = f"        {path}) words='{' '.join(words)}'"
    return (
        f"{text}\n            [[ $word == -* ]] || words=$({names} 2>/dev/null) ;;"
        if names
        else f"{text} ;;"
    )


def _verbs(group: str) -> list[str]:
    return [path.partition(" ")[2] for path in all_paths() if path.startswith(f"{group} ")]


# %% notebooks/H_the_command_itself.ipynb#completion-zsh
ZSH = """#compdef {program}
# zsh completion of {program}: written by "{program} completion zsh"
_{program}() {{
    local path=${{words[2]}} rest=3
    case $path in
        {groups}) if ((CURRENT > 3)); then path="$path ${{words[3]}}"; rest=4; fi ;;
    esac
    if ((CURRENT == 2)); then path=; fi
    case $path in
{cases}
    esac
}}
compdef _{program} {program}
"""


def zsh() -> str:
    """Return the completion for zsh."""
    top = {
        path: (GROUPS.get(path) or _about(path))
        for path in sorted({p.partition(" ")[0] for p in all_paths()})
    }
    cases = [_zsh_case('""', top, "")]
    cases += [_zsh_case(g, {verb: _about(f"{g} {verb}") for verb in _verbs(g)}, "") for g in GROUPS]
    for path, command in table().items():
        flags = {f"--{flag.name}": flag.help for flag in flags_of(command)}
        cases.append(_zsh_case(f'"{path}"', flags, asked_names(command)))
    return ZSH.format(program=PROGRAM, groups="|".join(GROUPS), cases="\n".join(cases))


def _zsh_case(path: str, words: dict[str, str], names: str) -> str:
    """Return the case of one command, each word with what it is about."""
    listed = " ".join(_shell_quoted(f"{word}:{about}") for word, about in words.items())
    text = f"        {path}) local -a found=({listed}); _describe {PROGRAM} found"
    return (
        f'{text}\n            compadd -- ${{(f)"$({names} 2>/dev/null)"}} ;;'
        if names
        else f"{text} ;;"
    )


def _shell_quoted(text: str) -> str:
    escaped = text.replace("'", "'\\''")
    return f"'{escaped}'"


def _about(path: str) -> str:
    command = find_command(path)
    return command.about if command else ""


# %% notebooks/H_the_command_itself.ipynb#completion-fish
def fish() -> str:
    """Return the completion for fish."""
    lines = [
        f'# fish completion of {PROGRAM}: written by "{PROGRAM} completion fish"',
        f"complete -c {PROGRAM} -f",
    ]
    groups = " ".join(GROUPS)
    for path in sorted({p.partition(" ")[0] for p in all_paths()}):
        about = _fish_quoted(GROUPS.get(path) or _about(path))
        lines.append(f"complete -c {PROGRAM} -n __fish_use_subcommand -a {path} -d {about}")
    for path, command in table().items():
        group, _, verb = path.partition(" ")
        seen = f"__fish_seen_subcommand_from {path}"
        if verb:
            seen = f"__fish_seen_subcommand_from {group}; and __fish_seen_subcommand_from {verb}"
            others = f"__fish_seen_subcommand_from {' '.join(_verbs(group))}"
            first = f"__fish_seen_subcommand_from {group}; and not {others}"
            lines.append(
                f"complete -c {PROGRAM} -n '{first}' -a {verb} -d {_fish_quoted(command.about)}"
            )
        else:
            seen += f"; and not __fish_seen_subcommand_from {groups}"
        for flag in flags_of(command):
            letter = f" -s {flag.letter}" if flag.letter else ""
            value = " -r" if flag.value else ""
            lines.append(
                f"complete -c {PROGRAM} -n '{seen}' -l {flag.name}{letter}{value}"
                f" -d {_fish_quoted(flag.help)}"
            )
        if names := asked_names(command):
            lines.append(
                f"complete -c {PROGRAM} -n '{seen}' -a '({names.replace(chr(39), chr(34))} 2>/dev/null)'"
            )
    return "\n".join(lines) + "\n"


def _fish_quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


# %% notebooks/H_the_command_itself.ipynb#completion
SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def completion(call: Call, parsed: Parsed) -> int:
    """Print the completion script of a shell."""
    shell = parsed.words[0]
    if shell not in SHELLS:
        raise CommandError(f"no completion for {shell!r}; there is one for {', '.join(SHELLS)}")
    print(SHELLS[shell](), end="")
    return 0


# %% notebooks/H_the_command_itself.ipynb#manual
def manual(call: Call, parsed: Parsed) -> int:
    """Print the manual of all commands as Markdown, or write its pages for man(1) into a directory."""
    if parsed.words:
        from mini_docker.cli.man import write_pages

        write_pages(parsed.words[0])
    else:
        print(manual_text(), end="")
    return 0


def manual_text() -> str:
    """Return the manual: each command once, with its other names, flags and examples."""
    others: dict[str, list[str]] = {}
    for path in all_paths():
        if real_name(path) != path:
            others.setdefault(real_name(path), []).append(path)
    parts = [
        "# Commands\n",
        f"Written by `{PROGRAM} manual > docs/commands.md` from the tables that `--help`, the parser and the",
        "completion of the shells read; a test holds it. Change the tables, not this file.\n",
        "## Before the command\n",
        *(f"- `{shown(flag)}`{_value(flag)}: {flag.help}" for flag in GLOBAL_FLAGS),
        "",
    ]
    for name in sorted(modules()):
        command = next(c for c in load(modules()[name]) if c.name == name)
        parts += _section(command, others.get(name, []))
    return "\n".join(parts).rstrip() + "\n"


def _value(flag: Flag) -> str:
    return f" *{flag.value}*" if flag.value else ""


def _section(command: Command, others: list[str]) -> list[str]:
    also = f"Also: {', '.join(f'`{name}`' for name in others)}\n" if others else ""
    text = help_text(command, command.name).rstrip()
    return [f"## {command.name}\n", *([also] if also else []), f"```\n{text}\n```\n"]


# %% notebooks/H_the_command_itself.ipynb#manual-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "completion",
        "SHELL",
        "Print the completion script for bash, zsh or fish",
        "",
        completion,
        1,
        1,
        (
            "completion bash > /etc/bash_completion.d/mini_docker",
            "completion zsh > ~/.zfunc/_mini_docker",
            "completion fish > ~/.config/fish/completions/mini_docker.fish",
        ),
    ),
    Command(
        "manual",
        "[DIRECTORY]",
        "Print the manual of all commands as Markdown, or write pages for man(1)",
        "",
        manual,
        0,
        1,
        ("manual > docs/commands.md", "manual /usr/local/share/man/man1"),
    ),
)
