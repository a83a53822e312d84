"""The commands by which networks come and go as files: `export`, `import` and `pack`."""

from __future__ import annotations

import sys
from pathlib import Path

from rowwise import options
from rowwise.errors import ConfigError
from rowwise.model import ERROR_RATE


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
    model: options.Packed,
    out: options.PackOut = None,
    data: options.DataParts = None,
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Calibrate a model, or that of a run, for `rowwise predict`.

    Nothing is trained: the temperature is fitted, and the thresholds are chosen from which on
    readings are accepted, so that a promised error rate is kept: on pictures that were not learnt
    from, read as `rowwise predict` reads them. Of the data that it learnt from these are the ones
    that its training held out; of other data, named with --data, all training pictures are taken
    as not learnt from.
    """
    from rowwise import blend, files, packing, terminal
    from rowwise.model import shipped

    found = packing.opened(model)
    path = out or Path(f"{found.name}.safetensors")
    own_files = () if str(model) in shipped() else (Path(model),)
    files.check_outputs([path], [*own_files, *(data or ())])
    own = found.card.data
    if not data and (not own or blend.is_joined(own)):
        several = f"several data sets ({own}), which are" if own else "data that it does not name,"
        raise ConfigError(
            f"{model} learned from {several} not found by a name; "
            "name the same ones in the same order with --data"
        )
    loaded = blend.load(
        data or (),
        name=None if data else own,
        report=terminal.to_stderr,
        progress=sys.stderr.isatty(),
    )
    packed = packing.pack(found, loaded, threads=threads)
    packed.save(path)
    card = packed.card
    if as_json:
        terminal.write_json({"file": str(path), **card.model_dump(mode="json")})
        return
    terminal.write_line(f"{path}: {packed.network}, temperature {card.temperature:.3f}")
    for what, value in card.figures:
        terminal.write_line(f"{what}: {100 * value:.2f} %")
    for one in card.promises:
        terminal.write_line(
            f"at most {100 * one.error_rate:g} % wrong: accepted from a confidence of "
            f"{100 * one.confidence:.2f} % on, {100 * one.accepted / one.pictures:.1f} % of "
            f"{one.pictures:,}, {one.wrong} of them wrong"
        )
    if card.why_not():
        terminal.write_line(
            f"at most {100 * ERROR_RATE:g} % wrong: not promised, as too few pictures were held "
            "out or too many misread; without --error-rate no reading is accepted"
        )
