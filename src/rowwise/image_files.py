"""Pictures from outside, decoded: files of many formats, bytes, open files, Pillow's, arrays.

And the way back: pixels as a PNG.
"""

from __future__ import annotations

import io
import itertools
import stat
import threading
import warnings
import zlib
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from rowwise import pixels, raster
from rowwise.errors import PictureError, RowwiseError, importing, said
from rowwise.pixels import Picture as Picture

if TYPE_CHECKING:
    from PIL import Image

MAX_BYTES = 200_000_000  # of one file
MAX_PAGES = 200
MAX_FILE_PIXELS = 200_000_000  # of all pages together
MAX_JPEG_SCANS = 64  # of a progressive one: each passes over every pixel again
MAX_WEBP_PIXELS = 12_000_000  # that Pillow, which holds four copies, decodes; OpenCV the rest

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "DIB", "PPM")
_PAGED = ("GIF", "WEBP", "TIFF", "PNG")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

PLAIN_PX, PLAIN_BYTES = 64 * 64, 8192  # of PNG that are decoded the short way
_PNG_HEAD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_TAIL = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_BETWEEN = 29  # bytes beside those of its data: the rest of IHDR, the frame of IDAT
_GREY = b"\x08\0\0\0\0"  # 8 bits, grey, not interlaced

_quiet = threading.Lock()  # Python's list of warning filters belongs to all threads
_pdfium = threading.Lock()  # the library is not thread-safe


def picture(source: Any, *, max_pixels: int = pixels.MAX_PIXELS) -> Picture:
    """Decode the first picture of `source`; what it may be, and the errors, as for `pictures`."""
    pages = pictures(source, max_pixels=max_pixels)
    try:
        return next(pages)
    except StopIteration:
        raise PictureError(f"{name_of(source)}: has no page; give a file with content") from None
    finally:
        pages.close()


def pictures(source: Any, *, max_pixels: int = pixels.MAX_PIXELS) -> Generator[Picture, None, None]:
    """Decode every picture that `source` holds, one after the other.

    Args:
        source: a path; bytes; an open binary file; a picture of Pillow's; a NumPy array (see
            `pixels.given`) or what turns into one; or a `Picture`, which is passed on. Files
            are PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, HEIC (extra `heic`) and PDF (extra `pdf`).
        max_pixels: the most that a picture or page may have.

    Yields:
        A picture a page or frame: upright by its EXIF orientation, without alpha, at most about
        2,000 pixels a side.

    Raises:
        PictureError: it cannot be read or decoded, is empty, or is beyond the limits (200 MB, 50
            megapixels, 200 pages, 200 megapixels in all pages), which are asked before decoding.
        MissingExtra: a HEIC or PDF file, and the package that decodes it is not installed.
        BrokenExtra: it is installed, and cannot be imported.
    """
    if isinstance(source, Picture):
        yield source
    elif isinstance(source, bytes) and (plain := _plain_png(source)) is not None:
        rows, columns = plain.shape
        _check_bytes(len(source), name_of(source))
        pixels.check_size(columns, rows, name_of(source), max_pixels)
        yield Picture(plain, name_of(source), 1, (columns, rows))
    elif isinstance(source, (str, Path, bytes, bytearray, memoryview)) or hasattr(source, "read"):
        with _opened(source) as file:
            yield from _decoded(file, name_of(source), max_pixels)
    elif _is_pillow(source):
        yield _given(source, name_of(source), max_pixels)
    elif hasattr(source, "__array__"):
        with _named_errors("array"):
            array = np.asarray(source)
        yield pixels.given(array, max_pixels=max_pixels)
    else:
        raise PictureError(
            "a picture is a path, bytes, a binary file, a picture of Pillow's or an array, "
            f"got {type(source).__name__}; give one of these"
        )


def pixel_count(data: bytes) -> int:
    """How many pixels the first picture of a file has, by its head; 0 where that cannot be read.

    Nothing is decoded. What is wrong with a file is said by whoever decodes it.
    """
    if data.startswith(_PNG_HEAD):
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big")
    from PIL import Image

    name = name_of(data)
    try:
        with _named_errors(name), _no_warnings():
            if data[4:8] == b"ftyp" and data[8:12] in _HEIC:
                _learn_heic()
            formats = FORMATS + (("HEIF",) if "HEIF" in Image.OPEN else ())
            with Image.open(io.BytesIO(data), formats=formats) as image:
                return image.width * image.height
    except RowwiseError:
        return 0


def _given(image: Image.Image, name: str, max_pixels: int) -> Picture:
    """A picture of Pillow's, as it stands: of several frames the one it was turned to."""
    pixels.check_size(*image.size, name, max_pixels)
    with _named_errors(name):
        return _picture(image, name, 1, *image.size)


def _plain_png(data: bytes) -> NDArray[np.uint8] | None:
    """A small PNG of grey and nothing else, decoded in a sixth of the time that Pillow takes.

    None for any other, and for a damaged one: what that is, Pillow says. It is checked here before
    libpng sees it, which prints what it finds wrong.
    """
    size, left = len(data), len(data) - len(_PNG_HEAD) - len(_PNG_TAIL) - _PNG_BETWEEN
    if not 0 < left <= PLAIN_BYTES or data[24:29] != _GREY or not data.startswith(_PNG_HEAD):
        return None
    columns, rows = data[19], data[23]
    if data[16:19] != b"\0\0\0" or data[20:23] != b"\0\0\0" or not 0 < columns * rows <= PLAIN_PX:
        return None
    if data[33:41] != left.to_bytes(4, "big") + b"IDAT" or not data.endswith(_PNG_TAIL):
        return None
    for start, stop in ((12, 29), (37, size - len(_PNG_TAIL) - 4)):
        if zlib.crc32(data[start:stop]).to_bytes(4, "big") != data[stop : stop + 4]:
            return None
    lines, opened = rows * (columns + 1), zlib.decompressobj()
    try:
        unpacked = opened.decompress(data[41 : 41 + left], lines + 1)
    except zlib.error:
        return None
    if len(unpacked) != lines or not opened.eof or opened.unused_data:
        return None
    if max(unpacked[:: columns + 1]) > 4:  # the filters that there are
        return None
    import cv2

    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return None if found is None else pixels.grey_if_one(found)


def png(shown: NDArray[np.uint8]) -> bytes:
    """The PNG file of uint8 [rows, columns] grey or [rows, columns, 3] RGB."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(shown).save(data, "PNG")
    return data.getvalue()


def name_of(source: Any) -> str:
    """By which name messages and readings call a source: a file's own, else what it is."""
    if isinstance(source, (str, Path)):
        return str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"{len(source)} bytes"
    named = getattr(source, "filename", "") or getattr(source, "name", "")
    return named if isinstance(named, str) and named else type(source).__name__


def _is_pillow(source: Any) -> bool:
    # Asking so does not import Pillow where nobody has.
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(source).mro())


# --- bytes ------------------------------------------------------------------------------------


def _opened(source: Any) -> AbstractContextManager[BinaryIO]:
    """The source as a file that can be read from any place, its length within the limit."""
    if isinstance(source, (str, Path)):
        try:
            return _opened_path(Path(source))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise PictureError(
                f"{source}: cannot be read: {why}; give the path of a picture"
            ) from error
    if hasattr(source, "read"):
        return nullcontext(io.BytesIO(content(source)))
    _check_bytes(len(source), name_of(source))
    return nullcontext(io.BytesIO(source))


def content(file: Any) -> bytes:
    """What an open binary file holds from its place on.

    Raises PictureError where it is one of text, cannot be read, is empty, or beyond 200 MB.
    """
    name = name_of(file)
    try:
        data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise PictureError(f"{name}: cannot be read: {error}; open it again") from error
    if not isinstance(data, (bytes, bytearray)):
        raise PictureError(
            f"{name}: a picture's file is binary, got one of text; open it with mode 'rb'"
        )
    _check_bytes(len(data), name)
    return bytes(data)


def _opened_path(path: Path) -> AbstractContextManager[BinaryIO]:
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise PictureError(f"{path}: expected a picture, found a folder; give the files in it")
    if stat.S_ISREG(found.st_mode):
        _check_bytes(found.st_size, str(path))
        return path.open("rb")
    with path.open("rb") as stream:  # a pipe
        data = stream.read(MAX_BYTES + 1)
    _check_bytes(len(data), str(path))
    return nullcontext(io.BytesIO(data))


def _check_bytes(size: int, name: str) -> None:
    if not size:
        raise PictureError(f"{name}: expected a picture, found an empty file; save it again")
    if size > MAX_BYTES:
        raise PictureError(
            f"{name}: at most {MAX_BYTES // 10**6} MB are read, got more; "
            "save it smaller, for instance as JPEG"
        )


# --- decoders ---------------------------------------------------------------------------------


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Whatever a decoder raises becomes a `PictureError`: on damaged files they raise anything."""
    try:
        yield
    except RowwiseError:
        raise
    except Exception as error:
        raise PictureError(
            f"{name}: expected a picture, cannot decode it: {said(error)}; "
            "save it again as PNG or JPEG"
        ) from error


def _decoded(file: BinaryIO, name: str, max_pixels: int) -> Iterator[Picture]:
    with _named_errors(name):
        head = file.read(1024)
        file.seek(0)
        if b"%PDF-" in head:
            yield from _pdf_pages(file, name)
            return
        if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
            _learn_heic()
        elif head[:3] == b"\xff\xd8\xff":
            _check_scans(file, name)
        yield from _frames(file, name, max_pixels)


def _learn_heic() -> None:
    with importing("pillow-heif", "heic", module="pillow_heif"):
        import pillow_heif
    pillow_heif.register_heif_opener(thumbnails=False)


def _check_scans(file: BinaryIO, name: str) -> None:
    scans = 0
    last = b""
    while block := file.read(1 << 20):
        scans += (last + block).count(b"\xff\xda")
        last = block[-1:]
    file.seek(0)
    if scans > MAX_JPEG_SCANS:
        raise PictureError(
            f"{name}: a JPEG of at most {MAX_JPEG_SCANS} scans is read, got {scans}; "
            "save it again, not progressive"
        )


def _frames(file: BinaryIO, name: str, max_pixels: int) -> Iterator[Picture]:
    """The pages or frames of one file, decoded by Pillow."""
    from PIL import Image, UnidentifiedImageError

    try:
        with _no_warnings():
            image = Image.open(file, formats=FORMATS + (("HEIF",) if "HEIF" in Image.OPEN else ()))
    except UnidentifiedImageError as error:
        raise PictureError(
            f"{name}: expected a picture, found none of the formats that are read; "
            "save it as PNG or JPEG"
        ) from error
    except Image.DecompressionBombError as error:
        raise PictureError(
            f"{name}: at most {max_pixels / 10**6:g} megapixels are read, got far more; "
            "make it smaller, or cut out the digit"
        ) from error
    with image:
        total = 0
        for page in itertools.count(1):
            if page > 1 and not _turned(image, page - 1):
                return
            pixels.check_size(*image.size, name, max_pixels)
            total += image.width * image.height
            _check_pages(page, total, name)
            columns, rows = image.size
            if image.format == "WEBP" and columns * rows > MAX_WEBP_PIXELS:
                orientation = raster.orientation(image)
                break
            image.draft(None, _draft_size(columns, rows))
            yield _picture(image, name, page, columns, rows)
    del image  # and with it the copy of the file that its decoder keeps
    yield _large_webp(file, name, columns, rows, orientation)


@contextmanager
def _no_warnings() -> Iterator[None]:
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _turned(image: Image.Image, frame: int) -> bool:
    """Turn to a frame; False where there is none."""
    if image.format not in _PAGED:
        return False
    try:
        with _no_warnings():
            image.seek(frame)
    except EOFError:
        return False
    return True


def _check_pages(page: int, total: int, name: str) -> None:
    if page > MAX_PAGES:
        raise PictureError(f"{name}: at most {MAX_PAGES} pages are read, got more; split the file")
    if total > MAX_FILE_PIXELS:
        raise PictureError(
            f"{name}: at most {MAX_FILE_PIXELS // 10**6} megapixels are read of all pages "
            f"together, got more by page {page}; split the file"
        )


def _draft_size(columns: int, rows: int) -> tuple[int, int]:
    """What a JPEG may be reduced to in its decoder, by 2, 4 or 8."""
    share = min(1.0, raster.KEPT_SIDE_PX / max(columns, rows))
    return max(1, int(columns * share)), max(1, int(rows * share))


def _pdf_pages(file: BinaryIO, name: str) -> Iterator[Picture]:
    with importing("pypdfium2", "pdf"):
        import pypdfium2 as pdfium
    with _pdfium:
        document = pdfium.PdfDocument(file.read())
        count = len(document)
    try:
        for page in range(1, count + 1):
            _check_pages(page, 0, name)
            with _pdfium:
                sheet = document[page - 1]
                longest = max(sheet.get_size())
                if not 1 <= longest <= 20_000:
                    raise PictureError(
                        f"{name}: a page of a PDF is 1 to 20,000 points long, got {longest:g}; "
                        "print it to another size"
                    )
                shown = sheet.render(scale=raster.KEPT_SIDE_PX / longest, rev_byteorder=True)
                array = shown.to_numpy()[:, :, :3].copy()
                sheet.close()
            rows, columns = array.shape[:2]
            yield Picture(pixels.grey_if_one(array), name, page, (columns, rows))
    finally:
        with _pdfium:
            document.close()


def _large_webp(file: BinaryIO, name: str, columns: int, rows: int, orientation: int) -> Picture:
    """The first frame of a WebP file, by a decoder that holds its pixels once."""
    import cv2

    file.seek(0)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    array = cv2.imdecode(np.frombuffer(file.read(), np.uint8), flags)
    if array is None:
        raise PictureError(f"{name}: expected a picture, cannot decode it; save it again as PNG")
    shown = raster.upright(raster.reduced_array(array), orientation)
    return Picture(pixels.grey_if_one(shown), name, 1, raster.turned(columns, rows, orientation))


def _picture(image: Image.Image, name: str, page: int, columns: int, rows: int) -> Picture:
    with _no_warnings():
        orientation = raster.orientation(image)
    image.load()
    with _no_warnings():
        left = raster.orientation(image)  # Pillow turns some formats while it loads them
    shown = raster.upright(raster.shown(image, name), left)
    full_size = raster.turned(columns, rows, orientation)
    return Picture(pixels.grey_if_one(shown), name, page, full_size)
