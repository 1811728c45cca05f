# Exported from notebooks/14_containers.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/14_containers.ipynb#engine-package
"""The engine: containers and networks, and the one who knows them all."""
