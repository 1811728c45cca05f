"""Registries for tests, on loopback: real ones in three configurations, and teaching ones with faults."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import tarfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest

from mini_docker.images.layout import (
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    Descriptor,
    Digest,
    Layout,
    as_json,
    this_platform,
)
from mini_docker.images.reference import Reference, parse_reference
from mini_docker.lab.registry import Handler, RealRegistry, TeachingRegistry, bcrypt
from mini_docker.registry.credentials import Credentials, Login
from mini_docker.registry.settings import Settings
from tests.conftest import cannot_run_here

USER, PASSWORD = "ada", "correct horse"
LOGIN = Login(USER, PASSWORD)
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


# ---- images -----------------------------------------------------------------------------------------


def make_store(directory: Path) -> Layout:
    """Return an empty store."""
    layout = Layout(str(directory))
    layout.create()
    return layout


def make_layer(files: dict[str, bytes]) -> tuple[bytes, str]:
    """Return a gzip layer and its diff_id."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    tar = output.getvalue()
    return gzip.compress(tar, 1, mtime=0), Digest.of(tar)


def image_of(
    layout: Layout,
    name: str,
    *layers: tuple[bytes, str],
    kind: str = f"{MEDIA_TYPE_LAYER}+gzip",
    platform: str = "",
    **extra: Any,
) -> Descriptor:
    """Make an image of blobs with their diff_ids, whatever they hold; `extra` goes into its manifest."""
    blobs = [layout.put(data, kind) for data, _ in layers]
    system, architecture = (platform or this_platform()).split("/")[:2]
    config = {
        "os": system,
        "architecture": architecture,
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }
    described = layout.put(json.dumps(config).encode(), MEDIA_TYPE_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": as_json(described),
        "layers": [as_json(blob) for blob in blobs],
        **extra,
    }
    return layout.name_image(name, manifest)


def make_image(
    layout: Layout, name: str, *layers: dict[str, bytes], platform: str = "", **extra: Any
) -> Descriptor:
    """Make an image of gzip layers of files, for this machine or a `platform`, and name it."""
    made = [make_layer(files) for files in layers or ({"hello": b"hello\n"},)]
    return image_of(layout, name, *made, platform=platform, **extra)


def contents(layout: Layout) -> dict[str, Any]:
    """Return all that a store holds: its names, and its files with their sizes."""
    root = Path(layout.directory)
    files = {
        str(path.relative_to(root)): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and path.name not in ("lock", "index.json")
    }
    return {"names": dict.fromkeys(layout.names()), "files": files}


def serve(registry: TeachingRegistry, layout: Layout, name: str, path: str, tag: str = "1") -> None:
    """Put an image of `layout` into a teaching registry, without a push."""
    entry = next(
        e for e in layout.entries() if (e.get("annotations") or {}).values() and name in str(e)
    )
    pending = [entry]
    while pending:
        one = pending.pop()
        data = Path(layout.blob_path(one["digest"])).read_bytes()
        registry.blobs[one["digest"]] = data
        if "manifest" in one["mediaType"] or "index" in one["mediaType"]:
            document = json.loads(data)
            kept = (one["mediaType"], data)
            registry.manifests[path, one["digest"]] = kept
            if one is entry:
                registry.manifests[path, tag] = kept
            pending += document.get("manifests", [])
            pending += [*document.get("layers", []), *filter(None, [document.get("config")])]


# ---- registries -------------------------------------------------------------------------------------


class Place(NamedTuple):
    """A registry, and what a client must have to use it."""

    host: str
    credentials: Credentials
    settings: Settings

    def reference(self, name: str) -> Reference:
        """Return the reference of an image here."""
        return parse_reference(f"{self.host}/{name}")


def settings_for(folder: Path, **changes: Any) -> Settings:
    """Return settings that touch nothing of this machine, and do not wait long."""
    base = Settings(certificates=(str(folder / "certs.d"),), back_off=0.01, timeout=240.0)
    return base._replace(**changes)


def openssl(*words: str) -> bytes:
    """Run openssl."""
    return subprocess.run(["openssl", *words], check=True, capture_output=True).stdout


class Authority(NamedTuple):
    """A CA of the tests' own, and a certificate of it for 127.0.0.1."""

    ca: Path
    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("ca")
    return make_certificate(folder, *make_authority(folder), "server")


def make_authority(folder: Path) -> tuple[Path, Path]:
    """Return a new CA's certificate and its key."""
    ca, key = folder / "ca.crt", folder / "ca.key"
    openssl("req", "-x509", *CURVE, "-days", "2", "-subj", "/CN=the tests' CA", "-keyout", str(key),
            "-out", str(ca))  # fmt: skip
    return ca, key


def make_certificate(folder: Path, ca: Path, ca_key: Path, name: str) -> Authority:
    """Return a certificate signed by a CA."""
    certificate, key, asked = (folder / f"{name}.{kind}" for kind in ("crt", "key", "csr"))
    openssl("req", *CURVE, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(asked))
    extensions = folder / f"{name}.ext"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", str(asked), "-CA", str(ca), "-CAkey", str(ca_key), "-days", "2",
            "-CAcreateserial", "-extfile", str(extensions), "-out", str(certificate))  # fmt: skip
    return Authority(ca, certificate, key)


def real(folder: Path, **options: Any) -> RealRegistry:
    """Return a started docker-registry, or say aloud that there is none."""
    for chances in (2, 1, 0):
        try:
            return RealRegistry(folder, **options).start()
        except FileNotFoundError as error:
            cannot_run_here(str(error))
        except OSError as error:  # somebody else was faster at the port that was free
            if "address already in use" not in str(error) or not chances:
                raise
    raise AssertionError


@pytest.fixture(scope="module")
def open_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The real registry, open."""
    folder = tmp_path_factory.mktemp("open")
    registry = real(folder / "registry")
    yield Place(registry.host, Credentials(str(folder)), settings_for(folder))
    registry.stop()


@pytest.fixture(scope="module")
def careful_registry(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Place]:
    """The real registry with passwords and TLS of our own CA."""
    folder = tmp_path_factory.mktemp("careful")
    users = folder / "htpasswd"
    users.write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
    registry = real(
        folder / "registry", users=users, certificate=authority.certificate, key=authority.key
    )
    trusted = folder / "certs.d" / registry.host
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(authority.ca.read_bytes())
    credentials = Credentials(str(folder))
    credentials.put(registry.host, LOGIN)
    yield Place(registry.host, credentials, settings_for(folder))
    registry.stop()


class TokenServer(ThreadingHTTPServer):
    """Signs the tokens that the real registry accepts; `life` seconds long."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), TokenHandler)
        self.folder, self.life = folder, 300.0
        self.realm = f"http://127.0.0.1:{self.server_address[1]}/token"
        self.asked: list[str] = []
        self.key, self.certificate = folder / "token.key", folder / "token.crt"
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens",
                "-keyout", str(self.key), "-out", str(self.certificate))  # fmt: skip
        self.der = openssl("x509", "-in", str(self.certificate), "-outform", "DER")
        Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def token(self, scopes: list[str], user: str) -> str:
        """Return a JSON web token for what a user may do: pull all, push all but "private/"."""
        access = []
        for scope in filter(None, scopes):
            kind, name, actions = scope.split(":")
            granted = actions.split(",") if user else ["pull"]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {"iss": "tests", "sub": user, "aud": "registry", "access": access, "jti": str(now),
                  "iat": now, "nbf": now - 10, "exp": int(now + self.life)}  # fmt: skip
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(self.der).decode()]}
        signed = b".".join(
            map(url_base64, (json.dumps(header).encode(), json.dumps(claims).encode()))
        )
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", str(self.key)],
                                   input=signed, capture_output=True, check=True).stdout  # fmt: skip
        return (signed + b"." + url_base64(signature)).decode()


def url_base64(data: bytes) -> bytes:
    """Return the encoding of RFC 7515."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class TokenHandler(BaseHTTPRequestHandler):
    """GET with Basic, or POST with a refresh token "identity"."""

    server: TokenServer

    def do_GET(self) -> None:  # noqa: N802
        query = parse_qs(urlsplit(self.path).query)
        given = self.headers.get("Authorization")
        self.answer(query, USER if given == LOGIN.basic() else "" if given is None else "?")

    def do_POST(self) -> None:  # noqa: N802
        length = int(self.headers.get("Content-Length") or 0)
        query = parse_qs(self.rfile.read(length).decode())
        self.answer(query, USER if query.get("refresh_token") == ["identity"] else "?")

    def answer(self, query: dict[str, list[str]], user: str) -> None:
        self.server.asked.append(f"{self.command} {' '.join(query.get('scope', []))} {user}")
        status, answer = 200, {"token": "", "expires_in": self.server.life}
        if user == "?":
            status, answer = 401, {"details": "incorrect username or password"}
        else:
            answer["token"] = self.server.token(query.get("scope", []), user)
            if user and query.get("offline_token") == ["true"]:
                answer["refresh_token"] = "identity"
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class TokenPlace(NamedTuple):
    """The registry with tokens, and the server that makes them."""

    place: Place
    tokens: TokenServer


@pytest.fixture(scope="module")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenPlace]:
    """The real registry that wants tokens of the tests' own server."""
    folder = tmp_path_factory.mktemp("token")
    tokens = TokenServer(folder)
    about = {
        "realm": tokens.realm,
        "service": "registry",
        "issuer": "tests",
        "rootcertbundle": str(tokens.certificate),
    }
    registry = real(folder / "registry", token=about)
    credentials = Credentials(str(folder))
    credentials.put(registry.host, LOGIN)
    yield TokenPlace(Place(registry.host, credentials, settings_for(folder)), tokens)
    registry.stop()
    tokens.shutdown()
    tokens.server_close()


@pytest.fixture
def teaching(tmp_path: Path) -> Iterator[TeachingRegistry]:
    """A registry in this process, to which a test gives rules."""
    registry = TeachingRegistry().start()
    yield registry
    registry.stop()


@pytest.fixture
def place(teaching: TeachingRegistry, tmp_path: Path) -> Place:
    """What a client must have to use `teaching`."""
    return Place(teaching.host, Credentials(str(tmp_path / "docker")), settings_for(tmp_path))


def on(method: str, part: str, action: Any, times: int = 1 << 30) -> Any:
    """Return a rule: the first `times` requests of a method whose path has `part` get `action(handler)`."""
    left, lock = [times], Lock()

    def rule(handler: Handler) -> bool:
        if handler.command != method or part not in handler.path:
            return False
        with lock:  # requests come in several threads
            left[0] -= 1
            if left[0] < 0:
                return False
        return action(handler) is not False

    return rule
