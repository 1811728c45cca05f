# Exported from notebooks/F_container_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/F_container_commands.ipynb#containers-module
"""The commands that look into a container and change it, and come back at once."""

from __future__ import annotations

import sys

from mini_docker.cli.client import container_path
from mini_docker.cli.command import Command, each
from mini_docker.cli.errors import CommandError, DaemonError
from mini_docker.cli.text import columns, host_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/F_container_commands.ipynb#lifecycle
SIGNAL = "-s, --signal string  Signal to send to the container\n"
TIMEOUT = """-t, --timeout int    Seconds to wait before killing the container
    --time int       The same, as Docker called it before 28
"""


def poster(verb: str) -> Callable[[Call, Parsed], int]:
    """Return a command that posts /containers/NAME/VERB for each word, with a signal and a timeout."""

    def post(call: Call, parsed: Parsed) -> int:
        query = {
            "signal": parsed.one("signal"),
            "t": parsed.one("timeout", parsed.one("time")),
        }

        def one(name: str) -> None:
            call.client.call("POST", f"{container_path(name)}/{verb}", query)
            print(name, flush=True)

        return each(parsed.words, one)

    return post


def wait(call: Call, parsed: Parsed) -> int:
    """Print the exit status of each container when it stops."""

    def one(name: str) -> None:
        print(call.client.json("POST", f"{container_path(name)}/wait")["StatusCode"], flush=True)

    return each(parsed.words, one)


def rename(call: Call, parsed: Parsed) -> int:
    """Give a container another name."""
    old, new = parsed.words
    if not old or not new:
        raise CommandError("Error: Neither old nor new names may be empty")
    try:
        call.client.call("POST", f"{container_path(old)}/rename", {"name": new})
    except DaemonError as error:
        text = f"{error}\nError: failed to rename container named {old}"
        raise CommandError(text) from None
    return 0


RM_FLAGS = """
-f, --force    Force the removal of a running container (uses SIGKILL)
-l, --link     Remove the specified link
-v, --volumes  Remove anonymous volumes associated with the container
"""


def rm(call: Call, parsed: Parsed) -> int:
    """Remove containers."""
    query = {"force": parsed.on("force"), "link": parsed.on("link"), "v": parsed.on("volumes")}

    def one(name: str) -> None:
        name = name.strip("/")
        if not name:
            raise CommandError("Container name cannot be empty")
        try:
            call.client.call("DELETE", container_path(name), query)
        except DaemonError as error:
            if not (parsed.on("force") and error.http_status == 404):
                raise
            print(error, file=sys.stderr)  # it is gone, which is what was wanted
            return
        print(name, flush=True)

    return each(parsed.words, one)


# %% notebooks/F_container_commands.ipynb#logs
LOGS_FLAGS = """
    --details       Show extra details provided to logs
-f, --follow        Follow log output
    --since string  Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
-n, --tail string   Number of lines to show from the end of the logs
-t, --timestamps    Show timestamps
    --until string  Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m")
"""


def logs(call: Call, parsed: Parsed) -> int:
    """Print what a container has written, each stream to its own."""
    from mini_docker.cli.moments import timestamp
    from mini_docker.cli.streams import Screen

    found = call.client.json("GET", f"{container_path(parsed.words[0])}/json")
    query = {
        "stdout": True,
        "stderr": True,
        "since": timestamp(parsed.one("since"), "since"),
        "until": timestamp(parsed.one("until"), "until"),
        "timestamps": parsed.on("timestamps"),
        "follow": parsed.on("follow"),
        "tail": parsed.one("tail"),
        "details": parsed.on("details"),
    }
    response = call.client.call("GET", f"/containers/{found['Id']}/logs", query)
    Screen(found["Config"]["Tty"]).show_all(response.pieces())
    return 0


# %% notebooks/F_container_commands.ipynb#look-inside
def top(call: Call, parsed: Parsed) -> int:
    """List a container's processes; words after its name go to ps(1)."""
    name, *words = parsed.words
    found = call.client.json("GET", f"{container_path(name)}/top", {"ps_args": " ".join(words)})
    lines = ["\t".join(row) for row in [found["Titles"], *(found["Processes"] or [])]]
    print(columns(lines, 20), end="")
    return 0


CHANGES = {0: "C", 1: "A", 2: "D"}


def diff(call: Call, parsed: Parsed) -> int:
    """Print what a container changed in its file system: A added, C changed, D deleted."""
    if not parsed.words[0]:
        raise CommandError("Container name cannot be empty")
    for change in call.client.json("GET", f"{container_path(parsed.words[0])}/changes") or []:
        print(CHANGES.get(change["Kind"], "?"), change["Path"])
    return 0


def port(call: Call, parsed: Parsed) -> int:
    """Print where a container's ports are to be found outside."""
    name, *wanted = parsed.words
    found = call.client.json("GET", f"{container_path(name)}/json")
    published = (found["NetworkSettings"].get("Ports") or {}).items()
    if not wanted:
        lines = [
            f"{inside} -> {_outside(at)}" for inside, places in published for at in places or []
        ]
        print("".join(f"{line}\n" for line in sorted(lines, key=_port_order)), end="")
        return 0
    number, slash, kind = wanted[0].partition("/")
    from mini_docker.cli.ties import port_range

    if not port_range(number):
        reason = f'strconv.ParseUint: parsing "{number}": invalid syntax'
        raise CommandError(f"Error: invalid port ({number}): {reason}")
    key = f"{number}/{kind or 'tcp'}"
    places = dict(published).get(key)
    if not places:
        raise CommandError(f"Error: No public port '{wanted[0]}' published for {name}")
    print("".join(f"{_outside(at)}\n" for at in places), end="")
    return 0


def _outside(place: Mapping[str, str]) -> str:
    return host_port(place["HostIp"], place["HostPort"])


def _port_order(line: str) -> tuple[int, str]:
    return int(line.partition("/")[0]), line


# %% notebooks/F_container_commands.ipynb#change
UPDATE_FLAGS = """
    --blkio-weight uint16       Block IO (relative weight), between 10 and 1000, or 0 to disable
    --cpu-period int            Limit CPU CFS (Completely Fair Scheduler) period
    --cpu-quota int             Limit CPU CFS (Completely Fair Scheduler) quota
    --cpu-rt-period int         Limit the CPU real-time period in microseconds
    --cpu-rt-runtime int        Limit the CPU real-time runtime in microseconds
-c, --cpu-shares int            CPU shares (relative weight)
    --cpus decimal              Number of CPUs
    --cpuset-cpus string        CPUs in which to allow execution (0-3, 0,1)
    --cpuset-mems string        MEMs in which to allow execution (0-3, 0,1)
    --kernel-memory bytes       Kernel memory limit (gone from Linux: the daemon warns)
-m, --memory bytes              Memory limit
    --memory-reservation bytes  Memory soft limit
    --memory-swap bytes         Swap limit equal to memory plus swap: -1 to enable unlimited swap
    --pids-limit int            Tune container pids limit (set -1 for unlimited)
    --restart string            Restart policy to apply when a container exits
"""


def update(call: Call, parsed: Parsed) -> int:
    """Change limits and the restart policy of containers, running or not."""
    if not parsed.values:
        raise CommandError("you must provide one or more flags when using this command")
    from mini_docker.cli.create import resources, restart_policy

    body = resources(parsed)
    if parsed.one("restart"):
        body["RestartPolicy"] = restart_policy(parsed.one("restart"))

    def one(name: str) -> None:
        found = call.client.json("POST", f"{container_path(name)}/update", None, body)
        print(name)
        for warning in found.get("Warnings") or []:
            print(warning)

    return each(parsed.words, one)


COMMIT_FLAGS = """
-a, --author string   Author (e.g., "John Hannibal Smith <hannibal@a-team.com>")
-c, --change list     Apply Dockerfile instruction to the created image
-m, --message string  Commit message
-p, --pause           Pause container during commit (default true)
"""


def commit(call: Call, parsed: Parsed) -> int:
    """Make an image of a container's changes, and print its id."""
    from mini_docker.cli.images import name_and_tag

    name, *reference = parsed.words
    repository, tag = name_and_tag(reference[0]) if reference else ("", "")
    query = {
        "container": name,
        "repo": repository,
        "tag": tag,
        "comment": parsed.one("message"),
        "author": parsed.one("author"),
        "changes": parsed.all("change"),
        "pause": "1" if parsed.on("pause", True) else "0",
    }
    print(call.client.json("POST", "/commit", query, {})["Id"])
    return 0


# %% notebooks/F_container_commands.ipynb#containers-table
CONTAINERS = "CONTAINER [CONTAINER...]"
WITH_OPTIONS = f"[OPTIONS] {CONTAINERS}"
COMMANDS: tuple[Command, ...] = (
    Command(
        "stop",
        WITH_OPTIONS,
        "Stop one or more running containers",
        SIGNAL + TIMEOUT,
        poster("stop"),
        1,
        None,
        ("stop -t 2 web",),
    ),
    Command(
        "restart",
        WITH_OPTIONS,
        "Restart one or more containers",
        SIGNAL + TIMEOUT,
        poster("restart"),
        1,
        None,
        ("restart web",),
    ),
    Command(
        "kill",
        WITH_OPTIONS,
        "Kill one or more running containers",
        SIGNAL,
        poster("kill"),
        1,
        None,
        ("kill -s HUP web",),
    ),
    Command(
        "pause",
        CONTAINERS,
        "Pause all processes within one or more containers",
        "",
        poster("pause"),
        1,
        None,
        ("pause web",),
    ),
    Command(
        "unpause",
        CONTAINERS,
        "Unpause all processes within one or more containers",
        "",
        poster("unpause"),
        1,
        None,
        ("unpause web",),
    ),
    Command(
        "wait",
        CONTAINERS,
        "Block until one or more containers stop, then print their exit codes",
        "",
        wait,
        1,
        None,
        ("wait job",),
    ),
    Command(
        "rename",
        "CONTAINER NEW_NAME",
        "Rename a container",
        "",
        rename,
        2,
        2,
        ("rename web old-web",),
    ),
    Command(
        "rm",
        WITH_OPTIONS,
        "Remove one or more containers",
        RM_FLAGS,
        rm,
        1,
        None,
        ("rm -f web", "rm $(mini_docker ps -aq)"),
    ),
    Command(
        "logs",
        "[OPTIONS] CONTAINER",
        "Fetch the logs of a container",
        LOGS_FLAGS,
        logs,
        1,
        1,
        ("logs -f --tail 10 web", "logs --since 5m web"),
    ),
    Command(
        "top",
        "CONTAINER [ps OPTIONS]",
        "Display the running processes of a container",
        "",
        top,
        1,
        None,
        ("top web", "top web -o pid,args"),
        False,
    ),
    Command(
        "diff",
        "CONTAINER",
        "Inspect changes to files or directories on a container's filesystem",
        "",
        diff,
        1,
        1,
        ("diff web",),
    ),
    Command(
        "port",
        "CONTAINER [PRIVATE_PORT[/PROTO]]",
        "List port mappings or a specific mapping for the container",
        "",
        port,
        1,
        2,
        ("port web 80/tcp",),
    ),
    Command(
        "update",
        WITH_OPTIONS,
        "Update configuration of one or more containers",
        UPDATE_FLAGS,
        update,
        1,
        None,
        ("update -m 64m --memory-swap 64m web",),
    ),
    Command(
        "commit",
        "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
        "Create a new image from a container's changes",
        COMMIT_FLAGS,
        commit,
        1,
        2,
        ("commit -m 'with my file' web web:mine",),
    ),
)
