"""Corrections of objects, as functions of small arrays whose outcome is told by hand."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_unet.engine.errors import InvalidAnnotation
from napari_unet.plugin.proofread import cut, fill_holes, keep_largest, place, renumber, split, write


def row(*values: int) -> np.ndarray:
    return np.array([values])


def test_an_object_is_put_where_it_was_not() -> None:
    assert place(row(0, 0, 0), row(0, 1, 1) > 0, 5).tolist() == [[0, 5, 5]]


def test_an_object_moves() -> None:
    assert place(row(5, 5, 0), row(0, 1, 1) > 0, 5).tolist() == [[0, 5, 5]]


def test_of_an_object_that_is_mostly_covered_nothing_remains() -> None:
    assert place(row(2, 2, 2, 3, 3, 3), row(0, 1, 1, 1, 0, 0) > 0, 5).tolist() == [[0, 5, 5, 5, 3, 3]]


def test_locked_pixels_stay() -> None:
    assert place(row(2, 2, 0, 0), row(1, 1, 1, 0) > 0, 5, {2: []}).tolist() == [[2, 2, 5, 0]]


def test_a_locked_object_can_be_corrected_itself() -> None:
    assert place(row(5, 5, 0, 0), row(1, 1, 1, 0) > 0, 5, {5: []}).tolist() == [[5, 5, 5, 0]]


def test_objects_are_renumbered() -> None:
    assert renumber(row(1, 2, 0), 1, 2).tolist() == [[2, 2, 0]]


@pytest.mark.parametrize("dims", [2, 3])
def test_an_object_is_split_where_it_is_narrow(dims: int) -> None:
    labels = np.zeros((9,) * (dims - 1) + (20,), dtype=np.uint8)
    labels[..., 1:9], labels[..., 11:19] = 1, 1
    labels[(4,) * (dims - 1) + (slice(9, 11),)] = 1
    seeds = [(4,) * (dims - 1) + (4,), (4,) * (dims - 1) + (15,)]
    pieces = split(labels, 1, seeds, (1, 7))
    assert set(np.unique(pieces[..., 1:9])) == {1}
    assert set(np.unique(pieces[..., 11:19])) == {7}


def test_two_seeds_on_one_pixel_are_refused() -> None:
    with pytest.raises(InvalidAnnotation, match="same pixel"):
        split(np.ones((3, 3), int), 1, [(1, 1), (1, 1)], (1, 2))


def test_an_object_is_cut_along_a_line() -> None:
    pieces = cut(np.ones((4, 9), int), 1, [(0, 6), (3, 6)], (1, 2))
    assert set(np.unique(pieces[:, :7])) == {1}
    assert set(np.unique(pieces[:, 7:])) == {2}


def test_a_diagonal_line_cuts_too() -> None:
    pieces = cut(np.ones((6, 6), int), 1, [(0, 5), (5, 0)], (1, 2))
    assert {pieces[0, 0], pieces[5, 5]} == {1, 2}


def test_a_line_that_does_not_go_through_is_refused() -> None:
    with pytest.raises(InvalidAnnotation, match="does not divide"):
        cut(np.ones((4, 9), int), 1, [(0, 6), (2, 6)], (1, 2))


def test_holes_are_filled_but_for_other_objects() -> None:
    labels = np.ones((5, 6), int)
    labels[2, 2], labels[2, 3] = 0, 4
    filled = fill_holes(labels, 1)
    assert filled[2, 2] == 1
    assert filled[2, 3] == 4


def test_the_largest_piece_is_kept() -> None:
    assert keep_largest(row(1, 1, 0, 1, 2), 1).tolist() == [[1, 1, 0, 0, 2]]


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def stack(viewer: ViewerModel) -> Labels:
    return viewer.add_labels(np.zeros((3, 4, 5), dtype=np.uint8))


def test_writing_is_one_step_of_undo_that_holds_in_another_slice(viewer: ViewerModel, stack: Labels) -> None:
    labels = np.zeros((4, 5), int)
    labels[1:3, 2] = 3, 4
    viewer.dims.set_point(0, 1)
    assert write(stack, (1, slice(None), slice(None)), labels)
    assert stack.data[1, 1:3, 2].tolist() == [3, 4]
    viewer.dims.set_point(0, 2)
    stack.undo()
    assert not stack.data.any()
    stack.redo()
    assert stack.data[1, 1:3, 2].tolist() == [3, 4]


def test_writing_what_is_there_changes_nothing(stack: Labels) -> None:
    assert not write(stack, (slice(0, 2), slice(None), slice(None)), np.zeros((2, 4, 5), int))


def test_a_part_is_written_at_its_place(stack: Labels) -> None:
    write(stack, (slice(1, 3), slice(None), slice(None)), np.full((2, 4, 5), 9))
    assert stack.data.any(axis=(1, 2)).tolist() == [False, True, True]
