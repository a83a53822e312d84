"""The command line: parse, one call, print. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import gc
import io
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.exceptions import TyperException

from rowwise import exchange, options, recognition, serving
from rowwise._version import __version__
from rowwise.errors import ConfigError, RowwiseError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rowwise.config import Experiment, Study
    from rowwise.data import Dataset
    from rowwise.runs import Run
    from rowwise.train import Start

app = typer.Typer(
    name="rowwise",
    help="Recurrent networks that read handwritten digits, one row at a time.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
INTERRUPTED = 130  # the exit code after Ctrl-C, as shells have it


class _Stopped(Exception):
    """A training was told to stop and has saved itself in `folder`."""

    def __init__(self, folder: Path, code: int) -> None:
        super().__init__(folder, code)
        self.folder = folder
        self.code = code


@app.command()
def study(
    file: options.StudyFile = "classic",
    out: options.StudyOut = Path("study"),
    only: options.Only = None,
    seeds: options.Seeds = None,
    dataset: options.DatasetName = None,
    data: options.Data = None,
    engine: options.Engine = "auto",
    threads: options.Threads = None,
    precision: options.Precision = "auto",
    resume: options.ResumeStudy = True,
    report: options.Report = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run a study, then write its report.

    Every experiment is trained with several seeds. A study that was interrupted goes on when the
    same command is given again; runs that ended are not made again.
    """
    from rowwise import study as studies
    from rowwise import terminal

    chosen = _study(file)
    teller = terminal.teller(quiet=quiet, as_json=as_json)
    name = dataset or (None if data or chosen.dataset == "mnist" else chosen.dataset)
    loaded = _load(name, data, teller.say, substitute=True)
    if loaded.fallback:
        teller.say(f"NOTE: this study runs on {loaded.name}: {loaded.fallback}")

    switch = terminal.StopSwitch()
    with switch.installed(), closing(teller):
        outcome = studies.run(
            chosen,
            loaded,
            out=out,
            seeds=seeds,
            only=only or (),
            engine=engine,
            threads=threads,
            precision=precision,
            resume=resume,
            callbacks=[teller],
            on_run=lambda run, i, count: teller.say(f"[{i + 1}/{count}] {run.folder}"),
            stop=switch,
        )
    if outcome.interrupted or switch():
        raise _Stopped(out, switch.exit_code)
    _tell_study(out, report=report, as_json=as_json)
    if outcome.diverged:
        raise RunError(f"{len(outcome.diverged)} run(s) diverged: {outcome.diverged[0]}")


@app.command()
def train(
    experiment: options.ExperimentFile = None,
    out: options.RunsOut = Path("runs"),
    overrides: options.Overrides = None,
    dataset: options.DatasetName = None,
    data: options.DataParts = None,
    engine: options.Engine = "auto",
    threads: options.Threads = None,
    precision: options.Precision = "auto",
    resume: options.Resume = False,
    init_from: options.InitFrom = None,
    tensorboard: options.TensorBoard = False,
    summary: options.Summary = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Train one network.

    It is told as Keras tells it, a line an epoch. Ctrl-C saves the training, and --resume goes on.
    """
    from rowwise import album, blend, terminal
    from rowwise import start as starts
    from rowwise.train import fit

    start = starts.find(init_from) if init_from else None
    chosen = _experiment(experiment, start).with_overrides(overrides or [])
    teller = terminal.teller(quiet=quiet, as_json=as_json)
    loaded = blend.load(data or (), name=dataset, report=teller.say, progress=sys.stderr.isatty())
    if start is not None:
        starts.check(start, loaded)
    if summary:
        return _tell_network(chosen, loaded, as_json=as_json)
    folder = out / f"{chosen.name}-s{chosen.seed}"
    callbacks: list[Any] = [teller]
    if tensorboard:
        from rowwise.tensorboard import EventFiles

        callbacks.append(EventFiles(folder))
    switch = terminal.StopSwitch()
    with switch.installed(), closing(teller):
        result = fit(
            chosen,
            loaded,
            out=folder,
            engine=engine,
            threads=threads,
            precision=precision,
            resume=resume,
            init_from=start,
            callbacks=callbacks,
            stop=switch,
        )
    if result.status == "interrupted":
        raise _Stopped(folder, switch.exit_code)
    album.keep(out, loaded)
    if not as_json:
        accuracy = 100 * (result.test_accuracy or 0)
        print(f"{folder}: test accuracy {accuracy:.2f} %, {result.sentence}")


@app.command()
def evaluate(
    run: options.RunFolder,
    data: options.Data = None,
    dataset: options.DatasetName = None,
    engine: options.Engine = "auto",
    threads: options.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Score a saved network on labelled pictures.

    Without --data or --dataset these are the test images of the data that it learned from.
    """
    from rowwise import comparison, runs, session, terminal
    from rowwise.train import beliefs as read

    opened = runs.Run.open(run)
    weights, network = opened.weights(), opened.network
    images, labels, source = _judge(opened, dataset, data)
    if images.shape[1:] != network.shape:
        raise RunError(
            f"{run} reads pictures of {network.shape[0]} x {network.shape[1]}, "
            f"got {images.shape[1]} x {images.shape[2]} from {source}"
        )
    beliefs, choice = read(network, weights, images, engine=engine, threads=threads)
    right = int((beliefs[:, -1].argmax(1) == labels).sum())
    share = comparison.proportion_interval(right, len(labels))
    loss = session.loss_of(network.experiment, labels, beliefs)
    if as_json:
        told = {"run": str(run), "data": source, "images": len(labels), "right": right}
        told |= {"accuracy": right / len(labels), "low": share.low, "high": share.high}
        terminal.write_json(told | {"loss": loss, "engine": choice.name})
        return
    print(
        f"{opened.folder.name} on {source}: {right:,} of {len(labels):,} right, "
        f"accuracy {100 * right / len(labels):.2f} % "
        f"(95 % interval {100 * share.low:.2f} to {100 * share.high:.2f}), "
        f"loss {loss:.4f}, engine {choice.name}"
    )


@app.command("runs")
def list_runs(
    places: options.Places = None, compare: options.Compare = False, as_json: options.Json = False
) -> None:
    """List runs, or compare two of them.

    The comparison shows which settings differ, and tests whether the networks do (McNemar).
    """
    from rowwise import listing, runs, terminal

    found = [run for place in places or [Path("runs")] for run in runs.find(place)]
    if compare:
        if len(found) != 2:
            raise RunError(f"--compare takes two runs, got {len(found)}; name two run folders")
        difference = listing.compare(found[0], found[1])
        if as_json:
            terminal.write_json(difference)
        else:
            listing.print_comparison(difference)
    elif as_json:
        terminal.write_json([listing.row(run) for run in found])
    else:
        listing.print_runs(found)


@app.command()
def report(folder: options.ReportFolder = Path("study"), out: options.ReportOut = None) -> None:
    """Write the report of saved runs.

    It is one HTML file that needs no other; its figures lie beside it as PNG and SVG.
    """
    from rowwise import report as reports

    print(reports.write(folder, out=out))


app.command("predict")(recognition.predict)
app.command("models")(recognition.models)
app.command("serve")(serving.serve)
app.command("export")(exchange.export_run)
app.command("import")(exchange.import_model)
app.command("pack")(exchange.pack_run)


@app.command()
def data(
    path: options.DataPlace = None,
    dataset: options.DatasetName = None,
    out: options.PicturesOut = None,
    as_json: options.Json = False,
) -> None:
    """Describe a data set.

    Its classes and their counts, pixels, duplicates, and the mean image of each class.
    """
    from rowwise import description, listing, terminal

    loaded = _load(dataset, path, _to_stderr, substitute=True)
    told = description.describe(loaded)
    if as_json:
        terminal.write_json(told.to_json())
    else:
        listing.print_data(told)
    if out is not None:
        from rowwise import report as reports

        for drawn in reports.draw_data(loaded, told, out):
            _to_stderr(str(drawn))


@app.command()
def doctor(as_json: options.Json = False) -> None:
    """Say what this machine has: engines, models, data, extras.

    Where one is missing, it says why.
    """
    from rowwise import doctor as checks
    from rowwise import terminal

    found = checks.examine()
    if as_json:
        terminal.write_json([check._asdict() for check in found])
    else:
        checks.show(found)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"rowwise {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Recurrent networks that read handwritten digits, one row at a time."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0, 1 with one line, 2 for wrong usage, 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Else pydantic looks through every installed package for plugins: 20 ms of each command.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(20_000, 20, 20)  # imports make objects by the thousand, and no garbage
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a terminal may lack letters
    try:
        code = app(given or ["--help"], standalone_mode=False, prog_name="rowwise")
        sys.stdout.flush()
        if code == INTERRUPTED:  # what Typer makes of a KeyboardInterrupt
            _fail("interrupted", code)
    except _Stopped as stopped:
        code = stopped.code
        _to_stderr(f"saved in {stopped.folder}; go on with: {_again(given)}")
    except KeyboardInterrupt:
        code = _fail("interrupted", INTERRUPTED)
    except TyperException as error:
        told = error.format_message().removesuffix(".")
        code = _fail(f"{told}; see rowwise --help", error.exit_code)
    except RowwiseError as error:
        code = _fail(str(error), 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except OSError as error:  # a full disk, a folder that may not be written
        place = f"{error.filename}: " if error.filename else ""
        code = _fail(f"{place}{error.strerror or error}", 1)
    gc.freeze()  # else the interpreter looks through all that there is before it ends: 0.1 s
    sys.exit(code if isinstance(code, int) else 0)


# --- what several commands share --------------------------------------------------------------


def _study(file: str) -> Study:
    from rowwise.config import Study, shipped_studies

    shipped = shipped_studies()
    return shipped[file] if file in shipped else Study.from_file(_file(file, "a study", shipped))


def _experiment(name: str | None, start: Start | None) -> Experiment:
    from rowwise.config import Experiment, shipped_studies

    if name is None:
        if start is None:
            missing = TyperException("Missing argument 'experiment', or --init-from in its place")
            missing.exit_code = 2
            raise missing
        return start.experiment
    known = {e.name: e for s in shipped_studies().values() for e in s.experiments}
    return known.get(name) or Experiment.from_file(_file(name, "an experiment", known))


def _file(name: str, what: str, shipped: Iterable[str]) -> Path:
    from rowwise.settings import nearest

    if Path(name).suffix in (".toml", ".json"):
        return Path(name)
    raise ConfigError(
        f"{what} is one that ships ({', '.join(shipped)}) or a .toml or .json file, "
        f"got {name!r}{nearest(name, shipped)}"
    )


def _load(
    name: str | None, path: Path | None, say: Callable[[str], None], *, substitute: bool = False
) -> Dataset:
    """The data set of that name or at that place; of neither, MNIST, or perhaps a substitute."""
    from rowwise import data as datasets

    if name is None and path is None and not substitute:
        name = "mnist"
    return datasets.load(name, path=path, report=say, progress=sys.stderr.isatty())


def _judge(
    run: Run, dataset: str | None, path: Path | None
) -> tuple[NDArray[Any], NDArray[Any], str]:
    """Pictures, labels and source that the options name; without options the run's own."""
    from rowwise import album
    from rowwise import data as datasets

    own = run.record.data
    if dataset is None and path is not None:
        part = datasets.load_labelled(path, classes=own.classes, shape=own.shape)
        return part.images, part.labels, part.source
    kept = None if dataset else album.find(run.folder.parent, own.digest)
    if kept is not None:
        return kept.test_images, kept.test_labels, f"{own.name}, test images"
    if dataset is None and own.name not in datasets.NAMES:
        raise RunError(
            f"{run.folder} learned from {own.name} ({own.source}), whose test images are not kept "
            f"beside it; name labelled pictures with --data"
        )
    whole = _load(dataset or own.name, path, _to_stderr)
    if whole.classes != own.classes or (dataset is None and whole.digest != own.digest):
        raise RunError(
            f"{run.folder} learned from {own.name} ({own.digest[:8]}), {whole.name} here "
            f"({whole.digest[:8]}) is another data set; name labelled pictures with --data"
        )
    return whole.test_images, whole.test_labels, f"{whole.name}, test images"


def _tell_network(experiment: Experiment, data: Dataset, *, as_json: bool) -> None:
    from rowwise import listing, terminal
    from rowwise.network import Network

    network = Network(experiment, data.shape, len(data.classes))
    if as_json:
        terminal.write_json(listing.network_rows(network))
    else:
        print(network.summary())


def _tell_study(out: Path, *, report: bool, as_json: bool) -> None:
    from rowwise import listing, terminal
    from rowwise.summary import summarise

    summary = summarise(out)
    if as_json:
        terminal.write_json({"event": "study", "networks": listing.study_rows(summary)})
    else:
        listing.print_study(summary)
    if report:
        from rowwise import report as reports

        print(f"report: {reports.write(out)}", file=sys.stderr if as_json else sys.stdout)


def _again(given: Sequence[str]) -> str:
    """The command that goes on with an interrupted one."""
    kept = [argument for argument in given if argument not in ("--no-resume", "--resume")]
    return shlex.join(["rowwise", *kept, "--resume"])


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def _fail(line: str, code: int) -> int:
    _to_stderr(f"rowwise: {line}")
    return code
