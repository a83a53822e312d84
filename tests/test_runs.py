"""A run folder: its files, names and keys; what is written is read again; damage is one line."""

from __future__ import annotations

import json
import re

import made_study
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import small_training
from made_data import tree
from small_training import DATA, StopAfter, experiment, train

from rowwise import engines, runs
from rowwise.config import Experiment
from rowwise.errors import RunError
from rowwise.runs import Checkpoint, EpochMetrics, Record, Run

small_training.trainer_or_skip()

METRIC_KEYS = [
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "train_s",
    "val_s",
    "steps",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run, not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "small-s2"
    train(experiment(seed=2, validation=0.2), out=folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be damaged."""
    place = tmp_path / "small-s2"
    place.mkdir()
    for path in finished.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


# --- names and keys, which others rely on ------------------------------------------------------


def test_a_finished_run_has_these_files(finished):
    assert {path.name for path in finished.iterdir()} - {".lock"} == {
        "run.json",
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "weights.safetensors",
        "predictions.csv",
    }


def test_an_interrupted_run_has_these_files(tmp_path):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    assert {path.name for path in tmp_path.iterdir()} - {".lock"} == {
        "run.json",
        "experiment.json",
        "environment.json",
        "metrics.jsonl",
        "checkpoint.safetensors",
    }


def test_metrics_are_one_object_an_epoch(finished):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    for number, line in enumerate(lines, 1):
        row = json.loads(line)
        assert list(row) == METRIC_KEYS
        assert row["epoch"] == number
        assert row["steps"] == 5  # of 28 pictures, the last one partial
        assert 0 <= row["accuracy"] <= 1
        assert 0 <= row["val_accuracy"] <= 1
        assert row["train_s"] > 0
        assert row["val_s"] > 0


def test_the_record_says_what_the_run_is(finished):
    told = json.loads((finished / "run.json").read_text())
    assert list(told) == list(Record.model_fields)
    assert told["format"] == 1
    assert (told["name"], told["seed"], told["status"]) == ("small", 2, "finished")
    assert told["sentence"] == "finished after 3 epochs"
    assert told["experiment_digest"] == experiment(seed=2, validation=0.2).digest
    assert told["data"] == {
        "name": "made",
        "digest": DATA.digest,
        "source": "made up",
        "fallback": "",
        "classes": list("0123456789"),
        "shape": [6, 5],
        "train": 120,
        "validation": 30,
        "test": 130,
    }
    network = Run.open(finished).network
    assert told["engine"] == {
        **engines.choose("auto", network, training=True)._asdict(),
        "name": small_training.TRAINS,
        "threads": 1,
    }
    assert told["parameters"] == Run.open(finished).network.count
    assert told["epochs_done"] == 3
    assert 0 <= told["test_accuracy"] <= 1
    assert set(told["timings"]) == {"train_s", "val_s", "test_s"}
    assert min(told["timings"].values()) > 0
    for moment in (told["started"], told["updated"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moment)


def test_the_resolved_configuration_is_kept_whole(finished):
    told = json.loads((finished / "experiment.json").read_text())
    assert set(told) == set(Experiment.model_fields)
    assert Run.open(finished).experiment == experiment(seed=2, validation=0.2)


def test_the_environment_is_kept(finished):
    told = json.loads((finished / "environment.json").read_text())
    assert {"format", "python", "packages", "processor", "threads", "system"} <= set(told)
    assert {"rowwise", "numpy", "pydantic"} <= set(told["packages"])
    assert told["threads"] == 1
    assert Run.open(finished).environment == told


def test_weights_carry_the_network(finished):
    run = Run.open(finished)
    with safetensors.safe_open(finished / "weights.safetensors", framework="numpy") as file:
        told = file.metadata()
        names = set(file.keys())
    assert set(told) == {"format", "experiment", "shape", "classes"}
    assert told["format"] == "rowwise-weights-1"
    assert Experiment.model_validate_json(told["experiment"]) == run.experiment
    assert json.loads(told["shape"]) == [6, 5]
    assert json.loads(told["classes"]) == list("0123456789")
    assert names == run.network.parameters.keys()


def test_predictions_are_those_of_the_result(tmp_path):
    result = train(experiment(epochs=1), out=tmp_path)
    said = Run.open(tmp_path).predictions()
    assert said.probabilities.tobytes() == result.probabilities.tobytes()
    assert np.array_equal(said.labels, DATA.test_labels)
    assert np.array_equal(said.predicted, result.probabilities.argmax(1))


# --- what is written is read again -------------------------------------------------------------


def test_the_record_survives_a_change(copied):
    run = Run.open(copied)
    run.update(status="interrupted", sentence="so far", epochs_done=2, best_epoch=1)
    again = Run.open(copied)
    assert again.record == run.record
    assert (again.status, again.ended, again.record.best_epoch) == ("interrupted", False, 1)
    assert (again.name, again.seed) == ("small", 2)


def test_metrics_survive_to_the_last_bit(copied):
    rows = (
        EpochMetrics(1, 0.1 + 0.2, 1 / 3, 1e-300, 0.0, 5e-324, 123456789012.3456, 7),
        EpochMetrics(2, 2.0, 1.0, 3.0, 1.0, 0.5, 0.25, 7),
    )
    run = Run.open(copied)
    assert len(run.metrics) == 3
    run.save_metrics(rows)
    assert run.metrics == Run.open(copied).metrics == rows


def test_a_checkpoint_survives_to_the_last_bit(tmp_path):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    run = Run.open(tmp_path)
    weights = run.network.initialise(seed=1)
    state = {**weights, "slots/velocity/output.bias": np.arange(10, dtype=np.float32) / 3}
    progress = {"epoch": 3, "loss_sum": 0.1 + 0.2, "metrics": [[1, 0.5]]}
    run.save_checkpoint(Checkpoint(state, weights, progress))
    again = run.checkpoint()
    assert again.progress == progress
    for one, other in ((again.state, state), (again.best, weights)):
        assert one.keys() == other.keys()
        assert all(one[k].tobytes() == v.tobytes() for k, v in other.items())
    run.remove_checkpoint()
    assert run.checkpoint() is None
    run.remove_checkpoint()


def test_a_run_without_metrics_or_predictions_says_so(tmp_path):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    run = Run.open(tmp_path)
    assert run.metrics == ()
    with pytest.raises(RunError, match=r"has no predictions\.csv: this run is interrupted"):
        run.predictions()
    with pytest.raises(RunError, match="this run is interrupted; go on with --resume"):
        run.weights()
    run.remove_checkpoint()
    with pytest.raises(RunError, match="this run is interrupted; train it again"):
        run.weights()


# --- runs in a folder --------------------------------------------------------------------------


def test_runs_are_found_by_name_and_seed(tmp_path):
    data = made_study.dataset(shape=(5, 4), train=20, test=20)
    made_study.write(tmp_path, data=data, chosen=made_study.study(("beta", "alpha"), seeds=2))
    found = [(run.name, run.seed) for run in runs.find(tmp_path)]
    assert found == [("alpha", 0), ("alpha", 1), ("beta", 0), ("beta", 1)]
    assert [run.folder for run in runs.find(tmp_path / "beta-s1")] == [tmp_path / "beta-s1"]
    assert runs.find(tmp_path / f"data-{data.digest[:8]}") == []
    assert runs.study(tmp_path) == made_study.study(("beta", "alpha"), seeds=2)
    assert runs.study(tmp_path / "beta-s1") is None


@pytest.mark.parametrize("reader", [Run.open, runs.find])
def test_no_folder_of_runs_is_one_line(tmp_path, reader):
    with pytest.raises(RunError, match="nowhere is not there"):
        reader(tmp_path / "nowhere")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="file is a file"):
        reader(tmp_path / "file")
    with pytest.raises(RunError, match=r"is no run folder: it has no run\.json; `rowwise runs"):
        Run.open(tmp_path)


def test_a_free_folder_is_empty_or_new(tmp_path):
    runs.check_free(tmp_path / "new", what="a new run")
    runs.check_free(tmp_path, what="a new run")
    for name in (runs.LOCK, ".run.json.12.part"):
        (tmp_path / name).write_text("")
    runs.check_free(tmp_path, what="a new run")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(RunError, match=r"^a study needs a folder of its own, .* holds a\.txt; "):
        runs.check_free(tmp_path, what="a study")
    with pytest.raises(RunError, match=r"^a study writes to a folder, .*a\.txt is a file; "):
        runs.check_free(tmp_path / "a.txt", what="a study")


def take(folder):
    with runs.locked(folder):
        pass


def test_a_lock_is_held_by_one_and_let_go(tmp_path):
    place = tmp_path / "new" / "run"
    with (
        runs.locked(place),
        pytest.raises(RunError, match=r"^one process at a time writes to .*, another one does now"),
    ):
        take(place)
    take(place)
    with pytest.raises(ZeroDivisionError), runs.locked(place):
        raise ZeroDivisionError
    take(place)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(runs.FileLock, "acquire", refuse)
    with pytest.raises(RunError, match=r"^cannot write to .*: Permission denied$"):
        take(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match=r"^cannot make the folder .*: Not a directory$"):
        take(tmp_path / "file" / "below")


# --- damage ------------------------------------------------------------------------------------


def everything(run):
    """Read all that a run folder holds."""
    return (
        run.experiment,
        run.metrics,
        run.environment,
        run.weights(),
        run.predictions(),
        run.checkpoint(),
    )


@pytest.mark.parametrize("name", ["run.json", "experiment.json", "environment.json",
                                  "weights.safetensors", "predictions.csv"])  # fmt: skip
@pytest.mark.parametrize("kept", [0.0, 0.4, 0.9])
def test_a_truncated_file_is_one_line_that_names_it(copied, name, kept):
    path = copied / name
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    before = tree(copied)
    with pytest.raises(RunError) as caught:
        everything(Run.open(copied))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert tree(copied) == before


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("run.json", {"format": 2}, "has format 2, this rowwise reads format 1; use the version"),
        ("experiment.json", {"format": 7}, "has format 7, this rowwise reads format 1"),
        ("environment.json", {"format": 2}, "has format 2, this rowwise reads format 1"),
        ("run.json", {"status": "flying"}, "run.json: status: "),
        ("run.json", {"seeed": 1}, "unknown key 'seeed'; did you mean 'seed'?"),
        ("run.json", {"data": None}, "run.json: data: "),
        ("run.json", {"parameters": "many"}, "run.json: parameters: "),
        ("experiment.json", {"epochs": -1}, "experiment.json: epochs: "),
        ("experiment.json", {"layers": [{"kind": "gru", "units": 3}]}, "the weights must be those"),
    ],
)
def test_a_foreign_value_is_one_line_that_names_it(copied, name, change, message):
    told = json.loads((copied / name).read_text())
    (copied / name).write_text(json.dumps(told | change))
    with pytest.raises(RunError) as caught:
        everything(Run.open(copied))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[1, 2]",
        '"loss"',
        '{"epoch": 1}',
        json.dumps(dict.fromkeys(METRIC_KEYS, "1.0")),
        json.dumps(dict.fromkeys(METRIC_KEYS)),
        json.dumps(dict.fromkeys([*METRIC_KEYS, "more"], 1)),
        json.dumps(dict.fromkeys(METRIC_KEYS, 10**400)),
        json.dumps(dict.fromkeys(METRIC_KEYS, True)),
        json.dumps(dict.fromkeys(METRIC_KEYS, -1)),
        json.dumps(dict.fromkeys(METRIC_KEYS, 1) | {"accuracy": 1.5}),
        json.dumps(dict.fromkeys(METRIC_KEYS, 1) | {"val_loss": 1e300}),
        json.dumps(dict.fromkeys(METRIC_KEYS, 1) | {"steps": 2.5}),
        "[" * 100_000,
    ],
)
def test_a_damaged_epoch_is_one_line_that_names_it(copied, line):
    first = (copied / "metrics.jsonl").read_text().splitlines()[0]
    (copied / "metrics.jsonl").write_text(f"{first}\n{line}\n")
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: (an epoch is|it must|it is not)"):
        assert Run.open(copied).metrics


def resaved(path, *, tensors=lambda t: t, told=lambda m: m):
    """Write a safetensors file again with other tensors or metadata."""
    with safetensors.safe_open(path, framework="numpy") as file:
        old = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        path.write_bytes(safetensors.numpy.save(tensors(old), told(file.metadata())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tensors": lambda t: t | {"x": np.zeros(1)}}, "x is foreign"),
        ({"tensors": lambda t: {k: v for k, v in t.items() if "kernel" not in k}}, "is missing"),
        ({"tensors": lambda t: {k: v[:1] for k, v in t.items()}}, "must have the shape"),
        ({"tensors": lambda t: {k: v * np.nan for k, v in t.items()}}, "must be finite"),
        ({"told": lambda m: m | {"format": "rowwise-weights-2"}}, "must be of the format rowwise-"),
        ({"told": lambda m: {}}, "must be of the format rowwise-weights-1, got None"),
    ],
)
def test_foreign_weights_are_one_line(copied, change, message):
    resaved(copied / "weights.safetensors", **change)
    with pytest.raises(RunError) as caught:
        Run.open(copied).weights()
    assert message in str(caught.value)
    assert str(copied / "weights.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"told": lambda m: m | {"format": "rowwise-weights-1"}}, "must be of the format rowwise-"),
        ({"told": lambda m: m | {"progress": "{"}}, "is damaged: its progress: it is not valid"),
        ({"told": lambda m: {"format": m["format"]}}, "is damaged: it has no progress"),
        ({"told": lambda m: m | {"progress": '{"epocs": 1}'}}, "checkpoint of small is damaged"),
        ({"told": lambda m: m | {"progress": "[]"}}, "is damaged"),
        ({"told": lambda m: m | {"progress": '{"epoch": 2}'}}, "checkpoint of small is damaged"),
        ({"told": lambda m: m | {"progress": '{"step": 999}'}}, "beyond the training's end"),
        ({"told": lambda m: m | {"progress": '{"waited": -1}'}}, "checkpoint of small is damaged"),
        ({"told": lambda m: m | {"progress": "[" * 999}}, "its progress: it is not valid JSON"),
        (
            {"tensors": lambda t: {k: v for k, v in t.items() if "velocity" not in k}},
            "], got none; choose another --out",
        ),
        ({"tensors": lambda t: t | {"x": np.zeros(1)}}, "x is foreign"),
        ({"tensors": lambda t: {k: v for k, v in t.items() if "kernel" not in k}}, "is missing"),
        ({"tensors": lambda t: {k: v[:1] for k, v in t.items()}}, "must have the shape"),
    ],
)
def test_a_foreign_checkpoint_is_one_line(tmp_path, change, message):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    resaved(tmp_path / "checkpoint.safetensors", **change)
    with pytest.raises(RunError) as caught:
        train(experiment(), out=tmp_path, resume=True)
    assert message in str(caught.value)


def test_a_truncated_checkpoint_is_one_line(tmp_path):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors is damaged: "):
        train(experiment(), out=tmp_path, resume=True)


def test_a_damaged_study_is_one_line(tmp_path):
    (tmp_path / "study.json").write_text('{"name": "s", "experiments": []}')
    with pytest.raises(RunError, match=r"study\.json: experiments: "):
        runs.study(tmp_path)
