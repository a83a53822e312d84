"""Where a training starts from: the weights of a model that ships, of a model's file, of a run."""

from __future__ import annotations

from pathlib import Path

from rowwise.config import Experiment
from rowwise.data import Dataset
from rowwise.errors import ModelError, RunError
from rowwise.model import Model, shipped
from rowwise.runs import Run
from rowwise.train import Start

MORE_EPOCHS = 2
GENTLER = 10  # times less than the learning rate that the weights were learnt with


def find(place: str) -> Start:
    """The weights that a model's name, a model's file or a run's folder gives.

    Raises ModelError or RunError where there are none.
    """
    path = Path(place)
    if place not in shipped() and not path.exists():
        raise RunError(
            f"a training starts from a model that ships ({', '.join(shipped()) or 'none'}), a "
            f"model's file or a run's folder, {place} is not there"
        )
    if place not in shipped() and path.is_dir():
        run = Run.open(path)
        own = run.record.data
        return Start(run.weights(), str(path), run.experiment, own.classes, own.shape)
    model = Model.load(place)
    network = model.network
    return Start(model.weights, place, network.experiment, model.classes, network.shape)


def onward(experiment: Experiment) -> Experiment:
    """The recipe by which what this one taught is added to: a few epochs at a gentler rate.

    At the full rate a network first loses some of what it knew; see docs/decisions/0014. What is
    published for the experiment is not to be compared with the outcome, and left out.
    """
    optimizer = experiment.optimizer
    rate = optimizer.learning_rate / GENTLER
    changed = {
        "epochs": min(MORE_EPOCHS, experiment.epochs),
        "optimizer": optimizer.model_copy(update={"learning_rate": rate}),
        "published": None,
    }
    return experiment.model_copy(update=changed)


def sentence(start: Start, chosen: Experiment) -> str:
    """What a training says that goes on from a start by its recipe."""
    rate = chosen.optimizer.learning_rate
    return f"going on from {start.source}: epochs={chosen.epochs}, learning rate {rate:g}"


def check(start: Start, data: Dataset) -> None:
    """Refuse data of another size than a start's, or with its classes in another order.

    Other classes, as many, are allowed: what was learnt for one task may help in another.

    Raises ModelError.
    """
    where, own = f"--init-from {start.source}", start.classes
    if start.shape != data.shape:
        raise ModelError(
            f"{where}: it reads pictures of {start.shape[0]} x {start.shape[1]}, "
            f"got {data.shape[0]} x {data.shape[1]} from {data.name}; name other --data"
        )
    if len(own) != len(data.classes):
        raise ModelError(
            f"{where}: it knows {len(own)} classes ({', '.join(own[:12])}), got "
            f"{len(data.classes)} from {data.name} ({', '.join(data.classes[:12])}); where some "
            f"have no pictures, name all in a classes.txt beside the data"
        )
    if own != data.classes and set(own) == set(data.classes):
        raise ModelError(
            f"{where}: its classes stand in the order {', '.join(own[:12])}, those of {data.name} "
            f"in another; write that order into a classes.txt beside the data"
        )
