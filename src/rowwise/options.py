"""The options and arguments of the command line, by what they mean; each with its line of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyFile = Annotated[
    str, typer.Argument(help="A study that ships (classic), or a TOML or JSON file.")
]
ExperimentFile = Annotated[
    str,
    typer.Argument(help="An experiment of a study that ships (lstm-tanh), or a TOML or JSON file."),
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.")]
Places = Annotated[
    list[Path] | None, typer.Argument(help="Run folders, or folders of runs; default: runs.")
]
ReportFolder = Annotated[Path, typer.Argument(help="A study's folder, or a folder of runs.")]
DataPlace = Annotated[
    Path | None, typer.Argument(help="A file or folder; default: where MNIST is found.")
]
StudyOut = Annotated[Path, typer.Option("--out", help="Where runs and report go.")]
RunsOut = Annotated[Path, typer.Option("--out", help="The run goes to OUT/NAME-sSEED.")]
ReportOut = Annotated[
    Path | None, typer.Option("--out", help="The HTML file; default: FOLDER/report.html.")
]
PicturesOut = Annotated[
    Path | None, typer.Option("--out", help="Draw pictures of the data into this folder.")
]
Only = Annotated[
    list[str] | None, typer.Option("--only", help="Only this experiment; may be repeated.")
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", min=1, max=1000, help="Seeds for each experiment.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="KEY=VALUE overrides a key: epochs=10, layers.1.units=256."),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="A file or folder of pictures to use instead of looking for one."),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="mnist, fashion-mnist, kmnist or digits; an error where it is not to be had.",
    ),
]
Engine = Annotated[
    str,
    typer.Option("--engine", help="auto, native, torch or plain (plain reads, does not train)."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, max=1024, help="Threads; default: the usable physical cores."),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        help="auto, float32 or bfloat16 (products of the native engine while training; auto takes "
        "bfloat16 where the processor is quicker in it and that is shown harmless for the cell).",
    ),
]
ResumeStudy = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with the study that --out holds.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
Report = Annotated[bool, typer.Option("--report/--no-report", help="End in OUT/report.html.")]
InitFrom = Annotated[
    Path | None, typer.Option("--init-from", help="Start from the weights of this run.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write event files to the run's folder.")
]
Summary = Annotated[
    bool, typer.Option("--summary", help="Print the network's table, and do not train.")
]
ExportTo = Annotated[str, typer.Option("--to", help="onnx (for ONNX Runtime and others) or keras.")]
ExportOut = Annotated[
    Path | None, typer.Option("--out", help="The file; default: NAME-sSEED.onnx or .keras.")
]
KerasModel = Annotated[Path, typer.Argument(help="A Keras model, .keras or .h5.")]
PackOut = Annotated[
    Path | None, typer.Option("--out", help="The model's file; NAME.safetensors if not given.")
]
ImportOut = Annotated[
    Path | None, typer.Option("--out", help="The run's folder; default: runs/NAME-s0.")
]
ImportDataset = Annotated[
    str | None,
    typer.Option("--dataset", help="Judge it by the test images of mnist, fashion-mnist, …"),
]
ImportData = Annotated[
    Path | None, typer.Option("--data", help="Judge it by the test images of this data set.")
]
Pictures = Annotated[
    list[str],
    typer.Argument(
        help="Files, folders (with all below them), patterns like 'scans/*.png', or - for stdin."
    ),
]
ModelName = Annotated[
    str, typer.Option("--model", help="A model that ships (best, rows), its file, or a run.")
]
ModelPlace = Annotated[
    str | None, typer.Argument(help="A model that ships, its file, or a run; default: list them.")
]
ErrorRate = Annotated[
    float | None,
    typer.Option(
        "--error-rate",
        help="Accept readings so that at most this share of them is wrong, as the model promises "
        "it (rowwise models tells which it does); default: 0.001.",
    ),
]
ExplainOut = Annotated[
    Path | None, typer.Option("--explain", help="Draw why it was read so: one picture, PNG or SVG.")
]
FirstPage = Annotated[
    bool, typer.Option("--first-page", help="Of files with several pages read the first alone.")
]
Csv = Annotated[bool, typer.Option("--csv", help="Write CSV with a head to stdout.")]
Compare = Annotated[bool, typer.Option("--compare", help="What differs between exactly two runs.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Tell no progress, only results and errors.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON to stdout.")]
