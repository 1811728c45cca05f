"""commands.txt beside dockerd: files, logs, networks, health, policies, limits, and their exit codes.

And transcript.txt, in which two clients are compared, by a newer client to both daemons: `cp`, and with
MINI_DOCKER_SOAK=1000 (`make soak`) all of it but what SET_ASIDE names; docs/differences.md says why.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.daemons import CLIENT
from tests.test_cli_transcript import AFTER
from tests.test_daemon_oracle import SOAK, differences, newer_client
from tests.transcript import LINES, Said, say

pytestmark = [pytest.mark.root, pytest.mark.peers]

MORE = pathlib.Path(__file__).with_name("commands.txt").read_text(encoding="utf-8")


CLIENTS = [lambda: CLIENT, newer_client][: 2 if SOAK else 1]  # `make soak` has the minute for both


@pytest.mark.parametrize("client", CLIENTS, ids=["older", "newer"][: len(CLIENTS)])
def test_the_second_transcript_is_the_same(
    both: tuple[str, str], client: Callable[[], str]
) -> None:
    assert not (found := differences(both, MORE, client())), found


SET_ASIDE = re.compile(
    r"docker (images|image ls|history|info|version|events .*volume=|ps -s|save P-image)"  # sizes, names
    r"|export P-cp \| tar"  # .dockerenv
    r"|docker inspect P-web$"  # test_daemon_shapes.py has it
)
OWN_PLACES = (
    (r"(127\.0\.0\.1:)\d{5}\b", r"\1PORT"),
    (r"/\S*/daemon0/", "/ROOT/"),
    (r"/\S*/dockerd0/data-root/", "/ROOT/"),
    (r"(volumes/[-P\w]+)/_data", r"\1"),
    (r"No such image: nosuch(:latest)?", "No such image: nosuch"),
)
OF_CP = slice(LINES.index("docker create --name P-cp busybox"), None)


def whole(host: str, prefix: str, lines: list[str], where: pathlib.Path) -> list[Said]:
    """Return the answers to lines of transcript.txt."""
    (where / "after.py").write_text(AFTER)
    own = {"DOCKER_HOST": host, "DOCKER_CONFIG": str(where), "HOME": str(where)}
    environment = {**os.environ, **own, "AFTER": f"{sys.executable} {where}/after.py"}
    said = []
    for answer in (say(line, newer_client(), prefix, environment) for line in lines):
        texts = [answer.out, answer.err]
        for pattern, word in OWN_PLACES:
            texts = [re.sub(pattern, word, text) for text in texts]
        said.append(Said(answer.status, *texts))
    return said


def test_the_lines_of_two_clients_are_the_same_to_two_daemons(
    both: tuple[str, str], tmp_path: pathlib.Path
) -> None:
    lines = LINES if SOAK else LINES[OF_CP][:15]
    prefixes = ("qqa", "qqb")
    places = [tmp_path / prefix for prefix in prefixes]
    for place in places:
        place.mkdir()
    try:
        with ThreadPoolExecutor(2) as pool:
            answers = pool.map(whole, both, prefixes, (lines, lines), places)
            ours, theirs = answers
    finally:
        for prefix in prefixes:
            subprocess.run(["sh", "-c", f"rm -rf /tmp/{prefix}-*"], check=True)
    differing = [
        f"{line}\n  dockerd {a}\n  ours    {b}"
        for line, a, b in zip(lines, theirs, ours, strict=True)
        if a != b and not SET_ASIDE.search(line)
    ]
    assert not differing, "\n".join(differing)
