"""Seconds and bytes of an installation: `rowwise[study]` against the peers, each in an empty venv.

What it measures. `python -m venv` is not counted; `pip install` into it is: seconds, and the bytes
of all files that it added. Rowwise is built from a copy of this folder, compiling included, and
has all that the study and its report need; the peers are the bare library, without scikit-learn or
matplotlib.

How. pip's cache is warm: each is installed once beforehand into a venv that is thrown away
(--cold: not, and pip is told to keep and use no cache, so the network is measured too). n is
--rounds, in turn. Memory of training processes is in training.json.

    python benchmarks/footprint.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring import HERE, kept, parse, parser, save, say, setting, spread

ROOT = HERE.parent
# As `make bench` and constraints.txt pin them.
INSTALLED = {
    "rowwise[study]": ["./rowwise[study]", "-c", "rowwise/constraints.txt"],
    "keras, tensorflow-cpu": ["keras==3.15.0", "tensorflow-cpu==2.21.0"],
    "torch": ["torch==2.13.0", "numpy"],
    "jax": ["jax==0.10.2"],
    "onnxruntime": ["onnxruntime==1.32.0"],
}


def size(folder: Path) -> int:
    """The bytes of all files below a folder; a link counts as nothing."""
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def copy_sources(folder: Path) -> None:
    """A copy of what git would track here, as building leaves files behind."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def install(wanted: list[str], *, cold: bool) -> dict[str, float]:
    """Seconds and bytes of one installation into an empty venv."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        venv = Path(name, "venv")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        copy_sources(Path(name, "rowwise"))
        before = size(venv)
        command = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        command += ["--no-cache-dir"] if cold else []
        environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        start = time.perf_counter()
        subprocess.run([*command, *wanted], check=True, env=environment, cwd=name)
        return {"seconds": time.perf_counter() - start, "bytes": size(venv) - before}


def main() -> None:
    """Install all in turn, writing the file after each."""
    made = parser("Size and time of installations.", "footprint.json", rounds=1)
    made.add_argument("--only", action="append", choices=INSTALLED, help="this one; repeatable")
    made.add_argument("--cold", action="store_true", help="without pip's cache")
    options = parse(made)
    names = options.only or (["rowwise[study]"] if options.quick else list(INSTALLED))
    results: dict[str, Any] = setting(options)
    results["cache"] = "cold" if options.cold else "warm"
    results["installed"] = kept(options, results, "installed") if options.only else {}
    done: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for turn in range(options.rounds):
        for name in names:
            if turn == 0 and not options.cold and not options.quick:
                install(INSTALLED[name], cold=False)
            done[name].append(install(INSTALLED[name], cold=options.cold))
            say(
                f"{name}: {done[name][-1]['seconds']:.1f} s, {done[name][-1]['bytes'] / 1e6:.0f} MB"
            )
            results["installed"][name] = summary(done[name])
            save(options, results)


def summary(done: list[dict[str, float]]) -> dict[str, Any]:
    """What the installations of one took."""
    return {"seconds": spread([one["seconds"] for one in done]), "bytes": done[-1]["bytes"]}


if __name__ == "__main__":
    main()
