"""Solutions of chapter 5, and the wrong answers that its checks must recognise."""

from __future__ import annotations

import re

from exercises.ch05 import check_allowed, check_shm_options
from mini_docker.lab import Exercise

RULES = (("kernel.msg", "ipc"), ("kernel.shm", "ipc"), ("fs.mqueue.", "ipc"), ("net.", "network"))
FIXED = ["nosuid", "noexec", "nodev", "mode=1777"]


def allowed_blank(key: str, own: set[str]) -> bool:
    """The untouched exercise."""
    return False


def allowed(key: str, own: set[str]) -> bool:
    """Return whether a container with these namespaces of its own may set `key`."""
    if "/" in key or ".." in key:
        return False
    if key == "kernel.sem":
        return "ipc" in own
    return any(key.startswith(start) and kind in own for start, kind in RULES)


def allowed_prefix(key: str, own: set[str]) -> bool:
    """Wrong: the letters of net, and no look at the path."""
    return key.startswith("net") and "network" in own or allowed(key, own)


def allowed_paths(key: str, own: set[str]) -> bool:
    """Wrong: a path may climb out."""
    return allowed(key.replace("..", "").replace("/", ""), own)


def allowed_always(key: str, own: set[str]) -> bool:
    """Wrong: it does not ask whose namespace it is."""
    return allowed(key, own | {"ipc", "network"})


def shm_options_blank(text: str) -> list[str]:
    """The untouched exercise."""
    return []


def shm_options(text: str) -> list[str]:
    """Return the mount options of /dev/shm for a value of --shm-size."""
    found = re.fullmatch(r"(\d+)([kmg]?)", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"invalid size: {text!r}")
    size = int(found[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[found[2].lower()]
    return FIXED + ([f"size={size}"] if size else [])


def shm_options_text(text: str) -> list[str]:
    """Wrong: tmpfs knows letters too, but nobody has checked them."""
    return [*FIXED, f"size={text}"]


def shm_options_zero(text: str) -> list[str]:
    """Wrong: zero is written down."""
    options = shm_options(text)
    return options if len(options) > len(FIXED) else [*FIXED, "size=0"]


EXERCISES = [
    Exercise(
        "allowed",
        check_allowed,
        blank=allowed_blank,
        solution=allowed,
        wrong=[
            (allowed_prefix, "letters of net"),
            (allowed_paths, "leads elsewhere"),
            (allowed_always, "would change the host's"),
        ],
    ),
    Exercise(
        "shm_options",
        check_shm_options,
        blank=shm_options_blank,
        solution=shm_options,
        wrong=[(shm_options_text, "bytes; your options"), (shm_options_zero, "no limit of ours")],
    ),
]
