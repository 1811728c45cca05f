"""The dashboard's and the map's plain functions, and the threads under them, without a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mini_docker.lab.dashboard import (
    Dashboard,
    Meter,
    Row,
    act,
    curve,
    log_html,
    log_tail,
    row_html,
    verbs,
)
from mini_docker.lab.live import Live
from mini_docker.lab.netmap import NetMap, Network, draw_map, look_at_networks, ports_of
from mini_docker.lab.playground import Playground, client_of

HOSTILE = '"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def lab() -> Iterator[Playground]:
    playground = Playground()
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}}
    try:
        made = playground.client.json("POST", "/containers/create", {}, body)
        act(
            playground.client, "start", made["Id"]
        )  # the first makes the group that holds all others
        playground.client.call("DELETE", f"/containers/{made['Id']}", {"force": True}).read()
        yield playground
    finally:
        playground.close()


def until(fact: Callable[[], Any]) -> None:
    end = time.monotonic() + 240
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_what_a_container_chose_is_never_markup() -> None:
    row = Row("id", HOSTILE, HOSTILE, "running", HOSTILE, (1.0,), 1)
    for page in (row_html(row), log_html(HOSTILE, HOSTILE)):
        assert "<script" not in page and 'data-name="">' not in page and 'data-log="">' not in page


def test_a_curve_stays_inside() -> None:
    assert "points=''" in curve([]).replace('"', "'")
    heights = [float(p.split(",")[1]) for p in curve([0, 5, 400, 20]).split('"')[5].split()]
    assert min(heights) == 2 and max(heights) == 18


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ("running", ("stop", "pause", "restart", "logs")),
        ("paused", ("unpause", "logs")),
        ("created", ("start", "remove", "logs")),
        ("of a later version", ("start", "remove", "logs")),
    ],
)
def test_buttons_are_those_of_the_state(state: str, wanted: tuple[str, ...]) -> None:
    assert verbs(state) == wanted


def test_ports_of_the_list() -> None:
    ports = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 53, "PublicPort": 53, "Type": "udp"},
        {"PrivatePort": 443, "Type": "tcp"},
    ]
    found = ports_of({"Names": ["/web"], "Ports": ports})
    assert set(found) == {("port 8080", "web", "80/tcp"), ("127.0.0.1 port 53", "web", "53/udp")}
    assert ports_of({"Names": ["/web"], "Ports": None}) == []


def test_a_map_quotes_names_and_shows_who_has_no_way_out() -> None:
    inside = Network("in", "bridge", ("10.0.0.0/24",), False, (('a"b', "10.0.0.2"),))
    picture = draw_map(NetMap((inside,), ()))
    assert "the world" not in picture.text and 'a"b -> in' in picture.text
    assert r"a\"b" in picture.source
    assert draw_map(NetMap((), ())).text == ""


@pytest.mark.root
@pytest.mark.anywhere
@pytest.mark.usefixtures("leak_free")
def test_rows_logs_and_buttons_over_the_api(lab: Playground) -> None:
    name = "tty"
    made = lab.client.json(
        "POST", "/containers/create", {"name": name},
        {"Image": "busybox", "Cmd": ["echo", "raw"], "Tty": True, "HostConfig": {"NetworkMode": "none"}},
    )  # fmt: skip
    act(lab.client, "start", made["Id"])
    until(lambda: log_tail(lab.client, name) == "raw\r\n")
    until(lambda: [row.state for row in Meter().rows(lab.client)] == ["exited"])
    act(lab.client, "remove", made["Id"])
    assert Meter().rows(lab.client) == []


@pytest.mark.root
@pytest.mark.anywhere
def test_a_burst_of_events_is_few_looks_and_the_last_is_seen(lab: Playground) -> None:
    seen: list[list[str]] = []
    slow = threading.Event()

    def look(client: Any) -> None:
        found = client.json("GET", "/containers/json", {"all": True})
        seen.append(sorted(one["Names"][0] for one in found))
        slow.wait()

    live = Live(lab.host, look, seconds=1000)
    try:
        until(lambda: seen)
        ids = [lab.run(f"burst{number}", "exit") for number in range(5)]
        for one in ids[1:]:
            lab.client.call("DELETE", f"/containers/{one}", {"force": True}).read()
        assert len(seen) == 1, "nobody looks twice at once"
        slow.set()
        until(lambda: seen[-1] == ["/burst0"])
        lab.client.call("DELETE", f"/containers/{ids[0]}", {"force": True}).read()
        until(lambda: seen[-1] == [])
        events = 5 * 4  # create, start, die, destroy
        assert live.looks < events
    finally:
        slow.set()
        live.close()


@pytest.mark.root
@pytest.mark.anywhere
def test_the_window_says_refusals_and_that_nobody_answers(lab: Playground) -> None:
    pytest.importorskip("ipywidgets", reason="cannot run here, because there is no ipywidgets")
    web = lab.run("web", "exec sleep 1000")
    window = Dashboard(lab.host, "of-a-test")
    try:
        until(lambda: "1 containers, 1 running" in window.top.value)
        window.press("unpause", web)
        until(lambda: "is not paused" in window.top.value)
        lab.kill()
        until(lambda: window.top.value == "no daemon answers")
        lab.start()
        until(lambda: "1 containers, 1 running" in window.top.value)
        lab.client.call("DELETE", f"/containers/{web}", {"force": True}).read()
        until(lambda: "0 containers, 0 running" in window.top.value)
        assert window.rows.children == () and window.log.value == ""
    finally:
        window.close()


@pytest.mark.root
@pytest.mark.anywhere
def test_a_map_of_a_living_daemon(lab: Playground) -> None:
    pools = {"Config": [{"Subnet": "10.71.0.0/24"}, {"Subnet": "fd00:71::/64"}]}
    lab.client.json(
        "POST", "/networks/create", None, {"Name": "two", "EnableIPv6": True, "IPAM": pools}
    )
    one = lab.run("one", "exec sleep 1000", "two", PortBindings={"80/tcp": [{"HostPort": "8080"}]})
    assert draw_map(look_at_networks(lab.client)).text.splitlines() == [
        "two (bridge): 10.71.0.0/24 fd00:71::/64",
        "port 8080 -> one   (80/tcp)",
        "one -> two (bridge)   (10.71.0.2\nfd00:71::2)".splitlines()[0],
        "fd00:71::2)",
        "two (bridge) -> the world",
    ]
    lab.client.call("DELETE", f"/containers/{one}", {"force": True}).read()
    assert look_at_networks(lab.client).networks == ()
    lab.client.call("DELETE", "/networks/two").read()


def test_a_client_starts_no_daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert client_of().endpoint.root == ""
