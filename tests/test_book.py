"""The book's tools on a small book of their own, in a temporary folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from mini_docker.lab.book.__main__ import main
from mini_docker.lab.book.check import HEADINGS
from mini_docker.lab.book.execute import normalise
from mini_docker.lab.book.notebook import (
    METADATA,
    BookError,
    find_root,
    jupyter_text,
    read_notebook,
)

CALLS = '''
# %% [markdown] id="title"
# # Toy

# %% id="module"
#| default_exp linux.calls

# %% id="imports" tags=["quick"]
#| export
"""Calls."""

from __future__ import annotations

import os

# %% id="limit" tags=["quick"]
#| export
LIMIT = 3

# %% id="double" tags=["quick"]
#| export
def double(n: int) -> int:
    """Return twice n."""
    return 2 * n

# %% id="use" tags=["quick"]
# cd is no magic here
print(double(LIMIT), os.sep)
'''

INIT = '# Exported by mini_docker.lab.book.\n\n"""The modules of {}."""\n'


class Toy:
    """A root folder with notebooks, and the tool run on it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capsys = capsys
        (root / "notebooks").mkdir()

    def write(self, name: str, text: str) -> Path:
        """Make or update a notebook from py:percent text."""
        percent = self.root / "notebooks" / f"{name}.py"
        percent.write_text(text.lstrip("\n"))
        assert self.run("untext", name, "--force") == (0, f"notebooks/{name}.ipynb: written\n", "")
        percent.unlink()
        return percent.with_suffix(".ipynb")

    def run(self, *argv: str) -> tuple[int, str, str]:
        """Run one command; return its status, stdout and stderr."""
        status = main(argv, self.root)
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def says(self, *argv: str) -> str:
        """Run one command that must succeed; return its stdout."""
        status, out, err = self.run(*argv)
        assert (status, err) == (0, ""), out + err
        return out

    def refuses(self, *argv: str) -> str:
        """Run one command that must fail; return all it says."""
        status, out, err = self.run(*argv)
        assert status == 1
        return out + err

    def files(self) -> dict[str, str]:
        """Return every exported file and its text."""
        found = self.root.glob("mini_docker/**/*.py")
        return {path.relative_to(self.root).as_posix(): path.read_text() for path in found}

    def cell(self, name: str, cell_id: str) -> dict[str, Any]:
        """Return one cell of a stored notebook, its source joined."""
        cells = read_notebook(self.root / "notebooks" / f"{name}.ipynb")["cells"]
        found: dict[str, Any] = next(cell for cell in cells if cell["id"] == cell_id)
        return found

    def change(self, file: str, old: str, new: str, seconds: int = 10) -> None:
        """Edit a file, so many seconds after (or before) everything else was written."""
        path = self.root / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        stamp = path.stat().st_mtime + seconds
        os.utime(path, (stamp, stamp))


@pytest.fixture
def toy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Toy:
    return Toy(tmp_path, capsys)


# --- export ---------------------------------------------------------------------------------


def test_export_writes_the_cells_under_their_markers(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    assert "wrote mini_docker/linux/calls.py\n" in toy.says("export")
    assert toy.files() == {
        "mini_docker/__init__.py": INIT.format("mini_docker"),
        "mini_docker/linux/__init__.py": INIT.format("mini_docker.linux"),
        "mini_docker/linux/calls.py": '''\
# Exported from notebooks/01_calls.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/01_calls.ipynb#imports
"""Calls."""

from __future__ import annotations

import os

# %% notebooks/01_calls.ipynb#limit
LIMIT = 3


# %% notebooks/01_calls.ipynb#double
def double(n: int) -> int:
    """Return twice n."""
    return 2 * n
''',
    }
    assert toy.says("export") == "modules up to date: 3\n"
    assert toy.says("export", "--check") == "modules up to date: 3\n"


def test_exported_modules_pass_ruff(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    toy.says("export")
    settings = [
        "--config",
        str(ROOT / "pyproject.toml"),
        "--no-cache",
        str(toy.root / "mini_docker"),
    ]
    for command in (["check", "--ignore=F401"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_two_notebooks_share_a_module_in_their_order(toy: Toy) -> None:
    toy.write("02_more", '# %% id="more"\n#| export linux.calls\nMORE = 4\n')
    toy.write("01_calls", CALLS)
    toy.says("export")
    text = toy.files()["mini_docker/linux/calls.py"]
    assert text.startswith("# Exported from notebooks/01_calls.ipynb and 1 more by ")
    assert text.index("LIMIT = 3") < text.index("# %% notebooks/02_more.ipynb#more\nMORE = 4\n")


def test_a_module_with_submodules_is_the_init_of_its_folder(toy: Toy) -> None:
    toy.write(
        "01_calls",
        '# %% id="top"\n#| export __init__\n"""Top."""\n\n'
        '# %% id="lab"\n#| export lab.__init__\n"""Lab."""\n\n'
        '# %% id="linux"\n#| export linux\n"""Linux."""\n\n'
        '# %% id="calls"\n#| export linux.calls\n"""Calls."""\n',
    )
    toy.says("export")
    assert set(toy.files()) == {
        "mini_docker/__init__.py",
        "mini_docker/lab/__init__.py",
        "mini_docker/linux/__init__.py",
        "mini_docker/linux/calls.py",
    }
    assert '"""Linux."""' in toy.files()["mini_docker/linux/__init__.py"]


def test_check_lists_what_is_stale_and_writes_nothing(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    said = toy.refuses("export", "--check")
    assert "stale: mini_docker/linux/calls.py\n" in said
    assert toy.files() == {}


def test_a_renamed_module_leaves_nothing_behind(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    toy.says("export")
    (toy.root / "mini_docker/linux/__pycache__").mkdir()
    hand = toy.root / "mini_docker" / "by_hand.py"
    hand.write_text('"""Not exported, so not ours to remove."""\n')
    toy.write("01_calls", CALLS.replace("linux.calls", "kernel.calls"))
    assert "stale: mini_docker/linux/calls.py" in toy.refuses("export", "--check")
    assert "removed mini_docker/linux/calls.py" in toy.says("export")
    assert not (toy.root / "mini_docker/linux").exists()
    assert hand.exists()
    assert "mini_docker/kernel/calls.py" in toy.files()


def test_an_init_written_by_hand_stays_until_a_cell_exports_it(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    init = toy.root / "mini_docker" / "linux" / "__init__.py"
    init.parent.mkdir(parents=True)
    init.write_text('"""By hand."""\n')
    toy.says("export")
    assert init.read_text() == '"""By hand."""\n'
    toy.write("02_init", '# %% id="init"\n#| export linux\n"""By a cell."""\n')
    toy.says("export", "--force")
    assert '"""By a cell."""' in init.read_text()


def test_export_keeps_a_module_edited_after_its_notebook(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    toy.says("export")
    toy.change("mini_docker/linux/calls.py", "2 * n", "n + n")
    said = toy.refuses("export")
    assert said.startswith("kept mini_docker/linux/calls.py: edited after its notebook")
    assert "n + n" in toy.files()["mini_docker/linux/calls.py"]
    toy.says("export", "--force")
    assert "2 * n" in toy.files()["mini_docker/linux/calls.py"]


def test_a_fault_elsewhere_does_not_stop_the_export_of_one_notebook(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    toy.write("02_draft", '# %% id="half"\n#| export draft\ndef half(\n')
    assert "notebooks/02_draft.ipynb#half:2: " in toy.refuses("export")
    toy.says("export", "01_calls")
    assert set(toy.files()) == {
        "mini_docker/__init__.py",
        "mini_docker/linux/__init__.py",
        "mini_docker/linux/calls.py",
    }


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ('# %% id="a"\n#| export x\nprint(1\n', "#a:2: '(' was never closed"),
        (
            '# %% id="a"\n#| export x\nX = 1\n!ls\n',
            "#a:3: a magic or '!' command cannot be exported",
        ),
        (
            '# %% id="a"\n#| export x\n\n%time 1\n',
            "#a:3: a magic or '!' command cannot be exported",
        ),
        ('# %% id="a"\n#| export x\nY = !ls\n', "#a:2: a magic or '!' command cannot be exported"),
        ('# %% id="a"\n#| export\nX = 1\n', "#a:1: '#| export' before any '#| default_exp MODULE'"),
        ('# %% id="a"\n#| export x-y\nX = 1\n', "#a:1: not a module's name: 'x-y'"),
        ('# %% id="a"\n#| export x.class\nX = 1\n', "#a:1: not a module's name: 'x.class'"),
        ('# %% id="a"\n#| default_exp\n', "#a:1: not a module's name: ''"),
        ('# %% id="a"\n#| exprot x\nX = 1\n', "#a:1: unknown directive '#| exprot'"),
        (
            '# %% id="a"\nX = 1\n#| export x\n',
            "#a:2: directives stand on the first lines of a cell",
        ),
        (
            '# %% id="a"\n#| export x\ndef f(): pass\n\n# %% id="b"\n#| export x\n\n\nf = 1\n',
            "#b:4: f is defined twice in the module, first in notebooks/01_bad.ipynb#a:2",
        ),
        (
            '# %% id="a"\n#| export x\nA, B = 1, 2\n\n# %% id="b"\n#| export x\nclass B: pass\n',
            "#b:2: B is defined twice in the module, first in notebooks/01_bad.ipynb#a:2",
        ),
        (
            '# %% id="a"\n#| export x\nX = 1\n\n'
            '# %% id="b"\n#| export x\nfrom __future__ import annotations\n',
            "#b:2: from __future__ belongs to the first cell of the module",
        ),
    ],
)
def test_export_rejects(toy: Toy, cells: str, words: str) -> None:
    toy.write("01_bad", cells)
    assert toy.refuses("export").splitlines() == [f"notebooks/01_bad.ipynb{words}"]
    assert toy.files() == {}


def test_one_name_may_live_in_two_modules(toy: Toy) -> None:
    toy.write("01_two", '# %% id="a"\n#| export x\nX = 1\n\n# %% id="b"\n#| export y\nX = 1\n')
    toy.says("export")
    assert all("X = 1" in toy.files()[f"mini_docker/{name}.py"] for name in "xy")


def test_export_rejects_ids_that_are_missing_or_repeated(toy: Toy) -> None:
    path = toy.write("01_calls", CALLS)
    notebook = json.loads(path.read_text())
    notebook["cells"][3]["id"] = "imports"
    del notebook["cells"][5]["id"]
    path.write_text(json.dumps(notebook))
    assert toy.refuses("export").splitlines() == [
        "notebooks/01_calls.ipynb#imports:1: two cells have this id",
        "notebooks/01_calls.ipynb#(cell 6):1: the cell has no id",
    ]


def test_a_file_that_is_no_notebook(toy: Toy) -> None:
    (toy.root / "notebooks/01_x.ipynb").write_text("{")
    assert toy.refuses("export").startswith("notebooks/01_x.ipynb: not a notebook: ")


# --- carry ----------------------------------------------------------------------------------


def test_carry_brings_an_edit_back_and_keeps_outputs(toy: Toy) -> None:
    path = toy.write("01_calls", CALLS)
    notebook = json.loads(path.read_text())
    notebook["cells"][4]["outputs"] = [{"name": "stdout", "output_type": "stream", "text": ["6\n"]}]
    path.write_text(jupyter_text(notebook))
    toy.says("export")
    toy.change("mini_docker/linux/calls.py", "    return 2 * n", "    return n + n")
    assert toy.says("carry") == "carried notebooks/01_calls.ipynb#double\nnow: execute\n"
    cell = toy.cell("01_calls", "double")
    assert cell["source"].startswith("#| export\ndef double")
    assert cell["source"].endswith("    return n + n")
    assert cell["outputs"][0]["text"] == ["6\n"]
    toy.says("export", "--check")
    assert toy.says("carry") == "nothing to carry\n"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("#double", "#treble", "01_calls.ipynb#treble is no exported cell"),
        (
            "# %% notebooks/01_calls.ipynb#limit\n",
            "",
            "the block of notebooks/01_calls.ipynb#limit is missing",
        ),
        (
            "LIMIT = 3",
            "LIMIT = 3\n\n\n# %% notebooks/01_calls.ipynb#use\nX = 1",
            "#use is no exported cell",
        ),
        (
            "LIMIT = 3",
            "LIMIT = 3\n\n\n# %% notebooks/01_calls.ipynb#limit\nX = 1",
            "repeated, or not in the order",
        ),
        (
            "not here.\n",
            "not here.\nimport sys\n",
            "calls.py:1: text above the first marker belongs to no cell",
        ),
        ("# Exported from", "# From", "calls.py: written by hand, it has no markers"),
    ],
)
def test_carry_refuses(toy: Toy, old: str, new: str, words: str) -> None:
    path = toy.write("01_calls", CALLS)
    toy.says("export")
    before = path.read_bytes()
    toy.change("mini_docker/linux/calls.py", old, new)
    assert words in toy.refuses("carry")
    assert path.read_bytes() == before


def test_carry_refuses_when_the_notebook_is_newer(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    toy.says("export")
    toy.change("mini_docker/linux/calls.py", "2 * n", "n + n", seconds=-1000)
    assert "its notebook is newer" in toy.refuses("carry")
    assert "carried" in toy.says("carry", "--force")


def test_carry_of_one_module(toy: Toy) -> None:
    toy.write("01_calls", CALLS)
    toy.says("export")
    assert toy.says("carry", "mini_docker/linux/calls.py") == "nothing to carry\n"
    assert toy.refuses("carry", "mini_docker/x.py") == "no notebook exports mini_docker/x.py\n"


# --- text and untext ------------------------------------------------------------------------


def test_text_and_untext_are_inverse(toy: Toy) -> None:
    path = toy.write("01_calls", CALLS)
    before = path.read_bytes()
    assert toy.says("text", "01_calls") == "notebooks/01_calls.py: written\n"
    text = path.with_suffix(".py").read_text()
    assert '# %% id="use" tags=["quick"]\n# cd is no magic here\n' in text
    assert '# %% [markdown] id="title"\n# # Toy\n' in text
    assert toy.says("untext", "notebooks/01_calls.py") == "notebooks/01_calls.ipynb: unchanged\n"
    assert path.read_bytes() == before


def test_untext_keeps_outputs_of_unchanged_cells(toy: Toy) -> None:
    path = toy.write("01_calls", CALLS)
    notebook = json.loads(path.read_text())
    output = {"name": "stdout", "output_type": "stream", "text": ["6 /\n"]}
    for cell in notebook["cells"][4:]:
        cell |= {"outputs": [output], "execution_count": 4}
    path.write_text(jupyter_text(notebook))
    toy.write("01_calls", CALLS.replace("2 * n", "n + n"))
    assert toy.cell("01_calls", "double")["outputs"] == []
    assert toy.cell("01_calls", "double")["execution_count"] is None
    assert toy.cell("01_calls", "use")["outputs"] == [output]
    assert toy.cell("01_calls", "use")["execution_count"] == 4


def test_untext_refuses_missing_and_repeated_ids(toy: Toy) -> None:
    path = toy.root / "notebooks" / "01_x.py"
    path.write_text("# %%\nX = 1\n")
    assert toy.refuses("untext", "01_x") == "notebooks/01_x.py: a cell has no id: 'X = 1'\n"
    path.write_text('# %% id="a"\nX = 1\n\n# %% id="a"\nY = 1\n')
    assert toy.refuses("untext", "01_x") == "notebooks/01_x.py: two cells have the id a: 'Y = 1'\n"
    assert toy.refuses("untext", "01_y") == "no such file: notebooks/01_y.py\n"


def test_text_and_untext_do_not_lose_the_newer_edit(toy: Toy) -> None:
    path = toy.write("01_calls", CALLS)
    toy.says("text", "01_calls")
    toy.change("notebooks/01_calls.py", "2 * n", "n + n")
    assert "is newer than the notebook" in toy.refuses("text", "01_calls")
    os.utime(path, (path.stat().st_mtime + 20,) * 2)
    assert "is newer than the text" in toy.refuses("untext", "01_calls")
    assert toy.says("untext", "01_calls", "--force").endswith("written\n")
    assert "n + n" in toy.cell("01_calls", "double")["source"]


# --- execute --------------------------------------------------------------------------------


RUNS = """
# %% id="environment" tags=["quick"]
import os
import sys
import time

print(os.path.basename(os.getcwd()), "PYTEST_CURRENT_TEST" in os.environ)
print("to stderr", file=sys.stderr)
print("predictions from before:", os.path.exists(os.environ["MINI_DOCKER_LAB_DIR"]))

# %% id="child"
write, said = sys.stdout.write, []
sys.stdout.write = lambda text: said.append(text) or write(text)
os.system("echo from a child")
while 'from a child' not in ''.join(said):  # it comes through a pipe and another thread
    time.sleep(0.01)
del sys.stdout.write

# %% id="value"
X = object()
X

# %% id="widget"
from ipywidgets import IntSlider

slider = IntSlider()
display(slider, slider, IntSlider())

# %% id="wrong" tags=["expected-failure"]
raise ValueError("as expected")

# %% id="quick-end" tags=["quick"]
sys.byteorder == os.sep
"""


def test_executing_twice_gives_the_same_bytes(toy: Toy) -> None:
    path = toy.write("x_runs", RUNS)
    assert toy.says("execute", "x_runs").endswith("  written\n")
    assert toy.cell("x_runs", "environment")["outputs"] == [
        {
            "name": "stdout",
            "output_type": "stream",
            "text": ["notebooks False\n", "predictions from before: False\n"],
        },
        {"name": "stderr", "output_type": "stream", "text": ["to stderr\n"]},
    ]
    assert toy.cell("x_runs", "child")["outputs"][0]["text"] == ["from a child\n"]
    assert toy.cell("x_runs", "value")["outputs"][0]["data"]["text/plain"] == ["<object at 0x0>"]
    models = [
        output["data"]["application/vnd.jupyter.widget-view+json"]["model_id"]
        for output in toy.cell("x_runs", "widget")["outputs"]
    ]
    assert models == ["0" * 31 + digit for digit in "112"]
    assert toy.cell("x_runs", "wrong")["outputs"][0]["traceback"] == ["ValueError: as expected"]
    assert toy.says("check") == "notebooks in normal form: 1\n"

    before = path.read_bytes()
    assert toy.says("execute", "x_runs", "--check").endswith("  same\n")
    assert toy.says("execute", "x_runs", "--quick").endswith("  quick cells run alone\n")
    path.write_text(path.read_text().replace('"from a child', '"of another run'))
    said = toy.refuses("execute", "x_runs", "--check")
    assert "notebooks/x_runs.ipynb#child differs\n" in said
    assert '-    "of another run\\n"\n+    "from a child\\n"\n' in said
    assert toy.says("execute", "x_runs").endswith("  written\n")
    assert path.read_bytes() == before


def test_a_failing_cell_is_named_and_nothing_written(toy: Toy) -> None:
    path = toy.write("x_fails", '# %% id="ok"\nX = 1\n\n# %% id="bad"\nX += 1\nprint(Y)\n')
    before = path.read_bytes()
    assert toy.refuses("execute", "x_fails") == (
        "notebooks/x_fails.ipynb#bad:2: NameError: name 'Y' is not defined\n    print(Y)\n"
    )
    assert path.read_bytes() == before


def test_normalise_is_idempotent() -> None:
    output = {"output_type": "execute_result", "execution_count": 7, "data": {"text/plain": "1"}}
    code = {
        "cell_type": "code",
        "id": "a",
        "source": "1",
        "execution_count": 7,
        "metadata": {"execution": {"iopub.busy": "now"}, "tags": ["quick"]},
        "outputs": [output],
    }
    notebook = {"cells": [code], "metadata": {"widgets": {}}, "nbformat": 4, "nbformat_minor": 4}
    normalise(notebook)
    once = json.dumps(notebook)
    assert (code["execution_count"], output["execution_count"]) == (1, 1)
    assert code["metadata"] == {"tags": ["quick"]}
    normalise(notebook)
    assert json.dumps(notebook) == once


# --- nbval, as the root conftest sets it up --------------------------------------------------

PICTURE = """
# %% id="picture"
import os
import sys
import time

from IPython.display import SVG

display(SVG(f"<svg xmlns='http://www.w3.org/2000/svg'>{6 * 7}</svg>"))
print("PYTEST_CURRENT_TEST" in os.environ)

# %% id="child"
write, said = sys.stdout.write, []
sys.stdout.write = lambda text: said.append(text) or write(text)
os.system("echo from a child")
while 'from a child' not in ''.join(said):  # it comes through a pipe and another thread
    time.sleep(0.01)
del sys.stdout.write
"""


def nbval(toy: Toy, name: str) -> subprocess.CompletedProcess[str]:
    """Run pytest --nbval on a notebook, under the repository's root conftest."""
    for file in ("conftest.py", "tests/nbval_sanitize.cfg"):
        (toy.root / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, toy.root / file)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval"]
        + [f"notebooks/{name}.ipynb"],
        cwd=toy.root,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def test_nbval_compares_text_but_of_a_picture_only_that_it_is_there(toy: Toy) -> None:
    path = toy.write("x_picture", PICTURE)
    toy.says("execute", "x_picture")
    stored = path.read_text()
    assert ">42<" in stored
    path.write_text(stored.replace(">42<", ">drawn by another graphviz<"))
    done = nbval(toy, "x_picture")
    assert done.returncode == 0, done.stdout
    path.write_text(stored.replace("image/svg+xml", "image/gif"))
    assert "Missing output fields" in nbval(toy, "x_picture").stdout
    path.write_text(stored.replace('"from a child', '"from somewhere'))
    assert "Cell outputs differ" in nbval(toy, "x_picture").stdout


# --- check ----------------------------------------------------------------------------------


def faults(toy: Toy, name: str, **changes: Any) -> list[str]:
    """Return what `check` says of a notebook of one code cell with the changes made to it."""
    path = toy.root / "notebooks" / f"{name}.ipynb"
    cell = {
        "cell_type": "code",
        "id": "a",
        "source": "1",
        "execution_count": 1,
        "metadata": {},
        "outputs": [],
    } | {key: value for key, value in changes.items() if key != "notebook"}
    if cell["cell_type"] == "markdown":
        del cell["outputs"], cell["execution_count"]
    notebook = {"cells": [cell], "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(jupyter_text(notebook | changes.get("notebook", {})))
    status, out, err = toy.run("check", name)
    assert (status, err) == (int("normal form" not in out or "#" in out), "")
    return [line.removeprefix(f"notebooks/{name}.ipynb") for line in out.splitlines()]


def stream(text: str) -> list[dict[str, Any]]:
    """Return the outputs of a cell that printed the text."""
    return [{"name": "stdout", "output_type": "stream", "text": [text]}]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"execution_count": None}, "#a: execution count None, not 1 (execute the notebook)"),
        ({"execution_count": 3}, "#a: execution count 3, not 1 (execute the notebook)"),
        ({"metadata": {"tags": ["quikc"]}}, "#a: unknown tag 'quikc'"),
        ({"metadata": {"execution": {}}}, "#a: metadata 'execution' (execute the notebook)"),
        ({"id": "8f3a"}, "#8f3a: not a readable id (small letters, digits, hyphens)"),
        ({"notebook": {"metadata": {}}}, ": its metadata is not the fixed one (execute it)"),
        ({"outputs": stream("<A at 0x7f00aa>")}, "#a: an address in its output: at 0x7f00aa"),
        (
            {"outputs": stream("net:[4026532]")},
            "#a: a namespace's inode number in its output: net:[4026532]",
        ),
        (
            {"outputs": stream("/tmp/tmpab12/x")},
            "#a: a path of one machine in its output: /tmp/tmpab12",
        ),
        (
            {"outputs": [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]},
            "#a: stored error E, and no tag 'expected-failure'",
        ),
        (
            {"cell_type": "markdown", "source": "[x](02_y.ipynb)"},
            "#a: the link to 02_y.ipynb leads nowhere",
        ),
    ],
)
def test_check_finds(toy: Toy, changes: dict[str, Any], words: str) -> None:
    assert faults(toy, "x_form", **changes) == [words]


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": stream("CLONE_NEWPID 0x20000000, /proc/self/ns, pid == 1, /tmp/x, /root")},
        {
            "cell_type": "markdown",
            "source": "[x](x_form.ipynb#a) [y](https://e.org) `[z](no)` [w](#a)",
        },
        {"metadata": {"tags": ["quick", "exercise", "hide-input"]}},
    ],
)
def test_check_accepts(toy: Toy, changes: dict[str, Any]) -> None:
    assert faults(toy, "x_form", **changes) == ["notebooks in normal form: 1"]


def test_check_finds_the_path_of_the_checkout(toy: Toy) -> None:
    said = faults(toy, "x_form", outputs=stream(f"{toy.root}/mini_docker"))
    assert said[-1].startswith("#a: the path of this checkout in its output: ")


def test_check_knows_the_parts_of_a_chapter(toy: Toy) -> None:
    parts = list(HEADINGS)
    prose = "# 6. UTS\n\n" + "\n\n".join(f"## {part}" for part in parts)
    assert faults(toy, "06_uts", cell_type="markdown", source=prose) == [
        "notebooks in normal form: 1"
    ]
    parts[1:3] = parts[2:0:-1]
    swapped = "# 7. UTS\n\n" + "\n\n".join(f"## {part}" for part in parts[:-1])
    assert faults(toy, "06_uts", cell_type="markdown", source=swapped) == [
        ": does not begin with '# 6. Title'",
        ": heading '## Predict' is out of order",
        ": no heading '## Clean up'",
    ]


# --- types ----------------------------------------------------------------------------------


def test_types_names_the_cell_and_line(toy: Toy) -> None:
    wrong = '\n# %% id="wrong"\n%time 1\ndisplay(double)\nprint(double("x"))\n'
    toy.write("01_calls", CALLS)
    toy.write("02_wrong", CALLS + wrong)
    said = toy.refuses("types")
    assert said.startswith('notebooks/02_wrong.ipynb#wrong:3: error: Argument 1 to "double"')
    assert len(said.splitlines()) == 1
    assert toy.says("types", "01_calls") == "notebooks well typed: 1\n"


# --- the command line -----------------------------------------------------------------------


def test_usage_errors_end_with_status_2(toy: Toy) -> None:
    with pytest.raises(SystemExit) as stop:
        toy.run("exprot")
    assert stop.value.code == 2


def test_an_unknown_notebook(toy: Toy) -> None:
    assert toy.refuses("execute", "09_x") == "no such notebook: 09_x\n"


def test_the_root_is_found_from_below(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert find_root(toy.root / "notebooks") == toy.root
    with pytest.raises(BookError, match="no notebooks/ in"):
        find_root(tmp_path_factory.mktemp("elsewhere"))
