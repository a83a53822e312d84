"""The sockets that a server listens on, and what it says first."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable

from rowwise.errors import ConfigError
from rowwise.server.configuration import Configuration

BACKLOG = 2048


def listen(configuration: Configuration) -> list[socket.socket]:
    """A socket for each address of the host, all on one port; port 0 takes a free one.

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
            _bind(made, (address[0], at, *address[2:]), only_six=len(found) > 1)
        except OSError as error:
            for one in sockets:
                one.close()
            why = os.strerror(error.errno) if error.errno else str(error)
            raise ConfigError(
                f"cannot listen on {host} port {at}: {why}; choose another --host or --port"
            ) from None
    return sockets


def _bind(made: socket.socket, address: tuple[object, ...], *, only_six: bool) -> None:
    if os.name == "posix":  # elsewhere it would share the port with another server
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if made.family == socket.AF_INET6 and only_six:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind(address)
    made.listen(BACKLOG)
    made.setblocking(False)


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
