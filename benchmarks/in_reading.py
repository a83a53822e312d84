"""One contender of reading.py: KIND:NAME, a model's file, the folder of pictures, threads.

Says a line of JSON when it is ready, then answers a line for each that it is sent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 1000

Read = Callable[[Any], Any]  # pictures uint8 [N, 28, 28] -> digits [N]


def in_batches(read: Read) -> Read:
    """Many pictures, a thousand at a time."""
    return lambda x: np.concatenate([read(x[i : i + BATCH]) for i in range(0, len(x), BATCH)])


def rowwise(model: str, threads: int) -> tuple[Callable[[Any], Any], Read, Callable[[Any], Any]]:
    """One array, many arrays, one photo, by a Recogniser."""
    from rowwise.recognise import Recogniser

    reader = Recogniser.load(model, threads=threads)

    def many(arrays: Any) -> Any:
        return np.array([-1 if r.digit is None else r.digit for r in reader.read_many(arrays)])

    return (lambda x: reader.read(x).digit), many, (lambda x: reader.read(x).digit)


def onnxruntime(model: str, threads: int) -> Read:
    """Our export: bytes in, labels out."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["label"], {"pictures": x})[0]


def with_two_before(digits: Any) -> Any:
    """Each row with the two before it, as `rows` reads: float32 [N, 28, 84], 0 to 1."""
    padded = np.pad(digits, ((0, 0), (2, 0), (0, 0)))
    steps = np.concatenate([padded[:, i : i + digits.shape[1]] for i in range(3)], axis=2)
    return steps.astype(np.float32) / 255


def keras(model: str, threads: int) -> Read:
    """The network of `rows` in Keras: two GRUs over the rows, a dense layer."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras as library

    weights = dict(np.load(model, allow_pickle=False))
    width, gates = weights["gru.kernel"].shape
    units = gates // 3
    layers = [library.layers.GRU(units, return_sequences=True), library.layers.GRU(units)]
    network = library.Sequential(
        [library.Input((28, width)), *layers, library.layers.Dense(10, activation="softmax")]
    )

    def reordered(value: Any) -> Any:  # of r, z, n, as we have them, to z, r, h
        r, z, n = np.split(value, 3, axis=-1)
        return np.concatenate([z, r, n], axis=-1)

    for name, layer in zip(("gru", "gru_1"), layers, strict=True):
        kinds = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
        kernel, recurrent, bias, of_h = (reordered(weights[f"{name}.{kind}"]) for kind in kinds)
        layer.set_weights([kernel, recurrent, np.stack([bias, of_h])])
    network.layers[-1].set_weights([weights["dense.kernel"], weights["dense.bias"]])
    return lambda x: network.predict_on_batch(with_two_before(x)).argmax(1)


def torch(model: str, threads: int) -> Read:
    """The network of `rows` in PyTorch: two torch.nn.GRU over the rows, a linear layer."""
    import torch as library

    library.set_num_threads(threads)
    given = np.load(model, allow_pickle=False)
    weights = {name: library.from_numpy(given[name]) for name in given.files}
    layers = []
    for name in ("gru", "gru_1"):
        width, gates = weights[f"{name}.kernel"].shape
        layer = library.nn.GRU(width, gates // 3, batch_first=True)
        layer.weight_ih_l0.data = weights[f"{name}.kernel"].T.contiguous()
        layer.weight_hh_l0.data = weights[f"{name}.recurrent_kernel"].T.contiguous()
        layer.bias_ih_l0.data = weights[f"{name}.bias"]
        layer.bias_hh_l0.data = weights[f"{name}.recurrent_bias"]
        layers.append(layer)

    def read(x: Any) -> Any:
        with library.inference_mode():
            steps = library.from_numpy(with_two_before(x))
            for layer in layers:
                steps, _ = layer(steps)
            logits = steps[:, -1] @ weights["dense.kernel"] + weights["dense.bias"]
            return logits.argmax(1).numpy()

    return read


def main() -> None:
    """Get ready, then do turn after turn."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    label, model, folder, threads = sys.argv[1:]
    kind = label.partition(":")[0]
    digits = np.load(Path(folder, "digits.npy"), allow_pickle=False)
    photo = np.load(Path(folder, "photo.npy"), allow_pickle=False)
    if kind == "rowwise":
        one, many, of_photo = rowwise(model, int(threads))
    else:
        read: Read = {"onnxruntime": onnxruntime, "keras": keras, "torch": torch}[kind](
            model, int(threads)
        )
        one, many, of_photo = (lambda x: int(read(x[None])[0])), in_batches(read), None
    one(digits[0])
    np.save(Path(folder, f"{label.replace(':', '-')}.npy"), many(digits))
    if of_photo:
        of_photo(photo)
    answers.write(json.dumps({"versions": {kind: version(kind)}}) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["what"] == "photo" and of_photo is None:
            answers.write("null\n")
            continue
        answers.write(json.dumps({"seconds": turn(asked, digits, photo, one, many, of_photo)}))
        answers.write("\n")


def turn(
    asked: dict[str, Any], digits: Any, photo: Any, one: Any, many: Any, of_photo: Any
) -> list[float]:
    """Seconds of each call of one turn."""
    seconds = []
    for i in range(asked["count"]):
        given = {"one": digits[i % len(digits)], "photo": photo, "many": digits}[asked["what"]]
        call = {"one": one, "photo": of_photo, "many": many}[asked["what"]]
        start = time.perf_counter()
        call(given)
        seconds.append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    main()
