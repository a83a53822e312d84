"""`rowwise.torch`: its layers are those of torch.nn, whoever runs them."""

from __future__ import annotations

import copy
import gc
import importlib
import io
import math
import pickle
import resource
import subprocess
import sys
import threading
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowwise import core
from rowwise.cells import CELLS
from rowwise.errors import EngineError, MissingExtra

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'rowwise[torch]'")

import rowwise.torch as rt  # noqa: E402  (it needs PyTorch)

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("LSTM", "GRU", "RNN")
every_layer = pytest.mark.parametrize("name", NAMES)
WITH_ACTIVATION = list(product(NAMES, ("tanh", "relu")))
every_activation = pytest.mark.parametrize(("name", "activation"), WITH_ACTIVATION)
# For what takes PyTorch seconds: one that torch.nn knows, and one that it does not.
QUICK = (("LSTM", "tanh"), ("GRU", "relu"))
few_activations = pytest.mark.parametrize(
    ("name", "activation"),
    [
        pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
        for case in WITH_ACTIVATION
    ],
)
needs_native = pytest.mark.skipif(core.why_not() is not None, reason=f"{core.why_not()}")
# The bar that the project sets for float32, of the largest value.
FLOAT32_TOLERANCE = 1e-5
FLOAT64_TOLERANCE = 1e-12


def twins(name: str, *sizes: int, seed: int = 0, **settings: Any) -> tuple[Any, Any]:
    """torch.nn's layer and ours, with the same weights."""
    torch.manual_seed(seed)
    theirs = getattr(torch.nn, name)(*sizes, **settings)
    ours = getattr(rt, name)(*sizes, **settings)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def as_tuple(states: Any) -> tuple[Any, ...]:
    return states if isinstance(states, tuple) else (states,)


def begin(layer: Any, batch: int, *, seed: int = 1) -> Any:
    """Initial states [L, B, H] that ask for gradients, as the layer takes them."""
    torch.manual_seed(seed)
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    shape = (count, batch, layer.hidden_size)
    dtype = layer.weight_ih_l0.dtype
    h, c = (torch.randn(shape, dtype=dtype).requires_grad_() for _ in "hc")
    return (h, c) if isinstance(layer, torch.nn.LSTM) else h


def read(layer: Any, x: Any, hx: Any = None) -> tuple[list[Any], list[Any]]:
    """Outputs and last states; and of a mix of them the gradients of x, states and weights."""
    x = x.detach().requires_grad_(x.requires_grad)
    if hx is not None:
        hx = tuple(s.detach().requires_grad_() for s in as_tuple(hx))
    given = hx if hx is None or isinstance(layer, torch.nn.LSTM) else hx[0]
    output, states = layer(x, given)
    values = [output, *as_tuple(states)]
    torch.manual_seed(9)
    mixes = [torch.randn(value.shape, dtype=torch.float64).to(value.dtype) for value in values]
    total = sum((value * mix).sum() for value, mix in zip(values, mixes, strict=True))
    leaves = [t for t in (x, *(hx or ())) if t.requires_grad] + list(layer.parameters())
    return values, list(torch.autograd.grad(total, leaves))


def assert_alike(ours: Any, theirs: Any, x: Any, hx: Any = None, *, tolerance: float) -> None:
    for mine, reference in zip(read(ours, x, hx), read(theirs, x, hx), strict=True):
        for got, expected in zip(mine, reference, strict=True):
            assert got.shape == expected.shape
            assert got.dtype == expected.dtype
            scale = max(1.0, float(expected.detach().abs().max()))
            assert float((got - expected).detach().abs().max()) <= tolerance * scale


def drawn(*shape: int, dtype: Any = None) -> Any:
    torch.manual_seed(5)
    return torch.randn(*shape, dtype=dtype).requires_grad_()


LAYOUTS = {
    "plain": {},
    "no-bias": {"bias": False},
    "batch-first": {"batch_first": True},
    "both-ways": {"bidirectional": True},
    "stacked": {"num_layers": 3},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False},
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


# --- in the place of torch.nn's ---------------------------------------------------------------


@pytest.mark.parametrize("state", [False, True], ids=["from-zero", "from-a-state"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_layout
@every_layer
def test_outputs_states_and_gradients_are_torch_nns(
    name: str, layout: dict[str, Any], dtype: str, state: bool
) -> None:
    theirs, ours = twins(name, 6, 9, **layout, dtype=getattr(torch, dtype))
    x = drawn(*((4, 7) if layout.get("batch_first") else (7, 4)), 6, dtype=getattr(torch, dtype))
    tolerance = FLOAT32_TOLERANCE if dtype == "float32" else FLOAT64_TOLERANCE
    assert_alike(ours, theirs, x, begin(ours, 4) if state else None, tolerance=tolerance)


@every_layer
def test_relu_rnn_and_positions_of_arguments(name: str) -> None:
    """Every argument by its place, as in torch.nn."""
    own = ("relu",) if name == "RNN" else ()
    theirs, ours = twins(name, 3, 5, 2, *own, True, True, 0.0, True)
    assert_alike(ours, theirs, drawn(4, 7, 3), tolerance=FLOAT32_TOLERANCE)
    assert repr(ours).replace(", activation=relu", "") == repr(theirs)


@settings(max_examples=40)
@given(
    name=st.sampled_from(NAMES),
    steps=st.integers(1, 12),
    batch=st.integers(1, 20),
    inputs=st.integers(1, 40),
    hidden=st.integers(1, 40),
    layers=st.integers(1, 2),
    both=st.booleans(),
    first=st.booleans(),
    bias=st.booleans(),
    state=st.booleans(),
    wants=st.booleans(),
    threads=st.integers(1, 3),
)
def test_any_sizes(
    name: str,
    steps: int,
    batch: int,
    inputs: int,
    hidden: int,
    layers: int,
    both: bool,
    first: bool,
    bias: bool,
    state: bool,
    wants: bool,
    threads: int,
) -> None:
    theirs, ours = twins(
        name, inputs, hidden, layers, bias=bias, batch_first=first, bidirectional=both
    )
    x = drawn(*((batch, steps) if first else (steps, batch)), inputs).requires_grad_(wants)
    torch.set_num_threads(threads)
    try:
        hx = begin(ours, batch) if state else None
        assert_alike(ours, theirs, x, hx, tolerance=FLOAT32_TOLERANCE)
    finally:
        torch.set_num_threads(1)


@every_layer
def test_one_sequence_without_a_batch(name: str) -> None:
    for first in (False, True):
        theirs, ours = twins(name, 3, 5, bidirectional=True, batch_first=first)
        hx = begin(ours, 1)
        alone = tuple(s[:, 0].detach() for s in as_tuple(hx))
        hx = alone if name == "LSTM" else alone[0]
        assert_alike(ours, theirs, drawn(7, 3), hx, tolerance=FLOAT32_TOLERANCE)
        assert_alike(ours, theirs, drawn(7, 3), tolerance=FLOAT32_TOLERANCE)


@every_layer
def test_inputs_may_lie_anyhow(name: str) -> None:
    theirs, ours = twins(name, 3, 5)
    for x in (
        drawn(4, 7, 3).transpose(0, 1),
        drawn(7, 4, 6)[..., ::2],
        drawn(14, 4, 3)[::2],
        drawn(1, 1, 3).expand(7, 4, 3),
        drawn(7, 3, 4).mT,
    ):
        assert not x.is_contiguous()
        assert_alike(ours, theirs, x, tolerance=FLOAT32_TOLERANCE)


@every_layer
def test_without_gradients_the_output_is_the_same(name: str) -> None:
    _, ours = twins(name, 3, 5, bidirectional=True)
    x = drawn(7, 4, 3)
    output, _ = ours(x)
    assert output.requires_grad
    for silence in (torch.no_grad(), torch.inference_mode()):
        with silence:
            bare, _ = ours(x)
        assert not bare.requires_grad
        assert torch.equal(bare, output.detach())
    ours.requires_grad_(False)
    assert not ours(x.detach())[0].requires_grad


@every_layer
def test_frozen_weights_get_no_gradient_and_x_does(name: str) -> None:
    theirs, ours = twins(name, 3, 5)
    for layer in (theirs, ours):
        layer.weight_hh_l0.requires_grad_(False)
    x, y = drawn(7, 4, 3), drawn(7, 4, 3)
    ours(x)[0].sum().backward()
    theirs(y)[0].sum().backward()
    assert ours.weight_hh_l0.grad is None
    for mine, reference in ((x, y), (ours.weight_ih_l0, theirs.weight_ih_l0)):
        assert torch.allclose(mine.grad, reference.grad, rtol=0, atol=FLOAT32_TOLERANCE)


@every_layer
def test_a_state_that_is_handed_on_carries_its_gradient(name: str) -> None:
    """As in truncated back-propagation without the cut: two halves are the whole."""
    _, ours = twins(name, 3, 5)
    x = drawn(8, 4, 3)
    whole, _ = ours(x)
    first, states = ours(x[:4])
    second, _ = ours(x[4:], states)
    halves = torch.cat([first, second])
    assert torch.allclose(halves, whole, rtol=0, atol=FLOAT32_TOLERANCE)
    mix = torch.randn(whole.shape)
    leaves = [x, *ours.parameters()]
    expected = torch.autograd.grad((whole * mix).sum(), leaves)
    for mine, reference in zip(
        torch.autograd.grad((halves * mix).sum(), leaves), expected, strict=True
    ):
        scale = float(reference.abs().max())
        assert torch.allclose(mine, reference, rtol=0, atol=FLOAT32_TOLERANCE * scale)


# --- activation -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["lstm", "gru", "simple_rnn"])
def test_relu_takes_the_place_of_every_tanh(kind: str, dtype: str) -> None:
    """Against the step of `cells.py`, in both precisions."""
    import numpy as np

    from rowwise.cells import ACTIVATIONS, CellWeights

    name = {"lstm": "LSTM", "gru": "GRU", "simple_rnn": "RNN"}[kind]
    torch.manual_seed(3)
    layer = getattr(rt, name)(6, 9, activation="relu", dtype=getattr(torch, dtype))
    assert "activation=relu" in repr(layer)
    x = drawn(7, 4, 6, dtype=getattr(torch, dtype))
    cell = CELLS[kind]  # type: ignore[index]
    w_x, w_h, b_x, b_h = (p.detach().double().numpy() for p in layer.parameters())
    two = (b_x, b_h) if cell.has_recurrent_bias else (b_x + b_h,)
    weights = CellWeights(w_x.T, w_h.T, *two)
    state = tuple(np.zeros((4, 9)) for _ in range(cell.states))
    output, last = layer(x)
    tolerance = FLOAT32_TOLERANCE if dtype == "float32" else FLOAT64_TOLERANCE
    for t, step in enumerate(x.detach().double().numpy()):
        state = cell.step(step, state, weights, ACTIVATIONS["relu"])
        assert np.abs(output[t].detach().numpy() - state[0]).max() <= tolerance
    for mine, reference in zip(as_tuple(last), state, strict=True):
        assert np.abs(mine[0].detach().numpy() - reference).max() <= tolerance


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_relu_in_float32_has_the_gradients_of_float64(name: str) -> None:
    torch.manual_seed(4)
    layout = {"num_layers": 2, "bidirectional": True, "activation": "relu"}
    narrow = getattr(rt, name)(6, 9, **layout)
    wide = copy.deepcopy(narrow).double()
    x = drawn(7, 4, 6)
    for mine, reference in zip(
        read(narrow, x, begin(narrow, 4)),
        read(wide, x.double(), tuple(s.double() for s in as_tuple(begin(narrow, 4)))),
        strict=True,
    ):
        for got, expected in zip(mine, reference, strict=True):
            scale = max(1.0, float(expected.detach().abs().max()))
            assert float((got - expected).detach().abs().max()) <= FLOAT32_TOLERANCE * scale


def test_what_there_is_not_is_refused_in_a_line() -> None:
    with pytest.raises(EngineError, match="an activation is tanh or relu, got 'gelu'"):
        rt.LSTM(3, 5, activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"has no projections, got proj_size=2; put a Linear"):
        rt.LSTM(3, 5, proj_size=2, activation="relu")
    with pytest.raises(EngineError, match="one thing, got 'tanh' and 'relu'; give one of them"):
        rt.RNN(3, 5, nonlinearity="relu", activation="tanh")
    assert rt.RNN(3, 5, nonlinearity="relu").activation == "relu"
    assert rt.RNN(3, 5, activation="relu").nonlinearity == "relu"
    with pytest.raises(ValueError, match="Unknown nonlinearity 'gelu'"):
        rt.RNN(3, 5, nonlinearity="gelu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="proj_size has to be smaller than hidden_size"):
        rt.LSTM(3, 5, proj_size=7)
    with pytest.raises(ValueError, match="dropout should be a number in range"):
        rt.GRU(3, 5, dropout=2)
    with pytest.raises(ValueError, match="hidden_size must be greater than zero"):
        rt.GRU(3, 0)


WRONG: dict[str, Any] = {
    "4-D": lambda x, hx: (x[None],),
    "1-D": lambda x, hx: (x[0, 0],),
    "width": lambda x, hx: (x[..., :2],),
    "dtype": lambda x, hx: (x.double(),),
    "integers": lambda x, hx: (x.int(),),
    "no steps": lambda x, hx: (x[:0],),
    "no tensor": lambda x, hx: (x.detach().numpy(),),
    "nothing": lambda x, hx: (None,),
    "sparse": lambda x, hx: (x.detach().to_sparse(),),
    "elsewhere": lambda x, hx: (x.to("meta"),),
    "alone with [L, B, H]": lambda x, hx: (x[:, 0], hx),
    "batched with [L, H]": lambda x, hx: (x, changed(hx, lambda s: s[:, 0])),
    "state's batch": lambda x, hx: (x, changed(hx, lambda s: s[:, :3])),
    "state's dtype": lambda x, hx: (x, changed(hx, lambda s: s.double())),
    "state elsewhere": lambda x, hx: (x, changed(hx, lambda s: s.to("meta"))),
    "three states": lambda x, hx: (x, (as_tuple(hx)[0],) * 3),
    "one of two states": lambda x, hx: (x, (as_tuple(hx)[0],)),
    "a state or a pair": lambda x, hx: (x, hx[0] if isinstance(hx, tuple) else (hx, hx)),
}


def changed(hx: Any, change: Any) -> Any:
    return tuple(change(s) for s in hx) if isinstance(hx, tuple) else change(hx)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
@every_layer
def test_what_is_wrong_is_refused_by_torch_nns_own_exception(
    name: str, wrong: Any, activation: str
) -> None:
    """So that what catches it there catches it here, also where torch.nn knows no such layer."""
    theirs, _ = twins(name, 3, 5)
    ours = getattr(rt, name)(3, 5, activation=activation)
    given = wrong(drawn(7, 4, 3), begin(ours, 4))
    with pytest.raises(Exception) as reference:  # noqa: PT011  (whatever torch.nn raises)
        theirs(*given)
    with pytest.raises(type(reference.value)) as got:
        ours(*given)
    assert type(got.value) is type(reference.value)
    assert str(got.value) == str(reference.value)


@every_layer
def test_types_that_autocast_leaves_alone_are_refused_as_by_torch_nn(name: str) -> None:
    theirs, ours = twins(name, 3, 5)
    with torch.autocast("cpu", torch.bfloat16):
        for layer in (theirs, ours):
            with pytest.raises(RuntimeError, match="got Double and BFloat16"):
                layer(drawn(7, 4, 3).double())


def test_relu_never_hands_over_what_another_torch_would_read_with_tanh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    layer = rt.GRU(3, 5, activation="relu")
    monkeypatch.setattr(torch.nn.GRU, "forward", lambda *given: "read")
    with pytest.raises(EngineError, match=r"GRU with relu cannot read torch\.float64 \[7, 4, 3\]"):
        layer(drawn(7, 4, 3).double())


# --- weights ----------------------------------------------------------------------------------


@every_layout
@every_layer
def test_weights_go_both_ways_by_name(name: str, layout: dict[str, Any]) -> None:
    theirs, ours = twins(name, 6, 9, **layout)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    other = getattr(rt, name)(6, 9, **layout)
    theirs.load_state_dict(other.state_dict())
    for key, value in theirs.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)


@every_layer
def test_initial_values_are_torch_nns_and_so_is_the_class(name: str) -> None:
    torch.manual_seed(7)
    theirs = getattr(torch.nn, name)(6, 9, 2)
    torch.manual_seed(7)
    ours = getattr(rt, name)(6, 9, 2)
    assert isinstance(ours, getattr(torch.nn, name))
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
    ours.reset_parameters()
    assert all(p.abs().max() <= 1 / math.sqrt(9) for p in ours.parameters())


@every_layer
def test_copies_saves_casts_and_flattening(name: str, tmp_path: Any) -> None:
    _, ours = twins(name, 3, 5, bidirectional=True)
    x = drawn(7, 4, 3)
    expected = ours(x)[0]
    assert torch.equal(copy.deepcopy(ours)(x)[0], expected)
    stream = io.BytesIO()
    torch.save(ours.state_dict(), stream)
    stream.seek(0)
    again = getattr(rt, name)(3, 5, bidirectional=True)
    again.load_state_dict(torch.load(stream, weights_only=True))
    assert torch.equal(again(x)[0], expected)
    assert ours.double()(x.double())[0].dtype == torch.float64
    assert torch.equal(ours.float()(x)[0], expected)
    ours.flatten_parameters()
    assert torch.equal(pickle.loads(pickle.dumps(ours))(x)[0], expected)
    assert [p.shape for p in getattr(rt, name)(3, 5, device="meta").parameters()]
    assert ours.to("meta")(x.to("meta"))[0].shape == expected.shape


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_relu_in_half_precision_and_without_memory(name: str) -> None:
    layer = getattr(rt, name)(3, 5, 2, bidirectional=True, activation="relu")
    x = drawn(7, 4, 3)
    expected = layer(x)[0]
    for dtype, tolerance in ((torch.float16, 5e-3), (torch.bfloat16, 4e-2)):
        output = copy.deepcopy(layer).to(dtype)(x.to(dtype))[0]
        assert output.dtype == dtype
        assert torch.allclose(output.float(), expected, rtol=tolerance, atol=tolerance)
    assert layer.to("meta")(x.to("meta"))[0].shape == expected.shape


@every_layer
def test_a_batch_of_none_is_torch_nns(name: str) -> None:
    theirs, ours = twins(name, 3, 5, 2, bidirectional=True)
    x = drawn(7, 4, 3)[:, :0].detach().requires_grad_()
    values, expected = ours(x), theirs(x)
    for got, reference in zip(
        (values[0], *as_tuple(values[1])), (expected[0], *as_tuple(expected[1])), strict=True
    ):
        assert got.shape == reference.shape
    for gradient in torch.autograd.grad(values[0].sum(), [x, *ours.parameters()]):
        assert not gradient.any()


@every_layer
def test_weights_that_change_before_the_pass_back_are_an_error_as_in_torch_nn(name: str) -> None:
    for layer in twins(name, 3, 5):
        output, _ = layer(drawn(7, 4, 3))
        with torch.no_grad():
            layer.weight_hh_l0.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.sum().backward()


@every_layer
def test_an_output_may_be_written_to(name: str) -> None:
    _, ours = twins(name, 3, 5)
    leaves = [drawn(7, 4, 3), *ours.parameters()]
    expected = torch.autograd.grad(ours(leaves[0])[0].relu().sum(), leaves)
    got = torch.autograd.grad(ours(leaves[0])[0].relu_().sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_projections_are_torch_nns() -> None:
    theirs, ours = twins("LSTM", 6, 9, 2, bidirectional=True, proj_size=4)
    assert ours.why_not_native(drawn(7, 4, 6)) == "it has no projections"
    assert_alike(ours, theirs, drawn(7, 4, 6), tolerance=FLOAT32_TOLERANCE)


def test_a_view_that_only_changes_the_sign_is_read_with_it() -> None:
    theirs, ours = twins("LSTM", 1, 5)
    x = torch.complex(torch.ones(1, 1, 1), torch.ones(1, 1, 1)).conj().imag
    assert x.is_neg()
    assert x.is_contiguous()
    assert torch.allclose(ours(x)[0], theirs(x)[0], rtol=0, atol=FLOAT32_TOLERANCE)


@every_layer
def test_weights_may_be_swapped_for_a_call_or_a_parametrization(name: str) -> None:
    theirs, ours = twins(name, 3, 5)
    x = drawn(7, 4, 3)
    halved = {k: v / 2 for k, v in ours.named_parameters()}
    swapped, _ = torch.func.functional_call(ours, halved, (x,))
    reference, _ = torch.func.functional_call(theirs, halved, (x,))
    assert torch.allclose(swapped, reference, rtol=0, atol=FLOAT32_TOLERANCE)
    for layer in (ours, theirs):
        torch.nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    assert_alike(ours, theirs, x, tolerance=FLOAT32_TOLERANCE)


def test_it_learns_with_an_optimiser_of_torch() -> None:
    """Which of two halves of a sequence is the louder; weights change between the calls."""
    torch.manual_seed(0)
    layer, head = rt.GRU(1, 8, batch_first=True, activation="relu"), torch.nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.02)
    x = torch.rand(64, 10, 1)
    y = (x[:, :5].sum((1, 2)) > x[:, 5:].sum((1, 2))).float()
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        output, _ = layer(x)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(head(output[:, -1])[:, 0], y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 < 0.6 < losses[0]


# --- dropout ----------------------------------------------------------------------------------


@every_layer
def test_dropout_of_none_and_of_all_are_torch_nns(name: str) -> None:
    for share in (0.0, 1.0):
        theirs, ours = twins(name, 3, 5, 3, dropout=share, bidirectional=True)
        assert_alike(ours, theirs, drawn(7, 4, 3), tolerance=FLOAT32_TOLERANCE)


@every_layer
def test_dropout_stands_between_the_layers_in_training_alone(name: str) -> None:
    theirs, ours = twins(name, 3, 64, 2, dropout=0.5)
    x = drawn(7, 40, 3)
    ours.eval()
    theirs.eval()
    assert_alike(ours, theirs, x, tolerance=FLOAT32_TOLERANCE)
    ours.train()
    first, second = getattr(rt, name)(3, 64), getattr(rt, name)(64, 64)
    weights = ours.state_dict()
    first.load_state_dict({k: v for k, v in weights.items() if k.endswith("l0")})
    second.load_state_dict(
        {k.replace("l1", "l0"): v for k, v in weights.items() if k.endswith("l1")}
    )
    torch.manual_seed(11)
    by_hand = second(torch.nn.functional.dropout(first(x)[0], 0.5))[0]
    torch.manual_seed(11)
    assert torch.equal(ours(x)[0], by_hand)
    assert not torch.equal(ours(x)[0], by_hand)


@every_layer
def test_dropout_draws_what_torch_nns_draws(name: str) -> None:
    theirs, ours = twins(name, 3, 5, 3, dropout=0.4, bidirectional=True, batch_first=True)
    x = drawn(4, 7, 3)
    outputs = []
    for layer in (ours, theirs):
        torch.manual_seed(12)
        outputs.append(layer(x)[0])
    assert torch.allclose(*outputs, rtol=0, atol=FLOAT32_TOLERANCE)


# --- who runs it ------------------------------------------------------------------------------


class Ran:
    """Who ran recurrences since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from rowwise.engines import native_recurrence, torch_cells

        self._seen: list[str] = []
        for owner, word in (
            (native_recurrence.NativeRecurrence, "native"),
            (torch_cells.Recurrence, "here"),
        ):
            monkeypatch.setattr(owner, "apply", self._noting(word, owner.apply))
        for name in NAMES:
            module = getattr(torch.nn, name)
            monkeypatch.setattr(module, "forward", self._noting("torch.nn", module.forward))

    def _noting(self, word: str, function: Any) -> Any:
        def call(*given: Any) -> Any:
            self._seen.append(word)
            return function(*given)

        return call

    def look(self) -> list[str]:
        seen, self._seen = self._seen, []
        return seen


@needs_native
@every_activation
def test_the_rule_of_who_runs_a_layer(
    name: str, activation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran(monkeypatch)
    layer = getattr(rt, name)(3, 5, activation=activation)
    x = drawn(7, 4, 3)
    assert layer.why_not_native(x) is None
    layer(x)
    assert ran.look() == ["native"]
    layer.double()
    assert layer.why_not_native(x.double()) == "it computes in float32, not in torch.float64"
    layer(x.double())
    known = activation == "tanh" or name == "RNN"
    assert ran.look() == ["torch.nn" if known else "here"]
    monkeypatch.setattr(core, "FOLDER", core.FOLDER / "nowhere")
    assert "it was not built" in str(layer.float().why_not_native(x))
    layer(x)
    assert ran.look() == ["torch.nn" if known else "here"]


@every_activation
def test_packed_sequences_are_torch_nns_or_refused(name: str, activation: str) -> None:
    ours = getattr(rt, name)(3, 5, activation=activation)
    packed = torch.nn.utils.rnn.pack_padded_sequence(drawn(7, 4, 3), [7, 5, 5, 2])
    assert ours.why_not_native(packed) == "it reads no packed sequences"
    if activation == "relu" and name != "RNN":
        with pytest.raises(EngineError, match="with relu reads no packed sequences; pad them"):
            ours(packed)
        return
    theirs = getattr(torch.nn, name)(
        3, 5, **({"nonlinearity": activation} if name == "RNN" else {})
    )
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours(packed)[0].data, theirs(packed)[0].data)


@every_layer
def test_an_autocast_region_may_feed_it(name: str) -> None:
    """A layer before it gives bfloat16 there; the recurrence itself stays in float32."""
    ours = getattr(rt, name)(3, 5)
    x = drawn(7, 4, 3)
    before = torch.nn.Linear(3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        halved = before(x)
        output, _ = ours(halved)
    reference, _ = ours(halved.float())
    assert torch.equal(output, reference.bfloat16())
    output.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in before.parameters())


def halves(layer: Any, x: Any, hx: Any) -> list[Any]:
    with torch.autocast("cpu", torch.bfloat16):
        output, states = layer(x, hx)
    return [value.dtype for value in (output, *as_tuple(states))]


@pytest.mark.parametrize("x_type", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("h_type", [None, torch.float32, torch.bfloat16], ids=str)
@every_layer
def test_autocast_gives_the_types_of_torch_nns(name: str, h_type: Any, x_type: Any) -> None:
    """Of the LSTM those of oneDNN, which a processor without bfloat16 lacks: there by rule."""
    theirs, ours = twins(name, 3, 5, 2, bidirectional=True)
    x = drawn(7, 4, 3).to(x_type)
    hx = None if h_type is None else changed(begin(ours, 4), lambda s: s.detach().to(h_type))
    expected = [torch.bfloat16] * 3 if name == "LSTM" else halves(theirs, x, hx)
    assert halves(ours, x, hx) == expected


# --- what goes through it -------------------------------------------------------------------------


def loss_of(layer: Any) -> Any:
    return lambda x: layer(x)[0].sin().sum()


def result_of(function: Any) -> Any:
    """What it gives, or how it fails."""
    try:
        return function()
    except (RuntimeError, NotImplementedError) as error:
        return type(error), str(error)


def assert_same(got: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert torch.allclose(got, expected, rtol=0, atol=2 * FLOAT32_TOLERANCE)
    else:
        assert got == expected


@every_layer
def test_second_derivatives_are_torch_nns(name: str) -> None:
    """A Hessian, a gradient penalty's gradients, and jvp by the trick of two passes back."""
    theirs, ours = twins(name, 3, 5, 2, bidirectional=True)
    x = drawn(4, 2, 3).detach()
    functional = torch.autograd.functional
    seconds = []
    for layer in (ours, theirs):
        hessian = functional.hessian(loss_of(layer), x)
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(layer)(leaf), leaf, create_graph=True)
        penalties = torch.autograd.grad(slope.square().sum(), list(layer.parameters()))
        _, jvp = functional.jvp(loss_of(layer), x, torch.ones_like(x))
        vectorized = functional.jacobian(lambda x, m=layer: m(x)[0], x, vectorize=True)
        seconds.append([hessian, *penalties, jvp, vectorized])
    assert seconds[0][0].abs().max() > 0.01
    for got, expected in zip(*seconds, strict=True):
        assert torch.allclose(got, expected, rtol=1e-4, atol=2 * FLOAT32_TOLERANCE)


THROUGH: dict[str, Any] = {
    "grad": lambda f, x: torch.func.grad(f)(x),
    "jvp": lambda f, x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1],
    "jacrev": lambda f, x: torch.func.jacrev(f)(x),
    "jacfwd": lambda f, x: torch.func.jacfwd(f)(x),
    "hessian": lambda f, x: torch.func.hessian(f)(x),
    "vmap": lambda f, x: torch.func.vmap(f)(torch.stack([x, 2 * x])),
    "vmap-grad": lambda f, x: torch.func.vmap(torch.func.grad(f))(torch.stack([x, 2 * x])),
}


# Of torch.func's own, and of what it does row by row.
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning", "ignore:There is a performance")
@pytest.mark.parametrize("through", THROUGH.values(), ids=THROUGH.keys())
@every_layer
def test_transforms_of_torch_func_are_torch_nns(name: str, through: Any) -> None:
    """Also where they fail: oneDNN's LSTM has no forward mode, and torch.nn's no vmap."""
    theirs, ours = twins(name, 3, 5)
    x = drawn(4, 2, 3).detach()
    expected = result_of(lambda: through(loss_of(theirs), x))
    assert_same(result_of(lambda: through(loss_of(ours), x)), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_transforms_go_through_relu(name: str) -> None:
    layer = getattr(rt, name)(3, 5, 2, activation="relu", bidirectional=True)
    x = drawn(4, 2, 3).detach()
    loss = loss_of(layer)
    slope = torch.autograd.functional.jacobian(loss, x)
    curve = torch.autograd.functional.hessian(loss, x)
    assert_same(THROUGH["grad"](loss, x), slope)
    assert_same(THROUGH["jvp"](loss, x), slope.sum())
    assert_same(THROUGH["hessian"](loss, x), curve)
    assert_same(THROUGH["vmap"](loss, x), torch.stack([loss(x), loss(2 * x)]))


@needs_native
@every_layer
def test_the_reason_names_what_would_not_see_the_core(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    _, layer = twins(name, 3, 5)
    x = drawn(7, 4, 3)
    with FlopCounterMode(display=False) as counter:
        assert layer.why_not_native(x) == "its operations are hidden from a dispatch mode"
        layer(x)
    assert (counter.get_total_flops() > 0) == (name != "LSTM")  # oneDNN's are not counted

    class Marked(torch.Tensor):
        """As a library marks its tensors."""

    marked = x.detach().as_subclass(Marked)
    assert layer.why_not_native(marked) == "its operations are hidden from a Marked"
    assert type(layer(marked)[0]) is Marked
    with torch.autograd.forward_ad.dual_level():
        assert "forward-mode" in str(layer.why_not_native(x))
    reasons = []
    torch.func.grad(lambda x: (reasons.append(layer.why_not_native(x)), x.sum())[1])(x.detach())
    assert reasons == ["its operations are hidden from a transform of torch.func"]
    assert layer.why_not_native(x) is None


@every_layer
def test_gradients_may_be_checkpointed(name: str) -> None:
    from torch.utils.checkpoint import checkpoint

    _, ours = twins(name, 3, 5)
    x = drawn(7, 4, 3)
    leaves = [x, *ours.parameters()]
    expected = torch.autograd.grad(loss_of(ours)(x), leaves)
    got = torch.autograd.grad(checkpoint(loss_of(ours), x, use_reentrant=False), leaves)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


# Of what tracing in PyTorch itself says, and that a sequence's length becomes part of a trace.
of_tracing = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore:The tensor attributes"
)


class First(torch.nn.Module):
    """A model round a layer."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The output alone."""
        output: torch.Tensor = self.layer(x)[0]
        return output


@of_tracing
@few_activations
def test_traces_and_exports_are_of_the_layer(name: str, activation: str) -> None:
    model = First(getattr(rt, name)(3, 5, 2, bidirectional=True, activation=activation)).eval()
    x, other = drawn(3, 4, 3).detach(), drawn(3, 4, 3).detach().flip(0)
    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, (x,)), stream)
    stream.seek(0)
    assert_same(torch.jit.load(stream)(other), model(other))
    exported = torch.export.export(model, (x,), strict=False)
    assert_same(exported.module()(other), model(other))


@of_tracing
@pytest.mark.slow
@every_activation
def test_strict_exports_are_of_the_layer(name: str, activation: str) -> None:
    model = First(getattr(rt, name)(3, 5, 2, bidirectional=True, activation=activation)).eval()
    x, other = drawn(3, 4, 3).detach(), drawn(3, 4, 3).detach().flip(0)
    exported = torch.export.export(model, (x,), strict=True)
    assert_same(exported.module()(other), model(other))


@of_tracing
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_a_trace_of_relu_refuses_another_length(name: str) -> None:
    model = First(getattr(rt, name)(3, 5, activation="relu"))
    traced = torch.jit.trace(model, (drawn(7, 4, 3).detach(),))
    with pytest.raises(RuntimeError, match="Expected 7 elements in a list but found 8"):
        traced(drawn(8, 4, 3))


@of_tracing
@every_layer
def test_scripts_are_of_torch_nns_layer_or_refused(name: str) -> None:
    """In a model of PyTorch's own: of one from here it would read this file again."""
    _, ours = twins(name, 3, 5, 2, bidirectional=True)
    x = drawn(7, 4, 3).detach()
    assert_same(torch.jit.script(torch.nn.Sequential(ours))(x)[0], ours(x)[0])
    if name != "RNN":
        relu = torch.nn.Sequential(getattr(rt, name)(3, 5, activation="relu"))
        with pytest.raises(EngineError, match=f"torch.jit.script knows no {name} with relu; reco"):
            torch.jit.script(relu)


@of_tracing
@pytest.mark.filterwarnings("ignore::UserWarning")  # of the exporter, of the batch of an LSTM
@few_activations
def test_the_exporter_by_traces_writes_onnx(name: str, activation: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    pytest.importorskip("onnx", reason="torch.onnx needs it")
    model = First(getattr(rt, name)(3, 5, 2, bidirectional=True, activation=activation)).eval()
    x, other = drawn(3, 4, 3).detach(), drawn(3, 4, 3).detach().flip(0)
    stream = io.BytesIO()
    torch.onnx.export(model, (x,), stream, dynamo=False)
    session = onnxruntime.InferenceSession(stream.getvalue(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (output,) = session.run(None, {given.name: other.numpy()})
    assert_same(torch.from_numpy(output), model(other).detach())


# --- beside each other ------------------------------------------------------------------------


def test_two_threads_of_python_at_the_same_time() -> None:
    torch.set_num_threads(2)
    layers = [rt.LSTM(16, 64), rt.GRU(16, 64)]
    xs = [drawn(20, 16, 16), drawn(20, 16, 16) * 2]
    expected = [read(layer, x.detach()) for layer, x in zip(layers, xs, strict=True)]
    wrong: list[int] = []

    def work(which: int) -> None:
        x = xs[which].detach()
        for _ in range(30):
            output, _ = layers[which](x)
            if not torch.equal(output, expected[which][0][0]):
                wrong.append(which)
            output.sum().backward()

    threads = [threading.Thread(target=work, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.set_num_threads(1)
    assert wrong == []


def test_memory_does_not_grow() -> None:
    """2,000 passes, of which every third keeps its graph and every seventh is never run back."""
    layer = rt.LSTM(16, 32)
    x = drawn(10, 8, 16)

    def passes(count: int) -> None:
        for i in range(count):
            total = layer(x)[0].sum()
            if i % 7:
                total.backward(retain_graph=i % 3 == 0)

    passes(300)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passes(2000)
    gc.collect()
    # A tape is some 100 KiB: one leaked in a hundred passes would show.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, rowwise; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "rowwise.torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"pip install 'rowwise\[torch\]'"):
        importlib.import_module("rowwise.torch")


# Of what torch.compile itself does while it traces.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.filterwarnings("ignore:.*Function'> should not be instantiated")
@pytest.mark.parametrize(
    ("name", "layers"),
    [("RNN", 1), *(pytest.param(name, 2, marks=pytest.mark.slow) for name in NAMES)],
)
def test_torch_compile_goes_round_it(name: str, layers: int) -> None:
    """It breaks its graph there; what lies before and behind may be compiled."""
    torch.manual_seed(6)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), getattr(rt, name)(4, 5, layers))
    x = drawn(7, 4, 3)
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        both = [
            torch.autograd.grad(f(x)[0].sum(), list(model.parameters())) for f in (model, compiled)
        ]
        assert all(torch.equal(a, b) for a, b in zip(*both, strict=True))
    with torch.no_grad():
        assert torch.equal(compiled(x)[0], model(x)[0])
