"""The commands by which networks come and go as files: `export`, `import` and `pack`."""

from __future__ import annotations

import sys
from pathlib import Path

from rowwise import options
from rowwise.errors import ConfigError, RunError


def export_run(
    run: options.RunFolder,
    to: options.ExportTo = "onnx",
    out: options.ExportOut = None,
    as_json: options.Json = False,
) -> None:
    """Write a run's network as an ONNX or a Keras model.

    The ONNX model takes bytes (0 is paper, 255 is ink), any number of pictures at once; the Keras
    model takes floats from 0 to 1, as Keras' users train it. Before the file is kept it is tried:
    its probabilities are compared with the engine's.
    """
    from rowwise import export, runs, terminal

    if to not in export.FORMATS:
        raise ConfigError(f"--to takes {' or '.join(export.FORMATS)}, got {to!r}")
    write = export.export_onnx if to == "onnx" else export.export_keras
    made = write(runs.Run.open(run), out)
    if as_json:
        told = {"file": str(made.path), "program": made.program, "engine": made.engine}
        terminal.write_json(told | {"difference": made.difference, "untried": made.untried})
    elif made.difference is None:
        terminal.write_line(f"{made.path}: not tried, {made.untried}")
    else:
        terminal.write_line(
            f"{made.path}: {made.program} gives the probabilities of the engine {made.engine} "
            f"to within {made.difference:.1e}"
        )


def import_model(
    model: options.KerasModel,
    out: options.ImportOut = None,
    dataset: options.ImportDataset = None,
    data: options.ImportData = None,
    as_json: options.Json = False,
) -> None:
    """Take a Keras model that was trained elsewhere as a run.

    It may have the layers that Rowwise has; others are refused by name. The file is read as data
    and nothing in it is run; Keras is not needed.
    """
    from rowwise import data as datasets
    from rowwise import keras_import, listing, terminal

    judge = None
    if dataset is not None or data is not None:
        judge = datasets.load(
            dataset, path=data, report=terminal.to_stderr, progress=sys.stderr.isatty()
        )
    folder = out or Path("runs") / f"{keras_import.name_of(model)}-s0"
    run = keras_import.import_keras(model, folder, data=judge)
    record = run.record
    if as_json:
        terminal.write_json(listing.row(run) | {"sentence": record.sentence})
        return
    terminal.write_line(f"{folder}: {run.network}, {record.sentence}")
    if record.test_accuracy is not None:
        share = f"{100 * record.test_accuracy:.2f} %"
        terminal.write_line(f"test accuracy {share} on {record.data.name}")


def pack_run(
    run: options.RunFolder,
    out: options.PackOut = None,
    data: options.DataParts = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Make a model for `rowwise predict` of a run.

    The run held out a share of the training pictures. On these its probabilities are calibrated,
    and the thresholds chosen from which on its readings are accepted, so that a promised error rate
    is kept.
    """
    from rowwise import blend, files, packing, runs, terminal

    opened = runs.Run.open(run)
    path = out or Path(f"{opened.name}.safetensors")
    files.check_outputs([path], [*opened.files, *(data or ())])
    own = opened.record.data
    if not data and blend.is_joined(own.name):
        raise RunError(
            f"{run} learned from several data sets ({own.source}), which are not found by a name; "
            f"name the same ones in the same order with --data"
        )
    name = None if data else own.name
    loaded = blend.load(
        data or (), name=name, report=terminal.to_stderr, progress=sys.stderr.isatty()
    )
    model = packing.pack(opened, loaded, threads=threads)
    model.save(path)
    card = model.card
    if as_json:
        terminal.write_json({"file": str(path), **card.model_dump(mode="json")})
        return
    terminal.write_line(f"{path}: {model.network}, temperature {card.temperature:.3f}")
    for what, value in card.figures:
        terminal.write_line(f"{what}: {100 * value:.2f} %")
    for one in card.promises:
        terminal.write_line(
            f"at most {100 * one.error_rate:g} % wrong: accepted from a confidence of "
            f"{100 * one.confidence:.2f} % on, {100 * one.accepted / one.pictures:.1f} % of those "
            f"held out, {one.wrong} of them wrong"
        )
