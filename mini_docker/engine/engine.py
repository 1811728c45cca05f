# Exported from notebooks/14f_states.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14f_states.ipynb#engine-module
"""The engine: the one who knows all managers, and hands the result of one to the next."""

from __future__ import annotations

import os
import socket
import ssl
import threading
import time

from mini_docker.engine.containers import Containers
from mini_docker.engine.events import Events
from mini_docker.engine.execs import Execs
from mini_docker.engine.launch import Launch, bridge_network
from mini_docker.engine.store import Store, replace_file
from mini_docker.images.layout import NoSuchImage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.engine.containers import Container
    from mini_docker.engine.zygote import Zygote
    from mini_docker.images.layout import Image


# %% notebooks/14f_states.ipynb#connector
class BridgeConnector:
    """The default bridge, and the namespaces of others: what a container's NetworkMode can say."""

    def __init__(self, store: Store, zygote: Zygote) -> None:
        """Hold the store whose bridge it is, and the zygote, which makes namespaces for threads."""
        self.store, self.zygote = store, zygote
        self.state = f"{store.root}/network"

    def connect(self, launch: Launch, spec: dict[str, Any]) -> int | None:
        """Return a network namespace with an eth0 on the bridge, if the container wants one."""
        record = launch.record
        if record["HostConfig"]["NetworkMode"] != "bridge":
            return None
        network = bridge_network(self.store)
        netns_fd = self.zygote.new_netns()
        try:
            network.ensure(self.state)
            endpoint = network.attach(netns_fd, record["Id"], self.state)
        except BaseException:
            os.close(netns_fd)
            raise
        settings = {
            "IPAddress": endpoint.ip,
            "IPPrefixLen": endpoint.prefix,
            "Gateway": endpoint.gateway,
            "MacAddress": endpoint.mac,
        }
        record["NetworkSettings"] = {**settings, "Networks": {"bridge": settings}}
        return netns_fd

    def disconnect(self, record: dict[str, Any]) -> None:
        """Free the address; the cable went with its namespace."""
        if record["HostConfig"]["NetworkMode"] == "bridge" and os.path.isdir(
            f"{self.state}/leases"
        ):
            bridge_network(self.store).release(record["Id"], self.state)
            record["NetworkSettings"] = {}


# %% notebooks/14f_states.ipynb#engine
class Engine:
    """A data root and all its managers."""

    def __init__(self, root: str, zygote: Zygote) -> None:
        """Open a data root; `containers.resume()` then takes over what lives. Raises OSError."""
        self.store = Store(root)
        self.zygote = zygote
        self.events = Events()
        connector = BridgeConnector(self.store, zygote)
        self.containers = Containers(self.store, zygote, self.events, connector)
        self.execs = Execs(self.containers)
        self.stopping = False
        self.identity = self._identity()

    def _identity(self) -> str:
        """Return what tells this engine from all others, made once."""
        path = f"{self.store.root}/engine-id"
        if not os.path.exists(path):
            replace_file(path, os.urandom(16).hex().encode())
        with open(path) as file:
            return file.read()

    def now(self) -> int:
        """Return the time in nanoseconds since 1970."""
        return time.time_ns()

    def plain(self, stream: socket.socket) -> socket.socket:
        """Return a socket that can be handed to another process: behind TLS, one end of a relay."""
        return relay(stream) if isinstance(stream, ssl.SSLSocket) else stream

    def create(self, request: dict[str, Any], name: str) -> Container:
        """Create a container from the body of Docker's POST /containers/create.

        Raises NoSuchImage, Conflict, InvalidRequest, OSError; nothing is half made then.
        """
        image, image_id = self.find_image(request["Image"])
        return self.containers.create(request, name, image, image_id)

    def find_image(self, reference: str) -> tuple[Image, str]:
        """Return the image of that name, id or start of an id, and its id. Raises NoSuchImage."""
        layout = self.store.layout
        wanted = reference.removeprefix("sha256:")
        if set(wanted) <= set("0123456789abcdef") and len(wanted) >= 4:
            for name in layout.names():
                image = layout.image(name)
                if self.image_id(image).removeprefix("sha256:").startswith(wanted):
                    return image, self.image_id(image)
        image = layout.image(reference)
        return image, self.image_id(image)

    def image_id(self, image: Image) -> str:
        """Return an image's id as Docker has it: the digest of its config."""
        digest: str = self.store.layout.read_json(image.digest)["config"]["digest"]
        return digest

    def image_ids(self, reference: str) -> set[str]:
        """Return the ids of the images that `reference` means; none where there is none."""
        try:
            return {self.find_image(reference)[1]}
        except NoSuchImage:
            return set()


# %% notebooks/14f_states.ipynb#relay
def relay(stream: ssl.SSLSocket) -> socket.socket:
    """Return a socket whose bytes go to and from `stream`: what TLS encrypts, one process must."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_copy, args=(stream, ours), daemon=True).start()
    threading.Thread(target=_copy, args=(ours, stream), daemon=True).start()
    return theirs


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy to the end, and pass the end on."""
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        if isinstance(target, ssl.SSLSocket):
            target.unwrap()
            target.close()
        else:
            target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
