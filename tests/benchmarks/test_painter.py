"""The simulated user paints only what is true, only where it is wrong, and not too close to a border."""

import numpy as np
import pytest
from benchmarks.painter import LONGEST, SMALLEST_ERROR, THICKEST, TOLERATED, Painter, annotation
from scipy import ndimage


@pytest.fixture
def truth() -> np.ndarray:
    """Return two discs, numbered."""
    y, x = np.indices((120, 160))
    one, two = ((y - 60) ** 2 + (x - a) ** 2 <= 25**2 for a in (40, 110))
    return one + 2 * two


def test_a_stroke_never_leaves_its_class(truth: np.ndarray) -> None:
    classes = np.minimum(truth, 1)
    for stroke in Painter([classes], seed=1).first(12):
        assert (classes[stroke.mask] == stroke.value - 1).all()
        assert 0 < stroke.mask.sum() <= 1.2 * (2 * THICKEST + 1) * (LONGEST + 2 * THICKEST)


def test_the_first_strokes_show_every_class(truth: np.ndarray) -> None:
    assert [s.value for s in Painter([np.minimum(truth, 1)]).first(4)] == [2, 1, 2, 1]


def test_the_third_stroke_of_each_class_and_every_fifth_after_it_is_held_out(truth: np.ndarray) -> None:
    strokes = Painter([np.minimum(truth, 1)] * 3).first(20)
    for value in (1, 2):
        assert [i for i, s in enumerate(s for s in strokes if s.value == value) if s.held_out] == [2, 7]


def test_only_errors_are_painted(truth: np.ndarray) -> None:
    classes = np.minimum(truth, 1)
    missed = np.where(truth == 2, 0, classes)
    strokes = Painter([classes]).correct([missed], 3)
    assert strokes
    for stroke in strokes:
        assert (truth[stroke.mask] == 2).all()


def test_errors_at_the_border_are_left_alone(truth: np.ndarray) -> None:
    classes = np.minimum(truth, 1)
    grown = ndimage.binary_dilation(classes, iterations=int(TOLERATED)).astype(int)
    assert Painter([classes]).correct([grown], 4) == []


def test_specks_are_left_alone(truth: np.ndarray) -> None:
    classes = np.minimum(truth, 1)
    speck = classes.copy()
    speck[60, 36 : 36 + SMALLEST_ERROR - 1] = 0
    assert Painter([classes]).correct([speck], 4) == []


def test_objects_are_filled(truth: np.ndarray) -> None:
    merged = np.minimum(truth, 1)
    merged[60, 60:90] = 1
    strokes = Painter([truth], objects=True).correct([merged], 2)
    assert {s.value for s in strokes} == {2, 3}
    for stroke in strokes:
        assert np.array_equal(stroke.mask, truth == stroke.value - 1)


def test_longer_strokes_take_longer(truth: np.ndarray) -> None:
    for stroke in Painter([np.minimum(truth, 1)]).first(6):
        assert 1.0 < stroke.seconds <= 1.0 + LONGEST / 400


def test_strokes_become_an_annotation(truth: np.ndarray) -> None:
    strokes = Painter([np.minimum(truth, 1)]).first(6)
    labels, held_out = annotation(strokes, 0, truth.shape)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert held_out.any()
    assert (labels[held_out] > 0).all()
    assert not annotation(strokes, 1, truth.shape)[0].any()
