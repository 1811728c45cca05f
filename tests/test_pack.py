"""The pack of a command's modules: used when all is as it was, made anew when not, never a trouble."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.path[:0] = [{folder!r}, {root!r}]
from mini_docker.linux.pack import Packed
with Packed({package!r} + "/__pycache__", "test"):
    import sample.part as part
print(type(part.__spec__.loader).__name__, part.VALUE, part.__file__, sys.meta_path[0].__name__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("VALUE = 1\n")
    (package / "__pycache__").mkdir()
    return tmp_path


def loaded(folder: Path, user: int | None = None) -> tuple[str, str]:
    """Import in a fresh Python; return who loaded the module, and its value."""
    root = str(Path(__file__).parents[1])
    code = CODE.format(folder=str(folder), root=root, package=f"{folder}/sample")
    words = [sys.executable, "-ISEB", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, user=user)
    assert done.returncode == 0, done.stderr
    loader, value, path, finder = done.stdout.split()
    assert path == f"{folder}/sample/part.py" and finder != "Packed"
    return loader, value


def pack(folder: Path) -> Path:
    (found,) = (folder / "sample" / "__pycache__").glob("*.pack*")
    return found


def test_the_second_start_uses_the_pack_of_the_first(folder: Path) -> None:
    assert loaded(folder) == ("SourceFileLoader", "1")
    assert pack(folder).suffix == ".pack"
    assert loaded(folder) == ("Packed", "1")


def test_a_changed_module_makes_a_new_pack(folder: Path) -> None:
    loaded(folder)
    (folder / "sample" / "part.py").write_text("VALUE = 22\n")
    assert loaded(folder) == ("SourceFileLoader", "22")
    assert loaded(folder) == ("Packed", "22")


def test_a_removed_module_is_not_taken_from_the_pack(folder: Path) -> None:
    loaded(folder)
    (folder / "sample" / "part.py").unlink()
    with pytest.raises(AssertionError, match="No module named 'sample.part'"):
        loaded(folder)


def test_a_copy_of_the_folder_has_modules_of_its_own(folder: Path) -> None:
    loaded(folder)
    copy = folder / "copy"
    shutil.copytree(folder / "sample", copy / "sample")
    (copy / "sample" / "part.py").write_text("VALUE = 333\n")
    assert loaded(copy) == ("SourceFileLoader", "333")
    assert loaded(copy) == ("Packed", "333")


@pytest.mark.parametrize("content", [b"", b"\0", b"[", b"\xff" * 64, b"i\x07\0\0\0"])
def test_a_spoilt_pack_is_made_anew(folder: Path, content: bytes) -> None:
    loaded(folder)
    pack(folder).write_bytes(content)
    assert loaded(folder) == ("SourceFileLoader", "1")
    assert loaded(folder) == ("Packed", "1")


@pytest.mark.root
def test_a_folder_that_is_not_ours_has_no_pack(folder: Path) -> None:
    for path in (folder, *folder.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    assert loaded(folder, user=65534) == ("SourceFileLoader", "1")
    assert not list((folder / "sample" / "__pycache__").iterdir())


@pytest.mark.parametrize("flags", [(), ("-H", "unix:///nobody"), ("--data-root=/nowhere",)])
def test_a_command_of_every_day_has_its_pack_whatever_flags_come_before(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    root = Path(__file__).parents[1]
    unpacked = shutil.ignore_patterns("__pycache__")
    for name in ("labs/bin", "mini_docker/linux", "mini_docker/cli"):
        shutil.copytree(root / name, tmp_path / name, ignore=unpacked)
    shutil.copy(root / "mini_docker" / "__init__.py", tmp_path / "mini_docker")
    words = [f"{tmp_path}/labs/bin/mini_docker", *flags, "run", "--help"]
    assert subprocess.run(words, capture_output=True).returncode == 0
    (made,) = (tmp_path / "mini_docker" / "__pycache__").glob("*.pack")
    assert made.name.startswith("mini_docker-attach.")
