"""Recurrent layers for networks in PyTorch: torch.nn's own, made faster on the CPU, and with relu.

`LSTM`, `GRU` and `RNN` are torch.nn's modules with another pass: constructor, parameters, initial
values, state_dict, inputs and outputs are the same, and they are instances of `nn.LSTM` and so on.
`activation` is one argument more. Who runs a layer is a fixed rule:

- the native core, in float32 on the CPU;
- else torch.nn, in double precision, on a GPU, for packed sequences or projections, and where
  single operations are followed: torch.func, forward mode, traces and exports;
- else, since torch.nn's LSTM and GRU know no relu, the passes of `engines/torch_cells.py`.

Second derivatives are those of single steps (`engines/torch_steps.py`).

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

from rowwise.engines import torch_cells, torch_steps

__all__ = ["GRU", "LSTM", "RNN"]

States = tuple[Tensor, ...]  # (h,) or (h, c), each [layers x directions, B, H]; () for zero

_CAST = (torch.float32, torch.float16, torch.bfloat16)  # what autocast casts


class _Recurrent(nn.RNNBase):
    """What the three have in common; torch.nn's module stands behind it in the order of bases."""

    kind: CellKind
    activation: Activation

    def why_not_native(self, input: Tensor | PackedSequence, hx: Any = None) -> str | None:
        """Why the native core does not run this layer over this input, or None where it does."""
        if isinstance(input, PackedSequence):
            return "it reads no packed sequences"
        if self.proj_size:
            return "it has no projections"
        weights = [weight for own in self.all_weights for weight in own]
        observer = torch_steps.observer(input, *self._as_states(hx), *weights)
        if observer is not None:
            return f"its operations are hidden from {observer}"
        return torch_cells.why_not_native(*weights)

    @property
    def _known_to_torch(self) -> bool:
        return self.activation == "tanh" or self.kind == "simple_rnn"

    def _as_states(self, hx: Any) -> States:
        """What the caller gave as `hx`, of whatever types."""
        if hx is None:
            return ()
        return tuple(hx) if self.kind == "lstm" and isinstance(hx, (tuple, list)) else (hx,)

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:
        """As torch.nn's: output and last states, for input [T, B, I], [B, T, I] or [T, I].

        Raises what torch.nn's layer raises, and EngineError for packed sequences with relu.
        """
        if self._known_to_torch and self.why_not_native(input, hx) is not None:
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            raise EngineError(
                f"{type(self).__name__} with {self.activation} reads no packed sequences; pad them "
                f"with torch.nn.utils.rnn.pad_packed_sequence"
            )
        given = self._as_states(hx)
        if not self._fit(input, given):
            refused = super().forward(input, hx)  # torch.nn says what is wrong
            if self._known_to_torch:
                return refused
            raise EngineError(
                f"{type(self).__name__} with {self.activation} cannot read {input.dtype} "
                f"{list(input.shape)} with these states; give what torch.nn's layer takes"
            )
        half = _autocast_dtype(input.device)
        if half is None:
            output, states = self._run(input, given)
        else:
            # A recurrence would lose too much in half precision; its results are in torch's types,
            # whose GRU adds what it is given of a state.
            own = cast(Tensor, self.weight_ih_l0).dtype
            if self.kind == "gru":
                half = torch.promote_types(half, (*given, input)[0].dtype)
            with torch.autocast(input.device.type, enabled=False):
                output, states = self._run(input.to(own), tuple(s.to(own) for s in given))
            if own != torch.float64:
                output, states = output.to(half), tuple(state.to(half) for state in states)
        return output, states if self.kind == "lstm" else states[0]

    def _fit(self, input: Tensor, hx: States) -> bool:
        """Whether these are an input and initial states, of sizes and types that torch.nn takes."""
        if not all(isinstance(t, Tensor) and t.layout == torch.strided for t in (input, *hx)):
            return False
        if input.dim() not in (2, 3) or input.size(-1) != self.input_size:
            return False
        time_axis = 1 if self.batch_first and input.dim() == 3 else 0
        batch = [input.size(1 - time_axis)] if input.dim() == 3 else []
        shape = [self.num_layers * (2 if self.bidirectional else 1), *batch, self.hidden_size]
        if not input.size(time_axis) or len(hx) not in (0, CELLS[self.kind].states):
            return False
        own = cast(Tensor, self.weight_ih_l0)
        half = _autocast_dtype(own.device)
        types = (own.dtype,) if half is None or own.dtype == torch.float64 else _CAST
        return all(list(state.shape) == shape for state in hx) and all(
            t.device == own.device and t.dtype in types for t in (input, *hx)
        )

    def _run(self, input: Tensor, hx: States) -> tuple[Tensor, States]:
        """Bring input and states to [T, B, ...] as torch.nn does, and the results back."""
        batch_axis = 0 if self.batch_first else 1
        alone = input.dim() == 2
        if alone:
            input = input.unsqueeze(batch_axis)
            hx = tuple(state.unsqueeze(1) for state in hx)
        x = input.transpose(0, 1) if self.batch_first else input
        output, states = self._through_layers(x, hx)
        if self.batch_first:
            output = output.transpose(0, 1)
        if alone:
            return output.squeeze(batch_axis), tuple(state.squeeze(1) for state in states)
        return output, states

    def _through_layers(self, x: Tensor, hx: States) -> tuple[Tensor, States]:
        """All states of the last layer [T, B, D·H] for x [T, B, I], and every layer's last ones."""
        directions = ("", "_reverse") if self.bidirectional else ("",)
        last: list[States] = []
        for layer in range(self.num_layers):
            sequences = []
            for suffix in directions:
                begin = (*(s[len(last)] for s in hx), None, None)[:2]
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

    def __prepare_scriptable__(self) -> nn.Module:
        """What torch.jit.script compiles in the place of this layer: torch.nn's, of its weights."""
        if not self._known_to_torch:
            raise EngineError(
                f"torch.jit.script knows no {type(self).__name__} with {self.activation}; "
                f"record it with torch.jit.trace or torch.export"
            )
        theirs = next(base for base in type(self).__mro__ if base.__module__ == nn.RNN.__module__)
        twin = cast(nn.Module, object.__new__(theirs))
        twin.__dict__.update(self.__dict__)
        return twin

    def extra_repr(self) -> str:
        """As torch.nn's, and the activation where it is not tanh."""
        told = super().extra_repr()
        return told if self.activation == "tanh" else f"{told}, activation={self.activation}"


class LSTM(_Recurrent, nn.LSTM):
    """`torch.nn.LSTM`, by the native core where it can; with relu, both tanh become relu.

    i, f, o = σ(·), g = act(·); c' = f c + i g; h' = o act(c'). The arguments are torch.nn's, and
    `activation`, "tanh" or "relu"; relu knows no `proj_size`.
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
        if proj_size and _checked(activation) == "relu":
            raise EngineError(
                f"an LSTM with relu has no projections, got proj_size={proj_size}; "
                f"put a Linear layer behind it"
            )
        layout = (input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        super().__init__(*layout, proj_size=proj_size, device=device, dtype=dtype)
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
        act = nonlinearity if activation is None else _checked(activation)
        layout = (input_size, hidden_size, num_layers, act)
        more = (bias, batch_first, dropout, bidirectional)
        super().__init__(*layout, *more, device=device, dtype=dtype)
        self.activation = act


def _autocast_dtype(device: torch.device) -> torch.dtype | None:
    """What autocast casts to on this device, or None where it casts nothing."""
    if not torch.amp.is_autocast_available(device.type):
        return None
    if not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)


def _checked(activation: str) -> Activation:
    if activation not in ("tanh", "relu"):
        raise EngineError(f"an activation is tanh or relu, got {activation!r}")
    return cast(Activation, activation)
