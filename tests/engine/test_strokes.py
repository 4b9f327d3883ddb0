"""Strokes are told apart as they are made, and one in five judges."""

import numpy as np
import pytest

from napari_unet.engine.errors import InvalidAnnotation
from napari_unet.engine.strokes import Strokes


def plane(objects: bool = False, shape: tuple[int, ...] = (20, 60)) -> Strokes:
    return Strokes("tyx"[-len(shape) :], shape, 2, objects)


def with_rows(count: int, value: int = 1) -> np.ndarray:
    """Return strokes along every second row."""
    labels = np.zeros((20, 60), dtype=np.uint8)
    labels[: 2 * count : 2, 5:50] = value
    return labels


def test_nothing_painted_is_no_change() -> None:
    assert plane().look(np.zeros((20, 60), dtype=np.uint8)) is None


def test_one_stroke_in_five_is_held_out_and_the_third_is_the_first() -> None:
    strokes = plane()
    for made in range(1, 10):
        strokes.look(with_rows(made))
    rows = np.flatnonzero(strokes.held_out.any(axis=1)) // 2 + 1
    assert rows.tolist() == [3, 8]
    assert strokes.count() == (7, 2)


def test_strokes_seen_in_one_look_are_counted_by_their_places() -> None:
    strokes = plane()
    strokes.look(with_rows(9))
    assert (np.flatnonzero(strokes.held_out.any(axis=1)) // 2 + 1).tolist() == [3, 8]


def test_a_stroke_is_held_out_whole() -> None:
    strokes = plane()
    strokes.look(with_rows(5))
    assert strokes.held_out[4].sum() == 45
    assert strokes.held_out.sum() == 45


def test_classes_are_counted_apart() -> None:
    labels = np.zeros((20, 60), dtype=np.uint8)
    labels[::2, :20], labels[::2, 30:50] = 1, 2
    strokes = plane()
    strokes.look(labels)
    for columns in (slice(0, 20), slice(30, 50)):
        assert np.flatnonzero(strokes.held_out[:, columns].any(axis=1)).tolist() == [4, 14]


def test_strokes_in_neighbouring_planes_are_two() -> None:
    labels = np.zeros((3, 20, 60), dtype=np.uint8)
    labels[:, 5, :] = 1
    strokes = plane(shape=(3, 20, 60))
    strokes.look(labels)
    assert strokes.count() == (2, 1)


def test_an_object_keeps_its_part_when_it_grows() -> None:
    strokes, labels = plane(objects=True), np.zeros((20, 60), dtype=np.uint16)
    for value in (2, 3, 4):
        labels[2:6, 10 * value : 10 * value + 5] = value
        strokes.look(labels)
    assert set(labels[strokes.held_out].tolist()) == {4}
    labels[2:9, 40:46] = 4
    labels[2:9, 30:36] = 3
    strokes.look(labels)
    np.testing.assert_array_equal(strokes.held_out, labels == 4)


def test_one_value_in_two_planes_is_two_objects() -> None:
    labels = np.zeros((3, 20, 60), dtype=np.uint16)
    labels[:, 5:9, 5:9] = 2
    strokes = plane(objects=True, shape=(3, 20, 60))
    strokes.look(labels)
    assert strokes.count() == (2, 1)
    assert strokes.held_out.any(axis=(1, 2)).tolist() == [False, False, True]


def test_erasing_takes_the_stroke_out() -> None:
    strokes = plane()
    strokes.look(with_rows(3))
    change = strokes.look(with_rows(2))
    assert not strokes.held_out.any()
    assert not strokes.newest[4].any()
    assert change.where.size == 45
    assert not change.values.any()


def test_only_what_was_painted_since_the_last_round_is_new() -> None:
    strokes = plane()
    strokes.look(with_rows(1))
    strokes.learned(strokes.newest.copy())
    strokes.look(with_rows(2))
    assert np.flatnonzero(strokes.newest.any(axis=1)).tolist() == [2]


def test_changes_put_together_give_the_same_strokes() -> None:
    strokes, changes = plane(), []
    for labels in (with_rows(3), with_rows(8, value=2), with_rows(6, value=2)):
        changes.append(strokes.look(labels))
    again = plane()
    again.take_back(iter(changes))
    np.testing.assert_array_equal(again.labels, strokes.labels)
    np.testing.assert_array_equal(again.held_out, strokes.held_out)
    snapshot = plane()
    snapshot.take_back(iter([strokes.everything()]))
    np.testing.assert_array_equal(snapshot.held_out, strokes.held_out)


def test_counting_goes_on_after_taking_back() -> None:
    strokes = plane()
    strokes.look(with_rows(7))
    again = plane()
    again.take_back(iter([strokes.everything()]))
    again.look(with_rows(8))
    assert np.flatnonzero(again.held_out.any(axis=1)).tolist() == [4, 14]


def test_another_shape_is_told() -> None:
    with pytest.raises(InvalidAnnotation, match=r"\(10, 10\), but the image needs \(20, 60\)"):
        plane().look(np.zeros((10, 10), dtype=np.uint8))


def test_what_is_left_of_a_stroke_counts_and_what_is_painted_again_counts_once() -> None:
    """Found by fuzzing: strokes were counted by their first pixel, so an eraser there or an undo and redo miscounted."""
    strokes, nothing = plane(), np.zeros((20, 60), dtype=np.uint8)
    strokes.look(with_rows(4))
    assert strokes.count() == (3, 1)
    rest = with_rows(4)
    rest[:, 5:9] = 0
    strokes.look(rest)
    assert strokes.count() == (3, 1)
    strokes.look(nothing)
    assert strokes.count() == (0, 0)
    strokes.look(rest)
    assert sum(strokes.count()) == 4


def test_an_object_that_is_partly_erased_is_still_one() -> None:
    strokes, labels = plane(objects=True), np.zeros((20, 60), dtype=np.uint8)
    labels[2:8, 2:8] = 5
    strokes.look(labels)
    labels = labels.copy()
    labels[2:5] = 0
    strokes.look(labels)
    labels = labels.copy()
    labels[8:12, 2:8] = 5
    strokes.look(labels)
    assert strokes.count() == (1, 0)
