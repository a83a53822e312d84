"""Digits among other things, made by benchmarks/around.py: what is accepted is right."""

from __future__ import annotations

import made_pictures
import numpy as np
import pytest
from pages import ROOT

from rowwise import Recogniser
from rowwise.pixels import from_array

KINDS = ("neighbours", "borders", "grounds")


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture(scope="module")
def reader():
    return Recogniser.load("rows")


def wrong(reader, pictures) -> list[str]:
    """Which of made pictures are wrongly accepted."""
    readings = reader.read_many(from_array(one.picture) for one in pictures)
    return [
        f"{made.way} {made.digit}: {one.digit} at {one.confidence:.4f}"
        for made, one in zip(pictures, readings, strict=True)
        if one.accepted and one.digit != made.digit
    ]


def drawn() -> tuple[np.ndarray, list[int]]:
    """Digits drawn with strokes of our own, as MNIST's are."""
    widths = (0.09, 0.12)
    images = [
        made_pictures.mnist_like(made_pictures.drawn(digit, width=width))
        for width in widths
        for digit in range(10)
    ]
    return np.stack(images), list(range(10)) * len(widths)


@pytest.mark.parametrize("kind", KINDS)
def test_no_drawn_digit_among_other_things_is_wrongly_accepted(kind, reader):
    import around

    pictures = around.made(kind, around.Digits(*drawn()), 40, seed=1)
    assert wrong(reader, pictures) == []
    again = around.made(kind, around.Digits(*drawn()), 8, seed=1)
    np.testing.assert_array_equal(again[7].picture, pictures[7].picture)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_digits_of_mnist_among_other_things_keep_the_promise(kind, mnist):
    """At most 3 of 1,600 pictures, whose upper limit at 95 % is half a percent."""
    import around

    digits = around.Digits(mnist.train_images[-4000:], mnist.train_labels[-4000:].tolist())
    pictures = around.made(kind, digits, 1600, seed=2)
    assert len(wrong(Recogniser.load("best"), pictures)) <= 3


def test_several_digits_are_said_to_be_several_wherever_a_reading_goes(reader, tmp_path, capsys):
    import json

    import around

    from rowwise.cli import main
    from rowwise.image_files import png

    (made,) = around.made("neighbours", around.Digits(*drawn()), 1, seed=1)
    file = tmp_path / "two.png"
    file.write_bytes(png(made.picture))
    reading = reader.read(file)
    assert reading.digit is not None
    assert not reading.accepted
    assert reading.reason.startswith("several digits: ")
    with pytest.raises(SystemExit, match="0"):
        main(["predict", str(file), "--model", "rows", "--json"])
    assert json.loads(capsys.readouterr().out)["reason"] == reading.reason
