"""Bodies of requests: read within their limits and in memory, and taken apart into pictures."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from rowwise import pixels
from rowwise.server.problems import Problem, busy, malformed, too_large, unreadable

Array = NDArray[Any]

JSON_TYPE = "application/json"
FORM_TYPE = "multipart/form-data"
BYTES_TYPE = "application/octet-stream"
MAX_PARTS_BESIDE = 8  # of a form, that are no pictures


ONE_TYPES = (JSON_TYPE, FORM_TYPE, BYTES_TYPE, "image/")
MANY_TYPES = (JSON_TYPE, FORM_TYPE, BYTES_TYPE)
UNCOUNTED_BYTES = 65_536  # bodies that come whole and are no larger are not counted as held
BASE64_CHARS = 1 << 18  # a multiple of four
MAX_JSON_NUMBERS = 1_000_000
MAX_JSON_ROWS = 50_000
MAX_JSON_OBJECTS = 10
COUNTED_BYTES = 100_000  # at once: others wait for so long


class Body(NamedTuple):
    """A request's body, and what its Content-Type says that it is."""

    data: bytes
    kind: str  # "application/json", without parameters
    parameters: Mapping[bytes, bytes]

    @property
    def becomes_bytes(self) -> int:
        """What taking it apart makes of it, at most: the files of a form, the numbers of JSON."""
        size = len(self.data)
        if self.kind == JSON_TYPE:  # a string, and what its base64 says; numbers are 8 bytes each
            return 2 * size + min(4 * size, 8 * MAX_JSON_NUMBERS)
        return size if self.kind == FORM_TYPE else 0


class Intake:
    """Reads the bodies of requests, within limits for each and for all that are held at once."""

    def __init__(self, *, most: int, most_held: int, timeout_s: float) -> None:
        self.most, self.most_held, self.timeout_s = most, most_held, timeout_s
        self.held = 0  # bytes

    async def read(self, request: Request, kinds: tuple[str, ...]) -> Body:
        """The body of a request, of one of `kinds`; `release` it once it is answered.

        What it will be taken apart into counts as held from then on, too.

        Raises Problem: 415 for another kind and 413 beyond the limit, by Content-Length before
        anything is read; 408 where it is not whole in time; 503 where too much is held already; 400
        where the connection ends before the body does.
        """
        headers: dict[bytes, bytes] = dict(request.scope["headers"])
        kind, parameters = _content_type(headers.get(b"content-type", b""))
        if not kind.startswith(kinds):
            raise _unknown_type(kind, kinds)
        announced = headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced[:18]) > self.most:
            raise too_large(_bytes_rule(self.most, f"{int(announced[:18]):,}"))
        try:
            async with asyncio.timeout(self.timeout_s):
                data = await self._received(request)
        except TimeoutError:
            raise Problem(
                408, "slow-body", f"a body is sent within {self.timeout_s:g} s, this one was not; "
                "send it faster, or make it smaller",
            ) from None  # fmt: skip
        body = Body(data, kind, parameters)
        if len(data) > UNCOUNTED_BYTES:
            self._hold(request, body.becomes_bytes)
        return body

    async def _received(self, request: Request) -> bytes:
        receive = request.receive
        message = await receive()
        data: bytes = message.get("body", b"")
        whole = message["type"] == "http.request" and not message.get("more_body")
        if whole and len(data) <= min(self.most, UNCOUNTED_BYTES):
            return data
        parts, size = [data], len(data)
        self._hold(request, len(data))
        while message["type"] == "http.request" and size <= self.most:
            if not message.get("more_body"):
                return b"".join(parts)
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._hold(request, len(parts[-1]))
        if message["type"] != "http.request":
            raise malformed("a body is sent whole, the connection ended before it did")
        raise too_large(_bytes_rule(self.most, "more"))

    def _hold(self, request: Request, size: int) -> None:
        if self.held + size > self.most_held:
            raise busy(
                "bodies", f"all bodies together hold at most {self.most_held:,} bytes, and as much "
                "is held; try again in a second",
            )  # fmt: skip
        self.held += size
        request.scope["held"] = request.scope.get("held", 0) + size

    def release(self, request: Request) -> None:
        """The request is answered, and its body held no longer."""
        self.held -= request.scope.pop("held", 0)


@lru_cache(maxsize=256)
def _content_type(value: bytes) -> tuple[str, Mapping[bytes, bytes]]:
    kind, parameters = parse_options_header(value[:500])
    return kind.decode("latin-1").lower(), parameters


def _bytes_rule(limit: int, got: str) -> str:
    return f"a body has at most {limit:,} bytes, got {got}; send a smaller picture, or fewer"


# --- one picture --------------------------------------------------------------------------------


def one_picture(body: Body) -> bytes | Array:
    """The picture of a body that holds one. Raises Problem where it does not."""
    if body.kind == JSON_TYPE:
        tree = _tree(body.data, ("picture", "array"))
        key, value = _only(tree, ("picture", "array"))
        return _from_base64(value, "picture") if key == "picture" else _array(value, "array", 2)
    if body.kind == FORM_TYPE:
        files = _files(body, "picture", most=1)
        if len(files) != 1:
            raise unreadable("a form has one file field `picture`, got none; send it")
        return _filled(files[0], "picture")
    return _filled(body.data, "the body")


def many_pictures(
    body: Body, *, most: int, shape: tuple[int, int]
) -> list[bytes | Array | Problem] | Array:
    """The pictures of a body that holds several: uint8 [N, rows, columns] of raw bytes, else each.

    A picture that is not even bytes is a Problem in its place. Raises Problem where the whole
    cannot be taken apart, or holds none, or more than `most`.
    """
    if body.kind == BYTES_TYPE:
        return _raw(body.data, most=most, shape=shape)
    if body.kind == JSON_TYPE:
        tree = _tree(body.data, ("pictures", "arrays"))
        key, values = _only(tree, ("pictures", "arrays"))
        if not isinstance(values, list):
            raise unreadable(f"{key} is a list, got {_kind(values)}")
        _check_count(len(values), most)
        take = _from_base64 if key == "pictures" else _grey
        found = [_or_problem(take, value, f"{key}[{i}]") for i, value in enumerate(values)]
        return _in_one_range(found)
    files = _files(body, "pictures", most=most)
    _check_count(len(files), most)
    return [_or_problem(_filled, data, f"pictures[{i}]") for i, data in enumerate(files)]


def _or_problem(take: Any, value: Any, where: str) -> bytes | Array | Problem:
    try:
        found: bytes | Array = take(value, where)
    except Problem as problem:
        return problem
    return found


def _check_count(count: int, most: int) -> None:
    if count > most:
        raise too_large(f"a request has at most {most:,} pictures, got {count:,}; send several")
    if not count:
        raise unreadable("a request has at least one picture, got none")


def _raw(data: bytes, *, most: int, shape: tuple[int, int]) -> Array:
    rows, columns = shape
    count, rest = divmod(len(data), rows * columns)
    if rest or not count:
        raise unreadable(
            f"raw pictures have {rows}×{columns} = {rows * columns:,} bytes each, got "
            f"{len(data):,} bytes in all; send whole pictures, a byte a pixel"
        )
    _check_count(count, most)
    return pixels.arrays(np.frombuffer(data, np.uint8).reshape(count, rows, columns))


def _filled(data: bytes, where: str) -> bytes:
    if not data:
        raise unreadable(f"{where}: expected a picture, got no bytes")
    return data


# --- JSON ---------------------------------------------------------------------------------------


def _tree(data: bytes, keys: tuple[str, str]) -> dict[str, Any]:
    _check_json_size(data)
    try:
        tree = orjson.loads(data)
    except ValueError as error:  # nested too deeply, too
        raise malformed(f"the body should be JSON: {error}") from None
    if not isinstance(tree, dict):
        raise unreadable(
            f"the body should be an object with {' or '.join(keys)}, got {_kind(tree)}"
        )
    return tree


def _check_json_size(data: bytes) -> None:
    """Refuse what would be millions of objects, before any is made: of a byte, forty."""
    for sign, most, what in (
        (b",", MAX_JSON_NUMBERS, "numbers"),
        (b"[", MAX_JSON_ROWS, "rows"),
        (b"{", MAX_JSON_OBJECTS, "objects"),
        (b":", MAX_JSON_OBJECTS, "keys"),
    ):
        if _has_more(data, sign, most):
            raise too_large(f"a JSON body has at most {most:,} {what}, got more; send raw bytes")


def _has_more(data: bytes, sign: bytes, most: int) -> bool:
    """Whether a sign is there more than `most` times, counted piece by piece."""
    count = 0
    for at in range(0, len(data), COUNTED_BYTES):
        count += data.count(sign, at, at + COUNTED_BYTES)
        if count > most:
            return True
    return False


def _only(tree: dict[str, Any], keys: tuple[str, str]) -> tuple[str, Any]:
    if len(tree) != 1 or next(iter(tree)) not in keys:
        got = ", ".join(repr(key[:40]) for key in list(tree)[:5]) or "no key"
        raise unreadable(f"the body should have the one key {' or '.join(keys)}, got {got}")
    return next(iter(tree.items()))


def _from_base64(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise unreadable(f"{where} is base64 in a string, got {_kind(value)}")
    try:
        return _filled(_decoded(value), where)
    except (binascii.Error, ValueError):
        raise unreadable(f"{where} is not valid base64 (RFC 4648, padded)") from None


def _decoded(text: str) -> bytes:
    """Decode base64 piece by piece: Python decodes one without letting other threads run."""
    if "=" in text[:-2]:
        raise ValueError("padding before the end")
    starts = range(0, len(text), BASE64_CHARS)
    return b"".join(base64.b64decode(text[at : at + BASE64_CHARS], validate=True) for at in starts)


def _grey(value: Any, where: str) -> Array:
    return _array(value, where, 2)


def _array(value: Any, where: str, axes: int) -> Array:
    try:
        found = np.asarray(value) if _is_rows(value) else None
    except (ValueError, OverflowError):  # rows of different lengths
        found = None
    if found is None or found.ndim != axes or found.dtype.kind not in "buif":
        raise unreadable(f"{where} is a list of rows of as many numbers each, 0 to 255")
    return found


def _in_one_range(found: list[bytes | Array | Problem]) -> list[bytes | Array | Problem]:
    """Arrays whose numbers mean, each alone, what they mean in the range of all together."""
    highest = [float(one.max(initial=0)) for one in found if isinstance(one, np.ndarray)]
    if max(highest, default=0) < 2:
        return found
    deep = max(highest) > 256

    def ranged(one: Array) -> Array:
        if one.min(initial=0) >= 0 and deep and one.max(initial=0) <= 255:
            one = np.rint(one / 257)
        return one * 0 if one.min(initial=0) >= 0 and one.max(initial=0) <= 1 else one

    return [ranged(one) if isinstance(one, np.ndarray) else one for one in found]


def _is_rows(value: Any) -> bool:
    """Whether it is a list of lists without a string: of those NumPy makes each as long as any."""
    return isinstance(value, list) and all(
        isinstance(row, list) and str not in set(map(type, row)) for row in value
    )


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "nothing" if value is None else "a number")


# --- forms --------------------------------------------------------------------------------------


class _Form:
    """The files of one field of a form, gathered in memory while it is parsed."""

    def __init__(self, field: str, most: int) -> None:
        self.field, self.most = field, most
        self.files: list[bytes] = []
        self.beside = 0
        self._header, self._value = b"", b""
        self._name: str | None = None
        self._parts: list[bytes] = []

    def callbacks(self) -> Any:
        """What the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_header,
            "on_header_value": self._on_value,
            "on_header_end": self._end_header,
            "on_part_data": self._on_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._name, self._parts = None, []
        self._header = self._value = b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == self.field:
            self._parts.append(data[start:end])

    def _end(self) -> None:
        if self._name != self.field:
            self.beside += 1
            if self.beside > MAX_PARTS_BESIDE:
                raise unreadable(f"a form has the field `{self.field}`, got too many others")
            return
        if len(self.files) >= self.most:
            raise too_large(f"a form has at most {self.most:,} of the field `{self.field}`")
        self.files.append(b"".join(self._parts))


def _files(body: Body, field: str, *, most: int) -> list[bytes]:
    boundary = body.parameters.get(b"boundary", b"")
    if not boundary:
        raise malformed("a form names its boundary in Content-Type, got none")
    form = _Form(field, most)
    try:
        parser = MultipartParser(boundary, form.callbacks())
        parser.write(body.data)
        parser.finalize()
    except FormParserError as error:
        raise malformed(f"the form is malformed: {error}") from None
    if not body.data.rstrip(b"\r\n").endswith(b"--" + boundary + b"--"):
        raise malformed("the form is cut off: it lacks its closing boundary")
    return form.files


def _unknown_type(kind: str, kinds: tuple[str, ...]) -> Problem:
    known = ", ".join(f"{one}…" if one.endswith("/") else one for one in kinds)
    detail = f"Content-Type is one of {known}, got {kind[:100]!r}; say what the body is"
    return Problem(415, "unknown-type", detail)
