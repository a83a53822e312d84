"""The native engine: the C++ core in `native/`, many steps of training in one call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import config, core, engines
from rowwise.engines.native_core import (
    GRADIENT,
    Core,
    Pictures,
    labels_of,
    whole_numbers,
)
from rowwise.engines.native_layers import Layers, loss_of, optimizer_of
from rowwise.engines.native_memory import Room
from rowwise.errors import EngineError
from rowwise.network import Network

Array = NDArray[Any]

name = "native"
precisions = engines.PRECISIONS
READING_BATCH = 64  # pictures that a thread reads at a time: their states stay in its cache


def why_not(network: Network, *, training: bool) -> str | None:
    """Why this engine cannot serve, or None where it can."""
    missing = core.why_not()
    if missing is not None:
        return missing
    try:
        Layers(network)
        if training:
            optimizer_of(network.experiment)
    except EngineError as unknown:
        return str(unknown)
    return None


def path() -> str:
    """The processor path that is taken: ROWWISE_ISA's, else the best that runs here."""
    return core.best()


def predict(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    batch: int = READING_BATCH,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, C] float32 for images [N, rows, columns], uint8 or float in [0, 1]."""
    return Reader(network, weights, threads=threads).predict(images, batch=batch)


def beliefs(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    batch: int = READING_BATCH,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, T, C] float32 after each step at which the closing layer stands."""
    return Reader(network, weights, threads=threads).beliefs(images, batch=batch)


class Reader:
    """A network with its weights, made ready once to read pictures many times.

    Safe to be used by several threads; they take turns.
    """

    def __init__(
        self, network: Network, weights: Mapping[str, Array], *, threads: int | None = None
    ) -> None:
        self._network = network
        self._core = Core(Layers(network), threads)
        self._room = Room(network, self._core.threads, training=False)
        self._core.put(weights, network.parameters)

    def predict(self, images: Array, *, batch: int = READING_BATCH) -> NDArray[np.float32]:
        """Probabilities [N, C] float32 for images [N, rows, columns], uint8 or float in [0, 1]."""
        pictures = Pictures(images, self._network)
        probabilities = np.empty((pictures.count, self._network.classes), np.float32)
        if pictures.count:
            batch = self._room.grant(min(_positive(batch), pictures.count))
            self._core.read(pictures, batch, probabilities)
        return probabilities

    def beliefs(self, images: Array, *, batch: int = READING_BATCH) -> NDArray[np.float32]:
        """Probabilities after each step at which the closing layer stands, float32 [N, T, C]."""
        pictures = Pictures(images, self._network)
        shape = (pictures.count, self._network.steps, self._network.classes)
        probabilities = np.empty(shape, np.float32)
        if pictures.count:
            batch = self._room.grant(min(_positive(batch), pictures.count))
            self._core.read(pictures, batch, probabilities)
        return probabilities

    def states(
        self, images: Array, node: str, *, batch: int = READING_BATCH
    ) -> NDArray[np.float32]:
        """Every hidden state of a recurrent layer as it reads, float32 [N, T, H].

        `node` is the layer's name in the network. Of a bidirectional layer both ways' states stand
        side by side, [N, T, 2H], each at the step that it has just read.
        Raises EngineError where the network has no such recurrent layer.
        """
        nodes = self._network.nodes
        recurrent = {n.name: n for n in nodes if isinstance(n.layer, config.Recurrent)}
        if node not in recurrent:
            have = ", ".join(recurrent) or "none"
            raise EngineError(f"states are those of a recurrent layer ({have}), got {node!r}")
        layers = Layers(self._network, states_of=node)
        parameters = self._network.parameters
        shortened = Core(layers, self._core.threads)
        upstream = dict(list(parameters.items())[: layers.parameter_count])
        shortened.put(self._core.get(parameters, only=upstream), upstream)
        pictures = Pictures(images, self._network)
        batch = self._room.grant(min(_positive(batch), max(1, pictures.count)))
        chosen = recurrent[node]
        time_steps, width = chosen.input_shapes[0][0], chosen.output_shape[-1]
        values = np.empty((pictures.count, time_steps, width), np.float32)
        if pictures.count:
            shortened.read(pictures, batch, None, layers.count - 1, values)
        return values


class Trainer:
    """Moves one network's weights over one set of labelled pictures, some steps at a call.

    images [N, rows, columns] uint8 or float in [0, 1]; labels int64 [N]; `state` as `state()`
    returns it (to go on) or a network's initial weights (to begin). `seed` drives dropout alone;
    the order of the pictures comes with each call. The same seed gives the same result for the
    same number of threads and the same processor path. In the precision bfloat16, the factors of
    the recurrent layers' products are rounded to it; sums, states and all else are float32.
    """

    def __init__(
        self,
        network: Network,
        state: Mapping[str, Array],
        images: Array,
        labels: NDArray[np.int64],
        *,
        seed: int,
        threads: int | None = None,
        precision: engines.Precision = "float32",
        path: str | None = None,
    ) -> None:
        self._network = network
        self._core = Core(Layers(network), threads, precision=precision, path=path)
        self._room = Room(network, self._core.threads, training=True)
        self._reading_room = Room(network, self._core.threads, training=False)
        self._pictures = Pictures(images, network)
        self._room.grant(min(network.experiment.batch, max(1, self._pictures.count)))
        self._labels = labels_of(labels, self._pictures.count, network.classes)
        self._seed = seed
        self._slots = engines.slot_names(network.experiment.optimizer)
        self._trainable = [k for k, p in network.parameters.items() if p.trainable]
        self._core.put(state, network.parameters)
        for number, slot in enumerate(self._slots):
            saved = {k: state.get(f"slots/{slot}/{k}") for k in self._trainable}
            given = {k: value for k, value in saved.items() if value is not None}
            self._core.put(given, network.parameters, slot=number)

    def run(
        self,
        order: NDArray[np.int64],
        *,
        batch: int,
        first_step: int,
        rates: NDArray[np.float64],
        given: engines.Given | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Train on `order`'s pictures in batches, the last one possibly partial.

        `first_step` counts optimiser steps since the start of the training (from 0), `rates` has
        the learning rate of each of these steps. `given` stand in for the pictures, one for each.
        Returns, for each step, the loss summed over its samples and the number of right answers,
        both before the step moves the weights. Interrupted, it leaves the weights as the last whole
        step left them.
        """
        return self._steps(order, batch, first_step, rates, given, apply=True)

    def gradients(self, indices: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """The mean loss' gradient of every trainable parameter on these pictures; nothing moves."""
        if not len(indices):
            raise EngineError("a gradient is that of at least one picture, got none")
        self._steps(indices, len(indices), 0, np.ones(1), None, apply=False)
        return self._core.get(self._network.parameters, GRADIENT, only=self._trainable)

    def evaluate(
        self, images: Array, labels: NDArray[np.int64], *, batch: int = READING_BATCH
    ) -> tuple[float, int]:
        """The sum of the loss over these pictures, and the number of right answers."""
        pictures = Pictures(images, self._network)
        truth = labels_of(labels, pictures.count, self._network.classes)
        if not pictures.count:
            return 0.0, 0
        batch = self._reading_room.grant(min(_positive(batch), pictures.count))
        return self._core.evaluate(pictures, truth, batch, loss_of(self._network.experiment))

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The network's weights as they are now, copied."""
        return self._core.get(self._network.parameters)

    def state(self) -> dict[str, Array]:
        """Weights, and the optimiser's slots as `slots/NAME/PARAMETER`: enough to go on exactly."""
        state: dict[str, Array] = {**self.weights()}
        for number, slot in enumerate(self._slots):
            values = self._core.get(self._network.parameters, number, only=self._trainable)
            state.update({f"slots/{slot}/{key}": value for key, value in values.items()})
        return state

    def _steps(
        self,
        order: NDArray[np.int64],
        batch: int,
        first_step: int,
        rates: NDArray[np.float64],
        given: engines.Given | None,
        *,
        apply: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        order = whole_numbers(order, "an order's indices")
        count = self._pictures.count
        if len(order) and not (order.min() >= 0 and order.max() < count):
            raise EngineError(
                f"an order's indices are 0 to {count - 1:,}, got {order.min():,} to {order.max():,}"
            )
        steps = -(-len(order) // _positive(batch))
        if np.shape(rates) != (steps,):
            shape = list(np.shape(rates))
            raise EngineError(f"{steps} steps need as many learning rates, got the shape {shape}")
        if not 0 <= first_step < 2**62:
            raise EngineError(f"steps are counted from 0, got {first_step}")
        pictures, labels = self._pictures, self._labels
        if given is not None:
            pictures, classes = Pictures(given.images, self._network), self._network.classes
            labels = labels_of(given.labels, pictures.count, classes, least=-1)
            if pictures.count != len(order):
                raise EngineError(
                    f"pictures stand in for those of an order one by one, got {pictures.count:,} "
                    f"for {len(order):,}"
                )
            order = np.arange(len(order))
        return self._core.train(
            pictures,
            labels,
            order,
            np.ascontiguousarray(rates, np.float64),
            batch=self._room.grant(min(batch, max(1, len(order)))),
            first_step=first_step,
            seed=self._seed,
            optimizer=optimizer_of(self._network.experiment),
            loss=loss_of(self._network.experiment),
            apply=apply,
        )


def _positive(batch: int) -> int:
    if not 1 <= batch < 2**31:
        raise EngineError(f"a batch has at least one picture, and less than 2^31, got {batch}")
    return batch
