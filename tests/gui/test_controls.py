"""Every control of every panel explains itself, and no panel is wider than a small screen allows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractItemView,
    QAbstractSlider,
    QAbstractSpinBox,
    QComboBox,
    QLineEdit,
    QScrollArea,
    QScrollBar,
    QWidget,
)
from superqt import QCollapsible

from napari_unet.plugin.dock import UNetDock
from napari_unet.plugin.verbs import press

from .conftest import LONG

CONTROLS = (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox, QAbstractSlider, QAbstractItemView)
WIDTH = 320


def controls(dock: UNetDock) -> Iterator[QWidget]:
    """Yield what can be pressed, chosen or filled in, and is to be seen; not the inner parts of such widgets."""
    for widget in dock.findChildren(QWidget):
        above, inner = widget.parentWidget(), isinstance(widget, QScrollBar)
        while above is not None and above is not dock:
            inner |= isinstance(above, (QComboBox, QAbstractSpinBox, QAbstractItemView))
            above = above.parentWidget()
        if isinstance(widget, CONTROLS) and not inner and widget.isVisible():
            yield widget


def explained(widget: QWidget) -> bool:
    """Whether it has a tooltip: its own, or that of the row it stands in; the titles of folded parts speak for themselves."""
    if isinstance(widget.parentWidget(), QCollapsible):
        return True
    return bool(widget.toolTip() or (widget.parentWidget() and widget.parentWidget().toolTip()))


def whole(dock: UNetDock) -> int:
    """Return how wide the dock must be for the panel in front, with a scroll bar beside it."""
    (scroll,) = (area for area in dock.findChildren(QScrollArea) if area.parent() is dock)
    return scroll.widget().minimumSizeHint().width() + scroll.verticalScrollBar().sizeHint().width()


def says_why(widget: QWidget) -> bool:
    """Whether a control that cannot be used says more than what it is for."""
    return widget.isEnabled() or widget.toolTip() != widget.property("tip")


def named(widget: QWidget) -> str:
    text = widget.text() if isinstance(widget, (QAbstractButton, QLineEdit)) else ""
    return f"{type(widget).__name__} {text!r} {'' if widget.isEnabled() else '(disabled)'}"


@pytest.fixture(params=["empty", "one image, with clicks and strokes", "a stack with channels"])
def situation(request, window, dock) -> UNetDock:
    if "stack" in request.param:
        window.add_image(np.random.default_rng(0).random((3, 2, 64, 64)), axis_labels=("t", "c", "y", "x"))
    elif "image" in request.param:
        window.open_sample("napari-unet", "nuclei")
        dock.click_tool.switch(True)
        dock.learning.annotate()
    return dock


def test_every_control_explains_itself_and_fits_a_small_screen(situation: UNetDock, qtbot) -> None:
    silent, wide = [], []
    for number in range(situation.panels.count()):
        situation.panels.setCurrentIndex(number)
        page, tab = situation.panels.currentWidget(), situation.panels.tabText(number)
        for part in page.findChildren(QCollapsible):
            part.expand(animate=False)
        qtbot.waitUntil(page.isVisible, timeout=LONG)
        here = list(controls(situation))
        silent += [f"{tab}: {named(w)}" for w in here if not explained(w) or not says_why(w)]
        if (width := whole(situation)) > WIDTH:
            wide.append(f"{tab}: {width} pixels")
    assert not silent + wide, "\n".join(silent + wide)


def test_a_verb_that_cannot_be_pressed_says_why(dock) -> None:
    press(dock, "next_region")
    assert dock.message.text() == "Live is off: switch it on first."
    assert dock.panels.tabText(dock.panels.currentIndex()) == "Train"
    press(dock, "compare")
    assert dock.message.text().startswith("Two labels layers are needed")
    assert dock.compare_panel.section.isExpanded()


def test_the_keys_work_in_the_whole_window(window, dock, qtbot) -> None:
    window.open_sample("napari-unet", "nuclei")
    main = window.window._qt_window
    main.activateWindow()
    main.setFocus()
    qtbot.waitUntil(main.isActiveWindow, timeout=LONG)
    qtbot.keyClick(main, Qt.Key.Key_G, Qt.KeyboardModifier.AltModifier)
    qtbot.waitUntil(lambda: dock.message.text().startswith("Found "), timeout=LONG)
