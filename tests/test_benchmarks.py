"""The benchmarks' own arithmetic: networks, operations, schedules, the ONNX graph, tables."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT

from rowwise import Experiment, Network, config, engines, shipped_studies

BENCHMARKS = ROOT / "benchmarks"
# float32 sums in another order; probabilities are at most 1.
CLOSE = 2e-6


@pytest.fixture(autouse=True)
def path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def job(recipe: Any, label: str = "rowwise:plain", **more: Any) -> Any:
    from contender import Job

    return Job("read", label, recipe, "", 1, **more)


def network_of(recipe: Any) -> Network:
    import in_rowwise

    shape = (28, 28) if recipe.features == 1 else (recipe.steps, recipe.features)
    return Network(in_rowwise.experiment(job(recipe)), shape, 10)


def uneven(network: Network) -> dict[str, Any]:
    """Weights of which no two are alike, biases and moving statistics too."""
    rng = np.random.default_rng(5)
    weights = network.initialise(seed=1)
    return {
        name: (value + rng.uniform(0.05, 0.3, value.shape)).astype(np.float32)
        for name, value in weights.items()
    }


# --- networks ----------------------------------------------------------------------------------


def test_the_first_four_networks_are_those_of_the_study_and_of_the_keras_script():
    import in_rowwise
    import keras_study
    from networks import RECIPES

    classic = {e.name: e for e in shipped_studies()["classic"].experiments}
    assert list(RECIPES)[:4] == list(classic) == list(keras_study.RECIPES)
    for name, experiment in classic.items():
        ours, theirs = RECIPES[name], keras_study.RECIPES[name]
        assert in_rowwise.experiment(job(ours)).digest == experiment.digest
        assert (*ours.head, (10, "softmax")) == theirs.head
        assert (ours.units, ours.activation) == (theirs.units, theirs.activation)
        assert (ours.optimizer, ours.batch) == (theirs.optimizer, theirs.batch_size)


def test_parameters_are_counted_as_the_network_counts_them():
    from networks import RECIPES, parameters

    assert {n: parameters(r) for n, r in RECIPES.items()} == {
        n: network_of(r).count for n, r in RECIPES.items()
    }


def test_operations_by_hand():
    from networks import Recipe, flops

    # Two steps of three numbers, two units, a dense layer of four.
    small = Recipe("lstm", 2, "tanh", ((4, "tanh"),), "adam", 1, steps=2, features=3)
    wide = 4 * 2
    by_input = 2 * (2 * 3 * wide)  # x W at both steps
    by_state = 2 * 2 * wide  # h U at the second: the first has no h
    of_w, of_u, of_h = by_input, by_state, by_state
    dense = 3 * (2 * 2 * 4 + 2 * 4 * 10)  # forward, gradient of the weights, of the inputs
    assert flops(small) == by_input + by_state + of_w + of_u + of_h + dense


def test_rates_are_those_of_our_schedule():
    from networks import Schedule

    ours = config.Cosine(warmup=0.1)
    rates = Schedule(peak=0.004, epochs=3).rates(images=1000, batch=64)
    assert len(rates) == 48
    np.testing.assert_allclose(rates, [0.004 * ours.factor(i, 48) for i in range(48)], rtol=1e-12)


def test_a_job_survives_its_journey():
    from contender import Job
    from networks import RECIPES, Schedule

    sent = job(RECIPES["lstm-tanh"], "torch:bfloat16", schedule=Schedule(0.1, 2))
    assert Job.from_json(sent.to_json()) == sent
    assert (sent.kind, sent.variant) == ("torch", "bfloat16")


@pytest.mark.parametrize("name", ["rnn-relu", "lstm-relu", "lstm-pixels"])
def test_warm_up_meets_every_shape_of_batch(name):
    from networks import RECIPES

    recipe = RECIPES[name]
    few = job(recipe).warm_up_images
    assert few % recipe.batch == recipe.images % recipe.batch
    assert recipe.batch <= few <= recipe.images


# --- the same network in other hands -----------------------------------------------------------

SMALL = [
    ("simple_rnn", "relu", ((5, "relu"),)),
    ("simple_rnn", "tanh", ()),
    ("lstm", "tanh", ((5, "tanh"),)),
    ("lstm", "relu", ()),
    ("gru", "tanh", ((5, "tanh"),)),
]


def small(cell: str, activation: str, head: Any) -> Any:
    from networks import Recipe

    return Recipe(cell, 6, activation, head, "adam", 4, steps=7, features=3)


def reads_as_plain(kind: str, recipe: Any, tmp_path: Path) -> None:
    network = network_of(recipe)
    weights = uneven(network)
    np.savez(tmp_path / "weights.npz", **weights)
    x = np.random.default_rng(2).random((9, 7, 3), np.float32)
    module = importlib.import_module(f"in_{kind}")
    read = module.reader(job(recipe, kind, weights=str(tmp_path / "weights.npz")))
    expected = engines.engine("plain").predict(network, weights, x)
    assert np.ptp(expected) > 0.1  # or nothing is shown
    for batch in (1, 4, 9):
        np.testing.assert_allclose(read(x, batch), expected, atol=CLOSE)


@pytest.mark.parametrize(("cell", "activation", "head"), SMALL)
def test_the_torch_network_is_ours(cell, activation, head, tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed: rowwise[torch]")
    reads_as_plain("torch", small(cell, activation, head), tmp_path)


@pytest.mark.parametrize(("cell", "activation", "head"), SMALL)
def test_the_onnx_graph_is_ours(cell, activation, head, tmp_path):
    for package in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: rowwise[bench]")
    reads_as_plain("onnx", small(cell, activation, head), tmp_path)


@pytest.mark.parametrize(("cell", "activation", "head"), SMALL)
def test_the_jax_network_is_ours(cell, activation, head, tmp_path):
    pytest.importorskip("jax", reason="JAX is not installed: rowwise[bench]")
    reads_as_plain("jax", small(cell, activation, head), tmp_path)


@pytest.mark.parametrize(("cell", "activation", "head"), SMALL)
def test_the_keras_network_is_ours(cell, activation, head, tmp_path):
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("TensorFlow is not installed: rowwise[bench]")
    reads_as_plain("keras", small(cell, activation, head), tmp_path)


@pytest.mark.parametrize(("cell", "activation", "head"), SMALL)
def test_our_reader_is_the_plain_engine(cell, activation, head, tmp_path):
    import in_rowwise

    recipe = small(cell, activation, head)
    network = network_of(recipe)
    weights = uneven(network)
    np.savez(tmp_path / "weights.npz", **weights)
    given = job(recipe, "rowwise:plain", weights=str(tmp_path / "weights.npz"))
    x = np.random.default_rng(2).random((9, 7, 3), np.float32)
    read = in_rowwise.reader(given)(x, 4)
    expected = engines.engine("plain").predict(network, weights, x)
    np.testing.assert_allclose(read, expected, atol=CLOSE)


def test_a_training_of_each_kind_of_cell_learns_in_torch(monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed: rowwise[torch]")
    import in_torch
    from networks import Pictures

    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 64)
    x = (y[:, None, None] / 10 + rng.random((64, 7, 3)) / 50).astype(np.float32)
    monkeypatch.setattr(in_torch, "pictures", lambda *_: (Pictures(x, y), Pictures(x, y)))
    for cell, activation, head in SMALL:
        training = in_torch.Training(job(small(cell, activation, head), "torch"))
        losses = [training.epoch(64, [0.02] * 16)[0] for _ in range(8)]
        assert losses[-1] < 0.9 * losses[0], cell


# --- measuring ---------------------------------------------------------------------------------


def test_spread_and_percentile():
    from measuring import percentile, spread

    assert spread([3.0, 1.0, 2.0]) == {
        "n": 3, "median": 2.0, "min": 1.0, "max": 3.0, "values": [3.0, 1.0, 2.0],
    }  # fmt: skip
    assert spread([]) == {"n": 0}
    hundred = list(range(100, 0, -1))
    assert (percentile(hundred, 0.5), percentile(hundred, 0.99)) == (50, 99)
    assert percentile([7.0], 0.99) == 7.0


def test_a_contender_that_fails_or_is_late_is_told(tmp_path, monkeypatch):
    import argparse

    import measuring
    from networks import LSTM_TANH

    options = argparse.Namespace(peers_python=Path(sys.executable), limit_s=20.0)
    with measuring.field([job(LSTM_TANH, "rowwise:no-such-engine")], options) as (ready, told):
        assert ready == {}
        assert told["rowwise:no-such-engine"]["failed"].endswith("ended with code 1")
    options.limit_s = 0.01
    with measuring.field([job(LSTM_TANH, "rowwise:plain")], options) as (ready, told):
        assert ready == {}
        assert told["rowwise:plain"]["failed"] == "rowwise:plain: not done within 0 s"


# --- tables ------------------------------------------------------------------------------------


def head(**more: Any) -> dict[str, Any]:
    hardware = {"processor": "P", "cores": 2, "paths": ["avx2", "portable"]}
    return {
        "hardware": hardware,
        "python": "3.11",
        "threads": 2,
        "quick": False,
        "load_before": 0.1,
    } | more


def contender(seconds: list[float], **more: Any) -> dict[str, Any]:
    from measuring import spread

    return {"versions": {"x": "1"}, "seconds": spread(seconds), "ready_s": 2.0} | more


def test_the_training_table():
    import tables

    theirs = contender([4.0, 5.0, 6.0], accuracy=[0.9, 0.91, 0.925], peak_mb=900.0)
    mine = contender([1.0, 1.0, 2.0], accuracy=[0.9, 0.91, 0.93], peak_mb=200.0)
    out = {"failed": "not done within 600 s", "seconds": {"n": 0}}
    network = {"images": 30_000, "flops_per_image": 2_000_000}
    network["contenders"] = {"keras": theirs, "rowwise:native:avx2": mine, "torch:compile": out}
    results = head(networks={"lstm-tanh": network}, peak_flops={"float32": {"a": 1.2e11}})
    text = tables.training(results)
    assert "n = 3." in text
    assert "| network | Keras, TensorFlow | Rowwise, native, avx2 | PyTorch, compiled |" in text
    assert "| lstm-tanh (30,000) | 10 (8–12) | 2 (2–4) | – |" in text  # scaled to 60,000
    assert "| lstm-tanh | 1 (1–1) | 4 (3–5) | – |" in text  # round by round
    assert "| lstm-tanh | 92.5 | 93.0 | – (not done within 600 s) |" in text
    assert "| lstm-tanh | 10 | 50 | – |" in text  # 1.2e11 operations in 10 s and in 2 s
    assert "| memory, MB | 900 | 200 | – |" in text


def test_the_race_counts_runs_that_miss():
    import tables
    import time_to_accuracy

    runs = [
        {"seconds": [3.0, 5.0, 7.0], "accuracy": [0.96, 0.981, 0.984]},
        {"seconds": [4.0, 6.0, 8.0], "accuracy": [0.975, 0.979, 0.986]},
    ]
    reached = time_to_accuracy.reached(runs)
    assert [reached[str(t)].get("values") for t in time_to_accuracy.TARGETS] == [
        [5.0, 4.0],
        [5.0, 8.0],
        [8.0],
    ]
    results = head(
        targets=time_to_accuracy.TARGETS,
        network="n",
        batch=1,
        schedule={"peak": 0.1, "epochs": 3, "warm_up": 0.1},
        contenders={"jax": {"runs": runs, "reached": reached}},
    )
    row = "| JAX | 4.5 (4–5) | 6.5 (5–8) | 8, 1 of 2 | 98.50 (98.40–98.60) | 2 |"
    assert row in tables.time_to_accuracy(results)


def test_the_table_of_reading():
    import tables
    from measuring import spread

    def reads(median: float, at_100: list[float], at_1000: list[float]) -> dict[str, Any]:
        read_s = {"100": spread(at_100), "1000": spread(at_1000)}
        calls = {"calls": 9, "median_us": median, "p99_us": 3 * median, "difference": 1.2e-7}
        return calls | {"read_s": read_s}

    onnx, mine = reads(150.0, [0.4, 0.5], [0.3, 0.32]), reads(60.0, [0.05, 0.04], [0.06, 0.06])
    found = {"onnxruntime": onnx, "rowwise:native": mine, "torch": {"failed": "differs"}}
    text = tables.inference(head(networks={"lstm-tanh": found}))
    assert "| ONNX Runtime | 150 | 450 | 310 (300–320) | 1000 | 1 | 1 (1–1) | 1e-07 |" in text
    assert "| Rowwise, native | 60 | 180 | 45 (40–50) | 100 | 2.5 | 7 (6–8) | 1e-07 |" in text
    assert "| PyTorch | – (differs) |" in text


def test_the_other_tables_and_the_plot(tmp_path):
    import tables
    from measuring import spread

    point = {
        "torch": {"seconds_a_picture": spread([4e-4])},
        "rowwise:native": {"seconds_a_picture": spread([1e-4])},
        "images": 5,
    }
    results = head(axes={"units": {"32": point, "64": point}})
    assert "| 32 | 400 | 100 | 0.25 |" in tables.scaling(results)
    tables.plot_scaling(results, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text("utf-8")
    installed = {"torch": {"seconds": spread([12.0]), "bytes": 7e8}}
    assert "| torch | 12 | 700 |" in tables.footprint(head(installed=installed, cache="warm"))
    runs = [{"val_accuracy": {"a": 0.981}, "peak_mb": 300.0}]
    both = {
        "keras": {"seconds": spread([400.0]), "runs": runs},
        "rowwise:native": {"seconds": spread([20.0, 25.0]), "runs": runs},
    }
    text = tables.whole_study(head(contenders=both))
    assert "| Rowwise, native | 22.5 (20–25) | 18 (16–20) | 300 | a 98.10 |" in text


def test_the_page_has_a_place_for_every_part():
    import tables

    page = tables.PAGE.read_text("utf-8")
    for part in tables.PARTS:
        assert page.count(f"<!-- {part} -->") == page.count(f"<!-- /{part} -->") == 1


# Trials of models keep no mark of a smoke run, but how many pictures were read.
PICTURES_READ = {
    "recognisers": lambda results: results["pictures"] == 10_000,
    "realworld": lambda results: min(p["pictures"] for p in results["parts"].values()) > 60,
    "corruptions": lambda results: results["count"] == 6000,
    "surroundings": lambda results: (
        len(results["kinds"]) == 3
        and all(kind["pictures"] >= 6000 for kind in results["kinds"].values())
    ),
    "not_digits": lambda results: results["count"] == 1000,
    "faithfulness": lambda results: results["count"] > 900,  # of 1,000, those read rightly
}


def test_results_are_no_smoke_runs_and_the_page_tells_them():
    import tables

    page = tables.PAGE.read_text("utf-8")
    for part, tell in tables.PARTS.items():
        path = BENCHMARKS / "results" / f"{part}.json"
        if path.exists():
            results = json.loads(path.read_text("utf-8"))
            if part == "equivalence":
                assert results["setting"]["pictures"] == 60_000
            elif part in PICTURES_READ:
                assert PICTURES_READ[part](results)
            else:
                assert not results["quick"]
            assert tell(results) in page


def test_what_is_installed_is_pinned_as_make_pins_it():
    import footprint

    pinned = (ROOT / "Makefile").read_text("utf-8") + (ROOT / "constraints.txt").read_text("utf-8")
    wanted = [w for packages in footprint.INSTALLED.values() for w in packages if "==" in w]
    assert len(wanted) >= 5
    assert [w for w in wanted if w not in pinned] == []


def test_experiments_of_the_benchmarks_are_valid():
    import in_rowwise
    from networks import RECIPES, Schedule

    for recipe in RECIPES.values():
        planned = in_rowwise.planned(job(recipe, schedule=Schedule(0.004, 6)), validation=0.2)
        assert isinstance(planned, Experiment)
        assert planned.optimizer.learning_rate == 0.004
