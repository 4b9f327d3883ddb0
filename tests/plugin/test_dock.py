"""The dock, without a window around it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QMessageBox, QWidget

import napari_unet
from napari_unet.plugin import commands
from napari_unet.plugin.choice import NO_IMAGE
from napari_unet.plugin.dock import UNetDock, in_time
from napari_unet.plugin.preferences import Preferences
from napari_unet.plugin.shortcuts import KEYS
from napari_unet.plugin.verbs import VERBS

from .test_session import two_squares

MANIFEST = Path(napari_unet.__file__).with_name("napari.yaml")


@pytest.fixture
def dock(qtbot, viewer, session) -> Iterator[UNetDock]:
    made = UNetDock(viewer, session)
    qtbot.addWidget(made)
    made.resize(320, 700)
    made.show()
    yield made
    made.shut()


def test_opening_the_dock_imports_no_torch() -> None:
    code = "import sys, napari_unet.plugin.dock; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_an_image_it_says_why_nothing_can_be_segmented(dock) -> None:
    button = dock.segment_panel.button
    assert not button.isEnabled()
    assert button.toolTip() == NO_IMAGE
    assert dock.message.text() == NO_IMAGE


def test_live_begins_with_the_first_annotations_if_the_user_prefers_so(qtbot, viewer, session, monkeypatch) -> None:
    monkeypatch.setattr(Preferences, "read", lambda: Preferences(live=True))
    dock = UNetDock(viewer, session)
    qtbot.addWidget(dock)
    viewer.add_image(two_squares())
    assert not dock.live.on
    dock.train_panel.annotate.click()
    assert dock.live.on
    dock.shut()


def test_an_image_makes_it_ready(viewer, dock) -> None:
    viewer.add_image(two_squares(), name="squares")
    assert dock.segment_panel.button.isEnabled()
    assert dock.segment_panel.image.currentText() == "squares"
    assert dock.segment_panel.words.text() == "one 2D image"
    assert dock.message.text() == "Ready: press Segment."
    viewer.layers.clear()
    assert dock.message.text() == NO_IMAGE


def test_the_channel_is_asked_only_where_there_is_a_choice(viewer, dock) -> None:
    viewer.add_image(two_squares())
    assert not dock.segment_panel.channel.isVisible()
    viewer.add_image(np.zeros((2, 40, 60)))
    assert dock.segment_panel.channel.isVisible()
    dock.segment_panel.channel.setCurrentIndex(1)
    assert dock.session.settings.channel == 1


def test_wrong_axes_are_said_at_once(viewer, dock) -> None:
    viewer.add_image(two_squares(), name="squares")
    dock.segment_panel.axes.setText("qx")
    dock.segment_panel.axes.editingFinished.emit()
    assert dock.segment_panel.words.text().startswith("Axes 'qx' of 'squares' are not understood")


def test_axes_can_be_changed(viewer, dock) -> None:
    viewer.add_image(np.zeros((9, 40, 60)))
    assert dock.segment_panel.words.text() == "9 slices of 2D images"
    dock.segment_panel.axes.setText("TYX")
    dock.segment_panel.axes.editingFinished.emit()
    assert dock.segment_panel.words.text() == "9 time points of 2D images"


def test_progress_cancel_and_the_end_are_seen(viewer, dock, jobs) -> None:
    viewer.add_image(two_squares())
    dock.session.choose(tile=32)
    dock.segment_panel.button.click()
    assert dock.cancel.isEnabled()
    assert not dock.segment_panel.button.isEnabled()
    jobs.step()
    jobs.step()
    assert (dock.bar.value(), dock.bar.maximum()) == (1, 4)
    assert dock.bar.text().startswith("25 %, ")
    jobs.step()
    assert dock.bar.value() == 1, "the bar moves at the ticks, not at every tile"
    dock._on_tick()
    assert dock.bar.value() == 2
    dock.cancel.click()
    assert not dock.cancel.isEnabled()
    jobs.finish()
    assert dock.segment_panel.button.isEnabled()
    assert dock.message.text() == "Cancelled; nothing was changed."


def test_an_error_is_one_red_sentence_that_goes_with_its_image(viewer, dock, jobs) -> None:
    viewer.add_image(np.full((40, 60), 7), name="flat")
    dock.segment_panel.button.click()
    jobs.finish()
    assert dock.message.text().startswith("Every pixel of 'flat' is 7")
    assert "color" in dock.message.styleSheet()
    viewer.add_image(two_squares())
    assert dock.message.text() == ""


def test_moving_a_threshold_changes_the_result_at_once(viewer, dock, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    dock.model.setCurrentText("objects (version 1)")
    dock.segment_panel.button.click()
    jobs.finish()
    dock.segment_panel.thresholds.widgets["minimal_size"].value = 100
    jobs.finish()
    assert not viewer.layers["squares labels (objects)"].data.any()


def test_thresholds_are_shown_for_objects_only(viewer, dock) -> None:
    dock.model.setCurrentText("bright (version 1)")
    assert not dock.segment_panel.objects.isVisible()
    dock.model.setCurrentText("objects (version 1)")
    assert dock.segment_panel.objects.isVisible()


def test_the_command_line_can_be_copied(viewer, dock) -> None:
    viewer.add_image(two_squares(), name="squares")
    dock.segment_panel.copy.click()
    assert QGuiApplication.clipboard().text() == dock.session.choice.command()


def test_nothing_is_cut_off_at_320_pixels(viewer, dock, qtbot) -> None:
    viewer.add_image(np.zeros((2, 40, 60)), name="an image with a name much longer than the dock is wide, and more")
    dock.session.tell("A sentence that is long enough to need several lines in a dock as narrow as this one.")
    dock.segment_panel.advanced.expand(animate=False)
    dock.segment_panel.objects.expand(animate=False)
    qtbot.wait(1)  # one turn of the event loop: the layout
    for widget in dock.findChildren(QWidget):
        if widget.isVisibleTo(dock):
            right = widget.mapTo(dock, widget.rect().topRight()).x()
            assert right <= dock.width(), widget


def test_the_device_can_be_chosen(dock, qtbot) -> None:
    qtbot.waitUntil(lambda: not dock._warm_up.running, timeout=30_000)
    assert dock.device.itemData(0) == "auto"
    assert dock.device.currentData() == "cpu"
    dock.device.setCurrentIndex(0)
    assert dock.session.settings.device == "auto"


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, "?"), (0.2, "1 s"), (61, "61 s"), (95, "2 min"), (9000, "2.5 h")]
)
def test_time_is_said_in_words(seconds: float | None, words: str) -> None:
    assert in_time(seconds) == words


def test_every_verb_has_a_button_and_a_command(dock) -> None:
    assert all(verb.button(dock).text() for verb in VERBS.values())
    known = {c.python_name for c in PluginManifest.from_file(MANIFEST).contributions.commands}
    commands = {f"napari_unet.plugin.commands:{name}" for name in VERBS if name != "segment"}
    assert commands <= known


def test_the_key_of_a_verb_is_on_its_button_or_in_its_tooltip(dock) -> None:
    for name, key in KEYS.items():
        button = VERBS[name].button(dock)
        assert key in f"{button.text()} {button.property('tip')}"


def test_going_back_needs_a_version_before(dock, heard, monkeypatch) -> None:
    monkeypatch.setattr(commands, "dock_of", lambda viewer: dock)
    commands.go_back(dock.session.viewer)
    assert heard.last.text == "There is no version before the one in use."


def test_going_back_puts_the_version_before_in_use(dock, monkeypatch) -> None:
    monkeypatch.setattr(commands, "dock_of", lambda viewer: dock)
    library = dock.session.library
    second = library.add(library.load("bright"))
    dock.session.refresh_models()
    dock.session.choose_model(second)
    commands.go_back(dock.session.viewer)
    assert (dock.session.entry.card.name, dock.session.entry.card.version) == ("bright", 1)


def test_the_list_of_shortcuts_opens_from_the_dock(dock) -> None:
    dock.help.click()
    (box,) = dock.findChildren(QMessageBox)
    assert "Alt+G" in box.text()
    box.close()
