"""The figures of a study: each with its name, its caption, and the words that stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rowwise import augment, curves, diagram, figures, pictures
from rowwise.comparison import proportion_interval
from rowwise.curves import Curve
from rowwise.diagram import Box
from rowwise.drawing import SHOWN_CLASSES
from rowwise.figures import FEW, Bin, Counts, Result
from rowwise.findings import measure, places
from rowwise.network import Node, Shape
from rowwise.pictures import Misread
from rowwise.summary import NetworkSummary, StudySummary
from rowwise.wording import LEVEL, between, count, listed, percent, points, several

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GALLERY = 48  # misread digits that a page and a figure show at once


class Illustration(NamedTuple):
    """A figure, the name of its files, its caption, and what a screen reader says."""

    name: str
    drawn: Figure
    caption: str
    label: str


def study_figures(study: StudySummary) -> tuple[Illustration, ...]:
    """The figures of the study as a whole: data, results, curves, distributions."""
    found = [results(study), overview(study, accuracy=True), overview(study, accuracy=False)]
    found += [class_distribution(study), said_distribution(study), pixel_values(study)]
    found += _sheets(study)
    limits = _limits(study)
    for place, network in enumerate(study.networks):
        found.append(network_curves(network, place, *limits))
    return tuple(found)


def network_figures(study: StudySummary, network: NetworkSummary) -> tuple[Illustration, ...]:
    """The figures of one network: plot, confusion matrix, calibration, distortions, gallery."""
    found = [model_plot(network), confusion(study, network), calibration(study, network)]
    if network.experiment.augmentation is not None:
        found.append(augmented(study, network))
    if network.model.misread:
        found.append(gallery(study, network))
    return tuple(found)


def results(study: StudySummary) -> Illustration:
    """Each network's seeds, mean, interval and published figure."""
    rows, told = [], []
    exact = places(study)
    for network in study.networks:
        score = network.test_accuracy
        single = score.n == 1
        # A published validation accuracy stands only beside validation accuracies.
        comparable = network.published is not None and study.test_is_validation
        published = network.published.val_accuracy if network.published and comparable else None
        rows.append(
            Result(
                name=network.name,
                scores=[run.test_accuracy for run in network.runs],
                mean=score.mean,
                low=None if single else score.low,
                high=None if single else score.high,
                published=published,
            )
        )
        words = f"{network.name} {percent(score.mean, exact)}"
        words += "" if single else f", interval {between(score.low, score.high, exact)}"
        words += "" if published is None else f", published {percent(published, exact)}"
        told.append(words)
    beside = ", and the published figure" if any(row.published for row in rows) else ""
    several_seeds = any(len(row.scores) > 1 for row in rows)
    means = f", their mean with its {LEVEL} interval" if several_seeds else ""
    return Illustration(
        "results",
        figures.results(rows, measure=measure(study)),
        f"{measure(study).capitalize()} of each network: every seed{means}{beside}.",
        f"Results: {'; '.join(told)}.",
    )


def overview(study: StudySummary, *, accuracy: bool) -> Illustration:
    """The validation curves of all networks on one scale."""
    lines = [_curve(network, accuracy=accuracy) for network in study.networks]
    word = "accuracy" if accuracy else "loss"
    ends = [
        f"{network.name} ends at {percent(network.val_accuracy.mean, places(study))}"
        if accuracy
        else f"{network.name} ends at {_last_loss(network):.3f}"
        for network in study.networks
    ]
    return Illustration(
        f"validation-{word}",
        curves.overview(lines, accuracy=accuracy),
        f"Validation {word} after each epoch: the mean over seeds, and a band from the lowest seed "
        "to the highest.",
        f"Validation {word} by epoch: {'; '.join(ends)}.",
    )


def network_curves(
    network: NetworkSummary,
    place: int,
    loss_range: tuple[float, float],
    accuracy_range: tuple[float, float],
) -> Illustration:
    """Loss and accuracy of one network, training and validation."""
    loss, accuracy = (_curve(network, accuracy=kind) for kind in (False, True))
    return Illustration(
        f"curves-{network.name}",
        curves.training_curves(
            loss, accuracy, place=place, loss_range=loss_range, accuracy_range=accuracy_range
        ),
        "",
        f"Training curves of {network.name}: after the last epoch training accuracy "
        f"{percent(network.accuracy.mean)}, validation accuracy "
        f"{percent(network.val_accuracy.mean)}, validation loss {_last_loss(network):.3f}.",
    )


def _curve(network: NetworkSummary, *, accuracy: bool) -> Curve:
    training, validation = ("accuracy", "val_accuracy") if accuracy else ("loss", "val_loss")
    return Curve(
        network.name,
        [[getattr(epoch, training) for epoch in run.epochs] for run in network.runs],
        [[getattr(epoch, validation) for epoch in run.epochs] for run in network.runs],
    )


def _last_loss(network: NetworkSummary) -> float:
    return sum(run.epochs[-1].val_loss for run in network.runs) / len(network.runs)


def _limits(study: StudySummary) -> tuple[tuple[float, float], tuple[float, float]]:
    # One scale for all networks, so that their curves can be compared by eye.
    epochs = [e for network in study.networks for run in network.runs for e in run.epochs]
    losses = [value for epoch in epochs for value in (epoch.loss, epoch.val_loss)]
    rates = [100 * value for epoch in epochs for value in (epoch.accuracy, epoch.val_accuracy)]
    return _padded(losses), _padded(rates)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    margin = 0.05 * (max(values) - min(values)) or 0.05 * abs(max(values)) or 1.0
    return min(values) - margin, max(values) + margin


def class_distribution(study: StudySummary) -> Illustration:
    """How often each class occurs in the training and the test data."""
    data, names = study.data, study.data.identity.classes
    panels = [
        Counts(f"Training data: {count(data.train.size)} images", data.train.class_counts.tolist()),
        Counts(f"Test data: {count(data.test.size)} images", data.test.class_counts.tolist()),
    ]
    most, least = data.train.class_counts.argmax(), data.train.class_counts.argmin()
    return Illustration(
        "class-distribution",
        figures.class_distribution(panels, names),
        f"How often each class occurs in the training and in the test data.{_numbered(names)}",
        f"Class distribution: in the training data {names[most]} is the most frequent with "
        f"{count(data.train.class_counts[most])} images, {names[least]} the rarest with "
        f"{count(data.train.class_counts[least])}; all numbers are in the table.",
    )


def _numbered(names: Sequence[str]) -> str:
    many = len(names) > SHOWN_CLASSES
    return " Classes are numbered from 1 in the order of the table." if many else ""


def said_distribution(study: StudySummary) -> Illustration:
    """How often each network says each class, against how often it occurs."""
    true = study.data.test.class_counts
    classes = study.data.identity.classes
    panels, told = [], []
    for network in study.networks:
        said = network.model.confusion.sum(axis=0)
        panels.append(Counts(f"Said by {network.name}", said.tolist(), true.tolist()))
        most = int(abs(said - true).argmax())
        told.append(
            f"{network.name} says {classes[most]} {count(said[most])} times, it occurs "
            f"{count(true[most])} times"
        )
    return Illustration(
        "said-distribution",
        figures.class_distribution(panels, classes),
        "How often each network says each class of the test data; the line across a bar marks how "
        f"often the class occurs. One trained model of each network, the one with the middle score."
        f"{_numbered(classes)}",
        f"Distribution of what the networks say; where each is furthest off: {'; '.join(told)}.",
    )


def pixel_values(study: StudySummary) -> Illustration:
    """How often each grey value occurs in the test images."""
    data = study.data
    return Illustration(
        "pixel-values",
        figures.pixel_values(data.histogram, mean=data.test.pixel_mean),
        "Grey values of the test images, on a logarithmic scale.",
        f"Grey values: {percent(1 - data.test.ink, 1)} of the test pixels are background, the mean "
        f"grey value is {data.test.pixel_mean:.1f} of 255.",
    )


def _sheets(study: StudySummary) -> list[Illustration]:
    data, names = study.data, study.data.identity.classes
    limit = f", of the first {SHOWN_CLASSES} classes" if len(names) > SHOWN_CLASSES else ""
    return [
        Illustration(
            "samples",
            pictures.samples(data.samples, names),
            f"Training images of each class{limit}.",
            f"Training images of {several(len(names), 'class', 'classes')}.",
        ),
        Illustration(
            "means",
            pictures.mean_images(data.means, names),
            f"The mean of all training images of each class{limit}.",
            f"Mean training images of {several(len(names), 'class', 'classes')}.",
        ),
    ]


def model_plot(network: NetworkSummary) -> Illustration:
    """The layers with their shapes."""
    layers = [f"{node.type} {_shape(node.output_shape)}" for node in network.nodes]
    return Illustration(
        f"model-{network.name}",
        diagram.model_plot([_box(node) for node in network.nodes]),
        f"The layers of {network.name} with their shapes; None stands for the number of images in "
        "a batch.",
        f"Plot of the model {network.name}: {', then '.join(layers)}.",
    )


def augmented(study: StudySummary, network: NetworkSummary) -> Illustration:
    """What the augmentation makes of the training images that the data's sheet shows."""
    how, seed = network.experiment.augmentation, network.model.seed
    assert how is not None
    names, shown = study.data.identity.classes, study.data.samples
    flat = shown.reshape(-1, *shown.shape[2:])
    labels = np.repeat(np.arange(len(shown)), shown.shape[1])
    drawn, _ = augment.distort(flat, labels, how.without_outliers(), seed=seed, step=0)
    left_out = (
        f" Not shown: the {percent(how.outlier_share, 0)} that are made into no digit."
        if how.outlier_share
        else ""
    )
    limit = f", of the first {SHOWN_CLASSES} classes" if len(names) > SHOWN_CLASSES else ""
    return Illustration(
        f"augmented-{network.name}",
        pictures.samples(drawn.reshape(shown.shape), names),
        f"The training images of the sheet above as the augmentation of {network.name} distorts "
        f"them once; in training each is distorted anew in every epoch{limit}.{left_out}",
        f"Distorted training images of {several(len(names), 'class', 'classes')}.",
    )


def _box(node: Node) -> Box:
    shapes = [_shape(shape) for shape in node.input_shapes] or [_shape(node.output_shape)]
    inputs = shapes[0] if len(shapes) == 1 else f"[{', '.join(shapes)}]"
    return Box(node.name, node.type, inputs, _shape(node.output_shape), node.inbound)


def _shape(shape: Shape) -> str:
    return f"({', '.join(['None', *map(str, shape)])})"


def confusion(study: StudySummary, network: NetworkSummary) -> Illustration:
    """What the middle model takes for what."""
    names, model = study.data.identity.classes, network.model
    wrong = len(model.misread)
    scale = (
        "A number is a count, below it its share of the true class; the diagonal is right."
        if len(names) <= SHOWN_CLASSES
        else "The diagonal is right; the classes are too many for numbers."
    )
    return Illustration(
        f"confusion-{network.name}",
        figures.confusion(model.confusion, names),
        f"What {network.name} (seed {model.seed}) said of the test images. {scale} Errors are "
        "shaded by their share of the largest error.",
        f"Confusion matrix of {network.name}: {count(wrong)} of {count(len(model.predicted))} test "
        "images misread; the numbers are in the table below.",
    )


def calibration(study: StudySummary, network: NetworkSummary) -> Illustration:
    """How sure the middle model is against how often it is right."""
    found = network.model.calibration
    bins = []
    for sure, right, size in zip(found.confidence, found.accuracy, found.pictures, strict=True):
        if size:
            interval = proportion_interval(round(right * size), int(size))
            bins.append(Bin(float(sure), float(right), int(size), interval.low, interval.high))
    error = points(found.expected_error)
    return Illustration(
        f"calibration-{network.name}",
        figures.calibration(bins, error=found.expected_error),
        "Share of right answers against stated confidence, and how many answers had which "
        f"confidence. Below the dashed line: surer than right. Bars are {LEVEL} intervals; hollow: "
        f"fewer than {FEW} answers.",
        f"Calibration curve of {network.name}: expected calibration error {error} points; mean "
        f"confidence minus accuracy {points(network.model.overconfidence, sign=True)} points.",
    )


def gallery(study: StudySummary, network: NetworkSummary) -> Illustration:
    """The digits that the middle model misread, worst first."""
    names = study.data.identity.classes
    shown = [
        Misread(study.data.images[item.place], names[item.true], names[item.said], item.confidence)
        for item in network.model.misread[:GALLERY]
    ]
    first = [f"{item.true} read as {item.said}" for item in shown[:3]]
    return Illustration(
        f"misread-{network.name}",
        pictures.misread(shown),
        f"Test images that {network.name} misread, the surest mistakes first.",
        f"Misread test images of {network.name}, first {listed(first)}.",
    )
