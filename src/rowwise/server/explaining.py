"""Explanations as plain data, made in a lane of their own so that they hold up no reading."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from numpy.typing import NDArray

from rowwise import image_files
from rowwise.explain import Explanation
from rowwise.flip import NO_FLIP
from rowwise.pixels import Picture
from rowwise.recognise import Reading, Recogniser
from rowwise.server.answers import plain_reading
from rowwise.server.decoding import give_way
from rowwise.server.problems import busy

Array = NDArray[Any]
Told = TypeVar("Told")

SHOWN_PX = 320  # the longer side of a step's picture
MOST_WAITING = 16


class Lane:
    """One thread beside the one that reads, and a short queue before it."""

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.most, self.waiting = most, 0
        self._pool = ThreadPoolExecutor(1, "rowwise-explainer", initializer=give_way)

    async def run(self, work: Callable[[], Told]) -> Told:
        """Do it when its turn comes, unless the caller has given it up by then.

        Raises Problem (503) where too many wait.
        """
        if self.waiting >= self.most:
            raise busy(
                "explanations", f"at most {self.most} explanations wait, and as many do; try again "
                "in a second",
            )  # fmt: skip
        self.waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self.waiting -= 1

    def stop(self) -> None:
        """Let the thread end after what it is at."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def explained(
    recogniser: Recogniser, picture: Picture, *, why: bool, flip: bool
) -> tuple[Reading, dict[str, Any]]:
    """A reading; why it is read so, and a small change that flips it, as plain data.

    Raises ModelError.
    """
    told: dict[str, Any] = {}
    if why:
        explanation = recogniser.explain(picture)
        reading = explanation.reading
        told["explanation"] = plain(explanation)
    else:
        reading = recogniser.read(picture)
    if flip:
        told |= flipped(recogniser, picture, reading)
    return reading, told


def flipped(recogniser: Recogniser, picture: Picture, reading: Reading) -> dict[str, Any]:
    """A small change that makes it another digit, as plain data, or why there is none."""
    found = recogniser.flip(picture)
    if found is None:
        return {"flip": None, "why_no_flip": reading.reason if reading.digit is None else NO_FLIP}
    changed = {
        "picture": png(found.picture),
        "added": found.added,
        "removed": found.removed,
        "reading": plain_reading(found.reading),
    }
    return {"flip": changed, "why_no_flip": ""}


def plain(explanation: Explanation) -> dict[str, Any]:
    """An explanation as plain data; pictures are PNG in base64."""
    seen = explanation.reading.picture
    rows, columns = explanation.ink.shape
    return {
        "seen": png(seen) if seen is not None else "",
        "rows": rows,
        "columns": columns,
        "steps": [
            {"name": step.name, "sentence": step.sentence, "picture": png(shown(step.picture))}
            for step in explanation.steps
        ],
        "beliefs": explanation.beliefs,
        "belief_model": explanation.belief_model,
        "decided_at": explanation.decided_at,
        "remark": explanation.remark,
        "ink": explanation.ink,
        "neighbours": [
            {"label": n.label, "distance": n.distance, "place": n.place, "picture": png(n.picture)}
            for n in explanation.neighbours
        ],
        "why_no_neighbours": explanation.why_no_neighbours,
    }


def shown(picture: Array) -> Array:
    """A picture reduced so that its longer side has at most SHOWN_PX pixels."""
    import cv2

    rows, columns = picture.shape[:2]
    share = SHOWN_PX / max(rows, columns)
    if share >= 1:
        return picture
    size = (max(1, round(columns * share)), max(1, round(rows * share)))
    small: Array = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return small


def png(picture: Array) -> str:
    """uint8 [rows, columns] or [rows, columns, 3] RGB as PNG in base64."""
    return base64.b64encode(image_files.png(picture)).decode("ascii")
