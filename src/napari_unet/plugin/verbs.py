"""Every verb that has a button, by name: what the command palette and the shortcuts press."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QAbstractButton, QWidget
from superqt import QCollapsible

if TYPE_CHECKING:
    from .dock import UNetDock

NO_JUDGEMENT = "There is no trained model to judge: train one first."
NO_TRAINING = "Nothing is being trained."
NO_LIVE = "Live is off: switch it on first."


@dataclass(frozen=True, slots=True)
class Press:
    """A button of the dock."""

    tab: str
    """On which panel it stands; empty: below all of them."""
    where: str
    """Names that lead from the dock to it."""
    absent: str = "This needs an image: open one first."
    """What is said where the button is not to be seen."""

    def button(self, dock: UNetDock) -> QAbstractButton:
        """Return the button."""
        found: Any = dock
        for name in self.where.split("."):
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        assert isinstance(found, QAbstractButton)
        return found


VERBS = {
    "segment": Press("Segment", "segment_panel.button"),
    "copy_command": Press("Segment", "segment_panel.copy"),
    "compare": Press("Segment", "compare_panel.button"),
    "accept": Press("Click", "click_panel.accept"),
    "drop": Press("Click", "click_panel.drop"),
    "undo": Press("Click", "click_panel.undo"),
    "extend": Press("Click", "click_panel.extend"),
    "delete_object": Press("Click", "click_panel.verbs.Delete"),
    "merge_objects": Press("Click", "click_panel.verbs.Merge"),
    "split_object": Press("Click", "click_panel.verbs.Split"),
    "fill_holes": Press("Click", "click_panel.verbs.Fill holes"),
    "keep_largest": Press("Click", "click_panel.verbs.Keep largest"),
    "annotate": Press("Train", "train_panel.annotate"),
    "next_object": Press("Train", "train_panel.next", "The model in use has classes, not objects."),
    "add_class": Press("Train", "train_panel.add", "The model in use has objects, not classes."),
    "live": Press("Train", "live_panel.toggle"),
    "next_region": Press("Train", "live_panel.next", NO_LIVE),
    "show_doubt": Press("Train", "live_panel.doubt", NO_LIVE),
    "keep_overlay": Press("Train", "live_panel.keep", NO_LIVE),
    "train_now": Press("Train", "train_panel.train", "A training is under way."),
    "stop_training": Press("Train", "train_panel.stop", NO_TRAINING),
    "discard_training": Press("Train", "train_panel.drop", NO_TRAINING),
    "keep_model": Press("Train", "train_panel.keep", NO_JUDGEMENT),
    "discard_model": Press("Train", "train_panel.reject", NO_JUDGEMENT),
    "save_annotations": Press("Train", "train_panel.save"),
    "load_annotations": Press("Train", "train_panel.load"),
    "new_model": Press("Train", "train_panel.new"),
    "run_batch": Press("Batch", "batch_panel.button"),
    "pause_batch": Press("Batch", "batch_panel.pause"),
    "open_batch": Press("Batch", "batch_panel.open"),
    "export_model": Press("Models", "models_panel.export"),
    "import_model": Press("Models", "models_panel.bring"),
    "use_model": Press("Models", "models_panel.use"),
    "duplicate_model": Press("Models", "models_panel.copy"),
    "rename_model": Press("Models", "models_panel.rename"),
    "delete_model": Press("Models", "models_panel.delete"),
    "cancel": Press("", "cancel"),
}


def press(dock: UNetDock, name: str) -> None:
    """Press a button, on its panel; if that cannot be pressed now, say why."""
    verb = VERBS[name]
    if verb.tab:
        dock.show_panel(verb.tab)
    button = verb.button(dock)
    page = dock.panels.currentWidget() if verb.tab else dock
    unfold(button)
    if not button.isVisibleTo(page):
        dock.session.tell(verb.absent, is_error=True)
    elif not button.isEnabled():
        dock.session.tell(button.toolTip(), is_error=True)
    else:
        button.click()


def unfold(widget: QWidget) -> None:
    """Open the folded parts of a panel that a control stands in."""
    above = widget.parentWidget()
    while above is not None:
        if isinstance(above, QCollapsible):
            above.expand(animate=False)
        above = above.parentWidget()
