"""The figure of an explanation: it says what the explanation says, for whatever was read."""

from __future__ import annotations

import html
import io
import re

import made_models
import numpy as np
import pytest
from made_models import page
from PIL import Image

from rowwise import drawing, explain, image, why
from rowwise.errors import ConfigError, MissingExtra
from rowwise.recognise import Recogniser

pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'rowwise[study]'")


@pytest.fixture(scope="module")
def explanations(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("why") / "models"
        made_models.ship(folder, patch, made_models.rows(), made_models.best())
        patch.setattr(explain, "_kept", {("mnist", ""): "the training pictures are away"})
        reader = Recogniser(made_models.best(data="mnist"), threads=1)
        pages = [page(d) for d in range(10)] + [np.full((30, 50), 255, np.uint8)]
        return [reader.explain(one) for one in pages]


def words(figure) -> str:
    """The text of a figure, tags taken away."""
    return plain(html.unescape(re.sub(r"<[^>]*>", " ", drawing.svg(figure))))


def plain(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_a_figure_says_what_was_read_and_why(explanations):
    for told in explanations[:10]:
        text = words(why.figure(told))
        assert plain(why.verdict(told.reading)) in text
        assert f"at row {told.decided_at}" in text
        assert "What rows believed by row" in text
        assert "The training pictures are away" in text
        assert told.remark in text
        for step in told.steps:
            assert step.name in text
    assert any(told.remark for told in explanations[:10])


def test_a_figure_without_ink_says_so(explanations):
    text = words(why.figure(explanations[-1]))
    assert "No ink" in text
    assert "How likely" not in text


def test_the_verdict_names_doubt(explanations):
    from dataclasses import replace

    reading = replace(explanations[0].reading, confidence=0.999, accepted=True)
    assert why.verdict(reading).replace("\u202f", " ") == "99.9 % sure, accepted"
    assert why.verdict(replace(reading, accepted=False)).endswith("not accepted")
    assert why.verdict(explanations[-1].reading) == "N" + image.NO_INK[1:]


def test_all_panels_lie_inside_the_figure(explanations):
    for told in explanations:
        drawn = why.figure(told)
        for on in drawn.axes:
            box = on.get_position()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= 1
            assert box.y1 <= 1


def test_the_film_is_in_line_with_the_digits_rows(explanations):
    drawn = why.figure(explanations[3])
    film = next(on for on in drawn.axes if on.get_xlabel().startswith("row by row"))
    tall = film.get_position().height
    field, _ = (on for on in drawn.axes if on.get_position().height == pytest.approx(tall))
    assert field.get_position().y0 == pytest.approx(film.get_position().y0)
    assert field.get_ylim() == film.get_ylim()
    np.testing.assert_array_equal(film.images[0].get_array(), explanations[3].beliefs)


def test_files_are_png_or_svg_by_their_suffix(explanations, tmp_path):
    why.write(explanations[2], tmp_path / "why.PNG")
    with Image.open(tmp_path / "why.PNG") as drawn:
        assert drawn.size[0] == pytest.approx(why.WIDTH * why.DPI / 72, abs=1)
    why.write(explanations[2], tmp_path / "why.svg")
    assert (tmp_path / "why.svg").read_text().startswith("<?xml")
    for name in ("why.pdf", "why"):
        with pytest.raises(ConfigError, match=r"drawn as \.png or \.svg"):
            why.write(explanations[2], tmp_path / name)
    why.write(explanations[2], tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "why.svg").read_bytes()


def test_a_sheet_has_a_card_each(explanations):
    drawn = why.sheet(explanations)
    text = words(drawn)
    for told in explanations:
        assert plain(why.verdict(told.reading)) in text
        if told.remark and told.decided_at:
            end = told.classes[told.beliefs[-1].argmax()]
            assert f"rows decided at row {told.decided_at}, for {end}" in text
    # Picture, digit, film and bars of each; of the one without ink the picture alone.
    assert len(drawn.axes) == 4 * 10 + 1
    Image.open(io.BytesIO(drawing.png(drawn))).verify()
    assert why.sheet(explanations[:1]).get_size_inches()[0] < drawn.get_size_inches()[0]


def test_many_classes_and_long_names_fit(tmp_path, monkeypatch):
    names = tuple(f"class number {c}" for c in range(30))
    layers = [made_models.GRU]
    model = made_models.made("rows", layers, target_replication=0.5, classes=names)
    told = Recogniser(model, threads=1).explain(page(3))
    why.write(told, tmp_path / "many.png")
    assert words(why.sheet([told]))


def test_without_matplotlib_the_extra_is_named(explanations, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"rowwise\[study\]"):
        why.write(explanations[0], tmp_path / "why.png")
