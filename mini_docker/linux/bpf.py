# Exported from notebooks/08b_devices.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08b_devices.ipynb#bpf-module
"""bpf(2): load a program, attach it to a control group, find it again and replace it."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

from mini_docker.linux.syscall import system_call

# linux/bpf.h: commands, the one kind of program and of attachment used here, flags
BPF_PROG_LOAD, BPF_PROG_ATTACH, BPF_PROG_DETACH = 5, 8, 9
BPF_PROG_GET_FD_BY_ID, BPF_OBJ_GET_INFO_BY_FD, BPF_PROG_QUERY = 13, 15, 16
BPF_PROG_TYPE_CGROUP_DEVICE, BPF_CGROUP_DEVICE = 15, 6
BPF_F_ALLOW_MULTI, BPF_F_REPLACE = 1 << 1, 1 << 2

_bpf = system_call("bpf", ctypes.c_int, ctypes.c_void_p, ctypes.c_uint)


def bpf(command: int, layout: str, *values: int | bytes) -> tuple[int, bytes]:
    """Make one call: union bpf_attr is packed as `layout` says, struct(3); return result and attr after.

    Raises OSError. Source: bpf(2), linux/bpf.h.
    """
    attr = ctypes.create_string_buffer(struct.pack("=" + layout, *values))
    size = len(attr) - 1  # without the buffer's own final zero
    return _bpf(command, ctypes.addressof(attr), size), attr.raw[:size]


# %% notebooks/08b_devices.ipynb#load-program
def load_program(kind: int, code: bytes, name: str) -> int:
    """Have the kernel check and compile a program of 8-byte instructions; return its descriptor.

    A refusal is an OSError with the verifier's last words. Source: BPF_PROG_LOAD of bpf(2).
    """
    try:
        return _load(kind, code, name, 0)[0]
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise
    return _load(kind, code, name, 1 << 16)[0]  # again, and this time it shall say why


def _load(kind: int, code: bytes, name: str, log_size: int) -> tuple[int, bytes]:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(log_size or 1)
    try:
        return bpf(
            BPF_PROG_LOAD,
            "IIQQIIQII16s",
            kind,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
            1 if log_size else 0,
            log_size,
            ctypes.addressof(log) if log_size else 0,
            0,
            0,
            name.encode(),
        )
    except OSError as error:
        lines = log.value.decode(errors="replace").strip().splitlines()
        words = "; ".join([str(error.strerror), *lines[-3:-1]])
        raise OSError(error.errno, words) from None


# %% notebooks/08b_devices.ipynb#attach-program
def attach_program(cgroup_fd: int, program_fd: int, replaced_fd: int | None = None) -> None:
    """Attach a device program to a v2 group beside those of others; instead of `replaced_fd`, at once.

    What one program of a group, or of a group above it, forbids is forbidden. Raises OSError.
    """
    flags = BPF_F_ALLOW_MULTI | (BPF_F_REPLACE if replaced_fd is not None else 0)
    values = (cgroup_fd, program_fd, BPF_CGROUP_DEVICE, flags, replaced_fd or 0)
    bpf(BPF_PROG_ATTACH, "IIIII", *values)


def attached_programs(cgroup_fd: int, name: str) -> list[int]:
    """Return descriptors of the group's own device programs of that name (at most 15 characters)."""
    room = 64
    ids = (ctypes.c_uint32 * room)()
    values = (cgroup_fd, BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), room, 0)
    _, attr = bpf(BPF_PROG_QUERY, "IIIIQII", *values)
    found = []
    for number in ids[: struct.unpack_from("=I", attr, 24)[0]]:
        fd, _ = bpf(BPF_PROG_GET_FD_BY_ID, "III", number, 0, 0)
        if program_name(fd) == name:
            found.append(fd)
        else:
            os.close(fd)
    return found


def program_name(program_fd: int) -> str:
    """Return the name under which a program was loaded: 16 bytes at offset 64 of struct bpf_prog_info."""
    info = ctypes.create_string_buffer(80)
    bpf(BPF_OBJ_GET_INFO_BY_FD, "IIQ", program_fd, len(info), ctypes.addressof(info))
    return info.raw[64:80].rstrip(b"\0").decode()
