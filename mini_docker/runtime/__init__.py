# Exported from notebooks/11_runtime.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/11_runtime.ipynb#runtime-package
"""The OCI document becomes a plan, the plan a process."""
