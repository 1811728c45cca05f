# Exported from notebooks/01_system_calls.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/01_system_calls.ipynb#linux-package
"""System calls: one function each, with the name and the argument order of its manual page."""
