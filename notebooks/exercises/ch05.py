"""Checks of chapter 5."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

ALL = {"ipc", "network", "uts", "pid", "mount"}


@check
def check_allowed(answer: Callable[[str, set[str]], bool]) -> Verdict:
    """Check the rule for kernel parameters."""
    for key in ("kernel.msgmax", "kernel.shm_rmid_forced", "kernel.sem", "fs.mqueue.queues_max"):
        if not answer(key, {"ipc"}):
            return failed(f"{key} exists once per IPC namespace, and the container has its own")
        if answer(key, ALL - {"ipc"}):
            return failed(f"without an IPC namespace of its own, {key} would change the host's")
    if not answer("net.core.somaxconn", {"network"}) or answer("net.core.somaxconn", {"ipc"}):
        return failed("net.core.somaxconn goes with the network namespace, and with no other")
    for key in ("kernel.panic", "kernel.core_pattern", "vm.overcommit_memory", "fs.file-max"):
        if answer(key, ALL):
            return failed(f"{key} exists once per machine: the container would change the host")
    if answer("netfilter.x", ALL):
        return failed("'netfilter.x' is let through: it only begins with the letters of net")
    for key in ("net/../kernel/panic", "kernel.msg/../panic", "net...kernel.panic"):
        if answer(key, ALL):
            return failed(f"'{key}' is a path that leads elsewhere")
    return passed("its own, and nothing of the host's")


@check
def check_shm_options(answer: Callable[[str], list[str]]) -> Verdict:
    """Check the options of /dev/shm."""
    fixed = {"nosuid", "noexec", "nodev", "mode=1777"}
    for text, size in (("64m", 64 << 20), ("1g", 1 << 30), ("2048", 2048), ("512K", 512 << 10)):
        options = answer(text)
        if f"size={size}" not in options:
            return failed(f"'{text}' is {size} bytes; your options are {options}")
        if set(options) - {f"size={size}"} != fixed:
            return failed("nosuid, noexec, nodev and mode=1777 belong to every /dev/shm")
    if any(option.startswith("size") for option in answer("0")):
        return failed(
            "'0' means no limit of ours, and size=0 or a size of 0 bytes says something else"
        )
    for text in ("", "m", "-1m", "64q", "64 m x"):
        try:
            answer(text)
        except ValueError:
            continue
        return failed(f"'{text}' is no size, and no ValueError was raised")
    return passed("four sizes, none, and five refusals")
