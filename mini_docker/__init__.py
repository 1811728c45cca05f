# Exported from notebooks/00_start_here.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/00_start_here.ipynb#package
"""mini_docker: Docker built in notebooks, chapter by chapter; the chapters are its source."""

__version__ = "0.1.0"
