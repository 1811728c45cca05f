"""Runs docker-compose many times in one start of Python: its imports cost a second, a child costs little.

Commands are lines of standard input, `NAME=value` in front of them as for a shell; what each said, with its
status, is a list in JSON on standard output.
"""

import json
import os
import shlex
import sys
import tempfile
from typing import Any

from compose.cli.main import main  # type: ignore[import-not-found]


def run(words: list[str]) -> list[Any]:
    """Return the status of a command and what it has said, stdout and stderr apart."""
    files = [tempfile.TemporaryFile() for _ in range(2)]
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            os.environ[name] = value
        sys.argv = ["docker-compose", *words]
        sys.exit(main())
    said: list[Any] = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
    for file in files:
        file.seek(0)
        said.append(file.read().decode(errors="replace"))
    return said


json.dump([run(shlex.split(line)) for line in sys.stdin.read().splitlines()], sys.stdout)
