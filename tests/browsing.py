"""A server in a process of its own and a browser before it, for the tests of the page and for its
pictures."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from pen_strokes import DIGITS, Stroke

from rowwise import model

if TYPE_CHECKING:
    from playwright.sync_api import Page

PAGE = Path(model.__file__).parent / "server/page.html"
CHROMIUM = shutil.which("chromium") or ""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


class Server:
    """`rowwise serve`, on a machine without data, but that of ROWWISE_DATA where it is wanted."""

    def __init__(self, folder: Path, *options: object, data: bool = False) -> None:
        self.folder, self.options, self.port, self.data = folder, options, free_port(), data
        self.url = f"http://127.0.0.1:{self.port}/"
        self.start()

    def start(self) -> None:
        known = {"PATH", "LANG", "VIRTUAL_ENV", *(["ROWWISE_DATA"] if self.data else [])}
        home = {"HOME": str(self.folder), "OMP_NUM_THREADS": "1", "ROWWISE_CACHE": str(self.folder)}
        home["PYTHONPATH"] = str(PAGE.parents[2])
        command = [sys.executable, "-m", "rowwise", "serve", "--port", self.port, *self.options]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                env={k: v for k, v in os.environ.items() if k in known} | home,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"{self.url}readyz", timeout=5):
                    return
            except OSError:
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.05)
        raise AssertionError("the server did not begin within 10 s")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.kill()


def until(page: Page, condition: str, *, within_s: float = 10) -> None:
    """Wait until a condition in JavaScript holds.

    Playwright's own `wait_for_function` evaluates text in the page, which its policy forbids.
    """
    late = time.monotonic() + within_s
    while not page.evaluate(condition):
        assert time.monotonic() < late, f"{condition}: not within {within_s} s"
        page.wait_for_timeout(40)


def draw(page: Page, strokes: list[Stroke]) -> None:
    """Draw with the mouse."""
    page.locator("#pad").scroll_into_view_if_needed()
    box = page.locator("#pad").bounding_box()
    assert box is not None
    for stroke in strokes:
        points = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in stroke]
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def settled(page: Page, *, within_s: float = 10) -> str:
    """Wait until a drawing has been read and explained; what was announced."""
    until(
        page,
        "/^(Read as|Not a digit)/.test(document.querySelector('#said').textContent)"
        " && !document.querySelector('#why').hidden"
        " && !document.querySelector('#why').classList.contains('stale')",
        within_s=within_s,
    )
    return page.inner_text("#said")


def clear(page: Page) -> None:
    page.click("#clear")
    until(page, "document.querySelector('#digit').textContent === '–'")


def give(page: Page, event: str, data: bytes, name: str = "digit.png", kind: str = "") -> None:
    """Drop or paste a file."""
    page.evaluate(
        """([event, data, name, kind]) => {
            const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
            const given = new DataTransfer();
            given.items.add(new File([bytes], name, { type: kind }));
            const made = event === 'paste'
                ? new ClipboardEvent('paste', { clipboardData: given, bubbles: true })
                : new DragEvent(event, { dataTransfer: given, bubbles: true, cancelable: true });
            document.querySelector('#pad').dispatchEvent(made);
        }""",
        [event, base64.b64encode(data).decode(), name, kind or "image/png"],
    )


def inked(page: Page) -> int:
    """How many pixels of the drawing are dark."""
    return page.evaluate(
        """() => { const c = document.querySelector('#pad');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i + 3] > 200 && d[i] < 90;
        return n; }"""
    )


def focused(page: Page) -> str:
    return page.evaluate(
        "document.activeElement.id || document.activeElement.textContent.trim().slice(0, 30)"
    )


def show_all(page: Page, digit: int) -> None:
    """Draw a digit, and let the page show all that it can tell of it."""
    draw(page, DIGITS[digit])
    settled(page)
    page.wait_for_selector("#models tr")
    page.click("#flip")
    page.wait_for_selector("#flipped canvas")


def faults(page: Page) -> list[str]:
    """What axe-core finds amiss, in a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:120]}" for v in found for node in v["nodes"]]
