"""Checks of chapter 11: they look at the state of a process, and say what is wrong."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from typing import Any

from mini_docker.lab import Verdict, check, failed, passed
from mini_docker.linux.step import Step

Planner = Callable[[dict[str, Any]], list[Step]]


def _umask() -> int:
    current = os.umask(0o22)
    os.umask(current)
    return current


@check
def check_plan_umask(answer: Planner) -> Verdict:
    """Check a planner of process.user.umask: pure, silent without the key, right when applied."""
    original = _umask()
    document = {"process": {"user": {"uid": 0, "gid": 0, "umask": 0o27}}}
    try:
        steps = answer(document)
        if _umask() != original:
            return failed(
                "the umask changed while planning: a planner returns steps, it does not take them"
            )
        if not steps:
            return failed("the document asks for umask 0027 and the plan is empty")
        if not all(isinstance(step, Step) for step in steps):
            return failed("the plan holds something that is not a Step")
        for step in steps:
            step.call(*step.arguments)
        reached = _umask()
    finally:
        os.umask(original)
    if reached != 0o27:
        return failed(f"after the steps the umask is {reached:04o}, the document says 0027")
    if answer({"process": {"user": {"uid": 0, "gid": 0}}}):
        return failed(
            "without the key there is still a step: the container would lose its inherited umask"
        )
    return passed("pure, silent without the key, and the kernel agrees")


def _failure(step: str) -> bytes:
    return b"E" + json.dumps({"step": step, "errno": 2, "text": "gone"}).encode()


@check
def check_verdict_of(answer: Callable[[bytes], str]) -> Verdict:
    """Check a reader of init's report against all the ends that a report can have."""
    ready = b"!" + struct.pack("=I2Q", 2, 1000, 0x45)
    if answer(b"") != "killed":
        return failed("an empty report means that init was killed before it could say anything")
    if answer(ready) != "started":
        return failed(
            "READY and then the end of the pipe means that execve closed it: the command runs"
        )
    if answer(_failure("mount proc on /proc")) != "mount proc on /proc":
        return failed("a FAILED record names its step in the JSON after the first byte")
    if answer(ready + _failure("exec")) != "exec":
        return failed("READY was followed by FAILED: the steps were done, but execve was refused")
    return passed("three ends, told apart; and the fourth, a refused execve after READY")
