"""Drive the real window and write the pictures of the documentation into docs/images.

Needs a display: ``xvfb-run -a -s "-screen 0 1600x1000x24" python docs/screenshots.py [--theme light] [STORY ...]``.
With ``--animate`` the stories are short films, as animated WebP.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import napari
import numpy as np
from PIL import Image, ImageDraw
from qtpy.QtCore import QElapsedTimer, QPoint, Qt
from qtpy.QtWidgets import QApplication, QWidget
from scipy import ndimage

from napari_unet import samples
from napari_unet.plugin.dock import UNetDock

IMAGES = Path(__file__).parent / "images"
LARGEST = 300_000
"""Bytes of a picture."""
LONGEST = 1_000_000
"""Bytes of a film."""
FILM = 640
"""Pixels that it is wide."""
STAGE = (900, 720)
"""Size of the window for a film."""
WIDTH = 320
"""Pixels of the dock, as on a small laptop."""


def wait(until: Callable[[], bool], seconds: float = 120) -> None:
    """Turn the event loop until something is true."""
    clock = QElapsedTimer()
    clock.start()
    while not until():
        QApplication.processEvents()
        if clock.elapsed() > 1000 * seconds:
            raise TimeoutError("the window did not get there")


def pause(seconds: float) -> None:
    """Turn the event loop for a while."""
    clock = QElapsedTimer()
    clock.start()
    wait(lambda: clock.elapsed() > 1000 * seconds)


def save(viewer: napari.Viewer, name: str) -> None:
    """Write a picture of the whole window, in few colours if it would be too large."""
    pause(0.4)
    IMAGES.mkdir(parents=True, exist_ok=True)
    path = IMAGES / f"{name}.png"
    picture = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        picture.quantize(256).save(path, optimize=True)
    if path.stat().st_size > LARGEST:
        picture.quantize(64).save(path, optimize=True)


def open_window(theme: str) -> tuple[napari.Viewer, UNetDock]:
    """Open the window with the dock in it, and nothing else."""
    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window.resize(1200, 800)
    wrapped, dock = viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")
    assert isinstance(dock, UNetDock)
    wrapped.parent().resizeDocks([wrapped], [WIDTH], Qt.Orientation.Horizontal)
    wait(lambda: dock.device.count() >= 2)
    return viewer, dock


def open_sample(viewer: napari.Viewer, dock: UNetDock) -> napari.layers.Image:
    """Open the nuclei, as if they were the user's: the path on this machine is nobody's business."""
    (sample,) = viewer.open_sample("napari-unet", "nuclei")
    assert isinstance(sample, napari.layers.Image)
    sample.metadata = {}
    dock.session.changed.emit()
    return sample


def segmenting(viewer: napari.Viewer, dock: UNetDock) -> None:
    """From nothing to labels, an error, and a stack."""
    save(viewer, "1-empty")
    open_sample(viewer, dock)
    save(viewer, "2-image")

    dock.session.choose(tile=64)
    dock.segment_panel.button.click()
    wait(lambda: dock.bar.maximum() > 0 and dock.bar.value() >= 2)
    save(viewer, "3-running")
    wait(lambda: dock.session.state == "idle")
    dock.session.choose(tile=None)
    dock.segment_panel.button.click()
    wait(lambda: dock.session.state == "idle")
    save(viewer, "4-done")

    dock.segment_panel.objects.expand(animate=False)
    save(viewer, "5-thresholds")
    dock.segment_panel.objects.collapse(animate=False)

    broken = np.full((200, 200), np.nan, dtype=np.float32)
    viewer.add_image(broken, name="broken", contrast_limits=(0, 1))
    dock.segment_panel.button.click()
    wait(lambda: dock.session.state == "idle")
    save(viewer, "6-error")
    viewer.layers.remove("broken")

    stack = np.random.default_rng(0).random((3, 2, 128, 128)).astype(np.float32)
    viewer.layers.clear()
    viewer.add_image(stack, name="a time series of two channels", axis_labels=("t", "c", "y", "x"))
    save(viewer, "7-channels")


def clicking(viewer: napari.Viewer, dock: UNetDock) -> None:
    """One click, one object; a correction; accepted."""
    open_sample(viewer, dock)
    dock.panels.setCurrentIndex(1)
    tool = dock.click_tool
    save(viewer, "click-1-off")
    tool.switch(True)
    save(viewer, "click-2-on")
    for k, place in enumerate(near_the_middle(4)):
        tool.click(tuple(place), True)
        wait(lambda: tool.draft is not None and tool.draft.answered)
        if k < 3:
            tool.accept()
    save(viewer, "click-3-preview")
    tool.accept()
    save(viewer, "click-4-accepted")
    wait(lambda: "Taught by 4" in tool.teaching.sentence())
    save(viewer, "click-5-taught")


def batching(viewer: napari.Viewer, dock: UNetDock) -> None:
    """Three images planned, run, one of them failed; then labels written as OME-Zarr on top of their image."""
    pixels = np.asarray(open_sample(viewer, dock).data)
    viewer.layers.clear()
    viewer.add_image(pixels, name="control", scale=(0.5, 0.5))
    viewer.add_image(np.full_like(pixels, 7), name="lamp off", scale=(0.5, 0.5), visible=False)
    viewer.add_image(np.ascontiguousarray(pixels[::-1]), name="treated", scale=(0.5, 0.5), visible=False)
    panel = dock.batch_panel
    dock.panels.setCurrentWidget(panel)
    os.chdir(tempfile.mkdtemp())  # a path on this machine is nobody's business
    panel.batching.choose(out="labels", ending=".zarr")
    panel.button.click()
    wait(lambda: dock.session.state == "idle" and panel.batching.plan is not None)
    save(viewer, "batch-1-plan")
    panel.button.click()
    wait(lambda: panel.batching.report is not None and dock.session.state == "idle")
    save(viewer, "batch-2-done")
    viewer.layers.clear()
    viewer.add_image(pixels, name="control", scale=(0.5, 0.5))
    (labels,) = viewer.open("labels/control_labels.zarr", plugin="napari-unet")
    labels.contour = 2  # the image below is seen too
    viewer.reset_view()
    save(viewer, "batch-3-ome-zarr")


def live(viewer: napari.Viewer, dock: UNetDock) -> None:
    """Three strokes and their effect, as a window and as a strip; then doubt, and the next region."""
    open_sample(viewer, dock)
    dock.panels.setCurrentWidget(dock.train_panel)
    dock.live_panel.toggle.click()
    wait(lambda: dock.live.hint.startswith("Paint"))
    truth = samples.load("nuclei")[1] > 0
    page = dock.learning.page
    assert page is not None
    layer = page.layer
    assert layer is not None
    layer.brush_size = 5
    inside, outside = ndimage.distance_transform_edt(truth), ndimage.distance_transform_edt(~truth)
    near = (outside > 3) & (outside < 9)
    strip = [frame(viewer)]
    for number in range(3):
        value = 1 if number == 1 else 2
        wanted = inside if value == 2 else ndimage.distance_transform_edt(near)
        if number == 2:  # the largest object, or part of one, that is missed
            assert dock.live.layer is not None
            wanted = np.where(np.asarray(dock.live.layer.data).reshape(truth.shape) > 1, 0, inside)
        y, x = (int(n) for n in np.unravel_index(int(wanted.argmax()), truth.shape))
        for dx in range(-8, 9):
            if 0 <= x + dx < truth.shape[1] and wanted[y, x + dx] > 3 * (value == 2):
                layer.paint((y, x + dx), value)
        dock.learning.look()
        pause(3)
        strip.append(frame(viewer))
    save(viewer, "live-1-three-strokes")
    wide = Image.fromarray(np.concatenate(strip, axis=1)).quantize(128)
    wide.save(IMAGES / "live-strip.png", optimize=True)
    dock.live_panel.doubt.click()
    pause(2)
    dock.live_panel.next.click()
    wait(lambda: dock.message.text().startswith("Paint here"))
    pause(2)
    save(viewer, "live-2-next-region")
    dock.live_panel.doubt.click()
    dock.live_panel.keep.click()
    wait(lambda: dock.session.state == "idle" and len(viewer.layers) > 3)
    save(viewer, "live-3-result")


def frame(viewer: napari.Viewer) -> np.ndarray:
    """Return the canvas, a square of it, half as large."""
    pause(0.4)
    picture = Image.fromarray(viewer.screenshot(canvas_only=True, flash=False)).convert("RGB")
    edge = min(picture.size)
    left, top = ((n - edge) // 2 for n in picture.size)
    return np.asarray(picture.crop((left, top, left + edge, top + edge)).resize((300, 300)))


def training(viewer: napari.Viewer, dock: UNetDock) -> None:
    """A model from nothing: paint, train, better; then each other end that a round can come to."""
    open_sample(viewer, dock)
    learning, usual = dock.learning, dock.learning.settings
    dock.panels.setCurrentWidget(dock.train_panel)
    save(viewer, "train-1-empty")

    learning.new_model("my nuclei", "semantic", ("background", "nucleus"), 2, 1)
    learning.annotate()
    truth = samples.load("nuclei")[1]
    for place, value in strokes_on(truth, 20):
        stroke(dock, place, value)
    save(viewer, "train-2-painted")

    def train(**settings: object) -> None:
        learning.settings = replace(usual, **settings)  # type: ignore[arg-type]
        learning.train()

    train()
    curve = dock.train_panel
    wait(lambda: curve.curve is not None and len(curve.curve.losses) > usual.validate_every + 5)
    save(viewer, "train-3-training")
    wait(lambda: (learning.state, dock.session.state) == ("idle", "idle"))
    save(viewer, "train-4-better")

    train(steps=1, learning_rate=1e-30)
    wait(lambda: (learning.state, dock.session.state) == ("idle", "idle"))
    save(viewer, "train-5-no-better")

    assert learning.page is not None
    learning.page.discard()
    places = strokes_on(truth, 20)
    for place, value in places:
        stroke(dock, place, 3 - value)
    train(steps=1, learning_rate=1e-6)
    wait(lambda: (learning.state, dock.session.state) == ("idle", "idle"))
    save(viewer, "train-6-contradictory")

    learning.page.discard()
    for place, value in places[:2]:
        stroke(dock, place, value)
    train(steps=20)
    wait(lambda: learning.comparing and dock.session.state == "idle")
    save(viewer, "train-7-look")
    learning.discard()

    learning.page.discard()
    stroke(dock, *places[0])
    train()
    wait(lambda: (learning.state, dock.session.state) == ("idle", "idle"))
    save(viewer, "train-8-error")


def strokes_on(truth: np.ndarray, count: int) -> list[tuple[tuple[slice, slice], int]]:
    """Return places of short horizontal strokes and what to paint there: nuclei and the ground in turn."""
    rng = np.random.default_rng(3)
    inside, outside = (ndimage.distance_transform_edt(mask) > 12 for mask in (truth > 0, truth == 0))
    found = []
    for i in range(count):
        y, x = rng.choice(np.argwhere((inside, outside)[i % 2][:, 12:-12]))
        found.append(((slice(y - 2, y + 3), slice(x, x + 24)), 2 - i % 2))
    return found


def stroke(dock: UNetDock, place: tuple[slice, slice], value: int) -> None:
    """Paint one stroke, and let it be looked at."""
    page = dock.learning.page
    assert page is not None
    assert page.layer is not None
    page.layer.data_setitem(tuple(np.mgrid[place].reshape(2, -1)), value)
    dock.learning.look()


def models(viewer: napari.Viewer, dock: UNetDock) -> None:
    """The tree of models, with one trained from the shipped one."""
    library = dock.session.library
    start = library.load("nuclei")
    for score in (0.78, 0.84):
        card = start.card.with_(name="my cells", parent=start.card.identity, training={"score": score, "baseline": 0.7})
        library.add(replace(start, card=card))
    dock.session.refresh_models()
    open_sample(viewer, dock)
    dock.panels.setCurrentWidget(dock.models_panel)
    dock.models_panel.tree.setCurrentItem(dock.models_panel.tree.topLevelItem(1))
    save(viewer, "models")


def comparing(viewer: napari.Viewer, dock: UNetDock) -> None:
    """A result against the truth of the sample: scores, and the errors."""
    open_sample(viewer, dock)
    dock.segment_panel.button.click()
    wait(lambda: dock.session.state == "idle" and len(viewer.layers) == 2)
    viewer.add_labels(samples.load("nuclei")[1], name="drawn by hand")
    panel = dock.compare_panel
    panel.section.expand(animate=False)
    panel.button.click()
    wait(lambda: panel.comparing.found is not None)
    save(viewer, "compare")


class Film:
    """Pictures of the canvas and the dock, one after the other, with a pointer where the user would have it."""

    ARROW = ((0, 0), (0, 17), (4, 13), (7, 19), (10, 18), (7, 12), (12, 12))
    """The outline of the pointer, in pixels from its tip."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer
        self.frames: list[Image.Image] = []
        self.milliseconds: list[int] = []
        self.pointer = QPoint(300, 400)
        for dock in (viewer.window._qt_viewer.dockLayerControls, viewer.window._qt_viewer.dockLayerList):
            dock.hide()  # the film is small, and about ours
        viewer.window.resize(*STAGE)
        pause(0.5)
        viewer.reset_view()

    def point_at(self, widget: QWidget) -> None:
        """Put the pointer on a control, once it has found its place."""
        pause(0.3)
        self.pointer = widget.mapTo(widget.window(), widget.rect().center())

    def point_to(self, pixel: Sequence[float]) -> None:
        """Put the pointer on a pixel of the image, row and column."""
        canvas = self.viewer.window._qt_viewer.canvas
        x, y = (canvas.view.transform * canvas.view.scene.transform).map([pixel[1], pixel[0]])[:2]
        self.pointer = canvas.native.mapTo(canvas.native.window(), QPoint(round(x), round(y)))

    def shoot(self, seconds: float) -> None:
        """Take a frame that is shown so long."""
        pause(0.15)
        frame = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
        arrow = [(self.pointer.x() + x, self.pointer.y() + y) for x, y in self.ARROW]
        ImageDraw.Draw(frame).polygon(arrow, fill="white", outline="black")
        self.frames.append(frame.resize((FILM, round(FILM * frame.height / frame.width)), Image.Resampling.LANCZOS))
        self.milliseconds.append(round(1000 * seconds))

    def save(self, name: str) -> None:
        """Write it, less fine until it is small enough."""
        IMAGES.mkdir(parents=True, exist_ok=True)
        path = IMAGES / f"{name}.webp"
        for quality in (80, 60, 40, 20):
            first, *rest = self.frames
            first.save(
                path, save_all=True, append_images=rest, duration=self.milliseconds, loop=0, quality=quality, method=6
            )
            if path.stat().st_size < LONGEST:
                return
        raise ValueError(f"{path} has {path.stat().st_size} bytes: take fewer frames")


def film_of_segmenting(viewer: napari.Viewer, dock: UNetDock) -> None:
    """An image is opened from the welcome, and segmented."""
    film = Film(viewer)
    film.shoot(1)
    film.point_at(dock.welcome.buttons["nuclei"])
    film.shoot(1)
    open_sample(viewer, dock)
    film.shoot(1)
    film.point_at(dock.segment_panel.button)
    film.shoot(0.8)
    dock.segment_panel.button.click()
    while dock.session.state != "idle":
        film.shoot(0.4)
        pause(0.6)  # a picture takes time from the network
    film.shoot(3)
    film.save("film-segment")


def film_of_clicking(viewer: napari.Viewer, dock: UNetDock) -> None:
    """Five objects, a click and a key each."""
    open_sample(viewer, dock)
    dock.show_panel("Click")
    film, tool = Film(viewer), dock.click_tool
    film.point_at(dock.click_panel.switch)
    film.shoot(1)
    tool.switch(True)
    film.shoot(0.8)
    for place in near_the_middle(5):
        film.point_to(place)
        film.shoot(0.4)
        tool.click(tuple(place), True)
        wait(lambda: tool.draft is not None and tool.draft.answered)
        film.shoot(0.8)
        tool.accept()
        film.shoot(0.5)
    film.shoot(2.5)
    film.save("film-click")


def film_of_training(viewer: napari.Viewer, dock: UNetDock) -> None:
    """Strokes are painted, a new model learns them, and is better."""
    open_sample(viewer, dock)
    learning, panel = dock.learning, dock.train_panel
    dock.show_panel("Train")
    learning.new_model("my nuclei", "semantic", ("background", "nucleus"), 2, 1)
    film = Film(viewer)
    film.point_at(panel.annotate)
    film.shoot(1)
    learning.annotate()
    viewer.reset_view()
    for place, value in strokes_on(samples.load("nuclei")[1], 20):
        learning.pick(value)
        stroke(dock, place, value)
        film.point_to((place[0].start + 2, place[1].stop))
        film.shoot(0.25)
    film.point_at(panel.train)
    film.shoot(1)
    panel.train.click()
    while (learning.state, dock.session.state) != ("idle", "idle"):
        film.shoot(0.3)
        pause(1.5)
    viewer.layers.selection.active = viewer.layers[0]
    film.shoot(3)
    film.save("film-train")


def near_the_middle(count: int) -> list[np.ndarray]:
    """Return the middles of the objects of the sample that lie nearest to its middle."""
    truth = samples.load("nuclei")[1]
    middle = np.array(truth.shape) / 2
    places = [np.argwhere(truth == value).mean(0) for value in np.unique(truth)[1:]]
    return sorted(places, key=lambda place: float(np.hypot(*(place - middle))))[:count]


FILMS = {"segment": film_of_segmenting, "click": film_of_clicking, "train": film_of_training}
STORIES = {
    "compare": comparing,
    "models": models,
    "segment": segmenting,
    "click": clicking,
    "train": training,
    "batch": batching,
    "live": live,
}


def main() -> None:
    """Take the pictures of all stories, or of those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stories", nargs="*", metavar="STORY", help=f"of {', '.join(STORIES)}; else all")
    parser.add_argument("--theme", default="dark")
    parser.add_argument("--animate", action="store_true", help=f"films instead of pictures, of {', '.join(FILMS)}")
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_CONFIG", str(Path(tempfile.mkdtemp()) / "settings.yaml"))
    os.environ.setdefault("NAPARI_UNET_HOME", tempfile.mkdtemp())
    stories = FILMS if options.animate else STORIES
    for name in options.stories or stories:
        viewer, dock = open_window(options.theme)
        stories[name](viewer, dock)
        viewer.close()


if __name__ == "__main__":
    sys.exit(main())
