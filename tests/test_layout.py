"""The layout: what each file imports, against the order in docs/decisions/0005-layout.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rowwise"
PAGE = ROOT / "docs" / "decisions" / "0005-layout.md"


def order() -> list[str]:
    """The modules from left to right, as the page has them."""
    (block,) = re.findall(r"```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return block.split()


def module(path: Path) -> str:
    """engines/torch.py is engines.torch, engines/__init__.py is engines."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


FILES = {module(path): path for path in SOURCE.rglob("*.py")}


def imported(path: Path) -> set[str]:
    """The modules of ours that a file imports anywhere but for type checking."""
    found = set()
    for node in _running(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("rowwise."):
                found.add(_longest(name.removeprefix("rowwise.")))
    return found


def _running(tree: ast.AST):
    """All nodes but those below `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from _running(node)


def _longest(name: str) -> str:
    """The module in a dotted name that may end in something inside it."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in FILES:
            return ".".join(parts[:length])
    return "__init__"


def test_the_page_has_every_file_once():
    assert sorted(order()) == sorted(FILES)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_imports_only_from_its_left(name):
    left = order()[: order().index(name)]
    assert imported(FILES[name]) - set(left) == set()


def test_the_reading_of_imports_sees_them_wherever_they_are():
    assert {"options", "terminal", "study", "report"} <= imported(FILES["training"])
    assert "data" not in imported(FILES["engines"])


def test_modules_are_nouns_not_drawers():
    drawers = re.compile(r"(^|_)(utils?|helpers?|misc|common|tools?|v\d+)($|_)")
    assert [name for name in FILES if drawers.search(name)] == []
