"""Make tests/keras_files: a small model as several versions of Keras saved it, and its answers.

Run by hand in an environment with that version: python tests/make_keras_files.py
(2.15 on TensorFlow 2.15, the others on torch). The archives were packed again, with compression.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
from keras import layers

FOLDER = Path(__file__).with_name("keras_files")
ANSWERS = FOLDER / "answers.json"


def main() -> None:
    """Train, save, and keep what the model answers."""
    version = keras.__version__
    old = version.startswith("2")
    model = keras.Sequential(
        [
            layers.InputLayer((5, 6)) if old else keras.Input((5, 6)),
            layers.BatchNormalization(),
            layers.LSTM(3, activation="relu", return_sequences=True),
            layers.Bidirectional(layers.GRU(2)),
            layers.Dropout(0.2),
            layers.Dense(4, activation="tanh"),
            layers.Dense(3, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(3)
    shapes = [weight.shape for weight in model.get_weights()]
    model.set_weights([rng.uniform(0.3, 0.9, shape).astype(np.float32) for shape in shapes])
    optimizer = keras.optimizers.RMSprop(2e-3, rho=0.8)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    pictures = rng.integers(0, 256, (4, 5, 6)).astype(np.uint8)
    given = (pictures / 255).astype(np.float32)
    model.fit(given, np.array([0, 1, 2, 1]), epochs=3, batch_size=2, verbose=0)
    model.save(FOLDER / f"{version}.keras")
    model.save(FOLDER / f"{version}.h5")
    told = json.loads(ANSWERS.read_text()) if ANSWERS.exists() else {"probabilities": {}}
    told["pictures"] = pictures.tolist()
    told["probabilities"][version] = np.asarray(model.predict(given, verbose=0)).tolist()
    ANSWERS.write_text(json.dumps(told))


if __name__ == "__main__":
    main()
