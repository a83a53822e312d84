"""What a server does with pictures: read them, explain them, keep corrected ones."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import corrections, engines, explain
from rowwise.errors import PictureError, RowwiseError
from rowwise.recognise import Prepared, Reading, Recogniser, prepare
from rowwise.server import explaining
from rowwise.server.batching import Batcher, is_quick
from rowwise.server.bodies import Intake
from rowwise.server.configuration import Configuration
from rowwise.server.metrics import Metrics
from rowwise.server.problems import Problem, unreadable
from rowwise.server.shelf import Shelf

Array = NDArray[Any]
Source = bytes | Array
TOGETHER = 16  # pictures of one request that are prepared before those of others have a turn
_PDF = b"%PDF-"


class Service:
    """A server's models and threads, one a process."""

    def __init__(self, configuration: Configuration, shelf: Shelf) -> None:
        self.configuration, self.shelf = configuration, shelf
        self.draining = False  # told to stop: what is in flight is finished, no more is wanted
        self.metrics = Metrics()
        self.intake = Intake(
            most=configuration.max_bytes,
            most_held=max(configuration.max_held_bytes, configuration.max_bytes),
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
        threads = configuration.threads or engines.usable_cores()
        self._decoders = ThreadPoolExecutor(threads, "rowwise-decoder")

    async def read(self, recogniser: Recogniser, source: Source) -> Reading:
        """The reading of one picture. Raises Problem where it is none that can be decoded."""
        self.batcher.enter(1)
        try:
            quick = isinstance(source, bytes) and is_quick(source)
            content = source if quick else await self._prepared([source])
            [told] = await self.batcher.read(recogniser, content)
        finally:
            self.batcher.leave(1)
        if isinstance(told, RowwiseError):
            raise _problem(told)
        return told

    async def read_many(
        self, recogniser: Recogniser, sources: Array | list[Source | Problem]
    ) -> list[Reading | Problem]:
        """Readings of many pictures in their order, or why there is none of one.

        Raises Problem (503) where there is no room for them.
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
        found: list[Reading | Problem] = []
        for at in range(0, len(sources), TOGETHER):
            some = sources[at : at + TOGETHER]
            good = [one for one in some if not isinstance(one, Problem)]
            told = iter(await self.batcher.read(recogniser, await self._prepared(good)))
            found += [one if isinstance(one, Problem) else _or_problem(next(told)) for one in some]
        return found

    async def explain(self, name: str, source: Source, *, why: bool, flip: bool) -> dict[str, Any]:
        """Why a picture is read as it is, and what would flip it. Raises Problem as `read` does."""
        explainer, most = self.shelf.explainer(name), self.configuration.max_pixels
        try:
            return await self.lane.run(
                lambda: explaining.explained(explainer, source, why=why, flip=flip, max_pixels=most)
            )
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
            [one] = await self._prepared([source])
        finally:
            self.batcher.leave(1)
        if one.error is not None:
            raise _problem(one.error)
        digit = one.normalised.digit if one.normalised else None
        if digit is None:
            raise unreadable("a correction shows ink, found none in this picture; draw it larger")
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._decoders,
                lambda: corrections.keep(folder, digit, label=label, classes=classes),
            )
        except RowwiseError as error:  # a full disk, a folder of other classes
            raise Problem(409, "not-kept", str(error)) from None

    async def knows_training(self) -> bool:
        """Whether the default model's training pictures are on this machine; looked for once."""
        if self._training is None:
            reader = self.shelf[""]
            self._training = await self.lane.run(lambda: explain.knows_training(reader))
        return self._training

    async def _prepared(self, sources: list[Source]) -> list[Prepared]:
        loop, most = asyncio.get_running_loop(), self.configuration.max_pixels
        tasks = [loop.run_in_executor(self._decoders, _prepare, one, most) for one in sources]
        return [task[0] for task in await asyncio.gather(*tasks)]

    def stop(self) -> None:
        """End the threads once they have done what waits."""
        self.batcher.stop()
        self.lane.stop()
        self._decoders.shutdown(wait=True)


def _prepare(source: Source, max_pixels: int) -> list[Prepared]:
    if isinstance(source, bytes) and _PDF in source[:1024]:
        # No limit of pixels or bytes bounds what drawing a page takes.
        error = PictureError("pictures are read over HTTP, got a PDF; send its page as a picture")
        return [Prepared("", 1, None, error)]
    return prepare(source, max_pixels=max_pixels)


def _or_problem(told: Reading | RowwiseError) -> Reading | Problem:
    return _problem(told) if isinstance(told, RowwiseError) else told


def _problem(error: RowwiseError) -> Problem:
    return unreadable(str(error))
