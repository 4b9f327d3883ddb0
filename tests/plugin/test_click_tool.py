"""The click tool in a viewer without a window; the segmenter is played by a flood fill, whose answers are told by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import (
    mouse_double_click_callbacks,
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_unet.engine.errors import InvalidImage, ModelNotFound
from napari_unet.plugin import correcting
from napari_unet.plugin.choice import NO_IMAGE
from napari_unet.plugin.click_tool import IDLE, KEY, LOOKING, NOTHING, PAINTING, PENDING, ClickTool
from napari_unet.plugin.correcting import DELETE, FILL, LARGEST, MERGE, SPLIT

from .fakes import Stepwise
from .flood import click, preview, result, squares

# --- one click, one object --------------------------------------------------------------------------------------------


def test_a_click_shows_the_object_at_once(viewer, ready) -> None:
    click(ready, 6, 6)
    np.testing.assert_array_equal(preview(viewer) > 0, squares() * (np.arange(60) < 20) > 0)
    assert ready.hint() == PENDING


def test_the_preview_has_an_outline(viewer, ready) -> None:
    click(ready, 6, 6)
    assert preview(viewer)[4, 4:12].tolist() == [2] * 8
    assert preview(viewer)[5, 4:12].tolist() == [2, *[1] * 6, 2]


def test_accepting_writes_it_as_a_new_object(viewer, ready, heard) -> None:
    click(ready, 6, 6)
    ready.accept()
    np.testing.assert_array_equal(result(viewer).data == 1, squares() * (np.arange(60) < 20) > 0)
    assert not preview(viewer).any()
    assert heard.last.text == "Object 1 is accepted and locked."
    assert ready.hint() == IDLE


def test_the_next_object_has_the_next_number(viewer, ready) -> None:
    for at in ((6, 6), (26, 36)):
        click(ready, *at)
        ready.accept()
    assert set(np.unique(result(viewer).data)) == {0, 1, 2}


def test_the_active_layer_stays_active(viewer, ready) -> None:
    click(ready, 6, 6)
    ready.accept()
    assert viewer.layers.selection.active.name == "squares"


def test_a_negative_click_takes_away(viewer, ready) -> None:
    click(ready, 26, 36)
    click(ready, 21, 31)
    assert np.count_nonzero(preview(viewer)) == 64
    click(ready, 21, 31, positive=False)
    assert np.count_nonzero(preview(viewer)) == 48


def test_undo_takes_back_one_click(viewer, ready) -> None:
    click(ready, 26, 36)
    click(ready, 21, 31)
    ready.undo()
    assert np.count_nonzero(preview(viewer)) == 48
    ready.undo()
    assert ready.draft is None


def test_undo_without_an_open_object_is_the_undo_of_napari(viewer, ready) -> None:
    click(ready, 6, 6)
    ready.accept()
    ready.undo()
    assert not result(viewer).data.any()
    ready.redo()
    assert result(viewer).data.any()


def test_dropping_forgets_it(viewer, ready) -> None:
    click(ready, 6, 6)
    ready.drop()
    assert ready.draft is None
    assert not preview(viewer).any()
    ready.accept()
    assert len(viewer.layers) == 2


def test_the_newest_click_wins(viewer, ready, clicks, flood) -> None:
    ready.click((26, 36))
    assert ready.hint() == LOOKING
    ready.click((21, 31))
    clicks.finish()
    assert "click preview" not in viewer.layers  # the answer to the first click alone
    clicks.finish()
    assert np.count_nonzero(preview(viewer)) == 64


def test_enter_before_the_answer_accepts_when_it_is_there(viewer, ready, clicks) -> None:
    ready.click((6, 6))
    ready.accept()
    assert len(viewer.layers) == 1
    clicks.finish()
    assert result(viewer).data.any()


def test_an_undone_click_is_not_shown_when_its_answer_comes(viewer, ready, clicks) -> None:
    ready.click((6, 6))
    ready.undo()
    clicks.finish()
    assert "click preview" not in viewer.layers


# --- with an automatic result -----------------------------------------------------------------------------------------


def test_the_automatic_object_under_the_click_starts_the_first_mask(viewer, segmented, flood) -> None:
    before = result(viewer).data.copy()
    click(segmented, 6, 6)
    np.testing.assert_array_equal(flood.priors[-1], before == before[6, 6])


def test_an_accepted_object_takes_the_place_of_the_automatic_one(viewer, segmented) -> None:
    count = result(viewer).data.max()
    click(segmented, 6, 6)
    segmented.accept()
    assert np.unique(result(viewer).data[4:12, 4:12]).tolist() == [count + 1]


def test_a_run_leaves_accepted_objects_alone(viewer, session, jobs, segmented) -> None:
    click(segmented, 22, 32)
    segmented.accept()
    mine = result(viewer).data == 3
    assert mine.any()
    session.segment()
    while jobs.step():
        np.testing.assert_array_equal(result(viewer).data == 3, mine)
    np.testing.assert_array_equal(result(viewer).data == 3, mine)
    assert result(viewer).data[6, 6] > 3


def test_other_thresholds_leave_accepted_objects_alone(viewer, session, jobs, segmented) -> None:
    from napari_unet.engine.settings import ObjectSettings

    click(segmented, 6, 6)
    segmented.accept()
    mine = result(viewer).data == 3
    session.rethreshold(ObjectSettings(minimal_size=1000))
    jobs.finish()
    np.testing.assert_array_equal(result(viewer).data, np.where(mine, 3, 0))


def test_a_cancelled_run_leaves_accepted_objects_alone(viewer, session, jobs, ready) -> None:
    click(ready, 6, 6)
    ready.accept()
    before = result(viewer).data.copy()
    session.segment()
    jobs.step()
    session.cancel()
    np.testing.assert_array_equal(result(viewer).data, before)


def test_nothing_is_accepted_while_a_run_fills_the_result(viewer, session, jobs, segmented, heard) -> None:
    session.segment()
    jobs.step()
    click(segmented, 6, 6)
    segmented.accept()
    assert heard.last.text == correcting.RUNNING
    jobs.finish()
    segmented.accept()
    assert heard.last.text.endswith("accepted and locked.")


def test_more_than_255_objects_find_room(viewer, session, jobs, segmented) -> None:
    (made,) = session.results
    made.layer.data[0, 0] = 255
    click(segmented, 6, 6)
    segmented.accept()
    assert result(viewer).data[6, 6] == 256
    assert made.seen.dtype == result(viewer).data.dtype


def test_classes_are_left_alone(viewer, session, jobs, ready) -> None:
    session.choose_model(session.library.find("bright"))
    session.segment()
    jobs.finish()
    classes = result(viewer)
    before = classes.data.copy()
    click(ready, 6, 6)
    ready.accept()
    np.testing.assert_array_equal(classes.data, before)
    assert "squares labels (click)" in viewer.layers


# --- locked, and picked up --------------------------------------------------------------------------------------------


def test_a_click_on_an_accepted_object_says_that_it_is_locked(ready, heard) -> None:
    click(ready, 6, 6)
    ready.accept()
    click(ready, 6, 6)
    assert "locked: double-click it" in heard.last.text
    assert ready.draft is None


def test_an_object_is_picked_up_and_keeps_its_number(viewer, ready) -> None:
    click(ready, 26, 36)
    ready.accept()
    ready.pick_up((26, 36))
    assert np.count_nonzero(preview(viewer)) == 48
    click(ready, 21, 31)
    ready.accept()
    assert np.count_nonzero(result(viewer).data == 1) == 64


def test_a_double_click_takes_its_first_click_back(viewer, segmented) -> None:
    click(segmented, 26, 36)
    segmented.pick_up((26, 36))
    assert segmented.draft.value == 2
    assert segmented.draft.clicks == []


def test_picking_up_another_object_accepts_the_open_one(viewer, segmented) -> None:
    click(segmented, 6, 6)
    segmented.pick_up((6, 6))
    click(segmented, 26, 36)
    segmented.pick_up((26, 36))
    assert list(segmented.session.results[0].accepted) == [1]
    assert segmented.draft.value == 2


def test_what_is_locked_is_not_taken(viewer, ready, heard) -> None:
    click(ready, 26, 36)
    ready.accept()
    click(ready, 21, 31)
    ready.draft.masks[-1] = squares() * (np.arange(60) > 20) > 0
    ready.accept()
    assert np.count_nonzero(result(viewer).data == 1) == 48
    assert np.count_nonzero(result(viewer).data == 2) == 16


def test_the_preview_is_seen_above_the_result(viewer, ready) -> None:
    click(ready, 6, 6)
    ready.accept()
    ready.pick_up((6, 6))
    assert viewer.layers[-1].name == "click preview"


# --- what images there are --------------------------------------------------------------------------------------------


def test_the_slice_in_view_is_clicked_on(viewer, tool, clicks, flood) -> None:
    viewer.add_image(np.stack([k * squares() for k in (0, 1, 0, 0, 0)]))
    viewer.dims.set_point(0, 1)
    tool.switch(True)
    clicks.finish()
    click(tool, 1, 6, 6)
    assert viewer.layers["click preview"].data.shape == (1, 40, 60)
    assert viewer.layers["click preview"].translate.tolist() == [1, 0, 0]
    tool.accept()
    assert result(viewer).data.any(axis=(1, 2)).tolist() == [False, True, False, False, False]
    viewer.dims.set_point(0, 2)
    tool.undo()
    assert not result(viewer).data.any()


@pytest.mark.parametrize("where", [0, 2])
def test_of_channels_the_one_in_view_is_clicked_on(viewer, tool, clicks, flood, where: int) -> None:
    pixels = np.stack([np.zeros((40, 60)), squares()], axis=where)
    viewer.add_image(pixels)
    tool.session.choose_axes("cyx" if where == 0 else "yxc")
    viewer.dims.order = (0, 1, 2) if where == 0 else (2, 0, 1)
    viewer.dims.set_point(where, 1)
    tool.switch(True)
    clicks.finish()
    click(tool, *np.insert([6.0, 6.0], where, 1))
    tool.accept()
    assert np.count_nonzero(result(viewer).data) == 64


def test_colours_are_clicked_on(viewer, tool, clicks) -> None:
    viewer.add_image(np.stack([(255 * squares()).astype(np.uint8)] * 3, axis=-1), rgb=True)
    tool.switch(True)
    clicks.finish()
    click(tool, 6, 6)
    tool.accept()
    assert np.count_nonzero(result(viewer).data) == 64


@pytest.mark.parametrize(
    "place",
    [
        {"scale": (0.5, 0.25), "translate": (10, 20)},
        {"rotate": 30, "scale": (2, 3)},
        {"affine": [[0, 2, 5], [1, 0, 7], [0, 0, 1]]},
    ],
)
def test_a_click_hits_wherever_the_image_lies(viewer, tool, clicks, place) -> None:
    layer = viewer.add_image(squares(), **place)
    tool.switch(True)
    clicks.finish()
    click(tool, *layer.data_to_world((26, 36)))
    shown = viewer.layers["click preview"]
    np.testing.assert_allclose(shown.data_to_world((26, 36)), layer.data_to_world((26, 36)))
    assert shown.data[26, 36]


def test_an_affine_stack_shows_the_preview_in_its_slice(viewer, tool, clicks) -> None:
    layer = viewer.add_image(np.stack([squares()] * 5), scale=(4, 2, 2), translate=(1, 2, 3), rotate=(0, 0, 20))
    viewer.dims.set_point(0, layer.data_to_world((2, 6, 6))[0])
    tool.switch(True)
    clicks.finish()
    click(tool, *layer.data_to_world((2, 6, 6)))
    shown = viewer.layers["click preview"]
    np.testing.assert_allclose(shown.data_to_world((0, 6, 6)), layer.data_to_world((2, 6, 6)))


def test_one_pixel_can_be_clicked(viewer, tool, clicks) -> None:
    viewer.add_image(np.ones((1, 1), dtype=np.uint16))
    tool.switch(True)
    clicks.finish()
    click(tool, 0, 0)
    tool.accept()
    assert result(viewer).data.tolist() == [[1]]


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [(-1, 5), (40, 5), (5, -0.6), (5, 59.5)])
def test_a_click_outside_says_so(ready, heard, at) -> None:
    click(ready, *at)
    assert heard.last.text == "That is outside the image 'squares': click inside it."


@pytest.mark.parametrize("at", [(-0.5, -0.5), (39.4, 59.4)])
def test_a_click_on_the_border_is_inside(ready, heard, at) -> None:
    click(ready, *at)
    assert ready.hint() == NOTHING


def test_where_nothing_is_it_says_so_and_accepts_nothing(viewer, ready, heard) -> None:
    click(ready, 39, 59)
    ready.accept()
    assert heard.last.text == NOTHING
    assert "squares labels (objects)" not in viewer.layers


def test_a_first_click_must_be_on_the_object(ready, heard) -> None:
    click(ready, 6, 6, positive=False)
    assert "left-click the object itself first" in heard.last.text


def test_without_an_image_it_cannot_be_switched_on(tool, heard) -> None:
    tool.switch(True)
    assert not tool.on
    assert heard.last.text == NO_IMAGE


def test_without_the_click_model_it_says_so(viewer, tool, monkeypatch, heard) -> None:
    def find(name: str) -> None:
        raise ModelNotFound(name)

    monkeypatch.setattr(tool.session.library, "find", find)
    viewer.add_image(squares())
    tool.switch(True)
    assert not tool.on
    assert heard.last.text == "The click model is missing: install napari-unet again."


def test_the_3d_view_is_refused_with_a_way_out(viewer, tool, clicks, heard) -> None:
    viewer.add_image(np.stack([squares()] * 5))
    tool.switch(True)
    clicks.finish()
    viewer.dims.ndisplay = 3
    click(tool, 0, 6, 6)
    assert "switch to 2D with Ctrl+Y" in heard.last.text


def test_what_the_engine_refuses_is_said_and_the_click_forgotten(ready, flood, heard) -> None:
    flood.error = InvalidImage("'squares' holds NaN values.")
    click(ready, 6, 6)
    assert heard.last.text == "'squares' holds NaN values."
    assert ready.draft is None


def test_removing_the_image_switches_it_off(viewer, ready) -> None:
    click(ready, 6, 6)
    viewer.layers.remove("squares")
    assert not ready.on
    assert ready.draft is None


def test_removing_the_preview_drops_the_object(viewer, ready) -> None:
    click(ready, 6, 6)
    viewer.layers.remove("click preview")
    assert ready.draft is None
    click(ready, 6, 6)
    assert preview(viewer).any()


def test_removing_the_result_makes_a_new_one(viewer, ready) -> None:
    click(ready, 6, 6)
    ready.accept()
    viewer.layers.remove(result(viewer))
    click(ready, 6, 6)
    ready.accept()
    assert result(viewer).data.max() == 1


# --- corrections ------------------------------------------------------------------------------------------------------


def test_delete(viewer, segmented, heard) -> None:
    segmented.choose(DELETE)
    click(segmented, 6, 6)
    assert np.unique(result(viewer).data).tolist() == [0, 2]
    assert heard.last.text == "Object 1 is deleted. Ctrl+Z takes it back."
    segmented.undo()
    assert np.unique(result(viewer).data).tolist() == [0, 1, 2]


def test_merge_takes_two_clicks(viewer, segmented) -> None:
    segmented.choose(MERGE)
    click(segmented, 6, 6)
    assert segmented.hint() == MERGE.hints[1]
    click(segmented, 26, 36)
    assert np.unique(result(viewer).data).tolist() == [0, 1]
    segmented.undo()
    assert np.unique(result(viewer).data).tolist() == [0, 1, 2]


def test_split_takes_two_seeds(viewer, segmented) -> None:
    segmented.choose(SPLIT)
    click(segmented, 6, 4)
    click(segmented, 6, 11)
    assert len(np.unique(result(viewer).data[4:12, 4:12])) == 2
    assert result(viewer).data[6, 4] != result(viewer).data[6, 11]


def test_split_along_a_line(viewer, segmented) -> None:
    segmented.choose(SPLIT)
    segmented.split_along((2, 7), (14, 7))
    assert np.unique(result(viewer).data[4:12, 4:8]).tolist() != np.unique(result(viewer).data[4:12, 8:12]).tolist()


def test_seeds_in_two_objects_do_not_split(segmented, heard) -> None:
    segmented.choose(SPLIT)
    click(segmented, 6, 6)
    click(segmented, 26, 36)
    assert "on another object" in heard.last.text


def test_fill_holes_and_keep_largest(viewer, segmented) -> None:
    layer = result(viewer)
    layer.data[7, 7], layer.data[0, 0] = 0, 1
    segmented.choose(FILL)
    click(segmented, 5, 5)
    assert layer.data[7, 7] == 1
    segmented.choose(LARGEST)
    click(segmented, 5, 5)
    assert layer.data[0, 0] == 0


def test_corrected_objects_are_locked(segmented) -> None:
    segmented.choose(MERGE)
    click(segmented, 6, 6)
    click(segmented, 26, 36)
    assert list(segmented.session.results[0].accepted) == [1]


def test_a_correction_beside_all_objects_says_so(segmented, heard) -> None:
    segmented.choose(DELETE)
    click(segmented, 0, 0)
    assert heard.last.text == correcting.NO_OBJECT


@pytest.fixture
def stack(viewer, session, jobs, tool, clicks) -> ClickTool:
    """Five slices with the same two objects, which a 2D model numbered 1 and 2 in each slice."""
    viewer.add_image(np.stack([squares()] * 5))
    viewer.dims.set_point(0, 1)
    session.segment()
    jobs.finish()
    tool.switch(True)
    clicks.finish()
    return tool


def test_in_a_stack_of_2d_objects_a_correction_is_of_the_slice_in_view(viewer, stack) -> None:
    stack.choose(DELETE)
    click(stack, 1, 6, 6)
    assert result(viewer).data[:, 6, 6].tolist() == [1, 0, 1, 1, 1]


def test_what_is_locked_in_a_stack_of_2d_objects_gets_a_number_of_its_own(viewer, stack) -> None:
    stack.choose(MERGE)
    click(stack, 1, 6, 6)
    click(stack, 1, 26, 36)
    assert result(viewer).data[:, 6, 6].tolist() == [1, 3, 1, 1, 1]
    assert result(viewer).data[:, 26, 36].tolist() == [2, 3, 2, 2, 2]


def test_volumes_are_corrected_as_a_whole(viewer, session, jobs, tool, clicks, tmp_path) -> None:
    from .fakes import bright_is_foreground

    session.library.add(bright_is_foreground("solid", task="objects", dims=3))
    session.refresh_models()
    session.choose_model(session.library.find("solid"))
    viewer.add_image(np.stack([squares()] * 5))
    session.segment()
    jobs.finish()
    tool.switch(True)
    clicks.finish()
    tool.choose(DELETE)
    click(tool, 1, 6, 6)
    assert not result(viewer).data[:, 6, 6].any()


# --- through the slices -----------------------------------------------------------------------------------------------


@pytest.fixture
def column(viewer, tool, clicks) -> ClickTool:
    """Six slices; the first square is in all but the last."""
    pixels = np.stack([squares()] * 6)
    pixels[5] = 0
    viewer.add_image(pixels, name="column")
    viewer.dims.set_point(0, 2)
    tool.switch(True)
    clicks.finish()
    return tool


def extend(tool: ClickTool) -> None:
    tool.extend()
    tool._start.finish()


def test_an_object_is_followed_as_one_object_in_one_step(viewer, column, heard) -> None:
    click(column, 2, 6, 6)
    extend(column)
    assert result(viewer).data[:, 6, 6].tolist() == [1, 1, 1, 1, 1, 0]
    assert heard.last.text.startswith("Object 1 now reaches from z = 0 to 4.")
    column.undo()
    assert result(viewer).data[:, 6, 6].tolist() == [0, 0, 1, 0, 0, 0]


def test_extending_again_stops_at_slices_that_were_seen_to(viewer, column) -> None:
    click(column, 2, 6, 6)
    extend(column)
    viewer.dims.set_point(0, 4)
    column.pick_up((4, 6, 6))
    column.draft.masks[0][6:12] = False
    extend(column)
    assert np.count_nonzero(result(viewer).data, axis=(1, 2)).tolist() == [64, 64, 64, 16, 16, 0]


def test_without_an_object_there_is_nothing_to_extend(column, heard) -> None:
    column.extend()
    assert heard.last.text == "Click the object in this slice first, or double-click it."


def test_one_slice_cannot_be_extended(ready) -> None:
    click(ready, 6, 6)
    assert ready.cannot_extend() == "'squares' has one slice only: there is nothing to extend through."


def test_escape_stops_an_extension_and_nothing_is_changed(viewer, column, clicks, heard) -> None:
    click(column, 2, 6, 6)
    column.extend()
    clicks.step()
    column.drop()
    clicks.finish()
    assert result(viewer).data[:, 6, 6].tolist() == [0, 0, 1, 0, 0, 0]
    assert heard.last.text == "Stopped; nothing was changed."


# --- mouse and keys ---------------------------------------------------------------------------------------------------


def event(kind: str, position: tuple[float, ...], **others: Any) -> Any:
    values = {
        "button": 1,
        "modifiers": (),
        "pos": np.array(position[::-1]),
        "handled": False,
        "is_dragging": True,
        **others,
    }
    return ReadOnlyWrapper(SimpleNamespace(type=kind, position=position, **values), exceptions=("handled",))


def press(viewer, *positions: tuple[float, ...], **others: Any) -> None:
    """Press at the first position, move over the others, and release."""
    mouse_press_callbacks(viewer, event("mouse_press", positions[0], **others))
    for position in positions[1:]:
        mouse_move_callbacks(viewer, event("mouse_move", position, **others))
    mouse_release_callbacks(viewer, event("mouse_release", positions[-1], **others))


def test_a_press_without_a_drag_is_a_click(viewer, ready) -> None:
    press(viewer, (6, 6), (7, 8))
    assert ready.draft.clicks == [((6, 6), True)]


def test_a_drag_is_no_click(viewer, ready) -> None:
    press(viewer, (6, 6), (6, 20), (6, 6))
    assert ready.draft is None


@pytest.mark.parametrize("how", [{"button": 2}, {"modifiers": ("Alt",)}, {"modifiers": ("Control",)}])
def test_the_right_button_and_modifiers_mean_not_this(viewer, ready, how) -> None:
    press(viewer, (6, 6))
    press(viewer, (8, 8), **how)
    assert ready.draft.clicks == [((6, 6), True), ((8, 8), False)]


def test_a_double_click_picks_up(viewer, segmented, clicks) -> None:
    press(viewer, (6, 6))
    clicks.finish()
    mouse_double_click_callbacks(viewer, event("mouse_double_click", (6, 6)))
    assert segmented.draft.value == 1


def test_a_line_with_shift_splits(viewer, segmented) -> None:
    segmented.choose(SPLIT)
    press(viewer, (2, 7), (8, 7), (14, 7), modifiers=("Shift",))
    assert result(viewer).data[6, 5] != result(viewer).data[6, 10]


def test_clicks_of_a_layer_that_is_painted_in_are_its_own(viewer, ready) -> None:
    layer = viewer.add_labels(np.zeros((40, 60), int))
    layer.mode = "paint"
    press(viewer, (6, 6))
    assert ready.draft is None
    assert ready.hint() == PAINTING


def key(viewer, name: str) -> Callable[[], object]:
    from napari.utils.key_bindings import KeymapHandler

    handler = KeymapHandler()
    active = viewer.layers.selection.active
    handler.keymap_providers = [viewer] if active is None else [active, viewer]
    return handler.press_key(name)


def test_keys_work_whatever_layer_is_active(viewer, segmented, clicks) -> None:
    viewer.layers.selection.active = result(viewer)
    click(segmented, 6, 6)
    key(viewer, "Control-Z")
    assert segmented.draft is None
    click(segmented, 6, 6)
    key(viewer, "Enter")
    assert result(viewer).data[6, 6] == 3
    key(viewer, "Control-Z")
    assert result(viewer).data[6, 6] == 1
    key(viewer, "D")
    assert segmented.verb is DELETE
    key(viewer, "Escape")
    assert segmented.verb is None


def test_a_key_switches_it_on_and_off(viewer, tool, clicks) -> None:
    viewer.add_image(squares())
    key(viewer, KEY)
    assert tool.on
    key(viewer, KEY)
    assert not tool.on


def test_closing_leaves_nothing_behind(viewer, session, clicks, flood, tool) -> None:
    tool.close()
    image = viewer.add_image(squares(), name="squares")
    labels = viewer.add_labels(np.zeros((40, 60), int))
    layers = (image, labels, viewer)
    emitters = [
        viewer.layers.events.removed,
        viewer.layers.events.inserted,
        viewer.layers.selection.events.active,
        image.events.mode,
        labels.events.mode,
    ]

    def traces() -> list[object]:
        lists = [viewer.mouse_drag_callbacks, viewer.mouse_double_click_callbacks, *(list(x.keymap) for x in layers)]
        return [*(len(e.callbacks) for e in emitters), len(session.changed), *(list(x) for x in lists)]

    before = traces()
    made = ClickTool(session, clicks, lambda entry, device: flood, Stepwise())
    made.switch(True)
    clicks.finish()
    for active in (image, labels):
        viewer.layers.selection.active = active
        click(made, 6, 6)
    assert traces() != before
    made.close()
    assert traces() == before
    assert [x.name for x in viewer.layers] == ["squares", labels.name]
