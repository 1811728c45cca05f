# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#cli-package
"""The command line."""
