"""Servers for tests: applications called in this process, and real processes."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import made_models
import numpy as np
from PIL import Image

from rowwise.recognise import Recogniser
from rowwise.server import Application, create_app
from rowwise.server.configuration import Configuration

PNG = {"content-type": "image/png"}
RAW = {"content-type": "application/octet-stream"}
KEY = "a-key-of-a-test-0123456789"
HERE = ("127.0.0.1", 4000)
AWAY = ("203.0.113.7", 4000)


def png(array: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, kind, **options)
    return data.getvalue()


def recognisers(**card: Any) -> dict[str, Recogniser]:
    """Two small models, `best` and `rows`, on one thread."""
    models = (made_models.best(**card), made_models.rows(**card))
    return {model.name: Recogniser(model, threads=1) for model in models}


def application(*, models: Any = None, **settings: Any) -> Application:
    return create_app(Configuration(**settings), recognisers=models or recognisers())


class Client:
    """Calls an application, as if from `address`, without a socket."""

    def __init__(
        self, app: Application, address: tuple[str, int] = HERE, base: str = "http://localhost"
    ) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app, raise_app_exceptions=True, client=address)
        self._client = httpx.AsyncClient(transport=transport, base_url=base)

    def send(self, method: str, url: str, **options: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._client.request(method, url, **options))

    def get(self, url: str, **options: Any) -> httpx.Response:
        return self.send("GET", url, **options)

    def post(self, url: str, content: Any = None, **options: Any) -> httpx.Response:
        if content is not None:
            options["content"] = content
            options.setdefault("headers", PNG)
        return self.send("POST", url, **options)

    def together(self, *calls: tuple[str, bytes, dict[str, str]]) -> list[httpx.Response]:
        """Post several at once."""

        async def all_of_them() -> list[httpx.Response]:
            sent = (self._client.post(u, content=c, headers=h) for u, c, h in calls)
            return await asyncio.gather(*sent)

        return self._loop.run_until_complete(all_of_them())

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()
        self.app.service.stop()


def problem(response: httpx.Response, status: int, *parts: str) -> dict[str, Any]:
    """The problem that a response tells, with the status, and with the parts in its detail."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert set(told) == {"type", "title", "status", "detail"}
    assert told["status"] == status
    assert "\n" not in told["detail"]
    for part in parts:
        assert part in told["detail"], told["detail"]
    return told


# --- processes ----------------------------------------------------------------------------------


class Process:
    """`rowwise serve` as a process; what it says on stderr is gathered."""

    def __init__(self, *arguments: Any, cwd: Path, **environment: str) -> None:
        command = [sys.executable, "-m", "rowwise", "serve", *map(str, arguments)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ROWWISE_SERVE")}
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, cwd=cwd, env=kept | environment, start_new_session=True
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.decode().rstrip("\n"))

    def url(self) -> str:
        """Where it serves, once it does."""
        until(lambda: self.lines or self.process.poll() is not None, 60)
        until(lambda: self.lines, 5)
        found = re.search(r"http://\S+", self.lines[0])
        assert found, self.lines
        return found[0]

    def wait(self) -> int:
        """Its exit code."""
        code = self.process.wait(timeout=60)
        self._reader.join(timeout=10)
        return code

    def records(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return [json.loads(line) for line in self.lines if line.startswith("{")]


@contextmanager
def served(folder: Path, *arguments: Any, **environment: str) -> Iterator[Process]:
    """A server of the small model `rows` on a free port."""
    model = folder / "rows.safetensors"
    if not model.exists():
        made_models.rows().save(model)
    process = Process("--model", model, "--port", 0, *arguments, cwd=folder, **environment)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.process.wait()
        process._reader.join(timeout=10)
        assert process.process.stderr is not None
        process.process.stderr.close()


def children(pid: int) -> list[int]:
    """The processes that one has started, of the system's table."""
    return [one for one, (state, parent) in processes().items() if parent == pid and state != "Z"]


def processes() -> dict[int, tuple[str, int]]:
    """State and parent of every process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it has just ended
            continue
        found[int(path.parent.name)] = state, int(parent)
    return found


def until(true: Any, seconds: float = 20.0) -> Any:
    """Wait until something is true, and give it back."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := true():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not so within {seconds} s")
