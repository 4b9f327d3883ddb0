"""Start-up, beside napari's own: the import, the window with an image, the dock, the first labels in view, all labels.

Run with ``xvfb-run -a -s "-screen 0 1600x1000x24" python -m benchmarks start [ROUNDS]`` (or without xvfb-run where there is a
display). Every round is a process of its own; the table gives the median of wall and processor time of each step. The
files are in the system's cache after the first round, which is not counted.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median

import numpy as np

Steps = dict[str, tuple[float, float]]


def window(pipe: Connection) -> None:
    """Open napari, then the dock, then press Segment; send what each step took."""
    steps: Steps = {}
    last = time.perf_counter(), time.process_time()

    def done(name: str) -> None:
        nonlocal last
        now = time.perf_counter(), time.process_time()
        steps[name] = now[0] - last[0], now[1] - last[1]
        last = now

    import napari
    from qtpy.QtWidgets import QApplication

    done("import napari")

    def spin(until: Callable[[], bool]) -> None:
        while not until():
            QApplication.processEvents()
            time.sleep(0.001)

    viewer = napari.Viewer(show=True)
    QApplication.processEvents()
    done("napari: its window")
    dock = viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
    QApplication.processEvents()
    done("ours: the dock, without torch")

    from napari_unet.samples import load

    image = np.asarray(load("nuclei")[0].array)
    viewer.add_image(np.tile(image, [-(-1024 // n) for n in image.shape])[:1024, :1024], name="nuclei")
    QApplication.processEvents()
    done("napari: an image of 1024²")
    dock.session.choose(device="cpu")
    dock.session.segment()
    spin(lambda: any(np.any(layer.data) for layer in viewer.layers if type(layer).__name__ == "Labels"))
    done("ours: Segment, first labels (torch is imported)")
    spin(lambda: bool(dock.session.state == "idle"))
    done("ours: the rest of the labels")
    dock.session.segment()
    spin(lambda: bool(dock.session.state == "idle"))
    done("ours: Segment once more")
    pipe.send(steps)
    viewer.close()


def alone(pipe: Connection) -> None:
    """Import our Python side without napari."""
    began, cpu = time.perf_counter(), time.process_time()
    import napari_unet

    steps: Steps = {"import napari_unet": (time.perf_counter() - began, time.process_time() - cpu)}
    napari_unet.load_model("nuclei")
    steps["load_model (torch is imported)"] = time.perf_counter() - began, time.process_time() - cpu
    pipe.send(steps)


def measured(program: Callable[[Connection], None]) -> Steps:
    """Run a program in a fresh process."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(target=program, args=(there,))
    child.start()
    steps: Steps = here.recv()
    child.join()
    return steps


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as place:
        os.environ["NAPARI_UNET_HOME"] = place
        os.environ["NAPARI_CONFIG"] = os.path.join(place, "settings.yaml")
        found = [measured(window) | measured(alone) for _ in range(rounds + 1)][1:]
    print(f"{rounds} rounds\n{'':50}{'wall s':>8}{'CPU s':>8}")
    for name in found[0]:
        wall, cpu = (median(steps[name][i] for steps in found) for i in range(2))
        print(f"{name:50}{wall:8.2f}{cpu:8.2f}")


if __name__ == "__main__":
    main()
