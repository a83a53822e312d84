"""Where requests come from: the names that a server goes by, and the sites that may change it.

Starlette's TrustedHostMiddleware is not used: it answers 400 in plain text where 421 is the status
that means it, and takes no address but those that are listed, by which health is asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from rowwise.server.problems import Problem

LOCAL = "localhost"
FORWARDED = (b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via")

Headers = Mapping[bytes, bytes]


class Hosts:
    """The names that a server answers to: against pages that let a name point to this machine.

    An address is no such name, so any is welcome: proxies and Prometheus ask by it how it does.
    """

    def __init__(self, names: Iterable[str] = (), *, local: bool) -> None:
        named = [host_name(name) for name in names]
        self._names = frozenset([*named, LOCAL]) if local or named else None

    def check(self, headers: Headers) -> None:
        """Raise Problem (421) where a request names another host."""
        if self._names is None:
            return
        host = headers.get(b"host")
        if host is None:  # no browser sends none
            return
        name = host_name(host.decode("latin-1"))
        if name not in self._names and not _is_address(name):
            names = ", ".join(sorted(self._names))
            raise Problem(
                421, "other-host", f"this server is {names} or its address, got {name[:80]!r}; "
                "name others with --host-name",
            )  # fmt: skip


def host_name(host: str) -> str:
    """A Host header's name, without the port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def is_loopback(address: str) -> bool:
    """Whether an address, or the name localhost, is this machine's own."""
    if address == "localhost":
        return True
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


def names_this_machine(headers: Headers) -> bool:
    """Whether a request names its host as only a user of this machine can.

    A page of a name that was let point here names that; a proxy passes on what it was asked for.
    """
    name = host_name(headers.get(b"host", b"").decode("latin-1"))
    return is_loopback(name.removeprefix("[").removesuffix("]"))


def check_same_site(headers: Headers) -> None:
    """Refuse what a page of another site asks to be changed. Raises Problem (403)."""
    site = headers.get(b"sec-fetch-site", b"same-origin")
    origin = headers.get(b"origin")
    host = headers.get(b"host", b"").decode("latin-1").lower()
    foreign = origin is not None and urlsplit(origin.decode("latin-1")).netloc.lower() != host
    if site not in (b"same-origin", b"none") or foreign:
        raise Problem(
            403, "other-site", "corrections come from this server's own page or from a program, "
            "got a request of another site",
        )  # fmt: skip


def was_forwarded(headers: Headers) -> bool:
    """Whether a proxy says that it passes on another machine's request."""
    return any(name in headers for name in FORWARDED)
