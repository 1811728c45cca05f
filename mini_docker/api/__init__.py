# Exported from notebooks/18_http_api.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18_http_api.ipynb#api-package
"""HTTP: Docker's routes, JSON, streams and status codes on one side, the engine on the other."""
