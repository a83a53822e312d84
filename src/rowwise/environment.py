"""This machine and its software: what a result depends on beside the configuration."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any


def environment(*, threads: int) -> dict[str, Any]:
    """This machine and its software, as plain data."""
    packages = ("rowwise", "numpy", "torch", "scikit-learn", "scipy", "pydantic", "safetensors")
    return {
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
        "system": platform.platform(),
        "machine": platform.machine(),
        "processor": processor(),
        "logical_cores": os.cpu_count(),
        "threads": threads,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def processor() -> str:
    """The processor's name, as the system knows it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
