"""A model: a trained network made ready to read people's digits, as one file or from a run.

The file is safetensors: the weights, and as metadata the network and the model's `Card`. Those that
ship lie in the package's folder `models`, and are of the study `recognisers`.
"""

import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field

from rowwise import tensors
from rowwise.config import Experiment
from rowwise.errors import ModelError, RowwiseError
from rowwise.files import parse_json, parsing
from rowwise.network import Network, Weights
from rowwise.settings import Positive, Settings, Share, nearest, parse

if TYPE_CHECKING:
    from rowwise.runs import Run

FORMAT = "rowwise model 1"
SUFFIX = ".safetensors"
DESCRIPTION = ("experiment", "shape", "classes", "card")  # the keys of the metadata, JSON each
DEFAULT = "best"
ERROR_RATE = 0.001  # among accepted readings, unless another one is asked for
ROW_BY_ROW = "rows"  # the model that says what it believes after each row


class Promise(Settings):
    """From which confidence on readings are accepted so that an error rate is kept.

    See `calibration.promise`, which chose it on `pictures` that the model had not learnt from.
    """

    error_rate: Share
    level: Share
    confidence: Share
    pictures: Annotated[int, Field(ge=0)]
    accepted: Annotated[int, Field(ge=0)]
    wrong: Annotated[int, Field(ge=0)]


class Card(Settings):
    """What is known of a model beside its weights."""

    format: Literal[1] = 1
    name: str
    temperature: Positive = 1.0
    promises: tuple[Promise, ...] = ()
    data: str = ""  # the name of the data set that it learnt from
    data_digest: str = ""
    seed: int = 0
    version: str = ""  # of the rowwise that trained it
    figures: tuple[tuple[str, float], ...] = ()  # what was measured, by name, as fractions
    reader: Annotated[int, Field(ge=1)] = 1  # `image.READER` when the thresholds were set

    @property
    def kept(self) -> tuple[Promise, ...]:
        """The promises that hold: those made for the way in which pictures are read now."""
        from rowwise import image  # OpenCV, which a network alone does not need

        return self.promises if self.reader == image.READER else ()

    def promise(self, error_rate: float) -> Promise | None:
        """The promise of this error rate, or None where it was not made or holds no more."""
        return next((one for one in self.kept if one.error_rate == error_rate), None)

    def why_not(self, error_rate: float = ERROR_RATE) -> str:
        """Why there is no promise of this error rate; empty where there is one."""
        if self.promise(error_rate) is not None:
            return ""
        if self.kept:
            made = ", ".join(f"{100 * one.error_rate:g} %" for one in self.kept)
            asked = f"{100 * error_rate:g} %"
            return f"the model promises {made}, not {asked}; choose one with --error-rate"
        if self.promises:
            from rowwise import image

            age = "an older" if self.reader < image.READER else "a newer"
            return (
                f"the model promises no error rate: its thresholds were set for {age} way of "
                "reading pictures; calibrate it anew with rowwise pack"
            )
        return "the model promises no error rate; calibrate it with rowwise pack"


class Model:
    """A network with its weights and its card."""

    def __init__(
        self, network: Network, weights: Weights, classes: tuple[str, ...], card: Card
    ) -> None:
        self.network = network
        self.weights = weights
        self.classes = classes
        self.card = card

    @property
    def name(self) -> str:
        """The card's name."""
        return self.card.name

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(weight.nbytes for weight in self.weights.values())

    @property
    def row_by_row(self) -> bool:
        """Whether it tells what it believes after every row."""
        return self.network.steps == self.network.shape[0]

    def plain(self) -> dict[str, Any]:
        """What is known of it, as plain data: the card, size and classes."""
        card = self.card.model_dump(mode="json")
        card["figures"] = dict(self.card.figures)
        card["promises"] = [one.model_dump(mode="json") for one in self.card.kept]
        known = {
            "parameters": self.network.count,
            "bytes": self.weight_bytes,
            "classes": list(self.classes),
        }
        return {"name": self.name} | known | {"row_by_row": self.row_by_row} | card

    @classmethod
    def load(cls, place: str | Path = DEFAULT) -> Self:
        """A model that ships, by name; or that of a file or a run's folder.

        A run's is not calibrated, and promises nothing.

        Raises ModelError where there is none, or it is damaged.
        """
        if str(place) in (names := shipped()):
            return cls._read(folder() / f"{place}{SUFFIX}")
        path = Path(place)
        try:
            if path.is_file():
                return cls._read(path)
            if path.is_dir():
                from rowwise.runs import RECORD, Run  # more to import than reading a file needs

                if (path / RECORD).is_file():
                    return cls._of_run(Run.open(path))
        except RowwiseError as error:
            raise ModelError(str(error)) from None
        known = ", ".join(names) or "none"
        raise ModelError(
            f"a model is one that ships ({known}), a {SUFFIX} file or a run's folder, "
            f"got {str(place)!r}{nearest(str(place), names)}"
        )

    @classmethod
    def _of_run(cls, run: "Run") -> Self:
        data = run.record.data
        card = Card(name=run.name, data=data.name, data_digest=data.digest, seed=run.seed)
        return cls(run.network, run.weights(), data.classes, card)

    @classmethod
    def _read(cls, path: Path) -> Self:
        weights, told = tensors.read(path, FORMAT)
        with parsing(ModelError, f"{path} is damaged: it lacks the network's description"):
            trees = {
                key: parse_json(told[key], ModelError, f"{path} is damaged: its {key}")
                for key in DESCRIPTION
            }
            (rows, columns), classes = map(int, trees["shape"]), tuple(map(str, trees["classes"]))
        try:
            experiment = parse(Experiment, trees["experiment"], where=str(path))
            card = parse(Card, trees["card"], where=str(path))
            network = Network(experiment, (rows, columns), len(classes))
            return cls(network, network.check(weights, where=str(path)), classes, card)
        except RowwiseError as error:
            raise ModelError(str(error)) from None

    def save(self, path: Path) -> None:
        """Write the model as one file. Raises RunError where that cannot be done."""
        told = {
            "experiment": self.network.experiment.model_dump_json(),
            "shape": json.dumps(self.network.shape),
            "classes": json.dumps(self.classes),
            "card": self.card.model_dump_json(),
        }
        tensors.write(path, FORMAT, self.weights, told)


def folder() -> Path:
    """Where the models that ship lie."""
    return Path(str(resources.files("rowwise") / "models"))


def shipped() -> tuple[str, ...]:
    """The names of the models that ship."""
    return tuple(sorted(path.stem for path in folder().glob(f"*{SUFFIX}")))
