"""What goes wrong, as problem details (RFC 9457): a status, a name, and one line for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson

from rowwise.server.answers import PROBLEM, Answer
from rowwise.settings import nearest

URN = "urn:rowwise:problem:"


class Problem(Exception):
    """A request that cannot be done: answered, and logged by its status alone.

    name: a word for programs, the end of the problem's `type`; none where the status says all.
    detail: the rule, what was got, the remedy. headers: more of them, such as Retry-After.
    """

    def __init__(
        self, status: int, name: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = " ".join(detail.split())
        self.headers = dict(headers or {})

    def plain(self) -> dict[str, Any]:
        """The problem as plain data."""
        return {
            "type": f"{URN}{self.name}" if self.name else "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }

    def answer(self) -> Answer:
        """The problem as a response."""
        body = orjson.dumps(self.plain())
        return Answer(body, self.status, media_type=PROBLEM, headers=self.headers)


def malformed(detail: str) -> Problem:
    """A body that is not what it says it is."""
    return Problem(400, "malformed", detail)


def unreadable(detail: str) -> Problem:
    """A body that is well formed, and whose content breaks a rule."""
    return Problem(422, "unreadable", detail)


def too_large(detail: str) -> Problem:
    """More bytes or pictures than are taken."""
    return Problem(413, "too-large", detail)


def busy(what: str, detail: str, *, retry_after_s: int = 1) -> Problem:
    """More work than there is waiting room for; `what` names the room."""
    problem = Problem(503, "busy", detail, headers={"Retry-After": str(retry_after_s)})
    problem.__cause__ = Full(what)
    return problem


class Full(Exception):
    """Which waiting room is full, for those who count."""


def invalid(errors: Sequence[Mapping[str, Any]], known: Iterable[str]) -> Problem:
    """The first of pydantic's errors in a query, whose parameters are `known`."""
    first = errors[0]
    name = str(first["loc"][-1])[:40] if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        detail = f"unknown parameter {name!r}{nearest(name, known)}"
    elif first["type"] == "missing":
        detail = f"the parameter {name!r} must be given"
    else:
        rule = str(first["msg"]).removeprefix("Input ")
        detail = f"the parameter {name!r} {rule}, got {str(first['input'])[:40]!r}"
    return Problem(422, "invalid", detail)
