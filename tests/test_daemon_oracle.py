"""The same transcript through docker's client against dockerd and against ours: the answers are the same.

What differs for a reason is rewritten by NORMAL in both; docs/differences.md explains it. A newer client than
20.10 asks otherwise (it waits before it starts, for one thing), so the lines with a plus are played by it
too, and all of them with MINI_DOCKER_SOAK=1000 (`make soak`).
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mini_docker.api.system import abilities
from mini_docker.cgroups.tree import Hierarchies
from tests.conftest import cannot_run_here
from tests.daemons import CLIENT, Daemon, Dockerd

pytestmark = [pytest.mark.root, pytest.mark.peers]

# "+ ": also by a newer client
TRANSCRIPT = r"""
+ run --name t1 --network none busybox sh -c 'echo out; exit 3'
+ start -a t1
+ inspect -f '{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.NetworkMode}} {{.Path}} {{json .Args}}' t1
inspect -f '{{json .Config.Cmd}} {{json .Config.Env}} {{json .Config.Labels}} {{json .Mounts}}' t1
+ ps -a --format '{{.Names}} {{.Image}} {{.Command}} {{.State}} {{.Ports}} {{.Networks}} {{.Labels}}'
+ run -d --network none --name t2 -l a=b -v vv:/data -e X=1 busybox sleep 1000
ps --filter label=a=b --format '{{.Names}} {{.Mounts}} {{.Labels}}'
rm t2
run --network none --name t1 busybox true
+ run --rm --network none busybox nosuch
run --rm --network none busybox /etc
+ exec t2 nosuch
+ exec nosuch true
exec -u nosuchuser t2 true
+ exec t2 sh -c 'echo in; exit 5'
kill -s BAD t2
+ kill t1
stop t1
pause t1
+ unpause t2
+ top t1
rename t1 t2
rename t1 t1
+ logs --tail 1 t1
logs nosuch
+ cp t2:/nosuch /tmp/x
cp /etc/hostname t2:/nosuch/x
+ diff t2
+ wait t1
+ update --restart always t1
run --rm --network none --restart always busybox true
run --rm --network none -m 1m busybox true
run --rm --network nosuch busybox true
run --rm --network none -u 1000:1000 busybox id
run --rm --network none -w /x/y busybox pwd
run --rm --network none -h hh busybox hostname
run --rm --network none --read-only busybox touch /x
run --rm --network none --add-host a:1.2.3.4 busybox grep 1.2.3.4 /etc/hosts
run --rm --network none --entrypoint echo busybox hi
run --rm --network none --ulimit nofile=99 busybox sh -c 'ulimit -n'
+ run --rm --network none -t busybox echo tty
volume ls -q
volume rm vv
volume rm nosuch
network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'
+ network rm bridge
network create bridge
network inspect nosuch
+ image inspect nosuch
rmi nosuch
tag nosuch x
history -q nosuch
+ commit -c 'CMD ["true"]' t1 made:1
inspect -f '{{json .Config.Cmd}}' made:1
+ rmi --no-prune made:1
ps --filter nosuch=1
+ ps --filter status=bad
+ swarm leave
+ service ls
plugin ls -q
run --rm --network none --ipc container:t2 busybox true
run -d --network none --ipc shareable --name t3 busybox sh -c 'echo hi >/dev/shm/f; while :; do sleep 9; done'
run --rm --network none --ipc container:t3 busybox sh -c 'until cat /dev/shm/f; do sleep 0.1; done 2>&-'
run --rm --network none --ipc container:nosuch busybox true
run --rm --network none --pid container:nosuch busybox true
run --rm --network none --pid container:t1 busybox true
run --rm --network none --pid container:t3 busybox sh -c 'ps -o args | head -2'
run --rm --network none --ipc none busybox ls -d /dev/shm
run --rm --network none --ipc bad busybox true
run --rm --network none --uts host -h me busybox hostname
run --rm --network none --domainname dom.example busybox cat /proc/sys/kernel/domainname
run --rm --network none --device /dev/nosuch busybox true
run --rm --network none --cpuset-cpus 999 busybox true
run --rm --network none --cpuset-cpus bad busybox true
run --rm --network none --cpu-shares -1 busybox true
run --rm --network none --oom-kill-disable busybox true
run --rm --network none --tmpfs /t:bad=1 busybox true
run --rm --network none --runtime nosuch busybox true
run --rm --network none --runtime io.containerd.runc.v2 busybox true
run --rm --network none --stop-signal BAD busybox true
run --rm --network none --gpus all busybox true
run --rm --network none -u 1000 busybox sh -c 'echo out > /dev/stdout'
run --rm --network none --log-driver nosuch busybox true
update --memory 50m t3
rm -f t3
+ rm -f t2 t1 nosuch
"""
NORMAL = (
    (r"\b[0-9a-f]{64}\b", "ID"),
    (r"\b[0-9a-f]{12}\b", "SHORT"),
    (r'time="[^\n]*\n', ""),  # the client's own log
    (r"Deleted: sha256:ID\n", ""),  # how many layers an image has is the store's affair
    (r"See 'docker run --help'.\n", ""),
)


ALL = re.sub(r"(?m)^\+ ", "", TRANSCRIPT)
SOAK = int(os.environ.get("MINI_DOCKER_SOAK", "0")) >= 1000


def answer(host: str, line: str, client: str) -> list[str]:
    """Return a line with its output, errors and status: who came first is not fixed."""
    done = subprocess.run(
        ["sh", "-c", f"{client} {line}"], env={**os.environ, "DOCKER_HOST": host},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    text = f"$ docker {line}\n{done.stdout}{done.stderr}status {done.returncode}\n"
    for pattern, replacement in NORMAL:
        text = re.sub(pattern, replacement, text)
    return text.splitlines()


def play(host: str, transcript: str = ALL, client: str = CLIENT) -> list[str]:
    """Return the answers to a transcript. A line with "& " is slow: those below it do not wait for it."""
    said: list[Callable[[], list[str]]] = []
    with ThreadPoolExecutor() as pool:
        for line in transcript.strip().splitlines():
            running = pool.submit(answer, host, line.removeprefix("& "), client)
            said.append(running.result)
            if not line.startswith("& "):
                running.result()
    return [line for lines in said for line in lines()]


def differences(pair: tuple[str, str], transcript: str, client: str = CLIENT) -> str:
    """Return how the answers of ours and dockerd's differ."""
    with ThreadPoolExecutor(2) as pool:
        found, wanted = pool.map(lambda host: play(host, transcript, client), pair)
    return "\n".join(difflib.unified_diff(wanted, found, "dockerd", "ours", n=1, lineterm=""))


def test_the_transcript_is_the_same(both: tuple[str, str]) -> None:
    assert not (found := differences(both, ALL)), found


def newer_client() -> str:
    """Return the docker command that is first on PATH, if it is another one than 20.10's."""
    found = shutil.which("docker") or CLIENT
    if found == CLIENT:
        cannot_run_here(f"there is no docker client beside {CLIENT}")
    return found


def test_a_newer_client_is_answered_the_same(both: tuple[str, str]) -> None:
    part = "".join(re.findall(r"(?m)^\+ (.*\n)", TRANSCRIPT))
    assert not (found := differences(both, ALL if SOAK else part, newer_client())), found


TOLD = (
    "Architecture", "BridgeNfIp6tables", "BridgeNfIptables", "CPUSet", "CPUShares", "CgroupVersion",
    "CpuCfsPeriod", "CpuCfsQuota", "IPv4Forwarding", "KernelVersion", "MemTotal", "MemoryLimit", "NCPU",
    "OSType", "OSVersion", "OomKillDisable", "OperatingSystem", "PidsLimit", "SecurityOptions",
    "SwapLimit", "Swarm",
)  # fmt: skip


def test_info_tells_the_same_of_the_machine(
    daemon: Daemon, dockerd: Dockerd, both: tuple[str, str]
) -> None:
    found, wanted = (one.ask("GET", "/info")[1] for one in (daemon, dockerd))
    assert {key: found[key] for key in TOLD} == {key: wanted[key] for key in TOLD}
    warned = [word for word in wanted["Warnings"] or () if "blkio" not in word]
    assert (found["Warnings"] or []) == warned
    shown = [subprocess.run([CLIENT, "-H", host, "info"], capture_output=True) for host in both]
    assert [line for line in shown[1].stderr.splitlines() if b"blkio" not in line] == [
        *shown[0].stderr.splitlines()
    ]


def test_what_a_kernel_cannot_limit_is_warned_of(tmp_path: pathlib.Path) -> None:
    for name in ("memory.limit_in_bytes", "memory.oom_control", "cpu.shares"):
        (tmp_path / name).touch()
    trees = Hierarchies("v1", {"memory": str(tmp_path), "cpu": str(tmp_path)})
    found = abilities(trees)
    can = ("MemoryLimit", "OomKillDisable", "CPUShares")
    cannot = ("SwapLimit", "CpuCfsQuota", "CpuCfsPeriod", "CPUSet", "PidsLimit")
    assert all(found[key] for key in can) and not any(found[key] for key in cannot)
    for words in ("swap limit", "cpu cfs quota", "cpu cfs period", "cpuset", "pids limit"):
        assert f"WARNING: No {words} support" in found["Warnings"]


def test_swap_is_limited_where_a_group_has_the_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "group").mkdir()
    trees = Hierarchies("v2", {"": str(tmp_path), "memory": str(tmp_path)})
    assert abilities(trees)["SwapLimit"]
    (tmp_path / "group" / "memory.max").touch()
    found = abilities(trees)
    assert not found["SwapLimit"] and "WARNING: No swap limit support" in found["Warnings"]
    assert not any("oom kill" in words for words in found["Warnings"])
    (tmp_path / "group" / "memory.swap.max").touch()
    assert abilities(trees)["SwapLimit"]
