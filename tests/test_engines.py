"""Real engines in front of mini_runc: podman, dockerd and containerd call it in place of runc."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.bundles import MINI_RUNC, rootfs  # noqa: F401 (a fixture)
from tests.conftest import cannot_run_here
from tests.daemons import Dockerd
from tests.system import remove_groups

pytestmark = [pytest.mark.root, pytest.mark.peers]
LOOP = 'trap "exit 3" TERM; echo started; while :; do sleep 0.05; done'


class Engine:
    """A command line of an engine; `run` are the words that start a container with mini_runc.

    It is called in a folder of the tests' own: podman's conmon leaves a file "oom" where it is.
    """

    def __init__(
        self, words: list[str], run: list[str], environment: dict[str, str], folder: pathlib.Path
    ) -> None:
        self.words, self.run_words, self.folder = words, run, folder
        self.environment = {**os.environ, **environment}

    def __call__(self, *words: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.words, *words], env=self.environment, timeout=timeout, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
        )  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self("run", *self.run_words, *words)

    def ok(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def on_a_terminal(self, *words: str) -> tuple[str, int]:
        """Call with a terminal of our own; return what it showed, and the status."""
        pid, master = pty.fork()
        if pid == 0:
            try:
                os.chdir(self.folder)
                os.execvpe(self.words[0], [*self.words, *words], self.environment)
            finally:
                os._exit(127)
        output = b""
        while True:
            try:
                chunk = os.read(master, 4096)
            except OSError:
                chunk = b""
            if not chunk:
                break
            output += chunk
        os.close(master)
        return output.decode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            cannot_run_here(f"{program} is not installed (remedy: labs/provision.sh --peers)")


def image(rootfs: str, directory: pathlib.Path) -> str:
    tar = directory / "busybox.tar"
    subprocess.run(["tar", "-C", rootfs, "-cf", tar, "."], check=True)
    return str(tar)


def wait_until(condition: object, what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def podman(rootfs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    need("podman", "conmon")
    directory = tmp_path_factory.mktemp("podman")
    conf = directory / "containers.conf"
    conf.write_text('[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=32768:32768"]\n')
    words = ["podman", "--root", f"{directory}/root", "--runroot", f"{directory}/run"]
    words += ["--tmpdir", f"{directory}/tmp", "--runtime", MINI_RUNC, "--storage-driver", "vfs"]
    words += ["--cgroup-manager", "cgroupfs", "--events-backend", "file"]
    engine = Engine(words, ["--network", "none"], {"CONTAINERS_CONF": str(conf)}, directory)
    engine.ok("import", image(rootfs, directory), "busybox")
    try:
        yield engine
    finally:
        engine("rm", "--all", "--force", "--time", "0")
        for name in os.listdir("/run/mini_runc") if os.path.isdir("/run/mini_runc") else ():
            subprocess.run([MINI_RUNC, "delete", "--force", name])
        remove_groups("libpod_parent")


@pytest.fixture(scope="module")
def docker(
    rootfs: str, shared_dockerd: Dockerd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    directory = tmp_path_factory.mktemp("docker")
    words = ["docker", "-H", f"unix://{shared_dockerd.path}"]
    engine = Engine(words, ["--runtime", "mini", "--network", "none"], {}, directory)
    try:
        engine.ok("import", image(rootfs, directory), "busybox")
        yield engine
    finally:
        shared_dockerd.forget()


@pytest.fixture(params=["podman", "docker"])
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.getfixturevalue(request.param)
    return found


# ---- podman and docker ------------------------------------------------------------------------------


def test_a_command_its_output_and_its_code(engine: Engine) -> None:
    done = engine.run("--rm", "busybox", "sh", "-c", "echo hello; id -u; echo oops >&2; exit 5")
    assert (done.returncode, done.stdout, done.stderr) == (5, "hello\n0\n", "oops\n")


@pytest.mark.parametrize(("command", "status"), [("nosuch", 127), ("/etc", 126)])
def test_the_words_of_an_error_decide_the_status(engine: Engine, command: str, status: int) -> None:
    done = engine.run("--rm", "busybox", command)
    assert done.returncode == status, done.stderr
    assert f'exec: "{command}":' in done.stderr


def test_a_terminal(engine: Engine) -> None:
    output, status = engine.on_a_terminal(
        "run", *engine.run_words, "--rm", "-it", "busybox", "sh", "-c", "tty; exit 4"
    )
    assert (output.strip(), status) == ("/dev/pts/0", 4)


def test_a_user_with_nothing(engine: Engine) -> None:
    script = "id -u; grep -E 'CapEff|CapBnd|NoNew|Seccomp:' /proc/self/status"
    flags = ("--user", "1000", "--cap-drop", "all", "--security-opt", "no-new-privileges")
    done = engine.run("--rm", *flags, "busybox", "sh", "-c", script)
    words = done.stdout.split()
    assert words == [
        "1000",
        "CapEff:",
        "0" * 16,
        "CapBnd:",
        "0" * 16,
        "NoNewPrivs:",
        "1",
        "Seccomp:",
        "2",
    ]


def test_limits_exec_pause_stats_update_restart_stop(engine: Engine) -> None:
    run = engine.run(
        "-d", "--name", "web", "-m", "50m", "--pids-limit", "30", "busybox", "sh", "-c", LOOP
    )
    assert run.returncode == 0, run.stderr
    try:
        assert engine.ok("exec", "web", "cat", "/proc/1/comm") == "sh\n"
        assert engine("exec", "web", "sh", "-c", "exit 6").returncode == 6
        output, status = engine.on_a_terminal("exec", "-it", "web", "tty")
        assert (output.strip(), status) == ("/dev/pts/0", 0)
        engine.ok("pause", "web")
        assert engine.ok("inspect", "-f", "{{.State.Status}}", "web") == "paused\n"
        engine.ok("unpause", "web")
        stats = engine.ok("stats", "--no-stream", "web")
        assert "50MiB" in stats or "52.43MB" in stats
        assert "sh -c" in engine.ok("top", "web")
        if engine.words[0] == "docker":
            engine.ok("update", "-m", "60m", "--memory-swap", "-1", "web")
        engine.ok("restart", "-t", "120", "web")
        wait_until(lambda: engine.ok("logs", "web").count("started") == 2, "it did not start again")
        engine.ok("stop", "-t", "120", "web")
        assert engine.ok("inspect", "-f", "{{.State.ExitCode}}", "web") == "3\n"
    finally:
        engine("rm", "-f", "web")


def test_a_health_check(engine: Engine) -> None:
    flags = ("--health-cmd", "test -e /tmp/well", "--health-interval", "1s")
    assert (
        engine.run("-d", "--name", "patient", *flags, "busybox", "sh", "-c", LOOP).returncode == 0
    )
    try:
        engine.ok("exec", "patient", "touch", "/tmp/well")
        if engine.words[0] == "podman":  # systemd's timers would run it
            engine.ok("healthcheck", "run", "patient")
            return
        status = ("inspect", "-f", "{{.State.Health.Status}}", "patient")
        wait_until(lambda: engine.ok(*status) == "healthy\n", "it is not healthy")
    finally:
        engine("rm", "-f", "patient")


def test_devices_limits_and_a_restart_policy(docker: Engine) -> None:
    words = "--name again --device /dev/zero:/dev/nil --ulimit nofile=77:88 --restart on-failure:1"
    flags = f"{words} --shm-size 5m --sysctl net.ipv4.ip_forward=1".split()
    script = (
        "ulimit -n; head -c 3 /dev/nil | wc -c; cat /proc/sys/net/ipv4/ip_forward;"
        "df -k /dev/shm | tail -n 1 | awk '{print $2}'; exit 9"
    )
    try:
        docker.run("-d", *flags, "busybox", "sh", "-c", script)
        status = ("inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again")
        wait_until(lambda: docker.ok(*status) == "exited 1\n", "it did not end twice")
        assert docker.ok("logs", "again").split() == ["77", "3", "1", "5120"] * 2
    finally:
        docker("rm", "-f", "again")


def test_a_memory_limit_kills(engine: Engine) -> None:
    told = ""
    for _ in range(
        5
    ):  # containerd loses the news of it when the container has gone before it looks
        run = engine.run("--name", "greedy", "-m", "20m", "busybox", "tail", "/dev/zero")
        try:
            assert run.returncode == 137
            told = engine.ok("inspect", "-f", "{{.State.OOMKilled}}", "greedy")
        finally:
            engine("rm", "-f", "greedy")
        if told == "true\n" or engine.words[0] != "docker":
            return  # conmon 2.1 does not notice it on a hybrid machine
    assert told == "true\n"


def test_volumes_and_a_read_only_root(engine: Engine, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("from the host")
    flags = ("--read-only", "--tmpfs", "/scratch", "-v", f"{tmp_path}:/x:ro", "--hostname", "h")
    script = "cat /x/file; hostname; touch /scratch/y && touch /y"
    done = engine.run("--rm", *flags, "busybox", "sh", "-c", script)
    assert done.stdout == "from the hosth\n" and "Read-only file system" in done.stderr


def test_a_container_that_kills_itself(engine: Engine) -> None:
    done = engine.run("--rm", "--init" if shutil.which("docker-init") and engine.words[0] == "docker" else
                      "--privileged", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?")  # fmt: skip
    assert done.returncode == 137


# ---- containerd -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory, rootfs: str) -> Iterator[list[str]]:
    need("containerd", "ctr", "containerd-shim-runc-v2")
    directory = tmp_path_factory.mktemp("containerd")
    (directory / "config.toml").write_text(
        f'version = 2\nroot = "{directory}/root"\nstate = "{directory}/state"\n'
        'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'[grpc]\naddress = "{directory}/sock"\n'
    )
    log = (directory / "log").open("w")
    daemon = subprocess.Popen(
        ["containerd", "-c", directory / "config.toml"], stdout=log, stderr=log
    )
    words = ["ctr", "--address", f"{directory}/sock"]
    try:
        deadline = time.monotonic() + 300
        while subprocess.run([*words, "version"], capture_output=True).returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                cannot_run_here("containerd does not come up")
            time.sleep(0.1)
        yield words
    finally:
        daemon.terminate()
        daemon.wait(240)
        log.close()
        remove_groups("default")


def test_containerd_runs_it(containerd: list[str], rootfs: str) -> None:
    """This is how Kubernetes reaches a runtime: containerd, its shim, the runtime's binary."""
    flags = ["--rm", "--runtime", "io.containerd.runc.v2", "--runc-binary", MINI_RUNC]
    words = [*containerd, "run", *flags, "--rootfs", rootfs, "web", "sh", "-c", "echo $$; exit 7"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (7, "1\n"), done.stderr


def test_containerd_pauses_execs_measures_and_kills(containerd: list[str], rootfs: str) -> None:
    def ctr(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*containerd, *words], capture_output=True, text=True, timeout=240)

    flags = ["-d", "--runtime", "io.containerd.runc.v2", "--runc-binary", MINI_RUNC, "--rootfs"]
    limit = ("--memory-limit", str(50 << 20))
    run = ctr("run", *limit, *flags, rootfs, "box", "sh", "-c", LOOP)
    assert run.returncode == 0, run.stderr
    try:
        done = ctr("task", "exec", "--exec-id", "one", "box", "cat", "/proc/1/comm")
        assert done.stdout == "sh\n", done.stderr
        assert ctr("task", "pause", "box").returncode == 0
        assert "PAUSED" in ctr("task", "ls").stdout
        assert ctr("task", "resume", "box").returncode == 0
        metrics = json.loads(ctr("task", "metrics", "--format", "json", "box").stdout)
        assert "52428800" in json.dumps(metrics)  # the limit, by v1's name of it or by v2's
        done = ctr("task", "checkpoint", "box")
        assert done.returncode == 1 and "checkpoint is not here" in done.stderr, done.stderr
        assert "RUNNING" in ctr("task", "ls").stdout
    finally:
        ctr("task", "kill", "-s", "SIGKILL", "box")
        wait_until(lambda: "RUNNING" not in ctr("task", "ls").stdout, "it does not die")
        ctr("task", "delete", "box")
        assert ctr("container", "delete", "box").returncode == 0
