"""Logs: their options as Docker takes and refuses them, attributes of lines, old files compressed."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import subprocess
from typing import Any

import pytest

from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.log_options import attrs_text, check_log, json_limits, log_options
from mini_docker.engine.logs import LogWriter, follow_log, read_log
from mini_docker.engine.rotated import compress
from mini_docker.engine.streams import details_of
from tests.daemons import CLIENT, Daemon

pytestmark = [pytest.mark.root, pytest.mark.anywhere]
RECORD: dict[str, Any] = {
    "Id": "0123456789abcdef" * 4, "Name": "web", "Created": 1_700_000_000.5, "ImageID": "sha256:" + "7" * 64,
    "Command": ["echo", "hi", "you"],
    "Config": {"Image": "busybox", "Env": ["A=1", "B=x=y", "NONE"], "Labels": {"team.a": "red", "b": "&"}},
}  # fmt: skip


def options_of(driver: str, options: dict[str, str]) -> dict[str, Any]:
    """Return what a shim gets."""
    host = {"LogConfig": {"Type": driver, "Config": options}}
    check_log(host)
    found = log_options({**RECORD, "HostConfig": host}, "/nowhere")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("json-file", {"nosuch": "1"}, "unknown log opt 'nosuch' for json-file log driver"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for log driver local"),
        ("json-file", {"mode": "bad"}, "logger: logging mode not supported: bad"),
        ("json-file", {"max-buffer-size": "1m"}, "logger: max-buffer-size option is only supported"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "x"}, "invalid size: 'x'"),
        ("json-file", {"max-size": "bad"}, "failed to initialize logging driver: invalid size: 'bad'"),
        ("json-file", {"max-size": "-1"}, "invalid size: '-1'"),
        ("json-file", {"max-size": ""}, "invalid size: ''"),
        ("json-file", {"max-size": "1.2.3"}, "invalid size: '1.2.3'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"max-file": "²"}, 'strconv.Atoi: parsing "²": invalid syntax'),
        ("json-file", {"compress": "bad"}, 'strconv.ParseBool: parsing "bad": invalid syntax'),
        ("json-file", {"compress": "true", "max-file": "2"}, "compress cannot be true when max-file"),
        ("json-file", {"labels-regex": "("}, "error parsing regexp: missing closing ): `(`"),
        ("json-file", {"env-regex": "[a"}, "error parsing regexp: missing closing ]: `[a`"),
        ("json-file", {"env-regex": "*"}, "missing argument to repetition operator: `*`"),
        ("json-file", {"env-regex": "a(?=b)"}, "invalid or unsupported Perl syntax: `"),
        ("json-file", {"tag": "{{.Bad"}, "template: log-tag:1: unclosed action"),
        ("json-file", {"tag": "{{}}"}, "template: log-tag:1: missing value for command"),
        ("json-file", {"tag": "{{nosuch .ID}}"}, 'log-tag:1: function "nosuch" not defined'),
        ("json-file", {"tag": "{{.ID | nosuch}}"}, 'log-tag:1: function "nosuch" not defined'),
        (
            "json-file", {"tag": "{{.ID}}\n x{{ .Bad}}"},
            'template: log-tag:2:5: executing "log-tag" at <.Bad>: can\'t evaluate field Bad in type',
        ),
        ("json-file", {"tag": "{{.ID.Foo}}"}, "log-tag:1:5: executing \"log-tag\" at <.ID.Foo>: can't"),
        ("json-file", {"tag": "{{.ID .Name}}"}, "can't give argument to non-function"),
        ("json-file", {"tag": "{{truncate .ID}}"}, "wrong number or kind of args for truncate"),
        ("local", {"max-size": "bad"}, "invalid value for max-size: bad: invalid size: 'bad'"),
        ("local", {"compress": "bad"}, "error reading compress log option: strconv.ParseBool"),
        ("local", {"max-file": "1"}, "compression cannot be enabled when max file count is 1"),
    ],
)  # fmt: skip
def test_what_is_refused_in_dockers_words(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options_of(driver, options)
    assert words in str(caught.value)


def test_limits_are_in_thousands() -> None:
    assert json_limits({}) == (0, 1, False)
    assert json_limits({"max-size": "1.5 kB", "max-file": "3", "compress": "T"}) == (1500, 3, True)
    of_local = options_of("local", {"max-file": "2"})
    assert [of_local[key] for key in ("max_size", "max_file", "compress")] == [20_000_000, 2, True]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, ""),
        ({"labels": "b,nosuch", "env": "B,NONE,Z"}, "B=x%3Dy,b=%26"),
        ({"labels-regex": "^team", "env-regex": "[A-Z]"}, "A=1,B=x%3Dy,team.a=red"),
        ({"tag": "{{.Name}}/{{.ID}}"}, "tag=web%2F0123456789ab"),
        ({"tag": 'x {{- upper .ImageName -}} y {{.Command | join (}}'}, None),
        ({"tag": '{{ .Name | upper }}{{truncate "abc" 2}}{{- " z" }}'}, "tag=WEBab+z"),
        ({"tag": "{{.ContainerArgs}}{{json .ContainerArgs}}"}, "tag=%5Bhi+you%5D%5B%22hi%22%2C%22you%22%5D"),
        ({"tag": "{{.ImageID}} {{.ContainerLabels}}"}, "tag=sha256%3A77777+map%5Bb%3A%26+team.a%3Ared%5D"),
        ({"tag": "{{.ContainerCreated}}"}, "tag=2023-11-14+22%3A13%3A20.5+%2B0000+UTC"),
    ],
)  # fmt: skip
def test_attributes_of_lines(options: dict[str, str], shown: str | None) -> None:
    if shown is None:
        with pytest.raises(InvalidRequest):
            options_of("json-file", options)
        return
    text = options_of("json-file", options)["attrs"].removeprefix(',"attrs":')
    assert details_of(text.encode()).decode() == shown


def test_lines_with_attributes_are_read_again(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    attrs = attrs_text({"a": '","stream":"stderr"}', "b": "<&é\u2028"})
    assert r"\u003c\u0026é\u2028" in attrs
    log = LogWriter(path, attrs=attrs)
    log.write("stdout", b'one","stream":"stderr","time":"\ntwo', 5)
    log.close(6)
    first, second = read_log(path)
    assert (
        first[:3] == ("stdout", 5, b'one","stream":"stderr","time":"\n') and second.data == b"two"
    )
    assert json.loads(first.attrs) == json.loads(second.attrs) == json.loads(attrs[9:])
    assert [json.loads(line)["stream"] for line in open(path)] == ["stdout", "stdout"]


def numbered(path: str, tail: int | None = None) -> list[int]:
    return [int(entry.data) for entry in read_log(path, tail)]


def test_old_files_are_compressed_and_read(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "log")
    log = LogWriter(path, 400, 4, packed=True)
    for number in range(40):
        log.write("stdout", b"%d\n" % number, number)
    log.close(40)
    files = sorted(os.listdir(tmp_path))
    assert files == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    with gzip.open(f"{path}.1.gz") as packed:
        assert packed.readline().startswith(b'{"log":"')
    kept = numbered(path)
    assert kept == list(range(kept[0], 40)) and len(kept) > 15
    for tail in (1, 7, 13, len(kept), 1000):
        assert numbered(path, tail) == kept[-tail:]


def test_a_reader_goes_on_where_its_file_has_been_compressed(tmp_path: pathlib.Path) -> None:
    """Its inode is gone; the archive remembers it."""
    path = str(tmp_path / "log")
    log = LogWriter(path, 400, 10)
    seen, steps = [], iter(range(1, 6))

    def wait() -> bool:
        step = next(steps, 0)
        if step:
            for number in range(step * 10, step * 10 + 10):
                log.write("stdout", b"%d\n" % number, number)
            for name in [n for n in os.listdir(tmp_path) if n != "log" and not n.endswith(".gz")]:
                compress(str(tmp_path / name))
        return bool(step)

    log.write("stdout", b"9\n", 9)
    for entry in follow_log(path, None, wait):
        seen.append(int(entry.data))
    log.close(60)
    assert seen == list(range(9, 60)) and len(os.listdir(tmp_path)) > 5


def test_a_full_disk_stops_no_log_for_ever(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no new file can be begun the old one is still written to, and nothing is moved twice."""
    path = str(tmp_path / "log")
    log = LogWriter(path, 100, 3)
    log.write("stdout", b"1\n", 1)
    monkeypatch.setattr(LogWriter, "_open", lambda self: os.open("/nowhere/x", os.O_WRONLY))
    for number in (2, 3, 4):
        with pytest.raises(OSError):
            log.write("stdout", b"%d\n" % number, number)
    monkeypatch.undo()
    log.write("stdout", b"5\n", 5)
    log.close(6)
    assert numbered(path) == [1, 5]


def test_details_through_the_docker_command(daemon: Daemon) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line; i=$((i+1)); done; echo last >&2"
    words = ["-l", "team=red", "--log-opt", "labels=team", "--log-opt", "tag={{.Name}}"]
    words += ["--log-opt", "max-size=1k", "--log-opt", "max-file=4", "--log-opt", "compress=true"]
    docker = [CLIENT, "-H", f"unix://{daemon.path}"]
    run = [*docker, "run", "--name=web", "--network=none", *words, "busybox", "sh", "-c", script]
    subprocess.run(run, check=True, capture_output=True, timeout=120)
    done = subprocess.run([*docker, "logs", "--details", "web"], capture_output=True, timeout=120)
    assert done.stdout.splitlines()[-1] == b"tag=web,team=red line"
    assert done.stderr == b"tag=web,team=red last\n"
    assert len(done.stdout.splitlines()) > 20
    path = daemon.ask("GET", "/containers/web/json")[1]["LogPath"]
    assert os.path.exists(f"{path}.1.gz") and not os.path.exists(f"{path}.1")
    daemon.run("plain", "echo", "hi", HostConfig={"LogConfig": {"Type": "local", "Config": {}}})
    assert daemon.ask("POST", "/containers/plain/wait")[1]["StatusCode"] == 0
    assert daemon.logs("plain", "stdout=1&details=1")[8:] == b" hi\n"
    assert daemon.ask("GET", "/containers/plain/json")[1]["LogPath"] == ""
