"""Finding the sheets in a picture: on desks, beside strips, in frames, rings and cells."""

from __future__ import annotations

import cv2
import made_pictures
import numpy as np
import pytest

from rowwise import paper

SIDE = 280


def page(digit: int = 5, *, ink: float = 40, level: float = 230) -> np.ndarray:
    drawn = made_pictures.on_paper(made_pictures.drawn(digit, side=160), margin=0.375)
    return made_pictures.as_bytes(made_pictures.mixed(drawn, level, ink))


def largest(picture: np.ndarray) -> paper.Sheet:
    return paper.sheets(picture)[-1]


def test_a_page_alone_is_no_sheet_in_the_picture():
    assert paper.sheets(page()) == []
    assert paper.sheets(page(ink=230, level=20)) == []


def test_a_sheet_on_a_desk_is_cut_out_and_its_paper_continued():
    desk = np.full((400, 400, 3), (120, 80, 50), np.uint8)
    desk[60:340, 60:340] = page()[..., None]
    turn = cv2.getRotationMatrix2D((200, 200), 9, 1.0)
    turned = cv2.warpAffine(desk, turn, (400, 400), borderMode=cv2.BORDER_REPLICATE)
    sheet = largest(turned)
    assert sheet.share == pytest.approx(0.49, abs=0.06)
    assert 0 < (sheet.inside == 0).mean() < 0.35, "the corners are of the desk"
    outside = sheet.pixels[sheet.inside == 0].astype(int)
    assert np.abs(outside - 230).max() <= 25, "and are paper now"
    assert (sheet.pixels < 100).any(), "the ink stays"


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("level", [10, 110, 170])
def test_the_page_beside_a_strip_is_a_sheet(side, level):
    picture = np.rot90(page(), side).copy()
    picture[:, :30] = level
    sheet = largest(picture)
    assert sheet.share == pytest.approx(250 / 280, abs=0.03)
    assert sheet.pixels[:, :6].min() > 200, "nothing of the strip is left"


def test_uneven_light_is_continued_as_it_is():
    light = made_pictures.slope((SIDE, SIDE), 150, 240)
    picture = made_pictures.as_bytes(light * page() / 230)
    picture[:, :40] = 20
    sheet = largest(picture)
    steps = np.abs(np.diff(sheet.pixels.astype(int), axis=1))
    assert steps[:30].max() <= 8, "no edge where the paper was continued"


def test_the_inside_of_a_ring_and_of_a_cell_are_sheets():
    ring = np.full((320, 320), 235, np.uint8)
    cv2.circle(ring, (160, 160), 130, 30, 7)
    assert largest(ring).share < 0.97
    assert any(0.45 < one.share < 0.55 for one in paper.sheets(ring))
    cell = np.full((320, 320), 235, np.uint8)
    cell[:, (20, 300)] = 30
    cell[(20, 300), :] = 30
    cell = cv2.erode(cell, np.ones((3, 3), np.uint8))
    assert largest(cell).share == pytest.approx((274 / 320) ** 2, abs=0.04)


def test_a_sheet_says_how_much_its_grain_differs():
    rng = np.random.default_rng(0)
    quiet = page()
    quiet[:, :30] = 20
    noisy = made_pictures.noisy(quiet.astype(float), rng, 6)
    assert largest(quiet).grain == paper.SMOOTH_LEVELS[0]
    assert largest(quiet).grain < largest(noisy).grain <= paper.SMOOTH_LEVELS[1]


def test_tiny_and_narrow_pictures_have_no_sheets():
    for shape in ((1, 1), (3, 300), (12, 12), (15, 2000)):
        assert paper.sheets(np.full(shape, 200, np.uint8)) == []


def test_a_large_sheet_is_reduced():
    picture = np.full((1500, 1500), 60, np.uint8)
    picture[200:1300, 100:1400] = 230
    sheet = largest(picture)
    assert max(sheet.pixels.shape) == paper.KEPT_PX
    assert sheet.pixels.shape[0] / sheet.pixels.shape[1] == pytest.approx(1100 / 1300, abs=0.02)
