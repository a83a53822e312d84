"""The books of a training: sums a step at a time, early stopping's rule, the end."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_training import experiment

from rowwise.config import EarlyStopping
from rowwise.progress import Progress
from rowwise.runs import MOST_METRIC, EpochMetrics


def row(epoch, **values):
    told = {"loss": 1.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, **values}
    return EpochMetrics(epoch=epoch, train_s=2.0, val_s=0.5, steps=7, **told)


@given(
    losses=st.lists(st.floats(0, 1e6), min_size=1, max_size=30),
    cuts=st.lists(st.integers(1, 5), min_size=30, max_size=30),
)
def test_the_sums_do_not_depend_on_how_many_steps_are_entered_at_once(losses, cuts):
    one_by_one, in_parts = Progress(), Progress()
    right = np.arange(len(losses))
    for i, loss in enumerate(losses):
        one_by_one.add(np.array([loss]), right[i : i + 1], 0.5)
    first = 0
    for cut in cuts:
        part = np.array(losses[first : first + cut])
        in_parts.add(part, right[first : first + cut], 0.5)
        first += cut
    mine, theirs = asdict(one_by_one), asdict(in_parts)
    assert (mine.pop("train_s"), theirs.pop("train_s")) == (0.5 * len(losses), 15.0)
    assert mine == theirs


def test_closing_an_epoch_begins_the_next_one():
    p = Progress()
    p.add(np.array([3.0, 4.0]), np.array([1, 2]), 2.0)
    assert (p.loss_sum, p.right, p.step, p.timings.train_s) == (7.0, 3, 2, 2.0)
    p.close_epoch(row(1))
    assert (p.epoch, p.step, p.loss_sum, p.right, p.train_s) == (1, 0, 0.0, 0, 0.0)
    assert (p.timings.train_s, p.timings.val_s) == (2.0, 0.5)
    assert p.rows == (row(1),)


@given(st.lists(st.floats(0, MOST_METRIC), min_size=1, max_size=4))
def test_a_checkpoint_holds_the_books_exactly(values):
    p = Progress(loss_sum=values[0], best_value=values[-1], best_epoch=1)
    for epoch, value in enumerate(values, 1):
        p.close_epoch(row(epoch, loss=value))
    again = Progress(**json.loads(json.dumps(asdict(p))))
    assert again == p
    assert again.rows == p.rows
    assert [type(v) for v in again.rows[0]] == [int, float, float, float, float, float, float, int]


def waits(monitor, values, *, patience=2, min_delta=0.0):
    """The epochs that were the best so far, and the epoch after which a training stops."""
    chosen = experiment(
        epochs=100,
        early_stopping={"monitor": monitor, "patience": patience, "min_delta": min_delta},
    )
    p, best = Progress(), []
    for epoch, value in enumerate(values, 1):
        entered = row(epoch, **{monitor: value})
        p.close_epoch(entered)
        if p.watch(chosen.early_stopping, entered):
            best.append(epoch)
        if p.ending(chosen):
            return best, epoch
    return best, None


@pytest.mark.parametrize("monitor", ["val_loss", "loss"])
def test_early_stopping_waits_for_a_smaller_loss(monitor):
    assert waits(monitor, [3.0, 2.0, 2.0, 2.5]) == ([1, 2], 4)
    assert waits(monitor, [3.0, 3.1, 2.9, 3.0, 2.8, 2.9]) == ([1, 3, 5], None)
    assert waits(monitor, [3.0, 3.1, 2.9], patience=1) == ([1], 2)


@pytest.mark.parametrize("monitor", ["val_accuracy", "accuracy"])
def test_early_stopping_waits_for_a_higher_accuracy(monitor):
    assert waits(monitor, [0.5, 0.6, 0.6, 0.55]) == ([1, 2], 4)
    assert waits(monitor, [0.5, 0.4, 0.6, 0.5, 0.7, 0.6]) == ([1, 3, 5], None)


def test_an_improvement_is_more_than_the_least_one():
    assert waits("val_loss", [3.0, 2.5, 2.0, 1.5], min_delta=0.5) == ([1, 3], None)
    assert waits("val_loss", [3.0, 2.8, 2.6], min_delta=0.5) == ([1], 3)  # slowly is not enough


@pytest.mark.parametrize(("monitor", "sign"), [("loss", -1), ("val_accuracy", 1)])
def test_an_improvement_by_the_least_one_itself_is_none(monitor, sign):
    """In sixteenths, which floats hold exactly; 0 asks for more than the same again."""
    values = [0.5, 0.5 + sign / 16, 0.5 + sign / 8]
    assert waits(monitor, values, min_delta=1 / 16) == ([1, 3], None)
    assert waits(monitor, values[:2], min_delta=1 / 16, patience=1) == ([1], 2)
    assert waits(monitor, [0.5, 0.5], patience=1) == ([1], 2)


def after(epochs, **kept):
    metrics = [list(row(epoch)) for epoch in range(1, epochs + 1)]
    return Progress(epoch=epochs, metrics=metrics, **kept)


def test_the_end_is_told_in_words():
    chosen = experiment(epochs=2, early_stopping=EarlyStopping(patience=1))
    assert after(1).ending(chosen) is None
    assert after(2).ending(chosen) == ("finished", "finished after 2 epochs")
    assert after(1).ending(experiment(epochs=1)) == ("finished", "finished after 1 epoch")
    stopped = after(2, waited=1, best_value=0.123456, best_epoch=1)
    assert stopped.ending(chosen) == (
        "stopped early",
        "stopped after epoch 2: val_loss has not improved for 1 epoch; its best was 0.1235 in "
        "epoch 1",
    )
