"""Checks of chapter 8: words that the kernel would accept, and texts from many machines."""

from __future__ import annotations

from collections.abc import Callable

from mini_docker.lab import Verdict, check, failed, passed

ID = "0123456789abcdef" * 4


@check
def check_cpu_max(answer: Callable[[float | None], str]) -> Verdict:
    """Check the content of cpu.max."""
    if answer(None).split()[:1] != ["max"]:
        return failed("without a limit the kernel's word is 'max'")
    for cpus, quota in ((1.5, 150_000), (0.5, 50_000), (2.0, 200_000)):
        words = answer(cpus).split()
        if len(words) != 2:
            return failed(
                f"{cpus} CPUs: cpu.max holds two numbers, quota and period; yours holds {len(words)}"
            )
        if words[0] != str(quota):
            return failed(
                f"{cpus} CPUs in a period of 100000 are {quota} microseconds, not {words[0]}"
            )
        if words[1] != "100000":
            return failed(f"the period is 100000 microseconds, not {words[1]}")
    try:
        answer(0.001)
    except ValueError:
        return passed("quota, period, and a refusal before the kernel's")
    return failed(
        "0.001 CPUs are 100 microseconds: the kernel refuses less than 1000, and the user should hear why"
    )


@check
def check_group_of(answer: Callable[[str], str | None]) -> Verdict:
    """Check the reading of /proc/PID/cgroup."""
    cases = {
        "v2": f"0::/mini_docker/{ID}\n",
        "v1": f"9:name=systemd:/\n4:memory:/docker/{ID}\n2:cpu:/\n0::/\n",
        "systemd": f"0::/system.slice/docker-{ID}.scope\n",
        "a sub-group": f"0::/mini_docker/{ID}/workers/1\n",
    }
    for name, text in cases.items():
        found = answer(text)
        if found != ID:
            return failed(f"{name}: from {text.splitlines()[-1]!r} and its like you read {found!r}")
    if answer("0::/user.slice/user-1000.slice\n") is not None:
        return failed("a process in user.slice belongs to no container")
    if answer(f"0::/build/{ID[:40]}\n") is not None:
        return failed("forty hex digits are a git commit, not a container's id")
    return passed("v1, v2, systemd and sub-groups")
