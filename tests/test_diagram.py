"""diagram: every layer has its box, below all that it reads, and no two boxes touch."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from rowwise import diagram, drawing
from rowwise.diagram import BODY, HEAD, WIDTH, Box


def box(name: str, *inbound: str) -> Box:
    return Box(name, name.title(), "(None, 8, 8)", "(None, 4)", inbound)


CHAIN = [box("a"), box("b", "a"), box("c", "b")]
BRANCHES = [
    box("in"),
    box("rows", "in"),
    box("columns", "in"),
    box("norm", "columns"),
    box("lstm", "norm"),
    box("join", "rows", "lstm"),
    box("out", "join"),
]
SKIP = [box("in"), box("a", "in"), box("b", "a"), box("join", "in", "b")]
THREE = [box("in"), *(box(f"b{n}", "in") for n in range(3)), box("join", "b0", "b1", "b2")]


@pytest.mark.parametrize("boxes", [CHAIN, BRANCHES, SKIP, THREE], ids=len)
def test_boxes_stand_below_what_they_read_and_apart(boxes: list[Box]) -> None:
    places = diagram.arrange(boxes)
    assert places.keys() == {one.name for one in boxes}
    for one in boxes:
        for name in one.inbound:
            assert places[one.name].y >= places[name].y + HEAD + BODY
    for one, other in combinations(places.values(), 2):
        apart_x = abs(one.x - other.x) >= WIDTH
        assert apart_x or abs(one.y - other.y) >= HEAD + BODY


def test_a_chain_is_one_column() -> None:
    assert len({place.x for place in diagram.arrange(CHAIN).values()}) == 1


def test_branches_stand_side_by_side_and_are_joined_in_their_middle() -> None:
    places = diagram.arrange(BRANCHES)
    assert places["columns"].x == places["norm"].x == places["lstm"].x
    assert places["rows"].x != places["columns"].x
    middle = (places["rows"].x + places["lstm"].x) / 2
    assert places["in"].x == places["join"].x == places["out"].x == middle


def test_the_plot_names_layers_types_and_shapes() -> None:
    drawn = diagram.model_plot([
        Box("input_layer", "InputLayer", "(None, 28, 28)", "(None, 28, 28)", ()),
        Box("lstm", "LSTM", "(None, 28, 28)", "(None, 128)", ("input_layer",)),
    ])  # fmt: skip
    found = re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg(drawn))
    assert found.count("(None, 28, 28)") == 3
    assert found.count("(None, 128)") == 1
    assert {"input_layer (InputLayer)", "lstm (LSTM)", "input shape", "output shape"} <= set(found)


def test_an_arrow_runs_between_connected_boxes() -> None:
    (on,) = diagram.model_plot(CHAIN).axes
    arrows = [line for line in on.lines if line.get_color() == drawing.MUTED]
    assert len(arrows) == 2
    places = diagram.arrange(CHAIN)
    (x, _), (top, bottom) = arrows[0].get_xdata(), arrows[0].get_ydata()
    assert x == places["a"].x
    assert places["a"].y + HEAD + BODY == top < bottom < places["b"].y


def test_long_names_are_cut() -> None:
    long = Box("x" * 80, "Bidirectional(LSTM)", "(None, 8)", "(None, 8)", ())
    assert "…" in drawing.svg(diagram.model_plot([long]))
