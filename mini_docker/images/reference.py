# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#reference-module
"""Image names: what "busybox" means in full, and how Docker writes it down again."""

from __future__ import annotations

import re
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class _Parts(NamedTuple):
        domain: str
        path: str
        tag: str | None
        digest: str | None

else:
    _Parts = namedtuple("_Parts", ("domain", "path", "tag", "digest"))


# %% notebooks/13_registry.ipynb#reference-grammar
DEFAULT_DOMAIN, OFFICIAL, DEFAULT_TAG = "docker.io", "library/", "latest"
OLD_DOMAIN = "index.docker.io"
LONGEST_REPOSITORY = 255
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_ALGORITHM = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*"
REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    rf"(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}))?"
    rf"(?:@(?P<digest>{_ALGORITHM}:[0-9a-fA-F]{{32,}}))?"
)
IDENTIFIER = re.compile("[0-9a-f]{64}")
DIGEST_LENGTHS = {"sha256": 64, "sha384": 96, "sha512": 128}


# %% notebooks/13_registry.ipynb#reference
class InvalidReference(ValueError):
    """What was written is no image name; the text says so in Docker's words."""


class Reference(_Parts):
    """An image's name in full: registry, repository, and a tag or a digest or both."""

    __slots__ = ()

    def repository(self) -> str:
        """Return registry and path: "docker.io/library/busybox"."""
        return f"{self.domain}/{self.path}"

    def familiar_repository(self) -> str:
        """Return the repository without what Docker adds by itself: "busybox"."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository()
        short = self.path.removeprefix(OFFICIAL)
        return self.path if "/" in short else short

    def canonical(self) -> str:
        """Return the whole name: "docker.io/library/busybox:latest"."""
        return self.repository() + self._suffix()

    def familiar(self) -> str:
        """Return the name as people write it: "busybox:latest"."""
        return self.familiar_repository() + self._suffix()

    def target(self) -> str:
        """Return what to ask the registry for: the digest where there is one, or else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


# %% notebooks/13_registry.ipynb#parse-reference
def parse_reference(text: str) -> Reference:
    """Return the reference that `text` means, with the tag "latest" where it names neither tag nor digest.

    Raises InvalidReference. Source: github.com/distribution/reference, normalize.go and regexp.go.
    """
    if IDENTIFIER.fullmatch(text):
        raise InvalidReference(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
        )
    domain, rest = split_domain(text)
    name = re.split("[:@]", rest, maxsplit=1)[0]
    if name != name.lower():
        raise InvalidReference(
            f"invalid reference format: repository name ({name}) must be lowercase"
        )
    found = REFERENCE.fullmatch(f"{domain}/{rest}")
    if found is None:
        raise InvalidReference(f"invalid reference format: {text!r} is no image name")
    if len(found["domain"]) + 1 + len(found["path"]) > LONGEST_REPOSITORY:
        raise InvalidReference(
            f"repository name must not be more than {LONGEST_REPOSITORY} characters"
        )
    tag, digest = found["tag"], found["digest"]
    if digest:
        _check_digest(text, digest)
    return Reference(domain, found["path"], tag if tag or digest else DEFAULT_TAG, digest)


def split_domain(text: str) -> tuple[str, str]:
    """Return (registry, rest): a first part with a dot, colon or capital, or localhost, is a registry."""
    first, slash, rest = text.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_domain:
        first, rest = DEFAULT_DOMAIN, text
    if first == OLD_DOMAIN:
        first = DEFAULT_DOMAIN
    official = first == DEFAULT_DOMAIN and "/" not in rest
    return first, OFFICIAL + rest if official else rest


def _check_digest(text: str, digest: str) -> None:
    algorithm, _, encoded = digest.partition(":")
    if algorithm not in DIGEST_LENGTHS:
        raise InvalidReference(f"{text!r}: unsupported digest algorithm {algorithm!r}")
    if len(encoded) != DIGEST_LENGTHS[algorithm] or encoded != encoded.lower():
        raise InvalidReference(f"{text!r}: invalid checksum digest length or format")
