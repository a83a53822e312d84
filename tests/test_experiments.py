"""Experiments: overrides, what a digest covers, schedules, and the study that ships."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, create_model

from rowwise.config import (
    Adam,
    Constant,
    Cosine,
    Experiment,
    Exponential,
    OneCycle,
    Rows,
    Study,
    shipped_studies,
)
from rowwise.errors import ConfigError
from rowwise.settings import Later, Settings, content_digest

LSTM = {"kind": "lstm", "units": 8}
TINY = {"name": "tiny", "layers": [LSTM]}


def experiment(**changes) -> Experiment:
    return Experiment.model_validate({**TINY, **changes})


# --- overrides --------------------------------------------------------------------------------

BASE = experiment(layers=["batch_norm", LSTM], optimizer={"kind": "adam", "beta_1": 0.5})
OVERRIDES = [
    ("epochs=10", {"epochs": 10}),
    ("epochs = 10", {"epochs": 10}),
    ("seed=0x10", {"seed": 16}),
    ("layers.1.units=256", {"layers": ["batch_norm", {**LSTM, "units": 256}]}),
    ("layers.1.kind=gru", {"layers": ["batch_norm", {**LSTM, "kind": "gru"}]}),
    ("layers.0.momentum=0.9", {"layers": [{"kind": "batch_norm", "momentum": 0.9}, LSTM]}),
    ('layers=["flatten"]', {"layers": ["flatten"]}),
    ("layers.1.bidirectional=true", {"layers": ["batch_norm", {**LSTM, "bidirectional": True}]}),
    ("optimizer=sgd", {"optimizer": "sgd"}),
    (
        "optimizer.learning_rate=0.1",
        {"optimizer": {"kind": "adam", "beta_1": 0.5, "learning_rate": 0.1}},
    ),
    ('optimizer={kind = "sgd", momentum = 0.9}', {"optimizer": {"kind": "sgd", "momentum": 0.9}}),
    ("schedule=cosine", {"schedule": "cosine"}),
    ("schedule.kind=cosine", {"schedule": "cosine"}),
    ("reading.kind=columns", {"reading": "columns"}),
    ("validation=0.2", {"validation": 0.2}),
    ("early_stopping.patience=2", {"early_stopping": {"patience": 2}}),
    ("clipping.limit=1", {"clipping": {"limit": 1.0}}),
    ("label_smoothing=0.1", {"label_smoothing": 0.1}),
    ("name=other", {"name": "other"}),
    ("note=two words", {"note": "two words"}),
    ("note=a = b", {"note": "a = b"}),
]


@pytest.mark.parametrize(("override", "changes"), OVERRIDES, ids=lambda v: str(v))
def test_an_override_sets_any_key(override, changes):
    kept = {"layers": ["batch_norm", LSTM], "optimizer": {"kind": "adam", "beta_1": 0.5}}
    assert BASE.with_overrides([override]) == experiment(**{**kept, **changes})


def test_overrides_reach_what_was_left_to_its_default_and_follow_each_other():
    made = experiment().with_overrides(
        ["optimizer.learning_rate=0.1", "schedule=cosine", "schedule.warmup=0.1", "epochs=2"]
    )
    assert made == experiment(
        optimizer={"kind": "adam", "learning_rate": 0.1},
        schedule={"kind": "cosine", "warmup": 0.1},
        epochs=2,
    )


def test_overrides_reach_into_branches():
    branches = [{"reading": "rows", "layers": [LSTM]}, {"reading": "columns", "layers": [LSTM]}]
    both = Experiment.model_validate({"name": "both", "branches": branches})
    wide = both.with_overrides(["branches.1.layers.0.units=32", "branches.0.reading.kind=pixels"])
    assert [b.layers[0].units for b in wide.branches] == [8, 32]
    assert [b.reading.kind for b in wide.branches] == ["pixels", "columns"]
    assert wide.reading == Rows()


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs", "--set takes key=value, such as layers.1.units=256, got 'epochs'"),
        ("=3", "--set takes key=value, such as layers.1.units=256, got '=3'"),
        ("layers..units=3", "--set takes key=value, such as"),
        ("epochs=1\nbatch=3", "--set takes key=value, such as"),
        ("epochs=", "experiment tiny: epochs: should be a whole number, got ''"),
        ("epochs=ten", "experiment tiny: epochs: should be a whole number, got 'ten'"),
        ("epochs=" + "9" * 5000, "experiment tiny: epochs: should be a whole number, got '999"),
        ("epochs=" + "[" * 5000, "experiment tiny: epochs: should be a whole number, got '[[["),
        ("epochs=0", "experiment tiny: epochs: should be greater than or equal to 1, got 0"),
        ("epoch=3", "experiment tiny: unknown key 'epoch'; did you mean 'epochs'?"),
        (
            "layers.2.units=3",
            "--set layers.2.units=3: the list layers has the indices 0 to 1, got '2'",
        ),
        ("layers.-1.units=3", "--set layers.-1.units=3: the list layers has the indices 0 to 1"),
        ("layers.units=3", "--set layers.units=3: the list layers has the indices 0 to 1"),
        ("layers.2=flatten", "--set layers.2=flatten: the list layers has the indices 0 to 1"),
        ("branches.0.reading=rows", "experiment tiny: branches: should be a list"),
        ("layers.1.units.x=3", "--set layers.1.units.x=3: layers.1.units is a value, not a table"),
        (
            "layers.1.unit=3",
            "experiment tiny: unknown key 'layers.1.unit'; did you mean 'layers.1.units'?",
        ),
        (
            "layers.1.units.x.y=3",
            "--set layers.1.units.x.y=3: layers.1.units is a value, not a table",
        ),
        ("optimizer.momentum=0.9", "experiment tiny: unknown key 'optimizer.momentum'; known: "),
        ("validation=1", "experiment tiny: validation: should be 'test' or a share above 0"),
    ],
)
def test_an_override_that_is_refused(override, told):
    with pytest.raises(ConfigError) as caught:
        BASE.with_overrides([override])
    assert str(caught.value).startswith(told)


# --- digests ----------------------------------------------------------------------------------

LEFT_OUT = [{"name": "other"}, {"note": "a note"}, {"published": {"val_accuracy": 0.9}}]
COUNTED = [
    {"reading": "columns"},
    {"layers": [{**LSTM, "units": 9}]},
    {"layers": [LSTM, LSTM]},
    {"layers": [{**LSTM, "activation": "relu"}]},
    {"branches": [{"layers": [LSTM]}]},
    {"optimizer": "rmsprop"},
    {"optimizer": {"kind": "adam", "epsilon": 1e-8}},
    {"schedule": "cosine"},
    {"clipping": {"limit": 1.0}},
    {"label_smoothing": 0.1},
    {"target_replication": 0.5},
    {"augmentation": {}},
    {"averaging": {}},
    {"batch": 64},
    {"epochs": 6},
    {"seed": 1},
    {"validation": 0.1},
    {"early_stopping": {}},
]


def test_every_key_is_known_to_the_tests_of_the_digest():
    told = {key for changes in (*LEFT_OUT, *COUNTED) for key in changes} | {"format"}
    assert told == set(Experiment.model_fields)


def test_a_digest_covers_all_that_decides_the_result():
    plain = experiment()
    assert {experiment(**changes).digest for changes in LEFT_OUT} == {plain.digest}
    digests = [plain.digest, *(experiment(**changes).digest for changes in COUNTED)]
    assert len(set(digests)) == len(digests)
    assert all(len(digest) == 64 for digest in digests)
    spelled_out = experiment(batch=128, optimizer=Adam(learning_rate=1e-3), schedule=Constant())
    assert spelled_out.digest == plain.digest


def test_a_digest_stays_what_it_was():
    """Runs of every released version go on: their folders hold this digest."""
    assert experiment().digest == (
        "87a6816ce069de058c74570cbf2356bf9c23a0f340b17398135a885cfb06cb39"
    )


def test_a_digest_leaves_a_later_key_out_while_it_says_nothing_new():
    plain = experiment()
    assert experiment(label_smoothing=0.0).digest == plain.digest
    assert experiment(label_smoothing=1e-9).digest != plain.digest
    assert plain.with_overrides(["label_smoothing=0"]).digest == plain.digest


class Before(Settings):
    """A table as it was released."""

    units: int = 3


class After(Before):
    """The same table with two keys that came later, and one that was forgotten to be marked."""

    zoneout: Annotated[float, Field(ge=0), Later()] = 0.0
    mask: Annotated[bool | None, Later()] = None


class Unmarked(Before):
    zoneout: float = 0.0


def holder(inner, **settings):
    """A model with the table as a key, in a list, and not at all."""
    model = create_model(
        "Holder",
        __base__=Settings,
        one=(inner, inner(**settings)),
        many=(tuple[inner, ...], (inner(), inner(**settings))),
        none=(inner | None, None),
        name=(str, "a name"),
    )
    return model()


def test_later_keys_are_left_out_at_any_depth():
    def digest(settings):
        return content_digest(settings, without=("name",))

    released = holder(Before)
    assert digest(holder(After)) == digest(released)
    assert digest(holder(Unmarked)) != digest(released), "the mark is what does it"
    for told in ({"zoneout": 0.5}, {"mask": False}, {"units": 4}):
        assert digest(holder(After, **told)) != digest(released)
    assert digest(holder(After, zoneout=0.5)) != digest(holder(After, mask=True))
    tree = json.dumps(released.model_dump(exclude={"name"}), sort_keys=True)
    assert digest(released) == hashlib.sha256(tree.encode()).hexdigest()


def test_a_later_key_has_a_default():
    """Without one, files from before the key could not be read."""
    models = [Experiment, Study, *Settings.__subclasses__()]
    for model in models:
        for name, field in model.model_fields.items():
            if any(isinstance(mark, Later) for mark in field.metadata):
                assert not field.is_required(), f"{model.__name__}.{name}"


def test_a_study_is_told_apart_by_its_experiments():
    def digest(**changes):
        tree = {"name": "s", "experiments": [TINY, {**TINY, "name": "b"}], **changes}
        return Study.model_validate(tree).experiments_digest

    assert digest() == digest(seeds=9) == digest(title="t") == digest(name="t")
    assert digest() != digest(experiments=[TINY])
    assert digest() != digest(experiments=[TINY, {**TINY, "name": "b", "epochs": 9}])
    assert digest() != digest(experiments=[TINY, {**TINY, "name": "c"}])


# --- schedules --------------------------------------------------------------------------------

share = st.floats(0, 1, allow_nan=False)


def factors(schedule, steps=200):
    return [schedule.factor(step, steps) for step in range(steps)]


def falls(values):
    return all(a > b for a, b in itertools.pairwise(values))


def test_constant():
    assert set(factors(Constant())) == {1.0}


def test_exponential_shrinks_by_the_same_factor_a_step():
    f = factors(Exponential(final=0.01))
    assert f[0] == 1
    assert f[-1] == pytest.approx(0.01)
    ratios = [b / a for a, b in itertools.pairwise(f)]
    assert max(ratios) == pytest.approx(min(ratios))
    assert ratios[0] == pytest.approx(0.01 ** (1 / 199))


def test_cosine_warms_up_in_a_line_and_falls_by_half_a_cosine():
    f = factors(Cosine(warmup=0.1, final=0.2))
    assert f[:20] == pytest.approx([(i + 1) / 20 for i in range(20)])
    assert f[20] == 1
    assert falls(f[20:])
    assert f[-1] == pytest.approx(0.2)
    middle = 20 + (199 - 20) / 2
    assert f[int(middle)] == pytest.approx(0.2 + 0.8 * 0.5, abs=0.01)
    assert factors(Cosine())[0] == 1
    assert factors(Cosine())[-1] == pytest.approx(0, abs=1e-12)


def test_one_cycle_rises_from_start_to_the_peak_and_falls_to_final():
    f = factors(OneCycle(warmup=0.3, start=0.04, final=0.001))
    assert f[0] == pytest.approx(0.04)
    assert f[60] == max(f) == 1
    assert falls(f[60:])
    assert falls(f[60::-1])
    assert f[-1] == pytest.approx(0.001)
    assert f[30] == pytest.approx((1 + 0.04) / 2)


@given(
    schedule=st.one_of(
        st.builds(Exponential, final=st.floats(1e-6, 1)),
        st.builds(Cosine, warmup=share, final=share),
        st.builds(OneCycle, warmup=share, start=share, final=share),
    ),
    steps=st.integers(1, 50),
)
@settings(max_examples=100)
def test_a_factor_is_a_share_of_the_peak_at_every_step(schedule, steps):
    for factor in factors(schedule, steps):
        assert math.isfinite(factor)
        assert 0 <= factor <= 1 + 1e-12


# --- the study that ships ---------------------------------------------------------------------


def test_the_classic_study_is_the_published_one():
    study = shipped_studies()["classic"]
    assert study.dataset == "mnist"
    assert study.seeds == 3
    told = {
        e.name: (
            e.layers[1].model_dump(include={"kind", "units", "activation"}),
            [d.model_dump(include={"kind", "units", "activation"}) for d in e.layers[2:]],
            e.optimizer.kind,
            e.batch,
            e.published.accuracy,
            e.published.val_accuracy,
        )
        for e in study.experiments
    }

    def cell(kind, units, activation):
        return {"kind": kind, "units": units, "activation": activation}

    assert told == {
        "rnn-relu": (
            cell("simple_rnn", 128, "relu"), [cell("dense", 64, "relu")], "adam", 64,
            0.9658, 0.9628,
        ),
        "rnn-tanh": (
            cell("simple_rnn", 128, "tanh"), [cell("dense", 64, "tanh")], "rmsprop", 64,
            0.9638, 0.9639,
        ),
        "lstm-tanh": (
            cell("lstm", 128, "tanh"), [cell("dense", 64, "tanh")], "adam", 128, 0.9889, 0.9829,
        ),
        "lstm-relu": (cell("lstm", 256, "relu"), [], "adam", 128, 0.9883, 0.9840),
    }  # fmt: skip
    for e in study.experiments:
        assert e.layers[0].model_dump() == {"kind": "batch_norm", "momentum": 0.99, "epsilon": 1e-3}
        assert (e.epochs, e.validation, e.reading) == (5, "test", Rows())
        assert (e.schedule, e.clipping, e.early_stopping) == (Constant(), None, None)
        assert e.optimizer == type(e.optimizer)(), "Keras' defaults, which the models have"
    keras = {"adam": (1e-3, 1e-7), "rmsprop": (1e-3, 1e-7)}
    for e in study.experiments:
        assert (e.optimizer.learning_rate, e.optimizer.epsilon) == keras[e.optimizer.kind]


def test_only_keeps_the_order_of_the_study():
    study = shipped_studies()["classic"]
    kept = study.only(["lstm-relu", "rnn-relu", "lstm-relu"])
    assert [e.name for e in kept.experiments] == ["rnn-relu", "lstm-relu"]
    with pytest.raises(ConfigError) as caught:
        study.only(["rnn-relu", "lstm-tahn"])
    assert str(caught.value) == (
        "--only takes names of the study's experiments, got 'lstm-tahn'; the study classic has: "
        "rnn-relu, rnn-tanh, lstm-tanh, lstm-relu; did you mean 'lstm-tanh'?"
    )
