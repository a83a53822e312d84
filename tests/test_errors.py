"""Messages are one line that a terminal shows and does not obey; what fails to import is named."""

from __future__ import annotations

import os
import sys

import pytest

from rowwise import comparison, data, drawing, image_files, keras_archive, metrics, onnx_model
from rowwise.errors import MAX_LINE, BrokenExtra, MissingExtra, RowwiseError, importing, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("früh 7×7 – …", "früh 7×7 – …"),
        ("a\tb\nc", r"a\tb\nc"),
        ("\x1b[2J\x07\x9b", r"\x1b[2J\x07\x9b"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_a_terminal_might_obey_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_an_error_is_one_printable_line():
    assert str(RowwiseError("a\n  b\x1b[2J: no")) == r"a b\x1b[2J: no"


def test_a_long_error_keeps_its_rule_and_its_remedy():
    long = str(RowwiseError("rule " + "x" * 10_000 + " remedy"))
    assert len(long) == MAX_LINE
    assert long.startswith("rule ")
    assert long.endswith(" remedy")


def test_a_package_that_is_not_there_is_missing():
    missing = pytest.raises(MissingExtra, match=r"pillow-heif, which is not installed; .*\[heic\]")
    with missing, importing("pillow-heif", "heic", module="pillow_heif"):
        raise ModuleNotFoundError("No module named 'pillow_heif'", name="pillow_heif")


@pytest.mark.parametrize(
    "fault",
    [
        ImportError("libx.so: cannot allocate memory in static TLS block", name="sklearn"),
        ModuleNotFoundError("No module named 'joblib'", name="joblib"),
        ModuleNotFoundError("No module named 'sklearn.base'", name="sklearn.base"),
        OSError("libgomp.so.1: cannot open shared object file"),
        MemoryError(),
        AttributeError("partially initialized module"),
    ],
    ids=lambda fault: type(fault).__name__,
)
def test_a_package_that_cannot_be_imported_is_not_called_missing(fault):
    with pytest.raises(BrokenExtra) as caught, importing("scikit-learn", "study", module="sklearn"):
        raise fault
    told = str(caught.value)
    assert "scikit-learn, which is installed but cannot be imported (" in told
    assert told.endswith("pip install --force-reinstall 'rowwise[study]'")
    assert "not installed" not in told


class _OutOfMemory:
    """An importer for which there is no memory."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == self.module:
            raise ImportError(f"{name}: cannot allocate memory", name=name)


@pytest.mark.parametrize(
    ("module", "use"),
    [
        ("sklearn", metrics._scikit),
        ("sklearn", data.digits),
        ("scipy", comparison.scipy_stats),
        ("matplotlib", drawing.style),
        ("h5py", keras_archive._h5py),
        ("onnxruntime", lambda: onnx_model.read(b"", None)),
        ("pypdfium2", lambda: image_files.picture(b"%PDF-1.7\n")),
        ("pillow_heif", lambda: image_files.picture(b"\0\0\0\x18ftypheic\0\0\0\0heicmif1")),
    ],
)
def test_every_extra_that_is_short_of_memory_says_so(monkeypatch, module, use):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_OutOfMemory(module), *sys.meta_path])
    with pytest.raises(BrokenExtra, match="cannot allocate memory"):
        use()
