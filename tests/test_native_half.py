"""The native engine in bfloat16: the equations with rounded factors, nothing else rounded."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import references
from conformance import FLOAT32_GRADIENT, Array, Case, assert_gradients_close, case
from drawn_networks import drawn_networks
from hypothesis import given, settings
from hypothesis import strategies as st
from references import equation_gradients, torch

from rowwise import core
from rowwise.config import BatchNorm, Dense, Flatten, Recurrent
from rowwise.engines import native

if core.why_not() is not None:
    pytest.skip(f"needs the native engine: {core.why_not()}", allow_module_level=True)

RUNNABLE = [path for path, obstacle in core.paths().items() if obstacle is None]
# A state that is off by the 2e-4 of the quick sigmoid and tanh is in one of twenty cases rounded to
# the other side, by 2^-8: of 300 drawn networks the worst gradient was off by 7e-3.
HALF_GRADIENT, SMALLEST_SHARE = 1.5e-2, 0.1
HALF_LOSS = 1e-2


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Any:
    """Tensors this small are slower on several threads of PyTorch."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rounded(x: Any) -> Any:
    """To the nearest bfloat16, still in float64."""
    return x.detach().float().bfloat16().double()


class RoundedProduct(torch.autograd.Function):  # type: ignore[misc,name-defined]
    """a W with all factors rounded, on the way back too."""

    @staticmethod
    def forward(ctx: Any, a: Any, w: Any) -> Any:
        ctx.save_for_backward(rounded(a), rounded(w))
        return rounded(a) @ rounded(w)

    @staticmethod
    def backward(ctx: Any, *d: Any) -> Any:
        a, w = ctx.saved_tensors
        return rounded(d[0]) @ w.T, a.T @ rounded(d[0])


class RoundedKernel:
    """A kernel that is multiplied by `RoundedProduct`."""

    def __init__(self, value: Any) -> None:
        self.value, self.shape = value, value.shape

    def __getitem__(self, columns: Any) -> RoundedKernel:
        return RoundedKernel(self.value[columns])

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is torch.Tensor.matmul, func
        return RoundedProduct.apply(args[0], args[1].value)


def half_equations(chosen: Case) -> tuple[float, dict[str, Array]]:
    """The mean loss and its gradients by the equations, recurrent layers with rounded factors."""
    unroll = references.unroll

    def unroll_rounded(kind: str, activation: str, x: Any, weights: Any) -> Any:
        kept = {k: RoundedKernel(v) if "kernel" in k else v for k, v in weights.items()}
        return unroll(kind, activation, x, kept)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "unroll", unroll_rounded)
        loss, gradients, _ = equation_gradients.__wrapped__(chosen)
    return loss, gradients


def begin(chosen: Case, **how: Any) -> native.Trainer:
    given: dict[str, Any] = {"seed": 0, "threads": 1, "precision": "bfloat16", **how}
    images, labels = chosen.images, chosen.labels
    return native.Trainer(chosen.network, chosen.weights, images, labels, **given)


def loss_of(own: native.Trainer, chosen: Case) -> float:
    size = chosen.pictures
    losses, _ = own.run(np.arange(size), batch=size, first_step=0, rates=np.zeros(1))
    return float(losses[0] / size)


def check_rounded(chosen: Case, threads: int, path: str) -> None:
    loss, reference = half_equations(chosen)
    own = begin(chosen, threads=threads, path=path)
    got = own.gradients(np.arange(chosen.pictures))
    assert got.keys() == reference.keys()
    least = SMALLEST_SHARE * max(float(np.abs(value).max()) for value in reference.values())
    for name, value in reference.items():
        off = np.abs(got[name] - value).max() / max(float(np.abs(value).max()), least)
        assert off < HALF_GRADIENT, (name, off)
    assert loss_of(own, chosen) == pytest.approx(loss, rel=HALF_LOSS, abs=HALF_LOSS)


smooth_networks = given(drawn_networks(smooth=True), st.integers(1, 4), st.sampled_from(RUNNABLE))


@settings(max_examples=30, deadline=None)
@smooth_networks
def test_it_is_the_equations_with_rounded_factors(chosen: Case, threads: int, path: str) -> None:
    check_rounded(chosen, threads, path)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@settings(max_examples=1000, deadline=None)
@smooth_networks
def test_a_thousand_sizes_have_rounded_factors(chosen: Case, threads: int, path: str) -> None:
    check_rounded(chosen, threads, path)


@settings(max_examples=25, deadline=None)
@given(drawn_networks(), st.integers(1, 4), st.sampled_from(RUNNABLE))
def test_the_loss_of_any_network_is_near(chosen: Case, threads: int, path: str) -> None:
    """With relu and batch norm too, whose gradients may go apart."""
    loss, _ = half_equations(chosen)
    own = begin(chosen, threads=threads, path=path)
    assert loss_of(own, chosen) == pytest.approx(loss, rel=5 * HALF_LOSS, abs=5 * HALF_LOSS)


@pytest.mark.parametrize("path", RUNNABLE)
def test_it_rounds_the_factors_of_recurrent_layers(path: str) -> None:
    """Were it float32, the gradients would be those of the equations."""
    chosen = case("rounded", Recurrent(kind="lstm", units=33), pictures=40, shape=(6, 9))
    _, exact, _ = equation_gradients(chosen)
    everything = np.arange(chosen.pictures)
    assert_gradients_close(
        begin(chosen, precision="float32", path=path).gradients(everything), exact, FLOAT32_GRADIENT
    )
    with pytest.raises(AssertionError, match="gradient of lstm"):
        assert_gradients_close(begin(chosen, path=path).gradients(everything), exact, 1e-4)


def test_nothing_else_is_rounded() -> None:
    """A network without recurrent layers trains as in float32, bit for bit."""
    layers = (BatchNorm(), Flatten(), Dense(units=20, activation="tanh"))
    chosen = case("no-recurrence", *layers, pictures=30)
    ends = []
    for precision in ("float32", "bfloat16"):
        own = begin(chosen, precision=precision)
        own.run(np.arange(30), batch=7, first_step=0, rates=np.full(5, 0.01))
        ends.append(own.state())
    assert all(v.tobytes() == ends[1][k].tobytes() for k, v in ends[0].items())


def test_validating_is_in_float32() -> None:
    """The weights are float32, and so is what judges them."""
    chosen = case("validated", Recurrent(kind="gru", units=20), pictures=30)
    losses = [
        begin(chosen, precision=precision).evaluate(chosen.images, chosen.labels)
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0] == losses[1]


def test_it_learns_as_float32_does() -> None:
    chosen = case("learns", BatchNorm(), Recurrent(kind="lstm", units=24), pictures=120)
    ends = []
    for precision in ("float32", "bfloat16"):
        own = begin(chosen, precision=precision, threads=2)
        for epoch in range(40):
            losses, _ = own.run(
                np.arange(120), batch=30, first_step=4 * epoch, rates=np.full(4, 0.01)
            )
        ends.append(losses.sum() / 120)
    assert max(ends) < 1.0  # 2.3 by chance: it knows these pictures by heart
    assert ends[1] == pytest.approx(ends[0], rel=0.2)
