"""API keys, and who may call without one."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from pathlib import Path

from rowwise import files
from rowwise.errors import ConfigError, RunError
from rowwise.server.configuration import Configuration
from rowwise.server.origins import is_loopback
from rowwise.server.problems import Problem

LEAST_LENGTH, MOST_LENGTH = 16, 512
OPEN = frozenset(("/", "/healthz", "/readyz", "/openapi.json"))


class Keys:
    """The keys that a server accepts, as digests; none lets everyone in."""

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key.encode()) for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Raise Problem (401) where the path needs a key, and the headers hold none of them."""
        if not self._digests or path in OPEN:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            given = b""
        given = given.strip() or headers.get(b"x-api-key", b"")
        if not given:
            raise _refused("this server asks for an API key, got none")
        digest, known = _digest(given), False
        for one in self._digests:  # all of them, whichever it is
            known |= hmac.compare_digest(one, digest)
        if not known:
            raise _refused("this server asks for an API key, got another one")


def load(configuration: Configuration) -> Keys:
    """The keys of the environment, the configuration's file and the key file.

    Raises ConfigError for a key that is too short or no plain text; none is ever repeated.
    """
    keys = list(configuration.api_keys)
    if configuration.key_file:
        try:
            lines = files.read_text(Path(configuration.key_file)).splitlines()
        except RunError as error:
            raise ConfigError(f"the key file cannot be used: {error}") from None
        kept = [line.strip() for line in lines]
        keys += [line for line in kept if line and not line.startswith("#")]
        if not keys:
            raise ConfigError(f"{configuration.key_file}: a key file has a key a line, got none")
    for number, key in enumerate(keys, 1):
        plain = key.isascii() and key.isprintable() and " " not in key
        if not plain or not LEAST_LENGTH <= len(key) <= MOST_LENGTH:
            raise ConfigError(
                f"an API key has {LEAST_LENGTH} to {MOST_LENGTH} letters, digits and signs without "
                f"spaces, key {number} has not; make one with: openssl rand -hex 32"
            )
    return Keys(keys)


def check_reach(configuration: Configuration, addresses: Iterable[str], keys: Keys) -> None:
    """Refuse to serve others than this machine's users without a key, unless that is asked for.

    Raises ConfigError.
    """
    if keys or configuration.insecure_no_auth or all(map(is_loopback, addresses)):
        return
    raise ConfigError(
        f"a server that others can reach ({configuration.host}) asks for an API key, got none; "
        "give ROWWISE_SERVE_API_KEYS or --key-file, or --insecure-no-auth to let everyone in"
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _refused(detail: str) -> Problem:
    told = f"{detail}; send it as Authorization: Bearer KEY"
    return Problem(401, "no-key", told, headers={"WWW-Authenticate": 'Bearer realm="rowwise"'})
