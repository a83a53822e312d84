"""The gate before all routes: who may pass, what every answer carries, what is counted and told."""

from __future__ import annotations

import asyncio
import os
import re
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rowwise.server.keys import Keys
from rowwise.server.log import Log
from rowwise.server.metrics import Metrics
from rowwise.server.origins import Hosts
from rowwise.server.problems import Full, Problem

Quick = Callable[[Request], Awaitable[Response]]
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
NO_ROUTE = "none"  # of a path that leads nowhere: it is not told, as it may hold anything
_SANE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Call:
    """One request on its way: what is told of it once it is answered."""

    __slots__ = ("headers", "id", "pictures", "sent", "start", "status")

    def __init__(self, headers: Mapping[bytes, bytes], id: bytes) -> None:
        self.headers, self.id = headers, id
        self.start = time.perf_counter()
        self.status = 0
        self.sent = False
        self.pictures = 0


class Gate:
    """An ASGI application around another one, and `quick` ways past it for what must be quick.

    quick: functions from a request to its response, by method and path. shared: what every request
    finds in its scope.
    """

    def __init__(
        self,
        app: ASGIApp,
        quick: Mapping[tuple[str, str], Quick],
        *,
        shared: Mapping[str, Any],
        keys: Keys,
        hosts: Hosts,
        metrics: Metrics,
        log: Log | None,
        around: Callable[[ASGIApp], ASGIApp] | None = None,
    ) -> None:
        self._app, self._quick, self._shared = app, quick, shared
        self._keys, self._hosts, self._metrics, self._log = keys, hosts, metrics, log
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
        scope["call"] = call
        scope.update(self._shared)

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status, call.sent = message["status"], True
                message["headers"] = self._dressed(message["headers"], call)
            await send(message)

        try:
            try:
                self._hosts.check(headers)
                await self._inside(scope, receive, tell)
            except Problem as problem:
                await self._refuse(problem, scope, receive, tell)
        finally:
            self._told(scope, call)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What has passed the gate, and whatever goes wrong with it."""
        call: Call = scope["call"]
        try:
            self._keys.check(scope["path"], call.headers)
            quick = self._quick.get((scope["method"], scope["path"]))
            if quick is None:
                await self._app(scope, receive, send)
            else:
                answer = await quick(Request(scope, receive))
                await answer(scope, receive, send)
        except Problem as problem:
            await self._refuse(problem, scope, receive, send)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._confess(error, call)
            if not call.sent:
                await self._refuse(fault(call), scope, receive, send)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(problem.__cause__, Full):
            self._metrics.refused(str(problem.__cause__))
        answer = problem.answer()
        if problem.status not in (408, 413) or not scope.get("unread"):
            await answer(scope, receive, send)
            return
        # The connection ends, as the rest of the body is not wanted. But a client that still sends
        # it then sees no answer: give it the answer first, and a little time to stop.
        head = [*answer.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": answer.status_code, "headers": head})
        await send({"type": "http.response.body", "body": answer.body, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})

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
        return [*headers, *common, (b"x-request-id", call.id)]

    def _told(self, scope: Scope, call: Call) -> None:
        seconds = time.perf_counter() - call.start
        path = scope["path"]
        method = scope["method"]
        if (method, path) not in self._quick and path != "/openapi.json":
            path = getattr(scope.get("route"), "path", NO_ROUTE)
            method = method if path != NO_ROUTE else NO_ROUTE
        self._metrics.answered(method, path, call.status, seconds)
        if self._log is not None:
            client = scope.get("client")
            length = call.headers.get(b"content-length", b"")
            self._log.tell(
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

    def _confess(self, error: Exception, call: Call) -> None:
        """A fault of ours: its kind and place; no message, as it may repeat what was sent."""
        places = traceback.extract_tb(error.__traceback__)
        where = [f"{one.filename.rpartition('/')[2]}:{one.lineno} {one.name}" for one in places]
        told: dict[str, Any] = {"level": "error", "message": type(error).__name__}
        (self._log or Log()).tell(told | {"id": call.id.decode(), "where": where[-12:]})


def fault(call: Call) -> Problem:
    """What is answered where the server itself failed."""
    detail = f"the server failed; its log says how, under {call.id.decode()}"
    return Problem(500, "failed", detail)
