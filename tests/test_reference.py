"""Image names as Docker reads and writes them."""

from __future__ import annotations

import pytest

from mini_docker.images.reference import InvalidReference, parse_reference

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"
# text -> familiar, canonical; from distribution's reference tests and the docker client
GOOD = {
    "busybox": ("busybox:latest", "docker.io/library/busybox:latest"),
    "busybox:1.36": ("busybox:1.36", "docker.io/library/busybox:1.36"),
    "docker.io/busybox": ("busybox:latest", "docker.io/library/busybox:latest"),
    "index.docker.io/library/busybox": ("busybox:latest", "docker.io/library/busybox:latest"),
    "library/busybox": ("busybox:latest", "docker.io/library/busybox:latest"),
    "library/a/b": ("library/a/b:latest", "docker.io/library/a/b:latest"),
    "ada/app": ("ada/app:latest", "docker.io/ada/app:latest"),
    "a/b/c:1": ("a/b/c:1", "docker.io/a/b/c:1"),
    "localhost/x": ("localhost/x:latest", "localhost/x:latest"),
    "localhost:5000/x": ("localhost:5000/x:latest", "localhost:5000/x:latest"),
    "LOCALHOST/x": ("LOCALHOST/x:latest", "LOCALHOST/x:latest"),
    "Reg/x": ("Reg/x:latest", "Reg/x:latest"),
    "registry.example/x:1": ("registry.example/x:1", "registry.example/x:1"),
    "a:5000/b/c": ("a:5000/b/c:latest", "a:5000/b/c:latest"),
    "[::1]:5000/a": ("[::1]:5000/a:latest", "[::1]:5000/a:latest"),
    f"x@{DIGEST}": (f"x@{DIGEST}", f"docker.io/library/x@{DIGEST}"),
    f"x:1@{DIGEST}": (f"x:1@{DIGEST}", f"docker.io/library/x:1@{DIGEST}"),
    f"x@sha512:{HEX * 2}": (f"x@sha512:{HEX * 2}", f"docker.io/library/x@sha512:{HEX * 2}"),
    "a_b": ("a_b:latest", "docker.io/library/a_b:latest"),
    "a__b--c.d": ("a__b--c.d:latest", "docker.io/library/a__b--c.d:latest"),
    HEX[:63]: (f"{HEX[:63]}:latest", f"docker.io/library/{HEX[:63]}:latest"),
    "x:_-.": ("x:_-.", "docker.io/library/x:_-."),
}
BAD = {
    HEX: "cannot specify 64-byte hexadecimal strings",
    "Busybox": r"repository name \(library/Busybox\) must be lowercase",
    "reg.example/UPPER": r"repository name \(UPPER\) must be lowercase",
    "": "invalid reference format",
    "a//b": "invalid reference format",
    "/a": "invalid reference format",
    "a/": "invalid reference format",
    "-a/b": "invalid reference format",
    "a..b": "invalid reference format",
    "a___b": "invalid reference format",
    "a:": "invalid reference format",
    "a:.x": "invalid reference format",
    f"a:{'t' * 129}": "invalid reference format",
    "a@sha256:12": "invalid reference format",
    f"a@md5:{HEX[:32]}": "unsupported digest algorithm 'md5'",
    f"a@sha256:{HEX}00": "invalid checksum digest length",
    f"a@{DIGEST.upper().replace('SHA', 'sha')}": "invalid checksum digest length",
    "a b": "invalid reference format",
    "a\n": "invalid reference format",
    "é": "invalid reference format",
    "../a": "invalid reference format",
    "https://a/b": "invalid reference format",
    "a" * 256: "must not be more than 255 characters",
}


@pytest.mark.parametrize("text", GOOD)
def test_a_name(text: str) -> None:
    reference = parse_reference(text)
    assert (reference.familiar(), reference.canonical()) == GOOD[text]
    assert parse_reference(reference.familiar()) == reference
    assert parse_reference(reference.canonical()) == reference


@pytest.mark.parametrize("text", BAD)
def test_no_name(text: str) -> None:
    with pytest.raises(InvalidReference, match=BAD[text]):
        parse_reference(text)


def test_what_a_registry_is_asked_for() -> None:
    assert parse_reference("x").target() == "latest"
    assert parse_reference("x:1").target() == "1"
    assert parse_reference(f"x:1@{DIGEST}").target() == DIGEST
    assert parse_reference("x").repository() == "docker.io/library/x"
