"""What this machine has: engines, models, data, picture formats, extras, and why not where not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import NamedTuple

from rowwise import core, data, engines, model, terminal
from rowwise.environment import processor
from rowwise.errors import EngineError, RowwiseError

EXTRAS = {
    "study": ("scikit-learn", "matplotlib", "jinja2"),
    "torch": ("torch",),
    "tensorboard": ("tensorboard",),
    "export": ("onnx", "onnxruntime", "keras", "h5py"),
    "heic": ("pillow-heif",),
    "pdf": ("pypdfium2",),
}
# Formats of pictures: what decodes them, as Pillow calls it, or the extra that brings it.
FORMATS = {"PNG": "zlib", "JPEG": "jpg", "WebP": "webp", "TIFF": "libtiff"}
ALWAYS = "BMP, GIF, PPM"
EXTRA_FORMATS = {"HEIC": "heic", "PDF": "pdf"}


class Check(NamedTuple):
    """One thing that a machine may have."""

    kind: str
    name: str
    present: bool
    told: str


def examine() -> list[Check]:
    """Look at everything, without downloading anything."""
    cores = engines.usable_cores()
    found = [
        Check("machine", "python", True, platform.python_version()),
        Check("machine", "processor", True, f"{processor()}, {cores} usable physical cores"),
    ]
    found += [_engine(name) for name in engines.ENGINES]
    found += [_path(path, obstacle) for path, obstacle in core.paths().items()]
    found += [_model(name) for name in (model.DEFAULT, model.ROW_BY_ROW)]
    found += [_data(name) for name in data.NAMES]
    found += _formats()
    found += [_extra(extra, packages) for extra, packages in EXTRAS.items()]
    return found


def show(found: list[Check]) -> None:
    """Print the checks, a line each."""
    for check in found:
        mark = "ok     " if check.present else "missing"
        terminal.write_line(f"{mark}  {check.kind} {check.name}: {check.told}")


def _engine(name: str) -> Check:
    reason = engines.missing(name)
    if reason is not None:
        return Check("engine", name, False, reason)
    orders = {"trains": engines.TRAINING_ORDER, "reads": engines.READING_ORDER}
    uses = " and ".join(use for use, order in orders.items() if name in order)
    if name != "native":
        return Check("engine", name, True, uses)
    try:
        return Check("engine", name, True, f"{uses} by the path {_path_in_use()}")
    except EngineError as error:  # ROWWISE_ISA asks for what cannot be
        return Check("engine", name, False, str(error))


def _path_in_use() -> str:
    path = core.best()
    if os.environ.get(core.FORCED, "").strip():
        return f"{path}, as {core.FORCED} says"
    lacking = [name for name in core.FEATURES if name not in core.processor_features()]
    return f"{path} (this processor lacks {', '.join(lacking)})" if lacking else path


def _path(path: str, obstacle: str | None) -> Check:
    """A processor path of the native engine."""
    return Check("path", path, obstacle is None, obstacle or "can run here")


def _model(name: str) -> Check:
    if name not in model.shipped():
        return Check("model", name, False, "this package was built without it")
    try:
        found = model.Model.load(name)
    except RowwiseError as error:
        return Check("model", name, False, str(error))
    told = f"{found.network.count:,} parameters"
    promised = ", ".join(f"{100 * one.error_rate:g} %" for one in found.card.kept)
    told += f", promises {promised}" if promised else f"; {found.card.why_not()}"
    return Check("model", name, True, told)


def _formats() -> list[Check]:
    """Which formats of pictures can be decoded."""
    from PIL import features

    found = []
    for name, decoder in FORMATS.items():
        version = features.version(decoder)
        told = f"{decoder} {version}" if version else f"Pillow was built without {decoder}"
        found.append(Check("format", name, bool(version), told))
    found.append(Check("format", ALWAYS, True, "by Pillow itself"))
    for name, extra in EXTRA_FORMATS.items():
        check = _extra(extra, EXTRAS[extra])
        found.append(check._replace(kind="format", name=name))
    return found


def _data(name: str) -> Check:
    try:
        loaded = data.load(name, download=False)
    except RowwiseError as error:
        return Check("data", name, False, str(error))
    return Check("data", name, True, loaded.source)


def _extra(extra: str, packages: tuple[str, ...]) -> Check:
    versions, absent = [], []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            absent.append(package)
    if absent:
        lack = ", ".join(absent)
        return Check("extra", extra, False, f"{lack} not installed: pip install 'rowwise[{extra}]'")
    return Check("extra", extra, True, ", ".join(versions))
