"""The registry of a room: its process, its files, its images."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from labs.machine.image import apt_sources, os_release
from mini_docker.images.busybox import install_busybox
from mini_docker.images.compression import compress
from mini_docker.images.layout import (
    MEDIA_TYPE_CONFIG,
    MEDIA_TYPE_LAYER,
    MEDIA_TYPE_MANIFEST,
    Descriptor,
    Digest,
    ImageError,
    Layout,
    NoSuchImage,
    as_json,
    this_platform,
)
from mini_docker.images.reference import parse_reference
from mini_docker.lab.registry import RealRegistry, bcrypt, listens
from mini_docker.registry.credentials import Credentials, Login
from mini_docker.registry.push import push
from mini_docker.registry.settings import CERTIFICATES, Settings

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "room"
BLOCK = 1 << 20
DAYS = "365"  # a certificate's life


class Trouble(Exception):
    """What went wrong, and the remedy, for the teacher to read."""


# STATE DIRECTORY
#   room.json           pid, port, address, whether TLS, the user and the password, the images
#   config.yml, log     docker-registry's
#   data/               its blobs
#   users, ca.crt, ca.key, server.crt, server.key


class Room:
    """A registry that outlives its command, found again by its state directory."""

    def __init__(self, state: Path) -> None:
        """Name the directory. Raises Trouble where there is no root."""
        if os.geteuid() != 0:
            raise Trouble("this needs root; remedy: sudo labs/registry ...")
        self.state, self.record = state, state / "room.json"

    def start(self, port: int, address: str, tls: bool, user: str, images: list[str]) -> None:
        """Start the registry and fill it. Raises Trouble, with nothing left behind."""
        self.stop()
        if listens(port):
            raise Trouble(
                f"port {port} is taken; remedy: --port {port + 1}, or stop what listens there"
            )
        layout = cached_images(images)
        try:
            self._start(port, address, tls, user, images)
            self._fill(layout, images)
        except (OSError, ImageError, subprocess.CalledProcessError) as error:
            self.stop()
            raise Trouble(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def _start(self, port: int, address: str, tls: bool, user: str, images: list[str]) -> None:
        self.state.mkdir(0o700, parents=True)
        password = secrets.token_urlsafe(9) if user else ""
        users = self.state / "users" if user else None
        if users:
            users.write_text(f"{user}:{bcrypt(password)}\n")
        certificate, key = make_certificate(self.state) if tls else (None, None)
        registry = RealRegistry(
            self.state, users, certificate, key, port=port, address=address, outlives=True
        )
        registry.start()
        about: dict[str, Any] = {
            "pid": registry.process.pid,
            "port": port,
            "address": address,
            "tls": tls,
        }
        self.record.write_text(
            json.dumps({**about, "user": user, "password": password, "images": images})
        )
        if tls:
            for folder in self._trusted():
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.state / "ca.crt", folder / "ca.crt")

    def _fill(self, layout: Layout, images: list[str]) -> None:
        """Push the images twice: under the name that Docker Hub's mirrors have, and under a short one."""
        about = self._read()
        host = f"127.0.0.1:{about['port']}"
        credentials = Credentials(str(self.state))
        if about["user"]:
            credentials.put(host, Login(about["user"], about["password"]))
        for image in images:
            made = layout.image(image)
            for name in (f"{host}/library/{image}", f"{host}/{image}"):
                reference = parse_reference(name)
                descriptor = Descriptor(
                    MEDIA_TYPE_MANIFEST, made.digest, manifest_size(layout, made.digest)
                )
                layout.tag(reference.familiar(), descriptor)
                try:
                    push(layout, reference, credentials=credentials, settings=Settings())
                finally:
                    layout.untag(reference.familiar())

    def stop(self) -> None:
        """Stop the registry and remove all that it had; one that is not there is fine."""
        about = self._read()
        if about and self._runs(about):
            os.kill(about["pid"], signal.SIGTERM)
            end = time.monotonic() + 5
            while self._runs(about) and time.monotonic() < end:
                time.sleep(0.02)
            if self._runs(about):
                os.kill(about["pid"], signal.SIGKILL)
        if about:
            for folder in self._trusted():
                shutil.rmtree(folder, ignore_errors=True)
                for parent in (folder.parent, folder.parent.parent):
                    if parent.is_dir() and not os.listdir(parent):
                        parent.rmdir()
        shutil.rmtree(self.state, ignore_errors=True)

    def status(self) -> list[str]:
        """Return what runs and how the room uses it, as lines."""
        about = self._read()
        if not about or not self._runs(about):
            return ["no registry runs; start one: labs/registry start"]
        host = self._hosts()[-1]
        lines = [
            f"a registry runs at {host}, {'with' if about['tls'] else 'without'} TLS. On each machine:"
        ]
        if about["tls"]:
            folder = f"{CERTIFICATES[0]}/{host}"
            lines.append(
                f"  mkdir -p {folder}; copy {self.state}/ca.crt of this machine to {folder}/ca.crt"
            )
        elif not host.startswith("127."):
            lines.append(f'  /etc/mini_docker/daemon.json: {{"insecure-registries": ["{host}"]}}')
        if about["user"]:
            lines.append(
                f"  mini_docker login -u {about['user']} {host}    # password: {about['password']}"
            )
        image = about["images"][0]
        lines.append(f"  mini_docker run --rm {host}/{image} echo hello from the room")
        lines += [f"  images: {', '.join(f'{host}/{one}' for one in about['images'])}"]
        return lines

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.record.read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _runs(self, about: dict[str, Any]) -> bool:
        """Return whether the process is there, is ours, and is no zombie."""
        try:
            command = Path(f"/proc/{about['pid']}/cmdline").read_bytes()
        except OSError:
            return False
        return f"{self.state}/config.yml".encode() in command

    def _hosts(self) -> list[str]:
        """Return the names under which the registry is known here, and last the one for the room."""
        about = self._read()
        names = ["127.0.0.1", "localhost"]
        if about["address"] not in names:
            names.append(own_address() if about["address"] == "0.0.0.0" else about["address"])
        return [
            f"{name}:{about['port']}" for name in names if name != "localhost" or len(names) > 2
        ]

    def _trusted(self) -> list[Path]:
        return (
            [Path(CERTIFICATES[0], host) for host in self._hosts()] if self._read()["tls"] else []
        )


def own_address() -> str:
    """Return the address by which others reach this machine; no packet is sent for it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))
            return str(sock.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a CA and, signed by it, a certificate for this machine's names; return it and its key."""
    names = f"IP:127.0.0.1,DNS:localhost,DNS:{socket.gethostname()},IP:{own_address()}"
    new = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj".split()
    sign = (
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile names".split()
    )
    (folder / "names").write_text(f"subjectAltName={names}\n")
    for words in (
        [*new, "/CN=the lab's CA", "-x509", "-days", DAYS, "-keyout", "ca.key", "-out", "ca.crt"],
        [*new, "/CN=the lab's registry", "-keyout", "server.key", "-out", "server.csr"],
        [*sign, "-days", DAYS, "-out", "server.crt"],
    ):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    return folder / "server.crt", folder / "server.key"


# ---- images -----------------------------------------------------------------------------------------


def cached_images(images: list[str]) -> Layout:
    """Return a store, kept in .cache, that has all of `images`. Raises Trouble."""
    CACHE.mkdir(parents=True, exist_ok=True)
    layout = Layout(str(CACHE / "images"))
    layout.create()
    makers = {"busybox": install_busybox, "debian": make_debian}
    for image in images:
        if image not in makers:
            raise Trouble(f"no image {image!r} can be made here; there are: {', '.join(makers)}")
        try:
            layout.image(image)
        except NoSuchImage:
            makers[image](layout)
        except ImageError as error:
            raise Trouble(f"{error}; remedy: rm -r {CACHE}") from error
    return layout


def make_debian(layout: Layout) -> Descriptor:
    """Make the image debian:latest from this machine's apt. Raises Trouble."""
    if not shutil.which("mmdebstrap"):
        raise Trouble(
            "debian needs mmdebstrap; remedy: apt-get install mmdebstrap, or --images busybox"
        )
    suite = os_release("VERSION_CODENAME")
    print(
        f"making debian:latest ({suite}) from this machine's apt; that takes a minute, once",
        flush=True,
    )
    tar, log = CACHE / "debian.tar", CACHE / "debian.log"
    unwanted = ("man", "locale", "doc")
    options = ["--variant=minbase", "--mode=root"]
    options += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in unwanted]
    with open(log, "wb") as file:
        words = ["mmdebstrap", *options, suite, str(tar), *map(str, apt_sources(suite))]
        status = subprocess.run(words, stdout=file, stderr=file).returncode
    if status:
        tar.unlink(missing_ok=True)
        raise Trouble(
            f"mmdebstrap failed, see {log}; remedy: does apt-get update work here? or: --images busybox"
        )
    made = image_of_tar(layout, "debian", tar)
    tar.unlink()
    return made


def image_of_tar(layout: Layout, name: str, tar: Path) -> Descriptor:
    """Make an image of one layer, packed with gzip, from a tar of a root."""
    diff_id = digest_of_file(tar)
    with (
        open(tar, "rb") as file,
        layout.ingest(Descriptor(f"{MEDIA_TYPE_LAYER}+gzip", "", -1)) as ingest,
    ):
        for piece in compress(iter(lambda: file.read(BLOCK), b""), "gzip"):
            ingest.write(piece)
        layer = ingest.commit()
    system, architecture = this_platform().split("/")[:2]
    config = {
        "os": system,
        "architecture": architecture,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": {
            "Cmd": ["bash"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": "labs/registry: mmdebstrap --variant=minbase"}],
    }
    described = layout.put(json.dumps(config, sort_keys=True).encode(), MEDIA_TYPE_CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_MANIFEST,
        "config": as_json(described),
        "layers": [as_json(layer)],
    }
    return layout.name_image(name, manifest)


def digest_of_file(path: Path) -> str:
    """Return the digest of a file, read a block at a time."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return Digest(f"sha256:{found.hexdigest()}")


def manifest_size(layout: Layout, digest: str) -> int:
    """Return the bytes of a blob in a store."""
    return os.stat(layout.blob_path(digest)).st_size
