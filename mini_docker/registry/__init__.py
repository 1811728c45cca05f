# Exported from notebooks/13_registry.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/13_registry.ipynb#registry-package
"""Registries: images fetched from strangers and given to them, over the distribution protocol."""
