"""Pull and push against the real registry in its three configurations."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images.layout import Layout, NoSuchImage
from mini_docker.registry.account import login
from mini_docker.registry.credentials import Credentials, Login
from mini_docker.registry.errors import NotFound, RegistryError, Unauthorized, Untrusted
from mini_docker.registry.pull import pull
from mini_docker.registry.push import push
from mini_docker.registry.queries import delete, search, tags
from mini_docker.registry.settings import Settings
from tests.registries import (
    LOGIN,
    PASSWORD,
    Authority,
    Place,
    TokenPlace,
    authority,
    careful_registry,
    contents,
    make_authority,
    make_certificate,
    make_image,
    make_store,
    open_registry,
    real,
    settings_for,
    token_registry,
)

__all__ = ["authority", "careful_registry", "open_registry", "token_registry"]


def push_image(place: Place, layout: Layout, name: str, *layers: dict[str, bytes]) -> list[str]:
    """Make an image, push it, and return the statuses that were told."""
    reference = place.reference(name)
    make_image(layout, reference.familiar(), *layers)
    told: list[dict[str, Any]] = []
    push(
        layout,
        reference,
        credentials=place.credentials,
        settings=place.settings,
        progress=told.append,
    )
    return [message.get("status", "") for message in told]


def pull_image(place: Place, layout: Layout, name: str, **options: Any) -> list[str]:
    """Pull an image, and return the statuses that were told."""
    told: list[dict[str, Any]] = []
    pull(layout, place.reference(name), credentials=place.credentials, settings=place.settings,
         progress=told.append, **options)  # fmt: skip
    return [message.get("status", "") for message in told]


@pytest.mark.parametrize("kind", ["open_registry", "careful_registry", "token_registry"])
def test_what_we_push_we_pull(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    found = request.getfixturevalue(kind)
    place: Place = found.place if isinstance(found, TokenPlace) else found
    here, there = make_store(tmp_path / "a"), make_store(tmp_path / "b")
    layers = {"one": b"1" * 3_000_000}, {"two": b"2"}
    told = push_image(place, here, "lab/two:1", *layers)
    assert told[0] == f"The push refers to repository [{place.host}/lab/two]"
    assert told.count("Pushed") == 2
    assert told[-2].startswith("1: digest: sha256:")
    told = pull_image(place, there, "lab/two:1")
    assert told[0] == "Pulling from lab/two"
    assert told.count("Pull complete") == 2
    assert told[-1] == f"Status: Downloaded newer image for {place.host}/lab/two:1"
    assert contents(here)["files"] == contents(there)["files"]
    again = pull_image(place, there, "lab/two:1")
    assert again.count("Already exists") == 2
    assert again[-1] == f"Status: Image is up to date for {place.host}/lab/two:1"


def test_what_is_there_is_not_sent_and_what_is_elsewhere_is_mounted(
    open_registry: Place, tmp_path: Path
) -> None:
    layout = make_store(tmp_path / "a")
    layer = {"mounted": b"x" * 100_000}
    assert "Pushed" in push_image(open_registry, layout, "mount/a", layer)
    assert "Layer already exists" in push_image(open_registry, layout, "mount/a:2", layer)
    assert "Mounted from mount/a" in push_image(open_registry, layout, "mount/b", layer)
    pull_image(open_registry, make_store(tmp_path / "b"), "mount/b")


@pytest.mark.parametrize("chunk", [100_000, 1_500_000, 5_000_000])
def test_uploads_in_chunks(chunk: int, open_registry: Place, tmp_path: Path) -> None:
    place = open_registry._replace(settings=open_registry.settings._replace(chunk_size=chunk))
    layer = {"chunk": bytes(str(chunk), "ascii") * 250_000}
    assert "Pushed" in push_image(place, make_store(tmp_path / "a"), f"chunks/{chunk}", layer)
    pull_image(place, make_store(tmp_path / "b"), f"chunks/{chunk}")


def test_tags_search_and_delete(open_registry: Place, tmp_path: Path) -> None:
    layout, context = make_store(tmp_path / "a"), open_registry[1:]
    for tag in ("1", "2"):
        push_image(open_registry, layout, f"many/tags:{tag}", {"tag": tag.encode()})
    reference = open_registry.reference("many/tags:1")
    assert sorted(tags(reference, *context)) == ["1", "2"]
    assert [one.name for one in search(f"{open_registry.host}/tags", 25, *context)] == [
        f"{open_registry.host}/many/tags"
    ]
    digest = delete(reference, *context)
    assert tags(reference, *context) == ["2"]
    with pytest.raises(NotFound, match="many/tags:1: not found; remedy"):
        delete(reference, *context)
    with pytest.raises(NotFound, match=digest):
        delete(reference._replace(tag=None, digest=digest), *context)


def test_a_digest_is_a_name_too(open_registry: Place, tmp_path: Path) -> None:
    layout, other = make_store(tmp_path / "a"), make_store(tmp_path / "b")
    descriptor = make_image(layout, f"{open_registry.host}/by/digest:1")
    push(layout, open_registry.reference("by/digest:1"), settings=open_registry.settings)
    pull_image(open_registry, other, f"by/digest@{descriptor.digest}")
    assert other.names() == [f"{open_registry.host}/by/digest@{descriptor.digest}"]


def test_an_image_that_is_not_here_is_not_pushed(open_registry: Place, tmp_path: Path) -> None:
    layout = make_store(tmp_path / "a")
    with pytest.raises(NoSuchImage, match=f"with the tag: {open_registry.host}/nothing:7"):
        push(layout, open_registry.reference("nothing:7"), settings=open_registry.settings)


# ---- logins -----------------------------------------------------------------------------------------


def test_login_keeps_only_what_works(careful_registry: Place, tmp_path: Path) -> None:
    credentials = Credentials(str(tmp_path))
    with pytest.raises(Unauthorized, match=f"{careful_registry.host}: login: login needed"):
        login(careful_registry.host, Login("ada", "wrong"), credentials, careful_registry.settings)
    assert credentials.get(careful_registry.host) is None
    where = login(careful_registry.host, LOGIN, credentials, careful_registry.settings)
    assert where == f"{tmp_path}/config.json"
    assert credentials.get(careful_registry.host) == LOGIN


def test_no_login_and_a_wrong_one(careful_registry: Place, tmp_path: Path) -> None:
    layout, before = make_store(tmp_path / "a"), contents(make_store(tmp_path / "a"))
    place = careful_registry._replace(credentials=Credentials(str(tmp_path)))
    with pytest.raises(Unauthorized, match=f"remedy: mini_docker login {place.host}"):
        pull_image(place, layout, "lab/two:1")
    place.credentials.put(place.host, Login("ada", "wrong"))
    with pytest.raises(Unauthorized, match="lab/two:1: login needed: unauthorized"):
        pull_image(place, layout, "lab/two:1")
    assert contents(layout) == before


def test_a_certificate_that_nobody_vouches_for(careful_registry: Place, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    (tmp_path / "certs.d" / careful_registry.host).mkdir(parents=True)
    place = careful_registry._replace(settings=settings)
    remedy = f"remedy: put the CA's certificate at {settings.certificates[0]}/{place.host}/ca.crt"
    with pytest.raises(Untrusted, match=f"is not trusted: .*{remedy}"):
        pull_image(place, make_store(tmp_path / "a"), "lab/two:1")


def test_insecure_only_where_named(careful_registry: Place, tmp_path: Path) -> None:
    settings = settings_for(tmp_path, insecure_registries=("127.0.0.0/8",))
    place = careful_registry._replace(settings=settings)
    push_image(place, make_store(tmp_path / "a"), "insecure:1")
    with pytest.raises(Untrusted):
        elsewhere = settings._replace(insecure_registries=("10.0.0.0/8", "localhost"))
        pull_image(place._replace(settings=elsewhere), make_store(tmp_path / "b"), "insecure:1")


def test_a_certificate_that_is_none(careful_registry: Place, tmp_path: Path) -> None:
    folder = tmp_path / "certs.d" / careful_registry.host
    folder.mkdir(parents=True)
    place = careful_registry._replace(settings=settings_for(tmp_path))
    (folder / "client.cert").write_text("")
    with pytest.raises(RegistryError, match="missing key client.key for client certificate"):
        pull_image(place, make_store(tmp_path / "a"), "x")
    (folder / "client.cert").unlink()
    (folder / "ca.crt").write_text("no certificate")
    with pytest.raises(RegistryError, match="ca.crt cannot be used.*remedy"):
        pull_image(place, make_store(tmp_path / "a"), "x")


def test_a_client_certificate_is_asked_for_and_taken(authority: Authority, tmp_path: Path) -> None:
    """Without one, with a stranger's, and with one of the CA that the registry trusts."""
    registry = real(tmp_path / "registry", certificate=authority.certificate, key=authority.key,
                    clients=authority.ca)  # fmt: skip
    place = Place(registry.host, Credentials(str(tmp_path)), settings_for(tmp_path))
    folder, layout = tmp_path / "certs.d" / place.host, make_store(tmp_path / "a")
    folder.mkdir(parents=True)
    (folder / "ca.crt").write_bytes(authority.ca.read_bytes())
    remedy = f"remedy: put yours at {folder}/client.cert, and its key beside it as client.key"
    try:
        with pytest.raises(Unauthorized, match=f"{place.host} takes no client without.*{remedy}"):
            push_image(place, layout, "clients:1")
        stranger = make_authority(tmp_path)
        mine = make_certificate(tmp_path, authority.ca, authority.ca.with_suffix(".key"), "client")
        for one in (make_certificate(tmp_path, *stranger, "stranger"), mine):
            (folder / "client.cert").write_bytes(one.certificate.read_bytes())
            (folder / "client.key").write_bytes(one.key.read_bytes())
            if one is not mine:
                with pytest.raises(Unauthorized, match="a certificate that it knows"):
                    push_image(place, layout, "clients:1")
        push_image(place, layout, "clients:1")
        pull_image(place, make_store(tmp_path / "b"), "clients:1")
    finally:
        registry.stop()


def test_a_login_becomes_a_lasting_token_where_there_is_one(
    token_registry: TokenPlace, tmp_path: Path
) -> None:
    place, credentials = token_registry.place, Credentials(str(tmp_path))
    login(place.host, LOGIN, credentials, place.settings)
    assert credentials.get(place.host) == Login("ada", "", "identity")
    assert PASSWORD not in (tmp_path / "config.json").read_text()
    push_image(place._replace(credentials=credentials), make_store(tmp_path / "a"), "lasting:1")


def test_a_helper_keeps_what_a_token_server_gives(
    token_registry: TokenPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = tmp_path / "docker-credential-vault"
    helper.write_text(
        '#!/bin/sh\ncase $1 in get) cat "$0.kept" ;; store) cat > "$0.kept" ;; esac\n'
    )
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "config.json").write_text('{"credsStore": "vault"}')
    place = token_registry.place._replace(credentials=Credentials(str(tmp_path)))
    where = login(place.host, LOGIN, place.credentials, place.settings)
    assert where == "docker-credential-vault"
    kept = json.loads(Path(f"{helper}.kept").read_text())
    assert (kept["Username"], kept["Secret"]) == ("<token>", "identity")
    token_registry.tokens.asked.clear()
    push_image(place, make_store(tmp_path / "a"), "helper:1")
    assert all(one.startswith("POST ") for one in token_registry.tokens.asked)


def test_a_token_for_each_scope(token_registry: TokenPlace, tmp_path: Path) -> None:
    place, tokens = token_registry
    layout = make_store(tmp_path / "a")
    layer = {"scopes": b"y" * 2_000_000}
    push_image(place, layout, "scope/a:1", layer)
    tokens.asked.clear()
    assert "Mounted from scope/a" in push_image(place, layout, "scope/b:1", layer)
    mounts = [one for one in tokens.asked if "scope/a:pull" in one]
    assert mounts == ["GET repository:scope/b:pull,push repository:scope/a:pull ada"]
    tokens.asked.clear()
    pull_image(place, make_store(tmp_path / "b"), "scope/b:1")
    assert tokens.asked == ["GET repository:scope/b:pull ada"]


def test_an_identity_token_is_exchanged(token_registry: TokenPlace, tmp_path: Path) -> None:
    place, tokens = token_registry
    place = place._replace(credentials=Credentials(str(tmp_path)))
    place.credentials.put(place.host, Login("ada", "", "identity"))
    tokens.asked.clear()
    push_image(place, make_store(tmp_path / "a"), "identity:1")
    assert all(one.startswith("POST repository:identity:") for one in tokens.asked)


def test_a_stranger_may_pull_but_not_push(token_registry: TokenPlace, tmp_path: Path) -> None:
    place = token_registry.place._replace(credentials=Credentials(str(tmp_path)))
    layout = make_store(tmp_path / "a")
    push_image(token_registry.place, layout, "stranger:1")
    pull_image(place, make_store(tmp_path / "b"), "stranger:1")
    with pytest.raises(Unauthorized, match=f"{place.host}.*stranger.*mini_docker login"):
        push_image(place, layout, "stranger:2", {"new": b"new"})
    place.credentials.put(place.host, Login("ada", "wrong"))
    with pytest.raises(Unauthorized, match="token server.*incorrect username or password"):
        pull_image(place, make_store(tmp_path / "c"), "stranger:1")


def test_the_defaults_touch_no_file() -> None:
    assert Settings().insecure_registries == ()
