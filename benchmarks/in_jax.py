"""The benchmarks' networks in JAX: one compiled call an epoch, `lax.scan` over batches and steps.

Layers, initial weights and optimisers are written out as Keras has them. The projections of all
inputs are one product before the scan over the steps, which then has h U alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from networks import (
    ADAM_BETAS,
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    GATES,
    LEARNING_RATE,
    OPTIMIZER_EPSILON,
    RMSPROP_RHO,
    Recipe,
    dense_sizes,
    pictures,
)

if TYPE_CHECKING:
    from contender import Job, Link

Tree = dict[str, Any]
ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def versions() -> dict[str, str]:
    """What this contender is made of."""
    return {"jax": version("jax"), "jaxlib": version("jaxlib")}


def initialise(recipe: Recipe, seed: int) -> tuple[Tree, Tree]:
    """Trainable weights and the batch norm's moving statistics."""
    keys = iter(jax.random.split(jax.random.key(seed), 8))
    glorot, orthogonal = jax.nn.initializers.glorot_uniform(), jax.nn.initializers.orthogonal()
    wide = GATES[recipe.cell] * recipe.units
    ones, zeros = jnp.ones(recipe.features), jnp.zeros(recipe.features)
    bias = jnp.zeros(wide)
    if recipe.cell == "lstm":
        bias = bias.at[recipe.units : 2 * recipe.units].set(1)
    weights = {
        "gamma": ones,
        "beta": zeros,
        "kernel": glorot(next(keys), (recipe.features, wide)),
        "recurrent": orthogonal(next(keys), (recipe.units, wide)),
        "bias": bias,
        "dense": [(glorot(next(keys), size), jnp.zeros(size[1])) for size in dense_sizes(recipe)],
    }
    if recipe.cell == "gru":
        weights["recurrent_bias"] = jnp.zeros(wide)
    return weights, {"mean": zeros, "variance": ones}


def cell(recipe: Recipe, weights: Tree) -> Callable[[Any, Any], tuple[Any, None]]:
    """One step of a scan: the states and a step's x W + b give the next states."""
    act = ACTIVATIONS[recipe.activation]
    u = weights["recurrent"]

    def simple_rnn(h: Any, z: Any) -> tuple[Any, None]:
        return act(z + h @ u), None

    def lstm(state: Any, z: Any) -> tuple[Any, None]:
        h, c = state
        i, f, g, o = jnp.split(z + h @ u, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * act(g)
        return (jax.nn.sigmoid(o) * act(c), c), None

    def gru(h: Any, z: Any) -> tuple[Any, None]:
        of_h = h @ u + weights["recurrent_bias"]
        (r, update, n), (hr, hz, hn) = jnp.split(z, 3, axis=1), jnp.split(of_h, 3, axis=1)
        r, update = jax.nn.sigmoid(r + hr), jax.nn.sigmoid(update + hz)
        n = act(n + r * hn)
        return n + update * (h - n), None

    return {"simple_rnn": simple_rnn, "lstm": lstm, "gru": gru}[recipe.cell]


def logits(recipe: Recipe, weights: Tree, x: Any) -> Any:
    """Normalised x [B, T, I] → logits [B, C]."""
    z = jnp.swapaxes(x, 0, 1) @ weights["kernel"] + weights["bias"]
    h = jnp.zeros((x.shape[0], recipe.units))
    start = (h, h) if recipe.cell == "lstm" else h
    end, _ = lax.scan(cell(recipe, weights), start, z)
    h = end[0] if recipe.cell == "lstm" else end
    *hidden, (kernel, bias) = weights["dense"]
    for (_, activation), (a, b) in zip(recipe.head, hidden, strict=True):
        h = ACTIVATIONS[activation](h @ a + b)
    return h @ kernel + bias


def normalise(x: Any, weights: Tree, mean: Any, variance: Any) -> Any:
    """Batch norm over the last axis."""
    scale = weights["gamma"] * lax.rsqrt(variance + BATCH_NORM_EPSILON)
    return (x - mean) * scale + weights["beta"]


def train_logits(recipe: Recipe, weights: Tree, x: Any) -> tuple[Any, Tree]:
    """Logits with the batch's own statistics, and these."""
    mean, variance = x.mean((0, 1)), x.var((0, 1))
    read = logits(recipe, weights, normalise(x, weights, mean, variance))
    return read, {"mean": mean, "variance": variance}


def adam(weights: Tree, gradient: Tree, slots: Any, step: Any, rate: Any) -> tuple[Tree, Any]:
    """Kingma & Ba (2015), epsilon where Keras has it."""
    (m, v), (b1, b2) = slots, ADAM_BETAS
    m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, gradient)
    v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, v, gradient)
    a = rate * jnp.sqrt(1 - b2**step) / (1 - b1**step)

    def moved(w: Any, m: Any, v: Any) -> Any:
        return w - a * m / (jnp.sqrt(v) + OPTIMIZER_EPSILON)

    return jax.tree.map(moved, weights, m, v), (m, v)


def rmsprop(weights: Tree, gradient: Tree, slots: Any, step: Any, rate: Any) -> tuple[Tree, Any]:
    """Tieleman & Hinton (2012), epsilon where Keras has it."""
    rho = RMSPROP_RHO
    v = jax.tree.map(lambda v, g: rho * v + (1 - rho) * g * g, slots[1], gradient)

    def moved(w: Any, g: Any, v: Any) -> Any:
        return w - rate * g * lax.rsqrt(v + OPTIMIZER_EPSILON)

    return jax.tree.map(moved, weights, gradient, v), (slots[0], v)


def one_step(recipe: Recipe, state: Any, x: Any, y: Any, rate: Any) -> tuple[Any, Any]:
    """The state after a batch; the batch's loss sum and right answers."""
    weights, moving, slots, step = state

    def loss(weights: Tree) -> tuple[Any, Any]:
        read, seen = train_logits(recipe, weights, x)
        picked = jnp.take_along_axis(jax.nn.log_softmax(read), y[:, None], 1)
        return -picked.mean(), (seen, (read.argmax(1) == y).sum())

    (mean, (seen, right)), gradient = jax.value_and_grad(loss, has_aux=True)(weights)
    keep = BATCH_NORM_MOMENTUM
    moving = jax.tree.map(lambda old, new: keep * old + (1 - keep) * new, moving, seen)
    update = {"adam": adam, "rmsprop": rmsprop}[recipe.optimizer]
    weights, slots = update(weights, gradient, slots, step + 1, rate)
    return (weights, moving, slots, step + 1), (mean * len(y), right)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def run_epoch(
    recipe: Recipe, state: Any, x: Any, y: Any, order: Any, rates: Any
) -> tuple[Any, Any, Any]:
    """One epoch over the pictures in `order`, the last batch possibly partial."""

    def step(state: Any, given: tuple[Any, Any]) -> tuple[Any, Any]:
        part, rate = given
        return one_step(recipe, state, x[part], y[part], rate)

    whole = len(order) // recipe.batch
    parts = order[: whole * recipe.batch].reshape(whole, recipe.batch)
    state, (losses, right) = lax.scan(step, state, (parts, rates[:whole]))
    loss_sum, right_sum = losses.sum(), right.sum()
    if len(order) % recipe.batch:
        state, (loss, more) = step(state, (order[whole * recipe.batch :], rates[whole]))
        loss_sum, right_sum = loss_sum + loss, right_sum + more
    return state, loss_sum, right_sum


@partial(jax.jit, static_argnums=0)
def read_batch(recipe: Recipe, weights: Tree, moving: Tree, x: Any) -> Any:
    """Probabilities [B, C]."""
    x = normalise(x, weights, moving["mean"], moving["variance"])
    return jax.nn.softmax(logits(recipe, weights, x))


class Training:
    """A network's state and its pictures."""

    def __init__(self, job: Job) -> None:
        train_part, self.test = pictures(job.recipe, Path(job.data))
        self.recipe = job.recipe
        self.x, self.y = jnp.asarray(train_part.x), jnp.asarray(train_part.y, jnp.int32)
        self.rng = np.random.default_rng(job.seed)
        weights, moving = initialise(job.recipe, job.seed)
        zeros = jax.tree.map(jnp.zeros_like, weights)
        state = (weights, moving, (zeros, zeros), jnp.zeros((), jnp.int32))
        # Copies, as a buffer can be donated once and each of these must then be its own.
        self.state = jax.tree.map(jnp.copy, state)

    def compile(self, rates: list[float]) -> None:
        """Compile an epoch ahead of its first run."""
        order, steps = jnp.arange(len(self.y)), jnp.asarray(rates)
        lowered = run_epoch.lower(self.recipe, self.state, self.x, self.y, order, steps)
        self.run = lowered.compile()

    def epoch(self, rates: list[float]) -> tuple[float, float]:
        """One epoch over all pictures; mean loss and accuracy."""
        count = len(self.y)
        order = jnp.asarray(self.rng.permutation(count).astype(np.int32))
        self.state, loss, right = self.run(self.state, self.x, self.y, order, jnp.asarray(rates))
        return float(loss) / count, float(right) / count

    def accuracy(self) -> float:
        """The share of the test pictures that are read right."""
        weights, moving = self.state[:2]
        parts = np.split(self.test.x, range(1000, len(self.test.x), 1000))
        read = [read_batch(self.recipe, weights, moving, part).argmax(1) for part in parts]
        return float((np.concatenate(read) == self.test.y).mean())


def train(job: Job, link: Link) -> None:
    """Train an epoch a turn; the whole epoch is compiled before the first."""
    training = Training(job)
    rates = [LEARNING_RATE] * -(-job.recipe.images // job.recipe.batch)
    training.compile(rates)
    link.ready(versions())
    while link.turn() is not None:
        start = time.perf_counter()
        loss, accuracy = training.epoch(rates)
        link.tell(seconds=time.perf_counter() - start, loss=loss, accuracy=accuracy)


def race(job: Job, link: Link) -> None:
    """Train by the schedule; tell the accuracy on the test pictures after each epoch."""
    assert job.schedule is not None
    training = Training(job)
    rates = job.schedule.rates(len(training.y), job.recipe.batch)
    steps = len(rates) // job.schedule.epochs
    training.compile(rates[:steps])
    for epoch in range(job.schedule.epochs):
        training.epoch(rates[epoch * steps : (epoch + 1) * steps])
        link.tell(accuracy=training.accuracy())


def reader(job: Job) -> Callable[..., Any]:
    """The compiled network."""
    with np.load(job.weights, allow_pickle=False) as given:
        weights, moving = load(job.recipe, dict(given))

    def read(x: Any, batch: int) -> Any:
        parts = [x[first : first + batch] for first in range(0, len(x), batch)]
        return np.concatenate([read_batch(job.recipe, weights, moving, part) for part in parts])

    return read


def load(recipe: Recipe, given: Tree) -> tuple[Tree, Tree]:
    """Our weights in this file's tree."""
    norm = "batch_normalization"
    dense = [f"dense_{i}" if i else "dense" for i in range(len(recipe.head) + 1)]
    weights = {
        "gamma": given[f"{norm}.gamma"],
        "beta": given[f"{norm}.beta"],
        "kernel": given[f"{recipe.cell}.kernel"],
        "recurrent": given[f"{recipe.cell}.recurrent_kernel"],
        "bias": given[f"{recipe.cell}.bias"],
        "dense": [(given[f"{name}.kernel"], given[f"{name}.bias"]) for name in dense],
    }
    if recipe.cell == "gru":
        weights["recurrent_bias"] = given["gru.recurrent_bias"]
    moving = {"mean": given[f"{norm}.moving_mean"], "variance": given[f"{norm}.moving_variance"]}
    return jax.device_put((weights, moving))
