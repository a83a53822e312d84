"""Connections, within limits: uvicorn's protocol with what it lacks against hostile clients.

With httptools uvicorn limits neither a request's head, nor the time that it takes to come, nor
requests that are sent ahead of answers, nor how long a client may leave an answer unread; beyond
its limit of connections it answers 503 to everyone (`limit_concurrency`), which whoever opens many
and says nothing brings about.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rowwise.server.problems import Problem

MAX_HEAD_BYTES = 65_536
HEAD_S = 10.0  # for a head to come, from the connection or its first byte on
UNREAD_S = 10.0  # for a client to take in more of an answer
LINGER_S = 1.0  # for a client that is refused to stop sending, and to see why
LINGER_BYTES = 2_000_000
MAX_AHEAD = 16  # requests of a connection that wait for the one that is being answered
MAX_CONNECTIONS = 1000  # of a process: beyond them the one that has been idle longest is closed


class LimitedProtocol(HttpToolsProtocol):
    """uvicorn's protocol on httptools, with limits on heads and connections."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._in_head = True
        self._head_bytes = 0  # of a head that is not whole yet, or of a body's trailers
        self._buffered_bytes = 0  # that the parser was given since it gave back anything
        self._refused = False
        self._idle_since = 0.0
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    # --- connections --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, in the place of an idle one where there are many."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._head_timer = self.loop.call_later(HEAD_S, self._on_slow_head)
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_head_timer()
        self._stop_unread_timer()
        super().connection_lost(exc)

    def _make_room(self) -> None:
        idle = [one for one in self.connections if isinstance(one, LimitedProtocol) and one.is_idle]
        oldest = min(idle, key=lambda one: one._idle_since, default=self)
        oldest.transport.abort()

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def pause_writing(self) -> None:
        """The client does not take in what it is sent: it has a little time to."""
        super().pause_writing()
        if self._unread_timer is None:
            self._unread_timer = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken it in."""
        self._stop_unread_timer()
        super().resume_writing()

    # --- heads --------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take bytes; refuse a head that has too many."""
        self._buffered_bytes += len(data)
        if self._refused:
            if self._buffered_bytes > LINGER_BYTES:
                self.transport.abort()
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes and self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._on_slow_head)
        held = self._head_bytes if self._in_head else self._buffered_bytes
        if held > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the head, or of a body's trailers, which are not looked at."""
        self._buffered_bytes = 0
        if self._in_head:
            super().on_header(name, value)
            return
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """A head is whole: its request is answered, or waits for the one before."""
        self._in_head, self._head_bytes, self._buffered_bytes = False, 0, 0
        self._stop_head_timer()
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._refuse_head()
        if self._refused:
            return
        super().on_headers_complete()
        if len(self.pipeline) > MAX_AHEAD:
            self._refused = True
            self.transport.abort()

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        self._buffered_bytes = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole; what comes next is a head again."""
        self._in_head, self._head_bytes, self._buffered_bytes = True, 0, 0
        if not self._refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answered: idle until the next."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    # --- what is refused ----------------------------------------------------------------------

    def _on_slow_head(self) -> None:
        self._head_timer = None
        if not self._head_bytes:
            self.transport.close()
        elif self.is_idle:  # else it is that of a request sent ahead, and may not be read yet
            self._refuse(408, "slow-head", f"a head is sent within {HEAD_S:g} s, this one was not")

    def _refuse_head(self) -> None:
        detail = f"a head has at most {MAX_HEAD_BYTES:,} bytes, got more"
        self._refuse(431, "large-head", detail)

    def _refuse(self, status: int, name: str, detail: str) -> None:
        """Answer and close; the client has a moment to stop sending, else it sees no answer."""
        if self._refused:
            return
        self._refused = True
        if not self.is_idle or self.transport.is_closing():
            self.transport.abort()
            return
        problem = Problem(status, name, detail)
        answer = problem.answer()
        lines = [f"HTTP/1.1 {status} {problem.plain()['title']}".encode()]
        lines += [b"%b: %b" % header for header in answer.raw_headers]
        lines += [b"connection: close", b"", bytes(answer.body)]
        self.transport.write(b"\r\n".join(lines))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
