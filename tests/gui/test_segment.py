"""A user opens an image and presses Segment: a real window, a real mouse, the shipped model."""

from __future__ import annotations

import shlex
import subprocess
import sys

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from qtpy.QtCore import QPoint

from napari_unet.engine.library import SHIPPED
from napari_unet.engine.metrics import average_precision
from napari_unet.plugin.dock import UNetDock
from napari_unet.samples import load

from .conftest import LONG

pytestmark = pytest.mark.skipif(
    not (SHIPPED / "nuclei.safetensors").exists(), reason="the shipped model is not in this checkout"
)


def results(viewer) -> list[Labels]:
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


@pytest.fixture
def sample(window, dock):
    window.open_sample("napari-unet", "nuclei")
    return window


def ended(dock: UNetDock) -> bool:
    return dock.session.state == "idle"


def test_pressing_segment_finds_the_nuclei(sample, dock, mouse, qtbot) -> None:
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: dock.session.state == "running" or bool(results(sample)), timeout=LONG)
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    assert dock.message.text().startswith("Found ")
    (labels,) = results(sample)
    assert average_precision(labels.data, load("nuclei")[1])[0.5] >= 0.5


def test_the_command_shown_gives_the_same_labels(sample, dock, mouse, qtbot, tmp_path) -> None:
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: dock.session.state == "running", timeout=LONG)
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    program, *arguments = shlex.split(dock.segment_panel.command.text())
    assert program == "napari-unet"
    code = "import sys; from napari_unet.cli import main; sys.argv[0] = 'napari-unet'; main()"
    subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, check=True, capture_output=True)
    written = tifffile.imread(tmp_path / "nuclei_labels.tif")
    np.testing.assert_array_equal(written, results(sample)[0].data)


def test_labels_appear_before_the_end(sample, dock, mouse, qtbot) -> None:
    dock.session.choose(tile=64)
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: bool(results(sample)) and bool(results(sample)[0].data.any()), timeout=LONG)
    assert dock.session.state == "running"
    assert " left" in dock.bar.text()
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)


def test_a_result_is_compared_with_the_truth_by_mouse(sample, dock, mouse, qtbot) -> None:
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: dock.message.text().startswith("Found "), timeout=LONG)
    sample.add_labels(load("nuclei")[1], name="true")
    panel = dock.compare_panel
    mouse(panel.section.toggleButton())
    qtbot.waitUntil(lambda: panel.button.isVisible() and panel.button.isEnabled(), timeout=LONG)
    mouse(panel.button)
    qtbot.waitUntil(lambda: panel.comparing.found is not None and panel.scores.isVisible(), timeout=LONG)
    assert panel.scores.text().startswith("Of 101 true objects ")
    assert [layer.name for layer in sample.layers if layer.visible] == ["nuclei", "errors of nuclei labels (nuclei)"]


def test_cancel_leaves_the_viewer_as_it_was(sample, dock, mouse, qtbot) -> None:
    dock.session.choose(tile=64)
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: bool(results(sample)), timeout=LONG)
    mouse(dock.cancel)
    qtbot.waitUntil(lambda: results(sample) == [], timeout=LONG)
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    assert dock.message.text() == "Cancelled; nothing was changed."


def test_a_second_press_replaces_the_result_but_not_one_that_was_painted_in(sample, dock, mouse, qtbot) -> None:
    for _ in range(2):
        mouse(dock.segment_panel.button)
        qtbot.waitUntil(lambda: dock.session.state == "running", timeout=LONG)
        qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    (first,) = results(sample)

    first.mode, first.brush_size, first.selected_label = "paint", 12, 250
    canvas = sample.window._qt_viewer.canvas
    transform = canvas.view.transform * canvas.view.scene.transform
    points = [transform.map([x, 260])[:2] for x in range(330, 380, 4)]
    mouse([canvas.native.mapToGlobal(QPoint(round(x), round(y))) for x, y in points])
    qtbot.waitUntil(lambda: bool((first.data == 250).any()), timeout=LONG)
    painted = first.data.copy()

    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: dock.session.state == "running", timeout=LONG)
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    assert len(results(sample)) == 2
    np.testing.assert_array_equal(first.data, painted)


def test_the_command_opens_the_dock_and_segments(window, qtbot) -> None:
    from napari._app_model import get_app_model

    window.open_sample("napari-unet", "nuclei")
    get_app_model().commands.execute_command("napari-unet.segment_active").result()
    (dock,) = [w for w in window.window.dock_widgets.values() if isinstance(w, UNetDock)]
    assert dock.session.state == "running"
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    get_app_model().commands.execute_command("napari-unet.segment_active").result()
    qtbot.waitUntil(lambda: ended(dock), timeout=LONG)
    assert len([w for w in window.window.dock_widgets.values() if isinstance(w, UNetDock)]) == 1
    assert len(results(window)) == 1


def test_the_layers_menu_offers_both_commands(window) -> None:
    from napari._app_model import get_app_model

    offered = [item.command.id for item in get_app_model().menus.get_menu("napari/layers/segment")]
    assert {"napari-unet.open_dock", "napari-unet.segment_active"} <= set(offered)


def test_closing_the_dock_stops_what_runs(sample, dock, mouse, qtbot) -> None:
    dock.session.choose(tile=64)
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: bool(results(sample)), timeout=LONG)
    job = dock.session._job
    sample.window.remove_dock_widget(dock)
    assert job.wait(LONG / 1000)


def test_closing_the_window_in_mid_run_does_not_hang(sample, dock, mouse, qtbot) -> None:
    dock.session.choose(tile=64)
    mouse(dock.segment_panel.button)
    qtbot.waitUntil(lambda: bool(results(sample)), timeout=LONG)
    job = dock.session._job
    sample.close()
    assert job.wait(LONG / 1000)
