"""The search for ink: the colours' projection, the paper's levels and noise, length, rivals."""

from __future__ import annotations

import cv2
import made_pictures
import numpy as np
import pytest

from rowwise import ink


def page(paper: float, pen: float, digit: int = 4) -> np.ndarray:
    return made_pictures.as_bytes(
        made_pictures.mixed(made_pictures.on_paper(made_pictures.drawn(digit)), paper, pen)
    )


# --- colours --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pen", "paper"),
    [
        ((30, 40, 160), (235, 232, 225)),
        ((200, 60, 50), (225, 205, 120)),
        ((70, 110, 190), (20, 40, 30)),
    ],
)
def test_what_is_brighter_stays_brighter_in_the_projection(pen, paper):
    drawn = made_pictures.on_paper(made_pictures.drawn(4))[..., None]
    picture = made_pictures.as_bytes((1 - drawn) * np.array(paper) + drawn * np.array(pen))
    shown = ink.grey(picture)
    luma = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float)
    assert np.corrcoef(shown.ravel(), luma.ravel())[0, 1] > 0.9
    found, *_ = ink.find(picture)
    assert found.bright == (sum(pen) > sum(paper))


# --- levels ---------------------------------------------------------------------------------------


def local_noise(picture: np.ndarray) -> float:
    """Of the last level: dark ink as a share of the paper around it."""
    *_, last = ink._levels(picture, None)
    assert not last.bright
    return last.noise


def test_in_a_shadow_the_same_noise_is_a_larger_share_of_the_paper():
    rng = np.random.default_rng(0)
    grain = rng.normal(0, 4, (200, 200))
    light, dim = (made_pictures.as_bytes(level + grain) for level in (220.0, 55.0))
    assert local_noise(dim) == pytest.approx(4 * local_noise(light), rel=0.15)


def test_noise_in_a_shadow_is_no_ink():
    rng = np.random.default_rng(1)
    paper = np.full((300, 300), 220.0)
    paper[:, 150:] = 45
    noisy = made_pictures.as_bytes(paper + rng.normal(0, 5, paper.shape))
    assert ink.find(noisy, bright=False) == []


@pytest.mark.parametrize(("contrast", "there"), [(3, False), (12, True), (30, True)])
def test_ink_stands_out_by_some_levels_at_least(contrast, there):
    found = ink.find(page(200, 200 - contrast))
    assert bool(found) == there


def test_faint_ink_on_nearly_black_paper_is_found():
    found, *_ = ink.find(page(2, 40))
    assert found.bright


# --- length ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "there"), [(20, False), (30, False), (28, False), (70, True)])
def test_what_is_shorter_than_its_share_of_the_picture_is_no_digit(length, there):
    """Of a picture of 1,000 pixels; a digit is 3.5 % of it at least."""
    drawn = made_pictures.cut_to_ink(made_pictures.drawn(1, width=0.08))
    size = (round(length * drawn.shape[1] / len(drawn)), length)
    sheet = np.zeros((1000, 800), np.float32)
    sheet[400 : 400 + length, 300 : 300 + size[0]] = cv2.resize(
        drawn, size, interpolation=cv2.INTER_AREA
    )
    picture = made_pictures.as_bytes(made_pictures.mixed(sheet, 235, 30))
    assert bool(ink.find(picture)) == there
    assert ink.largest_part(picture) == pytest.approx(length / 1000, rel=0.35)


# --- rivals ---------------------------------------------------------------------------------------


def test_rivals_are_as_good_nearly_and_another_ink():
    for digit in range(10):
        found = ink.find(page(230, 40, digit))
        assert len(found) == 1
    drawn = made_pictures.cut_to_ink(made_pictures.drawn(2, width=0.14))
    crop = np.where(cv2.resize(drawn, (16, 16), interpolation=cv2.INTER_AREA) > 0.4, 0, 255)
    found = ink.find(crop.astype(np.uint8))
    assert sum(not one.laid for one in found) >= 2
    for place, one in enumerate(found):
        for other in found[:place]:
            if one.mask.shape == other.mask.shape:
                assert ink._shared(one.mask, other.mask) < ink.SAME


def test_a_frame_is_not_laid_into_a_margin():
    frame = np.full((60, 60), 230, np.uint8)
    frame[:5] = frame[-5:] = 20
    frame[:, :5] = frame[:, -5:] = 20
    assert not any(one.laid for one in ink.find(frame))
