# Exported from notebooks/13c_trust.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13c_trust.ipynb#settings-module
"""Where registries answer, and whom to trust there: mirrors, insecure registries, certificates."""

from __future__ import annotations

import glob
import ipaddress
import json
import os
import ssl
from typing import Any, NamedTuple

from mini_docker.images.reference import DEFAULT_DOMAIN
from mini_docker.registry.errors import RegistryError
from mini_docker.registry.transport import is_loopback, split_host

# %% notebooks/13c_trust.ipynb#settings
SETTINGS_FILE = "/etc/mini_docker/daemon.json"
HUB = "registry-1.docker.io"  # where docker.io answers
CERTIFICATES = ("/etc/mini_docker/certs.d", "/etc/docker/certs.d")


class Settings(NamedTuple):
    """What the machine's owner decides. The names are those of Docker's daemon.json, with _ for -."""

    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    certificates: tuple[str, ...] = CERTIFICATES
    chunk_size: int = 0  # bytes of one upload request; 0: a layer is one request
    patience: float = (
        60.0  # seconds that a Retry-After may ask for; one that wants more ends the try
    )
    back_off: float = 0.5  # seconds before the second try; doubled each time
    timeout: float = 60.0  # seconds without a byte


class Endpoint(NamedTuple):
    """A place where a registry may answer."""

    url: str
    mirror: bool = False

    def host(self) -> str:
        """Return host and port as the URL names them."""
        return self.url.partition("//")[2]


def load_settings(path: str = SETTINGS_FILE) -> Settings:
    """Return the settings in a daemon.json; no file means the defaults. Raises RegistryError."""
    try:
        with open(path, "rb") as file:
            document = json.loads(file.read())
        if not isinstance(document, dict):
            raise TypeError("not a JSON object")
        return Settings(**dict(_known(document)))
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(f"{path} cannot be used: {error}; remedy: correct it") from error


def _known(document: dict[str, Any]) -> list[tuple[str, Any]]:
    """Return the fields that a document sets, each of the right type; other keys belong to other chapters."""
    found = []
    for key, default in Settings._field_defaults.items():
        value = document.get(key.replace("_", "-"))
        if value is None:
            continue
        if isinstance(default, tuple):
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise TypeError(f"{key.replace('_', '-')} is no list of strings")
            value = tuple(value)
        elif not isinstance(value, (int, float)) or isinstance(value, bool) or value < 0:
            raise TypeError(f"{key.replace('_', '-')} is no number")
        found.append((key, value))
    return found


# %% notebooks/13c_trust.ipynb#endpoints
def endpoints(domain: str, settings: Settings, mirrors: bool = True) -> list[Endpoint]:
    """Return where `domain` may answer, in the order of trying; plain HTTP only for insecure ones.

    As for Docker, this machine itself is one of those. A folder in certs.d says that TLS comes first.
    """
    if domain == DEFAULT_DOMAIN:
        urls = settings.registry_mirrors if mirrors else ()
        return [*(Endpoint(url.rstrip("/"), True) for url in urls), Endpoint(f"https://{HUB}")]
    found = [Endpoint(f"https://{domain}")]
    plain = Endpoint(f"http://{domain}")
    if is_insecure(domain, settings):
        return [*found, plain]
    if is_loopback(split_host(domain, 443)[0]):
        has_folder = any(os.path.isdir(f"{place}/{domain}") for place in settings.certificates)
        return [*found, plain] if has_folder else [plain, *found]
    return found


def is_insecure(domain: str, settings: Settings) -> bool:
    """Return whether the owner has named this registry, or its network, as insecure."""
    return any(_names(entry, domain) for entry in settings.insecure_registries)


def _names(entry: str, domain: str) -> bool:
    if entry == domain:
        return True
    try:
        return ipaddress.ip_address(split_host(domain, 443)[0]) in ipaddress.ip_network(entry)
    except ValueError:
        return False


# %% notebooks/13c_trust.ipynb#tls
def tls_context(host: str, registry: str, settings: Settings) -> ssl.SSLContext:
    """Return whom to trust at `host`, which `registry` or its answers have sent us to.

    The system's authorities; those of certs.d/REGISTRY and certs.d/HOST (*.crt); and, as ourselves,
    certs.d/HOST/*.cert with its *.key. Raises RegistryError for files that do not fit together.
    """
    context = ssl.create_default_context()
    for directory in settings.certificates:
        for name in dict.fromkeys((registry, host)):
            for path in sorted(glob.glob(f"{glob.escape(f'{directory}/{name}')}/*.crt")):
                _load(path, lambda path=path: context.load_verify_locations(path))
        for path in sorted(glob.glob(f"{glob.escape(f'{directory}/{host}')}/*.cert")):
            key = f"{path.removesuffix('.cert')}.key"
            if not os.path.exists(key):
                raise RegistryError(
                    f"missing key {os.path.basename(key)} for client certificate {path}; "
                    "CA certificates must use the extension .crt"
                )
            _load(path, lambda path=path, key=key: context.load_cert_chain(path, key))
    if is_insecure(host, settings):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _load(path: str, load: Any) -> None:
    try:
        load()
    except OSError as error:  # ssl.SSLError is one
        raise RegistryError(
            f"certificate {path} cannot be used: {error}; remedy: replace it"
        ) from error
