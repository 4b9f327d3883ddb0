"""A user opens the dock on an empty viewer, and knows what to do."""

from __future__ import annotations

from pathlib import Path

from napari.layers import Labels

from napari_unet.engine.outlines import read_outlines
from napari_unet.plugin import commands

from .conftest import LONG


def test_a_sample_is_opened_and_segmented_by_mouse_and_saved_for_qupath(
    window, dock, mouse, qtbot, tmp_path: Path
) -> None:
    mouse(dock.welcome.buttons["nuclei"])
    qtbot.waitUntil(lambda: dock.session.image_layer is not None, timeout=LONG)
    assert not dock.welcome.isVisible()
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: dock.message.text().startswith("Found "), timeout=LONG)
    (labels,) = (layer for layer in window.layers if isinstance(layer, Labels))
    assert set(labels.features["state"][1:]) == {"automatic"}
    path = tmp_path / "nuclei.geojson"
    labels.save(str(path), plugin="napari-unet")
    assert len(read_outlines(path)) == labels.data.max()


def test_the_palette_leads_to_every_panel(window, dock) -> None:
    for verb, name in ((commands.train, "Train"), (commands.batch, "Batch"), (commands.models, "Models")):
        verb(window)
        assert dock.panels.tabText(dock.panels.currentIndex()) == name
