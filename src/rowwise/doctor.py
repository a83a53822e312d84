"""What this machine has: engines, data, extras, and why not where one is missing."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import NamedTuple

from rowwise import data, engines
from rowwise.environment import processor
from rowwise.errors import RowwiseError

EXTRAS = {
    "study": ("scikit-learn", "matplotlib", "jinja2"),
    "torch": ("torch",),
    "tensorboard": ("tensorboard",),
}


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
    for name in engines.ENGINES:
        reason = engines.missing(name)
        uses = [
            task
            for task, order in (
                ("trains", engines.TRAINING_ORDER),
                ("reads", engines.READING_ORDER),
            )
            if name in order
        ]
        found.append(Check("engine", name, reason is None, reason or " and ".join(uses)))
    found += [_data(name) for name in data.NAMES]
    found += [_extra(extra, packages) for extra, packages in EXTRAS.items()]
    return found


def show(found: list[Check]) -> None:
    """Print the checks, a line each."""
    for check in found:
        mark = "ok     " if check.present else "missing"
        print(f"{mark}  {check.kind} {check.name}: {check.told}")


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
