"""benchmarks/equivalence.py: its plan and verdict, and that it goes on where it was stopped.

There need not be a native engine here: trainings are drawn numbers, or PyTorch's in float32 and, in
bfloat16's place, in float64.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from made_data import write_idx
from small_training import torch_or_skip

from rowwise import core, data, engines, equivalence, session
from rowwise.config import Branch, Experiment, Recurrent, shipped_studies
from rowwise.errors import EngineError
from rowwise.train import fit

PATH = Path(__file__).parents[1] / "benchmarks" / "equivalence.py"
CLASSIC = {e.name: e for e in shipped_studies()["classic"].experiments}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_equivalence", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Drawn:
    """Trainings that give drawn accuracies: bfloat16 is off by `shift` with a spread `spread`."""

    def __init__(self, *, shift: float = 0.0, spread: float, fail_after: int | None = None) -> None:
        self.shift, self.spread, self.left = shift, spread, fail_after
        self.asked: list[tuple[int, str]] = []

    def __call__(self, experiment: Experiment, precision: str) -> float:
        if self.left is not None:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
        self.asked.append((experiment.seed, precision))
        rng = np.random.default_rng(experiment.seed)
        own, apart = 0.98 + rng.normal(0, 0.01), self.shift + rng.normal(0, self.spread)
        return float(own + apart) if precision == "bfloat16" else float(own)


def studied(script, train, *, found=None, most=200, name="lstm-tanh"):
    found = {} if found is None else found
    kept = []
    script.study(CLASSIC[name], found, train, lambda: kept.append(json.dumps(found)), most=most)
    return found, kept


# --- plan and verdict -------------------------------------------------------------------------


def test_the_margin_is_wider_for_simple_rnns(script):
    margins = {name: script.margin_of(experiment) for name, experiment in CLASSIC.items()}
    assert {margins[name] for name in ("rnn-relu", "rnn-tanh")} == {0.005}
    assert {margins[name] for name in ("lstm-tanh", "lstm-relu")} == {0.002}
    gru = Experiment(name="gru", layers=(Recurrent(kind="gru", units=3),))
    assert script.margin_of(gru) == 0.002
    branch = Branch(layers=(Recurrent(kind="simple_rnn", units=3),))
    assert script.margin_of(Experiment(name="b", branches=(branch,))) == 0.005


def test_the_plan_follows_from_the_pilot(script):
    apart = [0.001, -0.001, 0.002, 0.0, -0.002]
    pilot = {str(k): {"float32": 0.98, "bfloat16": 0.98 + d} for k, d in enumerate(apart)}
    plan = script.plan(pilot, 0.002)
    assert plan["spread"] == pytest.approx(np.std(apart, ddof=1))
    assert plan["spread_limit"] == equivalence.spread_limit(plan["spread"], 5)
    assert plan["seeds"] == equivalence.seeds_for_power(plan["spread_limit"], 0.002)
    assert plan["seeds"] > equivalence.seeds_for_power(plan["spread"], 0.002)
    assert script.plan(pilot, 0.1)["seeds"] == script.LEAST_SEEDS


def test_differences_are_in_the_order_of_the_seeds(script):
    pairs = {"10": {"float32": 0.5, "bfloat16": 0.75}, "9": {"float32": 0.5, "bfloat16": 0.25}}
    assert script.differences(pairs) == [-0.25, 0.25]


@pytest.mark.parametrize(("shift", "equivalent"), [(0.0, True), (0.003, False), (-0.003, False)])
def test_fresh_seeds_decide(script, shift, equivalent):
    train = Drawn(shift=shift, spread=0.001)
    found, _ = studied(script, train)
    seeds = [seed for seed, precision in train.asked if precision == "float32"]
    fresh = found["plan"]["seeds"]
    assert seeds == [*range(5), *range(1000, 1000 + fresh)]
    result = equivalence.tost(script.differences(found["fresh"]), margin=0.002)
    assert found["result"] == result._asdict()
    assert found["result"]["equivalent"] is equivalent
    assert found["result"]["n"] == fresh


def test_as_many_fresh_seeds_as_were_promised_find_equivalence_as_often(script):
    """From pilots of the whole script's own: the limit of the spread pays for the pilot's size."""
    verdicts = []
    for first in range(0, 40_000, 1000):
        pairs = {}
        rng = np.random.default_rng(first)

        def draw(seed, precision, rng=rng):
            return float(rng.normal(0, 0.001)) if precision == "bfloat16" else 0.0

        script.complete(pairs, range(5), draw, lambda: None)
        seeds = script.plan(pairs, 0.002)["seeds"]
        fresh = {}
        script.complete(fresh, range(seeds), draw, lambda: None)
        verdicts.append(equivalence.tost(script.differences(fresh), margin=0.002).equivalent)
    assert np.mean(verdicts) >= 0.8


def test_more_seeds_than_allowed_are_not_begun(script, capsys):
    train = Drawn(spread=0.02)
    found, _ = studied(script, train, most=20)
    assert len(train.asked) == 10
    assert found["plan"]["seeds"] > 20
    assert "result" not in found
    assert "that is more than --most 20" in capsys.readouterr().err
    assert script.cells(found)[-1] == "not tested"


def test_the_plan_is_said_before_the_fresh_seeds(script, capsys):
    found, _ = studied(script, Drawn(spread=0.001), name="rnn-tanh")
    lines = capsys.readouterr().err.splitlines()
    (place,) = [i for i, line in enumerate(lines) if "fresh seeds show equivalence" in line]
    assert place == 10
    assert lines[place].endswith(
        f"{found['plan']['seeds']} fresh seeds show equivalence within 0.5 points with 90% power"
    )


# --- stopping and going on --------------------------------------------------------------------


@pytest.mark.parametrize("stop", [0, 3, 10, 13])
def test_what_was_trained_is_not_trained_again(script, stop):
    whole, _ = studied(script, Drawn(spread=0.001))
    found = {}
    with pytest.raises(KeyboardInterrupt):
        studied(script, first := Drawn(spread=0.001, fail_after=stop), found=found)
    found = json.loads(json.dumps(found))
    studied(script, second := Drawn(spread=0.001), found=found)
    assert found == whole
    assert len(first.asked) == stop
    assert len(first.asked + second.asked) == len(set(first.asked + second.asked))


def test_every_training_and_the_plan_are_kept_at_once(script):
    found, kept = studied(script, Drawn(spread=0.001))
    trainings = 2 * (5 + found["plan"]["seeds"])
    assert len(kept) == trainings + 2
    assert len(set(kept)) == len(kept)
    with_plan = next(i for i, text in enumerate(kept) if "plan" in text)
    assert json.loads(kept[with_plan]).get("fresh", {}) == {}


def test_the_plan_that_stands_is_not_made_again(script):
    found, _ = studied(script, Drawn(spread=0.001))
    del found["result"], found["fresh"]
    found["plan"]["seeds"] = 7
    studied(script, Drawn(spread=0.001), found=found)
    assert len(found["fresh"]) == found["result"]["n"] == 7


def test_other_settings_are_refused(script, tmp_path):
    path = tmp_path / "found.json"
    setting = {"epochs": 5, "threads": 2}
    assert script.open_results(path, setting)["networks"] == {}
    path.write_text(json.dumps({"format": 1, "setting": setting, "networks": {"a": {}}}))
    assert script.open_results(path, setting)["networks"] == {"a": {}}
    with pytest.raises(SystemExit, match="its epochs was 5, got 3; choose another --out"):
        script.open_results(path, setting | {"epochs": 3})


# --- with a real training ---------------------------------------------------------------------


@pytest.fixture
def engine(monkeypatch):
    """PyTorch in the native engine's place, which takes another float for bfloat16."""
    torch_or_skip()
    real, floats = engines.training_engine("torch"), {"float32": np.float32, "bfloat16": np.float64}

    def make(*arguments, precision, **named):
        return real.Trainer(*arguments, dtype=floats[precision], **named)

    asked = []

    def training_engine(name):
        asked.append(name)
        return SimpleNamespace(Trainer=make)

    choose = engines.choose
    monkeypatch.setattr(engines, "training_engine", training_engine)
    monkeypatch.setattr(engines, "choose", lambda name, *a, **k: choose("torch", *a, **k))
    monkeypatch.setattr(core, "best", lambda: "portable")
    return asked


@pytest.fixture
def pictures(tmp_path):
    digits = data.digits()
    arrays = [digits.train_images, digits.train_labels, digits.test_images, digits.test_labels]
    write_idx(tmp_path / "pictures", [array.astype("uint8") for array in arrays])
    return tmp_path / "pictures"


@pytest.mark.usefixtures("one_thread")
def test_a_training_is_that_of_fit(script, monkeypatch, pictures):
    torch_or_skip()
    digits = data.load(path=pictures)
    experiment = CLASSIC["rnn-tanh"].model_copy(
        update={
            "epochs": 2,
            "seed": 3,
            "validation": 0.1,
            "schedule": Experiment.model_validate(
                {"name": "x", "layers": ["flatten"], "schedule": {"kind": "cosine", "warmup": 0.2}}
            ).schedule,
        }
    )
    wanted = fit(experiment, digits, engine="torch", threads=1)
    ends = []
    real = engines.training_engine("torch").Trainer

    def make(*arguments, precision, **named):
        ends.append(real(*arguments, **named))
        return ends[-1]

    monkeypatch.setattr(engines, "training_engine", lambda _: SimpleNamespace(Trainer=make))
    choose = engines.choose
    monkeypatch.setattr(engines, "choose", lambda name, *a, **k: choose("torch", *a, **k))
    monkeypatch.setattr(script, "STEPS_A_CALL", 7)
    found = script.validation_accuracy(experiment, digits, "float32", threads=1)
    assert found == wanted.metrics[-1].val_accuracy
    assert all(np.array_equal(v, wanted.weights[k]) for k, v in ends[0].weights().items())


@pytest.mark.usefixtures("one_thread")
def test_the_whole_script(script, engine, pictures, tmp_path, monkeypatch, capsys):
    out = tmp_path / "results" / "found.json"
    words = ["equivalence.py", "--networks", "rnn-tanh", "lstm-relu", "--epochs", "1"]
    words += ["--subset", "150", "--threads", "1", "--data", str(pictures), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    seen = []
    parts = session.parts
    monkeypatch.setattr(session, "parts", lambda *a: seen.append(parts(*a)) or seen[-1])
    monkeypatch.setattr(script, "PILOT", range(2))
    monkeypatch.setattr(script, "LEAST_SEEDS", 2)
    script.main()
    said = capsys.readouterr().out
    assert said == out.with_suffix(".md").read_text("utf-8")
    found = json.loads(out.read_text())
    assert found["setting"]["pictures"] == 150
    assert list(found["networks"]) == ["rnn-tanh", "lstm-relu"]
    for network in found["networks"].values():
        assert len(network["fresh"]) == network["plan"]["seeds"] == network["result"]["n"] == 2
        assert network["result"]["equivalent"] is True
    assert set(engine) == {"native"}
    rows = [line for line in said.splitlines() if line.startswith("| ")][1:]
    assert [row.split(" | ")[0] for row in rows] == ["| rnn-tanh", "| lstm-relu"]
    assert all(row.endswith(" | yes |") for row in rows)
    assert all(row.count("|") == 10 for row in rows)
    for learned, held, tested in seen:
        assert len(learned.labels) + len(held.labels) == 150
        assert held.images is not tested.images
    trainings = len(engine)
    script.main()
    assert len(engine) == trainings, "a finished file is only read"
    assert capsys.readouterr().out == said


def test_what_stands_in_the_way_is_said_in_a_line(script, pictures, tmp_path, monkeypatch):
    def none():
        raise EngineError("the native engine is missing: there is no compiler")

    monkeypatch.setattr(core, "best", none)
    out = tmp_path / "found.json"
    words = ["equivalence.py", "--subset", "150", "--data", str(pictures), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit, match=r"^the native engine is missing: there is no compiler$"):
        script.main()
    assert not out.exists()


@pytest.mark.parametrize(
    "words", [["--networks", "lstm"], ["--epochs", "0"], ["--subset", "5"], ["--most", "0"]]
)
def test_wrong_words_are_refused(script, words, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["equivalence.py", "--out", str(tmp_path / "o.json"), *words])
    with pytest.raises(SystemExit) as left:
        script.parse_arguments()
    assert left.value.code == 2
