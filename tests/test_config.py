"""Experiments and studies as data: what is read, what is refused and how, what a digest covers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowwise.config import (
    Adam,
    Dense,
    Experiment,
    Recurrent,
    Study,
)
from rowwise.errors import ConfigError

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
@settings(max_examples=100)
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
@settings(max_examples=20)
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
        ("x.toml", b"epochs = ", "it is not valid TOML (Invalid value (at end of document)"),
        ("x.toml", b"epochs = 1\nepochs = 2\n", "it is not valid TOML (Cannot overwrite a value"),
        ("x.toml", b"epochs = " + b"9" * 5000, "it is not valid TOML (Exceeds the limit"),
        ("x.toml", b"layers = " + b"[" * 5000, "it is not valid TOML ("),
        ("x.toml", b"name = '\xff'", " is damaged: it is not UTF-8 text"),
        ("x.toml", b"\0\0\0", "it is not valid TOML ("),
        ("x.toml", b"#" * 1_000_001, "expected at most 1,000,000 bytes, found 1,000,001"),
        ("x.toml", b"", "name: this key must be given"),
        ("x.json", b"", "it is not valid JSON (Expecting value: line 1 column 1 (char 0)"),
        ("x.json", b"[]", "it must hold an object, got a list"),
        ("x.json", b"[" * 100_000, "it is not valid JSON ("),
        ("x.json", b'{"name": "a\\ud800"}', "name: "),
    ],
)
@pytest.mark.parametrize("model", [Experiment, Study])
def test_a_file_that_is_no_configuration(model, name, content, told, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        model.from_file(path)
    assert str(caught.value).removeprefix(str(path)).removeprefix(": ").startswith(told)
    str(caught.value).encode("utf-8")


def test_a_file_that_cannot_be_read(tmp_path):
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(ConfigError, match=f"^cannot read {path}: [A-Z]"):
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
        "unknown key 'zzz'; known: augmentation, averaging, batch, branches, clipping, "
        "early_stopping, epochs, format, label_smoothing, layers, name, note, optimizer, "
        "published, reading, schedule, seed, target_replication, validation",
    ),
    ({"": 3}, "unknown key ''; known: augmentation, …"),
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
