"""Control groups: how much a container may use."""
