"""Netlink by hand against iproute2, and network namespaces: every test in a network of its own."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.netlink import (
    IFLA_IFNAME,
    IFLA_MTU,
    RT_TABLE_MAIN,
    Message,
    Netlink,
    address_add,
    attribute,
    attributes,
    find_link,
    link_delete,
    link_new_bridge,
    link_new_veth,
    link_set,
    list_addresses,
    list_links,
    list_routes,
    nlmsghdr,
    pack,
    parse_link,
    route_add_default,
    unpack,
    wait_for_carrier,
)
from mini_docker.linux.process import CLONE_NEWNET, unshare
from mini_docker.namespaces.net import (
    in_netns,
    netlink_in,
    new_netns,
    plan_net,
    raise_loopback,
    refuse_threads,
)
from tests.conftest import ROOT, cannot_run_here
from tests.system import until

root = pytest.mark.root
needs_ip = pytest.mark.skipif(
    not shutil.which("ip"),
    reason="cannot run here, because iproute2 is not installed (remedy: apt install iproute2)",
)


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """Call `function` in a child with a network of its own; what it raises fails the test."""
    outcome = run_in_child(_alone, function, *args, timeout=30.0)
    assert outcome.status == 0, outcome.output
    return outcome.value


def _alone(function: Callable[..., Any], *args: Any) -> Any:
    unshare(CLONE_NEWNET)
    return function(*args)


def ip_json(*arguments: str) -> Any:
    """Return what iproute2 says, as JSON."""
    return json.loads(subprocess.check_output(["ip", "-j", *arguments]))


# --- bytes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        (b"", "0400 0300"),
        (b"\1", "0500 0300 01000000"),
        (b"1234", "0800 0300 31323334"),
        ("eth0", "0900 0300 65746830 00000000"),
        ("abc", "0800 0300 61626300"),
        (None, ""),
    ],
)
def test_an_attribute_is_length_type_value_and_padding(
    value: bytes | str | None, packed: str
) -> None:
    assert attribute(IFLA_IFNAME, value) == bytes.fromhex(packed)


def test_a_number_is_in_the_machines_byte_order() -> None:
    assert attributes(attribute(IFLA_MTU, 1500)) == {IFLA_MTU: struct.pack("=I", 1500)}


def test_attributes_is_the_inverse_of_attribute() -> None:
    chance = random.Random(3)
    for _ in range(200):
        pairs = {
            kind: chance.randbytes(chance.randrange(40)) for kind in chance.sample(range(1, 90), 6)
        }
        assert (
            attributes(b"".join(attribute(kind, value) for kind, value in pairs.items())) == pairs
        )


def test_garbage_ends_the_parsing_instead_of_looping() -> None:
    assert attributes(b"\0" * 64) == {0: b""}
    assert list(unpack(b"\0" * 64))[0][0] == 0
    assert list(unpack(b"short")) == []


def test_a_message_says_its_length_and_asks_for_an_answer() -> None:
    data = pack(Message("odd", 16, 0x400, b"12345"), 7)
    assert nlmsghdr.unpack_from(data) == (21, 16, 0x405, 7, 0)
    assert len(data) == 24


def bytes_of_ip(*arguments: str) -> bytes:
    """Return what `ip` sends to the kernel, by strace; b"" where strace may not trace."""
    command = ["strace", "-e", "trace=sendmsg", "-e", "write=3,4,5", "ip", *arguments]
    said = subprocess.run(command, capture_output=True, text=True).stderr
    assert "Error:" not in said and "invalid" not in said, said
    dumps = re.findall(r"^ \| [0-9a-f]+  ((?:[0-9a-f]{2} +)+)", said, re.MULTILINE)
    return bytes.fromhex("".join(dumps))


def compare_bytes() -> list[tuple[str, str]]:
    pairs = []
    for ours, command in (
        (link_new_bridge("br0"), "link add br0 up type bridge"),
        (link_new_veth("left", "right"), "link add left up type veth peer name right"),
        (address_add(2, "10.7.0.1", 24), "address add 10.7.0.1/24 dev br0"),
        (route_add_default("10.7.0.9"), "route add default via 10.7.0.9"),
    ):
        [mine] = unpack(pack(ours, 1))
        theirs = list(unpack(bytes_of_ip(*command.split())))[-1:]  # ip may first ask for an index
        pairs.append((readable(*mine), readable(*theirs[0]) if theirs else ""))
    return pairs


def readable(kind: int, flags: int, sequence: int, body: bytes) -> str:
    return f"type {kind} flags {flags:#x} {body.hex(' ', 4)}"


@root
def test_our_bytes_are_those_of_ip() -> None:
    if not shutil.which("strace") or not shutil.which("ip"):
        cannot_run_here("strace and ip are not installed (remedy: apt install strace iproute2)")
    for ours, theirs in alone(compare_bytes):
        if not theirs:
            cannot_run_here("strace may not trace (remedy: sysctl kernel.yama.ptrace_scope=1)")
        assert ours == theirs


# --- requests -----------------------------------------------------------------------------------


def errors_in_words() -> None:
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0"))
        for message, code, words in (
            (link_new_bridge("br0"), errno.EEXIST, r"add bridge 'br0': File exists"),
            (link_new_veth("br0", "x"), errno.EEXIST, r"add veth 'br0': File exists"),
            (link_delete("none"), errno.ENODEV, r"delete link 'none': No such device"),
            (link_new_bridge("x" * 16), errno.ERANGE, r"add bridge 'x+': .*"),
            (
                route_add_default("9.9.9.9"),
                errno.ENETUNREACH,
                r"add default route by 9\.9\.9\.9: .*",
            ),
            (
                address_add(2, "10.0.0.1", 40),
                errno.EINVAL,
                # Linux 6.1 has no sentence of its own for it
                r"add address 10\.0\.0\.1/40: (.*prefix length.*|Invalid argument)",
            ),
        ):
            try:
                netlink.request(message)
            except OSError as error:
                assert error.errno == code, error
                assert re.fullmatch(words, str(error.strerror)), error
            else:
                raise AssertionError(f"{message.what}: no error")
        assert find_link(netlink, "br0").kind == "bridge"  # the socket is still in step


@root
def test_errors_say_what_was_tried_and_what_the_kernel_says() -> None:
    alone(errors_in_words)


def batch_with_a_bad_one() -> None:
    with Netlink() as netlink:
        messages = [link_new_bridge(name) for name in ("one", "one", "two", "x" * 16, "three")]
        with pytest.raises(FileExistsError, match="add bridge 'one'"):
            netlink.request(*messages)
        names = {link.name for link in list_links(netlink)}
        assert {"one", "two", "three"} <= names


@root
def test_a_batch_reports_its_first_error_and_does_the_rest() -> None:
    alone(batch_with_a_bad_one)


def many_links() -> None:
    with Netlink() as netlink:
        for n in range(60):
            netlink.request(link_new_veth(f"left{n}", f"right{n}"))
        links = list_links(netlink)
        by_index = {link.ifindex: link for link in links}
        cables = [link for link in links if link.kind == "veth"]
        assert len(cables) == 120
        for link in cables:
            assert by_index[link.peer].peer == link.ifindex
            assert link.up == link.name.startswith("left")
        assert len({link.mac for link in cables}) == 120


@root
def test_a_long_list_comes_in_many_datagrams() -> None:
    alone(many_links)


def as_ip_sees_it() -> None:
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0", "02:42:0a:07:00:01"))
        br0 = find_link(netlink, "br0")
        netlink.request(link_new_veth("port", "other", None, br0.ifindex, "02:42:0a:07:00:02"))
        other = find_link(netlink, "other")
        netlink.request(
            link_set("other", up=True, mtu=1400),
            address_add(other.ifindex, "10.7.0.2", 24),
            route_add_default("10.7.0.1"),
            link_set(find_link(netlink, "port").ifindex, up=False),
            link_set(find_link(netlink, "port").ifindex, name="renamed"),
        )
        ours = {link.name: link for link in list_links(netlink)}
        routes = [route for route in list_routes(netlink) if route.table == RT_TABLE_MAIN]
    ips = {link["ifname"]: link for link in ip_json("-d", "address")}
    for name in ("br0", "renamed", "other"):
        link, seen = ours[name], ips[name]
        assert (link.ifindex, link.mac, link.mtu) == (seen["ifindex"], seen["address"], seen["mtu"])
        assert link.kind == seen["linkinfo"]["info_kind"]
        assert link.up == ("UP" in seen["flags"])
    assert ips["renamed"]["master"] == "br0" and ours["renamed"].master == br0.ifindex
    assert ips["other"]["address"] == "02:42:0a:07:00:02" and ips["other"]["mtu"] == 1400
    [address] = [x for x in ips["other"]["addr_info"] if x["family"] == "inet"]
    assert (address["local"], address["prefixlen"]) == ("10.7.0.2", 24)
    listed = {(x["dst"], x.get("gateway", "")) for x in ip_json("-4", "route")}
    assert {
        (f"{r.destination}/{r.prefix}" if r.destination else "default", r.gateway) for r in routes
    } == listed


@root
@needs_ip
def test_ip_reads_what_we_wrote() -> None:
    alone(as_ip_sees_it)


def what_ip_wrote() -> None:
    batch = """link add br0 up type bridge
    link add port up master br0 type veth peer name other
    link set br0 mtu 1450
    address add 10.8.0.1/20 dev br0
    address add 10.8.16.1/32 dev br0
    route add 10.9.0.0/16 via 10.8.0.77
    """
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    with Netlink() as netlink:
        links = {link.name: link for link in list_links(netlink)}
        addresses = {(a.ifindex, a.ip, a.prefix) for a in list_addresses(netlink)}
        routes = list_routes(netlink)
    br0 = links["br0"]
    assert (br0.kind, br0.mtu, br0.up, br0.master, br0.peer) == ("bridge", 1450, True, 0, 0)
    assert links["port"].master == br0.ifindex and links["port"].peer == links["other"].ifindex
    assert {(br0.ifindex, "10.8.0.1", 20), (br0.ifindex, "10.8.16.1", 32)} <= addresses
    assert ("10.9.0.0", 16, "10.8.0.77", br0.ifindex, RT_TABLE_MAIN) in routes


@root
@needs_ip
def test_we_read_what_ip_wrote() -> None:
    alone(what_ip_wrote)


def ipv6() -> bool:
    if not os.path.exists("/proc/sys/net/ipv6/conf"):
        return False
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0"))
        index = find_link(netlink, "br0").ifindex
        netlink.request(address_add(index, "fd07::1", 64))
        assert ("fd07::1", 64) in {
            (a.ip, a.prefix) for a in list_addresses(netlink, socket.AF_INET6)
        }
        netlink.request(route_add_default("fd07::9"))
        assert "fd07::9" in {route.gateway for route in list_routes(netlink, socket.AF_INET6)}
    return True


@root
def test_ipv6_goes_the_same_way() -> None:
    if not alone(ipv6):
        cannot_run_here("this kernel has no IPv6")


def test_a_link_without_the_usual_attributes_can_be_read() -> None:
    link = parse_link(bytes(16) + attribute(IFLA_IFNAME, "strange"))
    assert link == (0, "strange", "", False, False, 0, 0, 0, "")


# --- namespaces ---------------------------------------------------------------------------------


def stays_where_it_was() -> None:
    here = os.readlink("/proc/self/ns/net")
    open_files = len(os.listdir("/proc/self/fd"))
    fds = [new_netns(), new_netns()]
    assert os.readlink("/proc/self/ns/net") == here
    assert len({here, *(os.readlink(f"/proc/self/fd/{fd}") for fd in fds)}) == 3
    assert in_netns(fds[0], os.readlink, "/proc/self/ns/net") == os.readlink(
        f"/proc/self/fd/{fds[0]}"
    )
    with pytest.raises(ZeroDivisionError):
        in_netns(fds[0], divmod, 1, 0)
    assert os.readlink("/proc/self/ns/net") == here
    with netlink_in(fds[1]) as netlink:
        netlink.request(link_new_bridge("inside"))
    with Netlink() as netlink, pytest.raises(OSError, match="No such device"):
        find_link(netlink, "inside")
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == open_files


@root
def test_a_visit_ends_where_it_began() -> None:
    alone(stays_where_it_was)


def beside_a_thread() -> None:
    other_fd = new_netns()
    with netlink_in(other_fd) as netlink:
        netlink.request(link_new_bridge("inside"))
    seen: list[set[str]] = []
    visiting, done = threading.Event(), threading.Event()

    def visit() -> None:
        visiting.set()
        done.wait(60)

    thread = threading.Thread(target=in_netns, args=(other_fd, visit))
    thread.start()
    visiting.wait(60)
    try:
        new_netns()
    except OSError as error:
        assert error.errno == errno.EBUSY
        assert "threads" in str(error)
    else:
        raise AssertionError("new_netns in a process with two threads")
    with Netlink() as netlink:  # this thread did not move
        seen.append({link.name for link in list_links(netlink)})
    done.set()
    thread.join()
    while (
        len(os.listdir("/proc/self/task")) > 1
    ):  # join() returns a moment before the kernel's end of it
        time.sleep(0.001)
    refuse_threads("nothing")
    assert "inside" not in seen[0]


@root
def test_threads_are_refused_and_not_dragged_along() -> None:
    alone(beside_a_thread)


def loopback_down_then_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        with pytest.raises(OSError) as caught:
            sender.sendto(b"hello", ("127.0.0.1", 9))
        assert caught.value.errno == errno.ENETUNREACH
        raise_loopback()
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=120).close()
    with Netlink() as netlink:
        assert {address.ip for address in list_addresses(netlink)} == {"127.0.0.1"}


@root
def test_127_0_0_1_is_unreachable_until_lo_is_up() -> None:
    alone(loopback_down_then_up)


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ({"linux": {"namespaces": [{"type": "pid"}, {"type": "network"}]}}, ["bring up lo"]),
        ({"linux": {"namespaces": [{"type": "network", "path": ""}]}}, ["bring up lo"]),
        ({"linux": {"namespaces": [{"type": "network", "path": "/proc/self/fd/3"}]}}, []),
        ({"linux": {"namespaces": [{"type": "pid"}]}}, []),
        ({"linux": {}}, []),
        ({}, []),
    ],
)
def test_only_a_new_network_gets_lo(spec: dict[str, Any], names: list[str]) -> None:
    assert [step.name for step in plan_net(spec)] == names


def two_on_a_bridge() -> None:
    fds = [new_netns(), new_netns()]
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0"))
        for n, fd in enumerate(fds, 2):
            wire(netlink, find_link(netlink, "br0").ifindex, fd, n)
        until(lambda: wait_for_carrier(netlink, "to-2", "to-3", "br0"))
    with in_netns(fds[1], socket.create_server, ("10.7.0.3", 80)) as server:
        server.settimeout(240)
        with in_netns(fds[0], socket.socket) as client:
            client.settimeout(240)
            client.connect(("10.7.0.3", 80))
            _, (peer, _) = server.accept()
    assert peer == "10.7.0.2"
    for fd in fds:
        os.close(fd)
    with Netlink() as netlink:  # the cables go with their namespaces
        until(lambda: all(link.kind != "veth" for link in list_links(netlink)))


def wire(netlink: Netlink, bridge: int, fd: int, n: int) -> None:
    """Connect one namespace, as chapter 3 does."""
    netlink.request(link_new_veth(f"to-{n}", "eth0", fd, bridge))
    with netlink_in(fd) as inside:
        inside.request(
            link_set("lo", up=True),
            link_set("eth0", up=True),
            address_add(find_link(inside, "eth0").ifindex, f"10.7.0.{n}", 24),
            route_add_default("10.7.0.1"),
        )


@root
def test_two_containers_connect_and_leave_no_cable() -> None:
    alone(two_on_a_bridge)


def cable_to_nowhere() -> None:
    with Netlink() as netlink:
        netlink.request(link_new_veth("left", "right"))
        start = time.monotonic()
        assert not wait_for_carrier(netlink, "left")
        assert time.monotonic() - start > 0.09
        assert not find_link(netlink, "left").carrier
        netlink.request(link_set("right", up=True))
        until(lambda: wait_for_carrier(netlink, "left", "right"))


@root
def test_carrier_is_waited_for_and_not_for_ever() -> None:
    alone(cable_to_nowhere)


def first_packet() -> float:
    """Return the seconds that the first datagram of a new container takes to its gateway."""
    fd = new_netns()
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0"))
        bridge = find_link(netlink, "br0").ifindex
        netlink.request(address_add(bridge, "10.7.0.1", 24))
        wire(netlink, bridge, fd, 2)
        wait_for_carrier(netlink, "to-2", "br0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gateway:
        gateway.bind(("10.7.0.1", 7777))
        gateway.settimeout(240)
        start = time.monotonic()
        in_netns(fd, socket.socket, socket.AF_INET, socket.SOCK_DGRAM).sendto(
            b"x", ("10.7.0.1", 7777)
        )
        gateway.recv(9)
        return time.monotonic() - start


@root
def test_the_first_packet_is_not_lost() -> None:
    """One that is lost is sent again after a second; a busy machine is not slow every other time."""
    seconds = sorted(alone(first_packet) for _ in range(20))
    assert seconds[10] < 0.9, seconds


def race() -> tuple[float, float]:
    """Wire five containers by messages and five by `ip`; return the best time of each, in seconds."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    ours, theirs = [], []
    with Netlink() as netlink:
        netlink.request(link_new_bridge("br0"))
        bridge = find_link(netlink, "br0").ifindex
        for n in range(2, 7):
            fd = new_netns()
            start = time.perf_counter()
            wire(netlink, bridge, fd, n)
            ours.append(time.perf_counter() - start)
    for n in range(7, 12):
        subprocess.run(["ip", "netns", "add", f"c{n}"], check=True)
        start = time.perf_counter()
        for command in (
            f"link add to-{n} up master br0 type veth peer name eth0 netns c{n}",
            f"-n c{n} link set lo up",
            f"-n c{n} link set eth0 up",
            f"-n c{n} address add 10.7.0.{n}/24 dev eth0",
            f"-n c{n} route add default via 10.7.0.1",
        ):
            subprocess.run(["ip", *command.split()], check=True)
        theirs.append(time.perf_counter() - start)
    return min(ours), min(theirs)


@root
@needs_ip
def test_messages_are_faster_than_programs(
    record_property: Callable[[str, object], None],
) -> None:
    ours, theirs = alone(race)
    record_property("milliseconds", f"{ours * 1000:.2f} by messages, {theirs * 1000:.2f} by ip")
    assert ours < theirs


def test_the_run_path_stays_cheap() -> None:
    code = "import sys, mini_docker.engine.bridge; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-ISE", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    dear = (
        "typing dataclasses argparse subprocess pathlib logging asyncio contextlib tempfile shutil"
    )
    assert not {*dear.split(), "json", "socket", "ipaddress"} & set(loaded)


def test_the_modules_do_not_look_up() -> None:
    for path, forbidden in (
        ("linux/netlink.py", "mini_docker."),
        ("linux/nft.py", "mini_docker.(?!linux)"),
        ("namespaces/net.py", "mini_docker.(?!linux)"),
        ("engine/bridge.py", "mini_docker.(?!linux)"),
    ):
        text = Path(ROOT, "mini_docker", path).read_text()
        assert not re.search(rf"^\s*(from|import) {forbidden}", text, re.MULTILINE), path
