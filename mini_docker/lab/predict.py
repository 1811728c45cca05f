# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#predict-head
"""Predictions: commit to an answer before the experiment, be scored by reality, see a whole class's.

Answers are lines of JSON in `predictions.jsonl` of $MINI_DOCKER_LAB_DIR (default
~/.local/share/mini_docker_lab): {"key", "chapter", "choice", "time"} for a prediction and
{"key", "chapter", "reality", "time"} for the answer, after which the prediction is locked.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """What one log says of one question; `choice` and `reality` are None until they are there."""

    key: str
    chapter: str
    choice: str | None
    reality: str | None

    @property
    def right(self) -> bool:
        """Whether a prediction was made and came true."""
        return self.choice is not None and self.choice == self.reality


# %% notebooks/A_lab_kit.ipynb#predict-api
def predict(key: str, question: str, choices: Sequence[str]) -> None:
    """Ask `question`; the answer is recorded under `key`, the last one before `reality(key)` counts.

    Prints the question with lettered choices, and shows one button a letter where ipywidgets is installed;
    elsewhere `answer(key, choice)` records it.
    """
    letters = [chr(ord("a") + index) for index in range(len(choices))]
    print("\n".join([question, *(f"  {a}) {c}" for a, c in zip(letters, choices, strict=True))]))
    show_buttons(key, letters, choices)


def answer(key: str, choice: str) -> None:
    """Record a prediction without buttons. After `reality(key)` it is too late, and nothing is recorded."""
    if recorded(key).reality is None:
        append({"key": key, "chapter": current_chapter(), "choice": choice})


def reality(key: str, choice: str) -> None:
    """Print what turned out to be true, beside the prediction, and lock the prediction."""
    before = recorded(key)
    if before.reality != choice:
        append({"key": key, "chapter": current_chapter(), "reality": choice})
    if before.choice is None:
        print(f"No prediction recorded. Reality: {choice}.")
    elif before.choice == choice:
        print(f"You predicted: {choice}. Right.")
    else:
        print(f"You predicted: {before.choice}; reality: {choice}.")


# %% notebooks/A_lab_kit.ipynb#show-buttons
def show_buttons(key: str, letters: Sequence[str], choices: Sequence[str]) -> None:
    """Show one button a choice; without ipywidgets or a notebook do nothing."""
    try:
        ipywidgets, shell, screen = map(
            import_module, ("ipywidgets", "IPython.core.getipython", "IPython.display")
        )
    except ImportError:
        return
    if shell.get_ipython() is None:
        return
    before = recorded(key)
    model_id = f"predict-{key}"  # ours, so that a stored notebook is the same in every run
    for widget in [
        w for w in ipywidgets.widgets.widget._instances.values() if w.model_id == model_id
    ]:
        widget.close()
    buttons = ipywidgets.ToggleButtons(
        options=list(zip(letters, choices, strict=True)),
        value=before.choice if before.choice in choices else None,
        tooltips=list(choices),
        style={"button_width": "3em"},
        disabled=before.reality is not None,
        model_id=model_id,
    )
    buttons.observe(lambda change: answer(key, change["new"]), names="value")
    view = {"model_id": model_id, "version_major": 2, "version_minor": 0}
    bundle = {
        "text/plain": f"(buttons: {' '.join(letters)})",
        "application/vnd.jupyter.widget-view+json": view,
    }
    screen.display(bundle, raw=True)


# %% notebooks/A_lab_kit.ipynb#predict-score
def score(path: Path | None = None) -> None:
    """Print how many predictions came true, a line and a bar for each chapter."""
    scored = [a for a in read_answers(path or log_path()) if a.reality is not None]
    if not scored:
        print("No prediction has met reality yet.")
    for chapter in sorted({a.chapter for a in scored}, key=lambda c: (len(c), c)):
        marks = ["■" if a.right else "□" for a in scored if a.chapter == chapter]
        name = f"chapter {chapter}" if chapter else "elsewhere"
        print(f"{name:<12} {''.join(sorted(marks))} {marks.count('■')} of {len(marks)}")


def histogram(paths: Iterable[Path | str]) -> None:
    """Print, for each question, how many of a class chose what; `*` marks what was true.

    `paths` are the predictions.jsonl of the learners.
    """
    answers = [a for path in paths for a in read_answers(Path(path)) if a.choice is not None]
    for key in dict.fromkeys(a.key for a in answers):
        truth = {a.reality for a in answers if a.key == key}
        print(key)
        chosen = Counter(str(a.choice) for a in answers if a.key == key)
        for choice, number in sorted(chosen.items(), key=lambda item: (-item[1], item[0])):
            print(f"  {'*' if choice in truth else ' '} {'█' * number} {number}  {choice}")


# %% notebooks/A_lab_kit.ipynb#predict-log
def log_path() -> Path:
    """Return the file that holds this learner's predictions."""
    default = Path.home() / ".local" / "share" / "mini_docker_lab"
    return Path(os.environ.get("MINI_DOCKER_LAB_DIR") or default) / "predictions.jsonl"


def current_chapter() -> str:
    """Return the chapter that the preflight (`require`) named, or ""."""
    return os.environ.get("MINI_DOCKER_CHAPTER", "")


def append(line: dict[str, Any]) -> None:
    """Add one line to the log; a disk that refuses it does not stop a lesson."""
    path = log_path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": round(time.time())}, ensure_ascii=False) + "\n")
    except OSError as error:
        print(f"(not recorded: {error.strerror}: {path})")


def recorded(key: str) -> Answer:
    """Return what this learner's log says of one question."""
    found = [a for a in read_answers(log_path()) if a.key == key]
    return found[0] if found else Answer(key, current_chapter(), None, None)


def read_answers(path: Path) -> list[Answer]:
    """Return one Answer a question, in the order of first mention; a missing log is an empty one."""
    answers: dict[str, Answer] = {}
    for line in read_lines(path):
        key, chapter = str(line["key"]), str(line.get("chapter", ""))
        known = answers.get(key, Answer(key, chapter, None, None))
        if "reality" in line:
            answers[key] = known._replace(reality=str(line["reality"]))
        elif known.reality is None:
            answers[key] = known._replace(choice=str(line["choice"]))
    return list(answers.values())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the log's lines; a line cut short by a crash is left out."""
    if not path.exists():
        return
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "key" in line and ("choice" in line or "reality" in line):
            yield line
