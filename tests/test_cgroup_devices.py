"""Device rules: their meaning, the programs made of them, v1's lines, and what the kernel then does."""

from __future__ import annotations

import importlib
import os
import random
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mini_docker.cgroups import devices
from mini_docker.cgroups.devices import (
    ACCESS,
    DEFAULT_RULES,
    EXIT,
    MOVE,
    PROGRAM_NAME,
    R0,
    TYPES,
    Rule,
    assemble,
    effective,
    parse_rules,
    permitted,
    program_for,
    v1_lines,
)
from mini_docker.cgroups.tree import Cgroup, Hierarchies, hierarchies
from mini_docker.linux import bpf
from mini_docker.linux.bpf import BPF_PROG_TYPE_CGROUP_DEVICE, attached_programs, load_program
from mini_docker.linux.step import apply
from tests.conftest import cannot_run_here

NOTHING = {"allow": False, "access": "rwm"}
ALL = Rule(True, "a", None, None, "rwm")
NONE = Rule(False, "a", None, None, "rwm")
READ_KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
REQUESTS = [
    (kind, major, minor, access)
    for kind in "bc"
    for major in (1, 8)
    for minor in (3, 11)
    for access in ("r", "w", "m", "rw", "rm", "rwm")
]


def test_a_rule_of_the_document() -> None:
    listed = [NOTHING, READ_KMSG, {"allow": True, "type": "b", "major": 8, "minor": -1}]
    assert parse_rules(listed) == [
        Rule(False, "a", None, None, "rwm"),
        Rule(True, "c", 1, 11, "r"),
        Rule(True, "b", 8, None, "rwm"),
    ]


BAD: list[tuple[Any, str]] = [
    ({}, "devices: {} is not a list"),
    (["all"], r"devices\[0\].allow: must be true or false"),
    ([NOTHING, {"access": "r"}], r"devices\[1\].allow: must be"),
    ([{"allow": True, "type": "u"}], r"devices\[0\].type: 'u' is none of"),
    ([{"allow": True, "access": "rx"}], r"devices\[0\].access: 'rx' is not made of"),
    ([{"allow": True, "access": ["r"]}], r"devices\[0\].access:"),
    ([{"allow": True, "type": "c", "major": "1"}], r"devices\[0\].major: '1' is no number"),
    ([{"allow": True, "type": "c", "minor": 1 << 20}], r"devices\[0\].minor: 1048576 is no number"),
    ([{"allow": True, "type": "c", "minor": -2}], r"devices\[0\].minor: -2 is no number"),
    ([{"allow": True, "type": "c", "major": True}], r"devices\[0\].major: True is no number"),
]


@pytest.mark.parametrize(("listed", "words"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_rule_is_refused_with_its_json_path(listed: Any, words: str) -> None:
    with pytest.raises(ValueError, match=rf"^linux\.resources\.{words}"):
        parse_rules(listed)


def test_a_rule_about_everything_makes_what_is_before_it_void() -> None:
    rule = Rule(True, "c", 1, 3, "r")
    assert effective([rule]) == (False, [rule])
    assert (
        effective([rule, NONE._replace(type="b"), rule._replace(allow=False)])[1][-1].allow is False
    )
    assert len(effective([rule, rule, rule._replace(allow=False)])[1]) == 1
    assert effective([rule, ALL]) == (True, [])
    assert effective([rule, ALL, NONE, rule]) == (False, [rule])


def some_rules(seed: int) -> list[Rule]:
    """Return a list of rules that meet each other often."""
    chance = random.Random(seed)
    return [
        Rule(
            chance.random() < 0.6,
            chance.choice("abc"),
            chance.choice((None, 1, 8)),
            chance.choice((None, 3, 11)),
            chance.choice(("r", "w", "m", "rw", "rwm")),
        )
        for _ in range(chance.randrange(7))
    ]


@pytest.mark.parametrize("seed", range(60))
def test_a_program_says_what_its_rules_mean(seed: int) -> None:
    rules = some_rules(seed)
    program = program_for(rules)
    run_program = importlib.import_module("solutions.ch08b").run_program
    for kind, major, minor, access in REQUESTS:
        letters = sum(ACCESS[letter] for letter in access)
        verdict = run_program(program, (letters << 16 | TYPES[kind], major, minor))
        assert verdict == permitted(rules, kind, major, minor, access), (kind, major, minor, access)


def load_or_say(code: bytes) -> int:
    """Load a program; a kernel that has none of this says so."""
    try:
        return load_program(BPF_PROG_TYPE_CGROUP_DEVICE, code, "mini_docker_tst")
    except PermissionError:
        cannot_run_here("bpf(2) is not allowed")


@pytest.mark.root
def test_the_verifier_takes_every_program() -> None:
    for seed in range(60):
        os.close(load_or_say(assemble(program_for([*some_rules(seed), *DEFAULT_RULES]))))


@pytest.mark.root
def test_the_verifiers_words_come_through() -> None:
    unreached = [(MOVE, R0, 0, 0, 1), (EXIT, 0, 0, 0, 0), (EXIT, 0, 0, 0, 0)]
    with pytest.raises(OSError, match=r"bpf: .*unreachable insn 2"):
        load_or_say(assemble(unreached))


def test_v1_is_told_all_or_nothing_and_then_exceptions() -> None:
    rules = parse_rules([NOTHING, READ_KMSG, {"allow": True, "access": "m"}])
    assert v1_lines(rules) == [
        ("devices.deny", "a"),
        ("devices.allow", "c 1:11 r"),
        ("devices.allow", "b *:* m"),  # an `a` line of v1 means everything, whatever follows
        ("devices.allow", "c *:* m"),
    ]
    taken_back = [ALL, Rule(False, "b", 8, None, "rw"), Rule(True, "b", 8, None, "w")]
    assert v1_lines(taken_back)[1:] == [("devices.deny", "b 8:* rw"), ("devices.allow", "b 8:* w")]


def test_docker_and_our_own_rules_can_be_said_in_v1() -> None:
    fuse = Rule(False, "c", 10, 229, "rwm")  # in Docker's list, to no effect
    assert ("devices.deny", "c 10:229 rwm") in v1_lines([NONE, fuse, *DEFAULT_RULES])


def test_v1_cannot_take_a_piece_out() -> None:
    rules = [NONE, Rule(True, "b", 8, None, "rw"), Rule(False, "b", 8, 1, "w")]
    with pytest.raises(ValueError, match=r"cannot take 'b 8:1 w' out of .* remedy: a machine with"):
        v1_lines(rules)


@pytest.fixture(params=["as mounted", "v1 alone"])
def group(request: pytest.FixtureRequest, leak_free: None) -> Iterator[Cgroup]:
    """A group that obeys device rules by a program, and one that does by v1's files."""
    trees = hierarchies()
    if request.param == "v1 alone":
        if trees.tree_of("devices") is None:
            cannot_run_here("no v1 tree of the devices controller is mounted")
        trees = Hierarchies("v1", {"devices": trees.mounts["devices"]})
    group = Cgroup(trees, f"/mini_docker_devices_{os.getpid()}")
    yield group
    group.kill()
    group.remove()


def inside(group: Cgroup, scratch: Path) -> dict[str, bool]:
    """Return what a member may do: read and write the kernel's log and null, make a node of a disk."""
    ways = {"read": os.O_RDONLY, "write": os.O_WRONLY}
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            apply(group.plan_enter())
            for name in ("kmsg", "null"):
                for way, flags in ways.items():
                    try:
                        os.open(f"/dev/{name}", flags)
                        os.write(write_fd, f"{way} {name}\n".encode())
                    except PermissionError:
                        pass
            os.mknod(scratch / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
            os.write(write_fd, b"mknod\n")
        finally:
            os._exit(0)
    os.close(write_fd)
    with open(read_fd) as file:
        done = set(file.read().splitlines())
    os.waitpid(pid, 0)
    (scratch / "disk").unlink(missing_ok=True)
    names = ("read kmsg", "write kmsg", "read null", "write null", "mknod")
    return {name: name in done for name in names}


def verdicts(**allowed: bool) -> dict[str, bool]:
    """Return what the default rules give, and the kernel's log as said."""
    return {
        "read kmsg": allowed["read"],
        "write kmsg": allowed["write"],
        "read null": True,
        "write null": True,
        "mknod": True,
    }


@pytest.mark.root
def test_the_kernel_obeys(group: Cgroup, tmp_path: Path) -> None:
    lists: Sequence[tuple[list[dict[str, Any]], dict[str, bool]]] = (
        ([NOTHING], verdicts(read=False, write=False)),
        ([NOTHING, READ_KMSG], verdicts(read=True, write=False)),
        ([], verdicts(read=False, write=False)),  # nothing is said: only the default ones
        ([{"allow": True}], verdicts(read=True, write=True)),
        ([{"allow": True}, {**READ_KMSG, "allow": False}], verdicts(read=False, write=True)),
    )
    group.create({})
    for listed, expected in lists:
        group.update({"devices": listed})
        assert inside(group, tmp_path) == expected, listed


@pytest.mark.root
def test_rules_that_are_not_given_change_nothing(group: Cgroup, tmp_path: Path) -> None:
    group.create({})
    assert inside(group, tmp_path) == verdicts(read=True, write=True)
    group.update({"devices": [NOTHING]})
    group.update({"devices": None})
    assert inside(group, tmp_path) == verdicts(read=False, write=False)


@pytest.mark.root
def test_an_update_replaces_our_program_and_leaves_those_of_others(leak_free: None) -> None:
    trees = hierarchies()
    if trees.unified is None:
        cannot_run_here("no v2 tree is mounted")
    group = Cgroup(trees, f"/mini_docker_devices_{os.getpid()}")
    group.create({"devices": [NOTHING]})
    cgroup_fd = group.open_unified()
    assert cgroup_fd is not None
    try:
        other_fd = load_or_say(assemble(program_for([ALL])))
        bpf.attach_program(cgroup_fd, other_fd)
        os.close(other_fd)
        for _ in range(3):
            group.update({"devices": [NOTHING, READ_KMSG]})
        for name in (PROGRAM_NAME, "mini_docker_tst"):
            fds = attached_programs(cgroup_fd, name)
            assert len(fds) == 1, name
            os.close(fds[0])
    finally:
        os.close(cgroup_fd)
        group.remove()


def test_without_bpf_v1_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hybrid machine whose kernel refuses bpf(2) has v1's file still."""

    def refused(*_: object) -> int:
        raise OSError(1, "bpf: Operation not permitted")

    written: list[tuple[str, str]] = []
    for name in ("v1/x", "v2/x"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("v2", "v2/x"):
        (tmp_path / name / "cgroup.subtree_control").touch()
    mounts = {"": str(tmp_path / "v2"), "devices": str(tmp_path / "v1")}
    monkeypatch.setattr(devices, "load_program", refused)
    monkeypatch.setattr(devices, "write_file", lambda path, text: written.append((path, text)))
    Cgroup(Hierarchies("hybrid", mounts), "/x").create({"devices": [NOTHING]})
    assert written[0] == (f"{tmp_path}/v1/x/devices.deny", "a")
    del mounts["devices"]
    with pytest.raises(OSError, match=r"linux\.resources\.devices: bpf: Operation not permitted"):
        Cgroup(Hierarchies("v2", mounts), "/x").create({"devices": [NOTHING]})


def test_a_machine_with_neither_is_told(tmp_path: Path) -> None:
    group = Cgroup(Hierarchies("v1", {"pids": str(tmp_path)}), "/x")
    with pytest.raises(FileNotFoundError, match="neither a v2 tree nor v1's 'devices'"):
        group.create({"devices": []})
    assert os.listdir(tmp_path) == []
