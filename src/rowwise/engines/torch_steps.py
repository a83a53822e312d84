"""Recurrences in single steps of PyTorch's operations: slow, and open to all that PyTorch can do.

A pass that is one node of the graph (`torch_cells.py`, `native_recurrence.py`) cannot be followed
inside: not by a second derivative, torch.func, forward-mode differentiation, a trace or an export.
What has to be followed runs here.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from rowwise.cells import Activation, CellKind


class Given(NamedTuple):
    """What a recurrence computes with: x [T, B, I], and weights as in `cells.CellWeights`.

    h and c [B, H] are the initial state, None for zero; c is the LSTM's alone.
    """

    x: Tensor
    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor
    recurrent_bias: Tensor | None
    h: Tensor | None
    c: Tensor | None


def recur(
    kind: CellKind, activation: Activation, given: Given, *, reverse: bool = False
) -> tuple[Tensor, Tensor | None]:
    """All hidden states [T, B, H] in the order of x, and of an LSTM the last c [B, H]."""
    projected = given.x @ given.kernel + given.bias
    h, c = (
        given.x.new_zeros(given.x.shape[1], given.recurrent_kernel.shape[0]) if s is None else s
        for s in (given.h, given.c)
    )
    steps = projected.unbind(0)
    states = []
    for z in reversed(steps) if reverse else steps:
        h, c = _step(kind, activation, given, z, h, c)
        states.append(h)
    return torch.stack(states[::-1] if reverse else states), c if kind == "lstm" else None


def _step(
    kind: CellKind, activation: Activation, given: Given, z: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor]:
    """h and c after a step, from z = x W + b [B, G·H]; the equations are those of `cells.py`."""
    act = torch.tanh if activation == "tanh" else torch.relu
    by_h = h @ given.recurrent_kernel
    if kind == "simple_rnn":
        return act(z + by_h), c
    if kind == "lstm":
        i, f, g, o = (z + by_h).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * act(g)
        return o.sigmoid() * act(c), c
    assert given.recurrent_bias is not None
    x_r, x_z, x_n = z.chunk(3, 1)
    h_r, h_z, h_n = (by_h + given.recurrent_bias).chunk(3, 1)
    r, update = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = act(x_n + r * h_n)
    return n + update * (h - n), c


def gradients(
    kind: CellKind,
    activation: Activation,
    given: Given,
    d_states: Tensor | None,
    d_c_last: Tensor | None,
    *,
    reverse: bool,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    """The gradients of `given` that are wanted, which can be differentiated where grad mode is on.

    d_states [T, B, H] and d_c_last [B, H] are those of `recur`'s results, None for zero.
    """
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, since one of them may have been computed from another.
        own = Given(*(None if t is None else t.view_as(t) for t in given))  # type: ignore[arg-type]
        results = recur(kind, activation, own, reverse=reverse)
        known = [
            (result, d)
            for result, d in zip(results, (d_states, d_c_last), strict=True)
            if result is not None and d is not None
        ]
        asked = [t for t, wants in zip(own, wanted, strict=True) if t is not None and wants]
        outputs, d_outputs = zip(*known, strict=True)
        made = iter(
            torch.autograd.grad(
                outputs, asked, d_outputs, create_graph=create_graph, allow_unused=True
            )
        )
    return tuple(
        next(made) if w and t is not None else None for t, w in zip(own, wanted, strict=True)
    )


def observer(*tensors: Tensor | None) -> str | None:
    """What follows single operations on these tensors, or None if nothing but autograd does."""
    if torch.compiler.is_exporting():
        return "torch.export"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace or torch.onnx.export"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    for tensor in tensors:
        if tensor is not None and type(tensor) not in (Tensor, nn.Parameter):
            return f"a {type(tensor).__name__}"
        if tensor is not None and not torch._C._has_storage(tensor):
            return "a batch of gradients"
    return None
