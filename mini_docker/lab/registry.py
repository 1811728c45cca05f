# Exported from notebooks/E_registry_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/E_registry_tools.ipynb#lab-registry-module
"""Registries for the lab, on loopback only: Debian's docker-registry, or a teaching one in a thread."""

from __future__ import annotations

import ctypes
import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from mini_docker.linux.process import PR_SET_PDEATHSIG, prctl

# %% notebooks/E_registry_tools.ipynb#teaching-routes
ROUTES = re.compile(
    r"/v2/(?:(?P<name>[a-z0-9._/-]+)/(?:manifests/(?P<target>[^/]+)|tags/(?P<tags>list)"
    r"|referrers/(?P<referrers>[^/]+)"
    r"|blobs/uploads/(?P<upload>[^/]*)|blobs/(?P<digest>[^/]+)))?"
)
INDEX = "application/vnd.oci.image.index.v1+json"
Rule = Callable[["Handler"], bool]


class TeachingRegistry(ThreadingHTTPServer):
    """A whole registry in the memory of this process: what the protocol asks for and nothing more.

    A `rule` is called with each request first; it answers by itself and returns True, or returns False.
    """

    daemon_threads = True

    def __init__(self, rules: tuple[Rule, ...] = (), tls: ssl.SSLContext | None = None) -> None:
        """Listen on a free port of loopback; `start` answers."""
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.rules = list(rules)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.owners: dict[str, set[str]] = {}  # of an uploaded blob; one without is everybody's
        self.names: set[str] = set()  # repositories that have had a manifest
        self.uploads: dict[str, bytearray] = {}
        self.seen: list[str] = []  # "GET /v2/", in the order of arrival

    def start(self) -> TeachingRegistry:
        """Answer in a thread until `stop`."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Answer no more."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a client that hangs up do so in silence."""


# %% notebooks/E_registry_tools.ipynb#teaching-handler
class Handler(BaseHTTPRequestHandler):
    """One connection. Source: distribution-spec 1.1."""

    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, 1 << 16
    server: TeachingRegistry

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; a header's _ stands for -."""
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, status: int, code: str) -> None:
        """Send an error in the protocol's form."""
        errors = {"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}
        self.answer(status, json.dumps(errors).encode(), Content_Type="application/json")

    def handle_request(self) -> None:
        """Find the route; a rule of the server comes first."""
        url = urlsplit(self.path)
        self.server.seen.append(f"{self.command} {self.path}")
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.route = ROUTES.fullmatch(url.path)
        self.body = self._body()
        if any(rule(self) for rule in self.server.rules):
            return
        part = self.route and self.route.lastgroup
        if not part or not self.route:
            self.answer(200) if self.route else self.fail(404, "NOT_FOUND")
        else:
            getattr(self, f"_{part}")(self.route["name"], self.route[part])

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_request  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _digest(self, name: str, digest: str) -> None:
        blob = self.server.blobs.get(digest)
        if blob is None or name not in self.server.owners.get(digest, {name}):
            return self.fail(404, "BLOB_UNKNOWN")
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if start and start >= len(blob):
            return self.fail(416, "RANGE_INVALID")
        place = {"Content_Range": f"bytes {start}-{len(blob) - 1}/{len(blob)}"} if start else {}
        return self.answer(
            206 if start else 200, blob[start:], Docker_Content_Digest=digest, **place
        )

    def _target(self, name: str, target: str) -> None:
        if self.command == "PUT":
            document = json.loads(self.body)
            parts = [*document.get("layers", []), *filter(None, [document.get("config")])]
            if any(part["digest"] not in self.server.blobs for part in parts):
                return self.fail(400, "MANIFEST_BLOB_UNKNOWN")
            digest = f"sha256:{hashlib.sha256(self.body).hexdigest()}"
            kept = (self.headers.get("Content-Type", ""), self.body)
            self.server.manifests[name, target] = self.server.manifests[name, digest] = kept
            self.server.names.add(name)
            subject = document.get("subject", {}).get("digest")
            extra = {"OCI_Subject": subject} if subject else {}
            return self.answer(201, Docker_Content_Digest=digest, **extra)
        media_type, data = self.server.manifests.get((name, target), ("", b""))
        if not data:
            return self.fail(404, "MANIFEST_UNKNOWN")
        if self.command == "DELETE":
            every = self.server.manifests.items()
            self.server.manifests = {k: v for k, v in every if k[0] != name or v[1] != data}
            return self.answer(202)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        return self.answer(200, data, Content_Type=media_type, Docker_Content_Digest=digest)

    def _tags(self, name: str, _: str) -> None:
        if name not in self.server.names | {kept for kept, _ in self.server.manifests}:
            return self.fail(404, "NAME_UNKNOWN")
        tags = sorted(tag for kept, tag in self.server.manifests if kept == name and ":" not in tag)
        return self.answer(200, json.dumps({"name": name, "tags": tags}).encode())

    def _referrers(self, name: str, digest: str) -> None:
        found = []
        for (kept, target), (media_type, data) in self.server.manifests.items():
            document = json.loads(data)
            if (
                kept == name
                and ":" in target
                and document.get("subject", {}).get("digest") == digest
            ):
                about = {"mediaType": media_type, "digest": target, "size": len(data)}
                found.append({**about, "artifactType": document.get("artifactType", "")})
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": found}
        self.answer(200, json.dumps(index).encode(), Content_Type=INDEX)

    def _upload(self, name: str, upload: str) -> None:
        if self.command == "POST":
            if (mounted := self.query.get("mount", "")) in self.server.blobs:
                self.server.owners.setdefault(mounted, set()).add(name)
                return self.answer(201)
            upload = str(uuid.uuid4())
            self.server.uploads[upload] = bytearray()
        kept = self.server.uploads.get(upload)
        if kept is None:
            return self.fail(404, "BLOB_UPLOAD_UNKNOWN")
        start = self.headers.get("Content-Range", f"{len(kept)}-").partition("-")[0]
        if start != str(len(kept)):
            return self.answer(416, Range=f"0-{max(0, len(kept) - 1)}")
        kept += self.body
        digest = self.query.get("digest", "")
        if not digest:
            status = {"POST": 202, "PATCH": 202}.get(self.command, 204)
            where = f"/v2/{name}/blobs/uploads/{upload}"
            return self.answer(status, Location=where, Range=f"0-{max(0, len(kept) - 1)}")
        algorithm, _, encoded = digest.partition(":")
        if hashlib.new(algorithm, kept).hexdigest() != encoded:
            return self.fail(400, "DIGEST_INVALID")
        self.server.owners.setdefault(digest, set()).add(name)
        self.server.blobs[digest] = bytes(self.server.uploads.pop(upload))
        return self.answer(201, Location=f"/v2/{name}/blobs/{digest}")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


# %% notebooks/E_registry_tools.ipynb#real-registry
START_SECONDS = 120.0


class RealRegistry:
    """Debian's docker-registry as a child process; it dies with us, unless it `outlives` us.

    `folder` keeps its data and configuration; `users` (an htpasswd file), `certificate` with `key`,
    `clients` (the CA of certificates that clients must have) and `token` (realm, service, issuer,
    rootcertbundle) are its ways of being careful.
    """

    def __init__(
        self,
        folder: Path,
        users: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        clients: Path | None = None,
        token: Mapping[str, str] | None = None,
        port: int = 0,
        address: str = "127.0.0.1",
        outlives: bool = False,
    ) -> None:
        """Write the configuration. Raises FileNotFoundError where there is no docker-registry."""
        program = shutil.which(
            "docker-registry", path=f"{os.environ.get('PATH', os.defpath)}:/usr/bin"
        )
        if program is None:
            raise FileNotFoundError(
                "no docker-registry here; remedy: apt-get install docker-registry"
            )
        self.program, self.folder, self.outlives = program, folder, outlives
        self.port = port or free_port()
        self.host = f"127.0.0.1:{self.port}"
        self.scheme = "https" if certificate else "http"
        listen: dict[str, Any] = {"addr": f"{address}:{self.port}"}
        if certificate:
            tls = {"certificate": str(certificate), "key": str(key)}
            listen["tls"] = {**tls, **({"clientcas": [str(clients)]} if clients else {})}
        auth: dict[str, Any] = {}
        if users:
            auth["htpasswd"] = {"realm": "the lab", "path": str(users)}
        if token:
            auth["token"] = dict(token)
        document = {
            "version": "0.1",
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(folder / "data")},
                "delete": {"enabled": True},
            },
            "http": listen,
            **({"auth": auth} if auth else {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yml").write_text(json.dumps(document))  # JSON is YAML

    def start(self) -> RealRegistry:
        """Start it and wait until it listens. Raises OSError with its own words."""
        with open(self.folder / "log", "wb") as log:
            self.process = subprocess.Popen(
                [self.program, "serve", str(self.folder / "config.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.defpath, "OTEL_TRACES_EXPORTER": "none"},
                preexec_fn=os.setsid if self.outlives else _die_with_parent,
            )
        end = time.monotonic() + START_SECONDS
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                words = (self.folder / "log").read_text(errors="replace").strip()[-500:]
                raise OSError(f"docker-registry did not start: {words}")
            time.sleep(0.02)
        return self

    def stop(self) -> None:
        """End the process; its data stay in `folder`."""
        self.process.kill()
        self.process.wait()


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, PR_SET_PDEATHSIG(2const)."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def bcrypt(password: str) -> str:
    """Return a password as an htpasswd file keeps it, crypt(3). Raises OSError where libcrypt cannot."""
    alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    salt = "$2b$08$" + "".join(alphabet[byte % 64] for byte in os.urandom(21)) + "."
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed: bytes = crypt(password.encode(), salt.encode()) or b"*"
    if hashed.startswith(b"*"):
        raise OSError("this machine's libcrypt knows no bcrypt; remedy: apt-get install libcrypt1")
    return hashed.decode()


def free_port() -> int:
    """Return a port of loopback on which nobody listens now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def listens(port: int) -> bool:
    """Return whether somebody listens on a port of loopback."""
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


# %% notebooks/E_registry_tools.ipynb#lab-registry
class LabRegistry:
    """A registry for one notebook, real where there is one: `with LabRegistry() as registry: ...`."""

    def __init__(self, folder: Path | None) -> None:
        """Choose which, the teaching one for no folder; `kind` says it."""
        self.registry: RealRegistry | TeachingRegistry
        try:
            if folder is None:
                raise FileNotFoundError("no folder")
            self.registry, self.kind = RealRegistry(folder), "docker-registry"
        except FileNotFoundError:
            self.registry, self.kind = TeachingRegistry(), "the teaching registry"
        self.host = self.registry.host

    def start(self) -> LabRegistry:
        """Start it."""
        self.registry.start()
        return self

    def stop(self) -> None:
        """Stop it."""
        self.registry.stop()

    def give(self, repository: str, tag: str, manifest: bytes, blobs: Sequence[bytes]) -> None:
        """Upload an image by hand, blobs first. Raises OSError where it is not taken."""
        binary = {"Content-Type": "application/octet-stream"}
        for blob in blobs:
            _, headers, _ = self.ask("POST", f"/v2/{repository}/blobs/uploads/")
            place = headers["Location"].partition(self.host)[2] or headers["Location"]
            digest = f"digest=sha256:{hashlib.sha256(blob).hexdigest()}"
            self.ask("PUT", f"{place}{'&' if '?' in place else '?'}{digest}", blob, binary)
        kind = {"Content-Type": json.loads(manifest)["mediaType"]}
        status, _, body = self.ask("PUT", f"/v2/{repository}/manifests/{tag}", manifest, kind)
        if status != 201:
            raise OSError(f"{repository}:{tag} was not taken: {body!r}")

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send one request by hand and return status, headers and body."""
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()
