"""Write docs/cli.md: what holds for every command, then what each one says of itself.

make docs
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

PAGE = Path(__file__).with_name("cli.md")
PREFACE = """\
# The command line

This page is made by `make docs` from what `rowwise COMMAND --help` says.

- Results go to stdout; progress, notes and errors to stderr. `--quiet` leaves results and errors.
- `--json` writes JSON: one object, or for `train` and `study` one object a line, an event each.
  Accuracies are shares of 1 there and in files, percentages elsewhere.
- An error is one line that begins with `rowwise:` and says the rule, what was got, and the remedy.
- The exit code is 0 when all is well, 1 after an error, 2 for a command that was wrongly written.
- Ctrl-C (or SIGTERM) while a network is trained saves the training, prints the command that goes on
  with it, and exits with 130 (143). A second Ctrl-C leaves at once; the last checkpoint holds.
  Goes on means: to the same weights, bit by bit, as if nothing had happened.
- Where data is looked for, and which formats are read: [data](data.md).
"""


def render() -> str:
    """The page as it should be."""
    from rowwise.cli import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands]
    parts = [PREFACE, _section("rowwise", [])]
    parts += [_section(f"rowwise {name}", [name]) for name in names]
    return "\n".join(parts)


def _section(title: str, arguments: Sequence[str]) -> str:
    return f"## {title}\n\n```text\n{_help(arguments).strip()}\n```\n"


def _help(arguments: Sequence[str]) -> str:
    from rowwise.cli import main

    kept = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            main([*arguments, "--help"])
    except SystemExit:
        return said.getvalue()
    finally:
        os.environ.pop("COLUMNS")
        if kept is not None:
            os.environ["COLUMNS"] = kept


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
