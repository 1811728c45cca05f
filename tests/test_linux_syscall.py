"""linux/: numbers, constants and structs against the kernel's headers, each call against the kernel."""

from __future__ import annotations

import ast
import ctypes
import errno
import inspect
import mmap
import os
import re
import shutil
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux import mount as mount_module
from mini_docker.linux import process as process_module
from mini_docker.linux import syscall
from mini_docker.linux.mount import (
    AT_FDCWD,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
    fsconfig_set,
    fsmount,
    fsopen,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
    openat2,
    pivot_root,
    umount2,
)
from mini_docker.linux.process import (
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    CLOSE_RANGE_CLOEXEC,
    PR_CAPBSET_READ,
    PR_SET_NO_NEW_PRIVS,
    capget,
    capset,
    clone3,
    clone_args,
    close_range,
    exit_code,
    join_session_keyring,
    personality,
    pidfd_open,
    pidfd_send_signal,
    prctl,
    seccomp_set_filter,
    set_process_name,
    setdomainname,
    sethostname,
    setns,
    unshare,
)
from mini_docker.linux.step import Step, StepFailed, apply
from mini_docker.linux.syscall import ARCHITECTURES, MACHINE, NUMBERS, libc, number, system_call
from tests.conftest import ROOT, cannot_run_here

root = pytest.mark.root


def value_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` returns in a throw-away child with one thread; its error fails the test."""
    outcome = run_in_child(function, *arguments)
    assert outcome.error is None and outcome.status == 0, outcome.output
    return outcome.value


# --- numbers

HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "/usr/include/asm/unistd_64.h"),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}


def header_numbers(machine: str) -> dict[str, int]:
    """Return {system call: number} as the kernel's own header of `machine` has it."""
    found = [path for path in map(Path, HEADERS[machine]) if path.exists()]
    if not found:
        cannot_run_here(f"linux-libc-dev is not installed: no {HEADERS[machine][0]}")
    defines = re.findall(
        r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\b", found[0].read_text(), re.MULTILINE
    )
    return {name: int(value) for name, value in defines}


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_the_headers(name: str, machine: str) -> None:
    numbers = header_numbers(machine)
    if name not in numbers:
        cannot_run_here(f"the headers here are older than {name}")
    assert number(name, machine) == numbers[name]


def test_an_unknown_machine_is_refused_in_words() -> None:
    with pytest.raises(OSError, match="no system call numbers for riscv64") as caught:
        number("mount", "riscv64")
    assert caught.value.errno == errno.ENOSYS


def test_an_unknown_call_is_a_mistake_of_ours() -> None:
    with pytest.raises(KeyError):
        number("no_such_call")


def test_on_an_unknown_machine_modules_import_and_calls_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The doctor must be able to say so, and it imports linux/."""
    monkeypatch.setattr(number, "__defaults__", ("riscv64",))
    call = system_call("pidfd_open", ctypes.c_int, ctypes.c_uint)
    with pytest.raises(OSError, match="riscv64"):
        call(os.getpid(), 0)


def system_calls_of(path: Path) -> Iterator[ast.Call]:
    """Yield the uses of `system_call(...)` in a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "system_call":
            yield node


def test_every_call_has_a_number_and_types() -> None:
    declared = [
        c for path in Path(ROOT, "mini_docker").rglob("*.py") for c in system_calls_of(path)
    ]
    assert len(declared) > 20
    for call in declared:
        assert isinstance(call.args[0], ast.Constant) and call.args[0].value in NUMBERS
        assert len(call.args) > 1, f"{ast.unparse(call)} has no argument types"


# --- constants and structs

UNDER = {"LINUX_CAPABILITY_VERSION_3": "_LINUX_CAPABILITY_VERSION_3"}  # its name in C
ENUMS = ("FSCONFIG_",)  # no macros, so that #ifdef does not see them
STRUCTS = {
    "clone_args": process_module.clone_args,
    "sock_fprog": process_module.sock_fprog,
    "mount_attr": mount_module.mount_attr,
    "open_how": mount_module.open_how,
}
INCLUDES = """
    linux/mount.h linux/fcntl.h linux/openat2.h linux/sched.h linux/prctl.h linux/seccomp.h linux/filter.h
    linux/close_range.h linux/keyctl.h linux/capability.h linux/types.h
""".split()
# MNT_DETACH is libc's to declare; its sys/mount.h and the kernel's own do not always go together.
FROM_LIBC = {"MNT_DETACH": "sys/mount.h", "OPEN_TREE_CLOEXEC": "fcntl.h"}


def constants() -> Iterator[tuple[str, int]]:
    """Yield the C constants of linux/mount.py and linux/process.py."""
    for module in (mount_module, process_module):
        for name, value in vars(module).items():
            if re.fullmatch(r"[A-Z][A-Z0-9_]+", name) and type(value) is int:
                yield name, value


def line_of_c(name: str) -> str:
    """Return the C lines that print a constant, or nothing where the headers are too old for it."""
    c_name = UNDER.get(name, name)
    if name == "OPEN_TREE_CLOEXEC":
        c_name = "O_CLOEXEC"
    line = f'printf("{name} %lld\\n", (long long)({c_name}));'
    return line if c_name.startswith(ENUMS) else f"#ifdef {c_name}\n{line}\n#endif"


def struct_lines(name: str, structure: type[ctypes.Structure]) -> Iterator[str]:
    """Yield the C lines that print where the fields of a struct begin, and its size."""
    for field, *_ in structure._fields_:
        yield f'printf("{name}.{field} %zu\\n", offsetof(struct {name}, {field}));'
    yield f'printf("{name} %zu\\n", sizeof(struct {name}));'


def run_c(folder: Path, includes: list[str], lines: list[str]) -> dict[str, int]:
    """Compile and run a C program that prints `name number` lines."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        cannot_run_here("there is no C compiler")
    head = [f"#if __has_include(<{name}>)\n#include <{name}>\n#endif" for name in includes]
    top = "#define _GNU_SOURCE\n#include <stdio.h>\n#include <stddef.h>\n" + "\n".join(head)
    source, program = folder / "print.c", folder / "print"
    source.write_text(top + "\nint main(void) {\n" + "\n".join(lines) + "\nreturn 0;\n}\n")
    built = subprocess.run([compiler, "-o", program, source], capture_output=True, text=True)
    if built.returncode:
        cannot_run_here(f"the C headers do not compile: {built.stderr.splitlines()[:1]}")
    printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in map(str.split, printed.splitlines())}


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Return every constant, offset and size as the C headers of this machine have it."""
    names = [name for name, _ in constants()]
    folder = tmp_path_factory.mktemp("headers")
    lines = [line_of_c(name) for name in names if name not in FROM_LIBC]
    lines += [line for name, kind in STRUCTS.items() for line in struct_lines(name, kind)]
    found = run_c(folder, INCLUDES, lines)
    for name, header in FROM_LIBC.items():
        found |= run_c(folder, [header], [line_of_c(name)])
    return found


@pytest.mark.parametrize(("name", "value"), [*constants()], ids=[name for name, _ in constants()])
def test_a_constant_is_that_of_c(name: str, value: int, in_c: dict[str, int]) -> None:
    if name not in in_c:
        cannot_run_here(f"the headers here are older than {name}")
    assert value == in_c[name]


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_is_that_of_c(name: str, in_c: dict[str, int]) -> None:
    """Sizes may be smaller than those of newer headers: the kernel takes old callers by their size."""
    structure = STRUCTS[name]
    for field, *_ in structure._fields_:
        assert getattr(structure, field).offset == in_c[f"{name}.{field}"]
    assert ctypes.sizeof(structure) <= in_c[name]


def test_clone_args_is_version_2() -> None:
    assert ctypes.sizeof(clone_args) == 88


# --- the door: errno, types


def as_nobody(call: Callable[..., object], *arguments: object) -> None:
    """Make a call without any privilege, and where it would do no harm if it succeeded."""
    unshare(CLONE_NEWUTS)
    os.setuid(65534)
    call(*arguments)


@pytest.mark.parametrize(
    ("call", "arguments", "kind", "code"),
    [
        (umount2, ("/nowhere",), FileNotFoundError, errno.ENOENT),
        (mount, ("tmpfs", "/nowhere", "tmpfs"), FileNotFoundError, errno.ENOENT),
        (openat2, (AT_FDCWD, "/proc/version/x", 0, 0), NotADirectoryError, errno.ENOTDIR),
        (pidfd_open, (1 << 30,), ProcessLookupError, errno.ESRCH),
        (setns, (-1,), OSError, errno.EBADF),
        (unshare, (1,), OSError, errno.EINVAL),
        (sethostname, (b"x" * 65,), OSError, errno.EINVAL),
        (fsopen, ("no such file system",), OSError, errno.ENODEV),
    ],
)
@root
def test_an_errno_becomes_its_exception(
    call: Callable[..., object], arguments: tuple[Any, ...], kind: type[OSError], code: int
) -> None:
    def attempt() -> tuple[str, int | None, str]:
        unshare(CLONE_NEWUTS)  # the host's name is not to be risked
        try:
            call(*arguments)
        except OSError as error:
            return type(error).__name__, error.errno, str(error)
        return "nothing", None, ""

    name, number_, text = value_of(attempt)
    assert (name, number_) == (kind.__name__, code)
    assert call.__name__ in text and os.strerror(code) in text


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        (unshare, (CLONE_NEWUTS,)),
        (sethostname, (b"lab",)),
        (setdomainname, (b"lab",)),
        (mount, ("tmpfs", "/mnt", "tmpfs")),
        (pivot_root, ("/mnt", "/mnt")),
        (fsopen, ("tmpfs",)),
    ],
)
@root
def test_without_privileges_it_is_a_permission_error(
    call: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    outcome = run_in_child(as_nobody, call, *arguments)
    assert outcome.error == f"PermissionError: [Errno 1] {call.__name__}: Operation not permitted"


@pytest.mark.parametrize("wrong", ["a name", 1.5, None, b"bytes"])
def test_a_wrong_type_never_reaches_the_kernel(wrong: object) -> None:
    call = system_call("setns", ctypes.c_int, ctypes.c_int)
    with pytest.raises(ctypes.ArgumentError):
        call(wrong, 0)


def test_a_missing_argument_never_reaches_the_kernel() -> None:
    call = system_call("setns", ctypes.c_int, ctypes.c_int)
    with pytest.raises(TypeError):
        call(-1)


def test_without_types_half_an_integer_is_lost() -> None:
    """Capability 2**32 does not exist; cut to 32 bits it is number 0, which does."""
    assert libc.syscall(number("prctl"), PR_CAPBSET_READ, 1 << 32) == 1
    with pytest.raises(OSError, match="prctl: Invalid argument"):
        prctl(PR_CAPBSET_READ, 1 << 32)


def test_without_types_half_an_offset_is_lost() -> None:
    lseek = {"x86_64": 8, "aarch64": 62}[MACHINE]
    whole = ctypes.CFUNCTYPE(
        ctypes.c_long, ctypes.c_long, ctypes.c_int, ctypes.c_long, ctypes.c_int
    )(("syscall", libc))
    fd = os.memfd_create("large")
    try:
        libc.syscall(lseek, fd, 2**32 + 5, os.SEEK_SET)
        assert os.lseek(fd, 0, os.SEEK_CUR) == 5
        assert whole(lseek, fd, 2**32 + 5, os.SEEK_SET) == 2**32 + 5
        assert os.lseek(fd, 0, os.SEEK_CUR) == 2**32 + 5
    finally:
        os.close(fd)


def test_errno_is_that_of_the_call_in_every_thread() -> None:
    """Two threads fail in two ways, again and again; neither may see the other's errno."""
    seen: dict[int, set[int | None]] = {errno.EBADF: set(), errno.ESRCH: set()}

    def fail(expected: int, call: Callable[[], object]) -> None:
        for _ in range(300):
            with pytest.raises(OSError) as caught:
                call()
            seen[expected].add(caught.value.errno)

    threads = [
        threading.Thread(target=fail, args=(errno.EBADF, lambda: setns(-1))),
        threading.Thread(target=fail, args=(errno.ESRCH, lambda: pidfd_open(1 << 30))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {code: {code} for code in seen}


# --- processes


def uts() -> str:
    """Return the caller's UTS namespace."""
    return os.readlink("/proc/self/ns/uts")


def clone_into_new_namespaces() -> dict[str, Any]:
    """Clone a child into new uts and pid namespaces; return what both say."""
    read_fd, write_fd = os.pipe()
    pid, pidfd = clone3(CLONE_NEWUTS | CLONE_NEWPID)
    if pid == 0:
        try:
            sethostname(b"lab")
            os.write(write_fd, f"{os.getpid()} {pidfd} {uts()} {os.uname().nodename}".encode())
        finally:
            os._exit(7)
    os.close(write_fd)
    facts = {"fdinfo": Path(f"/proc/self/fdinfo/{pidfd}").read_text(), "pid": pid}
    facts["inheritable"] = os.get_inheritable(pidfd)
    facts["child"] = os.read(read_fd, 1000).decode().split()
    facts["status"] = os.waitpid(pid, 0)[1]
    return facts | {"uts": uts(), "name": os.uname().nodename}


@root
def test_clone3_gives_a_child_in_new_namespaces_and_a_pidfd() -> None:
    facts = value_of(clone_into_new_namespaces)
    pid_inside, pidfd_inside, uts_inside, name_inside = facts["child"]
    assert (pid_inside, pidfd_inside, name_inside) == ("1", "-1", "lab")
    assert uts_inside != facts["uts"] and facts["name"] != "lab"
    assert re.search(rf"^Pid:\s+{facts['pid']}$", facts["fdinfo"], re.MULTILINE)
    assert facts["inheritable"] is False
    assert exit_code(facts["status"]) == 7


@root
def test_clone3_refuses_what_the_kernel_refuses() -> None:
    outcome = run_in_child(clone3, 0x1)  # the exit signal's place in the old clone
    assert outcome.error == "OSError: [Errno 22] clone3: Invalid argument"


def signal_after_the_end() -> tuple[str, int]:
    """Let a stranger be born with the number of a child that is gone; signal by pidfd, then by number."""
    pid, pidfd = clone3(0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    wanted = ctypes.c_int(pid)
    arguments = clone_args(
        exit_signal=signal.SIGCHLD, set_tid=ctypes.addressof(wanted), set_tid_size=1
    )
    if process_module._clone3(ctypes.byref(arguments), ctypes.sizeof(arguments)) == 0:
        signal.pause()
    said = "delivered"
    try:
        pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        said = "no such process"
    os.kill(pid, signal.SIGKILL)
    return said, exit_code(os.waitpid(pid, 0)[1])


@root
def test_a_pidfd_never_means_a_stranger() -> None:
    assert value_of(signal_after_the_end) == ("no such process", 128 + signal.SIGKILL)


def test_a_signal_by_pidfd_arrives() -> None:
    child = subprocess.Popen(["sleep", "1000"])
    pidfd = pidfd_open(child.pid)
    try:
        pidfd_send_signal(pidfd, signal.SIGTERM)
        assert child.wait(120) == -signal.SIGTERM
    finally:
        os.close(pidfd)
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("status", "code"),
    [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143), (6 | 0x80, 134)],
)
def test_exit_code_is_what_a_shell_shows(status: int, code: int) -> None:
    assert exit_code(status) == code


def there_and_back() -> list[str]:
    """Leave a namespace and come back by a descriptor; return where we were."""
    home_fd, places = os.open("/proc/self/ns/uts", os.O_RDONLY), [uts()]
    unshare(CLONE_NEWUTS)
    places.append(uts())
    setns(home_fd, CLONE_NEWUTS)
    places.append(uts())
    try:
        setns(home_fd, CLONE_NEWNET)
    except OSError as error:
        places.append(os.strerror(error.errno or 0))
    return places


@root
def test_unshare_leaves_and_setns_returns() -> None:
    before, away, after, refusal = value_of(there_and_back)
    assert before == after != away
    assert refusal == os.strerror(errno.EINVAL)


# --- privileges


def drop_all() -> list[tuple[int, int, int]]:
    """Return the capabilities before, with half of them gone, and with none."""
    seen = [capget()]
    high = seen[0][1] & ~0xFFFFFFFF
    capset(high, high, 0)
    seen.append(capget())
    capset(0, 0, 0)
    return [*seen, capget()]


@root
def test_capabilities_above_bit_31_are_kept_apart() -> None:
    before, high, none = value_of(drop_all)
    assert high == (before[1] & ~0xFFFFFFFF, before[1] & ~0xFFFFFFFF, 0)
    assert none == (0, 0, 0)


def test_capget_says_what_proc_says() -> None:
    status = Path("/proc/thread-self/status").read_text()
    shown = {name: int(mask, 16) for name, mask in re.findall(r"^(Cap\w+):\s+(\w+)$", status, re.M)}
    assert capget() == (shown["CapEff"], shown["CapPrm"], shown["CapInh"])


@root
def test_no_new_privs_is_set_and_stays() -> None:
    def promise() -> list[int]:
        get, promised = 39, [prctl(39)]
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        return [*promised, prctl(get)]

    assert value_of(promise) == [0, 1]


@pytest.mark.parametrize(
    ("name", "shown"), [(b"web", "web"), (b"a-name-of-17-byte", "a-name-of-17-by")]
)
@root
def test_a_process_name_has_fifteen_bytes(name: bytes, shown: str) -> None:
    def rename() -> str:
        set_process_name(name)
        return Path("/proc/self/comm").read_text().rstrip("\n")

    assert value_of(rename) == shown


@root
def test_close_range_closes_or_marks() -> None:
    def close() -> tuple[list[int], list[bool]]:
        for fd in (20, 21, 22):
            os.dup2(0, fd)
        close_range(20, 20)
        close_range(21, flags=CLOSE_RANGE_CLOEXEC)
        left = [fd for fd in (20, 21, 22) if Path(f"/proc/self/fd/{fd}").exists()]
        return left, [os.get_inheritable(fd) for fd in left]

    assert value_of(close) == ([21, 22], [False, False])


@root
def test_a_session_keyring_of_ones_own() -> None:
    outcome = run_in_child(join_session_keyring)
    if outcome.error and "[Errno 38]" in outcome.error:
        cannot_run_here("the kernel has no keyrings")
    assert outcome.error is None


def test_personality_reads_without_changing() -> None:
    assert personality(0xFFFFFFFF) == personality(0xFFFFFFFF) == 0


@root
def test_host_and_domain_name() -> None:
    def rename() -> tuple[str, str]:
        unshare(CLONE_NEWUTS)
        sethostname(b"web")
        setdomainname(b"lab.example")
        return os.uname().nodename, Path("/proc/sys/kernel/domainname").read_text().strip()

    assert value_of(rename) == ("web", "lab.example")


# --- seccomp: what chapter 1 says of numbers and architectures

AUDIT_ARCH_X86_64 = 0xC000003E
ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000


def instruction(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Pack struct sock_filter."""
    return struct.pack("=HBBI", code, if_true, if_false, k)


CARELESS = (
    instruction(0x20, 0)  # load the number
    + instruction(0x15, number("mount"), 0, 1)
    + instruction(0x06, EPERM)
    + instruction(0x06, ALLOW)
)
CAREFUL = (
    instruction(0x20, 4)  # load the architecture
    + instruction(0x15, AUDIT_ARCH_X86_64, 1, 0)
    + instruction(0x06, KILL)
    + CARELESS
)
# i386's mount(NULL, NULL, NULL, 0, NULL), number 21, by `int 0x80`; it returns -EFAULT where it is let in:
# push rbx; xor ebx, ecx, edx, esi, edi; mov eax, 21; int 0x80; pop rbx; ret
MOUNT_OF_I386 = bytes.fromhex("53 31db 31c9 31d2 31f6 31ff b815000000 cd80 5b c3")


def mount_of_i386() -> int:
    """Call mount through the table of 32-bit programs; return what the kernel answered."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(MOUNT_OF_I386)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


def guarded(program: bytes, act: Callable[[], object]) -> object:
    """Install the filter, then act."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    seccomp_set_filter(program)
    return act()


@root
def test_a_filter_of_four_instructions_forbids_a_call() -> None:
    outcome = run_in_child(guarded, CARELESS, lambda: mount("tmpfs", "/mnt", "tmpfs"))
    assert outcome.error == "PermissionError: [Errno 1] mount: Operation not permitted"


@root
def test_the_same_thing_has_another_door() -> None:
    def by_new_calls() -> bool:
        move_mount(fsmount(fsopen("tmpfs")), "/mnt")
        return os.path.ismount("/mnt")

    assert value_of(guarded, CARELESS, by_new_calls) is True


@root
def test_a_filter_that_ignores_the_architecture_is_walked_around() -> None:
    if MACHINE != "x86_64":
        cannot_run_here(f"this is {MACHINE}; the entrance int 0x80 is x86_64's")
    free = run_in_child(mount_of_i386)
    if free.status == -signal.SIGSEGV or free.value == -errno.ENOSYS:
        cannot_run_here("this kernel runs no 32-bit programs")
    assert free.value == -errno.EFAULT, free
    assert (
        value_of(guarded, CARELESS, mount_of_i386) == -errno.EFAULT
    )  # let in, though mount is forbidden
    assert run_in_child(guarded, CAREFUL, mount_of_i386).status == -signal.SIGSYS


@root
def test_a_filter_needs_a_promise_or_privileges() -> None:
    outcome = run_in_child(as_nobody, seccomp_set_filter, CARELESS)
    assert outcome.error == "PermissionError: [Errno 13] seccomp: Permission denied"


# --- mounts


def flags_of(path: str) -> set[str]:
    """Return the options of the topmost mount on `path`."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return set([line[5] for line in lines if line[4] == path][-1].split(","))


@root
def test_mount_passes_flags_and_data() -> None:
    def look() -> tuple[set[str], int]:
        mount("tmpfs", "/mnt", "tmpfs", MS_NOSUID | MS_NODEV | MS_RDONLY, "size=64k")
        status = os.statvfs("/mnt")
        return flags_of("/mnt"), status.f_blocks * status.f_frsize

    flags, size = value_of(look)
    assert flags >= {"ro", "nosuid", "nodev"} and size == 65536


@root
def test_a_detached_mount_is_nowhere_until_it_is_moved() -> None:
    def build() -> tuple[bool, bool, set[str], int]:
        fs_fd = fsopen("tmpfs")
        fsconfig_set(fs_fd, "size", "64k")
        mount_fd = fsmount(fs_fd, MOUNT_ATTR_NODEV)
        before = os.path.ismount("/mnt")
        move_mount(mount_fd, "/mnt")
        status = os.statvfs("/mnt")
        size = status.f_blocks * status.f_frsize
        return before, os.path.ismount("/mnt"), flags_of("/mnt"), size

    before, after, flags, size = value_of(build)
    assert (before, after, size) == (False, True, 65536) and "nodev" in flags


@root
def test_a_mount_can_be_moved_onto_a_descriptor() -> None:
    def build() -> bool:
        target_fd = os.open("/mnt", os.O_PATH)
        move_mount(fsmount(fsopen("tmpfs")), "", target_fd)
        return os.path.ismount("/mnt")

    assert value_of(build) is True


@root
def test_open_tree_copies_and_mount_setattr_changes_the_copy_only() -> None:
    def bind() -> tuple[set[str], set[str]] | str:
        mount("tmpfs", "/mnt", "tmpfs")
        os.mkdir("/mnt/copy")
        tree_fd = open_tree("/mnt")
        try:
            mount_setattr(tree_fd, MOUNT_ATTR_RDONLY, recursive=True)
        except OSError as error:
            return os.strerror(error.errno or 0)
        move_mount(tree_fd, "/mnt/copy")
        return flags_of("/mnt"), flags_of("/mnt/copy")

    found = value_of(bind)
    if found == os.strerror(errno.ENOSYS):
        cannot_run_here("the kernel is older than mount_setattr (5.12)")
    assert "rw" in found[0] and "ro" in found[1]


@root
def test_pivot_root_in_place_and_detach() -> None:
    def pivot() -> list[str]:
        mount("tmpfs", "/mnt", "tmpfs")
        os.mkdir("/mnt/all")
        os.chdir("/mnt")
        pivot_root(".", ".")
        umount2(".", MNT_DETACH)
        return os.listdir("/")

    assert value_of(pivot) == ["all"]


@pytest.mark.parametrize(
    ("path", "rule", "expected"),
    [
        ("link", 0, "outside"),
        ("link", RESOLVE_IN_ROOT, "inside"),
        ("../../mnt/outside/file", RESOLVE_IN_ROOT, errno.ENOENT),
        ("link", RESOLVE_BENEATH, errno.EXDEV),
        ("../outside/file", RESOLVE_BENEATH, errno.EXDEV),
        ("link", RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("other/file", RESOLVE_NO_XDEV, errno.EXDEV),
    ],
)
@root
def test_openat2_obeys_its_rules(path: str, rule: int, expected: str | int) -> None:
    def resolve() -> str | int | None:
        mount("tmpfs", "/mnt", "tmpfs")
        for name in ("outside", "root/mnt/outside", "root/other"):
            os.makedirs(f"/mnt/{name}")
        Path("/mnt/outside/file").write_text("outside")
        Path("/mnt/root/mnt/outside/file").write_text("inside")
        os.symlink("/mnt/outside/file", "/mnt/root/link")
        mount("tmpfs", "/mnt/root/other", "tmpfs")
        Path("/mnt/root/other/file").write_text("another file system")
        if expected == errno.ENOENT:
            os.unlink("/mnt/root/mnt/outside/file")
        try:
            with open(openat2(os.open("/mnt/root", os.O_PATH), path, os.O_RDONLY, rule)) as file:
                return file.read()
        except OSError as error:
            return error.errno

    assert value_of(resolve) == expected


@root
def test_openat2_descriptors_do_not_survive_exec() -> None:
    fd = openat2(AT_FDCWD, "/", os.O_PATH, 0)
    try:
        assert os.get_inheritable(fd) is False
    finally:
        os.close(fd)


# --- steps


def test_apply_calls_in_order() -> None:
    done: list[int] = []
    apply([Step("one", done.append, (1,)), Step("two", done.append, (2,))])
    assert done == [1, 2]


def test_apply_stops_at_the_first_failure() -> None:
    done: list[str] = []
    steps = [
        Step("begin", done.append, ("begin",)),
        Step("unmount /nowhere", os.stat, ("/nowhere",)),
        Step("go on", done.append, ("go on",)),
    ]
    with pytest.raises(StepFailed, match=r"unmount /nowhere: No such file") as caught:
        apply(steps)
    assert (caught.value.step, caught.value.errno) == ("unmount /nowhere", errno.ENOENT)
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert done == ["begin"]


def test_a_mistake_of_ours_is_not_dressed_as_the_kernels() -> None:
    with pytest.raises(ZeroDivisionError):
        apply([Step("divide", lambda: 1 // 0, ())])


def test_a_step_is_data() -> None:
    assert Step("a", print, ("x",)) == Step("a", print, ("x",)) != Step("b", print, ("x",))


def test_a_plan_of_nothing_does_nothing() -> None:
    apply([])


@pytest.mark.parametrize(
    "module", [syscall, process_module, mount_module], ids=lambda m: m.__name__
)
def test_every_public_function_names_its_source(module: ModuleType) -> None:
    """A man page, `unshare(2)`, in each docstring."""
    own = [
        f
        for _, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__
    ]
    missing = [f.__name__ for f in own if not re.search(r"\w\(\d\)", f.__doc__ or "")]
    assert own and missing == []
