"""The page in a real browser: digits drawn stroke by stroke, and all that it shows of them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from browsing import PAGE, clear, draw, faults, focused, give, inked, settled, until
from made_models import page as paper
from pen_strokes import DIGITS, SCRIBBLE

from rowwise import corrections, formats
from rowwise.image_files import png

MOST_BYTES = 60_000

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


def test_a_correction_is_kept_once_it_was_agreed_to(opened, kept):
    page = opened()
    draw(page, DIGITS[1])
    settled(page)
    button = page.get_by_role("button", name="No, it is a 7", exact=True)
    button.click()
    asked = page.inner_text("#consent")
    assert "on this machine only" in asked
    assert "rowwise train --init-from rows --data mnist --data FOLDER\n" in asked
    assert faults(page) == []
    page.click("#refuse")
    assert not (kept / "7").exists()
    button.click()
    page.click("#agree")
    until(page, "document.querySelector('#kept').textContent.startsWith('Kept as 7')")
    assert button.get_attribute("aria-pressed") == "true"
    assert formats.read(kept).train.labels.tolist() == [7]
    page.get_by_role("button", name="No, it is a 2", exact=True).click()  # asked only once
    until(page, "document.querySelector('#kept').textContent.startsWith('Kept as 2')")
    assert formats.read(kept).train.labels.tolist() == [2]
    assert len(list((kept).rglob(f"*{corrections.SUFFIX}"))) == 1
