"""Take the pictures of docs/ that are photographs of a browser: make screenshots."""

from __future__ import annotations

import base64
import pathlib
import tempfile

from tests.browser import chromium, jupyterlab, open_notebook, run, until
from tests.conftest import ROOT

MOST_BYTES = 150_000
DRAWN = "return [...document.querySelectorAll('.widget-html-content svg')].length >= arguments[0]"


def main() -> None:
    """Run chapter 19e in JupyterLab; photograph the chapter and the map."""
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        with jupyterlab(scratch) as address, chromium(scratch) as browser:
            open_notebook(browser, address, "19e_dashboard.ipynb")
            run(browser, "", "try-dashboard")
            browser.click('button[title="logs web"]')
            points = "const line = document.querySelector('[data-name=three] polyline');"
            points += "return line && line.getAttribute('points').split(' ').length > 12"
            until(lambda: browser.script(points), "curve")
            keep("lab", base64.b64decode(browser.ask("GET", "/screenshot")))
            run(browser, "try-map", "try-live-map")
            keep("network-map", browser.picture(".widget-html-content:has(svg g.graph)"))
            run(browser, "clean", "clean")


def keep(name: str, picture: bytes) -> None:
    """Write docs/NAME.png. Raises AssertionError when it is too large for a repository."""
    assert len(picture) < MOST_BYTES, f"{name}.png has {len(picture)} bytes"
    (ROOT / "docs" / f"{name}.png").write_bytes(picture)
    print(f"docs/{name}.png", len(picture))


if __name__ == "__main__":
    main()
