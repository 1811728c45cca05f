# Exported from notebooks/19c_a_client_by_hand.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19c_a_client_by_hand.ipynb#context-module
"""Where the daemon is: -H, DOCKER_HOST, contexts, config.json; and the connected socket."""

from __future__ import annotations

import _socket  # the C half: the Python half imports enum
import os

from mini_docker.cli.errors import CommandError
from mini_docker.cli.jsontext import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Mapping, Sequence
    from typing import Any

    Given = Mapping[str, Sequence[str]]  # flags before the command, by long name


class Endpoint:
    """Where a daemon is, and how it is spoken to."""

    def __init__(
        self, host: str, tls: tuple[str, ...], verify: bool, context: str, root: str = ""
    ) -> None:
        """Keep the address, the TLS files (ca, cert, key) or (), are they checked?, and the context.

        `root` where nobody named a daemon: that of this data root is meant, and started if need be.
        """
        self.host = host
        self.tls = tls
        self.verify = verify
        self.context = context
        self.root = root


# %% notebooks/19c_a_client_by_hand.ipynb#context-choice
DEFAULT_ROOT = "/var/lib/mini_docker"
ROOT_VARIABLE = "MINI_DOCKER_ROOT"
DEFAULT_HOST = "unix:///run/mini_docker.sock"
DEFAULT_CONTEXT = "default"
LONGEST_PATH = 107  # bytes of a socket's name, unix(7)
TLS_FILES = ("ca", "cert", "key")


def last(given: Given, name: str, default: str = "") -> str:
    """Return the last value of a flag, or the default."""
    return given[name][-1] if given.get(name) else default


def config_directory(given: Given) -> str:
    """Return the directory of config.json: --config, DOCKER_CONFIG, or ~/.docker."""
    home = os.path.expanduser("~/.docker")
    return last(given, "config") or os.environ.get("DOCKER_CONFIG", "") or home


def load_config(directory: str) -> dict[str, Any]:
    """Return config.json; what is not there is empty. Raises CommandError when it cannot be read."""
    path = f"{directory}/config.json"
    try:
        with open(path, "rb") as file:
            config = loads(file.read())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandError(f"Error loading config file: {path}: {error}") from None
    if not isinstance(config, dict):
        raise CommandError(f"Error loading config file: {path}: not an object")
    return config


def save_config(directory: str, config: dict[str, Any]) -> None:
    """Write config.json whole or not at all, readable by its owner only: it may hold passwords."""
    import json

    os.makedirs(directory, mode=0o700, exist_ok=True)
    temporary = f"{directory}/config.json.{os.getpid()}"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(config, file, indent="\t")
        file.write("\n")
    os.replace(temporary, f"{directory}/config.json")


def data_root(given: Given) -> str:
    """Return where the daemon keeps images and containers: --data-root, MINI_DOCKER_ROOT, the usual place."""
    root = last(given, "data-root") or os.environ.get(ROOT_VARIABLE, "")
    return os.path.abspath(root) if root else DEFAULT_ROOT


def host_of(root: str) -> str:
    """Return where the daemon of a data root listens: each data root has a daemon of its own."""
    if root == DEFAULT_ROOT:
        return DEFAULT_HOST
    path = f"{root}/daemon.sock"
    if len(os.fsencode(path)) > LONGEST_PATH:
        path = f"/run/mini_docker_{context_id(root)[:12]}.sock"
    return f"unix://{path}"


def endpoint(given: Given, directory: str) -> Endpoint:
    """Return the daemon to speak to: flags first, then the environment, then the stored context."""
    if last(given, "host") and last(given, "context"):
        raise CommandError("conflicting options: cannot specify both --host and --context")
    host = last(given, "host")
    if not host and not (last(given, "context") or last(given, "data-root")):
        host = os.environ.get("DOCKER_HOST", "")
    if host:
        return _plain_endpoint(host, given, directory)
    name = context_name(given, directory)
    if name != DEFAULT_CONTEXT:
        return _stored_endpoint(name, directory)
    root = data_root(given)
    return Endpoint(host_of(root), (), False, DEFAULT_CONTEXT, root)


def context_name(given: Given, directory: str) -> str:
    """Return the name of the context in use."""
    if last(given, "host"):
        return DEFAULT_CONTEXT
    if last(given, "context"):
        return last(given, "context")
    if last(given, "data-root") or os.environ.get("DOCKER_HOST") or os.environ.get(ROOT_VARIABLE):
        return DEFAULT_CONTEXT
    chosen = os.environ.get("DOCKER_CONTEXT") or load_config(directory).get("currentContext")
    return str(chosen or DEFAULT_CONTEXT)


def _plain_endpoint(host: str, given: Given, directory: str) -> Endpoint:
    """Return an address with TLS where flags or variables ask for it."""
    verify = (last(given, "tlsverify") in ("1", "true")) or bool(
        os.environ.get("DOCKER_TLS_VERIFY")
    )
    if not (verify or (last(given, "tls") in ("1", "true"))):
        return Endpoint(normal_host(host), (), False, DEFAULT_CONTEXT)
    where = os.environ.get("DOCKER_CERT_PATH") or directory
    files = tuple(
        last(given, f"tls{'cacert' if n == 'ca' else n}", f"{where}/{n}.pem") for n in TLS_FILES
    )
    return Endpoint(normal_host(host), files, verify, DEFAULT_CONTEXT)


def normal_host(host: str) -> str:
    """Return an address with its scheme and port; the bare "host" of -H is tcp, as Docker reads it."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = "tcp", host
    if scheme == "tcp":
        if "/" not in rest and not rest.rpartition(":")[2].isdigit():
            rest = f"{rest.rstrip(':') or 'localhost'}:2375"
        return f"tcp://{rest}"
    if scheme not in ("unix", "http", "https") or not rest:
        raise CommandError(f"unable to parse docker host `{host}`")
    return f"{scheme}://{rest}"


# %% notebooks/19c_a_client_by_hand.ipynb#context-store
def context_id(name: str) -> str:
    """Return the directory name under which a context is stored, its SHA-256."""
    from hashlib import sha256

    return sha256(name.encode()).hexdigest()


def read_context(name: str, directory: str) -> dict[str, Any]:
    """Return a stored context's meta.json. Raises CommandError when there is none."""
    path = f"{directory}/contexts/meta/{context_id(name)}/meta.json"
    try:
        with open(path, "rb") as file:
            found = loads(file.read())
    except OSError as error:
        reason = f"open {path}: {(error.strerror or '').lower()}"
        raise CommandError(f'context "{name}": context not found: {reason}') from None
    except ValueError as error:
        raise CommandError(f'context "{name}": parsing {path}: {error}') from None
    return dict(found)


def _stored_endpoint(name: str, directory: str) -> Endpoint:
    """Return where a stored context leads. Raises CommandError in Docker's words."""
    try:
        stored = read_context(name, directory)
    except CommandError as error:
        text = f"Failed to initialize: unable to resolve docker endpoint: {error}"
        raise CommandError(text) from None
    docker = (stored.get("Endpoints") or {}).get("docker") or {}
    base = f"{directory}/contexts/tls/{context_id(name)}/docker"
    files = tuple(f"{base}/{n}.pem" for n in TLS_FILES) if os.path.isdir(base) else ()
    verify = not docker.get("SkipTLSVerify", False)
    return Endpoint(normal_host(docker.get("Host") or DEFAULT_HOST), files, verify, name)


# %% notebooks/19c_a_client_by_hand.ipynb#context-connect
def connect(endpoint: Endpoint) -> _socket.socket:
    """Return a socket connected to the daemon, unix(7) or tcp(7), wrapped in TLS where asked.

    Raises OSError.
    """
    scheme, _, rest = endpoint.host.partition("://")
    if scheme == "unix":
        local = _socket.socket(_socket.AF_UNIX)
        try:
            local.connect(rest)
        except OSError:
            local.close()
            raise
        return local
    import socket

    host, _, port = rest.partition("/")[0].rpartition(":")
    sock = socket.create_connection((host.strip("[]"), int(port)))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _with_tls(sock, host.strip("[]"), endpoint) if endpoint.tls else sock


def _with_tls(sock: socket.socket, host: str, endpoint: Endpoint) -> ssl.SSLSocket:
    """Return the socket inside TLS, both sides proving who they are."""
    import ssl

    ca, cert, key = endpoint.tls
    settings = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if endpoint.verify:
            settings.load_verify_locations(ca)
        else:
            settings.check_hostname = False
            settings.verify_mode = ssl.CERT_NONE
        if os.path.exists(cert) and os.path.exists(key):
            settings.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        sock.close()
        raise CommandError(f"could not read the TLS files {ca}, {cert}, {key}: {error}") from None
    return settings.wrap_socket(sock, server_hostname=host)
