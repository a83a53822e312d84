"""Take the pictures of the page for docs/pictures: a real server, a real browser, drawn digits.

Needs the program chromium and the extras `serve` and `test`; where ROWWISE_DATA names MNIST, the
nearest training digits are shown too.

    python docs/make_page_pictures.py
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
OUT = ROOT / "docs" / "pictures"
MOST_BYTES = 200_000
COLOURS = 64  # more than the page has, its smoothed letters included
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 1500}


def main() -> None:
    """Serve, draw, look, write."""
    from browsing import CHROMIUM, FLAGS, Server
    from playwright.sync_api import sync_playwright

    from rowwise import model

    models = [part for name in model.shipped() for part in ("--model", name)]
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = Server(Path(folder), *models, "--keep", Path(folder) / "digits", data=True)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            for name, digit, row, full, settings in (
                ("page-desktop", 4, 14, False, {"viewport": DESKTOP}),
                ("page-why", 3, 28, True, {"viewport": DESKTOP}),
                ("page-dark", 9, 28, False, {"viewport": DESKTOP, "color_scheme": "dark"}),
                ("page-phone", 2, 28, False, {"viewport": PHONE}),
            ):
                context = browser.new_context(reduced_motion="reduce", **settings)
                page = context.new_page()
                page.goto(server.url)
                page.wait_for_selector("#model option", state="attached")
                _show(page, digit, row)
                if full:
                    page.click("#flip")
                    page.wait_for_selector("#flipped canvas")
                _write(OUT / f"{name}.png", page.screenshot(full_page=full))
                context.close()
        finally:
            browser.close()
            server.stop()


def _show(page: Any, digit: int, row: int) -> None:
    from browsing import draw, settled, until
    from pen_strokes import DIGITS

    draw(page, DIGITS[digit])
    settled(page, within_s=60)  # the first explanation reads MNIST
    until(page, "document.querySelector('#row').textContent === 'row 28 of 28'")
    if page.locator("#model option").count() > 1:  # side by side
        page.locator("#models tr").first.wait_for(timeout=20_000)
    page.locator("#scrub").fill(str(row))
    page.mouse.move(2, 2)
    page.evaluate("scrollTo(0, 0)")


def _write(path: Path, png: bytes) -> None:
    content = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(content, "PNG", optimize=True)
    size = content.tell()
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} has {size:,} bytes, at most {MOST_BYTES:,} are wanted")
    path.write_bytes(content.getvalue())
    print(f"{path.name}: {size:,} bytes")


if __name__ == "__main__":
    main()
