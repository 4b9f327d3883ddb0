"""A probe in the real window: pauses of the event loop while something runs, beside an idle napari; time until Cancel acts.

Run with ``xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks pauses [SECONDS]`` (or without xvfb-run where there
is a display). A timer of 10 ms in the window's thread measures the gap to its own last call; a row is what it saw during
SECONDS (default 20) of one state. The first row is napari alone with the same image, in the same process. What the
window's thread itself worked in a gap (its processor time) is told apart from what it waited: on a machine with other
things to do, the wait is mostly theirs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

EVERY = 10
"""Milliseconds between two calls of the probe."""
LONG = 300.0
CLICKS = 20
BRUSH = 100
"""Milliseconds between two strokes, where one paints while something runs."""


class Window:
    """A napari window on screen with an image, and the dock once it is opened."""

    def __init__(self, edge: int = 1536) -> None:
        import napari
        from qtpy.QtCore import Qt, QTimer

        from napari_unet.samples import load

        self.viewer = napari.Viewer(show=True)
        self.viewer.window._qt_window.resize(1200, 800)
        sample = np.asarray(load("nuclei")[0].array)
        many = -(-edge // min(sample.shape))
        self.image = self.viewer.add_image(np.tile(sample, (many, many))[:edge, :edge], name="nuclei")
        self.dock: Any = None
        self.gaps: list[tuple[float, float]] = []
        self._last = (0.0, 0.0)
        self._strokes = 0
        self.brush = QTimer()
        self.brush.setInterval(BRUSH)
        self.brush.timeout.connect(self.stroke)
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(EVERY)
        self._timer.timeout.connect(self._tick)

    def _tick(self) -> None:
        now = time.perf_counter(), time.thread_time()
        if self._last[0]:
            self.gaps.append((1000 * (now[0] - self._last[0]), 1000 * (now[1] - self._last[1])))
        self._last = now

    def open(self) -> None:
        """Open the dock as the menu does."""
        self.dock = self.viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
        self.dock.session.choose(device="cpu", tile=256)

    def close_dock(self) -> None:
        """Close it as its x does."""
        self.viewer.window.remove_dock_widget(self.dock)
        self.dock = None

    def spin(self, until: Callable[[], bool], seconds: float = LONG) -> bool:
        """Let the window live until something is true; False: it took too long."""
        from qtpy.QtWidgets import QApplication

        end = time.perf_counter() + seconds
        while not until():
            if time.perf_counter() > end:
                return False
            QApplication.processEvents()
            time.sleep(0.001)
        return True

    def probe(self, seconds: float, work: Callable[[], object] = lambda: None) -> list[tuple[float, float]]:
        """Return the gaps of so many seconds, and the work in each, in milliseconds; `work` is called when nothing runs."""
        self.gaps, self._last = [], (0.0, 0.0)
        end = time.perf_counter() + seconds

        def busy() -> bool:
            if self.dock is None or self.idle:
                work()
            return time.perf_counter() > end

        self._timer.start()
        self.spin(busy, seconds + LONG)
        self._timer.stop()
        self.stop()
        return self.gaps

    @property
    def idle(self) -> bool:
        """Whether no job runs."""
        return bool(self.dock.session.state == "idle" and self.dock.learning.state == "idle")

    def stop(self) -> None:
        """Cancel what runs, and wait for its end."""
        if self.dock is not None:
            self.dock.session.cancel()
            if not self.spin(lambda: self.idle):
                sys.exit("A cancelled job did not end")

    def paint(self) -> None:
        """Paint strokes of both classes, as the mouse does."""
        self.dock.session.choose_image(self.image)
        self.dock.learning.annotate()
        for _ in range(12):
            self.stroke()

    def stroke(self) -> None:
        """Paint one stroke, of the classes in turn."""
        layer = self.dock.learning.page.layer
        self._strokes += 1
        y, x = np.random.default_rng(self._strokes).integers(20, min(layer.data.shape) - 20, 2)
        with layer.block_history():
            for step in range(8):
                layer.paint((int(y), int(x) + step), 1 + self._strokes % 2)

    def train(self) -> None:
        """Paint and press Train."""
        self.paint()
        self.dock.learning.settings = replace(self.dock.learning.settings, steps=100_000)
        self.dock.learning.train()

    def batch(self, folder: Path) -> None:
        """Run a batch of the open image and three files."""
        batching = self.dock.batch_panel.batching
        for i in range(3):
            path = folder / f"{i}.npy"
            if not path.exists():
                np.save(path, self.image.data[:512, :512])
                batching.add(str(path))
        batching.choose(out=str(folder / "out"), resume=False)
        batching.check()
        self.spin(lambda: self.idle)
        batching.run()


def row(name: str, gaps: list[tuple[float, float]]) -> str:
    """Return a line of the table."""
    waited, worked = np.array(gaps).T
    p50, p99 = np.percentile(waited, (50, 99))
    columns = f"{len(gaps):6} {p50:7.1f} {p99:7.1f} {waited.max():8.1f}"
    return f"{name:30} {columns} {np.percentile(worked, 99):8.1f} {worked.max():8.1f}"


def cancel_time(window: Window, begin: Callable[[], object]) -> float:
    """Return the seconds from Cancel until the dock is idle again; -1: it had ended before."""
    begin()
    window.spin(lambda: window.dock.bar.value() > 0 or window.idle, 120)
    if window.idle:
        return -1.0
    began = time.perf_counter()
    window.dock.session.cancel()
    window.spin(lambda: window.idle)
    return time.perf_counter() - began


def click_times(window: Window, learning: bool) -> list[float]:
    """Click and accept nuclei one after the other; return the milliseconds from each click to its mask."""
    from scipy import ndimage

    from napari_unet.samples import load

    truth = load("nuclei")[1]
    values = np.unique(truth[truth > 0])
    places = ndimage.center_of_mass(truth > 0, truth, values[CLICKS * learning :][:CLICKS])
    tool = window.dock.click_tool
    tool.teaching.switch(learning)
    times = []
    for place in places:
        began = time.perf_counter()
        tool.click(place)
        window.spin(lambda: tool.draft is None or tool.draft.answered)
        times.append(1000 * (time.perf_counter() - began))
        tool.accept()
        window.spin(lambda: False, 1)  # a user looks for the next one
    window.spin(lambda: not tool.teaching.busy)
    tool.forget()
    return times


def main() -> None:
    """Print the tables."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_UNET_HOME"] = place
        os.environ["NAPARI_CONFIG"] = str(Path(place) / "settings.yaml")
        window = Window()
        folder = Path(place) / "images"
        folder.mkdir()
        print(f"{'':30} {'gaps':>6} {'waited, ms':>24} {'worked, ms':>17}")
        print(f"{'state':30} {'':6} {'p50':>7} {'p99':>7} {'longest':>8} {'p99':>8} {'longest':>8}")
        window.spin(lambda: False, 3)
        print(row("napari alone, idle", window.probe(seconds)), flush=True)
        window.open()
        window.spin(lambda: window.dock.device.count() > 2 or False, 20)
        print(row("the dock open, idle", window.probe(seconds)), flush=True)
        session = window.dock.session
        print(row("segmenting, tiles shown", window.probe(seconds, session.segment)), flush=True)
        redraw, session.redraw = session.redraw, lambda: None
        print(row("segmenting, tiles not shown", window.probe(seconds, session.segment)), flush=True)
        session.redraw = redraw
        print(row("batch", window.probe(seconds, lambda: window.batch(folder))), flush=True)
        print(row("training", window.probe(seconds, window.train)), flush=True)
        window.brush.start()
        print(row("painting", window.probe(seconds)), flush=True)
        print(row("training and painting", window.probe(seconds, window.train)), flush=True)
        live = window.dock.live
        live.switch(True)
        window.spin(lambda: live.classifier is not None, 60)
        print(row("painting live", window.probe(seconds)), flush=True)
        live.switch(False)
        window.brush.stop()
        print(f"\nFrom a click to its mask, {CLICKS} clicks, one a second, ms: median, longest")
        session.choose_image(window.image)
        window.viewer.layers.selection.active = window.image
        window.dock.click_tool.switch(True)
        for name, learning in (("clicking", False), ("clicking while the tool learns", True)):
            times = click_times(window, learning)
            print(f"  {name:30} {np.median(times):6.0f} {max(times):6.0f}", flush=True)
        window.dock.click_tool.switch(False)
        print("\nCancel: seconds until the dock is idle")
        for name, begin in (
            ("segmenting", session.segment),
            ("batch", lambda: window.batch(folder)),
            ("training", window.train),
        ):
            print(f"  {name:12} {max(cancel_time(window, begin) for _ in range(3)):6.2f} (longest of 3)", flush=True)
        window.viewer.close()


if __name__ == "__main__":
    main()
