"""Distortions: seeded, independent of threads, each doing what its key says and no more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowwise import allographs, augment, outliers
from rowwise.augment import BLOCK, distort
from rowwise.recipe import Augmentation

ALL = Augmentation(
    rotation_deg=15.0,
    shear=0.2,
    scale=0.15,
    shift_px=2.0,
    elastic_px=1.0,
    stroke=0.7,
    outline_share=0.2,
    line_share=0.2,
    erase_share=0.3,
    blur_share=0.3,
    contrast_share=0.3,
    noise_share=0.3,
    flag_share=0.5,
    closed_share=0.5,
    outlier_share=0.2,
)
KEYS = [key for key in Augmentation.model_fields if key not in ("elastic_spacing_px", "calm_share")]


def bars(count: int = 8, shape: tuple[int, int] = (28, 28), *, width: int = 4) -> np.ndarray:
    """An upright bar in the middle of each picture."""
    images = np.zeros((count, *shape), np.uint8)
    left = (shape[1] - width) // 2
    images[:, 6:-6, left : left + width] = 255
    return images


def digits(count: int, shape: tuple[int, int] = (28, 28), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def fours(count: int) -> np.ndarray:
    """Upright fours, open at the top."""
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, 4:24, 17:19] = images[:, 5:16, 7:9] = images[:, 14:16, 7:22] = 255
    return images


def spoil(
    images: np.ndarray, how: Augmentation, *, seed: int, step: int, label: int = 1, **more
) -> np.ndarray:
    """The pictures alone, all of one label."""
    labels = np.full(len(images), label)
    return distort(images, labels, how, seed=seed, step=step, **more)[0]


def only(key: str) -> Augmentation:
    return Augmentation(**{key: getattr(ALL, key)})


def centres(images: np.ndarray) -> np.ndarray:
    """Row and column of each picture's centre of mass, [B, 2]."""
    ink = images.astype(float)
    total = ink.sum((1, 2))
    rows, columns = (np.arange(n) for n in images.shape[1:])
    return np.stack([ink.sum(2) @ rows / total, ink.sum(1) @ columns / total], axis=1)


def test_the_end_of_a_training_is_calmer():
    how = ALL.model_copy(update={"calm_share": 0.25})
    assert how.at(0.0) is how.at(0.7499) is how
    calm = how.at(0.75)
    assert calm == how.at(1.0)
    told = ("flag_share", "closed_share", "outlier_share", "elastic_spacing_px", "calm_share")
    for key in Augmentation.model_fields:
        assert getattr(calm, key) == getattr(how, key) / (1 if key in told else 2)
    assert ALL.at(1.0) is ALL


# --- seeds -------------------------------------------------------------------------------------


def test_seed_and_step_decide_and_nothing_else():
    images = digits(3 * BLOCK + 5)
    before = images.copy()
    one = spoil(images, ALL, seed=1, step=7)
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(spoil(images, ALL, seed=1, step=7, each=pool.map), one)
    np.testing.assert_array_equal(images, before)
    for other in (spoil(images, ALL, seed=2, step=7), spoil(images, ALL, seed=1, step=8)):
        assert (other != one).any((1, 2)).mean() > 0.99


def test_every_picture_draws_for_itself():
    """Also across blocks, where another stream begins."""
    same = np.repeat(digits(1), 2 * BLOCK, axis=0)
    drawn = spoil(same, ALL, seed=0, step=0)
    assert len({image.tobytes() for image in drawn}) > 2 * BLOCK - 3


def test_a_stream_is_not_that_of_the_initial_weights():
    """Both are made of the seed and a small number."""
    mine = np.random.PCG64([augment.STREAM, 0, 1, 0]).random_raw(4)
    theirs = np.random.PCG64([0, 1]).random_raw(4)
    assert not (mine == theirs).any()


@given(
    st.integers(0, 70),
    st.tuples(st.integers(1, 33), st.integers(1, 33)),
    st.sets(st.sampled_from(KEYS)),
    st.sampled_from([1, 4]),
)
def test_any_pictures_stay_pictures(count, shape, keys, label):
    how = Augmentation(**{key: getattr(ALL, key) for key in keys})
    drawn = spoil(digits(count, shape), how, seed=3, step=0, label=label)
    assert drawn.shape == (count, *shape)
    assert drawn.dtype == np.uint8


def test_nothing_asked_for_changes_nothing():
    images = digits(70)
    np.testing.assert_array_equal(spoil(images, Augmentation(), seed=1, step=1), images)


@pytest.mark.parametrize("key", KEYS)
def test_each_key_changes_pictures(key):
    images, label = (fours(200), 4) if key == "closed_share" else (bars(200, width=2), 1)
    if key == "erase_share":
        images[:, ::3] |= 100  # ink wherever a rectangle may fall
    drawn = spoil(images, only(key), seed=0, step=0, label=label)
    changed = (drawn != images).any((1, 2)).mean()
    if key.endswith("_share"):
        assert changed == pytest.approx(getattr(ALL, key), abs=0.1)
    else:
        assert changed > 0.9


def test_labels_stay_but_for_outliers():
    labels = np.random.default_rng(0).integers(0, 10, 300)
    kept = labels.copy()
    _, told = distort(digits(300), labels, ALL, seed=1, step=1)
    np.testing.assert_array_equal(labels, kept)
    none = told == outliers.NONE
    assert none.mean() == pytest.approx(ALL.outlier_share, abs=0.08)
    np.testing.assert_array_equal(told[~none], labels[~none])


# --- what moves ink ---------------------------------------------------------------------------


def test_a_shift_moves_the_centre_by_up_to_its_limit_and_keeps_the_ink():
    images = bars(300)
    drawn = spoil(images, Augmentation(shift_px=2.0), seed=0, step=0)
    moved = centres(drawn) - centres(images)
    assert np.abs(moved).max() == pytest.approx(2.0, abs=0.1)
    assert np.abs(moved.mean(0)).max() < 0.25
    assert moved.std(0) == pytest.approx([2 / np.sqrt(3)] * 2, rel=0.15)
    np.testing.assert_allclose(
        drawn.sum((1, 2), dtype=int), images.sum((1, 2), dtype=int), rtol=0.01
    )


def test_a_rotation_turns_by_up_to_its_limit_about_the_middle():
    images = bars(300)
    drawn = spoil(images, Augmentation(rotation_deg=30.0), seed=0, step=0).astype(float)
    rows, columns = np.arange(28) - 13.5, np.arange(28) - 13.5
    # The bar's principal axis, from its second moments.
    yy = (drawn.sum(2) * rows**2).sum(1)
    xx = (drawn.sum(1) * columns**2).sum(1)
    xy = np.einsum("brc,r,c->b", drawn, rows, columns)
    angles = np.rad2deg(0.5 * np.arctan2(2 * xy, yy - xx))
    assert np.abs(angles).max() == pytest.approx(30, abs=1.5)
    assert angles.std() == pytest.approx(30 / np.sqrt(3), rel=0.15)
    np.testing.assert_allclose(centres(drawn), 13.5, atol=0.15)


def test_a_scale_changes_the_area_by_up_to_the_square_of_its_limit():
    images = bars(300)
    drawn = spoil(images, Augmentation(scale=0.2), seed=0, step=0)
    area = drawn.sum((1, 2), dtype=float) / images.sum((1, 2), dtype=float)
    assert 0.6 < area.min() < 0.72
    assert 1.35 < area.max() < 1.5
    np.testing.assert_allclose(centres(drawn), 13.5, atol=0.15)


class Largest:
    """Draws the upper limit, whatever is asked for."""

    def uniform(self, low, high, size):
        return np.full(size, high)

    def random(self, size):
        return np.ones(size)


def test_a_shear_leans_to_the_right_and_keeps_the_area():
    row = np.arange(20)[:, None] - 9.5
    column = np.arange(30)[None, :]
    x, y = augment._affine(1, (20, 30), Augmentation(shear=0.3), Largest())
    np.testing.assert_allclose(x[0], column + 0.3 * row, atol=1e-4)  # the top comes from the left
    np.testing.assert_allclose(y[0], row + 9.5 + 0 * column, atol=1e-4)
    # With a rotation too: of where pixels come from, the map's determinant is 1.
    how = Augmentation(rotation_deg=40.0, shear=0.5)
    x, y = augment._affine(50, (20, 30), how, np.random.default_rng(0))
    (x_row, x_column), (y_row, y_column) = (np.gradient(v, axis=(1, 2)) for v in (x, y))
    np.testing.assert_allclose(x_column * y_row - x_row * y_column, 1, atol=1e-3)


def test_elastic_displacements_are_smooth_and_of_the_size_asked_for():
    rng = np.random.default_rng(0)
    fields = augment._smooth_fields(500, (28, 28), 8.0, rng)
    assert fields.shape == (2, 500, 28, 28)
    assert fields.std() == pytest.approx(0.87, abs=0.05)  # 1 at the knots, less between them
    assert np.abs(np.diff(fields, axis=2)).mean() < 0.2
    assert np.abs(np.diff(fields, axis=3)).mean() < 0.2
    far = np.corrcoef(fields[0, :, 14, 2], fields[0, :, 14, 26])[0, 1]
    assert abs(far) < 0.15
    assert abs(np.corrcoef(fields[0].ravel(), fields[1].ravel())[0, 1]) < 0.05


def test_ink_that_leaves_a_picture_enters_no_other():
    """Pictures lie in one stack while they are moved."""
    images = np.zeros((60, 10, 12), np.uint8)
    images[::2] = 255
    how = Augmentation(shift_px=9.0, rotation_deg=90.0, scale=0.5, elastic_px=4.0, stroke=1.0)
    drawn = spoil(images, how, seed=1, step=1)
    assert not drawn[1::2].any()
    blurred = spoil(images, Augmentation(blur_share=1.0, outline_share=1.0), seed=1, step=1)
    assert not blurred[1::2].any()


def test_a_blur_reaches_three_pixels_and_no_other_picture():
    """Of pictures in one stack each is changed as it is alone; beyond its edges is paper."""
    images = digits(3, (9, 8))
    images[1] = 0
    together = augment.blur(images, Largest())
    for i, image in enumerate(images):
        alone = cv2.GaussianBlur(
            image, (7, 7), augment.BLUR_SIGMA_PX, borderType=cv2.BORDER_CONSTANT
        )
        np.testing.assert_allclose(together[i].astype(int), alone.astype(int), atol=1)
    assert not together[1].any()
    dot = np.zeros((1, 15, 15), np.uint8)
    dot[0, 7, 7] = 255
    assert [int(n) for n in np.flatnonzero(augment.blur(dot, Largest())[0].any(axis=1))] == [
        *range(4, 11)
    ]


# --- strokes and grey levels ------------------------------------------------------------------


def test_strokes_grow_and_shrink_by_two_pixels_at_most():
    amounts = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    drawn = augment.thicken(bars(5), amounts)
    across = drawn[:, 14].sum(1, dtype=float) / 255
    np.testing.assert_allclose(across, 4 + 2 * amounts, atol=0.02)


def test_ones_alone_get_a_flag_and_half_of_them_a_base():
    labels = np.tile([1, 7], 200)
    images = bars(400, width=3)
    drawn, _ = distort(images, labels, Augmentation(flag_share=1.0), seed=0, step=0)
    np.testing.assert_array_equal(drawn[1::2], images[1::2])
    ones = drawn[::2]
    assert (ones >= images[::2]).all()
    assert (ones[:, 6:16, :12].max((1, 2)) > 200).all()  # the flag: above, and left of the bar
    assert (ones[:, 6:14, 18:].max((1, 2)) < 60).all()
    with_base = ones[:, 16:22, 17:].max((1, 2)) > 200
    assert with_base.mean() == pytest.approx(0.5, abs=0.1)


def test_a_one_that_leans_far_is_thick_or_has_no_ink_stays_as_it_is():
    nothing = np.zeros((28, 28), np.uint8)
    leaning = np.rint(255 * np.eye(28)[::-1]).astype(np.uint8)
    for one in (nothing, leaning, leaning[:, ::-1], bars(1)[0]):
        assert allographs.add_flag(one, np.random.default_rng(0)) is one


def test_fours_alone_are_closed_to_a_triangle_and_made_narrower():
    labels = np.tile([4, 7], 100)
    images = fours(200)
    drawn, _ = distort(images, labels, Augmentation(closed_share=1.0), seed=0, step=0)
    np.testing.assert_array_equal(drawn[1::2], images[1::2])
    for four in drawn[::2]:
        paper = (np.pad(four, 1) < 128).astype(np.uint8)
        pieces, of = cv2.connectedComponents(paper, connectivity=4)
        assert pieces == 3  # ink, the paper around it, and the paper within
        inner = of[1:-1, 1:-1] != of[0, 0]
        inner &= four < 128
        wide = inner.sum(1)[4:16]
        assert wide[8] > wide[2]  # a triangle: narrow at its top
        assert not four[:6, :9].any()  # the left end of the old opening is gone
    widths = [np.ptp(np.flatnonzero(four.max(0) > 128)) + 1 for four in drawn[::2]]
    assert max(widths) <= 16
    assert min(widths) < 11
    assert np.std(widths) > 1


def test_a_four_that_cannot_be_closed_stays_as_it_is():
    rng = np.random.default_rng(0)
    nothing = np.zeros((28, 28), np.uint8)
    thick = cv2.dilate(fours(1)[0], np.ones((3, 3), np.uint8))
    low = fours(1)[0]
    low[:10, 12:] = 0  # its upright begins at half of its height
    for four in (nothing, bars(1)[0], thick, low):
        for _ in range(20):
            assert allographs.close_four(four, rng) is four


def test_an_outline_is_hollow():
    drawn = augment.outline(bars(1), np.random.default_rng(0))[0]
    assert drawn[14, 11:17].tolist() == [255, 255, 0, 0, 255, 255]


def test_a_line_adds_ink_across_the_picture():
    drawn = augment.draw_line(np.zeros((200, 28, 28), np.uint8), np.random.default_rng(0))
    assert (drawn > 0).any((1, 2)).all()
    assert ((drawn > 0).sum((1, 2)) < 28 * 5).all()
    assert (np.maximum((drawn > 0).any(1).sum(1), (drawn > 0).any(2).sum(1)) >= 15).all()


def test_erasing_takes_one_rectangle_away():
    full = np.full((300, 30, 24), 255, np.uint8)
    drawn = augment.erase(full, np.random.default_rng(0))
    rows, columns = (drawn == 0).any(2).sum(1), (drawn == 0).any(1).sum(1)
    np.testing.assert_array_equal((drawn == 0).sum((1, 2)), rows * columns)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 10, 1, 8)


def test_a_blur_spreads_ink_and_keeps_it():
    images = bars(100)
    drawn = augment.blur(images, np.random.default_rng(0))
    np.testing.assert_allclose(
        drawn.sum((1, 2), dtype=int), images.sum((1, 2), dtype=int), rtol=0.02
    )
    assert ((drawn > 0).sum((1, 2)) > (images > 0).sum((1, 2))).mean() > 0.9


def test_contrast_keeps_the_order_of_grey_levels_and_the_paper_white():
    ramps = np.repeat(np.arange(256, dtype=np.uint8).reshape(1, 16, 16), 300, axis=0)
    drawn = augment.change_contrast(ramps, np.random.default_rng(0)).reshape(300, 256).astype(int)
    assert (drawn[:, 0] == 0).all()
    assert (np.diff(drawn, axis=1) >= 0).all()
    assert 100 <= drawn[:, -1].min() < 115
    assert drawn[:, -1].max() > 245
    middle = drawn[:, 128] / drawn[:, -1]
    assert middle.min() == pytest.approx(0.25, abs=0.03)
    assert middle.max() == pytest.approx(0.71, abs=0.03)


def test_noise_has_no_bias_where_there_is_room_for_it():
    grey = np.full((300, 28, 28), 128, np.uint8)
    drawn = augment.add_noise(grey, np.random.default_rng(0)).astype(float)
    spread = drawn.std((1, 2))
    assert drawn.mean() == pytest.approx(127.5, abs=1)
    assert spread.min() < 3
    assert 50 < spread.max() < 70
    specks = ((drawn == 0) | (drawn == 255)).mean((1, 2))
    assert (specks < 0.003).mean() == pytest.approx(0.5, abs=0.15)


def test_specks_are_as_often_of_paper_as_of_ink():
    """A share of 0 to 4 % in half of the pictures, half of them dark: 0.5 % each in all."""
    for level, speck in ((0, 255), (255, 0)):
        flat = np.full((400, 28, 28), level, np.uint8)
        drawn = augment.add_noise(flat, np.random.default_rng(1))
        assert (drawn == speck).mean() == pytest.approx(0.005, rel=0.2)
