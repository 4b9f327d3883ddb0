"""A real window with the dock open, and a real mouse."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QWidget

from napari_unet.plugin.dock import UNetDock

LONG = 60_000
"""Milliseconds after which a window that hangs fails its test."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gui" in item.path.parts:
            item.add_marker(pytest.mark.gui)


@pytest.fixture
def window(make_napari_viewer, qtbot):
    """A viewer on screen."""
    viewer = make_napari_viewer(show=True)
    main = viewer.window._qt_window
    main.setGeometry(0, 0, 1200, 800)
    qtbot.waitExposed(main)
    return viewer


@pytest.fixture
def dock(window) -> UNetDock:
    """The dock, opened as the menu does."""
    return window.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]


def settle(qtbot, widget: QWidget) -> None:
    """Wait until a widget is on screen and stays where it is: a new dock moves a few times."""
    seen: list[QPoint] = []

    def still() -> bool:
        seen.append(widget.mapToGlobal(widget.rect().center()))
        return widget.isVisible() and len(seen) > 20 and len({(p.x(), p.y()) for p in seen[-20:]}) == 1

    qtbot.waitUntil(still, timeout=LONG)


@pytest.fixture
def mouse(qtbot) -> Callable[..., None]:
    """Press the left button of the X server's mouse on a widget, or draw with it through points on the screen."""
    if shutil.which("xdotool") is None:
        pytest.skip("needs xdotool")

    def act(target: QWidget | list[QPoint]) -> None:
        if isinstance(target, QWidget):
            settle(qtbot, target)
        points = [target.mapToGlobal(target.rect().center())] if isinstance(target, QWidget) else target
        command = ["xdotool"]
        for i, point in enumerate(points):
            command += ["mousemove", str(point.x()), str(point.y()), "sleep", "0.02"]
            if i == 0:
                command += ["mousedown", "1", "sleep", "0.02"]
        process = subprocess.Popen([*command, "mouseup", "1"])
        qtbot.waitUntil(lambda: process.poll() is not None, timeout=LONG)
        assert process.returncode == 0

    return act
