# Exported from notebooks/08_control_groups.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/08_control_groups.ipynb#cgroups-package
"""Control groups: how much a container may use."""
