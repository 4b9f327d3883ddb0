"""Painting, and correcting a result, in a viewer without a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels

from napari_unet.engine.errors import InvalidAnnotation
from napari_unet.plugin import layers
from napari_unet.plugin.annotating import Page, Scheme
from napari_unet.plugin.session import Session

from .test_session import two_squares

CLASSES = Scheme("semantic", 2, ("background", "cell"), ("#4477aa", "#ee6677"))
OBJECTS = Scheme("objects", 2, ("background", "nucleus"), ("#4477aa", "#ee6677"))


def page_of(
    viewer: ViewerModel, folder: Path, pixels: np.ndarray | None = None, scheme: Scheme = CLASSES, **place
) -> Page:
    layer = viewer.add_image(two_squares() if pixels is None else pixels, name="squares", **place)
    return Page(layer, layers.image_from(layer), scheme, folder)


@pytest.fixture
def page(viewer: ViewerModel, tmp_path: Path) -> Page:
    made = page_of(viewer, tmp_path)
    made.show(viewer)
    return made


def paint(layer: Labels, value: int, where: tuple[slice, ...]) -> None:
    """Paint as the brush does, with an event and an undo step."""
    grid = np.mgrid[where].reshape(layer.ndim, -1)
    layer.data_setitem(tuple(grid), value)


SOME = (slice(2, 5), slice(10, 20))


def test_the_layer_lies_on_its_image(viewer: ViewerModel, tmp_path: Path) -> None:
    stack = np.random.default_rng(0).random((5, 2, 30, 40))
    page = page_of(
        viewer, tmp_path, stack, axis_labels=("t", "c", "y", "x"), scale=(1, 1, 0.5, 0.5), translate=(0, 0, 7, 3)
    )
    layer = page.show(viewer)
    assert layer.data.shape == (5, 1, 30, 40)
    np.testing.assert_allclose(layer.scale, (1, 2, 0.5, 0.5))
    np.testing.assert_allclose(layer.translate[-2:], (7, 3))
    assert viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    paint(layer, 2, (slice(3, 4), slice(0, 1), slice(4, 9), slice(4, 9)))
    page.look([])
    assert np.argwhere(page.strokes.labels.any(axis=(1, 2))).tolist() == [[3]]


def test_showing_again_shows_the_same_layer(viewer: ViewerModel, page: Page) -> None:
    paint(page.layer, 1, SOME)
    assert page.show(viewer) is page.layer
    old = page.layer
    viewer.layers.remove(old)
    again = page.show(viewer)
    assert again is not old
    assert (again.data[SOME] == 1).all()


def test_a_class_has_one_colour_in_annotations_and_results(viewer: ViewerModel, page: Page) -> None:
    result = CLASSES.result_colormap()
    np.testing.assert_allclose(page.layer.colormap.map(2), result.map(1))


def test_what_is_painted_is_kept_on_disk(page: Page) -> None:
    paint(page.layer, 2, SOME)
    assert page.look([])
    assert not page.look([])
    assert page.journal_path is not None
    assert (page.strokes.labels[SOME] == 2).all()


def test_undo_takes_a_stroke_back(page: Page) -> None:
    paint(page.layer, 2, SOME)
    page.look([])
    page.layer.undo()
    assert page.look([])
    assert page.empty
    page.layer.redo()
    page.look([])
    assert not page.empty


@pytest.fixture
def session_page(viewer, session: Session, jobs, tmp_path: Path):
    """A segmented image, its page and its result."""

    def make(model: str = "bright") -> tuple[Page, object]:
        layer = viewer.add_image(two_squares(), name="squares")
        session.choose_model(session.library.find(model))
        session.segment()
        jobs.finish()
        (result,) = session.results
        scheme = OBJECTS if model == "objects" else CLASSES
        page = Page(layer, session.choice.image(), scheme, tmp_path / "journals")
        page.watch(result)
        return page, result

    return make


def test_correcting_a_result_by_brush_and_eraser_is_annotating(session_page) -> None:
    page, result = session_page()
    paint(result.layer, 1, (slice(15, 18), slice(50, 55)))
    paint(result.layer, 0, (slice(4, 6), slice(4, 12)))
    assert page.look([result])
    expected = np.zeros((40, 60), dtype=int)
    expected[15:18, 50:55], expected[4:6, 4:12] = 2, 1
    np.testing.assert_array_equal(page.strokes.labels, expected)


def test_a_fill_is_a_correction_too(session_page) -> None:
    page, result = session_page()
    result.layer.fill((6, 6), 0)
    page.look([result])
    np.testing.assert_array_equal(page.strokes.labels[4:12, 4:12], 1)
    assert (page.strokes.labels > 0).sum() == 64


def test_a_polygon_is_a_correction_too(session_page) -> None:
    page, result = session_page()
    result.layer.paint_polygon([[30, 2], [30, 12], [38, 12], [38, 2]], 1)
    page.look([result])
    assert (page.strokes.labels == 2).sum() > 50
    np.testing.assert_array_equal(page.strokes.labels == 2, (result.layer.data == 1) & (result.automatic == 0))


@pytest.mark.parametrize(
    ("model", "value"), [("bright", 0), ("bright", 1), ("objects", 0), ("objects", 1), ("objects", 2)]
)
def test_undoing_a_correction_leaves_no_annotation(session_page, model: str, value: int) -> None:
    page, result = session_page(model)
    paint(result.layer, value, (slice(2, 8), slice(2, 20)))
    page.look([result])
    assert not page.empty
    result.layer.undo()
    page.look([result])
    assert page.empty


def test_an_object_touched_by_a_correction_counts_as_complete(session_page) -> None:
    page, result = session_page("objects")
    paint(result.layer, 0, (slice(4, 6), slice(4, 12)))
    page.look([result])
    labels = page.strokes.labels
    assert set(np.unique(labels)) == {0, 1, 2}
    np.testing.assert_array_equal(labels == 1, (result.automatic == 1) & (result.layer.data == 0))
    np.testing.assert_array_equal(labels == 2, result.layer.data == 1)


def test_corrections_and_painted_objects_are_told_apart(viewer, session_page) -> None:
    page, result = session_page("objects")
    layer = page.show(viewer)
    paint(layer, page.next_object(), (slice(30, 35), slice(2, 9)))
    page.look([result])
    paint(result.layer, 1, (slice(12, 14), slice(4, 12)))
    page.look([result])
    paint(layer, page.next_object(), (slice(30, 35), slice(20, 29)))
    paint(result.layer, 2, (slice(28, 30), slice(30, 38)))
    page.look([result])
    assert len(np.unique(page.strokes.labels)) == 5
    assert (page.strokes.labels == page.strokes.labels[24, 34]).sum() == (result.layer.data == 2).sum()


def test_running_again_gives_no_corrections(session_page, session, jobs) -> None:
    page, result = session_page()
    session.segment()
    jobs.step()
    page.look([result])
    jobs.finish()
    page.look([result])
    assert page.empty


# --- nothing lost


def test_strokes_come_back_with_their_parts(viewer, page: Page, tmp_path: Path) -> None:
    for row in range(0, 12, 3):
        paint(page.layer, 1 + row % 2, (slice(row, row + 1), slice(0, 30)))
        page.look([])
    page.close()
    again = Page(page.source, page.image, CLASSES, tmp_path)
    (left,) = again.kept()
    again.take_back([left])
    np.testing.assert_array_equal(again.strokes.labels, page.strokes.labels)
    np.testing.assert_array_equal(again.strokes.held_out, page.strokes.held_out)
    assert not left.path.exists()
    assert again.journal_path is not None


@contextmanager
def button_down(layer: Labels) -> Iterator[None]:
    """What napari does while the mouse button is held down, for the callback that is ours."""
    event = SimpleNamespace(type="mouse_press")
    ours = layer.mouse_drag_callbacks[-1](layer, event)
    next(ours)
    with layer.block_history():
        event.type = "mouse_move"
        next(ours)
        yield
    event.type = "mouse_release"
    assert next(ours, None) is None


def test_an_unfinished_stroke_is_kept_too_but_is_no_stroke_yet(page: Page, tmp_path: Path) -> None:
    with button_down(page.layer):
        page.layer.paint((10, 10), 2)
        page.look([])
        assert page.empty  # who judges is decided at its end
        kept = Page(page.source, page.image, CLASSES, tmp_path)
        page.close()
        kept.take_back(kept.kept())
        assert kept.strokes.labels[10, 10] == 2


def test_a_stroke_seen_in_the_middle_is_one(page: Page) -> None:
    with button_down(page.layer):
        for column in range(10, 40, 3):
            page.layer.paint((10, column), 2)
            page.look([])
    page.look([])
    assert page.strokes.count() == (1, 0)


def test_an_unfinished_stroke_that_is_undone_leaves_nothing(page: Page, tmp_path: Path) -> None:
    with button_down(page.layer):
        page.layer.paint((10, 10), 2)
        page.look([])
    page.layer.undo()
    page.look([])
    page.close()
    again = Page(page.source, page.image, CLASSES, tmp_path)
    again.take_back(again.kept())
    assert again.empty


@pytest.mark.parametrize("ending", [".tif", ".zarr"])
def test_annotations_are_saved_and_loaded_with_their_parts(page: Page, tmp_path: Path, ending: str) -> None:
    for row in range(0, 12, 3):
        paint(page.layer, 1, (slice(row, row + 1), slice(0, 30)))
        page.look([])
    before = page.strokes
    before.newest[:3] = False  # an earlier round knew them
    page.save(tmp_path / f"saved{ending}")
    assert page.kept() == []
    page.discard()
    assert page.empty
    page.load(tmp_path / f"saved{ending}")
    np.testing.assert_array_equal(page.layer.data, before.labels)
    np.testing.assert_array_equal(page.strokes.held_out, before.held_out)
    np.testing.assert_array_equal(page.strokes.newest, before.newest)


@pytest.mark.parametrize("place", [(-30, -30), (500, 500), (20, 900)])
def test_a_stroke_outside_the_image_is_none(page: Page, place: tuple[int, int]) -> None:
    page.layer.paint(place, 2)
    assert not page.look([])
    assert page.empty


def test_a_stroke_across_the_edge_is_what_lies_inside(page: Page) -> None:
    page.layer.brush_size = 10
    page.layer.paint((0, 59), 2)
    page.look([])
    assert page.strokes.labels[0, 59] == 2
    assert 10 < np.count_nonzero(page.strokes.labels) < 50  # a quarter of a disc


def test_a_layer_given_other_data_is_told(page: Page) -> None:
    page.layer.data = np.zeros((3, 3), dtype=np.uint8)
    with pytest.raises(InvalidAnnotation, match=r"has shape \(3, 3\), but its image needs \(40, 60\)"):
        page.look([])


def test_following_another_model_keeps_the_strokes(page: Page) -> None:
    paint(page.layer, 2, SOME)
    page.look([])
    page.follow(OBJECTS)
    assert page.strokes.objects
    assert (page.strokes.labels[SOME] == 2).all()
