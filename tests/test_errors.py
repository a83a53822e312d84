"""Messages are one line that a terminal shows and does not obey."""

from __future__ import annotations

import os

import pytest

from rowwise.errors import PictureError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("früh 7×7 – …", "früh 7×7 – …"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_might_obey_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_an_error_is_one_printable_line():
    assert str(PictureError("a\n  b\x1b[2J: cannot be read")) == r"a b\x1b[2J: cannot be read"
