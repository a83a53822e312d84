"""The log: one line of JSON a request, to stderr; nothing of pictures, queries, keys or bodies."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Any

import orjson

FLUSH_S = 0.05  # lines of many requests are written together
MOST_LINES = 512


class Log:
    """Lines that are gathered for a moment and written to a file descriptor in one go."""

    def __init__(self, descriptor: int = 2) -> None:
        self._descriptor = descriptor
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, record: dict[str, Any]) -> None:
        """Write a record soon, with the time before it."""
        self._lines.append(orjson.dumps({"time": now(), **record}))
        if len(self._lines) >= MOST_LINES:
            self.flush()
        elif self._timer is None:
            try:
                self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
            except RuntimeError:  # no loop: before it runs, or after
                self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        left = b"\n".join([*lines, b""]) if lines else b""
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:  # nobody reads the log: serving goes on
            return


_second = [0, ""]


def now() -> str:
    """The time in UTC, to the millisecond, as ISO 8601."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    if _second[0] != seconds:
        _second[:] = seconds, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{_second[1]}.{rest // 1_000_000:03d}Z"


class Lines(logging.Handler):
    """What libraries say by `logging`, as lines of the log."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Tell a record: its level and message."""
        told = {"level": record.levelname.lower(), "message": record.getMessage()}
        self._log.tell(told)
