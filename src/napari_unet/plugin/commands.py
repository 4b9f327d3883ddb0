"""The verbs for the command palette and the menus: each opens the dock if need be, and goes to its panel."""

from __future__ import annotations

from collections.abc import Callable

import napari.viewer

from .dock import UNetDock, dock_of
from .shortcuts import shortcut_list
from .verbs import press

Command = Callable[[napari.viewer.Viewer], None]


def _pressing(verb: str) -> Command:
    """Return the command that presses the button of a verb."""

    def command(viewer: napari.viewer.Viewer) -> None:
        press(dock_of(viewer), verb)

    return command


def _go(viewer: napari.viewer.Viewer, panel: str) -> UNetDock:
    dock = dock_of(viewer)
    dock.show_panel(panel)
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


def go_back(viewer: napari.viewer.Viewer) -> None:
    """Put the version before the one in use in use again."""
    dock = _go(viewer, "Train")
    entries, used = dock.learning.history(), dock.session.entry
    older = [entry for entry in entries if used is not None and entry.card.version < used.card.version]
    before = older or [entry for entry in entries if used is not None and entry.card.name != used.card.name]
    if before:
        dock.learning.go_back(before[0])
    else:
        dock.session.tell("There is no version before the one in use.", is_error=True)


def shortcuts(viewer: napari.viewer.Viewer) -> None:
    """Show the list of shortcuts."""
    shortcut_list(dock_of(viewer)).open()


copy_command = _pressing("copy_command")
compare = _pressing("compare")
accept = _pressing("accept")
drop = _pressing("drop")
undo = _pressing("undo")
extend = _pressing("extend")
delete_object = _pressing("delete_object")
merge_objects = _pressing("merge_objects")
split_object = _pressing("split_object")
fill_holes = _pressing("fill_holes")
keep_largest = _pressing("keep_largest")
annotate = _pressing("annotate")
next_object = _pressing("next_object")
add_class = _pressing("add_class")
live = _pressing("live")
next_region = _pressing("next_region")
show_doubt = _pressing("show_doubt")
keep_overlay = _pressing("keep_overlay")
train_now = _pressing("train_now")
stop_training = _pressing("stop_training")
discard_training = _pressing("discard_training")
keep_model = _pressing("keep_model")
discard_model = _pressing("discard_model")
save_annotations = _pressing("save_annotations")
load_annotations = _pressing("load_annotations")
new_model = _pressing("new_model")
run_batch = _pressing("run_batch")
pause_batch = _pressing("pause_batch")
open_batch = _pressing("open_batch")
export_model = _pressing("export_model")
import_model = _pressing("import_model")
use_model = _pressing("use_model")
duplicate_model = _pressing("duplicate_model")
rename_model = _pressing("rename_model")
delete_model = _pressing("delete_model")
cancel = _pressing("cancel")
