# Exported from notebooks/09_privileges.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/09_privileges.ipynb#security-package
"""Privileges: capabilities, hidden paths, limits of a process."""
