# Exported from notebooks/13c_trust.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13c_trust.ipynb#account-module
"""login: a password is tried before it is kept."""

from __future__ import annotations

from mini_docker.registry.client import reach
from mini_docker.registry.credentials import Credentials, Login
from mini_docker.registry.settings import Settings


# %% notebooks/13c_trust.ipynb#account
def try_login(domain: str, who: Login, settings: Settings | None = None) -> Login:
    """Return what to keep of a login that a registry accepts: an identity token, where it gives one.

    Raises RegistryError.
    """
    client = reach(domain, settings or Settings(), lambda _: who, mirrors=False)[-1]
    client.auth.lasting = True
    try:
        with client.request("GET", "/v2/", "login") as response:
            response.read(1 << 16)
    finally:
        client.close()
    token = client.auth.identity_token
    return Login(who.user, "", token) if token else who


def login(
    domain: str, who: Login, credentials: Credentials, settings: Settings | None = None
) -> str:
    """Try a login at a registry, keep it, and return where it is kept. Raises RegistryError."""
    return credentials.put(domain, try_login(domain, who, settings))
