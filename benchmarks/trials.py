"""What the benchmarks of reading share: the model, held-out digits, what is counted, sheets."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from measuring import HERE, RESULTS

if TYPE_CHECKING:
    from rowwise.data import Dataset
    from rowwise.recognise import Recogniser

FORMAT = 1
VALIDATION = 0.1  # the share that the experiments of the models that ship hold out
CELL_PX = 84  # of a contact sheet's pictures
TEXT_PX = 14
QUICK_COUNT = 40
COLUMNS = 16  # of a contact sheet, in pictures


class Told(NamedTuple):
    """What a model told of one picture: its answer, how sure it was, and whether that will do."""

    digit: int | None
    confidence: float
    accepted: bool
    seen: Any  # uint8 [28, 28], what the network saw; None where no ink was found


def parser(description: str, out: str, *, count: int | None = None) -> argparse.ArgumentParser:
    """The options that all of them have."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--model", default="best", help="a name, a file or a run (default best)")
    made.add_argument("--error-rate", type=float, help="the promise to be kept (default 0.001)")
    made.add_argument("--data", type=Path, help="folder of the IDX files (default $ROWWISE_DATA)")
    made.add_argument("--threads", type=int, help="default: one a core")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--sheet", type=Path, metavar="FILE.png", help="write a contact sheet there")
    made.add_argument("--quick", action="store_true", help="a smoke run: few pictures")
    made.add_argument("--out", type=Path, help=f"default results/{out}; --quick: build/bench")
    if count is not None:
        made.add_argument("--count", type=int, default=count, help=f"pictures (default {count:,})")
    made.set_defaults(part=out)
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """Read the command line."""
    options = made.parse_args()
    if options.quick and "count" in options:
        options.count = QUICK_COUNT
    if options.out is None:
        options.out = (HERE.parent / "build" / "bench" if options.quick else RESULTS) / options.part
    return options


def recogniser(options: argparse.Namespace) -> Recogniser:
    """The model that was asked for."""
    from rowwise.recognise import Recogniser

    return Recogniser.load(options.model, error_rate=options.error_rate, threads=options.threads)


def head(model: Recogniser, options: argparse.Namespace) -> dict[str, Any]:
    """The head of a results file: who read, and what with. No paths: files are passed on."""
    import cv2

    card = model.model.card
    return {
        "format": FORMAT,
        "model": card.name,
        "parameters": model.model.network.count,
        "error_rate": _promised(model, options),
        "threshold": model.threshold,
        "temperature": card.temperature,
        "seed": options.seed,
        "python": platform.python_version(),
        "versions": {"rowwise": version("rowwise"), "opencv": cv2.__version__},
    }


def _promised(model: Recogniser, options: argparse.Namespace) -> float | None:
    from rowwise.model import ERROR_RATE

    if model.threshold is None:
        return None
    return ERROR_RATE if options.error_rate is None else float(options.error_rate)


def digits(options: argparse.Namespace, *, test: bool = False) -> tuple[Any, Any]:
    """Pictures and labels that the models did not learn from, uint8 [N, 28, 28] and int64 [N].

    The tenth of the training pictures that `validation = 0.1` holds out, or the test pictures; of
    them `--count`, drawn by the seed, in proportion to the classes' shares of chance.
    """
    from rowwise import data

    found = mnist(options)
    images, labels = found.test_images, found.test_labels
    if not test:
        _, held = data.split(found.train_labels, share=VALIDATION)
        images, labels = found.train_images[held], found.train_labels[held]
    count = min(len(labels), options.count)
    chosen = np.sort(np.random.default_rng(options.seed).permutation(len(labels))[:count])
    return images[chosen], labels[chosen]


def mnist(options: argparse.Namespace) -> Dataset:
    """MNIST of `--data`, or of where it is found."""
    from rowwise import data

    return data.load("mnist", path=options.data, download=False)


# --- reading and counting -------------------------------------------------------------------------


def judge(model: Recogniser, pictures: Iterable[Any], *, threads: int | None = None) -> list[Told]:
    """What a model tells of pictures, each read as any picture is; no ink is no answer."""
    from concurrent.futures import ThreadPoolExecutor

    from rowwise import image, pixels
    from rowwise.recognise import Prepared

    def prepared(picture: Any) -> Prepared:
        shown = pixels.from_array(picture) if isinstance(picture, np.ndarray) else picture
        return Prepared("", 1, image.normalise(shown), None)

    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(prepared, pictures))
    readings = [outcome.reading for outcome in model.read_prepared(seen)]
    return [
        Told(one.digit, one.confidence, one.accepted, one.picture)
        for one in readings
        if one is not None
    ]


def tally(labels: Sequence[int], told: Sequence[Told]) -> dict[str, Any]:
    """Right of all with its interval; accepted of all, and wrong of those that are accepted."""
    right = sum(one.digit == label for label, one in zip(labels, told, strict=True))
    accepted = [(label, one) for label, one in zip(labels, told, strict=True) if one.accepted]
    wrong = sum(one.digit != label for label, one in accepted)
    return {
        "pictures": len(told),
        "no_ink": sum(one.digit is None for one in told),
        "accuracy": share(right, len(told)),
        "coverage": share(len(accepted), len(told)),
        "error": share(wrong, len(accepted)),
    }


def share(some: int, of: int) -> dict[str, Any]:
    """A share with Wilson's interval at 95 %; of none, nothing but that."""
    from rowwise.comparison import proportion_interval

    if not of:
        return {"count": 0, "of": 0}
    found = proportion_interval(some, of)
    return {
        "count": int(some),
        "of": int(of),
        "share": round(found.value, 5),
        "low": round(found.low, 5),
        "high": round(found.high, 5),
    }


# --- contact sheets -------------------------------------------------------------------------------


class Cell(NamedTuple):
    """What a contact sheet shows of a picture: it, what came of it, and a line of words."""

    pictures: tuple[Any, ...]  # uint8 arrays, grey or RGB; None leaves a gap
    words: str


def draw_sheet(cells: Sequence[Cell], path: Path) -> None:
    """Write a contact sheet, beside and renamed; its pictures stand side by side in each cell.

    Raises:
        SystemExit: the sheet would lie in this repository, which is no place for people's pictures.
    """
    from PIL import Image, ImageDraw

    if HERE.parent in path.resolve().parents and "build" not in path.resolve().parts:
        raise SystemExit(f"a sheet lies outside of the repository, or in build/, got {path}")
    wide = max((len(cell.pictures) for cell in cells), default=1)
    across = max(1, COLUMNS // wide)
    rows = -(-len(cells) // across) or 1
    size = (across * (wide * CELL_PX + 6), rows * (CELL_PX + TEXT_PX + 4))
    sheet = Image.new("RGB", size, (40, 44, 60))
    pen = ImageDraw.Draw(sheet)
    for place, cell in enumerate(cells):
        x = place % across * (wide * CELL_PX + 6)
        y = place // across * (CELL_PX + TEXT_PX + 4)
        for i, picture in enumerate(cell.pictures):
            if picture is not None:
                small = Image.fromarray(picture).convert("RGB")
                small.thumbnail((CELL_PX - 2, CELL_PX - 2))
                scale = (CELL_PX - 2) // max(small.size)
                if scale > 1:
                    small = small.resize((small.width * scale, small.height * scale), 0)
                sheet.paste(small, (x + i * CELL_PX, y + TEXT_PX))
        pen.text((x + 2, y), cell.words, fill=(255, 240, 160))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    sheet.save(beside, "PNG")
    os.replace(beside, path)
