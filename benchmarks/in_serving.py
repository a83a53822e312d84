"""The peers of serving.py: FastAPI as its users write it, the body of a request in memory.

`constant` answers the same to every body. `onnxruntime` and `keras` decode the picture with Pillow
and run the network of `rows` on it, with the same weights. An application for uvicorn, chosen by
SERVING_KIND, its model's file by SERVING_MODEL.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Request

CLASSES = 10

Tell = Callable[[bytes], list[float]]  # a picture's file -> a probability a class


def array_of(body: bytes) -> Any:
    """A PNG as uint8 [1, 28, 28]."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(body)).convert("L"))[None]


def constant(model: str) -> Tell:
    """The same for every picture."""
    told = [0.0] * (CLASSES - 1) + [1.0]
    return lambda body: told


def onnxruntime(model: str) -> Tell:
    """Rowwise's own export."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # one of two processes on two cores
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [one.name for one in session.get_outputs()]
    wanted = "probabilities" if "probabilities" in outputs else outputs[-1]
    return lambda body: session.run([wanted], {name: array_of(body)})[0][0].tolist()  # type: ignore[no-any-return]


def keras(model: str) -> Tell:
    """Two recurrent layers over the rows, each with the two before it, and a dense layer."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras as library
    import numpy as np

    weights = np.load(model, allow_pickle=False)
    cell = "gru" if "gru.kernel" in weights else "lstm"
    layer = {"gru": library.layers.GRU, "lstm": library.layers.LSTM}[cell]
    names = (cell, f"{cell}_1")
    units = [weights[f"{name}.recurrent_kernel"].shape[0] for name in names]
    layers = [
        layer(units[0], return_sequences=True),
        layer(units[1]),
        library.layers.Dense(CLASSES, activation="softmax"),
    ]
    wide = weights[f"{cell}.kernel"].shape[0]
    network = library.Sequential([library.Input((28, wide)), *layers])
    for name, one in zip(names, layers, strict=False):
        one.set_weights(recurrent_weights(weights, name, cell))
    layers[2].set_weights([weights["dense.kernel"], weights["dense.bias"]])

    def tell(body: bytes) -> list[float]:
        padded = np.pad(array_of(body), ((0, 0), (2, 0), (0, 0)))
        steps = np.concatenate([padded[:, i : i + 28] for i in range(3)], axis=2)
        told = network.predict_on_batch(steps.astype(np.float32) / 255)[0]
        return told.tolist()  # type: ignore[no-any-return]

    return tell


def recurrent_weights(weights: Any, name: str, cell: str) -> list[Any]:
    """A layer's weights in Keras' order of gates: of a GRU z, r, h in the place of r, z, n."""
    import numpy as np

    if cell == "lstm":
        return [weights[f"{name}.{part}"] for part in ("kernel", "recurrent_kernel", "bias")]

    def reordered(value: Any) -> Any:
        r, z, n = np.split(value, 3, axis=-1)
        return np.concatenate([z, r, n], axis=-1)

    parts = ("kernel", "recurrent_kernel", "bias", "recurrent_bias")
    kernel, recurrent, bias, of_h = (reordered(weights[f"{name}.{part}"]) for part in parts)
    return [kernel, recurrent, np.stack([bias, of_h])]


KINDS = {"constant": constant, "onnxruntime": onnxruntime, "keras": keras}


def application() -> FastAPI:
    """The application that the environment names."""
    tell = KINDS[os.environ["SERVING_KIND"]](os.environ.get("SERVING_MODEL", ""))
    app = FastAPI()

    @app.post("/v1/read")
    async def read(request: Request) -> dict[str, Any]:
        told = tell(await request.body())
        digit = max(range(CLASSES), key=told.__getitem__)
        return {"digit": digit, "confidence": told[digit], "probabilities": told}

    return app
