"""The daemon on TCP: only for clients with a certificate of the same authority."""

from __future__ import annotations

import fcntl
import os
import pathlib
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator

import pytest

from mini_docker.engine.engine import _readable
from mini_docker.engine.store import Store
from mini_docker.images.busybox import install_busybox
from tests.conftest import cannot_run_here
from tests.system import COMMAND

pytestmark = [
    pytest.mark.root,
    pytest.mark.anywhere,
    pytest.mark.usefixtures("leak_free"),
]

KEYS = """
set -e
req() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "$@" 2>/dev/null; }
req -keyout ca-key.pem -out ca.pem -subj /CN=authority -addext basicConstraints=critical,CA:TRUE
sign() {
  echo "$2" >$1.ext
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1-key.pem -out $1.csr \\
    -subj /CN=$1 2>/dev/null
  openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3-key.pem -CAcreateserial -days 2 \\
    -out $1-cert.pem -extfile $1.ext 2>/dev/null
}
sign server 'subjectAltName=IP:127.0.0.1' ca
sign client 'extendedKeyUsage=clientAuth' ca
req -keyout other-key.pem -out other.pem -subj /CN=other -addext basicConstraints=critical,CA:TRUE
sign stranger 'extendedKeyUsage=clientAuth' other
sign late 'extendedKeyUsage=clientAuth' ca
openssl x509 -req -in late.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days -1 \\
  -out late-cert.pem -extfile late.ext 2>/dev/null
sign imposter 'extendedKeyUsage=serverAuth' ca
"""


@pytest.fixture
def port(tmp_path: pathlib.Path) -> Iterator[int]:
    """A daemon on a port of 127.0.0.1, with keys beside it."""
    if shutil.which("openssl") is None:
        cannot_run_here("there is no openssl (remedy: apt-get install openssl)")
    subprocess.run(["bash", "-c", KEYS], cwd=tmp_path, check=True)
    install_busybox(Store(str(tmp_path)).layout)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = [
        COMMAND,
        "daemon",
        "--data-root",
        str(tmp_path),
        "-H",
        f"tcp://127.0.0.1:{port}",
        "--tlsverify",
    ]
    for name, file in (("ca", "ca.pem"), ("cert", "server-cert.pem"), ("key", "server-key.pem")):
        words += [f"--tls{name}{'cert' * (name == 'ca')}", str(tmp_path / file)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.05)
    try:
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        subprocess.run(
            [COMMAND, "--data-root", str(tmp_path), "reset"], check=True, capture_output=True
        )


def ping(port: int, directory: pathlib.Path, who: str | None) -> bytes:
    context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
    if who:
        context.load_cert_chain(directory / f"{who}-cert.pem", directory / f"{who}-key.pem")
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
    ):
        stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: stream.recv(4096), b""))


def test_only_its_own_clients_are_let_in(port: int, tmp_path: pathlib.Path) -> None:
    assert ping(port, tmp_path, "client").endswith(b"OK")
    for who in (None, "stranger", "late", "imposter"):  # no, foreign, expired, a server's
        with pytest.raises((ssl.SSLError, ConnectionError)):
            ping(port, tmp_path, who)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        try:
            assert b"OK" not in plain.recv(4096)
        except ConnectionError:
            pass
    assert ping(port, tmp_path, "client").endswith(b"OK")


def test_a_client_knows_a_daemon_of_another_authority(port: int, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.pem").write_bytes((tmp_path / "other.pem").read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError):
        ping(port, tmp_path, "client")


@pytest.mark.peers
def test_a_conversation_through_tls(port: int, tmp_path: pathlib.Path) -> None:
    docker = shutil.which("docker")
    if docker is None:
        cannot_run_here("there is no docker (remedy: labs/provision.sh --peers)")
    tls = [
        "--tlsverify",
        "--tlscacert",
        "ca.pem",
        "--tlscert",
        "client-cert.pem",
        "--tlskey",
        "client-key.pem",
    ]
    base = [docker, "-H", f"tcp://127.0.0.1:{port}", *tls]
    host = {**os.environ, "DOCKER_CONFIG": str(tmp_path / "config")}
    run = ["run", "-i", "--rm", "--network", "none", "busybox"]
    done = subprocess.run(
        [*base, *run, "sh", "-c", "cat; exit 4"], input="x" * 300_000, cwd=tmp_path, env=host,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == ("x" * 300_000, 4), done.stderr


def test_a_stream_may_have_a_descriptor_above_1023() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 4096), hard))
    near, far = socket.socketpair()
    with near, far, socket.socket(fileno=fcntl.fcntl(near, fcntl.F_DUPFD_CLOEXEC, 2000)) as high:
        far.send(b"x")
        assert _readable([far, high]) == [high]
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
