"""Damaged and hostile files of every format that is read: an answer or a named error, soon.

Each format is one small valid file in a folder that is read whole; each case changes that file: its
bytes, or what lies inside it (gzip, zip members, the header of safetensors) as bytes or as text.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import shutil
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import made_models
import made_study
import numpy as np
import pytest
from made_data import FILES, quartet, save_npz, write_csv, write_idx, write_pictures
from PIL import Image
from test_picture_fuzz import damaged

from rowwise import formats, keras_import, listing, runs, summary
from rowwise.config import Study
from rowwise.data_summary import summarise_data
from rowwise.errors import MAX_LINE, RowwiseError
from rowwise.model import Model
from rowwise.runs import Checkpoint, Run

MOST_CPU_S = 2.0
KERAS = Path(__file__).parent / "keras_files"

Rng = np.random.Generator
Change = Callable[[bytes, Rng], bytes]

TOML = """
name = "fuzzed"
title = 'quoted "text" with a.b.c'
seeds = 2
[[experiments]]
name = "one"
note = \"\"\"
several . lines . of [text] = 3
\"\"\"
epochs = 3
optimizer = { kind = "adam", learning_rate = 0.01, beta_1 = 0.9 }
layers = ["batch_norm", { kind = "lstm", units = 8 }, { kind = "dropout", rate = 0.25 }]
clipping.by = "norm"
clipping.limit = 1.5
"""

# --- changes ----------------------------------------------------------------------------------

NUMBER = re.compile(r"(?<![\w.])-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?")
WORD = re.compile(r'"[^"\n]*"|[\w.]+|[\[\]{}(),:=]')
NUMBERS = (
    *("1e999", "-1e999", "NaN", "Infinity", "nan", "-1", "0", "0.5", "1e308", "-0.0", "1e-320"),
    *("9" * 30, "9" * 400, "9" * 5000, str(2**31), str(2**63), str(-(2**63)), "null", "true"),
    *('"x"', '"\\ud800"', '"\\u001b[31m"', "[]", "{}", "[[1]]", '{"a": 1}', "()", ""),
)


def nested(rng: Rng) -> str:
    depth = int(rng.choice([3, 70, 500, 3000, 100_000]))
    left, right = [("[", "]"), ('{"a":', "}"), ("(", ")"), ("{a=", "}"), ("a.", "b")][
        rng.integers(5)
    ]
    return left * depth + "1" + right * (depth if rng.integers(2) else 0)


def rewritten(data: bytes, rng: Rng) -> bytes:
    """Text with a number, a word or a line replaced, taken away, doubled or nested."""
    text = data.decode("utf-8", "replace")
    found = list((NUMBER if rng.integers(3) else WORD).finditer(text))
    if not found:
        return data
    one, other = found[rng.integers(len(found))], found[rng.integers(len(found))]
    new = [
        NUMBERS[rng.integers(len(NUMBERS))],
        nested(rng),
        other.group(),
        one.group() * int(rng.choice([0, 2, 2000])),
        "[" + one.group() + "]",
    ][rng.choice(5, p=[0.5, 0.15, 0.15, 0.1, 0.1])]
    return (text[: one.start()] + new + text[one.end() :]).encode("utf-8", "surrogatepass")


def either(data: bytes, rng: Rng) -> bytes:
    return damaged(data, rng) if data and rng.integers(2) else rewritten(data, rng)


def packed(change: Change) -> Change:
    """What gzip holds, changed."""
    return lambda data, rng: gzip.compress(change(gzip.decompress(data), rng), 1)


def member(change: Change, *, names: str = "") -> Change:
    """A member of a zip archive, changed."""

    def put(data: bytes, rng: Rng) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        fitting = [name for name in held if names in name]
        chosen = fitting[rng.integers(len(fitting))]
        held[chosen] = change(held[chosen], rng)
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in held.items():
                archive.writestr(name, content)
        return whole.getvalue()

    return put


def array_header(data: bytes, rng: Rng) -> bytes:
    """An npy array whose header, a Python literal, is rewritten, with its length or without."""
    (size,) = struct.unpack_from("<H", data, 8)
    header = rewritten(data[10 : 10 + size], rng)[:65_535]
    told = len(header) if rng.integers(4) else int(rng.integers(65_536))
    return data[:8] + struct.pack("<H", told) + header + data[10 + size :]


def tensors_header(data: bytes, rng: Rng) -> bytes:
    """Safetensors whose header is changed, or a text that is JSON in its metadata."""
    (size,) = struct.unpack_from("<Q", data)
    header = data[8 : 8 + size]
    if rng.integers(2):
        tree = json.loads(header)
        told = tree["__metadata__"]
        key = list(told)[rng.integers(len(told))]
        told[key] = rewritten(told[key].encode(), rng).decode("utf-8", "replace")
        header = json.dumps(tree).encode()
    else:
        header = either(header, rng)
    length = len(header) if rng.integers(8) else int(rng.integers(2**63))
    return struct.pack("<Q", length) + header + data[8 + size :]


# --- formats ----------------------------------------------------------------------------------


class Format(NamedTuple):
    """A folder with a file in it that is changed, and what reads the folder."""

    name: str
    make: Callable[[Path], object]
    file: str
    read: Callable[[Path], object]
    changes: tuple[Change, ...] = (damaged,)
    deep: Callable[[Path], object] | None = None  # what reads more, and takes longer


def read_run(folder: Path) -> None:
    """Everything of a run that is ever read, and what people see of it."""
    run = Run.open(folder / "alpha-s0")
    run.metrics, run.environment, run.weights(), run.checkpoint(), run.predictions()
    listing.row(run)
    runs.study(folder)


def read_study(folder: Path) -> None:
    """Everything that a report is made of."""
    read_run(folder)
    summary.summarise(folder)


def read_album(folder: Path) -> None:
    summarise_data(folder, Run.open(folder / "alpha-s0").record.data)


def make_study(folder: Path) -> None:
    made_study.write(folder, chosen=made_study.study(("alpha", "beta"), seeds=1))
    run = Run.open(folder / "alpha-s0")
    state = run.network.initialise(seed=0)
    run.save_weights(state)
    run.save_checkpoint(Checkpoint(state, state, {"epoch": 1}, {}))


def make_idx(folder: Path, *, plain: bool) -> None:
    write_idx(folder, quartet(shape=(5, 4)), packed=not plain)


def read_model(folder: Path) -> None:
    Model.load(folder / "model.safetensors").plain()


def text_file(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


def picture(suffix: str) -> Callable[[Path], object]:
    def put(folder: Path) -> None:
        images, labels, *_ = quartet(train=10, shape=(6, 6), classes=2)
        write_pictures(folder, images, labels, "ab")
        Image.fromarray(images[0]).save(folder / f"a/00{suffix}")

    return put


IDX, CSV = FILES[0], "train.csv"
STUDY = json.dumps(
    {"name": "s", "experiments": [{"name": "e", "layers": [{"kind": "lstm", "units": 3}]}]}
)
DATA = formats.read
FORMATS = (
    Format("model", lambda at: made_models.rows().save(at / "model.safetensors"),
           "model.safetensors", read_model, (damaged, tensors_header, tensors_header)),
    *(
        Format(name, make_study, f"alpha-s0/{name}", read_run, (damaged, rewritten, rewritten))
        for name in ("experiment.json", "environment.json")
    ),
    *(
        Format(name, make_study, f"alpha-s0/{name}", read_run, (damaged, rewritten, rewritten),
               read_study)
        for name in ("run.json", "metrics.jsonl", "predictions.csv")
    ),
    *(
        Format(name, make_study, f"alpha-s0/{name}", read_run, (damaged, tensors_header))
        for name in ("weights.safetensors", "checkpoint.safetensors")
    ),
    Format("study.json", make_study, "study.json", read_run, (damaged, rewritten)),
    Format("album", make_study, "data-*/description.json", read_album, (damaged, rewritten)),
    Format("album's pictures", make_study, "data-*/pictures.npz", read_album,
           (damaged, member(damaged), member(array_header))),
    Format("toml", text_file("x.toml", TOML), "x.toml",
           lambda at: Study.from_file(at / "x.toml"), (damaged, rewritten, rewritten)),
    Format("json", text_file("x.json", STUDY), "x.json",
           lambda at: Study.from_file(at / "x.json"), (damaged, rewritten, rewritten)),
    Format("idx", lambda at: make_idx(at, plain=True), IDX, DATA),
    Format("idx.gz", lambda at: make_idx(at, plain=False), f"{IDX}.gz", DATA,
           (damaged, packed(damaged))),
    Format("npz", lambda at: save_npz(at / "a.npz", quartet(train=12, test=6, shape=(5, 5))),
           "a.npz", DATA, (damaged, member(damaged), member(array_header))),
    Format("csv", lambda at: write_csv(at / CSV, *quartet(train=12, shape=(4, 4))[:2]), CSV, DATA,
           (damaged, rewritten)),
    *(
        Format(f"picture{suffix}", picture(suffix), f"a/00{suffix}", DATA)
        for suffix in (".png", ".jpg", ".bmp", ".tif", ".pgm")
    ),
    Format("classes.txt", lambda at: (picture(".png")(at), (at / "classes.txt").write_text("a\nb")),
           "classes.txt", DATA, (damaged, rewritten)),
)  # fmt: skip


def keras_file(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.copy(KERAS / name, folder / name)


# Each of these starts a process of the HDF5 library, unless the description is refused before.
SLOW_FORMATS = tuple(
    Format(name, keras_file(name), name, lambda at, name=name: keras_import.read(at / name),
           changes)  # type: ignore[misc]
    for name, changes in (
        ("3.12.4.keras", (damaged, member(rewritten, names=".json"), member(damaged))),
        ("2.15.0.keras", (damaged, member(rewritten, names=".json"))),
        ("3.6.0.h5", (damaged,)),
        ("2.15.0.h5", (damaged, rewritten)),
    )
)  # fmt: skip


# --- attacks ----------------------------------------------------------------------------------


def answer(chosen: Format, folder: Path, *, most_s: float = MOST_CPU_S) -> bool:
    """Whether the folder is read; False where it is refused in one printable line."""
    began = time.process_time()
    read = True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            chosen.read(folder)
        except RowwiseError as error:
            read = False
            message = str(error)
            assert message.isprintable()
            assert len(message) <= MAX_LINE
    assert time.process_time() - began < most_s
    return read


def attack(chosen: Format, folder: Path, *, cases: int, seed: int) -> dict[bool, int]:
    """How many of so many changed files were read, and how many were refused."""
    chosen.make(folder)
    (path,) = folder.glob(chosen.file)
    whole = path.read_bytes()
    chosen.read(folder)  # which may import much
    assert answer(chosen, folder), "the valid file is read"
    said = {True: 0, False: 0}
    for case in range(cases):
        rng = np.random.default_rng([seed, case])
        path.write_bytes(chosen.changes[case % len(chosen.changes)](whole, rng))
        try:
            said[answer(chosen, folder)] += 1
        except BaseException:
            kept = os.environ.get("ROWWISE_FUZZ_KEEP")
            if kept:
                Path(kept).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, Path(kept) / f"{seed}-{case}-{path.name}")
            print(f"{chosen.name}: seed {seed}, case {case}")
            raise
    return said


@pytest.mark.parametrize("chosen", FORMATS, ids=lambda one: one.name)
def test_a_changed_file_has_an_answer_or_a_named_error(chosen: Format, tmp_path: Path) -> None:
    said = attack(chosen, tmp_path, cases=12, seed=1)
    assert said[False] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chosen", [*FORMATS, *SLOW_FORMATS], ids=lambda one: one.name)
def test_thousands_of_changed_files_stay_within_memory(chosen: Format, tmp_path: Path) -> None:
    import resource

    seed = int(np.random.SeedSequence().generate_state(1)[0])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cases = 100 if chosen in SLOW_FORMATS else 600
    chosen = chosen._replace(read=chosen.deep or chosen.read)
    print(f"seed {seed}")
    said = attack(chosen, tmp_path, cases=cases, seed=seed)
    assert said[False] > cases // 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
