"""Downloading of known data sets from their mirrors: patient for a while, verified, atomic."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rowwise import idx
from rowwise.catalogue import KnownFile, KnownSet, verify
from rowwise.errors import DataError, DataMissing

if TYPE_CHECKING:
    from rich.progress import Progress

BUDGET_S = 20.0

_CHUNK_BYTES = 16 * 1024
_ROUNDS = 3
_PAUSE_S = 1.0

Report = Callable[[str], None]


def fetch(
    known: KnownSet,
    folder: Path,
    *,
    mirrors: Sequence[str] | None = None,
    budget_s: float = BUDGET_S,
    report: Report | None = None,
    progress: bool = False,
) -> tuple[str, ...]:
    """Download the files of a data set that `folder` lacks, each verified before it is placed.

    Each file is received in memory, compared with its digest, written beside its place and renamed,
    so no other process ever sees a part of it, and two that download at once do not meet.

    Args:
        known: what to download.
        folder: where to; made if need be.
        mirrors: base addresses to try in turn; those of `known` if None.
        budget_s: seconds without progress that all attempts share; arriving data renews them.
        report: gets a line for each file asked for and each new way to fail.
        progress: draw a progress bar on stderr.

    Returns:
        The hosts that sent something, in the order of first use; empty if nothing was lacking.

    Raises:
        DataMissing: the folder cannot be written, or no mirror gave a file within the budget.
    """
    job = _Download(known, list(mirrors or known.mirrors), _Patience(budget_s), report or _ignore)
    with _bars(progress) as bars:
        for file in known.files:
            try:
                if not _is_placed(folder, file):
                    _place(folder, file, job.file(file, bars))
            except OSError as error:
                raise DataMissing(
                    f"{known.title} cannot be kept in {folder}: {error.strerror}; choose another "
                    "folder with ROWWISE_CACHE"
                ) from error
    return tuple(job.used)


def _ignore(line: str) -> None:
    """Take a line that nobody wants."""


def _is_placed(folder: Path, file: KnownFile) -> bool:
    for path in (folder / file.name, folder / f"{file.name}.gz"):
        if path.is_file():
            try:
                verify(file, idx.read_bytes(path), path)
            except DataError:
                continue  # a damaged copy is as good as none: the download replaces it
            return True
    return False


def _place(folder: Path, file: KnownFile, raw: bytes) -> None:
    """Put a verified file into the folder in one step, in place of any damaged copy."""
    plain, packed = folder / file.name, folder / f"{file.name}.gz"
    target, other = (packed, plain) if idx.is_gzip(raw) else (plain, packed)
    beside = folder / f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        beside.write_bytes(raw)
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
    other.unlink(missing_ok=True)


@dataclass
class _Patience:
    """The seconds without progress that are left to all attempts together."""

    budget_s: float
    last: float = field(default_factory=time.monotonic)

    def renew(self) -> None:
        self.last = time.monotonic()

    def left_s(self) -> float:
        return self.last + self.budget_s - time.monotonic()


class _Failure(Exception):
    """An attempt failed; `lasting` when asking the same mirror again would not help."""

    def __init__(self, reason: str, *, lasting: bool) -> None:
        super().__init__(" ".join(reason.split()))
        self.lasting = lasting


@dataclass
class _Download:
    """One download of a data set: the mirrors still worth asking, and why others are not."""

    known: KnownSet
    live: list[str]
    patience: _Patience
    report: Report
    used: dict[str, None] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.turn_s = self.patience.budget_s / max(1, len(self.live))

    def file(self, file: KnownFile, bars: Progress | None) -> bytes:
        """Return the verified bytes of a file from the first mirror that gives them."""
        for round_ in range(_ROUNDS):
            if round_ and self.live:
                time.sleep(max(0.0, min(_PAUSE_S * round_, self.patience.left_s())))
            for mirror in tuple(self.live):
                if self.patience.left_s() <= 0:
                    break
                try:
                    raw = self._attempt(mirror, file, bars)
                except _Failure as failure:
                    self._note(mirror, file, failure)
                    continue
                self.used[_host(mirror)] = None
                # the mirror that answers is asked first for the next file
                self.live.sort(key=lambda one: one != mirror)
                return raw
        raise DataMissing(self._summary(file))

    def _attempt(self, mirror: str, file: KnownFile, bars: Progress | None) -> bytes:
        url = f"{mirror}{file.name}.gz"
        if _host(mirror) not in self.reasons:
            self.report(f"{self.known.title}: downloading {url}")
        quiet_s = min(self.turn_s, self.patience.left_s())
        raw = _receive(url, file, quiet_s, self.patience, bars)
        try:
            verify(file, raw, url)
        except DataError as error:
            # a gzip file may have been damaged on the way; anything else is another page
            raise _Failure(str(error), lasting=not idx.is_gzip(raw)) from error
        return raw

    def _note(self, mirror: str, file: KnownFile, failure: _Failure) -> None:
        host = _host(mirror)
        if self.reasons.get(host) != str(failure):
            self.report(f"{self.known.title}: {host} failed for {file.name}: {failure}")
        self.reasons[host] = str(failure)
        if failure.lasting:
            self.live.remove(mirror)

    def _summary(self, file: KnownFile) -> str:
        reasons = "; ".join(f"{host}: {reason}" for host, reason in self.reasons.items())
        return (
            f"{self.known.title}'s {file.name} could not be downloaded ({reasons or 'no mirror'})"
        )


def _host(mirror: str) -> str:
    return urlsplit(mirror).netloc


class _Sink:
    """What pooch writes to: memory with a limit, that renews the patience as data arrives."""

    def __init__(self, limit: int, patience: _Patience) -> None:
        self.received = bytearray()
        self.limit = limit
        self.patience = patience
        self.abandoned = False

    def write(self, chunk: bytes) -> int:
        if self.abandoned:
            raise _Failure("abandoned", lasting=False)
        self.received += chunk
        if len(self.received) > self.limit:
            raise _Failure(f"sent more than {self.limit:,} bytes", lasting=True)
        self.patience.renew()
        return len(chunk)

    def flush(self) -> None:
        """Do nothing: memory is always flushed."""


def _receive(
    url: str, file: KnownFile, quiet_s: float, patience: _Patience, bars: Progress | None
) -> bytes:
    """Fetch an address in a thread of its own, so that nothing (name service, a silent or a
    dripping server) can hold us longer than `quiet_s` without a chunk.
    """
    # gzip never grows data by more than this, so a longer answer is something else
    sink = _Sink(file.size_bytes + file.size_bytes // 100 + 4096, patience)
    outcome: list[_Failure | None] = []
    done = threading.Event()

    meter = _Meter(bars, file.name) if bars else None

    def work() -> None:
        outcome.append(_download(url, sink, quiet_s, meter))
        done.set()

    start = time.monotonic()
    threading.Thread(target=work, name=f"download {file.name}", daemon=True).start()
    while not done.wait(0.02):
        if time.monotonic() - max(start, patience.last) > quiet_s:
            sink.abandoned = True
            outcome.append(_Failure(f"no data for {quiet_s:.1f} s", lasting=False))
            break
    failure = outcome[0]
    if failure is None:
        return bytes(sink.received)
    if meter:
        meter.hide()
    raise failure


def _download(url: str, sink: _Sink, quiet_s: float, meter: _Meter | None) -> _Failure | None:
    """Let pooch fetch `url` into `sink`; return why it failed, or None."""
    import pooch
    import requests

    answers: list[requests.Response] = []
    fetch_url = pooch.HTTPDownloader(
        progressbar=meter or False,
        chunk_size=_CHUNK_BYTES,
        timeout=max(quiet_s, 0.1),
        headers={"Accept-Encoding": "identity"},
        hooks={"response": lambda answer, **_: answers.append(answer)},
    )
    try:
        fetch_url(url, sink, None)
    except _Failure as failure:
        return failure
    except (requests.RequestException, OSError, ValueError) as error:
        refusal = error.response if isinstance(error, requests.HTTPError) else None
        if refusal is None:
            return _Failure(_root_cause(error), lasting=False)
        status = refusal.status_code
        lasting = status < 500 and status not in (408, 425, 429)
        return _Failure(f"answered {status} {refusal.reason}", lasting=lasting)
    finally:
        for answer in answers:  # pooch leaves the connection of a failed download open
            answer.close()
    return None


def _root_cause(error: BaseException) -> str:
    """Say in a few words what lies at the bottom of a chain of network errors."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return words.split("\n")[0][:120]


class _Meter:
    """pooch's protocol of a progress bar, drawn by rich."""

    def __init__(self, bars: Progress, name: str) -> None:
        self._bars = bars
        self._task = bars.add_task(name, total=None)

    @property
    def total(self) -> float | None:
        """Bytes that the server announced."""
        return self._bars.tasks[self._task].total

    @total.setter
    def total(self, count: int) -> None:
        self._bars.update(self._task, total=count or None)

    def update(self, count: int) -> None:
        """Move on by so many bytes."""
        self._bars.update(self._task, advance=count)

    def reset(self) -> None:
        """Go back to the start."""
        self._bars.reset(self._task)

    def close(self) -> None:
        """Leave the finished bar standing."""

    def hide(self) -> None:
        """Take the bar of a failed attempt away."""
        self._bars.update(self._task, visible=False)


@contextmanager
def _bars(wanted: bool) -> Iterator[Progress | None]:
    if not wanted:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

    from rowwise.bars import Bars

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bars(*columns, TransferSpeedColumn(), transient=False) as bars:
        yield bars
