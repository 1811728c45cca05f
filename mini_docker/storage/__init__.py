# Exported from notebooks/10_layers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/10_layers.ipynb#storage-package
"""Layers stacked to a root file system; a driver returns mounts as data."""
