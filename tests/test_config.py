"""Experiments and studies as data: what is read, what is refused and how, what a digest covers."""

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
    Dense,
    Experiment,
    Exponential,
    OneCycle,
    Recurrent,
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


def write_toml(path, tree):
    """A tree of plain data as a TOML file; every table inline, which JSON nearly is."""
    lines = [f"{json.dumps(key)} = {_toml(value)}\n" for key, value in tree.items()]
    path.write_text("".join(lines), "utf-8")
    return path


def _toml(value) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def refusal(model, tree, tmp_path) -> str:
    """What is said of a file that holds this tree, without the file's name."""
    path = write_toml(tmp_path / "given.toml", tree)
    with pytest.raises(ConfigError) as caught:
        model.from_file(path)
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert "\n" not in told
    return told.removeprefix(f"{path}: ")


def same(got: str, told: str) -> bool:
    """Whether a line is the one that is told; it may go on where that ends in `…`."""
    return got.startswith(told[:-1]) if told.endswith("…") else got == told


# --- files and round trips --------------------------------------------------------------------

units = st.integers(1, 64)
decay = st.floats(0, 0.999, allow_nan=False)
share = st.floats(0, 1, allow_nan=False)
rate = st.floats(1e-6, 10, allow_nan=False)
seed = st.integers(0, 2**32 - 1)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)


def table(kind, **fields):
    """Tables of one kind, each with any of its keys left out."""
    return st.fixed_dictionaries({"kind": st.just(kind)}, optional=fields)


readings = st.one_of(
    st.sampled_from(["rows", "columns", "pixels", "permuted", "patches"]),
    table("permuted", seed=seed),
    table("patches", height=units, width=units),
)
recurrent = st.fixed_dictionaries(
    {"kind": st.sampled_from(["simple_rnn", "lstm", "gru"]), "units": units},
    optional={
        "activation": st.sampled_from(["tanh", "relu"]),
        "bidirectional": st.booleans(),
        "return_sequences": st.booleans(),
    },
)
layers = st.one_of(
    st.sampled_from(["batch_norm", "flatten", "pool"]),
    recurrent,
    table("batch_norm", momentum=decay, epsilon=rate),
    st.fixed_dictionaries({"kind": st.just("dropout"), "rate": decay}),
    st.fixed_dictionaries(
        {"kind": st.just("dense"), "units": units},
        optional={"activation": st.sampled_from(["linear", "relu", "tanh", "sigmoid"])},
    ),
    table("pool", by=st.sampled_from(["mean", "max"])),
)
optimizers = st.one_of(
    st.sampled_from(["adam", "adamw", "rmsprop", "sgd"]),
    table("adam", learning_rate=rate, beta_1=decay, beta_2=decay, epsilon=rate),
    table("adamw", learning_rate=rate, weight_decay=decay),
    table("rmsprop", learning_rate=rate, rho=decay, momentum=decay),
    table("sgd", learning_rate=rate, momentum=decay, nesterov=st.booleans()),
)
schedules = st.one_of(
    st.sampled_from(["constant", "exponential", "cosine", "one_cycle"]),
    table("exponential", final=st.floats(1e-6, 1)),
    table("cosine", warmup=share, final=share),
    table("one_cycle", warmup=share, start=share, final=share),
)
shared_keys = {
    "note": st.text(st.characters(exclude_categories=["C"]), max_size=50),
    "optimizer": optimizers,
    "schedule": schedules,
    "clipping": st.fixed_dictionaries(
        {"limit": rate}, optional={"by": st.sampled_from(["value", "norm", "global_norm"])}
    ),
    "label_smoothing": decay,
    "batch": st.integers(1, 65536),
    "epochs": st.integers(1, 100_000),
    "seed": seed,
    "validation": st.one_of(st.just("test"), st.floats(0.001, 0.5)),
    "early_stopping": st.fixed_dictionaries(
        {},
        optional={
            "monitor": st.sampled_from(["val_loss", "val_accuracy", "loss", "accuracy"]),
            "patience": st.integers(1, 10_000),
            "min_delta": share,
            "restore_best": st.booleans(),
        },
    ),
    "published": st.fixed_dictionaries({}, optional={"val_accuracy": share, "accuracy": share}),
}
some_layers = st.lists(layers, min_size=1, max_size=4)
branch = st.fixed_dictionaries({"layers": some_layers}, optional={"reading": readings})
experiments = st.one_of(
    st.fixed_dictionaries(
        {"name": names, "layers": some_layers}, optional={"reading": readings, **shared_keys}
    ),
    st.fixed_dictionaries(
        {"name": names, "branches": st.lists(branch, min_size=1, max_size=3)},
        optional={"layers": some_layers, **shared_keys},
    ),
)


@given(tree=experiments)
@settings(max_examples=100, deadline=None)
def test_an_experiment_survives_toml_and_json(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    read = Experiment.from_file(write_toml(folder / "given.toml", tree))
    (folder / "kept.json").write_text(read.model_dump_json(indent=2))
    again = Experiment.from_file(folder / "kept.json")
    assert again == read
    assert again.digest == read.digest
    assert read == Experiment.model_validate(tree), "Python and TOML say the same"
    assert read.with_overrides([]) == read
    seeded = read.with_overrides(["seed=7"])
    assert seeded == read.model_copy(update={"seed": 7})


@given(chosen=st.lists(experiments, min_size=1, max_size=3, unique_by=lambda e: e["name"]))
@settings(max_examples=20, deadline=None)
def test_a_study_survives_toml_and_json(chosen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    tree = {"name": "mine", "seeds": 2, "dataset": "digits", "experiments": chosen}
    read = Study.from_file(write_toml(folder / "given.toml", tree))
    (folder / "kept.json").write_text(read.model_dump_json())
    again = Study.from_file(folder / "kept.json")
    assert again == read
    assert again.experiments_digest == read.experiments_digest


def test_bare_names_stand_for_tables():
    short = experiment(reading="columns", optimizer="sgd", schedule="cosine", layers=["flatten"])
    tables = [{"kind": "columns"}, {"kind": "sgd"}, {"kind": "cosine"}, [{"kind": "flatten"}]]
    keys = ("reading", "optimizer", "schedule", "layers")
    assert short == experiment(**dict(zip(keys, tables, strict=True)))


def test_experiments_in_python_are_those_in_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nvalidation = 0.1\n[optimizer]\nkind = "adam"\nlearning_rate = 0.01\n'
        '[[layers]]\nkind = "lstm"\nunits = 8\n[[layers]]\nkind = "dense"\nunits = 3\n'
    )
    layers = (Recurrent(kind="lstm", units=8), Dense(units=3))
    made = Experiment(
        name="mine", layers=layers, optimizer=Adam(learning_rate=0.01), validation=0.1
    )
    assert Experiment.from_file(path) == made
    assert made.with_overrides(["layers.1.units=3"]) == made


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        experiment().epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.toml", b"epochs = ", "this is not valid TOML: Invalid value (at end of document)"),
        ("x.toml", b"epochs = 1\nepochs = 2\n", "this is not valid TOML: Cannot overwrite a value"),
        ("x.toml", b"epochs = " + b"9" * 5000, "this is not valid TOML: Exceeds the limit"),
        ("x.toml", b"layers = " + b"[" * 5000, "this is not valid TOML: "),
        ("x.toml", b"name = '\xff'", "a configuration is UTF-8 text, this file is not"),
        ("x.toml", b"\0\0\0", "this is not valid TOML: "),
        ("x.toml", b"#" * 1_000_001, "a configuration has at most 1,000,000 bytes"),
        ("x.toml", b"", "name: this key must be given"),
        ("x.json", b"", "this is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        ("x.json", b"[]", "a configuration is a table of keys, got []"),
        ("x.json", b"[" * 100_000, "this is not valid JSON: "),
        ("x.json", b'{"name": "a\\ud800"}', "name: "),
    ],
)
@pytest.mark.parametrize("model", [Experiment, Study])
def test_a_file_that_is_no_configuration(model, name, content, told, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        model.from_file(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    str(caught.value).encode("utf-8")


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match=f"^cannot read the configuration {path}: [A-Z]"):
            Experiment.from_file(path)


# --- what is refused, and how -----------------------------------------------------------------

REFUSED = [
    ({"optimiser": "adam"}, "unknown key 'optimiser'; did you mean 'optimizer'?"),
    (
        {"learning_rate": 0.1},
        "unknown key 'learning_rate'; did you mean 'optimizer.learning_rate'?",
    ),
    ({"units": 3}, "unknown key 'units'; did you mean 'layers.0.units'?"),
    (
        {"zzz": 3},
        "unknown key 'zzz'; known: batch, branches, clipping, early_stopping, epochs, format, "
        "label_smoothing, layers, name, note, optimizer, published, reading, schedule, seed, "
        "validation",
    ),
    ({"": 3}, "unknown key ''; known: batch, …"),
    (
        {"layers": [{**LSTM, "bidirektional": True}]},
        "unknown key 'layers.0.bidirektional'; did you mean 'layers.0.bidirectional'?",
    ),
    (
        {"layers": [LSTM, {"kind": "dense", "unit": 3}]},
        "unknown key 'layers.1.unit'; did you mean 'layers.1.units'? (and 1 more)",
    ),
    (
        {"optimizer": {"kind": "adam", "beta1": 0.5}},
        "unknown key 'optimizer.beta1'; did you mean 'optimizer.beta_1'?",
    ),
    (
        {"optimizer": {"kind": "sgd", "rho": 0.5}},
        "unknown key 'optimizer.rho'; known: kind, learning_rate, momentum, nesterov",
    ),
    (
        {"schedule": {"kind": "cosine", "warm_up": 0.1}},
        "unknown key 'schedule.warm_up'; did you mean 'schedule.warmup'?",
    ),
    (
        {"reading": {"kind": "patches", "hieght": 2}},
        "unknown key 'reading.hieght'; did you mean 'reading.height'?",
    ),
    (
        {"clipping": {"limit": 1.0, "norm": 3}},
        "unknown key 'clipping.norm'; known: by, limit",
    ),
    (
        {"early_stopping": {"patiance": 3}},
        "unknown key 'early_stopping.patiance'; did you mean 'early_stopping.patience'?",
    ),
    (
        {"published": {"val_acc": 0.9}},
        "unknown key 'published.val_acc'; did you mean 'published.val_accuracy'?",
    ),
    (
        {"branches": [{"layers": [{**LSTM, "activaton": "relu"}]}]},
        "unknown key 'branches.0.layers.0.activaton'; did you mean "
        "'branches.0.layers.0.activation'?",
    ),
    (
        {"branches": [{"readings": "rows", "layers": [LSTM]}]},
        "unknown key 'branches.0.readings'; did you mean 'branches.0.reading'?",
    ),
    # kinds
    (
        {"layers": ["lsmt"]},
        "layers.0: kind should be one of batch_norm, simple_rnn, lstm, gru, dropout, dense, "
        "flatten, pool, got 'lsmt'; did you mean 'lstm'?",
    ),
    (
        {"optimizer": "adma"},
        "optimizer: kind should be one of adam, adamw, rmsprop, sgd, got 'adma'; did you mean "
        "'adam'?",
    ),
    (
        {"reading": "diagonal"},
        "reading: kind should be one of rows, columns, pixels, permuted, patches, got 'diagonal'",
    ),
    (
        {"schedule": "cosin"},
        "schedule: kind should be one of constant, exponential, cosine, one_cycle, got 'cosin'; "
        "did you mean 'cosine'?",
    ),
    (
        {"optimizer": {"learning_rate": 0.1}},
        "optimizer: should be a table with a `kind`, or the bare name of a kind, got "
        "{'learning_rate': 0.1}",
    ),
    (
        {"layers": [3]},
        "layers.0: should be a table with a `kind`, or the bare name of a kind, got 3",
    ),
    # values
    ({"validation": 0.9}, "validation: should be 'test' or a share above 0 and up to 0.5, got 0.9"),
    (
        {"validation": "tset"},
        "validation: should be 'test' or a share above 0 and up to 0.5, got 'tset'",
    ),
    ({"validation": 0.0}, "validation: should be 'test' or a share above 0 and up to 0.5, got 0.0"),
    (
        {"validation": True},
        "validation: should be 'test' or a share above 0 and up to 0.5, got True",
    ),
    ({"epochs": 0}, "epochs: should be greater than or equal to 1, got 0"),
    ({"epochs": 100_001}, "epochs: should be less than or equal to 100000, got 100001"),
    ({"epochs": 1.5}, "epochs: should be a whole number, got 1.5"),
    ({"epochs": "3"}, "epochs: should be a whole number, got '3'"),
    ({"epochs": True}, "epochs: should be a whole number, got True"),
    ({"batch": 0}, "batch: should be greater than or equal to 1, got 0"),
    ({"batch": 65537}, "batch: should be less than or equal to 65536, got 65537"),
    ({"seed": -1}, "seed: should be greater than or equal to 0, got -1"),
    ({"seed": 2**32}, "seed: should be less than 4294967296, got 4294967296"),
    ({"format": 2}, "format: should be 1, got 2"),
    ({"note": 3}, "note: should be a string, got 3"),
    ({"note": "x" * 2001}, "note: should have at most 2000 characters, got 'xxx…"),
    ({"layers": "lstm"}, "layers: should be a list, got 'lstm'"),
    ({"layers": [LSTM] * 65}, "layers: should have at most 64 items, got [{'kind': 'lstm'…"),
    ({"layers": []}, "a network needs at least one layer in `layers`"),
    ({"layers": [{"kind": "lstm"}]}, "layers.0.units: this key must be given"),
    (
        {"layers": [{**LSTM, "units": 0}]},
        "layers.0.units: should be greater than or equal to 1, got 0",
    ),
    (
        {"layers": [{**LSTM, "units": 16385}]},
        "layers.0.units: should be less than or equal to 16384, got 16385",
    ),
    (
        {"layers": [{**LSTM, "activation": "gelu"}]},
        "layers.0.activation: should be 'tanh' or 'relu', got 'gelu'",
    ),
    (
        {"layers": [{**LSTM, "bidirectional": 1}]},
        "layers.0.bidirectional: should be true or false, got 1",
    ),
    (
        {"layers": [{"kind": "dropout", "rate": 1.0}]},
        "layers.0.rate: should be less than 1, got 1.0",
    ),
    (
        {"optimizer": {"kind": "adam", "learning_rate": 0}},
        "optimizer.learning_rate: should be greater than 0, got 0",
    ),
    (
        {"optimizer": {"kind": "adam", "learning_rate": "fast"}},
        "optimizer.learning_rate: should be a number, got 'fast'",
    ),
    ({"label_smoothing": 1.0}, "label_smoothing: should be less than 1, got 1.0"),
    (
        {"label_smoothing": -0.1},
        "label_smoothing: should be greater than or equal to 0, got -0.1",
    ),
    ({"label_smoothing": "0.1"}, "label_smoothing: should be a number, got '0.1'"),
    ({"smoothing": 0.1}, "unknown key 'smoothing'; did you mean 'label_smoothing'?"),
    ({"clipping": 1.0}, "clipping: should be a table of keys, got 1.0"),
    ({"clipping": {}}, "clipping.limit: this key must be given"),
    (
        {"early_stopping": {"patience": 0}},
        "early_stopping.patience: should be greater than or equal to 1, got 0",
    ),
    (
        {"early_stopping": {"monitor": "acc"}},
        "early_stopping.monitor: should be 'val_loss', 'val_accuracy', 'loss' or 'accuracy', "
        "got 'acc'",
    ),
    (
        {"published": {"val_accuracy": 98.3}},
        "published.val_accuracy: should be less than or equal to 1, got 98.3",
    ),
    ({"branches": [{"layers": []}]}, "branches.0.layers: should have at least 1 item(s), got []"),
    (
        {"branches": [{"layers": [LSTM]}], "reading": "columns"},
        "`reading` belongs inside each branch once there are `branches`",
    ),
    ({"name": "a b"}, "name: a name is 1 to 64 letters, digits, dots, dashes and underscores…"),
    ({"name": "../up"}, "name: a name is 1 to 64 letters…"),
    ({"name": "x" * 65}, "name: a name is 1 to 64 letters…"),
    ({"epochs": 0, "batch": 0}, "batch: should be greater than or equal to 1, got 0 (and 1 more)"),
]


@pytest.mark.parametrize(("changes", "told"), REFUSED, ids=lambda v: str(v)[:50])
def test_a_refusal_names_key_rule_and_remedy(changes, told, tmp_path):
    assert same(refusal(Experiment, {**TINY, **changes}, tmp_path), told)
    told = told.removesuffix("…")
    nested = refusal(Study, {"name": "s", "experiments": [TINY, {**TINY, **changes}]}, tmp_path)
    key, colon, rule = told.partition(": ")
    if told.startswith("unknown key"):
        misspelled = told.split("'")[1]
        assert nested.startswith(f"unknown key 'experiments.1.{misspelled}'; ")
    elif colon:
        assert nested.startswith(f"experiments.1.{key}: {rule[:40]}")
    else:
        assert nested.startswith(f"experiments.1: {told}")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(bad):
    for changes in (
        {"optimizer": {"kind": "adam", "learning_rate": bad}},
        {"clipping": {"limit": bad}},
        {"validation": bad},
        {"layers": [{"kind": "dropout", "rate": bad}]},
        {"label_smoothing": bad},
        {"early_stopping": {"min_delta": bad}},
    ):
        with pytest.raises(ValueError, match="should be"):
            experiment(**changes)


STUDIES_REFUSED = [
    ({}, "experiments: this key must be given"),
    ({"experiments": []}, "experiments: should have at least 1 item(s), got []"),
    ({"experiments": TINY}, "experiments: should be a list, got {'name': 'tiny'…"),
    ({"experiments": ["tiny"]}, "experiments.0: should be a table of keys, got 'tiny'"),
    (
        {"experiments": [TINY, TINY]},
        "experiments: every experiment needs a name of its own, 'tiny' stands twice",
    ),
    ({"experiments": [TINY], "seed": 3}, "unknown key 'seed'; did you mean 'seeds'?"),
    (
        {"experiments": [TINY], "epochs": 3},
        "unknown key 'epochs'; did you mean 'experiments.0.epochs'?",
    ),
    ({"experiments": [TINY], "seeds": 0}, "seeds: should be greater than or equal to 1, got 0"),
    (
        {"experiments": [TINY], "dataset": "minst"},
        "dataset: should be 'mnist', 'fashion-mnist', 'kmnist' or 'digits', got 'minst'",
    ),
]


@pytest.mark.parametrize(("changes", "told"), STUDIES_REFUSED, ids=lambda v: str(v)[:50])
def test_a_study_that_is_refused(changes, told, tmp_path):
    assert same(refusal(Study, {"name": "s", **changes}, tmp_path), told)


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
@settings(max_examples=100, deadline=None)
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
