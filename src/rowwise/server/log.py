"""The log: a line of JSON a record, to stderr; nothing of pictures, queries, keys or bodies.

It is the standard library's `logging` with a formatter. The handler is our own: the library's
write to the stream in the thread that logs, and a pipe that nobody reads would stop the server.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson

LOGGER = logging.getLogger("rowwise.server")
GATHER_S = 0.2  # lines of many requests are written together
MOST_LINES = 10_000  # that wait to be written: some megabytes
BLOCK_BYTES = 4096  # of what a pipe takes whole, so that lines of several workers never mix
CLOSE_S = 1.0  # for what waits, at the end


class JsonFormatter(logging.Formatter):
    """A record as one object: its time, its level and message, and its `fields`.

    An access record is its fields alone. Tracebacks are left out: they may repeat what was sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line, without its end."""
        tree: dict[str, Any] = {"time": _iso(record.created)}
        if record.levelno > logging.INFO:
            tree |= {"level": record.levelname.lower(), "message": record.getMessage()}
        return orjson.dumps(tree | getattr(record, "fields", {})).decode()


class QueuedHandler(logging.Handler):
    """Writes to a file descriptor in a thread of its own, and never makes who logs wait.

    Lines beyond `MOST_LINES` are dropped, and a record says how many, once writing goes on.
    """

    def __init__(self, descriptor: int = 2) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self._descriptor = descriptor
        self._lines: deque[bytes] = deque()
        self._dropped = 0
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="rowwise-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record to the thread."""
        if len(self._lines) >= MOST_LINES:
            self._dropped += 1
            return
        self._lines.append(self.format(record).encode() + b"\n")
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write what waits, as far as it is read within `CLOSE_S`."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_S)
        super().close()

    # --- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(GATHER_S)
            self._wake.clear()
            self._write_all()

    def _write_all(self) -> None:
        while self._lines:
            block = self._lines.popleft()
            while self._lines and len(block) + len(self._lines[0]) <= BLOCK_BYTES:
                block += self._lines.popleft()
            self._write(block)
            if self._dropped:
                count, self._dropped = self._dropped, 0
                message = "%d lines of the log were dropped, as it was not read quickly enough"
                record = logging.LogRecord(
                    LOGGER.name, logging.WARNING, __file__, 0, message, (count,), None
                )
                self._write(self.format(record).encode() + b"\n")

    def _write(self, block: bytes) -> None:
        while block:
            try:
                block = block[os.write(self._descriptor, block) :]
            except BlockingIOError:  # others have made the pipe one that does not wait
                time.sleep(GATHER_S)
            except OSError:  # its reader has gone: serving goes on
                return


@contextmanager
def logging_to(descriptor: int = 2, *, access: bool = True) -> Iterator[None]:
    """Let our records, and the warnings of uvicorn and asyncio, be lines; of `access` each request.

    While it lasts, loggers above them are told nothing.
    """
    handler = QueuedHandler(descriptor)
    levels = {
        LOGGER: logging.INFO if access else logging.WARNING,
        logging.getLogger("uvicorn"): logging.WARNING,
        logging.getLogger("asyncio"): logging.WARNING,
        # It tells of every malformed form, as the log does by its status.
        logging.getLogger("python_multipart"): logging.CRITICAL,
    }
    before = [(logger, logger.level, logger.propagate) for logger in levels]
    for logger, level in levels.items():
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()


def access(fields: Mapping[str, Any]) -> None:
    """A line of a request, where such lines are wanted."""
    if LOGGER.isEnabledFor(logging.INFO):
        # As `LOGGER.info`, which looks for its caller.
        record = LOGGER.makeRecord(
            LOGGER.name, logging.INFO, "", 0, "request", (), None, extra={"fields": fields}
        )
        LOGGER.handle(record)


_second: list[Any] = [0, ""]


def _iso(seconds: float) -> str:
    """The time in UTC, to the millisecond, as ISO 8601."""
    whole, rest = divmod(int(1000 * seconds), 1000)
    if _second[0] != whole:
        _second[:] = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{_second[1]}.{rest:03d}Z"
