"""Solutions of chapter 8b, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from exercises.ch08b import check_interpreter, check_rule
from mini_docker.cgroups.devices import (
    AND,
    EXIT,
    JUMP_IF_EQUAL,
    JUMP_UNLESS_EQUAL,
    LOAD_WORD,
    MOVE,
    MOVE_REGISTER,
    SHIFT_RIGHT,
    Instruction,
)
from mini_docker.lab import Exercise

RULE = re.compile(r"([abc]) (\d+|\*):(\d+|\*) ([rwm]+)")


def device_rule_blank(text: str) -> dict[str, Any]:
    """The untouched exercise."""
    return {}


def device_rule(text: str) -> dict[str, Any]:
    """Return the OCI device rule for a value of --device-cgroup-rule."""
    found = RULE.fullmatch(text)
    if not found:
        raise ValueError(f"{text!r} is not like 'c 189:* rwm'")
    kind, major, minor, access = found.groups()
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    rule |= {n: int(v) for n, v in (("major", major), ("minor", minor)) if v != "*"}
    return rule


def device_rule_star(text: str) -> dict[str, Any]:
    """Wrong: the star goes into the document."""
    kind, numbers, access = text.split()
    major, minor = numbers.split(":")
    return {"allow": True, "type": kind, "major": int(major), "minor": minor, "access": access}


def device_rule_text(text: str) -> dict[str, Any]:
    """Wrong: numbers stay text."""
    return {**device_rule(text), "major": text.split()[1].split(":")[0]}


def device_rule_trusting(text: str) -> dict[str, Any]:
    """Wrong: it takes what begins like a rule."""
    found = RULE.match(text)
    if not found:
        raise ValueError(text)
    return device_rule(found.group())


def run_program_blank(program: Sequence[Instruction], words: Sequence[int]) -> int:
    """The untouched exercise."""
    return -1


def run_program(program: Sequence[Instruction], words: Sequence[int]) -> int:
    """Return the verdict of a program."""
    registers, at = [0] * 6, 0
    while True:
        op, to, by, offset, number = program[at]
        at += 1
        if op == LOAD_WORD:
            registers[to] = words[offset // 4]
        elif op == MOVE:
            registers[to] = number
        elif op == MOVE_REGISTER:
            registers[to] = registers[by]
        elif op == AND:
            registers[to] &= number
        elif op == SHIFT_RIGHT:
            registers[to] >>= number
        elif op in (JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL):
            at += offset if (registers[to] == number) == (op == JUMP_IF_EQUAL) else 0
        elif op == EXIT:
            return registers[0]


def run_program_first_exit(program: Sequence[Instruction], words: Sequence[int]) -> int:
    """Wrong: jumps are not taken."""
    straight = [i for i in program if i[0] not in (JUMP_IF_EQUAL, JUMP_UNLESS_EQUAL)]
    return run_program(straight, words)


EXERCISES = [
    Exercise(
        "device_rule",
        check_rule,
        blank=device_rule_blank,
        solution=device_rule,
        wrong=[
            (device_rule_star, "left out"),
            (device_rule_text, "the number 189"),
            (device_rule_trusting, "is no rule"),
        ],
    ),
    Exercise(
        "run_program",
        check_interpreter,
        blank=run_program_blank,
        solution=run_program,
        wrong=[(run_program_first_exit, "the program answers")],
    ),
]
