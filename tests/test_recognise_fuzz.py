"""Damaged files through the whole reader: each has a reading or a named error, in its place."""

from __future__ import annotations

import io
import time
import warnings

import made_models
import numpy as np
import pytest
from test_image_files import bomb
from test_picture_fuzz import ORIGINALS, damaged

from rowwise.errors import RowwiseError
from rowwise.recognise import Recogniser

MOST_SECONDS = 2.0  # for one file


@pytest.fixture(scope="module")
def reader() -> Recogniser:
    return Recogniser(made_models.rows(), threads=2)


def named(data: bytes, name: str) -> io.BytesIO:
    file = io.BytesIO(data)
    file.name = name
    return file


def attack(reader: Recogniser, cases: int, seed: int) -> dict[str, int]:
    """Read damaged files, sound ones among them; count what came of them."""
    rng = np.random.default_rng(seed)
    files = [
        ORIGINALS[case % len(ORIGINALS)]
        if case % 10 == 0
        else damaged(ORIGINALS[case % len(ORIGINALS)], rng)
        for case in range(cases)
    ]
    said = {"digit": 0, "no ink": 0, "refused": 0}
    seen: list[str] = []
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sources = (named(data, f"{case}.bin") for case, data in enumerate(files))
        for outcome in reader.read_each(sources, pages=True):
            seen += [outcome.name] if outcome.name not in seen[-1:] else []
            said[check(outcome)] += 1
    assert time.perf_counter() - began < MOST_SECONDS * cases
    assert seen == [f"{case}.bin" for case in range(cases)]
    return said


def check(outcome) -> str:
    reading = outcome.reading
    assert (reading is None) != (outcome.error is None)
    if reading is None:
        assert isinstance(outcome.error, RowwiseError)
        assert str(outcome.error).startswith(outcome.name)
        assert "\n" not in str(outcome.error)
        return "refused"
    assert np.isfinite(reading.probabilities).all()
    if reading.digit is None:
        assert not reading.accepted
        return "no ink"
    assert reading.probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert reading.picture.shape == (28, 28)
    return "digit"


def test_damaged_files_have_an_outcome_in_their_place(reader):
    said = attack(reader, 150, seed=11)
    assert said["digit"] > 30
    assert said["refused"] > 30


def test_bombs_and_empty_files_are_refused_among_others(reader):
    files = [ORIGINALS[0], bomb(50_000, 50_000), b"", bomb(0, 9), ORIGINALS[1]]
    began = time.perf_counter()
    said = [check(o) for o in reader.read_each(named(f, f"{n}") for n, f in enumerate(files))]
    assert said == ["digit", "refused", "refused", "refused", "digit"]
    assert time.perf_counter() - began < MOST_SECONDS * len(files)


def test_an_explanation_of_a_damaged_file_is_one_or_a_named_error(reader):
    rng = np.random.default_rng(5)
    explained = 0
    for data in ORIGINALS[:12]:
        for outcome in reader.read_each([broken := damaged(data, rng)]):
            if outcome.reading is not None:
                explained += len(reader.explain(broken).steps) > 0
    assert explained > 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_damaged_files_stay_within_memory(reader):
    import resource

    attack(reader, 200, seed=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    said = attack(reader, 5000, seed=seed)
    assert said["refused"] > 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
