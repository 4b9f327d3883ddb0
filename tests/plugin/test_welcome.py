"""The first steps, and the verbs of the command palette."""

from __future__ import annotations

import napari.settings
import numpy as np
import pytest

from napari_unet.plugin.preferences import Preferences
from napari_unet.plugin.shortcuts import SHORTCUTS, shortcut_list
from napari_unet.plugin.welcome import Welcome


def test_an_empty_viewer_is_offered_samples_until_an_image_is_open(viewer, session, qtbot, monkeypatch) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(type(viewer), "open_sample", lambda self, plugin, key: asked.append((plugin, key)))
    welcome = Welcome(session)
    qtbot.addWidget(welcome)
    assert not welcome.isHidden()
    welcome.buttons["histology"].click()
    assert asked == [("napari-unet", "histology")]
    assert session.choice.entry.card.name == "nuclei"
    welcome.buttons["cells"].click()
    assert session.choice.entry.card.name == "cells"
    viewer.add_image(np.zeros((8, 9)))
    assert welcome.isHidden()


def test_the_shortcuts_are_listed(qtbot) -> None:
    box = shortcut_list(None)
    qtbot.addWidget(box)
    assert all(key in box.text() for key, _ in SHORTCUTS)


def test_without_napari_knowing_the_plugin_the_defaults_count(monkeypatch) -> None:
    monkeypatch.setattr("napari_unet.plugin.preferences.get_plugin_settings", {}.__getitem__)
    assert Preferences.read() == Preferences("auto", 0, "")


def test_what_napari_keeps_is_what_counts(tmp_path) -> None:
    npe2 = pytest.importorskip("npe2")
    npe2.PluginManager.instance().discover()
    running = napari.settings.get_plugin_settings("napari-unet").running
    running.device, running.threads, running.library = "cpu", 3, str(tmp_path)
    running.live, running.memory = True, 1.5
    try:
        assert Preferences.read() == Preferences("cpu", 3, str(tmp_path), live=True, memory=1.5)
        assert Preferences.read().open_library().folder == tmp_path
    finally:
        running.device, running.threads, running.library = "auto", 0, ""
        running.live, running.memory = False, 0.0
