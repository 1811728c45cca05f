# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#execute-module
"""A notebook run from top to bottom, its outputs made facts: what `execute` does."""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from mini_docker.lab.book.notebook import (
    METADATA,
    BookError,
    Notebook,
    library,
    place,
    tags_of,
    with_jupyter_tags,
    write_text,
)


# %% notebooks/B_book_tools.ipynb#kernel
def kernel_environment(root: Path, scratch: str) -> dict[str, str]:
    """Return the environment of a notebook's kernel: this checkout, an empty lab, a plain locale.

    With PYTEST_CURRENT_TEST set, ipykernel would not capture file descriptors 1 and 2.
    """
    dropped = ("PYTEST_CURRENT_TEST", "PYTHONHASHSEED", "PYTHONSTARTUP", "COLUMNS", "LINES")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(root), kept.get("PYTHONPATH")])),
        "MINI_DOCKER_LAB_DIR": f"{scratch}/lab",
        "IPYTHONDIR": f"{scratch}/ipython",
        "LC_ALL": "C.UTF-8",
    }


def kernel_client(root: Path, notebook: Any, scratch: str) -> Any:
    """Return nbclient's client for a kernel of *this* interpreter, whatever kernels are installed.

    Its sockets are files in the private folder `scratch`: TCP ports would be open to every user.
    """
    specs, manager = library("jupyter_client.kernelspec"), library("jupyter_client.manager")
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernels = specs.KernelSpecManager()
    kernels.get_kernel_spec = lambda name: specs.KernelSpec(argv=argv, display_name=name)
    client = library("nbclient").NotebookClient(
        notebook,
        km=manager.AsyncKernelManager(
            kernel_spec_manager=kernels, transport="ipc", ip=f"{scratch}/kernel"
        ),
        resources={"metadata": {"path": str(root / "notebooks")}},
        timeout=120,
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
    )
    client.owns_km = True  # so that nbclient ends the kernel we gave it
    return client


# %% notebooks/B_book_tools.ipynb#run-cells
def run_cells(root: Path, notebook: Any, only: str = "") -> str:
    """Run the code cells, or those with the tag `only`; return `ID:LINE: error` of a failure, or ""."""
    errors = library("nbclient.exceptions")
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory())
        client = kernel_client(root, notebook, scratch)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        stack.enter_context(client.setup_kernel(env=kernel_environment(root, scratch), **quiet))
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type != "code" or (only and only not in tags_of(cell)):
                continue
            try:
                client.execute_cell(cell, index)
            except errors.CellExecutionError as error:
                return f"{cell.id}:{describe_error(cell, error)}"
            except (errors.CellTimeoutError, errors.DeadKernelError) as error:
                return f"{cell.id}:1: {str(error).splitlines()[0]}"
    return ""


def describe_error(cell: Any, error: Any) -> str:
    """Return `LINE: Error: words` and that line, for the cell's own line in the traceback."""
    shown = "\n".join(line for o in cell.outputs for line in o.get("traceback", []))
    lines = re.findall(r"Cell In\[\d+\], line (\d+)", re.sub(r"\x1b\[[0-9;]*m", "", shown))
    number = int(lines[0]) if lines else 1
    line = cell.source.splitlines()[number - 1].strip()
    return f"{number}: {error.ename}: {error.evalue}\n    {line}"


# %% notebooks/B_book_tools.ipynb#normalise
WIDGET = "application/vnd.jupyter.widget-view+json"


def normalise(notebook: Notebook) -> None:
    """Leave only what is the same in every run: counts 1..n, stable widget ids, no timing."""
    notebook.update(metadata=METADATA, nbformat=4, nbformat_minor=5)
    models: dict[str, str] = {}
    count = 0
    for cell in notebook["cells"]:
        tags = with_jupyter_tags(tags_of(cell))
        cell["metadata"] = {"tags": tags} if tags else {}
        if cell["cell_type"] == "code":
            count += 1
            cell["execution_count"] = count
            for output in cell["outputs"]:
                normalise_output(output, count, models)


def normalise_output(output: Any, count: int, models: dict[str, str]) -> None:
    """Replace what differs between two runs; `models` maps widget ids to stable ones."""
    data = output.get("data", {})
    if "execution_count" in output:
        output["execution_count"] = count
    if output["output_type"] == "error":
        output["traceback"] = [f"{output['ename']}: {output['evalue']}"]
    if "text/plain" in data:
        data["text/plain"] = re.sub(r"\bat 0x[0-9a-f]+", "at 0x0", data["text/plain"])
    if WIDGET in data:
        model = data[WIDGET]["model_id"]
        data[WIDGET]["model_id"] = models.setdefault(model, f"{len(models) + 1:032x}")


# %% notebooks/B_book_tools.ipynb#execute
def executed_text(root: Path, path: Path, only: str = "") -> str:
    """Return the notebook's text after a run; raises BookError naming a cell that failed."""
    notebook = library("nbformat").read(path, as_version=4)
    normalise(notebook)
    failure = run_cells(root, notebook, only)
    if failure:
        raise BookError(f"{place(path)}#{failure}")
    normalise(notebook)
    return f"{library('nbformat').writes(notebook)}\n"


def execute(root: Path, path: Path, check: bool = False, quick: bool = False) -> int:
    """Run a notebook and store it; with `check` compare only, with `quick` run only quick cells."""
    started = time.monotonic()
    text = executed_text(root, path, "quick" if quick else "")
    difference = first_difference(path, path.read_text(encoding="utf-8"), text) if check else ""
    if quick:
        verdict = "quick cells run alone"
    elif check:
        verdict = difference or "same"
    else:
        verdict = "written" if write_text(path, text) else "unchanged"
    print(f"{place(path)} {time.monotonic() - started:6.1f} s  {verdict}", flush=True)
    return int(bool(difference))


def first_difference(path: Path, stored: str, executed: str) -> str:
    """Return the first cell that differs, with a diff, or "" when the texts are the same."""
    if stored == executed:
        return ""
    for old, new in zip(json.loads(stored)["cells"], json.loads(executed)["cells"], strict=True):
        if old != new:
            before, after = (
                json.dumps(cell, indent=1, sort_keys=True, ensure_ascii=False).splitlines()
                for cell in (old, new)
            )
            diff = difflib.unified_diff(before, after, "stored", "executed", lineterm="", n=1)
            return f"{place(path)}#{new['id']} differs\n" + "\n".join(diff)
    return f"{place(path)}: its metadata or layout is not in normal form"
