"""The commands about training: `study`, `train`, `evaluate`, `runs`, `report` and `data`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.exceptions import TyperException

from rowwise import options
from rowwise.errors import ConfigError, RunError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rowwise.config import Experiment, Study
    from rowwise.data import Dataset
    from rowwise.runs import Run
    from rowwise.train import Start


class Stopped(Exception):
    """A training was told to stop and has saved itself in `folder`."""

    def __init__(self, folder: Path, code: int) -> None:
        super().__init__(folder, code)
        self.folder = folder
        self.code = code


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
        raise Stopped(out, switch.exit_code)
    _tell_study(out, report=report, as_json=as_json)
    if outcome.diverged:
        raise RunError(f"{len(outcome.diverged)} run(s) diverged: {outcome.diverged[0]}")


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
    if start is not None and experiment is None:
        teller.say(starts.sentence(start, chosen))
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
        raise Stopped(folder, switch.exit_code)
    album.keep(out, loaded)
    if not as_json:
        accuracy = 100 * (result.test_accuracy or 0)
        terminal.write_line(f"{folder}: test accuracy {accuracy:.2f} %, {result.sentence}")


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
    terminal.write_line(
        f"{opened.folder.name} on {source}: {right:,} of {len(labels):,} right, "
        f"accuracy {100 * right / len(labels):.2f} % "
        f"(95 % interval {100 * share.low:.2f} to {100 * share.high:.2f}), "
        f"loss {loss:.4f}, engine {choice.name}"
    )


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


def report(folder: options.ReportFolder = Path("study"), out: options.ReportOut = None) -> None:
    """Write the report of saved runs.

    It is one HTML file that needs no other; its figures lie beside it as PNG and SVG.
    """
    from rowwise import report as reports
    from rowwise import terminal

    terminal.write_line(str(reports.write(folder, out=out)))


def data(
    path: options.DataPlace = None,
    dataset: options.DatasetName = None,
    out: options.PicturesOut = None,
    as_json: options.Json = False,
) -> None:
    """Describe a data set.

    Its classes and their counts, pixels, duplicates, and the mean image of each class.
    """
    from rowwise import description, files, listing, terminal

    if out is not None and path is not None:
        from rowwise import report as reports

        files.check_outputs(reports.data_figures(out), [path])
    loaded = _load(dataset, path, terminal.to_stderr, substitute=True)
    told = description.describe(loaded)
    if as_json:
        terminal.write_json(told.to_json())
    else:
        listing.print_data(told)
    if out is not None:
        from rowwise import report as reports

        for drawn in reports.draw_data(loaded, told, out):
            terminal.to_stderr(str(drawn))


# --- what several commands share --------------------------------------------------------------


def _study(file: str) -> Study:
    from rowwise.config import Study, shipped_studies

    shipped = shipped_studies()
    return shipped[file] if file in shipped else Study.from_file(_file(file, "a study", shipped))


def _experiment(name: str | None, start: Start | None) -> Experiment:
    from rowwise import start as starts
    from rowwise.config import Experiment, shipped_studies

    if name is None:
        if start is None:
            missing = TyperException("Missing argument 'experiment', or --init-from in its place")
            missing.exit_code = 2
            raise missing
        return starts.onward(start.experiment)
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
    from rowwise import album, terminal
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
    whole = _load(dataset or own.name, path, terminal.to_stderr)
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
        terminal.write_line(network.summary())


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

        tell = terminal.to_stderr if as_json else terminal.write_line
        tell(f"report: {reports.write(out)}")
