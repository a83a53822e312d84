"""Outliers: seeded, labelled as of no class, made of digits and none of them one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowwise import engines, outliers
from rowwise.outliers import NONE, mix


def sheet(count: int, shape: tuple[int, int] = (28, 28)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return images, rng.integers(0, 10, count)


def test_a_share_of_pictures_is_replaced_and_labelled_as_none():
    images, labels = sheet(2000)
    kept = images.copy(), labels.copy()
    mixed, told = mix(images, labels, 0.2, seed=1, step=3)
    np.testing.assert_array_equal(images, kept[0])
    np.testing.assert_array_equal(labels, kept[1])
    none = told == NONE
    assert none.mean() == pytest.approx(0.2, abs=0.03)
    np.testing.assert_array_equal(told[~none], labels[~none])
    np.testing.assert_array_equal(mixed[~none], images[~none])
    assert (mixed[none] != images[none]).any((1, 2)).all()


def test_seed_and_step_decide():
    images, labels = sheet(100)
    one = mix(images, labels, 0.5, seed=1, step=3)
    again = mix(images, labels, 0.5, seed=1, step=3)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    for seed, step in ((2, 3), (1, 4)):
        assert not np.array_equal(mix(images, labels, 0.5, seed=seed, step=step)[0], one[0])


@given(st.integers(0, 40), st.tuples(st.integers(1, 33), st.integers(1, 33)))
def test_pictures_of_any_size_stay_pictures(count, shape):
    images, labels = sheet(count, shape)
    mixed, told = mix(images, labels, 1.0, seed=5, step=0)
    assert mixed.shape == images.shape
    assert mixed.dtype == np.uint8
    assert (told == NONE).all()


def test_only_digits_that_become_none_are_mirrored_or_laid_down():
    image = np.zeros((28, 28), np.uint8)
    for digit in range(10):
        ways = outliers._ways(image, digit)
        assert (outliers.mirror in ways) == (digit in {3, 4, 6, 7, 9})
        assert (outliers.lay_down in ways) == (digit in {2, 3, 4, 5, 6, 7, 9})
    assert outliers.lay_down not in outliers._ways(np.zeros((8, 6), np.uint8), 3)


def test_a_scramble_keeps_the_ink_and_moves_it():
    (image, *_), _ = sheet(1, (24, 24))
    drawn = outliers.scramble(image, np.random.default_rng(1))
    assert sorted(drawn.ravel()) == sorted(image.ravel())
    assert (drawn != image).mean() > 0.5


def test_two_stand_in_the_room_of_one():
    one, other = np.full((28, 28), 90, np.uint8), np.full((28, 28), 200, np.uint8)
    for seed in range(4):
        drawn = outliers.stand_beside(other, one, np.random.default_rng(seed))
        assert (drawn == 90).sum() == (drawn == 200).sum() == 28 * 14


def test_a_scribble_has_ink_and_paper():
    for seed in range(50):
        drawn = outliers.scribble(np.zeros((28, 28), np.uint8), np.random.default_rng(seed))
        assert 5 < (drawn > 0).sum() < 28 * 28 * 0.7


@pytest.mark.parametrize("engine", ["native", "torch"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_target_of_an_outlier_is_the_same_for_every_class(engine, smoothing):
    """Against the loss of as many copies of it, one under each label."""
    from small_training import DATA, engine_or_skip, experiment

    from rowwise.network import Network

    engine_or_skip(engine)
    chosen = experiment(
        label_smoothing=smoothing,
        layers=[{"kind": "gru", "units": 4, "return_sequences": True}],
        target_replication=0.5,
    )
    network = Network(chosen, DATA.shape, 10)
    start, images = network.initialise(seed=1), DATA.train_images[:3]

    def first_step(order: np.ndarray, given: engines.Given) -> tuple[float, int, dict]:
        trainer = engines.training_engine(engine).Trainer(
            network, start, DATA.train_images, DATA.train_labels, seed=1, threads=1
        )
        losses, right = trainer.run(
            order, batch=len(order), first_step=0, rates=np.array([0.01]), given=given
        )
        return float(losses[0]), int(right[0]), trainer.weights()

    none = engines.Given(images, np.full(3, NONE))
    every = engines.Given(np.repeat(images, 10, axis=0), np.tile(np.arange(10), 3))
    loss, right, weights = first_step(np.zeros(3, np.int64), none)
    each, _, same = first_step(np.zeros(30, np.int64), every)
    assert right == 0
    assert loss == pytest.approx(each / 10, rel=1e-5)
    for name, value in weights.items():
        np.testing.assert_allclose(value, same[name], atol=2e-4, err_msg=name)
