"""The C++ test driver of the core (`tests/native`), as quickly as it compiles and runs.

`make sanitize` runs all of it, under the sanitizers too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from rowwise import core

DRIVER = Path(__file__).parent / "native"
COMPILER = shutil.which("g++")
needs_compiler = pytest.mark.skipif(
    COMPILER is None or shutil.which("make") is None, reason="needs g++ and make"
)


def make(*words: str) -> str:
    """What `make` in the driver's folder prints."""
    command = ["make", "--silent", "-C", str(DRIVER), "-j", str(os.cpu_count()), *words]
    # A make that runs the tests would hand its own flags on.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@needs_compiler
def test_the_core_passes_its_own_tests():
    path = "portable" if core.why_not() else core.best()
    said = make("run", f"ISA={path}", "KIND=quick", "FLAGS=--quick")
    lines = said.splitlines()
    assert len(lines) > 20, said
    assert all(line.startswith("ok ") for line in lines), said


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("path", core.PATHS)
def test_the_driver_is_compiled_with_the_flags_of_the_package(path):
    told = make("-n", "-B", "driver", f"ISA={path}", "KIND=plain").replace("\\\n", " ")
    (line,) = (line for line in told.splitlines() if line.endswith("/core.o"))
    flags = {*line.split()}
    assert {"-std=gnu++20", "-O2", "-ffp-contract=fast", f"-DROWWISE_PATH={path}"} <= flags
    features = {"avx2": "-mavx2", "avx512": "-mavx512f", "amx": "-mamx-tile"}
    for name, flag in features.items():
        has = core.PATHS.index(path) >= core.PATHS.index(name)
        assert (flag in flags) == has
    (line,) = (line for line in told.splitlines() if line.endswith("/cpu.o"))
    assert "-mavx" not in line, "it asks what the processor has, so it must run on every one"
