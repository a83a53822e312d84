"""Damaged, truncated, odd and enormous files: each has an answer or a named error, soon."""

from __future__ import annotations

import io
import time
import warnings

import made_pictures
import numpy as np
import pytest
from PIL import Image
from test_image_files import bomb

from rowwise import image
from rowwise.errors import RowwiseError
from rowwise.image_files import pictures

MOST_SECONDS = 2.0


def originals() -> list[bytes]:
    """One small file of each format, and of each mode that PNG and TIFF have."""
    page = made_pictures.resized(made_pictures.made("clean", made_pictures.drawn(5)), 60)
    grey = Image.fromarray(page)
    files = []

    def add(picture: Image.Image, kind: str, **options: object) -> None:
        data = io.BytesIO()
        picture.save(data, kind, **options)
        files.append(data.getvalue())

    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "I;16"):
        add(grey.convert("I").convert(mode) if mode == "I;16" else grey.convert(mode), "PNG")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        add(grey, "TIFF", compression=compression)
    add(grey.convert("1"), "TIFF", compression="group4")
    add(grey, "JPEG")
    add(grey.convert("RGB"), "JPEG", progressive=True, exif=grey.getexif())
    add(grey, "GIF", save_all=True, append_images=[grey.rotate(90)])
    add(grey.convert("RGB"), "WEBP")
    add(grey.convert("RGBA"), "WEBP", lossless=True)
    add(grey, "BMP")
    add(grey, "PPM")
    add(grey, "PDF")
    return files


ORIGINALS = originals()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one of the damages that files have."""
    array = bytearray(data)
    kind = rng.integers(7)
    if kind == 0:  # cut off
        return bytes(array[: rng.integers(0, len(array))])
    if kind == 1:  # single bytes
        for place in rng.integers(0, len(array), rng.integers(1, 12)):
            array[place] = rng.integers(256)
    elif kind == 2:  # in the head, where sizes are
        for place in rng.integers(0, min(64, len(array)), rng.integers(1, 5)):
            array[place] = rng.choice([0, 1, 127, 255])
    elif kind == 3:  # a piece lost
        start = int(rng.integers(0, len(array)))
        del array[start : start + int(rng.integers(1, 200))]
    elif kind == 4:  # a piece twice
        start = int(rng.integers(0, len(array)))
        array[start:start] = array[start : start + int(rng.integers(1, 200))]
    elif kind == 5:  # another file's end
        other = ORIGINALS[rng.integers(len(ORIGINALS))]
        array[rng.integers(0, len(array)) :] = other[rng.integers(0, len(other)) :]
    else:  # zeros or ones in a row
        start = int(rng.integers(0, len(array)))
        length = int(rng.integers(1, 64))
        array[start : start + length] = bytes([int(rng.choice([0, 255]))]) * length
    return bytes(array)


def answer(data: bytes) -> str:
    """ "digit", "no ink" or "refused"; anything else fails."""
    began = time.perf_counter()
    said, message = "refused", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for page in pictures(data):
                said = "no ink" if image.normalise(page).digit is None else "digit"
    except RowwiseError as error:
        message = str(error)
    assert time.perf_counter() - began < MOST_SECONDS
    assert "\n" not in message
    assert len(message) < 500
    return said


def attack(cases: int, seed: int) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    said = {"digit": 0, "no ink": 0, "refused": 0}
    for case in range(cases):
        data = damaged(ORIGINALS[case % len(ORIGINALS)], rng)
        said[answer(data)] += 1
    return said


def test_the_originals_are_read():
    for data in ORIGINALS:
        assert answer(data) == "digit"


def test_damaged_files_have_an_answer_or_a_named_error():
    said = attack(200, seed=1)
    assert said["refused"] > 40
    assert said["digit"] > 20


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thousands_of_damaged_files_stay_within_memory():
    import resource

    attack(200, seed=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    said = attack(5000, seed=seed)
    assert said["refused"] > 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


@pytest.mark.parametrize("size", [(0, 0), (0, 9), (9, 0), (2**31 - 1, 2**31 - 1), (50_000, 50_000)])
def test_sizes_that_none_has(size):
    assert answer(bomb(*size)) == "refused"


@pytest.mark.parametrize("side", [1, 2, 3, 5, 8])
def test_tiny_pictures_have_an_answer(side):
    rng = np.random.default_rng(side)
    for mode in ("L", "RGB", "RGBA"):
        array = rng.integers(0, 256, (side, side, 4), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(array).convert(mode).save(data, "PNG")
        assert answer(data.getvalue()) in ("digit", "no ink")
