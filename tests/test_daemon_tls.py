"""The daemon on TCP: only for clients with a certificate of the same authority."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator

import pytest

from mini_docker.engine.engine import _readable
from mini_docker.namespaces.net import in_netns
from tests.conftest import cannot_run_here
from tests.daemons import Daemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.anywhere,
    pytest.mark.usefixtures("leak_free"),
]

PORT = 2376
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


class Guarded(Daemon):
    """A daemon that listens on a port of its network too, with keys beside it."""

    def prepare(self) -> None:
        subprocess.run(["bash", "-c", KEYS], cwd=self.root, check=True)
        self.options = ("-H", f"tcp://127.0.0.1:{PORT}", "--tlsverify")
        for name, file in (("cacert", "ca"), ("cert", "server-cert"), ("key", "server-key")):
            self.options += (f"--tls{name}", str(self.root / f"{file}.pem"))

    def connect(self) -> socket.socket:
        return in_netns(self.netns_fd, socket.create_connection, ("127.0.0.1", PORT), 240)

    def ping(self, who: str | None, authority: str = "ca") -> bytes:
        """Ask as a client that has somebody's certificate, and believes in an authority."""
        context = ssl.create_default_context(cafile=str(self.root / f"{authority}.pem"))
        if who:
            context.load_cert_chain(self.root / f"{who}-cert.pem", self.root / f"{who}-key.pem")
        with (
            self.connect() as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as stream,
        ):
            stream.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")
            return b"".join(iter(lambda: stream.recv(4096), b""))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    if shutil.which("openssl") is None:
        cannot_run_here("there is no openssl (remedy: apt-get install openssl)")
    daemon = Guarded(tmp_path_factory.mktemp("guarded"))
    try:
        yield daemon
    finally:
        daemon.close()


def test_only_its_own_clients_are_let_in(guarded: Guarded) -> None:
    assert guarded.ping("client").endswith(b"OK")
    for who in (None, "stranger", "late", "imposter"):  # no, foreign, expired, a server's
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert guarded.ping(who) == b""
    assert guarded.ping("client").endswith(b"OK")


def test_a_client_that_speaks_no_tls_is_told(guarded: Guarded) -> None:
    """In the words of Go's net/http, and so of dockerd."""
    with guarded.connect() as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        said = b"".join(iter(lambda: plain.recv(4096), b""))
    assert said == (
        b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
    )
    with guarded.connect() as plain:
        plain.sendall(b"nonsense that is neither\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"OK" not in plain.recv(4096)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_an_old_tls_is_not_spoken(guarded: Guarded) -> None:
    context = ssl.create_default_context(cafile=str(guarded.root / "ca.pem"))
    context.load_cert_chain(guarded.root / "client-cert.pem", guarded.root / "client-key.pem")
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else this side would refuse itself
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with guarded.connect() as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="127.0.0.1")
    assert guarded.ping("client").endswith(b"OK")


def test_a_client_knows_a_daemon_of_another_authority(guarded: Guarded) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        guarded.ping("client", authority="other")


@pytest.mark.peers
def test_a_conversation_through_tls(guarded: Guarded) -> None:
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
    base = [docker, "-H", f"tcp://127.0.0.1:{PORT}", *tls]
    host = {**os.environ, "DOCKER_CONFIG": str(guarded.root / "config")}
    run = ["run", "-i", "--rm", "--network", "none", "busybox"]
    done = subprocess.run(
        [*base, *run, "sh", "-c", "cat; exit 4"], input="x" * 300_000, cwd=guarded.root, env=host,
        capture_output=True, text=True, timeout=240, preexec_fn=guarded.enter,
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
