"""nbval as this book needs it: clean kernels, and pictures compared by kind, not by bytes.

`pytest --nbval notebooks/06_uts.ipynb` runs a notebook again and compares every stored output.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from mini_docker.lab.book.execute import kernel_environment

ROOT = Path(__file__).resolve().parent
PICTURES = ("image/svg+xml", "image/png", "application/vnd.jupyter.widget-view+json")

try:
    import nbval.kernel
    import nbval.plugin
except ImportError:
    nbval = None


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Fill in nbval's options, and have a busy machine's patience: these limits only end what hangs."""
    if not getattr(config.option, "nbval", False):
        return
    os.environ.setdefault("MINI_DOCKER_LAB_PATIENCE", "10")
    if config.option.nbval_kernel_startup_timeout == 60:
        config.option.nbval_kernel_startup_timeout = 300
    if config.option.nbval_cell_timeout == 2000:
        config.option.nbval_cell_timeout = 600.0
    if not config.option.nbval_sanitize_with:
        config.option.nbval_sanitize_with = str(ROOT / "tests" / "nbval_sanitize.cfg")


class Kernels:
    """Starts nbval's kernels: while a notebook runs, the kernel of the next one comes up beside it.

    It is there before the notebook's first cell, so that a leak detector finds nothing new at the end.
    """

    def __init__(self) -> None:
        """Know of no notebook yet."""
        self.wanted = 0  # notebooks that have still to come
        self.next: Any = None

    def start(
        self, startup_timeout: float = 60, kernel_name: str = "", **options: Any
    ) -> tuple[Any, Any]:
        """Return the manager and the client of a kernel of the running interpreter, whatever its name."""
        manager, self.next = self.next or launch(**options), None
        self.wanted -= 1
        if self.wanted > 0:
            self.next = launch(**options)
        client = manager.client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=startup_timeout)
        except RuntimeError:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            raise
        return manager, client

    def close(self) -> None:
        """End the kernel that nobody has asked for."""
        if self.next is not None:
            self.next.shutdown_kernel(now=True)
            self.next = None


KERNELS = Kernels()


def launch(**options: Any) -> Any:
    """Start a kernel in an environment of ours and return its manager.

    Its sockets are files in a private folder, so that runs side by side never race for a port.
    """
    scratch = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    manager = nbval.kernel.KernelManager(
        kernel_name=nbval.kernel.CURRENT_ENV_KERNEL_NAME,
        kernel_spec_manager=nbval.kernel.NbvalKernelspecManager(),
        transport="ipc",
        ip=f"{scratch}/kernel",
    )
    manager.start_kernel(env=kernel_environment(ROOT, scratch), **options)
    return manager


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count the notebooks that are to run."""
    KERNELS.wanted = len({item.path for item in session.items if item.path.suffix == ".ipynb"})


def pytest_sessionfinish() -> None:
    """Leave no kernel behind, however the session has ended."""
    KERNELS.close()


def without_pictures(outputs: list[Any]) -> list[Any]:
    """Replace each picture by its kind: graphviz draws differently in every version."""
    for output in outputs:
        for kind in set(output.get("data", {})) & set(PICTURES):
            output["data"][kind] = f"<{kind}>"
    return outputs


def compare_outputs(
    cell: Any, test: list[Any], ref: list[Any], skip_compare: tuple[str, ...] | None = None
) -> bool:
    """Compare as nbval does, except that a picture must be there and may look different."""
    skip = tuple(key for key in skip_compare or cell.parent.skip_compare if key not in PICTURES)
    same: bool = nbval_compare(cell, without_pictures(test), without_pictures(ref), skip)
    return same


if nbval is not None:
    nbval_compare = nbval.plugin.IPyNbCell.compare_outputs
    nbval.plugin.IPyNbCell.compare_outputs = compare_outputs
    nbval.kernel.start_new_kernel = KERNELS.start
