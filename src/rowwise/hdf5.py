"""HDF5 files that are not trusted, read by a process of its own.

The HDF5 library crashes on some damaged files, and never comes back from others; here that is an
error with a name. The process gets a request as one line of JSON on its standard input, and behind
it a file's bytes where it has no path; it answers with one line of JSON and the arrays' bytes.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise.errors import BrokenExtra, MissingExtra, ModelError, importing, said
from rowwise.files import opened

Array = NDArray[Any]
Shapes = Sequence[tuple[int, ...]]
Tree = dict[str, Any]

TIME_LIMIT_S = 60
MAX_FILE_BYTES = 4_000_000_000
MAX_TEXT_BYTES = 20_000_000
MEMORY_LIMIT_BYTES = 8_000_000_000
TEXTS = ("model_config", "training_config", "keras_version")


class _Refusal(Exception):
    """Why a file is not read, in words."""


def texts(path: Path) -> dict[str, str]:
    """Those of TEXTS that the file has as attributes.

    Raises ModelError where it is damaged, MissingExtra where h5py is not installed,
    BrokenExtra where it cannot be imported.
    """
    with opened(path, MAX_FILE_BYTES, ModelError):
        told, _ = _ask({"path": str(path)}, b"", path)
    return {str(key): str(value) for key, value in told["texts"].items()}


def arrays(
    source: Path | bytes, wanted: Mapping[str, tuple[Sequence[str], Shapes]], path: Path
) -> dict[str, list[Array]]:
    """Float32 arrays for each layer: the datasets of these names, of exactly these shapes.

    Where no name is given, the layer's group lists them, as older files do. `path` is what errors
    name.

    Raises ModelError where one is missing, another than was wanted, or the file is damaged.
    """
    request: Tree = {"wanted": {layer: [list(n), list(s)] for layer, (n, s) in wanted.items()}}
    if isinstance(source, Path):
        with opened(source, MAX_FILE_BYTES, ModelError):
            request["path"] = str(source)
    _, content = _ask(request, b"" if isinstance(source, Path) else source, path)
    values = np.frombuffer(content, np.float32)
    sizes = [int(np.prod(shape)) for _, shapes in wanted.values() for shape in shapes]
    if values.size != sum(sizes):
        raise ModelError(f"{path} is damaged: it gives {values.size:,} weights of {sum(sizes):,}")
    parts = iter(np.split(values, np.cumsum(sizes)[:-1]) if sizes else [])
    return {
        layer: [next(parts).reshape(shape).copy() for shape in shapes]
        for layer, (_, shapes) in wanted.items()
    }


def _ask(request: Tree, content: bytes, path: Path) -> tuple[Tree, bytes]:
    """The answer of a process that reads the file."""
    command = [sys.executable, "-P", "-m", "rowwise.hdf5"]  # -P: nothing of the working folder
    places = os.pathsep.join(str(Path(place).absolute()) for place in sys.path if place)
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": places},
            input=json.dumps(request).encode() + b"\n" + content,
            capture_output=True,
            timeout=TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{path} is damaged: the HDF5 library is not done with it in {TIME_LIMIT_S} s"
        ) from None
    line, _, rest = done.stdout.partition(b"\n")
    if done.returncode or not line:
        how = f"exit {done.returncode}"
        raise ModelError(f"{path} is damaged: the HDF5 library fails on it ({how})")
    told = json.loads(line)
    if told.get("missing"):
        raise MissingExtra("h5py", "export")
    if told.get("broken"):
        raise BrokenExtra(told["broken"])
    if told.get("error"):
        raise ModelError(f"{path}{told['error']}")
    return told, rest


# --- in the other process ---------------------------------------------------------------------


def main() -> None:
    """Answer the one request on the standard input."""
    request = json.loads(sys.stdin.buffer.readline())
    try:
        with importing("h5py", "export"):
            import h5py
    except MissingExtra:
        return _answer({"missing": True})
    except BrokenExtra as broken:
        return _answer({"broken": str(broken)})
    _limit_memory()
    source = request.get("path") or io.BytesIO(sys.stdin.buffer.read())
    try:
        with h5py.File(source, "r") as file:
            if "wanted" in request:
                found = [
                    _dataset(file, name, tuple(shape), layer)
                    for layer, (names, shapes) in request["wanted"].items()
                    for name, shape in zip(
                        names or _listed(file, layer, len(shapes)), shapes, strict=True
                    )
                ]
                _answer({}, *found)
            else:
                told = {key: _text(file.attrs[key]) for key in TEXTS if key in file.attrs}
                if any(len(text) > MAX_TEXT_BYTES for text in told.values()):
                    raise _Refusal(f"a description has at most {MAX_TEXT_BYTES:,} characters")
                _answer({"texts": told})
    except _Refusal as refusal:
        _answer({"error": f": {refusal}"})
    except Exception as fault:  # h5py raises anything
        _answer({"error": f" is damaged: {said(fault)}"})


def _listed(file: Any, layer: str, count: int) -> list[str]:
    """The names of a layer's datasets as an older file lists them."""
    if not count:
        return []
    group = file.get(f"model_weights/{layer}")
    listed = [] if group is None else list(group.attrs.get("weight_names", []))
    if len(listed) != count:
        raise _Refusal(f"layer {layer} must have {count} weights, its file lists {len(listed)}")
    return [f"model_weights/{layer}/{_text(name)}" for name in listed]


def _dataset(file: Any, name: str, shape: tuple[int, ...], layer: str) -> Array:
    """A dataset that lies in this file, plainly, as it should."""
    import h5py

    parts = name.strip("/").split("/")
    for end in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:end]), getlink=True)
        if link is None:
            raise _Refusal(f"layer {layer} has no weights {name}; save the whole model again")
        if not isinstance(link, h5py.HardLink):
            raise _Refusal(f"layer {layer}: weights stand in the file itself, {name} is a link")
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f":
        raise _Refusal(f"layer {layer}: weights are floats, {name} is something else")
    if found.shape != shape:
        raise _Refusal(
            f"layer {layer}: weights must be {list(shape)}, {name} is {list(found.shape or ())}"
        )
    if found.is_virtual or found.external or found.chunks is not None:
        raise _Refusal(f"layer {layer}: weights lie in one piece in the file, {name} does not")
    return np.asarray(found[()], np.float32)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # no such limits on Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = MEMORY_LIMIT_BYTES if hard < 0 else min(hard, MEMORY_LIMIT_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _answer(told: Tree, *found: Array) -> None:
    out = sys.stdout.buffer
    out.write(json.dumps(told).encode() + b"\n")
    for array in found:
        out.write(np.ascontiguousarray(array).tobytes())


if __name__ == "__main__":
    main()
