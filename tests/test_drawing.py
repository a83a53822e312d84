"""drawing: one look for every figure, in colours that every page and every eye can tell apart."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rowwise
from rowwise import drawing
from rowwise.drawing import DASHES, MARKERS, SERIES, THEME
from rowwise.errors import MissingExtra

PAGE = Path(rowwise.__file__).with_name("report.html").read_text("utf-8")
# Machado, Oliveira and Fernandes 2009, severity 1.0, in linear RGB.
DEFICIENT = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    lights = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    x, y, z = np.cbrt(np.clip(to_xyz @ rgb, 0, None) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def themes() -> dict[str, dict[str, str]]:
    """The page's colours by name, light and dark."""
    dark_from = PAGE.index("prefers-color-scheme: dark")
    parts = {"light": PAGE[:dark_from], "dark": PAGE[dark_from:]}
    return {
        name: dict(reversed(re.findall(r"--([a-z0-9]+): (#[0-9a-f]{6})", text)))
        for name, text in parts.items()
    }


def test_every_drawn_colour_is_a_variable_of_the_page_in_both_modes() -> None:
    for colours in themes().values():
        assert set(THEME.values()) <= colours.keys()
    assert {THEME[c]: c for c in THEME}.items() <= themes()["light"].items()


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrasts(mode: str) -> None:
    colours = themes()[mode]
    for ground in (colours["paper"], colours["wash"]):
        assert contrast(colours["ink"], ground) >= 12
        assert contrast(colours["muted"], ground) >= 4.5
        for place in range(len(SERIES)):
            assert contrast(colours[f"s{place}"], ground) >= 3
    # links, and the white on the boxes of a model
    assert contrast(colours["s0"], colours["paper"]) >= 4.5


@pytest.mark.parametrize("mode", ["light", "dark"])
@pytest.mark.parametrize("kind", [None, *DEFICIENT])
def test_the_first_four_networks_differ_to_every_eye(mode: str, kind: str | None) -> None:
    colours = themes()[mode]
    eye = np.array(DEFICIENT[kind]) if kind else np.eye(3)
    seen = [lab(eye @ linear(colours[f"s{place}"])) for place in range(4)]
    for one, other in combinations(seen, 2):
        assert np.linalg.norm(one - other) > 9


def test_networks_differ_without_any_colour() -> None:
    assert len(set(MARKERS)) == len(MARKERS) >= 7
    assert len(set(DASHES)) == len(DASHES) >= 4


@drawing.styled
def drawn(text: str = "a label") -> Any:
    figure = drawing.figure(200, 100)
    on = drawing.axes(figure, 30, 10, 10, 20)
    on.plot([1, 2], [3, 4], color=SERIES[1], marker="o")
    on.text(1, 3, text)
    return figure


def test_a_figure_gives_the_same_bytes_each_time() -> None:
    assert drawing.svg(drawn()) == drawing.svg(drawn())
    assert drawing.png(drawn()) == drawing.png(drawn())


def test_text_stays_text_and_is_never_read_as_mathematics() -> None:
    text = drawing.svg(drawn("a$b$ <i> & _c"))
    assert "a$b$ &lt;i&gt; &amp; _c" in text


def test_inline_svg_takes_the_colours_and_the_type_of_the_page() -> None:
    text = drawing.inline(drawing.svg(drawn()), name="x", label='say "this" & <that>')
    assert text.startswith('<svg class="drawn" role="img" aria-label="say &quot;this&quot; &amp; ')
    assert text.endswith("</svg>")
    assert not re.search(r"#[0-9a-f]{6}\b", text)
    assert {"var(--s1)", "var(--ink)", "var(--paper)"} <= set(re.findall(r"var\(--\w+\)", text))
    assert "font-family" not in text
    assert "http" not in text
    assert "<style" not in text
    assert 'viewBox="0 0 200 100"' in text


def test_inline_svg_keeps_what_the_text_says() -> None:
    text = drawing.inline(drawing.svg(drawn("3.14159 #1d1c1a")), name="x", label="")
    assert "3.14159 #1d1c1a" in text


def test_two_inline_figures_share_no_id() -> None:
    one, two = (drawing.inline(drawing.svg(drawn()), name=name, label="") for name in ("a", "b"))
    ids = [set(re.findall(r' id="([^"]+)"', text)) for text in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, own in zip((one, two), ids, strict=True):
        used = set(re.findall(r'href="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
        assert used == own


def test_long_text_is_cut_with_an_ellipsis() -> None:
    assert drawing.shorten("abcdef", 6) == "abcdef"
    assert drawing.shorten("abcdefg", 6) == "abcde…"
    assert drawing.shorten("abcd efg", 6) == "abcd…"


def test_a_missing_matplotlib_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtra, match=r"rowwise\[study\]"):
        drawn()


def test_no_window_and_no_global_state_is_needed() -> None:
    code = (
        "import sys, rowwise.illustrations; assert 'matplotlib' not in sys.modules; "
        "from rowwise import figures, drawing; "
        "drawing.png(figures.class_distribution([figures.Counts('a', [1, 2])], ['x', 'y'])); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
