"""What the page of a study says and shows around its figures: sentences, tables, digits."""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowwise import pictures, tabulation
from rowwise.catalogue import KNOWN
from rowwise.drawing import SHOWN_CLASSES
from rowwise.findings import findings, measure, places
from rowwise.illustrations import GALLERY
from rowwise.summary import MisreadImage, NetworkSummary, StudySummary
from rowwise.wording import (
    confidence,
    count,
    duration,
    in_words,
    listed,
    percent,
    points,
    several,
    upper_first,
)

MOST_MISREAD = 200  # of a network in the page; of all networks' hard images 96
MOST_HARD = 96
LONG = 12  # epochs, from which on a table of epochs is folded


class Digit(NamedTuple):
    """A picture in the page: its data, what a screen reader says, and what stands below it."""

    source: str
    alt: str
    width: int = 0
    height: int = 0
    name: str = ""
    true: str = ""
    said: str = ""
    note: str = ""


def content(study: StudySummary) -> dict[str, Any]:
    """Everything that the template needs beside the figures, by the names that it uses."""
    data = study.data.identity
    rows, columns = data.shape
    return {
        "title": study.title,
        "other_data": _other_data(study),
        "kicker": _kicker(study),
        "lead": _lead(study),
        "facts": _facts(study),
        "validation": _validation(study),
        "losses": _losses(study),
        "findings": findings(study),
        "tables": _tables(study),
        "many_classes": len(data.classes) > SHOWN_CLASSES,
        "data": _data(study),
        "aspect": f"{columns} / {rows}",
        "networks": [_network(study, network) for network in study.networks],
        "networks_text": _networks_text(study),
        "hard": _hard(study),
        "reproduce": _reproduce(study),
    }


def _tables(study: StudySummary) -> dict[str, Any]:
    return {
        "results": tabulation.results(study),
        "published": tabulation.published(study),
        "differences": tabulation.differences(study),
        "models": tabulation.models(study),
        "classes": tabulation.classes(study),
        "said": tabulation.said(study),
        "pixels": tabulation.pixels(study),
        "training": tabulation.training(study),
        "environment": tabulation.environment(study),
        "runs": tabulation.runs(study),
    }


def _runs(study: StudySummary) -> int:
    return sum(len(network.runs) for network in study.networks)


def _other_data(study: StudySummary) -> str:
    if study.data.identity.fallback:
        return f"{study.data.identity.fallback}."
    if study.meant_for:
        meant = KNOWN[study.meant_for].title if study.meant_for in KNOWN else study.meant_for
        return f"The study is about {meant}, these runs read {data_title(study)}."
    return ""


def _kicker(study: StudySummary) -> str:
    days = sorted({run.started[:10] for network in study.networks for run in network.runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"Report of {several(_runs(study), 'run')}, {when}"


def data_title(study: StudySummary) -> str:
    """The name of the data set as it is written in prose."""
    name = study.data.identity.name
    return KNOWN[name].title if name in KNOWN else f"the data set {name}"


def _lead(study: StudySummary) -> str:
    each = {len(network.runs) for network in study.networks}
    fewest, number = min(each), len(study.networks)
    seeds = in_words(fewest) if len(each) == 1 else f"{fewest} to {max(each)}"
    text = (
        f"{in_words(number).capitalize()} recurrent "
        f"{'network reads' if number == 1 else 'networks read'} the images of "
        f"{data_title(study)} as sequences, {'' if number == 1 else 'each '}trained with "
        f"{seeds} {'seed' if max(each) == 1 else 'seeds'}."
    )
    if number > 1:
        best = max(study.networks, key=lambda network: network.test_accuracy.mean)
        text += (
            f" The highest mean {measure(study)} is "
            f"{percent(best.test_accuracy.mean, places(study))}, by {best.name}."
        )
    return f"{text} {study.note}".strip()


def _facts(study: StudySummary) -> list[tuple[str, str]]:
    data = study.data.identity
    spent = sum(run.seconds for network in study.networks for run in network.runs)
    engines = sorted({run.engine.name for network in study.networks for run in network.runs})
    rows, columns = data.shape
    return [
        ("Data", KNOWN[data.name].title if data.name in KNOWN else data.name),
        ("Images", f"{rows} × {columns} pixels, {several(len(data.classes), 'class', 'classes')}"),
        ("Training images", count(data.train)),
        ("Test images", count(data.test)),
        ("Networks", count(len(study.networks))),
        ("Runs", f"{_runs(study)}" + (f", {len(study.left_out)} left out" * bool(study.left_out))),
        ("Training time", duration(spent)),
        ("Engine", listed(engines)),
    ]


def _validation(study: StudySummary) -> dict[str, str]:
    images = count(study.data.identity.test)
    held = [one.name for one in study.networks if one.experiment.validation != "test"]
    if not held:
        stopping = [one.name for one in study.networks if one.experiment.early_stopping]
        looked = (
            f" Early stopping looked at them too, for {listed(stopping)}, so these figures are "
            "too good already."
            if stopping
            else " The last epoch counts, not the best one, and no weight is learned from them."
        )
        return {
            "head": "The validation data are the test images",
            "text": f"Validation loss and accuracy are measured on the same {images} test images "
            f"on which the networks are judged.{looked} But whoever chooses a network, a setting "
            "or an epoch by these figures has chosen it by the test images, and its figure is "
            "then a little better than new images would give. How much better, only images that "
            "nobody has looked at can tell. To hold out training images instead, set "
            "validation = 0.1 in an experiment.",
        }
    if len(held) == len(study.networks):
        return {
            "head": "The validation data were held out of the training images",
            "text": "Validation figures are measured on training images that no weight was "
            f"learned from; the {images} test images were read once, after training. Choosing by "
            "the validation figures leaves the test figures honest.",
        }
    others = [one.name for one in study.networks if one.name not in held]
    were = "was" if len(others) == 1 else "were"
    return {
        "head": "For some networks the validation data are the test images",
        "text": f"{listed(others)} {were} validated on the {images} test images themselves, so "
        f"choosing among the epochs or settings by validation uses the test images up; "
        f"{listed(held)} held out training images for it.",
    }


def _data(study: StudySummary) -> dict[str, Any]:
    data = study.data
    names = data.identity.classes
    limit = f" The first {SHOWN_CLASSES} classes." if len(names) > SHOWN_CLASSES else ""
    shown = list(enumerate(names))[:SHOWN_CLASSES]
    high = max(1.0, float(data.means.max()))
    repeats = (
        f"Of the training images {count(data.repeats_train)} repeat an earlier one pixel by pixel, "
        f"of the test images {count(data.repeats_test)}; {count(data.repeats_between)} test "
        f"{'image is' if data.repeats_between == 1 else 'images are'} also among the training "
        "images."
    )
    return {
        "text": f"{upper_first(data_title(study))}: {count(data.train.size)} training and "
        f"{count(data.test.size)} test images of {data.identity.shape[0]} × "
        f"{data.identity.shape[1]} grey pixels in {several(len(names), 'class', 'classes')}.",
        "duplicates": repeats,
        "samples_note": "Training images, one row a class. Ink is drawn in the colour of the "
        f"text.{limit}",
        "named": max(map(len, names)) > 3,
        "samples": [
            _picture(
                _side_by_side(data.samples[place]),
                f"{several(len(data.samples[place]), 'training image')} of class {name}",
                name,
            )
            for place, name in shown
        ],
        "means": [
            _picture(
                np.rint(255 / high * data.means[place]).astype(np.uint8),
                f"mean of {count(data.train.class_counts[place])} training images of class {name}",
                name,
            )
            for place, name in shown
        ],
    }


def _side_by_side(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gap = np.zeros((images.shape[1], 2), np.uint8)
    parts = [part for image in images for part in (image, gap)]
    return np.hstack(parts[:-1])


def _picture(image: NDArray[np.uint8], alt: str, name: str = "") -> Digit:
    rows, columns = image.shape
    return Digit(_source(image), alt, columns, rows, name)


def _source(image: NDArray[np.uint8]) -> str:
    data = base64.b64encode(pictures.picture_png(image)).decode("ascii")
    return f"data:image/png;base64,{data}"


def _network(study: StudySummary, network: NetworkSummary) -> dict[str, Any]:
    names = study.data.identity.classes
    epochs = tabulation.epochs(network, places(study))
    misread = [_misread(study, network, item) for item in network.model.misread[:MOST_MISREAD]]
    few = len(names) <= SHOWN_CLASSES
    return {
        "name": network.name,
        "text": _about(study, network),
        "table": network.table,
        "wide": len(network.experiment.branches) > 1,
        "epochs": epochs,
        "long": len(epochs.rows) > LONG,
        "confusion": tabulation.confusion(network, names) if few else None,
        "pairs": tabulation.pairs(study, network),
        "by_class": tabulation.by_class(study, network),
        "calibration": _calibration(network),
        "misread": misread[:GALLERY],
        "misread_rest": misread[GALLERY:],
        "misread_text": _misread_text(network),
    }


def _losses(study: StudySummary) -> str:
    """What the losses count beside the plain labels, or nothing."""
    smoothed = [
        f"{network.name} ({network.experiment.label_smoothing:g})"
        for network in study.networks
        if network.experiment.label_smoothing
    ]
    if not smoothed:
        return ""
    return (
        f"Every loss of {listed(smoothed)} counts the label smoothing given in brackets, in "
        "validation too, as Keras does; losses of different smoothing are not to be compared."
    )


def _about(study: StudySummary, network: NetworkSummary) -> str:
    chosen = network.experiment
    held = chosen.validation
    validated = "on the test images" if held == "test" else f"on {percent(held, 0)} held out"
    at_most = " at most" if chosen.early_stopping else ""
    smooth = f"label smoothing {chosen.label_smoothing:g}, " if chosen.label_smoothing else ""
    score = network.test_accuracy
    readings = [branch.reading for branch in chosen.branches] or [chosen.reading]
    reads = listed([f"by {one.kind}" for one in readings])
    return (
        f"{chosen.note} Reads the picture {reads}; {several(network.parameters, 'parameter')}; "
        f"{chosen.optimizer.kind} with learning rate {chosen.optimizer.learning_rate:g}, batches "
        f"of {chosen.batch}, {smooth}{several(chosen.epochs, 'epoch')}{at_most}, validated "
        f"{validated}. "
        f"{measure(study).capitalize()} {percent(score.mean, places(study))}, the mean of "
        f"{several(score.n, 'seed')}. Below, the confusion matrix, the figures by class, the "
        f"calibration and the misread images are those of seed {network.model.seed}, the middle "
        "run."
    ).strip()


def _networks_text(study: StudySummary) -> str:
    names = [network.name for network in study.networks]
    return (
        f"{listed(names, most=12)}, in turn. A single trained model is shown by the run with the "
        "middle test accuracy of its network, not by the best one."
    )


def _calibration(network: NetworkSummary) -> str:
    surplus, error = network.model.overconfidence, network.model.overconfidence_error
    found = network.model.calibration
    sure = "surer than it is right" if surplus > 0 else "less sure than it is right"
    clear = "" if abs(surplus) > 1.96 * error else ", no more than chance would give"
    return (
        f"On average the model is {points(abs(surplus))} points {sure}{clear}. Expected "
        f"calibration error {points(found.expected_error)} points, largest gap of a bin "
        f"{points(found.maximum_error, 1)} points, Brier score {found.brier:.4f}, cross-entropy "
        f"{found.cross_entropy:.4f}."
    )


def _misread(study: StudySummary, network: NetworkSummary, item: MisreadImage) -> Digit:
    names = study.data.identity.classes
    true, said = names[item.true], names[item.said]
    sure = confidence(item.confidence)
    runs = len(network.runs)
    alt = f"true {true}, said {said} with {sure}"
    alt += f", misread by {item.in_runs} of {runs} runs" if runs > 1 else ""
    note = f"{sure} · {item.in_runs}/{runs}" if runs > 1 else sure
    return Digit(_source(study.data.images[item.place]), alt, true=true, said=said, note=note)


def _misread_text(network: NetworkSummary) -> str:
    number, runs = len(network.model.misread), len(network.runs)
    if not number:
        return "The model misread no test image."
    text = (
        f"{several(number, 'test image')} of {count(len(network.model.predicted))} "
        f"{'was' if number == 1 else 'were'} misread; the surest mistakes come first. Below each: "
        "what it is, what the model said, and how sure it was"
    )
    text += f"; then how many of the {runs} runs misread it." if runs > 1 else "."
    return text + (f" The first {MOST_MISREAD} are here." if number > MOST_MISREAD else "")


def _hard(study: StudySummary) -> dict[str, Any]:
    runs, number = _runs(study), len(study.misread_by_all)
    names = study.data.identity.classes
    if runs < 2:
        text = "With a single run, the digits that it misread are all there is to see."
    elif not number:
        text = f"No test image was misread by all {runs} runs."
    else:
        text = (
            f"{several(number, 'test image')} {'was' if number == 1 else 'were'} misread by every "
            f"one of the {runs} runs, whatever the network and the seed. Some are hard for people "
            "too, and some may carry a wrong label. Below each: what its label says, and what "
            "most runs said."
        )
        text += f" The first {MOST_HARD} are here." if number > MOST_HARD else ""
    shown = []
    for place, said, times in study.misread_by_all[:MOST_HARD]:
        true = names[study.data.labels[place]]
        alt = f"true {true}, said {names[said]} by {times} of {runs} runs"
        note = f"{times}/{runs} runs"
        image = study.data.images[place]
        shown.append(Digit(_source(image), alt, true=true, said=names[said], note=note))
    return {"text": text, "pictures": shown}


def _reproduce(study: StudySummary) -> dict[str, str]:
    runs = [run for network in study.networks for run in network.runs]
    versions = sorted({str(run.environment.get("packages", {}).get("rowwise")) for run in runs})
    extra = "study,torch" if any(run.engine.name == "torch" for run in runs) else "study"
    recorded = dict.fromkeys(" ".join(run.environment.get("command", [])) for run in runs)
    install = [f'pip install "rowwise[{extra}]=={version}"' for version in versions]
    own = "study.json" in study.command
    file = "The study is described by study.json in its folder. " if own else ""
    again = [study.command, "rowwise report again"] if study.command else []
    return {
        "text": "The same version, seed, engine, number of threads and machine give the same "
        "weights to the last bit; others round differently, and their figures may then differ as "
        f"much as those of another seed. {file}Every figure of this page lies as PNG and SVG in "
        "the folder figures beside it, and the runs with their weights and predictions in the "
        "study’s folder.",
        "commands": "\n".join([*install, *again]),
        "recorded": "\n".join(line for line in recorded if line),
        "data": f"{study.data.identity.name}, from {study.data.identity.source}",
        "digest": study.data.identity.digest,
    }
