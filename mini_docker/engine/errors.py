# Exported from notebooks/15_networks.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/15_networks.ipynb#errors
"""What the managers of networks and volumes refuse, in Docker's words; `api/` gives each class its status."""

from __future__ import annotations


class Refused(Exception):
    """Any of these."""


class NoSuchNetwork(Refused):
    """No network of that id or name (404)."""


class NoSuchVolume(Refused):
    """No volume of that name (404)."""


class NoSuchPlugin(Refused):
    """A driver that we do not have (404)."""


class Forbidden(Refused):
    """What a network's state or kind does not allow (403)."""


class NameTaken(Refused):
    """A name that another network or volume has (409)."""


class VolumeInUse(Refused):
    """A volume that a container still names (409)."""


class NetworkFailure(Refused):
    """What the machine could not give: a port, a pool, an address (500)."""
