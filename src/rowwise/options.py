"""The options and arguments of the command line, by what they mean; each with its line of help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyFile = Annotated[
    str, typer.Argument(help="A study that ships (classic), or a TOML or JSON file.")
]
ExperimentFile = Annotated[
    str | None,
    typer.Argument(
        help="An experiment of a study that ships (lstm-tanh), or a TOML or JSON file; default: "
        "that of --init-from, for 2 epochs at a tenth of its learning rate."
    ),
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
DataParts = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="A file or folder of pictures, or the name of a known data set, to use instead of "
        "looking for MNIST. May be repeated: what the others hold is learnt from too, a handful "
        "of pictures many times; the first is held out and tested on.",
    ),
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
        "bfloat16 where the processor is quicker in it and that is shown harmless for the cell and "
        "its width).",
    ),
]
ResumeStudy = Annotated[
    bool, typer.Option("--resume/--no-resume", help="Go on with the study that --out holds.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
Report = Annotated[bool, typer.Option("--report/--no-report", help="End in OUT/report.html.")]
InitFrom = Annotated[
    str | None,
    typer.Option(
        "--init-from",
        help="Start from the weights of this model (best, rows, or a model's file) or run.",
    ),
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
Packed = Annotated[
    str,
    typer.Argument(help="A model that ships, by name; a model's file; or a run's folder."),
]
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
        "it (rowwise models tells which it does); default: 0.001, and no reading is accepted where "
        "the model does not promise that.",
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
Host = Annotated[
    str | None, typer.Option("--host", help="The address to listen on; default: 127.0.0.1.")
]
Port = Annotated[
    int | None,
    typer.Option("--port", min=0, max=65_535, help="The port; default: 8000; 0 takes a free one."),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", help="Serve this model, file or run; may be repeated; default: all that ship."
    ),
]
DefaultModel = Annotated[
    str | None,
    typer.Option("--default", help="The model that reads where none is named; default: best."),
]
ServedRuns = Annotated[
    list[Path] | None,
    typer.Option("--runs", help="Serve the finished runs of this folder too; may be repeated."),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=256, help="Processes that share the port; default: 1."),
]
ServeThreads = Annotated[
    int | None,
    typer.Option("--threads", min=0, max=1024, help="Of each worker; default: its share of cores."),
]
Queue = Annotated[
    int | None,
    typer.Option("--queue", min=1, help="Pictures that may wait in a worker; default: 8192."),
]
Batch = Annotated[
    int | None, typer.Option("--batch", min=1, help="Pictures that are read at once; default: 64.")
]
BatchWait = Annotated[
    float | None,
    typer.Option("--batch-wait-ms", help="Wait so long for others that are coming; default: 0."),
]
MaxBytes = Annotated[
    int | None, typer.Option("--max-bytes", min=1, help="Of a body; default: 20,000,000.")
]
MaxPixels = Annotated[
    int | None, typer.Option("--max-pixels", min=784, help="Of a picture; default: 25,000,000.")
]
MaxRequestPixels = Annotated[
    int | None,
    typer.Option(
        "--max-request-pixels",
        min=784,
        metavar="<int>",
        help="Of all pictures of a request; default: 100,000,000.",
    ),
]
MaxPictures = Annotated[
    int | None, typer.Option("--max-pictures", min=1, help="Of a request; default: 1000.")
]
MaxHeldBytes = Annotated[
    int | None,
    typer.Option("--max-held-bytes", min=1, help="Of all bodies at once; default: 500,000,000."),
]
BodyTimeout = Annotated[
    float | None, typer.Option("--body-timeout-s", help="For a body to arrive; default: 10.")
]
Grace = Annotated[
    float | None,
    typer.Option("--grace-s", help="For what is in flight when it ends; default: 20."),
]
Keep = Annotated[
    Path | None,
    typer.Option("--keep", help="Keep here the corrections of this machine's own users."),
]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="A file with an API key a line that lets in.")
]
InsecureNoAuth = Annotated[
    bool | None,
    typer.Option("--insecure-no-auth", help="Let everyone in who can reach the server."),
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", help="A site whose pages may call the API; may be repeated."),
]
HostNames = Annotated[
    list[str] | None,
    typer.Option("--host-name", help="A name that the server goes by; may be repeated."),
]
Proxies = Annotated[
    list[str] | None,
    typer.Option("--proxy", help="An address whose X-Forwarded-For is believed; may be repeated."),
]
AccessLog = Annotated[
    bool | None, typer.Option("--access-log/--no-access-log", help="A line a request on stderr.")
]
ServeFile = Annotated[
    Path | None, typer.Option("--config", help="A TOML file with the server's settings.")
]
