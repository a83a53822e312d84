"""Recurrent networks of any size, drawn by chance for tests of properties."""

from __future__ import annotations

from typing import Any

from conformance import KINDS, Case, case
from hypothesis import strategies as st

from rowwise import config
from rowwise.config import BatchNorm, Dense, Flatten, Pool, Recurrent

EDGES = (1, 2, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65)  # where panels and tiles end
sizes = st.one_of(st.sampled_from(EDGES), st.integers(1, 70))


@st.composite
def drawn_networks(draw: st.DrawFn, *, smooth: bool = False) -> Case:
    """One to three recurrent layers of any size, batch norms between them, and what ends them.

    A `smooth` one has neither a relu nor a batch norm, which magnify small differences.
    """
    layers: list[config.Layer] = []
    activations = ["tanh"] if smooth else ["tanh", "relu"]
    depth = draw(st.integers(1, 3))
    for number in range(depth):
        if not smooth and draw(st.booleans()):
            layers.append(BatchNorm())
        layers.append(
            Recurrent(
                kind=draw(st.sampled_from(KINDS)),
                units=draw(sizes),
                activation=draw(st.sampled_from(activations)),
                bidirectional=draw(st.booleans()),
                return_sequences=number < depth - 1 or draw(st.booleans()),
            )
        )
    if layers[-1].return_sequences:  # type: ignore[union-attr]
        ends = [Flatten(), Pool(by="mean")] + ([] if smooth else [Pool(by="mean_max")])
        layers.append(draw(st.sampled_from(ends)))
    if draw(st.booleans()):
        activation = draw(st.sampled_from([*activations, "linear", "sigmoid"]))
        layers.append(Dense(units=draw(sizes), activation=activation))
    drawn: dict[str, Any] = {
        "shape": (draw(st.integers(1, 7)), draw(st.one_of(sizes, st.integers(1, 4)))),
        "classes": draw(st.one_of(st.just(10), st.integers(2, 100))),
        "pictures": draw(st.integers(1, 40)),
        "ink": draw(st.sampled_from(["floats", "bytes"])),
        "label_smoothing": draw(st.sampled_from([0.0, 0.1])),
    }
    return case(f"drawn-{draw(st.integers(0, 10**6))}", *layers, **drawn)
