"""Privileges: capabilities, hidden paths, limits of a process."""
