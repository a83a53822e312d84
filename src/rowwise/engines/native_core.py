"""The native core's C interface (`native/api.h`) as Python objects: what goes over is checked here.

The core trusts what it is given, so every array that reaches it has been made contiguous, of the
right type and of the right size, and every label and index is known to be in range.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Mapping
from ctypes import byref, c_double, c_float, c_int32, c_int64, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import config, core, engines
from rowwise.cells import CELLS
from rowwise.config import Experiment
from rowwise.errors import EngineError
from rowwise.network import READINGS, Join, Network, Node, Output, Parameter, Picture, pixel_order

Array = NDArray[Any]

VALUE, GRADIENT = -1, 2  # slots beside the optimiser's own, 0 and 1
MAX_THREADS = 1024
FEW = 64  # pictures, or fewer, are read in less time than a thread of their own would take

_CELLS = {kind: number for number, kind in enumerate(CELLS)}
_ACTIVATIONS = {"linear": 0, "relu": 1, "tanh": 2, "sigmoid": 3}
_OPTIMIZERS = {"sgd": 0, "rmsprop": 1, "adam": 2, "adamw": 3}
_CLIPPINGS = {"value": 1, "norm": 2, "global_norm": 3}
_READING, _BATCH_NORM, _RECURRENT, _DENSE, _DROPOUT, _FLATTEN, _POOL, _JOIN = range(8)
_DONE, _CANCELLED = 0, 1
_FAILURES = {
    2: "there is not enough memory; reduce the batch, the units or the number of threads",
    3: "the system gave it no thread; reduce the number of threads",
}


class _Layer(ctypes.Structure):
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
        ("largest", c_int32),
        ("rate", c_float),
        ("momentum", c_float),
        ("epsilon", c_float),
    )


class _Optimizer(ctypes.Structure):
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
        ("label_smoothing", c_double),
    )


class _PicturesStruct(ctypes.Structure):
    """`rowwise_pictures`."""

    _fields_ = (
        ("data", c_void_p),
        ("count", c_int64),
        ("pixels", c_int64),
        ("bytes", c_int32),
        ("reserved", c_int32),
    )


class Pictures:
    """Pictures [N, rows, columns] as the core takes them: uint8, or float32.

    Raises EngineError for another shape than the network's, another type, or values that are not
    finite.
    """

    def __init__(self, images: Array, network: Network) -> None:
        images = np.asarray(images)
        if images.ndim != 3 or images.shape[1:] != network.shape:
            wanted = " x ".join(map(str, network.shape))
            raise EngineError(
                f"{network.experiment.name} reads pictures of {wanted} pixels [N, rows, columns], "
                f"got the shape {list(images.shape)}"
            )
        in_bytes = images.dtype == np.uint8
        if in_bytes:
            self.array = np.ascontiguousarray(images)
        else:
            self.array = _finite(images)
        self.count = len(images)
        pixels = network.shape[0] * network.shape[1]
        self.struct = _PicturesStruct(self.array.ctypes.data, self.count, pixels, in_bytes)


def _finite(images: Array) -> NDArray[np.float32]:
    """Pixels as float32. Raises EngineError for whole numbers and for what is not finite."""
    if not np.issubdtype(images.dtype, np.floating):
        raise EngineError(
            f"pictures are uint8, or floats in 0 to 1, got {images.dtype}; "
            f"convert them with images.astype('float32')"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        kept = np.ascontiguousarray(images, np.float32)
    if not np.isfinite(kept).all():
        raise EngineError("pixels must be finite, got NaN or infinity")
    return kept


def labels_of(labels: Array, count: int, classes: int) -> NDArray[np.int64]:
    """Labels int64 [count] in 0 to classes - 1. Raises EngineError where they are not."""
    labels = whole_numbers(labels, "labels")
    if len(labels) != count:
        raise EngineError(f"{count:,} pictures need as many labels, got {len(labels):,}")
    if count and not (labels.min() >= 0 and labels.max() < classes):
        raise EngineError(
            f"labels are classes 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels


def whole_numbers(numbers: Array, what: str) -> NDArray[np.int64]:
    """`numbers` as int64 [N]. Raises EngineError for another type or number of axes."""
    numbers = np.asarray(numbers)
    if numbers.ndim != 1 or (numbers.size and not np.issubdtype(numbers.dtype, np.integer)):
        raise EngineError(
            f"{what} are whole numbers [N], got {numbers.dtype} of the shape {list(numbers.shape)}"
        )
    return np.ascontiguousarray(numbers, np.int64)


class Layers:
    """A network's layers as the core takes them.

    With `states_of`, the layers end at that recurrent layer, and it gives every state.
    """

    def __init__(self, network: Network, *, states_of: str | None = None) -> None:
        self._kept: list[Array] = []  # arrays that the structures point into
        self._structs: list[_Layer] = []
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
        self.array = (_Layer * self.count)(*self._structs)

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
                    cell=_CELLS[layer.kind],
                    units=layer.units,
                    activation=_ACTIVATIONS[layer.activation],
                    bidirectional=layer.bidirectional,
                    sequences=layer.return_sequences or all_states,
                )
            case config.Dense(units=units, activation=activation):
                kind = _ACTIVATIONS[activation]
                return self._append(_DENSE, inputs, units=units, activation=kind)
            case Output():
                return self._append(_DENSE, inputs, units=self._network.classes)
            case config.Dropout(rate=rate):
                return self._append(_DROPOUT, inputs, rate=rate)
            case config.Flatten():
                return self._append(_FLATTEN, inputs)
            case config.Pool(by=by):
                return self._append(_POOL, inputs, largest=by == "max")
            case Join():
                return self._append(_JOIN, inputs)
        raise TypeError(f"{node.layer!r} is not a layer")

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
        self._structs.append(_Layer(kind, len(inputs), pointer, **fields))
        return len(self._structs) - 1

    def _keep(self, numbers: Array) -> int:
        self._kept.append(np.ascontiguousarray(numbers, np.int32))
        return int(self._kept[-1].ctypes.data)


def optimizer_of(experiment: Experiment) -> _Optimizer:
    """How an experiment moves its weights."""
    given = experiment.optimizer.model_dump()
    named = {key for key, _ in _Optimizer._fields_} - {"kind"}
    clipping = experiment.clipping
    return _Optimizer(
        kind=_OPTIMIZERS[experiment.optimizer.kind],
        clip=_CLIPPINGS[clipping.by] if clipping else 0,
        clip_limit=clipping.limit if clipping else 0,
        label_smoothing=experiment.label_smoothing,
        **{key: value for key, value in given.items() if key in named},
    )


class Core:
    """A network in the core, on a number of threads, by default the cores that may be used.

    One call at a time: callers on several threads take turns. While a call runs, the interpreter
    lock is free, and Ctrl-C ends the call early.
    """

    def __init__(
        self,
        layers: Layers,
        threads: int | None,
        *,
        precision: engines.Precision = "float32",
        path: str | None = None,
    ) -> None:
        self.threads = engines.usable_cores() if threads is None else threads
        if not 1 <= self.threads <= MAX_THREADS:
            raise EngineError(f"threads are 1 to {MAX_THREADS}, got {self.threads}")
        if precision not in engines.PRECISIONS:
            known = ", ".join(engines.PRECISIONS)
            raise EngineError(f"a precision is one of {known}, got {precision!r}")
        self._library = _declared(core.load(path))
        self._turn = threading.Lock()
        self._handle = self._library.rowwise_new(
            layers.array, layers.count, self.threads, engines.PRECISIONS.index(precision)
        )
        if not self._handle:
            raise EngineError(f"the native engine: {_FAILURES[2]}")

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.rowwise_free(self._handle)

    def put(
        self, arrays: Mapping[str, Array], parameters: Mapping[str, Parameter], slot: int = VALUE
    ) -> None:
        """Copy in a network's parameters, or those of their slots that `arrays` has, by name.

        Raises EngineError for a parameter that is missing, and for another shape.
        """
        for place, (name, p) in enumerate(parameters.items()):
            if name not in arrays and slot == VALUE:
                raise EngineError(f"the weights must hold {name}, got them without it")
            if name not in arrays:
                continue
            value = np.ascontiguousarray(arrays[name], np.float32)
            if value.shape != p.shape:
                raise EngineError(f"{name} has the shape {list(p.shape)}, got {list(value.shape)}")
            self._call("rowwise_set", place, slot, value)

    def get(
        self,
        parameters: Mapping[str, Parameter],
        slot: int = VALUE,
        *,
        only: Iterable[str] | None = None,
    ) -> dict[str, NDArray[np.float32]]:
        """Copies of a network's parameters, or of their slots, by name."""
        wanted = parameters.keys() if only is None else set(only)
        copies = {}
        for place, (name, p) in enumerate(parameters.items()):
            if name in wanted:
                copies[name] = np.empty(p.shape, np.float32)
                self._call("rowwise_get", place, slot, copies[name])
        return copies

    def train(
        self,
        pictures: Pictures,
        labels: NDArray[np.int64],
        order: NDArray[np.int64],
        rates: NDArray[np.float64],
        *,
        batch: int,
        first_step: int,
        seed: int,
        optimizer: _Optimizer,
        apply: bool,
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """For each step the summed loss and the right answers; see `rowwise_train`."""
        losses, right = np.zeros(len(rates)), np.zeros(len(rates), np.int64)
        done = c_int64()
        self._interruptible(
            "rowwise_train",
            pictures,
            labels,
            order,
            len(order),
            batch,
            first_step,
            seed,
            rates,
            byref(optimizer),
            apply,
            losses,
            right,
            byref(done),
        )
        return losses, right

    def read(
        self,
        pictures: Pictures,
        batch: int,
        probabilities: NDArray[np.float32] | None,
        layer: int = 0,
        values: NDArray[np.float32] | None = None,
    ) -> None:
        """Fill `probabilities` [N, C] and the `values` of a layer; see `rowwise_read`."""
        arguments = ("rowwise_read", pictures, batch, probabilities, layer, values)
        if pictures.count <= FEW:
            self._call(*arguments, None)
        else:
            self._interruptible(*arguments)

    def evaluate(
        self, pictures: Pictures, labels: NDArray[np.int64], batch: int, label_smoothing: float
    ) -> tuple[float, int]:
        """The summed loss and the right answers; see `rowwise_evaluate`."""
        loss, right = c_double(), c_int64()
        self._interruptible(
            "rowwise_evaluate",
            pictures,
            labels,
            batch,
            label_smoothing,
            byref(loss),
            byref(right),
        )
        return loss.value, right.value

    def _interruptible(self, name: str, *arguments: Any) -> None:
        """Call on a thread of its own, since a waiting interpreter hears signals and C does not."""
        cancel, ended = c_int32(0), threading.Event()
        raised: list[BaseException] = []

        def work() -> None:
            try:
                self._call(name, *arguments, byref(cancel))
            except BaseException as error:
                raised.append(error)
            finally:
                ended.set()

        thread = threading.Thread(target=work, name="rowwise", daemon=True)
        try:
            thread.start()
            ended.wait()  # not thread.join(): once interrupted, that takes the thread for ended
        except BaseException as error:
            cancel.value = 1
            if isinstance(error, RuntimeError) and thread.ident is None:
                raise EngineError(f"the native engine: {_FAILURES[3]}") from None
            if thread.is_alive():
                ended.wait()
            raise
        if raised:
            raise raised[0]

    def _call(self, name: str, *arguments: Any) -> None:
        # Arrays come as such, not as pointers, so that none is freed under an interrupted call.
        given = [_given(argument) for argument in arguments]
        with self._turn:
            code = getattr(self._library, name)(self._handle, *given)
        if code not in (_DONE, _CANCELLED):
            raise EngineError(f"the native engine: {_FAILURES[code]}")


def _given(argument: Any) -> Any:
    """An argument as ctypes takes it."""
    if isinstance(argument, np.ndarray):
        return argument.ctypes.data
    return byref(argument.struct) if isinstance(argument, Pictures) else argument


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "rowwise_set": (c_int32, c_int32, c_void_p),
    "rowwise_get": (c_int32, c_int32, c_void_p),
    "rowwise_train": (
        *(c_void_p, c_void_p, c_void_p, c_int64, c_int32, c_int64, c_uint64),
        *(c_void_p, c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_void_p),
    ),
    "rowwise_read": (c_void_p, c_int32, c_void_p, c_int32, c_void_p, c_void_p),
    "rowwise_evaluate": (*(c_void_p, c_void_p, c_int32, c_double, c_void_p, c_void_p, c_void_p),),
}


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions told."""
    library.rowwise_new.argtypes = (ctypes.POINTER(_Layer), c_int32, c_int32, c_int32)
    library.rowwise_new.restype = c_void_p
    library.rowwise_free.argtypes = (c_void_p,)
    library.rowwise_free.restype = None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = (c_void_p, *arguments)
        function.restype = c_int32
    return library
