# Exported from notebooks/15c_names.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15c_names.ipynb#dns-module
"""Messages of DNS, read and written by hand: one question, some answers. Source: RFC 1035, RFC 3596."""

from __future__ import annotations

import socket
import struct
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NamedTuple

    class Question(NamedTuple):
        """What a query asks: its id and flags, the name in lower case, type, class, and where it ends."""

        id: int
        flags: int
        name: str
        type: int
        klass: int
        end: int

else:
    Question = namedtuple("Question", ("id", "flags", "name", "type", "klass", "end"))

# RFC 1035, RFC 3596
A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
QR, OPCODE, AA, TC, RD, RA = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5
# id, flags, and how many questions, answers, authorities, additionals
header = struct.Struct("!HHHHHH")
TTL = 600  # seconds, as Docker says
LONGEST_NAME = 255
SMALLEST_LIMIT = 512  # bytes of an answer by UDP, for who says nothing about it


# %% notebooks/15c_names.ipynb#dns-messages
def parse_query(data: bytes) -> Question:
    """Return the question of a DNS query. Raises ValueError for everything else.

    One question, no answers, labels of at most 63 bytes, a name of at most 255, and no compression: in a
    question there is nothing before it that it could point to. Source: RFC 1035, section 4.
    """
    if len(data) < header.size:
        raise ValueError("shorter than a header")
    ident, flags, questions, answers, _, _ = header.unpack_from(data)
    if flags & QR or questions != 1 or answers:
        raise ValueError("not a query of one question")
    labels, offset = [], header.size
    while True:
        if offset >= len(data):
            raise ValueError("the name has no end")
        length = data[offset]
        offset += 1
        if length == 0:
            break
        if (
            length > 63
            or offset + length > len(data)
            or offset - header.size + length > LONGEST_NAME
        ):
            raise ValueError("a label is too long, or points elsewhere")
        labels.append(data[offset : offset + length])
        offset += length
    if offset + 4 > len(data):
        raise ValueError("no type and class")
    kind, klass = struct.unpack_from("!HH", data, offset)
    name = b".".join(labels).decode("latin-1").lower()
    return Question(ident, flags, name, kind, klass, offset + 4)


def answer(
    data: bytes, question: Question, code: int, records: Sequence[tuple[int, bytes]] = ()
) -> bytes:
    """Return the response to a query: its own question, and records (type, data) for the name asked."""
    flags = QR | question.flags & (OPCODE | RD) | RA | code
    head = header.pack(question.id, flags, 1, len(records), 0, 0)
    found = [head, data[header.size : question.end]]
    for kind, value in records:  # 0xC00C: the name at offset 12, the question's
        found.append(struct.pack("!HHHIH", 0xC00C, kind, IN, TTL, len(value)) + value)
    return b"".join(found)


def pack_name(name: str) -> bytes:
    """Return a name as labels, RFC 1035 3.1."""
    labels = [label.encode("latin-1")[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def address_of_pointer(name: str) -> str | None:
    """Return the address that "2.0.18.172.in-addr.arpa" or an ip6.arpa name asks about; None for others."""
    try:
        if name.endswith(".in-addr.arpa"):
            parts = name.removesuffix(".in-addr.arpa").split(".")
            return (
                socket.inet_ntoa(socket.inet_aton(".".join(parts[::-1])))
                if len(parts) == 4
                else None
            )
        if name.endswith(".ip6.arpa"):
            digits = name.removesuffix(".ip6.arpa").split(".")[::-1]
            packed = bytes.fromhex("".join(digits)) if len(digits) == 32 else b""
            return socket.inet_ntop(socket.AF_INET6, packed)
    except (OSError, ValueError):
        pass
    return None


def truncated(response: bytes, limit: int) -> bytes:
    """Return a response that fits into `limit` bytes: without answers and with TC, if it does not."""
    if len(response) <= limit:
        return response
    ident, flags, *_ = header.unpack_from(response)
    end = header.size
    while end < len(response) and response[end]:
        end += 1 + response[end]
    return header.pack(ident, flags | TC, 1, 0, 0, 0) + response[header.size : end + 5]


def udp_limit(data: bytes, question: Question) -> int:
    """Return how many bytes the asker takes: an EDNS0 record says so, RFC 6891."""
    if len(data) >= question.end + 11 and data[question.end : question.end + 3] == b"\0\0\x29":
        (size,) = struct.unpack_from("!H", data, question.end + 3)
        return max(SMALLEST_LIMIT, min(int(size), 4096))
    return SMALLEST_LIMIT
