"""The shape of the package, read from its text: sizes, public names, what is imported where.

Which file may import which other one is in test_layout.py.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/rowwise"

# Packages that are slow to import or not part of the light install, and who may import them.
HOMES = {
    "torch": {
        "engines.torch",
        "engines.torch_cells",
        "engines.torch_optimizers",
        "engines.torch_steps",
        "engines.native_recurrence",
        "torch",
    },
    "matplotlib": {"drawing", "curves", "diagram", "figures", "illustrations", "pictures", "why"},
    "sklearn": {"data", "metrics", "estimator"},
    "scipy": {"comparison", "calibration"},
    "jinja2": {"report"},
    "markupsafe": {"report"},
    "tensorboard": {"tensorboard"},
    "pooch": {"catalogue", "mirrors"},
    "requests": {"mirrors"},
    "rich": {"bars", "terminal", "listing", "mirrors", "readings", "recognition"},
    "typer": {"cli", "options", "training"},
    "pydantic": {
        "settings",
        "recipe",
        "config",
        "progress",
        "model",
        "server.configuration",
        "server.queries",
        "server.schemas",
    },
    "filelock": {"runs", "mirrors"},
    "safetensors": {"tensors"},
    "onnx": {"onnx_model"},
    "onnxruntime": {"onnx_model"},
    "h5py": {"keras_archive", "hdf5"},
    "PIL": {"formats", "image_files", "raster", "doctor"},
    "cv2": {
        "allographs",
        "augment",
        "outliers",
        "explain",
        "recognise",
        "server.explaining",
        "image",
        "ink",
        "strokes",
        "flaws",
        "paper",
        "image_files",
        "raster",
        "pixels",
    },
    "pypdfium2": {"image_files"},
    "pillow_heif": {"image_files"},
    "fastapi": {"server", "server.queries", "server.routes"},
    "starlette": {"server", "server.answers", "server.bodies", "server.gate"},
    "uvicorn": {"server.process", "server.protocol"},
    "python_multipart": {"server.bodies"},
    "prometheus_client": {"server.metrics"},
    "orjson": {"server.answers", "server.bodies", "server.log", "server.problems"},
}
LIGHT = {"numpy"}
# Only what the door to the engines imports when it is asked for may import its heavy package
# at once; everywhere else it is imported in the function that needs it.
SLOW = {
    "cv2",
    "torch",
    "matplotlib",
    "sklearn",
    "scipy",
    "jinja2",
    "tensorboard",
    "pooch",
    "requests",
    "pypdfium2",
    "pillow_heif",
    "onnx",
    "onnxruntime",
    "h5py",
}
AT_ONCE = HOMES["torch"] | {
    "image",
    "ink",
    "strokes",
    "flaws",
    "paper",
    "image_files",
    "raster",
    "estimator",
}

MOST_LINES_A_FUNCTION = 60


def module(path: Path) -> str:
    name = path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
    return name.removesuffix(".__init__")


MODULES = {module(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def syntax(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text("utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    """The full names that the import statements below `tree` name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{node.module}: imports are written out, not relative"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def owner(name: str) -> str | None:
    """The module of the package that an imported name belongs to."""
    parts = name.split(".")
    if parts[0] != "rowwise":
        return None
    for end in range(len(parts), 1, -1):
        if ".".join(parts[1:end]) in MODULES:
            return ".".join(parts[1:end])
    return "__init__"


def at_once(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: not in functions, not for types alone."""
    waiting = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


# --- imports ----------------------------------------------------------------------------------


def test_the_engines_have_one_door():
    # Layers for others' networks: what an engine is made of, and no engine.
    assert {owner(i) for i in imports(syntax("torch"))} & set(MODULES) - {"cells", "errors"} == {
        "engines.torch_cells",
        "engines.torch_steps",
    }
    for name in set(MODULES) - {"torch"}:
        for imported in imports(syntax(name)):
            inside = owner(imported)
            if inside and inside.startswith("engines.") and not name.startswith("engines."):
                pytest.fail(f"{name} imports {imported}, past rowwise.engines")


@pytest.mark.parametrize("package", [*HOMES, "keras", "tensorflow", "pickle", "joblib"])
def test_a_package_is_imported_in_few_named_files(package):
    importers = {
        name
        for name in MODULES
        if package in {imported.split(".")[0] for imported in imports(syntax(name))}
    }
    assert importers <= HOMES.get(package, set())


def test_no_package_is_used_unseen():
    import sys

    used = {i.split(".")[0] for name in MODULES for i in imports(syntax(name))}
    assert used - set(sys.stdlib_module_names) - {"rowwise"} <= set(HOMES) | LIGHT


@pytest.mark.parametrize("name", sorted(set(MODULES) - AT_ONCE))
def test_slow_packages_are_imported_where_they_are_needed(name):
    for statement in at_once(syntax(name)):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for imported in imports(statement):
                assert imported.split(".")[0] not in SLOW, f"{name} imports {imported} at once"


# --- the public names -------------------------------------------------------------------------


def test_all_is_the_lazy_table_and_what_types_are_told():
    import rowwise

    assert rowwise.__all__ == sorted([*rowwise._HOMES, "__version__"])
    assert dir(rowwise) == rowwise.__all__
    [told] = [
        node
        for node in syntax("__init__").body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    typed = {
        alias.asname: (node.module, alias.name)
        for node in told.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == rowwise._HOMES


def test_every_public_name_is_there_and_documented():
    import rowwise

    for name in rowwise.__all__:
        value = getattr(rowwise, name)
        assert name == "__version__" or value.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="module 'rowwise' has no attribute 'fitt'"):
        rowwise.fitt  # noqa: B018


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").exists()


# --- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_a_function_fits_a_screen(name):
    for node in ast.walk(syntax(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            full = f"{name}.{node.name}"
            assert lines <= MOST_LINES_A_FUNCTION, f"{full} has {lines} lines"


# --- texts ------------------------------------------------------------------------------------

FOLDERS = ("src", "tests", "docs", "benchmarks", "examples", ".ci")
TEXTS = sorted(
    path
    for path in (*ROOT.glob("*"), *(p for folder in FOLDERS for p in (ROOT / folder).rglob("*")))
    if path.is_file()
    and path.suffix in ("", ".py", ".md", ".toml", ".txt", ".html", ".json", ".ipynb", ".svg")
    and not {"__pycache__", ".git", ".hypothesis", "rowwise.egg-info"} & set(path.parts)
)
# Written in pieces, so that this file does not find itself.
FOREIGN = re.compile(
    r"(?<![\w.~}/])/(?:wo" + r"rk|ro" + r"ot|opt|ho" + r"me/\w+|tmp)/\w|"
    r"py" + r"pi\.org|python" + r"hosted|registry\.npm|proxy\.golang|conda\.anaconda",
    re.IGNORECASE,
)


def test_texts_are_found():
    assert ROOT / "Makefile" in TEXTS
    assert PACKAGE / "cli.py" in TEXTS
    assert ROOT / "docs/cli.md" in TEXTS


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_text_names_no_place_of_the_machine_it_was_written_on(path):
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        found = FOREIGN.search(line)
        assert not found, f"line {number}: {found[0]}"
