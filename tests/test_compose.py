"""docker-compose 1.29 with a web server and a database: dockerd and ours do and say the same.

tests/compose/lines.txt has the commands. The lines of their output are sorted: compose starts and stops
several containers at a time. NORMAL rewrites what two machines cannot have in common.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import cannot_run_here
from tests.daemons import CLIENT, Daemon

pytestmark = [pytest.mark.root, pytest.mark.peers, pytest.mark.usefixtures("leak_free")]

FOLDER = Path(__file__).with_name("compose")
LINES = (FOLDER / "lines.txt").read_text(encoding="utf-8").splitlines()
PYTHON = "/usr/bin/python3"  # Debian's compose is one of its packages
WEB = 'CMD ["sh", "-c", "echo serving; httpd -f -p 80 -h /www"]'
DATABASE = 'CMD ["sh", "-c", "while true; do echo row | nc -l -p 5432; done"]'
IMAGES = f"""
set -e
D={CLIENT}
$D create --name seed busybox true
$D commit -c '{WEB}' -c 'EXPOSE 80' -c 'WORKDIR /www' seed web:1
$D commit -c '{DATABASE}' -c 'VOLUME /var/lib/db' -c 'EXPOSE 5432' seed db:1
$D rm seed
"""
NORMAL = (
    (r"\r", "\n"),
    (r"(0\.0\.0\.0:)\d+(->80/tcp)(,:::\d+->80/tcp)?", r"\1PORT\2"),
    (r"(0\.0\.0\.0:)\d+$", r"\1PORT"),
    (r"(?m)^root +\d+ +\d+ +\S+ +\S+ +\S+ +\S+ +", "root "),  # of top
    (r"/\S*/(ours|theirs)/", "/HERE/"),
    (r"shop_web_run_\w+|shop_web_\w+_run", "RUN"),
    (r"\(health: starting\)", "(healthy)"),  # after `start`, until it has looked
    (r" {2,}", " "),
    (r"-{2,}", "--"),
)


def normal(text: str) -> list[str]:
    """Return the lines of a text without what differs between two machines, sorted."""
    for expression, word in NORMAL:
        text = re.sub(expression, word, text)
    return sorted(" ".join(sorted(line.split(", "))).strip() for line in text.splitlines())


def play(host: str, where: Path) -> list[tuple[str, int, list[str], list[str]]]:
    """Return the commands with their statuses and what they said."""
    shutil.copytree(FOLDER, where)
    (where / "www").mkdir()
    (where / "www" / "index.html").write_text("a page\n")
    own = {"DOCKER_HOST": host, "DOCKER_CONFIG": str(where)}
    environment = {
        **os.environ,
        **own,
        "COMPOSE_PROJECT_NAME": "shop",
        "COMPOSE_HTTP_TIMEOUT": "240",
    }
    subprocess.run(["sh", "-c", IMAGES], env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [PYTHON, str(where / "many.py")], input="\n".join(LINES), env=environment, cwd=where,
        capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    answers = zip(LINES, json.loads(done.stdout), strict=True)
    return [(line, status, normal(out), normal(err)) for line, (status, out, err) in answers]


def test_compose_says_and_does_the_same(
    daemon: Daemon, both: tuple[str, str], tmp_path: Path
) -> None:
    if shutil.which("docker-compose") is None:
        cannot_run_here("there is no docker-compose (remedy: labs/provision.sh --peers)")
    with ThreadPoolExecutor(2) as pool:
        ours, theirs = pool.map(play, both, (tmp_path / "ours", tmp_path / "theirs"))
    differing = [f"dockerd {a}\n  ours {b}" for a, b in zip(theirs, ours, strict=True) if a != b]
    assert not differing, "\n".join(differing)
    by_line = {line: (status, out) for line, status, out, _ in ours}
    assert all(by_line[line][0] == 0 for line in ("config", "up -d", "down -v --remove-orphans"))
    assert by_line["exec -T db cat /var/lib/db/name"] == (0, ["first"]), "a volume is kept"
    assert "row" in by_line[LINES[5]][1], "the web server reaches the database by its alias"
    left = [daemon.ask("GET", f"/{what}")[1] for what in ("volumes", "containers/json?all=1")]
    assert left[0]["Volumes"] in ([], None) and left[1] == []
