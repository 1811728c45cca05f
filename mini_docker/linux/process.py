# Exported from notebooks/01_system_calls.ipynb and 1 more by mini_docker.lab.book: edit there, not here.

# %% notebooks/01_system_calls.ipynb#namespaces
"""Processes and their privileges: clone3, unshare, setns, pidfds, prctl, capabilities, seccomp."""

from __future__ import annotations

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_uint, c_uint64, c_ulong, c_void_p, sizeof

from mini_docker.linux.syscall import system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # the C half: the Python half imports enum, 5 ms

# sched.h: what clone3, unshare and setns make new or join
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_INTO_CGROUP = 0x200000000

_unshare = system_call("unshare", c_int)
_setns = system_call("setns", c_int, c_int)
_sethostname = system_call("sethostname", c_char_p, c_ulong)


def unshare(flags: int) -> None:
    """Give the calling process new namespaces of the kinds in `flags` (CLONE_NEW*), unshare(2).

    The exceptions are pid and time: there only the children are born inside. Raises OSError.
    """
    _unshare(flags)


def setns(fd: int, nstype: int = 0) -> None:
    """Join the namespace behind `fd` (or, for a pidfd, those in `nstype`), setns(2). Raises OSError."""
    _setns(fd, nstype)


def sethostname(name: bytes) -> None:
    """Set the host name of the caller's UTS namespace, 64 bytes at most, sethostname(2). Raises OSError."""
    _sethostname(name, len(name))


# %% notebooks/01_system_calls.ipynb#clone
_clone3 = system_call("clone3", c_void_p, c_ulong)
_pidfd_open = system_call("pidfd_open", c_int, c_uint)
_pidfd_send_signal = system_call("pidfd_send_signal", c_int, c_int, c_void_p, c_uint)


class clone_args(ctypes.Structure):  # noqa: N801 (the kernel's name)
    """struct clone_args of clone3(2): eleven 64-bit fields, version 2 (88 bytes)."""

    _fields_ = [
        (name, c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


def clone3(flags: int, cgroup_fd: int | None = None) -> tuple[int, int]:
    """Fork a child in new namespaces; return (0, -1) in the child, (pid, pidfd) in the parent, clone3(2).

    `flags` are CLONE_NEW*; a `cgroup_fd` (a cgroup v2 directory) makes the child start inside that cgroup;
    CLONE_PARENT makes it a child of the caller's parent, which gets the signal of its end.
    Only for a process with one thread: the child of a threaded Python may hang. Raises OSError.
    """
    pidfd = c_int(-1)
    arguments = clone_args(
        flags=flags | CLONE_PIDFD | (CLONE_INTO_CGROUP if cgroup_fd is not None else 0),
        pidfd=ctypes.addressof(pidfd),
        exit_signal=0 if flags & CLONE_PARENT else signal.SIGCHLD,
        cgroup=cgroup_fd or 0,
    )
    pid = _clone3(byref(arguments), sizeof(arguments))
    return pid, pidfd.value if pid else -1


def pidfd_open(pid: int) -> int:
    """Return a descriptor that means the process `pid` for ever, pidfd_open(2). Raises OSError."""
    return _pidfd_open(pid, 0)


def pidfd_send_signal(pidfd: int, signum: int) -> None:
    """Send a signal to the process behind `pidfd`, pidfd_send_signal(2). Raises OSError."""
    _pidfd_send_signal(pidfd, signum, None, 0)


def exit_code(status: int) -> int:
    """Return the exit code a shell would show for a waitpid(2) status: the code, or 128 + the signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# %% notebooks/C_system_calls.ipynb#process-constants
# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4

# linux/seccomp.h, linux/close_range.h, linux/keyctl.h, linux/capability.h
SECCOMP_SET_MODE_FILTER = 1
CLOSE_RANGE_CLOEXEC = 4
KEYCTL_JOIN_SESSION_KEYRING = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522


# %% notebooks/C_system_calls.ipynb#prctl
_prctl = system_call("prctl", c_int, c_ulong, c_ulong, c_ulong, c_ulong)
_prctl_name = system_call("prctl", c_int, c_char_p, c_ulong, c_ulong, c_ulong)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """Change or read an attribute of the calling thread, prctl(2). Raises OSError."""
    return _prctl(option, arg2, arg3, arg4, arg5)


def set_process_name(name: bytes) -> None:
    """Set the name that ps shows, 15 bytes at most, PR_SET_NAME of prctl(2)."""
    _prctl_name(PR_SET_NAME, name, 0, 0, 0)


# %% notebooks/C_system_calls.ipynb#capabilities
_capget = system_call("capget", c_void_p, c_void_p)
_capset = system_call("capset", c_void_p, c_void_p)


def capget() -> tuple[int, int, int]:
    """Return the caller's (effective, permitted, inheritable) capabilities as bit masks, capget(2)."""
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _capget(header, data)
    effective, permitted, inheritable = (data[i] | data[i + 3] << 32 for i in range(3))
    return effective, permitted, inheritable


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capabilities from bit masks, capset(2). Raises PermissionError."""
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    masks = (effective, permitted, inheritable)
    words = [mask & 0xFFFFFFFF for mask in masks] + [mask >> 32 for mask in masks]
    _capset(header, (ctypes.c_uint32 * 6)(*words))


# %% notebooks/C_system_calls.ipynb#filters
_seccomp = system_call("seccomp", c_uint, c_uint, c_void_p)


class sock_fprog(ctypes.Structure):  # noqa: N801 (the kernel's name)
    """struct sock_fprog of seccomp(2): how many instructions, and where they are."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", c_char_p)]


def seccomp_set_filter(program: bytes | None, flags: int = 0) -> int:
    """Install a classic BPF `program` (8 bytes an instruction) on every coming system call, seccomp(2).

    Returns 0, or a descriptor for what the flags ask. Needs no_new_privs or CAP_SYS_ADMIN. Raises OSError,
    EFAULT without a program if the kernel knows the flags.
    """
    arguments = sock_fprog(len(program) // 8, program) if program is not None else None
    return _seccomp(SECCOMP_SET_MODE_FILTER, flags, byref(arguments) if arguments else None)


# %% notebooks/C_system_calls.ipynb#leftovers
_close_range = system_call("close_range", c_uint, c_uint, c_uint)
_keyctl = system_call("keyctl", c_int, c_void_p, c_ulong, c_ulong, c_ulong)
_setdomainname = system_call("setdomainname", c_char_p, c_ulong)
_personality = system_call("personality", c_ulong)
_rt_sigaction = system_call("rt_sigaction", c_int, c_void_p, c_void_p, c_ulong)
_pidfd_getfd = system_call("pidfd_getfd", c_int, c_int, c_uint)


def close_range(first: int, last: int = 0xFFFFFFFF, flags: int = 0) -> None:
    """Close the descriptors from `first` to `last`, or mark them CLOSE_RANGE_CLOEXEC, close_range(2)."""
    _close_range(first, last, flags)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """Return a copy of descriptor `fd` of the process behind `pidfd`, pidfd_getfd(2). Raises OSError.

    It asks for the right to trace that process, ptrace(2).
    """
    return _pidfd_getfd(pidfd, fd, 0)


def join_session_keyring() -> None:
    """Give the calling process a session keyring of its own, keyctl(2). Raises OSError."""
    _keyctl(KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


def setdomainname(name: bytes) -> None:
    """Set the NIS domain name of the caller's UTS namespace, setdomainname(2). Raises OSError."""
    _setdomainname(name, len(name))


def personality(persona: int) -> int:
    """Set the execution domain, return the one before; 0xFFFFFFFF only reads it, personality(2)."""
    return _personality(persona)


def default_action(number: int) -> None:
    """Give a signal its default action, sigaction(2) as the kernel has it. Raises OSError.

    The C library hides two signals from signal(3), which it keeps for its threads (32 and 33), yet
    posix_spawn(3) starts programs with 32 ignored, and what is ignored stays so over execve. The bytes
    are the kernel's struct sigaction, all zero: SIG_DFL, no flags, an empty mask.
    """
    _rt_sigaction(number, bytes(32), None, 8)
