"""One process that serves: from its sockets to its proper end."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import uvicorn

from rowwise.server import Application
from rowwise.server.configuration import Configuration
from rowwise.server.log import logging_to
from rowwise.server.protocol import MAX_CONNECTIONS, LimitedProtocol

BEAT_S = 0.9  # uvicorn looks once a second
SWITCH_S = 0.001  # that a thread holds the interpreter while the event loop wants it
FILES = 4 * MAX_CONNECTIONS
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
    ready: Callable[[], None],
    beat: Callable[[], None] | None = None,
    watch: Callable[[Callable[[], None]], None] | None = None,
    force: bool = True,
) -> int:
    """Serve until SIGTERM or SIGINT, then finish what is in flight; the exit code.

    Args:
        app: what answers.
        configuration: of the server.
        sockets: listening.
        ready: called when requests are taken.
        beat: called every `BEAT_S` as long as requests are taken.
        watch: is given what ends the server, to be called for other reasons than a signal.
        force: a second signal ends it at once, with the exit code 1.
    """
    _take_files()
    sys.setswitchinterval(SWITCH_S)
    gc.collect()
    gc.freeze()  # the models stay: no need to look through them while requests wait
    server = Server(_settings(app, configuration, beat))
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
    with _handled(on_signal), logging_to(access=configuration.access_log):
        original = server.startup

        async def startup(sockets: list[socket.socket] | None = None) -> None:
            await original(sockets)
            ready()

        server.startup = startup  # type: ignore[method-assign]
        server.run(sockets)
    return int(forced)


def _settings(
    app: Application, configuration: Configuration, beat: Callable[[], None] | None
) -> uvicorn.Config:
    async def notify() -> None:
        if beat is not None:
            beat()

    return uvicorn.Config(
        app,
        loop="auto",
        http=LimitedProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(configuration.proxies),
        forwarded_allow_ips=list(configuration.proxies),
        timeout_keep_alive=KEEP_ALIVE_S,
        # Of the grace, ending itself takes some: threads finish the picture that they are at.
        timeout_graceful_shutdown=max(0.1, 0.8 * configuration.grace_s),  # type: ignore[arg-type]
        callback_notify=notify,
        timeout_notify=BEAT_S,  # type: ignore[arg-type]
    )


def _take_files() -> None:
    """Take as many files as the system lets us, for `MAX_CONNECTIONS` and what else is open."""
    try:
        import resource
    except ImportError:  # no POSIX
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {one: signal.signal(one, handler) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, old in before.items():
            signal.signal(one, old)


def leave(code: int) -> NoReturn:
    """End this process at once: not after threads that are at a picture nobody waits for."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def say(line: str) -> None:
    """One line for people, on stderr."""
    print(line, file=sys.stderr, flush=True)
