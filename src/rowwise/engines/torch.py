"""The torch engine: PyTorch's autograd on the CPU or a GPU, Keras' semantics.

On the CPU in float32 the native core runs the recurrent layers, where there is one (`path`).

Inside, sequences are time-major [T, B, F], so that a time step is contiguous; pictures come in and
probabilities go out batch-major. All parameters live in one flat vector, so that an optimiser's
step is a few operations on one long tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rowwise import config, core, engines
from rowwise.engines.torch_cells import recur, why_not_native
from rowwise.engines.torch_optimizers import UPDATES
from rowwise.errors import EngineError
from rowwise.network import READINGS, Join, Network, Node, Output, Picture, pixel_order

Array = NDArray[Any]

name = "torch"
precisions: tuple[engines.Precision, ...] = ("float32",)
EVALUATION_BATCH = 500
_ALIGNMENT = 16  # elements: every parameter starts on a 64-byte line


def why_not(network: Network, *, training: bool) -> str | None:
    """Why this engine cannot serve, or None where it can: it runs every network there is."""
    return None


def path() -> str:
    """The core's processor path on which recurrent layers run here, "" where PyTorch runs them."""
    return "" if why_not_native(torch.empty(0, device=_device())) else core.best()


def predict(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    batch: int = EVALUATION_BATCH,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, C] float32 for images [N, rows, columns], uint8 or float in [0, 1]."""
    return beliefs(network, weights, images, batch=batch, threads=threads)[:, -1]


def beliefs(
    network: Network,
    weights: Mapping[str, Array],
    images: Array,
    *,
    batch: int = EVALUATION_BATCH,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Probabilities [N, T, C] float32 after each step at which the closing layer stands."""
    if not len(images):
        return np.empty((0, network.steps, network.classes), np.float32)
    graph = _Graph(network, weights, dtype=torch.float32, device=_device())
    pixels = _pixels(images, graph)
    with _threads(threads), torch.no_grad():
        done = [
            torch.softmax(graph.logits(part), 2).transpose(0, 1).float().cpu().numpy()
            for part in torch.split(pixels, batch)
        ]
    return np.concatenate(done)


class Trainer:
    """Moves one network's weights over one set of labelled pictures, some steps at a call.

    images [N, rows, columns] uint8 or float in [0, 1]; labels int64 [N]; `state` as `state()`
    returns it (to go on) or a network's initial weights (to begin). `seed` drives dropout alone;
    the order of the pictures comes with each call. `path` is the core's for the recurrent layers,
    "" for none of it; by default the core runs what it can.
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
        dtype: type = np.float32,
    ) -> None:
        if precision not in precisions:
            raise EngineError(f"the torch engine trains in float32, got {precision!r}")
        floats = torch.float64 if dtype is np.float64 else torch.float32
        self._graph = _Graph(network, state, dtype=floats, device=_device(), path=path)
        self._images = _pixels(images, self._graph)
        self._labels = torch.from_numpy(np.array(labels)).to(self._graph.device)
        self._update = UPDATES[network.experiment.optimizer.kind]
        self._slots = self._graph.slots(network.experiment.optimizer, state)
        self._experiment = network.experiment
        self._dropout = torch.Generator(self._graph.device)
        self._seed = seed
        self._thread_count = threads

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
        both before the step moves the weights.
        """
        losses: list[Tensor] = []
        right: list[Tensor] = []
        with _threads(self._thread_count):
            pixels, labels = self._images, self._labels
            places = torch.from_numpy(order).to(self._graph.device)
            if given is not None:
                pixels = _pixels(given.images, self._graph)
                labels = torch.from_numpy(np.array(given.labels)).to(self._graph.device)
                places = torch.arange(len(order), device=self._graph.device)
            for i, (part, rate) in enumerate(zip(torch.split(places, batch), rates, strict=True)):
                mean, correct = self._step(pixels[part], labels[part], first_step + i, float(rate))
                losses.append(mean.double() * len(part))
                right.append(correct)
            # Tensors are read at the end, as a GPU would have to be waited for at each step.
            return torch.stack(losses).cpu().numpy(), torch.stack(right).cpu().numpy()

    def evaluate(
        self, images: Array, labels: NDArray[np.int64], *, batch: int = EVALUATION_BATCH
    ) -> tuple[float, int]:
        """The sum of the loss over these pictures, and the number of right answers."""
        pixels = _pixels(images, self._graph)
        truth = torch.from_numpy(np.array(labels)).to(self._graph.device)
        with _threads(self._thread_count), torch.no_grad():
            loss, right = 0.0, 0
            for x, y in zip(torch.split(pixels, batch), torch.split(truth, batch), strict=True):
                logits = self._graph.logits(x)
                loss += float(self._loss(logits, y, reduction="sum").double())
                right += int((logits[-1].argmax(1) == y).sum())
        return loss, right

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """The network's weights as they are now, copied."""
        return {k: v.detach().float().cpu().numpy().copy() for k, v in self._graph.tensors.items()}

    def state(self) -> dict[str, Array]:
        """Weights, and the optimiser's slots as `slots/NAME/PARAMETER`: enough to go on exactly."""
        state: dict[str, Array] = {
            k: v.detach().cpu().numpy().copy() for k, v in self._graph.tensors.items()
        }
        for slot, flat in self._slots.items():
            for key, view in self._graph.views(flat).items():
                state[f"slots/{slot}/{key}"] = view.cpu().numpy().copy()
        return state

    def gradients(self, indices: NDArray[np.int64]) -> dict[str, Array]:
        """The mean loss' gradient of every trainable parameter on these pictures; nothing moves."""
        frozen = {k: v.clone() for k, v in self._graph.moving.items()}
        part = torch.from_numpy(indices).to(self._graph.device)
        _, _, gradient = self._backward(self._images[part], self._labels[part], 0)
        for key, value in frozen.items():
            self._graph.moving[key].copy_(value)
        return {k: v.cpu().numpy().copy() for k, v in self._graph.views(gradient).items()}

    def _step(
        self, pixels: Tensor, labels: Tensor, step: int, rate: float
    ) -> tuple[Tensor, Tensor]:
        loss, correct, gradient = self._backward(pixels, labels, step)
        with torch.no_grad():
            self._clip(gradient)
            optimizer = self._experiment.optimizer
            self._update(optimizer, self._graph.flat, gradient, self._slots, step + 1, rate)
        return loss, correct

    def _backward(self, pixels: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, number of right answers, and the flat gradient for one batch."""
        # A generator that starts anew at each step makes a resumed run draw the same masks. On the
        # CPU it hears the low 32 bits of its seed alone, so seed and step are mixed into them.
        mixed = np.random.SeedSequence([self._seed, step]).generate_state(1, np.uint64)
        self._dropout.manual_seed(int(mixed[0]))
        logits = self._graph.logits(pixels, dropout=self._dropout)
        loss = self._loss(logits, labels)
        gradient = self._graph.gradient(loss)
        correct = (logits[-1].detach().argmax(1) == labels).sum()
        return loss.detach(), correct, gradient

    def _loss(self, logits: Tensor, labels: Tensor, *, reduction: str = "mean") -> Tensor:
        """Cross-entropy against the targets (1 - s)·onehot + s/C, with s the label smoothing.

        Of logits [T, B, C] it is a·(mean over steps) + (1 - a)·(the last one's). Where a label is
        -1, the target is 1/C for each class.
        """
        truth = labels
        if (labels < 0).any():
            classes = logits.shape[-1]
            truth = F.one_hot(labels.clamp(min=0), classes).to(logits.dtype)
            truth[labels < 0] = 1 / classes

        def one(step: Tensor) -> Tensor:
            smoothing = self._experiment.label_smoothing
            return F.cross_entropy(step, truth, reduction=reduction, label_smoothing=smoothing)

        share = self._experiment.target_replication
        last = one(logits[-1])
        if not share:
            return last
        return share * torch.stack([one(step) for step in logits]).mean() + (1 - share) * last

    def _clip(self, gradient: Tensor) -> None:
        clipping = self._experiment.clipping
        if clipping is None:
            return
        limit = clipping.limit
        if clipping.by == "value":
            gradient.clamp_(-limit, limit)
            return
        whole = clipping.by == "global_norm"
        for one in [gradient] if whole else self._graph.views(gradient).values():
            norm = one.norm()
            one.mul_(torch.where(norm > limit, limit / norm, torch.ones_like(norm)))


class _Graph:
    """A network's tensors, and its forward pass."""

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, Array],
        *,
        dtype: torch.dtype,
        device: torch.device,
        path: str | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._path = path
        self._nodes = network.nodes
        self._orders = {
            node.name: torch.from_numpy(pixel_order(node.layer, network.shape)).to(device)
            for node in network.nodes
            if isinstance(node.layer, READINGS)
        }
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        size = 0
        for p in network.parameters.values():
            if p.trainable:
                self._places[p.name] = (size, p.shape)
                size += -(-p.size // _ALIGNMENT) * _ALIGNMENT
        self.flat = torch.zeros(size, dtype=dtype, device=device)
        self._leaves = {k: v.requires_grad_() for k, v in self.views(self.flat).items()}
        self.moving: dict[str, Tensor] = {}
        for key, p in network.parameters.items():
            value = torch.from_numpy(np.array(weights[key])).to(device, dtype)
            if p.trainable:
                self._leaves[key].data.copy_(value)
            else:
                self.moving[key] = value
        everything = {**self._leaves, **self.moving}
        self.tensors = {k: everything[k] for k in network.parameters}

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """A flat vector's parts by parameter name, each in its shape."""
        views = {}
        for key, (start, shape) in self._places.items():
            views[key] = flat[start : start + int(np.prod(shape))].view(shape).detach()
        return views

    def slots(self, optimizer: config.Optimizer, state: Mapping[str, Array]) -> dict[str, Tensor]:
        """The optimiser's flat slots, from a saved state where it has them, else zero."""
        slots = {slot: torch.zeros_like(self.flat) for slot in engines.slot_names(optimizer)}
        for slot, flat in slots.items():
            for key, view in self.views(flat).items():
                saved = state.get(f"slots/{slot}/{key}")
                if saved is not None:
                    view.copy_(torch.from_numpy(np.array(saved)))
        return slots

    def gradient(self, loss: Tensor) -> Tensor:
        """The loss' gradient as one flat vector."""
        flat = torch.zeros_like(self.flat)
        gradients = torch.autograd.grad(loss, list(self._leaves.values()))
        for view, gradient in zip(self.views(flat).values(), gradients, strict=True):
            view.copy_(gradient)
        return flat

    def logits(self, images: Tensor, *, dropout: torch.Generator | None = None) -> Tensor:
        """Logits [T, B, C] at the T steps of the closing layer, of flat images [B, pixels].

        With `dropout` given, in training.
        """
        pixels = images.to(self.dtype)
        if images.dtype == torch.uint8:
            pixels = pixels / 255
        outputs: dict[str, Tensor] = {}
        for node in self._nodes:
            inputs = [outputs[inbound] for inbound in node.inbound]
            outputs[node.name] = self._apply(node, inputs, pixels, dropout)
        logits = outputs[self._nodes[-1].name]
        return logits if logits.dim() == 3 else logits[None]

    def _apply(
        self, node: Node, inputs: list[Tensor], pixels: Tensor, dropout: torch.Generator | None
    ) -> Tensor:
        mine = {p.name.removeprefix(f"{node.name}."): self.tensors[p.name] for p in node.parameters}
        match node.layer:
            case Picture():
                rows, columns = node.output_shape
                return pixels.view(-1, rows, columns).transpose(0, 1).contiguous()
            case layer if isinstance(layer, READINGS):
                order = self._orders[node.name]
                edged = F.pad(pixels.t(), (0, 0, 0, 1))  # OUTSIDE is the last: a zero
                taken = edged.index_select(0, order.reshape(-1) % len(edged))
                return taken.view(*order.shape, -1).transpose(1, 2).contiguous()
            case config.BatchNorm() as layer:
                return _batch_norm(layer, inputs[0], mine, training=dropout is not None)
            case config.Recurrent() as layer:
                return _recurrent(layer, inputs[0], mine, path=self._path)
            case config.Dropout(rate=rate):
                return inputs[0] if dropout is None else _drop(inputs[0], rate, dropout)
            case config.Dense(activation=activation):
                return _ACTIVATIONS[activation](_affine(inputs[0], mine))
            case Output():
                return _affine(inputs[0], mine)
            case config.Flatten():
                x = inputs[0]
                return x.transpose(0, 1).flatten(1) if x.dim() == 3 else x
            case config.Pool(by=by):
                x = inputs[0]
                pools = [x.mean(0) if one == "mean" else x.amax(0) for one in by.split("_")]
                return torch.cat(pools, dim=-1)
            case Join():
                return torch.cat(inputs, dim=-1)
        raise TypeError(f"{node.layer!r} is not a layer")


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda z: z,
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def _affine(x: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    return F.linear(x, weights["kernel"].t(), weights["bias"])


def _drop(x: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    keep = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator) >= rate
    return x * keep / (1 - rate)


def _batch_norm(
    layer: config.BatchNorm, x: Tensor, weights: Mapping[str, Tensor], *, training: bool
) -> Tensor:
    """Over the last axis; in training the batch's biased statistics also move the running ones."""
    mean, variance = weights["moving_mean"], weights["moving_variance"]
    flat = x.reshape(-1, x.shape[-1])
    if training:
        with torch.no_grad():
            batch_variance, batch_mean = torch.var_mean(flat, 0, correction=0)
            mean.lerp_(batch_mean, 1 - layer.momentum)
            variance.lerp_(batch_variance, 1 - layer.momentum)
    # F.batch_norm is this call behind a refusal of batches of one, whose variance is simply 0.
    y = torch.batch_norm(
        flat,
        weights["gamma"],
        weights["beta"],
        None if training else mean,
        None if training else variance,
        training,
        0.0,
        layer.epsilon,
        torch.backends.cudnn.enabled,
    )
    return y.view_as(x)


def _recurrent(
    layer: config.Recurrent, x: Tensor, weights: Mapping[str, Tensor], *, path: str | None
) -> Tensor:
    how: dict[str, Any] = {"kind": layer.kind, "activation": layer.activation, "path": path}

    def one_way(prefix: str = "") -> Tensor:
        mine = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
        back = prefix == "backward."
        states, _ = recur(x, mine, reverse=back, **how)
        if layer.return_sequences:
            return states
        return states[0] if back else states[-1]

    if not layer.bidirectional:
        return one_way()
    return torch.cat([one_way("forward."), one_way("backward.")], dim=-1)


# --- tensors and threads ----------------------------------------------------------------------


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _pixels(images: Array, graph: _Graph) -> Tensor:
    """Images [N, rows, columns] as a flat tensor [N, rows x columns], bytes kept as bytes."""
    kept = images if images.dtype == np.uint8 else images.astype(np.float64)
    flat = np.require(kept.reshape(len(images), -1), requirements=["C", "W"])
    return torch.from_numpy(flat).to(graph.device)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let PyTorch use `count` threads inside, and what it used before after."""
    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
