"""What the engines are held to beside Keras: torch.nn, and the equations step by step in float64.

Both take a network of ours as data, our weights by name, and pictures, and give outputs batch
first. They share no arithmetic with one another or with the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from conformance import Array, Case, as_floats, directions, own_weights
from numpy.typing import NDArray

from rowwise import config
from rowwise.config import Columns, Patches, Permuted, Pixels, Recurrent, Rows
from rowwise.network import Join, Node, Output, Picture, pixel_order

torch = pytest.importorskip(
    "torch", reason="the references run on PyTorch: pip install 'rowwise[torch]'"
)
nn = torch.nn

Weights = Mapping[str, Array]

# --- torch.nn ---------------------------------------------------------------------------------


def tensor(a: Array) -> Any:
    return torch.from_numpy(np.array(a, np.float64))


def fill(module: Any, **values: Array) -> Any:
    """The module in float64 and in evaluation mode, with these parameters and buffers."""
    module = module.double().eval()
    module.load_state_dict({k: tensor(v) for k, v in values.items()}, strict=False)
    unset = {k for k in module.state_dict() if k not in values} - {"num_batches_tracked"}
    assert not unset, unset
    return module


def torch_recurrent(layers: list[tuple[Recurrent, Mapping[str, Array]]]) -> Any:
    """These recurrent layers of one kind as one torch.nn module, stacked."""
    first, mine = layers[0]
    make = {"simple_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[first.kind]
    features = directions(first, mine)[0]["kernel"].shape[0]
    how: dict[str, Any] = {"num_layers": len(layers), "bidirectional": first.bidirectional}
    if first.kind == "simple_rnn":
        how["nonlinearity"] = first.activation
    values: dict[str, Array] = {}
    for depth, (layer, mine) in enumerate(layers):
        for one, way in zip(directions(layer, mine), ("", "_reverse"), strict=False):
            place = f"l{depth}{way}"
            values[f"weight_ih_{place}"] = one["kernel"].T
            values[f"weight_hh_{place}"] = one["recurrent_kernel"].T
            values[f"bias_ih_{place}"] = one["bias"]
            values[f"bias_hh_{place}"] = one.get("recurrent_bias", np.zeros_like(one["bias"]))
    return fill(make(features, first.units, batch_first=True, **how), **values)


TORCH_ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "linear": nn.Identity(),
    "relu": nn.ReLU(),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
}


def _torch_node(node: Node, inputs: list[Any], weights: Weights, shape: tuple[int, int]) -> Any:
    x, mine = inputs[0], own_weights(node, weights)
    match node.layer:
        case Picture():
            return x
        case Rows() | Columns() | Pixels() | Permuted() | Patches() as reading:
            return read(reading, x, shape)
        case config.BatchNorm() as layer:
            norm = nn.BatchNorm1d(x.shape[-1], eps=layer.epsilon)
            named = {"weight": "gamma", "bias": "beta"}
            named |= {"running_mean": "moving_mean", "running_var": "moving_variance"}
            norm = fill(norm, **{theirs: mine[ours] for theirs, ours in named.items()})
            return norm(x.reshape(-1, x.shape[-1])).reshape(x.shape)
        case Recurrent() as layer:
            states, last = torch_recurrent([(layer, mine)])(x)
            if layer.return_sequences:
                return states
            h = last[0] if layer.kind == "lstm" else last
            return torch.cat(list(h), dim=-1)
        case config.Dropout(rate=rate):
            return nn.Dropout(rate).eval()(x)
        case config.Dense() | Output() as layer:
            linear = nn.Linear(x.shape[-1], node.output_shape[-1])
            linear = fill(linear, weight=mine["kernel"].T, bias=mine["bias"])
            return TORCH_ACTIVATIONS[getattr(layer, "activation", "linear")](linear(x))
        case config.Flatten():
            return nn.Flatten()(x)
        case config.Pool(by=by):
            both = {"mean": nn.AdaptiveAvgPool1d(1), "max": nn.AdaptiveMaxPool1d(1)}
            pools = [pool(x.transpose(1, 2))[..., 0] for name, pool in both.items() if name in by]
            return torch.cat(pools, dim=-1)
        case Join():
            return torch.cat(inputs, dim=-1)
    raise TypeError(node)


@cache
def torch_nn_outputs(case: Case) -> dict[str, Array]:
    outputs: dict[str, Any] = {}
    with torch.no_grad():
        for node in case.network.nodes:
            inputs = [outputs[n] for n in node.inbound] or [tensor(as_floats(case.images))]
            outputs[node.name] = _torch_node(node, inputs, case.weights, case.network.shape)
    return {k: v.numpy() for k, v in outputs.items()}


# --- the equations, step by step in float64 ---------------------------------------------------


def read(reading: Any, x: Any, shape: tuple[int, int]) -> Any:
    """A picture [B, rows, columns] as the sequence [B, T, I] that a reading makes of it."""
    rows, columns = shape
    match reading:
        case Rows(before=before, after=after):
            return _with_neighbours(x, before, after)
        case Columns(before=before, after=after):
            turned = torch.stack([x[:, :, c] for c in range(columns)], dim=1)
            return _with_neighbours(turned, before, after)
        case Pixels():
            return torch.stack([x[:, r, c] for r in range(rows) for c in range(columns)], 1)[
                ..., None
            ]
        case Permuted():
            order = pixel_order(reading, shape)[:, 0]
            return torch.stack([x[:, i // columns, i % columns] for i in order], 1)[..., None]
        case Patches(height=h, width=w):
            corners = [(r, c) for r in range(0, rows, h) for c in range(0, columns, w)]
            return torch.stack([x[:, r : r + h, c : c + w].flatten(1) for r, c in corners], 1)
    raise TypeError(reading)


def _with_neighbours(lines: Any, before: int, after: int) -> Any:
    """Lines [B, T, I] with those before and after each beside it, zeros beyond the edge."""
    steps = range(lines.shape[1])
    nothing = torch.zeros_like(lines[:, 0])
    windows = [
        [lines[:, i] if i in steps else nothing for i in range(t - before, t + after + 1)]
        for t in steps
    ]
    return torch.stack([torch.cat(window, dim=1) for window in windows], dim=1)


def unroll(kind: str, activation: str, x: Any, weights: Mapping[str, Any]) -> Any:
    """All states [B, T, H] of one direction, gate by gate and step by step."""
    act = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    names = {"simple_rnn": "h", "lstm": "ifgo", "gru": "rzn"}[kind]
    hidden = weights["recurrent_kernel"].shape[0]
    gates = {
        gate: {k: v[..., g * hidden : (g + 1) * hidden] for k, v in weights.items()}
        for g, gate in enumerate(names)
    }

    def from_input(gate: str, x_t: Any) -> Any:
        return x_t @ gates[gate]["kernel"] + gates[gate]["bias"]

    def from_state(gate: str, h: Any) -> Any:
        return h @ gates[gate]["recurrent_kernel"] + gates[gate].get("recurrent_bias", 0.0)

    h = c = x.new_zeros(len(x), hidden)
    states = []
    for t in range(x.shape[1]):
        z = {gate: (from_input(gate, x[:, t]), from_state(gate, h)) for gate in names}
        if kind == "simple_rnn":
            h = act(sum(z["h"]))
        elif kind == "lstm":
            i, f, o = (torch.sigmoid(sum(z[gate])) for gate in "ifo")
            c = f * c + i * act(sum(z["g"]))
            h = o * act(c)
        else:
            r, u = (torch.sigmoid(sum(z[gate])) for gate in "rz")
            n = act(z["n"][0] + r * z["n"][1])
            h = u * h + (1 - u) * n
        states.append(h)
    return torch.stack(states, dim=1)


def _equation(
    node: Node, inputs: list[Any], mine: dict[str, Any], shape: tuple[int, int], moved: Any
) -> Any:
    x = inputs[0]
    match node.layer:
        case Picture() | config.Dropout():
            return x
        case Rows() | Columns() | Pixels() | Permuted() | Patches() as reading:
            return read(reading, x, shape)
        case config.BatchNorm(momentum=momentum, epsilon=epsilon):
            mean, variance = mine["moving_mean"], mine["moving_variance"]
            if moved is not None:
                axes = tuple(range(x.dim() - 1))
                old = mean, variance
                mean = x.mean(axes)
                variance = ((x - mean) ** 2).mean(axes)
                for key, was, now in zip(("mean", "variance"), old, (mean, variance), strict=True):
                    name = f"{node.name}.moving_{key}"
                    moved[name] = momentum * was + (1 - momentum) * now.detach()
            return mine["gamma"] * (x - mean) / torch.sqrt(variance + epsilon) + mine["beta"]
        case Recurrent() as layer:
            ways = directions(layer, mine)
            ahead = unroll(layer.kind, layer.activation, x, ways[0])
            states, last = [ahead], [ahead[:, -1]]
            if layer.bidirectional:
                back = unroll(layer.kind, layer.activation, x.flip(1), ways[1])
                states, last = [ahead, back.flip(1)], [ahead[:, -1], back[:, -1]]
            return torch.cat(states if layer.return_sequences else last, dim=-1)
        case config.Dense() | Output() as layer:
            z = x @ mine["kernel"] + mine["bias"]
            return TORCH_ACTIVATIONS[getattr(layer, "activation", "linear")](z)
        case config.Flatten():
            return x.reshape(len(x), -1)
        case config.Pool(by=by):
            pools = {"mean": x.mean(1), "max": x.max(dim=1).values}
            return torch.cat([pool for name, pool in pools.items() if name in by], dim=-1)
        case Join():
            return torch.cat(inputs, dim=-1)
    raise TypeError(node)


def equations(case: Case, weights: Mapping[str, Any], images: Array, *, moved: Any = None) -> Any:
    """The logits; with `moved` a dict, in training: it is given the moving statistics after it."""
    outputs: dict[str, Any] = {}
    for node in case.network.nodes:
        inputs = [outputs[n] for n in node.inbound] or [tensor(as_floats(images))]
        mine = own_weights(node, weights)
        outputs[node.name] = _equation(node, inputs, mine, case.network.shape, moved)
    return outputs[case.network.nodes[-1].name]


@cache
def equation_logits(case: Case) -> NDArray[np.float64]:
    weights = {k: tensor(v) for k, v in case.weights.items()}
    logits: NDArray[np.float64] = equations(case, weights, case.images).numpy()
    return logits


@cache
def equation_gradients(case: Case) -> tuple[float, dict[str, Array], dict[str, Array]]:
    """The mean loss over all the case's pictures, its gradients, the moving statistics after it."""
    weights = {k: tensor(v) for k, v in case.weights.items()}
    trainable = {p.name for p in case.network.parameters.values() if p.trainable}
    for name in trainable:
        weights[name].requires_grad_()
    moved: dict[str, Any] = {}
    loss = equation_loss(case, weights, moved)
    loss.backward()
    gradients = {name: weights[name].grad.numpy() for name in weights if name in trainable}
    return float(loss.detach()), gradients, {k: v.numpy() for k, v in moved.items()}


def equation_loss(case: Case, weights: Mapping[str, Any], moved: dict[str, Any]) -> Any:
    """The mean loss in training, which puts the moving statistics after it into `moved`.

    With label smoothing s, the target is (1 - s)·onehot + s/C. With target replication a, the
    loss is a times the steps' mean and 1 - a times the last one's.
    """
    logits = equations(case, weights, case.images, moved=moved)
    smoothing, share = case.experiment.label_smoothing, case.experiment.target_replication
    targets = tensor((1 - smoothing) * np.eye(case.classes)[case.labels] + smoothing / case.classes)
    steps = [logits] if logits.dim() == 2 else [logits[:, t] for t in range(logits.shape[1])]
    losses = [(torch.logsumexp(z, 1) - (targets * z).sum(1)).mean() for z in steps]
    return share * sum(losses) / len(losses) + (1 - share) * losses[-1]
