"""Finding and loading the native libraries: the best that runs, a named reason for the others."""

from __future__ import annotations

import ctypes
import json
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from made_libraries import ALL, compile_library, make_libraries, make_library, needs_compiler

from rowwise import core
from rowwise.errors import EngineError

HEADER = Path(core.__file__).parent / "native" / "cpu.h"


@pytest.fixture(autouse=True)
def unforced(monkeypatch):
    monkeypatch.delenv(core.FORCED, raising=False)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder in the place of the installed libraries."""
    place = tmp_path / "native"
    place.mkdir()
    monkeypatch.setattr(core, "FOLDER", place)
    return place


# --- which path -------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (0b0000, "portable"),
        (0b0001, "avx2"),
        (0b0010, "portable"),  # no processor has AVX-512 alone; what it needs is not all there
        (0b0011, "avx512"),
        (0b0111, "avx512_bf16"),
        (0b1011, "avx512"),
        (0b1111, "amx"),
    ],
)
def test_the_best_path_is_the_last_that_the_processor_has_all_for(folder, features, expected):
    make_libraries(folder, features=features)
    assert core.best() == expected
    assert core.load().rowwise_path() == expected.encode()
    assert core.why_not() is None


@needs_compiler
def test_a_path_that_the_processor_lacks_says_what_is_lacking(folder):
    make_libraries(folder, features=0b0001)
    assert core.processor_features() == ("AVX2",)
    assert core.paths() == {
        "portable": None,
        "avx2": None,
        "avx512": "this processor (or its system) lacks AVX-512",
        "avx512_bf16": "this processor (or its system) lacks AVX-512, AVX512-BF16",
        "amx": "this processor (or its system) lacks AVX-512, AVX512-BF16, AMX",
    }
    with pytest.raises(EngineError, match=r"the path amx cannot run here: this .* portable, avx2$"):
        core.load("amx")


@needs_compiler
def test_a_path_that_the_processor_lacks_is_never_loaded(folder):
    """Its static initialisers may already hold instructions that the processor does not know."""
    make_library(folder, "portable", features=0)
    loads = folder / "loaded"
    source = f'#include <cstdio>\nstatic FILE *seen = std::fopen("{loads}", "w");'
    compile_library(folder, "amx", source)
    core.paths()
    core.best()
    with pytest.raises(EngineError):
        core.load("amx")
    assert not loads.exists()


@needs_compiler
@pytest.mark.parametrize("path", core.PATHS)
def test_a_path_may_be_forced(folder, monkeypatch, path):
    make_libraries(folder)
    monkeypatch.setenv(core.FORCED, f" {path} ")
    assert core.best() == path
    assert core.load().rowwise_path() == path.encode()
    assert core.load("avx2").rowwise_path() == b"avx2"  # a call's own word is stronger


@needs_compiler
def test_an_empty_variable_forces_nothing(folder, monkeypatch):
    make_libraries(folder)
    monkeypatch.setenv(core.FORCED, "")
    assert core.best() == "amx"


@needs_compiler
def test_forcing_what_cannot_run_is_an_error_with_the_remedy(folder, monkeypatch):
    make_libraries(folder, features=0b0001)
    monkeypatch.setenv(core.FORCED, "avx512")
    with pytest.raises(EngineError) as raised:
        core.load()
    assert str(raised.value) == (
        "ROWWISE_ISA=avx512 cannot run here: this processor (or its system) lacks AVX-512; "
        "take one of: portable, avx2"
    )
    monkeypatch.setenv(core.FORCED, "sse9")
    with pytest.raises(EngineError) as raised:
        core.best()
    assert str(raised.value) == (
        "a processor path is one of portable, avx2, avx512, avx512_bf16, amx, "
        "got 'sse9' (ROWWISE_ISA=sse9); "
        "here can run: portable, avx2"
    )
    assert core.why_not() is None


# --- loading ----------------------------------------------------------------------------------


@needs_compiler
def test_a_library_is_loaded_once(folder):
    make_libraries(folder)
    with ThreadPoolExecutor(8) as pool:
        loaded = set(pool.map(lambda _: id(core.load("avx2")), range(64)))
    assert loaded == {id(core.load("avx2"))}


@needs_compiler
def test_libraries_do_not_see_each_other(folder):
    for path in core.PATHS:
        source = f"""
        extern "C" int rowwise_abi(void) {{ return {core.ABI}; }}
        extern "C" const char *who(void) {{ return "{path}"; }}
        extern "C" const char *rowwise_path(void) {{ return who(); }}
        extern "C" int rowwise_cpu(void) {{ return {ALL}; }}
        """
        compile_library(folder, path, source)
    assert core.paths() == dict.fromkeys(core.PATHS)
    with pytest.raises(AttributeError):
        ctypes.CDLL(None).who  # noqa: B018


# --- libraries that do not serve --------------------------------------------------------------


def reason(folder: Path) -> str:
    """Why avx2 cannot run, the portable library being well."""
    make_library(folder, "portable")
    told = core.paths()
    assert told["portable"] is None
    assert core.best() == "portable"
    assert told["avx2"] is not None
    return told["avx2"]


@needs_compiler
def test_another_version_of_the_interface(folder):
    make_library(folder, "avx2", abi=core.ABI + 1)
    assert reason(folder) == (
        f"librowwise_avx2.so has version {core.ABI + 1} of the interface, "
        f"this rowwise needs {core.ABI}"
    )


@needs_compiler
def test_the_library_of_another_path(folder):
    make_library(folder, "avx2", says="amx")
    assert reason(folder) == "librowwise_avx2.so is compiled for another path, amx"


@needs_compiler
def test_a_library_of_something_else(folder):
    compile_library(folder, "avx2", 'extern "C" int other(void) { return 1; }')
    assert reason(folder) == "librowwise_avx2.so is not a library of rowwise"


@needs_compiler
def test_a_library_for_another_architecture(folder):
    file = make_library(folder, "avx2")
    whole = bytearray(file.read_bytes())
    whole[18:20] = (0xF3).to_bytes(2, "little")  # e_machine: RISC-V
    file.write_bytes(whole)
    assert reason(folder).startswith("librowwise_avx2.so cannot be loaded (")


@needs_compiler
def test_a_file_that_is_no_library(folder):
    (folder / "librowwise_avx2.so").write_text("portable paths\n" * 100)
    assert reason(folder).startswith("librowwise_avx2.so cannot be loaded (")


@needs_compiler
def test_a_library_that_is_cut_short_is_refused_before_it_kills_the_process(folder, tmp_path):
    whole = make_library(folder, "portable").read_bytes()
    lengths = sorted({0, 1, 63, 64, 65, 500, *range(0, len(whole), 1024), len(whole) - 1})
    for length in lengths:
        place = tmp_path / str(length)
        place.mkdir()
        (place / "librowwise_portable.so").write_bytes(whole[:length])
    look = f"""
from pathlib import Path
from rowwise import core
for length in {lengths}:
    core.FOLDER = Path({str(tmp_path)!r}) / str(length)
    assert core.why_not().startswith("librowwise_portable.so "), length
    assert set(core.paths()) == set(core.PATHS) and None not in core.paths().values()
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")


# --- no native engine at all ------------------------------------------------------------------


def test_without_libraries_the_builds_own_reason_is_told(folder):
    (folder / core.RECORD).write_text(json.dumps({"paths": {"portable": "no C++ compiler"}}))
    assert core.why_not() == (
        "it was not built: no C++ compiler; with a compiler for C++20 (Debian: apt install g++) "
        "install rowwise again with --force-reinstall --no-deps --no-cache-dir"
    )
    assert set(core.paths().values()) == {"it was not built: no C++ compiler"}
    for call in (core.best, core.load, core.processor_features):
        with pytest.raises(EngineError) as raised:
            call()
        assert str(raised.value) == f"the native engine is missing: {core.why_not()}"


def test_in_a_source_folder_the_remedy_is_that_folders(folder):
    (folder / "cpu.cpp").touch()
    assert core.why_not().endswith("install rowwise again in its folder: pip install -e .")


def test_without_a_record_too_there_is_a_reason(folder):
    assert "rowwise is not installed, or without its build's record" in core.why_not()


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"paths": []}', '{"paths": {}}', "\xff"])
def test_a_record_that_cannot_be_read_is_told(folder, record):
    (folder / core.RECORD).write_bytes(record.encode("latin-1"))
    told = re.search(
        "build.json, which would say why, cannot be read|build.json is damaged", core.why_not()
    )
    assert told, core.why_not()


@needs_compiler
def test_without_the_portable_library_nothing_says_what_the_processor_has(folder):
    make_libraries(folder)
    (folder / "librowwise_portable.so").unlink()
    (folder / core.RECORD).write_text(json.dumps({"paths": dict.fromkeys(core.PATHS)}))
    assert set(core.paths().values()) == {"it was not built: it was built, and taken away since"}
    with pytest.raises(EngineError, match=r"the path avx2 cannot run here: .*; with a compiler"):
        core.load("avx2")


# --- the libraries of this installation -------------------------------------------------------


@pytest.fixture
def installed() -> None:
    missing = core.why_not()
    if missing is not None:
        pytest.skip(f"the native engine is missing: {missing}")


def test_the_numbers_are_those_of_the_header():
    text = HEADER.read_text("utf-8")
    assert re.findall(r"ABI = (\d+);", text) == [str(core.ABI)]
    bits = re.findall(r"^  (\w+) = (\d+),", text, re.MULTILINE)
    names = [name.replace("-", "").replace("_", "") for name in core.FEATURES]
    assert [(name.replace("_", ""), int(bit)) for name, bit in bits] == [
        (name, 1 << index) for index, name in enumerate(names)
    ]
    assert tuple(core.NEEDS) == core.PATHS


@pytest.mark.skipif(
    platform.machine() != "x86_64" or sys.platform != "linux",
    reason="compares with what Linux says of an x86-64 processor",
)
def test_features_are_those_that_linux_lists(installed):
    listed = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    flags = set(listed[1].split())
    needs = {
        "AVX2": {"avx2", "fma", "f16c"},
        "AVX-512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
        "AVX512-BF16": {"avx512_bf16"},
        "AMX": {"amx_tile", "amx_bf16"},
    }
    assert core.processor_features() == tuple(n for n in core.FEATURES if needs[n] <= flags)


def test_all_that_can_run_here_live_in_one_process(installed):
    runnable = [path for path, obstacle in core.paths().items() if obstacle is None]
    assert core.best() == runnable[-1]
    for path in runnable:
        library = core.load(path)
        assert (library.rowwise_path(), library.rowwise_abi()) == (path.encode(), core.ABI)
        assert library.rowwise_cpu() == core.load("portable").rowwise_cpu()
