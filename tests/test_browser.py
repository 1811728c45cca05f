"""The widgets of chapter 19e in Chromium: cells run in JupyterLab, buttons pressed, what the page shows."""

from __future__ import annotations

import pathlib

import pytest

from tests.browser import Browser, chromium, jupyterlab, open_notebook, run, until

pytestmark = [pytest.mark.root, pytest.mark.peers, pytest.mark.usefixtures("leak_free")]

STATE = """
const row = document.querySelector(`[data-name="${arguments[0]}"]`);
return row && row.dataset.state;
"""
LOG = """
const log = document.querySelector(`[data-log="${arguments[0]}"]`);
return log && log.textContent;
"""
MAP = """
const pictures = [...document.querySelectorAll('.widget-html-content svg')];
return pictures.map(picture => picture.textContent).find(text => text.includes('port 8080'));
"""


def look_and_press(browser: Browser) -> None:
    """Do what a reader of chapter 19e does, up to the cell that cleans up."""
    run(browser, "", "try-dashboard")
    until(lambda: browser.script(STATE, "web") == "running", "row of web that says running")
    browser.click('button[title="logs web"]')
    until(lambda: "line 1" in (browser.script(LOG, "web") or ""), "line of web's log")
    browser.click('button[title="pause three"]')
    until(lambda: browser.script(STATE, "three") == "paused", "row of three that says paused")
    browser.click('button[title="stop web"]')
    until(lambda: browser.script(STATE, "web") == "exited", "row of web that says exited")
    until(lambda: "told to stop" in (browser.script(LOG, "web") or ""), "last words in web's log")
    browser.find('button[title="start web"]')
    run(browser, "try-map", "try-live-map")
    until(lambda: "10.72.0.3" in (browser.script(MAP) or ""), "cable in the map's SVG")
    run(browser, "attack-markup", "attack-markup")
    browser.click('button[title="logs evil"]')
    until(lambda: "onerror" in (browser.script(LOG, "evil") or ""), "hostile log, as text")
    assert browser.script("return document.querySelector('[data-log] img')") is None


def test_the_dashboard_and_the_map_in_a_browser(tmp_path: pathlib.Path) -> None:
    with jupyterlab(tmp_path) as address, chromium(tmp_path) as browser:
        open_notebook(browser, address, "19e_dashboard.ipynb")
        try:
            look_and_press(browser)
        finally:
            run(browser, "clean", "clean")
