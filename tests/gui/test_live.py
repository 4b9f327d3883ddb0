"""The overlay follows strokes of a real mouse in a real window."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from qtpy.QtCore import QPoint

from napari_unet.engine.metrics import dice
from napari_unet.plugin.live import NAME

from .conftest import LONG, settle
from .test_train import picture


@pytest.fixture
def draw(window, mouse) -> Callable[[tuple[int, int], tuple[int, int]], None]:
    """Draw a stroke from one pixel of the image (row, column) to another with the mouse."""

    def stroke(start: tuple[int, int], stop: tuple[int, int]) -> None:
        canvas = window.window._qt_viewer.canvas
        transform = canvas.view.transform * canvas.view.scene.transform
        points = [transform.map([x, y])[:2] for y, x in np.linspace(start, stop, 13)]
        mouse([canvas.native.mapToGlobal(QPoint(round(x), round(y))) for x, y in points])

    return stroke


def test_three_strokes_and_their_effect(home, window, dock, draw, mouse, qtbot) -> None:
    pixels, truth = picture()
    window.add_image(pixels, name="discs")
    dock.panels.setCurrentWidget(dock.train_panel)
    panel = dock.live_panel
    settle(qtbot, panel.toggle)
    window.fit_to_view()
    mouse(panel.toggle)
    qtbot.waitUntil(lambda: dock.live.on and dock.learning.page is not None, timeout=LONG)
    qtbot.waitUntil(lambda: panel.hint.text() == "Paint a stroke on an object and one on the background.", timeout=LONG)
    settle(qtbot, panel.toggle)
    draw((60, 45), (60, 75))
    qtbot.waitUntil(lambda: panel.hint.text() == "Paint a stroke on the background too.", timeout=LONG)
    mouse(dock.train_panel.buttons[0])
    draw((60, 100), (60, 120))
    qtbot.waitUntil(lambda: NAME in window.layers, timeout=LONG)

    def agreement() -> float:
        return dice(np.asarray(dock.live.layer.data).reshape(truth.shape) > 1, truth)

    qtbot.waitUntil(lambda: agreement() > 0.9, timeout=LONG)
    qtbot.waitUntil(lambda: panel.hint.text() == "Shown: the instant head.", timeout=LONG)
    before = np.asarray(dock.live.layer.data).copy()
    draw((180, 145), (180, 175))  # a disc painted as background: what is shown must change
    qtbot.waitUntil(lambda: not np.array_equal(dock.live.layer.data, before), timeout=LONG)
    dock.learning.page.layer.undo()
    qtbot.waitUntil(lambda: np.array_equal(dock.live.layer.data, before), timeout=LONG)
    mouse(panel.toggle)
    qtbot.waitUntil(lambda: NAME not in window.layers, timeout=LONG)
