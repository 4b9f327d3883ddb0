"""The verbs for the command palette and the menus: each opens the dock if need be, and goes to its panel."""

from __future__ import annotations

import napari.viewer
from qtpy.QtWidgets import QMessageBox, QWidget

from .dock import UNetDock, dock_of

SHORTCUTS = (
    ("K", "switch clicking on and off"),
    ("Enter or N", "accept the object that clicks have cut out, and go on"),
    ("Escape", "throw its clicks away"),
    ("D, J, S, H, G", "while clicking: delete, join, split, fill holes, keep the largest piece"),
    ("Ctrl+Z, Ctrl+Shift+Z", "take back a click or a stroke; do it again"),
    ("Alt+1, Alt+2, ...", "paint background, or a class"),
    ("Alt+N", "paint the next object"),
    ("Ctrl+Shift+P", "the command palette: type U-Net to see every verb"),
)


def _go(viewer: napari.viewer.Viewer, panel: str) -> UNetDock:
    dock = dock_of(viewer)
    names = [dock.panels.tabText(i) for i in range(dock.panels.count())]
    dock.panels.setCurrentIndex(names.index(panel))
    return dock


def click(viewer: napari.viewer.Viewer) -> None:
    """Go to the Click panel and switch clicking on."""
    _go(viewer, "Click").click_tool.switch(True)


def train(viewer: napari.viewer.Viewer) -> None:
    """Go to the Train panel."""
    _go(viewer, "Train")


def batch(viewer: napari.viewer.Viewer) -> None:
    """Go to the Batch panel."""
    _go(viewer, "Batch")


def models(viewer: napari.viewer.Viewer) -> None:
    """Go to the Models panel."""
    _go(viewer, "Models")


def cancel(viewer: napari.viewer.Viewer) -> None:
    """Stop what runs."""
    dock_of(viewer).session.cancel()


def shortcuts(viewer: napari.viewer.Viewer) -> None:
    """Show the list of shortcuts."""
    box = shortcut_list(dock_of(viewer))
    box.open()


def shortcut_list(parent: QWidget) -> QMessageBox:
    """Return a window with the list of shortcuts."""
    rows = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in SHORTCUTS)
    return QMessageBox(QMessageBox.Icon.NoIcon, "U-Net: shortcuts", f"<table>{rows}</table>", parent=parent)
