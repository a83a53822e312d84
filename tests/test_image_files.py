"""Decoding: every kind of source and file gives the same picture; everything else a named error."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path

import made_pictures
import numpy as np
import pytest
from PIL import Image

from rowwise import image_files, pixels
from rowwise.errors import MissingExtra, PictureError, RowwiseError
from rowwise.image_files import picture, pictures

GREY = made_pictures.as_bytes(made_pictures.slope((37, 53), 10, 240))
RGB = np.dstack([GREY, 255 - GREY, GREY // 2])


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def png(array: np.ndarray, **options) -> bytes:
    return encoded(Image.fromarray(array), "PNG", **options)


# --- sources ----------------------------------------------------------------------------------


def test_all_sources_of_one_file_are_alike(tmp_path):
    path = tmp_path / "a 7.png"
    path.write_bytes(png(RGB))
    with path.open("rb") as file, Image.open(path) as opened:
        sources = [
            path,
            str(path),
            path.read_bytes(),
            bytearray(path.read_bytes()),
            file,
            opened,
            RGB,
        ]
        for source in sources:
            found = picture(source)
            np.testing.assert_array_equal(found.pixels, RGB)
            assert found.full_size == (53, 37)
            assert found.page == 1
    assert picture(path).name == str(path)
    assert picture(found) is found


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG"])
def test_all_formats_are_read(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98} if kind == "JPEG" else {}
    found = picture(encoded(Image.fromarray(GREY), kind, **options)).pixels
    if found.ndim == 3:
        found = found[..., 0]
    np.testing.assert_allclose(found.astype(int), GREY, atol=6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_pages_are_several_pictures(kind):
    pages = [Image.fromarray(np.roll(GREY, 7 * i, axis=1)) for i in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(pages[0], kind, save_all=True, append_images=pages[1:], **options)
    found = list(pictures(data))
    assert [one.page for one in found] == [1, 2, 3]
    for page, one in zip(pages, found, strict=True):
        shown = one.pixels if one.pixels.ndim == 2 else one.pixels[..., 0]
        np.testing.assert_allclose(shown.astype(int), np.asarray(page), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    from PIL import ImageOps

    image = Image.fromarray(RGB)
    image.getexif()[0x0112] = orientation
    data = encoded(image, "PNG", exif=image.getexif())
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    found = picture(data)
    np.testing.assert_array_equal(found.pixels, np.asarray(upright))
    assert found.full_size == upright.size


def test_heic_is_read():
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra heic")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(file, quality=100, chroma=444)
    found = picture(file.getvalue())
    np.testing.assert_allclose(found.pixels.astype(int), RGB, atol=12)


def test_the_pages_of_a_pdf_are_pictures():
    pytest.importorskip("pypdfium2", reason="needs the extra pdf")
    page = Image.fromarray(made_pictures.made("clean", made_pictures.drawn(3)))
    data = encoded(page, "PDF", save_all=True, append_images=[page.rotate(180)])
    one, two = pictures(data)
    assert (one.page, two.page) == (1, 2)
    assert max(one.pixels.shape) <= 2049
    np.testing.assert_allclose(one.pixels.astype(int).mean(), two.pixels.astype(int).mean(), atol=2)


@pytest.mark.parametrize(
    ("module", "extra", "data"),
    [
        ("pypdfium2", "pdf", b"%PDF-1.7\n"),
        ("pillow_heif", "heic", b"\0\0\0\x18ftypheic\0\0\0\0heicmif1"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, module, extra, data):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'rowwise\[{extra}\]'"):
        picture(data)


def test_pillow_and_opencv_are_not_imported_for_an_array():
    import subprocess

    code = (
        "import sys, numpy; from rowwise import image_files; "
        "image_files.picture(numpy.zeros((9, 9))); print({'PIL', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- modes ------------------------------------------------------------------------------------


def test_sixteen_bits_keep_what_is_faint():
    deep = (30_000 + GREY.astype(np.uint16) * 4).astype(np.uint16)
    found = picture(png(deep)).pixels
    assert found.min() == 0
    assert found.max() == 255
    assert np.corrcoef(found.ravel(), GREY.ravel())[0, 1] > 0.9999
    wide = GREY.astype(np.uint16) * 257
    np.testing.assert_array_equal(picture(png(wide)).pixels, GREY)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"])
def test_every_mode_of_pillow_shows_the_same(mode):
    image = Image.fromarray(np.where(GREY > 128, 255, 0).astype(np.uint8))
    if mode in ("YCbCr", "LAB", "CMYK"):
        image = image.convert("RGB")
    image = image.convert(mode)
    if mode == "I;16":
        image = Image.fromarray((np.asarray(image) * 257).astype(np.uint16))
    found = picture(image).pixels.astype(int)
    found = found if found.ndim == 2 else found[..., 0]
    assert np.corrcoef(found.ravel(), (GREY > 128).ravel())[0, 1] > 0.99


@pytest.mark.parametrize(("level", "background"), [(0, 255), (255, 0), (60, 255), (200, 0)])
def test_ink_alone_lies_on_what_it_stands_out_from(level, background):
    page = made_pictures.with_alpha(made_pictures.drawn(5), level)
    for source in (page, png(page), Image.fromarray(page).convert("LA")):
        found = picture(source).pixels
        assert found.flat[0] == background
        assert abs(int(found.min()) - min(level, background)) <= 1
        assert abs(int(found.max()) - max(level, background)) <= 1


def test_paper_with_round_corners_fills_them():
    page = made_pictures.as_bytes(
        made_pictures.mixed(made_pictures.on_paper(made_pictures.drawn(8)), 220, 30)
    )
    alpha = np.full(page.shape, 255, np.uint8)
    alpha[:40, :40] = 0
    found = picture(np.dstack([page, page, page, alpha])).pixels
    np.testing.assert_array_equal(found[:40, :40], 220)


def test_a_palette_with_a_transparent_colour():
    image = Image.fromarray(made_pictures.made("one bit", made_pictures.drawn(4)))
    image = image.convert("L").convert("P")
    white = int(np.asarray(image)[0, 0])
    found = picture(encoded(image, "PNG", transparency=white)).pixels
    assert found.flat[0] == 255
    assert found.min() == 0


# --- arrays -----------------------------------------------------------------------------------

UNIT = GREY / 255


@pytest.mark.parametrize(
    "array",
    [
        GREY,
        GREY[..., None],
        GREY[None],
        GREY.astype(np.int64),
        GREY.astype(np.float64),
        UNIT,
        UNIT.astype(np.float32),
        GREY.astype(np.uint16) * 257,
        np.asfortranarray(GREY),
        GREY.astype(">u2"),
    ],
    ids=["uint8", "last", "first", "int64", "float64", "unit", "float32", "uint16", "order", "big"],
)
def test_grey_arrays_mean_the_same(array):
    np.testing.assert_array_equal(picture(array).pixels, GREY)


def test_colours_may_come_first():
    np.testing.assert_array_equal(picture(np.moveaxis(RGB, -1, 0)).pixels, RGB)
    np.testing.assert_array_equal(picture(RGB / 255).pixels, RGB)


def test_two_levels_are_black_and_white():
    bits = GREY > 100
    for array in (bits, bits.astype(np.uint8), bits.astype(int), bits.astype(float)):
        np.testing.assert_array_equal(picture(array).pixels, np.where(bits, 255, 0))


def test_a_faint_float_array_is_stretched():
    found = picture(np.array([[0.0, 16.0], [8.0, 4.0]])).pixels
    np.testing.assert_array_equal(found, [[0, 255], [128, 64]])


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(784), r"got the shape \[784\]"),
        (np.zeros((2, 28, 28)), r"got the shape \[2, 28, 28\]"),
        (np.zeros((2, 28, 28, 3)), r"got the shape \[2, 28, 28, 3\]"),
        (np.zeros((0, 28)), "got 28×0"),
        (np.zeros((28, 0), np.uint8), "got 0×28"),
        (np.full((9, 9), np.nan), "finite, got nan"),
        (np.array([[0.0, np.inf]]), "finite, got 0 to inf"),
        (np.array([[-0.5, 0.5]]), "got -0.5 to 0.5"),
        (np.array([[0.0, 1.5]]), "got 0 to 1.5"),
        (np.array([[0.0, 300.0]]), "got 0 to 300"),
        (np.array([[-1, 5]]), "got -1 to 5"),
        (np.array([[0, 70_000]]), "got 0 to 70000"),
        (np.zeros((3, 3), complex), "got complex128"),
        (np.array([["a"]]), "got <U1"),
        (np.array([[None]]), "got object"),
        (np.broadcast_to(np.uint8(0), (8000, 8000)), "50 megapixels are read, got 8000×8000"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(array, says):
    with pytest.raises(PictureError, match=says):
        picture(array)


# --- size -------------------------------------------------------------------------------------


def test_a_large_picture_is_reduced_while_it_is_decoded():
    large = made_pictures.resized(GREY, 5000)
    for data in (png(large), encoded(Image.fromarray(large), "JPEG")):
        found = picture(data)
        assert found.full_size == (5000, 5000)
        assert 1000 <= max(found.pixels.shape) <= 2100
        small = made_pictures.resized(large, found.pixels.shape[0])
        assert np.abs(found.pixels.astype(int) - small).mean() < 2


def test_a_large_webp_takes_the_other_decoder(monkeypatch):
    data = encoded(Image.fromarray(RGB), "WEBP", lossless=True)
    monkeypatch.setattr(image_files, "MAX_WEBP_PIXELS", 100)
    np.testing.assert_array_equal(picture(data).pixels, RGB)


@pytest.mark.parametrize("size", [(5000, 1), (1, 5000), (9000, 3)])
def test_long_and_narrow(size):
    found = picture(encoded(Image.new("L", size, 77), "PNG"))
    assert found.full_size == size
    assert set(found.pixels.flat) == {77}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(columns: int, rows: int) -> bytes:
    """A PNG that says it is of a size, and holds nearly nothing."""
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(7100, 7100), (12_000, 12_000), (60_000, 60_000), (2**31 - 1, 9)])
def test_bombs_are_refused_before_they_are_decoded(size):
    with pytest.raises(PictureError, match="at most 50 megapixels are read, got"):
        picture(bomb(*size))


def test_limits_on_bytes_pages_and_scans(monkeypatch, tmp_path):
    data = png(GREY)
    (tmp_path / "long.png").write_bytes(data)
    many = encoded(
        Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)] * 4
    )
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "MAX_BYTES", len(data) - 1)
        for source in (data, tmp_path / "long.png", io.BytesIO(data)):
            with pytest.raises(PictureError, match="MB are read, got more"):
                picture(source)
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "MAX_PAGES", 1)
        with pytest.raises(PictureError, match="at most 1 pages are read"):
            list(pictures(many))
    with monkeypatch.context() as patch:
        patch.setattr(image_files, "MAX_FILE_PIXELS", GREY.size)
        with pytest.raises(PictureError, match="got more by page 2"):
            list(pictures(many))
    scans = encoded(Image.fromarray(GREY), "JPEG", progressive=True)
    monkeypatch.setattr(image_files, "MAX_JPEG_SCANS", 1)
    with pytest.raises(PictureError, match="at most 1 scans"):
        picture(scans)


# --- refused ----------------------------------------------------------------------------------


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("I am a picture, believe me")
    for source, says in [
        (tmp_path / "none.png", "none.png: cannot be read: No such file"),
        (tmp_path, "found a folder; give the files in it"),
        (tmp_path / "empty.png", "found an empty file"),
        (b"", "found an empty file"),
        (tmp_path / "text.png", "found none of the formats that are read"),
        (io.StringIO("text"), "open it with mode 'rb'"),
        ("a\0b", "cannot be read"),
        (7, "got int; give one of these"),
        (None, "got NoneType"),
        ([GREY], "got list"),
        (b"%PDF-1.7 nothing", "cannot decode it"),
        (b"\0\0\0\x18ftypheic\0\0\0\0heicmif1", "expected a picture"),
    ]:
        with pytest.raises(RowwiseError, match=says) as caught:
            picture(source)
        assert "\n" not in str(caught.value)


def test_a_closed_file_is_refused(tmp_path):
    file = io.BytesIO(png(GREY))
    file.close()
    with pytest.raises(PictureError, match="cannot be read"):
        picture(file)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
def test_a_truncated_file_is_refused(kind):
    data = encoded(Image.fromarray(RGB), kind)
    with pytest.raises(PictureError, match=r"expected a picture|has no page"):
        picture(data[: len(data) // 2])


def test_pictures_are_read_only():
    for source in (GREY, png(GREY)):
        with pytest.raises(ValueError, match="read-only"):
            picture(source).pixels[0, 0] = 1
    assert GREY.flags.writeable


def test_pixels_says_what_is_kept():
    found = pixels.from_array(GREY, name="mine")
    assert (found.name, found.page, found.full_size) == ("mine", 1, (53, 37))


def test_a_pipe_is_read(tmp_path):
    import os
    import threading

    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: Path(pipe).write_bytes(png(GREY)))
    writer.start()
    found = picture(pipe)
    writer.join()
    np.testing.assert_array_equal(found.pixels, GREY)
