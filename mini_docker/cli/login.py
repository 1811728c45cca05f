# Exported from notebooks/G_object_commands.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/G_object_commands.ipynb#login-module
"""login, logout and search: what concerns a registry and no image yet."""

from __future__ import annotations

import os
import sys

from mini_docker.cli.client import filters, parse_json
from mini_docker.cli.command import FILTER, Command
from mini_docker.cli.errors import CommandError
from mini_docker.cli.listing import rendered
from mini_docker.cli.text import ellipsis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mini_docker.cli.command import Call
    from mini_docker.cli.flags import Parsed


# %% notebooks/G_object_commands.ipynb#login
LOGIN_FLAGS = """
-p, --password string  Password or Personal Access Token (PAT)
    --password-stdin   Take the Password or Personal Access Token (PAT) from stdin
-u, --username string  Username
"""


def login(call: Call, parsed: Parsed) -> int:
    """Let the daemon ask a registry whether it knows us, and keep what it knows us by."""
    from mini_docker.cli.credentials import HUB, store_credentials

    server = (
        parsed.words[0].removeprefix("https://").removeprefix("http://") if parsed.words else HUB
    )
    user, secret = _typed(parsed)
    body = {"username": user, "password": secret, "serveraddress": server}
    found = call.client.json("POST", "/auth", None, body) or {}
    warning = store_credentials(
        call.directory, server, body | {"identitytoken": found.get("IdentityToken", "")}
    )
    if warning:
        print(warning, file=sys.stderr)
    print(found.get("Status") or "Login Succeeded")
    return 0


def _typed(parsed: Parsed) -> tuple[str, str]:
    """Return user name and password from the flags, or as the user types them."""
    user, secret = parsed.one("username"), parsed.one("password")
    if parsed.on("password-stdin"):
        if parsed.given("password"):
            raise CommandError(
                "conflicting options: cannot specify both --password and --password-stdin"
            )
        if not user:
            raise CommandError("Must provide --username with --password-stdin")
        return user, sys.stdin.read().rstrip("\r\n")
    if secret:
        print(
            "WARNING! Using --password via the CLI is insecure. Use --password-stdin.",
            file=sys.stderr,
        )
    if (not user or not secret) and not os.isatty(0):
        raise CommandError("Error: Cannot perform an interactive login from a non TTY device")
    if not user:
        user = input("Username: ").strip()
    if not secret:
        from getpass import getpass

        secret = getpass("Password: ")
    if not user or not secret:
        raise CommandError("Error: Non-null Username and Password required")
    return user, secret


def logout(call: Call, parsed: Parsed) -> int:
    """Forget what a registry knows us by."""
    from mini_docker.cli.credentials import HUB, forget_credentials

    server = (
        parsed.words[0].removeprefix("https://").removeprefix("http://") if parsed.words else HUB
    )
    print(f"Removing login credentials for {server}")
    forget_credentials(call.directory, server)
    return 0


# %% notebooks/G_object_commands.ipynb#search
SEARCH_FLAGS = f"""
{FILTER}
    --format string   Format output with a Go template, or as 'table', 'table TEMPLATE' or 'json'
    --limit int       Max number of search results
    --no-trunc        Don't truncate output
"""
SEARCH_HEADS = {
    "Name": "NAME",
    "Description": "DESCRIPTION",
    "StarCount": "STARS",
    "IsOfficial": "OFFICIAL",
    "IsAutomated": "AUTOMATED",
}


def search(call: Call, parsed: Parsed) -> int:
    """Search a registry for images, through the daemon, as whom config.json names there."""
    from mini_docker.cli.credentials import registry_header

    query = {
        "term": parsed.words[0],
        "limit": parsed.number("limit") or None,
        "filters": filters(parsed.all("filter")) or None,
    }
    header = registry_header(call.directory, parsed.words[0])
    found = parse_json(call.client.call("GET", "/images/search", query, None, header).read()) or []
    usual = "table {{.Name}}\t{{.Description}}\t{{.StarCount}}\t{{.IsOfficial}}"
    rows = [
        {
            "Name": one.get("name", ""),
            "Description": _one_line(one.get("description", ""), parsed.on("no-trunc")),
            "StarCount": str(one.get("star_count", 0)),
            "IsOfficial": "[OK]" if one.get("is_official") else "",
            "IsAutomated": "[OK]" if one.get("is_automated") else "",
        }
        for one in found
    ]
    print(
        rendered(parsed.one("format"), rows, SEARCH_HEADS, "*formatter.SearchContext", usual),
        end="",
    )
    return 0


def _one_line(text: str, whole: bool) -> str:
    line = text.replace("\n", " ").replace("\r", " ")
    return line if whole else ellipsis(line, 45)


# %% notebooks/G_object_commands.ipynb#login-table
COMMANDS: tuple[Command, ...] = (
    Command(
        "login",
        "[OPTIONS] [SERVER]",
        "Authenticate to a registry",
        LOGIN_FLAGS,
        login,
        0,
        1,
        ("login -u me localhost:5000",),
    ),
    Command(
        "logout",
        "[SERVER]",
        "Log out from a registry",
        "",
        logout,
        0,
        1,
        ("logout localhost:5000",),
    ),
    Command(
        "search",
        "[OPTIONS] TERM",
        "Search a registry for images",
        SEARCH_FLAGS,
        search,
        1,
        1,
        ("search busybox --limit 5",),
    ),
)
