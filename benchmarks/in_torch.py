"""The benchmarks' networks as a PyTorch user writes them: `torch.nn`, and a loop where it ends.

Pictures and labels are tensors that batches are indexed from: no DataLoader, whose workers would
cost more than these networks. Initial weights are from Keras' distributions, Adam is fused.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from networks import (
    ADAM_BETAS,
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    CLASSES,
    GATES,
    LEARNING_RATE,
    OPTIMIZER_EPSILON,
    RMSPROP_RHO,
    Recipe,
    pictures,
)
from torch import Tensor, nn

if TYPE_CHECKING:
    from contender import Job, Link

ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU}


def versions() -> dict[str, str]:
    """What this contender is made of."""
    return {"torch": torch.__version__}


class ReluLSTM(nn.Module):
    """An LSTM with relu for both tanh, which `nn.LSTM` lacks: one product for all inputs, a loop.

    x [B, T, I] → the last state [B, H]. Parameters are named and shaped as those of `nn.LSTM`.
    """

    def __init__(self, features: int, units: int) -> None:
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.empty(4 * units, features))
        self.weight_hh_l0 = nn.Parameter(torch.empty(4 * units, units))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(4 * units))

    def forward(self, x: Tensor) -> Tensor:
        """Read all steps."""
        projected = nn.functional.linear(x.transpose(0, 1), self.weight_ih_l0, self.bias_ih_l0)
        h = projected.new_zeros(x.shape[0], self.weight_hh_l0.shape[1])
        c = torch.zeros_like(h)
        for z in projected.unbind(0):
            i, f, g, o = (z + nn.functional.linear(h, self.weight_hh_l0)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.relu()
            h = o.sigmoid() * c.relu()
        return h


class Net(nn.Module):
    """x [B, T, I] → logits [B, C]."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        momentum = 1 - BATCH_NORM_MOMENTUM
        self.norm = nn.BatchNorm1d(recipe.features, eps=BATCH_NORM_EPSILON, momentum=momentum)
        self.recurrent = recurrent(recipe)
        layers: list[nn.Module] = []
        width = recipe.units
        for units, activation in recipe.head:
            layers += [nn.Linear(width, units), ACTIVATIONS[activation]()]
            width = units
        self.head = nn.Sequential(*layers, nn.Linear(width, CLASSES))
        initialise(self, GATES[recipe.cell])

    def forward(self, x: Tensor) -> Tensor:
        """Read a batch."""
        x = self.norm(x.flatten(0, 1)).view_as(x)
        states = self.recurrent(x)
        return self.head(states if isinstance(states, Tensor) else states[0][:, -1])


def recurrent(recipe: Recipe) -> nn.Module:
    """The recurrent layer: of `torch.nn` where it has it."""
    sizes = (recipe.features, recipe.units)
    if recipe.cell == "simple_rnn":
        return nn.RNN(*sizes, nonlinearity=recipe.activation, batch_first=True)
    if recipe.activation == "relu":
        return ReluLSTM(*sizes)
    return {"lstm": nn.LSTM, "gru": nn.GRU}[recipe.cell](*sizes, batch_first=True)


def initialise(net: nn.Module, gates: int) -> None:
    """Keras' initial weights: glorot-uniform, orthogonal, zero biases, an open forget gate."""
    for name, parameter in net.named_parameters():
        if "weight_hh" in name:
            nn.init.orthogonal_(parameter)
        elif "bias" in name:
            nn.init.zeros_(parameter)
            if gates == 4 and "bias_ih" in name:
                nn.init.ones_(parameter.view(4, -1)[1])
        elif "weight_ih" in name or "head" in name:
            nn.init.xavier_uniform_(parameter)


def optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """PyTorch's own, with Keras' constants."""
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            net.parameters(), LEARNING_RATE, alpha=RMSPROP_RHO, eps=OPTIMIZER_EPSILON
        )
    return torch.optim.Adam(
        net.parameters(), LEARNING_RATE, betas=ADAM_BETAS, eps=OPTIMIZER_EPSILON, fused=True
    )


class Training:
    """A network, its optimiser and its pictures; `variant` is "", "bfloat16" or "compile"."""

    def __init__(self, job: Job) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(job.seed)
        train_part, self.test = pictures(job.recipe, Path(job.data))
        self.x = torch.from_numpy(train_part.x)
        self.y = torch.from_numpy(train_part.y)
        self.recipe = job.recipe
        self.net = Net(job.recipe)
        self.optimizer = optimizer(job.recipe, self.net)
        self.half = job.variant == "bfloat16"
        # The partial batch that ends an epoch goes through the uncompiled network, whose weights
        # are the same: compiling for a second shape would double the wait.
        self.whole = torch.compile(self.net) if job.variant == "compile" else self.net

    def epoch(self, images: int, rates: list[float] | None = None) -> tuple[float, float]:
        """One epoch over the first `images` pictures; mean loss and accuracy."""
        self.net.train()
        loss_sum, right = torch.zeros(()), torch.zeros((), dtype=torch.long)
        for i, part in enumerate(torch.randperm(images).split(self.recipe.batch)):
            if rates is not None:
                self.optimizer.param_groups[0]["lr"] = rates[i]
            x, y = self.x[part], self.y[part]
            net = self.whole if len(part) == self.recipe.batch else self.net
            with torch.autocast("cpu", torch.bfloat16, enabled=self.half):
                logits = net(x)
            loss = nn.functional.cross_entropy(logits.float(), y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.detach() * len(part)
            right += (logits.detach().argmax(1) == y).sum()
        return float(loss_sum) / images, float(right) / images

    def accuracy(self) -> float:
        """The share of the test pictures that are read right."""
        self.net.eval()
        with torch.inference_mode():
            parts = torch.from_numpy(self.test.x).split(1000)
            read = torch.cat([self.net(part).argmax(1) for part in parts])
        return float((read.numpy() == self.test.y).mean())


def train(job: Job, link: Link) -> None:
    """Train an epoch a turn."""
    training = Training(job)
    fresh = copy.deepcopy(training.net.state_dict())
    training.epoch(job.warm_up_images)
    training.net.load_state_dict(fresh)
    link.ready(versions())
    while link.turn() is not None:
        start = time.perf_counter()
        loss, accuracy = training.epoch(job.recipe.images)
        link.tell(seconds=time.perf_counter() - start, loss=loss, accuracy=accuracy)


def race(job: Job, link: Link) -> None:
    """Train by the schedule; tell the accuracy on the test pictures after each epoch."""
    assert job.schedule is not None
    training = Training(job)
    images = len(training.y)
    rates = job.schedule.rates(images, job.recipe.batch)
    steps = len(rates) // job.schedule.epochs
    for epoch in range(job.schedule.epochs):
        training.epoch(images, rates[epoch * steps : (epoch + 1) * steps])
        link.tell(accuracy=training.accuracy())


def reader(job: Job) -> Callable[..., Any]:
    """The network in inference mode, softmax included."""
    torch.set_num_threads(job.threads)
    net = Net(job.recipe)
    with np.load(job.weights, allow_pickle=False) as weights:
        load(net, dict(weights))
    net.eval()

    def read(x: Any, batch: int) -> Any:
        with torch.inference_mode():
            parts = torch.from_numpy(x).split(batch)
            return torch.cat([net(part).softmax(1) for part in parts]).numpy()

    return read


def load(net: Net, weights: dict[str, Any]) -> None:
    """Give the network our weights: the same order of gates, every matrix transposed."""
    tensors = {name: torch.from_numpy(value.T.copy()) for name, value in weights.items()}
    (cell,) = {name.split(".")[0] for name in tensors if name.endswith(".recurrent_kernel")}
    norm = "batch_normalization"
    state = {
        "norm.weight": tensors.pop(f"{norm}.gamma"),
        "norm.bias": tensors.pop(f"{norm}.beta"),
        "norm.running_mean": tensors.pop(f"{norm}.moving_mean"),
        "norm.running_var": tensors.pop(f"{norm}.moving_variance"),
        "norm.num_batches_tracked": torch.zeros((), dtype=torch.long),
        "recurrent.weight_ih_l0": tensors.pop(f"{cell}.kernel"),
        "recurrent.weight_hh_l0": tensors.pop(f"{cell}.recurrent_kernel"),
        "recurrent.bias_ih_l0": (bias := tensors.pop(f"{cell}.bias")),
    }
    if not isinstance(net.recurrent, ReluLSTM):
        other = tensors.pop(f"{cell}.recurrent_bias", torch.zeros_like(bias))
        state["recurrent.bias_hh_l0"] = other
    linear = [name for name, part in net.head.named_children() if isinstance(part, nn.Linear)]
    for i, place in enumerate(linear):
        dense = f"dense_{i}" if i else "dense"
        state[f"head.{place}.weight"] = tensors.pop(f"{dense}.kernel")
        state[f"head.{place}.bias"] = tensors.pop(f"{dense}.bias")
    net.load_state_dict(state)
