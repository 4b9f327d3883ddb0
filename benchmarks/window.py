"""How long does the window stand still? Pauses of the event loop: at rest, while it trains, while one paints meanwhile.

    xvfb-run -a python -m benchmarks window [--seconds 20] [--json FILE]

A timer in the window's thread wants to tick every 10 ms; a pause is by how much a tick comes late. The rest is measured
first, in the same window: what it shows is the machine's own noise. Painting is ten strokes a second, each on its own
place, by the call that the brush makes. The result of a round is not drawn (that is a segmentation).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication

from napari_unet.plugin.dock import UNetDock

TICK = 10
"""Milliseconds between two ticks."""
STROKES = 100
"""Milliseconds between two strokes."""


class Clock:
    """Notes by how many milliseconds each tick of a timer is late."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)

    def _tick(self) -> None:
        now = time.perf_counter()
        self.late.append(max(0.0, 1000 * (now - self._last) - TICK))
        self._last = now

    def measure(self, until: Callable[[], bool]) -> dict[str, float]:
        """Turn the event loop until something is true; return what was seen."""
        self.late, self._last = [], time.perf_counter()
        self._timer.start(TICK)
        while not until():
            QApplication.processEvents()
        self._timer.stop()
        values = np.array(self.late)
        return {
            "ticks": len(values),
            **{f"p{q}": float(np.percentile(values, q)) for q in (50, 99)},
            "longest": float(values.max()),
        }


def after(seconds: float) -> Callable[[], bool]:
    """Return a condition that becomes true after a while."""
    end = time.perf_counter() + seconds
    return lambda: time.perf_counter() > end


def paint(dock: UNetDock, count: int) -> None:
    """Make one more stroke, in rows from the top: nuclei in the left half, ground in the right one."""
    page = dock.learning.page
    assert page is not None
    assert page.layer is not None
    rows, columns = page.image.label_shape
    y, x = 6 * (count // 2) % (rows - 4), (count % 2) * columns // 2 + 10
    page.layer.data_setitem(tuple(np.mgrid[y : y + 3, x : x + 30].reshape(2, -1)), 2 - count % 2)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        prog="window", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="of each part")
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    folder = tempfile.mkdtemp()
    os.environ.setdefault("NAPARI_CONFIG", str(Path(folder) / "settings.yaml"))
    os.environ["NAPARI_UNET_HOME"] = folder
    viewer = napari.Viewer()
    viewer.window.resize(1200, 800)
    _, dock = viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")
    assert isinstance(dock, UNetDock)
    viewer.open_sample("napari-unet", "nuclei")
    learning, clock = dock.learning, Clock()
    learning.new_model("benchmark", "semantic", ("background", "nucleus"), 2, 1)
    learning.settings = replace(learning.settings, steps=100_000)
    dock.session.choose(device="cpu")
    dock.panels.setCurrentWidget(dock.train_panel)
    learning.annotate()
    made = 0

    def one_more() -> None:
        nonlocal made
        paint(dock, made)
        made += 1

    for _ in range(20):
        one_more()
        learning.look()
    clock.measure(after(5))  # what opening a window leaves behind
    found = {"at rest": clock.measure(after(options.seconds))}
    steps: list[object] = []
    learning.stepped.connect(steps.append)
    learning.train()
    clock.measure(lambda: len(steps) > 2)
    found["training"] = clock.measure(after(options.seconds))
    brush = QTimer()
    brush.timeout.connect(one_more)
    brush.start(STROKES)
    found["training, painting"] = clock.measure(after(options.seconds))
    brush.stop()
    learning.discard()
    clock.measure(lambda: dock.session.state == "idle")
    brush.start(STROKES)
    found["painting"] = clock.measure(after(options.seconds))
    brush.stop()
    print("| milliseconds late | ticks | median | p99 | longest |\n|---|---:|---:|---:|---:|")
    for name, row in found.items():
        print(f"| {name} | {row['ticks']} | {row['p50']:.1f} | {row['p99']:.0f} | {row['longest']:.0f} |")
    print(f"\n{len(steps)} steps of training.")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))
    viewer.close()


if __name__ == "__main__":
    sys.exit(main())
