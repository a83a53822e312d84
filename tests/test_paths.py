"""Every path of the processor is tested, or said not to be.

The engine is held to its references on each path that can run here (`conformance.PATHS`), the
session on the best one, as all else is, and on the portable one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import conformance
import pytest

from rowwise import core

TESTS = Path(__file__).parent


@pytest.mark.parametrize("path", core.PATHS)
def test_the_conformance_suite_runs_on_every_path(path):
    obstacle = core.paths()[path]
    if obstacle is not None:
        pytest.skip(f"the path {path} is not run: {obstacle}")
    for entries in (conformance.READERS, conformance.TRAINERS):
        assert ("native", path) in {(entry.engine, entry.path) for entry in entries}


def test_the_sessions_tests_pass_on_the_portable_path():
    if (missing := core.why_not()) is not None:
        pytest.skip(f"needs the native engine: {missing}")
    if core.best() == "portable":
        pytest.skip("the suite itself takes the portable path here")
    made = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider",
         str(TESTS / "test_session.py")],
        cwd=TESTS.parent,
        env={**os.environ, core.FORCED: "portable"},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout[-3000:]
    assert " passed" in made.stdout
