"""The same lines through Docker's client and through ours, against one dockerd: texts and statuses.

A line of transcript.txt is for a shell; `docker` is the client and `P` the prefix of what this client
makes. Each line runs with Docker's client, then with ours; after `normal` both must have said the same.
A line that begins with `until docker` waits, with Docker's client in both cases. An empty line ends a part;
no part needs what another has made, and `P` is another prefix in each.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

TEXT = Path(__file__).with_name("transcript.txt").read_text(encoding="utf-8")
PARTS = [part.splitlines() for part in TEXT.strip().split("\n\n")]
LINES = [line for part in PARTS for line in part]


class Said(NamedTuple):
    """What a client answered."""

    status: int
    out: str
    err: str


NORMAL = [
    (r"\nexit status 1$", ""),  # network rm of 28.2 says it after its error
    (r"\bSRun '", "Run '"),  # a slip of 28.2
    (r"DEPRECATED: The legacy builder(.|\n)*?buildx/\n\n", ""),
    (r'time="\S+" level=error msg="Can.t .*\n', ""),
    (r"(?m)^(root +)(\d+ +){3}\S+ +\S+ +\S+", r"\1NUMBERS"),
    (r"(?m)^ *\d+ +(sh|sleep)$", r"N \1"),
    (r"\bmini_docker\b", "docker"),
    (r"\b[0-9a-f]{64}\b", "ID64"),
    (r"\b[0-9a-f]{12}\b", "ID12"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( \+\d{4} UTC|Z|[+-]\d\d:?\d\d)?", "MOMENT"),
    (r"(Less than a second|About (a|an) \w+|\d+ (second|minute|hour)s?)( ago)?", "AGE"),
    (r"(127\.0\.0\.1|0\.0\.0\.0|::):(32|49)\d{3}\b", r"\1:PORT"),
    (r'("HostPort": )"\d+"', r"\1PORT"),
    (r'("(Pid|SizeRw)": )\d+', r"\1N"),
    (r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC"),
    (r"172\.\d+\.\d+\.\d+", "ADDRESS"),
    (r"v\d\.\d\d/", "vN/"),
    (r" +", " "),
    (r"-{2,}", "--"),
]


def normal(text: str, prefix: str) -> str:
    """Return a text without what differs between two runs of one client."""
    text = text.replace(prefix, "P").replace(prefix.upper(), "P").replace(_subnet(prefix), ".P8.")
    for expression, word in NORMAL:
        text = re.sub(expression, word, text)
    return text.strip()


def _subnet(prefix: str) -> str:
    return f".{ord(prefix[-1]) % 10 + 1}8."


def line_for(line: str, client: str, prefix: str) -> str:
    """Return a line as one client is to run it."""
    line = re.sub(r"\bP-", f"{prefix}-", line).replace("'P a'", f"'{prefix} a'")
    line = line.replace(".P8.", _subnet(prefix))
    return re.sub(r"(^|\| |&& |\$AFTER \w+ \w+ )docker ", lambda m: f"{m[1]}{client} ", line)


def say(line: str, client: str, prefix: str, environment: dict[str, str]) -> Said:
    """Run a line, and return its answer in normal form."""
    done = subprocess.run(
        ["bash", "-c", line_for(line, client, prefix)],
        capture_output=True, text=True, env=environment, timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return Said(done.returncode, normal(done.stdout, prefix), normal(done.stderr, prefix))
