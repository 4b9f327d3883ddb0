"""A user paints where the model is wrong, presses Train, and sees it find more: a real window, a real mouse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from napari.layers import Labels
from qtpy.QtCore import QPoint

from napari_unet.engine.library import Library
from napari_unet.engine.metrics import dice
from napari_unet.plugin.dock import UNetDock
from napari_unet.plugin.train_panel import TrainPanel
from tests.plugin.fakes import bright_is_foreground

from .conftest import LONG, settle


def picture() -> tuple[np.ndarray, np.ndarray]:
    """Return noisy bright discs, and where they are."""
    y, x = np.indices((240, 320))
    truth = np.zeros((240, 320), dtype=bool)
    for cy, cx in ((60, 60), (60, 160), (60, 260), (180, 60), (180, 160), (180, 260)):
        truth |= (y - cy) ** 2 + (x - cx) ** 2 < 30**2
    pixels = truth * 0.7 + np.random.default_rng(0).normal(0, 0.05, truth.shape)
    return pixels.astype(np.float32), truth


@pytest.fixture
def blind(home) -> None:
    """A model in the library that sees background only."""
    model = bright_is_foreground("blind")
    with torch.no_grad():
        model.network.head.bias[0] = 11
    Library().add(model)


@pytest.fixture
def dock(blind, window) -> UNetDock:
    made = window.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
    made.session.choose_model(made.session.library.find("blind"))
    made.session.choose(device="cpu")
    made.learning.settings = replace(
        made.learning.settings, steps=60, validate_every=20, batch=2, patch=64, learning_rate=1e-2
    )
    return made


@pytest.fixture
def panel(window, dock: UNetDock, qtbot) -> TrainPanel:
    window.add_image(picture()[0], name="discs")
    dock.panels.setCurrentWidget(dock.train_panel)
    settle(qtbot, dock.train_panel.annotate)
    window.fit_to_view()
    return dock.train_panel


@pytest.fixture
def draw(window, mouse, qtbot) -> Callable[[tuple[int, int], tuple[int, int]], None]:
    """Draw a stroke from one pixel of the image (row, column) to another with the mouse."""

    def stroke(start: tuple[int, int], stop: tuple[int, int]) -> None:
        canvas = window.window._qt_viewer.canvas
        transform = canvas.view.transform * canvas.view.scene.transform
        places = [np.add(start, np.subtract(stop, start) * k / 12) for k in range(13)]
        points = [transform.map([x, y])[:2] for y, x in places]
        mouse([canvas.native.mapToGlobal(QPoint(round(x), round(y))) for x, y in points])

    return stroke


def idle(panel: TrainPanel) -> bool:
    return panel.learning.session.state == "idle" and panel.learning.state == "idle"


def result_of(window) -> Labels:
    return [x for x in window.layers if isinstance(x, Labels) and "labels" in x.name and x.visible][-1]


def paint_all(panel: TrainPanel, draw, mouse, qtbot) -> None:
    """Paint four strokes on discs and four between them."""
    mouse(panel.buttons[1])
    for x, y in ((60, 60), (160, 60), (260, 60), (60, 180)):
        draw((y, x - 15), (y, x + 15))
    mouse(panel.buttons[0])
    for x, y in ((60, 110), (160, 110), (260, 120), (110, 180)):
        draw((y, x - 10), (y, x + 10))
    qtbot.waitUntil(lambda: sum(panel.learning.strokes()[1:]) == 8, timeout=LONG)


def test_painting_and_training_makes_the_prediction_better(window, panel, draw, mouse, qtbot) -> None:
    truth = picture()[1]
    panel.learning.session.segment()
    qtbot.waitUntil(lambda: idle(panel), timeout=LONG)
    before = dice(result_of(window).data > 0, truth)

    mouse(panel.annotate)
    qtbot.waitUntil(lambda: panel.learning.page is not None, timeout=LONG)
    layer = panel.learning.page.layer
    paint_all(panel, draw, mouse, qtbot)
    assert (layer.data[truth] != 1).all()
    assert (layer.data[~truth] != 2).all()
    assert panel.count.text() == "8 strokes, 2 of them held out to judge."

    mouse(panel.train)
    qtbot.waitUntil(lambda: panel.learning.state == "training", timeout=LONG)
    mouse(panel.buttons[1])
    draw((180, 145), (180, 175))  # painting goes on
    qtbot.waitUntil(lambda: panel.verdict.text() != "" and idle(panel), timeout=LONG)
    assert panel.verdict.text().startswith("Better: ")
    assert panel.verdict.text().endswith("Now in use as version 2.")
    qtbot.waitUntil(lambda: result_of(window).data.any(), timeout=LONG)
    qtbot.waitUntil(lambda: idle(panel), timeout=LONG)
    assert dice(result_of(window).data > 0, truth) > before + 0.5
    assert (layer.data[180, 145:175] == 2).any()
    qtbot.waitUntil(lambda: panel.learning.page.strokes.newest.any(), timeout=LONG)  # new for the next round
    assert window.layers.index(layer) > window.layers.index(result_of(window))


def test_a_stroke_is_on_disk_two_seconds_after_it_is_made(panel, draw, mouse, qtbot) -> None:
    mouse(panel.annotate)
    qtbot.waitUntil(lambda: panel.learning.page is not None, timeout=LONG)
    draw((60, 45), (60, 75))
    qtbot.waitUntil(lambda: panel.learning.page.journal_path is not None, timeout=2000)


def test_undo_with_the_keyboard_takes_the_annotation_back(window, panel, draw, mouse, qtbot) -> None:
    mouse(panel.annotate)
    qtbot.waitUntil(lambda: panel.learning.page is not None, timeout=LONG)
    page = panel.learning.page
    draw((60, 45), (60, 75))
    qtbot.waitUntil(lambda: not page.empty, timeout=LONG)
    page.layer.undo()
    qtbot.waitUntil(lambda: page.empty, timeout=LONG)
    assert panel.count.text() == "Nothing is painted yet."


# napari's own reactions to the mouse are throttled and may come when their window is gone
@pytest.mark.filterwarnings("ignore:Method has been garbage collected")
def test_closing_the_window_loses_no_stroke(window, panel, draw, mouse, qtbot) -> None:
    mouse(panel.annotate)
    qtbot.waitUntil(lambda: panel.learning.page is not None, timeout=LONG)
    draw((60, 45), (60, 75))
    page, layer = panel.learning.page, panel.learning.page.layer
    qtbot.waitUntil(lambda: layer.data[60, 73] == 2, timeout=LONG)
    window.close()
    (left,) = page.kept()
    (*_, change) = left.changes()
    np.testing.assert_array_equal(change.where, np.flatnonzero(layer.data))
    assert (layer.data.flat[change.where] == change.values).all()
