"""What was found, missed and invented, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.engine.comparison import (
    COLORS,
    Comparison,
    Kind,
    PlaneCompared,
    compare,
    comparing,
    grey,
    object_axes,
    outlines,
    picture,
    worst,
)
from napari_unet.engine.errors import InvalidImage
from napari_unet.engine.image import Image

TRUTH = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0]])
RESULT = np.array([[1, 1, 1, 0, 0, 0, 0, 3, 3, 3]])
"""Object 1: IoU 3/4, a match. True object 2 and found object 3 share 2 of 5 pixels: one is missed, one invented."""


def test_objects_are_matched_missed_or_invented() -> None:
    scores = compare(RESULT, TRUTH).scores
    assert (scores.matched, scores.missed, scores.invented) == (1, 1, 1)
    assert scores.average_precision[0.5] == pytest.approx(1 / 3)


def test_errors_say_of_each_pixel_what_became_of_it() -> None:
    # the outline of object 1 is the pixel beside background; where missed and invented meet they are mixed
    assert compare(RESULT, TRUTH).errors.tolist() == [[0, 0, 1, 0, 0, 2, 2, 4, 4, 3]]


def test_a_perfect_result_has_outlines_and_no_errors() -> None:
    errors = compare(TRUTH * 7, TRUTH).errors
    assert errors.tolist() == [[0, 0, 0, 1, 0, 1, 0, 0, 1, 0]]


def test_planes_are_compared_one_by_one_where_objects_span_y_and_x() -> None:
    # as one array, result 1 overlaps truth 1 in the first plane and truth 2 in the second, and can match only one
    truth = np.array([[[1, 1, 0]], [[2, 2, 0]]])
    result = np.array([[[1, 1, 0]], [[1, 1, 0]]])
    assert compare(result, truth, "zyx").scores.matched == 1
    by_plane = compare(result, truth, "zyx", "yx").scores
    assert (by_plane.planes, by_plane.matched, by_plane.predicted_objects) == (2, 2, 2)
    assert by_plane.average_precision[0.95] == 1.0


def test_scores_of_planes_pool_objects_and_average_what_counts_pairs() -> None:
    # first plane: perfect, V_Rand 1; second: one object cut in two, V_Rand 2/3, AP@0.5 one match of two
    truth = np.array([[[1, 1, 1, 1]], [[1, 1, 1, 1]]])
    result = np.array([[[1, 1, 1, 1]], [[1, 1, 2, 2]]])
    scores = compare(result, truth, "tyx", "yx").scores
    assert scores.average_precision[0.5] == pytest.approx(2 / 3)
    assert scores.average_precision[0.75] == pytest.approx(1 / 4)
    assert scores.v_rand.f == pytest.approx((1 + 2 / 3) / 2)
    assert scores.dice == 1.0


def test_planes_without_true_objects_do_not_count_in_a_mean() -> None:
    truth = np.array([[[1, 1]], [[0, 0]]])
    assert compare(truth, truth, "zyx", "yx").scores.v_rand.f == pytest.approx(1)


@pytest.mark.parametrize("axes", ["tzyx", "ztyx"])
def test_axes_may_stand_in_any_order(axes: str) -> None:
    # two volumes; in each, an object of two slices under one number
    tzyx = np.zeros((2, 3, 1, 2), int)
    tzyx[:, 1:, 0, 0] = 5
    truth = tzyx.transpose(["tzyx".index(a) for a in axes])
    found = compare(truth, truth, axes, "zyx")
    assert (found.scores.planes, found.scores.matched) == (2, 2)
    assert found.errors.shape == truth.shape
    assert np.count_nonzero(found.errors == Kind.MATCHED) == 4


def test_classes_are_scored_by_their_pixels() -> None:
    # class 1: 3 found, 4 true, 3 common; class 2: 3 found, 4 true, 2 common
    truth, result = TRUTH, np.array([[1, 1, 1, 0, 0, 1, 0, 2, 2, 2]])
    found = compare(result, truth, task="semantic")
    assert [c.value for c in found.classes] == [1, 2]
    assert [c.dice for c in found.classes] == pytest.approx([6 / 8, 4 / 7])
    assert [c.iou for c in found.classes] == pytest.approx([3 / 5, 2 / 5])
    assert found.errors.tolist() == [[0, 0, 1, 2, 0, 4, 2, 1, 1, 3]]


def test_classes_of_a_stack_are_scored_together() -> None:
    truth, result = np.array([[[1, 1]], [[1, 1]]]), np.array([[[1, 1]], [[0, 0]]])
    (only,) = compare(result, truth, "zyx", "yx", task="semantic").classes
    assert only.dice == pytest.approx(2 * 2 / (2 + 4))


def test_an_empty_result_misses_all() -> None:
    found = compare(np.zeros_like(TRUTH), TRUTH)
    assert (found.scores.missed, found.scores.invented) == (2, 0)
    assert set(np.unique(found.errors)) == {0, Kind.MISSED}


def test_there_is_news_after_each_plane() -> None:
    stack = np.ones((3, 2, 2), int)
    *planes, last = comparing(stack, stack, "zyx", "yx")
    assert planes == [PlaneCompared(k, 3) for k in (1, 2, 3)]
    assert isinstance(last, Comparison)


@pytest.mark.parametrize(
    ("record", "axes", "expected"),
    [
        ({"dims": 2}, "tzyx", "yx"),
        ({"dims": 3}, "tzyx", "zyx"),
        ({"dims": 2, "link": "z"}, "tzyx", "zyx"),
        ({"dims": 2, "link": "t"}, "tyx", "tyx"),
        ({}, "zyx", "zyx"),
        ({"dims": "many"}, "zyx", "zyx"),
    ],
    ids=["planes", "volumes", "linked slices", "linked frames", "unknown", "nonsense"],
)
def test_the_record_says_what_an_object_spans(record, axes: str, expected: str) -> None:
    assert object_axes(record, axes) == expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TRUTH, TRUTH[:, 1:]), "but the truth has (1, 9)"),
        ((TRUTH, TRUTH, "zyx"), "do not fit labels of shape (1, 10)"),
        ((TRUTH, TRUTH, "yx", "zyx"), "do not fit"),
        ((TRUTH, TRUTH, "yx", "yx", "guess"), "'guess' is no task"),
        ((TRUTH / 2, TRUTH), "The prediction holds float64 values"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(arguments, sentence: str) -> None:
    with pytest.raises(InvalidImage, match=sentence.replace("(", r"\(").replace(")", r"\)")):
        compare(*arguments)


def test_outlines_are_the_pixels_with_another_neighbour() -> None:
    labels = np.zeros((5, 5), int)
    labels[1:4, 1:4] = 1
    expected = labels > 0
    expected[2, 2] = False
    np.testing.assert_array_equal(outlines(labels), expected)


def test_the_worst_plane_has_the_most_wrong_pixels() -> None:
    errors = np.zeros((2, 3, 2, 2), np.uint8)
    errors[0, 1] = Kind.MATCHED
    errors[1, 2, 0, 0] = Kind.MISSED
    assert worst(errors) == (1, 2)
    assert worst(errors[0, 0]) == ()


def test_the_picture_shows_the_image_in_grey_and_each_kind_in_its_colour() -> None:
    errors = np.zeros((600, 600), np.uint8)
    for k, kind in enumerate(Kind):
        errors[100 * k : 100 * k + 50, :50] = kind
    pixels = np.tile(np.linspace(0, 1, 600), (600, 1))
    drawn = picture(errors, pixels)
    assert drawn.shape == (600, 600, 3)
    assert drawn[0, 599].tolist() == [255, 255, 255]
    assert len(set(drawn[550, 300].tolist())) == 1
    for k, kind in enumerate(Kind):
        on_edge = "#" + "".join(f"{value:02x}" for value in drawn[100 * k + 49, 20])
        assert on_edge == COLORS[kind]


def test_a_small_picture_is_drawn_twice_as_large() -> None:
    assert picture(np.zeros((4, 6), np.uint8)).shape == (8, 12, 3)


@pytest.mark.parametrize(("position", "shape"), [((), (2, 2)), ((2,), (2, 2)), ((1,), (2, 3))])
def test_an_image_without_that_plane_is_not_what_was_segmented(position, shape) -> None:
    with pytest.raises(InvalidImage, match="is not what was segmented"):
        grey(Image(np.zeros((2, 2, 2)), "zyx"), position, shape, {})


def test_a_plane_in_grey_is_of_the_channel_asked_for() -> None:
    image = Image(np.arange(24).reshape(2, 3, 2, 2), "zcyx")
    assert grey(image, (1,), (2, 2), {"settings": {"channel": 2}}).tolist() == [[20, 21], [22, 23]]
    assert grey(image, (1,), (2, 2), {}).tolist() == [[12, 13], [14, 15]]


def test_colours_become_grey() -> None:
    image = Image(np.full((2, 2, 3), 100, np.uint8), "yxc", rgb=True)
    assert grey(image, (), (2, 2), {}) == pytest.approx(np.full((2, 2), 100))
