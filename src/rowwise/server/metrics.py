"""What is counted, for Prometheus; over several workers it is added up."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from rowwise.recognise import Reading

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where the library keeps the numbers of several processes
MEDIA_TYPE = CONTENT_TYPE_LATEST
PREFIX, LOCK = "rowwise-serve-", ".lock"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
PICTURES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one application; `text` adds those of its other workers."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._requests = Counter(
            "rowwise_requests", "Requests answered.", ("method", "route", "status"), registry=own
        )
        self._seconds = Histogram(
            "rowwise_request_seconds",
            "From a request's head to the end of its answer.",
            ("route",),
            buckets=SECONDS,
            registry=own,
        )
        self._batches = Histogram(
            "rowwise_batch_pictures",
            "Pictures read at once.",
            ("model",),
            buckets=PICTURES,
            registry=own,
        )
        self._engine = Histogram(
            "rowwise_batch_seconds",
            "From a batch's pictures to its readings.",
            ("model",),
            buckets=SECONDS,
            registry=own,
        )
        self._readings = Counter(
            "rowwise_readings",
            "Readings: accepted, unsure, no ink, or failed.",
            ("model", "outcome"),
            registry=own,
        )
        self._rejections = Counter(
            "rowwise_rejections", "Requests refused for want of room.", ("room",), registry=own
        )
        self._queue = Gauge(
            "rowwise_queue_pictures",
            "Pictures that wait to be read, or are being read.",
            multiprocess_mode="livesum",
            registry=own,
        )
        self._of_route: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        key = (method, route, status)
        found = self._of_route.get(key)
        if found is None:
            counter = self._requests.labels(method, route, str(status))
            found = self._of_route[key] = counter, self._seconds.labels(route)
        found[0].inc()
        found[1].observe(seconds)

    def read(self, model: str, told: Iterable[Reading | Exception], seconds: float) -> None:
        """A batch was read."""
        outcomes = [_outcome(one) for one in told]
        self._batches.labels(model).observe(len(outcomes))
        self._engine.labels(model).observe(seconds)
        for outcome in set(outcomes):
            self._readings.labels(model, outcome).inc(outcomes.count(outcome))

    def refused(self, room: str) -> None:
        """A request found a waiting room full."""
        self._rejections.labels(room).inc()

    def queued(self, pictures: int) -> None:
        """So many pictures wait now."""
        self._queue.set(pictures)

    def text(self) -> bytes:
        """All numbers as Prometheus takes them."""
        if FOLDER not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)


def _outcome(told: Reading | Exception) -> str:
    if isinstance(told, Exception):
        return "failed"
    if told.digit is None:
        return "no ink"
    return "accepted" if told.accepted else "unsure"


def forget(pid: int, folder: Path) -> None:
    """Leave out what a worker that has ended said of its present; what it counted stays."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class Folder:
    """A private folder for the numbers of several workers, removed at the end.

    It is locked as long as any of the processes lives that `lock` was handed to, so that what
    killed ones left behind is known, and removed when the next server starts.
    """

    def __init__(self) -> None:
        for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            _remove_unlocked(old)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self.lock = os.open(self.path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        _lock(self.lock)

    def __enter__(self) -> Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.lock)
        shutil.rmtree(self.path, ignore_errors=True)


def remove_if_last(folder: Path, lock: int) -> None:
    """Remove the folder where all other processes that its lock was handed to have ended."""
    os.close(lock)
    _remove_unlocked(folder)


def _remove_unlocked(folder: Path) -> None:
    with suppress(OSError):  # it is another user's, or being removed by another process
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        try:
            _lock(lock)
            shutil.rmtree(folder)
        finally:
            os.close(lock)


def _lock(descriptor: int) -> None:
    """Lock an open file. Raises BlockingIOError where another process has locked it."""
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
