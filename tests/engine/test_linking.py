"""Linking objects of neighbouring planes, with numbers found by hand."""

import numpy as np

from napari_unet.engine.linking import link


def test_an_object_keeps_its_number_through_planes() -> None:
    planes = np.array([[1, 1, 1, 0, 2], [0, 2, 2, 0, 1], [0, 1, 1, 0, 2]])
    np.testing.assert_array_equal(link(planes, 0, 0.3), [[1, 1, 1, 0, 2], [0, 1, 1, 0, 2], [0, 1, 1, 0, 2]])


def test_of_two_candidates_the_larger_overlap_wins_and_the_other_is_new() -> None:
    planes = np.array([[1, 1, 1, 1, 1], [1, 2, 2, 2, 2]])
    np.testing.assert_array_equal(link(planes, 0, 0.1), [[1, 1, 1, 1, 1], [2, 1, 1, 1, 1]])


def test_too_little_overlap_is_another_object() -> None:
    planes = np.array([[1, 1, 0, 0], [0, 1, 1, 1]])  # intersection over union 1 / 4
    assert link(planes, 0, 0.25).max() == 1
    assert link(planes, 0, 0.26).max() == 2


def test_an_object_that_comes_back_after_a_gap_is_new() -> None:
    np.testing.assert_array_equal(link(np.array([[1, 1], [0, 0], [1, 1]]), 0, 0.5), [[1, 1], [0, 0], [2, 2]])


def test_any_axis_can_be_followed() -> None:
    planes = np.array([[1, 0, 2], [0, 2, 0]])
    np.testing.assert_array_equal(link(planes.T, 1, 0.3).T, link(planes, 0, 0.3))
