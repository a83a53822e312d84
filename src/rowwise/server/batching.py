"""Batches: requests that arrive together are read as one, by a thread beside the event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from rowwise import image, image_files
from rowwise.errors import RowwiseError
from rowwise.recognise import Prepared, Reading, Recogniser
from rowwise.server.problems import busy

Bytes = NDArray[np.uint8]
Result = Reading | RowwiseError
Content = bytes | Bytes | Sequence[Prepared]
Watch = Callable[[str, Sequence[Result], float], None]  # a model, what it read at once, seconds

QUICK_BYTES = 4096  # of a PNG of MNIST's size: what is decoded by the thread that reads
_PNG_OF_FIELD = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + 2 * image.SIDE_PX.to_bytes(4, "big")


def is_quick(data: bytes | NDArray[Any]) -> TypeGuard[bytes]:
    """Whether it is a small PNG file of 28×28: decoded in microseconds whatever else it holds."""
    if not isinstance(data, bytes):
        return False
    return len(data) <= QUICK_BYTES and data.startswith(_PNG_OF_FIELD)


class _Job:
    """Pictures of one request, for one model, that are read together."""

    __slots__ = ("content", "count", "future", "recogniser")

    def __init__(
        self, recogniser: Recogniser, content: Content, count: int, future: asyncio.Future[Any]
    ) -> None:
        self.recogniser = recogniser
        self.content = content
        self.count = count
        self.future = future


class Batcher:
    """One thread that reads what waits, as many pictures at once as there are, up to `batch`.

    It waits up to `wait_ms` for more only while other requests are about to come, never when alone.
    `most` pictures may wait.
    """

    def __init__(self, *, batch: int, wait_ms: float, most: int, watch: Watch) -> None:
        self.batch, self.wait_s, self.most = batch, wait_ms / 1000, most
        self.waiting = 0  # pictures, and the requests that they belong to:
        self.requests = 0  # changed by the event loop alone
        self._watch = watch
        self._changed = threading.Condition()
        self._single: deque[_Job] = deque()  # jobs of one picture: they go first
        self._larger: deque[_Job] = deque()
        self._ended = False
        self._thread: threading.Thread | None = None

    def enter(self, count: int) -> None:
        """Take room for so many pictures, until `leave`. Raises Problem (503) where it lacks."""
        if self.waiting + count > self.most:
            raise busy(
                "readings", f"at most {self.most:,} pictures wait, and there is no room for "
                f"{count:,} more; try again in a second",
            )  # fmt: skip
        self.waiting += count
        self.requests += 1

    def leave(self, count: int) -> None:
        """Give back the room of pictures that were read, or given up."""
        self.waiting -= count
        self.requests -= 1

    async def read(self, recogniser: Recogniser, content: Content) -> list[Result]:
        """Readings of pictures, or why there is none of one; `enter` comes before.

        `content` is a small file's bytes, uint8 [N, 28, 28], or pictures that were prepared. More
        than `batch` of them are read in parts, so that others are not held up.
        """
        if self._thread is None:
            self._start()
        count = 1 if isinstance(content, bytes) else len(content)
        if isinstance(content, bytes) or count <= self.batch:
            return await self._asked(recogniser, content, count)
        parts = (content[at : at + self.batch] for at in range(0, count, self.batch))
        read = await asyncio.gather(*(self._asked(recogniser, one, len(one)) for one in parts))
        return [reading for part in read for reading in part]

    def _asked(
        self, recogniser: Recogniser, content: Content, count: int
    ) -> asyncio.Future[list[Result]]:
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        job = _Job(recogniser, content, count, future)
        with self._changed:
            (self._single if count == 1 else self._larger).append(job)
            self._changed.notify()
        return future

    def stop(self) -> None:
        """Let the thread end once it has read what waits, and somebody waits for."""
        if self._thread is not None:
            with self._changed:
                self._ended = True
                self._changed.notify()
            self._thread.join()
            self._thread, self._ended = None, False

    # --- the thread ---------------------------------------------------------------------------

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name="rowwise-reader", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while jobs := self._gathered():
            by_model: dict[int, list[_Job]] = {}
            for job in jobs:
                if not job.future.done():  # its request was not given up
                    by_model.setdefault(id(job.recogniser), []).append(job)
            for together in by_model.values():
                self._read(together[0].recogniser, together)

    def _gathered(self) -> list[_Job]:
        """The jobs that are there, once there is one, up to a batch; none at the end.

        First those of one picture, then at least one larger: neither waits long for the other.
        Waits a little for more while more requests are under way than have come.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._single or self._larger or self._ended)
            if self.wait_s:
                self._changed.wait_for(self._is_enough, self.wait_s)
            jobs: list[_Job] = []
            while self._single and len(jobs) < self.batch:
                jobs.append(self._single.popleft())
            count = len(jobs)
            room = True
            while self._larger and room:
                jobs.append(self._larger.popleft())
                count += jobs[-1].count
                room = count < self.batch
            return jobs

    def _is_enough(self) -> bool:
        jobs = len(self._single) + len(self._larger)
        many = len(self._single) + sum(job.count for job in self._larger) >= self.batch
        return many or self.requests <= jobs or self._ended

    def _read(self, recogniser: Recogniser, jobs: Sequence[_Job]) -> None:
        start = time.perf_counter()
        results: list[list[Result]] | Exception
        try:
            results = _readings(recogniser, jobs)
        except Exception as error:  # a fault of ours: told to each that waits, the thread goes on
            results = error
        else:
            told = [one for part in results for one in part]
            self._watch(recogniser.model.name, told, time.perf_counter() - start)
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Job, Any]]] = {}
        for place, job in enumerate(jobs):
            answer = results if isinstance(results, Exception) else results[place]
            by_loop.setdefault(job.future.get_loop(), []).append((job, answer))
        for loop, pairs in by_loop.items():
            if not loop.is_closed():
                loop.call_soon_threadsafe(_deliver, pairs)


def _deliver(pairs: Sequence[tuple[_Job, Any]]) -> None:
    for job, told in pairs:
        if job.future.done():  # the request was given up
            continue
        if isinstance(told, Exception):
            job.future.set_exception(told)
        else:
            job.future.set_result(told)


def _readings(recogniser: Recogniser, jobs: Sequence[_Job]) -> list[list[Result]]:
    """What each job asked for, read together: fields at once, prepared pictures at once."""
    found: list[list[Result]] = [[] for _ in jobs]
    fields: list[tuple[int, Bytes]] = []
    prepared: list[tuple[int, Prepared]] = []
    for place, job in enumerate(jobs):
        content = job.content
        if isinstance(content, bytes):
            try:
                content = image_files.picture(content).pixels[None]
            except RowwiseError as error:
                found[place].append(error)
                continue
        if isinstance(content, np.ndarray):
            fields.append((place, content))
        else:
            prepared += [(place, one) for one in content]
    if fields:
        arrays = np.concatenate([field for _, field in fields])
        readings = iter(recogniser.read_fields(arrays))
        for place, field in fields:
            found[place] += [next(readings) for _ in field]
    for (place, _), outcome in zip(
        prepared, recogniser.read_prepared([one for _, one in prepared]), strict=True
    ):
        told = outcome.reading or outcome.error
        assert told is not None
        found[place].append(told)
    return found
