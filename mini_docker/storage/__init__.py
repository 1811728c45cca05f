"""Layers stacked to a root file system; a driver returns mounts as data."""
