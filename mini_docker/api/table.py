# Exported from notebooks/18c_objects.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/18c_objects.ipynb#table-module
"""All routes."""

from __future__ import annotations

from mini_docker.api.absent import ABSENT_ROUTES
from mini_docker.api.containers import CONTAINER_ROUTES
from mini_docker.api.execs import EXEC_ROUTES
from mini_docker.api.files import FILE_ROUTES
from mini_docker.api.images import IMAGE_ROUTES
from mini_docker.api.networks import NETWORK_ROUTES
from mini_docker.api.openapi import OPENAPI_ROUTES
from mini_docker.api.routes import Table
from mini_docker.api.streams import STREAM_ROUTES
from mini_docker.api.system import SYSTEM_ROUTES
from mini_docker.api.volumes import VOLUME_ROUTES
from mini_docker.api.websocket import WEBSOCKET_ROUTES

# %% notebooks/18c_objects.ipynb#table
TABLE = Table(
    [
        *SYSTEM_ROUTES,
        *CONTAINER_ROUTES,
        *STREAM_ROUTES,
        *WEBSOCKET_ROUTES,
        *EXEC_ROUTES,
        *FILE_ROUTES,
        *IMAGE_ROUTES,
        *NETWORK_ROUTES,
        *VOLUME_ROUTES,
        *ABSENT_ROUTES,
        *OPENAPI_ROUTES,
    ]
)
