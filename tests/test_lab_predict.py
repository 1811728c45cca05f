"""Predictions: recorded, locked by reality, scored, counted for a class."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mini_docker.lab import answer, histogram, predict, reality, score
from mini_docker.lab.predict import log_path, read_answers


@pytest.fixture(autouse=True)
def _chapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINI_DOCKER_CHAPTER", "4")


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out


def test_the_question_is_text_where_there_are_no_buttons(
    capsys: pytest.CaptureFixture[str],
) -> None:
    predict("leak", "Does the host see it?", ["yes", "no"])
    assert printed(capsys) == "Does the host see it?\n  a) yes\n  b) no\n"
    assert not log_path().exists()


def test_right(capsys: pytest.CaptureFixture[str]) -> None:
    answer("leak", "no")
    answer("leak", "yes")  # a mind may be changed
    reality("leak", "yes")
    assert printed(capsys) == "You predicted: yes. Right.\n"


def test_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    answer("leak", "no")
    reality("leak", "yes")
    assert printed(capsys) == "You predicted: no; reality: yes.\n"


def test_none(capsys: pytest.CaptureFixture[str]) -> None:
    reality("leak", "yes")
    assert printed(capsys) == "No prediction recorded. Reality: yes.\n"


def test_reality_locks(capsys: pytest.CaptureFixture[str]) -> None:
    answer("leak", "no")
    reality("leak", "yes")
    answer("leak", "yes")
    printed(capsys)
    reality("leak", "yes")
    assert printed(capsys) == "You predicted: no; reality: yes.\n"
    assert len(log_path().read_text().splitlines()) == 2


def test_the_log_is_json_lines() -> None:
    answer("leak", "ja, natürlich")
    (line,) = log_path().read_text().splitlines()
    entry = json.loads(line)
    assert (entry["key"], entry["choice"], entry["chapter"]) == ("leak", "ja, natürlich", "4")
    assert isinstance(entry["time"], int)


def test_a_damaged_log_is_read_as_far_as_it_goes() -> None:
    answer("leak", "no")
    with open(log_path(), "a") as file:
        file.write('{"key": "cut sho\n[]\n{"key": 1}\n')
    answer("other", "yes")
    assert [a.key for a in read_answers(log_path())] == ["leak", "other"]


def test_score(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    score()
    assert printed(capsys) == "No prediction has met reality yet.\n"
    for chapter, key, choice in (("4", "a", "yes"), ("4", "b", "no"), ("10", "c", "yes")):
        monkeypatch.setenv("MINI_DOCKER_CHAPTER", chapter)
        answer(key, choice)
        reality(key, "yes")
    printed(capsys)
    score()
    assert printed(capsys) == "chapter 4    ■□ 1 of 2\nchapter 10   ■ 1 of 1\n"


def test_histogram(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = []
    for index, choice in enumerate(["yes", "no", "no"]):
        path = tmp_path / f"{index}.jsonl"
        lines = [{"key": "leak", "choice": choice}, {"key": "leak", "reality": "yes"}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        paths.append(path)
    histogram([*paths, tmp_path / "absent.jsonl"])
    assert printed(capsys) == "leak\n    ██ 2  no\n  * █ 1  yes\n"


def test_a_disk_that_refuses_does_not_stop_a_lesson(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINI_DOCKER_LAB_DIR", "/proc/nowhere")
    answer("leak", "no")
    assert "(not recorded" in printed(capsys)


def test_buttons_record_in_a_notebook(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipywidgets", reason="cannot run here, because ipywidgets is missing")
    cells = [
        "from mini_docker.lab import predict, reality\npredict('leak', 'Seen?', ['yes', 'no'])",
        "import ipywidgets.widgets.widget as w\nbuttons = w._instances['predict-leak']",
        "buttons.value = 'no'",
        "reality('leak', 'no')",
        "predict('leak', 'Seen?', ['yes', 'no'])",
        "buttons = w._instances['predict-leak']\nprint(buttons.value, buttons.disabled)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("PYTEST_CURRENT_TEST", None)
    nbclient.NotebookClient(notebook, kernel_name="python3").execute(env=environment)
    first, _, _, told, again, last = ([dict(o) for o in c.outputs] for c in notebook.cells)
    assert first[1]["data"]["text/plain"] == "(buttons: a b)"
    assert first == again
    assert told[0]["text"] == "You predicted: no. Right.\n"
    assert last[0]["text"] == "no True\n"
