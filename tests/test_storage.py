"""The overlay: plans, long lists of layers, odd paths; and the removal of trees that a container made."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab import run_in_child
from mini_docker.linux.mount import mount
from mini_docker.storage import overlay
from mini_docker.storage.overlay import open_overlay, plan_overlay, remove_tree


def test_a_plan_is_data(tmp_path: Path) -> None:
    planned = plan_overlay(["/low", "/high"], str(tmp_path), volatile=True)
    assert planned == (("/low", "/high"), f"{tmp_path}/upper", f"{tmp_path}/work", True)
    assert os.listdir(tmp_path) == []
    with pytest.raises(ValueError, match="at least one layer"):
        plan_overlay([], str(tmp_path))


def stack(directory: Path, count: int, prefix: str = "layer") -> list[str]:
    """Make `count` layers, each with a file of its own and one that all have, and the two directories."""
    layers = [directory / f"{prefix}{number}" for number in range(count)]
    for number, layer in enumerate(layers):
        layer.mkdir(parents=True)
        (layer / f"own{number}").touch()
        (layer / "top").write_text(f"{number}")
    (directory / "upper").mkdir()
    (directory / "work").mkdir()
    return [str(layer) for layer in layers]


@pytest.mark.parametrize("missing", ["layer1", "upper", "work"])
def test_a_missing_directory_is_named(tmp_path: Path, missing: str) -> None:
    layers = stack(tmp_path, 2)
    subprocess.run(["rm", "-r", tmp_path / missing], check=True)
    with pytest.raises(FileNotFoundError, match=f"overlay: no directory {tmp_path}/{missing}$"):
        open_overlay(plan_overlay(layers, str(tmp_path)))


def seen(planned: overlay.Overlay) -> tuple[list[str], str]:
    """Mount the overlay in this throw-away child; return its names and what the top file says."""
    fd = open_overlay(planned)
    root = f"/proc/self/fd/{fd}"
    Path(root, "changed").write_text("x")
    return sorted(os.listdir(root)), Path(root, "top").read_text()


ODD = {
    "one": (1, "x"),
    "two": (2, "x"),
    "more than 255 bytes of options": (40, "x"),
    "more layers than one overlay takes": (127, "x"),
    "layers with separators in their names": (2, "a:b,c\\d e\n"),
}


@pytest.mark.root
@pytest.mark.parametrize(("count", "prefix"), ODD.values(), ids=ODD)
def test_all_layers_are_seen_the_last_on_top(tmp_path: Path, count: int, prefix: str) -> None:
    outcome = run_in_child(seen, plan_overlay(stack(tmp_path, count, prefix), str(tmp_path)))
    assert outcome.error is None
    names, top = outcome.value
    assert names == sorted(["changed", "top", *(f"own{number}" for number in range(count))])
    assert top == str(count - 1)
    assert (tmp_path / "upper/changed").read_text() == "x"


def around(planned: overlay.Overlay) -> dict[str, bool]:
    """Say what of this process is as it was before, when many layers are stacked by one of its threads."""
    facts: list[object] = []
    for _ in range(2):
        facts += [os.getcwd(), os.readlink("/proc/self/ns/mnt"), os.listdir("/proc/self/fd")]
        if len(facts) == 3:
            with ThreadPoolExecutor() as pool:
                os.close(pool.submit(open_overlay, planned).result())
    facts += [Path("/proc/self/mountinfo").read_text().count("workdir=")]
    names = ("directory", "namespace", "descriptors")
    same = {name: facts[i] == facts[i + 3] for i, name in enumerate(names)}
    return {**same, "no mount": facts[-1] == 0, "no child": not children()}


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.root
def test_many_layers_change_nothing_of_the_process(tmp_path: Path) -> None:
    outcome = run_in_child(around, plan_overlay(stack(tmp_path, 127), str(tmp_path)))
    assert outcome.error is None
    assert all(outcome.value.values()), outcome.value


@pytest.mark.root
def test_too_many_layers_are_an_error_of_the_kernel_s(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(OSError, match="overlay of 501 layers: Invalid argument"):
        open_overlay(plan_overlay(stack(tmp_path, 501), str(tmp_path)))
    assert children() == before


@pytest.mark.root
@pytest.mark.parametrize(
    "name", ["d" * 200, "a:b,c d", "back\\slash"], ids=["long", "marks", "back"]
)
def test_the_data_root_may_have_any_name(tmp_path: Path, name: str) -> None:
    """fsconfig(2) takes 255 bytes of text, and overlay reads a backslash as an escape."""
    directory = tmp_path / name / name
    layers = stack(directory, 2)
    outcome = run_in_child(seen, plan_overlay(layers, str(directory)))
    assert outcome.error is None
    assert (directory / "upper/changed").exists()


@pytest.mark.root
def test_a_refused_overlay_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fstype: str) -> int:
        raise OSError(19, f"fsopen: no {fstype} in this kernel")

    monkeypatch.setattr(overlay, "fsopen", refuse)
    planned = plan_overlay(stack(tmp_path, 2), str(tmp_path))
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="no overlay in this kernel"):
        open_overlay(planned)
    assert os.listdir("/proc/self/fd") == before


def links(tree: Path) -> None:
    (tree / "absolute").symlink_to(tree.parent / "kept")
    (tree / "relative").symlink_to("../kept")
    (tree / "dangling").symlink_to("nowhere")


def kinds(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "closed").mkdir(mode=0)
    (tree / "hard").hardlink_to(tree.parent / "kept/file")


def names(tree: Path) -> None:
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"x" * 255):
        os.makedirs(os.fsencode(tree / "n") + b"/" + name)


def levels(tree: Path) -> None:
    """1,000 levels: more than Python's recursion and the 1,024 open files of a process allow."""
    above_fd = os.open(tree, os.O_DIRECTORY)
    for _ in range(1000):
        os.mkdir("d", dir_fd=above_fd)
        below_fd = os.open("d", os.O_DIRECTORY, dir_fd=above_fd)
        os.close(above_fd)
        above_fd = below_fd
    os.close(above_fd)


@pytest.mark.root
@pytest.mark.parametrize("fill", [links, kinds, names, levels])
def test_a_tree_goes_and_what_it_points_to_stays(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree").mkdir()
    fill(tmp_path / "tree")
    try:
        for _ in range(2):
            remove_tree(str(tmp_path / "tree"))
            assert os.listdir(tmp_path) == ["kept"]
        assert os.listdir(tmp_path / "kept") == ["file"]
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)


def test_a_tree_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept/file").mkdir(parents=True)
    (tmp_path / "tree").symlink_to("kept")
    with pytest.raises(OSError, match="tree"):
        remove_tree(str(tmp_path / "tree"))
    assert (tmp_path / "kept/file").exists()


@pytest.mark.root
def test_a_mount_is_not_crossed(tmp_path: Path) -> None:
    """A volume that is still mounted holds the user's files: EBUSY, and all of them stay."""

    def attack() -> tuple[int | None, list[str]]:
        mount("tmpfs", f"{tmp_path}/tree/volume", "tmpfs")
        Path(tmp_path, "tree/volume/precious").touch()
        number = None
        try:
            remove_tree(f"{tmp_path}/tree")
        except OSError as error:
            number = error.errno
        return number, os.listdir(f"{tmp_path}/tree/volume")

    (tmp_path / "tree/volume").mkdir(parents=True)
    assert run_in_child(attack).value == (16, ["precious"])


@pytest.mark.parametrize("call", ["unlink", "rmdir"])
def test_two_removals_at_once_are_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """The other one is ahead of us: each name is gone when we come to it."""
    real: Callable[..., None] = getattr(os, call)

    def taken(path: str, **options: Any) -> None:
        real(path, **options)
        real(path, **options)

    (tmp_path / "tree/d").mkdir(parents=True)
    (tmp_path / "tree/f").touch()
    monkeypatch.setattr(os, call, taken)
    remove_tree(str(tmp_path / "tree"))
    assert not (tmp_path / "tree").exists()
