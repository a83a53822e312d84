"""Runs out and in again: the four networks of the study, trained, through ONNX and Keras."""

from __future__ import annotations

import json
from pathlib import Path

import made_study
import numpy as np
import pytest
from keras_twin import KERAS_WARNING, KerasTwin, keras_in
from small_training import trainer_or_skip

from rowwise import engines, export, keras_import, keras_model, onnx_model
from rowwise.config import shipped_studies
from rowwise.errors import ModelError, RunError
from rowwise.export import export_keras, export_onnx
from rowwise.runs import Run
from rowwise.train import fit

for package in ("onnx", "onnxruntime", "h5py"):
    pytest.importorskip(package, reason=f"needs {package}: pip install 'rowwise[export]'")
trainer_or_skip()
pytestmark = KERAS_WARNING

STUDY = {experiment.name: experiment for experiment in shipped_studies()["classic"].experiments}
DATA = made_study.dataset(shape=(28, 28), train=192, test=96, seed=5)
PICTURES = DATA.test_images
ASKED = 1e-5  # how near all of these have to be


@pytest.fixture(scope="module", autouse=True)
def keras():
    with keras_in("float32") as module:
        yield module


@pytest.fixture
def few(monkeypatch) -> None:
    """Try models on few pictures: Keras takes a second or two for a thousand."""
    monkeypatch.setattr(export, "BATCHES", (1, 7))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The four networks, each after two epochs of a few steps: no weight is where it began."""
    place = tmp_path_factory.mktemp("study")
    for experiment in STUDY.values():
        short = experiment.with_overrides(["epochs=2", "batch=48"])
        fit(short, DATA, out=place / experiment.name, threads=1)
    return place


@pytest.fixture(params=STUDY)
def run(request, folder) -> Run:
    return Run.open(folder / request.param)


def ours(run: Run) -> np.ndarray:
    name = engines.choose("auto", run.network, training=False).name
    return engines.engine(name).predict(run.network, run.weights(), PICTURES)


def test_a_trained_run_has_moved_everything(run):
    fresh = run.network.initialise(seed=run.seed)
    for name, value in run.weights().items():
        assert not np.array_equal(value, fresh[name]), name


def test_run_to_onnx(run, tmp_path):
    made = export_onnx(run, tmp_path / "model.onnx")
    assert made.difference is not None
    assert made.difference < ASKED
    read = onnx_model.read((tmp_path / "model.onnx").read_bytes(), PICTURES)
    np.testing.assert_allclose(read, ours(run), atol=ASKED)


def test_run_to_keras_and_back(run, few, keras, tmp_path):
    path = tmp_path / "model.keras"
    made = export_keras(run, path)
    assert made.difference is not None
    assert made.difference < ASKED
    model = keras.saving.load_model(path)
    given = PICTURES.astype(np.float32) / 255
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(given)), ours(run), atol=ASKED)
    assert [layer.__class__.__name__ for layer in model.layers] == [
        node.type for node in run.network.nodes[1:]
    ]
    back = keras_import.import_keras(path, tmp_path / "back")
    assert back.network.experiment.layers == run.experiment.layers
    assert back.experiment.optimizer == run.experiment.optimizer
    for name, value in run.weights().items():
        np.testing.assert_array_equal(back.weights()[name], value)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_keras_to_run(run, suffix, keras, tmp_path):
    """Weights of a model that Keras itself built and saved, as the study's script would."""
    twin = KerasTwin(run.network)
    twin.load(run.weights())
    layers = [twin._layers[node.name] for node in run.network.nodes if node.name in twin._layers]
    model = keras.Sequential([keras.Input((28, 28)), *layers, keras.layers.Softmax()])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(tmp_path / f"theirs.{suffix}")
    taken = keras_import.import_keras(tmp_path / f"theirs.{suffix}", tmp_path / "taken")
    given = PICTURES.astype(np.float32) / 255
    theirs = keras.ops.convert_to_numpy(model(given, training=False))
    np.testing.assert_allclose(ours(taken), theirs, atol=ASKED)
    for name, value in run.weights().items():
        np.testing.assert_array_equal(taken.weights()[name], value)


# --- a file is kept when it is right ----------------------------------------------------------


@pytest.mark.parametrize("kind", export.FORMATS)
def test_a_model_that_reads_otherwise_is_not_kept(kind, few, folder, tmp_path, monkeypatch):
    module = {"onnx": onnx_model, "keras": keras_model}[kind]
    right = module.read
    monkeypatch.setattr(module, "read", lambda source, images: right(source, images) + 0.01)
    write = {"onnx": export_onnx, "keras": export_keras}[kind]
    (tmp_path / f"model.{kind}").write_text("before")
    with pytest.raises(ModelError, match=r"is not written: .* may differ by .* by 0\.01; please"):
        write(Run.open(folder / "rnn-tanh"), tmp_path / f"model.{kind}")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_model_that_gives_nonsense_is_not_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        onnx_model, "read", lambda model, images: np.full((len(images), 10), np.nan)
    )
    with pytest.raises(ModelError, match=r"is not written: it gives no probabilities"):
        export_onnx(Run.open(folder / "rnn-tanh"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_keras_the_file_is_written_untried(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(keras_model, "why_not", lambda: "Keras is not installed")
    made = export_keras(Run.open(folder / "rnn-tanh"), tmp_path / "model.keras")
    assert (made.difference, made.untried) == (None, "Keras is not installed")
    assert keras_import.read(made.path).network.count == 29114


def test_the_pictures_tried_have_ink_and_paper():
    pictures = export._pictures((28, 28), 1000)
    assert (pictures.shape, pictures.dtype) == ((1000, 28, 28), np.uint8)
    assert 0.05 < (pictures > 0).mean() < 0.6
    assert len(np.unique(pictures.reshape(1000, -1), axis=0)) == 1000


# --- the commands -----------------------------------------------------------------------------


def test_export_says_how_near_the_model_is(rowwise, folder):
    said = rowwise("export", folder / "rnn-tanh", "--to", "onnx")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("rnn-tanh-s0.onnx: ONNX Runtime gives the probabilities of the eng")
    assert Path("rnn-tanh-s0.onnx").stat().st_size > 100_000
    said = rowwise("export", folder / "rnn-tanh", "--to", "keras", "--out", "mine.keras", "--json")
    told = json.loads(said.out)
    assert (told["file"], told["program"], told["untried"]) == ("mine.keras", "Keras", "")
    assert told["difference"] < ASKED


def test_import_gives_a_run_that_the_other_commands_read(rowwise, few, folder):
    rowwise("export", folder / "rnn-tanh", "--to", "keras", "--out", "mine.keras")
    said = rowwise("import", "mine.keras")
    assert (said.code, said.err) == (0, "")
    assert said.out == (
        f"{Path('runs/mine-s0')}: mine (29,114 parameters), imported from mine.keras "
        "(Keras 3.0.0); it has no history\n"
    )
    listed = rowwise("runs", "--json")
    assert [row["status"] for row in json.loads(listed.out)] == ["imported"]
    assert "imported" in rowwise("runs").out
    assert rowwise("export", "runs/mine-s0", "--out", "again.onnx").code == 0
    refused = rowwise("evaluate", "runs/mine-s0")
    assert (refused.code, "name labelled pictures with --data" in refused.err) == (1, True)
    again = rowwise("import", "mine.keras")
    assert (again.code, "an import needs a folder of its own" in again.err) == (1, True)


def test_import_can_judge_the_model(rowwise, few, trained):
    rowwise("export", trained / "runs/tiny-s0", "--to", "keras", "--out", "tiny.keras")
    said = rowwise("import", "tiny.keras", "--out", "runs/taken", "--dataset", "digits")
    before = Run.open(trained / "runs/tiny-s0").record.test_accuracy
    assert said.out.endswith(f"test accuracy {100 * before:.2f} % on digits\n")
    judged = rowwise("evaluate", "runs/taken", "--json")
    assert json.loads(judged.out)["accuracy"] == pytest.approx(before)
    compared = rowwise("runs", "--compare", "runs/taken", trained / "runs/tiny-s0", "--json")
    assert json.loads(compared.out)["mcnemar"]["difference"] == 0
    more = rowwise(
        "train", trained / "tiny.toml", "--dataset", "digits", "--init-from", "runs/taken",
        "--out", "more", "--quiet", "--threads", "1",
    )  # fmt: skip
    assert more.code == 0


def test_a_report_leaves_an_imported_run_out_by_name(rowwise, few, work):
    pytest.importorskip("matplotlib")
    rowwise("export", "runs/tiny-s0", "--to", "keras", "--out", "tiny.keras")
    rowwise("import", "tiny.keras", "--out", "runs/taken")
    assert rowwise("report", "runs").code == 0
    page = Path("runs/report.html").read_text("utf-8")
    assert "imported from tiny.keras (Keras 3.0.0); it has no history" in page


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("export", "nowhere"), "a run is a folder, nowhere is not there"),
        (("export", "RUN", "--to", "tflite"), "--to takes onnx or keras, got 'tflite'"),
        (("export", "RUN", "--to", "keras", "--out", "m.h5"), "ends in .keras, got m.h5"),
        (("export", "RUN", "--out", "."), "an export is a file, . is a folder"),
        (("export", "RUN", "--out", "no/m.onnx"), "cannot write no/m.onnx: No such file"),
        (("import", "nothing.keras"), "cannot read nothing.keras: No such file"),
        (("import", "RUN"), "cannot read"),
    ],
)
def test_a_wrong_command_is_told_in_one_line(arguments, told, rowwise, folder):
    given = [str(folder / "rnn-tanh") if word == "RUN" else word for word in arguments]
    said = rowwise(*given)
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert told in said.err


def test_an_unfinished_run_is_not_exported(folder, tmp_path):
    run = Run.open(folder / "rnn-tanh")
    record = run.record.model_copy(update={"status": "interrupted"})
    bare = Run(tmp_path / "bare", record)
    bare.folder.mkdir()
    bare.update()
    (bare.folder / "experiment.json").write_text(run.experiment.model_dump_json())
    with pytest.raises(RunError, match=r"this run is interrupted"):
        export_onnx(Run.open(bare.folder), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
