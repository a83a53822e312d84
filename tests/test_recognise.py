"""Recognising: whatever holds the same picture gives the same reading, alone or among many."""

from __future__ import annotations

import copy
import dataclasses
import io
import multiprocessing
import pickle
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import made_models
import made_pictures
import numpy as np
import pytest
from made_models import field, page
from PIL import Image

from rowwise import core, image, image_files
from rowwise.errors import ModelError, PictureError
from rowwise.image import Candidate, Normalised
from rowwise.recognise import FIRST_WINDOW, Recogniser

PAGE = page(5)
EXACT = 1e-5  # batches of another size sum in another order


@pytest.fixture(scope="module")
def reader() -> Recogniser:
    return Recogniser(made_models.best(), threads=2)


def png(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()


def tiff(*arrays: np.ndarray) -> bytes:
    data = io.BytesIO()
    first, *others = (Image.fromarray(array) for array in arrays)
    first.save(data, "TIFF", save_all=True, append_images=others)
    return data.getvalue()


def check_same(a, b) -> None:
    assert a.digit == b.digit
    assert a.accepted == b.accepted
    np.testing.assert_array_equal(a.picture, b.picture)
    np.testing.assert_allclose(a.probabilities, b.probabilities, atol=EXACT)


SOURCES = {
    "path": lambda folder: folder / "five.png",
    "str": lambda folder: str(folder / "five.png"),
    "bytes": lambda folder: png(PAGE),
    "bytearray": lambda folder: bytearray(png(PAGE)),
    "open file": lambda folder: (folder / "five.png").open("rb"),
    "BytesIO": lambda folder: io.BytesIO(png(PAGE)),
    "Pillow's": lambda folder: Image.fromarray(PAGE),
    "Picture": lambda folder: image_files.picture(PAGE),
    "int64": lambda folder: PAGE.astype(np.int64),
    "float32, bytes": lambda folder: PAGE.astype(np.float32),
    "float64, unit": lambda folder: PAGE / 255,
    "with a last axis": lambda folder: PAGE[:, :, None],
    "RGB": lambda folder: np.repeat(PAGE[:, :, None], 3, axis=2),
    "colours first": lambda folder: np.repeat(PAGE[None], 3, axis=0),
    "RGBA": lambda folder: np.dstack([PAGE, PAGE, PAGE, np.full_like(PAGE, 255)]),
    "not contiguous": lambda folder: np.repeat(PAGE, 2, axis=1)[:, ::2],
}


@pytest.mark.parametrize("kind", SOURCES)
def test_whatever_holds_a_picture_gives_the_same_reading(kind, reader, tmp_path):
    (tmp_path / "five.png").write_bytes(png(PAGE))
    source = SOURCES[kind](tmp_path)
    try:
        reading = reader.read(source)
        check_same(reading, reader.read(PAGE))
    finally:
        if hasattr(source, "close"):
            source.close()


@pytest.mark.parametrize("kind", SOURCES)
def test_among_many_it_is_read_the_same(kind, reader, tmp_path):
    (tmp_path / "five.png").write_bytes(png(PAGE))
    source = SOURCES[kind](tmp_path)
    try:
        first, second = reader.read_many([page(3), source])
        check_same(second, reader.read(PAGE))
        check_same(first, reader.read(page(3)))
    finally:
        if hasattr(source, "close"):
            source.close()


def test_a_reading_is_what_its_fields_say(reader):
    reading = reader.read(PAGE)
    told = reader.probabilities(image.normalise(PAGE).digit[None])[0]
    assert reading.digit == int(told.argmax())
    assert reading.label == reader.model.classes[reading.digit]
    assert reading.confidence == pytest.approx(told.max(), abs=EXACT)
    assert reading.probabilities.sum() == pytest.approx(1, abs=EXACT)
    assert reading.probabilities.dtype == np.float32
    np.testing.assert_array_equal(reading.picture, image.normalise(PAGE).digit)


def test_probabilities_are_tempered():
    cold, warm = (Recogniser(made_models.best(temperature=t), threads=1) for t in (1.0, 2.0))
    p = cold.read(PAGE).probabilities.astype(float) ** 0.5
    np.testing.assert_allclose(warm.read(PAGE).probabilities, p / p.sum(), atol=EXACT)


DTYPES = (np.uint8, np.int32, np.float32, np.float64, bool)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_array_of_many_is_each_of_them(dtype, reader):
    many = np.stack([field(d, width=w) for d in range(10) for w in (0.04, 0.1)])
    many[3] = 0
    arrays = many > 128 if dtype is bool else many.astype(dtype)
    if dtype is np.float64:
        arrays = arrays / 255
    readings = reader.read_many(arrays)
    assert len(readings) == 20
    for reading, array in zip(readings, arrays, strict=True):
        check_same(reading, reader.read(array))
        assert (reading.name, reading.page) == ("array", 1)
    assert readings[3].digit is None
    assert reader.read_many(arrays[:0]) == []


def test_arrays_of_colour_pictures_are_many_too(reader):
    pages = np.stack([np.repeat(page(d)[:, :, None], 3, axis=2) for d in (1, 2)])
    for reading, d in zip(reader.read_many(pages), (1, 2), strict=True):
        check_same(reading, reader.read(page(d)))


def test_no_ink_is_an_answer(reader):
    for blank in (np.full((60, 40), 200, np.uint8), np.zeros((28, 28), np.uint8)):
        for reading in (reader.read(blank), *reader.read_many([blank])):
            assert reading.digit is None
            assert reading.label == ""
            assert not reading.accepted
            assert reading.confidence == 0
            assert reading.picture is None
            assert reading.reason == image.NO_INK
            np.testing.assert_array_equal(reading.probabilities, np.zeros(10))


def test_what_is_no_picture_raises(reader, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    for source in (tmp_path / "notes.png", tmp_path / "none.png", b"", io.StringIO("text"), 7):
        with pytest.raises(PictureError):
            reader.read(source)
    with pytest.raises(PictureError, match=r"notes\.png"):
        reader.read_many([PAGE, tmp_path / "notes.png"])


def test_outcomes_come_in_order_with_the_broken_ones_among_them(reader, tmp_path):
    sources, digits = [], []
    for place in range(3 * FIRST_WINDOW + 5):
        broken = place % 4 == 1
        path = tmp_path / f"{place}.png"
        path.write_bytes(png(PAGE)[:60] if broken else png(page(place % 10)))
        sources.append(path)
        digits.append(None if broken else reader.read(path).digit)
    outcomes = list(reader.read_each(iter(sources)))
    assert [outcome.name for outcome in outcomes] == [str(path) for path in sources]
    assert [o.reading.digit if o.reading else None for o in outcomes] == digits
    for outcome, digit in zip(outcomes, digits, strict=True):
        assert (outcome.error is None) == (digit is not None)
        assert outcome.error is None or isinstance(outcome.error, PictureError)


def test_pages_are_read_each_or_the_first_alone(reader):
    data = tiff(page(1), np.full((50, 50), 255, np.uint8), page(3))
    outcomes = list(reader.read_each([data, PAGE], pages=True))
    assert [outcome.page for outcome in outcomes] == [1, 2, 3, 1]
    assert outcomes[1].reading.digit is None
    check_same(outcomes[2].reading, reader.read(page(3)))
    assert [outcome.page for outcome in reader.read_each([data, PAGE])] == [1, 1]
    named = io.BytesIO(data)
    named.name = "scan.tif"
    outcomes = list(reader.read_each([named], pages=True))
    assert {outcome.name for outcome in outcomes} == {"scan.tif"}


def test_pages_before_a_damage_are_kept(reader):
    # The second page's entries lie beyond the end of the file.
    data = tiff(page(1), page(3))
    outcomes = list(reader.read_each([data[: len(data) - 40]], pages=True))
    assert outcomes[-1].error is not None or len(outcomes) == 2
    assert [o.page for o in outcomes] == list(range(1, len(outcomes) + 1))


def test_a_file_is_not_kept_decoded(reader, tmp_path, monkeypatch):
    (tmp_path / "five.png").write_bytes(png(PAGE))
    decoded = []
    real = image_files.picture

    def watched(source, **options):
        picture = real(source, **options)
        decoded.append(weakref.ref(picture))
        return picture

    monkeypatch.setattr(image_files, "picture", watched)
    reading = reader.read(tmp_path / "five.png")
    assert [ref() for ref in decoded] == [None]
    assert reading.digit is not None


def test_what_is_not_wanted_any_more_is_not_decoded(reader):
    asked = []

    def endless():
        while True:
            asked.append(None)
            yield PAGE

    outcomes = reader.read_each(endless())
    next(outcomes)
    outcomes.close()
    assert len(asked) < 10 * FIRST_WINDOW
    assert not [t for t in threading.enumerate() if t.name.startswith("rowwise_")]


def test_threads_share_a_recogniser(reader):
    pages = [page(d, kind) for d in range(10) for kind in ("clean", "ruled")]
    alone = [reader.read(one) for one in pages]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for a, b in zip(alone, pool.map(reader.read, pages), strict=True):
                check_same(a, b)
        many = list(pool.map(lambda _: reader.read_many(pages), range(4)))
    for readings in many:
        for a, b in zip(alone, readings, strict=True):
            check_same(a, b)


# --- models and engines -----------------------------------------------------------------------


def test_the_promise_decides_what_is_accepted():
    promise = made_models.PROMISE
    unsure = Recogniser(made_models.best(promises=(promise,)), threads=1)
    sure = unsure.read(PAGE).confidence
    for limit, accepted in ((sure - 0.01, True), (sure + 0.01, False)):
        model = made_models.best(promises=(promise.model_copy(update={"confidence": limit}),))
        for reader in (Recogniser(model, threads=1), Recogniser(model, error_rate=0.001)):
            reading = reader.read(PAGE)
            assert reader.threshold == limit
            assert reading.accepted == accepted
            assert bool(reading.reason) != accepted
    assert f"{sure:.2%}" in reading.reason


WEAK = tuple(
    made_models.PROMISE.model_copy(update={"error_rate": rate, "confidence": 0.0})
    for rate in (0.005, 0.01)
)


@pytest.mark.parametrize(
    ("promises", "said"),
    [
        ((), "promises no error rate; calibrate it with rowwise pack"),
        (WEAK, "promises 0.5 %, 1 %, not 0.1 %; choose one with --error-rate"),
    ],
)
def test_without_the_promise_nothing_is_accepted(promises, said):
    reader = Recogniser(made_models.best(promises=promises), threads=1)
    assert reader.threshold is None
    many = reader.read_many(np.stack([field(d) for d in range(10)]))
    for reading in (reader.read(PAGE), reader.read(field(3)), *many):
        assert reading.digit is not None
        assert not reading.accepted
        assert reading.reason == f"not accepted: the model {said}"


def test_a_weaker_promise_is_taken_where_it_is_asked_for():
    reader = Recogniser(made_models.best(promises=WEAK), error_rate=0.01, threads=1)
    assert reader.read(PAGE).accepted
    assert reader.read(PAGE).reason == ""


def test_thresholds_for_another_way_of_reading_accept_nothing(monkeypatch):
    model = made_models.best(promises=(made_models.PROMISE, *WEAK))
    assert Recogniser(model, threads=1).threshold is not None
    for reader, age in ((image.READER + 1, "an older way"), (image.READER - 1, "a newer way")):
        with monkeypatch.context() as patch:
            patch.setattr(image, "READER", reader)
            reading = Recogniser(model, threads=1).read(PAGE)
            assert not reading.accepted
            assert f"set for {age} of reading pictures; calibrate it anew" in reading.reason
            with pytest.raises(ModelError, match=rf"promises \(none\), got 0.01; .* {age}"):
                Recogniser(model, error_rate=0.01)


def test_no_error_rate_can_be_asked_for_that_is_not_promised(reader):
    with pytest.raises(ModelError, match=r"the model best promises \(none\), got 0.001"):
        Recogniser(reader.model, error_rate=0.001)
    with pytest.raises(ModelError, match=r"promises \(0.001\), got 0.01"):
        Recogniser(made_models.best(promises=(made_models.PROMISE,)), error_rate=0.01)


def test_models_are_loaded_by_name_file_and_run(tmp_path, monkeypatch):
    ship(tmp_path, monkeypatch)
    assert Recogniser.load().model.name == "best"
    assert Recogniser.load("rows", threads=1).model.name == "rows"
    assert Recogniser.load(tmp_path / "m/rows.safetensors").model.name == "rows"
    with pytest.raises(ModelError, match=r"one that ships \(best, rows\)"):
        Recogniser.load("rwos")


def ship(folder: Path, monkeypatch) -> None:
    made_models.ship(folder / "m", monkeypatch, made_models.best(), made_models.rows())


def test_companions_are_loaded_once_whoever_asks(tmp_path, monkeypatch):
    ship(tmp_path, monkeypatch)
    reader = Recogniser.load(threads=1)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: reader.companion("rows"), range(16)))
    assert len({id(one) for one in found}) == 1
    assert found[0].engine.name == reader.engine.name


def test_the_plain_engine_reads_the_same():
    model = made_models.best()
    reader, plain = Recogniser(model), Recogniser(model, engine="plain")
    assert plain.engine.name == "plain"
    for d in range(10):
        np.testing.assert_allclose(
            plain.read(page(d)).probabilities, reader.read(page(d)).probabilities, atol=1e-4
        )


def test_without_a_compiled_core_the_plain_engine_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(core, "FOLDER", tmp_path)
    reader = Recogniser(made_models.best())
    assert reader.engine.name == "plain"
    assert "native cannot" in reader.engine.why
    assert reader.read(PAGE).digit is not None


def test_a_network_of_another_size_sees_the_digit_in_that_size():
    small = made_models.made("small", [{"kind": "lstm", "units": 5}], shape=(8, 8))
    reader = Recogniser(small, threads=1)
    assert reader.read(PAGE).picture.shape == (28, 28)
    assert reader.fitted(reader.read(PAGE).picture[None]).shape == (1, 8, 8)
    check_same(reader.read_many([PAGE])[0], reader.read(PAGE))


# --- plain data -------------------------------------------------------------------------------

COPIES = {
    "pickle": lambda one: pickle.loads(pickle.dumps(one)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("source", [PAGE, np.full((40, 40), 255, np.uint8)], ids=["5", "no ink"])
def test_a_reading_is_plain_data(way, source, reader):
    for reading in (reader.read(source), reader.read_many([source])[0]):
        made = COPIES[way](reading)
        for field_ in dataclasses.fields(reading):
            np.testing.assert_array_equal(getattr(made, field_.name), getattr(reading, field_.name))
        told = dataclasses.asdict(reading)
        assert set(map(type, told.values())) <= {int, str, float, bool, type(None), np.ndarray}
        assert told["reason"] == reading.reason


def test_readings_come_from_other_processes():
    model = made_models.best()
    pages = [page(d) for d in (1, 2, 3)]
    reader = Recogniser(model, engine="plain", threads=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        others = list(pool.map(reader.read, pages))
    for one, other in zip(pages, others, strict=True):
        check_same(reader.read(one), other)


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_recogniser_is_loaded_anew_as_it_was(way, tmp_path, monkeypatch):
    promise = made_models.PROMISE.model_copy(update={"error_rate": 0.01, "confidence": 0.5})
    made_models.ship(tmp_path / "m", monkeypatch, made_models.best(promises=(promise,)))
    monkeypatch.chdir(tmp_path)
    for place in ("best", "m/best.safetensors"):
        monkeypatch.chdir(tmp_path)
        reader = Recogniser.load(place, error_rate=0.01, engine="plain", threads=3)
        if way == "pickle":
            assert len(pickle.dumps(reader)) < 2000
        monkeypatch.chdir(tmp_path.parent)  # a path is that of where it was loaded
        made = COPIES[way](reader)
        assert (made.engine.name, made.threads, made.threshold) == ("plain", 3, 0.5)
        check_same(made.read(PAGE), reader.read(PAGE))


@pytest.mark.parametrize("way", COPIES)
def test_a_copied_recogniser_of_a_model_in_memory_has_the_model(way):
    reader = Recogniser(made_models.best(promises=(made_models.PROMISE,)), threads=1)
    made = COPIES[way](reader)
    assert made.model.card == reader.model.card
    check_same(made.read(PAGE), reader.read(PAGE))


def test_a_page_is_explained_and_flipped_as_it_is_read():
    reader = Recogniser(made_models.rows(), threads=1)
    data = tiff(page(1), page(3))
    for number, digit in ((1, 1), (2, 3)):
        told = reader.explain(data, page=number)
        np.testing.assert_array_equal(told.picture, page(digit))
        assert told.reading.page == number
        check_same(told.reading, reader.read(page(digit)))
        one, other = reader.flip(data, page=number), reader.flip(page(digit))
        assert (one and one.changes) == (other and other.changes)
    for ask in (reader.explain, reader.flip):
        with pytest.raises(PictureError, match=r"has no page 3; name one it has"):
            ask(data, page=3)


def test_recognising_imports_nothing_heavy():
    heavy = (
        "torch",
        "sklearn",
        "scipy",
        "matplotlib",
        "rich",
        "typer",
        "keras",
        "onnx",
        "filelock",
    )
    code = f"import sys, rowwise.recognise; print([m for m in {heavy} if m in sys.modules])"
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


# --- several candidates -----------------------------------------------------------------------


def candidates(*odds: float) -> tuple[Candidate, ...]:
    return tuple(Candidate(np.zeros((28, 28), np.uint8), one, "") for one in odds)


def test_candidates_that_disagree_leave_doubt():
    sure = np.array([[0.999, 0.001], [0.001, 0.999]], np.float32)
    weights = Recogniser.weights(candidates(1.0, 1.0), sure)
    np.testing.assert_allclose(weights, 0.5)
    assert (weights @ sure).max() < 0.6
    agreed = Recogniser.weights(candidates(1.0, 0.5), sure[[0, 0]])
    assert (agreed @ sure[[0, 0]]).max() == pytest.approx(0.999)


def test_a_candidate_that_looks_like_no_digit_counts_for_little():
    told = np.array([[0.5, 0.5], [0.001, 0.999]], np.float32)
    weights = Recogniser.weights(candidates(1.0, 1.0), told)
    assert weights[1] > 0.99
    assert (weights @ told).argmax() == 1
    trusted = Recogniser.weights(candidates(1.0, 1e-6), told)
    assert trusted[0] > 0.99, "but odds count"


@pytest.fixture(scope="module")
def rows() -> Recogniser:
    return Recogniser.load("rows", threads=2)


def test_a_doubt_of_the_normaliser_is_the_reason(rows):
    digit = made_pictures.mnist_like(made_pictures.drawn(7, width=0.11))
    sure = Normalised((Candidate(digit, 1.0, ""),))
    doubted = Normalised(sure.candidates, doubt="several digits: two")
    one, two = rows.read_normalised(sure, "a"), rows.read_normalised(doubted, "b")
    assert (one.digit, one.confidence) == (two.digit, two.confidence)
    assert not two.accepted
    assert two.reason == "several digits: two"


def test_the_candidate_that_counts_most_is_the_picture_that_was_read(rows):
    seven, four = (made_pictures.mnist_like(made_pictures.drawn(d, width=0.11)) for d in (7, 4))
    both = Normalised((Candidate(seven, 0.01, "one"), Candidate(four, 1.0, "two")))
    read = rows.read_normalised(both, "picture")
    assert read.digit == 4
    np.testing.assert_array_equal(read.picture, four)
