"""report: one file that every reader can read, and nothing in it that the runs did not say."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import made_study
import numpy as np
import pytest
from PIL import Image

from rowwise import album, drawing, report, runs
from rowwise.config import Study
from rowwise.data import Dataset
from rowwise.description import describe
from rowwise.errors import MissingExtra, RunError
from rowwise.summary import summarise

VOID = {"meta", "img", "br", "path", "use", "rect", "image"}
PARTS = ["Summary", "Plot of the model", "Epoch by epoch", "Confusion matrix",
         "Most confused pairs", "By class", "Calibration", "Misread images"]  # fmt: skip
NAMES = ('<b>"bold"</b>', "a & b", "$x$", "</svg><script>alert(1)</script>")


class Page(HTMLParser):
    """The page as a reader of its tags: elements with their attributes, the text, the nesting."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)
        if self._open and re.fullmatch("h[1-6]", self._open[-1]):
            level, words = self.headings[-1]
            self.headings[-1] = (level, words + data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_study.write(tmp_path_factory.mktemp("made"))
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text("utf-8"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names that must be escaped, a note and a title with tags, one network, one seed, 2 epochs."""
    folder = tmp_path_factory.mktemp("strange")
    one = made_study.experiment("a.b-c_d", epochs=2, note="<i>note</i>")
    chosen = Study(name="s", title="<script>alert(1)</script>", experiments=(one,), seeds=1)
    data = made_study.dataset(classes=NAMES, shape=(6, 9), name="own <set>", fallback="no <net>")
    made_study.write(folder, data=data, chosen=chosen, skills=(1.0,))
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def strange(odd: Path) -> Page:
    return Page((odd / "report.html").read_text("utf-8"))


def test_one_file_and_its_figures(folder: Path) -> None:
    html = folder / "report.html"
    assert 100_000 < html.stat().st_size < 2_000_000
    figures = {path.name for path in (folder / "figures").iterdir()}
    stems = {name.rpartition(".")[0] for name in figures}
    assert figures == {f"{stem}{ending}" for stem in stems for ending in (".png", ".svg")}
    assert {"results", "samples", "means", "confusion-alpha", "misread-alpha", "curves-beta",
            "model-gamma", "calibration-gamma", "class-distribution"} <= stems  # fmt: skip
    for path in (folder / "figures").glob("*.png"):
        with Image.open(path) as image:
            assert image.getpixel((0, 0))[:3] == (255, 255, 255)
    assert not list(folder.rglob("*.part"))


def test_nothing_is_loaded_and_nothing_runs(page: Page, strange: Page) -> None:
    for one in (page, strange):
        tags = {tag for tag, _ in one.elements}
        assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
        for _, attributes in one.elements:
            for name, value in attributes.items():
                assert not name.startswith("on")
                assert not re.search(r"https?:|//", value or "") or (value or "").startswith(
                    "data:"
                )
                if name in ("src", "href"):
                    assert (value or "").startswith(("data:image/png;base64,", "#"))


def test_the_style_loads_nothing(folder: Path) -> None:
    text = (folder / "report.html").read_text("utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    assert "@import" not in style
    assert "url(" not in style
    for mode in ("prefers-color-scheme: dark", "@media print", "max-width: 39.99rem"):
        assert mode in style


def test_every_picture_has_words(page: Page, strange: Page) -> None:
    for one in (page, strange):
        assert one.all("img")
        for attributes in one.all("img"):
            assert attributes["alt"]
        for attributes in one.all("svg"):
            assert attributes["role"] == "img"
            assert attributes["aria-label"]


def test_headings_descend_one_level_at_a_time(page: Page, strange: Page) -> None:
    for one in (page, strange):
        levels = [level for level, _ in one.headings]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(later <= earlier + 1 for earlier, later in pairwise(levels))


def test_all_sections_are_there(page: Page) -> None:
    sections = [words for level, words in page.headings if level == 2]
    assert sections == [
        "The validation data are the test images",
        "Findings",
        "Results",
        "Which differences are real",
        "The data",
        "Training",
        "The networks",
        "Hard images",
        "How to read the numbers",
        "How to reproduce this",
    ]
    for name in ("alpha", "beta", "gamma"):
        place = page.headings.index((3, name))
        parts = [words for level, words in page.headings[place + 1 : place + 9] if level == 4]
        assert parts == PARTS


def test_ids_are_unique_and_every_reference_is_met(page: Page, strange: Page) -> None:
    for one in (page, strange):
        ids = [a["id"] for _, a in one.elements if "id" in a]
        assert len(set(ids)) == len(ids)
        for _, attributes in one.elements:
            for name, value in attributes.items():
                value = value or ""
                if name == "aria-labelledby" and value:
                    assert value in ids
                elif name == "href":
                    assert not value.startswith("#") or value[1:] in ids
            for name in re.findall(
                r"url\(#([^)]+)\)", " ".join(v or "" for v in attributes.values())
            ):
                assert name in ids


def test_tables_are_square_with_named_rows_and_columns(folder: Path) -> None:
    text = (folder / "report.html").read_text("utf-8")
    tables = re.findall(r"<table.*?</table>", text, re.S)
    assert len(tables) == 10 + 3 * 4
    for table in tables:
        heads = table.count('<th scope="col"')
        rows = re.findall(r"<tr>(.*?)</tr>", table, re.S)[1:]
        assert {row.count("<td") + row.count('<th scope="row"') for row in rows} == {heads}
        assert all(row.count('<th scope="row"') == 1 for row in rows)


def test_whatever_may_scroll_can_be_reached_by_keyboard(page: Page) -> None:
    boxes = [a for a in page.all("div") if "scroll" in (a.get("class") or "").split()]
    assert len(boxes) > 20
    for box in boxes:
        assert box["tabindex"] == "0"
        assert box.get("aria-label") or box.get("aria-labelledby")


def test_names_are_text_and_never_tags(strange: Page) -> None:
    for name in NAMES:
        assert name in strange.text
    assert strange.headings[0] == (1, "<script>alert(1)</script>")
    assert "<i>note</i>" in strange.text
    assert "no <net>" in strange.text
    alts = [a["alt"] or "" for a in strange.all("img")]
    assert any(re.search(r"^true .*, said .* with \d+", alt) for alt in alts)
    assert any(NAMES[3] in alt for alt in alts)


def test_the_substitute_data_is_told_before_everything_else(strange: Page, page: Page) -> None:
    heard = strange.text.partition("Skip to the results")[2]
    assert heard.strip().startswith("Not the data that the study is about. no <net>.")
    assert "Not the data" not in page.text


def test_that_the_validation_data_are_the_test_images_is_told_first(page: Page) -> None:
    assert page.headings[1] == (2, "The validation data are the test images")
    assert "the same 200 test images" in page.text


def test_the_gallery_shows_the_misread_images_surest_first(folder: Path, page: Page) -> None:
    alts = [a["alt"] or "" for a in page.all("img")]
    shown = [alt for alt in alts if re.match(r"true \d, said \d with", alt)]
    assert len(shown) >= 3
    seed = re.search(r"misread images are those of seed (\d)", page.text)
    assert seed is not None
    said = runs.Run.open(folder / f"alpha-s{seed[1]}").predictions()
    sure = np.where(said.predicted != said.labels, said.probabilities.max(axis=1), -1)
    worst = int(sure.argmax())
    assert shown[0].startswith(f"true {said.labels[worst]}, said {said.predicted[worst]} with")
    sources = [a["src"] or "" for a in page.all("img") if a["alt"] == shown[0]]
    data = base64.b64decode(sources[0].partition(",")[2])
    with Image.open(io.BytesIO(data)) as image:
        kept = next(iter(folder.glob("data-*")))
        images = np.load(kept / "pictures.npz")["test_images"]
        assert np.array_equal(255 - np.asarray(image), images[worst])


def test_what_a_reader_needs_to_reproduce_it(page: Page) -> None:
    assert "rowwise study study.json --seeds 3 --data FOLDER --out again" in page.text
    assert "rowwise report again" in page.text
    assert made_study.dataset().digest in page.text
    assert re.search(r'pip install "rowwise\[study,torch\]==\d', page.text)


@pytest.mark.parametrize("which", ["odd", pytest.param("folder", marks=pytest.mark.slow)])
def test_another_process_without_engine_or_network_writes_the_same_bytes(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(which)
    code = (
        "import socket, sys; socket.socket.connect = None; from rowwise import report; "
        "print(report.write(sys.argv[1], out=sys.argv[2])); "
        "heavy = {'torch', 'keras', 'matplotlib.pyplot'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    out = tmp_path / "deep" / "again.html"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(out)],
        check=True, capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": "7"},
    )  # fmt: skip
    assert done.stdout.strip() == str(out)
    assert out.read_bytes() == (folder / "report.html").read_bytes()
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names == {path.name for path in (out.parent / "figures").iterdir()}
    for name in names:
        again = (out.parent / "figures" / name).read_bytes()
        assert again == (folder / "figures" / name).read_bytes(), name


def test_a_hundred_classes_and_a_large_gallery_stay_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "png", lambda drawn: b"")  # the slower half, and not looked at
    names = [f"class {place}" for place in range(100)]
    data = made_study.dataset(classes=names, train=500, test=1500)
    chosen = made_study.study(("a",), seeds=2)
    folder = made_study.write(tmp_path / "s", data=data, chosen=chosen, skills=(2.0,))
    html = report.write(folder)
    assert html.stat().st_size < 1_500_000
    page = Page(html.read_text("utf-8"))
    assert "The first 20 classes." in page.text
    assert "The first 200 are here." in page.text
    assert "class 99" in page.text  # in the table by class


def test_a_folder_without_runs_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="a report needs runs"):
        report.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_jinja_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtra, match=r"jinja2.*rowwise\[study\]"):
        report.render(summarise(folder), {})


def test_data_can_be_drawn_alone(tmp_path: Path) -> None:
    data = made_study.dataset(classes=("x", "y"), train=5, test=4)
    files = report.draw_data(data, describe(data), tmp_path / "figures")
    assert sorted(path.name for path in files) == sorted(
        f"{name}{ending}"
        for name in ("class-distribution", "samples", "means")
        for ending in (".png", ".svg")
    )
    assert all(path.stat().st_size > 500 for path in files)
    assert "Training data: 5 images" in (tmp_path / "figures/class-distribution.svg").read_text()


def test_mnist_pictures_survive_the_way_into_the_page(
    mnist: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing, "png", lambda drawn: b"")
    chosen = made_study.study(("a",), seeds=1)
    folder = made_study.write(tmp_path / "s", data=mnist, chosen=chosen, skills=(6.0,))
    page = Page(report.write(folder).read_text("utf-8"))
    assert "MNIST: 60,000 training and 10,000 test images of 28 × 28 grey pixels" in page.text
    kept = album.find(folder, mnist.digest)
    assert kept is not None
    mean = next(a for a in page.all("img") if (a["alt"] or "").startswith("mean of 5,923"))
    with Image.open(io.BytesIO(base64.b64decode((mean["src"] or "").partition(",")[2]))) as image:
        ink = 255 - np.asarray(image).astype(float)
        assert np.abs(ink - kept.means[0] * 255 / kept.means.max()).max() <= 0.51
