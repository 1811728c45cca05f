# Exported from notebooks/19_command_line.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19_command_line.ipynb#errors-module
"""What a command can end with besides its result: one line for a person, one number for a script."""

from __future__ import annotations

FAILED = 125  # the tool failed, nothing was run
NOT_EXECUTABLE = 126
NOT_FOUND = 127


# %% notebooks/19_command_line.ipynb#errors
class CommandError(Exception):
    """An error for the user: one line, and the exit status (Docker's 125, 126, 127 or 1)."""

    def __init__(self, text: str, status: int = 1) -> None:
        """Keep the line and the status."""
        super().__init__(text)
        self.status = status


class DaemonError(CommandError):
    """The daemon refused: its sentence, and the HTTP status."""

    def __init__(self, message: str, http_status: int) -> None:
        """Keep the daemon's words apart from ours."""
        super().__init__(f"Error response from daemon: {message}")
        self.message = message
        self.http_status = http_status


class StatusError(Exception):
    """An end without a line: only an exit status."""

    def __init__(self, status: int) -> None:
        """Keep the status."""
        super().__init__()
        self.status = status
