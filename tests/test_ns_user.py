"""User, cgroup and time namespaces: plans compared as data, effects by what the kernel says of a process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.process import CLONE_NEWCGROUP, CLONE_NEWUSER, clone3, unshare
from mini_docker.linux.step import Step, StepFailed, apply
from mini_docker.namespaces.cgroup import plan_cgroup_namespace
from mini_docker.namespaces.time import enter, plan_time, set_offsets
from mini_docker.namespaces.user import (
    User,
    id_map_lines,
    plan_user,
    plan_user_namespace,
    resolve_user,
    set_groups,
    write_id_maps,
)

root_only = pytest.mark.root


def mapping(inside: int, outside: int, size: int) -> dict[str, int]:
    return {"containerID": inside, "hostID": outside, "size": size}


def document(*kinds: str, maps: Sequence[dict[str, int]] = (), **linux: Any) -> dict[str, Any]:
    """Return a document with these new namespaces, and the same maps for users and groups."""
    linux["namespaces"] = [{"type": kind} for kind in kinds]
    return {"linux": {**linux, "uidMappings": list(maps), "gidMappings": list(maps)}}


REMAP = document("user", maps=[mapping(0, 100000, 65536)])


def inside(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)` called in a child that is thrown away; what it raises fails."""
    outcome = run_in_child(function, *args)
    assert outcome.status == 0, outcome.error or outcome.output
    return outcome.value


# ---- id maps ------------------------------------------------------------------------------------------


def test_a_map_is_one_line_a_range() -> None:
    maps = [mapping(0, 1000, 1), mapping(1, 100000, 65536)]
    assert id_map_lines(maps, "linux.uidMappings") == "0 1000 1\n1 100000 65536\n"
    assert id_map_lines([mapping(0, 0, 2**32 - 1)], "x") == "0 0 4294967295\n"


@pytest.mark.parametrize(
    ("maps", "words"),
    [
        ([mapping(0, 1000, 0)], r"\[0\]: 0 ids from 0 and 1000 are no range"),
        ([mapping(-1, 1000, 1)], r"\[0\]: 1 ids from -1"),
        ([mapping(0, 2**32 - 2, 2)], r"\[0\]: 2 ids"),
        ([mapping(0, 1000, 10), mapping(9, 3000, 1)], r"\[1\]\.containerID: overlaps"),
        ([mapping(0, 1000, 10), mapping(10, 1009, 1)], r"\[1\]\.hostID: overlaps"),
        ([mapping(n, n, 1) for n in range(341)], "takes 340 ranges, not 341"),
    ],
)
def test_a_bad_map_is_refused_by_name(maps: list[dict[str, int]], words: str) -> None:
    with pytest.raises(ValueError, match=f"linux.gidMappings.*{words}"):
        id_map_lines(maps, "linux.gidMappings")


def in_user_namespace(spec: dict[str, Any], work: Callable[[], object], deny: bool = False) -> str:
    """Return what `work` answers in a child of a new user namespace whose maps are written."""
    go_fd, parent_go_fd = os.pipe()
    answer_fd, child_answer_fd = os.pipe()
    pid, _ = clone3(CLONE_NEWUSER)
    if pid == 0:
        try:
            os.close(parent_go_fd)
            os.read(go_fd, 1)
            try:
                answer = work()
            except Exception as error:
                answer = type(error).__name__
            os.write(child_answer_fd, str(answer).encode())
        finally:
            os._exit(0)
    if deny:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
    write_id_maps(pid, spec)
    os.close(parent_go_fd)
    os.close(child_answer_fd)
    with open(answer_fd) as file:
        answer = file.read()
    os.waitpid(pid, 0)
    return answer


def become_and_make_a_file(directory: str) -> str:
    """Become root of the user namespace and make a file."""
    apply(plan_user_namespace(REMAP))
    Path(directory, "file").touch()
    return f"{os.getresuid()} {os.getresgid()} {os.getgroups()}"


@root_only
def test_root_of_the_namespace_is_another_number_outside(tmp_path: Path) -> None:
    def experiment() -> tuple[str, int]:
        os.chmod("/mnt", 0o755)
        os.setgroups([0, 44])
        return in_user_namespace(REMAP, lambda: become_and_make_a_file("/mnt")), os.stat(
            "/mnt/file"
        ).st_uid

    def on_tmpfs() -> tuple[str, int]:
        from mini_docker.linux.mount import mount

        mount("none", "/mnt", "tmpfs", 0, "mode=777,uid=100000")
        return experiment()

    assert inside(on_tmpfs) == ("(0, 0, 0) (0, 0, 0) []", 100000)


@root_only
def test_where_setgroups_is_denied_no_groups_is_a_wish_that_comes_true() -> None:
    one = document("user", maps=[mapping(0, 1000, 1)])
    spec = {"process": {"user": {"uid": 0, "gid": 0}}}

    def none_asked() -> str:
        apply(plan_user_namespace(one) + plan_user(spec))
        return str(os.getuid())

    def one_asked() -> None:
        set_groups((0,))

    assert inside(in_user_namespace, one, none_asked, True) == "0"
    assert inside(in_user_namespace, one, one_asked, True) == "PermissionError"
    assert inside(in_user_namespace, one, one_asked, False) == "None"


def test_without_a_user_namespace_there_is_nobody_to_become() -> None:
    assert plan_user_namespace(document("pid")) == []
    joined = {"linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}}
    assert [step.name.split()[0] for step in plan_user_namespace(joined)] == [
        "drop",
        "become",
        "become",
    ]


# ---- the user -----------------------------------------------------------------------------------------


def test_the_user_comes_last_and_the_umask_is_runcs() -> None:
    user = {"uid": 1000, "gid": 50, "additionalGids": [50, 44]}
    assert [step.name for step in plan_user({"process": {"user": user}})] == [
        "set umask 0022",
        "set groups [50, 44]",
        "become group 50",
        "become user 1000",
    ]
    assert plan_user({"process": {"user": {"umask": 0o77}}})[0].arguments == (0o77,)


@root_only
def test_the_plan_makes_the_user() -> None:
    def become() -> tuple[Any, ...]:
        user = {"uid": 1000, "gid": 50, "additionalGids": [50, 44], "umask": 0o27}
        apply(plan_user({"process": {"user": user}}))
        return os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.umask(0)

    assert inside(become) == ((1000,) * 3, (50,) * 3, [44, 50], 0o27)


PASSWD = """\
# a comment
root:x:0:0:root:/root:/bin/sh
broken:x:abc:0::/:/bin/sh
web:x:33:34:web:/srv:/bin/false
1000:x:7:7::/digits:/bin/sh
short:x:8
web:x:99:99:second:/:/bin/sh
"""
GROUP = (
    "#root:x:5:web\nroot:x:0:\nvideo:x:44:web,root\nstaff:x:50:web\nwww:x:34:web\nodd:x:xyz:web\n"
)


@pytest.mark.parametrize(
    ("text", "user"),
    [
        ("", User(0, 0, (0, 44), "/root")),
        ("0", User(0, 0, (0, 44), "/root")),
        (":staff", User(0, 50, (50,), "/root")),
        ("web", User(33, 34, (34, 44, 50), "/srv")),
        ("web:", User(33, 34, (34, 44, 50), "/srv")),
        ("33", User(33, 34, (34, 44, 50), "/srv")),
        ("web:staff", User(33, 50, (50,), "/srv")),
        ("web:7777", User(33, 7777, (7777,), "/srv")),
        ("1000", User(1000, 0, (0,), "/")),
        ("7", User(7, 7, (7,), "/digits")),
        ("short", User(8, 0, (0,), "")),
        ("2147483647:0", User(2147483647, 0, (0,), "/")),
    ],
)
def test_who_is_meant_by_u(text: str, user: User) -> None:
    assert resolve_user(text, PASSWD, GROUP) == user


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("foo", "unable to find user foo: no matching entries in passwd file"),
        ("broken", "unable to find user broken: no matching entries in passwd file"),
        ("web:foo", "unable to find group foo: no matching entries in group file"),
        ("web:odd", "unable to find group odd: no matching entries in group file"),
        ("-1", "uids and gids must be in range 0-2147483647"),
        ("0:2147483648", "uids and gids must be in range 0-2147483647"),
    ],
)
def test_who_is_nobody(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        resolve_user(text, PASSWD, GROUP)


def test_an_image_without_files_knows_numbers_only() -> None:
    assert resolve_user("", "", "") == User(0, 0, (0,), "/")
    assert resolve_user("5:6", "", "") == User(5, 6, (6,), "/")


# ---- cgroup -------------------------------------------------------------------------------------------


def test_the_cgroup_namespace_is_a_step_of_its_own() -> None:
    (step,) = plan_cgroup_namespace(document("pid", "cgroup"))
    assert (step.call, step.arguments) == (unshare, (CLONE_NEWCGROUP,))
    assert plan_cgroup_namespace(document("pid")) == []
    joined = {"linux": {"namespaces": [{"type": "cgroup", "path": "/proc/1/ns/cgroup"}]}}
    assert plan_cgroup_namespace(joined) == []


@root_only
def test_in_its_namespace_a_process_is_at_the_root() -> None:
    def places() -> set[str]:
        apply(plan_cgroup_namespace(document("cgroup")))
        return {
            line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()
        }

    assert inside(places) == {"/"}


# ---- time ---------------------------------------------------------------------------------------------


def test_offsets_become_the_kernels_lines() -> None:
    offsets = {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 60}}
    made, written, entered = plan_time(document("time", timeOffsets=offsets))
    assert written.arguments == ("monotonic -5 7\nboottime 60 0\n",)
    assert entered.call is enter
    assert [step.name for step in plan_time(document("time"))] == [made.name, entered.name]
    assert plan_time(document("pid")) == []


@pytest.mark.parametrize(
    ("kind", "offsets", "words"),
    [
        (
            "time",
            {"realtime": {"secs": 1}},
            "linux.timeOffsets.realtime: only monotonic and boottime",
        ),
        (
            "time",
            {"boottime": {"nanosecs": 10**9}},
            "linux.timeOffsets.boottime.nanosecs: not below",
        ),
        ("pid", {"boottime": {"secs": 1}}, "linux.timeOffsets: needs a new time namespace"),
    ],
)
def test_offsets_that_cannot_be(kind: str, offsets: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_time(document(kind, timeOffsets=offsets))


@root_only
def test_the_clock_jumps_for_this_very_process_and_its_children_and_the_date_does_not() -> None:
    def jump() -> tuple[int, int, int, int]:
        clocks = (time.CLOCK_BOOTTIME, time.CLOCK_MONOTONIC, time.CLOCK_REALTIME)
        before = [time.clock_gettime(clock) for clock in clocks]
        apply(plan_time(document("time", timeOffsets={"boottime": {"secs": 86400}})))
        after = [time.clock_gettime(clock) for clock in clocks]
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        days = [round((new - old) / 86400) for new, old in zip(after, before, strict=True)]
        return (*days, round((uptime - before[0]) / 86400))  # type: ignore[return-value]

    assert inside(jump) == (1, 0, 0, 1)


@root_only
@pytest.mark.parametrize(
    ("first", "then", "failed"),
    [
        (plan_time, plan_user_namespace, ""),
        (plan_user_namespace, plan_time, "set the clocks' offsets"),
    ],
)
def test_the_clocks_are_set_before_root_of_the_user_namespace(
    first: Callable[..., list[Step]], then: Callable[..., list[Step]], failed: str
) -> None:
    maps = [mapping(0, 100000, 65536)]
    spec = document("user", "time", maps=maps, timeOffsets={"boottime": {"secs": 60}})

    def start() -> str:
        try:
            apply(first(spec) + then(spec))
        except StepFailed as error:
            return error.step
        return ""

    assert inside(in_user_namespace, spec, start) == failed


@root_only
def test_once_inside_the_offsets_are_fixed_and_no_clock_goes_below_zero() -> None:
    def again() -> str:
        apply(plan_time(document("time")))
        try:
            set_offsets("boottime 1 0\n")
        except OSError as error:
            return type(error).__name__
        return "written"

    def negative() -> str:
        try:
            apply(plan_time(document("time", timeOffsets={"monotonic": {"secs": -(10**9)}})))
        except StepFailed as error:
            return error.step
        return "written"

    assert inside(again) == "PermissionError"
    assert inside(negative) == "set the clocks' offsets"
