"""The page in a real browser: digits drawn stroke by stroke, and all that it shows of them."""

from __future__ import annotations

import base64
import io
import os
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import made_models
import numpy as np
import pytest
from browsing import CHROMIUM, FLAGS, PAGE, Server, draw, settled, until
from made_models import page as paper
from pen_strokes import DIGITS, SCRIBBLE
from PIL import Image

from rowwise import corrections, formats, model

NEEDED = bool(os.environ.get("CI") or os.environ.get("ROWWISE_REQUIRE_BROWSER"))
# A server that is away or refuses, and a test that counts pixels: the browser tells of both.
OUR_OWN = ("Failed to load resource", "Canvas2D: Multiple readback")
DESKTOP = {"width": 1280, "height": 860}
MOST_BYTES = 60_000


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


if missing() and not NEEDED:
    pytest.skip(missing(), allow_module_level=True)
assert not missing(), f"CI tests the page; it {missing()}"

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright  # noqa: E402

# --- a server, a browser, a page ----------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(folder) -> Iterator[Server]:
    """Serves `rows` and a small made model, and keeps corrections in the folder `kept`."""
    made_models.best(name="made").save(folder / "made.safetensors")
    chosen = ("--model", "rows", "--model", folder / "made.safetensors")
    one = Server(folder, *chosen, "--keep", folder / "kept")
    yield one
    one.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


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
def opened(browser, server) -> Iterator[Callable[..., Page]]:
    """Open the page as a visitor with these settings; nothing may fail in it, or go elsewhere."""
    visits: list[Watched] = []

    def open_page(url: str = server.url, *, before: str = "", **settings: Any) -> Page:
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


def clear(page: Page) -> None:
    page.click("#clear")
    until(page, "document.querySelector('#digit').textContent === '–'")


def png(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


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


def faults(page: Page) -> list[str]:
    """What axe-core finds amiss, in a line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:120]}" for v in found for node in v["nodes"]]


# --- its text -----------------------------------------------------------------------------------


def test_the_page_is_one_small_file_that_needs_no_other():
    text = PAGE.read_text("utf-8")
    assert len(text.encode()) <= MOST_BYTES
    assert text.count("<script") == text.count("<style") == 1
    assert not re.search(r"<[^>]*\s(style|on\w+)=", text.partition("<script>")[0])
    assert not re.search(
        r"\beval\(|new Function|innerHTML|insertAdjacentHTML|document\.write", text
    )
    links = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'<>]*", text)
    assert [link for link in links if not link.startswith("http://www.w3.org/")] == []


# --- drawing and reading ------------------------------------------------------------------------


def test_ten_digits_are_drawn_stroke_by_stroke_and_read(opened):
    page = opened()
    read = {}
    for digit, strokes in DIGITS.items():
        draw(page, strokes)
        until(page, "done.read === version && !stroke")
        read[digit] = page.inner_text("#digit")
        top = page.locator("#bars li.top")
        assert top.locator("span").first.inner_text() == read[digit]
        assert top.locator("span").last.inner_text() == page.inner_text("#sure")
        clear(page)
    assert page.inner_text("#said") == ""  # it speaks once a drawing rests, not at each stroke
    right = [digit for digit, told in read.items() if told == str(digit)]
    assert len(right) >= 8, read


def test_it_reads_while_one_draws_one_request_at_a_time(opened):
    page = opened(
        before="""
        window.flying = window.most = window.count = 0;
        const inner = window.fetch;
        window.fetch = async (...given) => {
            window.most = Math.max(window.most, ++window.flying);
            window.count++;
            try { return await inner(...given); } finally { window.flying--; }
        };"""
    )
    box = page.locator("#pad").bounding_box()
    page.mouse.move(box["x"] + 150, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 155, box["y"] + 280, steps=20)
    until(page, "document.querySelector('#digit').textContent !== '–'")
    assert page.locator("#why").is_hidden()  # that waits until the pen is up
    early = page.evaluate("window.count")
    for x in range(0, 60, 4):
        page.mouse.move(box["x"] + 155 + x, box["y"] + 280 + x / 4, steps=2)
        page.wait_for_timeout(20)
    page.mouse.up()
    settled(page)
    assert page.evaluate("window.count") > early
    assert page.evaluate("window.most") == 1


def test_undo_redo_and_clear(opened):
    page = opened()
    draw(page, DIGITS[4])
    assert settled(page).startswith("Read as 4")
    page.click("#undo")  # the upright is gone
    until(page, "document.querySelector('#said').textContent.startsWith('Read as')")
    page.click("#redo")
    until(page, "document.querySelector('#said').textContent.startsWith('Read as 4')")
    clear(page)
    assert page.get_attribute("#clear", "aria-disabled") == "true"
    assert focused(page) == "clear"  # who pressed it by keyboard is still there
    assert page.inner_text("#verdict") == "Nothing drawn yet"
    page.keyboard.press("Control+z")
    until(page, "document.querySelector('#digit').textContent === '4'")
    page.keyboard.press("Control+Shift+Z")
    until(page, "document.querySelector('#digit').textContent === '–'")


def inked(page: Page) -> int:
    """How many pixels of the drawing are dark."""
    return page.evaluate(
        """() => { const c = document.querySelector('#pad');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i + 3] > 200 && d[i] < 90;
        return n; }"""
    )


def test_a_pen_draws_wider_where_it_is_pressed(opened):
    page = opened()
    box = page.locator("#pad").bounding_box()
    wire = page.context.new_cdp_session(page)
    found = []
    for force in (0.15, 0.95):
        for kind, y in [("mousePressed", 80), *[("mouseMoved", 80 + 10 * i) for i in range(18)],
                        ("mouseReleased", 260)]:  # fmt: skip
            wire.send("Input.dispatchMouseEvent", {
                "type": kind, "x": box["x"] + 170, "y": box["y"] + y, "button": "left",
                "buttons": 1, "clickCount": 1, "pointerType": "pen", "force": force,
            })  # fmt: skip
        found.append(inked(page))
        page.click("#clear")
    assert found[1] > 1.5 * found[0] > 0
    page.locator("#width").fill("44")
    draw(page, DIGITS[1])
    wide = inked(page)
    page.click("#clear")
    page.locator("#width").fill("10")
    draw(page, DIGITS[1])
    assert wide > 2 * inked(page)


def test_a_finger_draws_on_a_phone(opened):
    page = opened(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    box = page.locator("#pad").bounding_box()
    wire = page.context.new_cdp_session(page)
    for stroke in DIGITS[7]:
        spots = [
            {"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in stroke
        ]
        wire.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": spots[:1]})
        for spot in spots[1:]:
            wire.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [spot]})
        wire.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert settled(page).startswith("Read as 7")
    page.locator("#side").wait_for()
    page.click("#keys summary")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert faults(page) == []


# --- pictures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "paste", "pick"])
def test_a_picture_is_dropped_pasted_or_picked(opened, how):
    page = opened()
    data = png(paper(3))
    if how == "pick":
        page.set_input_files("#file", {"name": "3.png", "mimeType": "image/png", "buffer": data})
    else:
        give(page, how, data)
    assert settled(page).startswith("Read as 3")
    assert page.locator("#hint").is_hidden()
    assert inked(page) > 500


def test_what_has_no_ink_is_no_digit(opened):
    page = opened()
    give(page, "drop", png(np.full((90, 120), 190, np.uint8)))
    assert settled(page).startswith("Not a digit")
    assert page.inner_text("#verdict") == "Not a digit"
    assert page.inner_text("#why-verdict").startswith("No ink: ")
    assert page.locator("#play").is_disabled()
    assert page.locator("#reasons").is_hidden()


def test_what_is_no_digit_is_not_sure(opened):
    page = opened()
    draw(page, SCRIBBLE)
    assert "not sure" in settled(page)
    assert page.inner_text("#verdict") == "Not sure"
    assert "to be accepted" in page.inner_text("#why-verdict")


# --- the film -----------------------------------------------------------------------------------

COLUMNS = """() => { const c = document.querySelector('#film'), h = c.height;
    const d = c.getContext('2d').getImageData(0, 0, c.width, h).data;
    let n = 0; for (let i = Math.floor(h * .7) * c.width * 4; i < h * .85 * c.width * 4; i += 4)
        n += d[i + 3] > 200 && d[i + 2] > d[i] + 60; return n; }"""


def test_the_film_runs_row_by_row_and_can_be_scrubbed(opened):
    page = opened()
    draw(page, DIGITS[9])
    settled(page)
    rows = []
    while not rows or rows[-1] < 28:
        rows.append(int(page.locator("#scrub").input_value()))
        page.wait_for_timeout(60)
    assert rows == sorted(rows)
    assert len(set(rows)) > 5
    whole = page.evaluate(COLUMNS)
    table = [
        line.locator("td").all_text_contents() for line in page.locator("#ten tbody tr").all()[:28]
    ]
    assert len(table) == 28
    page.locator("#scrub").focus()
    page.locator("#scrub").fill("12")
    assert page.inner_text("#row") == "row 12 of 28"
    told = page.get_attribute("#scrub", "aria-valuetext")
    lead = int(np.argmax([int(share) for share in table[11]]))
    assert re.fullmatch(rf"after row 12 of 28: {lead}, [> \d.]+ %", told)
    assert page.evaluate(COLUMNS) < whole / 4  # nothing is told of rows that are not read yet
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#row") == "row 13 of 28"
    page.keyboard.press("End")
    assert page.inner_text("#row") == "row 28 of 28"
    page.click("#play")
    until(page, "+document.querySelector('#scrub').value < 20")
    page.click("#play")
    stopped = page.inner_text("#row")
    page.wait_for_timeout(150)
    assert page.inner_text("#row") == stopped
    made = re.search(r"made up at row (\d+) of 28 .* it read 9", page.inner_text("#belief"))
    assert made is not None
    page.click("#as-table summary")
    assert page.text_content("#ten tbody tr th >> nth=" + str(int(made[1]) - 1)).startswith("▸")


def test_with_reduced_motion_the_film_stands_at_its_end(opened):
    page = opened(reduced_motion="reduce")
    draw(page, DIGITS[2])
    settled(page)
    until(page, "document.querySelector('#row').textContent === 'row 28 of 28'")
    assert page.inner_text("#play") == "↻ Replay"


# --- why ----------------------------------------------------------------------------------------


def test_it_says_why_and_what_would_flip_it(opened):
    page = opened()
    draw(page, DIGITS[4])
    settled(page)
    steps = page.locator("#steps li")
    assert steps.count() >= 4
    assert all(steps.locator("p").all_inner_texts())
    wide = page.evaluate("[...document.querySelectorAll('#steps img')].map((i) => i.naturalWidth)")
    assert min(wide) >= 10
    assert page.inner_text("#near-said").startswith("None to show: the training pictures")
    page.click("#flip")
    page.wait_for_selector("#flipped canvas, #flipped p:not(:has-text('Looking'))")
    told = page.inner_text("#flipped")
    proof = re.search(r"it reads a (\d) and no longer a 4. Read again to prove it: (\d), ", told)
    assert proof is not None, told
    assert proof[1] == proof[2] != "4"


def test_models_stand_side_by_side(opened):
    page = opened()
    draw(page, DIGITS[6])
    page.wait_for_selector("#models tr:nth-child(2)")
    rows = [line.split("\t")[0] for line in page.locator("#models tr").all_inner_texts()]
    assert rows == ["rows", "made"]
    assert page.locator("#models td").first.inner_text() == "6"
    page.select_option("#model", "made")
    until(page, "document.querySelector('#by').textContent === 'by made'")


# --- corrections --------------------------------------------------------------------------------


def test_a_correction_is_kept_once_it_was_agreed_to(opened, folder):
    page = opened()
    draw(page, DIGITS[1])
    settled(page)
    button = page.get_by_role("button", name="No, it is a 7", exact=True)
    button.click()
    asked = page.inner_text("#consent")
    assert "on this machine only" in asked
    assert re.search(r"rowwise train --init-from rows --data mnist --data \S+ ", asked)
    assert faults(page) == []
    page.click("#refuse")
    assert not (folder / "kept/7").exists()
    button.click()
    page.click("#agree")
    until(page, "document.querySelector('#kept').textContent.startsWith('Kept as 7')")
    assert button.get_attribute("aria-pressed") == "true"
    assert formats.read(folder / "kept").train.labels.tolist() == [7]
    page.get_by_role("button", name="No, it is a 2", exact=True).click()  # asked only once
    until(page, "document.querySelector('#kept').textContent.startsWith('Kept as 2')")
    assert formats.read(folder / "kept").train.labels.tolist() == [2]
    assert len(list((folder / "kept").rglob(f"*{corrections.SUFFIX}"))) == 1


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_file_that_is_no_picture_is_told_and_drawing_goes_on(opened):
    page = opened()
    give(page, "drop", b"no picture", "notes.txt", "text/plain")
    page.wait_for_selector("#fault:not([hidden])")
    assert "could not be read as a picture. Expected a picture, " in page.inner_text("#fault")
    assert page.inner_text("#hint").split("\n") == ["notes.txt", "could not be read"]
    assert page.inner_text("#verdict") == "Nothing read"
    page.evaluate(
        """() => { const given = new DataTransfer();
        given.items.add(new File([new Uint8Array(2.1e7)], 'a.png', { type: 'image/png' }));
        const made = new DragEvent('drop', { dataTransfer: given, cancelable: true });
        document.dispatchEvent(made); }"""
    )
    until(page, "document.querySelector('#fault').textContent.includes('too large')")
    page.click("#clear")
    draw(page, DIGITS[5])
    assert settled(page).startswith("Read as 5")
    assert page.locator("#fault").is_hidden()


def test_it_waits_for_a_busy_server(opened):
    page = opened()
    times: list[float] = []

    def answer(route: Any) -> None:
        times.append(time.monotonic())
        if len(times) > 1:
            return route.continue_()
        return route.fulfill(
            status=503, headers={"Retry-After": "1"}, json={"title": "busy", "status": 503}
        )

    page.route("**/v1/read?**", answer)
    draw(page, DIGITS[0])
    page.wait_for_selector("#fault:not([hidden])")
    assert "busy" in page.inner_text("#fault")
    assert settled(page).startswith("Read as 0")
    assert page.locator("#fault").is_hidden()
    assert times[1] - times[0] > 0.9


def test_it_asks_for_a_key_and_keeps_it_for_this_tab_alone(opened, server):
    page = opened()

    def answer(route: Any) -> None:
        if route.request.headers.get("authorization") == "Bearer secret":
            return route.continue_()
        return route.fulfill(status=401, json={"title": "Unauthorized", "status": 401})

    page.route("**/v1/**", answer)
    page.reload()
    page.wait_for_selector("#key-form:not([hidden])")
    assert "asks for an API key" in page.inner_text("#fault")
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#fault').textContent.includes('not know')")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    draw(page, DIGITS[7])
    assert settled(page).startswith("Read as 7")
    assert page.evaluate("Object.values(localStorage).join()") == ""
    assert page.evaluate("sessionStorage.getItem('rowwise.key')") == "secret"


def test_it_goes_on_after_the_server_was_killed_and_started_again(opened, tmp_path):
    one = Server(tmp_path, "--model", "rows")
    try:
        page = opened(one.url)
        assert "keeps no examples" in page.inner_text("#kept")
        draw(page, DIGITS[2])
        assert settled(page).startswith("Read as 2")
        one.kill()
        clear(page)
        draw(page, DIGITS[3])
        page.wait_for_selector("#fault:not([hidden])")
        assert "does not answer" in page.inner_text("#fault")
        one.start()
        assert settled(page).startswith("Read as 3")
        assert page.locator("#fault").is_hidden()
    finally:
        one.stop()


def test_it_goes_on_after_the_network_was_away(opened):
    page = opened()
    page.context.set_offline(True)
    draw(page, DIGITS[8])
    page.wait_for_selector("#fault:not([hidden])")
    page.context.set_offline(False)
    page.get_by_role("button", name="Try now").click()
    assert settled(page).startswith("Read as 8")


# --- for everyone -------------------------------------------------------------------------------


def focused(page: Page) -> str:
    return page.evaluate(
        "document.activeElement.id || document.activeElement.textContent.trim().slice(0, 30)"
    )


def test_the_keyboard_alone_is_enough(opened):
    page = opened()
    order = []
    while not order or order[-1] != "pad":
        page.keyboard.press("Tab")
        order.append(focused(page))
        assert len(order) < 10
    assert order == ["model", "theme", "pad"]
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    for _ in range(20):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    assert settled(page).startswith("Read as 1")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Control+z")
    until(page, "document.querySelector('#digit').textContent === '–'")
    page.keyboard.press("Control+y")
    settled(page)
    after = []
    while "flip" not in after:
        page.keyboard.press("Tab")
        after.append(focused(page))
        assert len(after) < 30
    buttons = [str(digit) for digit in range(10)]
    tools = ["undo", "redo", "clear", "open", "width", "Draw with the keyboard"]
    expected = [*tools, *buttons, "play", "scrub", "The belief as a table", "flip"]
    assert after == expected
    page.locator("#scrub").focus()
    page.keyboard.press("Home")
    assert page.inner_text("#row") == "row 0 of 28"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#row") == "row 1 of 28"


def show_all(page, digit):
    """Draw a digit, and let the page show all that it can tell of it."""
    draw(page, DIGITS[digit])
    settled(page)
    page.wait_for_selector("#models tr")
    page.click("#flip")
    page.wait_for_selector("#flipped canvas")


def test_axe_finds_no_fault(opened):
    page = opened(reduced_motion="reduce")
    show_all(page, 4)
    page.click("#keys summary")
    page.click("#as-table summary")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        paper_rgb = page.evaluate(
            "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
        )
        assert (max(paper_rgb) < 60) == (scheme == "dark")
        assert faults(page) == []


def test_the_theme_can_be_chosen_and_stays(opened):
    page = opened(color_scheme="light")
    page.click("#theme")
    page.click("#theme")
    assert page.inner_text("#theme") == "Theme: dark"
    page.reload()
    assert page.inner_text("#theme") == "Theme: dark"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 23)"


def test_nothing_is_wider_than_the_screen(opened):
    page = opened(reduced_motion="reduce")
    show_all(page, 9)
    page.click("#as-table summary")
    for width in (320, 360, 679, 680, 1079, 1080):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_strict_policy_is_sent_and_kept(opened, server):
    with urllib.request.urlopen(server.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "'unsafe-inline'" not in policy
    assert "'unsafe-eval'" not in policy
    assert "default-src 'none'" in policy
    page = opened(
        before="window.broken = []; document.addEventListener('securitypolicyviolation',"
        " (e) => window.broken.push(e.violatedDirective + ' ' + e.blockedURI));"
    )
    draw(page, DIGITS[1])
    settled(page)
    assert page.evaluate("window.broken") == []
