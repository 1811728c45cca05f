"""Seccomp: the numbers against the kernel's headers, programs on paper, in the kernel, beside runc's."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.lab.filters import filter_of, run_filter, verdict_words
from mini_docker.linux.process import PR_SET_NO_NEW_PRIVS, prctl
from mini_docker.linux.step import apply
from mini_docker.security.bpf import IF_EQUAL, Program
from mini_docker.security.capabilities import DEFAULT, NAMES
from mini_docker.security.compiler import ARCHITECTURES, OPERATORS, compile_policy
from mini_docker.security.numbers import ABIS, X32_BIT, numbers
from mini_docker.security.policy import (
    ALLOWED,
    OPENED_BY,
    REFUSED,
    default_policy,
)
from mini_docker.security.seccomp import NATIVE, cached_program, filter_flags, plan_seccomp
from tests.conftest import cannot_run_here
from tests.daemons import Dockerd

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0
AUDIT = dict(ARCHITECTURES.values())

# --- the numbers --------------------------------------------------------------------------------

HEADERS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # ABI: (folders of which one holds asm/unistd.h, what the compiler of that ABI defines)
    "x86_64": (("/usr/include/x86_64-linux-gnu", "/usr/x86_64-linux-gnu/include"), ("__x86_64__",)),
    "x32": (("/usr/include/x86_64-linux-gnu",), ("__x86_64__", "__ILP32__")),
    "i386": (("/usr/include/x86_64-linux-gnu",), ("__i386__",)),
    "aarch64": (
        ("/usr/aarch64-linux-gnu/include", "/usr/include/aarch64-linux-gnu"),
        ("__aarch64__", "__LP64__"),
    ),
    "arm": (("/usr/arm-linux-gnueabihf/include",), ("__arm__", "__ARM_EABI__")),
}
# macros that are no call; the last one says where the numbers of an architecture's own begin
NO_CALLS = {"syscalls", "SYSCALL_BASE", "SYSCALL_MASK", "OABI_SYSCALL_BASE", "BASE"}
NO_CALLS |= {"arch_specific_syscall"}


def kernel_numbers(abi: str) -> dict[str, int]:
    """Return {name: number} as the C preprocessor finds them in the kernel's headers."""
    folders, defined = HEADERS[abi]
    folder = next((f for f in folders if os.path.exists(f"{f}/asm/unistd.h")), None)
    if not shutil.which("gcc") or folder is None:
        cannot_run_here(
            f"there is no gcc or no header for {abi} (remedy: labs/provision.sh --peers)"
        )
    words = [
        "gcc",
        "-E",
        "-dM",
        "-nostdinc",
        "-undef",
        "-isystem",
        folder,
        "-isystem",
        "/usr/include",
    ]
    words += [*(f"-D{name}" for name in defined), "-"]
    text = subprocess.run(
        words, input="#include <asm/unistd.h>\n", capture_output=True, text=True, check=True
    ).stdout
    macros = dict(re.findall(r"#define (\w+) (.*)", text))

    def value(expression: str) -> int:
        if expression.startswith("("):
            return sum(map(value, expression[1:-1].split("+")))
        expression = expression.strip()
        return value(macros[expression]) if expression in macros else int(expression, 0)

    found = {}
    for macro, expression in macros.items():
        name = re.sub(r"^__(ARM_)?NR_", "", macro)
        if name != macro and name not in NO_CALLS:
            found[name] = value(expression)
    return found


@pytest.mark.parametrize("abi", ABIS)
def test_every_number_is_the_kernels(abi: str) -> None:
    ours, theirs = numbers(abi), kernel_numbers(abi)
    assert len(theirs) > 300
    assert {name: ours.get(name) for name in theirs} == theirs
    # what these headers do not know yet came after them, and takes nobody's number; x32's and arm's own
    # few calls have numbers above all others
    newest = max(n for n in (n & ~X32_BIT for n in theirs.values()) if n < 512)
    for name in ours.keys() - theirs.keys():
        assert ours[name] & ~X32_BIT > newest or name in ("uretprobe", "uprobe")
        assert list(ours.values()).count(ours[name]) == 1


# --- programs on paper --------------------------------------------------------------------------


def rule(names: str, action: str = "ALLOW", *args: tuple[int, str, int, int], **more: Any) -> Any:
    entries = [
        {"index": index, "op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}
        for index, op, value, second in args
    ]
    return {"names": names.split(), "action": f"SCMP_ACT_{action}", "args": entries, **more}


def policy(*rules: Any, default: str = "ERRNO", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules), **more}


def ask(document: dict[str, Any], name: str, *arguments: int, abi: str = "x86_64") -> int:
    """Return what the program for x86_64 says about one call."""
    program = compile_policy(document, "x86_64")
    return run_filter(program, AUDIT[abi], numbers(abi)[name], arguments)


VERDICTS = [
    ("ALLOW", None, 0x7FFF0000),
    ("LOG", None, 0x7FFC0000),
    ("ERRNO", None, 0x50001),
    ("ERRNO", 0, 0x50000),
    ("ERRNO", 38, 0x50026),
    ("TRACE", 7, 0x7FF00007),
    ("TRAP", None, 0x30000),
    ("KILL", None, 0),
    ("KILL_THREAD", None, 0),
    ("KILL_PROCESS", None, 0x80000000),
]


@pytest.mark.parametrize(("action", "errno", "value"), VERDICTS)
def test_every_action(action: str, errno: int | None, value: int) -> None:
    more = {} if errno is None else {"errnoRet": errno}
    default = "LOG" if action == "ALLOW" else "ALLOW"
    assert ask(policy(rule("read", action, **more), default=default), "read") == value
    more = {} if errno is None else {"defaultErrnoRet": errno}
    assert ask(policy(rule("write", "LOG"), default=action, **more), "read") == value


MEANING: dict[str, Callable[[int, int, int], bool]] = {
    "EQ": lambda a, v, _: a == v,
    "NE": lambda a, v, _: a != v,
    "LT": lambda a, v, _: a < v,
    "LE": lambda a, v, _: a <= v,
    "GT": lambda a, v, _: a > v,
    "GE": lambda a, v, _: a >= v,
    "MASKED_EQ": lambda a, v, w: a & v == w & v,
}
INTERESTING = (0, 1, 40, 0x80000000, 0xFFFFFFFF, 1 << 32, 1 << 32 | 1, 1 << 63, 2**64 - 1)


@pytest.mark.parametrize("operator", [name.removeprefix("SCMP_CMP_") for name in OPERATORS])
def test_an_operator_compares_64_bits(operator: str) -> None:
    for value in INTERESTING:
        for second in (0, 1, 2**64 - 1) if operator == "MASKED_EQ" else (0,):
            document = policy(rule("socket", "ALLOW", (3, operator, value, second)))
            program = compile_policy(document, "x86_64")
            for argument in INTERESTING:
                found = run_filter(program, AUDIT["x86_64"], 41, (0, 0, 0, argument))
                wanted = ALLOW if MEANING[operator](argument, value, second) else EPERM
                assert found == wanted, (operator, hex(value), hex(second), hex(argument))


def test_conditions_on_different_arguments_hold_together_and_on_the_same_one_apart() -> None:
    both = policy(rule("socket", "ALLOW", (0, "EQ", 1, 0), (1, "EQ", 2, 0)))
    assert [ask(both, "socket", *a) == ALLOW for a in ((1, 2), (1, 3), (0, 2))] == [
        True,
        False,
        False,
    ]
    either = policy(rule("socket", "ALLOW", (0, "EQ", 1, 0), (0, "EQ", 5, 0)))
    assert [ask(either, "socket", a) == ALLOW for a in (1, 5, 2)] == [True, True, False]
    two_rules = policy(
        rule("socket", "ALLOW", (0, "EQ", 1, 0)),
        rule("socket", "ERRNO", (0, "EQ", 2, 0), errnoRet=9),
    )
    assert [ask(two_rules, "socket", a) for a in (1, 2, 3)] == [ALLOW, 0x50009, EPERM]


def test_the_same_number_is_another_call_for_another_abi() -> None:
    everyone = list(NATIVE["x86_64"])
    document = policy(rule("execve"), architectures=everyone)
    assert numbers("x86_64")["munmap"] == numbers("i386")["execve"] == 11
    assert ask(document, "execve", abi="i386") == ALLOW
    assert ask(document, "munmap") == EPERM
    assert numbers("x32")["execve"] == X32_BIT | 520
    assert ask(document, "execve", abi="x32") == ALLOW
    for abi in ("i386", "x32", "arm"):
        assert ask(policy(rule("execve")), "execve", abi=abi) == KILL


def test_a_call_newer_than_the_policy_does_not_exist() -> None:
    """Programs fall back on an older call after ENOSYS, and give up after EPERM."""
    strict = policy(rule("read openat2"))
    assert ask(strict, "clone3") == EPERM  # 435, below openat2's 437
    assert ask(strict, "close_range") == EPERM
    assert ask(strict, "faccessat2") == ENOSYS
    assert ask(policy(rule("read", "ERRNO"), default="ALLOW"), "faccessat2") == ALLOW
    assert ask(policy(rule("read", "ERRNO"), default="TRACE"), "faccessat2") == 0x7FF00001


def test_unknown_names_are_left_out() -> None:
    assert ask(policy(rule("read fly_to_the_moon")), "read") == ALLOW


def test_socketcall_and_ipc_of_i386_follow_the_calls_they_stand_for() -> None:
    more: dict[str, Any] = {"architectures": list(NATIVE["x86_64"])}
    document = policy(rule("socket shmat"), rule("bind", "ALLOW", (0, "EQ", 3, 0)), **more)
    assert ask(document, "socketcall", 1, abi="i386") == ALLOW
    assert ask(document, "socketcall", 2, abi="i386") == EPERM  # its arguments cannot be seen
    assert ask(document, "ipc", 21, abi="i386") == ALLOW
    assert ask(document, "ipc", 22, abi="i386") == EPERM


@pytest.mark.parametrize("count", [2, 40, 370])
def test_jumps_find_their_place_however_far(count: int) -> None:
    """Each call has a verdict of its own, and half of them conditions: no two leaves are shared."""
    names = sorted(numbers("x86_64"), key=numbers("x86_64").__getitem__)[:count]
    rules = [
        rule(name, "ERRNO", *([(0, "GE", place, 0)] if place % 2 else []), errnoRet=place + 2)
        for place, name in enumerate(names)
    ]
    program = compile_policy(policy(*rules, default="LOG"), "x86_64")
    for place, name in enumerate(names):
        asked = [
            run_filter(program, AUDIT["x86_64"], numbers("x86_64")[name], (a,)) for a in (0, 9999)
        ]
        own = 0x50000 | place + 2
        assert asked == ([0x7FFC0000, own] if place % 2 else [own, own]), name


def test_a_program_longer_than_the_kernel_takes_is_refused() -> None:
    conditions = [(0, "EQ", value << 32, 0) for value in range(1200)]
    with pytest.raises(
        ValueError, match="linux.seccomp: [0-9]+ instructions; the kernel takes 4096"
    ):
        compile_policy(policy(rule("read", "ALLOW", *conditions)), "x86_64")


def test_a_shared_verdict_is_in_reach_of_two_far_jumps() -> None:
    program = Program()
    allow = program.verdict(ALLOW)
    for _ in range(253):
        program.load(0)
    label = program.jump(IF_EQUAL, 1, program.verdict(ALLOW), program.verdict(EPERM))
    assert label - allow > 253
    program.load(0)
    assert run_filter(program.assemble(), 0, 1) == ALLOW
    assert run_filter(program.assemble(), 0, 2) == EPERM


BAD = [
    ({}, r"defaultAction: '' is none of"),
    (policy(default="FLY"), r"defaultAction: 'SCMP_ACT_FLY' is none of"),
    (policy(default="NOTIFY"), r"defaultAction: SCMP_ACT_NOTIFY is for system calls with a name"),
    (policy(default="ALLOW", defaultErrnoRet=1), r"defaultAction: 'SCMP_ACT_ALLOW' has no error"),
    (policy(defaultErrnoRet=4096), r"error number 4096 is not in 0-4095"),
    (policy(rule("read"), rule("")), r"syscalls\[1\]\.names: there is none"),
    (policy(rule("read", "FLY")), r"syscalls\[0\]\.action: 'SCMP_ACT_FLY'"),
    (policy(rule("read", "NOTIFY")), r"listenerPath: SCMP_ACT_NOTIFY needs one"),
    (policy(rule("write", "NOTIFY"), listenerPath="/s"), r"syscalls\[0\]\.names: SCMP_ACT_NOTIFY"),
    (policy(rule("read", "ALLOW", (6, "EQ", 0, 0))), r"syscalls\[0\]\.args\[0\]\.index: 6"),
    (policy(rule("read", "ALLOW", (0, "IS", 0, 0))), r"args\[0\]\.op: 'SCMP_CMP_IS'"),
    (policy(rule("read", "ALLOW", (0, "EQ", 1 << 64, 0))), r"args\[0\]\.value: not a number"),
    (policy(architectures=["SCMP_ARCH_PDP11"]), r"architectures\[0\]: 'SCMP_ARCH_PDP11'"),
    (policy(flags=["FAST"]), r"flags\[0\]: 'FAST' is none of"),
    (policy(listenerMetadata="x"), r"listenerMetadata: needs a listenerPath"),
]


@pytest.mark.parametrize(("document", "words"), BAD, ids=[words for _, words in BAD])
def test_a_wrong_policy_is_refused_while_planning(document: dict[str, Any], words: str) -> None:
    if not document:
        document = {"syscalls": []}
    with pytest.raises(ValueError, match=f"linux.seccomp.*{words}"):
        plan_seccomp({"linux": {"seccomp": document}})


def test_flags_and_foreign_machines() -> None:
    names = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")]
    assert [filter_flags({"flags": [name]}) for name in names] == [1, 2, 4]
    assert (filter_flags({"flags": [*names, names[0]]}), filter_flags({"flags": []})) == (7, 0)
    assert filter_flags({}) == 4
    assert plan_seccomp({"linux": {}}) == plan_seccomp({}) == []
    foreign = policy(rule("read"), architectures=["SCMP_ARCH_S390X", "SCMP_ARCH_ARM"])
    assert len(compile_policy(foreign, "aarch64")) > len(compile_policy(foreign, "x86_64"))
    with pytest.raises(ValueError, match="no system call numbers for riscv64"):
        compile_policy(policy(rule("read")), "riscv64")


# --- the kernel runs it -------------------------------------------------------------------------


def getpgid_under(document: dict[str, Any], unprivileged: bool) -> str:
    steps = plan_seccomp({"linux": {"seccomp": document}})
    if unprivileged:
        prctl(PR_SET_NO_NEW_PRIVS, 1)
    apply(steps)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.getpgid(0)
    return os.strerror(ctypes.get_errno()) if result < 0 else "it works"


@pytest.mark.root
@pytest.mark.parametrize("unprivileged", [False, True])
@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("ALLOW", "it works"),
        ("LOG", "it works"),
        ("ERRNO", "Operation not permitted"),
        ("TRACE", "Function not"),
    ],
)
def test_the_kernel_obeys(action: str, words: str, unprivileged: bool) -> None:
    outcome = run_in_child(
        getpgid_under, policy(rule("getpgid", action), default="ALLOW"), unprivileged
    )
    assert outcome.error is None and str(outcome.value).startswith(words)


@pytest.mark.root
@pytest.mark.parametrize("action", ["KILL", "KILL_PROCESS", "TRAP"])
def test_the_kernel_kills(action: str) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            getpgid_under(policy(rule("getpgid", action), default="ALLOW"), True)
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGSYS


@pytest.mark.root
def test_a_thread_synchronised_and_logged_filter_is_taken() -> None:
    flags = [f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW")]
    document = policy(rule("getpgid", "ERRNO", errnoRet=16), default="ALLOW", flags=flags)
    assert run_in_child(getpgid_under, document, True).value == "Device or resource busy"


# --- Docker's policy ----------------------------------------------------------------------------


def test_the_policy_says_something_about_every_call() -> None:
    opened = {name for names in OPENED_BY.values() for name in names.split()}
    by_argument = {"socket", "personality", "clone"}
    refused = [name for names in REFUSED.values() for name in names.split()]
    known = {name for abi in ABIS for name in numbers(abi)}
    assert len(ALLOWED) == len(set(ALLOWED)) and len(refused) == len(set(refused))
    assert set(ALLOWED) | opened | by_argument | set(refused) == known
    assert not set(ALLOWED) & (opened | set(refused)) and not opened & set(refused)
    assert set(OPENED_BY) <= set(NAMES)


SENSITIVE = {
    "CAP_SYS_ADMIN": ("mount", "setns", "clone3", "bpf"),
    "CAP_BPF": ("bpf",),
    "CAP_SYS_MODULE": ("init_module",),
    "CAP_SYS_TIME": ("clock_settime",),
}


@pytest.mark.parametrize("capability", SENSITIVE)
def test_a_capability_opens_its_calls_and_no_others(capability: str) -> None:
    base, more = (default_policy([*DEFAULT, *add], "x86_64") for add in ((), (capability,)))
    for name in {name for names in SENSITIVE.values() for name in names}:
        assert ask(base, name) != ALLOW
        assert (ask(more, name) == ALLOW) is (name in SENSITIVE[capability])


def test_arguments_that_decide() -> None:
    document = default_policy(list(DEFAULT), "x86_64")
    assert ask(document, "socket", 2) == ALLOW and ask(document, "socket", 40) == EPERM
    assert ask(document, "personality", 0xFFFFFFFF) == ALLOW
    assert ask(document, "personality", 0x40000) == EPERM  # no randomised addresses
    assert (
        ask(document, "clone", 0x01200011) == ALLOW and ask(document, "clone", 0x10000000) == EPERM
    )
    assert ask(document, "clone3") == ENOSYS
    assert ask(default_policy(["CAP_SYS_ADMIN"], "x86_64"), "clone", 0x10000000) == ALLOW


def test_no_policy_for_a_machine_without_numbers() -> None:
    with pytest.raises(ValueError, match="remedy: --security-opt seccomp=unconfined"):
        default_policy([], "riscv64")


def test_a_program_is_compiled_once_and_believed_only_for_its_own_document(tmp_path: Path) -> None:
    directory = str(tmp_path / "seccomp")
    first, second = policy(rule("read")), policy(rule("write"))
    made = cached_program(directory, first, json.dumps, "x86_64")
    assert made == compile_policy(first, "x86_64")
    assert made == cached_program(directory, first, json.dumps, "x86_64")
    [name] = os.listdir(directory)
    other = cached_program(directory, second, json.dumps, "x86_64")
    assert len(os.listdir(directory)) == 2
    stolen = next(path for path in Path(directory).iterdir() if path.name != name)
    shutil.copy(stolen, Path(directory, name))  # two documents with one checksum
    assert cached_program(directory, first, json.dumps, "x86_64") == made != other
    Path(directory, name).write_bytes(b"")
    assert cached_program(directory, first, json.dumps, "x86_64") == made


def test_two_first_containers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is about to put the program in its place when another, of the same daemon, does so."""
    directory, document, rename = (
        str(tmp_path / "kept"),
        {"defaultAction": "SCMP_ACT_ALLOW"},
        os.rename,
    )

    def overtaken(temporary: str, path: str) -> None:
        monkeypatch.undo()
        assert cached_program(directory, document, json.dumps) == compile_policy(document)
        rename(temporary, path)

    monkeypatch.setattr(os, "rename", overtaken)
    assert cached_program(directory, document, json.dumps) == compile_policy(document)
    assert [name for name in os.listdir(directory) if "." in name] == []


# --- peers --------------------------------------------------------------------------------------

ARGUMENTS: tuple[int, ...] = (
    0,
    1,
    2,
    8,
    16,
    40,
    41,
    0x20000,
    0x20008,
    0xFFFFFFFF,
    0x10000000,
    0x7E020000,
)
ARGUMENTS += (1 << 32, 1 << 32 | 40, 2**64 - 1)


NATIVE_ABIS = [ARCHITECTURES[name][0] for name in NATIVE["x86_64"]]


BY_ARGUMENT = ("socket", "personality", "clone", "socketcall", "ipc")


def differences(
    ours: bytes,
    theirs: bytes,
    abis: Sequence[str],
    by_argument: Sequence[str] = BY_ARGUMENT,
    last: int = 480,
) -> dict[str, str]:
    """Return {"ABI name": "ours | theirs"} for all numbers that two programs judge differently.

    Names in `by_argument` are asked about with all arguments that matter, the others with the extremes.
    """
    found = {}
    for abi in abis:
        names = {number: name for name, number in numbers(abi).items()}
        base = X32_BIT if abi == "x32" else 0
        for number in (*range(base, base + last), 0x7FFFFFFF):
            name = names.get(number, hex(number))
            for argument in ARGUMENTS if name in by_argument else (0, 2**64 - 1):
                words = (argument,) * 6
                pair = [run_filter(p, AUDIT[abi], number, words) for p in (ours, theirs)]
                if pair[0] != pair[1]:
                    found[f"{abi} {name}"] = " | ".join(map(verdict_words, pair))
    return found


def libseccomp() -> Any:
    try:
        return ctypes.CDLL("libseccomp.so.2")
    except OSError:
        cannot_run_here("there is no libseccomp (remedy: apt install runc)")


def known_to(library: Any, document: dict[str, Any]) -> dict[str, Any]:
    """Return the document without names that this libseccomp has never heard of, as runc leaves them out."""
    resolve = library.seccomp_syscall_resolve_name
    rules = [
        {**entry, "names": [name for name in entry["names"] if resolve(name.encode()) != -1]}
        for entry in document["syscalls"]
    ]
    return {**document, "syscalls": rules}


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp.h."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


def libseccomp_program(library: Any, document: dict[str, Any], path: Path) -> bytes:
    """Compile a policy by libseccomp, for all three ABIs of x86_64, default action ALLOW."""
    order = "NE LT LE EQ GE GT MASKED_EQ".split()
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ALLOW))
    for token in (0x40000003, 0x4000003E):
        assert library.seccomp_arch_add(context, ctypes.c_uint32(token)) == 0
    for entry in document["syscalls"]:
        compared = (Comparison * 6)()
        for place, a in enumerate(entry["args"]):
            operator = order.index(a["op"].removeprefix("SCMP_CMP_")) + 1
            compared[place] = Comparison(a["index"], operator, a["value"], a["valueTwo"])
        number = library.seccomp_syscall_resolve_name(entry["names"][0].encode())
        value = ctypes.c_uint32(EPERM)
        args = (number, len(entry["args"]), compared)
        assert library.seccomp_rule_add_array(context, value, *args) == 0
    with open(path, "wb") as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
    library.seccomp_release(context)
    return path.read_bytes()


@pytest.mark.peers
def test_libseccomp_compiles_random_policies_to_the_same_verdicts(tmp_path: Path) -> None:
    if os.uname().machine != "x86_64":
        cannot_run_here("the three ABIs of this comparison are x86_64's")
    library = libseccomp()
    for seed in range(10):
        dice = random.Random(seed)
        document = policy(default="ALLOW", architectures=list(NATIVE["x86_64"]))
        names = dice.sample(["read", "openat", "personality", "clone", "ioctl", "futex"], 4)
        for name in names:
            chosen = dice.sample(range(6), dice.randrange(3))
            args = [
                (
                    index,
                    dice.choice(list(MEANING)),
                    dice.choice(INTERESTING),
                    dice.choice(INTERESTING),
                )
                for index in chosen
            ]
            document["syscalls"].append(rule(name, "ERRNO", *args))
        theirs = libseccomp_program(library, document, tmp_path / "bpf")
        ours = compile_policy(document, "x86_64")
        # upper halves of 32-bit arguments are zero, whatever we ask a program about
        found = differences(ours, theirs, NATIVE_ABIS, names, 330)
        assert not found, (seed, document["syscalls"], found)


def bundle(directory: Path, document: dict[str, Any]) -> str:
    """Make an OCI bundle of busybox asleep under a policy."""
    runc, busybox = shutil.which("runc"), shutil.which("busybox")
    if runc is None or busybox is None:
        cannot_run_here("there is no runc or no busybox")
    (directory / "rootfs/bin").mkdir(parents=True)
    shutil.copy(busybox, directory / "rootfs/bin/busybox")
    subprocess.run(["runc", "spec"], cwd=directory, check=True)
    spec = json.loads((directory / "config.json").read_text())
    spec["process"].update(terminal=False, args=["/bin/busybox", "sleep", "1000"])
    spec["process"].pop("rlimits", None)  # raising a limit needs CAP_SYS_RESOURCE
    spec["linux"]["seccomp"] = document
    (directory / "config.json").write_text(json.dumps(spec))
    return str(directory)


@pytest.mark.root
@pytest.mark.peers
@pytest.mark.usefixtures("leak_free")
@pytest.mark.parametrize("capabilities", [DEFAULT, (*DEFAULT, "CAP_SYS_ADMIN")])
def test_runc_installs_a_program_of_the_same_verdicts(
    tmp_path: Path, capabilities: Sequence[str]
) -> None:
    """Read out of the kernel, by ptrace: for every number, ABI and argument, -ENOSYS among them."""
    machine = os.uname().machine
    document = known_to(libseccomp(), default_policy(list(capabilities), machine))
    words = ["runc", "--root", str(tmp_path / "state")]
    place = bundle(tmp_path / "bundle", document)
    try:
        create = [*words, "create", "--bundle", place, "--pid-file", f"{tmp_path}/pid", "seccomp"]
        with open(tmp_path / "log", "w") as log:  # no pipe: the container would keep it open
            done = subprocess.run(create, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode:
            cannot_run_here(f"runc itself fails: {(tmp_path / 'log').read_text().strip()}")
        subprocess.run([*words, "start", "seccomp"], check=True)
        theirs = installed(int((tmp_path / "pid").read_text()))
    finally:
        subprocess.run([*words, "delete", "--force", "seccomp"], capture_output=True)
    abis = [ARCHITECTURES[name][0] for name in NATIVE[machine]]
    assert differences(compile_policy(document), theirs, abis) == {}


def installed(pid: int) -> bytes:
    """Return the program of a process, once it has executed its command."""
    deadline = time.monotonic() + 240
    while "busybox" not in os.readlink(f"/proc/{pid}/exe"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return filter_of(pid)


# What Docker's policy has learned since the oldest dockerd in apt (20.10, Debian 12).
ALLOWED_SINCE = set(
    "cachestat fchmodat2 futex_requeue futex_wait futex_wake getxattrat listmount listxattrat "
    "map_shadow_stack mseal name_to_handle_at pkey_alloc pkey_free pkey_mprotect process_vm_readv "
    "process_vm_writev removexattrat setxattrat statmount uretprobe".split()
)
# opened by a capability since; no such call before
OPENED_SINCE = {"lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules"}
OPENED_SINCE |= {"set_mempolicy_home_node", "clock_settime64"}
REFUSED_SINCE = {"io_uring_setup", "io_uring_enter", "io_uring_register"}
CONDITIONAL_SINCE = {"socket"}  # AF_VSOCK
CHANGED = ALLOWED_SINCE | OPENED_SINCE | REFUSED_SINCE | CONDITIONAL_SINCE


class Docker:
    """Docker's client, with a dockerd that has a runtime which only keeps the document it is given."""

    def __init__(self, daemon: Dockerd) -> None:
        self.words = ["docker", "-H", f"unix://{daemon.path}"]
        self.kept = daemon.kept

    def call(self, *words: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.words, *words], input=input, capture_output=True, timeout=240)

    def document(self, *words: str) -> dict[str, Any]:
        """Return the OCI document that `docker run WORDS busybox` hands to its runtime."""
        self.kept.unlink(missing_ok=True)
        done = self.call(
            "run", "--rm", "--runtime=keep", "--network=none", *words, "busybox", "sleep"
        )
        if b"unknown capability" in done.stderr:
            cannot_run_here(
                f"this Docker is older: {done.stderr.decode().split(':', 2)[2].strip()}"
            )
        assert self.kept.exists(), done.stderr
        spec: dict[str, Any] = json.loads(self.kept.read_text())
        return spec

    def program(self, *words: str) -> bytes:
        """Return the filter that the kernel holds for the first process of a real `docker run`."""
        busybox = ("busybox", "/bin/busybox", "sleep", "1000")
        done = self.call("run", "--detach", "--rm", "--network=none", *words, *busybox)
        assert done.returncode == 0, done.stderr
        name = done.stdout.decode().strip()
        try:
            found = self.call("inspect", "--format={{.State.Pid}}", name)
            return installed(int(found.stdout))
        finally:
            self.call("rm", "--force", name)


@pytest.fixture(scope="module")
def docker(shared_dockerd: Dockerd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A real dockerd with an image of busybox alone."""
    busybox = shutil.which("busybox")
    if busybox is None:
        cannot_run_here("there is no busybox (remedy: apt-get install busybox-static)")
    root = tmp_path_factory.mktemp("image")
    (root / "bin").mkdir()
    shutil.copy(busybox, root / "bin/busybox")
    engine = Docker(shared_dockerd)
    try:
        tar = subprocess.check_output(["tar", "-C", root, "-c", "."])
        done = engine.call("import", "-", "busybox", input=tar)
        assert done.returncode == 0, done.stderr
        yield engine
    finally:
        shared_dockerd.forget()


def names_of(found: dict[str, str]) -> set[str]:
    return {key.split()[1] for key in found}


@pytest.mark.root
@pytest.mark.peers
@pytest.mark.parametrize("capability", [None, *OPENED_BY])
def test_the_policy_is_dockers_for_each_capability(docker: Docker, capability: str | None) -> None:
    """Docker's own document, compiled: for every number, every ABI and the arguments that decide."""
    machine = os.uname().machine
    spec = docker.document(*([f"--cap-add={capability}"] if capability else []))
    bounding = spec["process"]["capabilities"]["bounding"]
    assert set(bounding) == {*DEFAULT, *([capability] if capability else [])}
    theirs = compile_policy(spec["linux"]["seccomp"], machine)
    ours = compile_policy(default_policy(bounding, machine), machine)
    abis = [ARCHITECTURES[name][0] for name in NATIVE[machine]]
    assert names_of(differences(ours, theirs, abis)) <= CHANGED


@pytest.mark.root
@pytest.mark.peers
@pytest.mark.parametrize("capability", [None, "CAP_SYS_ADMIN"])
def test_a_real_docker_run_lives_under_the_same_filter(
    docker: Docker, capability: str | None
) -> None:
    """Not the document but what the kernel holds, read by ptrace from the container's first process."""
    machine = os.uname().machine
    theirs = docker.program(*([f"--cap-add={capability}"] if capability else []))
    bounding = [*DEFAULT, *([capability] if capability else [])]
    document = known_to(libseccomp(), default_policy(bounding, machine))
    abis = [ARCHITECTURES[name][0] for name in NATIVE[machine]]
    assert names_of(differences(compile_policy(document), theirs, abis)) <= CHANGED
