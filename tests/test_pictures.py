"""pictures: the pixels of a picture are the pixels that are drawn, ink dark."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from rowwise import drawing, pictures
from rowwise.pictures import Misread

RNG = np.random.default_rng(0)


def texts(drawn: object) -> str:
    return "\n".join(re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg(drawn)))  # type: ignore[arg-type]


def test_a_picture_is_kept_pixel_by_pixel_with_ink_dark() -> None:
    image = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
    with Image.open(io.BytesIO(pictures.picture_png(image))) as opened:
        assert opened.mode == "L"
        assert np.array_equal(255 - np.asarray(opened), image)


def test_a_sheet_has_a_row_for_each_class() -> None:
    images = RNG.integers(0, 256, (3, 4, 8, 6)).astype(np.uint8)
    drawn = pictures.samples(images, ["cat", "dog", "emu"])
    assert len(drawn.axes) == 3
    shown = drawn.axes[1].images[0].get_array()
    assert np.array_equal(shown, np.hstack(list(images[1])))
    assert all(name in texts(drawn) for name in ("cat", "dog", "emu"))


@pytest.mark.parametrize("draw", [pictures.samples, pictures.mean_images])
def test_of_many_classes_the_first_twenty_are_shown(draw) -> None:  # type: ignore[no-untyped-def]
    shape = (30, 2, 4, 4) if draw is pictures.samples else (30, 4, 4)
    drawn = draw(np.zeros(shape, np.uint8), [f"class{place}" for place in range(30)])
    assert len(drawn.axes) == 20
    assert "class19" in texts(drawn)
    assert "class20" not in texts(drawn)


def test_mean_images_share_one_scale() -> None:
    means = np.stack([np.full((4, 4), 10.0), np.full((4, 4), 200.0)]).astype(np.float32)
    drawn = pictures.mean_images(means, ["pale", "dark"])
    assert {on.images[0].get_clim() for on in drawn.axes} == {(0, 200.0)}


def test_the_gallery_keeps_its_order_and_says_what_was_said() -> None:
    items = [
        Misread(RNG.integers(0, 256, (8, 8)).astype(np.uint8), str(place), str(place + 1), 0.98)
        for place in range(4)
    ]
    drawn = pictures.misread(items, columns=3)
    (on,) = drawn.axes
    assert [np.array_equal(image.get_array(), item.image)
            for image, item in zip(on.images, items, strict=True)] == [True] * 4  # fmt: skip
    lefts = [image.get_extent()[0] for image in on.images]
    assert lefts[0] < lefts[1] < lefts[2]
    assert lefts[3] == lefts[0]
    assert "is 3" in texts(drawn)
    assert "said 4, 98 %" in texts(drawn)


def test_an_empty_gallery_is_an_empty_figure() -> None:
    assert drawing.png(pictures.misread([]))


def test_short_groups_are_filled_with_empty_pictures() -> None:
    groups = [np.ones((2, 3, 3), np.uint8), np.ones((1, 3, 3), np.uint8)]
    sheet = pictures.stack(groups)
    assert sheet.shape == (2, 2, 3, 3)
    assert sheet[1, 1].sum() == 0
    assert sheet.sum() == 27
