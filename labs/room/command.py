"""The command `labs/registry`: start, stop, status."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from labs.room.room import Room, Trouble

STATE = "/var/lib/mini_docker-room"
ABOUT = """A real registry (Debian's docker-registry) with the lab's images in it: busybox, and a minimal
Debian that mmdebstrap makes once from this machine's apt. "stop" leaves nothing but the cache .cache/room.

  labs/registry start                       open, for this machine alone
  labs/registry start --address 0.0.0.0     open, for everybody in the room
  labs/registry start --address 0.0.0.0 --tls --user ada    with a certificate and a password
  labs/registry stop"""


def main(arguments: Sequence[str]) -> int:
    """Run `labs/registry ARGUMENTS...` and return the exit status."""
    parsed = _parser().parse_args(arguments)
    try:
        room = Room(Path(os.environ.get("MINI_DOCKER_ROOM") or STATE))
        if parsed.command == "start":
            images = parsed.images.split(",")
            room.start(parsed.port, parsed.address, parsed.tls, parsed.user, images)
        elif parsed.command == "stop":
            room.stop()
        print("\n".join(room.status()))
    except Trouble as error:
        print(f"labs/registry: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("labs/registry", description=ABOUT, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    start = commands.add_parser("start", help="start it; one that runs is stopped first")
    start.add_argument("--port", type=int, default=5000, help="5000")
    start.add_argument("--address", default="127.0.0.1", help="where to listen: 127.0.0.1")
    start.add_argument("--tls", action="store_true", help="with a certificate of a CA of its own")
    start.add_argument("--user", default="", help="with a login; the password is made up and shown")
    start.add_argument("--images", default="busybox,debian", help="busybox,debian")
    commands.add_parser("stop", help="stop it and remove its data")
    commands.add_parser("status", help="say what runs, and how to use it")
    return parser
