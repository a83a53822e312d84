"""Make tests/released/VERSION: one of each kind of file that this version writes.

Run it once for a release, `ROWWISE_ISA=portable python tests/make_released.py` (a path that every
machine can go on with), and commit what it made; what was
released is never made again. `test_released.py` opens the files of every version.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from made_data import write_idx
from small_training import StopAfter

from rowwise import __version__, data, files, runs, session
from rowwise import study as studies
from rowwise.config import Study
from rowwise.packing import pack

RELEASED = Path(__file__).parent / "released"
MODEL = "model.safetensors"

STUDY = Study.model_validate(
    {
        "name": "released",
        "title": "One of each kind of file",
        "seeds": 2,
        "experiments": [
            {
                "name": "everything",
                "note": "Two readings side by side, and all that a checkpoint holds.",
                "branches": [
                    {"layers": ["batch_norm", {"kind": "lstm", "units": 2}]},
                    {
                        "reading": "columns",
                        "layers": [{"kind": "gru", "units": 2, "bidirectional": True}],
                    },
                ],
                "layers": [
                    {"kind": "dropout", "rate": 0.1},
                    {"kind": "dense", "units": 3, "activation": "tanh"},
                ],
                "optimizer": {"kind": "rmsprop", "momentum": 0.5},
                "schedule": {"kind": "cosine", "warmup": 0.1},
                "clipping": {"by": "norm", "limit": 1.0},
                "early_stopping": {"patience": 2},
                "augmentation": {"shift_px": 0.5},
                "averaging": {"decay": 0.9},
                "validation": 0.2,
                "batch": 16,
                "epochs": 2,
                "published": {"val_accuracy": 0.9, "source": "made up"},
            }
        ],
    }
)


def make(folder: Path) -> None:
    """A study of which one run is finished and the other one interrupted in its second epoch."""
    digits = data.digits()
    arrays = (
        digits.train_images[:80, ::2, ::2],
        digits.train_labels[:80].astype(np.uint8),
        digits.test_images[:40, ::2, ::2],
        digits.test_labels[:40].astype(np.uint8),
    )
    write_idx(folder / "pictures", arrays)
    loaded = replace(data.load(path=folder / "pictures"), source="eighty digits")
    place, call_s = folder / "study", session.CALL_S
    try:
        session.CALL_S = 0.0  # one step a call: the stop comes after 7 of 8 steps
        studies.run(STUDY, loaded, out=place, seeds=1, threads=1)
        studies.run(STUDY, loaded, out=place, seeds=2, threads=1, stop=StopAfter(8))
    finally:
        session.CALL_S = call_s
    for run in runs.find(place):
        own = {"system": "Linux", "processor": "a processor", "command": ["rowwise", "study"]}
        files.write_json(run.folder / runs.ENVIRONMENT, run.environment | own)
    pack(runs.Run.open(place / "everything-s0"), loaded, threads=1).save(folder / MODEL)
    for lock in place.rglob(runs.LOCK):
        lock.unlink()


if __name__ == "__main__":
    version = RELEASED / __version__
    if version.exists():
        sys.exit(f"{version} exists: what was released is never made again")
    make(version)
