# Exported from notebooks/08d_owners.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08d_owners.ipynb#systemd-module
"""Where systemd owns the tree: a transient scope, asked for over D-Bus, a few messages by hand."""

from __future__ import annotations

import os
import re
import socket
import struct
from collections import namedtuple

from mini_docker.cgroups.limits import with_what_holds
from mini_docker.cgroups.resources import files_for
from mini_docker.cgroups.tree import Cgroup, Hierarchies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NamedTuple

    class Message(NamedTuple):
        """One message of a bus: its kind, its header fields by number, the values in it."""

        kind: int
        fields: dict[int, Any]
        body: list[Any]

    class Unit(NamedTuple):
        """A scope: its own name, its slice's, and the path of its control group."""

        name: str
        slice: str
        path: str

else:
    Message = namedtuple("Message", ("kind", "fields", "body"))
    Unit = namedtuple("Unit", ("name", "slice", "path"))


# %% notebooks/08d_owners.ipynb#marshal
# a type's letter: struct(3) letter and alignment; the D-Bus specification, "Summary of types"
NUMBERS = {"y": ("B", 1), "b": ("I", 4), "u": ("I", 4), "t": ("Q", 8), "x": ("q", 8), "i": ("i", 4)}
ALIGNMENT = {
    **{k: v[1] for k, v in NUMBERS.items()},
    "s": 4,
    "o": 4,
    "g": 1,
    "a": 4,
    "(": 8,
    "v": 1,
}


def complete_types(signature: str) -> Iterator[str]:
    """Yield the types of a signature one by one: `sa(sv)u` is `s`, `a(sv)`, `u`."""
    start = depth = 0
    for index, letter in enumerate(signature):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth == 0 and letter != "a":
            yield signature[start : index + 1]
            start = index + 1


def marshal(buffer: bytearray, kind: str, value: Any) -> None:
    """Append one value of the complete type `kind`, little-endian; a variant is (type, value)."""
    buffer.extend(bytes(-len(buffer) % ALIGNMENT[kind[0]]))
    if kind in NUMBERS:
        buffer.extend(struct.pack("<" + NUMBERS[kind][0], value))
    elif kind in ("s", "o", "g"):
        text = value.encode()
        buffer.extend(struct.pack("<B" if kind == "g" else "<I", len(text)) + text + b"\0")
    elif kind == "v":
        marshal(buffer, "g", value[0])
        marshal(buffer, value[0], value[1])
    elif kind[0] == "(":
        for inner, item in zip(complete_types(kind[1:-1]), value, strict=True):
            marshal(buffer, inner, item)
    else:
        _marshal_array(buffer, kind[1:], value)


def _marshal_array(buffer: bytearray, kind: str, items: Sequence[Any]) -> None:
    """Append an array: its length in bytes, without the padding in front of the first item."""
    place = len(buffer)
    buffer.extend(bytes(4))
    buffer.extend(bytes(-len(buffer) % ALIGNMENT[kind[0]]))
    start = len(buffer)
    for item in items:
        marshal(buffer, kind, item)
    struct.pack_into("<I", buffer, place, len(buffer) - start)


def unmarshal(data: bytes, at: int, kind: str) -> tuple[Any, int]:
    """Return the value of type `kind` at the offset `at`, and the offset after it."""
    at += -at % ALIGNMENT[kind[0]]
    if kind in NUMBERS:
        letter, size = NUMBERS[kind]
        return struct.unpack_from("<" + letter, data, at)[0], at + size
    if kind in ("s", "o", "g"):
        size = 1 if kind == "g" else 4
        length = int.from_bytes(data[at : at + size], "little")
        return data[at + size : at + size + length].decode(), at + size + length + 1
    if kind == "v":
        inner, at = unmarshal(data, at, "g")
        return unmarshal(data, at, inner)
    items = []
    if kind[0] == "(":
        for inner in complete_types(kind[1:-1]):
            item, at = unmarshal(data, at, inner)
            items.append(item)
        return tuple(items), at
    length, at = unmarshal(data, at, "u")
    at += -at % ALIGNMENT[kind[1]]
    end = at + length
    while at < end:
        item, at = unmarshal(data, at, kind[1:])
        items.append(item)
    return items, at


# %% notebooks/08d_owners.ipynb#bus
METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
PATH, INTERFACE, MEMBER, ERROR_NAME, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 4, 5, 6, 8
FIELD_TYPES = {PATH: "o", REPLY_SERIAL: "u", SIGNATURE: "g"}  # the others are strings
DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
SYSTEM_BUS = "/run/dbus/system_bus_socket"


class BusError(OSError):
    """The bus or the service behind it said no; `name` is the error's, such as org...NoSuchUnit."""

    def __init__(self, name: str, words: str) -> None:
        """Keep the name beside the words."""
        super().__init__(5, f"D-Bus: {words or name}")
        self.name = name


def encode(
    kind: int, serial: int, fields: dict[int, Any], signature: str, body: Sequence[Any]
) -> bytes:
    """Return a message's bytes: a header of twelve, an array of fields, padding, the body."""
    content = bytearray()
    for inner, value in zip(complete_types(signature), body, strict=True):
        marshal(content, inner, value)
    if signature:
        fields = {**fields, SIGNATURE: signature}
    header = bytearray(struct.pack("<cBBBII", b"l", kind, 0, 1, len(content), serial))
    listed = [(number, (FIELD_TYPES.get(number, "s"), value)) for number, value in fields.items()]
    marshal(header, "a(yv)", listed)
    return bytes(header + bytes(-len(header) % 8) + content)


class Bus:
    """A connection to a message bus; use it in a `with`. Source: the D-Bus specification."""

    def __init__(self, path: str = SYSTEM_BUS, timeout: float = 25) -> None:
        """Connect, authenticate as our user (EXTERNAL: the kernel vouches), say Hello. Raises OSError."""
        self.serial = 0
        self.signals: list[Message] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(path)
            self.socket.sendall(
                b"\0AUTH EXTERNAL " + str(os.getuid()).encode().hex().encode() + b"\r\n"
            )
            answer = self._line()
            if not answer.startswith(b"OK "):
                raise BusError("AUTH", f"{path} refused us: {answer.decode(errors='replace')}")
            self.socket.sendall(b"BEGIN\r\n")
            self.call(*DBUS, "Hello")
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Bus:
        """Return the bus."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self.socket.close()

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\r\n"):
            line += self._exactly(1)
        return line[:-2]

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise BusError("EOF", "the bus hung up")
            data += part
        return data

    def receive(self) -> Message:
        """Wait for the next message."""
        head = self._exactly(16)
        size, length = struct.unpack_from("<I", head, 4)[0], struct.unpack_from("<I", head, 12)[0]
        if head[:1] != b"l" or size + length > 1 << 24:
            raise BusError("FORMAT", "the bus sent what is no message for us")
        padded = length + -length % 8
        rest = self._exactly(padded + size)
        fields = dict(unmarshal(head + rest, 12, "a(yv)")[0])
        body, content, at = [], rest[padded:], 0
        for kind in complete_types(fields.get(SIGNATURE, "")):
            value, at = unmarshal(content, at, kind)
            body.append(value)
        return Message(head[1], fields, body)

    def call(
        self, to: str, path: str, interface: str, member: str, signature: str = "", *values: Any
    ) -> list[Any]:
        """Call a method and return what it returns; signals that come meanwhile are kept.

        Raises BusError with the service's own words.
        """
        self.serial += 1
        fields = {PATH: path, INTERFACE: interface, MEMBER: member, DESTINATION: to}
        self.socket.sendall(encode(METHOD_CALL, self.serial, fields, signature, values))
        while True:
            message = self.receive()
            if message.kind == SIGNAL:
                self.signals.append(message)
            elif message.fields.get(REPLY_SERIAL) == self.serial:
                break
        if message.kind == ERROR:
            words = message.body[0] if message.body and isinstance(message.body[0], str) else ""
            raise BusError(message.fields.get(ERROR_NAME, "?"), words)
        return message.body


# %% notebooks/08d_owners.ipynb#units
SYSTEMD = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
SLICE = re.compile(r"[A-Za-z0-9_.:]+(-[A-Za-z0-9_.:]+)*\.slice")
UNIT_PART = re.compile(r"[A-Za-z0-9_.-]*")
INFINITY = (1 << 64) - 1
# the same limit in systemd's words; what has none is written into the scope's files by ourselves
PROPERTIES = {
    "memory.max": "MemoryMax",
    "memory.low": "MemoryLow",
    "memory.swap.max": "MemorySwapMax",
    "cpu.weight": "CPUWeight",
    "pids.max": "TasksMax",
    "cpuset.cpus": "AllowedCPUs",
    "cpuset.mems": "AllowedMemoryNodes",
}
ANY_V2 = Hierarchies("v2", dict.fromkeys(["", "cpu", "cpuset", "io", "memory", "pids"], "/"))


def systemd_is_here() -> bool:
    """Say whether systemd runs this machine, sd_booted(3)."""
    return os.path.isdir("/run/systemd/system")


def parse_unit(path: str) -> Unit:
    """Return the scope that a document's cgroupsPath `slice:prefix:name` means. Raises ValueError.

    An empty slice is system.slice. A slice's name is its path: a-b.slice lies in a.slice. Source: runc's
    systemd driver, systemd.slice(5).
    """
    parts = path.split(":")
    slice_name = parts[0] or "system.slice"
    good = len(parts) == 3 and parts[2] and all(UNIT_PART.fullmatch(part) for part in parts[1:])
    if not good or not SLICE.fullmatch(slice_name):
        raise ValueError(f"linux.cgroupsPath: {path!r} is not like 'system.slice:prefix:name'")
    words = slice_name.removesuffix(".slice").split("-")
    above = "".join(f"/{'-'.join(words[: n + 1])}.slice" for n in range(len(words)))
    name = f"{parts[1]}-{parts[2]}.scope" if parts[1] else f"{parts[2]}.scope"
    return Unit(name, slice_name, f"{above}/{name}")


def properties_for(resources: dict[str, Any]) -> list[tuple[str, tuple[str, Any]]]:
    """Return the limits of linux.resources as properties of a unit. Raises ValueError."""
    asked = {key: value for key, value in resources.items() if key in ("memory", "cpu", "pids")}
    found: list[tuple[str, tuple[str, Any]]] = []
    for file in files_for(ANY_V2, asked):
        if file.name == "cpu.max":
            quota, period = file.text.split()
            per_second = INFINITY if quota == "max" else int(quota) * 1_000_000 // int(period)
            found.append(("CPUQuotaPerSecUSec", ("t", per_second)))
            found.append(("CPUQuotaPeriodUSec", ("t", int(period))))
        elif file.name.startswith("cpuset."):
            found.append((PROPERTIES[file.name], ("ay", bits_of(file.text))))
        elif file.name in PROPERTIES:
            number = INFINITY if file.text == "max" else int(file.text)
            found.append((PROPERTIES[file.name], ("t", number)))
    return found


def bits_of(text: str) -> bytes:
    """Return a list such as 0-2,7 as a bit mask, least significant byte first."""
    mask = 0
    for part in text.split(","):
        first, _, last = part.partition("-")
        for number in range(int(first), int(last or first) + 1):
            mask |= 1 << number
    return mask.to_bytes(mask.bit_length() + 7 >> 3, "little")


# %% notebooks/08d_owners.ipynb#scope
class Scope(Cgroup):
    """A group that systemd makes for us and leaves to us (Delegate=yes): same interface, other owner."""

    def __init__(self, trees: Hierarchies, cgroups_path: str, bus: str = SYSTEM_BUS) -> None:
        """Name the scope `slice:prefix:name`; nothing is made yet. Raises ValueError."""
        self.unit = parse_unit(cgroups_path)
        self.bus = bus
        self.holder: tuple[int, int] | None = None
        super().__init__(trees, self.unit.path)

    def create(self, resources: dict[str, Any], everywhere: bool = False) -> None:
        """Ask systemd for the scope, wait for it, and write what systemd has no word for.

        A scope is born with a process in it: a `cat` of ours keeps the place until `settle`.
        """
        properties = properties_for(resources)
        self.holder = _start_holder()
        try:
            self._start(self.holder[0], properties)
            super().create(resources, everywhere)
        except BaseException:
            self.settle()
            raise

    def _start(self, pid: int, limits: Sequence[tuple[str, tuple[str, Any]]]) -> None:
        counted = [(f"{name}Accounting", ("b", 1)) for name in ("CPU", "Memory", "IO", "Tasks")]
        properties: list[tuple[str, tuple[str, Any]]] = [
            ("Description", ("s", f"mini_docker container {self.unit.name}")),
            ("Slice", ("s", self.unit.slice)),
            ("PIDs", ("au", [pid])),
            ("Delegate", ("b", 1)),
            ("DefaultDependencies", ("b", 0)),
            ("CollectMode", ("s", "inactive-or-failed")),  # a failed one goes too
            *counted,
            *limits,
        ]
        with Bus(self.bus) as bus:
            rule = f"type='signal',sender='{SYSTEMD[0]}',member='JobRemoved'"
            bus.call(*DBUS, "AddMatch", "s", rule)
            bus.call(*SYSTEMD, "Subscribe")
            types = "ssa(sv)a(sa(sv))"
            words = (self.unit.name, "fail", properties, ())
            (job,) = bus.call(*SYSTEMD, "StartTransientUnit", types, *words)
            result = _result_of(bus, job)
        if result != "done":
            raise BusError("JobFailed", f"systemd could not start {self.unit.name}: {result}")

    def settle(self) -> None:
        """End the place-keeper, once a process of the container is in the scope."""
        if self.holder is not None:
            pid, pipe_fd = self.holder
            self.holder = None
            os.close(pipe_fd)  # the end of its input
            os.waitpid(pid, 0)

    def update(self, resources: dict[str, Any]) -> None:
        """Tell systemd too, or its next reload would bring back the old limits."""
        resources = with_what_holds(self, resources)
        if properties := properties_for(resources):
            with Bus(self.bus) as bus:
                arguments = (self.unit.name, 1, properties)
                bus.call(*SYSTEMD, "SetUnitProperties", "sba(sv)", *arguments)
        super().update(resources)

    def remove(self) -> None:
        """Have systemd forget the scope, and remove what is left; one that is gone is fine."""
        self.settle()
        with Bus(self.bus) as bus:
            for member, signature, words in (
                ("StopUnit", "ss", ["replace"]),
                ("ResetFailedUnit", "s", []),
            ):
                try:
                    bus.call(*SYSTEMD, member, signature, self.unit.name, *words)
                except BusError as error:
                    if not error.name.endswith((".NoSuchUnit", ".UnitNotLoaded")):
                        raise
        super().remove()


def _result_of(bus: Bus, job: str) -> str:
    """Wait for JobRemoved (id, job, unit, result) of `job`; return the result, "done" if all is well."""
    while True:
        message = bus.signals.pop(0) if bus.signals else bus.receive()
        if message.fields.get(MEMBER) == "JobRemoved" and message.body[1] == job:
            return str(message.body[3])


def _start_holder() -> tuple[int, int]:
    """Start a process that waits for the end of its input, and so for us; return its pid and the pipe."""
    read_fd, write_fd = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, read_fd, 0)]
        return os.posix_spawn("/bin/cat", ["cat"], {}, file_actions=actions), write_fd
    except OSError:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
