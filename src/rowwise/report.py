"""Saved runs -> one self-contained HTML file, and its figures as PNG and SVG beside it.

The page needs no script and loads nothing: figures are inline SVG in the page's own colours,
digits are small PNGs inside it. The same folder gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rowwise import album, drawing, figures, illustrations, pictures, runs
from rowwise.data import Dataset
from rowwise.description import Description
from rowwise.errors import importing
from rowwise.files import check_outputs, write_bytes, write_text
from rowwise.illustrations import Illustration
from rowwise.page import content
from rowwise.summary import StudySummary, summarise
from rowwise.wording import count

REPORT = "report.html"
FIGURES = "figures"
DATA_FIGURES = ("class-distribution", "samples", "means")
ENDINGS = (".png", ".svg")


class Inline(NamedTuple):
    """A figure as it stands in the page."""

    name: str
    svg: str
    caption: str


def write(folder: str | Path, *, out: str | Path | None = None) -> Path:
    """Write the report of the runs in a folder.

    Args:
        folder: a study's folder, or a folder of runs.
        out: the HTML file, by default `report.html` in `folder`; the figures go to `figures/`
            beside it.

    Returns:
        The HTML file.

    Raises:
        ConfigError: the HTML file is one of those that the report is made of.
        RunError: there is no run that ended, or one is damaged.
        MissingExtra: matplotlib, jinja2 or scikit-learn is not installed.
    """
    page = Path(out) if out is not None else Path(folder) / REPORT
    check_outputs([page], _sources(Path(folder)))
    study = summarise(folder)
    drawn = list(illustrations.study_figures(study))
    for network in study.networks:
        drawn += illustrations.network_figures(study, network)
    figures_folder = page.parent / FIGURES
    save_figures(((item.name, item.drawn) for item in drawn), figures_folder)
    art = {item.name: _inline(item, figures_folder) for item in drawn}
    write_text(page, render(study, art))
    return page


def _sources(folder: Path) -> Iterator[Path]:
    """What the report of a folder is made of."""
    yield folder / runs.STUDY
    yield from album.places(folder)
    for run in runs.find(folder):
        yield from run.files


def data_figures(out: str | Path) -> list[Path]:
    """The files that `draw_data` writes into the folder `out`."""
    return [Path(out) / f"{name}{ending}" for name in DATA_FIGURES for ending in ENDINGS]


def draw_data(data: Dataset, told: Description, out: str | Path) -> list[Path]:
    """Draw a data set: class distribution, samples and mean images.

    Args:
        data: the data set.
        told: its description, as `describe` gives it.
        out: the folder for the figures, each as PNG and SVG.

    Returns:
        The files.
    """
    sheet = pictures.stack([data.train_images[list(places)] for places in told.samples])
    counts = [
        figures.Counts(f"{title}: {count(part.count)} images", part.class_counts)
        for title, part in (("Training data", told.train), ("Test data", told.test))
    ]
    drawn = (
        figures.class_distribution(counts, told.classes),
        pictures.samples(sheet, told.classes),
        pictures.mean_images(told.mean_images, told.classes),
    )
    return save_figures(zip(DATA_FIGURES, drawn, strict=True), Path(out))


def save_figures(drawn: Iterable[tuple[str, Any]], folder: Path) -> list[Path]:
    """Write named figures into `folder`, each as PNG and SVG on white; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, one in drawn:
        for ending, made in zip(
            ENDINGS, (drawing.png(one), drawing.svg(one).encode()), strict=True
        ):
            path = folder / f"{name}{ending}"
            write_bytes(path, made)
            written.append(path)
    return written


def render(study: StudySummary, art: Mapping[str, Inline]) -> str:
    """The page of a study, with its figures by name in it."""
    with importing("jinja2", "study"):
        import jinja2
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return pages.get_template(REPORT).render(art=art, **content(study)) + "\n"


def _inline(item: Illustration, folder: Path) -> Inline:
    from markupsafe import Markup

    # Our own SVG; the texts in it were escaped by matplotlib, the label by `drawing.inline`.
    text = (folder / f"{item.name}.svg").read_text("utf-8")
    return Inline(
        item.name, Markup(drawing.inline(text, name=item.name, label=item.label)), item.caption
    )
