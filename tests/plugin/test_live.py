"""The live overlay, in a viewer without a window and with jobs that run step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet.plugin.jobs import Events
from napari_unet.plugin.learning import Learning
from napari_unet.plugin.live import DOUBT, NAME, Live

from .fakes import Stepwise
from .test_annotating import paint
from .test_session import two_squares

LEFT, RIGHT, GROUND = (slice(5, 7), slice(5, 11)), (slice(21, 23), slice(31, 37)), (slice(12, 15), slice(16, 28))


class Several:
    """A starter of any number of jobs."""

    def __init__(self) -> None:
        self.jobs: list[Stepwise] = []

    def __call__(self, function: Callable[..., Events], *args: Any, **callbacks: Callable[..., object]) -> Stepwise:
        self.jobs.append(Stepwise()(function, *args, **callbacks))
        return self.jobs[-1]

    @property
    def running(self) -> list[Stepwise]:
        return [job for job in self.jobs if job.running]

    def finish(self) -> None:
        """Run all to the end, those that they lead to as well."""
        while self.running:
            self.running[0].finish()


@pytest.fixture
def several() -> Several:
    return Several()


@pytest.fixture
def learning(session) -> Iterator[Learning]:
    made = Learning(session)
    yield made
    made.close()


@pytest.fixture
def live(learning: Learning, several: Several) -> Iterator[Live]:
    made = Live(learning, several)
    yield made
    made.close()
    several.finish()


@pytest.fixture
def squares(viewer):
    return viewer.add_image(two_squares(), name="squares")


def settle(live: Live, several: Several) -> None:
    """Tick until nothing more happens."""
    for _ in range(6):
        live.tick()
        several.finish()


def draw(live: Live, several: Several, *strokes: tuple[int, tuple[slice, ...]]) -> None:
    for value, where in strokes:
        paint(live.learning.page.layer, value, where)
        settle(live, several)


def shown(live: Live) -> np.ndarray:
    return np.asarray(live.layer.data).squeeze()


def test_two_strokes_show_the_objects(live, several, squares, viewer) -> None:
    live.switch(True)
    assert live.hint == ""
    settle(live, several)
    assert live.hint == "Paint a stroke on an object and one on the background."
    draw(live, several, (2, LEFT))
    assert live.hint == "Paint a stroke on the background too."
    assert live.layer is None
    draw(live, several, (1, GROUND))
    found = shown(live)
    truth = two_squares() > 0.5
    assert (found == 2)[truth].mean() > 0.9
    assert (found == 2)[~truth].mean() < 0.1
    assert live.hint == "Shown: the instant head."
    assert viewer.layers.selection.active is live.learning.page.layer
    assert viewer.layers.index(live.layer) < viewer.layers.index(live.learning.page.layer)


def test_undo_empties_the_overlay_and_says_what_is_missing(live, several, squares) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    assert shown(live).any()
    live.learning.page.layer.undo()
    settle(live, several)
    assert not shown(live).any()
    assert live.hint == "Paint a stroke on the background too."


def test_a_stroke_ends_the_answer_to_the_one_before(live, several, squares) -> None:
    live.switch(True)
    settle(live, several)
    layer = live.learning.page.layer
    paint(layer, 2, LEFT)
    live.tick()
    for where in (GROUND, RIGHT):
        paint(layer, 1 if where is GROUND else 2, where)
        live.tick()
        assert len(several.running) == 1
    settle(live, several)
    before = len(several.jobs)
    live.tick()
    assert len(several.jobs) == before
    assert shown(live).any()


def test_a_stroke_that_is_undone_at_once_is_answered_as_if_it_had_not_been(live, several, squares) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    before = shown(live).copy()
    paint(live.learning.page.layer, 1, RIGHT)
    live.tick()
    live.learning.page.layer.undo()
    live.tick()
    settle(live, several)
    assert np.array_equal(shown(live), before)
    assert not several.running


def test_a_constant_image_is_told(live, several, viewer) -> None:
    viewer.add_image(np.ones((40, 50), dtype=np.float32), name="flat", contrast_limits=(0, 1))
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    assert live.hint.startswith("Every pixel of 'flat' is 1:")
    assert live.layer is None


def test_without_an_image_it_waits(live, several) -> None:
    live.switch(True)
    settle(live, several)
    assert live.hint.startswith("Press New annotations")
    assert not several.jobs


def test_a_view_that_shows_no_slice_is_told_and_the_overlay_comes_back(live, several, viewer) -> None:
    viewer.add_image(np.stack([two_squares()] * 6), name="stack")
    live.switch(True)
    viewer.dims.set_current_step(0, 1)
    draw(live, several, (2, (slice(1, 2), *LEFT)), (1, (slice(1, 2), *GROUND)))
    viewer.dims.ndisplay = 3
    settle(live, several)
    assert live.hint.startswith("The view is 3D")
    viewer.dims.ndisplay = 2
    settle(live, several)
    assert shown(live).any()


def test_strokes_teach_in_slices_that_are_not_in_view(live, several, viewer) -> None:
    viewer.add_image(np.stack([two_squares()] * 6), name="stack")
    live.switch(True)
    viewer.dims.set_current_step(0, 1)
    draw(live, several, (2, (slice(1, 2), *LEFT)), (1, (slice(1, 2), *GROUND)))
    viewer.dims.set_current_step(0, 3)
    settle(live, several)
    assert (shown(live) == 2)[two_squares() > 0.5].mean() > 0.9
    assert live.layer.translate[0] == 3
    paint(live.learning.page.layer, 0, (slice(1, 2), *GROUND))  # taken back while another slice is in view
    settle(live, several)
    assert not shown(live).any()


@pytest.mark.parametrize("rgb", [False, True])
def test_channels_and_colours(live, several, viewer, rgb, session) -> None:
    channels = np.random.default_rng(0).integers(0, 20, (3, 40, 60)).astype(np.uint8)
    channels[1] += (200 * two_squares()).astype(np.uint8)
    viewer.add_image(np.moveaxis(channels, 0, -1) if rgb else channels, name="colours", rgb=rgb)
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    assert (shown(live) == 2)[two_squares() > 0.5].mean() > 0.9


def test_the_annotated_image_is_removed(live, several, squares, viewer) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    viewer.layers.remove(squares)
    settle(live, several)
    assert not shown(live).any()
    assert live.hint.startswith("Press New annotations")


def test_the_annotation_layer_is_removed_and_the_strokes_still_teach(live, several, squares, viewer) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    viewer.layers.remove(live.learning.page.layer)
    settle(live, several)
    assert shown(live).any()


def test_removing_the_overlay_switches_it_off(live, several, squares, viewer) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    viewer.layers.remove(live.layer)
    assert not live.on
    assert NAME not in viewer.layers


def test_switching_off_leaves_no_trace(live, several, squares, viewer) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    live.show_doubt(True)
    settle(live, several)
    assert DOUBT in viewer.layers
    live.switch(False)
    several.finish()
    assert [layer.name for layer in viewer.layers] == ["squares", "squares annotations"]


def test_it_is_taken_up_again(live, several, squares) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    live.switch(False)
    live.switch(True)
    settle(live, several)
    assert shown(live).any()


def test_doubt_is_shown_where_the_answer_is_unsure(live, several, squares) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    live.show_doubt(True)
    settle(live, several)
    doubt = np.asarray(live.doubt.data)
    assert 0 < doubt.max() <= 1
    live.show_doubt(False)
    assert live.doubt is None


def strokes() -> list[tuple[int, tuple[slice, ...]]]:
    """Return as many strokes as it takes for some of both classes to be held out."""
    objects = [(2, (slice(row, row + 3), slice(column, column + 8))) for row, column in ((4, 4), (22, 30), (8, 4))]
    ground = [(1, (slice(row, row + 3), slice(5, 15))) for row in (20, 26, 32)]
    return objects + ground


def test_the_better_of_the_two_is_shown_and_said(live, several, squares) -> None:
    live.switch(True)
    for stroke in strokes():
        draw(live, several, stroke)
        live.learning.look()
    settle(live, several)
    assert live.hint.startswith("Shown: ")
    assert "bright" in live.hint
    assert "on held-out strokes" in live.hint


def test_next_region_goes_to_what_is_not_painted(live, several, viewer, heard) -> None:
    stack = np.stack([two_squares()] * 6)
    stack[2] = np.random.default_rng(0).normal(0.5, 0.3, stack[2].shape)
    viewer.add_image(stack, name="stack")
    live.switch(True)
    viewer.dims.set_current_step(0, 0)
    draw(live, several, (2, (slice(0, 1), *LEFT)), (1, (slice(0, 1), *GROUND)))
    live.next_region()
    several.finish()
    assert viewer.dims.current_step[0] != 0
    assert heard.last.text.startswith("Paint here")


def test_without_strokes_there_is_no_next_region(live, several, squares, heard) -> None:
    live.switch(True)
    live.next_region()
    several.finish()
    assert heard.last.text.startswith("There is no next region")


def test_it_is_turned_into_a_result(live, several, squares, viewer, jobs, heard) -> None:
    live.switch(True)
    draw(live, several, (2, LEFT), (1, GROUND))
    live.keep()
    jobs.finish()
    (result,) = [x for x in viewer.layers if isinstance(x, Labels) and x.name == "squares labels (live)"]
    assert ((np.asarray(result.data) > 0) == (two_squares() > 0.5)).mean() > 0.95
    assert result.metadata["napari_unet"]["instant"] == {"strokes": 2}
    assert heard.last.text == "The live overlay is now the layer 'squares labels (live)'."


def test_nothing_is_turned_into_a_result_before_there_is_something(live, squares, heard) -> None:
    live.keep()
    assert heard.last.text == "Switch Live on and paint first."
