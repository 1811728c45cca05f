# Exported from notebooks/11_runtime.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11_runtime.ipynb#program-module
"""The command's file: where it may lie, and that it is not the host's own python."""

from __future__ import annotations

import errno
import os

from mini_docker.linux.mount import AT_FDCWD, RESOLVE_NO_MAGICLINKS, openat2

# %% notebooks/11_runtime.ipynb#program
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# the kernel's own limits: linux/binfmts.h, and exec_binprm() of fs/exec.c
LONGEST_FIRST_LINE = 256
MOST_INTERPRETERS = 5


def candidates(name: bytes, path: bytes) -> list[bytes]:
    """Return the files that `name` may mean: itself, or one in each directory of `path`, execvp(3)."""
    if b"/" in name:
        return [name]
    if not name:
        return []
    return [(directory or b".") + b"/" + name for directory in path.split(b":")]


def refuse_host_program(name: bytes, path: bytes) -> None:
    """Refuse a command that is, or whose interpreter is, reached through a link such as /proc/self/exe.

    That link is the host's python until execve(2) is done: running it would hand the container a way to
    the file itself (CVE-2019-5736). Interpreters may have interpreters, and a script may be executable
    but not readable: hence this is asked while still root. Raises PermissionError.
    """
    for candidate in candidates(name, path):
        program: bytes | None = candidate
        for _ in range(MOST_INTERPRETERS):
            if program is None:
                break
            if _is_magic(program):
                text = f'exec: "{os.fsdecode(name)}": permission denied'
                raise PermissionError(errno.EACCES, text)
            program = interpreter(program)


def _is_magic(path: bytes) -> bool:
    """Return whether a magic link of /proc lies on the way to `path`, openat2(2)."""
    try:
        os.close(openat2(AT_FDCWD, os.fsdecode(path), os.O_PATH, RESOLVE_NO_MAGICLINKS))
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def interpreter(program: bytes) -> bytes | None:
    """Return the path after `#!` as the kernel reads it, or None for what is no script."""
    try:
        fd = os.open(program, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = os.read(fd, LONGEST_FIRST_LINE).split(b"\n")[0].split(b"\0")[0]
    except OSError:  # a directory
        return None
    finally:
        os.close(fd)
    words = line[2:].replace(b"\t", b" ").strip(b" ").split(b" ")
    return words[0] if line.startswith(b"#!") and words[0] else None
