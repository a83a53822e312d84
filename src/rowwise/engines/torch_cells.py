"""Recurrences for autograd: each cell's forward and backward pass through time, written out.

Autograd over single steps spends two thirds of a small network's time in Python and in bookkeeping;
here a layer is one node of the graph. `recur` is the door: on the CPU in float32 the native core
runs it where there is one, and everything else runs here, in PyTorch's operations. The projections
of all inputs, and all weight gradients, are then one matrix product each; only h U and its
transpose stay inside the loop over time. Sequences are time-major, [T, B, ...]. `torch.nn.LSTM`
knows no relu; these do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from rowwise.cells import Activation, CellKind
from rowwise.engines import native_recurrence, torch_steps
from rowwise.engines.torch_steps import Given


class Tape(NamedTuple):
    """What a forward pass fills and the backward pass reads.

    states [T + 1, B, H], the initial state first; gates [T, B, G·H], before the pass x W + b and
    after it the gates' activations (of the simple RNN, whose gate is its state, left as they were);
    extra: the LSTM's cell states [T + 1, B, H] and their activations [T, B, H], or the recurrent
    part of the GRU's candidate [T, B, H].
    """

    states: Tensor
    gates: Tensor
    extra: tuple[Tensor, ...] = ()

    @classmethod
    def blank(
        cls, kind: CellKind, projected: Tensor, hidden: int, h: Tensor | None, c: Tensor | None
    ) -> Tape:
        """A tape for `projected` = x W + b [T, B, G·H], which becomes its gates."""
        steps, batch, _ = projected.shape
        before = _beginning(h, projected.new_zeros(steps + 1, batch, hidden))
        if kind == "simple_rnn":
            return cls(before, projected)
        one = projected.new_empty(steps, batch, hidden)
        extra = (_beginning(c, torch.zeros_like(before)), one) if kind == "lstm" else (one,)
        return cls(before, projected, extra)


def _beginning(initial: Tensor | None, states: Tensor) -> Tensor:
    if initial is not None:
        states[0] = initial
    return states


class Gradients(NamedTuple):
    """Gradients of the two projections, each [T, B, G·H]: of x W + b and of h U (+ c).

    They are one and the same tensor but for the GRU. carried [B, H] goes from step to step: the
    LSTM's gradient of c, or what reaches the GRU's h past the last step that was done.
    """

    inputs: Tensor
    recurrent: Tensor
    carried: Tensor


_tanh_backward = torch.ops.aten.tanh_backward.grad_input
_relu_backward = torch.ops.aten.threshold_backward.grad_input
_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def _activate_(activation: Activation, z: Tensor) -> Tensor:
    return z.tanh_() if activation == "tanh" else z.relu_()


def _scale_by_slope_(activation: Activation, gradient: Tensor, y: Tensor) -> Tensor:
    """gradient · act'(z), from y = act(z): 1 - y² for tanh, [y > 0] for relu; in place."""
    if activation == "tanh":
        _tanh_backward(gradient, y, grad_input=gradient)
    else:
        _relu_backward(gradient, y, 0, grad_input=gradient)
    return gradient


def _scale_by_sigmoid_slope_(gradient: Tensor, y: Tensor) -> Tensor:
    """gradient · y (1 - y), in place."""
    _sigmoid_backward(gradient, y, grad_input=gradient)
    return gradient


def _simple_rnn_forward(tape: Tape, u: Tensor, bias: Tensor | None, act: Activation) -> None:
    states = tape.states
    for t, z in enumerate(tape.gates):
        _activate_(act, torch.addmm(z, states[t], u, out=states[t + 1]))


def _simple_rnn_backward(
    tape: Tape, into: Gradients, ut: Tensor, d_states: Tensor, act: Activation
) -> None:
    dz = into.inputs
    later: Tensor | None = None
    for t in reversed(range(len(dz))):
        if later is None:
            dz[t].copy_(d_states[t])
        else:
            torch.addmm(d_states[t], later, ut, out=dz[t])
        later = _scale_by_slope_(act, dz[t], tape.states[t + 1])


def _lstm_forward(tape: Tape, u: Tensor, bias: Tensor | None, act: Activation) -> None:
    states, (memory, squashed) = tape.states, tape.extra
    hidden = u.shape[0]
    for t, gates in enumerate(tape.gates):
        gates.addmm_(states[t], u)
        i, f, g, o = torch.split(gates, hidden, 1)
        gates[:, : 2 * hidden].sigmoid_()
        _activate_(act, g)
        o.sigmoid_()
        c = torch.mul(f, memory[t], out=memory[t + 1]).addcmul_(i, g)
        torch.mul(o, _activate_(act, squashed[t].copy_(c)), out=states[t + 1])


def _lstm_backward(
    tape: Tape, into: Gradients, ut: Tensor, d_states: Tensor, act: Activation
) -> None:
    memory, squashed = tape.extra
    hidden = ut.shape[1]
    both = slice(0, 2 * hidden)
    dc = into.carried
    through = torch.empty_like(dc)
    dh = d_states[-1]
    for t in reversed(range(len(into.inputs))):
        gates, dz = tape.gates[t], into.inputs[t]
        i, f, g, o = torch.split(gates, hidden, 1)
        di, df, dg, do = torch.split(dz, hidden, 1)
        torch.mul(dh, squashed[t], out=do)
        torch.mul(dh, o, out=through)
        dc.add_(_scale_by_slope_(act, through, squashed[t]))
        torch.mul(dc, g, out=di)
        torch.mul(dc, memory[t], out=df)
        torch.mul(dc, i, out=dg)
        dc.mul_(f)
        _scale_by_slope_(act, dg, g)
        _scale_by_sigmoid_slope_(dz[:, both], gates[:, both])
        _scale_by_sigmoid_slope_(do, o)
        if t:
            dh = torch.addmm(d_states[t - 1], dz, ut)


def _gru_forward(tape: Tape, u: Tensor, bias: Tensor | None, act: Activation) -> None:
    assert bias is not None
    states, (candidates,) = tape.states, tape.extra
    hidden = u.shape[0]
    both, last = slice(0, 2 * hidden), slice(2 * hidden, 3 * hidden)
    for t, gates in enumerate(tape.gates):
        by_h = torch.addmm(bias, states[t], u)
        r, update, n = torch.split(gates, hidden, 1)
        gates[:, both].add_(by_h[:, both]).sigmoid_()
        _activate_(act, n.addcmul_(r, candidates[t].copy_(by_h[:, last])))
        torch.lerp(n, states[t], update, out=states[t + 1])


def _gru_backward(
    tape: Tape, into: Gradients, ut: Tensor, d_states: Tensor, act: Activation
) -> None:
    (candidates,) = tape.extra
    hidden = ut.shape[1]
    both, last = slice(0, 2 * hidden), slice(2 * hidden, 3 * hidden)
    dh = into.carried
    for t in reversed(range(len(into.inputs))):
        gates, dx, du = tape.gates[t], into.inputs[t], into.recurrent[t]
        r, update, n = torch.split(gates, hidden, 1)
        dr, d_update, dn = torch.split(dx, hidden, 1)
        dh.add_(d_states[t])
        torch.sub(tape.states[t], n, out=d_update).mul_(dh)
        torch.sub(dh, dh * update, out=dn)
        _scale_by_slope_(act, dn, n)
        torch.mul(dn, candidates[t], out=dr)
        _scale_by_sigmoid_slope_(dx[:, both], gates[:, both])
        du[:, both].copy_(dx[:, both])
        torch.mul(dn, r, out=du[:, last])
        dh.mul_(update).addmm_(du, ut)


_Forward = Callable[[Tape, Tensor, Tensor | None, Activation], None]
_Backward = Callable[[Tape, Gradients, Tensor, Tensor, Activation], None]
_PASSES: dict[CellKind, tuple[_Forward, _Backward]] = {
    "simple_rnn": (_simple_rnn_forward, _simple_rnn_backward),
    "lstm": (_lstm_forward, _lstm_backward),
    "gru": (_gru_forward, _gru_backward),
}


class Recurrence(torch.autograd.Function):
    """One direction of a recurrent layer over a whole sequence."""

    @staticmethod
    def forward(
        ctx: Any,
        kind: CellKind,
        activation: Activation,
        needs_backward: bool,
        x: Tensor,
        kernel: Tensor,
        recurrent_kernel: Tensor,
        bias: Tensor,
        recurrent_bias: Tensor | None,
        h: Tensor | None,
        c: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """x [T, B, I] → all hidden states [T, B, H]; of an LSTM also the last cell state [B, H]."""
        steps, batch, features = x.shape
        projected = torch.addmm(bias, x.reshape(steps * batch, features), kernel)
        projected = projected.view(steps, batch, kernel.shape[1])
        tape = Tape.blank(kind, projected, recurrent_kernel.shape[0], h, c)
        run, _ = _PASSES[kind]
        run(tape, recurrent_kernel, recurrent_bias, activation)
        if needs_backward:
            ctx.kind, ctx.activation = kind, activation
            # Of the tape, the states alone are in others' hands, who might write into them.
            given = Given(x, kernel, recurrent_kernel, bias, recurrent_bias, h, c)
            ctx.save_for_backward(*given, tape.states)
            ctx.tape = tape
        return tape.states[1:], tape.extra[0][-1].clone() if kind == "lstm" else None

    @staticmethod
    def backward(
        ctx: Any, d_states: Tensor, d_c_last: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """Back through time (Werbos 1990): the gradients of x, of each weight and of the state."""
        *saved, _ = ctx.saved_tensors
        given = Given(*saved)
        if torch.is_grad_enabled() or torch_steps.observer(d_states, d_c_last):
            what = (ctx.kind, ctx.activation, given, d_states, d_c_last)
            wanted = ctx.needs_input_grad[3:]
            return None, None, None, *torch_steps.gradients(*what, reverse=False, wanted=wanted)
        x, kernel, u = given[:3]
        tape: Tape = ctx.tape
        _, run = _PASSES[ctx.kind]
        dz = torch.empty_like(tape.gates)
        carried = torch.zeros_like(tape.states[0]) if d_c_last is None else d_c_last.clone()
        into = Gradients(dz, torch.empty_like(dz) if ctx.kind == "gru" else dz, carried)
        ut = u.t().contiguous()  # a product with a transposed view is a fifth slower
        run(tape, into, ut, d_states, ctx.activation)
        _, _, _, wants_x, _, _, _, wants_recurrent_bias, wants_h, wants_c = ctx.needs_input_grad
        flat_dz, flat_du = dz.flatten(0, 1), into.recurrent.flatten(0, 1)
        h_prev = tape.states[:-1].flatten(0, 1)
        d_h = None
        if wants_h:
            d_h = carried if ctx.kind == "gru" else into.recurrent[0] @ ut
        return (
            None,
            None,
            None,
            (flat_dz @ kernel.t()).view_as(x) if wants_x else None,
            x.flatten(0, 1).t() @ flat_dz,
            h_prev.t() @ flat_du,
            flat_dz.sum(0),
            flat_du.sum(0) if wants_recurrent_bias else None,
            d_h,
            carried if wants_c else None,
        )


def why_not_native(*tensors: Tensor) -> str | None:
    """Why the native core does not run recurrences over tensors like these, or None if it does.

    It runs those in float32 on the CPU, if it is there.
    """
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"it runs on the CPU, not on {tensor.device}"
        if tensor.dtype != torch.float32:
            return f"it computes in float32, not in {tensor.dtype}"
    library = native_recurrence.library()
    return library if isinstance(library, str) else None


def recur(
    x: Tensor,
    weights: Mapping[str, Tensor],
    *,
    kind: CellKind,
    activation: Activation,
    h: Tensor | None = None,
    c: Tensor | None = None,
    reverse: bool = False,
    path: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """One direction over x [T, B, I]: all hidden states [T, B, H], and an LSTM's last c [B, H].

    weights as in `cells.CellWeights`; h and c [B, H] are the initial state, None for zero. With
    `reverse` the last step is read first; the states stand in the order of x all the same. `path`
    is the core's processor path or "" for PyTorch; by default the core runs what it can, on its
    best path. What follows PyTorch's operations sees them in any case.
    """
    given = Given(
        x,
        weights["kernel"],
        weights["recurrent_kernel"],
        weights["bias"],
        weights.get("recurrent_bias"),
        h,
        c,
    )
    if torch_steps.observer(*given):
        return torch_steps.recur(kind, activation, given, reverse=reverse)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    runs_natively = native_recurrence.knows(kind, activation) and why_not_native(x) is None
    if runs_natively if path is None else path:
        way = native_recurrence.Way(kind, activation, reverse, path)
        read = native_recurrence.NativeRecurrence.apply(way, keep, *given)  # type: ignore[no-untyped-call]
        return cast(tuple[Tensor, Tensor | None], read)
    if reverse:
        given = given._replace(x=x.flip(0))
    states, c_last = Recurrence.apply(kind, activation, keep, *given)  # type: ignore[no-untyped-call]
    return states.flip(0) if reverse else states, c_last
