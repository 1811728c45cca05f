# Exported from notebooks/14h_asking.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14h_asking.ipynb#engine-module
"""The engine: the one who knows all managers, and hands the result of one to the next."""

from __future__ import annotations

import functools
import os
import select
import socket
import ssl
import threading
import time

from mini_docker.engine.connect import Wiring
from mini_docker.engine.containers import Containers
from mini_docker.engine.dns import Server
from mini_docker.engine.events import Events
from mini_docker.engine.execs import Execs
from mini_docker.engine.health import Health
from mini_docker.engine.launch import Launch
from mini_docker.engine.recovery import Recovery
from mini_docker.engine.registries import Registries
from mini_docker.engine.remap import fetch_root, open_to_group, to_host
from mini_docker.engine.store import NoSuchContainer, Store, replace_file
from mini_docker.images import catalog
from mini_docker.images.layout import ImageError, NoSuchImage
from mini_docker.images.remove import User
from mini_docker.storage.overlay import plan_overlay, remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from mini_docker.engine.container import Container
    from mini_docker.engine.remap import Remap
    from mini_docker.engine.zygote import Zygote
    from mini_docker.images.layout import Image


# %% notebooks/14h_asking.ipynb#connector
class Plug:
    """What the containers' manager needs of networks and volumes; namespaces come from the zygote."""

    def __init__(self, wiring: Wiring, zygote: Zygote) -> None:
        """Hold the wiring, and the zygote, which makes namespaces for threads."""
        self.wiring, self.zygote = wiring, zygote

    def connect(self, launch: Launch, spec: dict[str, Any]) -> int | None:
        """Return a network namespace on the container's networks, if it has one of its own."""
        self.wiring.join(launch.record, spec)
        userns_fd = launch.userns_fd
        new_netns = self.zygote.new_netns
        if userns_fd is not None:
            new_netns = functools.partial(self.zygote.errand, "netns", {}, userns_fd)
        name = "connect it to its networks"
        return launch.step(name, self.wiring.attach, launch.record, new_netns)

    def disconnect(self, record: dict[str, Any]) -> None:
        """Free addresses, ports and mounts; the cables went with their namespace."""
        self.wiring.detach(record)


# %% notebooks/14h_asking.ipynb#engine
class Engine:
    """A data root and all its managers."""

    def __init__(self, root: str, zygote: Zygote, remap: Remap | None = None) -> None:
        """Open a data root; `resume` then takes over what lives. Raises OSError."""
        self.remap = remap
        self.store = Store(root)
        self.zygote = zygote
        self.events = Events()
        self.names = Server(f"{self.store.root}/network")
        owner = (to_host(remap.uids, 0), to_host(remap.gids, 0)) if remap else (0, 0)
        self.wiring = Wiring(self.store.root, self._record, self.names, owner)
        plug = Plug(self.wiring, zygote)
        self.containers = Containers(self.store, zygote, self.events, plug, remap)
        self.execs = Execs(self.containers)
        self.health = Health(self.containers, self.execs)
        self.registries = Registries(self.store, self.containers.layers.held, self.events.publish)
        self.stopping = False
        self._named: tuple[object, dict[str, str]] = (None, {})
        if remap:
            self._check_remap(remap)
        self.identity = self._identity()

    def _check_remap(self, remap: Remap) -> None:
        """Let the remapped root pass to its containers; raise ValueError where this kernel maps no layers."""
        uid, gid = to_host(remap.uids, 0), to_host(remap.gids, 0)
        open_to_group(f"{self.store.root}/containers", gid)
        directory = self.store.directory(f"trial.{os.getpid()}")
        os.makedirs(f"{directory}/lower")
        for name in ("upper", "work", "rootfs"):
            os.mkdir(f"{directory}/{name}")
        stacks = self.store.roots.name == "overlay2"
        plan = plan_overlay([f"{directory}/lower"], directory) if stacks else f"{directory}/lower"
        maps = {"uidMappings": list(remap.uids), "gidMappings": list(remap.gids)}
        try:
            userns_fd = self.zygote.errand("userns", maps)
            try:
                os.close(fetch_root(self.zygote, plan, (uid, gid), userns_fd))
            finally:
                os.close(userns_fd)
        except OSError as error:
            words = (
                "it wants Linux 5.19 and ext4, xfs or btrfs; remedy: another --data-root, or none"
            )
            raise ValueError(
                f"--userns-remap: layers cannot be mapped here ({error.strerror}): {words}"
            ) from None
        finally:
            remove_tree(directory)

    def _identity(self) -> str:
        """Return what tells this engine from all others, made once."""
        path = f"{self.store.root}/engine-id"
        if not os.path.exists(path):
            replace_file(path, os.urandom(16).hex().encode())
        with open(path) as file:
            return file.read()

    def _record(self, reference: str) -> dict[str, Any]:
        return self.containers.find(reference).record

    def resume(self) -> list[str]:
        """Take over the containers that live, with their names and ports; return what was lost."""
        self.names.start()
        Recovery(self.containers).run()
        self.containers.layers.clean()
        living = (container.record for container in self.containers.all() if container.alive)
        return self.wiring.resume(living, self.store.running())

    def connect(self, network: str, reference: str, config: dict[str, Any] | None) -> None:
        """Connect a container to a network. Raises NoSuchContainer, and what `Wiring.connect` raises."""
        container = self.containers.find(reference)
        with container.lock:
            container.require_there()
            self.wiring.connect(container.record, network, config)
            self.containers.write(container)
            if container.alive:  # else its start says so
                self.tell_network("connect", network, container.id)

    def disconnect(self, network: str, reference: str, force: bool) -> None:
        """Take a container off a network. Raises NoSuchContainer, and what `Wiring.disconnect` raises."""
        try:
            container = self.containers.find(reference)
        except NoSuchContainer:
            if not force:
                raise
            self.wiring.networks.find(network)
            raise NoSuchContainer(f"endpoint {reference} not found") from None
        with container.lock:
            container.require_there()
            self.wiring.disconnect(container.record, network, force)
            self.containers.write(container)
        self.tell_network("disconnect", network, container.id)

    def tell_network(self, action: str, reference: str, container_id: str = "") -> None:
        """Publish an event of a network."""
        network = self.wiring.networks.find(reference)
        who = {"container": container_id} if container_id else {}
        attributes = {**who, "name": network["Name"], "type": network["Driver"]}
        self.events.publish("network", action, network["Id"], attributes)

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
        with self.containers.layers.held(image.config["rootfs"]["diff_ids"]):
            try:
                return self.containers.create(request, name, image, image_id)
            except ImageError:
                self.find_image(image_id)  # gone meanwhile: then that is the answer
                raise

    def find_image(self, reference: str) -> tuple[Image, str]:
        """Return the image of that name, id or start of an id, and its id. Raises NoSuchImage."""
        image = catalog.find(self.store.layout, reference).image
        return image, image.id

    def image_users(self) -> list[User]:
        """Return all containers, as far as removing an image concerns them."""
        return [User(c.id, c.record.get("ImageID", ""), c.alive) for c in self.containers.all()]

    def image_names(self) -> dict[str, str]:
        """Return the images' ids by their names; they are read again when the index has been written."""
        stamp = self.store.layout.stamp()
        if self._named[0] != stamp:
            found = catalog.records(self.store.layout)
            named = {name: one.image.id for one in found for name in (*one.names, *one.digests)}
            self._named = stamp, named
        return self._named[1]

    def image_ids(self, reference: str) -> set[str]:
        """Return the ids of the images that `reference` means; none where there is none."""
        try:
            return {self.find_image(reference)[1]}
        except NoSuchImage:
            return set()


# %% notebooks/14h_asking.ipynb#relay
def relay(stream: ssl.SSLSocket) -> socket.socket:
    """Return a socket whose bytes go to and from `stream`: what TLS encrypts, one process must."""
    ours, theirs = socket.socketpair()
    threading.Thread(target=_relay, args=(stream, ours), daemon=True).start()
    return theirs


def _readable(sides: list[socket.socket]) -> list[socket.socket]:
    """Wait until bytes came, and return where: by poll(2), as select(2) knows no descriptor above 1023."""
    poll = select.poll()
    for side in sides:
        poll.register(side, select.POLLIN)
    ready = {fd for fd, _ in poll.poll()}
    return [side for side in sides if side.fileno() in ready]


def _relay(stream: ssl.SSLSocket, plain: socket.socket) -> None:
    """Copy both ways in one thread: two must not use one TLS connection at the same time.

    The client's end of input becomes the other side's; when the other side ends, all does.
    """
    sides: list[socket.socket] = [stream, plain]
    try:
        while plain in sides:
            ready = [stream] if stream in sides and stream.pending() else []
            for side in ready or _readable(sides):
                data = side.recv(1 << 16)
                if data:
                    (plain if side is stream else stream).sendall(data)
                elif side is stream:
                    sides.remove(stream)
                    plain.shutdown(socket.SHUT_WR)
                else:
                    sides.remove(plain)
    except OSError:
        pass
    finally:
        stream.close()
        plain.close()
