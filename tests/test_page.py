"""page: what the report says around its figures, for every kind of study."""

from __future__ import annotations

import base64
import io
import math
import shutil
from pathlib import Path
from typing import Any

import made_study
import numpy as np
import pytest
from PIL import Image

from rowwise.config import EarlyStopping, Study
from rowwise.page import MOST_MISREAD, content
from rowwise.summary import HardImage, summarise
from rowwise.wording import THIN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_study.write(tmp_path_factory.mktemp("made"))


def told(folder: Path, **settings: Any) -> dict[str, Any]:
    """The content of a study of one small network with these settings."""
    one = made_study.experiment("net", **settings)
    chosen = Study(name="s", experiments=(one, made_study.experiment("open")), seeds=1)
    data = made_study.dataset(test=60)
    return content(summarise(made_study.write(folder / "s", data=data, chosen=chosen)))


def test_the_head(folder: Path) -> None:
    said = content(summarise(folder))
    assert said["title"] == "A made-up study"
    assert said["kicker"] == "Report of 9 runs, 2026-01-02"
    assert said["lead"].startswith(
        "Three recurrent networks read the images of the data set made as sequences, each trained "
        "with three seeds."
    )
    facts = dict(said["facts"])
    assert facts["Images"] == "8 × 8 pixels, 10 classes"
    assert facts["Runs"] == "9"
    assert facts["Training time"] == f"44.1{THIN}s"


def test_other_data_than_the_study_is_about(folder: Path) -> None:
    study = summarise(folder)
    assert content(study)["other_data"] == ""
    assert content(study._replace(meant_for="mnist"))["other_data"] == (
        "The study is about MNIST, these runs read the data set made."
    )


def test_validation_on_the_test_images(folder: Path) -> None:
    said = content(summarise(folder))["validation"]
    assert said["head"] == "The validation data are the test images"
    assert "the same 200 test images" in said["text"]
    assert "The last epoch counts, not the best one" in said["text"]


def test_early_stopping_on_the_test_images_has_looked_at_them(tmp_path: Path) -> None:
    said = told(tmp_path, early_stopping=EarlyStopping())["validation"]
    assert "Early stopping looked at them too, for net" in said["text"]
    assert "The last epoch counts" not in said["text"]


def test_held_out_validation(tmp_path: Path) -> None:
    said = told(tmp_path, validation=0.1)["validation"]
    assert said["head"] == "For some networks the validation data are the test images"
    assert said["text"].startswith("open was validated on the 60 test images themselves")
    study = summarise(tmp_path / "s")
    alone = content(study._replace(networks=study.networks[:1]))["validation"]
    assert alone["head"] == "The validation data were held out of the training images"


def test_label_smoothing_is_told_where_losses_are(folder: Path, tmp_path: Path) -> None:
    assert content(summarise(folder))["losses"] == ""
    said = told(tmp_path, label_smoothing=0.1)
    assert said["losses"].startswith(
        "Every loss of net (0.1) counts the label smoothing given in brackets, in validation too"
    )
    about = [network["text"] for network in said["networks"]]
    assert ["label smoothing 0.1, " in text for text in about] == [True, False]


def test_runs_that_did_not_end(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "beta-s0")
    one = made_study.study().experiments[1]
    data = made_study.dataset()
    made_study.run(copy, data, one, status="diverged", sentence="the loss became NaN in epoch 2")
    said = content(summarise(copy))
    assert dict(said["facts"])["Runs"] == "8, 1 left out"
    assert said["findings"][0].detail == "beta, seed 0: the loss became NaN in epoch 2."
    assert "two to three" not in said["lead"]
    assert "each trained with 2 to 3 seeds" in said["lead"]


def test_a_network_says_how_it_was_trained(tmp_path: Path) -> None:
    said = told(tmp_path, validation=0.25, batch=32, epochs=4, note="As the teacher asked.")
    text = said["networks"][0]["text"]
    assert text.startswith("As the teacher asked. Reads the picture by rows; ")
    assert "adam with learning rate 0.001, batches of 32, 4 epochs, validated on" in text
    assert f"25{THIN}% held out" in text


def test_misread_images_are_split_at_the_gallery(tmp_path: Path) -> None:
    data = made_study.dataset(test=600)
    chosen = made_study.study(("net",), seeds=1)
    made = made_study.write(tmp_path / "s", data=data, chosen=chosen, skills=(0.5,))
    network = content(summarise(made))["networks"][0]
    assert len(network["misread"]) == 48
    assert len(network["misread"]) + len(network["misread_rest"]) == MOST_MISREAD
    assert "The first 200 are here." in network["misread_text"]
    first = network["misread"][0]
    assert first.alt == f"true {first.true}, said {first.said} with {first.note}"


def test_a_single_misread_image_is_one(tmp_path: Path) -> None:
    data = made_study.dataset(test=50)
    shares = np.eye(10, dtype=np.float32)[data.test_labels]
    shares[7] = np.roll(shares[7], 1)
    chosen = made_study.study(("net",), seeds=1)
    made = made_study.write(tmp_path / "s", data=data, chosen=chosen)
    shutil.rmtree(made / "net-s0")
    one = chosen.experiments[0].model_copy(update={"seed": 0})
    made_study.run(made, data, one, probabilities=shares)
    said = content(summarise(made))
    assert said["networks"][0]["misread_text"].startswith("1 test image of 50 was misread")
    assert f"> 99.9{THIN}%" in said["networks"][0]["misread"][0].alt


def test_hard_images_show_what_most_runs_said(folder: Path) -> None:
    study = summarise(folder)
    hard = content(study._replace(misread_by_all=(HardImage(3, 5, 7),)))["hard"]
    (shown,) = hard["pictures"]
    true = study.data.identity.classes[study.data.labels[3]]
    assert shown.alt == f"true {true}, said 5 by 7 of 9 runs"
    assert hard["text"].startswith("1 test image was misread by every one of the 9 runs")


def test_pictures_are_the_samples(folder: Path) -> None:
    study = summarise(folder)
    sheet = content(study)["data"]["samples"][4]
    assert sheet.alt == "10 training images of class 4"
    with Image.open(io.BytesIO(base64.b64decode(sheet.source.partition(",")[2]))) as image:
        pixels = 255 - np.asarray(image)
    assert pixels.shape == (sheet.height, sheet.width) == (8, 10 * 8 + 9 * 2)
    assert np.array_equal(pixels[:, 10:18], study.data.samples[4, 1])


def test_every_number_is_one(folder: Path) -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            value = tuple(value.values())
        if isinstance(value, list | tuple):
            for one in value:
                walk(one)
        elif isinstance(value, float):
            assert not math.isnan(value)
        elif isinstance(value, str) and not value.startswith("data:"):
            assert "nan" not in value.lower().split()

    walk(content(summarise(folder)))
