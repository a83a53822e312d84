"""What a training tells while it goes on, the order of its pictures, and how it may end."""

from __future__ import annotations

import numpy as np
import pytest
import small_training
from made_data import tree
from small_training import DATA, StopAt, experiment, one_step_a_call, small_slices, timeless, train

from rowwise import engines, metrics, runs, session
from rowwise.augment import distort
from rowwise.config import Augmentation
from rowwise.errors import TrainingDiverged
from rowwise.events import Ended, EpochEnded, Started, Stepped, Validating
from rowwise.network import Network
from rowwise.runs import Run
from rowwise.session import shuffled

small_training.trainer_or_skip()

STEPS = 6
EARLY = {"monitor": "val_loss", "patience": 1, "min_delta": 0.05}


# --- the order of the pictures -----------------------------------------------------------------


def test_the_order_is_a_permutation_that_seed_and_epoch_decide():
    orders = [shuffled(100, seed=s, epoch=e).tolist() for s in (0, 1, 2**32 - 1) for e in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == len(orders)
    assert shuffled(100, seed=1, epoch=1).tolist() == orders[3]


def test_the_order_is_that_of_the_first_release():
    assert shuffled(8, seed=3, epoch=2).tolist() == [2, 6, 3, 5, 0, 4, 7, 1]


# --- what is told ------------------------------------------------------------------------------


def test_events_come_in_order(monkeypatch):
    one_step_a_call(monkeypatch)
    small_slices(monkeypatch)
    events, second = [], []
    result = train(experiment(epochs=2), callbacks=[events.append, second.append])
    assert second == events
    epoch = ["Stepped"] * STEPS + ["Validating"] * 4 + ["EpochEnded"]
    assert [type(e).__name__ for e in events] == ["Started", *epoch, *epoch, "Ended"]
    start = events[0]
    assert isinstance(start, Started)
    assert (start.samples, start.validation_samples, start.steps) == (150, 130, STEPS)
    assert (start.epochs_done, start.steps_done, start.folder, start.threads) == (0, 0, None, 1)
    assert start.engine == result.engine
    steps = [(e.epoch, e.step) for e in events if isinstance(e, Stepped)]
    assert steps == [(epoch, step) for epoch in (1, 2) for step in range(1, STEPS + 1)]
    read = [(e.epoch, e.done) for e in events if isinstance(e, Validating)]
    assert read == [(epoch, done) for epoch in (1, 2) for done in (40, 80, 120, 130)]
    assert tuple(e.metrics for e in events if isinstance(e, EpochEnded)) == result.metrics
    assert events[-1] == Ended("finished", "finished after 2 epochs", result.test_accuracy)


def test_a_resumed_training_says_where_it_goes_on(tmp_path, monkeypatch):
    one_step_a_call(monkeypatch)
    stop = StopAt(lambda e: isinstance(e, Stepped) and (e.epoch, e.step) == (2, 3))
    train(experiment(), out=tmp_path / "run", callbacks=[stop], stop=stop.stop)
    events = []
    train(experiment(), out=tmp_path / "run", resume=True, callbacks=[events.append])
    assert (events[0].epochs_done, events[0].steps_done) == (1, 3)
    assert (events[1].epoch, events[1].step) == (2, 4)


def test_every_step_is_the_engines_and_epochs_tell_means_weighted_by_samples(monkeypatch):
    """Against the engine itself, a step at a time: loss and answers before the step moves."""
    one_step_a_call(monkeypatch)
    chosen = experiment(epochs=2, seed=4, schedule={"kind": "exponential", "final": 0.1})
    events = []
    result = train(chosen, callbacks=[events.append])
    network = Network(chosen, DATA.shape, 10)
    start = network.initialise(seed=4)
    trainer = engines.training_engine(small_training.TRAINS).Trainer(
        network, start, DATA.train_images, DATA.train_labels, seed=4, threads=1
    )
    told = iter([event for event in events if isinstance(event, Stepped)])
    for epoch, row in enumerate(result.metrics):
        order = shuffled(150, seed=4, epoch=epoch)
        loss, right, seen = 0.0, 0, 0
        for step in range(STEPS):
            part, first = order[28 * step : 28 * step + 28], STEPS * epoch + step
            rate = np.array([1e-3 * 0.1 ** (first / (2 * STEPS - 1))])
            losses, correct = trainer.run(part, batch=28, first_step=first, rates=rate)
            loss, right, seen = loss + losses[0], right + int(correct[0]), seen + len(part)
            event = next(told)
            assert (event.loss, event.accuracy) == (loss / seen, right / seen)
        assert (row.loss, row.accuracy, row.steps) == (loss / 150, right / 150, STEPS)
        val_loss, val_right = trainer.evaluate(DATA.test_images, DATA.test_labels)
        assert (row.val_loss, row.val_accuracy) == (val_loss / 130, val_right / 130)
        assert row.train_s > 0 < row.val_s
    assert all(np.array_equal(v, result.weights[k]) for k, v in trainer.weights().items())


def test_accuracy_counts_no_outliers():
    """They have no right answer: they are no part of the pictures that could be read right."""
    augmentation = Augmentation(outlier_share=0.5)
    chosen = experiment(epochs=1, seed=4, augmentation=augmentation.model_dump())
    events = []
    (row,) = train(chosen, callbacks=[events.append]).metrics
    trainer = engines.training_engine(small_training.TRAINS).Trainer(
        network := Network(chosen, DATA.shape, 10),
        network.initialise(seed=4),
        DATA.train_images,
        DATA.train_labels,
        seed=4,
        threads=1,
    )
    order, right, outliers = shuffled(150, seed=4, epoch=0), 0, 0
    for step in range(STEPS):
        part = order[28 * step : 28 * step + 28]
        given = distort(
            DATA.train_images[part], DATA.train_labels[part], augmentation, seed=4, step=step
        )
        place = {"batch": 28, "first_step": step, "rates": np.array([1e-3])}
        _, correct = trainer.run(np.arange(len(part)), **place, given=engines.Given(*given))
        right, outliers = right + int(correct[0]), outliers + int((given[1] < 0).sum())
    assert 50 < outliers < 100
    assert row.accuracy == right / (150 - outliers)
    last = [event for event in events if isinstance(event, Stepped)][-1]
    assert last.accuracy == row.accuracy


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_validation_on_the_test_images_ends_in_the_test_accuracy(smoothing):
    result = train(experiment(label_smoothing=smoothing))
    last = result.metrics[-1]
    assert result.test_accuracy == last.val_accuracy
    assert result.test_loss == pytest.approx(last.val_loss, rel=1e-6)


@pytest.mark.parametrize("share", [0.4, 1.0])
def test_every_loss_of_a_network_that_tells_at_each_step_counts_the_steps(share):
    layers = [{"kind": "gru", "units": 6, "return_sequences": True}]
    result = train(experiment(layers=layers, target_replication=share))
    last = result.metrics[-1]
    assert result.test_accuracy == last.val_accuracy
    assert result.test_loss == pytest.approx(last.val_loss, rel=1e-6)
    answer = metrics.cross_entropy(DATA.test_labels, result.probabilities)
    assert result.test_loss != pytest.approx(answer, rel=1e-3)


def test_the_average_of_the_weights_is_what_is_validated_and_kept(monkeypatch):
    """Against the engine itself: the average moves after every fourth step, across epochs."""
    rule = {"decay": 0.5, "every": 4}
    chosen = experiment(epochs=2, seed=4, averaging=rule)
    result = train(chosen)
    trainer = engines.training_engine(small_training.TRAINS).Trainer(
        result.network,
        start := result.network.initialise(seed=4),
        DATA.train_images,
        DATA.train_labels,
        seed=4,
        threads=1,
    )
    orders = np.concatenate([shuffled(150, seed=4, epoch=epoch) for epoch in range(2)])
    average = {name: value.astype(np.float64) for name, value in start.items()}
    for step in range(12):
        first = 150 * (step // 6) + 28 * (step % 6)
        part = orders[first : min(first + 28, 150 * (step // 6) + 150)]
        trainer.run(part, batch=28, first_step=step, rates=np.array([1e-3]))
        if step % 4 == 3:
            kept = min(0.5, (1 + (step + 1) // 4) / (10 + (step + 1) // 4))
            for name, value in trainer.weights().items():
                average[name] = kept * average[name] + (1 - kept) * value
    for name, value in average.items():
        np.testing.assert_allclose(result.weights[name], value, atol=1e-6)
    assert not np.allclose(result.weights["lstm.kernel"], trainer.weights()["lstm.kernel"])
    assert result.test_accuracy == result.metrics[-1].val_accuracy


def test_augmentation_distorts_what_is_learnt_and_nothing_else(monkeypatch):
    """Against the engine itself, given each step's distorted pictures under their labels."""
    how = {"rotation_deg": 20.0, "shift_px": 1.0, "calm_share": 0.5}
    calm = Augmentation(rotation_deg=10.0, shift_px=0.5)  # from the seventh of twelve steps on
    chosen = experiment(epochs=2, seed=4, augmentation=how)
    result = train(chosen)
    trainer = engines.training_engine(small_training.TRAINS).Trainer(
        result.network,
        result.network.initialise(seed=4),
        DATA.train_images,
        DATA.train_labels,
        seed=4,
        threads=1,
    )
    for step in range(12):
        order = shuffled(150, seed=4, epoch=step // 6)[28 * (step % 6) : 28 * (step % 6) + 28]
        parts = DATA.train_images[order], DATA.train_labels[order]
        now = calm if step >= 6 else chosen.augmentation
        given = engines.Given(*distort(*parts, now, seed=4, step=step))
        assert given.images.shape == (len(order), 6, 5)
        trainer.run(order, batch=28, first_step=step, rates=np.array([1e-3]), given=given)
    for name, value in trainer.weights().items():
        np.testing.assert_array_equal(result.weights[name], value)
    loss, right = trainer.evaluate(DATA.test_images, DATA.test_labels)
    assert (result.metrics[-1].val_loss, result.test_accuracy) == (loss / 130, right / 130)


@pytest.mark.parametrize("engine", engines.TRAINING_ORDER)
def test_pictures_that_stand_in_are_as_those_of_the_set(engine):
    small_training.engine_or_skip(engine)
    network = Network(experiment(), DATA.shape, 10)
    order = np.array([3, 1, 149, 7, 7])
    images, labels = DATA.train_images, DATA.train_labels
    trainers = [
        engines.training_engine(engine).Trainer(
            network, network.initialise(seed=1), each, labels, seed=1, threads=1
        )
        for each in (images, images[::-1])
    ]
    how = {"batch": 3, "first_step": 0, "rates": np.array([0.1, 0.1])}
    one = trainers[0].run(order, **how)
    other = trainers[1].run(order, **how, given=engines.Given(images[order], labels[order]))
    np.testing.assert_array_equal(one, other)
    for name, value in trainers[0].weights().items():
        np.testing.assert_array_equal(trainers[1].weights()[name], value)


def test_held_out_pictures_are_not_trained_on():
    chosen = experiment(validation=0.3)
    learnt = session.parts(chosen, DATA)
    assert (len(learnt.train.labels), len(learnt.validation.labels)) == (105, 45)
    whole = {image.tobytes() for image in learnt.train.images}
    assert not whole & {image.tobytes() for image in learnt.validation.images}
    assert learnt.test.labels is DATA.test_labels
    result = train(chosen)
    assert result.test_accuracy != result.metrics[-1].val_accuracy


def test_it_learns():
    settings = {"layers": [{"kind": "lstm", "units": 12}], "epochs": 15}
    result = train(experiment(optimizer={"kind": "adam", "learning_rate": 0.02}, **settings))
    assert result.test_accuracy > 0.7  # 0.1 by chance


# --- how it ends -------------------------------------------------------------------------------


def test_early_stopping_restores_the_best_epoch():
    result = train(experiment(early_stopping=EARLY, epochs=9))
    assert result.status == "stopped early"
    best = len(result.metrics) - 1
    assert result.sentence == (
        f"stopped after epoch {best + 1}: val_loss has not improved for 1 epoch; "
        f"its best was {result.metrics[best - 1].val_loss:.4f} in epoch {best}"
    )
    short = train(experiment(epochs=best))
    assert all(np.array_equal(v, short.weights[k]) for k, v in result.weights.items())
    assert result.test_accuracy == short.test_accuracy


def test_the_best_epoch_is_restored_where_the_last_one_came_without_a_stop():
    rule = EARLY | {"patience": 5}
    result = train(experiment(early_stopping=rule, epochs=3))
    first = train(experiment(epochs=1))
    assert result.status == "finished"
    losses = [row.val_loss for row in result.metrics]
    assert losses[0] - 0.05 < min(losses)
    assert all(np.array_equal(v, first.weights[k]) for k, v in result.weights.items())


def diverging(name="wild", **settings):
    """A linear network, which nothing keeps from growing."""
    layers = [{"kind": "flatten"}, {"kind": "dense", "units": 6}]
    wild = {"kind": "sgd", "learning_rate": 100.0}
    return experiment(name, layers=layers, **{"optimizer": wild, **settings})


def test_a_diverging_loss_stops_with_a_sentence_and_keeps_the_last_good_weights(tmp_path):
    events = []
    with pytest.raises(TrainingDiverged) as caught:
        train(diverging(), out=tmp_path / "run", callbacks=[events.append])
    sentence = str(caught.value)
    assert sentence == (
        "wild diverged: the loss became 1,000 times chance level in step 3 of 6 of epoch 1; the "
        "last good weights, as they began, are kept; a smaller optimizer.learning_rate or a "
        "clipping may help"
    )
    run = Run.open(tmp_path / "run")
    assert (run.status, run.record.sentence) == ("diverged", sentence)
    assert not run.ended
    began = run.network.initialise(seed=0)
    assert all(np.array_equal(v, began[k]) for k, v in run.weights().items())
    assert sorted(path.name for path in run.folder.iterdir() if path.name != runs.LOCK) == [
        runs.ENVIRONMENT,
        runs.EXPERIMENT,
        runs.METRICS,
        runs.RECORD,
        runs.WEIGHTS,
    ]
    assert run.metrics == ()
    assert events[-1] == Ended("diverged", sentence, None)


@pytest.mark.parametrize("call_s", [0.0, 10.0])
def test_a_diverging_loss_names_its_step_however_many_a_call_has(call_s, monkeypatch):
    monkeypatch.setattr(session, "CALL_S", call_s)
    monkeypatch.setattr(session, "HOPELESS", 10.0)
    rising = diverging(optimizer={"kind": "sgd", "learning_rate": 3.0})
    with pytest.raises(TrainingDiverged, match=r"in step 4 of 6 of epoch 1; a smaller"):
        train(rising)


def test_a_loss_that_is_no_number_stops(tmp_path):
    network = Network(diverging(), DATA.shape, 10)
    huge = {k: np.full(p.shape, 3e38, np.float32) for k, p in network.parameters.items()}
    with pytest.raises(TrainingDiverged, match="became infinite or not a number in step 1 of 6"):
        train(diverging(), init_from=huge, out=tmp_path)
    kept = Run.open(tmp_path).weights()
    assert all(np.array_equal(v, huge[k]) for k, v in kept.items())


def test_the_very_last_step_may_diverge_too(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"the validation loss became .* after epoch 2; the"):
        train(diverging(batch=150, epochs=2), out=tmp_path)
    run = Run.open(tmp_path)
    assert (run.status, len(run.metrics), run.record.epochs_done) == ("diverged", 1, 1)
    assert "the last good weights, after epoch 1, are kept" in run.record.sentence


def test_a_broken_state_is_never_saved(tmp_path, monkeypatch):
    """The optimiser's slots may overflow before any loss tells."""
    trainer = engines.training_engine(small_training.TRAINS).Trainer
    sound, calls = trainer.state, []

    def overflowing(self):
        calls.append(1)
        state = sound(self)
        if len(calls) == 3:
            next(v for k, v in state.items() if k.startswith("slots/"))[0] = np.inf
        return state

    monkeypatch.setattr(trainer, "state", overflowing)
    with pytest.raises(TrainingDiverged, match=r"weights became infinite or .* in epoch 2; the"):
        train(experiment(), out=tmp_path)
    run = Run.open(tmp_path)
    first = train(experiment(epochs=1))
    assert all(np.array_equal(v, first.weights[k]) for k, v in run.weights().items())
    assert "the last good weights, after epoch 1, are kept" in run.record.sentence
    assert timeless(run.metrics) == timeless(first.metrics)


def test_a_diverged_run_is_not_trained_again(tmp_path):
    with pytest.raises(TrainingDiverged) as first:
        train(diverging(), out=tmp_path)
    before, events = tree(tmp_path), []
    with pytest.raises(TrainingDiverged) as again:
        train(diverging(), out=tmp_path, resume=True, callbacks=[events.append])
    assert str(again.value) == str(first.value)
    assert tree(tmp_path) == before
    assert events == []
