"""Write the generated parts of README.md: the table of commands and the layout of the source.

A command is told by its own first line of help, a file by its docstring's first line.

    python docs/make_readme.py            write the page
    python docs/make_readme.py --check    exit 1 where it is stale
"""

from __future__ import annotations

import ast
import itertools
import re
from pathlib import Path

from marked import bring_up_to_date, fill

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
SOURCE = ROOT / "src" / "rowwise"
# Files that have no docstring.
TOLD = {
    "py.typed": "The mark of a package that carries its types.",
    "report.html": "The template of the report's page.",
    "best.safetensors": "The model that reads rows and columns, of the study `recognisers`.",
    "rows.safetensors": "The model that reads strictly row by row, of the study `recognisers`.",
    "page.html": "The page: one file, its style and script inside.",
}


def main() -> None:
    """Bring the page up to date."""
    text = fill(PAGE.read_text("utf-8"), "commands", commands())
    bring_up_to_date(PAGE, fill(text, "layout", f"```text\n{layout()}\n```"))


def commands() -> str:
    """A table of the commands, each with the first line of its help."""
    from rowwise.cli import app

    lines = ["| command | does |", "|---|---|"]
    for command in app.registered_commands:
        callback = command.callback
        assert callback is not None, "every command of ours is a function"
        name = command.name or callback.__name__
        told = (callback.__doc__ or "").strip().partition("\n")[0]
        lines.append(f"| `rowwise {name}` | {told.removesuffix('.')} |")
    return "\n".join(lines)


def layout() -> str:
    """The package's files, folders last, each with one line of what it is."""
    lines = ["src/rowwise/"]
    for folder in (SOURCE, *sorted(path for path in SOURCE.iterdir() if path.is_dir())):
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and not _built(path)]
        if not files:
            continue
        depth = "  "
        if folder != SOURCE:
            lines.append(f"{depth}{folder.name}/")
            depth += "  "
        lines += [f"{depth}{path.name:<{26 - len(depth)}}{_told(path)}" for path in files]
    return "\n".join(lines)


def _built(path: Path) -> bool:
    """Whether a development install, or Python, made the file."""
    return path.suffix in (".so", ".part", ".pyc") or path.name == "build.json"


def _told(path: Path) -> str:
    """What a file is, without the full stop."""
    if path.name in TOLD:
        return TOLD[path.name].removesuffix(".")
    text = path.read_text("utf-8")
    if path.suffix == ".toml":
        line = text.partition("\n")[0].removeprefix("# ")
        return line.partition(": ")[0]
    if path.suffix in (".cpp", ".h", ".map"):
        return _first_sentence(text) or f"What {path.stem}.h declares"
    documented = ast.get_docstring(ast.parse(text))
    if documented is None:
        raise ValueError(f"{path.relative_to(ROOT)} needs a docstring, or a line in TOLD")
    return documented.partition("\n")[0].removesuffix(".")


def _first_sentence(text: str) -> str:
    """The first sentence of the comment at a file's head, or nothing where there is none."""
    comment = itertools.takewhile(re.compile(r"(//|#) ").match, text.splitlines())
    words = " ".join(line.lstrip("/# ") for line in comment)
    return re.split(r"\.(?:$| (?=[A-Z]))", words, maxsplit=1)[0]


if __name__ == "__main__":
    main()
