"""The command `serve`: the page and the API over HTTP."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rowwise import options
from rowwise.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from rowwise.server.configuration import Configuration

# What the server imports, by the names of its distributions.
PACKAGES = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "httptools": "httptools",
    "python_multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "orjson": "orjson",
}


def serve(
    host: options.Host = None,
    port: options.Port = None,
    model: options.Models = None,
    default: options.DefaultModel = None,
    runs: options.ServedRuns = None,
    workers: options.Workers = None,
    threads: options.ServeThreads = None,
    queue: options.Queue = None,
    batch: options.Batch = None,
    batch_wait_ms: options.BatchWait = None,
    max_bytes: options.MaxBytes = None,
    max_pixels: options.MaxPixels = None,
    max_request_pixels: options.MaxRequestPixels = None,
    max_pictures: options.MaxPictures = None,
    max_held_bytes: options.MaxHeldBytes = None,
    body_timeout_s: options.BodyTimeout = None,
    grace_s: options.Grace = None,
    keep: options.Keep = None,
    key_file: options.KeyFile = None,
    insecure_no_auth: options.InsecureNoAuth = None,
    origin: options.Origins = None,
    host_name: options.HostNames = None,
    proxy: options.Proxies = None,
    access_log: options.AccessLog = None,
    config: options.ServeFile = None,
) -> None:
    """Serve the page and the API over HTTP.

    On this machine alone, unless --host says otherwise; others then need an API key. Every option
    is also a key of the file that --config names, and an environment variable ROWWISE_SERVE_KEY;
    an option wins over a variable, and that over the file. API keys are given by
    ROWWISE_SERVE_API_KEYS or --key-file, since everyone can see a command's options. Ctrl-C or
    SIGTERM finishes what is in flight, and ends it.
    """
    for name, distribution in PACKAGES.items():
        if find_spec(name) is None:
            raise MissingExtra(distribution, "serve")
    given = locals()
    from rowwise.server.configuration import Configuration, configuration

    lists = {"models": model, "runs": runs, "origins": origin, "hosts": host_name, "proxies": proxy}
    flags = {key: given[key] for key in Configuration.model_fields if key in given}
    flags |= {key: tuple(map(str, value)) if value else None for key, value in lists.items()}
    flags |= {key: str(given[key]) if given[key] else None for key in ("keep", "key_file")}
    sys.exit(_serve(configuration(flags, file=config)))


def _serve(configuration: Configuration) -> int:
    """Listen, and serve in this process or in several; the exit code."""
    from rowwise.server import create_app, keys, process
    from rowwise.server.listening import addresses, greeting, listen
    from rowwise.server.workers import Workers

    if configuration.workers > 1 and os.name != "posix":
        raise ConfigError("several workers share a port on POSIX systems alone; serve with one")
    known = keys.load(configuration)
    with ExitStack() as opened:
        sockets = [opened.enter_context(one) for one in listen(configuration)]
        keys.check_reach(configuration, addresses(sockets), known)
        if configuration.workers > 1:
            return Workers(configuration, sockets).run()
        app = create_app(configuration)
        line = greeting(configuration, sockets[0].getsockname()[1], app.service.shelf.names)
        process.leave(process.serve(app, configuration, sockets, ready=lambda: process.say(line)))
