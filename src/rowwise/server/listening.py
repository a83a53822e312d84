"""The sockets that a server listens on, and what it says first."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterable

from rowwise.errors import ConfigError
from rowwise.server.configuration import Configuration

BACKLOG = 2048


def listen(configuration: Configuration, *, apart: bool = False) -> list[socket.socket]:
    """A socket for each address of the host, all on one port; port 0 takes a free one.

    apart: others that are opened so may listen on the same port, each to connections of its own.
    Raises ConfigError where the host has no address, or the port cannot be had.
    """
    host, port = configuration.host, configuration.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"a host is an address or name of this machine, got {host!r} ({why}); try 127.0.0.1"
        ) from None
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        at = sockets[0].getsockname()[1] if sockets else port
        made = socket.socket(family, kind, protocol)
        sockets.append(made)
        try:
            _bind(made, (address[0], at, *address[2:]), only_six=len(found) > 1, apart=apart)
        except OSError as error:
            for one in sockets:
                one.close()
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(
                f"cannot listen on {host} port {at}: {why}; choose another --host or --port"
            ) from None
    return sockets


def _bind(made: socket.socket, address: tuple[object, ...], *, only_six: bool, apart: bool) -> None:
    if os.name == "posix":  # elsewhere it would share the port with another server
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6 and only_six:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if apart:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(address)
    made.listen(BACKLOG)
    made.setblocking(False)


class Doors:
    """The sockets of each of several workers, all on one port.

    On Linux each has its own, and the system deals out connections: of one that all listened on,
    the quickest to wake would take every connection that comes at once. They are this process', so
    that connections wait where a worker has died until another one takes its place. Elsewhere all
    share the sockets that were given.
    """

    def __init__(
        self, configuration: Configuration, sockets: list[socket.socket], count: int
    ) -> None:
        self._at = configuration.model_copy(update={"port": sockets[0].getsockname()[1]})
        self._apart = sys.platform == "linux"
        self._sets = [sockets] * count
        if self._apart:  # with the given ones, that the port was no other server's is known
            for one in sockets:
                one.close()
            self._sets = [listen(self._at, apart=True) for _ in range(count)]

    @property
    def port(self) -> int:
        """The port."""
        return self._at.port

    def of(self, place: int) -> list[socket.socket]:
        """A worker's sockets, opened anew where they were shut."""
        if not self._sets[place]:
            self._sets[place] = listen(self._at, apart=True)
        return self._sets[place]

    def shut(self, place: int) -> None:
        """Let connections go to other workers, for this one does not come up."""
        if self._apart:
            for one in self._sets[place]:
                one.close()
            self._sets[place] = []

    def close(self) -> None:
        """Take no more connections."""
        for sockets in self._sets:
            for one in sockets:
                one.close()


def addresses(sockets: Iterable[socket.socket]) -> list[str]:
    """The addresses that sockets listen on."""
    return [str(one.getsockname()[0]) for one in sockets]


def greeting(configuration: Configuration, port: int, models: list[str]) -> str:
    """The line that tells where the server is, what it serves, and how it is ended."""
    host = configuration.host
    shown = f"[{host}]" if ":" in host else host
    first, *others = models
    named = ", ".join([f"{first} (where none is named)" if others else first, *others])
    return f"rowwise serves http://{shown}:{port} with {named}; Ctrl-C or SIGTERM ends it"
