# Exported from notebooks/E_registry_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/E_registry_tools.ipynb#commands-module
"""The commands about registries: pull, push, login, logout, search, tag."""

from __future__ import annotations

import sys

from mini_docker.cli.errors import CommandError
from mini_docker.cli.flags import Flag, Parsed, UsageError
from mini_docker.cli.inprocess import open_engine, option, read, switch
from mini_docker.cli.progress import Display
from mini_docker.cli.text import columns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO, TypeVar

    from mini_docker.engine.store import Store
    from mini_docker.images.layout import Descriptor
    from mini_docker.images.reference import Reference
    from mini_docker.registry.credentials import Login

    Result = TypeVar("Result")


# %% notebooks/E_registry_tools.ipynb#command-pull
PLATFORM = option("platform", "string", "Set platform if server is multi-platform capable")
QUIET = switch("quiet", "Suppress verbose output", "q")


def words_of(
    name: str, words: str, flags: tuple[Flag, ...], arguments: list[str], least: int, most: int
) -> Parsed | None:
    """Parse a command's arguments, of which there must be `least` to `most`. Raises UsageError."""
    parsed = read(name, words, flags, arguments)
    if parsed is None or least <= len(parsed.words) <= most:
        return parsed
    kind = "exactly" if least == most else "at least" if len(parsed.words) < least else "at most"
    count = least if len(parsed.words) < least else most
    raise UsageError(f"'mini_docker {name}' requires {kind} {count} argument{'s' * (count != 1)}")


def reference_of(text: str) -> Reference:
    """Return what an image name means. Raises CommandError in Docker's words."""
    from mini_docker.images.reference import InvalidReference, parse_reference

    try:
        return parse_reference(text)
    except InvalidReference as error:
        raise CommandError(str(error)) from None


def has_version(text: str) -> bool:
    """Return whether an image name has a tag or a digest."""
    return "@" in text or ":" in text.rpartition("/")[2]


def command_pull(data_root: str, arguments: list[str]) -> int:
    """Download an image, or with --all-tags all images of a repository."""
    every = switch("all-tags", "Download all tagged images in the repository", "a")
    flags = (every, PLATFORM, QUIET)
    parsed = words_of("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", flags, arguments, 1, 1)
    if parsed is None:
        return 0
    name, stream = parsed.words[0], None if parsed.on("quiet") else sys.stdout
    reference = reference_of(name)
    if parsed.on("all-tags") and has_version(name):
        raise CommandError("tag can't be used with --all-tags/-a")
    store = open_engine(data_root).store
    if parsed.on("all-tags"):
        from mini_docker.registry.queries import tags

        references = [reference._replace(tag=tag) for tag in attempt(lambda: tags(reference))]
    else:
        references = [reference]
        if stream and not has_version(name):
            print("Using default tag: latest")
    for one in references:
        pull_image(store, one, parsed.one("platform") or None, stream)
    print(reference.repository() if parsed.on("all-tags") else reference.canonical())
    return 0


def attempt(action: Callable[[], Result]) -> Result:
    """Return what `action` does; its errors become the user's one line, as of Docker's daemon."""
    from mini_docker.images.layout import ImageError

    try:
        return action()
    except ImageError as error:
        raise CommandError(f"Error response from daemon: {error}") from None


def pull_image(
    store: Store, reference: Reference, platform: str | None, stream: TextIO | None
) -> None:
    """Download and unpack an image, showing on `stream` how it goes. Raises CommandError."""
    from mini_docker.images.child import unpack_beside
    from mini_docker.registry.pull import pull
    from mini_docker.registry.settings import load_settings

    def unpack(layer: Descriptor, diff_id: str) -> None:
        unpack_beside(store.layout, layer, diff_id, f"{store.root}/layers")

    def start() -> None:
        store.layout.create()
        pull(
            store.layout,
            reference,
            platform=platform,
            settings=load_settings(),
            progress=Display(stream) if stream else ignore,
            unpack=unpack,
        )

    attempt(start)


def ignore(message: dict[str, Any]) -> None:
    """Show nothing of a progress message."""


# %% notebooks/E_registry_tools.ipynb#command-push
def command_push(data_root: str, arguments: list[str]) -> int:
    """Upload an image, or with --all-tags all images of a repository."""
    every = switch("all-tags", "Push all tags of an image to the repository", "a")
    parsed = words_of("push", "[OPTIONS] NAME[:TAG]", (every, QUIET), arguments, 1, 1)
    if parsed is None:
        return 0
    name, stream = parsed.words[0], None if parsed.on("quiet") else sys.stdout
    reference = reference_of(name)
    if parsed.on("all-tags") and has_version(name):
        raise CommandError("tag can't be used with --all-tags/-a")
    store = open_engine(data_root).store
    references = [reference]
    if parsed.on("all-tags"):
        prefix = f"{reference.familiar_repository()}:"
        names = [known for known in store.layout.names() if known.startswith(prefix)]
        references = [reference_of(known) for known in names]
        if not references:
            repository = reference.familiar_repository()
            raise CommandError(f"An image does not exist locally with the tag: {repository}")
    elif stream and not has_version(name):
        print("Using default tag: latest")
    for one in references:
        push_image(store, one, stream)
    if not stream:
        print(reference.canonical())
    return 0


def push_image(store: Store, reference: Reference, stream: TextIO | None) -> None:
    """Upload an image, showing on `stream` how it goes. Raises CommandError."""
    from mini_docker.registry.push import push
    from mini_docker.registry.settings import load_settings

    display = Display(stream) if stream else ignore
    attempt(lambda: push(store.layout, reference, settings=load_settings(), progress=display))


def command_tag(data_root: str, arguments: list[str]) -> int:
    """Give an image another name."""
    parsed = words_of("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", (), arguments, 2, 2)
    if parsed is None:
        return 0
    source, target = map(reference_of, parsed.words)
    if target.digest:
        raise CommandError("refusing to create a tag with a digest reference")
    layout = open_engine(data_root).store.layout

    def start() -> None:
        from mini_docker.registry.push import find

        layout.tag(target.familiar(), find(layout, source))

    attempt(start)
    return 0


# %% notebooks/E_registry_tools.ipynb#command-login
WARNING = """WARNING! Your password will be stored unencrypted in {path}.
Configure a credential helper to remove this warning. See
https://docs.docker.com/engine/reference/commandline/login/#credential-stores
"""


def command_login(data_root: str, arguments: list[str]) -> int:
    """Log in to a registry; without one, to Docker Hub."""
    flags = (
        option("username", "string", "Username", "u"),
        option("password", "string", "Password", "p"),
        switch("password-stdin", "Take the password from stdin"),
    )
    parsed = words_of("login", "[OPTIONS] [SERVER]", flags, arguments, 0, 1)
    if parsed is None:
        return 0
    from mini_docker.registry.account import login
    from mini_docker.registry.credentials import Credentials
    from mini_docker.registry.settings import load_settings

    domain = domain_of(parsed)
    who, credentials = ask_login(parsed), Credentials()
    where = attempt(lambda: login(domain, who, credentials, load_settings()))
    if where == credentials.path:
        print(WARNING.format(path=where), file=sys.stderr)
    print("Login Succeeded")
    return 0


def domain_of(parsed: Parsed) -> str:
    """Return the registry that is named on the command line, which may be written as a URL."""
    from mini_docker.images.reference import DEFAULT_DOMAIN, OLD_DOMAIN

    given = parsed.words[0] if parsed.words else DEFAULT_DOMAIN
    domain = given.partition("://")[2] or given
    domain = domain.partition("/")[0]
    return DEFAULT_DOMAIN if domain == OLD_DOMAIN else domain


def ask_login(parsed: Parsed) -> Login:
    """Return user and password from flags, stdin or the terminal. Raises CommandError."""
    from mini_docker.registry.credentials import Login

    user, password = parsed.one("username"), parsed.one("password")
    if parsed.on("password-stdin"):
        if password:
            raise CommandError("--password and --password-stdin are mutually exclusive")
        if not user:
            raise CommandError("Must provide --username with --password-stdin")
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    elif password:
        warning = "WARNING! Using --password via the CLI is insecure. Use --password-stdin."
        print(warning, file=sys.stderr)
    elif not sys.stdin.isatty():
        raise CommandError("Error: Cannot perform an interactive login from a non TTY device")
    else:
        from getpass import getpass

        user = user or input("Username: ").strip()
        password = getpass("Password: ")
    if not user or not password:
        raise CommandError("Error: Username and password are both required")
    return Login(user, password)


def command_logout(data_root: str, arguments: list[str]) -> int:
    """Forget a login."""
    parsed = words_of("logout", "[SERVER]", (), arguments, 0, 1)
    if parsed is None:
        return 0
    from mini_docker.registry.credentials import Credentials, key_of

    domain = domain_of(parsed)
    if attempt(lambda: Credentials().remove(domain)):
        print(f"Removing login credentials for {key_of(domain)}")
    else:
        print(f"Not logged in to {key_of(domain)}")
    return 0


# %% notebooks/E_registry_tools.ipynb#command-search
LONGEST_DESCRIPTION = 45


def command_search(data_root: str, arguments: list[str]) -> int:
    """Search a registry for images: TERM, or REGISTRY/TERM."""
    flags = (
        option("limit", "int", "Max number of search results"),
        switch("no-trunc", "Don't truncate output"),
    )
    parsed = words_of("search", "[OPTIONS] TERM", flags, arguments, 1, 1)
    if parsed is None:
        return 0
    from mini_docker.registry.queries import search
    from mini_docker.registry.settings import load_settings

    term, limit = parsed.words[0], parsed.one("limit", "25")
    if not limit.isdigit() or not 1 <= int(limit) <= 100:
        raise CommandError(
            f"Error response from daemon: Limit {limit} is outside the range of [1, 100]"
        )
    found = attempt(lambda: search(term, int(limit), settings=load_settings()))
    rows = []
    for one in found:
        about = " ".join(one.description.split())
        if not parsed.on("no-trunc") and len(about) > LONGEST_DESCRIPTION:
            about = about[: LONGEST_DESCRIPTION - 1] + "…"
        rows.append((one.name, about, str(one.stars), "[OK]" if one.official else ""))
    lines = ["\t".join(row) for row in (("NAME", "DESCRIPTION", "STARS", "OFFICIAL"), *rows)]
    print(columns(lines), end="")
    return 0
