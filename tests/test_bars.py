"""Live bars on a terminal: what is printed meanwhile arrives whole, and where it was sent."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from made_terminal import Terminal

SOURCE = Path(__file__).parent.parent / "src/rowwise"

PRINTS = """
import sys
print("before")
{bars}
    print("one")
    print("a\\tb", end="", flush=True)
    print("to stderr", file=sys.stderr)
    print(" and the rest of a line " + "x" * 200)
    sys.stdout.writelines(["\\x1b[1mbold\\x1b[0m\\n", "left"])
print("\\nafter")
"""
ONE = """
from rowwise.bars import Bars
with Bars("working") as bars:
    bars.add_task("", total=3)
    bars.refresh()
"""
DOWNLOAD = """
from rowwise import mirrors
with mirrors._bars(True) as bars:
    meter = mirrors._Meter(bars, "working")
    bars.refresh()
"""
TRAINING = """
from contextlib import closing
from rowwise import terminal
from rowwise.events import Stepped
with closing(terminal.Teller()) as teller:
    teller(Stepped(epoch=1, epochs=2, step=3, steps=9, loss=0.5, accuracy=0.5, train_s=1.0))
    teller._bar.refresh()
"""
KINDS = pytest.mark.parametrize("bars", [ONE, DOWNLOAD, TRAINING], ids=["one", "download", "train"])
STDOUT = ["before", "one", "a\tb and the rest of a line " + "x" * 200, "bold", "left", "after"]


@KINDS
def test_a_pipe_gets_what_was_printed_byte_by_byte(bars, home):
    with Terminal([sys.executable, "-c", PRINTS.format(bars=bars)], stdout=subprocess.PIPE) as made:
        out, screen = made.end()
    assert made.code == 0, made.told
    expected = "\n".join(STDOUT).replace("bold", "\x1b[1mbold\x1b[0m") + "\n"
    assert out == expected.encode()
    assert [line for line in screen if line and "working" not in line] == ["to stderr"]
    assert "working" in made.told or "Epoch 1/2" in made.told
    assert made.told.count("\x1b[?25l") == made.told.count("\x1b[?25h") > 0, "the cursor"


@KINDS
def test_on_one_terminal_whole_lines_stand_above_the_bars(bars, home):
    with Terminal([sys.executable, "-c", PRINTS.format(bars=bars)]) as made:
        _, screen = made.end()
    assert made.code == 0, made.told
    shown = [line for line in screen if line and "working" not in line]
    assert shown == [*STDOUT[:2], "to stderr", *STDOUT[2:]]
    assert "working" in made.told or "Epoch 1/2" in made.told


def test_no_other_file_makes_a_live_display():
    for path in SOURCE.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rich")
            for alias in node.names
        }
        allowed = {"Progress"} if path.stem in ("bars", "mirrors") else set()
        assert not names & {"Progress", "Live", "Status", "track"} - allowed, path.name
