"""The scores, with numbers by hand and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import adapted_rand_error
from skimage.metrics import variation_of_information as skimage_variation

from napari_unet.engine.errors import InvalidImage
from napari_unet.engine.metrics import (
    THRESHOLDS,
    after_thinning,
    average_precision,
    dice,
    evaluate,
    panoptic_quality,
    seg,
    thinned,
    v_info,
    v_rand,
    variation_of_information,
)

TRUTH = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0]])
EMPTY = np.zeros((1, 10), dtype=int)


def labels(*values: int) -> np.ndarray:
    return np.array([values])


def random_labels(seed: int, shape: tuple[int, ...] = (40, 50), highest: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, highest, shape)


@pytest.mark.parametrize("score", [dice, lambda p, t: v_rand(p, t).f, lambda p, t: v_info(p, t).f])
def test_perfect_labels_score_one_whatever_their_numbers(score) -> None:
    renumbered = np.where(TRUTH == 1, 70, np.where(TRUTH == 2, 5, 0))
    assert score(renumbered, TRUTH) == pytest.approx(1)


def test_dice_is_twice_the_common_foreground_over_both() -> None:
    # 8 true, 4 predicted, 3 common
    assert dice(labels(1, 1, 1, 0, 1, 0, 0, 0, 0, 0), TRUTH) == pytest.approx(6 / 12)


def test_dice_of_two_empty_images_is_one() -> None:
    assert dice(EMPTY, EMPTY) == 1.0


def test_average_precision_counts_matches_at_each_overlap() -> None:
    # object 1: 3 of 4 pixels, IoU 0.75; object 2: 4 of 4 and one more, IoU 0.8; a third is false
    prediction = labels(1, 1, 1, 3, 2, 2, 2, 2, 2, 0)
    assert average_precision(prediction, TRUTH, (0.5, 0.75, 0.8, 0.85)) == pytest.approx(
        {0.5: 2 / 3, 0.75: 2 / 3, 0.8: 1 / 4, 0.85: 0 / 5}
    )


def test_average_precision_of_two_empty_images_is_one() -> None:
    assert set(average_precision(EMPTY, EMPTY).values()) == {1.0}


@pytest.mark.parametrize(("prediction", "truth"), [(EMPTY, TRUTH), (TRUTH, EMPTY)], ids=["nothing found", "all false"])
def test_average_precision_is_zero_if_one_side_is_empty(prediction, truth) -> None:
    assert set(average_precision(prediction, truth).values()) == {0.0}


def test_two_halves_of_an_object_match_it_only_once() -> None:
    # both halves have IoU 0.5
    assert average_precision(labels(1, 1, 2, 2), labels(1, 1, 1, 1), (0.5,)) == {0.5: 1 / 2}


def test_matching_prefers_more_matches_to_better_ones() -> None:
    # Prediction 1 overlaps truth 1 best (IoU 5/8), but truth 1 is the only partner of prediction 2 at IoU 0.1
    prediction = labels(1, 1, 1, 1, 1, 1, 1, 2)
    truth = labels(2, 2, 1, 1, 1, 1, 1, 1)
    # pairs: (1,1) 5/8, (1,2) 2/7, (2,1) 1/6; greedy by IoU matches one pair, the best set two
    assert average_precision(prediction, truth, (0.1,)) == {0.1: 1.0}


def test_panoptic_quality_is_mean_overlap_times_f1() -> None:
    prediction = labels(1, 1, 1, 3, 2, 2, 2, 2, 2, 0)
    # IoU 0.75 and 0.8, one false object: SQ = 0.775, RQ = 2 / (2 + 1/2)
    assert panoptic_quality(prediction, TRUTH) == pytest.approx((0.62, 0.775, 0.8))


def test_panoptic_quality_sums_the_true_overlaps_of_crowded_matches() -> None:
    prediction = labels(1, 1, 1, 1, 1, 1, 1, 2)
    truth = labels(2, 2, 1, 1, 1, 1, 1, 1)
    assert panoptic_quality(prediction, truth, 0.1).sq == pytest.approx((2 / 7 + 1 / 6) / 2)


def test_panoptic_quality_of_two_empty_images_is_one() -> None:
    assert panoptic_quality(EMPTY, EMPTY) == (1.0, 1.0, 1.0)


def test_panoptic_quality_without_a_match_is_zero() -> None:
    assert panoptic_quality(EMPTY, TRUTH) == (0.0, 0.0, 0.0)


def test_merging_two_objects_lowers_the_precision_of_v_rand() -> None:
    # halves of n = 8: pairs 2 (1/2)^2 = 1/2, prediction 1, truth 1/2
    assert v_rand(labels(1, 1, 1, 1, 1, 1, 1, 1, 1, 1), TRUTH) == pytest.approx((2 / 3, 1 / 2, 1))


def test_splitting_an_object_lowers_the_recall_of_v_rand() -> None:
    assert v_rand(labels(1, 1, 2, 2), labels(1, 1, 1, 1)) == pytest.approx((2 / 3, 1, 1 / 2))


def test_each_missed_pixel_is_an_object_of_its_own_in_v_rand() -> None:
    # n = 4, one missed: singles 1/16; pairs and prediction (3/4)^2 + 1/16 = 10/16, truth 1
    assert v_rand(labels(1, 1, 1, 0), labels(1, 1, 1, 1)) == pytest.approx((20 / 26, 1, 10 / 16))


def test_merging_two_objects_lowers_the_precision_of_v_info() -> None:
    # truth: quarters, 2 bits; prediction: halves, 1 bit; mutual 1 bit
    assert v_info(labels(1, 1, 2, 2), labels(1, 2, 3, 4)) == pytest.approx((2 / 3, 1 / 2, 1))


def test_splitting_an_object_lowers_the_recall_of_v_info() -> None:
    assert v_info(labels(1, 2, 3, 4), labels(1, 1, 2, 2)) == pytest.approx((2 / 3, 1, 1 / 2))


def test_each_missed_pixel_is_an_object_of_its_own_in_v_info() -> None:
    # truth: halves of 4, 1 bit; prediction: one pair (1/2 bit) and two missed (1/2 * log2 4 = 1 bit); mutual 1
    assert v_info(labels(1, 1, 0, 0), labels(1, 1, 2, 2)) == pytest.approx((4 / 5, 1, 1 / 1.5))


def test_a_perfect_single_object_has_full_v_info() -> None:
    assert v_info(labels(1, 1), labels(1, 1)) == (1.0, 1.0, 1.0)


def test_variation_of_information_tells_splits_from_merges() -> None:
    assert variation_of_information(labels(1, 2, 3, 4), labels(1, 1, 2, 2)) == pytest.approx((1, 0))
    assert variation_of_information(labels(1, 1, 2, 2), labels(1, 2, 3, 4)) == pytest.approx((0, 1))


@pytest.mark.parametrize("score", [v_rand, v_info, variation_of_information])
def test_without_true_foreground_there_is_nothing_to_score(score) -> None:
    assert all(math.isnan(number) for number in score(TRUTH, EMPTY))


@pytest.mark.parametrize("score", [v_rand, v_info, variation_of_information])
def test_pixels_of_true_background_are_left_out(score) -> None:
    truth, prediction = random_labels(1), random_labels(2)
    changed = np.where(truth == 0, 99, prediction)
    assert score(changed, truth) == pytest.approx(score(prediction, truth))


@pytest.mark.parametrize("seed", range(5))
def test_v_rand_agrees_with_scikit_image_where_nothing_is_missed(seed: int) -> None:
    truth = np.kron(random_labels(seed, (5, 6)), np.ones((40, 40), int))
    prediction = np.roll(truth, (seed + 3, 7), axis=(0, 1)) + 1
    # scikit-image removes each pixel's pair with itself, a part in the area; its precision is our recall
    error, split, merge = adapted_rand_error(truth, prediction, ignore_labels=(0,))
    assert v_rand(prediction, truth) == pytest.approx((1 - error, merge, split), abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_variation_of_information_agrees_with_scikit_image(seed: int) -> None:
    truth, prediction = random_labels(seed), random_labels(seed + 100)
    expected = skimage_variation(truth, prediction, ignore_labels=(0,))
    assert variation_of_information(prediction, truth) == pytest.approx(tuple(expected))


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_agrees_with_counting_every_pair(seed: int) -> None:
    truth = random_labels(seed, (8, 9), 6)
    prediction = np.where(random_labels(seed + 50, (8, 9), 4) == 0, 0, truth)
    pairs = [(truth == i, prediction == j) for i in range(1, 6) for j in range(1, 6)]
    found = sum((a & b).sum() > 0.5 * (a | b).sum() for a, b in pairs)
    either = len(np.unique(truth[truth > 0])) + len(np.unique(prediction[prediction > 0])) - found
    assert average_precision(prediction, truth, (0.5 + 1e-9,)) == pytest.approx({0.5 + 1e-9: found / either})


def test_evaluate_holds_every_score() -> None:
    prediction = labels(1, 1, 1, 3, 2, 2, 2, 2, 2, 0)
    scores = evaluate(prediction, TRUTH)
    assert scores.dice == dice(prediction, TRUTH)
    assert scores.average_precision == average_precision(prediction, TRUTH, THRESHOLDS)
    assert scores.panoptic_quality == panoptic_quality(prediction, TRUTH)
    assert scores.v_rand == v_rand(prediction, TRUTH)
    assert scores.v_info == v_info(prediction, TRUTH)
    assert scores.variation_of_information == variation_of_information(prediction, TRUTH)
    assert (scores.predicted_objects, scores.true_objects) == (3, 2)


def test_mean_average_precision_is_the_mean_over_thresholds() -> None:
    # IoU 0.75: matched at 0.5, 0.55, ..., 0.75, that is 6 of 10
    assert evaluate(labels(1, 1, 1, 0), labels(1, 1, 1, 1)).mean_average_precision == pytest.approx(0.6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint64])
def test_every_integer_type_is_understood(dtype) -> None:
    assert dice(np.ones((2, 3), dtype), np.ones((2, 3), dtype)) == 1.0


def test_huge_label_numbers_need_no_huge_table() -> None:
    huge = np.array([[2**62, 2**62, 7, 7]], dtype=np.uint64)
    assert average_precision(huge, labels(1, 1, 2, 2), (0.9,)) == {0.9: 1.0}


def test_volumes_are_scored_like_planes() -> None:
    truth, prediction = random_labels(3, (4, 6, 8)), random_labels(4, (4, 6, 8))
    assert evaluate(prediction, truth) == evaluate(prediction.reshape(4, 48), truth.reshape(4, 48))


def test_different_shapes_are_refused_by_name() -> None:
    with pytest.raises(InvalidImage, match=r"\(1, 9\), but the truth has \(1, 10\)"):
        dice(TRUTH[:, 1:], TRUTH)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (TRUTH.astype(float), "float64"),
        (-TRUTH, "label -2"),
        (np.zeros((0, 4), int), "empty"),
    ],
    ids=["real numbers", "negative", "empty"],
)
def test_arrays_that_are_no_labels_are_refused(bad, reason) -> None:
    with pytest.raises(InvalidImage, match=reason):
        evaluate(bad, TRUTH)


@pytest.mark.parametrize("threshold", [0, 1.5])
def test_impossible_thresholds_are_refused(threshold) -> None:
    with pytest.raises(InvalidImage, match="threshold"):
        average_precision(TRUTH, TRUTH, (threshold,))


def test_borders_are_thinned_to_a_line_of_one_pixel() -> None:
    interior = np.array([[1, 1, 0, 0, 0, 1, 1]] * 3, dtype=bool)
    assert thinned(interior).tolist() == [[1, 1, 1, 0, 2, 2, 2]] * 3


def test_regions_that_touch_at_a_corner_are_two() -> None:
    assert thinned(np.array([[1, 0], [0, 1]], dtype=bool)).max() == 2


def test_nothing_inside_is_thinned_to_nothing() -> None:
    assert not thinned(np.zeros((4, 5), dtype=bool)).any()


@pytest.mark.parametrize(
    ("threshold", "expected"),
    # 9 pixels of truth, 3 in one cell and 6 in the other. At 0.5 the line falls on the true border, all is right.
    # At 0.2 there is one region: pairs (1/3)^2 + (2/3)^2 = 5/9, prediction 1, truth 5/9.
    # At 0.8 only the right region is left and takes all: the same.
    [(0.5, (1, 1, 1)), (0.2, (10 / 14, 5 / 9, 1)), (0.8, (10 / 14, 5 / 9, 1))],
)
def test_v_rand_after_thinning(threshold: float, expected: tuple[float, ...]) -> None:
    chance = np.array([[0.6, 0.3, 0.9, 0.9]] * 3)
    truth = np.array([[1, 0, 1, 1]] * 3, dtype=bool)
    assert after_thinning(chance, truth, (threshold,))[threshold][0] == pytest.approx(expected)


def test_v_info_after_thinning() -> None:
    # two halves merged: nothing is known of the truth, C(T|S) = 0; one object has no entropy to lose, C(S|T) = 1
    chance, truth = np.ones((2, 5)), np.array([[1, 1, 0, 1, 1]] * 2, dtype=bool)
    assert after_thinning(chance, truth, (0.5,))[0.5][1] == (0, 0, 1)


def test_seg_is_the_mean_overlap_of_what_is_more_than_half_covered() -> None:
    # object 1: 3 of 4 covered, IoU 3/4; object 2: exactly half covered, which is not more than half
    assert seg(labels(1, 1, 1, 0, 0, 2, 2, 0, 0, 0), TRUTH) == pytest.approx(0.75 / 2)


def test_seg_lets_one_object_cover_two() -> None:
    # ten pixels, 4 and 4 of them true: IoU 4/10 each
    assert seg(labels(*[1] * 10), TRUTH) == pytest.approx(0.4)


def test_seg_without_true_objects_is_not_a_number() -> None:
    assert math.isnan(seg(TRUTH, EMPTY))
