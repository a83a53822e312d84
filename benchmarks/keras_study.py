"""The classic study as a plain Keras user would write it: the accuracies that Rowwise must meet.

What it measures. Each of the four networks of the classic study, once a seed, 5 epochs, in Keras
on its TensorFlow backend with nothing changed from its defaults: loss, accuracy, val_loss and
val_accuracy of every epoch, and the seconds that the epoch took (training and validation
together, as Keras' own progress line counts them). The validation data are the 10,000 test
images, as in the study. All seeds of one network differ in initial weights and in the order of
the batches.

Hardware of results/keras_study.json: 2 cores of an AMD EPYC (x86-64, AVX2), no GPU.
Versions: Python 3.11, Keras 3.15.0, TensorFlow 2.21.0 (CPU), numpy 2.4.6; the file names them.
n: 3 seeds (0, 1, 2) a network, no warm-up. Its accuracies are the result. Its seconds are not:
the machine was shared with other work while it ran; training.py measures speed.

Independent of Rowwise on purpose: it reads the IDX files itself and imports nothing of ours.

    pip install "tensorflow-cpu==2.21.*" "keras==3.15.*"
    python benchmarks/keras_study.py --data FOLDER --out benchmarks/results/keras_study.json

The file is rewritten after each run; started again, the script skips the runs that it holds.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

PROCESS_START = time.perf_counter()
FORMAT = 1
IDX_UINT8 = 0x08


class Recipe(NamedTuple):
    """One row of the study's table."""

    cell: str
    units: int
    activation: str
    head: tuple[tuple[int, str], ...]
    optimizer: str
    batch_size: int


RECIPES = {
    "rnn-relu": Recipe("SimpleRNN", 128, "relu", ((64, "relu"), (10, "softmax")), "adam", 64),
    "rnn-tanh": Recipe("SimpleRNN", 128, "tanh", ((64, "tanh"), (10, "softmax")), "rmsprop", 64),
    "lstm-tanh": Recipe("LSTM", 128, "tanh", ((64, "tanh"), (10, "softmax")), "adam", 128),
    "lstm-relu": Recipe("LSTM", 256, "relu", ((10, "softmax"),), "adam", 128),
}


class Mnist(NamedTuple):
    """Pixels float32 [N, 28, 28] in [0, 1], labels uint8 [N], and the SHA-256 of each file."""

    x_train: npt.NDArray[np.float32]
    y_train: npt.NDArray[np.uint8]
    x_test: npt.NDArray[np.float32]
    y_test: npt.NDArray[np.uint8]
    sha256: dict[str, str]


def read_bytes(folder: Path, name: str) -> bytes:
    """Return the decompressed bytes of the IDX file `name`, stored plain or as `name`.gz."""
    if (folder / name).is_file():
        return (folder / name).read_bytes()
    if (folder / f"{name}.gz").is_file():
        return gzip.decompress((folder / f"{name}.gz").read_bytes())
    raise SystemExit(f"MNIST needs {name} or {name}.gz; {folder} has neither; pass --data FOLDER")


def parse_idx(content: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes: 0, 0, type, axes, sizes, then data."""
    if len(content) < 4 or content[:3] != bytes((0, 0, IDX_UINT8)):
        raise SystemExit(f"{name} must be an IDX file of unsigned bytes; it starts otherwise")
    axes = content[3]
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", axes, offset=4))
    body = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if body.size != int(np.prod(shape)):
        raise SystemExit(f"{name} says shape {shape} but holds {body.size} bytes; get it again")
    return body.reshape(shape)


def read_mnist(folder: Path) -> Mnist:
    """Read the four files and divide the pixels by 255 in float32."""
    arrays = {}
    sha256 = {}
    for part in ("train", "t10k"):
        for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
            content = read_bytes(folder, name)
            sha256[name] = hashlib.sha256(content).hexdigest()
            arrays[name] = parse_idx(content, name)
    return Mnist(
        x_train=arrays["train-images-idx3-ubyte"].astype(np.float32) / np.float32(255),
        y_train=arrays["train-labels-idx1-ubyte"],
        x_test=arrays["t10k-images-idx3-ubyte"].astype(np.float32) / np.float32(255),
        y_test=arrays["t10k-labels-idx1-ubyte"],
        sha256=sha256,
    )


def build(recipe: Recipe) -> Any:
    """Return the compiled Keras model of `recipe`."""
    import keras

    layers = keras.layers
    recurrent = getattr(layers, recipe.cell)(recipe.units, activation=recipe.activation)
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            layers.BatchNormalization(),
            recurrent,
            *(layers.Dense(units, activation=activation) for units, activation in recipe.head),
        ]
    )
    model.compile(
        optimizer=recipe.optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def describe(model: Any) -> dict[str, Any]:
    """Return the parameter counts and what `model.summary()` prints before training."""
    lines: list[str] = []
    # 76 is what Keras takes by itself on a terminal of 80 columns.
    model.summary(print_fn=lines.append, line_length=76)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    total = int(model.count_params())
    return {
        "count_params": total,
        "trainable": trainable,
        "non_trainable": total - trainable,
        "summary": "\n".join(lines),
    }


def train(name: str, seed: int, epochs: int, mnist: Mnist) -> tuple[dict[str, Any], dict[str, Any]]:
    """Train one network from one seed; return the model's description and the run's record."""
    import keras

    keras.backend.clear_session()  # so that a run does not depend on the runs before it
    keras.utils.set_random_seed(seed)
    model = build(RECIPES[name])
    description = describe(model)
    marks: list[float] = []
    clock = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: marks.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: marks.append(time.perf_counter()),
    )
    history = model.fit(
        mnist.x_train,
        mnist.y_train,
        batch_size=RECIPES[name].batch_size,
        epochs=epochs,
        validation_data=(mnist.x_test, mnist.y_test),
        callbacks=[clock],
        verbose=2,
    ).history
    keys = ("loss", "accuracy", "val_loss", "val_accuracy")
    record: dict[str, Any] = {"name": name, "seed": seed}
    record.update({key: [round(float(value), 7) for value in history[key]] for key in keys})
    record["seconds"] = [
        round(end - start, 3) for start, end in zip(marks[::2], marks[1::2], strict=True)
    ]
    return description, record


def processor() -> str:
    """Return the processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def setting(epochs: int, mnist: Mnist) -> dict[str, Any]:
    """Return what must not differ between the runs of one results file."""
    return {
        "format": FORMAT,
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            "keras": version("keras"),
            "tensorflow": version("tensorflow-cpu"),
            "numpy": version("numpy"),
        },
        "data_sha256": mnist.sha256,
        "epochs": epochs,
        "recipes": {name: recipe._asdict() for name, recipe in RECIPES.items()},
    }


def open_results(path: Path, here: dict[str, Any]) -> dict[str, Any]:
    """Return the results at `path` to go on with, or new ones.

    Raises:
        SystemExit: the file's runs were made in another setting (versions, data, epochs).
    """
    if not path.exists():
        return here | {"models": {}, "runs": [], "process_s": []}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # Through JSON, where tuples are lists, so that equal settings compare equal.
    for key, value in json.loads(json.dumps(here)).items():
        if found.get(key) != value:
            raise SystemExit(f"{path} has another {key} than this process; choose another --out")
    return found


def write_results(path: Path, results: dict[str, Any]) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    content = json.dumps(results, indent=1, ensure_ascii=False)
    beside.write_text(content + "\n", encoding="utf-8")
    os.replace(beside, path)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="The classic study in Keras on TensorFlow.")
    parser.add_argument("--seeds", type=int, default=3, help="run seeds 0 to N-1 (default 3)")
    parser.add_argument("--only", action="append", choices=RECIPES, help="this network; repeatable")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file of results")
    parser.add_argument(
        "--data", type=Path, help="folder of the IDX files, plain or gzip (default $ROWWISE_DATA)"
    )
    arguments = parser.parse_args()
    if arguments.data is None:
        if "ROWWISE_DATA" not in os.environ:
            parser.error("the data folder is needed: pass --data or set ROWWISE_DATA")
        arguments.data = Path(os.environ["ROWWISE_DATA"])
    if arguments.seeds < 1 or arguments.epochs < 1:
        parser.error("--seeds and --epochs must be at least 1")
    return arguments


def main() -> None:
    """Run what is missing from the results file: seed 0 of every network, then seed 1, …"""
    arguments = parse_arguments()
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    mnist = read_mnist(arguments.data)
    results = open_results(arguments.out, setting(arguments.epochs, mnist))
    finished = {(run["name"], run["seed"]) for run in results["runs"]}
    earlier_s = list(results["process_s"])
    for seed in range(arguments.seeds):
        for name in arguments.only or RECIPES:
            if (name, seed) in finished:
                continue
            print(f"{name}, seed {seed}", file=sys.stderr, flush=True)
            results["models"][name], record = train(name, seed, arguments.epochs, mnist)
            results["runs"].append(record)
            # One entry a process, from its start (imports, reading the data) to its last run.
            results["process_s"] = [*earlier_s, round(time.perf_counter() - PROCESS_START, 3)]
            write_results(arguments.out, results)
            print(f"  val_accuracy {record['val_accuracy'][-1]:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
