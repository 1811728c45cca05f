# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#orders-module
"""What a daemon and a shim say to each other: the order, the first word, requests."""

from __future__ import annotations

import json
import os
import socket
from errno import ENOENT, ENOTDIR

from mini_docker.engine.accidents import sentence
from mini_docker.engine.attached import CHUNK
from mini_docker.engine.document import MINIMUM_MEMORY, InvalidRequest
from mini_docker.engine.log_options import log_options
from mini_docker.engine.store import LIFE, Conflict
from mini_docker.engine.wishes import check_wishes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


# %% notebooks/14f_states.ipynb#orders
def order_of(record: dict[str, Any], directory: str) -> dict[str, Any]:
    """Return what a shim must know of a container whose files are in `directory`. Raises InvalidRequest."""
    config = record["Config"]
    return {
        "socket": "shim.sock",
        "life": LIFE,
        "terminal": bool(config.get("Tty")),
        "stdin": bool(config.get("OpenStdin")),
        "once": bool(config.get("StdinOnce")),
        "size": record["HostConfig"].get("ConsoleSize") or [0, 0],
        "log": log_options(record, directory),
    }


# %% notebooks/14f_states.ipynb#first-word
class StartFailed(Exception):
    """A container that did not start; `about_command` says whether its command was to blame."""

    def __init__(self, text: str, about_command: bool, code: int) -> None:
        """Keep the text, who is to blame, and the exit code that Docker records."""
        super().__init__(text)
        self.about_command = about_command
        self.code = code


# What is asked for, its name, and what is set already and speaks of the same thing
CPU_CONFLICTS = (
    ("NanoCpus", "Nano CPUs", "CpuPeriod", "CPU Period"),
    ("NanoCpus", "Nano CPUs", "CpuQuota", "CPU Quota"),
    ("CpuPeriod", "CPU Period", "NanoCpus", "NanoCPUs"),
    ("CpuQuota", "CPU Quota", "NanoCpus", "NanoCPUs"),
)


def check_update(record: dict[str, Any], limits: dict[str, Any]) -> None:
    """Refuse new limits that do not go with the old ones, or with this machine.

    Raises Conflict, InvalidRequest.
    """
    try:
        check_wishes(limits)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    policy = (limits.get("RestartPolicy") or {}).get("Name") or "no"
    if policy != "no" and record["HostConfig"].get("AutoRemove"):
        words = "Restart policy cannot be updated because AutoRemove is enabled for the container"
        raise Conflict(f"Cannot update container {record['Id']}: {words}")
    host = record["HostConfig"]
    for ours, name, theirs, other in CPU_CONFLICTS:
        if limits.get(ours) and host.get(theirs):
            words = f"Conflicting options: {name} cannot be updated as {other} has already been set"
            raise Conflict(f"Cannot update container {record['Id']}: {words}")
    swap = host.get("MemorySwap") or 0
    if limits.get("Memory", 0) > max(swap, MINIMUM_MEMORY) and not limits.get("MemorySwap"):
        words = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap"
        raise Conflict(f"Cannot update container {record['Id']}: {words} at the same time")


MOUNT_HINT = (
    "Are you trying to mount a directory onto a file (or vice-versa)? "
    "Check if the specified host path exists and is the expected type"
)


DIED = b'{"error": "the shim died in set-up", "errno": 0}'


def first_word(lifeline: socket.socket, what: str = "create failed") -> dict[str, Any]:
    """Return what a shim says first. Raises StartFailed with Docker's words."""
    lifeline.setblocking(False)  # `fork_shim` has waited for it
    try:
        data = lifeline.recv(CHUNK)
    except OSError:
        data = b""
    word: dict[str, Any] = json.loads(data or DIED)
    if "pid" in word:
        return word
    lifeline.close()
    raise failure(word, what)


def not_planned(error: Exception, what: str = "create failed") -> StartFailed:
    """Return the failure of a start whose plan could not be made, as if a shim had said so."""
    return failure({"error": f"set-up: {sentence(error)}", "errno": 0}, what)


def failure(word: dict[str, Any], what: str) -> StartFailed:
    """Return what a shim's word about a start that failed means, in Docker's words."""
    about_command = bool(word.get("about_command"))
    code = (127 if word["errno"] in (ENOENT, ENOTDIR) else 126) if about_command else 128
    if about_command:  # runc's word, by which the client chooses 126
        word["error"] = word["error"].replace(": is a directory", ": permission denied")
    text, more = f"OCI runtime {what}: runc {what}: unable to start container process", ""
    if what == "create failed":
        text = f"failed to create shim task: {text}"
    else:
        text = text.replace("runc ", "")
    if word["errno"] == ENOTDIR and "mounted on" in word["error"]:  # the client's fault, too
        about_command, code, more = True, 127, f": {MOUNT_HINT}"
        # "is a directory" would be 126 to the client: a command that is none
        word["error"] = word["error"].replace(" is a directory, and", " is no file, and")
    return StartFailed(f"{text}: {word['error']}: unknown{more}", about_command, code)


# %% notebooks/14f_states.ipynb#ask-shim
ANSWER_SECONDS = 10.0


def ask_shim(
    directory: str, name: str, request: dict[str, Any], fds: tuple[int, ...] = ()
) -> socket.socket:
    """Send a request to the shim that listens at `name` in `directory`; return the connection.

    For all but "watch" the answer has come by then. Raises OSError where no shim listens.
    """
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(ANSWER_SECONDS)
            # a path has 107 bytes at most
            connection.connect(f"/proc/self/fd/{directory_fd}/{name}")
            socket.send_fds(connection, [json.dumps(request).encode()], fds)
            answer = json.loads(connection.recv(CHUNK) or b'{"error": "the shim has ended"}')
            if "error" in answer:
                raise OSError(3, answer["error"])
            connection.settimeout(None)
            return connection
        except BaseException:
            connection.close()
            raise
    finally:
        os.close(directory_fd)
