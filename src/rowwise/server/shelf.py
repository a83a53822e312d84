"""The models of a server, each loaded once in a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from rowwise import model as library
from rowwise import runs
from rowwise.engines import usable_cores
from rowwise.errors import ConfigError, ModelError
from rowwise.explain import row_reader
from rowwise.model import DEFAULT
from rowwise.recognise import Recogniser
from rowwise.server.configuration import Configuration
from rowwise.server.problems import Problem
from rowwise.settings import nearest


class Shelf:
    """Models by name, and the one that reads where none is named.

    Each is there twice: to read, and on a thread of its own to explain, so that an explanation
    holds up no reading.
    """

    def __init__(self, recognisers: Mapping[str, Recogniser], *, default: str = "") -> None:
        if not recognisers:
            raise ConfigError("a server needs a model, found none; name one with --model")
        self._readers = dict(recognisers)
        first = DEFAULT if DEFAULT in self._readers else next(iter(self._readers))
        self.default = default or first
        if self.default not in self._readers:
            known = ", ".join(self._readers)
            near = nearest(self.default, self._readers)
            raise ConfigError(
                f"the default model is one of those served ({known}), got {self.default!r}{near}"
            )
        self._explainers = {name: _explainer(one) for name, one in self._readers.items()}

    @classmethod
    def of(cls, configuration: Configuration) -> Shelf:
        """The models that a configuration names, loaded. Raises ModelError, ConfigError."""
        threads = configuration.threads or max(1, usable_cores() // configuration.workers)
        found: dict[str, Recogniser] = {}
        for name, place in _places(configuration):
            if name in found:
                raise ConfigError(f"a model's name is served once, got two of {name!r}")
            found[name] = Recogniser.load(place, threads=threads)
        return cls(found, default=configuration.default)

    @property
    def names(self) -> list[str]:
        """The models' names, the default first."""
        return sorted(self._readers, key=lambda name: name != self.default)

    def __getitem__(self, name: str) -> Recogniser:
        """What reads, by its model's name; of no name the default's. Raises Problem (404)."""
        return self._found(self._readers, name)

    def explainer(self, name: str) -> Recogniser:
        """What explains, by its model's name; of no name the default's. Raises Problem (404)."""
        return self._found(self._explainers, name)

    def _found(self, shelf: Mapping[str, Recogniser], name: str) -> Recogniser:
        found = shelf.get(name or self.default)
        if found is None:
            known, near = ", ".join(self.names), nearest(name[:100], self.names)
            raise Problem(
                404, "no-such-model", f"a model is one of {known}, got {name[:100]!r}{near}"
            )
        return found

    def card(self, name: str) -> dict[str, Any]:
        """What is known of a model, by the name that it is served by."""
        return self[name].model.plain() | {"name": name}

    def cards(self) -> list[dict[str, Any]]:
        """The card of each model."""
        return [self.card(name) for name in self.names]


def _places(configuration: Configuration) -> Iterator[tuple[str, str | Path]]:
    """Name and place of each model."""
    for place in configuration.models or library.shipped():
        path = Path(place)
        yield (path.name.removesuffix(library.SUFFIX) if path.exists() else place), place
    for folder in configuration.runs:
        for run in runs.find(folder):
            if run.ended:
                yield run.folder.name, run.folder


def _explainer(reader: Recogniser) -> Recogniser:
    """The same model once more, with the one that it asks for its belief by row, warmed up."""
    rows, columns = reader.model.network.shape
    reader.probabilities(np.zeros((1, rows, columns), np.uint8))
    explainer = Recogniser(reader.model, engine=reader.engine.name, threads=1)
    with suppress(ModelError):  # built without one: explanations say so
        row_reader(explainer)
    return explainer
