# Exported from notebooks/B_book_tools.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/B_book_tools.ipynb#package
"""The book's tools: notebooks are the source, and this keeps everything else in step with them.

    python -m mini_docker.lab.book export [--check] [NB ...]      exported cells  ->  modules
    python -m mini_docker.lab.book carry [MODULE ...]             edited modules  ->  their cells
    python -m mini_docker.lab.book text NB ... | untext NB ...    notebook  <->  py:percent text
    python -m mini_docker.lab.book execute [--check] NB ...       run it, store normalised outputs
    python -m mini_docker.lab.book check [NB ...]                 normal form, without running
    python -m mini_docker.lab.book types [NB ...]                 mypy over the cells

Notebooks are named by path, file name or stem. Status 0: done; 1: faults, one a line; 2: usage.
Each command is a module of its name; what they share is in `notebook` (files) and `blocks` (exported cells).
"""

from __future__ import annotations
