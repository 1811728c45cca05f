"""The embedded name server: messages by hand, hostile ones too, and real questions through real doors."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.engine.dns import LIMIT_TCP, Server, serve_alone
from mini_docker.engine.dns_messages import (
    AAAA,
    NOERROR,
    NOTIMP,
    PTR,
    RD,
    SERVFAIL,
    TC,
    A,
    address_of_pointer,
    answer,
    header,
    pack_name,
    parse_query,
    truncated,
    udp_limit,
)
from mini_docker.engine.dns_names import Names
from mini_docker.engine.document import InvalidRequest
from mini_docker.engine.hosts import (
    amended,
    hosts_text,
    link_variables,
    parse_extra_host,
    parse_link,
    resolv_text,
    upstream_servers,
)
from mini_docker.engine.networks import Networks
from mini_docker.lab import run_in_child
from mini_docker.linux.netlink import Netlink, link_set
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import in_netns, new_netns

root = pytest.mark.root
RED, BLUE, SPY = "a" * 64, "b" * 64, "c" * 64
DOOR = ("127.0.0.11", 53)


def query(name: str, kind: int = A, ident: int = 7, flags: int = RD) -> bytes:
    return header.pack(ident, flags, 1, 0, 0, 0) + pack_name(name) + struct.pack("!HH", kind, 1)


def code_and_count(response: bytes) -> tuple[int, int]:
    return response[3] & 15, int.from_bytes(response[6:8], "big")


# --- messages -----------------------------------------------------------------------------------


def test_a_question_is_read() -> None:
    question = parse_query(query("WEB.Front", AAAA))
    assert (question.id, question.name, question.type) == (7, "web.front", AAAA)
    assert question.end == len(query("web.front"))


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 11, query("web")[:-1], query("web")[:14], query("web", flags=0x8000),
        header.pack(7, RD, 2, 0, 0, 0) + query("web")[12:], header.pack(7, RD, 0, 0, 0, 0),
        header.pack(7, RD, 1, 1, 0, 0) + query("web")[12:], query("web")[:12] + b"\xc0\x0c\0\1\0\1",
        query("web")[:12] + b"\x40" + b"x" * 64 + b"\0\0\1\0\1", query(".".join(["x" * 60] * 5)),
    ],
)  # fmt: skip
def test_what_is_no_question_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_query(data)


def test_any_bytes_are_a_question_or_a_value_error() -> None:
    chance = random.Random(53)
    for _ in range(20000):
        data = bytearray(query("database.front"))
        for _ in range(chance.randrange(4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        data = data[: chance.randrange(len(data) + 1)]
        try:
            question = parse_query(bytes(data))
        except ValueError:
            continue
        assert answer(bytes(data), question, NOERROR)[:2] == data[:2]
        assert 512 <= udp_limit(bytes(data), question) <= 4096


def test_pointers_are_addresses() -> None:
    assert address_of_pointer("2.0.71.10.in-addr.arpa") == "10.71.0.2"
    six = ".".join(reversed("fd000009" + "0" * 23 + "2"))
    assert address_of_pointer(f"{six}.ip6.arpa") == "fd00:9::2"
    for name in (
        "2.0.71.in-addr.arpa",
        "x.0.71.10.in-addr.arpa",
        "2.ip6.arpa",
        "web",
        "-1.0.0.0.in-addr.arpa",
    ):
        assert address_of_pointer(name) is None


def test_a_long_answer_is_cut_and_says_so() -> None:
    asked = query("many")
    whole = answer(asked, parse_query(asked), NOERROR, [(A, bytes(4))] * 100)
    cut = truncated(whole, 512)
    assert len(cut) == len(asked) and int.from_bytes(cut[2:4], "big") & TC
    assert parse_query(cut[:2] + asked[2:4] + cut[4:]).name == "many"
    assert truncated(whole, 4096) == whole
    edns = asked + b"\0\0\x29" + struct.pack("!H", 1232) + b"\0" * 6
    assert udp_limit(edns, parse_query(edns)) == 1232


# --- files --------------------------------------------------------------------------------------


def test_the_files_of_names() -> None:
    host = "search lan\nnameserver 192.0.2.53\noptions edns0\n"
    assert (
        resolv_text(host, {}, True) == "search lan\nnameserver 127.0.0.11\noptions edns0 ndots:0\n"
    )
    assert resolv_text(host, {}, False) == host
    given = {"Dns": ["192.0.2.1"], "DnsSearch": ["."], "DnsOptions": ["ndots:2"]}
    assert resolv_text(host, given, False) == "nameserver 192.0.2.1\noptions ndots:2\n"
    assert resolv_text(host, given, True) == "nameserver 127.0.0.11\noptions ndots:2\n"
    assert upstream_servers("nameserver 127.0.0.53", {}) == ["127.0.0.53"]
    assert upstream_servers("", given) == ["192.0.2.1"]
    text = hosts_text(
        "web", ["10.71.0.4", "", "fd00:9::2"], ["db:10.0.0.1"], [("10.71.0.3", ["x", "y"])]
    )
    assert text.endswith("10.0.0.1\tdb\n10.71.0.3\tx y\n10.71.0.4\tweb\nfd00:9::2\tweb\n")
    for wrong in ("db", ":1.2.3.4", "db:x", "a b:1.2.3.4", "db:1.2.3.4\n6.6.6.6 bank"):
        with pytest.raises(InvalidRequest):
            parse_extra_host(wrong)


def test_links() -> None:
    assert parse_link("/d1:/d2/db") == ("d1", "db") and parse_link("d1") == ("d1", "d1")
    with pytest.raises(InvalidRequest, match="bad format for links"):
        parse_link(":x")
    assert link_variables("d2", "my-db", "10.0.0.3", ["80/tcp", "53/udp"], ["A=b", "PATH=/x"]) == [
        "MY_DB_PORT=udp://10.0.0.3:53",
        *(
            f"MY_DB_PORT_53_UDP{x}"
            for x in ("=udp://10.0.0.3:53", "_ADDR=10.0.0.3", "_PORT=53", "_PROTO=udp")
        ),
        *(
            f"MY_DB_PORT_80_TCP{x}"
            for x in ("=tcp://10.0.0.3:80", "_ADDR=10.0.0.3", "_PORT=80", "_PROTO=tcp")
        ),
        "MY_DB_NAME=/d2/my-db",
        "MY_DB_ENV_A=b",
    ]


# --- the server ---------------------------------------------------------------------------------


class Shop:
    """A server with red and blue on `front`, a spy on an internal network, and the world's name server."""

    def __init__(self, store: str) -> None:
        with Netlink() as netlink:
            netlink.request(link_set("lo", up=True))
        self.networks, self.server = Networks(store), Server(f"{store}/network")
        pools = {"front": ("10.71.0.0/24", False), "back": ("10.72.0.0/24", True)}
        for name, (subnet, internal) in pools.items():
            ipam = {"Config": [{"Subnet": subnet}]}
            self.networks.create({"Name": name, "Internal": internal, "IPAM": ipam})
        self.fds = {name: new_netns() for name in (RED, BLUE, SPY)}
        self.networks.attach(self.fds[RED], RED, "red", "front", {"Aliases": ["db"]})
        self.networks.attach(
            self.fds[BLUE], BLUE, "blue", "front", {"Aliases": ["db"], "Links": ["red:store"]}
        )
        self.networks.attach(self.fds[SPY], SPY, "spy", "back")
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.53", 53))
        self.tcp = socket.create_server(("127.0.0.53", 53))
        for name, fd in self.fds.items():
            self.server.add(name, fd, ["127.0.0.99", "127.0.0.53"])
        self.thread = self.server.start()

    def client(self, name: str) -> socket.socket:
        made = in_netns(self.fds[name], socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
        made.settimeout(60)
        made.connect(DOOR)
        return made

    def ask(self, name: str, message: bytes) -> bytes:
        with self.client(name) as client:
            client.send(message)
            return client.recv(4096)

    def close(self) -> None:
        self.server.stop()
        self.thread.join(60)
        assert not self.thread.is_alive()


def shop(scenario: Callable[[Shop], None], store: str) -> None:
    outcome = run_in_child(_shop, scenario, store, timeout=30.0)
    assert outcome.status == 0 and not outcome.timed_out, outcome.output or outcome.error


def _shop(scenario: Callable[[Shop], None], store: str) -> None:
    unshare(CLONE_NEWNET)
    open_shop = Shop(store)
    scenario(open_shop)
    open_shop.close()


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "root")


def names_are_found(shop: Shop) -> None:
    for name, expected in (
        ("red", (NOERROR, 1)), ("RED.front", (NOERROR, 1)), ("db", (NOERROR, 2)), (RED[:12], (NOERROR, 1)),
    ):  # fmt: skip
        assert code_and_count(shop.ask(BLUE, query(name))) == expected, name
    assert shop.ask(BLUE, query("store"))[-4:] == bytes([10, 71, 0, 2])
    assert code_and_count(shop.ask(BLUE, query("red", AAAA))) == (NOERROR, 0)
    assert code_and_count(shop.ask(BLUE, query("red", flags=RD | 0x2800))) == (NOTIMP, 0)
    assert b"\x03red\x05front\0" in shop.ask(BLUE, query("2.0.71.10.in-addr.arpa", PTR))
    assert code_and_count(shop.ask(SPY, query("spy"))) == (NOERROR, 1)
    assert code_and_count(shop.ask(SPY, query("red"))) == (SERVFAIL, 0)
    seen = {shop.ask(RED, query("db"))[-4:] for _ in range(40)}
    assert len(seen) == 2, "both get a turn at the end"
    shop.networks.detach(BLUE, "front")
    assert code_and_count(shop.ask(RED, query("db"))) == (NOERROR, 1)
    shop.networks.attach(shop.fds[BLUE], BLUE, "blue", "front", {"Aliases": ["db"]})
    assert code_and_count(shop.ask(RED, query("db"))) == (NOERROR, 2)


@root
def test_names_are_found_by_who_shares_a_network(store: str) -> None:
    shop(names_are_found, store)


def the_rest_is_forwarded(shop: Shop) -> None:
    def world() -> None:
        data, sender = shop.udp.recvfrom(4096)
        wrong = b"\0\0" + answer(data, parse_query(data), NOERROR, [(A, b"evil")])[2:]
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        stranger.sendto(answer(data, parse_query(data), NOERROR, [(A, b"evil")]), sender)
        shop.udp.sendto(wrong, sender)
        shop.udp.sendto(
            answer(query("other"), parse_query(query("other")), NOERROR, [(A, b"evil")]), sender
        )
        shop.udp.sendto(answer(data, parse_query(data), NOERROR, [(A, b"good")]), sender)

    thread = threading.Thread(target=world)
    thread.start()
    response = shop.ask(RED, query("example.org", ident=4711))
    thread.join()
    assert response[-4:] == b"good" and response[:2] == struct.pack("!H", 4711)
    shop.udp.settimeout(0.1)
    with pytest.raises(TimeoutError):
        while True:  # a question may have been asked twice
            shop.udp.recv(4096)
    assert code_and_count(shop.ask(SPY, query("secret.example.org"))) == (SERVFAIL, 0)
    with pytest.raises(TimeoutError):
        shop.udp.recv(100)

    def world_by_tcp() -> None:
        connection, _ = shop.tcp.accept()
        file = connection.makefile("rb")
        data = file.read(int.from_bytes(file.read(2), "big"))
        reply = answer(data, parse_query(data), NOERROR, [(A, b"long")] * 100)
        message = len(reply).to_bytes(2, "big") + reply
        connection.sendall(message[:10])
        time.sleep(0.05)
        connection.sendall(message[10:])

    shop.server.clients[RED].servers[:] = ["127.0.0.53"]
    thread = threading.Thread(target=world_by_tcp)
    thread.start()
    with in_netns(shop.fds[RED], socket.create_connection, DOOR) as client:
        client.settimeout(60)
        for name, count in (("red", 1), ("example.org", 100)):
            message = query(name)
            client.sendall(len(message).to_bytes(2, "big") + message)
            file = client.makefile("rb")
            response = file.read(int.from_bytes(file.read(2), "big"))
            assert code_and_count(response) == (NOERROR, count)
    thread.join()


@root
def test_the_rest_is_forwarded_and_forgers_are_not_believed(store: str) -> None:
    shop(the_rest_is_forwarded, store)


def the_server_lives(shop: Shop) -> None:
    chance = random.Random(15)
    before = len(os.listdir("/proc/self/fd"))
    with shop.client(RED) as client:
        for number in range(3000):
            data = bytearray(query(f"n{number % 300}.example"))
            data[chance.randrange(len(data))] = chance.randrange(256)
            client.send(data if number % 2 else chance.randbytes(chance.randrange(80)))
            if number % 50 == 0:
                time.sleep(0.005)
    held = [in_netns(shop.fds[RED], socket.create_connection, DOOR) for _ in range(LIMIT_TCP + 4)]
    held[0].sendall(b"\xff\xff" + bytes(9000))
    held[1].sendall(b"\0\0\0\1x")
    time.sleep(0.3)
    assert len(shop.server.connections) <= LIMIT_TCP
    assert shop.server.clients[RED].pending <= 100
    assert code_and_count(shop.ask(BLUE, query("red"))) == (NOERROR, 1)
    for connection in held:
        connection.close()
    shop.server.remove(RED)
    deadline = time.monotonic() + 60
    while (
        len(shop.server.forwards) or len(shop.server.connections)
    ) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not shop.server.forwards and not shop.server.connections
    assert len(os.listdir("/proc/self/fd")) <= before
    shop.server.add(
        RED, shop.fds[RED], []
    )  # as after a restart: the doors are new, the rules replaced
    assert code_and_count(shop.ask(RED, query("blue"))) == (NOERROR, 1)


@root
def test_the_server_lives_through_floods_and_nonsense(store: str) -> None:
    shop(the_server_lives, store)


def own_port_53(shop: Shop) -> None:
    own = in_netns(shop.fds[RED], socket.socket, socket.AF_INET, socket.SOCK_DGRAM)
    own.bind(("0.0.0.0", 53))
    assert code_and_count(shop.ask(RED, query("blue"))) == (NOERROR, 1)


@root
def test_a_container_may_run_a_name_server_of_its_own(store: str) -> None:
    shop(own_port_53, store)


def by_a_process(store: str) -> None:
    unshare(CLONE_NEWNET)
    networks, fd = Networks(store), new_netns()
    networks.create({"Name": "front"})
    networks.attach(fd, RED, "red", "front")
    lock_read, lock_write = os.pipe()
    pid = serve_alone(networks.files.directory, RED, fd, [])
    os.close(lock_write)
    assert os.read(lock_read, 1) == b"", "the child holds nothing of its parent's"
    with in_netns(fd, socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(60)
        client.sendto(query("red"), DOOR)
        assert code_and_count(client.recv(512)) == (NOERROR, 1)
    os.kill(pid, 9)
    os.waitpid(pid, 0)


@root
def test_a_process_serves_one_container(store: str) -> None:
    outcome = run_in_child(by_a_process, store)
    assert outcome.status == 0, outcome.output or outcome.error


def test_names_without_networks(tmp_path: Path) -> None:
    names: Any = Names(str(tmp_path / "none"))
    assert names.addresses(RED, "red") is None and not names.has_way_out(RED)
    assert names.pointer(RED, "10.71.0.2") is None


def test_what_was_written_into_hosts_by_hand_stays() -> None:
    """Docker adds lines and takes its own away; the rest of the file is the container's."""
    before = hosts_text("web", ["10.1.0.2"])
    by_hand = f"{before}10.9.9.9 mine\n"
    joined = amended(by_hand, hosts_text("web", ["10.1.0.2", "10.2.0.2"]), "web")
    assert joined == f"{by_hand}10.2.0.2\tweb\n"
    left = amended(joined, hosts_text("web", []), "web")
    assert left == by_hand.replace("10.1.0.2\tweb\n", "")
