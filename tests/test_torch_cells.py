"""Recurrences for autograd: their states and gradients against autograd over torch.nn's cells.

Both ways of running them are held to the same tests: PyTorch's operations in float64, and the
native core in float32 on each processor path that this machine can run.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rowwise import core, engines
from rowwise.cells import ACTIVATIONS, CELLS, Activation, CellKind, CellWeights
from rowwise.config import Experiment, Recurrent
from rowwise.errors import EngineError
from rowwise.network import Network

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'rowwise[torch]'")

pytestmark = pytest.mark.usefixtures("one_thread")

# Roundings of 2^-53 over a few steps, with room; another formula is far above.
FLOAT64_TOLERANCE = 1e-12
# As in the conformance suite: float32 may lose this share of the largest gradient.
FLOAT32_TOLERANCE = 1e-5


class Way(NamedTuple):
    """Who runs a recurrence: the core on a processor path, or PyTorch where that is empty."""

    path: str

    def __str__(self) -> str:
        return self.path or "torch"

    @property
    def dtype(self) -> Any:
        return torch.float32 if self.path else torch.float64

    @property
    def tolerance(self) -> float:
        return FLOAT32_TOLERANCE if self.path else FLOAT64_TOLERANCE


RUNNABLE = [path for path, obstacle in core.paths().items() if obstacle is None]
every_way = pytest.mark.parametrize("way", [Way(""), *map(Way, RUNNABLE)], ids=str)
# Where the processor path makes no difference: PyTorch, and the best path.
both_ways = pytest.mark.parametrize("way", [Way(""), *map(Way, RUNNABLE[-1:])], ids=str)
needs_native = pytest.mark.skipif(core.why_not() is not None, reason=f"{core.why_not()}")
EVERY_CELL = list(product(("simple_rnn", "lstm", "gru"), ("tanh", "relu")))
every_cell = pytest.mark.parametrize(("kind", "activation"), EVERY_CELL)
SIZES = {
    "odd": (5, 4, 3, 7),
    "one-step": (1, 4, 3, 7),
    "one-picture": (5, 1, 3, 7),
    "one-unit": (5, 4, 1, 1),
    "one-of-all": (1, 1, 1, 1),
    "long": (60, 2, 1, 3),
    "panels": (3, 19, 17, 33),
    "full-panels": (3, 16, 32, 16),
    "threads": (20, 33, 30, 40),
}
every_size = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())


def drawn(
    kind: CellKind, size: tuple[int, int, int, int], dtype: Any = None, *, state: bool = False
) -> dict[str, Any]:
    """x [T, B, I] and asymmetric random weights, all of which ask for gradients; h and c too."""
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
    if state:
        shapes |= {name: (batch, hidden) for name in ("h", "c")[: cell.states]}
    # With relu, a wide layer's states would grow beyond measure.
    wide = inputs > 3
    scale = {"kernel": 0.1, "recurrent_kernel": 0.6 / hidden**0.5} if wide else {}
    drawn = {
        k: torch.from_numpy(rng.normal(0, scale.get(k, 0.6), shape)) for k, shape in shapes.items()
    }
    return {k: v.to(dtype or torch.float64).requires_grad_() for k, v in drawn.items()}


def run(
    kind: CellKind,
    activation: Activation,
    given: dict[str, Any],
    way: Way,
    *,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """All states [T, B, H], and an LSTM's last cell state."""
    from rowwise.engines.torch_cells import recur  # not before torch is known to be there

    weights = {k: v for k, v in given.items() if k not in ("x", "h", "c")}
    how: dict[str, Any] = {"kind": kind, "activation": activation, "reverse": reverse}
    return recur(given["x"], weights, h=given.get("h"), c=given.get("c"), path=way.path, **how)


def step_by_step(kind: CellKind, activation: Activation, given: dict[str, Any]) -> tuple[Any, Any]:
    """The same by autograd over single steps, in float64; torch.nn's cells where they have it."""
    x, bias = given["x"], given["bias"]
    act = {"tanh": torch.tanh, "relu": torch.relu}[activation]
    zero = x.new_zeros(x.shape[1], given["recurrent_kernel"].shape[0])
    h, c = given.get("h", zero), given.get("c", zero)
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
    return torch.stack(states), c if kind == "lstm" else None


def gradients(read: tuple[Any, Any], given: dict[str, Any], *, of: str = "all") -> dict[str, Any]:
    """Of a sum in which every state, or the last alone, or c alone, has a weight of its own."""
    rng = np.random.default_rng(24)
    states, c_last = read
    chosen = {"all": [states, c_last], "last": [states[-1]], "c": [c_last]}[of]
    total = 0
    for value in chosen:
        if value is not None:
            mix = torch.from_numpy(rng.normal(size=tuple(value.shape))).to(value.dtype)
            total = total + (value * mix).sum()
    got = torch.autograd.grad(total, list(given.values()), allow_unused=True)
    return {
        k: torch.zeros_like(given[k]) if g is None else g for k, g in zip(given, got, strict=True)
    }


def wide(given: dict[str, Any]) -> dict[str, Any]:
    """The same in float64."""
    return {k: v.detach().double().requires_grad_(v.requires_grad) for k, v in given.items()}


def assert_near(got: Any, reference: Any, tolerance: float) -> None:
    """Within tolerance x max(1, the largest |reference|)."""
    assert got.shape == reference.shape
    scale = max(1.0, float(reference.detach().abs().max()))
    assert float((got.double() - reference).detach().abs().max()) <= tolerance * scale


def assert_as_step_by_step(
    kind: CellKind, activation: Activation, given: dict[str, Any], way: Way, **how: Any
) -> None:
    """States, last cell state and all gradients are those of single steps in float64."""
    exact = wide(given)
    reference = step_by_step(kind, activation, exact)
    for value, expected in zip(run(kind, activation, given, way), reference, strict=True):
        assert (value is None) == (expected is None)
        if value is not None:
            assert_near(value, expected, way.tolerance)
    for of in ("all", "last", *(["c"] if kind == "lstm" else [])):
        mine = gradients(run(kind, activation, given, way), given, of=of)
        theirs = gradients(step_by_step(kind, activation, exact), exact, of=of)
        for name, value in theirs.items():
            assert mine[name].dtype == way.dtype
            assert_near(mine[name], value, way.tolerance)


@every_size
@every_cell
@every_way
def test_states_and_gradients_are_those_of_single_steps(
    way: Way, kind: CellKind, activation: Activation, size: tuple[int, int, int, int]
) -> None:
    assert_as_step_by_step(kind, activation, drawn(kind, size, way.dtype), way)


@pytest.mark.parametrize("size", [SIZES["odd"], SIZES["one-of-all"], SIZES["panels"]], ids=str)
@every_cell
@every_way
def test_an_initial_state_is_gone_on_from_and_has_its_gradient(
    way: Way, kind: CellKind, activation: Activation, size: tuple[int, int, int, int]
) -> None:
    assert_as_step_by_step(kind, activation, drawn(kind, size, way.dtype, state=True), way)


@both_ways
@pytest.mark.parametrize("name", ["h", "c"])
def test_one_half_of_an_initial_state_may_be_zero(way: Way, name: str) -> None:
    given = drawn("lstm", SIZES["odd"], way.dtype, state=True)
    del given[name]
    assert_as_step_by_step("lstm", "tanh", given, way)


@every_cell
@every_way
def test_several_threads_add_up_to_the_same(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    """33 pictures are 11 for each of three; 10 are 3, 3 and 4."""
    torch.set_num_threads(3)
    try:
        for batch in (33, 10, 2):
            given = drawn(kind, (6, batch, 30, 60), way.dtype, state=True)
            assert_as_step_by_step(kind, activation, given, way)
            once = gradients(run(kind, activation, given, way), given)
            again = gradients(run(kind, activation, given, way), given)
            assert all(torch.equal(once[k], v) for k, v in again.items())
    finally:
        torch.set_num_threads(1)


@every_cell
@both_ways
def test_reverse_is_the_sequence_turned_round(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, SIZES["odd"], way.dtype, state=True)
    turned = {**given, "x": given["x"].detach().flip(0).requires_grad_()}
    states, c_last = run(kind, activation, given, way, reverse=True)
    reference, c_reference = run(kind, activation, turned, way)
    assert torch.equal(states, reference.flip(0))
    assert kind != "lstm" or torch.equal(c_last, c_reference)
    got = gradients((states.flip(0), c_last), given)
    for name, value in gradients((reference, c_reference), turned).items():
        assert_near(got[name].flip(0) if name == "x" else got[name], value.double(), way.tolerance)


@every_cell
def test_gradients_are_finite_differences(kind: CellKind, activation: Activation) -> None:
    given = drawn(kind, (3, 2, 3, 4), state=True)

    def states(*values: Any) -> Any:
        read = run(kind, activation, dict(zip(given, values, strict=True)), Way(""))
        return tuple(value for value in read if value is not None)

    assert torch.autograd.gradcheck(states, tuple(given.values()))


@every_cell
def test_float32_is_near_float64(kind: CellKind, activation: Activation) -> None:
    narrow, exact = drawn(kind, (9, 4, 3, 7), torch.float32), drawn(kind, (9, 4, 3, 7))
    states, _ = run(kind, activation, narrow, Way(""))
    assert states.dtype == torch.float32
    assert_near(states, run(kind, activation, exact, Way(""))[0], FLOAT32_TOLERANCE)
    reference = gradients(run(kind, activation, exact, Way("")), exact)
    for name, value in gradients(run(kind, activation, narrow, Way("")), narrow).items():
        assert_near(value, reference[name], FLOAT32_TOLERANCE)


@every_cell
@both_ways
def test_states_are_those_of_the_table_of_cells(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (5, 4, 3, 7), way.dtype)
    arrays = {k: v.detach().double().numpy() for k, v in given.items()}
    x = arrays.pop("x")
    state = tuple(np.zeros((4, 7)) for _ in range(CELLS[kind].states))
    states = run(kind, activation, given, way)[0].detach().numpy()
    for t in range(5):
        state = CELLS[kind].step(x[t], state, CellWeights(**arrays), ACTIVATIONS[activation])
        assert np.abs(states[t] - state[0]).max() <= way.tolerance


@every_cell
@every_way
def test_saturated_inputs_give_finite_states_and_gradients(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (6, 4, 3, 7), torch.float32)
    given["x"] = (given["x"].detach().sign() * 50).requires_grad_()
    read, exact = run(kind, activation, given, way), wide(given)
    reference = step_by_step(kind, activation, exact)
    assert_near(read[0], reference[0], FLOAT32_TOLERANCE)
    expected = gradients(reference, exact)
    for name, value in gradients(read, given).items():
        assert torch.isfinite(value).all()
        assert_near(value, expected[name], 10 * FLOAT32_TOLERANCE)


@every_cell
@every_way
def test_nan_comes_out_where_it_went_in(way: Way, kind: CellKind, activation: Activation) -> None:
    """Of one picture, from that step on; the others are not touched."""
    given = drawn(kind, (5, 4, 3, 7), way.dtype)
    clean, _ = run(kind, activation, given, way)
    given["x"].data[2, 1, 0] = torch.nan
    states, _ = run(kind, activation, given, way)
    assert states[2:, 1].isnan().all()
    states, clean = states.detach(), clean.detach()
    states[2:, 1] = clean[2:, 1]
    assert torch.equal(states, clean)


@every_cell
@both_ways
def test_a_plain_sum_has_its_gradients(way: Way, kind: CellKind, activation: Activation) -> None:
    """Autograd hands back one number stretched over [T, B, H] here, with strides of zero."""
    given = drawn(kind, (5, 4, 3, 7), way.dtype)
    got = torch.autograd.grad(run(kind, activation, given, way)[0].sum(), list(given.values()))
    exact = wide(given)
    total = step_by_step(kind, activation, exact)[0].sum()
    for mine, theirs in zip(got, torch.autograd.grad(total, list(exact.values())), strict=True):
        assert_near(mine, theirs, way.tolerance)


@every_cell
@both_ways
def test_backward_may_run_twice(way: Way, kind: CellKind, activation: Activation) -> None:
    """What the forward pass left behind is read, or made again."""
    given = drawn(kind, (5, 4, 3, 7), way.dtype, state=True)
    total = run(kind, activation, given, way)[0].sin().sum()
    once = torch.autograd.grad(total, list(given.values()), retain_graph=True, allow_unused=True)
    twice = torch.autograd.grad(total, list(given.values()), allow_unused=True)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(total, list(given.values()))


def penalty(read: tuple[Any, Any], given: dict[str, Any]) -> Any:
    """A sum over first derivatives, as a gradient penalty is, and its own derivatives."""
    rng = np.random.default_rng(25)
    states, c_last = read
    total = (states * torch.from_numpy(rng.normal(size=tuple(states.shape))).to(states)).sin().sum()
    if c_last is not None:
        total = total + c_last.cos().sum()
    first = torch.autograd.grad(total, list(given.values()), create_graph=True)
    norm = sum((d * d).sum() for d in first)
    return first, torch.autograd.grad(norm, list(given.values()))


@every_cell
@both_ways
def test_second_derivatives_are_those_of_single_steps(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    for reverse in (False, True):
        given = drawn(kind, (5, 4, 3, 7), way.dtype, state=True)
        exact = wide(given)
        got = penalty(run(kind, activation, given, way, reverse=reverse), given)
        turned = {**exact, "x": exact["x"].flip(0)} if reverse else exact
        states, c_last = step_by_step(kind, activation, turned)
        expected = penalty((states.flip(0) if reverse else states, c_last), exact)
        for mine, theirs in zip(got, expected, strict=True):
            for value, reference in zip(mine, theirs, strict=True):
                assert_near(value, reference, 10 * way.tolerance)  # of a gradient of a gradient


@both_ways
def test_second_derivatives_where_one_input_comes_from_another(way: Way) -> None:
    """Each gradient is that of its own input alone, and those that are frozen have none."""
    given = drawn("lstm", (5, 3, 4, 4), way.dtype)
    given["bias"].requires_grad_(False)
    leaves = [given["x"], given["kernel"]]

    def derivatives(recurrence: Any) -> Any:
        h, c = given["x"][0].tanh(), given["kernel"][0, :4].expand(3, 4)
        states, _ = recurrence("lstm", "tanh", {**given, "h": h, "c": c})
        first = torch.autograd.grad(states.sin().sum(), leaves, create_graph=True)
        return torch.autograd.grad(sum((d * d).sum() for d in first), leaves)

    got = derivatives(lambda *what: run(*what, way))
    for value, expected in zip(got, derivatives(step_by_step), strict=True):
        assert_near(value, expected.double(), 10 * way.tolerance)


# PyTorch's own warning, of operations that its batches of gradients go through one by one.
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@every_cell
@both_ways
def test_a_batch_of_gradients_is_one_after_the_other(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (3, 2, 3, 4), way.dtype, state=True)
    states, _ = run(kind, activation, given, way)
    rows = torch.randn(3, *states.shape, dtype=way.dtype)
    leaves = list(given.values())
    unused = {"retain_graph": True, "allow_unused": True}
    batched = torch.autograd.grad(states, leaves, rows, is_grads_batched=True, **unused)
    for i, row in enumerate(rows):
        alone = torch.autograd.grad(states, leaves, row, **unused)
        for got, expected in zip(batched, alone, strict=True):
            assert (got is None) or torch.allclose(got[i], expected, rtol=0, atol=FLOAT32_TOLERANCE)


# Of what torch.func and forward mode themselves do.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@every_cell
@both_ways
def test_what_follows_single_operations_sees_them(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    """By forward-mode differentiation and by torch.func, each against the pass back."""
    import torch.autograd.forward_ad as forward_ad

    given = drawn(kind, (4, 2, 3, 5), way.dtype)
    x, along = given["x"].detach(), torch.randn(4, 2, 3, dtype=way.dtype)

    def total(x: Any) -> Any:
        return run(kind, activation, {**given, "x": x}, way)[0].sin().sum()

    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(total(leaf), leaf)
    assert_near(torch.func.grad(total)(x), slope.double(), way.tolerance)
    expected = (slope * along).sum().double()
    assert_near(torch.func.jvp(total, (x,), (along,))[1], expected, way.tolerance)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(total(forward_ad.make_dual(x, along))).tangent
    assert_near(tangent, expected, way.tolerance)
    rows = torch.func.vmap(total)(torch.stack([x, along]))
    expected = torch.stack([total(x), total(along)])
    assert_near(rows, expected.double(), way.tolerance)


@every_cell
@both_ways
def test_two_passes_through_one_layer_do_not_meet(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    """The forward pass of a second batch leaves the first one's gradients alone."""
    given = drawn(kind, (5, 4, 3, 7), way.dtype)
    reference = gradients(run(kind, activation, given, way), given)
    first = run(kind, activation, given, way)
    other = {k: (v.detach() * 2).requires_grad_() for k, v in given.items()}
    gradients(run(kind, activation, other, way), other)
    got = gradients(first, given)
    assert all(torch.equal(got[k], v) for k, v in reference.items())


@every_cell
@both_ways
def test_nothing_given_is_changed(way: Way, kind: CellKind, activation: Activation) -> None:
    given = drawn(kind, (5, 4, 3, 7), way.dtype, state=True)
    kept = {k: v.detach().clone() for k, v in given.items()}
    gradients(run(kind, activation, given, way), given)
    assert all(torch.equal(v.detach(), kept[k]) for k, v in given.items())


@every_cell
@both_ways
def test_writing_into_weights_or_states_between_the_passes_is_refused_or_harmless(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (5, 4, 3, 7), way.dtype)
    reference = gradients(run(kind, activation, given, way), given)
    read = run(kind, activation, given, way)
    given["kernel"].data.add_(0)  # as an optimiser does: autograd is not told
    with torch.no_grad():
        read[0].zero_()
    try:
        got = gradients(read, given)
    except RuntimeError as error:
        assert "inplace" in str(error)  # noqa: PT017
    else:
        assert all(torch.equal(got[k], v) for k, v in reference.items())
    read = run(kind, activation, given, way)
    with torch.no_grad():
        given["kernel"].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(read, given)


@every_cell
@both_ways
def test_without_gradients_the_states_are_the_same(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (5, 4, 3, 7), way.dtype, state=True)
    states, _ = run(kind, activation, given, way)
    assert states.requires_grad
    for silence in (torch.no_grad(), torch.inference_mode()):
        with silence:
            bare, _ = run(kind, activation, given, way)
        assert not bare.requires_grad
        assert torch.equal(states.detach(), bare)


@every_cell
@both_ways
def test_inputs_need_no_gradients_and_may_lie_anyhow(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    """Pictures ask for none; a sequence read backwards or batch first is a view."""
    given = drawn(kind, (5, 4, 3, 7), way.dtype)
    reference = gradients(run(kind, activation, given, way), given)
    batch_first = given["x"].detach().transpose(0, 1).contiguous()
    plain = {**given, "x": batch_first.transpose(0, 1)}
    turned = plain["kernel"].detach().t().contiguous().t()
    plain["kernel"] = turned.requires_grad_()
    read = run(kind, activation, plain, way)
    weights = {k: v for k, v in plain.items() if k != "x"}
    for name, value in gradients(read, weights).items():
        assert_near(value, reference[name].double(), way.tolerance)


@every_cell
@both_ways
def test_a_batch_of_none_has_states_of_none(
    way: Way, kind: CellKind, activation: Activation
) -> None:
    given = drawn(kind, (5, 0, 3, 7), way.dtype, state=True)
    read = run(kind, activation, given, way)
    assert read[0].shape == (5, 0, 7)
    for name, value in gradients(read, given).items():
        assert value.shape == given[name].shape
        assert not value.any()


# --- the core's own ---------------------------------------------------------------------------


@needs_native
def test_the_core_runs_what_it_can_and_says_what_it_cannot() -> None:
    from rowwise.engines.torch_cells import why_not_native

    assert why_not_native(torch.empty(0)) is None
    assert why_not_native(torch.empty(0).double()) == "it computes in float32, not in torch.float64"
    meta = torch.empty(0, device="meta")
    assert why_not_native(meta) == "it runs on the CPU, not on meta"


@needs_native
def test_the_core_is_taken_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from rowwise.engines import native_recurrence, torch_cells

    ran: list[str] = []
    for module, name in ((native_recurrence, "NativeRecurrence"), (torch_cells, "Recurrence")):

        def noted(*given: Any, name: str = name, apply: Any = getattr(module, name).apply) -> Any:
            ran.append(name)
            return apply(*given)

        monkeypatch.setattr(getattr(module, name), "apply", noted)
    for dtype in (torch.float32, torch.float64):
        given = drawn("gru", SIZES["odd"], dtype)
        weights = {k: v for k, v in given.items() if k != "x"}
        torch_cells.recur(given["x"], weights, kind="gru", activation="tanh")
    assert ran == ["NativeRecurrence", "Recurrence"]


def test_without_a_core_pytorch_runs_it_and_the_reason_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from rowwise.engines.torch_cells import recur, why_not_native

    given = drawn("lstm", SIZES["odd"], torch.float32)
    weights = {k: v for k, v in given.items() if k != "x"}
    expected, _ = run("lstm", "tanh", given, Way(""))
    monkeypatch.setattr(core, "FOLDER", tmp_path)
    assert "it was not built" in str(why_not_native(given["x"]))
    states, _ = recur(given["x"], weights, kind="lstm", activation="tanh")
    assert torch.equal(states, expected)
    with pytest.raises(EngineError, match=r"the native core cannot run recurrences: .*not built"):
        run("lstm", "tanh", given, Way("avx2"))


@needs_native
def test_a_path_that_is_forced_is_taken_and_in_vain_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rowwise.engines import native_recurrence

    monkeypatch.setenv(core.FORCED, "portable")
    assert native_recurrence.library() is core.load("portable")
    monkeypatch.setenv(core.FORCED, "fastest")
    with pytest.raises(EngineError, match=r"a processor path is one of .*ROWWISE_ISA=fastest"):
        native_recurrence.library()


@needs_native
def test_the_torch_engine_tells_the_path_and_trains_on_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """So that a run goes on with the path that it began with."""
    from rowwise.engines import native_recurrence, torch_cells

    experiment = Experiment(name="small", layers=(Recurrent(kind="gru", units=3),))
    network = Network(experiment, shape=(4, 3), classes=5)
    choice = engines.choose("torch", network, training=True)
    assert choice.path == core.best()
    ran: list[str] = []
    checked = native_recurrence._checked
    monkeypatch.setattr(
        native_recurrence,
        "_checked",
        lambda way, given: (ran.append(way.path), checked(way, given))[1],
    )
    plain = torch_cells.Tape.blank
    monkeypatch.setattr(
        torch_cells.Tape, "blank", lambda *given: (ran.append(""), plain(*given))[1]
    )
    images, labels = np.ones((2, 4, 3), np.float32), np.zeros(2, np.int64)
    for path in ("", "portable"):
        given = (network, network.initialise(seed=0), images, labels)
        own = engines.trainer(choice._replace(path=path), *given, seed=0, threads=1)
        own.run(np.arange(2), batch=2, first_step=0, rates=np.ones(1))
    assert ran == ["", "portable"]
    monkeypatch.setattr(core, "FOLDER", tmp_path)
    assert engines.choose("torch", network, training=True).path == ""


WRONG: dict[str, tuple[str, Any, str]] = {
    "input": ("kernel", lambda v: v[1:], r"the kernel of this GRU is \(3, 21\), got \(2, 21\)"),
    "gates": ("recurrent_kernel", lambda v: v[:, 1:], r"recurrent_kernel of this GRU is \(7, 21\)"),
    "bias": ("bias", lambda v: v[1:], r"the bias of this GRU is \(21,\), got \(20,\)"),
    "no bias": (
        "recurrent_bias",
        lambda v: None,
        r"recurrent_bias of this GRU is \(21,\), got Non",
    ),
    "state": ("h", lambda v: v[1:], r"the h of this GRU is \(4, 7\), got \(3, 7\)"),
    "memory": ("c", lambda v: torch.zeros(4, 7), r"the c of this GRU is None, got \(4, 7\)"),
    "no steps": ("x", lambda v: v[:0], r"sequences are \[T, B, I\] with a step at least, got"),
    "no batch": ("x", lambda v: v[0], r"sequences are \[T, B, I\] with a step at least, got"),
    "type": ("bias", lambda v: v.double(), "on the CPU in float32, got bias in torch.float64"),
    "integers": ("x", lambda v: v.int(), "on the CPU in float32, got x in torch.int32"),
    "place": ("h", lambda v: v.to("meta"), "in float32, got h in torch.float32 on meta"),
    "no inputs": ("x", lambda v: v[..., :0], r"the kernel of this GRU is \(0, 21\)"),
}


@needs_native
@pytest.mark.parametrize(("name", "change", "told"), WRONG.values(), ids=WRONG.keys())
def test_what_the_core_cannot_take_never_reaches_it(name: str, change: Any, told: str) -> None:
    given = drawn("gru", (5, 4, 3, 7), torch.float32, state=True)
    given[name] = change(given.get(name))
    with pytest.raises(EngineError, match=told):
        run("gru", "tanh", given, Way("portable"))


@needs_native
def test_absurd_sizes_never_reach_the_core() -> None:
    """A view of one number is as long as one likes."""
    given = drawn("simple_rnn", (1, 1, 1, 1), torch.float32)
    given["x"] = torch.zeros(1, 1, 1).expand(2**30 + 1, 1, 1)
    with pytest.raises(
        EngineError, match=r"T, B, I, G·H are at most 1,073,741,824, got \(1073741825"
    ):
        run("simple_rnn", "tanh", given, Way("portable"))
