# Exported from notebooks/02_pid.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/02_pid.ipynb#namespaces-package
"""What each namespace hides, and the steps that enter it."""
