"""A real browser before a real JupyterLab: Chromium through WebDriver, whose requests are HTTP and JSON.

    test --HTTP--> chromedriver --pipe--> chromium (no window) --HTTP, websocket--> jupyterlab --> kernel

The protocol: https://www.w3.org/TR/webdriver2/. Both programs are Debian's (labs/provision.sh --peers).
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.conftest import ROOT, cannot_run_here

SECONDS = 240.0  # until something must have happened; a busy machine is slow, a quiet one takes two
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference, chosen by the standard
# No sandbox: as root Chromium refuses to make one, and the pages are ours. No /dev/shm: it may have 64 MB.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--window-size=1280,850",
)
SETTINGS = {  # every cell is in the page, seen or not; and no news from the internet
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
}


class Browser:
    """A session of chromedriver."""

    def __init__(self, port: int, profile: pathlib.Path) -> None:
        self.port = port
        self.path = ""
        options = {
            "binary": shutil.which("chromium"),
            "args": [*FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.path = f"/session/{self.ask('POST', '/session', wanted)['sessionId']}"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a command; return its value. Raises AssertionError with the driver's words."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2 * SECONDS)
        data = None if method in ("GET", "DELETE") else json.dumps(body or {})
        connection.request(method, self.path + path, data, {"Content-Type": "application/json"})
        value = json.loads(connection.getresponse().read())["value"]
        connection.close()
        if isinstance(value, dict) and "error" in value:
            raise AssertionError(f"{path}: {value['error']}: {value['message'].splitlines()[0]}")
        return value

    def script(self, text: str, *arguments: Any) -> Any:
        """Call a JavaScript function's body in the page; a promise is waited for."""
        return self.ask("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def find(self, css: str) -> str:
        """Return the first element of a CSS selector, as soon as there is one."""
        look = {"using": "css selector", "value": css}

        def first() -> str:
            found = self.ask("POST", "/elements", look)
            return str(found[0][ELEMENT]) if found else ""

        return str(until(first, f"{css} in the page"))

    def click(self, css: str) -> None:
        """Click where a user would: the middle of the element, in view; of one drawn anew, once more."""
        until(lambda: self._clicked(css), f"{css} that can be clicked")

    def _clicked(self, css: str) -> bool:
        element = self.find(css)
        show = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
        try:
            self.script(show, {ELEMENT: element})
            self.ask("POST", f"/element/{element}/click")
        except AssertionError as error:
            if not re.search("stale element|click intercepted|not interactable", str(error)):
                raise
            return False
        return True

    def picture(self, css: str) -> bytes:
        """Return an element as PNG."""
        return base64.b64decode(self.ask("GET", f"/element/{self.find(css)}/screenshot"))


def until(fact: Callable[[], Any], words: str, seconds: float = SECONDS) -> Any:
    """Wait until `fact` returns something true, and return that."""
    end = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < end, f"after {seconds:g} s there is no {words}"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def running(words: list[str], log: pathlib.Path, env: dict[str, str]) -> Iterator[None]:
    """Run a program, its words in a file, until the block ends."""
    with open(log, "wb") as file:
        process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT, env=env, cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def said(log: pathlib.Path, pattern: str) -> str:
    """Return what a program's log says, as soon as it does."""

    def look() -> str:
        found = re.search(pattern, log.read_text(errors="replace"))
        return found[1] if found else ""

    return str(until(look, f"{pattern} in {log.read_text(errors='replace')[-500:]!r}"))


@contextlib.contextmanager
def chromium(scratch: pathlib.Path) -> Iterator[Browser]:
    """Start a browser with a profile of its own."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            cannot_run_here(f"there is no {program} (remedy: labs/provision.sh --peers)")
    log = scratch / "chromedriver.log"
    env = {**os.environ, "HOME": str(scratch), "TMPDIR": str(scratch)}
    env.pop("DBUS_SESSION_BUS_ADDRESS", None)
    with running(["chromedriver", "--port=0"], log, env):
        browser = Browser(int(said(log, r"started successfully on port (\d+)")), scratch / "p")
        try:
            yield browser
        finally:
            browser.ask("DELETE", "")


@contextlib.contextmanager
def jupyterlab(scratch: pathlib.Path) -> Iterator[str]:
    """Start JupyterLab on 127.0.0.1, on a copy of the notebooks; yield its address with the token."""
    for name, values in SETTINGS.items():
        path = scratch / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    shutil.copytree(ROOT / "notebooks", scratch / "book" / "notebooks")
    (scratch / "book" / "labs").symlink_to(ROOT / "labs")
    token = secrets.token_hex(16)
    folders = {f"JUPYTER_{n}_DIR": str(scratch / n.lower()) for n in ("CONFIG", "RUNTIME")}
    env = {**os.environ, **folders, "JUPYTER_TOKEN": token, "PYTHONPATH": str(ROOT)}
    env |= {"JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"), "HOME": str(scratch)}
    env |= {"JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces")}
    env.pop("PYTEST_CURRENT_TEST", None)
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.port=0"]
    options += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={scratch / 'book'}"]
    log = scratch / "jupyter.log"
    with running([sys.executable, "-m", "jupyterlab", *options], log, env):
        port = said(log, r"http://127\.0\.0\.1:(\d+)/lab")
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/NAME?token={token}"


OPEN = """
const app = window.jupyterapp;
const panel = app && app.shell.currentWidget;
return Boolean(panel && panel.content && panel.content.widgets && panel.content.widgets.length
    && panel.sessionContext.session && panel.sessionContext.session.kernel
    && panel.sessionContext.session.kernel.status === 'idle');
"""
RUN = """
const app = window.jupyterapp, content = app.shell.currentWidget.content;
const cells = content.widgets.map(cell => cell.model.sharedModel.id);
const [first, last] = [...arguments].map(id => id ? cells.indexOf(id) : 0);
content.deselectAll();
content.activeCellIndex = first;
content.extendContiguousSelectionTo(last);
const isError = output => output.output_type === 'error';
const failed = cell => cell.model.type === 'code' && cell.model.outputs.toJSON().some(isError);
return app.commands.execute('notebook:run-cell').then(
    () => content.widgets.slice(first, last + 1).filter(failed).map(cell => cell.model.sharedModel.id));
"""


def open_notebook(browser: Browser, address: str, name: str) -> None:
    """Open a notebook as a user would, and wait for its kernel."""
    browser.ask("POST", "/url", {"url": address.replace("NAME", name)})
    until(lambda: browser.script(OPEN), f"{name} with a kernel")


def run(browser: Browser, first: str, last: str) -> None:
    """Run the cells of the open notebook from one id ("": the first cell) to another, both included."""
    browser.ask("POST", "/timeouts", {"script": 460_000})
    failed = browser.script(RUN, first, last)
    assert failed == [], f"cells that failed: {failed}"
