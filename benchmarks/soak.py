"""Hours of a user in minutes: open, segment, paint, train, click, undo, batch, close, over and over; memory and errors counted.

Run with ``xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks soak [MINUTES] [CYCLES]``: so many minutes of
simulated use (default 5; an hour is ``60``) and before it so many cycles (default 100) of opening and closing the
dock. It ends with status 1 if a job reports an error, a thread or layer is left over, or memory goes on growing by more
than napari itself keeps of every layer that is added and removed, which is measured first.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.pauses import Window

MOST_GROWTH = 0.15
"""Memory may grow by this part from the first third of the time to the last, beside what napari keeps of layers."""


def megabytes() -> float:
    """Return the memory that this process holds, once what is free was handed back to the system (on Linux)."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return float(psutil.Process().memory_info().rss / 1e6)


def callbacks(viewer: Any) -> int:
    """Return how many functions listen to the viewer's layers and their selection."""
    emitters = (
        viewer.layers.events.inserted,
        viewer.layers.events.removed,
        viewer.layers.events.reordered,
        viewer.layers.selection.events.active,
        viewer.dims.events.current_step,
    )
    return sum(len(e.callbacks) for e in emitters)


def ours() -> list[str]:
    """Return the names of our threads."""
    return [t.name for t in threading.enumerate() if "napari-unet" in t.name]


def open_and_close_a_label(window: Window, cycles: int) -> float:
    """Return the megabytes a time that napari keeps of a dock that holds nothing but a word."""
    from qtpy.QtWidgets import QLabel

    for i in range(cycles + 3):
        if i == 3:
            began = megabytes()
        label = window.viewer.window.add_dock_widget(QLabel("word"), name="word")
        window.spin(lambda: False, 0.05)
        window.viewer.window.remove_dock_widget(label)
        window.spin(lambda: False, 0.02)
    return (megabytes() - began) / cycles


def add_and_remove_a_layer(window: Window, times: int) -> float:
    """Return the megabytes a time that napari keeps of a labels layer."""
    for i in range(times + 5):
        if i == 5:
            began = megabytes()
        layer = window.viewer.add_labels(np.zeros_like(window.image.data, dtype=np.uint8))
        window.spin(lambda: False, 0.1)
        window.viewer.layers.remove(layer)
        window.spin(lambda: False, 0.1)
    return (megabytes() - began) / times


def open_and_close(window: Window, cycles: int) -> list[str]:
    """Open and close the dock; return what was left over."""
    from napari_unet.plugin.dock import UNetDock

    def cycle() -> None:
        window.open()
        window.spin(lambda: False, 0.05)
        window.close_dock()
        window.spin(lambda: False, 0.02)

    def settle() -> None:
        window.spin(lambda: not ours(), 60)
        for _ in range(4):  # what is closed is let go of in steps
            window.spin(lambda: False, 0.3)
            gc.collect()

    for _ in range(5):
        cycle()
    settle()
    began, listeners, layers = megabytes(), callbacks(window.viewer), len(window.viewer.layers)
    for _ in range(cycles):
        cycle()
    settle()
    grown = megabytes() - began
    docks = sum(isinstance(o, UNetDock) for o in gc.get_objects())
    more = callbacks(window.viewer) - listeners
    print(f"dock opened and closed {cycles} times: {grown:+.1f} MB, {grown / max(cycles, 1):.1f} MB a time;")
    print(f"  left over: {len(ours())} threads, {more} callbacks, {docks} docks, layers {len(window.viewer.layers)}")
    left = [f"{len(ours())} threads"] * bool(ours()) + [f"{more} callbacks"] * (more > 0)
    return left + ["layers"] * (len(window.viewer.layers) != layers)


def one_round(window: Window, folder: Path, rng: np.random.Generator) -> list[str]:
    """Use everything once; return the errors that were told."""
    window.open()
    errors: list[str] = []
    session = window.dock.session
    session.told.connect(lambda message: errors.append(message.text) if message.is_error else None)
    nuclei = session.library.find("nuclei")
    session.choose_model(nuclei)
    session.choose_image(window.image)
    session.segment()
    window.spin(lambda: window.idle)
    session.segment()
    window.spin(lambda: window.dock.bar.value() > 0, 60)
    session.cancel()
    window.spin(lambda: window.idle)

    tool = window.dock.click_tool
    tool.switch(True)
    for x in (64, 192, 320):  # so far apart that none lies on the object accepted before, which is locked
        y = rng.integers(40, window.image.data.shape[0] - 40)
        tool.click((float(y), float(x + rng.integers(-20, 20))))
        window.spin(lambda: tool.draft is not None and tool.draft.answered, 60)
        tool.accept()
    tool.undo()
    tool.redo()
    tool.switch(False)

    session.choose_image(window.image)
    window.paint()
    window.viewer.layers.selection.active.undo()
    learning = window.dock.learning
    learning.settings = type(learning.settings)(steps=6, validate_every=3, batch=2, patch=48)
    learning.train()
    window.spin(lambda: session.state == "idle")
    learning.discard()
    window.spin(lambda: window.idle)

    session.choose_model(nuclei)
    window.batch(folder)
    window.spin(lambda: window.idle)
    window.close_dock()
    for layer in [x for x in window.viewer.layers if x is not window.image]:
        window.viewer.layers.remove(layer)
    window.spin(lambda: not ours(), 60)
    return errors


def main() -> None:
    """Print what grew, and what went wrong."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    cycles = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_UNET_HOME"] = place
        os.environ["NAPARI_CONFIG"] = str(Path(place) / "settings.yaml")
        folder, rng = Path(place) / "images", np.random.default_rng(0)
        folder.mkdir()
        window = Window(384)
        print(f"a dock of napari with one word: {open_and_close_a_label(window, 20):.1f} MB a time")
        a_layer = add_and_remove_a_layer(window, 20)
        print(f"a labels layer of napari, added and removed: {a_layer:.2f} MB a time", flush=True)
        wrong = open_and_close(window, cycles)
        end, memory, errors = time.monotonic() + 60 * minutes, list[float](), list[str]()
        layers, counts = list[object](), list[int]()
        window.viewer.layers.events.inserted.connect(lambda event: layers.append(None))
        while time.monotonic() < end or len(memory) < 4:
            errors += one_round(window, folder, rng)
            memory.append(megabytes())
            counts.append(len(layers))
            print(
                f"round {len(memory):3}: {memory[-1]:7.1f} MB, {counts[-1]} layers so far, {len(errors)} errors, "
                f"{len(ours())} threads",
                flush=True,
            )
        third = max(1, len(memory) // 3)
        early, late = slice(1, third + 1), slice(-third, None)
        first, last = float(np.median(memory[early])), float(np.median(memory[late]))
        theirs = a_layer * float(np.median(counts[late]) - np.median(counts[early]))
        print(
            f"{minutes:g} minutes, {len(memory)} rounds: {first:.0f} MB in the first third, {last:.0f} MB in the last; "
            f"of {last - first:.0f} MB more, {theirs:.0f} MB are what napari keeps of the layers"
        )
        log = (Path(place) / "log" / "napari-unet.log").read_text("utf-8")
        bugs = log.count("A job failed.")
        print(f"errors told: {len(errors)} {sorted(set(errors))}; tracebacks in the log: {bugs}")
        wrong += errors + ["tracebacks"] * bool(bugs) + ["memory"] * (last - theirs > first * (1 + MOST_GROWTH))
        window.viewer.close()
    sys.exit(f"wrong: {', '.join(sorted(set(wrong)))}" if wrong else 0)


if __name__ == "__main__":
    main()
