# Exported from notebooks/19e_dashboard.ipynb by mini_docker.lab.book: edit there, not here.

# %% notebooks/19e_dashboard.ipynb#live-module
"""Keep something true that a daemon knows: look when an event comes, and by the clock."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from mini_docker.cli.client import Client
from mini_docker.cli.errors import CommandError
from mini_docker.cli.http import Response
from mini_docker.lab.playground import client_of

Look = Callable[[Client | None], None]  # is given None when no daemon answers


# %% notebooks/19e_dashboard.ipynb#live
class Live:
    """Calls `look` after each event and every `seconds`; what comes while it looks is one more look."""

    def __init__(self, host: str, look: Look, seconds: float = 1.0) -> None:
        """Begin to listen and to look, each in a thread, until `close`."""
        self.host = host
        self.look = look
        self.seconds = seconds
        self.looks = 0
        self.again = threading.Event()
        self.ended = threading.Event()
        self.stream: Response | None = None
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self._hear, self._see)]
        for thread in self.threads:
            thread.start()

    def _hear(self) -> None:
        """Wake the other thread for every event; connect again when the stream ends."""
        while not self.ended.is_set():
            try:
                client = self.client()
                self.stream = client.call("GET", "/events")
                self.again.set()  # whatever happened before we listened is in the lists
                for _ in client.messages(self.stream):
                    self.again.set()
            except (CommandError, OSError):
                pass  # no daemon: the look says so
            self.ended.wait(self.seconds)

    def client(self) -> Client:
        """Return a client for requests from another thread."""
        return client_of(self.host)

    def _see(self) -> None:
        client = self.client()
        while not self.ended.is_set():
            self.again.clear()
            try:
                self.look(client)
            except (CommandError, OSError):
                self.look(None)
            self.looks += 1
            self.again.wait(self.seconds)

    def close(self) -> None:
        """End both threads."""
        self.ended.set()
        self.again.set()
        if self.stream is not None:
            try:
                self.stream.reader.sock.shutdown(2)
            except OSError:
                pass  # the daemon has closed it
        for thread in self.threads:
            thread.join()
        if self.stream is not None:
            self.stream.reader.sock.close()


# %% notebooks/19e_dashboard.ipynb#live-show
def widgets(model_id: str) -> Any:
    """Return ipywidgets, after an older widget of this name is gone. Raises ImportError."""
    library = import_module("ipywidgets")
    old = [w for w in library.widgets.widget._instances.values() if w.model_id == model_id]
    for widget in old:
        widget.close()
    return library


def show(box: Any, text: str) -> None:
    """Display a widget; `text` stands for it where there are no widgets, and in tests of the notebook."""
    view = {"model_id": box.model_id, "version_major": 2, "version_minor": 0}
    bundle = {"text/plain": text, "application/vnd.jupyter.widget-view+json": view}
    import_module("IPython.display").display(bundle, raw=True)
