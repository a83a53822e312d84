"""Processes killed by kill -9 at random moments, until they are through: the result is the same.

`make test` kills three times, `make soak` twenty times a study on the real MNIST.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import conftest
import made_study
import numpy as np
import pytest
import small_training
from made_data import write_idx
from small_training import assert_same_run, assert_whole

from rowwise import album, data, runs
from rowwise import study as studies
from rowwise.config import Study
from rowwise.train import fit

small_training.trainer_or_skip()

NETWORKS = """
name = "killed"
seeds = 2

[[experiments]]
name = "a-lstm"
layers = [{ kind = "batch_norm" }, { kind = "lstm", units = 12 }, { kind = "dropout", rate = 0.3 }]
batch = 32
epochs = 4

[[experiments]]
name = "b-gru"
layers = [{ kind = "gru", units = 8, bidirectional = true }]
optimizer = "rmsprop"
batch = 48
epochs = 4
validation = 0.2
early_stopping = { patience = 2 }
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the networks and with a data set that is quick to load."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "killed.toml").write_text(NETWORKS)
    made = made_study.dataset(shape=(8, 8), train=900, test=200)
    arrays = (made.train_images, made.train_labels, made.test_images, made.test_labels)
    write_idx(folder / "made", [array.astype(np.uint8) for array in arrays], packed=False)
    return folder


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """A `rowwise` process that tells its events as JSON, one a line."""
    command = [sys.executable, "-m", "rowwise", *map(str, arguments), "--threads", "1", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def wait_for(process: subprocess.Popen[str], event: str) -> None:
    """Read a process's events up to this one."""
    assert process.stdout is not None
    for line in process.stdout:
        if f'"event": "{event}"' in line:
            return
    pytest.fail(f"no {event}: {process.communicate()[1]}")


def kill(process: subprocess.Popen[str], *, after_s: float) -> bool:
    """Kill a process some time from now; whether it was still at work."""
    time.sleep(after_s)
    at_work = process.poll() is None
    process.kill()
    process.communicate()
    return at_work


def finish(process: subprocess.Popen[str]) -> str:
    """Let a process come to its end, which must be a good one; what it wrote to stderr."""
    _, told = process.communicate()
    assert process.returncode == 0, told
    return told


def assert_same_study(one: Path, other: Path) -> None:
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert runs.study(one) == runs.study(other)
    for folder in (run.folder for run in runs.find(one)):
        assert_same_run(folder, other / folder.name)


def test_a_study_killed_again_and_again_comes_to_the_same(place, tmp_path):
    draw = random.Random(20)
    made = data.load(path=place / "made")
    began = time.perf_counter()
    studies.run(Study.from_file(place / "killed.toml"), made, out=tmp_path / "whole", threads=1)
    whole_s = time.perf_counter() - began
    command = ("study", place / "killed.toml", "--data", place / "made", "--no-report",
               "--out", tmp_path / "out")  # fmt: skip
    for _ in range(3):
        process = start(*command)
        wait_for(process, "started")
        assert kill(process, after_s=draw.uniform(0, 0.2 * whole_s))
        assert assert_whole(tmp_path / "out") > 0
    finish(start(*command))
    assert assert_whole(tmp_path / "out") == 27  # 4 runs of 6, study.json, 2 of the data
    assert_same_study(tmp_path / "out", tmp_path / "whole")
    assert album.find(tmp_path / "out", made.digest) is not None


def test_a_training_killed_goes_on_while_a_second_process_is_refused(place, tmp_path):
    experiment = Study.from_file(place / "killed.toml").experiments[0]
    (tmp_path / "one.json").write_text(experiment.model_dump_json())
    fit(experiment, data.load(path=place / "made"), out=tmp_path / "whole", threads=1)
    folder = tmp_path / "a-lstm-s0"
    command = ("train", tmp_path / "one.json", "--data", place / "made", "--out", tmp_path)
    process = start(*command)
    wait_for(process, "epochended")
    assert kill(process, after_s=0)
    assert_whole(folder)
    assert runs.Run.open(folder).status == "training"
    process = start(*command, "--resume")
    wait_for(process, "started")
    os.kill(process.pid, signal.SIGSTOP)  # so that the second one finds the first at work
    try:
        second = start(*command, "--resume")
        out, told = second.communicate()
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert out == ""
    assert told.splitlines() == [
        f"rowwise: one process at a time writes to {folder}, another one does now; "
        f"wait for it, or choose another --out"
    ]
    finish(process)
    assert_same_run(folder, tmp_path / "whole")


MNIST_STUDY = """
name = "soak"
dataset = "mnist"
seeds = 2

[[experiments]]
name = "a-lstm"
layers = [{ kind = "batch_norm" }, { kind = "lstm", units = 16 }, { kind = "dropout", rate = 0.2 }]
batch = 256
epochs = 1

[[experiments]]
name = "b-rnn"
layers = [{ kind = "simple_rnn", units = 16 }]
optimizer = "rmsprop"
batch = 256
epochs = 2
validation = 0.1
"""


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not conftest.MNIST, reason="needs the real MNIST: ROWWISE_DATA names no copy")
def test_twenty_studies_killed_at_a_random_moment_come_twenty_times_to_the_same(tmp_path):
    draw = random.Random(2020)
    (tmp_path / "soak.toml").write_text(MNIST_STUDY)

    def command(out: Path) -> tuple[str | Path, ...]:
        return ("study", tmp_path / "soak.toml", "--out", out, "--data", conftest.MNIST,
                "--no-report")  # fmt: skip

    began = time.perf_counter()
    finish(start(*command(tmp_path / "whole")))
    whole_s = time.perf_counter() - began
    out = tmp_path / "out"
    for number in range(20):
        while not kill(start(*command(out)), after_s=draw.uniform(0, whole_s)):
            shutil.rmtree(out)  # it was through before: not a kill
        if out.exists():
            assert_whole(out)
        finish(start(*command(out)))
        assert_same_study(out, tmp_path / "whole")
        shutil.rmtree(out)
        print(f"killed and come to the same: {number + 1} of 20, in a study of {whole_s:.0f} s")
