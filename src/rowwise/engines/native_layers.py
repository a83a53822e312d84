"""A network and its training as the native core takes them: the structures of `native/api.h`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_double, c_float, c_int32, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import config
from rowwise.config import Experiment
from rowwise.errors import EngineError
from rowwise.network import READINGS, Join, Network, Node, Output, Picture, pixel_order

Array = NDArray[Any]

# The kinds that the core has, as `native/api.h` numbers them; whatever else is told as lacking.
CELLS = {"simple_rnn": 0, "lstm": 1, "gru": 2}
ACTIVATIONS = {"linear": 0, "relu": 1, "tanh": 2, "sigmoid": 3}
RECURRENT_ACTIVATIONS = {kind: ACTIVATIONS[kind] for kind in ("relu", "tanh")}
_OPTIMIZERS = {"sgd": 0, "rmsprop": 1, "adam": 2, "adamw": 3}
_POOLS = {"mean": 0, "max": 1, "mean_max": 2}
_CLIPPINGS = {"value": 1, "norm": 2, "global_norm": 3}
_READING, _BATCH_NORM, _RECURRENT, _DENSE, _DROPOUT, _FLATTEN, _POOL, _JOIN = range(8)


def number_of(what: str, kind: str, known: Mapping[str, int]) -> int:
    """The core's number for a kind. Raises EngineError where it has no such kind."""
    if kind not in known:
        raise EngineError(f"the native core has no {what} {kind}; it has {', '.join(known)}")
    return known[kind]


class LayerStruct(ctypes.Structure):
    """`rowwise_layer`."""

    _fields_ = (
        ("kind", c_int32),
        ("input_count", c_int32),
        ("inputs", c_void_p),
        ("order", c_void_p),
        ("steps", c_int32),
        ("features", c_int32),
        ("cell", c_int32),
        ("units", c_int32),
        ("activation", c_int32),
        ("bidirectional", c_int32),
        ("sequences", c_int32),
        ("pool", c_int32),
        ("rate", c_float),
        ("momentum", c_float),
        ("epsilon", c_float),
    )


class OptimizerStruct(ctypes.Structure):
    """`rowwise_optimizer`."""

    _fields_ = (
        ("kind", c_int32),
        ("nesterov", c_int32),
        ("clip", c_int32),
        ("reserved", c_int32),
        ("beta_1", c_double),
        ("beta_2", c_double),
        ("epsilon", c_double),
        ("weight_decay", c_double),
        ("rho", c_double),
        ("momentum", c_double),
        ("clip_limit", c_double),
    )


class LossStruct(ctypes.Structure):
    """`rowwise_loss`."""

    _fields_ = (("label_smoothing", c_double), ("target_replication", c_double))


class Layers:
    """A network's layers as the core takes them.

    With `states_of`, the layers end at that recurrent layer, and it gives every state.
    Raises EngineError for a layer, cell or activation that the core has not.
    """

    def __init__(self, network: Network, *, states_of: str | None = None) -> None:
        self._kept: list[Array] = []  # arrays that the structures point into
        self._structs: list[LayerStruct] = []
        self._places: dict[str, int] = {}
        self._network = network
        self.parameter_count = 0
        for node in network.nodes:
            if not isinstance(node.layer, Picture):
                self._places[node.name] = self._add(node, all_states=node.name == states_of)
            self.parameter_count += len(node.parameters)
            if node.name == states_of:
                break
        self.count = len(self._structs)
        self.array = (LayerStruct * self.count)(*self._structs)

    def _add(self, node: Node, *, all_states: bool) -> int:
        if isinstance(node.layer, READINGS):
            return self._read(pixel_order(node.layer, self._network.shape))
        inputs = [self._input(name) for name in node.inbound]
        match node.layer:
            case config.BatchNorm(momentum=momentum, epsilon=epsilon):
                return self._append(_BATCH_NORM, inputs, momentum=momentum, epsilon=epsilon)
            case config.Recurrent() as layer:
                return self._append(
                    _RECURRENT,
                    inputs,
                    cell=number_of("cell", layer.kind, CELLS),
                    units=layer.units,
                    activation=number_of(
                        "recurrent activation", layer.activation, RECURRENT_ACTIVATIONS
                    ),
                    bidirectional=layer.bidirectional,
                    sequences=layer.return_sequences or all_states,
                )
            case config.Dense(units=units, activation=activation):
                kind = number_of("activation", activation, ACTIVATIONS)
                return self._append(_DENSE, inputs, units=units, activation=kind)
            case Output():
                return self._append(_DENSE, inputs, units=self._network.classes)
            case config.Dropout(rate=rate):
                return self._append(_DROPOUT, inputs, rate=rate)
            case config.Flatten():
                return self._append(_FLATTEN, inputs)
            case config.Pool(by=by):
                return self._append(_POOL, inputs, pool=number_of("pool", by, _POOLS))
            case Join():
                return self._append(_JOIN, inputs)
        raise EngineError(f"the native core has no layer {node.name} ({type(node.layer).__name__})")

    def _input(self, name: str) -> int:
        """The place of the layer of that name; the picture itself is read by rows."""
        if name not in self._places:
            self._places[name] = self._read(pixel_order(config.Rows(), self._network.shape))
        return self._places[name]

    def _read(self, order: NDArray[np.int64]) -> int:
        steps, features = order.shape
        kept = self._keep(order)
        return self._append(_READING, [], order=kept, steps=steps, features=features)

    def _append(self, kind: int, inputs: list[int], **fields: Any) -> int:
        pointer = self._keep(np.array(inputs)) if inputs else None
        self._structs.append(LayerStruct(kind, len(inputs), pointer, **fields))
        return len(self._structs) - 1

    def _keep(self, numbers: Array) -> int:
        self._kept.append(np.ascontiguousarray(numbers, np.int32))
        return int(self._kept[-1].ctypes.data)


def optimizer_of(experiment: Experiment) -> OptimizerStruct:
    """How an experiment moves its weights. Raises EngineError where the core cannot do that."""
    given = experiment.optimizer.model_dump()
    named = {key for key, _ in OptimizerStruct._fields_} - {"kind"}
    clipping = experiment.clipping
    return OptimizerStruct(
        kind=number_of("optimiser", experiment.optimizer.kind, _OPTIMIZERS),
        clip=number_of("clipping", clipping.by, _CLIPPINGS) if clipping else 0,
        clip_limit=clipping.limit if clipping else 0,
        **{key: value for key, value in given.items() if key in named},
    )


def loss_of(experiment: Experiment) -> LossStruct:
    """What an experiment's training minimises."""
    return LossStruct(experiment.label_smoothing, experiment.target_replication)
