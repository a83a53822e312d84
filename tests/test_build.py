"""The build: a library a path, the compiler's refusals told, an install that never fails."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from made_libraries import COMPILER, needs_compiler

from rowwise import core

ROOT = Path(__file__).parents[1]
NATIVE = "src/rowwise/native"
ON_X86 = os.uname().machine == "x86_64"
# Stand for the engine's sources, which take longer to compile: what their path lets them use. The
# second one is compiled once for all paths of AVX-512.
HALF = """
#include <stdexcept>
extern "C" [[gnu::visibility("default")]] int rowwise_probe(int n) {
  try {
    throw std::runtime_error("caught");
  } catch (const std::exception &) {
    return n + 1;
  }
}
#ifdef __AMX_TILE__
const char compiled_for[] = "compiled for amx-tile";
#elif defined(__AVX512BF16__)
const char compiled_for[] = "compiled for avx512bf16";
#elif defined(__AVX512F__)
const char compiled_for[] = "compiled for avx512f";
#elif defined(__AVX2__)
const char compiled_for[] = "compiled for avx2";
#else
const char compiled_for[] = "compiled for baseline";
#endif
extern "C" [[gnu::visibility("default")]] const char *rowwise_for(void) { return compiled_for; }
"""
WIDTH = """
#if defined(__AVX512F__) && !defined(__AVX512BF16__) && !defined(__AMX_TILE__)
const char width[] = "16 lanes";
#elif defined(__AVX2__) && !defined(__AVX512F__)
const char width[] = "8 lanes";
#else
const char width[] = "4 lanes";
#endif
extern "C" [[gnu::visibility("default")]] const char *rowwise_width(void) { return width; }
"""
LANES = {"portable": 4, "avx2": 8, "avx512": 16, "avx512_bf16": 16, "amx": 16}
COMPILED_FOR = {
    "portable": "baseline",
    "avx2": "avx2",
    "avx512": "avx512f",
    "avx512_bf16": "avx512bf16",
    "amx": "amx-tile",
}


def copy_of_the_package(place: Path) -> Path:
    """What the build reads, without what a build made."""
    made = shutil.ignore_patterns("*.so", "*.part", "build.json", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", place / "src", ignore=made)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place


def small_package(place: Path) -> Path:
    """A copy of the package whose native engine is a small one."""
    copy_of_the_package(place)
    for source in (place / NATIVE).glob("*.cpp"):
        if source.name != "cpu.cpp":
            source.unlink()
    (place / NATIVE / "half.cpp").write_text(HALF)
    (place / NATIVE / "width.cpp").write_text(WIDTH)
    return place


@pytest.fixture
def package(tmp_path) -> Path:
    """A small package of the test's own."""
    return small_package(tmp_path / "package")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> tuple[Path, dict[str, str | None]]:
    """The folder of a small package's libraries, built as it should be, and their reasons."""
    folder, reasons, _ = build(small_package(tmp_path_factory.mktemp("built") / "package"))
    return folder, reasons


def environment(**changes: str) -> dict[str, str]:
    """This process's, without what would steer the build."""
    steering = ("CXX", "CXXFLAGS", "LDFLAGS", "PYTHONPATH", core.FORCED)
    return {k: v for k, v in os.environ.items() if k not in steering} | changes


def python(package: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=package,
        env=environment(**changes),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def build(package: Path, **changes: str) -> tuple[Path, dict[str, str | None], str]:
    """The folder of the libraries, each path's reason, and what was said."""
    done = python(package, "setup.py", "-q", "build_ext", "--inplace", **changes)
    folder = package / NATIVE
    return folder, json.loads((folder / "build.json").read_text())["paths"], done.stderr


def built(folder: Path) -> set[str]:
    return {file.stem.removeprefix("librowwise_") for file in folder.glob("librowwise_*")}


def stand_in(place: Path, script: str) -> str:
    """A compiler that does `script`, then is the real one."""
    file = place / "compiler"
    file.write_text(f'#!/bin/sh\n{script}\nexec {shlex.quote(str(COMPILER))} "$@"\n')
    file.chmod(0o755)
    return str(file)


# --- with a compiler --------------------------------------------------------------------------


@needs_compiler
@pytest.mark.skipif(not ON_X86, reason="other architectures have one path")
def test_every_path_has_its_library_for_its_own_instructions(compiled, monkeypatch):
    folder, reasons = compiled
    assert reasons == dict.fromkeys(core.PATHS)
    assert built(folder) == set(core.PATHS)
    for path, name in COMPILED_FOR.items():
        library = (folder / f"librowwise_{path}.so").read_bytes()
        assert f"compiled for {name}\0".encode() in library
        assert f"{LANES[path]} lanes\0".encode() in library
    monkeypatch.setattr(core, "FOLDER", folder)
    monkeypatch.delenv(core.FORCED, raising=False)
    for path in (path for path, obstacle in core.paths().items() if obstacle is None):
        assert core.load(path).rowwise_probe(10) == 11


@needs_compiler
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm, of binutils")
def test_a_library_shows_its_own_interface_alone(compiled):
    for file in compiled[0].glob("*.so"):
        command = ["nm", "--dynamic", "--defined-only", "--format=posix", str(file)]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        names = {line.split()[0] for line in shown.splitlines()}
        assert names == {
            "rowwise_abi",
            "rowwise_cpu",
            "rowwise_for",
            "rowwise_path",
            "rowwise_probe",
            "rowwise_width",
        }


@needs_compiler
@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf, of binutils")
def test_a_library_brings_its_own_c_plus_plus(compiled):
    for file in compiled[0].glob("*.so"):
        command = ["readelf", "--dynamic", str(file)]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert "libc.so" in told
        assert "libstdc++" not in told


@needs_compiler
def test_flags_reach_the_compiler_the_paths_own_but_not_cpu_cpp(package, tmp_path):
    log = tmp_path / "log"
    compiler = stand_in(tmp_path, f'echo "$@" >> {log}')
    flags = {"CXX": f"{compiler} -DFIRST", "CXXFLAGS": "-O0 -DLAST", "LDFLAGS": "-Wl,-z,now"}
    build(package, **flags)
    lines = [line for line in log.read_text().splitlines() if not line.endswith(" --version")]
    compiled = [line for line in lines if " -c " in line]
    linked = [line for line in lines if " -shared " in line]
    paths, widths = (len(core.PATHS), 3) if ON_X86 else (1, 1)
    assert (len(compiled), len(linked)) == (2 * paths + widths, paths)
    for line in compiled:
        assert line.startswith("-DFIRST ")
        assert line.index("-O2") < line.index("-O0 -DLAST")
        assert "-ffast-math" not in line
        anywhere = "portable.cpp" in line or "baseline-" in line
        assert ("-mavx" in line) != anywhere
    for line in linked:
        assert line.index("-O0 -DLAST") < line.index(".o ") < line.index("-Wl,-z,now")


@needs_compiler
@pytest.mark.skipif(not ON_X86, reason="other architectures have one path")
def test_a_path_whose_flags_the_compiler_does_not_know_is_left_out(package, tmp_path):
    refuse = 'case "$*" in *-mamx-tile*) echo "error: no option -mamx-tile" >&2; exit 1;; esac'
    folder, reasons, said = build(package, CXX=stand_in(tmp_path, refuse))
    assert reasons == dict.fromkeys(core.PATHS) | {"amx": "error: no option -mamx-tile"}
    assert built(folder) == set(core.PATHS) - {"amx"}
    assert "native path amx is left out: error: no option -mamx-tile" in said


@needs_compiler
def test_another_architecture_has_the_portable_path(package):
    folder, reasons, _ = build(package, _PYTHON_HOST_PLATFORM="linux-aarch64")
    assert built(folder) == {"portable"}
    assert reasons.pop("portable") is None
    assert set(reasons.values()) == {"it is not for this architecture (linux-aarch64)"}


# --- without one ------------------------------------------------------------------------------


def old_libraries(package: Path) -> None:
    for path in core.PATHS:
        (package / NATIVE / f"librowwise_{path}.so").write_text("of an older build")


def test_a_compiler_that_is_not_there(package):
    old_libraries(package)
    folder, reasons, said = build(package, CXX="/nonexistent")
    assert built(folder) == set()
    told = (
        "the compiler that CXX names does not work: "
        "/nonexistent cannot be run (No such file or directory)"
    )
    assert reasons == dict.fromkeys(core.PATHS, told)
    assert said.count("is left out") == len(core.PATHS)


def test_no_compiler_at_all(package):
    old_libraries(package)
    folder, reasons, _ = build(package, PATH="")
    assert built(folder) == set()
    assert set(reasons.values()) == {"no C++ compiler was found (g++, c++ or clang++)"}


@needs_compiler
def test_sources_that_do_not_compile(package):
    old_libraries(package)
    (package / NATIVE / "width.cpp").write_text("int broken(")
    folder, reasons, _ = build(package)
    assert built(folder) == set()
    assert reasons["portable"].startswith(f"{NATIVE}/width.cpp:1:")
    assert "error: " in reasons["portable"]


def test_pip_installs_all_the_same_and_the_package_says_why(package, tmp_path):
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    target = str(tmp_path / "site")
    python(package, *pip, "--target", target, ".", CXX="/nonexistent")
    ask = "from rowwise import core; print(core.__file__); print(core.why_not())"
    place, why = python(tmp_path, "-c", ask, PYTHONPATH=target).stdout.splitlines()
    assert place.startswith(target)
    assert why.startswith("it was not built: the compiler that CXX names does not work: ")
    assert why.endswith("install rowwise again with --force-reinstall --no-deps --no-cache-dir")


# --- what is handed out -----------------------------------------------------------------------


def test_the_source_distribution_has_all_that_is_compiled(package):
    python(package, "setup.py", "-q", "sdist", "--formats", "tar")
    (archive,) = (package / "dist").glob("*.tar")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    sources = {f"{NATIVE}/{file.name}" for file in (package / NATIVE).iterdir()}
    assert {"setup.py", "pyproject.toml"} | sources <= names


needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@needs_make
def test_make_installs_anew_after_an_edit(tmp_path):
    (tmp_path / "bin").mkdir()
    for name in ("bin/python", "study", "test"):
        (tmp_path / name).touch()

    def installs(*options: str) -> bool:
        command = ["make", "--dry-run", f"VENV={tmp_path}", *options, "test"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return "pip install" in done.stdout

    assert not installs()
    for source in ("setup.py", f"{NATIVE}/cpu.cpp", f"{NATIVE}/cpu.h", f"{NATIVE}/exports.map"):
        assert installs(f"--what-if={source}"), source


@needs_make
@pytest.mark.parametrize("missing", ["", "it was not built: no C++ compiler was found"])
def test_make_study_takes_pytorch_only_where_the_native_engine_is_missing(tmp_path, missing):
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "python"
    log = tmp_path / "log"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {log}\ncase "$1" in -c) echo "{missing}";; esac\n')
    stub.chmod(0o755)
    command = ["make", f"VENV={tmp_path}", f"{tmp_path}/study"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    installed = re.findall(r" -e (\S+)", log.read_text())
    assert installed == [".[study]", *([".[study,torch]"] if missing else [])]
    told = f"the native engine is missing, PyTorch is installed in its place: {missing}\n"
    assert (told in done.stdout) == bool(missing)


@pytest.mark.slow
@pytest.mark.timeout(900)
@needs_compiler
def test_a_wheel_runs_where_there_is_no_compiler(tmp_path):
    """The whole engine, as `make wheel` builds it, in an environment that has nothing else."""
    package = copy_of_the_package(tmp_path / "package")
    pip = ["-m", "pip", "--quiet"]
    make = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", "plain", "."]
    python(package, *make, CXXFLAGS="-O1")  # slower code sooner: it is the packing that is tested
    (plain,) = (package / "plain").iterdir()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    python(package, "-m", "auditwheel", "repair", "-w", "dist", str(plain), PATH=path)
    (wheel,) = (package / "dist").iterdir()
    assert re.search(r"-py3-none-manylinux_2_\d+_\w+\.whl$", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as packed:
        native = {Path(n).name for n in packed.namelist() if re.match("rowwise/native/.", n)}
    paths = core.PATHS if ON_X86 else ("portable",)
    assert native == {"build.json", *(f"librowwise_{path}.so" for path in paths)}

    python(tmp_path, "-m", "venv", "--without-pip", "empty")
    inside = str(tmp_path / "empty" / "bin" / "python")
    python(tmp_path, *pip, "--python", inside, "install", "--no-deps", "--no-index", str(wheel))
    # The packages that rowwise needs, without this environment's own rowwise: a path that a
    # .pth file adds has its .pth files left unread.
    needed = Path(pytest.__file__).parents[1]
    (site,) = (tmp_path / "empty").glob("lib/python*/site-packages")
    (site / "needed.pth").write_text(f"{needed}\n")
    ask = """
from pathlib import Path
from rowwise import core, doctor
assert "empty" in Path(core.__file__).parts, core.__file__
for path, obstacle in core.paths().items():
    assert obstacle is None or "lacks" in obstacle, obstacle
print(core.load().rowwise_path().decode())
doctor.show(doctor.examine())
"""
    done = subprocess.run(
        [inside, "-c", ask],
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] in core.PATHS
