# Exported from notebooks/A_lab_kit.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/A_lab_kit.ipynb#doctor-main
"""The doctor: a table of what this machine can do and of the chapters that run on it.

`python -m mini_docker.lab.doctor [--json]` exits with 0 when every chapter can run here, 1 otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from mini_docker.lab.facts import gather_facts
from mini_docker.lab.preflight import Check, Readiness, checks, readiness

MARK = {True: "✔", False: "✘", None: "–"}


def main(arguments: Sequence[str]) -> int:
    """Print the table, or JSON with `--json`; return the exit status."""
    if unknown := [argument for argument in arguments if argument != "--json"]:
        print(f"doctor: unknown argument {unknown[0]}\nusage: doctor [--json]", file=sys.stderr)
        return 2
    results = checks(gather_facts())
    chapters = readiness(results)
    print(as_json(results, chapters) if "--json" in arguments else as_table(results, chapters))
    return 0 if all(ready.ok for ready in chapters) else 1


def as_table(results: Sequence[Check], chapters: Sequence[Readiness]) -> str:
    """Return the checks, then the chapters, one a line; remedies once each, where they are first needed."""
    lines, told = ["This machine"], set[str]()
    for result in results:
        lines.append(f"  {MARK[result.ok]} {result.name:<18} {result.detail}")
        if result.remedy and result.remedy not in told:
            told.add(result.remedy)
            lines.append(f"    {'':<18} remedy: {result.remedy}")
    lines += ["", "Chapters"]
    for ready in chapters:
        title = f"{ready.chapter.number:>3}  {ready.chapter.title:<34}"
        words = "ok" if ready.ok else f"cannot run here, because {ready.reason}"
        lines.append(f"  {title} {words}")
    causes = dict.fromkeys(ready.remedy for ready in chapters if not ready.ok)
    return "\n".join([*lines, "", *(f"Remedy: {remedy}" for remedy in causes)]).rstrip()


def as_json(results: Sequence[Check], chapters: Sequence[Readiness]) -> str:
    """Return {"checks": [...], "chapters": [...]} for a program that surveys a classroom."""
    return json.dumps(
        {
            "checks": [result._asdict() for result in results],
            "chapters": [
                {
                    "number": ready.chapter.number,
                    "title": ready.chapter.title,
                    "ok": ready.ok,
                    "reason": ready.reason,
                    "remedy": ready.remedy,
                }
                for ready in chapters
            ],
        },
        ensure_ascii=False,
        indent=2,
    )


# In a notebook's kernel __name__ is "__main__" too, but there is no __file__.
if __name__ == "__main__" and "__file__" in globals():
    sys.exit(main(sys.argv[1:]))
