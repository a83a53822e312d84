"""A process on a pseudo-terminal, and what would stand on its screen."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import threading
from collections.abc import Sequence
from typing import Self


class Terminal:
    """A process whose stderr is a terminal of its own, and its stdout too unless it is given."""

    def __init__(
        self, command: Sequence[object], *, stdout: int | None = None, **options: object
    ) -> None:
        self._reading, writing = pty.openpty()
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=writing if stdout is None else stdout,
            stderr=writing,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"},
            **options,
        )
        os.close(writing)
        self.told = ""
        self.code: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._reading)

    def end(self) -> tuple[bytes, list[str]]:
        """Wait for the end; what came through a piped stdout, and the lines on the screen."""
        piped: list[bytes] = []
        pipe = self.process.stdout
        reader = threading.Thread(target=lambda: piped.append(pipe.read() if pipe else b""))
        reader.start()
        told = b""
        while part := self._read():
            told += part
        reader.join()
        self.code = self.process.wait(timeout=60)
        if pipe:
            pipe.close()
        self.told = told.decode("utf-8", "replace")
        return piped[0], screen(self.told)

    def _read(self) -> bytes:
        try:
            return os.read(self._reading, 65536)
        except OSError:  # the other end is closed
            return b""


def screen(told: str) -> list[str]:
    """The lines on a screen of endless size: what was erased or written over is not among them."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", told):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.endswith("A") and part.startswith("\x1b"):
            row -= int(part[2:-1] or 1)
        elif part.endswith("K") and part.startswith("\x1b"):
            lines[row] = ""
        elif part != "\r" and not part.startswith("\x1b"):
            lines[row] += part
    return lines
