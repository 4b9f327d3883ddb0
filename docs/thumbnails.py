"""Make the pictures of the shipped models, from our own sample: the image with the outlines of what they find.

``python docs/thumbnails.py`` writes src/napari_unet/weights/NAME.png.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import ImageDraw
from skimage.segmentation import mark_boundaries

import napari_unet as nu
from napari_unet import samples
from napari_unet.engine.library import PICTURE, SHIPPED
from napari_unet.samples import drawn

YELLOW, BLUE = (1, 0.8, 0.2), (102, 204, 238)
MIDDLE = 250, 330
"""Of the part of the sample that is shown."""


def shown(grey: NDArray[np.floating], labels: NDArray[np.integer], middle: tuple[int, int], zoom: int) -> Picture.Image:
    """Return the part of an image around a place, with outlines, `zoom` times as large."""
    half = PICTURE // zoom // 2
    part = tuple(slice(a - half, a + half) for a in middle)
    large, found = (np.kron(a[part], np.ones((zoom, zoom), a.dtype)) for a in (grey, labels))
    outlined = mark_boundaries(large, found, color=YELLOW, mode="inner")
    return Picture.fromarray((255 * outlined).round().astype(np.uint8))


def main() -> None:
    """Write the pictures."""
    image, _ = samples.load("nuclei")
    pixels = np.asarray(image.array)
    grey = (pixels / pixels.max()).astype(np.float32) ** 0.6
    labels = nu.segment(image, "nuclei", device="cpu")
    shown(grey, labels, MIDDLE, 1).save(SHIPPED / "nuclei.png", optimize=True)

    membranes, _ = drawn.membranes()
    walls = np.asarray(membranes.array, dtype=np.float32)
    found = nu.segment(membranes, "cells", device="cpu")
    middle = walls.shape[0] // 2, walls.shape[1] // 2
    shown((walls - walls.min()) / np.ptp(walls), found, middle, 1).save(SHIPPED / "cells.png", optimize=True)

    places = np.argwhere(labels)
    nearest = labels[tuple(places[((places - MIDDLE) ** 2).sum(axis=1).argmin()])]
    y, x = (int(n) for n in np.argwhere(labels == nearest).mean(axis=0).round())
    segmenter = nu.ClickSegmenter(device="cpu")
    segmenter.set_image(pixels)
    mask = segmenter.segment([nu.Click((y, x))])
    picture = shown(grey, mask.astype(np.uint8), (y, x), 2)
    middle = PICTURE // 2
    ImageDraw.Draw(picture).ellipse([middle - 4, middle - 4, middle + 4, middle + 4], fill=BLUE)
    picture.save(SHIPPED / "click.png", optimize=True)


if __name__ == "__main__":
    main()
