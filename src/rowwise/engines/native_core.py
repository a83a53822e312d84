"""The native core's C interface (`native/api.h`) as Python objects: what goes over is checked here.

The core trusts what it is given, so every array that reaches it has been made contiguous, of the
right type and of the right size, and every label and index is known to be in range.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterable, Mapping
from ctypes import byref, c_double, c_int32, c_int64, c_uint64, c_void_p
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowwise import core, engines
from rowwise.engines.native_layers import Layers, LayerStruct, LossStruct, OptimizerStruct
from rowwise.errors import EngineError
from rowwise.network import Network, Parameter

Array = NDArray[Any]

VALUE, GRADIENT = -1, 2  # slots beside the optimiser's own, 0 and 1
MAX_THREADS = 1024
FEW = 64  # pictures, or fewer, are read in less time than a thread of their own would take

_DONE, _CANCELLED = 0, 1
_FAILURES = {
    2: "there is not enough memory; reduce the batch, the units or the number of threads",
    3: "the system gave it no thread; reduce the number of threads",
    4: "it has no layer, cell, activation, optimiser or slot of that number; take another --engine",
}


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
            f"convert them with rowwise.pixels.arrays(images)"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        kept = np.ascontiguousarray(images, np.float32)
    if not np.isfinite(kept).all():
        raise EngineError("pixels must be finite, got NaN or infinity")
    return kept


def labels_of(labels: Array, count: int, classes: int, *, least: int = 0) -> NDArray[np.int64]:
    """Labels int64 [count] in `least` to classes - 1. Raises EngineError where they are not."""
    labels = whole_numbers(labels, "labels")
    if len(labels) != count:
        raise EngineError(f"{count:,} pictures need as many labels, got {len(labels):,}")
    if count and not (labels.min() >= least and labels.max() < classes):
        raise EngineError(
            f"labels are classes {least} to {classes - 1}, got {labels.min()} to {labels.max()}"
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
        handle, kept = c_void_p(), engines.PRECISIONS.index(precision)
        _succeed(
            self._library.rowwise_new(layers.array, layers.count, self.threads, kept, byref(handle))
        )
        self._handle = handle

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
        optimizer: OptimizerStruct,
        loss: LossStruct,
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
            byref(loss),
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
        """Fill `probabilities` [N, C] or [N, T, C] and a layer's `values`; see `rowwise_read`."""
        every_step = probabilities is not None and probabilities.ndim == 3
        arguments = ("rowwise_read", pictures, batch, probabilities, every_step, layer, values)
        if pictures.count <= FEW:
            self._call(*arguments, None)
        else:
            self._interruptible(*arguments)

    def evaluate(
        self, pictures: Pictures, labels: NDArray[np.int64], batch: int, loss: LossStruct
    ) -> tuple[float, int]:
        """The summed loss and the right answers; see `rowwise_evaluate`."""
        total, right = c_double(), c_int64()
        self._interruptible(
            "rowwise_evaluate",
            pictures,
            labels,
            batch,
            byref(loss),
            byref(total),
            byref(right),
        )
        return total.value, right.value

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
        _succeed(code)


def _succeed(code: int) -> None:
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
        *(c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_void_p),
    ),
    "rowwise_read": (c_void_p, c_int32, c_void_p, c_int32, c_int32, c_void_p, c_void_p),
    "rowwise_evaluate": (c_void_p, c_void_p, c_int32, c_void_p, c_void_p, c_void_p, c_void_p),
}


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with the types of its functions told."""
    library.rowwise_new.argtypes = (
        *(ctypes.POINTER(LayerStruct), c_int32, c_int32, c_int32),
        ctypes.POINTER(c_void_p),
    )
    library.rowwise_new.restype = c_int32
    library.rowwise_free.argtypes = (c_void_p,)
    library.rowwise_free.restype = None
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes = (c_void_p, *arguments)
        function.restype = c_int32
    return library
