"""What a server does with pictures: read them, explain them, keep corrected ones."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rowwise import corrections, engines, explain
from rowwise.errors import RowwiseError
from rowwise.recognise import Reading, Recogniser
from rowwise.server import explaining
from rowwise.server.batching import Batcher, is_quick
from rowwise.server.bodies import UNCOUNTED_BYTES, Intake
from rowwise.server.configuration import Configuration
from rowwise.server.decoding import Decoders, Source
from rowwise.server.metrics import Metrics
from rowwise.server.problems import Problem, unreadable
from rowwise.server.shelf import Shelf

Array = NDArray[Any]
Parsed = TypeVar("Parsed")
TOGETHER = 16  # pictures of one request that are prepared before those of others have a turn
BODIES_SHARE = 0.4  # of what a process may hold; the rest is what its pictures become


class Service:
    """A server's models and threads, one a process."""

    def __init__(self, configuration: Configuration, shelf: Shelf) -> None:
        self.configuration, self.shelf = configuration, shelf
        self.draining = False  # told to stop: what is in flight is finished, no more is wanted
        self.metrics = Metrics()
        self.intake = Intake(
            most=configuration.max_bytes,
            most_held=max(
                configuration.max_bytes,
                int(BODIES_SHARE * configuration.max_held_bytes / configuration.workers),
            ),
            timeout_s=configuration.body_timeout_s,
        )
        self.batcher = Batcher(
            batch=configuration.batch,
            wait_ms=configuration.batch_wait_ms,
            most=max(configuration.queue, configuration.max_pictures),
            watch=self.metrics.read,
        )
        self.lane = explaining.Lane()
        self._training: bool | None = None
        threads = configuration.threads or max(1, engines.usable_cores() // configuration.workers)
        self.decoders = Decoders(
            threads,
            max_pixels=configuration.max_pixels,
            max_request_pixels=max(configuration.max_request_pixels, configuration.max_pixels),
        )
        # One thread: what takes a body apart locks the interpreter, which others wait for.
        self._parser = ThreadPoolExecutor(1, "rowwise-parser")

    async def parsed(self, work: Callable[[], Parsed], size: int) -> Parsed:
        """Take a body of `size` bytes apart: at once where it is small, else beside the loop.

        Raises Problem as `work` does.
        """
        if size <= UNCOUNTED_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._parser, work)

    async def read(self, recogniser: Recogniser, source: Source) -> Reading:
        """The reading of one picture. Raises Problem where it is none that can be decoded."""
        self.batcher.enter(1)
        try:
            if is_quick(source):
                [told] = await self.batcher.read(recogniser, source)
            else:
                async with self.decoders.admitted([source]) as sized:
                    prepared = await self.decoders.prepared(sized)
                [told] = await self.batcher.read(recogniser, prepared)
        finally:
            self.batcher.leave(1)
        if isinstance(told, RowwiseError):
            raise _problem(told)
        return told

    async def read_many(
        self, recogniser: Recogniser, sources: Array | list[Source | Problem]
    ) -> list[Reading | Problem]:
        """Readings of many pictures in their order, or why there is none of one.

        Raises Problem: 503 where there is no room for them, 413 where they have too many pixels.
        """
        self.batcher.enter(len(sources))
        try:
            if isinstance(sources, np.ndarray):
                return [_or_problem(one) for one in await self.batcher.read(recogniser, sources)]
            return await self._read_few_by_few(recogniser, sources)
        finally:
            self.batcher.leave(len(sources))

    async def _read_few_by_few(
        self, recogniser: Recogniser, sources: list[Source | Problem]
    ) -> list[Reading | Problem]:
        found: list[Reading | RowwiseError] = []
        good = [one for one in sources if not isinstance(one, Problem)]
        async with self.decoders.admitted(good) as sized:
            for at in range(0, len(sized), TOGETHER):
                prepared = await self.decoders.prepared(sized[at : at + TOGETHER])
                found += await self.batcher.read(recogniser, prepared)
        told = iter(found)
        return [one if isinstance(one, Problem) else _or_problem(next(told)) for one in sources]

    async def explain(
        self, name: str, source: Source, *, why: bool, flip: bool
    ) -> tuple[Reading, dict[str, Any]]:
        """The reading of one picture, why it is read so, and what would flip it.

        Raises Problem as `read` does.
        """
        explainer, picture = self.shelf.explainer(name), self.decoders.picture

        def work() -> tuple[Reading, dict[str, Any]]:
            start = time.perf_counter()
            made = explaining.explained(explainer, picture(source), why=why, flip=flip)
            self.metrics.read(explainer.model.name, [made[0]], time.perf_counter() - start)
            return made

        try:
            return await self.lane.run(work)
        except RowwiseError as error:
            raise _problem(error) from None

    @property
    def keeps(self) -> bool:
        """Whether corrections are kept here."""
        return bool(self.configuration.keep)

    async def keep(self, label: str, source: Source) -> corrections.Kept:
        """Keep what the network sees of a picture as an example of `label`."""
        classes, folder = self.shelf[""].model.classes, Path(self.configuration.keep)
        if label not in classes:
            raise unreadable(f"a label is one of {', '.join(classes)}, got {label[:40]!r}")
        self.batcher.enter(1)
        try:
            async with self.decoders.admitted([source]) as sized:
                [one] = await self.decoders.prepared(sized)
        finally:
            self.batcher.leave(1)
        if one.error is not None:
            raise _problem(one.error)
        digit = one.normalised.digit if one.normalised else None
        if digit is None:
            raise unreadable("a correction shows ink, found none in this picture; draw it larger")
        try:
            return await self.decoders.run(
                lambda: corrections.keep(folder, digit, label=label, classes=classes)
            )
        except RowwiseError as error:
            if is_full(error):
                raise Problem(507, "no-space", str(error)) from None
            raise Problem(409, "not-kept", str(error)) from None  # a folder of other classes

    async def knows_training(self) -> bool:
        """Whether the default model's training pictures are on this machine; looked for once."""
        if self._training is None:
            reader = self.shelf[""]
            self._training = await self.lane.run(lambda: explain.knows_training(reader))
        return self._training

    def stop(self) -> None:
        """End the threads after what they are at; nobody waits for the rest."""
        self.batcher.stop()
        self.lane.stop()
        self.decoders.stop()
        self._parser.shutdown(wait=False, cancel_futures=True)


def is_full(error: RowwiseError) -> bool:
    """Whether a file could not be written for want of room on the disk."""
    cause = error.__context__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def _or_problem(told: Reading | RowwiseError) -> Reading | Problem:
    return _problem(told) if isinstance(told, RowwiseError) else told


def _problem(error: RowwiseError) -> Problem:
    return unreadable(str(error))
