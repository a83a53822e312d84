"""The page for everyone, in a real browser: by keyboard, to be read aloud, and when things fail."""

from __future__ import annotations

import time
import urllib.request
from typing import Any

from browsing import Server, clear, draw, faults, focused, give, settled, show_all, until
from pen_strokes import DIGITS

# --- for everyone -------------------------------------------------------------------------------


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


def test_a_strict_policy_is_sent_and_kept(opened, page_server):
    with urllib.request.urlopen(page_server.url) as answer:
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


def test_it_asks_for_a_key_and_keeps_it_for_this_tab_alone(opened):
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
