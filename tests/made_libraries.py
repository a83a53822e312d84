"""Small libraries that stand for the native engine's: any version, any processor, in a moment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rowwise import core

COMPILER = shutil.which("g++") or shutil.which("c++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
ALL = (1 << len(core.FEATURES)) - 1
SOURCE = """
extern "C" int rowwise_abi(void) {{ return {abi}; }}
extern "C" const char *rowwise_path(void) {{ return "{says}"; }}
extern "C" int rowwise_cpu(void) {{ return {features}; }}
"""


def make_library(
    folder: Path, path: str, *, abi: int = core.ABI, says: str | None = None, features: int = ALL
) -> Path:
    """The library of a path, of plain code whatever its name; `features` is what it reports."""
    source = SOURCE.format(abi=abi, says=says or path, features=features)
    return compile_library(folder, path, source)


def compile_library(folder: Path, path: str, source: str) -> Path:
    """A source as the library of a path."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"librowwise_{path}.so"
    command = [COMPILER, "-shared", "-fPIC", "-x", "c++", "-", "-o", str(made)]
    subprocess.run(command, input=source, text=True, check=True)
    return made


def make_libraries(folder: Path, *, features: int = ALL) -> Path:
    """A library for each path, in a folder that `core.FOLDER` may name."""
    for path in core.PATHS:
        make_library(folder, path, features=features)
    return folder
