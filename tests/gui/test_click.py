"""A user clicks objects: a real window, a real mouse, the shipped models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import QPoint

from napari_unet.engine.library import SHIPPED
from napari_unet.plugin.correcting import DELETE, SPLIT
from napari_unet.plugin.teaching import NOTHING_YET
from napari_unet.samples import load

from .conftest import LONG, settle

pytestmark = pytest.mark.skipif(
    not (SHIPPED / "click.safetensors").exists(), reason="the click model is not in this checkout"
)


@pytest.fixture
def tool(window, dock, mouse, qtbot):
    """The tool, switched on by its button, on the sample."""
    window.open_sample("napari-unet", "nuclei")
    dock.panels.setCurrentIndex(1)
    mouse(dock.panels.currentWidget().switch)
    qtbot.waitUntil(lambda: dock.click_tool.on and not dock.click_tool._busy, timeout=LONG)
    settle(qtbot, window.window._qt_viewer.canvas.native)
    return dock.click_tool


@pytest.fixture
def press(window, qtbot) -> Callable[..., None]:
    """Click with the X server's mouse at a pixel of the image, or drag over several."""
    if shutil.which("xdotool") is None:
        pytest.skip("needs xdotool")

    def act(*pixels: tuple[float, float], button: int = 1, key: str = "", times: int = 1) -> None:
        canvas = window.window._qt_viewer.canvas
        transform = canvas.view.transform * canvas.view.scene.transform
        points = [canvas.native.mapToGlobal(QPoint(*(round(v) for v in transform.map([x, y])[:2]))) for y, x in pixels]
        command = ["xdotool", "mousemove", str(points[0].x()), str(points[0].y()), "sleep", "0.1"]
        command += ["keydown", key] if key else []
        if len(points) == 1:
            command += ["click", "--repeat", str(times), "--delay", "60", str(button)]
        else:
            command += ["mousedown", str(button), "sleep", "0.05"]
            for point in points[1:]:
                command += ["mousemove", str(point.x()), str(point.y()), "sleep", "0.03"]
            command += ["mouseup", str(button)]
        command += ["keyup", key] if key else []
        run(command)

    def run(command: list[str]) -> None:
        process = subprocess.Popen(command)
        qtbot.waitUntil(lambda: process.poll() is not None, timeout=LONG)
        assert process.returncode == 0

    act.keys = lambda *names: run(["xdotool", "key", *names])
    return act


def mask(window) -> np.ndarray:
    return window.layers["click preview"].data > 0 if "click preview" in window.layers else np.zeros(1, bool)


def results(window) -> list[Labels]:
    return [x for x in window.layers if isinstance(x, Labels) and x.name != "click preview"]


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def largest(count: int) -> list[int]:
    """The largest nuclei in the middle of the sample, which the window shows whole."""
    truth = load("nuclei")[1]
    values, sizes = np.unique(truth[100:400, 200:450], return_counts=True)
    return [int(v) for v in values[np.argsort(-sizes)] if v][:count]


def nucleus() -> tuple[np.ndarray, tuple[float, float]]:
    """A large nucleus of the sample in the middle of the image, and a point in it."""
    truth = load("nuclei")[1]
    (value,) = largest(1)
    return truth == value, tuple(np.argwhere(truth == value).mean(0))


def answered(tool) -> bool:
    return tool.draft is not None and tool.draft.answered


def test_one_click_one_object(window, tool, press, qtbot) -> None:
    truth, at = nucleus()
    press(at)
    qtbot.waitUntil(lambda: answered(tool), timeout=LONG)
    assert overlap(mask(window), truth) > 0.7
    press.keys("Return")
    qtbot.waitUntil(lambda: len(results(window)) == 1, timeout=LONG)
    assert overlap(results(window)[0].data > 0, truth) > 0.7
    press.keys("ctrl+z")
    qtbot.waitUntil(lambda: not results(window)[0].data.any(), timeout=LONG)


def test_accepted_objects_teach_the_tool_and_what_it_learned_is_forgotten_by_a_button(
    window, dock, tool, press, mouse, qtbot, monkeypatch
) -> None:
    monkeypatch.setattr("napari_unet.engine.click.STEPS", 1)
    panel = dock.panels.currentWidget()
    truth = load("nuclei")[1]
    for number, value in enumerate(largest(2), start=1):
        press(tuple(np.argwhere(truth == value).mean(0)))
        qtbot.waitUntil(lambda: answered(tool), timeout=LONG)
        press.keys("Return")
        qtbot.waitUntil(lambda count=number: f"{count} object" in panel.learned.text(), timeout=LONG)
    assert panel.learned.text().startswith("Taught by 2 objects")
    mouse(panel.forget)
    qtbot.waitUntil(lambda: panel.learned.text() == NOTHING_YET, timeout=LONG)
    assert results(window)[0].data.max() == 2


@pytest.mark.parametrize(("button", "key"), [(3, ""), (1, "ctrl"), (1, "alt")])
def test_a_negative_click_takes_away(window, tool, press, qtbot, button: int, key: str) -> None:
    _, at = nucleus()
    press(at)
    qtbot.waitUntil(lambda: answered(tool), timeout=LONG)
    first = mask(window).copy()
    y, x = np.argwhere(first)[np.flatnonzero(first[first].cumsum() == 40)[0]]
    press((y, x), button=button, key=key)
    qtbot.waitUntil(lambda: len(tool.draft.masks) == 3, timeout=LONG)
    assert not mask(window)[y, x]
    press.keys("ctrl+z")
    qtbot.waitUntil(lambda: len(tool.draft.clicks) == 1, timeout=LONG)
    np.testing.assert_array_equal(mask(window), first)


def test_panning_and_zooming_go_on(window, tool, press, qtbot) -> None:
    center, zoom = window.scene.camera.center, window.scene.camera.zoom
    press((250, 300), (255, 310), (265, 330), (270, 350))
    qtbot.waitUntil(lambda: window.scene.camera.center != center, timeout=LONG)
    assert tool.draft is None
    press((250, 300), button=4)
    qtbot.waitUntil(lambda: window.scene.camera.zoom != zoom, timeout=LONG)


def test_a_double_click_picks_up_and_does_not_zoom(window, tool, press, qtbot) -> None:
    _, at = nucleus()
    press(at)
    press.keys("Return")
    qtbot.waitUntil(lambda: len(results(window)) == 1, timeout=LONG)
    zoom = window.scene.camera.zoom
    press(at, times=2)
    qtbot.waitUntil(lambda: tool.draft is not None and tool.draft.value == 1, timeout=LONG)
    assert tool.draft.clicks == []
    assert window.scene.camera.zoom == zoom


def test_split_and_delete(window, dock, tool, press, mouse, qtbot) -> None:
    truth, at = nucleus()
    press(at)
    press.keys("Return")
    qtbot.waitUntil(lambda: len(results(window)) == 1, timeout=LONG)
    labels = results(window)[0]
    mouse(dock.panels.currentWidget().verbs["Split"])
    qtbot.waitUntil(lambda: tool.verb is SPLIT, timeout=LONG)
    rows, columns = np.nonzero(truth)
    middle = int(columns.mean())
    press(*((y, middle) for y in np.linspace(rows.min() - 12, rows.max() + 12, 12)), key="shift")
    qtbot.waitUntil(lambda: len(np.unique(labels.data)) == 3, timeout=LONG)
    press.keys("ctrl+z")
    qtbot.waitUntil(lambda: len(np.unique(labels.data)) == 2, timeout=LONG)
    press.keys("Escape", "d")
    qtbot.waitUntil(lambda: tool.verb is DELETE, timeout=LONG)
    press(at)
    qtbot.waitUntil(lambda: not labels.data.any(), timeout=LONG)


def test_a_key_switches_it_off_and_the_preview_goes(window, tool, press, qtbot) -> None:
    _, at = nucleus()
    press(at)
    qtbot.waitUntil(lambda: answered(tool), timeout=LONG)
    press.keys("k")
    qtbot.waitUntil(lambda: not tool.on, timeout=LONG)
    assert "click preview" not in window.layers


def test_closing_the_dock_switches_it_off(window, dock, tool, press, qtbot) -> None:
    _, at = nucleus()
    press(at)
    window.window.remove_dock_widget(dock)
    assert not tool.on
    assert "click preview" not in window.layers
