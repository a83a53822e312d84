"""Recurrent layers for networks in PyTorch: torch.nn's own, made faster on the CPU, and with relu.

`LSTM`, `GRU` and `RNN` are torch.nn's modules with another pass: constructor, parameters, initial
values, state_dict, inputs and outputs are the same, and they are instances of `nn.LSTM` and so on.
`activation` is one argument more. Who runs a layer is a fixed rule:

- the native core, in float32 on the CPU;
- else torch.nn, in double precision, on a GPU, or for packed sequences;
- else, since torch.nn's LSTM and GRU know no relu, the pass of `engines/torch_cells.py`.

`layer.why_not_native(input)` tells which it is.
"""

from __future__ import annotations

from typing import Any, cast

from rowwise.cells import CELLS, Activation, CellKind
from rowwise.errors import EngineError, importing

with importing("torch", "torch"):
    import torch

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence

from rowwise.engines import torch_cells

__all__ = ["GRU", "LSTM", "RNN"]

States = tuple[Tensor, ...]  # (h,) or (h, c), each [layers x directions, B, H]


class _Recurrent(nn.RNNBase):
    """What the three have in common; torch.nn's module stands behind it in the order of bases."""

    kind: CellKind
    activation: Activation

    def why_not_native(self, input: Tensor | PackedSequence) -> str | None:
        """Why the native core does not run this layer over this input, or None where it does."""
        if isinstance(input, PackedSequence):
            return "it reads no packed sequences"
        return torch_cells.why_not_native(cast(Tensor, self.weight_ih_l0))

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """As torch.nn's: output and last states, for input [T, B, I], [B, T, I] or [T, I]."""
        known_to_torch = self.activation == "tanh" or self.kind == "simple_rnn"
        if known_to_torch and self.why_not_native(input) is not None:
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            raise EngineError(
                f"{type(self).__name__} with {self.activation} reads no packed sequences; pad them "
                f"with torch.nn.utils.rnn.pad_packed_sequence"
            )
        given = hx if hx is None or self.kind == "lstm" else (hx,)
        if torch.is_autocast_enabled(input.device.type):
            # The layer before gives half precision there; a recurrence would lose too much in it.
            dtype = cast(Tensor, self.weight_ih_l0).dtype
            given = given and tuple(state.to(dtype) for state in given)
            with torch.autocast(input.device.type, enabled=False):
                output, states = self._run(input.to(dtype), given)
        else:
            output, states = self._run(input, given)
        return output, states if self.kind == "lstm" else states[0]

    def _run(self, input: Tensor, hx: States | None) -> tuple[Tensor, States]:
        """Bring input and states to [T, B, ...] as torch.nn does, and the results back."""
        if input.dim() not in (2, 3):
            raise EngineError(f"the input has 2 or 3 dimensions, got {list(input.shape)}")
        batch_axis = 0 if self.batch_first else 1
        alone = input.dim() == 2
        if alone:
            input = input.unsqueeze(batch_axis)
        if hx is not None:
            for state in hx:
                if state.dim() != (2 if alone else 3):
                    wanted = "[L, H] with the input [T, I]" if alone else "[L, B, H]"
                    raise EngineError(f"initial states are {wanted}, got {list(state.shape)}")
            hx = tuple(state.unsqueeze(1) for state in hx) if alone else hx
            expected = self.get_expected_hidden_size(input, None)
            for state in hx:
                self.check_hidden_size(state, expected)
        self.check_input(input, None)
        x = input.transpose(0, 1) if self.batch_first else input
        output, states = self._through_layers(x, hx)
        if self.batch_first:
            output = output.transpose(0, 1)
        if alone:
            return output.squeeze(batch_axis), tuple(state.squeeze(1) for state in states)
        return output, states

    def _through_layers(self, x: Tensor, hx: States | None) -> tuple[Tensor, States]:
        """All states of the last layer [T, B, D·H] for x [T, B, I], and every layer's last ones."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        last: list[States] = []
        for layer in range(self.num_layers):
            sequences = []
            for suffix in directions:
                begin = (None, None) if hx is None else (*(s[len(last)] for s in hx), None)[:2]
                states, c_last = torch_cells.recur(
                    x,
                    self._weights(f"l{layer}{suffix}", x),
                    kind=self.kind,
                    activation=self.activation,
                    h=begin[0],
                    c=begin[1],
                    reverse=bool(suffix),
                )
                h_last = states[0] if suffix else states[-1]
                last.append((h_last,) if c_last is None else (h_last, c_last))
                sequences.append(states)
            x = torch.cat(sequences, -1) if self.bidirectional else sequences[0]
            if self.dropout and layer < self.num_layers - 1:
                x = F.dropout(x, self.dropout, self.training)
        return x, tuple(torch.stack(states) for states in zip(*last, strict=True))

    def _weights(self, name: str, x: Tensor) -> dict[str, Tensor]:
        """One direction's weights as `cells.CellWeights` has them."""
        own = {
            "kernel": getattr(self, f"weight_ih_{name}").t(),
            "recurrent_kernel": getattr(self, f"weight_hh_{name}").t(),
        }
        if self.bias:
            by_x, by_h = getattr(self, f"bias_ih_{name}"), getattr(self, f"bias_hh_{name}")
        else:
            by_x = by_h = x.new_zeros(own["kernel"].shape[1])
        if CELLS[self.kind].has_recurrent_bias:
            return {**own, "bias": by_x, "recurrent_bias": by_h}
        return {**own, "bias": by_x + by_h}

    def extra_repr(self) -> str:
        """As torch.nn's, and the activation where it is not tanh."""
        told = super().extra_repr()
        return told if self.activation == "tanh" else f"{told}, activation={self.activation}"


class LSTM(_Recurrent, nn.LSTM):
    """`torch.nn.LSTM`, by the native core where it can; with relu, both tanh become relu.

    i, f, o = σ(·), g = act(·); c' = f c + i g; h' = o act(c'). The arguments are torch.nn's, but
    for `proj_size`, which is refused, and `activation`, "tanh" or "relu".
    """

    kind = "lstm"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: Activation = "tanh",
    ) -> None:
        if proj_size:
            raise EngineError(
                f"rowwise.torch.LSTM has no projections, got proj_size={proj_size}; "
                f"take torch.nn.LSTM, or a Linear layer behind it"
            )
        layout = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(*layout, device=device, dtype=dtype)
        self.activation = _checked(activation)


class GRU(_Recurrent, nn.GRU):
    """`torch.nn.GRU`, by the native core where it can; with relu, the candidate's tanh is relu.

    r, z = σ(·); n = act(x W + b + r (h U + c)); h' = z h + (1 - z) n. The arguments are torch.nn's,
    and `activation`, "tanh" or "relu".
    """

    kind = "gru"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: Activation = "tanh",
    ) -> None:
        layout = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(*layout, device=device, dtype=dtype)
        self.activation = _checked(activation)


class RNN(_Recurrent, nn.RNN):
    """`torch.nn.RNN`, by the native core where it can.

    h' = act(x W + h U + b). The arguments are torch.nn's; `activation` is another name for its
    `nonlinearity`.
    """

    kind = "simple_rnn"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Activation = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        activation: Activation | None = None,
    ) -> None:
        if activation not in (None, nonlinearity) and nonlinearity != "tanh":
            raise EngineError(
                f"activation and nonlinearity are one thing, got {activation!r} and "
                f"{nonlinearity!r}; give one of them"
            )
        act = _checked(nonlinearity if activation is None else activation)
        layout = (input_size, hidden_size, num_layers, act)
        more = (bias, batch_first, dropout, bidirectional)
        super().__init__(*layout, *more, device=device, dtype=dtype)
        self.activation = act


def _checked(activation: str) -> Activation:
    if activation not in ("tanh", "relu"):
        raise EngineError(f"an activation is tanh or relu, got {activation!r}")
    return cast(Activation, activation)
