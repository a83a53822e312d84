"""Decoding: threads that make of pictures what a network reads, within limits of pixels.

A few kilobytes can be 25 megapixels, seconds of work and hundreds of megabytes. So the pixels are
counted by the files' heads first, and large pictures are decoded one at a time, by a thread that
gives way to others.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from numpy.typing import NDArray

from rowwise import image_files
from rowwise.errors import PictureError
from rowwise.pixels import Picture
from rowwise.recognise import Prepared, prepare
from rowwise.server.problems import busy, too_large

Source = bytes | NDArray[Any]
Result = TypeVar("Result")

LARGE_PIXELS = 1_000_000
# More would let those who run before such a thread wait for what it locks.
MORE_NICE, MOST_NICE = 5, 19
WAITING_REQUESTS = 4  # of the most pixels each, that wait in a process
_PDF = b"%PDF-"


class Sized(NamedTuple):
    """A picture, and how many pixels it has by its head; 0 where it will be refused."""

    source: Source
    pixels: int


class Decoders:
    """The threads of a process that decode.

    Args:
        threads: that decode small pictures.
        max_pixels: of one picture; one with more is refused by whoever decodes it.
        max_request_pixels: of all pictures of a request.
    """

    def __init__(self, threads: int, *, max_pixels: int, max_request_pixels: int) -> None:
        self.max_pixels, self.max_request_pixels = max_pixels, max_request_pixels
        self.waiting = 0  # pixels of requests that are not answered
        self._turn = threading.Lock()  # of large pictures
        self._small = ThreadPoolExecutor(threads, "rowwise-decoder")
        self._large = ThreadPoolExecutor(1, "rowwise-large", initializer=give_way)
        image_files.pixel_count(b"none")  # imports all decoders, which would hold up a request

    @asynccontextmanager
    async def admitted(self, sources: Sequence[Source]) -> AsyncIterator[list[Sized]]:
        """The pictures of a request, with their pixels, while there is room for them.

        Raises Problem: 413 where all have more pixels than a request may, 503 where too many wait.
        """
        sized = await self.run(lambda: [self._sized(one) for one in sources])
        total = sum(one.pixels for one in sized)
        if total > self.max_request_pixels:
            raise too_large(
                f"the pictures of a request have at most {self.max_request_pixels:,} pixels "
                f"together, got {total:,}; send fewer, or smaller ones"
            )
        most = WAITING_REQUESTS * self.max_request_pixels
        if self.waiting + total > most:
            raise busy(
                "pixels", f"pictures of at most {most:,} pixels wait, and there is no room for "
                f"{total:,} more; try again in a second",
            )  # fmt: skip
        self.waiting += total
        try:
            yield sized
        finally:
            self.waiting -= total

    async def prepared(self, sized: Sequence[Sized]) -> list[Prepared]:
        """What a network reads of each picture. Whoever gives up waiting takes it off the queue."""
        loop = asyncio.get_running_loop()
        tasks = [
            loop.run_in_executor(
                self._large if one.pixels > LARGE_PIXELS else self._small, self._prepare, one
            )
            for one in sized
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Do something that takes little time, in a thread of those for small pictures."""
        return await asyncio.get_running_loop().run_in_executor(self._small, work)

    def picture(self, source: Source) -> Picture:
        """A picture decoded in the caller's thread. Raises PictureError."""
        if self._sized(source).pixels <= LARGE_PIXELS:
            return image_files.picture(source, max_pixels=self.max_pixels)
        with self._turn:
            return image_files.picture(source, max_pixels=self.max_pixels)

    def stop(self) -> None:
        """Let the threads end after the picture that they are at."""
        for pool in (self._small, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    def _sized(self, source: Source) -> Sized:
        if not isinstance(source, bytes):
            return Sized(source, source.size)
        count = image_files.pixel_count(source)
        return Sized(source, count if count <= self.max_pixels else 0)

    def _prepare(self, sized: Sized) -> Prepared:
        source = sized.source
        if isinstance(source, bytes) and _PDF in source[:1024]:
            # No limit of pixels or bytes bounds what drawing a page takes.
            error = PictureError("pictures are read over HTTP, got a PDF; send its page as one")
            return Prepared("", 1, None, error)
        if sized.pixels <= LARGE_PIXELS:
            return prepare(source, max_pixels=self.max_pixels)[0]
        with self._turn:
            return prepare(source, max_pixels=self.max_pixels)[0]


def give_way() -> None:
    """Let the threads of other work run before this one, where threads have a priority."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        nice = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(MOST_NICE, nice + MORE_NICE))
