"""The keys: those of the dock's buttons, and the list of all."""

from __future__ import annotations

from qtpy.QtWidgets import QMessageBox, QWidget

KEYS = {
    "segment": "Alt+G",
    "annotate": "Alt+A",
    "train_now": "Alt+E",
    "live": "Alt+O",
    "next_region": "Alt+R",
    "compare": "Alt+M",
    "cancel": "Alt+X",
}
"""The verbs whose buttons have a key that counts in the whole window; none that napari or its menus take."""
SHORTCUTS = (
    (KEYS["segment"], "segment the image"),
    (KEYS["cancel"], "cancel what runs"),
    (KEYS["compare"], "compare the result with the truth"),
    ("K", "switch clicking on and off"),
    ("Enter or N", "accept the object that clicks have cut out, and go on"),
    ("Escape", "throw its clicks away"),
    ("T", "while clicking: extend the object through the slices"),
    ("D, J, S, H, G", "while clicking: delete, join, split, fill holes, keep the largest piece"),
    ("Ctrl+Z, Ctrl+Shift+Z", "take back a click or a stroke; do it again"),
    (KEYS["annotate"], "show the annotations to paint on"),
    ("Alt+1, Alt+2, ...", "paint background, or a class"),
    ("Alt+N", "paint the next object"),
    (KEYS["live"], "switch the live overlay on and off"),
    (KEYS["next_region"], "bring the next region to paint into view"),
    (KEYS["train_now"], "train on what is painted"),
    ("Ctrl+Shift+P", "the command palette: type U-Net to see every verb"),
)


def with_key(text: str, verb: str) -> str:
    """Return the text of a button with its key."""
    return f"{text} ({KEYS[verb]})"


def shortcut_list(parent: QWidget | None) -> QMessageBox:
    """Return a window with the list of shortcuts."""
    rows = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in SHORTCUTS)
    return QMessageBox(QMessageBox.Icon.NoIcon, "U-Net: shortcuts", f"<table>{rows}</table>", parent=parent)
