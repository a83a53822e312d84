# ruff: noqa: E501  (the lines that users see stand here whole)
"""Bad run folders, and places where results cannot go: one line, and nothing changed."""

from __future__ import annotations

import json
import os
import shlex
import shutil

import numpy as np
import pytest
from filelock import FileLock
from made_faults import (
    NAN,
    TRAIN,
    Case,
    assert_refused,
    assert_refused_by_a_process,
    both,
    cut,
    everything,
    interrupted,
    other_data,
    other_study,
    record,
    run_file,
    set_item,
    study,
    text,
    weights,
)
from small_training import TRAINS

from rowwise.model import shipped

REST = '"accuracy": 0.5, "val_loss": 1, "val_accuracy": 1, "train_s": 1, "val_s": 1, "steps": 1'


def replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def pipe(name):
    """A FIFO in the place of a file of runs/tiny-s0, which nobody writes to."""

    def put(work):
        (work / "runs/tiny-s0" / name).unlink()
        os.mkfifo(work / "runs/tiny-s0" / name)

    return put


CASES = [
    # where results go
    Case(
        "a run that is there already",
        f"{TRAIN}",
        "runs/tiny-s0 already holds a run (finished); go on with --resume, or choose another --out",
    ),
    Case(
        "a file in the way of a run",
        f"{TRAIN} --set seed=2",
        "a new run needs a folder of its own, runs/tiny-s2 holds notes.txt; choose another --out",
        both(lambda work: (work / "runs/tiny-s2").mkdir(), text("runs/tiny-s2/notes.txt", "mine")),
    ),
    Case(
        "a file where the run's folder should be",
        f"{TRAIN} --out tiny.toml",
        "cannot make the folder tiny.toml/tiny-s0: Not a directory",
    ),
    Case(
        "a folder that cannot be made",
        f"{TRAIN} --out /proc/nowhere",
        "cannot make the folder /proc/nowhere/tiny-s0: No such file or directory",
    ),
    Case(
        "a file in the way of a study",
        "study bad.json --out runs",
        "a study needs a folder of its own, runs holds data-dd5cc279; choose another --out",
        study(),
    ),
    Case(
        "a file where the study's folder should be",
        "study bad.json --out tiny.toml",
        "a study writes to a folder, tiny.toml is a file; choose another --out",
        study(),
    ),
    Case(
        "another study",
        "study bad.json --out old",
        "old holds the study old with other experiments; choose another --out",
        both(
            study(),
            lambda work: (work / "old").mkdir(),
            text(
                "old/study.json",
                '{"name": "old", "experiments": [{"name": "one", "layers": ["flatten"]}]}',
            ),
        ),
    ),
    Case(
        "a study that may not go on",
        "study bad.json --out old --no-resume",
        "old already holds a study; leave out --no-resume, or choose another --out",
        both(
            study(),
            lambda work: (work / "old").mkdir(),
            lambda work: shutil.copy(work / "bad.json", work / "old/study.json"),
        ),
    ),
    Case(
        "a study whose file is damaged",
        "study bad.json --out old",
        "old/study.json is damaged: it is not valid JSON (…)",
        both(study(), lambda work: (work / "old").mkdir(), text("old/study.json", "{")),
    ),
    Case(
        "a study's run on other data",
        "study bad.json --out old",
        "a run is resumed on the data that it began with, old/one-s0 began on digits (00000000), got digits (dd5cc279); choose another --out",
        other_study,
    ),
    # going on
    Case(
        "other settings",
        f"{TRAIN} --resume --set epochs=3",
        "a run is resumed with the configuration that it began with, runs/tiny-s0 began with another one (see experiment.json there); choose another --out",
    ),
    Case(
        "other data",
        f"{TRAIN} --resume",
        "a run is resumed on the data that it began with, runs/tiny-s0 began on digits (00000000), got digits (dd5cc279); choose another --out",
        other_data,
    ),
    Case(
        "another number of threads",
        f"{TRAIN.replace('threads 1', 'threads 2')} --resume",
        "a run is resumed with the engine, precision and threads that it began with, runs/tiny-s0 began with threads 1, got 2; leave it out",
        interrupted(),
    ),
    Case(
        "another engine",
        f"{TRAIN} --resume --engine plain",
        f"a run is resumed with the engine, precision and threads that it began with, runs/tiny-s0 began with engine {TRAINS}, got plain; leave it out",
        interrupted(),
    ),
    Case(
        "other weights to start from",
        f"{TRAIN} --resume --init-from runs/tiny-s1",
        "a run is resumed from the weights that it began with, runs/tiny-s0 began from fresh ones, got runs/tiny-s1; leave --init-from out",
        interrupted(),
    ),
    Case(
        "weights of another network to start from",
        f"{TRAIN} --set seed=2 --set layers.1.units=4 --init-from runs/tiny-s1",
        "--init-from runs/tiny-s1: lstm.kernel must have the shape [8, 16], got [8, 32]",
    ),
    Case(
        "a run to start from that is none",
        f"{TRAIN} --set seed=2 --init-from nowhere",
        f"a training starts from a model that ships ({', '.join(shipped())}), a model's file or a run's folder, nowhere is not there",
    ),
    Case(
        "a damaged checkpoint",
        f"{TRAIN} --resume",
        "runs/tiny-s0/checkpoint.safetensors is damaged: …",
        interrupted(run_file("checkpoint.safetensors", b"\0" * 100)),
    ),
    Case(
        "a checkpoint without its progress",
        f"{TRAIN} --resume",
        "runs/tiny-s0/checkpoint.safetensors is damaged: it has no progress",
        interrupted(weights(lambda t: None, name="checkpoint", kind="rowwise-checkpoint-1")),
    ),
    Case(
        "a checkpoint with another progress",
        f"{TRAIN} --resume",
        "the checkpoint of tiny is damaged: its progress is not one that rowwise keeps (…)",
        interrupted(
            weights(
                lambda t: None,
                name="checkpoint",
                kind="rowwise-checkpoint-1",
                progress='{"epoch": "x"}',
            )
        ),
    ),
    Case(
        "a checkpoint with a progress from elsewhere",
        f"{TRAIN} --resume",
        "the checkpoint of tiny is damaged: its progress is not one that rowwise keeps (…)",
        interrupted(
            weights(
                lambda t: None,
                name="checkpoint",
                kind="rowwise-checkpoint-1",
                progress='{"epok": 1}',
            )
        ),
    ),
    Case(
        "a checkpoint of another network",
        f"{TRAIN} --resume",
        "runs/tiny-s0/checkpoint.safetensors: the weights must be those of tiny (666 parameters): dense.bias is missing",
        interrupted(
            weights(
                lambda t: t.pop("dense.bias"),
                name="checkpoint",
                kind="rowwise-checkpoint-1",
                progress="{}",
            )
        ),
    ),
    Case(
        "weights in the place of the checkpoint",
        f"{TRAIN} --resume",
        "runs/tiny-s0/checkpoint.safetensors must be of the format rowwise-checkpoint-1, got 'rowwise-weights-1'",
        interrupted(
            lambda work: shutil.copy(
                work / "runs/tiny-s0/weights.safetensors",
                work / "runs/tiny-s0/checkpoint.safetensors",
            )
        ),
    ),
    # run folders
    Case("no folder of a run", "evaluate nowhere", "a run is a folder, nowhere is not there"),
    Case("a file for a run", "evaluate tiny.toml", "a run is a folder, tiny.toml is a file"),
    Case(
        "a folder that is no run",
        "evaluate runs",
        "runs is no run folder: it has no run.json; `rowwise runs FOLDER` lists the runs in a folder",
    ),
    Case("no folder of runs", "runs nowhere", "a folder of runs is needed, nowhere is not there"),
    Case(
        "no run to report",
        "report empty",
        "a report needs runs, empty has none; make some: rowwise study --out…",
        lambda work: (work / "empty").mkdir(),
    ),
    Case("nothing to report", "report nowhere", "a folder of runs is needed, nowhere is not there"),
    Case(
        "run.json of a later version",
        "runs runs",
        "runs/tiny-s0/run.json has format 2, this rowwise reads format 1; use the version that wrote it, or a newer one",
        record(format=2),
    ),
    Case(
        "run.json cut off",
        "runs runs",
        "runs/tiny-s0/run.json is damaged: it is not valid JSON (…)",
        cut("runs/tiny-s0/run.json", 100),
    ),
    Case(
        "run.json of other bytes",
        "runs runs",
        "runs/tiny-s0/run.json is damaged: it is not UTF-8 text",
        run_file("run.json", b"\xff\xfe"),
    ),
    Case(
        "run.json with a foreign key",
        "runs runs",
        "runs/tiny-s0/run.json: unknown key 'colour'; known: best_epoch, data, …",
        record(colour="red"),
    ),
    Case(
        "run.json that is a list",
        "runs runs",
        "runs/tiny-s0/run.json is damaged: it must hold an object, got a list",
        run_file("run.json", "[]"),
    ),
    Case(
        "experiment.json cut off",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/experiment.json is damaged: it is not valid JSON (…)",
        cut("runs/tiny-s0/experiment.json", 100),
    ),
    Case(
        "experiment.json missing",
        "evaluate runs/tiny-s0",
        "cannot read runs/tiny-s0/experiment.json: No such file or directory",
        lambda work: (work / "runs/tiny-s0/experiment.json").unlink(),
    ),
    Case(
        "weights missing",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0 has no weights.safetensors: this run is finished; train it again",
        lambda work: (work / "runs/tiny-s0/weights.safetensors").unlink(),
    ),
    Case(
        "weights cut off",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/weights.safetensors is damaged: …",
        cut("runs/tiny-s0/weights.safetensors", 900),
    ),
    Case(
        "weights of another network",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/weights.safetensors: the weights must be those of tiny (666 parameters): dense.bias is missing, extra is foreign",
        weights(lambda t: t.update(extra=t.pop("dense.bias"))),
    ),
    Case(
        "weights of another shape",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/weights.safetensors: dense.bias must have the shape [10], got [9]",
        weights(set_item("dense.bias", np.zeros(9, np.float32))),
    ),
    Case(
        "weights that are no numbers",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/weights.safetensors: lstm.kernel must be finite, got NaN or infinity",
        weights(set_item("lstm.kernel", NAN)),
    ),
    Case(
        "tensors of another program",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/weights.safetensors must be of the format rowwise-weights-1, got 'pt'",
        weights(lambda t: None, kind="pt"),
    ),
    Case(
        "metrics cut off",
        "runs runs",
        "runs/tiny-s0/metrics.jsonl, line …: it is not valid JSON (…)",
        cut("runs/tiny-s0/metrics.jsonl", 200),
    ),
    Case(
        "metrics without numbers",
        "runs runs",
        "runs/tiny-s0/metrics.jsonl, line 1: an epoch is an object with the keys epoch, loss, accuracy, val_loss, val_accuracy, train_s, val_s, steps (…)",
        run_file("metrics.jsonl", '{"epoch": 1}\n'),
    ),
    Case(
        "metrics that are infinite",
        "runs runs",
        "runs/tiny-s0/metrics.jsonl, line 1: it is not valid JSON (loss: a number is finite, got inf)",
        run_file("metrics.jsonl", f'{{"epoch": 1, "loss": 1e999, {REST}}}\n'),
    ),
    Case(
        "metrics that are no numbers",
        "runs runs",
        "runs/tiny-s0/metrics.jsonl, line 1: it is not valid JSON (loss: a number is finite, got nan)",
        run_file("metrics.jsonl", f'{{"epoch": 1, "loss": NaN, {REST}}}\n'),
    ),
    Case(
        "metrics of another kind",
        "runs runs",
        "runs/tiny-s0/metrics.jsonl, line 1: an epoch is an object with the keys epoch, loss, accuracy, val_loss, val_accuracy, train_s, val_s, steps (loss is True)",
        run_file("metrics.jsonl", f'{{"epoch": 1, "loss": true, {REST}}}\n'),
    ),
    Case(
        "a pipe in the place of weights",
        "evaluate runs/tiny-s0",
        "cannot read runs/tiny-s0/weights.safetensors: expected a regular file, found a pipe or a device",
        pipe("weights.safetensors"),
    ),
    Case(
        "a pipe in the place of metrics",
        "runs runs",
        "cannot read runs/tiny-s0/metrics.jsonl: expected a regular file, found a pipe or a device",
        pipe("metrics.jsonl"),
    ),
    Case(
        "a record nested without end",
        "runs runs",
        "runs/tiny-s0/run.json is damaged: it is not valid JSON (it is nested …)",
        record(name=json.loads("[" * 500 + "]" * 500)),
    ),
    Case(
        "a shape without end",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0/run.json is damaged: it is not valid JSON (shape: a number is finite, got inf)",
        lambda work: replace(work / "runs/tiny-s0/run.json", '"shape": [', '"shape": [1e999, '),
    ),
    Case(
        "predictions missing",
        "runs runs --compare",
        "runs/tiny-s0 has no predictions.csv: this run is finished",
        lambda work: (work / "runs/tiny-s0/predictions.csv").unlink(),
    ),
    Case(
        "predictions cut off",
        "runs runs --compare",
        "runs/tiny-s0/predictions.csv is damaged: …",
        cut("runs/tiny-s0/predictions.csv", 5000),
    ),
    Case(
        "predictions of another program",
        "runs runs --compare",
        "runs/tiny-s0/predictions.csv must begin with the line index,label,predicted,p0,p1,p2,p3,p4,p5,p6,p7,p8,p9",
        run_file("predictions.csv", "a,b\n1,2\n"),
    ),
    Case(
        "predictions that are none",
        "runs runs --compare",
        "runs/tiny-s0/predictions.csv is damaged: …",
        run_file("predictions.csv", "index,label,predicted\nx,y,z\n"),
    ),
    Case(
        "runs on two data sets",
        "runs runs --compare",
        "two runs are compared on the same data, runs/tiny-s0 saw digits (00000000), runs/tiny-s1 saw digits (dd5cc279)",
        other_data,
    ),
    Case(
        "the kept pictures damaged",
        "evaluate runs/tiny-s0",
        "runs/data-dd5cc279/pictures.npz is damaged: …",
        lambda work: next(work.glob("runs/data-*/pictures.npz")).write_bytes(b"PK"),
    ),
    Case(
        "a run that has not ended",
        "evaluate runs/tiny-s0",
        "runs/tiny-s0 has no weights.safetensors: this run is training; train it again",
        both(
            record(status="training"),
            lambda work: (work / "runs/tiny-s0/weights.safetensors").unlink(),
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_run(case, work, rowwise):
    assert_refused(case, work, rowwise)


def test_there_are_enough_cases():
    assert len({case.name for case in CASES}) == len(CASES) >= 45


IN_A_PROCESS = ["predictions of another program", "weights that are no numbers"]


@pytest.mark.parametrize("name", IN_A_PROCESS)
def test_a_bad_run_given_to_a_real_process(name, work):
    assert_refused_by_a_process(next(case for case in CASES if case.name == name), work)


def test_a_folder_that_another_process_writes_to(work, rowwise):
    with FileLock(work / "runs/tiny-s2/.lock"):
        before = everything(work)
        answer = rowwise(*shlex.split(f"{TRAIN} --set seed=2"))
        assert everything(work) == before
    assert answer.code == 1
    assert answer.err == (
        "rowwise: one process at a time writes to runs/tiny-s2, another one does now; wait for it, "
        "or choose another --out\n"
    )
