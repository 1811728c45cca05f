"""Registries that misbehave: a clear error naming registry, repository and remedy, and a store as before."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.images.layout import MEDIA_TYPE_INDEX, Digest, ImageError, Layout, as_json
from mini_docker.images.reference import parse_reference
from mini_docker.lab.registry import Handler, TeachingRegistry
from mini_docker.registry import transport
from mini_docker.registry.client import Client, reach
from mini_docker.registry.credentials import Login
from mini_docker.registry.errors import (
    BadContent,
    Denied,
    NotFound,
    RegistryError,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    retry_after,
)
from mini_docker.registry.pull import pull
from mini_docker.registry.push import find, push
from mini_docker.registry.queries import referrers, tags
from mini_docker.registry.settings import Endpoint, Settings, load_settings
from mini_docker.registry.tokens import check_realm
from tests.registries import (
    Place,
    contents,
    make_image,
    make_store,
    on,
    place,
    serve,
    settings_for,
    teaching,
)
from tests.system import until

__all__ = ["place", "teaching"]
BIG = {"big": os.urandom(3_000_000)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A store with an image of two layers, x:1."""
    layout = make_store(tmp_path_factory.mktemp("made") / "source")
    make_image(layout, "x:1", BIG, {"small": b"small"})
    return layout


@pytest.fixture
def source(made: Layout, teaching: TeachingRegistry) -> Layout:
    """A store whose image of two layers is in `teaching` as x:1."""
    serve(teaching, made, "x:1", "x")
    return made


@pytest.fixture
def store(tmp_path: Path) -> Layout:
    """An empty store."""
    return make_store(tmp_path / "store")


def fetch(place: Place, store: Layout, name: str = "x:1", **options: Any) -> None:
    """Pull."""
    pull(
        store,
        place.reference(name),
        credentials=place.credentials,
        settings=place.settings,
        **options,
    )


def refused(place: Place, store: Layout, kind: type[Exception], words: str, **options: Any) -> None:
    """Assert that a pull fails with `words` and names, and leaves the store as it was."""
    before = contents(store)
    with pytest.raises(kind, match=words) as caught:
        fetch(place, store, **options)
    assert place.host in str(caught.value) and "x" in str(caught.value)
    assert contents(store) == before
    assert not os.listdir(f"{store.directory}/leases")


def hang_up(after: int) -> Callable[[Handler], None]:
    """Return an action: promise the whole blob, send `after` bytes of it and close the connection."""

    def action(handler: Handler) -> None:
        digest = handler.path.rpartition("/")[2]
        blob = handler.server.blobs[digest]
        start = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(blob) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(blob) - 1}/{len(blob)}")
        handler.end_headers()
        handler.wfile.write(blob[start : start + after])
        handler.close_connection = True

    return action


def big_digest(source: Layout) -> str:
    return source.image("x:1").layers[0].digest


# ---- statuses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (403, Denied, "x:1: denied: denied: denied; remedy: log in as a user who may"),
        (404, NotFound, "x:1: not found: denied: denied; remedy: check the name and the tag"),
        (500, ServerError, r"the registry failed \(HTTP 500\).*remedy: try later"),
        (503, ServerError, "HTTP 503"),
        (418, RegistryError, r"unexpected answer \(HTTP 418\).*is this a registry"),
    ],
)
def test_a_status(
    status: int,
    kind: type[Exception],
    words: str,
    teaching: TeachingRegistry,
    place: Place,
    store: Layout,
) -> None:
    teaching.rules.append(on("GET", "/manifests/", lambda h: h.fail(status, "DENIED")))
    refused(place, store, kind, words)


def test_a_rate_limit_is_explained(teaching: TeachingRegistry, place: Place, store: Layout) -> None:
    def limited(handler: Handler) -> None:
        limit = {"RateLimit_Limit": "100;w=21600", "Retry_After": "3600"}
        handler.answer(429, b"{}", **limit)

    teaching.rules.append(on("GET", "/manifests/", limited))
    words = r"too many requests \(HTTP 429\); the limit is 100 pulls in 6 hours; remedy: wait 3600 seconds"
    began = time.monotonic()
    refused(place, store, TooManyRequests, f"{words}, log in .*or use a mirror")
    assert time.monotonic() - began < 3600, "it waited for longer than its patience"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The seconds that a client was told to wait, None for its own choice; nobody waits."""
    told: list[float | None] = []
    monkeypatch.setattr(Client, "wait", lambda self, attempt, seconds=None: told.append(seconds))
    return told


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(
    status: int, teaching: TeachingRegistry, place: Place, source: Layout, store: Layout,
    waits: list[float | None],
) -> None:  # fmt: skip
    teaching.rules += [
        on("GET", "/manifests/", lambda h: h.answer(status, b"", Retry_After="7"), times=1),
        on("GET", "/blobs/", lambda h: h.answer(status), times=1),
    ]
    fetch(place, store)
    assert waits == [7, None]


def test_waits_grow_and_end_when_the_pull_does() -> None:
    client = Client("r", Endpoint("http://r"), Settings(back_off=0.001))
    began = time.monotonic()
    for attempt in range(1, 5):
        client.wait(attempt)
    assert time.monotonic() - began >= 0.8 * 0.015
    client.close()
    with pytest.raises(Unreachable, match="given up, because another part failed"):
        client.wait(1, 3600)


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after("120", 0.0) == 120
    assert retry_after("Thu, 01 Jan 1970 00:02:00 GMT", 60.0) == 60
    assert retry_after("soon", 0.0) is None
    assert retry_after("", 0.0) is None


def test_no_host_no_port_no_tls(store: Layout, tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    for name, words in {
        "127.0.0.1:1/x:1": "nothing listens at 127.0.0.1:1 .connection refused.; remedy: check the port",
        "no-such-host.invalid/x:1": "no such host no-such-host.invalid; remedy: check the name",
    }.items():
        with pytest.raises(Unreachable, match=words):
            pull(store, parse_reference(name), settings=settings)


def test_plain_http_elsewhere_than_here_is_not_tried(
    teaching: TeachingRegistry, store: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = teaching.host.partition(":")[2]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **_: [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", int(port)))])  # fmt: skip
    name = parse_reference(f"registry.example:{port}/x:1")
    with pytest.raises(Unreachable, match="does not speak TLS.*name it in insecure-registries"):
        pull(store, name, settings=settings_for(tmp_path))
    assert not any(one.startswith("GET /v2") for one in teaching.seen)
    insecure = settings_for(tmp_path, insecure_registries=(f"registry.example:{port}",))
    with pytest.raises(NotFound):
        pull(store, name, settings=insecure)


# ---- contents ---------------------------------------------------------------------------------------


def edited(teaching: TeachingRegistry, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest behind x:1."""
    media_type, data = teaching.manifests["x", "1"]
    document = json.loads(data)
    change(document)
    teaching.manifests["x", "1"] = (
        document.get("mediaType", media_type),
        json.dumps(document).encode(),
    )


def set_layer(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document["layers"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_layer("size", 5), "bytes, its manifest says 5: refused"),
        (set_layer("size", -1), "its manifest lacks size -1"),
        (set_layer("size", "5"), "its manifest lacks size"),
        (set_layer("digest", "sha256:12"), "is not a sha256 or sha512 digest"),
        (set_layer("digest", "sha256:../../etc/passwd"), "is not a sha256 or sha512 digest"),
        (set_layer("mediaType", "application/x-unknown"), "a layer of the unknown media type"),
        (lambda d: d.pop("layers"), "its manifest lacks 'layers'"),
        (lambda d: d.update(layers=[]), "0 layers, 2 diff_ids"),
        (lambda d: d.update(layers=[1]), "its manifest lacks"),
        (lambda d: d.update(config={"digest": 1}), "its manifest lacks"),
        (lambda d: d["config"].update(size=9 << 20), "a config of 9437184 bytes"),
        (lambda d: d["config"].update(size=7), "its manifest says 7|7 bytes"),
        (lambda d: d.update(schemaVersion=1), "schema 1, which nobody has written since 2017"),
        (lambda d: d.update(mediaType="text/html"), "media type 'text/html'"),
        (lambda d: d.update(mediaType=MEDIA_TYPE_INDEX), "its index lacks 'manifests'"),
    ],
)
def test_a_manifest_that_lies(
    change: Any, words: str, teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    edited(teaching, change)
    refused(place, store, BadContent, words)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"[" * 100_000, b"<html>", b"\xff"])
def test_a_manifest_that_is_none(
    data: bytes, teaching: TeachingRegistry, place: Place, store: Layout
) -> None:
    answer = on("GET", "/manifests/", lambda h: h.answer(200, data, Content_Type="text/html"))
    teaching.rules.append(answer)
    refused(place, store, BadContent, "no manifest.*is this a registry")


def test_a_manifest_without_end(teaching: TeachingRegistry, place: Place, store: Layout) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(100 << 20))
        handler.end_headers()

    def chunked(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
        except OSError:
            handler.close_connection = True

    for action in (endless, chunked):
        teaching.rules[:] = [on("GET", "/manifests/", action)]
        refused(place, store, BadContent, "larger than 4 MiB: refused")


def test_a_truncated_manifest(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    def short(handler: Handler) -> None:
        data = teaching.manifests["x", "1"][1]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data[:50])
        handler.close_connection = True

    teaching.rules.append(on("GET", "/manifests/", short))
    refused(place, store, BadContent, "broke off after 50 of .* bytes; remedy: try again")


def test_other_bytes_than_the_digest_says(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    digest = big_digest(source)
    teaching.blobs[digest] = b"\0" * len(teaching.blobs[digest])
    refused(place, store, BadContent, "the bytes that came have the digest")
    manifest = source.image("x:1").digest
    teaching.manifests["x", manifest] = ("application/json", b"{}")
    with pytest.raises(BadContent, match="its bytes are not those of"):
        fetch(place, store, f"x@{manifest}")


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_a_blob_of_another_length(
    size: int, teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    teaching.blobs[big_digest(source)] = b"\0" * size
    refused(place, store, BadContent, f"has {size} bytes, its manifest says")


def test_a_blob_without_end(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        try:
            for _ in range(100):
                handler.wfile.write(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
        except OSError:
            handler.close_connection = True

    teaching.rules.append(on("GET", big_digest(source), endless))
    refused(place, store, BadContent, "is longer than .* bytes: refused")


def test_an_index(teaching: TeachingRegistry, place: Place, source: Layout, store: Layout) -> None:
    descriptor = as_json(source.put(Path(source.blob_path(source.image("x:1").digest)).read_bytes(),
                                    "application/vnd.oci.image.manifest.v1+json"))  # fmt: skip
    platforms = ["linux/s390x", "linux/arm/v6"]
    entries = [
        {
            **descriptor,
            "platform": dict(zip(("os", "architecture", "variant"), one.split("/"), strict=False)),
        }
        for one in platforms
    ]
    index = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": entries}
    teaching.manifests["x", "1"] = (MEDIA_TYPE_INDEX, json.dumps(index).encode())
    words = "is not made for linux/(amd64|arm64), only for: linux/s390x, linux/arm/v6; remedy: --platform"
    refused(place, store, NotFound, words)
    with pytest.raises(NotFound, match="does not match the specified platform: wanted linux/s390x"):
        fetch(place, store, platform="linux/s390x")
    entries[0]["platform"] = {"os": "linux", "architecture": "amd64"}
    entries[1]["platform"] = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    teaching.manifests["x", "1"] = (MEDIA_TYPE_INDEX, json.dumps(index).encode())
    fetch(place, store)
    assert store.image(f"{place.host}/x:1").digest == descriptor["digest"]
    entries[0]["size"] = entries[1]["size"] = 5
    teaching.manifests["x", "1"] = (MEDIA_TYPE_INDEX, json.dumps(index).encode())
    refused(place, store, BadContent, "not what the index has promised")


def test_an_index_that_leads_to_itself(
    teaching: TeachingRegistry, place: Place, store: Layout
) -> None:
    entry: dict[str, Any] = {"mediaType": MEDIA_TYPE_INDEX}
    for target in ("c", "b", "1"):
        document = {"schemaVersion": 2, "mediaType": MEDIA_TYPE_INDEX, "manifests": [entry]}
        data = json.dumps(document).encode()
        entry = {"mediaType": MEDIA_TYPE_INDEX, "digest": Digest.of(data), "size": len(data)}
        for name in (target, entry["digest"]):
            teaching.manifests["x", name] = (MEDIA_TYPE_INDEX, data)
    refused(place, store, BadContent, "an index in an index in an index")


# ---- a disk that is full ----------------------------------------------------------------------------


def test_a_disk_that_is_full_before(
    place: Place, source: Layout, store: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail, f_frsize = 1, 1024

    monkeypatch.setattr(os, "statvfs", lambda path: Full)
    refused(
        place, store, RegistryError, "no space left on device: .* 1024 are free .*remedy: make room"
    )


def test_a_disk_that_fills_up(
    place: Place, source: Layout, store: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def failing(fd: int, data: Any) -> int:
        if len(data) > 100_000:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    monkeypatch.setattr("mini_docker.images.ingest.os.write", failing)
    refused(place, store, BadContent, "No space left on device; remedy: free some space")


# ---- connections that break -------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    digest = big_digest(source)
    teaching.rules.append(on("GET", digest, hang_up(700_000), times=3))
    fetch(place, store)
    asked = [one for one in teaching.seen if digest in one]
    assert len(asked) == 4
    assert store.has(digest) and not os.listdir(f"{store.directory}/ingest")


def test_a_download_that_breaks_too_often_is_kept_for_the_next_pull(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    digest = big_digest(source)
    breaking = on("GET", digest, hang_up(30_000))
    teaching.rules.append(breaking)
    with pytest.raises(
        Unreachable, match="broke off after 150000 of .*remedy: pull again, it goes on"
    ):
        fetch(place, store)
    assert store.names() == []
    teaching.rules.remove(breaking)
    ranges: list[str] = []

    def watch(handler: Handler) -> bool:
        ranges.append(handler.headers.get("Range", ""))
        return False

    teaching.rules.append(on("GET", digest, watch))
    fetch(place, store)
    assert ranges == ["bytes=150000-"]
    assert not os.listdir(f"{store.directory}/ingest") and not os.listdir(
        f"{store.directory}/leases"
    )


def test_a_registry_without_range_is_read_from_the_start(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    digest = big_digest(source)

    def whole(handler: Handler) -> None:
        handler.answer(200, handler.server.blobs[digest])

    teaching.rules += [on("GET", digest, hang_up(900_000), times=1), on("GET", digest, whole)]
    fetch(place, store)
    assert store.has(digest)


def test_a_wrong_part_is_refused(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    digest = big_digest(source)

    def wrong(handler: Handler) -> None:
        blob = handler.server.blobs[digest]
        handler.answer(206, blob[5:], Content_Range=f"bytes 5-{len(blob) - 1}/{len(blob)}")

    teaching.rules += [on("GET", digest, hang_up(900_000), times=1), on("GET", digest, wrong)]
    refused(place, store, BadContent, "asked for bytes from 900000 on, got 'bytes 5-")


def test_one_failure_stops_the_other_layers(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    def slow(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(handler.server.blobs[big_digest(source)])))
        handler.end_headers()
        try:
            while True:  # until nobody wants it any more
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)
        except OSError:
            handler.close_connection = True

    small = source.image("x:1").layers[1].digest
    teaching.rules += [on("GET", big_digest(source), slow),
                       on("GET", small, lambda h: h.fail(404, "BLOB_UNKNOWN"))]  # fmt: skip
    before = threading.active_count()
    with pytest.raises(NotFound):
        fetch(place, store)
    until(lambda: threading.active_count() <= before)


def test_an_unpack_that_fails_leaves_no_name(place: Place, source: Layout, store: Layout) -> None:
    def unpack(layer: object, diff_id: str) -> None:
        raise ImageError("layer entry '../x' does not name a file inside the image")

    before = contents(store)
    with pytest.raises(ImageError, match="does not name a file"):
        fetch(place, store, unpack=unpack)
    assert contents(store) == before


def test_only_verified_layers_are_unpacked(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    digest, unpacked = big_digest(source), []
    teaching.blobs[digest] = b"\0" * len(teaching.blobs[digest])
    with pytest.raises(BadContent):
        fetch(place, store, unpack=lambda layer, diff_id: unpacked.append(layer.digest))
    assert digest not in unpacked


# ---- tokens -----------------------------------------------------------------------------------------


def test_a_token_that_ends_in_mid_pull(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    valid: list[str] = []

    def guard(handler: Handler) -> bool:
        if handler.path.startswith("/token"):
            valid.append(f"Bearer t{len(valid)}")
            handler.answer(200, json.dumps({"token": valid[-1][7:]}).encode())
            return True
        if valid and handler.headers.get("Authorization") == valid[-1] and len(valid) != used[0]:
            used[0] = len(valid)  # each token is good for one request
            return False
        realm = f'Bearer realm="http://{teaching.host}/token",service="s",scope="ignored"'
        handler.answer(401, b"", WWW_Authenticate=realm)
        return True

    used = [0]
    teaching.rules.append(guard)
    fetch(place._replace(settings=place.settings._replace(max_concurrent_downloads=1)), store)
    assert len(valid) >= 4


def test_a_registry_that_is_never_content(
    teaching: TeachingRegistry, place: Place, store: Layout
) -> None:
    def guard(handler: Handler) -> None:
        if handler.path.startswith("/token"):
            handler.answer(200, json.dumps({"access_token": os.urandom(4).hex()}).encode())
        else:
            realm = f'Bearer realm="http://{teaching.host}/token"'
            handler.answer(401, b"", WWW_Authenticate=realm)

    teaching.rules.append(on("GET", "", guard))
    refused(place, store, RegistryError, "login needed")
    assert len(teaching.seen) < 10


def tokens_from(teaching: TeachingRegistry, answer: Callable[[Handler], object]) -> None:
    """Have a registry want tokens, which it gives at /token by `answer`."""

    def guard(handler: Handler) -> bool:
        if handler.path.startswith("/token"):
            answer(handler)
        elif handler.headers.get("Authorization") == "Bearer good":
            return False
        else:
            realm = f'Bearer realm="http://{teaching.host}/token"'
            handler.answer(401, b"", WWW_Authenticate=realm)
        return True

    teaching.rules.append(guard)


def test_a_token_server_that_is_busy_is_asked_again(
    teaching: TeachingRegistry,
    place: Place,
    source: Layout,
    store: Layout,
    waits: list[float | None],
) -> None:
    turns = iter([(429, {"Retry_After": "3"}), (503, {}), (500, {}), (200, {})])

    def busy(handler: Handler) -> None:
        status, headers = next(turns)
        handler.answer(status, b'{"token": "good"}' if status == 200 else b"", **headers)

    tokens_from(teaching, busy)
    fetch(place, store)
    assert waits == [3, None, None]


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (429, TooManyRequests, r"too many requests \(HTTP 429\).*remedy: wait"),
        (503, ServerError, r"the registry failed \(HTTP 503\).*remedy: try later"),
        (403, Denied, "denied"),
        (401, Unauthorized, "incorrect username or password; remedy: mini_docker login"),
    ],
)
def test_a_token_server_that_stays_so(
    status: int, kind: type[Exception], words: str, teaching: TeachingRegistry, place: Place,
    store: Layout, waits: list[float | None],
) -> None:  # fmt: skip
    tokens_from(teaching, lambda handler: handler.answer(status))
    where = f"the token server at http://{teaching.host}/token: "
    refused(place, store, kind, f"x:1: {where}.*{words}")
    asked = [one for one in teaching.seen if "/token" in one]
    assert len(asked) == (place.settings.max_download_attempts if status in (429, 503) else 1)


def test_a_token_server_that_is_not_there(
    teaching: TeachingRegistry, place: Place, store: Layout
) -> None:
    realm = 'Bearer realm="http://127.0.0.1:1/token"'
    teaching.rules.append(on("GET", "", lambda h: h.answer(401, b"", WWW_Authenticate=realm)))
    refused(place, store, Unreachable, "token server at .*: nothing listens at 127.0.0.1:1")


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"token": null}', b"<html>"])
def test_a_token_server_that_gives_none(
    answer: bytes, teaching: TeachingRegistry, place: Place, store: Layout
) -> None:
    tokens_from(teaching, lambda handler: handler.answer(200, answer))
    refused(place, store, RegistryError, "the token server at .* sent no token")


@pytest.mark.parametrize(
    "realm", ["http://tokens.example/", "file:///etc/passwd", "ftp://127.0.0.1/"]
)
def test_a_realm_that_is_not_safe(realm: str) -> None:
    with pytest.raises(RegistryError, match="which is not safe: refused"):
        check_realm("registry r.example: x", realm, "https://r.example/v2/")


# ---- redirects --------------------------------------------------------------------------------------


def test_another_host_never_sees_the_password(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    elsewhere = TeachingRegistry().start()
    elsewhere.blobs = teaching.blobs
    secrets: list[str | None] = []

    def watch(handler: Handler) -> bool:
        secrets.append(handler.headers.get("Authorization"))
        return False

    elsewhere.rules.append(watch)
    wanted = Login("ada", "secret").basic()

    def guard(handler: Handler) -> bool:
        if handler.headers.get("Authorization") != wanted:
            handler.answer(401, b"", WWW_Authenticate='Basic realm="x"')
            return True
        if "/blobs/" in handler.path:
            handler.answer(307, b"", Location=f"http://{elsewhere.host}{handler.path}?signed=1")
            return True
        return False

    teaching.rules.append(guard)
    place.credentials.put(place.host, Login("ada", "secret"))
    try:
        fetch(place, store)
    finally:
        elsewhere.stop()
    assert secrets and set(secrets) == {None}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/v2/x/manifests/1", "in circles"),
        ("file:///etc/passwd", "redirects from http to file"),
        ("gopher://x/", "redirects from http to gopher"),
    ],
)
def test_a_redirect_that_leads_nowhere(
    target: str, words: str, teaching: TeachingRegistry, place: Place, store: Layout
) -> None:
    teaching.rules.append(on("GET", "/manifests/", lambda h: h.answer(302, b"", Location=target)))
    refused(place, store, BadContent, words)


# ---- pushes -----------------------------------------------------------------------------------------


def send(place: Place, source: Layout, name: str = "y:1", **changes: Any) -> None:
    """Push x:1 of `source` under another name."""
    reference = place.reference(name)
    source.tag(reference.familiar(), find(source, parse_reference("x:1")))
    push(
        source,
        reference,
        credentials=place.credentials,
        settings=place.settings._replace(**changes),
    )


@pytest.mark.parametrize("chunk", [0, 500_000])
def test_an_upload_goes_on_where_it_broke(
    chunk: int, teaching: TeachingRegistry, place: Place, source: Layout
) -> None:
    teaching.blobs.clear()

    def half(handler: Handler) -> None:
        upload = handler.path.rpartition("/")[2]
        handler.server.uploads[upload] += handler.body[:200_000]
        handler.close_connection = True

    teaching.rules.append(on("PATCH", "", half, times=1))
    send(place, source, chunk_size=chunk)
    assert any(one.startswith("GET /v2/y/blobs/uploads/") for one in teaching.seen)
    assert teaching.blobs[big_digest(source)] == source.open_blob(big_digest(source)).read()


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_an_upload_whose_session_is_lost_begins_anew(
    method: str, teaching: TeachingRegistry, place: Place, source: Layout
) -> None:
    teaching.blobs.clear()

    def forget(handler: Handler) -> None:
        handler.server.uploads.clear()
        handler.fail(404, "BLOB_UPLOAD_UNKNOWN")

    teaching.rules.append(on(method, "/blobs/uploads/", forget, times=1))
    send(place, source)
    assert big_digest(source) in teaching.blobs


def test_a_registry_that_keeps_something_else_is_found_out(
    teaching: TeachingRegistry, place: Place, source: Layout
) -> None:
    other = f"sha256:{'0' * 64}"
    answer = on("PUT", "/manifests/", lambda h: h.answer(201, b"", Docker_Content_Digest=other))
    teaching.rules.append(answer)
    with pytest.raises(BadContent, match=f"it kept {other}, and not sha256:.*remedy: push again"):
        send(place, source)


@pytest.mark.parametrize("knows", [True, False])
def test_referrers(
    knows: bool, teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    if not knows:  # a registry of the time before referrers

        def plain(handler: Handler) -> None:
            name, target = "x", handler.path.rpartition("/")[2]
            kept = (handler.headers["Content-Type"], handler.body)
            handler.server.manifests[name, target] = kept
            handler.answer(201)

        teaching.rules += [on("GET", "/referrers/", lambda h: h.fail(404, "NOT_FOUND")),
                           on("PUT", "/manifests/", plain)]  # fmt: skip
    subject = source.image("x:1").digest
    about = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": subject,
        "size": 1,
    }
    for tag in ("sbom", "signature"):
        name = place.reference(f"x:{tag}")
        make_image(source, name.familiar(), {tag: b""}, subject=about, artifactType=f"text/{tag}")
        push(source, name, credentials=place.credentials, settings=place.settings)
    context = place.credentials, place.settings
    found = referrers(place.reference("x:1"), *context)
    assert sorted(one["artifactType"] for one in found) == ["text/sbom", "text/signature"]


# ---- listings, mirrors, sha512 ----------------------------------------------------------------------


def test_tags_come_in_pages(teaching: TeachingRegistry, place: Place) -> None:
    def page(handler: Handler) -> None:
        last = int(handler.query.get("last", "0"))
        more = {"Link": f'</v2/x/tags/list?n=2&last={last + 2}>; rel="next"'} if last < 4 else {}
        handler.answer(200, json.dumps({"tags": [str(last + 1), str(last + 2)]}).encode(), **more)

    teaching.rules.append(on("GET", "/tags/", page))
    assert tags(place.reference("x"), *place[1:]) == list("123456")


def test_a_mirror_comes_first_and_its_failure_is_told(
    teaching: TeachingRegistry, place: Place, source: Layout, store: Layout
) -> None:
    teaching.manifests["library/x", "1"] = teaching.manifests["x", "1"]
    mirrors = ("http://127.0.0.1:1", f"http://{teaching.host}/")
    settings = place.settings._replace(registry_mirrors=mirrors)
    told: list[str] = []
    pull(store, parse_reference("x:1"), credentials=place.credentials, settings=settings,
         progress=lambda message: told.append(message.get("status", "")))  # fmt: skip
    assert "connection refused" in told[0] and "going on without this mirror" in told[0]
    assert store.names() == ["x:1"]


def test_sha512(teaching: TeachingRegistry, place: Place, source: Layout, store: Layout) -> None:
    def change(document: dict[str, Any]) -> None:
        blob = teaching.blobs[document["layers"][0]["digest"]]
        document["layers"][0]["digest"] = digest = Digest.of(blob, "sha512")
        teaching.blobs[digest] = blob

    edited(teaching, change)
    fetch(place, store)
    assert store.image(f"{place.host}/x:1").layers[0].digest.startswith("sha512:")


def test_closed_connections_are_replaced(
    teaching: TeachingRegistry, place: Place, source: Layout
) -> None:
    (client,) = reach(place.host, place.settings, lambda _: None)
    for _ in range(3):
        with client.request("GET", "/v2/", "ping") as response:
            assert response.read(100) == b""
        (connection,) = sum(map(list, client._transport._free.values()), [])  # type: ignore[attr-defined]
        connection.sock.shutdown(socket.SHUT_RDWR)
    client.close()


def test_hosts() -> None:
    assert transport.split_host("[::1]:5000", 443) == ("::1", 5000)
    assert transport.split_host("registry.example", 443) == ("registry.example", 443)
    with pytest.raises(OSError, match="is no host and port"):
        transport.split_host("registry.example:99999", 443)


def test_settings_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    assert load_settings(str(path)) == Settings()
    path.write_text(
        '{"insecure-registries": ["a:1"], "max-concurrent-downloads": 7, "debug": true}'
    )
    loaded = load_settings(str(path))
    assert loaded.insecure_registries == ("a:1",) and loaded.max_concurrent_downloads == 7
    for text in ("{", "[]", '{"insecure-registries": "a"}', '{"max-concurrent-downloads": "7"}'):
        path.write_text(text)
        with pytest.raises(RegistryError, match="daemon.json cannot be used.*remedy"):
            load_settings(str(path))
