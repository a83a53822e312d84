"""A training gives the same however often it is stopped; what it refuses, starts from and gives."""

from __future__ import annotations

import dataclasses
import tempfile

import numpy as np
import pytest
import small_training
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_data import tree
from small_training import (
    DATA,
    OTHER_DATA,
    TRAINS,
    StopAfter,
    StopAt,
    assert_same,
    assert_same_run,
    assert_whole,
    engine_or_skip,
    experiment,
    one_step_a_call,
    small_slices,
    timeless,
    train,
)

from rowwise import engines, metrics, runs, session
from rowwise import train as train_module
from rowwise.errors import EngineError, NetworkError, PictureError, RunError
from rowwise.events import EpochEnded, Stepped, Validating
from rowwise.runs import Run
from rowwise.train import evaluate, fit

small_training.trainer_or_skip()

STEPS = 6
EARLY = {"monitor": "val_loss", "patience": 1, "min_delta": 0.05}
HELD_OUT = {"validation": 0.3, "batch": 20}  # 105 pictures to train on: six steps again
TRAININGS = {
    "adam": {},
    "adam, held-out validation": HELD_OUT,
    "adamw, cosine": {
        "optimizer": {"kind": "adamw", "learning_rate": 0.01},
        "schedule": {"kind": "cosine", "warmup": 0.2},
    },
    "rmsprop": {"optimizer": "rmsprop", "layers": [{"kind": "simple_rnn", "units": 7}]},
    "rmsprop with momentum, exponential": {
        "optimizer": {"kind": "rmsprop", "momentum": 0.5},
        "schedule": "exponential",
    },
    "sgd, clipped": {
        "optimizer": {"kind": "sgd", "learning_rate": 0.5},
        "clipping": {"by": "norm", "limit": 0.1},
    },
    "sgd with momentum, one cycle": {
        "optimizer": {"kind": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True},
        "schedule": "one_cycle",
        "layers": [
            {"kind": "gru", "units": 5, "return_sequences": True, "bidirectional": True},
            {"kind": "dropout", "rate": 0.5},
            {"kind": "gru", "units": 4},
        ],
    },
    "augmented, averaged, told at every step": {
        **HELD_OUT,
        "reading": {"kind": "rows", "before": 1},
        "layers": [{"kind": "gru", "units": 5, "return_sequences": True}],
        "target_replication": 0.5,
        "augmentation": {
            "rotation_deg": 9.0,
            "elastic_px": 0.5,
            "stroke": 0.5,
            "noise_share": 0.5,
            "outlier_share": 0.2,
        },
        "averaging": {"decay": 0.8, "every": 4},
    },
    "early stopping, best restored": {
        **HELD_OUT,
        "early_stopping": EARLY,
        "epochs": 9,
    },
    "early stopping, last kept": {
        "early_stopping": EARLY | {"monitor": "accuracy", "min_delta": 0.3, "restore_best": False},
        "epochs": 9,
    },
}

PLACES = [
    lambda e: isinstance(e, Stepped) and (e.epoch, e.step) == (1, 2),
    lambda e: isinstance(e, Validating) and e.epoch == 1 and e.done < e.samples,
    lambda e: isinstance(e, Stepped) and (e.epoch, e.step) == (2, STEPS),
    lambda e: isinstance(e, Validating) and e.epoch == 2 and e.done == e.samples,
    lambda e: isinstance(e, EpochEnded),  # asked again only while the test images are read
]


# --- stopped and gone on with = never stopped --------------------------------------------------


@pytest.mark.parametrize("engine", engines.TRAINING_ORDER)
@pytest.mark.parametrize("name", TRAININGS)
def test_stopped_at_every_kind_of_place_and_resumed_gives_the_same(
    name, engine, tmp_path, monkeypatch
):
    engine_or_skip(engine)
    chosen = experiment(seed=5, **TRAININGS[name])
    small_slices(monkeypatch)
    whole = train(chosen, out=tmp_path / "a", engine=engine)
    assert whole.status == ("stopped early" if name.startswith("early") else "finished")
    one_step_a_call(monkeypatch)
    said = []
    for place in PLACES:
        stop = StopAt(place)
        part = train(chosen, out=tmp_path / "b", engine=engine, resume=True, callbacks=[stop],
                     stop=stop.stop)  # fmt: skip
        said.append(part.sentence)
        assert part.status == "interrupted"
        assert part.probabilities is None
        assert part.test_accuracy is None
        assert Run.open(tmp_path / "b").status == "interrupted"
        assert assert_whole(tmp_path / "b") == 5
    again = train(chosen, out=tmp_path / "b", resume=True)
    assert_same(again, whole)
    assert_same_run(tmp_path / "b", tmp_path / "a")
    assert Run.open(tmp_path / "b").record.resumed == len(PLACES)
    assert [sentence.partition(";")[0] for sentence in said] == [
        f"interrupted in epoch 1 of {chosen.epochs}, step 2 of {STEPS}",
        f"interrupted in epoch 1 of {chosen.epochs}, step {STEPS} of {STEPS}",
        f"interrupted in epoch 2 of {chosen.epochs}, step {STEPS} of {STEPS}",
        f"interrupted in epoch 2 of {chosen.epochs}, step {STEPS} of {STEPS}",
        "interrupted while the test images were read",
    ]


@pytest.mark.parametrize(("restored", "epochs"), [(True, 1), (False, 3)])
def test_the_best_weights_are_restored_or_the_last_are_kept(restored, epochs):
    """No loss falls by 9, so the first epoch is the best and the third the last."""
    rule = {"monitor": "val_loss", "min_delta": 9.0, "patience": 2, "restore_best": restored}
    stopped = train(experiment(epochs=9, early_stopping=rule))
    assert (stopped.status, len(stopped.metrics)) == ("stopped early", 3)
    reference = train(experiment(epochs=epochs))
    for name, value in reference.weights.items():
        np.testing.assert_array_equal(stopped.weights[name], value)
    assert stopped.test_accuracy == stopped.metrics[epochs - 1].val_accuracy


CHANGED_STATES = {
    "no momentum": ("slots/momentum/lstm.kernel", None, "slots/momentum/lstm.kernel must be"),
    "no velocity": ("slots/velocity/dense.bias", None, "slots/velocity/dense.bias must be"),
    "a weight less": ("lstm.kernel", None, "lstm.kernel"),
    "another shape": ("slots/momentum/lstm.kernel", np.zeros((1, 1), np.float32), "lstm.kernel"),
    "another optimiser's": (
        "slots/other/lstm.kernel",
        np.zeros((5, 24), np.float32),
        "slots/other/lstm.kernel",
    ),
}


@pytest.mark.parametrize("engine", engines.TRAINING_ORDER)
@pytest.mark.parametrize("name", CHANGED_STATES)
def test_a_checkpoint_without_all_of_its_state_is_not_gone_on_from(name, engine, tmp_path):
    """A slot that began at zero again would train on, and to another result."""
    engine_or_skip(engine)
    key, value, told = CHANGED_STATES[name]
    stop = StopAt(lambda e: isinstance(e, EpochEnded))
    train(experiment(), out=tmp_path, engine=engine, callbacks=[stop], stop=stop.stop)
    run = Run.open(tmp_path)
    checkpoint = run.checkpoint()
    state = {k: v for k, v in checkpoint.state.items() if k != key}
    if value is not None:
        state[key] = value
    run.save_checkpoint(dataclasses.replace(checkpoint, state=state))
    with pytest.raises(RunError, match=told):
        train(experiment(), out=tmp_path, engine=engine, resume=True)


HARD = experiment(
    early_stopping=EARLY,
    epochs=4,
    schedule="one_cycle",
    augmentation={"shift_px": 1.0, "erase_share": 0.3},
    averaging={"decay": 0.9, "every": 4},
    **HELD_OUT,
)


@pytest.fixture(scope="module")
def hard_whole():
    """An uninterrupted training with everything that a checkpoint must hold."""
    return train(HARD)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(questions=st.lists(st.integers(1, 12), max_size=5))
def test_stopped_anywhere_and_resumed_gives_the_same(hard_whole, questions):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "CALL_S", 0.0)
        for count in questions:
            part = train(HARD, out=folder, resume=True, stop=StopAfter(count))
            if part.status != "interrupted":
                break
        assert_same(train(HARD, out=folder, resume=True), hard_whole)


@pytest.mark.parametrize("call_s", [0.0, 0.003, 10.0])
def test_the_result_does_not_depend_on_how_many_steps_a_call_has(hard_whole, call_s, monkeypatch):
    monkeypatch.setattr(session, "CALL_S", call_s)
    counts = []
    listen = [lambda e: counts.append(e.step) if isinstance(e, Stepped) else None]
    assert_same(train(HARD, callbacks=listen), hard_whole)
    if call_s == 0.0:
        assert counts == list(range(1, STEPS + 1)) * len(hard_whole.metrics)
    if call_s == 10.0:
        assert len(counts) < STEPS * len(hard_whole.metrics)


def test_a_long_epoch_is_saved_now_and_then_without_changing_the_result(tmp_path, monkeypatch):
    one_step_a_call(monkeypatch)
    monkeypatch.setattr(session, "CHECKPOINT_S", 0.0)
    seen = []

    def look(event):
        if isinstance(event, Stepped):
            seen.append(Run.open(tmp_path / "run").checkpoint().progress["step"])
            if len(seen) == 4:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(experiment(), out=tmp_path / "run", callbacks=[look])
    assert seen == [0, 1, 2, 3]
    assert_same(train(experiment(), out=tmp_path / "run", resume=True), train(experiment()))


def test_keyboard_interrupt_lets_go_of_the_folder_and_the_last_checkpoint_holds(tmp_path):
    def interrupt(event):
        if isinstance(event, Stepped) and event.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(experiment(), out=tmp_path / "run", callbacks=[interrupt])
    left = Run.open(tmp_path / "run")
    assert left.status == "training"
    assert left.checkpoint().progress["epoch"] == 1
    assert len(left.metrics) == 1
    assert_same(train(experiment(), out=tmp_path / "run", resume=True), train(experiment()))


def test_a_stop_without_a_folder_gives_what_there_is():
    result = train(experiment(), stop=StopAfter(1))
    assert result.status == "interrupted"
    assert result.sentence.startswith("interrupted in epoch 1 of 3, step ")
    assert "saved" not in result.sentence
    assert result.metrics == ()
    assert result.weights.keys() == result.network.parameters.keys()


# --- the same seed, the same result ------------------------------------------------------------


def test_the_same_seed_gives_the_same_and_another_seed_another_result():
    one, two = train(experiment(seed=1)), train(experiment(seed=1))
    assert_same(one, two)
    other = train(experiment(seed=2))
    assert timeless(other.metrics) != timeless(one.metrics)
    assert not np.array_equal(other.weights["lstm.kernel"], one.weights["lstm.kernel"])


def test_writing_to_a_folder_or_not_makes_no_difference(tmp_path):
    before = tree(tmp_path)
    in_memory = train(experiment())
    assert tree(tmp_path) == before
    assert in_memory.folder is None
    in_folder = train(experiment(), out=tmp_path / "run")
    assert in_folder.folder == tmp_path / "run"
    assert_same(in_memory, in_folder)


# --- a run that is there already ---------------------------------------------------------------


def test_a_finished_run_is_read_and_not_trained_again(tmp_path):
    whole = train(experiment(), out=tmp_path)
    before, events = tree(tmp_path), []
    again = train(experiment(), out=tmp_path, resume=True, threads=7, callbacks=[events.append])
    assert_same(again, whole)
    assert again.metrics == whole.metrics  # the times too
    assert (tree(tmp_path), events) == (before, [])


def test_a_process_killed_in_its_very_last_step_leaves_a_finished_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Run, "remove_checkpoint", lambda self: None)
        whole = train(experiment(), out=tmp_path)
    assert (tmp_path / runs.CHECKPOINT).exists()
    assert_same(train(experiment(), out=tmp_path, resume=True), whole)
    assert not (tmp_path / runs.CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "already holds a run (interrupted); go on with --resume"),
        ({"resume": True, "chosen": experiment(seed=1)}, "with the configuration that it began"),
        ({"resume": True, "data": OTHER_DATA}, "on the data that it began with"),
        ({"resume": True, "threads": 2}, "began with threads 1, got 2; leave it out"),
        ({"resume": True, "engine": "plain"}, f"began with engine {TRAINS}, got plain; leave it"),
        ({"resume": True, "precision": "bfloat16"}, "with precision float32, got bfloat16; leave"),
        ({"resume": True, "init_from": {}}, "began from fresh ones, got given weights; leave"),
    ],
)
def test_a_run_goes_on_only_as_it_began(options, message, tmp_path):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    before = tree(tmp_path)
    with pytest.raises(RunError) as caught:
        train(options.pop("chosen", experiment()), out=tmp_path, **options)
    assert message in str(caught.value)
    assert tree(tmp_path) == before


def test_name_note_and_published_figures_may_change(tmp_path):
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    told = {"note": "looked at again", "published": {"accuracy": 0.5}}
    result = train(experiment("renamed", **told), out=tmp_path, resume=True)
    assert result.status == "finished"
    assert Run.open(tmp_path).experiment.note == "looked at again"


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_something_else_is_refused_and_left_alone(tmp_path, resume):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"needs a folder of its own, .* holds thesis\.tex; choose"):
        train(experiment(), out=tmp_path, resume=resume)
    assert tree(tmp_path) == {"thesis.tex": b"mine"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunError, match=r"run is a file; choose another --out"):
        train(experiment(), out=tmp_path / "run")
    with pytest.raises(RunError, match="cannot make the folder"):
        train(experiment(), out=tmp_path / "run" / "below")


def test_an_engine_that_cannot_train_leaves_nothing_behind(tmp_path):
    with pytest.raises(EngineError, match="the engine plain cannot train small"):
        train(experiment(), engine="plain", out=tmp_path / "run")
    assert tree(tmp_path) == {}
    assert not (tmp_path / "run").exists()


def test_a_trainer_that_is_refused_leaves_no_run_behind(tmp_path, monkeypatch):
    """As the native engine refuses what memory cannot hold, once it sees the pictures."""
    with monkeypatch.context() as refusing:
        refusing.setattr(engines, "trainer", _refuse)
        with pytest.raises(EngineError, match="not enough memory"):
            train(experiment(), out=tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [runs.LOCK]
    assert train(experiment(), out=tmp_path / "run").status == "finished"


def _refuse(*_, **__):
    raise EngineError("there is not enough memory")


def test_resume_begins_where_there_is_no_run(tmp_path):
    assert_same(train(experiment(), out=tmp_path / "run", resume=True), train(experiment()))


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    (tmp_path / ".run.json.123.part").write_text("{")
    train(experiment(), out=tmp_path)
    assert not list(tmp_path.glob("*.part"))
    assert not list(tmp_path.glob(".*.part"))


def test_one_sitting_at_a_time(tmp_path):
    refused = []

    def try_too(event):
        if isinstance(event, EpochEnded):
            with pytest.raises(RunError, match="one process at a time writes to") as caught:
                train(experiment(), out=tmp_path, resume=True)
            refused.append(str(caught.value))

    result = train(experiment(), out=tmp_path, callbacks=[try_too])
    assert len(refused) == 3
    assert "\n" not in refused[0]
    assert_same(result, train(experiment()))


def test_a_run_that_ended_while_this_process_waited_is_read(tmp_path, monkeypatch):
    """Between the look at a folder and its lock, another process may finish what is there."""
    train(experiment(), out=tmp_path, stop=StopAfter(1))
    look, looks = train_module.earlier, []

    def look_and_let_another_finish(*args, **options):
        found = look(*args, **options)
        looks.append(found)
        if len(looks) == 1:
            train(experiment(), out=tmp_path, resume=True)
        return found

    monkeypatch.setattr(train_module, "earlier", look_and_let_another_finish)
    events = []
    result = train(experiment(), out=tmp_path, resume=True, callbacks=[events.append])
    assert_same(result, train(experiment()))
    assert events == []


# --- weights to start from ---------------------------------------------------------------------

STILL = experiment(layers=[{"kind": "gru", "units": 3}], epochs=1, optimizer="sgd").with_overrides(
    ["optimizer.learning_rate=1e-30"]
)


def test_training_starts_from_the_weights_of_another_run(tmp_path):
    learnt = train(STILL.with_overrides(["optimizer.learning_rate=0.5"]), out=tmp_path / "a")
    source = Run.open(tmp_path / "a")
    begun = train(STILL, init_from=source, out=tmp_path / "b")
    assert all(np.array_equal(v, learnt.weights[k]) for k, v in begun.weights.items())
    assert Run.open(tmp_path / "b").record.initialised_from == str(tmp_path / "a")
    given = train(STILL, init_from=learnt.weights, out=tmp_path / "c")
    assert_same(given, begun)
    assert Run.open(tmp_path / "c").record.initialised_from == "given weights"
    fresh = train(STILL)
    assert not np.array_equal(fresh.weights["gru.kernel"], begun.weights["gru.kernel"])


def test_a_run_from_other_weights_that_was_killed_at_once_wants_them_again(tmp_path):
    source = train(STILL, out=tmp_path / "a")
    train(experiment(layers=STILL.layers), init_from=Run.open(source.folder), out=tmp_path / "b",
          stop=StopAfter(1))  # fmt: skip
    (tmp_path / "b" / runs.CHECKPOINT).unlink()
    with pytest.raises(RunError, match="before its first step; give the same --init-from again"):
        train(experiment(layers=STILL.layers), out=tmp_path / "b", resume=True)
    went_on = train(experiment(layers=STILL.layers), init_from=Run.open(source.folder),
                    out=tmp_path / "b", resume=True)  # fmt: skip
    assert_same(went_on, train(experiment(layers=STILL.layers), init_from=source.weights))


def test_weights_of_another_network_are_refused(tmp_path):
    train(STILL, out=tmp_path / "a")
    with pytest.raises(NetworkError, match=r"--init-from .*a: the weights must be those of small"):
        train(experiment(), init_from=Run.open(tmp_path / "a"), out=tmp_path / "b")
    wrong = {k: v[:1] for k, v in train(STILL).weights.items()}
    with pytest.raises(NetworkError, match=r"init_from: .* must have the shape"):
        train(STILL, init_from=wrong, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


# --- what it gives -----------------------------------------------------------------------------


def present():
    return [name for name in engines.ENGINES if engines.missing(name) is None]


def test_the_result_scores_and_predicts():
    result = train(experiment())
    assert result.probabilities.dtype == np.float32
    assert result.probabilities.shape == (130, 10)
    assert result.test_accuracy == metrics.accuracy(DATA.test_labels, result.probabilities)
    assert result.test_loss == metrics.cross_entropy(DATA.test_labels, result.probabilities)
    for engine in ("auto", *present()):
        said = result.predict(DATA.test_images[:20], engine=engine)
        np.testing.assert_allclose(said, result.probabilities[:20], atol=1e-6)
    floats = DATA.test_images[:20] / np.float32(255)
    np.testing.assert_allclose(result.predict(floats), result.probabilities[:20], atol=1e-6)
    for dtype in (np.float32, np.float64, np.int64, np.uint16):
        said = result.predict(DATA.test_images[:20].astype(dtype))
        np.testing.assert_allclose(said, result.probabilities[:20], atol=1e-6)
    with pytest.raises(PictureError, match=r"reshape\(-1, 6, 5\)"):
        result.predict(DATA.test_images[:20].reshape(20, 30))
    assert result.predict(DATA.test_images[:0]).shape == (0, 10)


def test_evaluate_reads_any_pictures(monkeypatch):
    small_slices(monkeypatch)
    result = train(experiment(epochs=1))
    for engine in present():
        said, choice = evaluate(
            result.network, result.weights, DATA.test_images, engine=engine, threads=1
        )
        assert choice.name == engine
        np.testing.assert_allclose(said, result.probabilities, atol=1e-6)
    none, _ = evaluate(result.network, result.weights, DATA.test_images[:0])
    assert none.shape == (0, 10)
    with pytest.raises(KeyboardInterrupt):
        evaluate(result.network, result.weights, DATA.test_images, stop=StopAfter(2))
    with pytest.raises(EngineError, match="an engine is one of auto"):
        evaluate(result.network, result.weights, DATA.test_images, engine="abacus")


def test_as_many_threads_as_cores_by_default(monkeypatch):
    monkeypatch.setattr(engines, "usable_cores", lambda: 1)
    events = []
    fit(experiment(epochs=1), DATA, callbacks=[events.append])
    assert events[0].threads == 1
