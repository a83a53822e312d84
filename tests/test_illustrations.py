"""illustrations: each figure has a name of its own and words that stand for it."""

from __future__ import annotations

from pathlib import Path

import made_study
import pytest

from rowwise import illustrations, pictures, runs
from rowwise.config import Augmentation, Published, Study
from rowwise.summary import StudySummary, summarise


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    return summarise(made_study.write(tmp_path_factory.mktemp("made")))


def test_names_are_unique_and_every_figure_has_words(study: StudySummary) -> None:
    found = list(illustrations.study_figures(study))
    for network in study.networks:
        found += illustrations.network_figures(study, network)
    names = [item.name for item in found]
    galleries = sum(bool(network.model.misread) for network in study.networks)
    assert len(set(names)) == len(names) == 8 + 3 + 3 * 3 + galleries
    for item in found:
        assert item.label.endswith(".")
        assert "nan" not in item.label.lower().split()
        assert not item.caption or item.caption.endswith(".")


def test_the_labels_carry_the_numbers(study: StudySummary) -> None:
    label = illustrations.results(study).label
    network = study.networks[0]
    assert f"alpha {100 * network.test_accuracy.mean:.1f}" in label
    assert "published 88.0" in label
    curve = illustrations.overview(study, accuracy=True).label
    assert f"gamma ends at {100 * study.networks[2].val_accuracy.mean:.1f}" in curve
    wrong = len(network.model.misread)
    assert f"{wrong} of 200 test images misread" in illustrations.confusion(study, network).label
    plot = illustrations.model_plot(network).label
    assert "InputLayer (None, 8, 8), then LSTM (None, 4), then Dense (None, 3)" in plot


def test_an_augmentation_shows_what_it_makes_of_the_samples(tmp_path: Path) -> None:
    how = Augmentation(rotation_deg=20.0, noise_share=1.0)
    chosen = Study(
        name="a",
        experiments=(made_study.experiment("plain"), made_study.experiment("x", augmentation=how)),
        seeds=1,
    )
    summary = summarise(made_study.write(tmp_path / "s", chosen=chosen))
    plain, distorted = (illustrations.network_figures(summary, n) for n in summary.networks)
    assert not [item for item in plain if item.name.startswith("augmented")]
    (item,) = (item for item in distorted if item.name == "augmented-x")
    sheet, samples = (
        [on.images[0].get_array() for on in drawn.axes]
        for drawn in (
            item.drawn,
            pictures.samples(summary.data.samples, summary.data.identity.classes),
        )
    )
    assert len(sheet) == len(samples)
    assert all((a != b).mean() > 0.5 for a, b in zip(sheet, samples, strict=True))


def test_a_published_validation_accuracy_does_not_stand_beside_test_accuracies(
    tmp_path: Path,
) -> None:
    held = made_study.experiment("held", validation=0.1, published=Published(val_accuracy=0.9))
    chosen = Study(name="h", experiments=(held,), seeds=1)
    item = illustrations.results(summarise(made_study.write(tmp_path / "s", chosen=chosen)))
    assert "published" not in item.label
    assert "published" not in item.caption


def test_curves_of_all_networks_share_one_scale(study: StudySummary) -> None:
    found = [i for i in illustrations.study_figures(study) if i.name.startswith("curves-")]
    assert len({item.drawn.axes[0].get_ylim() for item in found}) == 1
    assert len({item.drawn.axes[1].get_ylim() for item in found}) == 1


def test_branches_are_plotted_side_by_side(tmp_path: Path) -> None:
    layers = made_study.experiment("x").layers[:1]
    branched = {
        "name": "both",
        "epochs": 1,
        "branches": [
            {"reading": "rows", "layers": [one.model_dump() for one in layers]},
            {"reading": "columns", "layers": [one.model_dump() for one in layers]},
        ],
    }
    chosen = Study.model_validate({"name": "b", "experiments": [branched], "seeds": 1})
    folder = made_study.write(tmp_path / "s", chosen=chosen)
    assert runs.find(folder)[0].experiment.branches
    (network,) = summarise(folder).networks
    item = illustrations.model_plot(network)
    assert "Concatenate (None, 8)" in item.label
    assert item.drawn.get_size_inches()[0] * 72 > 2 * 232


def test_a_network_without_errors_has_no_gallery(study: StudySummary) -> None:
    network = study.networks[0]
    perfect = network._replace(model=network.model._replace(misread=()))
    names = [item.name for item in illustrations.network_figures(study, perfect)]
    assert names == ["model-alpha", "confusion-alpha", "calibration-alpha"]
