"""The commands that recognise: `predict` and `models`."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rowwise import options
from rowwise.errors import ConfigError, PictureError, RowwiseError

if TYPE_CHECKING:
    from rowwise.model import Model
    from rowwise.readings import Form
    from rowwise.recognise import Outcome, Recogniser

STDIN = "-"
# A folder's files that are taken for pictures; a file that is named is read whatever its name.
SUFFIXES = frozenset(
    (".png", ".apng", ".jpg", ".jpeg", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".gif",
     ".pbm", ".pgm", ".ppm", ".pnm", ".heic", ".heif", ".pdf")
)  # fmt: skip
MANY = 20  # pictures, from which on a bar shows how far it is


def predict(
    pictures: options.Pictures,
    model: options.ModelName = "best",
    error_rate: options.ErrorRate = None,
    explain: options.ExplainOut = None,
    first_page: options.FirstPage = False,
    engine: options.Engine = "auto",
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
    as_csv: options.Csv = False,
) -> None:
    """Read handwritten digits in pictures, one a picture or page.

    A file that cannot be read, or a pattern without a match, is a line of the result and does not
    stop the others; the exit code is then 1. A picture without ink, or a reading that is not
    accepted, is no failure.
    """
    from rowwise import readings
    from rowwise.recognise import Recogniser

    if as_json and as_csv:
        raise ConfigError("a result has one form, got --json and --csv; leave one of them out")
    places = found(pictures)
    if explain is not None:
        _check_explained(explain, places, model)
    recogniser = Recogniser.load(model, error_rate=error_rate, engine=engine, threads=threads)
    form: Form = "json" if as_json else "csv" if as_csv else "lines"
    if form == "lines" and sys.stdout.isatty():
        form = "table"
    with _libraries_silenced(), closing(_shown(places, quiet=quiet)) as sources:
        if explain is None:
            outcomes = recogniser.read_each(sources, pages=not first_page)
        else:
            outcomes = _explained(recogniser, sources, explain)
        count, failed = readings.tell(outcomes, form=form, classes=recogniser.model.classes)
    if failed:
        of = "the picture" if count == 1 else f"{failed:,} of {count:,} pictures"
        raise PictureError(f"{of} could not be read; the result says why")


def models(name: options.ModelPlace = None, as_json: options.Json = False) -> None:
    """List the models that ship, or show the card of one.

    A model's promise is the confidence from which on its readings keep an error rate, on pictures
    like those on which it was chosen.
    """
    from rowwise import model as library
    from rowwise import terminal

    if name is not None:
        one = library.Model.load(name)
        if as_json:
            terminal.write_json(one.plain())
        else:
            _print_card(one)
        return
    found = [library.Model.load(each) for each in library.shipped()]
    if as_json:
        terminal.write_json([one.plain() for one in found])
    else:
        _print_models(found)


# --- which pictures -----------------------------------------------------------------------------


class Missing(NamedTuple):
    """What an argument names where no picture is to be had: reading it fails, and says why."""

    name: str
    why: str

    def read(self, size: int = -1) -> bytes:
        """Raise PictureError, as a file that cannot be read."""
        raise PictureError(f"{self.name}: {self.why}")


def found(given: Sequence[str]) -> list[str | Missing]:
    """The files that arguments name: files, those below folders, those of patterns, "-".

    A folder gives, in their order by name, the files below it whose suffix is that of a picture;
    what is hidden is left out. A pattern such as "scans/**/*.png" is one where no such file is.
    A folder or pattern that gives none, or that may not be listed, is Missing in its place.
    """
    files: list[str | Missing] = []
    for place in given:
        if place == STDIN:
            if STDIN in files:
                raise ConfigError("stdin is read once, got - twice; give it once")
            below: list[str | Missing] = [STDIN]
        elif os.path.isdir(place):
            below = list(_below(place))
        elif not os.path.lexists(place) and glob.has_magic(place):
            below = [*sorted(filter(_is_file, glob.glob(place, recursive=True)))]
        else:
            below = [place]
        files += below or [Missing(place, "expected pictures, found none there; name their files")]
    return files


def _is_file(path: str) -> bool:
    """Whether a path is a file, or a link to one that is not there."""
    return os.path.isfile(path) or not os.path.exists(path)


def _below(folder: str) -> Iterator[str | Missing]:
    closed: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=closed.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(parent, name)
    for error in closed:
        why = f"cannot be listed: {error.strerror}; allow it, or name the files in it"
        yield Missing(str(error.filename), why)


def _opened(places: Iterable[str | Missing]) -> Iterator[Any]:
    for place in places:
        yield sys.stdin.buffer if place == STDIN else place


def _shown(places: Sequence[str | Missing], *, quiet: bool) -> Generator[Any, None, None]:
    """The pictures to read, and on a terminal a bar of how many have been asked for."""
    items, count = _opened(places), len(places)
    if quiet or count < MANY or not sys.stderr.isatty():
        yield from items
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TimeRemainingColumn

    from rowwise.bars import Bars

    columns = ("reading", BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns) as bar:
        task = bar.add_task("", total=count)
        for item in items:
            yield item
            bar.advance(task)


@contextmanager
def _libraries_silenced() -> Iterator[None]:
    """Keep what C libraries print from stderr: libtiff tells of every damage, as we do in a line.

    They write to file descriptor 2; Python's own stderr goes on, by another descriptor of the same
    place.
    """
    try:
        two = sys.stderr.fileno() == 2
        sys.stderr.flush()
        kept = os.dup(2)
    except (OSError, ValueError, AttributeError):  # no stderr, or one that is no file
        yield
        return
    before, nowhere = sys.stderr, os.open(os.devnull, os.O_WRONLY)
    if two:
        sys.stderr = open(  # noqa: SIM115
            os.dup(kept), "w", buffering=1, encoding=before.encoding, errors="backslashreplace"
        )
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        if two:
            sys.stderr.close()
            sys.stderr = before
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# --- explanations -------------------------------------------------------------------------------


def _check_explained(out: Path, places: Sequence[str | Missing], model: str) -> None:
    from rowwise import files, why

    why.check_suffix(out)
    if len(places) != 1:
        raise ConfigError(f"--explain takes one picture, got {len(places)}; name one file")
    given = [0 if place == STDIN else place for place in places if not isinstance(place, Missing)]
    files.check_outputs([out], [*given, model])


def _explained(recogniser: Recogniser, sources: Iterable[Any], out: Path) -> Iterator[Outcome]:
    """The outcome of each source; its reading is explained in a file."""
    from rowwise import image_files, terminal, why
    from rowwise.recognise import Outcome

    for source in sources:
        try:
            picture = image_files.picture(source)
        except RowwiseError as error:
            yield Outcome(image_files.name_of(source), 1, None, error)
            continue
        explanation = recogniser.explain(picture)
        why.write(explanation, out)
        for remark in filter(None, {explanation.remark, explanation.why_no_neighbours}):
            if explanation.reading.digit is not None:
                terminal.to_stderr(f"{out}: {remark}")
        yield Outcome(picture.name, picture.page, explanation.reading, None)


# --- models -------------------------------------------------------------------------------------


def _print_models(found: Sequence[Model]) -> None:
    from rowwise import listing

    table = listing.headed("model", ">parameters", ">size", "promises errors of at most", "figures")
    for one in found:
        promised = ", ".join(f"{100 * p.error_rate:g} %" for p in one.card.kept)
        figures = ", ".join(f"{name} {100 * share:.2f} %" for name, share in one.card.figures)
        size = f"{one.weight_bytes / 1e6:.1f} MB"
        row = (one.name, f"{one.network.count:,}", size, promised, figures)
        table.add_row(*(cell or listing.NOTHING for cell in row))
    listing.show(table if found else "no models: this package was built without them")


def _print_card(one: Model) -> None:
    from rowwise import listing
    from rowwise.terminal import write_line

    card = one.card
    rows, columns = one.network.shape
    write_line(f"{one.name}: {one.network.count:,} parameters, {one.weight_bytes / 1e6:.1f} MB")
    write_line(f"reads pictures of {rows} x {columns} as one of {', '.join(one.classes)}")
    by = f" by rowwise {card.version}" if card.version else ""
    write_line(f"learnt from {card.data or 'data that it does not name'}{by}, seed {card.seed}")
    write_line(f"temperature of its probabilities {card.temperature:g}")
    for promise in card.kept:
        write_line(
            f"promise: readings of confidence {100 * promise.confidence:.2f} % and more are wrong "
            f"in at most {100 * promise.error_rate:g} % (at level {100 * promise.level:g} %; of "
            f"{promise.pictures:,} pictures held out {promise.accepted:,} were accepted, "
            f"{promise.wrong:,} of them misread)"
        )
    if why := card.why_not():
        write_line(f"no reading is accepted unless --error-rate says so: {why}")
    table = listing.headed("figure", ">%")
    for name, share in card.figures:
        table.add_row(name, f"{100 * share:.2f}")
    if card.figures:
        listing.show(table)
    write_line(one.network.summary())
