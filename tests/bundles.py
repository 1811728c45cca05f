"""mini_runc under test: a root file system, bundles of any document, the command as engines call it."""

from __future__ import annotations

import importlib
import json
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mini_docker.runtime.state import KEPT

ROOT = pathlib.Path(__file__).resolve().parents[1]
MINI_RUNC = str(ROOT / "labs" / "bin" / "mini_runc")
KINDS = ("pid", "mount", "uts", "ipc", "network", "cgroup")


class Runtime:
    """mini_runc with a state directory of its own, a bundle, and what containers it may have left."""

    def __init__(self, directory: pathlib.Path, rootfs: str, program: str = MINI_RUNC) -> None:
        self.directory = directory
        self.rootfs = rootfs
        self.program = program
        self.bundle = directory / "bundle"
        self.bundle.mkdir()
        self.id = f"test-{os.urandom(4).hex()}"
        self.state_root = directory / "state"

    def document(self, *command: str, **changes: Any) -> dict[str, Any]:
        """Return a document; keyword arguments replace keys of `linux`, or of `process`, or of the whole."""
        process = {"args": list(command), "env": ["PATH=/bin"], "cwd": "/", "user": {}}
        document: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "hostname": "web",
            "root": {"path": self.rootfs},
            "process": process,
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {
                    "destination": "/dev",
                    "type": "tmpfs",
                    "source": "tmpfs",
                    "options": ["mode=755"],
                },
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
                },
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in KINDS],
                "cgroupsPath": f"/{self.id}",
            },
        }
        schema = importlib.import_module("mini_docker.runtime.schema")
        for key, value in changes.items():
            inside = {name.rstrip("!") for name in schema.LINUX}
            of_process = {name.rstrip("!") for name in schema.PROCESS}
            if key == "more_mounts":
                document["mounts"] += value
            elif key in inside:
                document["linux"][key] = value
            elif key in of_process:
                process[key] = value
            else:
                document[key] = value
        return document

    def write(self, document: dict[str, Any]) -> None:
        (self.bundle / "config.json").write_text(json.dumps(document))

    def call(
        self, *words: str, timeout: float = 240, **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Call the runtime, and return status and output."""
        full = [self.program, "--root", str(self.state_root), *words]
        options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True} | options
        return subprocess.run(full, timeout=timeout, **options)

    def run(self, *command: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in a container to its end."""
        self.write(self.document(*command, **changes))
        return self.call("run", "--bundle", str(self.bundle), self.id)

    def sh(self, script: str, **changes: Any) -> str:
        """Run a shell script in a container; return its output, or fail with its errors."""
        done = self.run("sh", "-c", script, **changes)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return done.stdout

    def refused(self, *command: str, **changes: Any) -> str:
        """Run what must be refused; return the one line, after a look that nothing is left."""
        done = self.run(*(command or ("true",)), **changes)
        assert done.returncode == 1, done
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("mini_runc: ")
        assert self.leftovers() == []
        return done.stderr.removeprefix("mini_runc: ").strip()

    def create(self, *command: str, **changes: Any) -> int:
        """Create a container; return its init's pid."""
        self.write(self.document(*command, **changes))
        pid_file = self.directory / "pid"
        words = ("create", "--bundle", str(self.bundle), "--pid-file", str(pid_file), self.id)
        null = subprocess.DEVNULL
        with (self.directory / "stderr").open("w+") as stderr:
            done = self.call(*words, capture_output=False, stdout=null, stderr=stderr)
            stderr.seek(0)
            assert done.returncode == 0, stderr.read()
        return int(pid_file.read_text())

    def start(self, *command: str, **changes: Any) -> int:
        """Create and start a container; return its init's pid."""
        pid = self.create(*command, **changes)
        done = self.call("start", self.id)
        assert done.returncode == 0, done.stderr
        return pid

    def status(self) -> str:
        done = self.call("state", self.id)
        return str(json.loads(done.stdout)["status"]) if done.returncode == 0 else "none"

    def wait_for(self, status: str) -> None:
        deadline = time.monotonic() + 240
        while self.status() != status:
            assert time.monotonic() < deadline, self.status()
            time.sleep(0.02)

    def leftovers(self) -> list[str]:
        """Return what is left of our container: state, control groups, processes."""
        found = (
            [f"state/{name}" for name in os.listdir(self.state_root) if name != KEPT]
            if self.state_root.is_dir()
            else []
        )
        for directory, names, _ in os.walk("/sys/fs/cgroup"):
            found += [f"{directory}/{name}" for name in names if name == self.id]
        return found

    def clean(self) -> None:
        if self.state_root.is_dir():
            for name in os.listdir(self.state_root):
                self.call("delete", "--force", name)


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A root file system of busybox, to be read only."""
    directory = tmp_path_factory.mktemp("rootfs")
    for parent in (directory, *directory.parents):
        if parent.stat().st_uid == os.getuid() and "pytest" in parent.name:
            parent.chmod(0o755)
    directory.chmod(0o755)
    (directory / "bin").mkdir()
    shutil.copy(shutil.which("busybox") or "/bin/busybox", directory / "bin" / "busybox")
    subprocess.run(["chroot", directory, "/bin/busybox", "--install", "-s", "/bin"], check=True)
    for name in ("etc", "tmp", "proc", "dev", "sys", "mnt", "root"):
        (directory / name).mkdir()
    return str(directory)


@pytest.fixture
def runtime(tmp_path: pathlib.Path, rootfs: str) -> Iterator[Runtime]:
    """mini_runc and a bundle; whatever a failing test leaves is removed."""
    tmp_path.chmod(0o755)
    runtime = Runtime(tmp_path, rootfs)
    yield runtime
    runtime.clean()
    assert runtime.leftovers() == []
