"""What plays the click model: a flood fill, whose answers are told by hand; and a user who clicks."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray
from scipy import ndimage

from napari_unet.engine.adaptation import Learned
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.click import SliceDone
from napari_unet.engine.image import Image
from napari_unet.engine.model import new_model
from napari_unet.engine.prompts import CHANNELS
from napari_unet.engine.training import StepDone
from napari_unet.plugin.click_tool import ClickTool


class Flood:
    """Plays the segmenter: a click means the piece of one grey value that it is on; 0 is no object."""

    def __init__(self) -> None:
        self.images: list[NDArray[Any]] = []
        self.priors: list[NDArray[np.bool_] | None] = []
        self.error: Exception | None = None
        self.accepted: list[tuple[NDArray[np.bool_], object]] = []
        self.learned = 0
        self.scores: tuple[float | None, float | None] = (None, None)
        self.model = new_model(
            ModelCard("click", "click", UNetSpec(in_channels=CHANNELS, out_channels=1, channels=(2,)))
        )

    def set_image(self, image: Image) -> None:
        pixels = np.asarray(image.array[...])
        self.images.append(pixels.mean(axis=-1) if image.rgb else pixels)

    def clear_image(self) -> None:
        self.images.clear()

    def accept(self, mask, click=None, image=None) -> None:
        self.accepted.append((mask, click))

    def learn(self):
        for step in (1, 2):
            yield StepDone(step, 2, 0.1, 0.0)
        self.learned = len(self.accepted)
        yield Learned(self.learned, *self.scores)

    def segment(self, clicks, previous=None, prior=None):
        if self.error is not None:
            raise self.error
        self.priors.append(prior)
        pixel, positive = clicks[-1]
        result = np.zeros(self.images[-1].shape, bool) if previous is None else previous.copy()
        result[piece(self.images[-1], pixel)] = positive
        return result

    def extend(self, volume, mask, z, *, axis=0):
        volume = np.moveaxis(np.asarray(volume), axis, 0)
        for step in (1, -1):
            k = z + step
            while 0 <= k < len(volume) and volume[k][mask].all():
                yield SliceDone(k, volume[k] * mask > 0)
                k += step


def piece(image: NDArray[Any], pixel: tuple[int, int]) -> NDArray[np.bool_]:
    if not image[pixel]:
        return np.zeros(image.shape, bool)
    pieces = ndimage.label(image == image[pixel])[0]
    return pieces == pieces[pixel]


def squares() -> NDArray[np.float32]:
    """Two squares of 8 x 8, of which the second has a darker quarter."""
    pixels = np.zeros((40, 60), dtype=np.float32)
    pixels[4:12, 4:12] = pixels[20:28, 30:38] = 1
    pixels[20:24, 30:34] = 0.5
    return pixels


def click(tool: ClickTool, *world: float, positive: bool = True) -> None:
    """Click, and wait for the answer."""
    tool.click(world, positive)
    while tool._start.running:
        tool._start.finish()


def result(viewer) -> Labels:
    (layer,) = [x for x in viewer.layers if isinstance(x, Labels) and x.name != "click preview"]
    return layer


def preview(viewer) -> NDArray[Any]:
    return np.asarray(viewer.layers["click preview"].data).squeeze()
