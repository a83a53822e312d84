"""Recurrences for autograd: their states and gradients against autograd over torch.nn's cells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest

from rowwise.cells import ACTIVATIONS, CELLS, Activation, CellKind, CellWeights

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'rowwise[torch]'")

# Roundings of 2^-53 over a few steps, with room; another formula is far above.
FLOAT64_TOLERANCE = 1e-12
# As in the conformance suite: float32 may lose this share of the largest gradient.
FLOAT32_TOLERANCE = 1e-5

EVERY_CELL = list(product(("simple_rnn", "lstm", "gru"), ("tanh", "relu")))
every_cell = pytest.mark.parametrize(("kind", "activation"), EVERY_CELL)
SIZES = {
    "odd": (5, 4, 3, 7),
    "one-step": (1, 4, 3, 7),
    "one-picture": (5, 1, 3, 7),
    "one-unit": (5, 4, 1, 1),
    "one-of-all": (1, 1, 1, 1),
    "long": (60, 2, 1, 3),
}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(kind: CellKind, size: tuple[int, int, int, int], dtype: Any = None) -> dict[str, Any]:
    """x [T, B, I] and asymmetric random weights, all of which ask for gradients."""
    steps, batch, inputs, hidden = size
    cell, rng = CELLS[kind], np.random.default_rng(23)
    width = hidden * len(cell.gates)
    shapes: dict[str, tuple[int, ...]] = {
        "x": (steps, batch, inputs),
        "kernel": (inputs, width),
        "recurrent_kernel": (hidden, width),
        "bias": (width,),
    }
    if cell.has_recurrent_bias:
        shapes["recurrent_bias"] = (width,)
    drawn = {k: torch.from_numpy(rng.normal(0, 0.6, shape)) for k, shape in shapes.items()}
    return {k: v.to(dtype or torch.float64).requires_grad_() for k, v in drawn.items()}


def run(kind: CellKind, activation: Activation, given: dict[str, Any]) -> Any:
    from rowwise.engines.torch_cells import recur  # not before torch is known to be there

    weights = {k: v for k, v in given.items() if k != "x"}
    return recur(given["x"], weights, kind=kind, activation=activation)


def step_by_step(kind: CellKind, activation: Activation, given: dict[str, Any]) -> Any:
    """The same states by autograd over single steps; torch.nn's cells where they have the cell."""
    x, bias = given["x"], given["bias"]
    act = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    h = c = x.new_zeros(x.shape[1], given["recurrent_kernel"].shape[0])
    weights = [given["kernel"].t(), given["recurrent_kernel"].t(), bias]
    weights.append(given.get("recurrent_bias", torch.zeros_like(bias)))
    cells = {"lstm": torch.lstm_cell, "gru": torch.gru_cell}
    states = []
    for t in range(len(x)):
        if kind == "simple_rnn":
            step = torch.rnn_tanh_cell if activation == "tanh" else torch.rnn_relu_cell
            h = step(x[t], h, *weights)
        elif activation == "tanh":
            after = cells[kind](x[t], (h, c) if kind == "lstm" else h, *weights)
            h, c = after if kind == "lstm" else (after, c)
        elif kind == "lstm":
            z = x[t] @ given["kernel"] + h @ given["recurrent_kernel"] + bias
            i, f, g, o = z.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * act(g)
            h = o.sigmoid() * act(c)
        else:
            by_x = (x[t] @ given["kernel"] + bias).chunk(3, 1)
            by_h = (h @ given["recurrent_kernel"] + given["recurrent_bias"]).chunk(3, 1)
            r, z = ((a + b).sigmoid() for a, b in zip(by_x[:2], by_h[:2], strict=True))
            h = z * h + (1 - z) * act(by_x[2] + r * by_h[2])
        states.append(h)
    return torch.stack(states)


def gradients(states: Any, given: dict[str, Any], *, last: bool = False) -> dict[str, Any]:
    """Of a sum in which every state, or the last alone, has a random weight of its own."""
    rng = np.random.default_rng(24)
    chosen = states[-1] if last else states
    mix = torch.from_numpy(rng.normal(size=tuple(chosen.shape))).to(chosen.dtype)
    got = torch.autograd.grad((chosen * mix).sum(), list(given.values()))
    return dict(zip(given, got, strict=True))


def assert_near(got: Any, reference: Any, tolerance: float) -> None:
    """Within tolerance x max(1, the largest |reference|)."""
    assert got.shape == reference.shape
    scale = max(1.0, float(reference.detach().abs().max()))
    assert float((got - reference).detach().abs().max()) <= tolerance * scale


@every_size
@every_cell
def test_states_and_gradients_are_those_of_single_steps(
    kind: CellKind, activation: Activation, size: tuple[int, int, int, int]
) -> None:
    given = drawn(kind, size)
    got, reference = run(kind, activation, given), step_by_step(kind, activation, given)
    assert_near(got, reference, FLOAT64_TOLERANCE)
    for last in (False, True):
        mine = gradients(run(kind, activation, given), given, last=last)
        theirs = gradients(step_by_step(kind, activation, given), given, last=last)
        for name, value in theirs.items():
            assert_near(mine[name], value, FLOAT64_TOLERANCE)


@every_cell
def test_gradients_are_finite_differences(kind: CellKind, activation: Activation) -> None:
    given = drawn(kind, (3, 2, 3, 4))

    def states(*values: Any) -> Any:
        return run(kind, activation, dict(zip(given, values, strict=True)))

    assert torch.autograd.gradcheck(states, tuple(given.values()))


@every_cell
def test_float32_is_near_float64(kind: CellKind, activation: Activation) -> None:
    narrow, wide = drawn(kind, (9, 4, 3, 7), torch.float32), drawn(kind, (9, 4, 3, 7))
    states = run(kind, activation, narrow)
    assert states.dtype == torch.float32
    assert_near(states.double(), run(kind, activation, wide), FLOAT32_TOLERANCE)
    reference = gradients(run(kind, activation, wide), wide)
    for name, value in gradients(states, narrow).items():
        assert_near(value.double(), reference[name], FLOAT32_TOLERANCE)


@every_cell
def test_states_are_those_of_the_table_of_cells(kind: CellKind, activation: Activation) -> None:
    given = drawn(kind, (5, 4, 3, 7))
    arrays = {k: v.detach().numpy() for k, v in given.items()}
    x = arrays.pop("x")
    state = tuple(np.zeros((4, 7)) for _ in range(CELLS[kind].states))
    states = run(kind, activation, given).detach().numpy()
    for t in range(5):
        state = CELLS[kind].step(x[t], state, CellWeights(**arrays), ACTIVATIONS[activation])
        assert np.abs(states[t] - state[0]).max() <= FLOAT64_TOLERANCE


@every_cell
def test_saturated_inputs_give_finite_states_and_gradients(
    kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (6, 4, 3, 7), torch.float32)
    given["x"] = (given["x"].detach().sign() * 50).requires_grad_()
    wide = {k: v.detach().double().requires_grad_() for k, v in given.items()}
    states = run(kind, activation, given)
    exact = step_by_step(kind, activation, wide)
    assert_near(states.double(), exact, FLOAT32_TOLERANCE)
    reference = gradients(exact, wide)
    for name, value in gradients(states, given).items():
        assert torch.isfinite(value).all()
        assert_near(value.double(), reference[name], 10 * FLOAT32_TOLERANCE)


@every_cell
def test_a_plain_sum_has_its_gradients(kind: CellKind, activation: Activation) -> None:
    """Autograd hands back one number stretched over [T, B, H] here, with strides of zero."""
    given = drawn(kind, (5, 4, 3, 7))
    wanted = list(given.values())
    got = torch.autograd.grad(run(kind, activation, given).sum(), wanted)
    reference = torch.autograd.grad(step_by_step(kind, activation, given).sum(), wanted)
    for mine, theirs in zip(got, reference, strict=True):
        assert_near(mine, theirs, FLOAT64_TOLERANCE)


@every_cell
def test_backward_may_run_twice(kind: CellKind, activation: Activation) -> None:
    """What the forward pass left behind is read, never used up."""
    given = drawn(kind, (5, 4, 3, 7))
    total = run(kind, activation, given).sin().sum()
    once = torch.autograd.grad(total, list(given.values()), retain_graph=True)
    twice = torch.autograd.grad(total, list(given.values()))
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


@every_cell
def test_two_passes_through_one_layer_do_not_meet(kind: CellKind, activation: Activation) -> None:
    """The forward pass of a second batch leaves the first one's gradients alone."""
    given = drawn(kind, (5, 4, 3, 7))
    reference = gradients(run(kind, activation, given), given)
    first = run(kind, activation, given)
    other = {k: (v.detach() * 2).requires_grad_() for k, v in given.items()}
    gradients(run(kind, activation, other), other)
    got = gradients(first, given)
    assert all(torch.equal(got[k], v) for k, v in reference.items())


@every_cell
def test_nothing_given_is_changed(kind: CellKind, activation: Activation) -> None:
    given = drawn(kind, (5, 4, 3, 7))
    kept = {k: v.detach().clone() for k, v in given.items()}
    gradients(run(kind, activation, given), given)
    assert all(torch.equal(v.detach(), kept[k]) for k, v in given.items())


@every_cell
def test_without_gradients_the_states_are_the_same(kind: CellKind, activation: Activation) -> None:
    given = drawn(kind, (5, 4, 3, 7))
    states = run(kind, activation, given)
    with torch.no_grad():
        bare = run(kind, activation, given)
    assert states.requires_grad
    assert not bare.requires_grad
    assert torch.equal(states.detach(), bare)


@every_cell
def test_inputs_need_no_gradients_and_may_lie_anyhow(
    kind: CellKind, activation: Activation
) -> None:
    """Pictures ask for none; a sequence read backwards or batch first is a view."""
    given = drawn(kind, (5, 4, 3, 7))
    reference = gradients(run(kind, activation, given), given)
    batch_first = given["x"].detach().transpose(0, 1).contiguous()
    plain = {**given, "x": batch_first.transpose(0, 1)}
    states = run(kind, activation, plain)
    weights = {k: v for k, v in plain.items() if k != "x"}
    got = gradients(states, weights)
    for name, value in got.items():
        assert_near(value, reference[name], FLOAT64_TOLERANCE)
