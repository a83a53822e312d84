"""What several tests of the native engine train and read."""

from __future__ import annotations

from typing import Any

import pytest
from conformance import Array, Case, case

from rowwise import core
from rowwise.config import BatchNorm, Dropout, Recurrent
from rowwise.engines import native

if core.why_not() is not None:
    pytest.skip(f"needs the native engine: {core.why_not()}", allow_module_level=True)

FITTING = case(
    "fitting",
    BatchNorm(),
    Recurrent(kind="gru", units=17, bidirectional=True, return_sequences=True),
    Dropout(rate=0.3),
    BatchNorm(),
    Recurrent(kind="lstm", units=9),
    Dropout(rate=0.2),
    pictures=67,
)
READING = case(
    "reading-many",
    BatchNorm(),
    Recurrent(kind="lstm", units=33, bidirectional=True),
    shape=(8, 6),
    pictures=3000,
    ink="bytes",
)


def begin(chosen: Case, *, state: Any = None, **how: Any) -> native.Trainer:
    state = chosen.weights if state is None else state
    images, labels = chosen.images, chosen.labels
    return native.Trainer(chosen.network, state, images, labels, **{"seed": 0, "threads": 1, **how})


def assert_same_bits(one: dict[str, Array], other: dict[str, Array]) -> None:
    assert one.keys() == other.keys()
    assert [k for k, v in one.items() if v.tobytes() != other[k].tobytes()] == []
