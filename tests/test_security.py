"""Capabilities, masked and read-only paths, limits: pure plans, and what the kernel makes of them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.mount import MS_BIND, mount
from mini_docker.linux.process import capget
from mini_docker.linux.step import apply
from mini_docker.namespaces.devices import bind_console
from mini_docker.runtime.plan import Resources, plan
from mini_docker.security import paths
from mini_docker.security.capabilities import (
    DEFAULT,
    NAMES,
    limit_bounding_set,
    mask,
    plan_bounding_set,
    plan_capabilities,
    set_capabilities,
)
from mini_docker.security.limits import plan_limits, plan_oom_score
from mini_docker.security.paths import make_readonly, mask_path, plan_paths
from tests.conftest import cannot_run_here


def value_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `function` returns in a throw-away child with private mounts; its error fails the test."""
    outcome = run_in_child(function, *arguments)
    assert outcome.error is None and outcome.status == 0, outcome.output
    return outcome.value


def test_the_names_are_the_kernels_bits() -> None:
    bits = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_BPF": 39}
    assert {name: NAMES.index(name) for name in bits} == bits
    assert mask(("CAP_CHOWN", "CAP_KILL", "CAP_CHOWN")) == 0b100001
    assert mask(()) == 0
    assert mask(NAMES) == (1 << 41) - 1
    assert "CAP_SYS_ADMIN" not in DEFAULT and mask(DEFAULT)


@pytest.mark.parametrize("name", ["", "KILL", "cap_kill", "CAP_KILL ", "CAP_ALL"])
def test_an_unknown_capability_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"process.capabilities: unknown capability '{name}'"):
        mask([name])


def test_the_plans_are_pure_and_say_what_the_document_says() -> None:
    before = capget()
    sets = {"bounding": ["CAP_KILL"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]}
    spec = {"process": {"capabilities": sets, "noNewPrivileges": True}}
    assert [step.arguments for step in plan_bounding_set(spec)] == [(32,), (8, 1)]
    assert [step.arguments for step in plan_capabilities(spec)] == [(1, 1, 0, 0), (38, 1)]
    assert plan_bounding_set({"process": {}}) == plan_capabilities({"process": {}}) == []
    linux = {"maskedPaths": ["/a"], "readonlyPaths": ["/b"]}
    assert [step.name for step in plan_paths({"linux": linux})] == ["read-only /b", "mask /a"]
    assert plan_paths({}) == []
    assert capget() == before


def powers(*words: str) -> dict[str, int]:
    """Return the capability sets that `words` (a program printing /proc/self/status) shows."""
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    pairs = (line.split(":") for line in text.splitlines())
    return {name: int(value, 16) for name, value in pairs if name.startswith("Cap")}


def after_the_bounding_set(program: str, uid: int) -> dict[str, int]:
    limit_bounding_set(mask(["CAP_CHOWN", "CAP_KILL"]))
    os.setresuid(uid, uid, uid)
    return powers(program, "^Cap", "/proc/self/status")


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, 65534], ids=["root executes", "nobody executes setuid root"])
def test_no_exec_gives_back_what_the_bounding_set_lost(tmp_path: Path, uid: int) -> None:
    if os.statvfs(tmp_path).f_flag & os.ST_NOSUID:
        cannot_run_here(f"{tmp_path} is mounted nosuid")
    program = shutil.copy(shutil.which("grep") or "", tmp_path / "grep")
    os.chmod(program, 0o4755)
    for directory in (tmp_path, *tmp_path.parents[:2]):
        os.chmod(directory, 0o711)
    found = value_of(after_the_bounding_set, str(program), uid)
    assert found["CapEff"] == found["CapBnd"] == mask(["CAP_CHOWN", "CAP_KILL"])


def as_nobody(spec: dict[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    apply(plan_bounding_set(spec))
    os.setresuid(65534, 65534, 65534)
    apply(plan_capabilities(spec))
    return powers("grep", "^Cap", "/proc/self/status"), {"now": capget()[0]}


@pytest.mark.root
def test_an_ambient_capability_survives_setuid_and_exec_and_others_do_not() -> None:
    net, kill = "CAP_NET_RAW", "CAP_KILL"
    sets = dict.fromkeys(("bounding", "effective", "permitted"), [net, kill])
    sets |= dict.fromkeys(("inheritable", "ambient"), [net])
    executed, here = value_of(as_nobody, {"process": {"capabilities": sets}})
    assert here["now"] == mask([net, kill])
    assert executed["CapEff"] == executed["CapAmb"] == mask([net])


@pytest.mark.root
def test_more_than_one_has_is_refused() -> None:
    def grow() -> None:
        set_capabilities(0, 0, 0, 0)
        set_capabilities(1, 1, 0, 0)

    assert "PermissionError: [Errno 1] capset" in (run_in_child(grow).error or "")


def masked(directory: str) -> list[Any]:
    os.makedirs(f"{directory}/d/below")
    Path(directory, "f").write_text("secret")
    for name in ("d", "f", "missing", "d/below/missing"):
        mask_path(f"{directory}/{name}")
    try:
        os.mkdir(f"{directory}/d/new")
    except OSError as error:
        return [os.listdir(f"{directory}/d"), Path(directory, "f").read_text(), error.errno]
    return ["a masked directory can be written"]


@pytest.mark.root
def test_a_mask_hides_a_directory_and_a_file_and_leaves_out_what_is_missing(tmp_path: Path) -> None:
    assert value_of(masked, str(tmp_path)) == [[], "", 30]
    assert (tmp_path / "f").read_text() == "secret"


def readonly(directory: str) -> list[str]:
    os.makedirs(f"{directory}/d/m")
    mount("tmpfs", f"{directory}/d/m", "tmpfs")
    make_readonly(f"{directory}/d")
    make_readonly(f"{directory}/missing")
    errors = []
    for name in ("d/new", "d/m/new"):
        try:
            Path(directory, name).touch()
        except OSError as error:
            errors.append(str(error.strerror))
    return errors


@pytest.mark.root
def test_read_only_holds_for_the_mounts_below_too(tmp_path: Path) -> None:
    assert value_of(readonly, str(tmp_path)) == ["Read-only file system"] * 2


@pytest.mark.root
@pytest.mark.parametrize("function", [mask_path, make_readonly])
@pytest.mark.parametrize("name", ["link", "link/below"])
def test_a_link_in_the_way_is_refused(
    tmp_path: Path, function: Callable[[str], None], name: str
) -> None:
    (tmp_path / "host/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("host")
    assert "[Errno 40]" in (run_in_child(function, str(tmp_path / name)).error or "")


def swapped(directory: str, real: Callable[[str], int | None]) -> bool:
    """Put a link in the place of the directory right after it was checked, as a racing container would."""

    def open_then_swap(path: str) -> int | None:
        fd = real(path)
        os.rename(f"{directory}/d", f"{directory}/moved")
        os.symlink("host", f"{directory}/d")
        return fd

    paths._open_path = open_then_swap
    make_readonly(f"{directory}/d")
    return os.path.exists(f"{directory}/moved/secret")


@pytest.mark.root
def test_a_link_put_there_between_check_and_use_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "host").mkdir()
    (tmp_path / "host/secret").touch()
    assert value_of(swapped, str(tmp_path), paths._open_path) is False


@pytest.mark.root
def test_cve_2025_31133_a_false_null_device_is_refused(tmp_path: Path) -> None:
    """What lies at /dev/null would be bound over the masked file."""

    def attack() -> None:
        mount("/dev/zero", "/dev/null", None, MS_BIND)
        mask_path(str(tmp_path / "f"))

    (tmp_path / "f").write_text("secret")
    assert "/dev/null in this root is not the null device" in (run_in_child(attack).error or "")


def masked_while_swapped(directory: str, real: Callable[[str], int | None]) -> str:
    def open_then_swap(path: str) -> int | None:
        fd = real(path)
        os.rename(f"{directory}/f", f"{directory}/moved")
        os.symlink("host", f"{directory}/f")
        return fd

    paths._open_path = open_then_swap
    mask_path(f"{directory}/f")
    return Path(directory, "host").read_text() + Path(directory, "moved").read_text()


@pytest.mark.root
def test_a_mask_lands_on_what_was_looked_at_though_a_link_is_raced_over_it(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("secret")
    (tmp_path / "host").write_text("the host's")
    assert value_of(masked_while_swapped, str(tmp_path), paths._open_path) == "the host's"


def console_in(root: str, linked: str) -> None:
    os.makedirs(f"{root}/dev")
    os.makedirs(f"{root}/proc")
    Path(root, "proc/kcore").touch()
    if linked == "console":
        os.symlink("../proc/kcore", f"{root}/dev/console")
    elif linked == "dev":
        os.rmdir(f"{root}/dev")
        os.symlink("proc", f"{root}/dev")
    master_fd, slave_fd = os.openpty()
    bind_console(root, slave_fd)
    found = [path for path in ("dev/console", "proc/kcore") if os.path.ismount(f"{root}/{path}")]
    raise RuntimeError(f"mounted on {found}")


@pytest.mark.root
@pytest.mark.parametrize(
    ("linked", "words"),
    [("", "['dev/console']"), ("console", "leads over a symlink"), ("dev", "leads over a symlink")],
)
def test_cve_2025_52565_a_console_is_not_bound_over_a_link(
    tmp_path: Path, linked: str, words: str
) -> None:
    assert words in (run_in_child(console_in, str(tmp_path), linked).error or "")


def test_cve_2025_52881_settings_and_labels_are_written_before_the_container_has_a_say() -> None:
    """Through the host's own /proc: what an image or a volume brings along is in sight only later."""
    spec: dict[str, Any] = {
        "root": {"path": "/r"},
        "process": {"args": ["x"], "cwd": "/", "oomScoreAdj": 1, "env": []},
        "mounts": [{"destination": "/proc", "type": "bind", "source": "/v", "options": ["bind"]}],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("mount", "ipc", "network")],
            "sysctl": {"net.ipv4.ip_forward": "1"},
        },
    }
    names = [planned.step.name for planned in plan(spec, Resources((), None, None, None))]
    root = names.index("swap it with the host's root")
    assert names.index("set net.ipv4.ip_forward to 1") < root
    assert names.index("set OOM score") < names.index("make every mount private") < root


def limits_after(limits: list[dict[str, Any]], score: int) -> tuple[tuple[int, int], str]:
    spec = {"process": {"rlimits": limits, "oomScoreAdj": score}}
    apply(plan_limits(spec) + plan_oom_score(spec))
    return resource.getrlimit(resource.RLIMIT_CORE), Path("/proc/self/oom_score_adj").read_text()


INFINITE = 2**64 - 1


@pytest.mark.root
@pytest.mark.parametrize(("soft", "hard"), [(0, 0), (7, 7), (INFINITE, INFINITE), (7, INFINITE)])
def test_limits_are_set(soft: int, hard: int) -> None:
    """OCI's numbers are unsigned, and their largest means no limit: docker --ulimit core=-1 writes it."""
    limit = {"type": "RLIMIT_CORE", "soft": soft, "hard": hard}
    found, score = value_of(limits_after, [limit], 500)
    assert [value % 2**64 for value in found] == [soft, hard]
    assert score == "500\n"


CORE = {"type": "RLIMIT_CORE", "soft": 1, "hard": 1}
BAD_LIMITS = [
    ([{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}], r"rlimits\[0\]\.type: .*'RLIMIT_MOON'"),
    ([CORE, {"type": "getrlimit", "soft": 1, "hard": 1}], r"rlimits\[1\]\.type: .*'getrlimit'"),
    ([{"type": "RLIM_INFINITY", "soft": 1, "hard": 1}], "RLIM_INFINITY"),
    # config.md: "If rlimits contains duplicated entries with same type, the runtime MUST generate an error"
    ([CORE, CORE], r"rlimits\[1\]"),
    ([{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}], r"rlimits\[0\]"),
]


@pytest.mark.parametrize(("limits", "words"), BAD_LIMITS, ids=[words for _, words in BAD_LIMITS])
def test_a_wrong_limit_is_refused_while_planning(limits: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan_limits({"process": {"rlimits": limits}})
