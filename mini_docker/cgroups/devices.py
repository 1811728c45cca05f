# Exported from notebooks/08b_devices.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08b_devices.ipynb#devices-module
"""Which devices a group may open or make: v1's files, or a program for the kernel that we write ourselves."""

from __future__ import annotations

import errno
import os
import struct
from collections import namedtuple

from mini_docker.cgroups.files import write_file
from mini_docker.linux.bpf import (
    BPF_PROG_TYPE_CGROUP_DEVICE,
    attach_program,
    attached_programs,
    load_program,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NamedTuple, Protocol

    class Group(Protocol):
        """What is needed of a Cgroup here."""

        directories: dict[str, str]

        @property
        def trees(self) -> Any:
            """The Hierarchies of the machine."""

        def join_tree(self, controller: str) -> None:
            """Have the group in that controller's tree too."""

        def file(self, name: str) -> str:
            """Return the path of a control file."""

    class Rule(NamedTuple):
        """One rule: type "a", "b" or "c"; major and minor, None for any; access, letters of "rwm"."""

        allow: bool
        type: str
        major: int | None
        minor: int | None
        access: str

else:
    Rule = namedtuple("Rule", ("allow", "type", "major", "minor", "access"))


# %% notebooks/08b_devices.ipynb#rules
# what every container has (OCI config-linux.md, default devices): to make any node, mknod(2), gives no
# access to what is behind it; then null zero full random urandom tty console ptmx and terminals
DEFAULT_RULES = (
    Rule(True, "c", None, None, "m"),
    Rule(True, "b", None, None, "m"),
    *(Rule(True, "c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)),
    *(Rule(True, "c", 5, minor, "rwm") for minor in (0, 1, 2)),
    Rule(True, "c", 136, None, "rwm"),
)


def parse_rules(listed: Any) -> list[Rule]:
    """Return the rules of linux.resources.devices. Raises ValueError with the JSON path of a bad one."""
    if not isinstance(listed, list):
        raise ValueError(f"linux.resources.devices: {listed!r} is not a list")
    return [_parse_rule(entry, f"linux.resources.devices[{i}]") for i, entry in enumerate(listed)]


def _parse_rule(entry: Any, key: str) -> Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("allow"), bool):
        raise ValueError(f"{key}.allow: must be true or false")
    kind, access = entry.get("type") or "a", entry.get("access") or "rwm"
    if kind not in ("a", "b", "c"):
        raise ValueError(f"{key}.type: {kind!r} is none of a, b, c")
    if not isinstance(access, str) or set(access) - set("rwm"):
        raise ValueError(f"{key}.access: {access!r} is not made of the letters r, w and m")
    numbers = [_parse_number(entry, name, key) for name in ("major", "minor")]
    return Rule(entry["allow"], kind, numbers[0], numbers[1], access)


def _parse_number(entry: dict[str, Any], name: str, key: str) -> int | None:
    number = entry.get(name)
    if number is None or number == -1:
        return None
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << 20:
        raise ValueError(f"{key}.{name}: {number!r} is no number of a device")
    return number


def effective(rules: Iterable[Rule]) -> tuple[bool, list[Rule]]:
    """Return what holds where no rule speaks, and the rules that are left to speak.

    A rule about everything makes all rules before it void, any other the one before it about the same.
    Where none is about everything, the rest is forbidden.
    """
    default, left = False, list[Rule]()
    for rule in rules:
        everything = (rule.type, rule.major, rule.minor) == ("a", None, None)
        if everything and set(rule.access) == set("rwm"):
            default, left = rule.allow, []
        else:
            left = [other for other in left if other[1:] != rule[1:]] + [rule]
    return default, left


def permitted(rules: Sequence[Rule], kind: str, major: int, minor: int, access: str) -> bool:
    """Say whether `rules` permit what the kernel asks: for each letter, the last rule about it decides.

    This is the meaning, in Python; the programs for the kernel are tested against it.
    """
    default, left = effective(rules)
    verdicts = dict.fromkeys(access, default)
    for rule in left:
        if rule.type in ("a", kind) and rule.major in (None, major) and rule.minor in (None, minor):
            verdicts.update((letter, rule.allow) for letter in access if letter in rule.access)
    return all(verdicts.values())


# %% notebooks/08b_devices.ipynb#assembler
# an instruction: opcode, destination register, source register, offset, immediate; 8 bytes of linux/bpf.h
R0, R1, R2, R3, R4, R5 = range(6)  # R0 is what a program returns, R1 its argument
LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
MOVE, MOVE_REGISTER = 0xB7, 0xBF  # BPF_ALU64 | BPF_MOV | BPF_K, BPF_X
AND, SHIFT_RIGHT = 0x57, 0x77
JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL = 0x15, 0x55
EXIT = 0x95
TO_THE_NEXT_RULE = -1  # an offset that is known when the rule's code is complete

Instruction = tuple[int, int, int, int, int]


def assemble(instructions: Iterable[Instruction]) -> bytes:
    """Return the bytes of a program."""
    return b"".join(
        struct.pack("=BBhi", code, source << 4 | destination, offset, number)
        for code, destination, source, offset, number in instructions
    )


def answer(verdict: bool) -> list[Instruction]:
    """Return the end of a program: 1 permits, 0 is EPERM for whoever asked."""
    return [(MOVE, R0, 0, 0, int(verdict)), (EXIT, 0, 0, 0, 0)]


# %% notebooks/08b_devices.ipynb#program
TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, _CHAR
ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
# struct bpf_cgroup_dev_ctx: access in the upper and type in the lower half of a word, then major and minor
PROLOGUE: tuple[Instruction, ...] = (
    (LOAD_WORD, R2, R1, 0, 0),
    (MOVE_REGISTER, R3, R2, 0, 0),
    (AND, R2, 0, 0, 0xFFFF),  # R2: the type
    (SHIFT_RIGHT, R3, 0, 0, 16),  # R3: what is asked for and not yet permitted
    (LOAD_WORD, R4, R1, 4, 0),  # R4: major
    (LOAD_WORD, R5, R1, 8, 0),  # R5: minor
)


def program_for(rules: Sequence[Rule]) -> list[Instruction]:
    """Return the program of a list of rules.

    The last rule comes first, because it has the last word: a denied letter ends it with 0, permitted
    letters are crossed out, and when none is left it ends with 1.
    """
    default, left = effective(rules)
    program = list(PROLOGUE)
    for rule in reversed(left):
        program += _code_of(rule)
    return program + answer(default)


def _code_of(rule: Rule) -> list[Instruction]:
    """Return the code of one rule: skip it if it is about another device, obey it otherwise."""
    numbers = ((R2, TYPES.get(rule.type)), (R4, rule.major), (R5, rule.minor))
    code = [
        (JUMP_UNLESS_EQUAL, register, 0, TO_THE_NEXT_RULE, number)
        for register, number in numbers
        if number is not None
    ]
    letters = sum(ACCESS[letter] for letter in set(rule.access))
    if set(rule.access) == set("rwm"):
        pass  # whatever is still asked for, this decides
    elif rule.allow:
        code += [(AND, R3, 0, 0, 7 & ~letters), (JUMP_UNLESS_EQUAL, R3, 0, TO_THE_NEXT_RULE, 0)]
    else:
        code += [(MOVE_REGISTER, R1, R3, 0, 0), (AND, R1, 0, 0, letters)]
        code += [(JUMP_IF_EQUAL, R1, 0, TO_THE_NEXT_RULE, 0)]
    code += answer(rule.allow)
    return [
        (op, to, by, len(code) - index - 1 if offset == TO_THE_NEXT_RULE else offset, number)
        for index, (op, to, by, offset, number) in enumerate(code)
    ]


# %% notebooks/08b_devices.ipynb#v1-words
def v1_lines(rules: Sequence[Rule]) -> list[tuple[str, str]]:
    """Return what v1 is told, as (file, line): all or nothing, and then a list of exceptions.

    A rule can take a whole exception back, and no part of one: ValueError for rules that would need it.
    """
    default, left = effective(rules)
    files = {True: "devices.allow", False: "devices.deny"}
    lines, exceptions = [(files[default], "a")], list[Rule]()
    for rule in [single for both in left for single in _by_type(both)]:
        if rule.allow != default:
            exceptions.append(rule)
        elif any(_overlap(rule, other) and rule[1:4] != other[1:4] for other in exceptions):
            raise ValueError(
                f"linux.resources.devices: v1 control groups cannot take {line_of(rule)!r} out of what "
                "another rule says; remedy: a machine with cgroup v2"
            )
        lines.append((files[rule.allow], line_of(rule)))
    return lines


def _by_type(rule: Rule) -> list[Rule]:
    """Return a rule about both types as two: v1 reads an `a` as "everything", whatever follows it."""
    return [rule._replace(type=kind) for kind in ("b", "c")] if rule.type == "a" else [rule]


def line_of(rule: Rule) -> str:
    """Return a rule as v1 writes it: `c 136:* rwm`."""
    numbers = ("*" if number is None else str(number) for number in (rule.major, rule.minor))
    return f"{rule.type} {':'.join(numbers)} {rule.access}"


def _overlap(one: Rule, other: Rule) -> bool:
    """Say whether two rules can be about the same request."""
    pairs = ((one.major, other.major), (one.minor, other.minor))
    together = one.type == other.type and bool(set(one.access) & set(other.access))
    return together and all(a is None or b is None or a == b for a, b in pairs)


# %% notebooks/08b_devices.ipynb#obey
PROGRAM_NAME = "mini_docker_dev"


def obey(group: Group, rules: Sequence[Rule]) -> None:
    """Put the group under `rules` and, after them, the default ones; what was there before is replaced.

    By a program wherever there is a v2 tree (on a hybrid machine too: whoever is born in a v2 group need
    not be moved into a v1 one), by v1's files otherwise. Raises OSError, ValueError.
    """
    rules = [*rules, *DEFAULT_RULES]
    directory = group.directories.get(group.trees.unified or "/")
    if directory is not None:
        try:
            obey_by_program(directory, rules)
            return
        except OSError as error:
            if "devices" not in group.trees.mounts:
                raise OSError(error.errno, f"linux.resources.devices: {error.strerror}") from None
    if "devices" not in group.trees.mounts:
        words = "linux.resources.devices: this machine has neither a v2 tree nor v1's 'devices'"
        raise FileNotFoundError(errno.ENOENT, words)
    group.join_tree("devices")
    for name, line in v1_lines(rules):
        write_file(group.file(name), line)


def obey_by_program(directory: str, rules: Sequence[Rule]) -> None:
    """Attach the program of `rules` to a v2 group, in the place of our last one. Raises OSError."""
    cgroup_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fds = [cgroup_fd]
    try:
        code = assemble(program_for(rules))
        fds.append(load_program(BPF_PROG_TYPE_CGROUP_DEVICE, code, PROGRAM_NAME))
        old = attached_programs(cgroup_fd, PROGRAM_NAME)
        fds += old
        attach_program(cgroup_fd, fds[1], old[0] if old else None)
    finally:
        for fd in fds:
            os.close(fd)
