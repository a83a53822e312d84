"""What a study found, in plain sentences that are computed from its summary.

A sentence never claims more than the runs can carry: "surely" means a p-value below 0.05 after
Holm's correction, and what one seed cannot tell is said to be untold.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from rowwise.comparison import Difference, McNemar, Position
from rowwise.summary import Compared, NetworkSummary, RunSummary, StudySummary, confused_both_ways
from rowwise.wording import (
    LEVEL,
    between,
    between_points,
    count,
    duration,
    listed,
    mean_count,
    p_equals,
    percent,
    points,
    several,
)

ALPHA = 0.05
BALANCED = 1.5  # the largest class over the smallest, up to which classes are called balanced


class Finding(NamedTuple):
    """One finding: its topic in a word or two, the claim in one sentence, and what bears it."""

    topic: str
    claim: str
    detail: str


def findings(study: StudySummary) -> tuple[Finding, ...]:
    """All findings of a study, the most wanted first."""
    found = (
        unfinished(study),
        best_network(study),
        trained_models(study),
        published_figures(study),
        confusions(study),
        overfitting(study),
        running_means(study),
        confidence(study),
        class_distribution(study),
        hard_images(study),
        speed(study),
    )
    return tuple(finding for finding in found if finding is not None)


def places(study: StudySummary) -> int:
    """Decimals of a percentage that the number of test images can carry."""
    return 2 if len(study.data.labels) >= 5000 else 1


def measure(study: StudySummary) -> str:
    """What the scores are called: validation accuracy where that is the test accuracy."""
    return "validation accuracy" if study.test_is_validation else "test accuracy"


def best_network(study: StudySummary) -> Finding:
    """Which network reads best, and whether surely."""
    exact = places(study)
    ranked = sorted(study.networks, key=lambda network: -network.test_accuracy.mean)
    best = ranked[0]
    score = best.test_accuracy
    told = f"Its {measure(study)} is {percent(score.mean, exact)}"
    if score.n == 1:
        told += " in the one run that there is, so nothing is known of how it varies with the seed."
    else:
        told += (
            f" on average over {score.n} seeds ({LEVEL} interval of that mean: "
            f"{between(score.low, score.high, exact)})."
        )
    if len(ranked) == 1:
        claim = f"{best.name} reads {percent(score.mean, exact)} of the test images rightly."
        return Finding("Result", claim, told)
    leads = [_oriented(study.differences, best.name, other.name) for other in ranked[1:]]
    beaten = [lead.b for lead in leads if lead is not None and lead.p < ALPHA]
    rivals = [other.name for other in ranked[1:] if other.name not in beaten]
    tested = any(lead is not None and not math.isnan(lead.p) for lead in leads)
    claim = _claim(best.name, rivals, beaten, tested=tested)
    return Finding("Best network", claim, f"{told} {_leads(study, leads)}".rstrip())


def _claim(best: str, rivals: Sequence[str], beaten: Sequence[str], *, tested: bool) -> str:
    if not rivals:
        return f"{best} reads best, and surely so."
    if not tested:
        return f"{best} has the highest score, but so few seeds cannot tell which network is best."
    if not beaten:
        return f"{best} reads best on average, but its lead over {listed(rivals)} is not sure."
    return (
        f"{best} reads best on average: surely better than {listed(beaten)}, not surely better "
        f"than {listed(rivals)}."
    )


def _leads(study: StudySummary, leads: Iterable[Compared | None]) -> str:
    exact = places(study)
    sure: list[str] = []
    unsure: list[str] = []
    untold: list[str] = []
    for lead in leads:
        if lead is None or not isinstance(lead.found, Difference):
            continue
        ahead = f"{lead.b} by {points(lead.found.difference, exact)} points"
        if math.isnan(lead.p):
            untold.append(ahead)
            continue
        bounds = between_points(lead.found.low, lead.found.high, exact)
        ahead += f" ({LEVEL} interval {bounds}; corrected {p_equals(lead.p)})"
        (sure if lead.p < ALPHA else unsure).append(ahead)
    told = []
    if sure:
        told.append(f"It surely leads {listed(sure)}.")
    if unsure:
        told.append(f"It leads {listed(unsure)}, which these seeds do not make sure.")
    if untold:
        told.append(f"It leads {listed(untold)}, which cannot be tested with so few seeds.")
    if sure or unsure:
        tests = sum(not math.isnan(one.p) for one in study.differences)
        told.append(f"Compared are runs of the same seed{corrected_for(tests, 'comparison')}.")
    return " ".join(told)


def corrected_for(tests: int, noun: str) -> str:
    """The words for Holm's correction over a family of tests; none for a family of one."""
    return "" if tests < 2 else f"; p is corrected after Holm for all {several(tests, noun)}"


def _oriented(family: Sequence[Compared], a: str, b: str) -> Compared | None:
    for one in family:
        if (one.a, one.b) == (a, b):
            return one
        if (one.a, one.b) == (b, a):
            return one._replace(
                a=a, b=b, found=_turned(one.found), seeds=tuple(reversed(one.seeds))
            )
    return None


def _turned(found: Difference | McNemar) -> Difference | McNemar:
    difference, low, high = -found.difference, -found.high, -found.low
    if isinstance(found, McNemar):
        return found._replace(
            only_a=found.only_b, only_b=found.only_a, difference=difference, low=low, high=high
        )
    return found._replace(difference=difference, low=low, high=high, t=-found.t)


def trained_models(study: StudySummary) -> Finding | None:
    """Whether the trained models of the two best networks differ on the same images."""
    if len(study.networks) < 2:
        return None
    ranked = sorted(study.networks, key=lambda network: -network.test_accuracy.mean)
    one = _oriented(study.models, ranked[0].name, ranked[1].name)
    if one is None or not isinstance(one.found, McNemar):
        return None
    a, b = f"{one.a} (seed {one.seeds[0]})", f"{one.b} (seed {one.seeds[1]})"
    better = one.a if one.found.difference > 0 else one.b
    if one.p < ALPHA:
        claim = f"Of the two best trained models, that of {better} surely reads such images better."
    else:
        claim = f"The trained models of {one.a} and {one.b} cannot be told apart on these images."
    detail = (
        f"On the same {count(one.found.n)} images {a} alone is right on {count(one.found.only_a)}, "
        f"{b} alone on {count(one.found.only_b)} (McNemar’s exact test, {p_equals(one.p)}"
        f"{corrected_for(len(study.models), 'pair')}). This is about these two "
        f"trained models, the comparison by seeds is about their recipes."
    )
    return Finding("Trained models", claim, detail)


def published_figures(study: StudySummary) -> Finding | None:
    """Where the published validation accuracies fall among ours."""
    placed = [(network.name, network.position) for network in study.networks if network.position]
    if not placed:
        return None
    exact = places(study)
    if any(found.inside is None for _, found in placed):
        told = [
            f"{name}: {percent(found.published, exact)} published, "
            f"{percent(_ours(study, name), exact)} here"
            for name, found in placed
        ]
        claim = "One seed cannot tell whether a published figure is an ordinary result."
        return Finding("Published figures", claim, f"{'; '.join(told)}.")
    inside = sum(found.inside is True for _, found in placed)
    number = several(len(placed), "published figure")
    if inside == len(placed):
        claim = (
            "The published figure lies where a further run of ours would fall."
            if inside == 1
            else f"All {number} lie where a further run of ours would fall."
        )
    elif inside:
        lies = "lies" if inside == 1 else "lie"
        claim = f"{inside} of {number} {lies} where a further run of ours would fall."
    else:
        claim = "No published figure lies where a further run of ours would fall."
    told = [_placed(name, found, exact) for name, found in placed]
    few = min(found.n for _, found in placed)
    if few == 2:
        wide = " With two seeds that range is so wide that hardly any figure lies outside."
    else:
        wide = ""
    return Finding(
        "Published figures",
        claim,
        f"Published, and the range in which {LEVEL} of further runs should fall: "
        f"{'; '.join(told)}.{wide}",
    )


def _placed(name: str, found: Position, exact: int) -> str:
    where = "inside" if found.inside else "below" if found.published < found.low else "above"
    return (
        f"{name} {percent(found.published, exact)}, {where} {between(found.low, found.high, exact)}"
    )


def _ours(study: StudySummary, name: str) -> float:
    return next(one.val_accuracy.mean for one in study.networks if one.name == name)


def confusions(study: StudySummary) -> Finding:
    """Which classes are taken for each other, both ways."""
    runs = sum(len(network.runs) for network in study.networks)
    total = np.sum([network.confusion for network in study.networks], axis=0)
    names = study.data.identity.classes
    pairs = confused_both_ways(total, runs, most=3)
    if not pairs:
        return Finding("Confusions", "No test image was misread by any run.", "")
    first = pairs[0]
    claim = f"{names[first.a]} and {names[first.b]} are taken for each other most often."
    support = [count(number) for number in study.data.test.class_counts]
    told = [
        f"{names[pair.a]} is read as {names[pair.b]} in {mean_count(pair.a_as_b, runs)} of "
        f"{support[pair.a]} images a run, {names[pair.b]} as {names[pair.a]} in "
        f"{mean_count(pair.b_as_a, runs)} of {support[pair.b]}"
        for pair in pairs
    ]
    of_runs = "in the one run" if runs == 1 else f"on average over all {runs} runs"
    return Finding("Confusions", claim, f"{of_runs.capitalize()}: {'; '.join(told)}.")


def overfitting(study: StudySummary) -> Finding:
    """Which networks learn the training images better than the test images, and ever more so."""
    runs = [run for network in study.networks for run in network.runs]
    if all(len(run.epochs) == 1 for run in runs):
        return Finding("Overfitting", "One epoch cannot tell whether a network overfits.", "")
    clear: list[str] = []
    begun: list[str] = []
    risen = []
    for network in study.networks:
        rising = sum(map(_turned_up, network.runs))
        if rising:
            (clear if rising == len(network.runs) else begun).append(network.name)
            risen.append(f"{network.name} {rising} of {len(network.runs)}")
    claims = []
    if clear:
        hedge = "in every run" if all(_seeds(study, name) > 1 for name in clear) else "in its run"
        claims.append(f"{listed(clear)} {'overfits' if len(clear) == 1 else 'overfit'} {hedge}")
    if begun:
        verb = "shows" if len(begun) == 1 else "show"
        claims.append(f"{listed(begun)} {verb} first signs of overfitting, in some runs")
    ahead = [network.name for network in study.networks if network.gap.low > 0]
    if ahead and not claims:
        verb = "reads" if len(ahead) == 1 else "read"
        claims.append(
            f"No validation loss has turned upward yet, but {listed(ahead)} {verb} the training "
            "images better than the validation images"
        )
    gaps = [_gap(network, places(study)) for network in study.networks]
    return Finding(
        "Overfitting",
        f"{'; '.join(claims) or 'No network overfits yet'}.",
        "Overfitting means here that the validation loss ends more than 1 % above its lowest value "
        "while the training loss has gone on falling. Runs of which that is true: "
        f"{listed(risen, most=20) or 'none'}. Training minus validation accuracy after the last "
        f"epoch, in points, with its {LEVEL} interval where there are several seeds: "
        f"{listed(gaps, most=20)}.",
    )


def _gap(network: NetworkSummary, exact: int) -> str:
    bounds = between_points(network.gap.low, network.gap.high, exact)
    interval = f" ({bounds})" if network.gap.n > 1 else ""
    return f"{network.name} {points(network.gap.mean, exact, sign=True)}{interval}"


def _turned_up(run: RunSummary) -> bool:
    lowest = min(run.epochs, key=lambda epoch: epoch.val_loss)
    last = run.epochs[-1]
    return last.val_loss > 1.01 * lowest.val_loss and last.loss < lowest.loss


def _seeds(study: StudySummary, name: str) -> int:
    return next(len(network.runs) for network in study.networks if network.name == name)


def running_means(study: StudySummary) -> Finding:
    """How training accuracy, a running mean, compares with validation accuracy."""
    runs = [run for network in study.networks for run in network.runs]
    first = sum(run.epochs[0].val_accuracy > run.epochs[0].accuracy for run in runs)
    last = sum(run.epochs[-1].val_accuracy > run.epochs[-1].accuracy for run in runs)
    claim = (
        f"After the first epoch validation accuracy is above training accuracy in {first} of "
        f"{several(len(runs), 'run')}"
    )
    if any(len(run.epochs) > 1 for run in runs):
        claim += f", after the last in {last}"
    return Finding(
        "Training and validation",
        f"{claim}.",
        "Training accuracy is a running mean over the whole epoch, taken while the weights still "
        "move; validation accuracy is measured once, at the epoch’s end. So it can lie above, and "
        "the gap between the two understates how much better the training images are known.",
    )


def confidence(study: StudySummary) -> Finding:
    """Whether the models are as sure as they are right."""
    over: list[str] = []
    under: list[str] = []
    told = []
    for network in study.networks:
        surplus, error = network.model.overconfidence, network.model.overconfidence_error
        if abs(surplus) > 1.96 * error:
            (over if surplus > 0 else under).append(network.name)
        told.append(
            f"{network.name} {points(surplus, 2, sign=True)} "
            f"(calibration error {points(network.model.calibration.expected_error)})"
        )
    claims = [
        f"{listed(names)} {'is' if len(names) == 1 else 'are'} {word} than "
        f"{'it is' if len(names) == 1 else 'they are'} right"
        for names, word in ((over, "surer"), (under, "less sure"))
        if names
    ]
    return Finding(
        "Calibration",
        f"{'; '.join(claims) or 'No model is surer, or less sure, than it is right'}.",
        f"Mean confidence minus accuracy, in points: {'; '.join(told)}. Named are the models whose "
        f"difference is beyond what {count(len(study.data.labels))} images leave to chance.",
    )


def class_distribution(study: StudySummary) -> Finding:
    """What the class distribution means for the scores."""
    data, names = study.data, study.data.identity.classes
    train, test = data.train.class_counts, data.test.class_counts
    most, least = int(train.argmax()), int(train.argmin())
    ratio = train[most] / train[least] if train[least] else math.inf
    baseline = test[most] / test.sum()
    worst = min(network.test_accuracy.mean for network in study.networks)
    balanced = ratio <= BALANCED
    claim = (
        "The classes are nearly balanced, so accuracy is a fair summary."
        if balanced
        else "The classes are unbalanced: read precision and recall by class beside accuracy."
    )
    drift = np.abs(train / train.sum() - test / test.sum())
    shift = int(drift.argmax())
    if math.isfinite(ratio):
        spread = (
            f"The most frequent class, {names[most]}, has {count(train[most])} training images, "
            f"{ratio:.2f} times as many as the rarest, {names[least]}, with "
            f"{count(train[least])}."
        )
    else:
        spread = f"{names[least]} has no training image at all."
    return Finding(
        "Classes",
        claim,
        f"{spread} Whoever always said {names[most]} would be right on {percent(baseline, 1)} of "
        f"the test images; the lowest score here is {percent(worst, 1)}. Between "
        f"training and test data no class’s share differs by more than {points(drift[shift])} "
        f"points ({names[shift]}).",
    )


def hard_images(study: StudySummary) -> Finding | None:
    """How many test images every run misread."""
    runs = sum(len(network.runs) for network in study.networks)
    number = len(study.misread_by_all)
    if runs < 2:
        return None
    total = count(len(study.data.labels))
    if not number:
        claim = f"Each of the {total} test images is read rightly by at least one run."
        return Finding("Hard images", claim, "")
    are = "image is" if number == 1 else "images are"
    return Finding(
        "Hard images",
        f"{count(number)} of {total} test {are} misread by every one of the {runs} runs.",
        "Such an image is hard for all these networks, or its label is wrong; the gallery of hard "
        "images shows what they look like.",
    )


def speed(study: StudySummary) -> Finding | None:
    """Which network is quick and which slow."""
    if len(study.networks) < 2:
        return None
    ranked = sorted(study.networks, key=lambda network: network.epoch_seconds)
    quick, slow = ranked[0], ranked[-1]
    if not quick.epoch_seconds > 0:
        return None
    times = slow.epoch_seconds / quick.epoch_seconds
    if times < 1.1:
        claim = "An epoch takes about as long with each network."
    else:
        claim = f"An epoch of {slow.name} takes {times:.1f} times as long as one of {quick.name}."
    return Finding(
        "Time",
        claim,
        f"The median epoch, validation included, took {duration(slow.epoch_seconds)} with "
        f"{slow.name} and {duration(quick.epoch_seconds)} with {quick.name}. Other work on the "
        "machine counts in these times.",
    )


def unfinished(study: StudySummary) -> Finding | None:
    """Which runs count in no mean."""
    if not study.left_out and not study.missing:
        return None
    told = [f"{run.name}, seed {run.seed}: {run.left_out}" for run in study.left_out]
    told += [f"{name}: no run of it has ended" for name in study.missing]
    claim = f"{several(len(study.left_out), 'run')} count in no figure of this report."
    if len(study.left_out) == 1:
        claim = "1 run counts in no figure of this report."
    elif not study.left_out:
        claim = f"{listed(study.missing)} could not be compared."
    return Finding("Left out", claim, f"{'; '.join(told)}.".replace("..", "."))
