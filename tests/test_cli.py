"""The command line as people and programs use it: streams and exit codes."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import DIGITS, train
from made_data import empty_machine, save_npz, write_csv, write_idx, write_pictures
from small_training import READS, TRAINS

from rowwise import cli, data, doctor, metrics, runs, terminal

COMMANDS = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
DOCS = Path(__file__).parent.parent / "docs"
EPOCH = re.compile(
    r"Epoch (\d+)/(\d+) - (\d+)/\3 - \d+\.\ds - \d+\.\dms/step - loss: \d+\.\d{4} - "
    r"accuracy: [01]\.\d{4} - val_loss: \d+\.\d{4} - val_accuracy: [01]\.\d{4}"
)
PYTHON = [sys.executable, "-m", "rowwise"]


def parsed(text: str):
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def kept(trained, tmp_path) -> Path:
    """A copy of the trained runs that a test may change."""
    return shutil.copytree(trained / "runs", tmp_path / "runs")


# --- help and version -------------------------------------------------------------------------


def test_no_command_prints_help(rowwise):
    bare, asked = rowwise(), rowwise("--help")
    assert bare == asked
    assert bare.code == 0
    assert bare.err == ""
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z].*\.$", bare.out, re.MULTILINE), "a whole sentence"
    assert "..." not in bare.out.partition("Commands:")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, rowwise):
    answer = rowwise(command, "--help")
    assert answer.code == 0
    assert answer.err == ""
    assert answer.out.startswith(f"Usage: rowwise {command} ")
    listed = answer.out.partition("Options:")[2]
    for line in re.findall(r"^  (--[a-z-]+(?: .*)?)$", listed, re.MULTILINE):
        assert "  " in line, f"{line} has no help"


def test_every_command_is_documented():
    spec = importlib.util.spec_from_file_location("make_cli", DOCS / "make_cli.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert (DOCS / "cli.md").read_text("utf-8") == made.render(), "stale: run `make docs`"


def test_version(rowwise):
    from rowwise import __version__

    assert rowwise("--version") == (0, f"rowwise {__version__}\n", "")
    told = subprocess.run([*PYTHON, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"rowwise {__version__}\n"


@pytest.mark.parametrize("module", ["rowwise", "rowwise.cli", "rowwise.config"])
def test_importing_is_light(module):
    code = f"import sys, {module}; print(*(m.partition('.')[0] for m in sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "matplotlib", "sklearn", "scipy", "jinja2", "tensorboard", "pooch"}
    if module != "rowwise.cli":
        heavy |= {"rich", "typer"}
    if module == "rowwise":
        heavy |= {"numpy", "pydantic"}
    assert not heavy & set(told.stdout.split())


# --- train ------------------------------------------------------------------------------------


def test_train_tells_what_keras_tells(tiny, rowwise):
    answer = rowwise("train", tiny, *DIGITS)
    assert answer.code == 0
    first, *epochs = answer.err.splitlines()
    choice = runs.Run.open("runs/tiny-s0").record.engine
    assert choice.name == TRAINS
    assert first == (
        "tiny, seed 0: 666 parameters, 1,438 training and 359 validation images, batch 64, adam; "
        f"engine {choice.name} ({choice.why}), 1 thread"
    )
    assert [EPOCH.fullmatch(line).groups() for line in epochs] == [
        ("1", "2", "23"),
        ("2", "2", "23"),
    ]
    rows = [parsed(line) for line in Path("runs/tiny-s0/metrics.jsonl").read_text().splitlines()]
    assert f"val_accuracy: {rows[1]['val_accuracy']:.4f}" in epochs[1]
    accuracy = 100 * rows[1]["val_accuracy"]  # the test images are the validation data
    assert answer.out == (
        f"runs/tiny-s0: test accuracy {accuracy:.2f} %, finished after 2 epochs\n"
    )


def test_quiet_leaves_results_and_errors(tiny, rowwise):
    answer = rowwise("train", tiny, *DIGITS, "--quiet", "--set", "epochs=1")
    assert answer.err == ""
    assert answer.out.startswith("runs/tiny-s0: test accuracy ")
    again = rowwise("train", tiny, *DIGITS, "--quiet")
    assert again.code == 1
    assert again.err.startswith("rowwise: runs/tiny-s0 already holds a run (finished); ")


def test_train_as_json_is_an_object_an_event(tiny, rowwise, monkeypatch):
    monkeypatch.setattr(terminal, "EVENT_EVERY_S", 0.0)
    answer = rowwise("train", tiny, *DIGITS, "--json")
    assert (answer.code, answer.err) == (0, "")
    events = [parsed(line) for line in answer.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "ended"
    assert kinds.count("epochended") == 2
    assert {"stepped", "validating"} < set(kinds)
    started, ended = events[0], events[-1]
    assert started["parameters"] == 666
    assert started["engine"]["name"] == TRAINS
    assert started["experiment"]["name"] == "tiny"
    epochs = [event for event in events if event["event"] == "epochended"]
    assert epochs[1]["val_accuracy"] == ended["test_accuracy"]
    steps = [event["step"] for event in events if event["event"] == "stepped"]
    assert steps[-1] == 23


def test_json_progress_is_told_once_a_second(tiny, rowwise):
    kinds = [
        parsed(line)["event"] for line in rowwise("train", tiny, *DIGITS, "--json").out.splitlines()
    ]
    assert kinds.count("stepped") + kinds.count("validating") < 4


def test_set_overrides_and_the_name_follows(tiny, rowwise):
    overrides = ["epochs=1", "layers.1.units=4", "name=small", "seed=3"]
    options = [part for override in overrides for part in ("--set", override)]
    answer = rowwise("train", tiny, *DIGITS, *options, "--out", "elsewhere")
    assert answer.code == 0
    assert answer.err.startswith("small, seed 3: 290 parameters")
    kept = parsed(Path("elsewhere/small-s3/experiment.json").read_text())
    assert (kept["epochs"], kept["layers"][1]["units"], kept["seed"]) == (1, 4, 3)


def test_summary_prints_the_table_and_trains_nothing(tiny, rowwise):
    answer = rowwise("train", tiny, "--dataset", "digits", "--summary")
    assert (answer.code, answer.err) == (0, "")
    assert "│ lstm (LSTM)" in answer.out
    assert "Total params: 666 (2.60 KB)" in answer.out
    told = parsed(rowwise("train", tiny, "--dataset", "digits", "--summary", "--json").out)
    assert told["parameters"] == 666
    assert [layer["type"] for layer in told["layers"]] == [
        "InputLayer", "BatchNormalization", "LSTM", "Dense",
    ]  # fmt: skip
    assert not Path("runs").exists()


def test_an_experiment_that_ships_is_known_by_name(rowwise):
    answer = rowwise("train", "lstm-relu", "--dataset", "digits", "--summary")
    assert "Model: lstm-relu" in answer.out


def test_init_from_starts_from_the_weights_of_a_run(kept, tiny, rowwise):
    answer = rowwise(
        "train", tiny, *DIGITS, "--init-from", kept / "tiny-s0", "--set", "epochs=1", "--json"
    )
    assert answer.code == 0
    fresh = parsed((kept / "tiny-s0/metrics.jsonl").read_text().splitlines()[0])
    warm = parsed(Path("runs/tiny-s0/metrics.jsonl").read_text())
    assert warm["loss"] < fresh["loss"]
    told = parsed(Path("runs/tiny-s0/run.json").read_text())
    assert told["initialised_from"] == str(kept / "tiny-s0")


def test_event_files_are_read_by_tensorboard_itself(tiny, rowwise):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert rowwise("train", tiny, *DIGITS, "--tensorboard").code == 0
    rows = [parsed(line) for line in Path("runs/tiny-s0/metrics.jsonl").read_text().splitlines()]
    for part, prefix in (("train", ""), ("validation", "val_")):
        found = reader.EventAccumulator(f"runs/tiny-s0/tensorboard/{part}").Reload()
        for tag in ("loss", "accuracy"):
            events = _scalars(found, f"epoch_{tag}")
            assert [step for step, _ in events] == [1, 2]
            assert [value for _, value in events] == pytest.approx(
                [row[f"{prefix}{tag}"] for row in rows]
            )


def _scalars(found, tag):
    from tensorboard.util.tensor_util import make_ndarray

    if tag in found.Tags()["scalars"]:
        return [(event.step, event.value) for event in found.Scalars(tag)]
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in found.Tensors(tag)]


def test_resume_of_a_finished_run_reads_it(kept, tiny, rowwise):
    before = {path: path.read_bytes() for path in kept.rglob("*") if path.is_file()}
    answer = rowwise("train", tiny, *DIGITS, "--out", kept, "--resume")
    assert answer.code == 0
    assert answer.out.startswith(f"{kept}/tiny-s0: test accuracy ")
    assert {path: path.read_bytes() for path in before} == before


def test_a_diverging_training_is_an_error_that_keeps_the_run(tiny, rowwise):
    answer = rowwise("train", tiny, *DIGITS, "--set", 'optimizer={kind="sgd", learning_rate=100.0}',
                     "--set", "layers.1={kind='simple_rnn', units=8, activation='relu'}",
                     "--set", "epochs=20")  # fmt: skip
    assert answer.code == 1
    assert re.search(r"^rowwise: tiny diverged: .* are kept; .* may help\n", answer.err, re.M)
    assert parsed(Path("runs/tiny-s0/run.json").read_text())["status"] == "diverged"


# --- evaluate ---------------------------------------------------------------------------------

FORMS = {
    "idx": lambda place, arrays: write_idx(place / "idx", arrays),
    "npz": lambda place, arrays: save_npz(place / "some.npz", arrays),
    "csv": lambda place, arrays: write_csv(place / "some.csv", *arrays[2:]),
    "pictures": lambda place, arrays: write_pictures(place / "shown", *arrays[2:], "0123456789"),
}


@pytest.mark.parametrize("form", FORMS)
def test_evaluate_reads_any_labelled_data(form, trained, home, rowwise):
    digits = data.digits()
    arrays = [digits.train_images, digits.train_labels, digits.test_images, digits.test_labels]
    arrays = [array.astype("uint8") for array in arrays]
    place = FORMS[form](home, arrays)
    run = trained / "runs/tiny-s0"
    own = parsed(rowwise("evaluate", run, "--json").out)
    given = rowwise("evaluate", run, "--data", place, "--json")
    assert (given.code, given.err) == (0, "")
    told = parsed(given.out)
    assert told["data"] == str(place)
    assert {k: v for k, v in told.items() if k not in ("data", "loss")} == {
        k: v for k, v in own.items() if k not in ("data", "loss")
    }
    assert told["loss"] == pytest.approx(own["loss"])


def test_evaluate_says_the_same_as_the_training(trained, rowwise):
    run = trained / "runs/tiny-s0"
    record = parsed((run / "run.json").read_text())
    told = parsed(rowwise("evaluate", run, "--json").out)
    assert told["accuracy"] == record["test_accuracy"]
    assert told["loss"] == pytest.approx(record["test_loss"], abs=1e-5)
    assert told["engine"] == READS
    assert told["low"] < told["accuracy"] < told["high"]
    said = rowwise("evaluate", run, "--engine", "plain")
    assert re.fullmatch(
        rf"tiny-s0 on digits, test images: {told['right']} of 359 right, accuracy \d\d\.\d\d % "
        r"\(95 % interval \d\d\.\d\d to \d\d\.\d\d\), loss \d\.\d{4}, engine plain\n",
        said.out,
    )


def test_evaluate_counts_label_smoothing_as_the_training_did(tiny, rowwise):
    train(tiny, *DIGITS, "--set", "label_smoothing=0.5", "--set", "epochs=1", "--out", "runs")
    record = parsed(Path("runs/tiny-s0/run.json").read_text())
    told = parsed(rowwise("evaluate", "runs/tiny-s0", "--json").out)
    assert told["loss"] == pytest.approx(record["test_loss"], abs=1e-5)
    said = runs.Run.open("runs/tiny-s0").predictions()
    assert told["loss"] > metrics.cross_entropy(said.labels, said.probabilities) + 0.01


def test_evaluate_without_data_never_takes_other_data(kept, rowwise):
    """A run on data of one's own is not judged by MNIST, nor by what is left of its name."""
    shutil.rmtree(next(kept.glob("data-*")))
    assert rowwise("evaluate", kept / "tiny-s0").code == 0, "digits are found by name"
    record = kept / "tiny-s0/run.json"
    told = parsed(record.read_text())
    told["data"] |= {"name": "scribbles", "source": "~/scribbles"}
    record.write_text(json.dumps(told))
    answer = rowwise("evaluate", kept / "tiny-s0")
    assert answer.code == 1
    assert answer.err == (
        f"rowwise: {kept}/tiny-s0 learned from scribbles (~/scribbles), whose test images are not "
        "kept beside it; name labelled pictures with --data\n"
    )
    told["data"] |= {"name": "digits", "digest": "0" * 64}
    record.write_text(json.dumps(told))
    answer = rowwise("evaluate", kept / "tiny-s0")
    assert answer.code == 1
    assert "learned from digits (00000000), digits here (" in answer.err


# --- runs, report, data, doctor ---------------------------------------------------------------


def test_runs_are_listed(trained, rowwise):
    answer = rowwise("runs", trained / "runs")
    assert (answer.code, answer.err) == (0, "")
    title, *lines = answer.out.splitlines()
    assert title.split()[:3] == ["run", "status", "data"]
    assert [line.split()[:4] for line in lines] == [
        ["tiny-s0", "finished", "digits", "2"],
        ["tiny-s1", "finished", "digits", "2"],
    ]
    rows = parsed(rowwise("runs", trained / "runs/tiny-s1", trained / "runs/tiny-s0", "--json").out)
    assert [row["seed"] for row in rows] == [1, 0]
    assert rows[0].keys() > {"folder", "name", "status", "val_accuracy", "test_accuracy", "train_s"}


def test_runs_of_an_empty_folder(home, rowwise):
    assert rowwise("runs", home) == (0, "no runs\n", "")
    assert rowwise("runs", home, "--json") == (0, "[]\n", "")


def test_two_runs_are_compared(trained, rowwise):
    answer = rowwise("runs", trained / "runs", "--compare")
    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^seed +0 +1 *$", answer.out, re.MULTILINE)
    assert re.search(r"On the same 359 test images a alone is right on \d+, b alone", answer.out)
    told = parsed(rowwise("runs", trained / "runs", "--compare", "--json").out)
    assert told["settings"] == {"seed": [0, 1]}
    m = told["mcnemar"]
    assert m["n"] == 359
    assert m["difference"] == pytest.approx(told["a"]["test_accuracy"] - told["b"]["test_accuracy"])


def test_data_is_described(home, rowwise):
    answer = rowwise("data", "--dataset", "digits")
    assert (answer.code, answer.err) == (0, "")
    assert "10 classes, 8 x 8 pixels, 1,438 training and 359 test images" in answer.out
    assert "mean image of 9:" in answer.out
    told = parsed(rowwise("data", "--dataset", "digits", "--json").out)
    assert (told["rows"], told["columns"]) == (8, 8)
    assert sum(told["train"]["class_counts"]) == told["train"]["count"] == 1438


def test_data_draws_pictures(home, rowwise):
    pytest.importorskip("matplotlib")
    answer = rowwise("data", "--dataset", "digits", "--out", "drawn", "--json")
    assert answer.code == 0
    parsed(answer.out)
    drawn = sorted(Path("drawn").iterdir())
    assert {path.suffix for path in drawn} == {".png", ".svg"}
    assert sorted(map(Path, answer.err.splitlines())) == drawn


def test_doctor(home, rowwise, monkeypatch):
    answer = rowwise("doctor")
    assert (answer.code, answer.err) == (0, "")
    assert re.search(r"^ok +engine plain: reads$", answer.out, re.MULTILINE)
    assert re.search(r"^missing +data mnist: MNIST could not be had: ", answer.out, re.MULTILINE)
    found = parsed(rowwise("doctor", "--json").out)
    assert {check["kind"] for check in found} == {
        *("machine", "engine", "path", "model", "data", "format", "extra")
    }
    assert all(check.keys() == {"kind", "name", "present", "told"} for check in found)
    absent = doctor._extra("study", ("no-such-package", "numpy"))
    assert absent.told == "no-such-package not installed: pip install 'rowwise[study]'"
    assert not absent.present


# --- study ------------------------------------------------------------------------------------

STUDY = """
name = "pair"
dataset = "digits"
seeds = 1
[[experiments]]
name = "narrow"
epochs = 1
layers = [{ kind = "simple_rnn", units = 4 }]
[[experiments]]
name = "wide"
epochs = 1
layers = [{ kind = "simple_rnn", units = 8 }]
"""


@pytest.fixture
def pair(home) -> Path:
    (home / "work/pair.toml").write_text(STUDY)
    return Path("pair.toml")


def test_study_ends_in_a_line_a_network(pair, rowwise):
    options = ["--threads", "1", "--no-report"]
    answer = rowwise("study", pair, *options, "--only", "wide", "--only", "narrow", "--seeds", "2")
    assert answer.code == 0
    places = re.findall(r"^\[(\d)/4\] study/(.*)$", answer.err, re.MULTILINE)
    assert places == [("1", "narrow-s0"), ("2", "wide-s0"), ("3", "narrow-s1"), ("4", "wide-s1")]
    title, *lines = answer.out.splitlines()
    assert title.split()[:2] == ["network", "seeds"]
    assert [line.split()[:2] for line in lines] == [["narrow", "2"], ["wide", "2"]]
    weights = {p: p.read_bytes() for p in Path("study").glob("*/weights.safetensors")}
    again = rowwise("study", pair, *options, "--seeds", "2", "--json")
    assert {p: p.read_bytes() for p in weights} == weights, "runs that ended are not made again"
    *_, told = map(parsed, again.out.splitlines())
    assert [network["name"] for network in told["networks"]] == ["narrow", "wide"]
    assert all(network["seeds"] == 2 for network in told["networks"])


def test_study_without_mnist_says_first_that_it_runs_on_digits(tmp_path, monkeypatch, rowwise):
    empty_machine(tmp_path / "bare", monkeypatch)
    Path("one.toml").write_text(STUDY.replace('dataset = "digits"', ""))
    options = ["--threads", "1", "--no-report", "--only", "narrow"]
    refused = rowwise("study", "one.toml", *options, "--dataset", "mnist")
    assert refused.code == 1
    assert re.search(r"^rowwise: MNIST could not be had: .*; put its four IDX", refused.err, re.M)
    assert not Path("study").exists()
    answer = rowwise("study", "one.toml", *options)
    assert answer.code == 0
    note = next(line for line in answer.err.splitlines() if line.startswith("NOTE: "))
    assert note.startswith("NOTE: this study runs on digits: MNIST could not be had: ")
    assert note.endswith("; these are the 1,797 digits of scikit-learn, 8×8 pixels")
    assert answer.err.index(note) < answer.err.index("[1/1]")


def test_study_ends_in_a_report(pair, rowwise):
    pytest.importorskip("matplotlib")
    answer = rowwise("study", pair, "--threads", "1", "--only", "narrow", "--quiet")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[-1] == "report: study/report.html"
    assert "narrow" in Path("study/report.html").read_text()
    assert rowwise("report", "study", "--out", "other.html").out == "other.html\n"
    assert Path("other.html").read_text() == Path("study/report.html").read_text()
