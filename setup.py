"""Compiles the native engine; everything else about the package is in pyproject.toml.

All sources in src/rowwise/native become one plain shared library for each processor path.
CXX, CXXFLAGS and LDFLAGS are respected. A path that cannot be compiled is left out, and without any
the package still installs: build.json beside the libraries says why, and `rowwise doctor` tells it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("rowwise/native")
SOURCES = sorted(Path("src", FOLDER).glob("*.cpp"))
EXPORTS = Path("src", FOLDER, "exports.map")

AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
BF16 = [*AVX512, "-mavx512bf16"]
AMX = [*BF16, "-mamx-tile", "-mamx-bf16"]
PATHS = {"portable": [], "avx2": AVX2, "avx512": AVX512, "avx512_bf16": BF16, "amx": AMX}
BASELINE = "cpu.cpp"  # asks what the processor has, so it must run on every one
HALF = "half.cpp"  # alone multiplies in bfloat16: paths that differ in nothing else share all else

# -O3 takes half as long again to compile and trains no faster: the loops are vectors already.
COMMON = ["-std=gnu++20", "-O2", "-fPIC", "-pthread", "-fvisibility=hidden"]
COMMON += ["-ffp-contract=fast", "-fno-math-errno"]
LINK = ["-shared", "-pthread"]
if sys.platform == "linux":
    # libgcc stays shared: a static one asks for a newer glibc.
    LINK += ["-static-libstdc++", "-Wl,--gc-sections", f"-Wl,--version-script={EXPORTS}"]


class NotCompiled(Exception):
    """Why, in one line."""


def run(command: list[str]) -> str:
    """What a command prints; NotCompiled with its first error where it fails."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment
        )
    except OSError as error:
        raise NotCompiled(f"{command[0]} cannot be run ({error.strerror})") from None
    sys.stderr.write(done.stderr)
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        raise NotCompiled(next((line for line in lines if "error" in line), lines[0]).strip())
    return done.stdout


def compiler() -> tuple[list[str], str]:
    """The command of the C++ compiler, and the first line that it says of itself."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [["g++"], ["c++"], ["clang++"]]:
        try:
            return command, run([*command, "--version"]).partition("\n")[0]
        except NotCompiled as error:
            reason = str(error)
    if named:
        raise NotCompiled(f"the compiler that CXX names does not work: {reason}")
    raise NotCompiled("no C++ compiler was found (g++, c++ or clang++)")


def is_for_this_architecture(path: str) -> bool:
    """Whether a path's instructions are those of this kind of machine."""
    return not PATHS[path] or sysconfig.get_platform().endswith(("x86_64", "amd64"))


class Units:
    """What the libraries are linked of, each compiled once, some at a time.

    A unit is some sources as one: most of the time goes into the headers of the C++ library.
    """

    def __init__(self, command: list[str], folder: Path, pool: ThreadPoolExecutor) -> None:
        self.command, self.folder, self.pool = command, folder, pool
        self.user = shlex.split(os.environ.get("CXXFLAGS", ""))
        self.under_way: dict[str, Future[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, path: str) -> list[Future[str]]:
        """The object files of a path's library, under way."""
        flags = PATHS[path]
        shared = AVX512 if set(AVX512) <= set(flags) else flags
        wide = next(name for name, its in PATHS.items() if its == shared)
        rest = [source.name for source in SOURCES if source.name not in (BASELINE, HALF)]
        return [
            self._start(f"core-{wide}", rest, shared),
            self._start(f"half-{path}", [HALF], flags),
            self._start(f"baseline-{path}", [BASELINE], [f"-DROWWISE_PATH={path}"]),
        ]

    def _start(self, name: str, sources: list[str], flags: list[str]) -> Future[str]:
        if name not in self.under_way:
            self.under_way[name] = self.pool.submit(self._compile, name, sources, flags)
        return self.under_way[name]

    def _compile(self, name: str, sources: list[str], flags: list[str]) -> str:
        unit = self.folder / f"{name}.cpp"
        unit.write_text("".join(f'#include "{source}"\n' for source in sources))
        made = str(unit.with_suffix(".o"))
        what = [f"-I{Path('src', FOLDER)}", "-c", str(unit), "-o", made]
        run([*self.command, *COMMON, *flags, *self.user, *what])
        return made

    def link(self, path: str, objects: list[Future[str]]) -> Path:
        """The library of a path. NotCompiled where one of its objects could not be made."""
        library = self.folder / f"librowwise_{path}.so"
        made = [future.result() for future in objects]
        flags = shlex.split(os.environ.get("LDFLAGS", ""))
        run([*self.command, *LINK, *self.user, *made, *flags, "-o", str(library)])
        return library


class BuildNative(build_ext):
    """One shared library for each path, and the record of what was and was not made."""

    def run(self) -> None:
        """Compile all paths at once; never fail."""
        place = Path("src" if self.inplace else self.build_lib, FOLDER)
        place.mkdir(parents=True, exist_ok=True)
        try:
            command, version = compiler()
        except NotCompiled as error:
            version, reasons = None, dict.fromkeys(PATHS, str(error))
            for path in PATHS:
                (place / f"librowwise_{path}.so").unlink(missing_ok=True)
        else:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                units = Units(command, Path(self.build_temp, "native"), pool)
                own = [path for path in PATHS if is_for_this_architecture(path)]
                objects = {path: units.of(path) for path in reversed(own)}  # the longest first
                reasons = {
                    path: self._install(path, units, objects.get(path), place) for path in PATHS
                }
        for path, reason in reasons.items():
            if reason is not None:
                print(f"rowwise: native path {path} is left out: {reason}", file=sys.stderr)
        record = {"compiler": version, "paths": reasons}
        (place / "build.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")

    def _install(
        self, path: str, units: Units, objects: list[Future[str]] | None, place: Path
    ) -> str | None:
        """Put a path's library in its place, or take an old one away and say why."""
        target = place / f"librowwise_{path}.so"
        try:
            if objects is None:
                here = sysconfig.get_platform()
                raise NotCompiled(f"it is not for this architecture ({here})")
            made = units.link(path, objects)
        except NotCompiled as error:
            target.unlink(missing_ok=True)
            return str(error)
        # Renamed, not overwritten: a process may be running the old one.
        Path(shutil.copy(made, f"{target}.part")).replace(target)
        return None

    def get_outputs(self) -> list[str]:
        """What the build made, as it lies in a wheel."""
        place = Path("src" if self.inplace else self.build_lib, FOLDER)
        names = [path.name for path in (*place.glob("librowwise_*.so"), place / "build.json")]
        return [str(Path(self.build_lib, FOLDER, name)) for name in names]

    def get_output_mapping(self) -> dict[str, str]:
        """For editable installs: where each of these lies instead."""
        return {made: str(Path("src", FOLDER, Path(made).name)) for made in self.get_outputs()}


class AnyPython(bdist_wheel):
    """A wheel for one kind of machine and every Python: the libraries know nothing of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-PLATFORM."""
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"build_ext": BuildNative, "bdist_wheel": AnyPython},
    # Makes setuptools build, and pack the sources; BuildNative does the rest.
    ext_modules=[
        Extension(
            "rowwise.native",
            [source.as_posix() for source in SOURCES],
            depends=[h.as_posix() for h in (*sorted(Path("src", FOLDER).glob("*.h")), EXPORTS)],
        )
    ],
)
