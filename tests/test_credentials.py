"""Docker's config.json and credential helpers."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from mini_docker.registry.credentials import HUB_KEY, Credentials, Login
from mini_docker.registry.errors import RegistryError, error_words
from mini_docker.registry.tokens import parse_challenges

AUTH = base64.b64encode(b"ada:pass:word").decode()


def config(folder: Path, document: Any) -> Credentials:
    """Write a config.json."""
    (folder / "config.json").write_text(
        document if isinstance(document, str) else json.dumps(document)
    )
    return Credentials(str(folder))


@pytest.mark.parametrize(
    ("auths", "domain", "login"),
    [
        ({}, "r.example", None),
        ({"r.example": {"auth": AUTH}}, "r.example", Login("ada", "pass:word")),
        ({"https://r.example/v1/": {"auth": AUTH}}, "r.example", Login("ada", "pass:word")),
        ({"r.example": {"auth": AUTH}}, "r.example:5000", None),
        ({HUB_KEY: {"auth": AUTH}}, "docker.io", Login("ada", "pass:word")),
        ({"docker.io": {"auth": AUTH}}, "docker.io", None),
        ({"r": {"auth": AUTH, "identitytoken": "t"}}, "r", Login("ada", "pass:word", "t")),
        ({"r.example": {}}, "r.example", None),
    ],
)
def test_reading(auths: Any, domain: str, login: Login | None, tmp_path: Path) -> None:
    assert config(tmp_path, {"auths": auths}).get(domain) == login


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": []}', '{"auths": {}, "credHelpers": 1}', "null"]
)
def test_a_file_that_is_damaged(text: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="config.json cannot be used.*remedy: correct it"):
        config(tmp_path, text).get("r.example")
    with pytest.raises(RegistryError):
        Credentials(str(tmp_path)).put("r.example", Login("a", "b"))
    assert (tmp_path / "config.json").read_text() == text


@pytest.mark.parametrize("entry", ["x", {"auth": "*"}, {"auth": ""}, {"auth": "YQ=="}, {"auth": 1}])
def test_an_entry_that_is_damaged(entry: Any, tmp_path: Path) -> None:
    credentials = config(tmp_path, {"auths": {"r.example": entry}})
    with pytest.raises(RegistryError, match="remedy: mini_docker login r.example"):
        credentials.get("r.example")


def test_what_others_have_written_stays(tmp_path: Path) -> None:
    credentials = config(tmp_path, {"psFormat": "x", "auths": {"other": {"auth": AUTH}}})
    credentials.put("r.example", Login("a", "b"))
    document = json.loads((tmp_path / "config.json").read_text())
    assert document["psFormat"] == "x" and set(document["auths"]) == {"other", "r.example"}
    assert stat.S_IMODE(os.stat(tmp_path / "config.json").st_mode) == 0o600
    assert credentials.remove("r.example") and not credentials.remove("r.example")
    assert set(json.loads((tmp_path / "config.json").read_text())["auths"]) == {"other"}


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("{}")
    (tmp_path / "config.json").symlink_to("real")
    Credentials(str(tmp_path)).put("r", Login("a", "b"))
    assert (tmp_path / "config.json").is_symlink()
    assert Credentials(str(tmp_path)).get("r") == Login("a", "b")


HELPER = """#!/bin/sh
case $1 in
    get) read -r key; test "$key" = known || { echo "credentials not found in native keychain"; exit 1; }
         cat "$0.kept" ;;
    store) cat > "$0.kept" ;;
    erase) rm -f "$0.kept" ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper called "tests" that knows one registry, "known"."""
    path = tmp_path / "bin" / "docker-credential-tests"
    path.parent.mkdir()
    path.write_text(HELPER)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    return path


@pytest.mark.parametrize("how", [{"credsStore": "tests"}, {"credHelpers": {"known": "tests"}}])
def test_a_helper_keeps_the_password(how: dict[str, Any], helper: Path, tmp_path: Path) -> None:
    credentials = config(tmp_path, how)
    assert credentials.put("known", Login("ada", "secret")) == "docker-credential-tests"
    assert "secret" not in (tmp_path / "config.json").read_text()
    assert credentials.get("known") == Login("ada", "secret")
    credentials.put("known", Login("ada", "", "identity"))
    assert credentials.get("known") == Login("<token>", "", "identity")
    assert credentials.get("unknown") is None
    assert credentials.remove("known")
    assert not os.path.exists(f"{helper}.kept")


def test_helpers_that_fail(helper: Path, tmp_path: Path) -> None:
    credentials = config(tmp_path, {"credsStore": "missing"})
    with pytest.raises(
        RegistryError, match="docker-credential-missing is not here.*remedy: install it"
    ):
        credentials.get("known")
    credentials = config(tmp_path, {"credsStore": "tests"})
    helper.write_text("#!/bin/sh\necho the vault is closed; exit 3\n")
    with pytest.raises(
        RegistryError, match="docker-credential-tests get failed: the vault is closed"
    ):
        credentials.get("known")
    helper.write_text("#!/bin/sh\necho no JSON\n")
    with pytest.raises(RegistryError, match="gave no login for known"):
        credentials.get("known")
    credentials = config(tmp_path, {"credsStore": "../../bin/sh"})
    with pytest.raises(RegistryError, match="is no name of a credential helper"):
        credentials.get("known")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("", []),
        ('Basic realm="the lab"', [("basic", {"realm": "the lab"})]),
        (
            'Bearer realm="https://a/t?x=1,2",service="s",scope="repository:a:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://a/t?x=1,2",
                        "service": "s",
                        "scope": "repository:a:pull,push",
                    },
                )
            ],
        ),
        (
            'Basic realm="x", Bearer realm="y", service=z',
            [("basic", {"realm": "x"}), ("bearer", {"realm": "y", "service": "z"})],
        ),
        ('BEARER Realm = "a\\"b"', [("bearer", {"realm": 'a"b'})]),
        ("Negotiate", [("negotiate", {})]),
        ('Negotiate, Basic realm="x"', [("negotiate", {}), ("basic", {"realm": "x"})]),
        (",,,", []),
    ],
)
def test_challenges(header: str, found: list[Any]) -> None:
    assert [tuple(one) for one in parse_challenges(header)] == found


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no such"}]}',
            "manifest unknown: no such",
        ),
        (b'{"errors":[]}', ""),
        (b'{"errors":[1]}', ""),
        (b'{"details":"wrong"}', "wrong"),
        (b"<html>", ""),
        (b"[]", ""),
        (b"", ""),
    ],
)
def test_the_words_of_an_error(data: bytes, words: str) -> None:
    assert error_words(data) == words
