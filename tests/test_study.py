"""A study makes its runs seed by seed, goes on where it stopped, and refuses what is foreign."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import small_training
from made_data import tree
from small_training import (
    DATA,
    OTHER_DATA,
    StopAfter,
    assert_same_run,
    experiment,
    one_step_a_call,
)

from rowwise import album, runs
from rowwise import study as studies
from rowwise.config import Study
from rowwise.errors import ConfigError, EngineError, NetworkError, RunError
from rowwise.events import Ended, Started

small_training.trainer_or_skip()

PUBLISHED = {"accuracy": 0.9, "val_accuracy": 0.8, "source": "a paper"}
LSTM = experiment("b-lstm", epochs=2, published=PUBLISHED)
GRU = experiment("a-gru", epochs=2, layers=[{"kind": "gru", "units": 5}])
STUDY = Study(name="pair", seeds=2, experiments=(LSTM, GRU))
WILD = experiment(
    "wild",
    epochs=2,
    layers=[{"kind": "flatten"}, {"kind": "dense", "units": 6}],
    optimizer={"kind": "sgd", "learning_rate": 100.0},
)


def run(study, out, **options):
    return studies.run(study, options.pop("data", DATA), out=out, threads=1, **options)


def names(outcome):
    return [one.folder.name for one in outcome.ended]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a study that was never interrupted, not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "study"
    run(STUDY, folder)
    return folder


def assert_same_study(one, other):
    """Assert that two studies hold the same runs, pictures and configuration."""
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    assert (one / runs.STUDY).read_bytes() == (other / runs.STUDY).read_bytes()
    for path in one.glob(f"*/{runs.RECORD}"):
        assert_same_run(path.parent, other / path.parent.name)
    kept = album.place(one, DATA.digest)
    for path in kept.iterdir():
        assert path.read_bytes() == (other / kept.name / path.name).read_bytes()


# --- the plan ----------------------------------------------------------------------------------


def test_the_plan_goes_seed_by_seed(tmp_path):
    planned = studies.plan(STUDY, DATA, tmp_path, seeds=3)
    assert [p.folder.name for p in planned] == [
        "b-lstm-s0",
        "a-gru-s0",
        "b-lstm-s1",
        "a-gru-s1",
        "b-lstm-s2",
        "a-gru-s2",
    ]
    assert [p.experiment.seed for p in planned] == [0, 0, 1, 1, 2, 2]
    assert planned[2].experiment == LSTM.model_copy(update={"seed": 1})
    assert list(tmp_path.iterdir()) == []


def test_the_plan_may_have_some_experiments_alone(tmp_path):
    planned = studies.plan(STUDY, DATA, tmp_path, seeds=2, only=["a-gru"])
    assert [p.folder.name for p in planned] == ["a-gru-s0", "a-gru-s1"]
    with pytest.raises(ConfigError, match="got 'a-grue'; the study pair has: b-lstm, a-gru; did"):
        studies.plan(STUDY, DATA, tmp_path, seeds=2, only=["a-grue"])


@pytest.mark.parametrize(
    ("dataset", "name", "kept"),
    [
        (None, "made", True),
        ("mnist", "mnist", True),
        ("mnist", "digits", False),
        ("mnist", "made", False),
    ],
)
def test_published_figures_stand_beside_their_own_data_only(tmp_path, dataset, name, kept):
    study = STUDY.model_copy(update={"dataset": dataset})
    planned = studies.plan(study, replace(DATA, name=name), tmp_path, seeds=1)
    assert planned[0].experiment.published == (LSTM.published if kept else None)
    assert planned[0].experiment.digest == LSTM.digest


# --- what it makes -----------------------------------------------------------------------------


def test_a_study_makes_every_run_and_keeps_what_a_report_needs(whole):
    made = sorted(p.name for p in whole.iterdir() if p.name != runs.LOCK)
    assert made == [
        "a-gru-s0",
        "a-gru-s1",
        "b-lstm-s0",
        "b-lstm-s1",
        f"data-{DATA.digest[:8]}",
        "study.json",
    ]
    assert all(one.status == "finished" for one in runs.find(whole))
    assert runs.study(whole) == STUDY
    assert album.find(whole, DATA.digest) is not None


def test_a_study_tells_each_run_and_gives_them_in_order(tmp_path):
    announced, started, ended = [], [], []

    def listen(event):
        if isinstance(event, Started):
            started.append((event.experiment.name, event.experiment.seed))
        if isinstance(event, Ended):
            ended.append(event.status)

    outcome = run(
        STUDY,
        tmp_path,
        seeds=1,
        callbacks=[listen],
        on_run=lambda planned, index, count: announced.append((planned.folder.name, index, count)),
    )
    assert announced == [("b-lstm-s0", 0, 2), ("a-gru-s0", 1, 2)]
    assert started == [("b-lstm", 0), ("a-gru", 0)]
    assert ended == ["finished", "finished"]
    assert names(outcome) == ["b-lstm-s0", "a-gru-s0"]
    assert (outcome.diverged, outcome.interrupted) == ((), False)


def test_a_seed_alone_gives_what_it_gives_in_the_study(whole):
    alone = small_training.train(GRU.model_copy(update={"seed": 1}))
    in_study = runs.Run.open(whole / "a-gru-s1").predictions()
    assert in_study.probabilities.tobytes() == alone.probabilities.tobytes()


# --- stopped, gone on with, made larger --------------------------------------------------------


@pytest.mark.parametrize("questions", [3, 11, 29, 45])
def test_a_study_stopped_anywhere_goes_on_to_the_same(tmp_path, whole, questions, monkeypatch):
    one_step_a_call(monkeypatch)
    part = run(STUDY, tmp_path / "study", stop=StopAfter(questions))
    assert part.interrupted
    assert len(part.ended) < 4
    assert {one.status for one in part.ended} <= {"finished"}
    outcome = run(STUDY, tmp_path / "study")
    assert names(outcome) == ["b-lstm-s0", "a-gru-s0", "b-lstm-s1", "a-gru-s1"]
    assert_same_study(tmp_path / "study", whole)


def test_a_study_that_is_whole_trains_nothing_again(tmp_path):
    run(STUDY, tmp_path, seeds=1)
    before, events = tree(tmp_path), []
    outcome = run(STUDY, tmp_path, seeds=1, callbacks=[events.append])
    assert names(outcome) == ["b-lstm-s0", "a-gru-s0"]
    assert (tree(tmp_path), events) == (before, [])


def test_one_experiment_first_and_the_others_later(tmp_path, whole):
    first = run(STUDY, tmp_path / "study", only=["a-gru"])
    assert names(first) == ["a-gru-s0", "a-gru-s1"]
    assert runs.study(tmp_path / "study") == STUDY  # the whole of it
    started = []
    outcome = run(STUDY, tmp_path / "study", callbacks=[started.append])
    assert [e.experiment.name for e in started if isinstance(e, Started)] == ["b-lstm", "b-lstm"]
    assert names(outcome) == ["b-lstm-s0", "a-gru-s0", "b-lstm-s1", "a-gru-s1"]
    assert_same_study(tmp_path / "study", whole)


def test_more_seeds_later_and_fewer_after_that(tmp_path, whole):
    run(STUDY, tmp_path / "study", seeds=1)
    assert runs.study(tmp_path / "study").seeds == 1
    run(STUDY, tmp_path / "study", seeds=2)
    assert_same_study(tmp_path / "study", whole)
    outcome = run(STUDY, tmp_path / "study", seeds=1)
    assert names(outcome) == ["b-lstm-s0", "a-gru-s0"]
    assert runs.study(tmp_path / "study").seeds == 2  # it holds two


def test_a_study_killed_before_its_first_file_begins(tmp_path):
    """What a killed process leaves first: the lock, and a half of study.json beside it."""
    (tmp_path / runs.LOCK).write_text("")
    (tmp_path / ".study.json.123.part").write_text('{"format"')
    kept = album.place(tmp_path, DATA.digest)
    kept.mkdir()
    (tmp_path / runs.STUDY).write_text(STUDY.model_dump_json())
    (kept / ".pictures.npz.123.part").write_text("PK")
    run(STUDY, tmp_path, seeds=1, only=["a-gru"])
    assert not list(tmp_path.rglob(".*.part"))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".study.json.123.part").write_text('{"format"')
    run(STUDY, tmp_path / "new", seeds=1, only=["a-gru"])
    assert not list(tmp_path.rglob(".*.part"))


def test_a_run_that_diverges_does_not_stop_the_others(tmp_path):
    study = Study(name="risky", seeds=2, experiments=(WILD, GRU))
    outcome = run(study, tmp_path)
    assert names(outcome) == ["a-gru-s0", "a-gru-s1"]
    assert not outcome.interrupted
    assert len(outcome.diverged) == 2
    assert all(said.startswith("wild diverged: the loss became ") for said in outcome.diverged)
    assert runs.Run.open(tmp_path / "wild-s1").status == "diverged"
    before = tree(tmp_path)
    again = run(study, tmp_path)
    assert (names(again), again.diverged) == (names(outcome), outcome.diverged)
    assert tree(tmp_path) == before


# --- refused, and nothing changed --------------------------------------------------------------


def refused(error, message, study, out, **options):
    before = tree(out) if out.is_dir() else None
    with pytest.raises(error) as caught:
        run(study, out, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tree(out) if out.is_dir() else None) == before


def test_another_study_in_the_folder_is_refused(whole):
    other = Study(name="other", experiments=(GRU.model_copy(update={"epochs": 3}),))
    refused(RunError, "holds the study pair with other experiments; choose", other, whole)
    fewer = STUDY.model_copy(update={"experiments": (GRU,)})
    refused(RunError, "holds the study pair with other experiments; choose", fewer, whole)


def test_other_data_are_refused_before_anything_is_written(whole):
    refused(RunError, "on the data that it began with", STUDY, whole, data=OTHER_DATA)


def test_no_resume_refuses_any_run(whole):
    refused(RunError, "already holds a study; leave out --no-resume", STUDY, whole, resume=False)


def test_a_foreign_folder_or_file_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    refused(RunError, "a study needs a folder of its own", STUDY, tmp_path)
    refused(RunError, "is a file; choose another --out", STUDY, tmp_path / "thesis.tex")
    assert tree(tmp_path) == {"thesis.tex": b"mine"}


def test_a_foreign_run_folder_is_refused(tmp_path):
    (tmp_path / runs.STUDY).write_text(STUDY.model_dump_json())
    (tmp_path / "a-gru-s1").mkdir()
    (tmp_path / "a-gru-s1" / "thesis.tex").write_text("mine")
    refused(RunError, "a-gru-s1 holds thesis.tex; choose", STUDY, tmp_path)


def test_a_damaged_run_is_told_before_anything_is_trained(tmp_path):
    run(STUDY, tmp_path, seeds=1)
    (tmp_path / "a-gru-s0" / runs.RECORD).write_text("{")
    refused(RunError, "is damaged: it is not valid JSON", STUDY, tmp_path)


def test_a_network_that_does_not_fit_the_data_leaves_nothing(tmp_path):
    patches = experiment("p", reading={"kind": "patches", "height": 4, "width": 4})
    unfit = Study(name="unfit", experiments=(GRU, patches))
    refused(NetworkError, "patches", unfit, tmp_path / "study")
    refused(EngineError, "the engine plain cannot train", STUDY, tmp_path / "study", engine="plain")
    refused(ConfigError, "--only takes names", STUDY, tmp_path / "study", only=["x"])
    assert not (tmp_path / "study").exists()


def test_other_threads_are_refused_for_a_run_that_goes_on(tmp_path):
    run(STUDY, tmp_path, stop=StopAfter(1))
    with pytest.raises(RunError, match="began with threads 1, got 2; leave it out"):
        studies.run(STUDY, DATA, out=tmp_path, threads=2)


def test_two_processes_do_not_share_a_study(tmp_path):
    said = []

    def try_too(event):
        if isinstance(event, Started):
            with pytest.raises(RunError, match="one process at a time writes to") as caught:
                run(STUDY, tmp_path)
            said.append(str(caught.value))

    assert len(run(STUDY, tmp_path, seeds=1, callbacks=[try_too]).ended) == 2
    assert len(said) == 2


def test_the_study_is_kept_as_plain_json(whole):
    told = json.loads((whole / "study.json").read_text())
    assert (told["format"], told["name"], told["seeds"]) == (1, "pair", 2)
    assert [one["name"] for one in told["experiments"]] == ["b-lstm", "a-gru"]
