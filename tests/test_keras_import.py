"""Keras files as runs: exact weights, files of every version, and nothing of a file is ever run."""

from __future__ import annotations

import io
import json
import subprocess
import zipfile
from pathlib import Path

import made_study
import numpy as np
import pytest
from conformance import CASES, KERAS_LACKS

from rowwise import config, hdf5, keras_archive, keras_import, keras_model, runs
from rowwise.engines import plain
from rowwise.errors import BrokenExtra, MissingExtra, ModelError, RowwiseError, RunError
from rowwise.keras_import import import_keras

h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'rowwise[export]'")

FILES = Path(__file__).with_name("keras_files")
SAVED = sorted(path.name for path in FILES.iterdir() if path.suffix != ".json")
ANSWERS = json.loads((FILES / "answers.json").read_text())
# Float32 sums in another order; the largest difference seen here is 9e-8.
TOLERANCE = 1e-6
BY_NAME = {case.name: case for case in CASES}

# --- what comes back --------------------------------------------------------------------------


# A process reads each: a quarter of the cases, and every reading and all branches.
BACK = [
    case
    for place, case in enumerate(case for case in CASES if case.name not in KERAS_LACKS)
    if place % 4 == 3 or case.name.startswith(("read-", "branches"))
]


@pytest.mark.parametrize("case", BACK, ids=str)
def test_what_was_written_is_read_back_bit_by_bit(case, tmp_path):
    optimizer = config.RMSprop(learning_rate=0.003, rho=0.7)
    clipping = config.Clipping(by="value", limit=0.5)
    case = case.with_settings(optimizer=optimizer, clipping=clipping, label_smoothing=0.1)
    path = tmp_path / "case.keras"
    path.write_bytes(keras_model.build(case.network, case.weights))
    found = keras_import.read(path)
    own = case.experiment.model_copy(update={"note": found.experiment.note})
    assert found.experiment == own
    assert found.left_out == ()
    assert found.weights.keys() == case.weights.keys()
    for name, array in case.weights.items():
        np.testing.assert_array_equal(found.weights[name], array)


@pytest.mark.parametrize("name", SAVED)
def test_files_of_every_version_give_the_answers_that_keras_gave(name):
    found = keras_import.read(FILES / name)
    version = name.rpartition(".")[0]
    assert found.version == version
    assert found.experiment.optimizer == config.RMSprop(learning_rate=2e-3, rho=0.8)
    images = np.array(ANSWERS["pictures"], np.uint8)
    got = plain.predict(found.network, found.weights, images)
    np.testing.assert_allclose(got, ANSWERS["probabilities"][version], atol=TOLERANCE)


def test_the_run_is_one_that_everything_reads(tmp_path):
    data = made_study.dataset(shape=(5, 6), classes="abc", test=50)
    run = import_keras(FILES / "3.6.0.keras", tmp_path / "mine", data=data)
    again = runs.Run.open(tmp_path / "mine")
    assert again.record == run.record
    assert (again.status, again.ended, again.metrics) == ("imported", False, ())
    assert again.record.sentence == ("imported from 3.6.0.keras (Keras 3.6.0); it has no history")
    said = again.predictions()
    np.testing.assert_array_equal(said.labels, data.test_labels)
    assert again.record.test_accuracy == (said.predicted == data.test_labels).mean()
    assert again.network.check(again.weights(), where="here").keys() == run.weights().keys()
    assert again.environment["packages"]["numpy"] == np.__version__
    assert [found.folder.name for found in runs.find(tmp_path)] == ["mine"]


def test_a_run_may_lie_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    import_keras(FILES / "3.6.0.keras", ".")
    assert runs.Run.open(tmp_path / "here").status == "imported"


def test_an_import_is_whole_or_absent(tmp_path, monkeypatch):
    def fail(self, weights):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.Run, "save_weights", fail)
    with pytest.raises(KeyboardInterrupt):
        import_keras(FILES / "3.6.0.keras", tmp_path / "mine")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_taken_stays_as_it_is(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"an import needs a folder of its own, .* notes\.txt"):
        import_keras(FILES / "3.6.0.keras", tmp_path)


def test_data_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"reads 5 x 6 pixels and tells 3 .*has 8 x 8 and 10"):
        import_keras(FILES / "3.6.0.keras", tmp_path / "mine", data=made_study.dataset())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "named"),
    [("ModuleNotFoundError('', name='h5py')", MissingExtra), ("MemoryError", BrokenExtra)],
)
def test_a_package_that_is_missing_or_broken_is_named(tmp_path, monkeypatch, fault, named):
    (tmp_path / "h5py.py").write_text(f"raise {fault}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(named, match=r"package h5py, .*rowwise\[export\]"):
        import_keras(FILES / "3.6.0.keras", tmp_path / "mine")


# --- what Keras' users write ------------------------------------------------------------------


def described(layers, **compiled) -> dict:
    """A Sequential model as Keras describes it; a layer is its class and its settings."""
    listed = [("InputLayer", {"batch_shape": [None, 4, 6]}), *layers]
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "layers": [
                {
                    "module": "keras.layers",
                    "class_name": kind,
                    "config": {"name": f"layer_{i}", **settings},
                    "registered_name": None,
                }
                for i, (kind, settings) in enumerate(listed)
            ]
        },
        "registered_name": None,
        "compile_config": {"optimizer": {"class_name": "SGD", "config": {"learning_rate": 0.1}}}
        | compiled,
    }


def saved(path: Path, description: dict, arrays: dict) -> Path:
    """A .keras file with these weights by the number of their layer."""
    named = {f"layer_{i}": [np.asarray(a, np.float32) for a in own] for i, own in arrays.items()}
    path.write_bytes(keras_archive.write(description, named, ()))
    return path


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.5, shape).astype(np.float32)


SOFTMAX = ("Dense", {"units": 3, "activation": "softmax"})
LSTM = ("LSTM", {"units": 2, "activation": "tanh", "recurrent_activation": "sigmoid"})
LSTM_WEIGHTS = [drawn(6, 8), drawn(2, 8), drawn(8)]
HEAD = [drawn(2, 3), drawn(3)]


def test_biases_and_scales_that_a_layer_has_not_are_as_if_they_were_not_there(tmp_path):
    norm = ("BatchNormalization", {"axis": [2], "momentum": 0.9, "epsilon": 0.01, "scale": False})
    layers = [norm, (LSTM[0], {**LSTM[1], "use_bias": False}), SOFTMAX]
    variance = np.arange(1, 7) / 3
    arrays = {1: [drawn(6), drawn(6) + 1, variance], 2: LSTM_WEIGHTS[:2], 3: HEAD}
    found = keras_import.read(saved(tmp_path / "m.keras", described(layers), arrays))
    np.testing.assert_array_equal(found.weights["batch_normalization.gamma"], np.ones(6))
    np.testing.assert_array_equal(found.weights["batch_normalization.beta"], drawn(6))
    np.testing.assert_array_equal(found.weights["lstm.bias"], np.zeros(8))
    np.testing.assert_array_equal(found.weights["dense.bias"], HEAD[1])


@pytest.mark.parametrize(
    "end",
    [
        [SOFTMAX],
        [("Dense", {"units": 3, "activation": "linear"})],
        [("Dense", {"units": 3}), ("Activation", {"activation": "softmax"})],
        [("Dense", {"units": 3}), ("Softmax", {})],
    ],
    ids=["softmax", "logits", "activation", "layer"],
)
def test_a_network_may_end_in_several_ways(end, tmp_path):
    path = saved(tmp_path / "m.keras", described([LSTM, *end]), {1: LSTM_WEIGHTS, 2: HEAD})
    found = keras_import.read(path)
    assert [layer.kind for layer in found.experiment.layers] == ["lstm"]
    np.testing.assert_array_equal(found.weights["dense.kernel"], HEAD[0])


@pytest.mark.parametrize(
    ("first", "reading", "features"),
    [
        (("Permute", {"dims": [2, 1]}), config.Columns(), 4),
        (("Reshape", {"target_shape": [-1, 1]}), config.Pixels(), 1),
        (("Reshape", {"target_shape": [4, 6]}), config.Rows(), 6),
        (("Rescaling", {"scale": 1 / 255, "offset": 0.0}), config.Rows(), 6),
    ],
    ids=["columns", "pixels", "rows", "bytes"],
)
def test_a_network_may_begin_in_several_ways(first, reading, features, tmp_path):
    arrays = {2: [drawn(features, 8), *LSTM_WEIGHTS[1:]], 3: HEAD}
    found = keras_import.read(
        saved(tmp_path / "m.keras", described([first, LSTM, SOFTMAX]), arrays)
    )
    assert found.experiment.reading == reading
    np.testing.assert_array_equal(found.weights["lstm.kernel"], drawn(features, 8))


def test_pictures_as_vectors_are_pictures(tmp_path):
    tree = described([("Reshape", {"target_shape": [4, 6]}), LSTM, SOFTMAX])
    tree["config"]["layers"][0]["config"]["batch_shape"] = [None, 24]
    found = keras_import.read(saved(tmp_path / "m.keras", tree, {2: LSTM_WEIGHTS, 3: HEAD}))
    assert found.network.shape == (4, 6)


def test_what_only_training_needs_is_left_out_and_told(tmp_path):
    cell = {**LSTM[1], "recurrent_dropout": 0.2, "kernel_regularizer": {"class_name": "L2"}}
    tree = described([("LSTM", cell), SOFTMAX], optimizer={"class_name": "Nadam", "config": {}})
    tree["compile_config"]["optimizer"]["config"]["learning_rate"] = 0.1
    path = saved(tmp_path / "m.keras", tree, {1: LSTM_WEIGHTS, 2: HEAD})
    run = import_keras(path, tmp_path / "mine")
    for told in ("recurrent_dropout of layer_1", "kernel_regularizer of layer_1", "Nadam"):
        assert told in run.record.sentence


# --- what is refused --------------------------------------------------------------------------


def cell(kind: str, **more) -> dict:
    """A layer inside a Bidirectional one."""
    return {"module": "keras.layers", "class_name": kind, "config": {**LSTM[1], **more}}


def both_ways(kind: str, backward: str, **more) -> tuple[str, dict]:
    """A Bidirectional layer whose second way is told apart, and so may be another."""
    other = cell(backward, **{"go_backwards": True, **more})
    ways = {"layer": cell(kind), "backward_layer": other}
    return "Bidirectional", {"merge_mode": "concat", **ways}


BAD_LAYERS = {
    "lambda": (
        ("Lambda", {"function": {"class_name": "__lambda__", "config": {"code": "4wEA"}}}),
        r"layer layer_1 \(Lambda\): .*holds code, and code of a model file is never run",
    ),
    "convolution": (("Conv1D", {}), r"layer_1 \(Conv1D\): Rowwise has no layer Conv1D; it has"),
    "attention": (("MultiHeadAttention", {}), r"Rowwise has no layer MultiHeadAttention"),
    "masking": (("Masking", {}), r"Rowwise has no layer Masking"),
    "nested": (("Sequential", {"layers": []}), r"Rowwise has no layer Sequential"),
    "gru-before": (("GRU", {"units": 2, "reset_after": False}), r"its reset_after must be True"),
    "hard": (("LSTM", {**LSTM[1], "recurrent_activation": "hard_sigmoid"}), r"hard_sigmoid"),
    "elu": (("LSTM", {**LSTM[1], "activation": "elu"}), r"must be tanh or relu, got elu"),
    "backwards": (("LSTM", {**LSTM[1], "go_backwards": True}), r"its go_backwards must be False"),
    "stateful": (("LSTM", {**LSTM[1], "stateful": True}), r"its stateful must be False, got True"),
    "half": (
        ("LSTM", {**LSTM[1], "dtype": "mixed_float16"}),
        r"must compute in float32, got mixed",
    ),
    "axis": (
        ("BatchNormalization", {"axis": 1, "momentum": 0.9, "epsilon": 0.1}),
        r"its axis is the last one, got 1",
    ),
    "units": (("LSTM", {**LSTM[1], "units": "many"}), r"units"),
    "endless-units": (("LSTM", {**LSTM[1], "units": float("inf")}), r"a number is finite, got inf"),
    "huge-units": (("LSTM", {**LSTM[1], "units": 10**40}), r"a whole number is below 2\^63"),
    "large-units": (("LSTM", {**LSTM[1], "units": 1e300}), r"units"),
    "no-units": (("LSTM", {}), r"not described as Keras does it \(KeyError: 'units'\)"),
    "unlike": (
        both_ways("LSTM", "GRU", reset_after=True),
        r"layer_1 \(Bidirectional\): both ways must be alike",
    ),
    "unlike-units": (both_ways("LSTM", "LSTM", units=3), r"both ways must be alike"),
    "unlike-activation": (both_ways("LSTM", "LSTM", activation="relu"), r"ways must be alike"),
    "first-backwards": (
        ("Bidirectional", {"merge_mode": "concat", "layer": cell("LSTM", go_backwards=True)}),
        r"it must read forward first and then backward",
    ),
    "both-forward": (
        both_ways("LSTM", "LSTM", go_backwards=False),
        r"it must read forward first and then backward",
    ),
    "summed": (
        ("Bidirectional", {"merge_mode": "sum", "layer": cell("LSTM")}),
        r"its merge_mode must be concat, got sum",
    ),
    "around-dense": (
        ("Bidirectional", {"merge_mode": "concat", "layer": cell("Dense")}),
        r"it must be around one of SimpleRNN, LSTM, GRU",
    ),
    "scaled": (("Rescaling", {"scale": 2.0}), r"bytes must be divided by 255"),
    "softmax-inside": (SOFTMAX, r"a softmax must stand at the end alone"),
}


@pytest.mark.parametrize("name", BAD_LAYERS)
def test_a_layer_that_rowwise_has_not_is_refused_by_name(name, tmp_path):
    layer, told = BAD_LAYERS[name]
    last = [LSTM] if name not in ("lambda", "softmax-inside") else []
    path = saved(tmp_path / "m.keras", described([layer, *last, SOFTMAX]), {})
    with pytest.raises(RowwiseError, match=told) as refused:
        import_keras(path, tmp_path / "mine")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "mine").exists()


def test_a_class_of_anothers_is_not_taken_for_keras_own(tmp_path):
    for change in ({"module": "theirs.layers"}, {"registered_name": "theirs>LSTM"}):
        tree = described([LSTM, SOFTMAX])
        tree["config"]["layers"][1].update(change)
        path = saved(tmp_path / "m.keras", tree, {})
        with pytest.raises(ModelError, match=r"Rowwise has no layer .*\.LSTM; it has"):
            keras_import.read(path)


def test_a_model_that_is_no_chain_of_layers_is_refused(tmp_path):
    case = BY_NAME["branches"]
    whole = zipfile.ZipFile(io.BytesIO(keras_model.build(case.network, case.weights)))
    tree = json.loads(whole.read("config.json"))
    layers = {layer["name"]: layer for layer in tree["config"]["layers"]}
    by_rows = layers["concatenate"]["inbound_nodes"][0]["args"][0][0]["config"]
    by_rows["keras_history"][0] = "simple_rnn"
    path = tmp_path / "m.keras"
    path.write_bytes(keras_archive.write(tree, {}, ()))
    with pytest.raises(
        ModelError, match=r"layer simple_rnn \(SimpleRNN\): a layer may be used once"
    ):
        keras_import.read(path)


def chained(*layers: tuple[str, str, dict, list[str]]) -> dict:
    """A functional model: class, name, settings, and the layers that each one reads."""
    tree = described([])
    tree["class_name"] = "Functional"
    tree["config"]["layers"] = [
        {
            "module": "keras.layers",
            "class_name": kind,
            "name": name,
            "config": {"name": name, **settings},
            "inbound_nodes": [[[sender, 0, 0, {}] for sender in senders]] if senders else [],
        }
        for kind, name, settings, senders in layers
    ]
    return tree


PICTURE = ("InputLayer", "picture", {"batch_shape": [None, 4, 6]}, [])
READ = ("LSTM", "read", LSTM[1], ["picture"])
TOLD = ("Dense", "told", SOFTMAX[1], ["read"])
DROP = {"rate": 0.5}
CYCLES = {
    "none": ([PICTURE, READ, TOLD], ""),
    "beside": (
        [PICTURE, READ, TOLD, ("Dropout", "a", DROP, ["b"]), ("Dropout", "b", DROP, ["a"])],
        r"layer a \(Dropout\): every layer must lead from the picture to the output",
    ),
    "itself": (
        [PICTURE, READ, TOLD, ("Dropout", "a", DROP, ["a"])],
        r"layer a \(Dropout\): every layer must lead from the picture to the output",
    ),
    "before": (
        [PICTURE, ("LSTM", "read", LSTM[1], ["a"]), ("Dropout", "a", DROP, ["read"]), TOLD],
        r"layer read \(LSTM\): a layer may be used once",
    ),
    "of all": (
        [PICTURE, ("LSTM", "read", LSTM[1], ["told"]), TOLD],
        r"layer read \(LSTM\): every layer must lead from the picture to the output",
    ),
}


@pytest.mark.parametrize(("layers", "told"), CYCLES.values(), ids=CYCLES.keys())
def test_a_cycle_of_layers_is_refused(layers, told, tmp_path):
    named = {"read": LSTM_WEIGHTS, "told": HEAD}
    path = tmp_path / "m.keras"
    path.write_bytes(keras_archive.write(chained(*layers), named, ()))
    if not told:
        assert [layer.kind for layer in keras_import.read(path).experiment.layers] == ["lstm"]
        return
    with pytest.raises(ModelError, match=told):
        keras_import.read(path)


ENDS = {
    "no-softmax": ([LSTM], r"layer_1 \(LSTM\): a network must end in Dense with .* softmax"),
    "sigmoid": ([LSTM, ("Dense", {"units": 3, "activation": "sigmoid"})], r"must end in Dense"),
    "nothing": ([], r"a network needs layers, got none"),
    "no-vector": ([("LSTM", {**LSTM[1], "return_sequences": True}), SOFTMAX], r"one vector"),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_that_gives_no_probabilities_is_refused(name, tmp_path):
    layers, told = ENDS[name]
    with pytest.raises(RowwiseError, match=told):
        keras_import.read(saved(tmp_path / "m.keras", described(layers), {}))


# --- files that are not trusted ---------------------------------------------------------------


def packed(path: Path, *, compression: int = zipfile.ZIP_STORED, **changes: bytes | None) -> Path:
    """A good archive with members changed or left out."""
    good = zipfile.ZipFile(FILES / "3.6.0.keras")
    names = {"metadata": "metadata.json", "config": "config.json", "weights": "model.weights.h5"}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for key, name in names.items():
            content = changes.get(key, good.read(name))
            if content is not None:
                archive.writestr(name, content)
    return path


def weights(change) -> bytes:
    """The good weights after `change` of their file."""
    content = io.BytesIO(zipfile.ZipFile(FILES / "3.6.0.keras").read("model.weights.h5"))
    with h5py.File(content, "r+") as file:
        change(file)
    return content.getvalue()


def test_a_good_archive_is_good(tmp_path):
    assert keras_import.read(packed(tmp_path / "m.keras")).network.classes == 3


BAD_FILES = {
    "missing": (lambda p: None, r"cannot read .*m\.keras: No such file"),
    "folder": (lambda p: p.mkdir(), r"cannot read .*: Is a directory"),
    "text": (lambda p: p.write_text("not a model"), r"is no Keras model: it must be a \.keras"),
    "empty": (lambda p: p.write_bytes(b""), r"is no Keras model"),
    "half": (
        lambda p: p.write_bytes((FILES / "3.6.0.keras").read_bytes()[:3000]),
        r"is damaged: it is no sound archive \(File is not a zip file\)",
    ),
    "half-h5": (
        lambda p: p.write_bytes((FILES / "3.6.0.h5").read_bytes()[:9000]),
        r"is damaged: ",
    ),
    "no-config": (lambda p: packed(p, config=None), r"this one has no config\.json"),
    "no-weights": (lambda p: packed(p, weights=None), r"this one has no model\.weights\.h5"),
    "no-json": (
        lambda p: packed(p, config=b"{"),
        r"is damaged: its description: it is not valid JSON",
    ),
    "a-list": (
        lambda p: packed(p, config=b"[]"),
        r"is damaged: its description: it must hold an object, got a list",
    ),
    "deep": (
        lambda p: packed(p, config=b"[" * 100_000),
        r"is damaged: its description: it is not valid JSON",
    ),
    "no-layers": (
        lambda p: packed(p, config=b'{"class_name": "Sequential", "config": {}}'),
        r"not one that Keras writes .*KeyError: 'layers'",
    ),
    "subclassed": (
        lambda p: packed(p, config=b'{"class_name": "Mine", "module": "mine", "config": {}}'),
        r"a model of the class 'Mine'",
    ),
    "other-weights": (lambda p: packed(p, weights=b"\0" * 5000), r"is damaged: "),
    "bomb": (
        lambda p: packed(p, weights=b"\0" * 20_000_000, compression=zipfile.ZIP_DEFLATED),
        r"model\.weights\.h5 may have [\d,]+ bytes for this network",
    ),
    "fat-config": (
        lambda p: packed(p, config=b" " * 21_000_000, compression=zipfile.ZIP_DEFLATED),
        r"config\.json may have 20,000,000 bytes",
    ),
    "fat-weights": (lambda p: packed(p, weights=b"\1" * 17_000_000), r"bytes for this network"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_in_one_line(name, tmp_path):
    make, told = BAD_FILES[name]
    make(tmp_path / "m.keras")
    with pytest.raises(ModelError, match=told) as refused:
        import_keras(tmp_path / "m.keras", tmp_path / "mine")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "mine").exists()


def replaced(file, value):
    del file["layers/dense/vars/1"]
    file["layers/dense/vars/1"] = value


def outside(file):
    del file["layers/dense/vars/1"]
    space = [("secret.bin", 0, 16)]
    file.create_dataset("layers/dense/vars/1", (4,), np.float32, external=space)


def virtual(file):
    del file["layers/dense/vars/1"]
    layout = h5py.VirtualLayout((4,), np.float32)
    layout[:] = h5py.VirtualSource("other.h5", "x", (4,))
    file.create_virtual_dataset("layers/dense/vars/1", layout)


def packed_dataset(file):
    del file["layers/dense/vars/1"]
    file.create_dataset("layers/dense/vars/1", (4,), np.float32, compression="gzip")


BAD_WEIGHTS = {
    "missing": (lambda f: f.__delitem__("layers/dense/vars/1"), r"layer dense has no weights"),
    "misshapen": (lambda f: replaced(f, np.ones(5, np.float32)), r"must be \[4\], .* is \[5\]"),
    "text": (lambda f: replaced(f, np.array([b"a"] * 4)), r"weights are floats"),
    "not-finite": (lambda f: replaced(f, np.full(4, np.nan, np.float32)), r"must be finite"),
    "group": (
        lambda f: (f.__delitem__("layers/dense/vars/1"), f.create_group("layers/dense/vars/1")),
        r"weights are floats",
    ),
    "external-link": (
        lambda f: replaced(f, h5py.ExternalLink("other.h5", "/x")),
        r"in the file itself, layers/dense/vars/1 is a link",
    ),
    "soft-link": (lambda f: replaced(f, h5py.SoftLink("/layers")), r"is a link"),
    "outside": (outside, r"lie in one piece in the file"),
    "virtual": (virtual, r"lie in one piece in the file"),
    "packed": (packed_dataset, r"lie in one piece in the file"),
}


@pytest.mark.parametrize("name", BAD_WEIGHTS)
def test_weights_are_taken_as_they_should_be_and_not_otherwise(name, tmp_path, monkeypatch):
    change, told = BAD_WEIGHTS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.bin").write_bytes(b"\0" * 16)
    path = packed(tmp_path / "m.keras", weights=weights(change))
    with pytest.raises(RowwiseError, match=told):
        keras_import.read(path)


def test_an_older_file_is_not_trusted_either(tmp_path):
    path = tmp_path / "m.h5"
    for change, told in (
        (lambda f: f.attrs.__delitem__("model_config"), r"holds weights alone and no description"),
        (lambda f: f["model_weights"].__delitem__("dense"), r"dense must have 2 weights, .* 0"),
        (
            lambda f: f["model_weights/dense"].attrs.__setitem__("weight_names", [b"../x", b"y"]),
            r"has no weights",
        ),
    ):
        path.write_bytes((FILES / "2.15.0.h5").read_bytes())
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(ModelError, match=told):
            keras_import.read(path)


def damaged(count: int, path: Path):
    """Good files with three bytes changed or the end cut off."""
    rng = np.random.default_rng(0)
    for name in ("3.6.0.keras", "2.15.0.h5"):
        good = (FILES / name).read_bytes()
        for _ in range(count):
            bad = bytearray(good)
            for place in rng.integers(0, len(bad), 3):
                bad[place] = rng.integers(256)
            path.write_bytes(bad[: rng.integers(len(bad))] if rng.random() < 0.2 else bad)
            yield path


@pytest.mark.parametrize("count", [5, pytest.param(300, marks=pytest.mark.slow)])
def test_any_damage_gets_a_named_error_or_a_reading(count, tmp_path, monkeypatch):
    """The HDF5 library crashes on some of these, and on others it never comes back."""
    monkeypatch.setattr(hdf5, "TIME_LIMIT_S", 5)
    told = []
    for path in damaged(count, tmp_path / "m.keras"):
        try:
            keras_import.read(path)
        except RowwiseError as error:
            told.append(str(error))
    assert len(told) > count // 2
    assert all("\n" not in line for line in told)


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("import os; os.abort()", r"is damaged: the HDF5 library fails on it \(exit -6\)"),
        ("import time; time.sleep(9)", r"is damaged: .* is not done with it in 0\.5 s"),
    ],
    ids=["crash", "hang"],
)
def test_a_file_on_which_the_library_fails_is_damaged(script, told, monkeypatch):
    right = subprocess.run

    def run(command, **options):
        return right([command[0], "-c", script], **options)

    monkeypatch.setattr(hdf5, "TIME_LIMIT_S", 0.5)
    monkeypatch.setattr(hdf5.subprocess, "run", run)
    with pytest.raises(ModelError, match=told):
        keras_import.read(FILES / "2.15.0.h5")
