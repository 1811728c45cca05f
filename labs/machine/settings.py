"""What the environment may set, checked before anything is done."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from labs.machine.tasks import Trouble

ROOT = Path(__file__).resolve().parents[2]
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")  # Rust's; C's, of Debian 12
ACCELERATORS = ("auto", "kvm", "tcg")


class Settings(NamedTuple):
    """One field for each MINI_DOCKER_VM_... variable."""

    cache: Path  # where images are kept
    accel: str  # "auto" asks a kernel, "tcg" is software emulation
    cpus: int
    memory: int  # MB
    port: int  # of 127.0.0.1, led to port 8888 of the machine; 0: none
    boot_limit: int  # seconds
    limit: int  # seconds for a command
    virtiofsd: str  # the program that shares the checkout; empty: it is copied
    run: Path  # where running machines are noted


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of `environment`; Trouble names the variable that makes no sense."""
    accel = environment.get("MINI_DOCKER_VM_ACCEL", "auto")
    if accel not in ACCELERATORS:
        raise Trouble(f"MINI_DOCKER_VM_ACCEL is {accel!r}, and can be {', '.join(ACCELERATORS)}")
    return Settings(
        cache=Path(environment.get("MINI_DOCKER_VM_CACHE", "/var/cache/mini_docker/vm")).absolute(),
        accel=accel,
        cpus=number(environment, "CPUS", 2, 1, os.cpu_count() or 1),
        memory=number(environment, "MEMORY", 4096, 512, 1 << 20),
        port=number(environment, "PORT", 0, 0, 65535),
        boot_limit=number(environment, "BOOT_LIMIT", 300, 1, 3600),
        limit=number(environment, "LIMIT", 3600, 1, 86400),
        virtiofsd=environment.get("MINI_DOCKER_VM_VIRTIOFSD", found_virtiofsd()),
        run=Path(environment.get("MINI_DOCKER_VM_RUN", "/run/mini_docker-vm")).absolute(),
    )


def found_virtiofsd() -> str:
    """Return the path of virtiofsd, in no one's PATH; empty if there is none."""
    return next(filter(os.path.exists, VIRTIOFSD), "")


def number(environment: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """Return MINI_DOCKER_VM_`name` as a number from `low` to `high`."""
    default = min(default, high)
    text = environment.get(f"MINI_DOCKER_VM_{name}") or str(default)
    if not (text.isascii() and text.isdecimal() and low <= int(text) <= high):
        raise Trouble(f"MINI_DOCKER_VM_{name} is {text!r}, and can be {low} to {high}")
    return int(text)
