"""What the tests of the documentation share: blocks, commands and links of a Markdown page."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

from typer.main import get_command

from rowwise.cli import app

ROOT = Path(__file__).parents[1]


def fenced(text: str, language: str) -> list[str]:
    """The code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def console_lines(text: str) -> list[list[str]]:
    """The commands of a page's console blocks, as words; comments and settings are left out."""
    lines = [line for block in fenced(text, "console") for line in block.splitlines()]
    found = [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]
    return [[w for i, w in enumerate(words) if i or "=" not in w] for words in found]


@cache
def commands() -> dict[str, set[str]]:
    """The options of each command."""
    group = get_command(app)
    return {
        name: {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
        for name, command in group.commands.items()
    }


def check_commands(text: str) -> None:
    """Every `rowwise` and `make` line, and every option, is one that exists."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for program, *words in console_lines(text):
        assert program in ("rowwise", "make", "pip", "python", "tensorboard"), program
        if program == "make":
            assert set(words) <= set(targets), words
        elif program == "rowwise":
            assert words[0] in commands(), words
            options = {word.partition("=")[0] for word in words if word.startswith("--")}
            assert options <= commands()[words[0]], words
        elif program == "python":
            assert (ROOT / words[0]).is_file(), words


def check_links(page: Path) -> None:
    """Every relative link names a file, and every anchor a heading."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    for target in targets:
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name} links to {target}, which is not there"
        assert place.is_relative_to(ROOT), f"{page.name} links out of the project: {target}"
        if anchor:
            assert anchor in anchors(place), f"{page.name} links to {target}: no such heading"


def anchors(page: Path) -> set[str]:
    """A page's headings as GitHub writes them in links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
