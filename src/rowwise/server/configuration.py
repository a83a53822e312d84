"""How the server is set up: flags, environment, a file, defaults, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from rowwise.errors import ConfigError
from rowwise.settings import Flag, NonNegative, Positive, Settings, nearest, parse, read, set_key

PREFIX = "ROWWISE_SERVE_"


def _listed(value: Any) -> Any:
    """A list, or its items in one string with commas between them."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return tuple(value) if isinstance(value, list) else value


def _secret(value: Any) -> Any:
    """As `_listed`; what is wrong is not repeated, as it may hold a key."""
    found = _listed(value)
    if not isinstance(found, tuple) or not all(isinstance(one, str) for one in found):
        raise ValueError("should be a list of strings")
    return _filled(found)


def _filled(value: Any) -> Any:
    """What protects is given with content, or not at all: empty it would protect nothing."""
    if not value:
        raise ValueError("is set and empty; give it a value, or do not set it")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Secrets = Annotated[tuple[str, ...], BeforeValidator(_secret), Field(repr=False)]
Filled = Annotated[str, AfterValidator(_filled)]
FilledNames = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_filled)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class Configuration(Settings):
    """All settings of a server."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(strict=True, ge=0, le=65_535)] = 8000
    models: Names = ()  # that ship, files or runs; none: all that ship
    default: str = ""  # the model that reads where none is named; none: best, else the first
    runs: Names = ()  # folders whose finished runs are offered as models too
    workers: Annotated[int, Field(strict=True, ge=1, le=256)] = 1
    threads: Annotated[int, Field(strict=True, ge=0, le=1024)] = 0  # of a worker; 0: its share
    queue: Count = 8192  # pictures that may wait in a worker
    batch: Count = 64  # pictures that are read at once
    batch_wait_ms: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    max_bytes: Annotated[int, Field(strict=True, ge=1, le=200_000_000)] = 20_000_000
    max_pixels: Annotated[int, Field(strict=True, ge=784, le=50_000_000)] = 25_000_000
    max_request_pixels: Annotated[int, Field(strict=True, ge=784)] = 100_000_000  # of all pictures
    max_pictures: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1000
    max_held_bytes: Annotated[int, Field(strict=True, ge=1)] = 500_000_000  # with what they become
    body_timeout_s: Positive = 10.0
    grace_s: NonNegative = 20.0  # for what is in flight when the server is told to stop
    keep: str = ""  # the folder of corrections
    api_keys: Secrets = ()
    key_file: Filled = ""
    insecure_no_auth: Flag = False
    origins: Names = ()  # that browsers may call from
    hosts: FilledNames = ()  # names that the server goes by, beside those of this machine
    proxies: Names = ()  # addresses whose X-Forwarded-For is believed
    access_log: Flag = True

    @property
    def limits(self) -> dict[str, int]:
        """What a request may hold."""
        return {
            "bytes": self.max_bytes,
            "pixels": self.max_pixels,
            "request_pixels": self.max_request_pixels,
            "pictures": self.max_pictures,
        }


def configuration(
    flags: Mapping[str, Any],
    *,
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Configuration:
    """The settings that flags (None is none given), environment and a file make together.

    Raises ConfigError for an unknown key, and for one that breaks a rule.
    """
    given = os.environ if environment is None else environment
    tree: dict[str, Any] = {}
    if file is not None:
        kept = read(Configuration, file)
        tree |= {key: getattr(kept, key) for key in kept.model_fields_set}
    told: dict[str, Any] = {}
    for name in sorted(name for name in given if name.startswith(PREFIX)):
        key = name.removeprefix(PREFIX).lower()
        if key not in Configuration.model_fields:
            near = nearest(key, Configuration.model_fields)
            raise ConfigError(f"{name}: unknown key {key!r}{near}")
        told[key] = _of_text(key, given[name])
        parse(Configuration, {key: told[key]}, where=name)
    chosen = {key: value for key, value in flags.items() if value is not None}
    return parse(Configuration, tree | told | chosen, where="rowwise serve")


def _of_text(key: str, text: str) -> Any:
    """A value of the environment: text and lists as they stand, anything else as TOML has it."""
    annotation = Configuration.model_fields[key].annotation
    if annotation is str or annotation == tuple[str, ...]:
        return text
    tree: dict[str, Any] = {}
    set_key(tree, f"{key}={text}")
    return tree[key]
