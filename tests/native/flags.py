"""Prints the flags with which setup.py compiles the core for a processor path.

python3 flags.py PATH: those of every file and those of the path, with a `|` between. Without PATH:
the paths, from worst to best. setup.py is read, not run, so no package need be installed.
"""

import ast
import sys
from pathlib import Path

SETUP = Path(__file__).parent.parent.parent / "setup.py"
NAMES = {"AVX2", "AVX512", "BF16", "AMX", "PATHS", "COMMON"}


def name(node: ast.stmt) -> str | None:
    """What a statement at the head of a file assigns to."""
    if isinstance(node, ast.Assign | ast.AugAssign):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        return target.id if isinstance(target, ast.Name) else None
    return None


def main() -> None:
    """Print what was asked for."""
    kept = [node for node in ast.parse(SETUP.read_text("utf-8")).body if name(node) in NAMES]
    found: dict[str, dict[str, list[str]] | list[str]] = {}
    exec(compile(ast.Module(kept, []), str(SETUP), "exec"), found)
    paths, common = found["PATHS"], found["COMMON"]
    if len(sys.argv) < 2:
        print(*paths, sep="\n")
    elif sys.argv[1] not in paths:
        sys.exit(f"a processor path is one of {', '.join(paths)}, got {sys.argv[1]!r}")
    else:
        print(*common, "|", *paths[sys.argv[1]])


if __name__ == "__main__":
    main()
