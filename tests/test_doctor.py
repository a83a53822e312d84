"""What `rowwise doctor` says of the native engine: its path, and why others or all are missing."""

from __future__ import annotations

import made_models
import PIL.features
import pytest
from made_libraries import make_libraries, needs_compiler

from rowwise import core, doctor, engines, image


@pytest.fixture(autouse=True)
def native(home, tmp_path, monkeypatch):
    """The native engine is one of the engines, and has no libraries yet."""
    monkeypatch.delenv(core.FORCED, raising=False)
    monkeypatch.setattr(core, "FOLDER", tmp_path)
    monkeypatch.setattr(engines, "ENGINES", ("plain", "native"))
    monkeypatch.setattr(engines, "TRAINING_ORDER", ("native", "torch"))
    monkeypatch.setattr(engines, "READING_ORDER", ("native", "plain"))
    monkeypatch.setattr(
        engines, "missing", lambda name: core.why_not() if name == "native" else None
    )
    return tmp_path


def found(kind: str) -> dict[str, tuple[bool, str]]:
    checks = [check for check in doctor.examine() if check.kind == kind]
    return {check.name: (check.present, check.told) for check in checks}


@needs_compiler
def test_the_path_in_use_and_what_the_processor_lacks(native):
    make_libraries(native, features=0b0001)
    lacking = "AVX-512, AVX512-BF16, AMX"
    assert found("engine") == {
        "plain": (True, "reads"),
        "native": (True, f"trains and reads by the path avx2 (this processor lacks {lacking})"),
    }
    assert found("path") == {
        "portable": (True, "can run here"),
        "avx2": (True, "can run here"),
        "avx512": (False, "this processor (or its system) lacks AVX-512"),
        "avx512_bf16": (False, "this processor (or its system) lacks AVX-512, AVX512-BF16"),
        "amx": (False, f"this processor (or its system) lacks {lacking}"),
    }


@needs_compiler
def test_nothing_is_lacking_on_the_best_processor(native):
    make_libraries(native)
    assert found("engine")["native"] == (True, "trains and reads by the path amx")


@needs_compiler
def test_a_forced_path_is_told_as_such(native, monkeypatch):
    make_libraries(native)
    monkeypatch.setenv(core.FORCED, "avx2")
    told = "trains and reads by the path avx2, as ROWWISE_ISA says"
    assert found("engine")["native"] == (True, told)


@needs_compiler
@pytest.mark.parametrize("forced", ["amx", "fastest"])
def test_a_path_forced_in_vain_is_told_not_raised(native, monkeypatch, forced):
    make_libraries(native, features=0)
    monkeypatch.setenv(core.FORCED, forced)
    present, told = found("engine")["native"]
    assert not present
    assert f"ROWWISE_ISA={forced}" in told
    assert told.endswith("portable")


def test_a_missing_engine_says_why_and_how_to_get_it(native):
    (native / core.RECORD).write_text('{"paths": {"portable": "no C++ compiler was found"}}')
    present, told = found("engine")["native"]
    assert not present
    assert told.startswith("it was not built: no C++ compiler was found; with a compiler")
    assert {present for present, _ in found("path").values()} == {False}


def test_it_prints_a_line_each(native, capsys):
    doctor.show(doctor.examine())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.examine())
    assert any(line.startswith("missing  path amx: it was not built: ") for line in lines)


# --- models and formats -----------------------------------------------------------------------


def test_models_are_told_with_their_promises(tmp_path, monkeypatch):
    promised = made_models.best(promises=(made_models.PROMISE,))
    folder = made_models.ship(tmp_path / "models", monkeypatch, promised)
    count = promised.network.count
    assert found("model") == {
        "best": (True, f"{count:,} parameters, promises 0.1 %"),
        "rows": (False, "this package was built without it"),
    }
    with monkeypatch.context() as patch:
        patch.setattr(image, "READER", image.READER + 1)
        assert "thresholds were set for an older way of reading" in found("model")["best"][1]
    (folder / "rows.safetensors").write_bytes(b"damaged")
    present, told = found("model")["rows"]
    assert not present
    assert "is damaged" in told


def test_formats_are_told_with_their_decoders(monkeypatch):
    told = found("format")
    assert list(told) == ["PNG", "JPEG", "WebP", "TIFF", "BMP, GIF, PPM", "HEIC", "PDF"]
    assert told["PNG"][0]
    assert told["PNG"][1].startswith("zlib ")
    monkeypatch.setattr(PIL.features, "version", lambda decoder: None)
    monkeypatch.setitem(doctor.EXTRAS, "pdf", ("no-such-package",))
    told = found("format")
    assert told["WebP"] == (False, "Pillow was built without webp")
    assert told["PDF"] == (
        False,
        "no-such-package not installed: pip install 'rowwise[pdf]'",
    )
