"""Fixtures of the tests of the page: a server, a browser, and pages that are watched."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import made_models
import pytest
from browsing import CHROMIUM, FLAGS, Server

from rowwise import model

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NEEDED = bool(os.environ.get("CI") or os.environ.get("ROWWISE_REQUIRE_BROWSER"))
# A server that is away or refuses, and a test that counts pixels: the browser tells of both.
OUR_OWN = ("Failed to load resource", "Canvas2D: Multiple readback")
DESKTOP = {"width": 1280, "height": 860}


def missing() -> str:
    """Why the page cannot be driven here, or nothing."""
    if not CHROMIUM:
        return "needs the program chromium, which is not on the PATH"
    for name in ("playwright", "axe_playwright_python", "fastapi", "uvicorn", "orjson"):
        try:
            __import__(name)
        except ImportError:
            return f"needs the package {name}: pip install 'rowwise[serve,test]'"
    return "" if "rows" in model.shipped() else "needs the model rows, which this build lacks"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; where it is missing the test is skipped, and fails in CI."""
    if missing():
        assert not NEEDED, f"CI tests the page; it {missing()}"
        pytest.skip(missing())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the server keeps corrections."""
    return tmp_path_factory.mktemp("server") / "kept"


@pytest.fixture(scope="module")
def page_server(kept, browser) -> Iterator[Server]:
    """Serves `rows` and a small made model, and keeps corrections."""
    folder = kept.parent
    made_models.best(name="made").save(folder / "made.safetensors")
    chosen = ("--model", "rows", "--model", folder / "made.safetensors")
    one = Server(folder, *chosen, "--keep", kept)
    yield one
    one.stop()


class Watched:
    """A page, what it asked for, and what its console said."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.page = context, context.new_page()
        self.asked: list[str] = []
        self.told: list[str] = []
        self.page.set_default_timeout(10_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.told.append(str(error)))
        self.page.on("console", self._hear)
        self.page.goto(url)
        self.page.wait_for_selector("#model option", state="attached")

    def _hear(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.told.append(message.text)


@pytest.fixture
def opened(browser, page_server) -> Iterator[Callable[..., Page]]:
    """Open the page as a visitor with these settings; nothing may fail in it, or go elsewhere."""
    visits: list[Watched] = []

    def open_page(url: str = page_server.url, *, before: str = "", **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, **settings})
        if before:
            context.add_init_script(before)
        visits.append(Watched(context, url))
        return visits[-1].page

    yield open_page
    for one in visits:
        one.context.close()
        outside = [u for u in one.asked if not re.match(r"http://127\.0\.0\.1:\d+/|data:|blob:", u)]
        assert outside == []
        faults = [line for line in one.told if not line.startswith(OUR_OWN)]
        assert faults == []
