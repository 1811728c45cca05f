"""Solutions of chapter 8c, and the wrong answers that its checks must recognise."""

from __future__ import annotations

from exercises.ch08c import check_cpu_percent, check_hurts
from mini_docker.cgroups.stats import parse_pressure
from mini_docker.lab import Exercise


def cpu_percent_blank(before: tuple[int, int], after: tuple[int, int], cpus: int) -> float:
    """The untouched exercise."""
    return -1.0


def cpu_percent(before: tuple[int, int], after: tuple[int, int], cpus: int) -> float:
    """Return the CPU percentage between two readings (container ns, host ns)."""
    used, passed = (now - then for then, now in zip(before, after, strict=True))
    return used / passed * cpus * 100 if used > 0 and passed > 0 else 0.0


def cpu_percent_of_all(before: tuple[int, int], after: tuple[int, int], cpus: int) -> float:
    """Wrong: percent of the whole host."""
    return cpu_percent(before, after, 1)


def cpu_percent_trusting(before: tuple[int, int], after: tuple[int, int], cpus: int) -> float:
    """Wrong: it believes that counters grow."""
    used, passed = after[0] - before[0], after[1] - before[1]
    return used / passed * cpus * 100 if passed else 0.0


def who_hurts_blank(before: dict[str, str], after: dict[str, str]) -> str | None:
    """The untouched exercise."""
    return ""


def who_hurts(before: dict[str, str], after: dict[str, str]) -> str | None:
    """Return the name of the group that lost most time completely."""
    lost = {
        name: parse_pressure(text).full[3] - parse_pressure(before.get(name, "")).full[3]
        for name, text in after.items()
    }
    worst = max(lost, key=lambda name: lost[name], default=None)
    return worst if worst is not None and lost[worst] > 0 else None


def who_hurts_sum(before: dict[str, str], after: dict[str, str]) -> str | None:
    """Wrong: the sums since each group was made."""
    return max(after, key=lambda name: parse_pressure(after[name]).full[3])


def who_hurts_some(before: dict[str, str], after: dict[str, str]) -> str | None:
    """Wrong: the time in which anybody waited."""
    return max(
        after,
        key=lambda name: (
            parse_pressure(after[name]).some[3] - parse_pressure(before.get(name, "")).some[3]
        ),
    )


EXERCISES = [
    Exercise(
        "cpu_percent",
        check_cpu_percent,
        blank=cpu_percent_blank,
        solution=cpu_percent,
        wrong=[(cpu_percent_of_all, "Docker says 100 %"), (cpu_percent_trusting, "went backwards")],
    ),
    Exercise(
        "who_hurts",
        check_hurts,
        blank=who_hurts_blank,
        solution=who_hurts,
        wrong=[(who_hurts_sum, "from before"), (who_hurts_some, "all of them did")],
    ),
]
