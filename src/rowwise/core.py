"""The native engine's compiled libraries: which there are, which of them run here, and loading one.

There is one for each processor path, compiled from `native/*.cpp` when rowwise was installed; this
file alone loads them. `docs/decisions/0008-native-build.md` says how they come about.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
import threading
from pathlib import Path

from rowwise import files
from rowwise.errors import EngineError

ABI = 2  # of the C interface, as in native/cpu.h
PATHS = ("portable", "avx2", "avx512", "avx512_bf16", "amx")  # from worst to best
FEATURES = ("AVX2", "AVX-512", "AVX512-BF16", "AMX")  # bit by bit what rowwise_cpu() answers
NEEDS = {
    "portable": (),
    "avx2": FEATURES[:1],
    "avx512": FEATURES[:2],
    "avx512_bf16": FEATURES[:3],
    "amx": FEATURES,
}
QUICK_IN_BFLOAT16 = ("avx512_bf16", "amx")  # the others compute it in float32
FORCED = "ROWWISE_ISA"
FOLDER = Path(__file__).parent / "native"
RECORD = "build.json"

_opening = threading.Lock()


def processor_features() -> tuple[str, ...]:
    """Those of FEATURES that processor and operating system have; AMX is thereby asked for.

    Raises EngineError where there is no native engine to ask.
    """
    found = _features(_file("portable"))
    if isinstance(found, str):
        raise EngineError(f"the native engine is missing: {why_not()}")
    return found


def paths() -> dict[str, str | None]:
    """For each of PATHS, from worst to best, None where it can run here, or why it cannot."""
    return {path: _obstacle(path) for path in PATHS}


def best() -> str:
    """The best path that can run here, or the one that the variable ROWWISE_ISA names.

    Raises EngineError where that one is unknown or cannot run, or where none can.
    """
    forced = os.environ.get(FORCED, "").strip()
    if forced:
        _library(forced, asked_by=f"{FORCED}={forced}")
        return forced
    missing = why_not()
    if missing is not None:
        raise EngineError(f"the native engine is missing: {missing}")
    return next(path for path in reversed(PATHS) if _obstacle(path) is None)


def load(path: str | None = None) -> ctypes.CDLL:
    """The library of a path, by default that of `best()`; the same object every time.

    Libraries of several paths may be loaded in one process; none sees another's symbols.
    Raises EngineError with the reason where the path is unknown or cannot run here.
    """
    path = best() if path is None else path
    return _library(path, asked_by=f"the path {path}")


def why_not() -> str | None:
    """Why there is no native engine at all here and how to get it, or None where there is."""
    # The portable library is the one that tells what the processor has: without it none is safe.
    obstacle = _obstacle("portable")
    if obstacle is None:
        return None
    return f"{obstacle}; {_remedy()}"


def is_quick_in_bfloat16(path: str) -> bool:
    """Whether a path multiplies bfloat16 faster than float32."""
    return path in QUICK_IN_BFLOAT16


def _library(path: str, *, asked_by: str) -> ctypes.CDLL:
    if path not in PATHS:
        raise EngineError(
            f"a processor path is one of {', '.join(PATHS)}, got {path!r} ({asked_by}); "
            f"here can run: {', '.join(_that_can_run()) or 'none'}"
        )
    obstacle = _obstacle(path)
    if obstacle is not None:
        others = ", ".join(_that_can_run())
        cure = f"take one of: {others}" if others else _remedy()
        raise EngineError(f"{asked_by} cannot run here: {obstacle}; {cure}")
    opened = _open(_file(path))
    assert isinstance(opened, ctypes.CDLL), "a path without an obstacle has its library"
    return opened


def _that_can_run() -> list[str]:
    return [path for path, obstacle in paths().items() if obstacle is None]


def _obstacle(path: str) -> str | None:
    """Why a path cannot run here."""
    features = _features(_file("portable"))
    if isinstance(features, str):
        return features
    lacking = [name for name in NEEDS[path] if name not in features]
    if lacking:
        return f"this processor (or its system) lacks {', '.join(lacking)}"
    opened = _open(_file(path))
    return opened if isinstance(opened, str) else None


@functools.cache
def _features(portable: Path) -> tuple[str, ...] | str:
    """What the processor has, or why that is unknown.

    Only the portable library is asked: loading another one may already run its instructions.
    """
    opened = _open(portable)
    if isinstance(opened, str):
        return opened
    opened.rowwise_cpu.restype = ctypes.c_int32
    bits = opened.rowwise_cpu()
    return tuple(name for bit, name in enumerate(FEATURES) if bits >> bit & 1)


def _file(path: str) -> Path:
    return FOLDER / f"librowwise_{path}.so"


def _open(file: Path) -> ctypes.CDLL | str:
    """A library, or why it does not serve; opened once, even by two threads at a time."""
    with _opening:
        return _open_once(file)


@functools.cache
def _open_once(file: Path) -> ctypes.CDLL | str:
    path = file.stem.removeprefix("librowwise_")
    if not file.is_file():
        return f"it was not built: {_told_by_the_build(file.parent / RECORD, path)}"
    if _is_cut_short(file):
        return f"{file.name} is cut short"
    try:
        library = ctypes.CDLL(str(file), mode=ctypes.RTLD_LOCAL)
        abi, name = library.rowwise_abi, library.rowwise_path
    except OSError as error:
        return f"{file.name} cannot be loaded ({error})"
    except AttributeError:
        return f"{file.name} is not a library of rowwise"
    abi.restype, name.restype = ctypes.c_int32, ctypes.c_char_p
    if abi() != ABI:
        return f"{file.name} has version {abi()} of the interface, this rowwise needs {ABI}"
    if name() != path.encode():
        return f"{file.name} is compiled for another path, {name().decode()}"
    return library


def _is_cut_short(file: Path) -> bool:
    """Whether an ELF file ends before its table of sections, which linkers write last.

    The dynamic loader does not look: it maps the file, and the process dies of SIGBUS.
    """
    with file.open("rb") as stream:
        head = stream.read(64)
    if len(head) < 64 or not head.startswith(b"\x7fELF\x02\x01"):  # 64 bits, little-endian
        return False
    (start,) = struct.unpack_from("<Q", head, 40)
    size, count = struct.unpack_from("<HH", head, 58)
    return bool(file.stat().st_size < start + size * count)


def _told_by_the_build(record: Path, path: str) -> str:
    """The build's own reason."""
    if not record.exists():
        return "rowwise is not installed, or without its build's record"
    blame = f"{record.name}, which would say why, cannot be read"
    try:
        with files.parsing(EngineError, blame):
            text = files.read_text(record, error=EngineError)
            reason = files.parse_object(text, EngineError, blame)["paths"][path]
    except EngineError as error:
        return str(error)
    return str(reason) if reason else "it was built, and taken away since"


def _remedy() -> str:
    again = "with --force-reinstall --no-deps --no-cache-dir"
    if (FOLDER / "cpu.cpp").exists():
        again = "in its folder: pip install -e ."
    return f"with a compiler for C++20 (Debian: apt install g++) install rowwise again {again}"
