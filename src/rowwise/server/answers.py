"""Answers: responses that cost little to make, and readings as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from rowwise.recognise import Reading

JSON = "application/json"
PROBLEM = "application/problem+json"


class Answer(Response):
    """A response of bytes: Starlette's, made without its general way to headers."""

    def __init__(
        self,
        body: bytes,
        status_code: int = 200,
        *,
        media_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = status_code
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-type", media_type.encode()),
            (b"content-length", b"%d" % len(body)),
        ]
        if headers:
            self.raw_headers += [(k.lower().encode(), v.encode()) for k, v in headers.items()]


def json_of(tree: Any, status_code: int = 200) -> Answer:
    """Plain data, NumPy's arrays among it, as a response."""
    return Answer(orjson.dumps(tree, option=orjson.OPT_SERIALIZE_NUMPY), status_code)


def plain_reading(reading: Reading) -> dict[str, Any]:
    """A reading as plain data, its probabilities as an array; without model and classes."""
    probabilities = reading.probabilities
    return {
        "digit": reading.digit,
        "label": reading.label,
        # float32 as it is: written in the digits that tell it from the next one
        "confidence": 0.0 if reading.digit is None else probabilities[reading.digit],
        "accepted": reading.accepted,
        "reason": reading.reason,
        "probabilities": probabilities,
    }
