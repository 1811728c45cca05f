"""Pictures: the text is the same in every run and says what the drawing says."""

from __future__ import annotations

import os
import shutil

import pytest

from mini_docker.lab import draw_graph, draw_membership, draw_namespaces, namespaces_of
from tests.conftest import cannot_run_here

MEMBERS = {
    "host shell": {"pid": 4026531836, "mnt": 1, "uts": 7},
    "A's child": {"pid": 4026532999, "mnt": 2, "uts": 7},
    "B": {"pid": 4026532999, "mnt": 3, "uts": 7},
}


def test_letters_stand_for_namespaces() -> None:
    assert draw_membership(MEMBERS).text == (
        "mnt     A: host shell   B: A's child   C: B\n"
        "pid     A: host shell   B: A's child, B\n"
        "uts     A: host shell, A's child, B"
    )


def test_kinds_are_chosen_and_ordered() -> None:
    text = draw_membership(MEMBERS, ("uts", "pid", "time")).text
    assert [line.split()[0] for line in text.splitlines()] == ["uts", "pid"]


def test_living_processes() -> None:
    picture = draw_namespaces({"me": "self", "also me": os.getpid()}, kinds=("net",))
    assert repr(picture) == "net     A: me, also me"
    assert namespaces_of()["pid"] == namespaces_of(os.getpid())["pid"]
    with pytest.raises(FileNotFoundError):
        namespaces_of(2**22 + 1)


def test_no_inode_number_in_any_form() -> None:
    picture = draw_membership(MEMBERS)
    assert all("40265" not in form for form in (picture.source, picture.text, picture.svg() or ""))


def test_graph() -> None:
    picture = draw_graph(
        {"v0": "veth0\n(host)", "br": 'the "bridge"', "c": "eth0", "x": "alone"},
        [("v0", "br"), ("v0", "c", "pair")],
        groups={"container": ["c"]},
    )
    assert picture.text == (
        'veth0: (host)\n[container] eth0\nveth0 -> the "bridge"\nveth0 -> eth0   (pair)\nalone'
    )
    assert 'label="the \\"bridge\\""' in picture.source


def test_svg() -> None:
    if shutil.which("dot") is None:
        cannot_run_here("graphviz is not installed")
    bundle = draw_graph(["a", "b"], [("a", "b")])._repr_mimebundle_()
    assert bundle["text/plain"] == "a -> b"
    assert bundle["image/svg+xml"].startswith("<svg")
    assert "graphviz version" not in bundle["image/svg+xml"]


def test_without_dot_there_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert draw_graph(["a"], [])._repr_mimebundle_() == {"text/plain": "a"}
