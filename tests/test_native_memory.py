"""The native engine's memory: near enough what it takes, and refused before the system kills."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from rowwise import core
from rowwise.config import Experiment, Pixels, Recurrent
from rowwise.engines import native, native_memory
from rowwise.errors import EngineError
from rowwise.network import Network

if core.why_not() is not None:
    pytest.skip(f"needs the native engine: {core.why_not()}", allow_module_level=True)

GIB = 2**30
EVERYTHING: list[dict[str, Any]] = [
    {"kind": "batch_norm"},
    {"kind": "gru", "units": 40, "return_sequences": True},
    {"kind": "batch_norm"},
    {"kind": "dropout", "rate": 0.5},
    {"kind": "lstm", "units": 30, "return_sequences": True, "bidirectional": True},
    {"kind": "dense", "units": 60, "activation": "tanh"},
    {"kind": "simple_rnn", "units": 50, "return_sequences": True},
    {"kind": "pool"},
]


def network(**settings: Any) -> Network:
    how = {"name": "large", "layers": [{"kind": "lstm", "units": 128}], **settings}
    return Network(Experiment.model_validate(how), (28, 28), 10)


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((count, 28, 28), np.uint8), np.zeros(count, np.int64)


LONG = network(reading={"kind": "pixels"})
WEIGHTS = LONG.initialise(seed=0)


# --- how much ---------------------------------------------------------------------------------

MEASURED = """
import json, sys
import numpy as np
from rowwise.config import Experiment
from rowwise.engines import native, native_memory
from rowwise.network import Network
layers, batch, threads, training = json.loads(sys.argv[1])
network = Network(Experiment(name="measured", layers=layers), (28, 28), 10)
images = np.random.default_rng(0).random((batch * (1 if training else threads), 28, 28), np.float32)
labels, weights = np.zeros(len(images), np.int64), network.initialise(seed=0)

def held():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if training:
    trainer = native.Trainer(network, weights, images, labels, seed=0, threads=threads)
    work = lambda: trainer.run(np.arange(batch), batch=batch, first_step=0, rates=np.ones(1))
else:
    reader = native.Reader(network, weights, threads=threads)
    work = lambda: reader.predict(images, batch=batch)
before = held()
work()
told = native_memory.needed(network, batch, threads=threads, training=training)
print(json.dumps([held() - before, told]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/statm")
@pytest.mark.parametrize(
    ("layers", "batch", "training"),
    [
        (EVERYTHING, 300, True),
        ([{"kind": "lstm", "units": 100}], 700, True),
        (EVERYTHING, 500, False),
    ],
    ids=["everything", "one layer", "reading"],
)
def test_what_it_says_is_about_what_it_takes(
    layers: list[dict[str, Any]], batch: int, training: bool
) -> None:
    told = subprocess.run(
        [sys.executable, "-c", MEASURED, json.dumps([layers, batch, 2, training])],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    taken, said = json.loads(told.stdout)
    assert taken > 30 * 2**20, "too little to tell"
    assert 0.8 * taken < said < 1.6 * taken


def test_more_of_anything_takes_more() -> None:
    def needed(batch: int = 128, threads: int = 2, training: bool = True, **how: Any) -> int:
        return native_memory.needed(network(**how), batch, threads=threads, training=training)

    base = needed()
    assert 1.9 * base < needed(batch=256) + base < 3.1 * base
    assert needed(threads=8) > base
    assert needed(training=False) < base
    assert needed(reading={"kind": "pixels"}) > 10 * base
    layer = {"kind": "lstm", "units": 128, "return_sequences": True}
    assert needed(layers=[{**layer, "bidirectional": True}, {"kind": "pool"}]) > 1.8 * base
    assert needed(training=False, threads=4) > 1.5 * needed(training=False)


# --- what is free -----------------------------------------------------------------------------


def test_what_is_free_is_no_more_than_there_is() -> None:
    free = native_memory.free()
    assert free is not None
    assert 0 < free <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Files:
    """Stands for `Path`: what the system's files say."""

    def __init__(self, said: dict[str, str]) -> None:
        self.said = said

    def __call__(self, path: str) -> Files:
        return Files({"": self.said.get(path, "")})

    def exists(self) -> bool:
        return bool(self.said[""])

    def read_text(self, encoding: str) -> str:
        return self.said[""]


MEMINFO = "MemTotal:  16000 kB\nMemFree:  10 kB\nMemAvailable:    5000 kB\nHugePages_Total:  0\n"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"/proc/meminfo": MEMINFO}, 5000 * 1024),
        ({"/proc/meminfo": MEMINFO, "/sys/fs/cgroup/memory.max": "max\n"}, 5000 * 1024),
        ({"/proc/meminfo": MEMINFO, "/sys/fs/cgroup/memory.max": "1048576\n"}, 2**20),
        ({"/proc/meminfo": MEMINFO, "/sys/fs/cgroup/memory.max": "9048576000\n"}, 5000 * 1024),
    ],
)
def test_the_least_of_what_is_told_is_free(
    files: dict[str, str], free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_memory, "Path", Files(files))
    assert native_memory.free() == free


def test_where_nobody_tells_what_is_free_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native_memory, "Path", Files({}))
    monkeypatch.setattr(os, "sysconf_names", {})
    assert native_memory.free() is None
    assert native_memory.Room(LONG, 2, training=True).grant(65536) == 65536


# --- what is refused --------------------------------------------------------------------------

TRAINING = (
    r"^training large in batches of 65,536 by 2 threads takes about 1\d\d\.\d GiB of memory, "
    r"4\.0 GiB are free; reduce the batch, the units or the number of threads$"
)


@pytest.fixture
def four_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 4 GiB of free memory."""
    monkeypatch.setattr(native_memory, "free", lambda: 4 * GIB)


@pytest.mark.usefixtures("four_gib")
def test_a_training_that_cannot_fit_is_refused_when_it_begins() -> None:
    large = network(reading={"kind": "pixels"}, batch=65536)
    images, labels = pictures(65536)
    with pytest.raises(EngineError, match=TRAINING):
        native.Trainer(large, WEIGHTS, images, labels, seed=0, threads=2)


@pytest.mark.usefixtures("four_gib")
def test_a_batch_that_cannot_fit_is_refused_when_it_comes() -> None:
    images, labels = pictures(65536)
    own = native.Trainer(LONG, WEIGHTS, images, labels, seed=0, threads=2)
    with pytest.raises(EngineError, match=TRAINING):
        own.run(np.arange(65536), batch=65536, first_step=0, rates=np.ones(1))
    with pytest.raises(EngineError, match=TRAINING):
        own.gradients(np.arange(65536))
    reading = r"^reading large in batches of 65,536 by 2 threads takes about \d\d\.\d GiB"
    with pytest.raises(EngineError, match=reading):
        own.evaluate(images, labels, batch=10**9)
    reader = native.Reader(LONG, WEIGHTS, threads=2)
    with pytest.raises(EngineError, match=reading):
        reader.predict(images, batch=10**9)
    with pytest.raises(EngineError, match=reading):
        reader.states(images, "lstm", batch=10**9)


@pytest.mark.usefixtures("four_gib")
def test_a_large_network_of_few_pictures_is_not_refused() -> None:
    """A batch of 65536 would not fit; the pictures that there are do."""
    large = network(reading={"kind": "pixels"}, batch=65536)
    images, labels = pictures(3)
    images[...] = 200
    own = native.Trainer(large, WEIGHTS, images, labels, seed=0, threads=2)
    losses, _ = own.run(np.arange(3), batch=65536, first_step=0, rates=np.full(1, 0.1))
    assert np.isfinite(losses).all()
    assert all((value != WEIGHTS[name]).any() for name, value in own.weights().items())
    assert np.isfinite(own.evaluate(images, labels, batch=10**9)[0])


def test_what_was_granted_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """By then it is no longer free, for the training itself has taken it."""
    asked = []
    monkeypatch.setattr(native_memory, "free", lambda: asked.append(1) or 4 * GIB // len(asked))
    room = native_memory.Room(LONG, 2, training=True)
    for batch in (1000, 1000, 500, 1000):
        assert room.grant(batch) == batch
    assert len(asked) == 1
    with pytest.raises(EngineError, match=r"2\.0 GiB are free"):
        room.grant(2000)


def test_a_small_network_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def look() -> int:
        raise AssertionError("looked")

    monkeypatch.setattr(native_memory, "free", look)
    native_memory.Room(network(), 2, training=True).grant(128)
    native_memory.Room(network(), 2, training=False).grant(64)


def test_every_kind_of_layer_is_counted() -> None:
    """A new kind would raise: this test is what reminds of it."""
    kinds = [{"kind": k} for k in ("batch_norm", "flatten")] + [{"kind": "dropout", "rate": 0.1}]
    branches = [{"layers": [Recurrent(kind="gru", units=3)], "reading": Pixels()}] * 2
    flat = network(layers=[*kinds, {"kind": "dense", "units": 3}])
    several = network(layers=[], branches=branches)
    for each in (flat, several, network(layers=EVERYTHING)):
        assert native_memory.needed(each, 1, threads=1, training=True) > 0
