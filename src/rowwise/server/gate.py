"""The gate before all routes: who may pass, what every answer carries, what is counted and told."""

from __future__ import annotations

import asyncio
import os
import re
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rowwise.server import log
from rowwise.server.keys import Keys
from rowwise.server.metrics import Metrics
from rowwise.server.origins import Hosts
from rowwise.server.problems import Problem

Header = tuple[bytes, bytes]

SECURITY = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
LINGER_S = 1.0  # for a client to stop sending a body that is not wanted
LINGER_BYTES = 2_000_000
DRAINED_BYTES = 65_536  # a smaller body is taken in though it is not wanted: the connection stays
NO_ROUTE = "none"  # of a path that leads nowhere: it is not told, as it may hold anything
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Call:
    """One request on its way: what is told of it once it is answered."""

    __slots__ = ("headers", "id", "pictures", "sent", "start", "status", "unread")

    def __init__(self, headers: Mapping[bytes, bytes], id: bytes) -> None:
        self.headers, self.id = headers, id
        self.start = time.perf_counter()
        self.status = 0
        self.sent = False
        self.pictures = 0
        # Whether a part of its body has not been taken in.
        self.unread = (
            headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        )

    @property
    def is_small(self) -> bool:
        """Whether its body is announced to be small, and comes without being asked for."""
        length = self.headers.get(b"content-length", b"")
        short = length.isdigit() and len(length) <= 9 and int(length) <= DRAINED_BYTES
        return short and b"expect" not in self.headers


class Gate:
    """An ASGI application around another one.

    shared: what every request finds in its scope. HEAD is answered as GET is, without the body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        shared: Mapping[str, Any],
        keys: Keys,
        hosts: Hosts,
        metrics: Metrics,
        around: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app, self._shared = app, shared
        self._keys, self._hosts, self._metrics = keys, hosts, metrics
        self._inside = around(self._admitted) if around else self._admitted
        self._common = [(k.encode(), v.encode()) for k, v in SECURITY.items()]
        self._names = frozenset(name for name, _ in self._common)
        self._prefix, self._count = os.urandom(6).hex().encode(), count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer that it may not pass."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call = Call(headers, self._id(headers))
        asked = scope["method"]
        # A scope of its own: the server goes on to see the method that was asked with.
        scope = {**scope, **self._shared, "call": call, "asked": asked}
        if asked == "HEAD":
            scope["method"] = "GET"

        async def take() -> Message:
            message = await receive()
            call.unread = bool(message.get("more_body"))
            return message

        async def give(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status, call.sent = message["status"], True
                if call.unread and call.is_small:
                    await _drain(take, call)
                message["headers"] = self._dressed(message["headers"], call)
            elif asked == "HEAD":
                message["body"] = b""
            if call.unread and message["type"] == "http.response.body":
                await send({**message, "more_body": True})
                if message.get("more_body"):
                    return
                await _drain(take, call)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            try:
                self._hosts.check(headers)
                await self._inside(scope, take, give)
            except Problem as problem:
                await problem.answer()(scope, take, give)
        finally:
            self._told(scope, call)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What has passed the gate, and whatever goes wrong with it."""
        call: Call = scope["call"]
        try:
            self._keys.check(scope["path"], call.headers)
            await self._app(scope, receive, send)
        except Problem as problem:
            await problem.answer()(scope, receive, send)
        except Exception as error:
            _confess(error, call)
            if not call.sent:
                await fault(call).answer()(scope, receive, send)

    def _id(self, headers: Mapping[bytes, bytes]) -> bytes:
        given = headers.get(b"x-request-id")
        if given is not None and _SANE.fullmatch(given):
            return given
        return b"%b-%x" % (self._prefix, next(self._count))

    def _dressed(self, headers: list[Header], call: Call) -> list[Header]:
        """Headers with those that every answer carries, where it has none of its own."""
        own = {name for name, _ in headers}
        if own & self._names:
            common = [(name, value) for name, value in self._common if name not in own]
        else:
            common = self._common
        more = [(b"connection", b"close")] if call.unread else []
        return [*headers, *common, (b"x-request-id", call.id), *more]

    def _told(self, scope: Scope, call: Call) -> None:
        seconds = time.perf_counter() - call.start
        path = scope["path"]
        if path != "/openapi.json":
            path = getattr(scope.get("route"), "path", NO_ROUTE)
        method = scope["asked"] if path != NO_ROUTE else NO_ROUTE
        self._metrics.answered(method, path, call.status, seconds)
        client = scope.get("client")
        length = call.headers.get(b"content-length", b"")
        log.access(
            {
                "method": method,
                "route": path,
                "status": call.status,
                "ms": round(1000 * seconds, 2),
                "bytes": int(length[:18]) if length.isdigit() else None,
                "pictures": call.pictures,
                "client": client[0] if client else None,
                "id": call.id.decode(),
            }
        )


async def _drain(receive: Receive, call: Call) -> None:
    """Take in what is left of a body that is not wanted, for a moment.

    A client that is still sending it when the connection closes would see no answer.
    """
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while call.unread and size <= LINGER_BYTES:
                size += len((await receive()).get("body", b""))


def _confess(error: Exception, call: Call) -> None:
    """A fault of ours: its kind and place; no message, as it may repeat what was sent."""
    places = traceback.extract_tb(error.__traceback__)
    where = [f"{one.filename.rpartition('/')[2]}:{one.lineno} {one.name}" for one in places]
    fields = {"id": call.id.decode(), "where": where[-12:]}
    log.LOGGER.error(type(error).__name__, extra={"fields": fields})


def fault(call: Call) -> Problem:
    """What is answered where the server itself failed."""
    detail = f"the server failed; its log says how, under {call.id.decode()}"
    return Problem(500, "failed", detail)
