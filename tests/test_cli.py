"""The command line: flags as docker reads them, texts as docker prints them, and errors in one line."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mini_docker.cli.command import run_command
from mini_docker.cli.create import CREATE_FLAGS, create_body
from mini_docker.cli.explain import chapter, table
from mini_docker.cli.flags import Parsed, UsageError, flag_table, parse, parse_size, usage
from mini_docker.cli.main import all_paths, find_command, modules
from mini_docker.cli.terminal import Raw, size
from mini_docker.cli.text import age, columns
from mini_docker.engine.explain import man_page, read_steps, write_steps
from mini_docker.linux.process import sethostname
from mini_docker.linux.step import Step
from mini_docker.runtime.console import resize
from mini_docker.runtime.plan import Planned
from tests.conftest import ROOT
from tests.system import Lab, lab  # noqa: F401 (a fixture)

CREATE = flag_table(CREATE_FLAGS)
FLAGS = flag_table("""
    --rm           remove
-i, --interactive  stdin
-t, --tty          terminal
-d, --detach       background
-e, --env list     variables
    --name string  name
""")
PARSED: list[tuple[str, dict[str, list[str]], str]] = [
    # the command line, the flags, the words; as the docker client 28.2 reads them
    ("", {}, ""),
    ("-it x -t", {"interactive": ["true"], "tty": ["true"]}, "x -t"),
    ("-itd x", {"interactive": ["true"], "tty": ["true"], "detach": ["true"]}, "x"),
    ("-ite A=1 x", {"interactive": ["true"], "tty": ["true"], "env": ["A=1"]}, "x"),
    ("-eA=1 -e B --env C=3 --env=D= x", {"env": ["A=1", "B", "C=3", "D="]}, "x"),
    ("-e=A=1 x", {"env": ["A=1"]}, "x"),
    ("-e= x", {"env": ["="]}, "x"),
    ("-e -it x", {"env": ["-it"]}, "x"),
    ("--name --rm x", {"name": ["--rm"]}, "x"),
    ("--name= x", {"name": [""]}, "x"),
    ("--name a --name b", {"name": ["a", "b"]}, ""),
    ("--rm=false x", {"rm": ["false"]}, "x"),
    ("--rm=T -t=F x", {"rm": ["T"], "tty": ["F"]}, "x"),
    ("-it=false x", {"interactive": ["true"], "tty": ["false"]}, "x"),
    ("-- -it x", {}, "-it x"),
    ("--rm -- --", {"rm": ["true"]}, "--"),
    ("- -t", {}, "- -t"),
    ("x -- y", {}, "x -- y"),
]


@pytest.mark.parametrize(("line", "values", "words"), PARSED, ids=[line for line, _, _ in PARSED])
def test_flags_are_read(line: str, values: dict[str, list[str]], words: str) -> None:
    parsed = parse(FLAGS, line.split())
    assert (parsed.values, " ".join(parsed.words)) == (values, words)


def test_switches_lists_defaults_and_flags_between_words() -> None:
    parsed = parse(FLAGS, "a -t b --rm=0 -- -i".split(), interspersed=True)
    assert parsed.words == ["a", "b", "-i"]
    assert (parsed.on("tty"), parsed.on("rm"), parsed.on("detach")) == (True, False, False)
    assert (parsed.one("name", "n"), parsed.all("env")) == ("n", [])
    assert parse(FLAGS, ["--rm"]).on("rm") and not parse(FLAGS, ["--rm", "--rm=f"]).on("rm")


PARSE_BOOL = 'strconv.ParseBool: parsing "maybe": invalid syntax'
REFUSED = [
    ("--rm=maybe", f'invalid argument "maybe" for "--rm" flag: {PARSE_BOOL}'),
    ("-t=maybe", f'invalid argument "maybe" for "-t, --tty" flag: {PARSE_BOOL}'),
    ("--tty=maybe", f'invalid argument "maybe" for "-t, --tty" flag: {PARSE_BOOL}'),
    ("--nonsense=1 x", "unknown flag: --nonsense"),
    ("-iZt", "unknown shorthand flag: 'Z' in -Zt"),
    ("-e", "flag needs an argument: 'e' in -e"),
    ("-te", "flag needs an argument: 'e' in -e"),
    ("--env", "flag needs an argument: --env"),
    ("---x", "bad flag syntax: ---x"),
    ("--=x", "bad flag syntax: --=x"),
]


@pytest.mark.parametrize(("line", "words"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_bad_flag_is_refused_in_dockers_words(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(words)}$"):
        parse(FLAGS, line.split())


def test_usage_is_laid_out_as_dockers() -> None:
    assert usage("mini_docker run", "[OPTIONS] IMAGE", "Run it", FLAGS[3:5]) == (
        "Usage:  mini_docker run [OPTIONS] IMAGE\n\nRun it\n\n"
        "Options:\n  -d, --detach     background\n  -e, --env list   variables\n"
    )
    assert usage("mini_docker x", "", "About", ()) == "Usage:  mini_docker x\n\nAbout\n"


SIZES = {"0": 0, "1": 1, "64b": 64, "64B": 64, "1k": 1 << 10, "1 k": 1 << 10, "64m": 64 << 20,
         "64MB": 64 << 20, "1.5GiB": 3 << 29, "2t": 2 << 40, "1e3": 1000, "0.5k": 512}  # fmt: skip


@pytest.mark.parametrize("text", SIZES)
def test_sizes(text: str) -> None:
    assert parse_size(text) == SIZES[text]


@pytest.mark.parametrize("text", ["", "m", "-2", "1..5", "64mm", "0x10", "inf", "nan", "much", " 64m", "5i",
                                  "5ki", "5ib", "1m b", "9999999p"])  # fmt: skip
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"^invalid size: '{text}'$"):
        parse_size(text)
    with pytest.raises(UsageError, match=f'^invalid argument "{text}" for "-m, --memory" flag: '):
        create_body(parse(CREATE, ["-m", text, "x"]))


DAY = 86_400
AGES = {0.4: "Less than a second", 1: "1 second", 59: "59 seconds", 60: "About a minute",
        119: "About a minute", 120: "2 minutes", 3599: "59 minutes", 3600: "About an hour", 5400: "2 hours",
        47 * 3600: "47 hours", 2 * DAY: "2 days", 13 * DAY: "13 days", 14 * DAY: "2 weeks",
        60 * DAY: "2 months", 730 * DAY: "2 years", -5: "Less than a second"}  # fmt: skip


@pytest.mark.parametrize("seconds", AGES)
def test_ages_in_dockers_words(seconds: float) -> None:
    """go-units' HumanDuration, which docker ps prints."""
    assert age(seconds) == AGES[seconds]


def test_columns_are_left_aligned_three_spaces_apart() -> None:
    assert columns(["A\tLONG", "wide\tx", "a longer one\ty"]) == (
        "A              LONG\nwide           x\na longer one   y\n"
    )
    assert columns(["A\tB", "\ty"]) == "A         B\n          y\n"
    assert (
        columns(["a\tb\tc", "x", "longer than ten\tb\tc"], 0, 1)
        == "a b c\nx\nlonger than ten b c\n"
    )


REQUESTS: list[tuple[str, str]] = [
    ("--cpus nan x", 'invalid argument "nan" for "--cpus" flag'),
    ("--cpus inf x", 'invalid argument "inf" for "--cpus" flag'),
    ("--pids-limit 1.5 x", 'invalid argument "1.5" for "--pids-limit" flag'),
    ("-e =x x", 'invalid argument "=x" for "-e, --env" flag: invalid environment variable: =x'),
]


@pytest.mark.parametrize(("line", "words"), REQUESTS, ids=[line for line, _ in REQUESTS])
def test_a_bad_value_is_an_error_of_usage(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(words)}"):
        create_body(parse(CREATE, line.split()))


def test_a_request_has_dockers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLOUR", "blue")
    line = "--rm -e COLOUR -e A=b=c -m 64m --cpus 1.5 --net none -v /a:/b --entrypoint= x -- y"
    request, _ = create_body(parse(CREATE, line.split()))
    assert (request["Image"], request["Cmd"]) == ("x", ["--", "y"])
    assert (request["Entrypoint"], request["Env"]) == ([""], ["COLOUR=blue", "A=b=c"])
    host = request["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 1_500_000_000)
    assert (host["NetworkMode"], host["AutoRemove"], host["Binds"]) == ("none", True, ["/a:/b"])


def call(*words: str, code: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own; `code` changes the modules before."""
    program = f"import mini_docker.cli.main as m\n{code}\nm.main()"
    command = [sys.executable, "-c", program, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    environment.pop("DOCKER_HOST", None)
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    "place", ["m.dispatch = lambda words: bool(Late())", "m._leave = interrupted"]
)
def test_an_interrupt_is_silent_wherever_it_is_raised(place: str) -> None:
    code = """
def interrupted(*_):
    raise KeyboardInterrupt
class Late:
    __del__ = interrupted
"""
    done = call(code=code + place)
    assert (done.returncode, done.stderr) == (130, "")


def test_unknown_commands_and_no_command() -> None:
    done = call("nosuch", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "mini_docker: unknown command: mini_docker nosuch\n\nRun 'mini_docker --help' for more information\n"
    )
    overview = call("--help")
    assert overview.returncode == 0 and call("help").stdout == call().stdout == overview.stdout
    assert all(f"\n  {name} " in overview.stdout for name in modules() if " " not in name)
    assert call("-v").stdout.startswith("mini_docker version ")


@pytest.mark.parametrize("name", all_paths())
def test_help_names_every_flag_with_examples(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = find_command(name)
    assert command is not None and command.examples
    assert run_command(command, name, Parsed(), ["--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage:  mini_docker {name} {command.words}".rstrip() + "\n")
    assert command.about in text and f"\nExamples:\n  mini_docker {command.examples[0]}\n" in text
    for flag in flag_table(command.flags):
        assert re.search(rf"--{flag.name}\b.* {re.escape(flag.help)}\n", text)


@pytest.mark.parametrize("name", ["run", "ps", "setup", "doctor"])
def test_help_needs_nothing(name: str) -> None:
    done = call(name, "--help", MINI_DOCKER_ROOT="/proc/no/such")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage:  mini_docker {name}")


@pytest.mark.parametrize("name", ["ps", "setup", "reset", "version"])
def test_a_command_without_words_refuses_them(name: str) -> None:
    """`mini_docker reset web` must not remove everything."""
    done = call(name, "web", MINI_DOCKER_ROOT="/proc/no/such")
    assert done.returncode in (1, 125) and done.stdout == ""
    assert f"'mini_docker {name}' accepts no arguments" in done.stderr


BOOM = "def boom(words): raise {}\nm.dispatch = boom"
ENDS = [
    # what happens inside, exit status, the line
    ("KeyError('x')", 125, "mini_docker: internal error: KeyError: 'x' (MINI_DOCKER_DEBUG=1 shows where)\n"),
    ("OSError(28, 'No space left', '/f')", 125, "mini_docker: No space left: /f\n"),
    ("m.CommandError('words', 42)", 42, "words\n"),
    ("m.StatusError(7)", 7, ""),
    ("KeyboardInterrupt", 130, ""),
    ("SystemExit(143)", 143, ""),
    ("BrokenPipeError", 141, ""),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "line"), ENDS, ids=[end[0] for end in ENDS])
def test_every_end_is_one_line_and_a_status(error: str, status: int, line: str) -> None:
    done = call(code=BOOM.format(error), MINI_DOCKER_DEBUG="")
    assert (done.returncode, done.stderr) == (status, line)


def test_debug_shows_where() -> None:
    done = call(code=BOOM.format("KeyError('x')"), MINI_DOCKER_DEBUG="1")
    assert done.returncode != 0 and "Traceback" in done.stderr


STREAMS = {">&-": "", ">/dev/full": "No space left on device", ">&- 2>&-": "", "<&-": ""}


@pytest.mark.parametrize("redirection", STREAMS)
def test_a_stream_that_is_closed_or_full_is_no_traceback(redirection: str) -> None:
    command = f"'{ROOT}/labs/bin/mini_docker' -v {redirection}"
    done = subprocess.run(["sh", "-c", f"exec {command}"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr and "internal error" not in done.stderr
    assert STREAMS[redirection] in done.stderr


@pytest.mark.root
@pytest.mark.anywhere
def test_rm_reports_each_and_a_failure_stays_a_failure(lab: Lab) -> None:
    for name in ("one", "two", "busy"):
        lab.call("create", "--name", name, "--network", "none", "busybox", "sleep", "1000")
    lab.call("start", "busy")
    ends = [
        lab.call("rm", *words.split()) for words in ("one", "nosuch two busy", "-f nosuch busy")
    ]
    assert [done.returncode for done in ends] == [0, 1, 0]
    assert [done.stdout for done in ends] == ["one\n", "two\n", "busy\n"]
    assert [done.stderr.count("Error") for done in ends] == [0, 2, 1]


@pytest.mark.root
@pytest.mark.anywhere
def test_ps_shows_the_images_command_and_truncates(lab: Lab) -> None:
    assert lab.call("run", "--name", "quiet", "--network", "none", "busybox").returncode == 0
    try:
        head, row = lab.call("ps", "-a").stdout.splitlines()
        assert head.split("   ")[0] == "CONTAINER ID"
        assert re.match(r'^[0-9a-f]{12}   busybox +"sh" ', row)
        assert len(lab.call("ps", "-aq", "--no-trunc").stdout) == 65
        assert lab.call("ps", "-q").stdout == ""
    finally:
        lab.call("rm", "quiet")


CHAPTERS = {
    "mini_docker.linux.mount": "1 system calls",
    "mini_docker.namespaces.net": "3 net",
    "mini_docker.engine.networks": "15 networks",
    "mini_docker.engine.bridge": "3b nat",
    "mini_docker.security.paths": "9 privileges",
    "mini_docker.security.seccomp": "9b seccomp",
    "mini_docker.runtime.listener": "11g listener",
    "mini_docker.engine.containers": "14 containers",
    "mini_docker.enginex": "",
    "json": "",
}


@pytest.mark.parametrize("module", CHAPTERS)
def test_a_step_knows_its_chapter(module: str) -> None:
    assert chapter(module) == CHAPTERS[module]


def test_explain_is_a_table(tmp_path: Path) -> None:
    assert man_page(sethostname) == "sethostname(2)"
    assert [man_page(step) for step in (os.chdir, os.dup2, print)] == [
        "chdir(2)",
        "dup2(2)",
        "print",
    ]
    step = Step("a name that is longer than its column can ever be", sethostname, (b"x",))
    write_steps(str(tmp_path), [Planned("mini_docker.namespaces.uts", step)] * 2, [1_500_000] * 2)
    done = read_steps(str(tmp_path))
    fields = ("Where", "Module", "Step", "Call", "Nanoseconds")
    lines = table([dict(zip(fields, one, strict=True)) for one in done])
    first, second, *_ = lines.splitlines()[1:]
    assert first == second and "longer than its column can e…" in first
    assert first.startswith("init     6 uts ") and "sethostname(2)" in first
    assert first.endswith("1.500 ms") and lines.endswith("3.000 ms\n")


def test_a_terminal_is_raw_inside_and_as_before_after_an_error() -> None:
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    with pytest.raises(KeyError), Raw(slave):
        assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        raise KeyError
    assert termios.tcgetattr(slave) == before
    resize(master, 33, 101)
    resize(master, 0, 0)
    assert size(slave) == (33, 101)
    os.close(master)
    os.close(slave)
    read_fd, write_fd = os.pipe()
    with Raw(read_fd):
        assert size(read_fd) == (0, 0)
    os.close(read_fd)
    os.close(write_fd)
