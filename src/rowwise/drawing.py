"""How every figure is drawn: its colours, type and size, and its bytes as SVG and PNG.

Every colour is an entry of `THEME`, so that a page can swap it for its light or dark variable;
no figure tells two things apart by colour alone. Lengths are points (1/72 inch).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import wraps
from html import escape
from typing import TYPE_CHECKING, Any, ParamSpec

from rowwise.errors import importing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")

INK, MUTED, RULE, PAPER = "#1d1c1a", "#5d5c58", "#d8d6cf", "#ffffff"
# Okabe and Ito's palette, darkened until each line has a contrast of 3:1 to white.
SERIES = ("#0066a4", "#c85400", "#00805c", "#a8498a", "#8f6400", "#2e7fae")
THEME = {INK: "ink", MUTED: "muted", RULE: "rule", PAPER: "paper"} | {
    colour: f"s{number}" for number, colour in enumerate(SERIES)
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
PANEL, WIDE = 300.0, 560.0  # widths of figures: one for a phone, one that may scroll there
SHOWN_CLASSES = 20  # figures that need a row or a legible number for each class show at most these

STYLE: Any = {
    "font.size": 10,
    "font.family": "sans-serif",
    "text.parse_math": False,  # a network may be called "a$b$"
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "rowwise",
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """`draw`, with everything that it makes in the house style."""

    @wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style():
            return draw(*args, **kwargs)

    return inside


def style() -> Any:
    """The house style as a context; raises MissingExtra where matplotlib is not installed."""
    with importing("matplotlib", "study"):
        import matplotlib
    return matplotlib.rc_context(STYLE)


def figure(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` points, free of pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    empty = Figure(figsize=(width / 72, height / 72), facecolor=PAPER)
    FigureCanvasAgg(empty)
    return empty


def axes(parent: Figure, left: float, top: float, right: float, bottom: float) -> Axes:
    """Axes that leave the given margins, in points, inside `parent`."""
    width, height = (72 * inches for inches in parent.get_size_inches())
    box = (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - top - bottom) / height,
    )
    return parent.add_axes(box)


def svg(drawn: Figure) -> str:
    """`drawn` as an SVG document with text as text, the same bytes each time."""
    text = io.StringIO()
    with style():
        drawn.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()


def png(drawn: Figure, *, dpi: int = 144) -> bytes:
    """`drawn` as a PNG on white with `dpi` dots an inch, the same bytes each time."""
    data = io.BytesIO()
    with style():
        drawn.savefig(
            data,
            format="png",
            dpi=dpi,
            metadata={"Software": None},
            pil_kwargs={"compress_level": 3},  # half the time of 6, a tenth more bytes
        )
    return data.getvalue()


def shorten(text: str, length: int) -> str:
    """`text`, cut to `length` characters with an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def inline(text: str, *, name: str, label: str) -> str:
    """An SVG document as an `<svg>` element for a page: its colours are the page's variables, its
    text the page's type, its ids its own.

    Args:
        text: a figure as `svg` gives it, whose colours are those of `THEME`.
        name: goes before every id, so that figures of one page do not share any.
        label: what a screen reader says in place of the picture.
    """
    text = text[text.index("<svg") :]
    size = re.search(r'viewBox="0 0 (\S+) (\S+)"', text)
    assert size is not None, "matplotlib writes a viewBox"
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r"<[^>]*>", lambda tag: _of_the_page(tag.group()), text)
    text = re.sub(r"\s*\n\s*|<g/>|<defs>\s*</defs>", " ", text)
    text = _own_ids(text, name)
    head = (
        f'<svg class="drawn" role="img" aria-label="{escape(label)}" {size.group()} '
        f'style="--wide: {size.group(1)}">'
    )
    return head + text[text.index(">") + 1 :].replace("xlink:href", "href").strip()


def _of_the_page(tag: str) -> str:
    """One tag in the page's colours and type, its numbers cut to two decimals."""
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r"font: ([^;\"]*?) ?([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2", tag)
    tag = re.sub(r' transform="rotate\(-0 [^"]*"', "", tag)
    for colour, variable in THEME.items():
        tag = tag.replace(f": {colour}", f": var(--{variable})")
    return re.sub(r"(?<=\d\.)(\d\d)\d+(?=[^\d\w/+=])", r"\1", tag)


def _own_ids(text: str, name: str) -> str:
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m.group() if m.group(1) in used else "", text)
    for number, old in enumerate(sorted(used)):
        text = re.sub(rf'(?<=[#"]){re.escape(old)}(?=[")])', f"{name}-{number}", text)
    return text
