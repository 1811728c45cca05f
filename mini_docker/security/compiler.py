# Exported from notebooks/09b_seccomp.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09b_seccomp.ipynb#compiler-module
"""From a seccomp policy, OCI's linux.seccomp, to the program that the kernel runs before each call."""

from __future__ import annotations

from mini_docker.linux.syscall import MACHINE
from mini_docker.security.bpf import IF_AT_LEAST, IF_EQUAL, IF_GREATER, Program
from mini_docker.security.numbers import X32_BIT, numbers
from mini_docker.security.seccomp import NATIVE, NOTIFY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # argument 0 to 5, operator, value, second value
    Condition = tuple[int, str, int, int]
    # what decides about one system call: (conditions that must all hold, verdict), the first that fits
    Rules = tuple[tuple[tuple[Condition, ...], int], ...]

# linux/seccomp.h: the upper half of a verdict; the lower one belongs to ERRNO and TRACE
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
EPERM, ENOSYS, LARGEST_ERRNO = 1, 38, 4095
# OCI's name: (ABI, AUDIT_ARCH_* of linux/audit.h)
ARCHITECTURES = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E),
    "SCMP_ARCH_X32": ("x32", 0xC000003E),
    "SCMP_ARCH_X86": ("i386", 0x40000003),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7),
    "SCMP_ARCH_ARM": ("arm", 0x40000028),
}
WIDE = ("x86_64", "aarch64")  # ABIs whose arguments have 64 bits
# no process of these two machines can make a call of theirs
ELSEWHERE = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        "MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64 "
        "RISCV64 LOONGARCH64 M68K SH SHEB"
    ).split()
)
# struct seccomp_data of linux/seccomp.h: int nr; u32 arch; u64 instruction_pointer; u64 args[6]
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16


# %% notebooks/09b_seccomp.ipynb#verdict
def verdict(action: str, errno: int | None, where: str) -> int:
    """Return the kernel's number for an action. Raises ValueError, naming `where`.

    Source: OCI config-linux.md "Seccomp", seccomp(2).
    """
    if action not in ACTIONS:
        raise ValueError(f"{where}: '{action}' is none of {', '.join(ACTIONS)}")
    if action not in WITH_ERRNO:
        if errno:
            raise ValueError(f"{where}: '{action}' has no error number")
        return ACTIONS[action]
    if errno is not None and not 0 <= errno <= LARGEST_ERRNO:
        raise ValueError(f"{where}: error number {errno} is not in 0-{LARGEST_ERRNO}")
    return ACTIONS[action] | (EPERM if errno is None else errno)


# %% notebooks/09b_seccomp.ipynb#conditions
OPERATORS = tuple(f"SCMP_CMP_{name}" for name in "EQ NE LT LE GT GE MASKED_EQ".split())


def conditions(arguments: list[dict[str, Any]], where: str) -> list[tuple[Condition, ...]]:
    """Return the alternatives of a rule's `args`, each a tuple of conditions that must all hold.

    All must hold, but where two are about the same argument each is an alternative of its own: so runc
    has always read it, and documents rely on it. Raises ValueError.
    """
    found: list[Condition] = []
    for position, entry in enumerate(arguments):
        place = f"{where}.args[{position}]"
        index, operator = entry.get("index", -1), entry.get("op")
        if not 0 <= index <= 5:
            raise ValueError(f"{place}.index: {index} is not in 0-5")
        if operator not in OPERATORS:
            raise ValueError(f"{place}.op: '{operator}' is none of {', '.join(OPERATORS)}")
        value, second = entry.get("value", 0), entry.get("valueTwo", 0)
        if not (0 <= value < 1 << 64 and 0 <= second < 1 << 64):
            raise ValueError(f"{place}.value: not a number of 64 bits")
        found.append((index, operator, value, second))
    if len({index for index, *_ in found}) < len(found):
        return [(condition,) for condition in found]
    return [tuple(found)]


# %% notebooks/09b_seccomp.ipynb#test
def test(program: Program, wide: bool, condition: Condition, then: int, otherwise: int) -> int:
    """Put one comparison of an argument before `program`; return its label.

    The accumulator has 32 bits: of a `wide` argument the upper half is compared first, and the lower one
    where that is equal. An ABI of 32 bits has no upper halves.
    """
    index, operator, value, second = condition
    low = ARGUMENTS_AT + 8 * index
    if operator in ("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE"):  # not EQ, not GE, not GT
        then, otherwise = otherwise, then
    if operator == "SCMP_CMP_MASKED_EQ":
        return _masked(program, wide, low, value, second & value, then, otherwise)
    upper, lower = value >> 32, value & 0xFFFFFFFF
    equality = operator in ("SCMP_CMP_EQ", "SCMP_CMP_NE")
    strict = operator in ("SCMP_CMP_GT", "SCMP_CMP_LE")
    compare = IF_EQUAL if equality else IF_GREATER if strict else IF_AT_LEAST
    program.jump(compare, lower, then, otherwise)
    label = program.load(low)
    if not wide:
        return label
    label = program.jump(IF_EQUAL, upper, label, otherwise)
    if not equality:
        program.jump(IF_GREATER, upper, then, label)
    return program.load(low + 4)


def _masked(
    program: Program, wide: bool, low: int, mask: int, value: int, then: int, otherwise: int
) -> int:
    """Put argument & mask == value before `program`; an upper half without mask bits is left out."""
    for offset, shift in ((low, 0), (low + 4, 32)):
        if not shift or wide and mask >> shift:
            program.jump(IF_EQUAL, value >> shift & 0xFFFFFFFF, then, otherwise)
            program.mask(mask >> shift & 0xFFFFFFFF)
            then = program.load(offset)
    return then


# %% notebooks/09b_seccomp.ipynb#policy-class
# i386 has one call for many: its first argument says which. ipc.h, linux/net.h
MULTIPLEXED = {
    "socketcall": (
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom "
        "shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
    ).split(),
    "ipc": (
        "semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - shmat shmdt "
        "shmget shmctl"
    ).split(),
}
BEHIND = {
    name: (call, (0, "SCMP_CMP_EQ", number, 0))
    for call, names in MULTIPLEXED.items()
    for number, name in enumerate(names, 1)
}


class Policy:
    """linux.seccomp, checked: what decides about each name."""

    def __init__(self, document: dict[str, Any]) -> None:
        """Read the document's linux.seccomp. Raises ValueError with the JSON path of a wrong value."""
        where = "linux.seccomp"
        errno = document.get("defaultErrnoRet")
        action = document.get("defaultAction", "")
        if action == NOTIFY:
            raise ValueError(f"{where}.defaultAction: {NOTIFY} is for system calls with a name")
        self.default = verdict(action, errno, f"{where}.defaultAction")
        # a new call is unknown to the policy, not forbidden by it: programs fall back on ENOSYS
        self.unknown_is_enosys = action not in ("SCMP_ACT_ALLOW", "SCMP_ACT_TRACE")
        self.rules: dict[str, list[tuple[tuple[Condition, ...], int]]] = {}
        for index, entry in enumerate(document.get("syscalls") or ()):
            self._read(entry, f"{where}.syscalls[{index}]")

    def _read(self, entry: dict[str, Any], where: str) -> None:
        if not entry.get("names"):
            raise ValueError(f"{where}.names: there is none")
        if entry.get("action") == NOTIFY and "write" in entry["names"]:
            raise ValueError(f"{where}.names: {NOTIFY} for 'write' would stop our own report of it")
        value = verdict(entry.get("action", ""), entry.get("errnoRet"), f"{where}.action")
        rules = [(found, value) for found in conditions(entry.get("args") or [], where)]
        for name in entry["names"]:
            self.rules.setdefault(name, []).extend(rules)

    def of(self, abi: str) -> dict[int, Rules]:
        """Return the rules of each number of one ABI; names it does not know are left out, as runc does."""
        known = numbers(abi)
        found = {known[name]: rules for name, rules in self.rules.items() if name in known}
        if abi == "i386":
            for call, rules in self._multiplexed().items():
                found[known[call]] = found.get(known[call], []) + rules
        return {number: in_order(rules) for number, rules in found.items()}

    def _multiplexed(self) -> dict[str, list[tuple[tuple[Condition, ...], int]]]:
        """Return what the rules of socket, bind, semop ... say about socketcall and ipc.

        Their arguments lie in memory there, where no filter can look: rules about them are left out.
        """
        found: dict[str, list[tuple[tuple[Condition, ...], int]]] = {}
        for name, rules in self.rules.items():
            if name in BEHIND and rules[0][0] == ():
                call, condition = BEHIND[name]
                found.setdefault(call, []).append(((condition,), rules[0][1]))
        return found


# %% notebooks/09b_seccomp.ipynb#intervals
def in_order(rules: list[tuple[tuple[Condition, ...], int]]) -> Rules:
    """Return the rules that matter: those with conditions as they stand, then the first without."""
    return (*(rule for rule in rules if rule[0]), *[rule for rule in rules if not rule[0]][:1])


def intervals(rules: dict[int, Rules], default: int, unknown: int) -> list[tuple[int, Rules]]:
    """Return (first number, its rules) of each run of numbers that the same rules decide about.

    Numbers without rules get the verdict `default`, those above the largest one with rules `unknown`.
    """
    nothing: Rules = (((), default),)
    found: list[tuple[int, Rules]] = []
    following = 0
    for number in sorted(rules):
        if number > following:
            _extend(found, following, nothing)
        _extend(found, number, rules[number])
        following = number + 1
    _extend(found, following, (((), unknown),))
    return found


def _extend(found: list[tuple[int, Rules]], number: int, rules: Rules) -> None:
    if not found or found[-1][1] != rules:
        found.append((number, rules))


# %% notebooks/09b_seccomp.ipynb#search
def search(program: Program, wide: bool, runs: list[tuple[int, Rules]], default: int) -> int:
    """Put a binary search for the accumulator's number before `program`; return its label."""
    if len(runs) == 1:
        return decide(program, wide, runs[0][1], default)
    middle = len(runs) // 2
    above = search(program, wide, runs[middle:], default)
    below = search(program, wide, runs[:middle], default)
    return program.jump(IF_AT_LEAST, runs[middle][0], above, below)


def decide(program: Program, wide: bool, rules: Rules, default: int) -> int:
    """Put the rules of one system call before `program`, the last first; return the label."""
    if rules[-1][0]:
        rules = (*rules, ((), default))
    label = program.verdict(rules[-1][1])
    for needed, value in reversed(rules[:-1]):
        otherwise, label = label, program.verdict(value)
        for condition in reversed(needed):
            label = test(program, wide, condition, label, otherwise)
    return label


# %% notebooks/09b_seccomp.ipynb#architectures
def architectures(document: dict[str, Any], machine: str) -> list[str]:
    """Return the OCI names of the ABIs that may call at all: the machine's own and those asked for.

    Raises ValueError for a name that nobody has, and for a machine without tables.
    """
    if machine not in NATIVE:
        raise ValueError(f"linux.seccomp: no system call numbers for {machine}")
    asked = document.get("architectures") or ()
    for index, name in enumerate(asked):
        if name not in ARCHITECTURES and name not in ELSEWHERE:
            raise ValueError(f"linux.seccomp.architectures[{index}]: '{name}' is unknown")
    return [name for name in NATIVE[machine] if name in asked or name == NATIVE[machine][0]]


# %% notebooks/09b_seccomp.ipynb#compile
def compile_policy(document: dict[str, Any], machine: str = MACHINE) -> bytes:
    """Return the program for linux.seccomp on a machine: 8 bytes an instruction.

    It first asks by which ABI the call came: on x86_64 the same number is another call for i386. A call
    by an ABI that is not allowed kills, as libseccomp has it. Source: seccomp(2), OCI config-linux.md.
    Raises ValueError with the JSON path of a wrong value.
    """
    policy, program = Policy(document), Program()
    unknown = ACTIONS["SCMP_ACT_ERRNO"] | ENOSYS if policy.unknown_is_enosys else policy.default
    killed = x32 = program.verdict(ACTIONS["SCMP_ACT_KILL"])
    entrances: list[tuple[int, int]] = []
    for name in reversed(architectures(document, machine)):
        abi, audit = ARCHITECTURES[name]
        runs = intervals(policy.of(abi), policy.default, unknown)
        label = search(program, abi in WIDE, runs, policy.default)
        if abi == "x32":
            x32 = label
            continue
        if abi == "x86_64":  # the two share their AUDIT_ARCH: a bit of the number tells them apart
            program.jump(IF_AT_LEAST, X32_BIT, x32, label)
        entrances.append((audit, program.load(NUMBER_AT)))
    label = killed
    for audit, entrance in entrances:
        label = program.jump(IF_EQUAL, audit, entrance, label)
    program.load(ARCHITECTURE_AT)
    return program.assemble()
