"""The torch engine's optimisers, in Keras' form: each moves a flat vector of parameters in place.

An update takes the optimiser's settings, parameters and gradient [P], its slots [P] by name, the
number of the step from 1, and the learning rate of that step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

Slots = dict[str, Tensor]
Update = Callable[[Any, Tensor, Tensor, Slots, int, float], None]


def _adam(o: Any, p: Tensor, g: Tensor, slots: Slots, step: int, rate: float) -> None:
    """p -= lr √(1-β2ᵗ)/(1-β1ᵗ) · m / (√v + ε): Keras adds ε before the correction is folded in."""
    m, v = slots["momentum"], slots["velocity"]
    m.lerp_(g, 1 - o.beta_1)
    v.mul_(o.beta_2).addcmul_(g, g, value=1 - o.beta_2)
    alpha = rate * (1 - o.beta_2**step) ** 0.5 / (1 - o.beta_1**step)
    p.addcdiv_(m, v.sqrt().add_(o.epsilon), value=-alpha)


def _adamw(o: Any, p: Tensor, g: Tensor, slots: Slots, step: int, rate: float) -> None:
    """p -= lr λ p, of every parameter, then Adam."""
    p.mul_(1 - rate * o.weight_decay)
    _adam(o, p, g, slots, step, rate)


def _rmsprop(o: Any, p: Tensor, g: Tensor, slots: Slots, step: int, rate: float) -> None:
    """v = ρ v + (1-ρ) g²; u = g / √(v + ε); p -= lr u, or through momentum b = μ b + lr u."""
    v = slots["velocity"].mul_(o.rho).addcmul_(g, g, value=1 - o.rho)
    root = v.add(o.epsilon).sqrt_()
    if not o.momentum:
        p.addcdiv_(g, root, value=-rate)
        return
    b = slots["momentum"].mul_(o.momentum).addcdiv_(g, root, value=rate)
    p.sub_(b)


def _sgd(o: Any, p: Tensor, g: Tensor, slots: Slots, step: int, rate: float) -> None:
    """b = μ b - lr g; p += b, or with Nesterov p += μ b - lr g."""
    if not o.momentum:
        p.sub_(g, alpha=rate)
        return
    b = slots["momentum"].mul_(o.momentum).sub_(g, alpha=rate)
    if o.nesterov:
        p.add_(b, alpha=o.momentum).sub_(g, alpha=rate)
    else:
        p.add_(b)


UPDATES: dict[str, Update] = {"adam": _adam, "adamw": _adamw, "rmsprop": _rmsprop, "sgd": _sgd}
