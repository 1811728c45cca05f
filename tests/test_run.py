"""`mini_docker run` as a user sees it: output, exit statuses, error lines, and nothing left behind."""

from __future__ import annotations

import os
import pathlib
import pty
import signal
import subprocess
import time

import pytest

from mini_docker.runtime.console import resize
from tests.system import Lab, lab  # noqa: F401 (a fixture)

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def nothing_is_left(lab: Lab) -> object:
    """After each test: no container, claim, name, lease or control group."""
    yield
    assert lab.leftovers() == []


def test_it_prints_what_the_command_prints(lab: Lab) -> None:
    done = lab.run("busybox", "echo", "hello", "from", "a", "container")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from a container\n", "")


def test_stdout_and_stderr_stay_apart(lab: Lab) -> None:
    done = lab.run("busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("status", [0, 1, 7, 125, 255])
def test_the_exit_status_is_the_commands(lab: Lab, status: int) -> None:
    assert lab.run("busybox", "sh", "-c", f"exit {status}").returncode == status


ERRORS = [
    # words, exit status, what the one line says
    (["busybox", "nosuch"], 127, 'exec: "nosuch": executable file not found in $PATH'),
    (["busybox", "/no/such"], 127, 'exec: "/no/such": stat /no/such: no such file or directory'),
    (["busybox", "/etc/passwd"], 126, 'exec: "/etc/passwd": permission denied'),
    (["busybox", "/etc"], 126, 'exec: "/etc": permission denied'),
    (["BAD NAME"], 125, "invalid reference format"),
    (["--entrypoint", "", "busybox"], 125, "No command specified"),
    (["-m", "3", "busybox", "true"], 125, "Minimum memory limit allowed is 6MB"),
    (["-m", "much", "busybox", "true"], 125, "invalid size: 'much'"),
    (["-v", "/a:/b:/c:/d", "busybox", "true"], 125, "invalid volume specification"),
    (["-v", "/tmp:relative", "busybox", "true"], 125, "mount path must be absolute"),
    (["-v", "/tmp:/", "busybox", "true"], 125, "destination can't be '/'"),
    (["-v", "/tmp:/x:wild", "busybox", "true"], 125, "invalid mode: wild"),
    (["--name", "-x", "busybox", "true"], 125, "Invalid container name (-x)"),
    (["--network", "moon", "busybox", "true"], 125, "network moon not found"),
    (
        ["-w", "relative", "busybox", "true"],
        125,
        "the working directory 'relative' is invalid, it needs to be an absolute path",
    ),
    (["-u", "ghost", "busybox", "true"], 125, "unable to find user ghost"),
    (["--nonsense", "busybox"], 125, "unknown flag: --nonsense"),
    (["-Z", "busybox"], 125, "unknown shorthand flag: 'Z' in -Z"),
    (["-e", "=x", "busybox", "true"], 125, "invalid environment variable: =x"),
    ([], 1, "requires at least 1 argument"),
]


@pytest.mark.parametrize(
    ("words", "status", "line"), ERRORS, ids=[error[2][:30] for error in ERRORS]
)
def test_bad_input_gets_one_clear_line(lab: Lab, words: list[str], status: int, line: str) -> None:
    done = lab.run(*words)
    assert done.returncode == status
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stderr.startswith("mini_docker: internal")
    assert done.stderr.partition("\n\n")[0].count("\n") == 0


def test_an_image_that_nobody_has_says_where_it_was_sought(lab: Lab) -> None:
    done = lab.run("127.0.0.1:1/nosuch", "true")
    first, second, *_ = done.stderr.splitlines()
    assert (done.returncode, first) == (
        125,
        "Unable to find image '127.0.0.1:1/nosuch:latest' locally",
    )
    assert second.startswith("mini_docker: Error response from daemon: ")


def test_environment_directory_user_and_host_name(lab: Lab) -> None:
    done = lab.run(
        "-e",
        "A=1",
        "-e",
        "B=x y",
        "-w",
        "/made/here",
        "-u",
        "nobody",
        "--hostname",
        "web",
        "busybox",
        "sh",
        "-c",
        'echo "$A-$B-$(pwd)-$(id -u):$(id -g)-$(hostname)-$HOME"',
    )
    assert done.stdout == "1-x y-/made/here-65534:65534-web-/home\n"


def test_a_variable_without_a_value_comes_from_our_environment(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLOUR", "blue")
    monkeypatch.delenv("ABSENT", raising=False)
    done = lab.run(
        "-e", "COLOUR", "-e", "ABSENT", "busybox", "sh", "-c", 'echo "$COLOUR${ABSENT-unset}"'
    )
    assert done.stdout == "blueunset\n"


def test_pid_1_sees_only_its_own_processes(lab: Lab) -> None:
    done = lab.run("busybox", "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'")
    pid, processes = done.stdout.split()
    assert pid == "1"
    assert int(processes) <= 4


def test_every_namespace_is_its_own(lab: Lab) -> None:
    kinds = ("pid", "net", "mnt", "ipc", "uts", "cgroup")
    done = lab.run(
        "busybox", "sh", "-c", f"for k in {' '.join(kinds)}; do readlink /proc/self/ns/$k; done"
    )
    inside = done.stdout.split()
    assert len(inside) == len(kinds)
    assert not set(inside) & {os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}


def test_the_hosts_files_are_out_of_reach(lab: Lab) -> None:
    done = lab.run(
        "busybox", "sh", "-c", "ls / | tr '\\n' ' '; grep -c . /proc/self/mountinfo; ls /proc/1/fd"
    )
    assert str(lab.data_root) not in done.stdout
    assert done.stdout.split()[:3] == ["bin", "dev", "etc"]
    assert done.stdout.split()[-4:] == ["0", "1", "2", "3"]  # 3 is ls itself reading the directory


def test_no_dangerous_capability_is_held(lab: Lab) -> None:
    done = lab.run("busybox", "grep", "Cap", "/proc/self/status")
    masks = dict(line.split(":\t") for line in done.stdout.splitlines())
    assert masks["CapEff"] == masks["CapBnd"]
    effective = int(masks["CapEff"], 16)
    for bit in (12, 16, 17, 21):  # net_admin, sys_module, sys_rawio, sys_admin
        assert not effective >> bit & 1


def test_a_device_of_the_host_can_be_made_and_not_used(lab: Lab) -> None:
    """Docker grants CAP_MKNOD as well; what is behind a node is the device rules' business."""
    script = "mknod /log c 1 11 && ls /log; cat /log; echo ok > /dev/null && mknod /disk b 8 0 && cat /disk"
    done = lab.run("busybox", "sh", "-c", script)
    assert done.stdout == "/log\n"
    refused = [line for line in done.stderr.splitlines() if "Operation not permitted" in line]
    assert len(refused) == 2, done.stderr


def test_kernel_settings_are_read_only_and_secrets_masked(lab: Lab) -> None:
    masked = "/proc/kcore /proc/keys /proc/timer_list /sys/firmware /proc/interrupts"
    look = "[ -e $f ] && cat $f 2>/dev/null | wc -c; ls -A $f/"
    script = f"echo x > /proc/sys/kernel/panic; for f in {masked}; do {look}; done"
    done = lab.run("busybox", "sh", "-c", script)
    assert "can't create /proc/sys/kernel/panic: Read-only file system" in done.stderr
    assert set(done.stdout.split()) == {"0"}  # kernels differ in which of these files they have


def test_read_only_root(lab: Lab) -> None:
    done = lab.run("--read-only", "busybox", "sh", "-c", "touch /x; touch /dev/shm/x && echo shm")
    assert "Read-only file system" in done.stderr
    assert done.stdout == "shm\n"


def test_a_volume_is_shared_and_ro_means_it(lab: Lab, tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    both = ["-v", f"{tmp_path}:/rw", "-v", f"{tmp_path}:/ro:ro"]
    done = lab.run(*both, "busybox", "sh", "-c", "cat /ro/in; echo back > /rw/out; touch /ro/no")
    assert done.stdout == "from the host\n"
    assert "Read-only file system" in done.stderr
    assert (tmp_path / "out").read_text() == "back\n"


def test_a_missing_volume_directory_is_made(lab: Lab, tmp_path: pathlib.Path) -> None:
    assert lab.run("-v", f"{tmp_path}/new/dir:/x", "busybox", "touch", "/x/y").returncode == 0
    assert (tmp_path / "new/dir/y").exists()


def test_a_memory_hog_is_killed_with_137(lab: Lab) -> None:
    done = lab.run("-m", "16m", "busybox", "sh", "-c", "head -c 100m /dev/zero | tail")
    assert done.returncode == 137 or "Killed" in done.stderr


def test_a_fork_bomb_is_held_by_the_pids_limit(lab: Lab) -> None:
    done = lab.run(
        "--pids-limit", "8", "busybox", "sh", "-c", "for i in $(seq 20); do sleep 1000 & done; wait"
    )
    assert "fork" in done.stderr


def test_standard_input_reaches_the_command_and_ends(lab: Lab) -> None:
    done = lab.run("-i", "busybox", "wc", "-c", input="x" * 300_000)
    assert done.stdout == "300000\n"


def test_without_i_there_is_no_input(lab: Lab) -> None:
    assert lab.run("busybox", "cat", input="unread").stdout == ""


def test_much_output_is_whole(lab: Lab) -> None:
    done = lab.run("busybox", "sh", "-c", "seq 200000")
    assert done.stdout == "".join(f"{i}\n" for i in range(1, 200_001))


def test_a_reader_that_leaves_ends_the_client_and_not_the_container(lab: Lab) -> None:
    words = ("run", "--rm", "--name", "yes", "busybox", "yes")
    process = lab.popen(*words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(120) in (1, 141)
    assert lab.call("rm", "-f", "yes").stdout == "yes\n"


def wait_for(process: subprocess.Popen[bytes], word: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline().strip() == word


def test_a_signal_is_forwarded(lab: Lab) -> None:
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    process = lab.popen("run", "--rm", "busybox", "sh", "-c", script, stdout=subprocess.PIPE)
    wait_for(process, b"ready")
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 5
    assert process.stdout is not None
    assert process.stdout.read() == b"got it\n"
    process.stdout.close()


def test_the_third_interrupt_ends_the_client(lab: Lab) -> None:
    words = ("run", "--rm", "--name", "deaf", "busybox", "sh", "-c", "echo ready; exec sleep 1000")
    process = lab.popen(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for(process, b"ready")
    for _ in range(2400):  # two that come at once count as one: signal(7)
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        if process.poll() is not None:
            break
    assert process.communicate(timeout=240)[1] == b"got 3 SIGTERM/SIGINTs, forcefully exiting\n"
    assert process.returncode == 1
    assert lab.call("rm", "-f", "deaf").stdout == "deaf\n"


@pytest.mark.parametrize("delay", [0.005, 0.01, 0.02, 0.03, 0.05])
def test_an_interrupt_during_set_up_is_silent(lab: Lab, delay: float) -> None:
    process = lab.popen("run", "--rm", "busybox", "sleep", "0.2", stderr=subprocess.PIPE)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert b"Traceback" not in err
    assert process.returncode in (0, 130, -signal.SIGINT)
    lab.forget_created()  # as Docker's: created, and never started


def test_a_killed_client_leaves_its_container_to_the_daemon(lab: Lab) -> None:
    words = (
        "run",
        "--rm",
        "--name",
        "orphan",
        "busybox",
        "sh",
        "-c",
        "echo ready; exec sleep 1000",
    )
    process = lab.popen(*words, stdout=subprocess.PIPE)
    wait_for(process, b"ready")
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    assert lab.call("ps", "--format", "{{.Names}}").stdout == "orphan\n"
    assert lab.call("kill", "orphan").stdout == "orphan\n"


def test_a_killed_daemon_is_replaced_by_the_next_command(lab: Lab) -> None:
    """The shim outlives it: output whole, exit code kept."""
    script = "echo ready; read line; echo $line; exit 7"
    words = ("run", "-i", "--name", "kept", "busybox", "sh", "-c", script)
    pipe = subprocess.PIPE
    process = lab.popen(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    wait_for(process, b"ready")
    lab.kill_daemon()
    listed = lab.call("ps", "--format", "{{.Names}} {{.State}}")
    assert listed.stdout == "kept running\n"
    assert listed.stderr.startswith("mini_docker: no daemon was running; started one")
    out, _ = process.communicate(b"still here\n", timeout=240)
    assert out == b"still here\n"
    assert lab.call("wait", "kept").stdout == "7\n"
    assert lab.call("rm", "kept").stdout == "kept\n"


def test_without_rm_the_container_stays_until_it_is_removed(lab: Lab) -> None:
    assert lab.call("run", "--name", "stay", "busybox", "sh", "-c", "exit 3").returncode == 3
    listed = lab.call("ps", "-a").stdout.splitlines()[1]
    assert "stay" in listed and "Exited (3)" in listed
    again = lab.call("run", "--name", "stay", "busybox", "true")
    assert again.returncode == 125
    assert 'The container name "/stay" is already in use' in again.stderr
    assert lab.call("rm", "stay").stdout == "stay\n"
    assert lab.call("rm", "stay").returncode == 1


def test_a_terminal_has_the_size_of_ours_and_follows_it(lab: Lab) -> None:
    script = """
        tty; trap 'told=1' WINCH; echo ready
        until [ "$told" ] && [ "$(stty size)" = "44 122" ]; do sleep 0.05; done
        stty size; exit 4
    """
    words = ("run", "--rm", "-it", "--network", "none", "busybox", "sh", "-c", script)
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.execv(lab.arguments()[0], lab.arguments(*words))
        finally:
            os._exit(127)
    resize(master, 33, 101)  # at once; stty(1) would set one after the other
    output = b""
    resized = False
    while True:
        try:
            output += os.read(master, 4096)
        except OSError:
            break
        if b"ready" in output and not resized:
            resize(master, 44, 122)
            resized = True
    os.close(master)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 4
    assert b"/dev/console" in output or b"/dev/pts/0" in output
    assert b"44 122\r\n" in output


def test_t_without_i_is_a_terminal_too(lab: Lab) -> None:
    done = lab.run("-t", "busybox", "sh", "-c", "test -t 1 && echo tty")
    assert done.stdout == "tty\n"  # it wrote \r\n, and we read as text


def test_i_and_t_need_a_terminal(lab: Lab) -> None:
    done = lab.run("-it", "busybox", "true", input="")
    assert done.returncode == 1
    assert "the input device is not a TTY" in done.stderr


def test_network_none_has_lo_only_and_host_has_ours(lab: Lab) -> None:
    assert lab.run("--network", "none", "busybox", "ls", "/sys/class/net").stdout == "lo\n"
    host = lab.run("--network", "host", "busybox", "readlink", "/proc/self/ns/net").stdout.strip()
    assert host == os.readlink(f"/proc/self/fd/{lab.netns_fd}")


def test_the_bridge_gives_an_address_and_a_way_out(lab: Lab) -> None:
    ping = "ping -c1 -W60 $(ip route | awk '/default/{print $3}') | grep -c '1 packets received'"
    done = lab.run("busybox", "sh", "-c", f"ip -4 -o addr show eth0; ip route; {ping}")
    assert "inet 172." in done.stdout
    assert "default via 172." in done.stdout
    assert done.stdout.endswith("1\n")


def test_two_containers_reach_each_other(lab: Lab) -> None:
    server = lab.popen(
        "run",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "ip -4 -o addr show eth0 | awk '{print $4}'; echo hi | nc -l -p 80",
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    address = server.stdout.readline().partition("/")[0]
    done = lab.run(
        "busybox",
        "sh",
        "-c",
        f"until nc -w60 {address} 80 </dev/null; do sleep 0.1; done",
    )
    assert done.stdout == "hi\n"
    assert server.wait(120) == 0
    server.stdout.close()


def test_explain_prints_each_step_with_chapter_man_page_and_time(lab: Lab) -> None:
    done = lab.run("--explain", "--hostname", "web", "busybox", "echo", "x")
    assert done.stdout == "x\n"
    lines = done.stderr.splitlines()
    assert lines[0].split() == ["WHERE", "CHAPTER", "STEP", "CALL", "TIME"]
    assert any(
        "6 uts" in line and "sethostname(2)" in line and line.endswith(" ms") for line in lines
    )
    assert any("10 layers" in line and line.startswith("outside") for line in lines)
    assert any("pivot_root(2)" in line for line in lines)
    assert not any(line[9:23].strip() == "" for line in lines[1:-1])  # every step has a chapter


def test_a_program_behind_a_magic_link_is_refused(lab: Lab) -> None:
    """CVE-2019-5736: /proc/self/exe is the host's python until execve."""
    direct = lab.run("busybox", "/proc/self/exe")
    script = lab.run("busybox", "sh", "-c", "true")
    assert (direct.returncode, script.returncode) == (126, 0)
    assert "permission denied" in direct.stderr


INSIDE = "bin dev etc home proc root sbin sys tmp usr var".split()


def test_a_working_directory_outside_the_root_is_refused(lab: Lab) -> None:
    """CVE-2024-21626: a directory of the host that somebody left open."""
    for fd in range(3, 16):
        done = lab.run("-w", f"/proc/self/fd/{fd}", "busybox", "ls", "..")
        seen = done.stdout.split()
        assert seen in ([], INSIDE), "the host's files are in sight"


def test_a_full_disk_is_one_line_and_leaves_nothing(lab: Lab, tmp_path: pathlib.Path) -> None:
    command = f"'{lab.arguments()[0]}' --data-root {tmp_path}"
    script = f"""
        mount -t tmpfs -o size=4m none {tmp_path} && cp -a {lab.data_root}/. {tmp_path}/ &&
        rm -f {tmp_path}/daemon.sock; {command} ps -q 2>/dev/null
        dd if=/dev/zero of={tmp_path}/fill bs=4k 2>/dev/null
        {command} run --rm --network none busybox true; echo status $?
        ls {tmp_path}/containers {tmp_path}/running {tmp_path}/names
        rm {tmp_path}/fill; {command} reset >/dev/null
    """
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True
    )
    assert "No space left on device" in done.stderr or "no space left on device" in done.stderr
    assert "status 125" in done.stdout
    assert done.stdout.split("status 125\n")[1].split() == [
        f"{tmp_path}/containers:",
        f"{tmp_path}/names:",
        f"{tmp_path}/running:",
    ]
