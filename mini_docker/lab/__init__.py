# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#lab-init
"""The lab kit: experiments in throw-away children, predictions, pictures, checks, the leak detector."""

from mini_docker.lab.draw import (
    Picture,
    draw_graph,
    draw_membership,
    draw_namespaces,
    namespaces_of,
)
from mini_docker.lab.experiment import Outcome, in_child, run_in_child, sh
from mini_docker.lab.leaks import compare, find_leaks, report_leaks, snapshot
from mini_docker.lab.predict import answer, histogram, predict, reality, score
from mini_docker.lab.preflight import require
from mini_docker.lab.verdict import (
    CannotRun,
    Exercise,
    Verdict,
    cannot_run,
    check,
    failed,
    passed,
)

__all__ = [
    "CannotRun",
    "Exercise",
    "Outcome",
    "Picture",
    "Verdict",
    "answer",
    "cannot_run",
    "check",
    "compare",
    "draw_graph",
    "draw_membership",
    "draw_namespaces",
    "failed",
    "find_leaks",
    "histogram",
    "in_child",
    "namespaces_of",
    "passed",
    "predict",
    "reality",
    "report_leaks",
    "require",
    "run_in_child",
    "score",
    "sh",
    "snapshot",
]
