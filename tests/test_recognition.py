"""`rowwise predict` and `rowwise models`: what is found, what is told, how they leave."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_models
import numpy as np
import pytest
from made_models import page
from made_terminal import Terminal
from PIL import Image

from rowwise import image, recognition
from rowwise.errors import ConfigError, PictureError
from rowwise.recognise import Recogniser


@pytest.fixture(autouse=True)
def shipped(tmp_path, monkeypatch) -> Path:
    promise = (made_models.PROMISE,)
    models = (made_models.rows(promises=promise), made_models.best(promises=promise))
    return made_models.ship(tmp_path / "models", monkeypatch, *models)


@pytest.fixture
def folder(home) -> Path:
    """The working folder, with pictures of 0 to 4 and other things in it."""
    place = Path("digits")
    (place / "more/.hidden").mkdir(parents=True)
    for d in range(5):
        Image.fromarray(page(d)).save(place / ("more" if d > 2 else ".") / f"{d}.png")
    (place / "notes.txt").write_text("no picture")
    (place / ".hidden.png").write_text("hidden")
    (place / "more/.hidden/5.png").write_text("hidden")
    (place / "UPPER.JPG").write_bytes(jpeg(page(6)))
    return place


def jpeg(array: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "JPEG")
    return data.getvalue()


def digits(*arrays: np.ndarray) -> list[str]:
    return [reading.label for reading in Recogniser.load(threads=1).read_many(arrays)]


def columns(out: str) -> list[list[str]]:
    return [line.split("\t") for line in out.splitlines()]


# --- which pictures ---------------------------------------------------------------------------


def test_a_folder_is_the_pictures_below_it_in_order(folder):
    assert recognition.found(["digits"]) == [
        f"digits/{name}"
        for name in ("0.png", "1.png", "2.png", "UPPER.JPG", "more/3.png", "more/4.png")
    ]


def test_a_folder_that_may_not_be_listed_is_told(folder, monkeypatch):
    walk = os.walk

    def closed(place, onerror):
        onerror(PermissionError(13, "Permission denied", "digits/closed"))
        return walk(place)

    monkeypatch.setattr(os, "walk", closed)
    *_, missing = recognition.found(["digits"])
    with pytest.raises(PictureError, match="digits/closed: cannot be listed: Permission denied; "):
        missing.read()


def test_a_pattern_is_what_it_matches_and_a_name_is_itself(folder):
    assert recognition.found(["digits/*.png"]) == [f"digits/{d}.png" for d in range(3)]
    assert recognition.found(["digits/**/[34].png"]) == ["digits/more/3.png", "digits/more/4.png"]
    Path("a[1].png").write_bytes(b"x")
    named = ["a[1].png", "digits/notes.txt", "none.png", "-"]
    assert recognition.found(named) == named


def test_what_gives_no_picture_fails_in_its_place_and_stops_nothing(folder, rowwise):
    Path("empty").mkdir()
    Path("digits/dangling.png").symlink_to("nowhere.png")
    told = rowwise("predict", "empty", "digits/0.png", "digits/*.tif", "digits/d*.png", "--json")
    assert told.code == 1
    assert told.err == "rowwise: 3 of 4 pictures could not be read; the result says why\n"
    trees = [json.loads(line) for line in told.out.splitlines()]
    places = ["empty", "digits/0.png", "digits/*.tif", "digits/dangling.png"]
    assert [tree["picture"] for tree in trees] == places
    none = "expected pictures, found none there; name their files"
    assert trees[0]["error"] == f"empty: {none}"
    assert trees[1]["error"] is None
    assert trees[2]["error"] == f"digits/*.tif: {none}"
    assert "No such file" in trees[3]["error"]


def test_stdin_is_read_once():
    with pytest.raises(ConfigError, match="stdin is read once"):
        recognition.found(["-", "-"])


# --- predict ----------------------------------------------------------------------------------


def test_a_line_a_picture(folder, rowwise):
    told = rowwise("predict", "digits", "--threads", 1)
    assert (told.code, told.err) == (0, "")
    rows = columns(told.out)
    assert [row[0] for row in rows] == recognition.found(["digits"])
    assert [row[1] for row in rows[:3]] == digits(page(0), page(1), page(2))
    assert {row[3] for row in rows} <= {"accepted", "unsure"}


def test_a_broken_file_is_a_line_and_the_exit_code(folder, rowwise):
    Path("broken.png").write_bytes(Path("digits/1.png").read_bytes()[:99])
    told = rowwise("predict", "broken.png", "none.png", "digits/1.png", "digits/notes.txt")
    assert told.code == 1
    assert told.err == "rowwise: 3 of 4 pictures could not be read; the result says why\n"
    rows = columns(told.out)
    assert [row[0] for row in rows] == [
        "broken.png",
        "none.png",
        "digits/1.png",
        "digits/notes.txt",
    ]
    assert [row[3] == "failed" for row in rows] == [True, True, False, True]
    assert rowwise("predict", "none.png").err.startswith("rowwise: the picture could not be read")


def test_no_ink_and_doubt_are_no_failures(home, rowwise, shipped):
    Image.new("L", (50, 50), 255).save("blank.png")
    doubting = made_models.PROMISE.model_copy(update={"confidence": 1.0})
    made_models.best(promises=(doubting,)).save(shipped / "doubting.safetensors")
    Image.fromarray(page(3)).save("3.png")
    told = rowwise("predict", "blank.png", "3.png", "--model", shipped / "doubting.safetensors")
    assert (told.code, told.err) == (0, "")
    assert [row[3] for row in columns(told.out)] == ["no ink", "unsure"]


def test_json_csv_and_other_models(folder, rowwise):
    tree = json.loads(rowwise("predict", "digits/1.png", "--json", "--model", "rows").out)
    reading = Recogniser.load("rows", threads=1).read("digits/1.png")
    assert tree["digit"] == reading.digit
    assert tree["confidence"] == pytest.approx(reading.confidence, abs=1e-5)
    lines = rowwise("predict", "digits", "--csv").out.splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("picture,page,digit,")
    told = rowwise("predict", "digits/1.png", "--csv", "--json")
    assert told.code == 1
    assert "a result has one form" in told.err


def test_an_error_rate_is_one_that_is_promised(folder, rowwise):
    assert rowwise("predict", "digits/1.png", "--error-rate", 0.001).code == 0
    told = rowwise("predict", "digits/1.png", "--error-rate", 0.2)
    assert (told.code, told.out) == (1, "")
    assert "promises (0.001), got 0.2" in told.err


def test_pages_are_read_each_or_the_first(home, rowwise):
    first, *others = (Image.fromarray(page(d)) for d in (1, 2, 3))
    first.save("scan.tif", save_all=True, append_images=others)
    rows = columns(rowwise("predict", "scan.tif").out)
    assert [row[0] for row in rows] == ["scan.tif", "scan.tif page 2", "scan.tif page 3"]
    assert [row[1] for row in rows] == digits(page(1), page(2), page(3))
    assert len(columns(rowwise("predict", "scan.tif", "--first-page").out)) == 1


def test_stdin_is_a_picture(folder, rowwise, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(Path("digits/2.png").read_bytes())

    monkeypatch.setattr(sys, "stdin", Stdin())
    told = rowwise("predict", "-", "--json")
    assert json.loads(told.out)["label"] == digits(page(2))[0]


def test_an_explanation_is_drawn_beside_the_result(folder, rowwise):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'rowwise[study]'")
    told = rowwise("predict", "digits/1.png", "--explain", "why.png")
    assert told.code == 0
    assert len(columns(told.out)) == 1
    assert told.err.startswith("why.png: ")
    with Image.open("why.png") as drawn:
        drawn.verify()
    for given, rule in (
        (("digits/1.png", "--explain", "why.pdf"), "drawn as .png or .svg"),
        (("digits", "--explain", "why.png"), "takes one picture, got 6"),
    ):
        told = rowwise("predict", *given)
        assert (told.code, told.out) == (1, "")
        assert rule in told.err


def link(kind: str, target: str) -> None:
    os.symlink(target, "same.png") if kind == "symlink" else os.link(target, "same.png")


@pytest.mark.parametrize("kind", ["itself", "symlink", "hard link"])
def test_an_explanation_does_not_overwrite_the_picture(kind, folder, rowwise):
    out = "digits/1.png"
    if kind != "itself":
        link(kind, out)
        out = "same.png"
    before = Path("digits/1.png").read_bytes()
    told = rowwise("predict", "digits/1.png", "--explain", out)
    assert (told.code, told.out) == (1, "")
    assert told.err == (
        f"rowwise: {out}: an output overwrites no input, and this one is the input digits/1.png; "
        "name another file\n"
    )
    assert Path("digits/1.png").read_bytes() == Path(out).read_bytes() == before


def test_nor_what_came_through_stdin_nor_the_model(folder, rowwise, shipped, monkeypatch):
    kept = os.dup(0)
    opened = os.open("digits/1.png", os.O_RDONLY)
    os.dup2(opened, 0)
    try:
        told = rowwise("predict", "-", "--explain", "digits/1.png")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(opened)
    assert told.err.endswith("this one is the input stdin; name another file\n")
    model = made_models.best()
    model.save(Path("model.png"))
    told = rowwise("predict", "digits/1.png", "--model", "model.png", "--explain", "model.png")
    assert told.code == 1
    assert "is the input model.png" in told.err


ODD = os.fsdecode(b"\xff\x1b[31m.png")  # no UTF-8, and a terminal's escape sequence


@pytest.mark.parametrize("form", [(), ("--csv",), ("--json",)])
def test_names_of_any_bytes_are_told_and_obeyed_by_no_terminal(form, home, shipped):
    Image.fromarray(page(3)).save(io.BytesIO(), "PNG")
    data = io.BytesIO()
    Image.fromarray(page(3)).save(data, "PNG")
    Path(ODD).write_bytes(data.getvalue())
    Path("none" + ODD).symlink_to("nowhere")
    made = process(shipped, ODD, "none" + ODD, *form)
    out, err = made.communicate(timeout=60)
    assert made.returncode == 1
    assert "\x1b" not in out + err
    assert err == "rowwise: 1 of 2 pictures could not be read; the result says why\n"
    lines = out.splitlines()
    if form == ("--json",):
        assert [json.loads(line)["picture"] for line in lines] == [ODD, "none" + ODD]
    else:
        shown = r"\udcff\x1b[31m.png"
        assert [line.startswith((shown, "none" + shown)) for line in lines[-2:]] == [True, True]


@pytest.mark.parametrize("table", [False, True], ids=["a pipe", "a terminal"])
def test_every_row_is_there_though_a_bar_is_shown(table, home, shipped):
    Image.fromarray(page(4)).save("4.png")
    count = recognition.MANY + 7
    code = PROGRAM.format(before="")
    given = [sys.executable, "-c", code, shipped, "predict", *["4.png"] * count, "--json"]
    with Terminal(given, stdout=None if table else subprocess.PIPE) as made:
        out, screen = made.end()
    assert made.code == 0
    assert "━" in made.told
    lines = screen if table else out.decode().splitlines()
    assert [json.loads(line)["digit"] for line in lines if line] == [
        Recogniser.load(threads=1).read(page(4)).digit
    ] * count


def test_a_table_on_a_terminal_escapes_what_names_hold(home, shipped):
    Path(ODD).symlink_to("nowhere")
    with Terminal(
        [sys.executable, "-c", PROGRAM.format(before=""), shipped, "predict", ODD]
    ) as made:
        made.end()
    assert made.code == 1
    assert r"\udcff\x1b[31m.png" in made.told
    assert "\x1b[31m.png" not in made.told


def test_an_explanation_of_a_name_that_is_no_utf_8(home, shipped, rowwise):
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'rowwise[study]'")
    data = io.BytesIO()
    Image.fromarray(page(3)).save(data, "PNG")
    Path(ODD).write_bytes(data.getvalue())
    out = os.fsdecode(b"why\xfe.svg")
    made = process(shipped, ODD, "--explain", out)
    told, err = made.communicate(timeout=60)
    assert made.returncode == 0, err
    assert len(told.splitlines()) == 1
    assert r"\udcff\x1b[31m.png" in Path(out).read_text()


# --- as a process -----------------------------------------------------------------------------

PROGRAM = """
import pathlib, sys, rowwise.model
place = pathlib.Path(sys.argv.pop(1))
rowwise.model.folder = lambda: place
{before}
from rowwise.cli import main
main()
"""


def process(shipped: Path, *arguments: str, before: str = "", **options) -> subprocess.Popen:
    code = PROGRAM.format(before=before)
    command = [sys.executable, "-c", code, str(shipped), "predict", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_what_libraries_print_does_not_reach_stderr(home, shipped):
    data = io.BytesIO()
    Image.fromarray(page(4)).save(data, "TIFF", compression="tiff_lzw")
    broken = bytearray(data.getvalue())
    broken[200:260] = bytes([255]) * 60
    Path("broken.tif").write_bytes(broken)
    shouting = "import os, rowwise.image as i; n = i.normalise;"
    shouting += "i.normalise = lambda p: (os.write(2, b'from C'), n(p))[1]"
    Image.fromarray(page(4)).save("4.png")
    made = process(shipped, "broken.tif", "4.png", "none.png", before=shouting)
    out, err = made.communicate(timeout=60)
    assert made.returncode == 1, err
    assert len(out.splitlines()) == 3
    assert err.endswith("of 3 pictures could not be read; the result says why\n")
    assert len(err.splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_ctrl_c_leaves_with_what_was_read(home, shipped):
    Image.fromarray(page(4)).save("4.png")
    slow = "import time, rowwise.image as i; n = i.normalise;"
    slow += "i.normalise = lambda p: (time.sleep(0.1), n(p))[1]"
    made = process(shipped, *["4.png"] * 3000, before=slow)
    assert made.stdout is not None
    time.sleep(0.1)
    first = made.stdout.readline() if os.environ.get("PYTHONUNBUFFERED") else ""
    time.sleep(3)
    made.send_signal(signal.SIGINT)
    out, err = made.communicate(timeout=60)
    assert made.returncode == 130, err
    assert 0 < len((first + out).splitlines()) < 3000
    assert err == "rowwise: interrupted\n"


# --- models -----------------------------------------------------------------------------------


def test_models_lists_what_ships(rowwise):
    lines = rowwise("models").out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "best", "rows"]
    assert "0.1 %" in lines[1]
    trees = json.loads(rowwise("models", "--json").out)
    assert [tree["name"] for tree in trees] == ["best", "rows"]
    assert [tree["row_by_row"] for tree in trees] == [False, True]
    assert trees[0]["promises"][0]["confidence"] == made_models.PROMISE.confidence
    assert trees[0]["parameters"] == made_models.best().network.count
    assert trees[0]["bytes"] == 4 * trees[0]["parameters"]


def test_models_without_any_says_so(rowwise, tmp_path, monkeypatch):
    monkeypatch.setattr("rowwise.model.folder", lambda: tmp_path)
    assert rowwise("models").out == "no models: this package was built without them\n"
    assert json.loads(rowwise("models", "--json").out) == []


def test_a_card_says_what_is_known(rowwise, tmp_path, monkeypatch):
    figures = (("MNIST test accuracy", 0.9931), ("expected calibration error", 0.0042))
    card = {"data": "mnist", "seed": 7, "version": "0.3.0", "temperature": 1.25}
    model = made_models.rows(promises=(made_models.PROMISE,), figures=figures, **card)
    model.save(tmp_path / "mine.safetensors")
    told = rowwise("models", tmp_path / "mine.safetensors").out
    for part in ("learnt from mnist by rowwise 0.3.0, seed 7", "1.25", "12.00 %", "0.1 %",
                 "5,800 were accepted", "1 of them misread", "99.31", "0.42", "GRU"):  # fmt: skip
        assert part in told
    made_models.rows().save(tmp_path / "plain.safetensors")
    told = rowwise("models", tmp_path / "plain.safetensors").out
    assert "no reading is accepted unless --error-rate says so: the model promises no" in told
    with monkeypatch.context() as patch:
        patch.setattr(image, "READER", image.READER + 1)
        told = rowwise("models", tmp_path / "mine.safetensors").out
        assert "thresholds were set for an older way" in told
        assert "promise: " not in told
    tree = json.loads(rowwise("models", tmp_path / "mine.safetensors", "--json").out)
    assert tree["figures"] == dict(figures)
    assert rowwise("models", "bets").code == 1


def test_a_card_is_obeyed_by_no_terminal(home, rowwise, monkeypatch, tmp_path):
    evil = "\x1b]0;pwned\x07\u202e"
    card = {"data": evil, "version": evil, "figures": ((evil, 0.5),)}
    model = made_models.rows(**card)
    model.card = model.card.model_copy(update={"name": evil})
    model.classes = (evil, *model.classes[1:])
    model.save(Path("evil.safetensors"))
    for made in (rowwise("models", "evil.safetensors"), rowwise("models", "nono" + evil)):
        assert "\\x1b]0;pwned" in made.out + made.err
        assert not {"\x1b", "\x07", "\u202e"} & set(made.out + made.err)
    monkeypatch.setattr("rowwise.model.folder", lambda: Path().absolute())
    assert "\\x1b]0;pwned" in (listed := rowwise("models").out)
    assert "\x1b" not in listed
    Image.fromarray(page(4)).save("4.png")
    head = rowwise("predict", "4.png", "--csv", "--model", "evil.safetensors").out
    assert "\x1b" not in head
    assert "p_\\x1b]0;pwned" in head
