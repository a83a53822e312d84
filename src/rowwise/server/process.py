"""One process that serves: from its sockets to its proper end."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

from rowwise.server import Application
from rowwise.server.configuration import Configuration
from rowwise.server.log import Lines, Log

KEEP_ALIVE_S = 65  # longer than the minute for which proxies keep an idle connection


class Server(uvicorn.Server):
    """uvicorn's, whose signals are ours: it ends as it was asked to, and does not die of them."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield


def serve(
    app: Application,
    configuration: Configuration,
    sockets: list[socket.socket],
    *,
    log: Log,
    ready: Callable[[], None],
    watch: Callable[[Callable[[], None]], None] | None = None,
    force: bool = True,
) -> int:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; the exit code.

    Args:
        app: what answers.
        configuration: of the server.
        sockets: listening.
        log: for what libraries say.
        ready: called when requests are taken.
        watch: is given what ends the server, to be called for other reasons than a signal.
        force: a second signal ends it at once, with the exit code 1.
    """
    server = Server(_settings(app, configuration))
    forced = False

    def end() -> None:
        app.service.draining = True
        server.should_exit = True

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal forced
        if force and server.should_exit:
            forced = server.force_exit = True
        end()

    if watch is not None:
        watch(end)
    with _handled(on_signal), _told_in(log):
        original = server.startup

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await original(sockets)
            ready()

        server.startup = startup  # type: ignore[method-assign]
        server.run(sockets)
    log.flush()
    return int(forced)


def _settings(app: Application, configuration: Configuration) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="auto",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(configuration.proxies),
        forwarded_allow_ips=list(configuration.proxies),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(configuration.grace_s)),
    )


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {one: signal.signal(one, handler) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, old)


@contextmanager
def _told_in(log: Log) -> Iterator[None]:
    """Let what uvicorn and asyncio say be lines of the log."""
    # It tells of every malformed form, as the log does by its status.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    lines, named = Lines(log), [logging.getLogger(name) for name in ("uvicorn", "asyncio")]
    for one in named:
        one.addHandler(lines)
        one.propagate = False
    try:
        yield
    finally:
        for one in named:
            one.removeHandler(lines)
            one.propagate = True


def say(line: str) -> None:
    """One line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)
