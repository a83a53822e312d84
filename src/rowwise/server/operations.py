"""The description of each way into the server: bodies, answers and problems, with examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rowwise.server import schemas
from rowwise.server.answers import JSON, PROBLEM
from rowwise.server.bodies import BYTES_TYPE, FORM_TYPE, JSON_TYPE
from rowwise.server.problems import URN

# --- examples -----------------------------------------------------------------------------------

DIGITS = list("0123456789")
BARE = {
    "digit": 7,
    "label": "7",
    "confidence": 0.9993,
    "accepted": True,
    "reason": "",
    "probabilities": [0, 0, 0.0001, 0.0003, 0, 0, 0, 0.9993, 0, 0.0003],
}
READING = {"model": "best", **BARE, "classes": DIGITS}
PROBLEM_OF_ONE = {
    "type": f"{URN}unreadable",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "3 bytes: expected a picture, found none of the formats that are read; "
    "save it as PNG or JPEG",
}
READINGS = {"model": "best", "classes": DIGITS, "readings": [BARE, {"error": PROBLEM_OF_ONE}]}
CARD_OF_ONE = {
    "name": "rows",
    "parameters": 144586,
    "bytes": 578344,
    "classes": DIGITS,
    "row_by_row": True,
    "temperature": 0.97,
    "promises": [],
    "figures": {"MNIST test accuracy": 0.9937},
}
# One pixel of white: small enough to be read here, and without ink.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mP4DwABAQEAG7buVgAAAABJRU5ErkJggg=="
GREY = [[0, 0, 0, 0], [0, 255, 255, 0], [0, 0, 255, 0], [0, 0, 255, 0]]

# --- answers ------------------------------------------------------------------------------------

TITLES = {
    400: "The body is not what it says it is.",
    401: "An API key is needed.",
    403: "The request comes from another site.",
    404: "There is no such thing.",
    408: "The body was sent too slowly.",
    409: "It cannot be kept.",
    413: "Too many bytes, pictures or pixels.",
    415: "The Content-Type is none that is read.",
    421: "The request names another host.",
    422: "The content breaks a rule.",
    503: "No room, for a moment; Retry-After says when to try again.",
    507: "There is no room on the disk.",
}
ALWAYS = (421,)
BODY = (400, 408, 413, 415, 422, 503)
KEYED = (401,)


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: _problem(code) for code in sorted({*codes, *ALWAYS})}


def _problem(code: int) -> dict[str, Any]:
    told = {"type": "about:blank", "title": TITLES[code], "status": code, "detail": TITLES[code]}
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": told}
    headers = {"Retry-After": {"schema": {"type": "string"}}} if code == 503 else {}
    return {"description": TITLES[code], "content": {PROBLEM: content}, "headers": headers}


def _good(
    model: type[schemas.Shape] | type[schemas.Card], example: Mapping[str, Any], told: str
) -> dict[str, Any]:
    return {"model": model, "description": told, "content": {JSON: {"example": example}}}


# --- bodies -------------------------------------------------------------------------------------

_FILE = {"type": "string", "format": "binary"}
_TEXT = {"type": "string", "format": "byte", "minLength": 4, "description": "base64"}
_ROW = {
    "type": "array",
    "items": {"type": "integer", "minimum": 0, "maximum": 255},
    "minItems": 1,
}
_ARRAY = {"type": "array", "items": _ROW, "minItems": 1, "description": "Rows of grey levels."}


def _object(key: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {key: schema},
        "required": [key],
        "additionalProperties": False,
    }


def _list(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": schema, "minItems": 1}


def _body(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": dict(content)}}


_ONE = _body(
    {
        "image/png": {"schema": _FILE},
        "image/jpeg": {"schema": _FILE},
        BYTES_TYPE: {"schema": _FILE},
        FORM_TYPE: {"schema": _object("picture", _FILE)},
        JSON_TYPE: {
            "schema": {"oneOf": [_object("picture", _TEXT), _object("array", _ARRAY)]},
            "examples": {
                "base64": {"value": {"picture": PNG}},
                "array": {"value": {"array": GREY}},
            },
        },
    }
)
_MANY = _body(
    {
        FORM_TYPE: {"schema": _object("pictures", _list(_FILE))},
        BYTES_TYPE: {
            "schema": _FILE | {"description": "N·28·28 bytes: a byte a pixel, row by row."}
        },
        JSON_TYPE: {
            "schema": {
                "oneOf": [_object("pictures", _list(_TEXT)), _object("arrays", _list(_ARRAY))]
            },
            "examples": {
                "base64": {"value": {"pictures": [PNG, PNG]}},
                "arrays": {"value": {"arrays": [GREY]}},
            },
        },
    }
)

# --- operations ---------------------------------------------------------------------------------

READ: dict[str, Any] = {
    "tags": ["read"],
    "responses": {
        200: _good(schemas.Reading, READING, "The reading."),
        **_problems(*BODY, *KEYED, 404),
    },
    "openapi_extra": _ONE,
}
READ_MANY: dict[str, Any] = {
    "tags": ["read"],
    "responses": {
        200: _good(schemas.Readings, READINGS, "The readings, in the pictures' order."),
        **_problems(*BODY, *KEYED, 404),
    },
    "openapi_extra": _MANY,
}
CORRECT: dict[str, Any] = {
    "tags": ["correct"],
    "status_code": 201,
    "responses": {
        201: _good(schemas.Kept, {"kept": 3, "of": 12}, "It is kept."),
        **_problems(*BODY, *KEYED, 403, 404, 409, 507),
    },
    "openapi_extra": _ONE,
}
MODELS: dict[str, Any] = {
    "tags": ["models"],
    "responses": {
        200: _good(schemas.Models, {"default": "rows", "models": [CARD_OF_ONE]}, "The models."),
        **_problems(*KEYED),
    },
}
CARD: dict[str, Any] = {
    "tags": ["models"],
    "responses": {
        200: _good(schemas.Card, CARD_OF_ONE, "Its card."),
        **_problems(*KEYED, 404, 422),
    },
}
SERVER: dict[str, Any] = {
    "tags": ["server"],
    "responses": {
        200: _good(
            schemas.Server,
            {
                "version": "1.0.0",
                "models": ["best", "rows"],
                "default": "best",
                "keeps_corrections": False,
                "limits": {
                    "bytes": 20_000_000,
                    "pixels": 25_000_000,
                    "request_pixels": 100_000_000,
                    "pictures": 1000,
                },
                "needs_key": False,
                "training_digits": True,
            },
            "What this server does.",
        ),
        **_problems(*KEYED, 503),
    },
}
HEALTH: dict[str, Any] = {
    "tags": ["server"],
    "responses": {
        200: _good(schemas.State, {"status": "alive"}, "The process lives."),
        **_problems(),
    },
}
READY: dict[str, Any] = {
    "tags": ["server"],
    "responses": {
        200: _good(schemas.State, {"status": "ready"}, "Requests are welcome."),
        **_problems(503),
    },
}
METRICS: dict[str, Any] = {
    "tags": ["server"],
    "responses": {
        200: {"description": "The numbers.", "content": {"text/plain": {"schema": {}}}},
        **_problems(*KEYED),
    },
}
PAGE: dict[str, Any] = {"include_in_schema": False}


def completed(described: dict[str, Any], *, keyed: bool) -> dict[str, Any]:
    """FastAPI's description with what it cannot know: problems, and keys."""
    components = described.setdefault("components", {})
    known = components.setdefault("schemas", {})
    known["Problem"] = schemas.Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        known.pop(unused, None)
    for path, ways in described["paths"].items():
        for way in ways.values():
            # FastAPI's own answer to what breaks a rule is never given.
            if PROBLEM not in way["responses"].get("422", {}).get("content", {PROBLEM: {}}):
                del way["responses"]["422"]
            if path.startswith("/v1") or path == "/metrics":
                way["security"] = [{"key": []}] if keyed else []
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    described["components"] = components
    return described
