"""From a clone to the first container: scripts, documents and lists that must agree with each other."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT

SCRIPTS = [*sorted((ROOT / "labs").glob("*.sh")), ROOT / ".ci" / "run"]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "labs").glob("*.md")),
]
NOBODY = 65534
# conda's names of what pyproject.toml names as PyPI does; None: not a Python package there
CONDA_NAMES = {"python-graphviz": "graphviz", "graphviz": None, "pip": None}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def bash(script: str, *sources: Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run `script` with the functions of `sources`; stdout and stderr together."""
    head = "".join(f"source '{source}'\n" for source in sources)
    return subprocess.run(
        ["bash", "-c", head + script],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


# ---- scripts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_a_script_is_bash_and_executable(script: Path) -> None:
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert os.access(script, os.X_OK)


def test_a_dry_run_lists_every_step_and_needs_no_root() -> None:
    done = bash("labs/provision.sh --peers --dry-run")
    assert done.returncode == 0, done.stdout
    steps = re.findall(r"^\[(\d)/7\] (.*?) \.\.\. .+$", done.stdout, re.M)
    assert [number for number, _ in steps] == list("1234567")
    assert [title for _, title in steps] == [
        "System",
        "Kernel",
        "Root",
        "Debian packages",
        "Python environment",
        "mini_docker command",
        "Peer programs",
    ]


def test_an_unknown_option_is_refused_before_anything_is_done() -> None:
    done = bash("labs/provision.sh --pears")
    assert done.returncode == 2
    assert "unknown option --pears" in done.stdout


@pytest.fixture
def readable() -> Iterator[Path]:
    """A folder that everybody may read, with the provisioner in it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(ROOT / "labs", folder / "labs")
    yield folder
    shutil.rmtree(folder)


def test_an_ordinary_user_is_told_the_command_to_give(readable: Path) -> None:
    done = subprocess.run(
        ["bash", str(readable / "labs" / "provision.sh"), "--as", "make run"],
        capture_output=True,
        text=True,
        cwd=readable,
        user=NOBODY if os.geteuid() == 0 else None,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == "Containers need root here: sudo make run"


@pytest.fixture
def provision(tmp_path: Path) -> str:
    """Lines that turn the provisioner's functions to a folder of the test's own."""
    return f"""
        ROOT={tmp_path} CACHE={tmp_path}/.cache LOG={tmp_path}/log LINK={tmp_path}/bin/mini_docker
        VENV={tmp_path}/.venv STAMP={tmp_path}/.venv/stamp PYTHON={tmp_path}/python
        PEERS_STAMP={tmp_path}/.venv/peers
        LAUNCHER={tmp_path}/labs/bin/mini_docker
        POLICY={tmp_path}/policy-rc.d POLICY_SAVED={tmp_path}/policy-rc.d.saved
        HEAD='' PATH={tmp_path}/fake:$PATH
    """


PROVISION = ROOT / "labs" / "provision.sh"


def test_only_what_dpkg_calls_installed_counts(provision: str, tmp_path: Path) -> None:
    (tmp_path / "fake").mkdir()
    write_script(
        tmp_path / "fake" / "dpkg-query",
        "echo 'python3 installed'; echo 'make half-configured'; echo 'uidmap not-installed'; exit 1",
    )
    done = bash(
        provision + 'missing_packages "${PACKAGES[@]}"; printf \'%s\\n\' "${MISSING[@]}"', PROVISION
    )
    missing = done.stdout.split()
    assert "python3" not in missing
    assert {"make", "uidmap", "graphviz"} <= set(missing)


def test_the_policy_that_was_there_comes_back(provision: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    write_script(policy, "exit 0\n")
    before = policy.read_text()
    asked = "forbid_starts; $POLICY docker start || echo $?; allow_starts"
    assert bash(provision + asked, PROVISION).stdout == "101\n"
    assert policy.read_text() == before


def test_where_there_was_no_policy_there_is_none_afterwards(provision: str, tmp_path: Path) -> None:
    done = bash(provision + "forbid_starts; ls $ROOT; allow_starts; ls $ROOT", PROVISION)
    assert done.stdout == "policy-rc.d\n"


def test_the_run_after_a_killed_one_puts_the_policy_back(provision: str, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    write_script(policy, "exit 0\n")
    before = policy.read_text()
    killed = bash(provision + "forbid_starts; kill -9 $BASHPID", PROVISION)
    assert killed.returncode == -9
    assert "exit 101" in policy.read_text()
    PEERS_THERE = "missing_peers() { MISSING=(); }; refresh_apt() { :; };"
    PEERS_THERE += "fingerprint() { echo same; }; install_requirements() { mkdir -p $VENV; };"
    PEERS_THERE += "NOT_IN_NPM=$ROOT/not-in-npm; dockerode_make() { touch $NOT_IN_NPM; };"
    done = bash(provision + PEERS_THERE + "peers_there || peers_make && peers_there", PROVISION)
    assert done.returncode == 0, done.stdout
    assert policy.read_text() == before
    assert not (tmp_path / "policy-rc.d.saved").exists()


FAKE_PYTHON = """
here=$(dirname "$0")
case "$*" in
    -V) echo Python 3.11.0 ;;
    "-m venv "*) echo venv >>{log}; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *"-m pip"*) echo pip >>{log}; [[ ! -e {broken} ]] ;;
esac
"""


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """A Python whose venv and pip only note that they were called; returns that note."""
    log = tmp_path / "calls"
    write_script(tmp_path / "python", FAKE_PYTHON.format(log=log, broken=tmp_path / "broken"))
    (tmp_path / "pyproject.toml").write_text("one")
    return log


MAKE = "python_there || python_make && python_there; echo $? $REMARK"


def test_an_environment_is_made_once_and_updated_in_place(
    provision: str, tmp_path: Path, fake_python: Path
) -> None:
    assert bash(provision + MAKE, PROVISION).stdout == "0 already there\n"
    assert bash(provision + MAKE, PROVISION).stdout == "0 already there\n"
    assert fake_python.read_text().split() == ["venv", "pip", "pip"]
    (tmp_path / "pyproject.toml").write_text("two")
    assert bash(provision + MAKE, PROVISION).stdout == "0 already there\n"
    assert fake_python.read_text().split() == ["venv", "pip", "pip", "pip", "pip"]


def test_a_half_made_environment_is_made_again(
    provision: str, tmp_path: Path, fake_python: Path
) -> None:
    (tmp_path / "broken").touch()
    assert bash(provision + MAKE, PROVISION).stdout.startswith("1 ")
    assert not (tmp_path / ".venv" / "stamp").exists()
    (tmp_path / "broken").unlink()
    assert bash(provision + MAKE, PROVISION).stdout == "0 already there\n"
    assert fake_python.read_text().split() == ["venv", "pip", "venv", "pip", "pip"]


@pytest.mark.parametrize(
    ("leads_to", "afterwards"),
    [
        (None, "{0}/labs/bin/mini_docker"),
        ("{0}/labs/bin/mini_docker", "{0}/labs/bin/mini_docker"),
        ("/elsewhere/labs/bin/mini_docker", "{0}/labs/bin/mini_docker"),
        ("/usr/games/mini_docker", "/usr/games/mini_docker"),
    ],
)
def test_the_link_is_ours_or_left_alone(
    provision: str, tmp_path: Path, leads_to: str | None, afterwards: str
) -> None:
    link = tmp_path / "bin" / "mini_docker"
    link.parent.mkdir()
    if leads_to is not None:
        link.symlink_to(leads_to.format(tmp_path))
    done = bash(provision + "command_there || command_make && command_there", PROVISION)
    assert done.returncode == 0, done.stdout
    assert os.readlink(link) == afterwards.format(tmp_path)


def test_the_launcher_works_through_a_link_and_minds_no_environment(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a module of somebody else')")
    link = tmp_path / "mini_docker"
    link.symlink_to(ROOT / "labs" / "bin" / "mini_docker")
    done = subprocess.run(
        [link, "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PATH": os.defpath},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mini_docker version ")


def test_the_daemon_imports_nothing_from_where_it_is_started(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('a module of somebody else')")
    command = [str(ROOT / "labs" / "bin" / "mini_docker"), "daemon", "--host", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "is no unix://PATH" in done.stderr


def test_counts_are_added_up_and_a_failing_run_fails() -> None:
    test = ROOT / "labs" / "test.sh"
    script = """
        CACHE=$(mktemp -d)
        counted echo '3 failed, 120 passed, 2 skipped, 1 error in 8.12s'
        counted echo '======= 5 passed, 1 warning in 61.00s (0:01:01) ======='
        counted false; echo "status $?"
        echo "$PASSED $FAILED $SKIPPED"; rm -r "$CACHE"
    """
    assert bash(script, test).stdout.splitlines()[-2:] == ["status 1", "125 4 2"]


UNSTEADY = """
import os, pytest

@pytest.mark.parametrize("name", ["a b", "c - d"])
def test_unsteady(name):
    before = os.path.exists(name)
    open(name, "w").close()
    assert before

def test_steady():
    pass
"""


def counted_twice(place: Path, module: str) -> list[str]:
    """Run a file of tests as labs/test.sh runs them; return its last lines, and then the status."""
    (place / "tests").mkdir()
    (place / "tests" / "test_it.py").write_text(module)
    script = f"""
        cd {place}; CACHE={place} STATUS=0; export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # nbval starts slowly
        counted {sys.executable} -m pytest -q tests/test_it.py || STATUS=$?
        (finish "$STATUS"); echo "status $?"
    """
    return bash(script, ROOT / "labs" / "test.sh").stdout.splitlines()


def test_who_fails_and_then_passes_alone_is_told_by_name(tmp_path: Path) -> None:
    lines = counted_twice(tmp_path, UNSTEADY)
    assert "Once more, without the others: " in "\n".join(lines)
    assert lines[-5:-3] == [
        f"UNSTEADY, failed once and then passed: tests/test_it.py::test_unsteady[{name}]"
        for name in ("a b", "c - d")
    ]
    assert lines[-2:] == ["3 passed, 0 failed, 0 skipped", "status 0"]


@pytest.mark.parametrize(
    ("more", "counts"),
    [
        ("def test_no(): assert 0", "1 passed, 3 failed, 0 skipped"),
        ("def test_1(): assert 0\ndef test_2(): assert 0", "1 passed, 4 failed, 0 skipped"),
        (
            "@pytest.fixture(autouse=True, scope='session')\n"
            "def left_behind():\n    yield\n    assert not os.path.exists('a b')",
            "1 passed, 3 failed, 0 skipped",
        ),
    ],
    ids=["fails-again", "too-many", "left-behind"],
)
def test_a_failure_stays_one(tmp_path: Path, more: str, counts: str) -> None:
    lines = counted_twice(tmp_path, UNSTEADY + more)
    assert lines[-2:] == [counts, "status 1"]
    assert not [line for line in lines if line.startswith("UNSTEADY")]


def test_machines_that_talk_at_once_are_counted(tmp_path: Path) -> None:
    """Machine 1 is in the middle of a line when machine 2 says how its job went."""
    script = f"""
        CACHE={tmp_path} LOG=$CACHE/log QUEUE=$CACHE/queue PASSED=0 FAILED=0 SKIPPED=0
        printf 'tests a\\ntests b\\n' >"$QUEUE"
        machine() {{
            if [[ $1 == 1 ]]; then
                printf '....'; touch $CACHE/begun
                until [[ -e $CACHE/ended ]]; do sleep 0.05; done
                printf '\\n3 passed, 0 failed, 1 skipped\\n'
            else
                until [[ -e $CACHE/begun ]]; do sleep 0.05; done
                printf '5 passed, 1 failed, 0 skipped\\n'; touch $CACHE/ended
            fi
        }}
        in_each_machine work >/dev/null; add_counts 2; echo "$PASSED $FAILED $SKIPPED"
    """
    assert bash(script, ROOT / "labs" / "vm-test.sh").stdout.splitlines() == ["8 1 1"]


@pytest.fixture
def ci(tmp_path: Path) -> Path:
    """A checkout with nothing but .ci/run, and a `make` that takes its counts and failures from files.

    Everything has passed in the machine with these very files.
    """
    for name in (".ci", ".cache", "fake", "labs"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    shutil.copy(ROOT / "labs" / "vm-record.sh", tmp_path / "labs")
    assert (
        bash(
            "git init -q; source labs/vm-record.sh; write_record 'all well'", cwd=tmp_path
        ).returncode
        == 0
    )
    write_script(
        tmp_path / "fake" / "make",
        'echo "make $2 ${3:-}"\n'
        'sed -n "s/^$2 \\([0-9].*\\)/\\1/w .cache/counts" fake/counts\n'
        '! grep -q "^$2 fails" fake/fails\n',
    )
    (tmp_path / "fake" / "fails").touch()
    (tmp_path / "fake" / "counts").write_text(
        "test 7 passed, 0 failed, 1 skipped\nvm-test 5 passed, 0 failed, 0 skipped\n"
    )
    return tmp_path


def run_ci(ci: Path, settings: str = "") -> tuple[int, list[str]]:
    """Run .ci/run with the fake make; return its status and its lines."""
    script = ci / ".ci" / "run"
    script.write_text(re.sub(r"^(LIMIT=.*)$", rf"{settings}\n\1", script.read_text(), flags=re.M))
    done = bash(f"unset MINI_DOCKER_VM_EVERYTHING; PATH={ci}/fake:$PATH .ci/run", cwd=ci)
    return done.returncode, [line.strip() for line in done.stdout.splitlines() if line]


def test_ci_runs_both_and_ends_with_the_sum(ci: Path) -> None:
    status, lines = run_ci(ci)
    assert (status, lines[0], lines[2], lines[3]) == (
        0,
        "make test",
        "make vm-test PART=--part",
        "12 passed, 0 failed, 1 skipped",
    )
    assert lines[1].startswith("In the virtual machine: a part.")
    assert lines[1].endswith("with these very files: all well.")


def test_ci_runs_everything_in_the_machine_when_asked_and_says_so(ci: Path) -> None:
    status, lines = run_ci(ci, "MINI_DOCKER_VM_EVERYTHING=1")
    assert lines[1:3] == ["In the virtual machine: everything, as asked.", "make vm-test PART="]


def test_ci_runs_everything_in_the_machine_after_a_change_of_what_runs_there(ci: Path) -> None:
    (ci / "tests").mkdir()
    (ci / "tests" / "new.py").touch()
    why = "a part. Since everything passed there, only these have changed: the tests."
    assert run_ci(ci)[1][1:3] == [f"In the virtual machine: {why}", "make vm-test PART=--part"]
    (ci / "notebooks").mkdir()
    (ci / "notebooks" / "new.ipynb").touch()
    why = "everything. Since all passed there, these have changed: the chapters, the tests"
    assert run_ci(ci)[1][1:3] == [
        f"In the virtual machine: {why} (labs/vm-passed).",
        "make vm-test PART=",
    ]
    (ci / "labs" / "vm-passed").unlink()
    assert "the machine, the package, the chapters, the tests (" in run_ci(ci)[1][1]


def test_ci_stops_at_a_failure_and_counts_it(ci: Path) -> None:
    (ci / "fake" / "fails").write_text("test fails\n")
    (ci / "fake" / "counts").write_text("")
    assert run_ci(ci) == (1, ["make test", "0 passed, 1 failed, 0 skipped"])


def test_ci_fails_when_only_the_machine_does(ci: Path) -> None:
    (ci / "fake" / "fails").write_text("vm-test fails\n")
    status, lines = run_ci(ci)
    assert status == 1
    (ci / "fake" / "counts").write_text("test 7 passed, 0 failed, 1 skipped\n")
    assert run_ci(ci)[1][-1] == "7 passed, 1 failed, 1 skipped"


def test_a_port_that_is_taken_is_said_before_jupyter_starts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = bash(f"labs/lab.sh {port}")
    assert done.returncode == 1
    assert done.stdout.strip() == f"Port {port} is taken. Remedy: sudo make lab PORT={port + 1}"


# ---- lists --------------------------------------------------------------------------------------------


def pyproject_ranges() -> dict[str, str]:
    """Return {"nbval": ">=0.11", ..., "python": ">=3.10"}, read as text: tomllib is younger than 3.10.

    Without the peers, which belong to the tests of a whole machine.
    """
    text = (ROOT / "pyproject.toml").read_text()
    extras = text.partition("[project.optional-dependencies]")[2].partition("\npeers = [")[0]
    ranges = dict(re.findall(r'^    "([\w-]+)([^"]*)",$', extras, re.M))
    ranges["python"] = re.findall(r'^requires-python = "(.*)"$', text, re.M)[0]
    return ranges


def test_environment_yml_has_the_ranges_of_pyproject() -> None:
    text = (ROOT / "environment.yml").read_text()
    lines = text.partition("dependencies:\n")[2]
    listed = re.findall(r"^  - ([a-z][a-z0-9-]*)([<>=~!][^\s:]*)?$", lines, re.M)
    assert len(listed) == lines.count("\n  - ") + 1 - lines.count("  - pip:"), (
        "a line not understood"
    )
    ours = {}
    for name, wanted in listed:
        pypi_name = CONDA_NAMES.get(name, name)
        if pypi_name is not None:
            ours[pypi_name] = wanted
    assert ours == pyproject_ranges()


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z]+(?:-[a-z]+)*):", makefile, re.M))


def code_of(document: Path) -> str:
    """Return what stands in a document's code blocks and code spans."""
    text = document.read_text()
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.S))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_make_command_that_a_document_names_is_a_target(document: Path) -> None:
    named = set(re.findall(r"(?<![\w-])make ([a-z]+(?:-[a-z]+)*)", code_of(document)))
    assert named <= make_targets()


def test_every_target_is_explained_by_make_help() -> None:
    shown = bash("make --no-print-directory help").stdout
    assert set(re.findall(r"^  ([a-z]+(?:-[a-z]+)*) ", shown, re.M)) == make_targets()


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, made as web front ends of git make them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_the_readme_links_to_every_notebook() -> None:
    linked = set(re.findall(r"\]\(notebooks/([^)]+)\)", (ROOT / "README.md").read_text()))
    assert linked == {path.name for path in (ROOT / "notebooks").glob("*.ipynb")}


# ---- the house ------------------------------------------------------------------------------------------


def rooms() -> dict[str, bool]:
    """Return the folders that docs/house.dot shows: {"cli": True, "api": False}, False for dashed."""
    cells = re.findall(r"<TD([^>]*)><B>(\w+)/</B>", (ROOT / "docs" / "house.dot").read_text())
    return {name: "dashed" not in attributes for attributes, name in cells}


def test_the_house_shows_the_folders_that_are_there() -> None:
    folders = {path.parent.name for path in (ROOT / "mini_docker").glob("*/__init__.py")}
    assert {name for name, built in rooms().items() if built} == folders


def test_the_picture_was_drawn_from_the_house() -> None:
    digest = hashlib.sha256((ROOT / "docs" / "house.dot").read_bytes()).hexdigest()
    first, *rest = (ROOT / "docs" / "house.svg").read_text().splitlines()
    assert digest in first, "remedy: make pictures"
    assert all(f">{name}/</text>" in "\n".join(rest) for name in rooms())


def test_the_virtual_machine_is_prepared_by_the_same_script_and_open_to_its_host_only() -> None:
    vagrantfile = (ROOT / "Vagrantfile").read_text()
    assert "bash labs/provision.sh --peers" in vagrantfile
    forwarded = re.findall(r'"forwarded_port".*', vagrantfile)
    assert forwarded
    assert all('host_ip: "127.0.0.1"' in line for line in forwarded)
