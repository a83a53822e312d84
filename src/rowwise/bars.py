"""Live bars on stderr; what is printed meanwhile stands above them, or goes where it was sent."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import Progress, ProgressColumn
from rich.segment import Segment


class Bars(Progress):
    """rich's bars on stderr.

    rich by itself sends to stderr what anyone prints to stdout while bars are shown, so that
    `> file` loses lines. Here a stream is touched only where it is the very terminal that the bars
    are on: its lines are then written above them. A file or a pipe gets every byte as without bars.

    Args:
        columns: as those of rich's `Progress`.
        console: that of stderr on which its owner writes lines too; by default one of its own.
        transient: whether the bars vanish when they are stopped.
    """

    def __init__(
        self, *columns: str | ProgressColumn, console: Console | None = None, transient: bool = True
    ) -> None:
        console = console or Console(stderr=True)
        super().__init__(
            *columns,
            console=console,
            transient=transient,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._above: dict[str, _Above] = {}

    def start(self) -> None:
        """Show the bars."""
        self.console.file = self.console.file  # the stream itself, whatever stands in for it next
        super().start()
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if name not in self._above and _same_terminal(stream, self.console.file):
                self._above[name] = _Above(stream, self.console)
                setattr(sys, name, self._above[name])

    def stop(self) -> None:
        """Take the bars away, or leave them standing, and give the streams back."""
        super().stop()
        while self._above:
            name, above = self._above.popitem()
            if getattr(sys, name) is above:
                setattr(sys, name, above.stream)
            above.end()


class _Above:
    """A stream on the bars' terminal: whole lines are written above the bars, the rest at last."""

    def __init__(self, stream: Any, console: Console) -> None:
        self.stream = stream
        self._console = console
        self._rest = ""
        self._turn = threading.RLock()  # a signal's handler may print amid a print

    def write(self, text: str) -> int:
        with self._turn:
            lines, end, self._rest = (self._rest + text).rpartition("\n")
            if end:
                self._console.print(_Verbatim(lines + end), end="", soft_wrap=True)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Lines are written at once; the rest of one waits for its end."""

    def end(self) -> None:
        """Write what is left, now that no bar is in the way."""
        self.stream.write(self._rest)
        self.stream.flush()
        self._rest = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


class _Verbatim:
    """Text that rich writes as it is: not wrapped, no tab and no escape sequence changed."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: object) -> Iterator[Segment]:
        yield Segment(self._text)


def _same_terminal(stream: Any, other: Any) -> bool:
    try:
        first, second = stream.fileno(), other.fileno()
        return os.isatty(first) and os.path.sameopenfile(first, second)
    except (AttributeError, OSError, ValueError):  # no stream, or one that is no file
        return False
