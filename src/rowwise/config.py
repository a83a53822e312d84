"""Experiments and studies as data: frozen models, read from TOML or JSON, unknown keys refused."""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from rowwise.cells import Activation, CellKind
from rowwise.errors import ConfigError
from rowwise.recipe import SGD as SGD
from rowwise.recipe import Adam as Adam
from rowwise.recipe import AdamW as AdamW
from rowwise.recipe import Augmentation as Augmentation
from rowwise.recipe import Averaging as Averaging
from rowwise.recipe import Clipping as Clipping
from rowwise.recipe import Constant as Constant
from rowwise.recipe import Cosine as Cosine
from rowwise.recipe import EarlyStopping as EarlyStopping
from rowwise.recipe import Exponential as Exponential
from rowwise.recipe import OneCycle as OneCycle
from rowwise.recipe import Optimizer as Optimizer
from rowwise.recipe import RMSprop as RMSprop
from rowwise.recipe import Schedule as Schedule
from rowwise.settings import (
    Decay,
    Flag,
    Later,
    Positive,
    Seed,
    Settings,
    Share,
    as_tree,
    content_digest,
    default,
    named,
    nearest,
    parse,
    read,
    set_key,
)

Units = Annotated[int, Field(strict=True, ge=1, le=16384)]
Neighbours = Annotated[int, Field(strict=True, ge=0, le=64)]


# --- how a picture becomes a sequence ---------------------------------------------------------


class Rows(Settings):
    """One row a time step: T = rows, I = columns.

    With `before` and `after`, each step also sees so many rows above and below its own, from the
    uppermost on; beyond the picture's edge they are zero. I = (before + 1 + after) x columns.
    """

    kind: Literal["rows"] = "rows"
    before: Annotated[Neighbours, Later()] = 0
    after: Annotated[Neighbours, Later()] = 0


class Columns(Settings):
    """One column a time step: T = columns, I = rows; `before` and `after` as those of `rows`."""

    kind: Literal["columns"] = "columns"
    before: Annotated[Neighbours, Later()] = 0
    after: Annotated[Neighbours, Later()] = 0


class Pixels(Settings):
    """One pixel a time step, row by row: T = rows x columns, I = 1."""

    kind: Literal["pixels"] = "pixels"


class Permuted(Settings):
    """One pixel a time step in a fixed random order (permuted sequential MNIST)."""

    kind: Literal["permuted"] = "permuted"
    seed: Seed = 0


class Patches(Settings):
    """One patch of height x width pixels a time step, row by row; the patches tile the picture."""

    kind: Literal["patches"] = "patches"
    height: Units = 4
    width: Units = 4


Reading = Annotated[
    Annotated[Rows | Columns | Pixels | Permuted | Patches, Field(discriminator="kind")],
    BeforeValidator(named),
]

# --- layers -----------------------------------------------------------------------------------


class BatchNorm(Settings):
    """Batch normalisation over the last axis (Ioffe & Szegedy 2015), with Keras' defaults."""

    kind: Literal["batch_norm"] = "batch_norm"
    momentum: Decay = 0.99
    epsilon: Positive = 1e-3


class Recurrent(Settings):
    """A recurrent layer; gates are sigmoid, `activation` is every other nonlinearity of the cell.

    `return_sequences` gives the whole sequence [B, T, H] in place of the last state [B, H];
    `bidirectional` reads both ways and concatenates, forward first.
    """

    kind: CellKind
    units: Units
    activation: Activation = "tanh"
    bidirectional: Flag = False
    return_sequences: Flag = False


class Dropout(Settings):
    """Zeroes a share of its inputs while training and scales the rest by 1 / (1 - rate)."""

    kind: Literal["dropout"] = "dropout"
    rate: Decay


class Dense(Settings):
    """A fully connected layer over the last axis."""

    kind: Literal["dense"] = "dense"
    units: Units
    activation: Literal["linear", "relu", "tanh", "sigmoid"] = "linear"


class Flatten(Settings):
    """A sequence [B, T, F] as one vector [B, T·F]."""

    kind: Literal["flatten"] = "flatten"


class Pool(Settings):
    """A sequence [B, T, F] as its mean or maximum over time [B, F], or both [B, 2F], mean first."""

    kind: Literal["pool"] = "pool"
    by: Literal["mean", "max", "mean_max"] = "mean"


Layer = Annotated[
    Annotated[
        BatchNorm | Recurrent | Dropout | Dense | Flatten | Pool, Field(discriminator="kind")
    ],
    BeforeValidator(named),
]
Layers = Annotated[tuple[Layer, ...], Field(max_length=64)]


class Branch(Settings):
    """One of several ways in which a network reads the picture, side by side."""

    reading: Reading = default(Rows)
    layers: Annotated[Layers, Field(min_length=1)]


# --- experiments and studies ------------------------------------------------------------------


class Published(Settings):
    """What a publication reports for this experiment, after the last epoch; shares of 1."""

    accuracy: Share | None = None
    val_accuracy: Share | None = None
    source: str = ""


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        raise ValueError(
            "a name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a "
            f"letter or digit, got {name[:80]!r}"
        )
    return name


Name = Annotated[str, AfterValidator(_check_name)]


def _check_validation(value: Any) -> Any:
    if value == "test" or (isinstance(value, float) and 0 < value <= 0.5):
        return value
    raise ValueError(f"should be 'test' or a share above 0 and up to 0.5, got {value!r:.60}")


Validation = Annotated[Literal["test"] | float, BeforeValidator(_check_validation)]


class Experiment(Settings):
    """A network, how it is trained, and on what it is validated.

    `layers` are applied to the picture as `reading` reads it; with `branches` (each a reading and
    layers of its own), they are applied to the branches' joined outputs. A softmax layer over the
    data set's classes always closes the network and is not listed.

    `validation` is "test" (the test images, as in the classic study) or a share of the training
    images held out, stratified by class, the same ones for every seed.

    `label_smoothing` s makes every target (1 - s)·onehot + s/C of the C classes, as Keras'
    CategoricalCrossentropy does (Szegedy et al. 2016, section 7). As with Keras' compiled loss,
    every loss that is reported of the network is measured so: training, validation and test.

    With `target_replication` a above 0, `layers` end in a sequence and the closing layer stands at
    every step: the network says after each what it believes so far, and the loss is
    a·(mean of the steps' losses) + (1 - a)·(the last step's), as in Lipton et al. 2016, section
    3.2. Its answer is the last step's.

    `augmentation` distorts the training pictures anew in each epoch, `averaging` keeps an average
    of the weights.
    """

    format: Literal[1] = 1
    name: Name
    note: Annotated[str, Field(max_length=2000)] = ""
    reading: Reading = default(Rows)
    branches: Annotated[tuple[Branch, ...], Field(max_length=16)] = ()
    layers: Layers = ()
    optimizer: Optimizer = default(Adam)
    schedule: Schedule = default(Constant)
    clipping: Clipping | None = None
    label_smoothing: Annotated[Decay, Later()] = 0.0
    target_replication: Annotated[Share, Later()] = 0.0
    augmentation: Annotated[Augmentation | None, Later()] = None
    averaging: Annotated[Averaging | None, Later()] = None
    batch: Annotated[int, Field(strict=True, ge=1, le=65536)] = 128
    epochs: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 5
    seed: Seed = 0
    validation: Validation = "test"
    early_stopping: EarlyStopping | None = None
    published: Published | None = None

    @model_validator(mode="after")
    def _one_place_for_the_reading(self) -> Self:
        if self.branches and self.reading != Rows():
            raise ValueError("`reading` belongs inside each branch once there are `branches`")
        if not self.branches and not self.layers:
            raise ValueError("a network needs at least one layer in `layers`")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of all that decides the result, so not of name, note or published figures.

        Nor of a key that came after version 0.1.0 while it holds its default (`settings.Later`):
        runs that were saved before the key existed keep their digest and go on.
        """
        return content_digest(self, without=("name", "note", "published"))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read an experiment from a TOML or JSON file.

        Raises ConfigError where the file cannot be read or breaks a rule.
        """
        return read(cls, Path(path))

    def with_overrides(self, overrides: Sequence[str]) -> Self:
        """A copy with `key=value` overrides, e.g. "epochs=10" or "layers.1.units=256".

        Raises ConfigError for an unknown key, an index out of range or a value out of range.
        """
        tree = as_tree(self)
        if self.branches:
            del tree["reading"]
        for override in overrides:
            set_key(tree, override)
        return parse(type(self), tree, where=f"experiment {self.name}")


class Study(Settings):
    """Experiments to be compared, each with the same number of seeds, on one data set."""

    format: Literal[1] = 1
    name: Name
    title: Annotated[str, Field(max_length=200)] = ""
    note: Annotated[str, Field(max_length=5000)] = ""
    dataset: Literal["mnist", "fashion-mnist", "kmnist", "digits"] | None = None
    seeds: Annotated[int, Field(strict=True, ge=1, le=1000)] = 3
    experiments: Annotated[tuple[Experiment, ...], Field(min_length=1, max_length=100)]

    @field_validator("experiments")
    @classmethod
    def _names_differ(cls, experiments: tuple[Experiment, ...]) -> tuple[Experiment, ...]:
        names = [experiment.name for experiment in experiments]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"every experiment needs a name of its own, {twice[0]!r} stands twice")
        return experiments

    @property
    def experiments_digest(self) -> str:
        """SHA-256 of what decides the results of each run, whatever the number of seeds."""
        digests = {experiment.name: experiment.digest for experiment in self.experiments}
        return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """Read a study from a TOML or JSON file.

        Raises ConfigError where the file cannot be read or breaks a rule.
        """
        return read(cls, Path(path))

    def only(self, names: Iterable[str]) -> Self:
        """The same study with these experiments alone, in the study's order.

        Raises ConfigError for a name that the study does not have.
        """
        wanted = set(names)
        known = [experiment.name for experiment in self.experiments]
        for name in sorted(wanted - set(known)):
            raise ConfigError(
                f"--only takes names of the study's experiments, got {name!r}; "
                f"the study {self.name} has: {', '.join(known)}{nearest(name, known)}"
            )
        kept = tuple(e for e in self.experiments if e.name in wanted)
        return self.model_copy(update={"experiments": kept})


def shipped_studies() -> dict[str, Study]:
    """The studies that come with the package, by name."""
    folder = resources.files("rowwise") / "studies"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    studies = [parse(Study, tomllib.loads(f.read_text("utf-8")), where=f.name) for f in files]
    return {study.name: study for study in studies}
