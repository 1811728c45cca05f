"""The IPC namespace: which kernel parameters a container may set, and that it sets its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.mount import mount
from mini_docker.linux.process import CLONE_NEWIPC, unshare
from mini_docker.linux.step import StepFailed, apply
from mini_docker.namespaces.ipc import owner_of, plan_sysctls, shm_mount, sysctl_path
from mini_docker.namespaces.mnt import plan_mounts

root_only = pytest.mark.root


def document(key: str, value: str, *kinds: str) -> dict[str, Any]:
    """Return a document that sets one parameter and has these new namespaces."""
    return {"linux": {"namespaces": [{"type": kind} for kind in kinds], "sysctl": {key: value}}}


def inside(function: Callable[..., Any], *args: Any) -> Any:
    """Return `function(*args)` called in a child that is thrown away; what it raises fails."""
    outcome = run_in_child(function, *args)
    assert outcome.status == 0, outcome.error or outcome.output
    return outcome.value


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("kernel.shmmax", "ipc"),
        ("kernel/shmmax", "ipc"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel.sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("net.ipv4.ip_forward", "network"),
        ("net/ipv4/conf/eth0.100/forwarding", "network"),
        ("net.ipv4.conf.eth0/100.forwarding", "network"),
        ("kernel.domainname", "uts"),
        ("kernel.hostname", None),  # the document has a key for it, and runc refuses it too
        ("kernel.panic", None),
        ("kernel.sem_next_id", None),
        ("kernel.shmmaxx", None),
        ("fs.mqueue", None),
        ("network.x", None),
        ("vm.overcommit_memory", None),
    ],
)
def test_who_owns_a_parameter(key: str, kind: str | None) -> None:
    assert owner_of(sysctl_path(key)) == kind


def test_two_spellings_are_one_file() -> None:
    assert sysctl_path("net.ipv4.conf.eth0/100.forwarding") == "net/ipv4/conf/eth0.100/forwarding"
    assert sysctl_path("net/ipv4/conf/eth0.100/forwarding") == "net/ipv4/conf/eth0.100/forwarding"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "net.//.kernel.panic",
        "net/../kernel/panic",
        "net..x",
        "/net/x",
        "net.",
        "kernel.shmmax.",
        "net/./x",
    ],
)
def test_a_key_that_climbs_is_no_key(key: str) -> None:
    with pytest.raises(ValueError, match="is no name of a kernel parameter"):
        plan_sysctls(document(key, "1", "ipc", "network"))


@pytest.mark.parametrize(
    ("key", "kinds", "words"),
    [
        ("kernel.panic", ("ipc",), "kernel.panic is not namespaced: it would change the host"),
        ("kernel.shmmax", ("network",), "kernel.shmmax needs its own namespace of type ipc"),
        (
            "net.core.somaxconn",
            ("ipc",),
            "net.core.somaxconn needs its own namespace of type network",
        ),
    ],
)
def test_what_would_change_the_host_is_refused(
    key: str, kinds: tuple[str, ...], words: str
) -> None:
    with pytest.raises(ValueError, match=f"^linux.sysctl: {words}"):
        plan_sysctls(document(key, "1", *kinds))


def test_a_joined_namespace_is_as_good_as_a_new_one() -> None:
    spec = {
        "linux": {
            "namespaces": [{"type": "network", "path": "/run/netns/x"}],
            "sysctl": {"net.core.somaxconn": 128},
        }
    }
    (step,) = plan_sysctls(spec)
    assert step.arguments == ("net/core/somaxconn", "128")
    assert plan_sysctls({}) == []


@root_only
def test_it_is_set_inside_and_nowhere_else() -> None:
    outside = Path("/proc/sys/kernel/shmmax").read_text()

    def experiment() -> str:
        unshare(CLONE_NEWIPC)
        apply(plan_sysctls(document("kernel.shmmax", "4096", "ipc")))
        return Path("/proc/sys/kernel/shmmax").read_text().strip()

    assert inside(experiment) == "4096"
    assert Path("/proc/sys/kernel/shmmax").read_text() == outside


@root_only
def test_a_value_the_kernel_refuses_names_the_step() -> None:
    def experiment() -> str:
        unshare(CLONE_NEWIPC)
        with pytest.raises(StepFailed) as caught:
            apply(plan_sysctls(document("fs.mqueue.msg_max", "lots", "ipc")))
        return caught.value.step

    assert inside(experiment) == "set fs.mqueue.msg_max to lots"


@root_only
def test_shared_memory_has_the_size_that_was_asked_for() -> None:
    def experiment() -> tuple[int, int]:
        mount("none", "/mnt", "tmpfs")
        namespaces = {"namespaces": [{"type": "mount"}]}
        spec = {"root": {"path": "/mnt"}, "mounts": [shm_mount(1 << 20)], "linux": namespaces}
        apply(plan_mounts(spec))
        written = 0
        try:
            with open("/mnt/dev/shm/big", "wb", buffering=0) as file:
                while written < 1 << 22:
                    written += file.write(bytes(1 << 16))
        except OSError as error:
            return written, error.errno or 0
        return written, 0

    assert inside(experiment) == (1 << 20, 28)
