"""Recurrences of the native core for autograd: a direction of a layer is one node of the graph.

The C interface is the last part of `native/api.h`. It trusts what it is given, so shapes, types and
sizes are checked here. While a call runs, the interpreter lock is free.
"""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_int32, c_void_p
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rowwise import core
from rowwise.cells import CELLS, Activation, CellKind
from rowwise.engines import native_layers, torch_steps
from rowwise.engines.native_layers import number_of
from rowwise.engines.torch_steps import Given
from rowwise.errors import EngineError

MOST = 2**30  # steps, sequences, inputs or gates' columns: the core counts them in 32 bits
MOST_THREADS = 256

_FAILURES = {
    2: "there is not enough memory; reduce the batch, the steps or the units",
    3: "the system gave it no thread; reduce their number with torch.set_num_threads",
    4: "it has no cell or activation of that number",
}


class _Shape(ctypes.Structure):
    """`rowwise_recurrence`."""

    _fields_ = tuple(
        (name, c_int32)
        for name in (
            "cell",
            "activation",
            "reverse",
            "threads",
            "steps",
            "batch",
            "inputs",
            "units",
        )
    )


class Way(NamedTuple):
    """How it is run; path is the core's processor path, None for the best one."""

    kind: CellKind
    activation: Activation
    reverse: bool
    path: str | None


class _Array:
    """A tensor as an argument of the core, contiguous, and alive as long as the call.

    Held by the argument itself, for torch.compile drops a local that Python code no longer names.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.contiguous().resolve_neg()
        self._as_parameter_ = c_void_p(self._tensor.data_ptr())


class Tape:
    """What a pass forward leaves for the pass back, once; the memory is the core's."""

    def __init__(self, native: ctypes.CDLL, handle: c_void_p) -> None:
        self._native = native
        self._handle = handle

    def __del__(self) -> None:
        self._native.rowwise_tape_free(self._handle)

    def read_back(self, *arrays: Tensor | None) -> None:
        """Call `rowwise_recur_back`."""
        _succeed(self._native.rowwise_recur_back(self._handle, *map(_given, arrays)))


class NativeRecurrence(torch.autograd.Function):
    """One direction of a recurrent layer over a whole sequence, in the native core."""

    @staticmethod
    def forward(
        ctx: Any,
        way: Way,
        needs_backward: bool,
        x: Tensor,
        kernel: Tensor,
        recurrent_kernel: Tensor,
        bias: Tensor,
        recurrent_bias: Tensor | None,
        h: Tensor | None,
        c: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """All hidden states [T, B, H] in the order of x; of an LSTM also the last c [B, H]."""
        given = Given(x, kernel, recurrent_kernel, bias, recurrent_bias, h, c)
        states, c_last, tape = _run(way, given, keep=needs_backward)
        if needs_backward:
            ctx.way, ctx.tape = way, tape
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*given)
        return states, c_last

    @staticmethod
    def backward(
        ctx: Any, d_states: Tensor | None, d_c_last: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """Back through time (Werbos 1990): the gradients of x, of each weight and of the state."""
        given = Given(*ctx.saved_tensors)
        if torch.is_grad_enabled() or torch_steps.observer(d_states, d_c_last):
            kind, activation, reverse, _ = ctx.way
            wanted = ctx.needs_input_grad[2:]
            how = {"reverse": reverse, "wanted": wanted}
            d_results = (d_states, d_c_last)
            return None, None, *torch_steps.gradients(kind, activation, given, *d_results, **how)
        # The pass back writes over its tape; a second one, of a retained graph, needs a new one.
        tape, ctx.tape = ctx.tape, None
        if tape is None:
            *_, tape = _run(ctx.way, given, keep=True)
        if d_states is None:
            d_states = given.x.new_zeros(*given.x.shape[:2], len(given.recurrent_kernel))
        wants_x, *_, wants_h, wants_c = ctx.needs_input_grad[2:]
        wanted = (wants_x, True, True, True, True, wants_h, wants_c)  # weights' come in any case
        made = [
            _blank(tensor) if tensor is not None and wants else None
            for tensor, wants in zip(given, wanted, strict=True)
        ]
        tape.read_back(d_states, d_c_last, *made)
        return None, None, *made


def _run(way: Way, given: Given, *, keep: bool) -> tuple[Tensor, Tensor | None, Tape | None]:
    """The states, an LSTM's last cell state, and if it is to be kept the tape."""
    shape = _checked(way, given)
    native = library(way.path)
    if isinstance(native, str):
        raise EngineError(f"the native core cannot run recurrences: {native}")
    states = given.x.new_empty(shape.steps, shape.batch, shape.units)
    c_last = given.x.new_empty(shape.batch, shape.units) if way.kind == "lstm" else None
    handle = c_void_p()
    arrays = map(_given, (*given, states, c_last))
    _succeed(native.rowwise_recur(shape, *arrays, handle if keep else None))
    return states, c_last, Tape(native, handle) if keep else None


def _checked(way: Way, given: Given) -> _Shape:
    """The sizes, once every array is known to have them. Raises EngineError where one has not."""
    x, cell, units = given.x, CELLS[way.kind], len(given.recurrent_kernel)
    if x.dim() != 3 or not len(x):
        raise EngineError(f"sequences are [T, B, I] with a step at least, got {list(x.shape)}")
    steps, batch, inputs = x.shape
    width = units * len(cell.gates)
    wanted: dict[str, tuple[int, ...] | None] = {
        "x": (steps, batch, inputs),
        "kernel": (inputs, width),
        "recurrent_kernel": (units, width),
        "bias": (width,),
        "recurrent_bias": (width,) if cell.has_recurrent_bias else None,
        "h": None if given.h is None else (batch, units),
        "c": None if given.c is None or cell.states == 1 else (batch, units),
    }
    for (name, shape), tensor in zip(wanted.items(), given, strict=True):
        got = None if tensor is None else tuple(tensor.shape)
        if got != shape:
            raise EngineError(f"the {name} of this {cell.keras_name} is {shape}, got {got}")
        if tensor is not None and (tensor.dtype, tensor.device.type) != (torch.float32, "cpu"):
            raise EngineError(
                f"the native core computes on the CPU in float32, got {name} in {tensor.dtype} on "
                f"{tensor.device}"
            )
    sizes = (steps, batch, inputs, width)
    if min(inputs, units) < 1 or max(sizes) > MOST:
        raise EngineError(f"the sizes T, B, I, G·H are at most {MOST:,}, got {sizes}")
    threads = min(torch.get_num_threads(), MOST_THREADS)
    kind = number_of("cell", way.kind, native_layers.CELLS)
    activation = number_of(
        "recurrent activation", way.activation, native_layers.RECURRENT_ACTIVATIONS
    )
    return _Shape(kind, activation, way.reverse, threads, steps, batch, inputs, units)


def _blank(like: Tensor) -> Tensor:
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def _given(tensor: Tensor | None) -> _Array | None:
    return None if tensor is None else _Array(tensor)


def knows(kind: str, activation: str) -> bool:
    """Whether the core has this cell with this activation."""
    return kind in native_layers.CELLS and activation in native_layers.RECURRENT_ACTIVATIONS


def library(path: str | None = None) -> ctypes.CDLL | str:
    """The core's library for a processor path, by default the best, or why there is no core.

    Raises EngineError where the path, or the one that ROWWISE_ISA names, cannot run here.
    """
    asked = (path, core.FOLDER, os.environ.get(core.FORCED, ""))
    if asked not in _found:
        _found[asked] = _find(path)
    return _found[asked]


# What was found before, since finding takes as long as a small recurrence. No functools.cache:
# torch.compile looks through that, and warns.
_found: dict[tuple[str | None, Path, str], ctypes.CDLL | str] = {}


def _find(path: str | None) -> ctypes.CDLL | str:
    """The library, with the types of its functions told."""
    missing = core.why_not()
    if missing is not None:
        return f"it is missing: {missing}"
    found = core.load(path)
    found.rowwise_recur.argtypes = (POINTER(_Shape), *(c_void_p,) * 9, POINTER(c_void_p))
    found.rowwise_recur.restype = c_int32
    found.rowwise_recur_back.argtypes = (c_void_p,) * 10
    found.rowwise_recur_back.restype = c_int32
    found.rowwise_tape_free.argtypes = (c_void_p,)
    found.rowwise_tape_free.restype = None
    return found


def _succeed(code: int) -> None:
    if code:
        raise EngineError(f"the native engine: {_FAILURES[code]}")
