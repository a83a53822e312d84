"""findings: each sentence follows from the runs, and claims no more than they carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import made_study
import numpy as np
import pytest

from rowwise import album, findings, runs
from rowwise.config import Published, Study
from rowwise.data import Dataset
from rowwise.findings import Finding
from rowwise.runs import EpochMetrics
from rowwise.summary import StudySummary, summarise
from rowwise.wording import THIN

Write = Callable[..., StudySummary]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def inside(
        scores: dict[str, Sequence[float]],
        *,
        data: Dataset | None = None,
        sure: float = 0.9,
        published: Published | None = None,
        metrics: Sequence[EpochMetrics] | None = None,
    ) -> StudySummary:
        """A study whose runs read the given shares of the test images rightly."""
        data = data or made_study.dataset(test=1000)
        experiments = tuple(
            made_study.experiment(name, epochs=3, published=published) for name in scores
        )
        seeds = max(map(len, scores.values()))
        runs.save_study(tmp_path, Study(name="s", experiments=experiments, seeds=seeds))
        album.keep(tmp_path, data)
        for experiment in experiments:
            for seed, score in enumerate(scores[experiment.name]):
                made_study.run(
                    tmp_path,
                    data,
                    experiment.model_copy(update={"seed": seed}),
                    probabilities=answers(data, score, sure),
                    metrics=metrics,
                )
        return summarise(tmp_path)

    return inside


def answers(data: Dataset, score: float, sure: float) -> np.ndarray:
    """Every answer has the confidence `sure`; the last images are taken for the next class."""
    size, classes = len(data.test_labels), len(data.classes)
    said = data.test_labels.copy()
    wrong = round((1 - score) * size)
    said[size - wrong :] = (said[size - wrong :] + 1) % classes
    shares = np.full((size, classes), (1 - sure) / (classes - 1), np.float32)
    shares[np.arange(size), said] = sure
    return shares


def epoch(number: int, loss: float, val_loss: float) -> EpochMetrics:
    return EpochMetrics(number, loss, 0.9, val_loss, 0.9, 1.0, 0.1, 10)


def topic(study: StudySummary, name: str) -> Finding:
    (found,) = [one for one in findings.findings(study) if one.topic == name]
    return found


def test_a_sure_winner(write: Write) -> None:
    study = write({"good": [0.98, 0.981, 0.979, 0.98], "bad": [0.90, 0.902, 0.899, 0.9]})
    found = findings.best_network(study)
    assert found.claim == "good reads best, and surely so."
    assert "It surely leads bad by 8.0 points" in found.detail
    assert "98.0" in found.detail


def test_a_lead_that_is_not_sure(write: Write) -> None:
    study = write({"one": [0.95, 0.97, 0.93], "other": [0.94, 0.92, 0.96]})
    found = findings.best_network(study)
    assert found.claim == "one reads best on average, but its lead over other is not sure."
    assert "which these seeds do not make sure" in found.detail


def test_a_winner_that_surely_beats_some(write: Write) -> None:
    study = write({"a": [0.95, 0.96, 0.94], "b": [0.945, 0.935, 0.96], "c": [0.5, 0.509, 0.491]})
    found = findings.best_network(study)
    assert found.claim == "a reads best on average: surely better than c, not surely better than b."
    assert "p is corrected after Holm for all 3 comparisons" in found.detail


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_seeds_tell_no_winner(write: Write, seeds: int) -> None:
    study = write({"good": [0.99, 0.98][:seeds], "bad": [0.6, 0.61][:seeds]})
    found = findings.best_network(study)
    assert "so few seeds cannot tell which network is best" in found.claim
    assert "surely" not in f"{found.claim} {found.detail}"
    assert "cannot be tested with so few seeds" in found.detail


def test_one_network_is_compared_with_nothing(write: Write) -> None:
    study = write({"solo": [0.9]})
    found = findings.best_network(study)
    assert found.claim == f"solo reads 90.0{THIN}% of the test images rightly."
    assert "nothing is known of how it varies" in found.detail
    topics = [one.topic for one in findings.findings(study)]
    assert not {"Trained models", "Time", "Hard images", "Published figures"} & set(topics)


def test_trained_models_on_the_same_images(write: Write) -> None:
    found = topic(write({"good": [0.99], "bad": [0.6]}), "Trained models")
    assert found.claim.startswith("Of the two best trained models, that of good surely")
    assert "good (seed 0) alone is right on 390, bad (seed 0) alone on 0" in found.detail


def test_trained_models_that_cannot_be_told_apart(write: Write) -> None:
    found = topic(write({"good": [0.991], "bad": [0.99]}), "Trained models")
    assert "cannot be told apart" in found.claim


@pytest.mark.parametrize(
    ("published", "claim", "where"),
    [
        (0.95, "The published figure lies where a further run of ours would fall.", "inside"),
        (0.99, "No published figure lies where a further run of ours would fall.", "above"),
        (0.50, "No published figure lies where a further run of ours would fall.", "below"),
    ],
)
def test_published_figures(write: Write, published: float, claim: str, where: str) -> None:
    study = write({"net": [0.95, 0.951, 0.949]}, published=Published(val_accuracy=published))
    found = topic(study, "Published figures")
    assert found.claim == claim
    assert f"{100 * published:.1f}{THIN}%, {where} " in found.detail


def test_one_seed_places_no_published_figure(write: Write) -> None:
    found = topic(
        write({"net": [0.95]}, published=Published(val_accuracy=0.2)), "Published figures"
    )
    assert found.claim.startswith("One seed cannot tell")


def test_two_seeds_say_that_they_say_little(write: Write) -> None:
    study = write({"net": [0.95, 0.96]}, published=Published(val_accuracy=0.9))
    assert "hardly any figure lies outside" in topic(study, "Published figures").detail


def test_confusions_name_both_directions(write: Write) -> None:
    data = made_study.dataset(classes=("cat", "dog", "emu"), test=300)
    found = topic(write({"net": [0.9, 0.8]}, data=data), "Confusions")
    assert "are taken for each other most often" in found.claim
    assert "On average over all 2 runs" in found.detail
    assert "cat is read as dog in" in found.detail
    assert "dog as cat in 0.0 of" in found.detail


def test_no_error_at_all(write: Write) -> None:
    found = topic(write({"net": [1.0]}), "Confusions")
    assert found.claim == "No test image was misread by any run."


@pytest.mark.parametrize(
    ("val_losses", "losses", "claim"),
    [
        ([0.5, 0.3, 0.4], [0.5, 0.3, 0.2], "net overfits in every run."),
        ([0.5, 0.4, 0.3], [0.5, 0.3, 0.2], "No network overfits yet."),
        ([0.5, 0.3, 0.302], [0.5, 0.3, 0.2], "No network overfits yet."),  # within 1 %
        ([0.5, 0.3, 0.4], [0.5, 0.3, 0.4], "No network overfits yet."),  # training worse as well
        ([0.5], [0.5], "One epoch cannot tell whether a network overfits."),
    ],
)
def test_overfitting(
    write: Write, val_losses: list[float], losses: list[float], claim: str
) -> None:
    rows = [
        epoch(number, loss, val_loss)
        for number, (loss, val_loss) in enumerate(zip(losses, val_losses, strict=True), 1)
    ]
    study = write({"net": [0.9, 0.9]}, metrics=rows)
    assert topic(study, "Overfitting").claim == claim


def test_a_gap_to_the_training_images_is_told_where_no_loss_has_turned(write: Write) -> None:
    rows = [EpochMetrics(1, 0.5, 0.8, 0.5, 0.8, 1, 0.1, 10)]
    rows.append(EpochMetrics(2, 0.1, 0.99, 0.4, 0.85, 1, 0.1, 10))
    found = topic(write({"net": [0.9, 0.9]}, metrics=rows), "Overfitting")
    assert found.claim == (
        "No validation loss has turned upward yet, but net reads the training images better than "
        "the validation images."
    )
    assert "net +14.0 (+14.0 to +14.0)" in found.detail


def test_one_run_overfits_in_its_run_only(write: Write) -> None:
    rows = [epoch(1, 0.5, 0.3), epoch(2, 0.2, 0.4)]
    found = topic(write({"net": [0.9]}, metrics=rows), "Overfitting")
    assert found.claim == "net overfits in its run."


@pytest.mark.parametrize(
    ("sure", "claim"),
    [
        (0.99, "net is surer than it is right."),
        (0.60, "net is less sure than it is right."),
        (0.80, "No model is surer, or less sure, than it is right."),
    ],
)
def test_calibration(write: Write, sure: float, claim: str) -> None:
    assert topic(write({"net": [0.8]}, sure=sure), "Calibration").claim == claim


def test_classes_balanced_or_not(write: Write, tmp_path: Path) -> None:
    even = made_study.dataset(train=4000)
    found = topic(write({"net": [0.9]}, data=even), "Classes")
    assert found.claim.startswith("The classes are nearly balanced")
    data = made_study.dataset(classes=("rare", "common"), train=100, test=100)
    labels = np.ones(100, np.int64)
    labels[:20] = 0
    skewed = Dataset(
        data.name, data.train_images, labels, data.test_images, labels, data.classes,
        data.source, "b" * 64,
    )  # fmt: skip
    made = made_study.write(
        tmp_path / "skewed", data=skewed, chosen=made_study.study(("net",), seeds=1)
    )
    found = topic(summarise(made), "Classes")
    assert found.claim.startswith("The classes are unbalanced")
    assert "4.00 times as many as the rarest, rare" in found.detail
    assert f"always said common would be right on 80.0{THIN}%" in found.detail


def test_hard_images(write: Write) -> None:
    found = topic(write({"a": [0.9, 0.8], "b": [0.95, 0.9]}), "Hard images")
    assert found.claim == "50 of 1,000 test images are misread by every one of the 4 runs."


def test_speed_is_compared_only_where_it_differs(write: Write) -> None:
    found = topic(write({"a": [0.9], "b": [0.8]}), "Time")
    assert found.claim == "An epoch takes about as long with each network."


def test_left_out_runs_come_first(tmp_path: Path) -> None:
    folder = made_study.write(tmp_path / "s")
    runs.Run.open(folder / "beta-s1").update(status="diverged", sentence="the loss became NaN.")
    first = findings.findings(summarise(folder))[0]
    assert first.topic == "Left out"
    assert first.claim == "1 run counts in no figure of this report."
    assert first.detail == "beta, seed 1: the loss became NaN."


def test_every_finding_is_a_sentence(tmp_path: Path) -> None:
    study = summarise(made_study.write(tmp_path / "s"))
    for found in findings.findings(study):
        assert found.claim.endswith(".")
        assert not found.detail or found.detail.endswith(".")
        assert "nan" not in f"{found.claim} {found.detail}".lower().split()
        assert "  " not in found.detail
