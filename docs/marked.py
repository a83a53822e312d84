"""Generated parts of hand-written pages: the text between <!-- NAME --> and <!-- /NAME -->."""

from __future__ import annotations

import sys
from pathlib import Path


def fill(text: str, name: str, body: str) -> str:
    """`text` with `body` between the marks of `name`; a ValueError where they are not there once.

    A blank line stands on each side of the body, so that Markdown sees what it is.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, opened, rest = text.partition(start)
    _, closed, after = rest.partition(end)
    if not opened or not closed or start in after:
        raise ValueError(f"the page must have {start} and {end}, once each")
    return f"{before}{start}\n\n{body.strip()}\n\n{end}{after}"


def bring_up_to_date(page: Path, text: str) -> None:
    """Write `text` to `page`; with the argument --check only compare, and exit 1 if it is stale."""
    if sys.argv[1:] == ["--check"]:
        if page.read_text("utf-8") != text:
            sys.exit(f"{page.name} is stale; bring it up to date with: python {sys.argv[0]}")
    elif sys.argv[1:]:
        sys.exit(f"usage: python {sys.argv[0]} [--check]")
    else:
        page.write_text(text, "utf-8")
