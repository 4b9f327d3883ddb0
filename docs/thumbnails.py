"""Make the pictures of the shipped models, from our own samples: the image with the outlines of what they find.

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

YELLOW, BLUE = (1, 0.8, 0.2), (102, 204, 238)
MIDDLE, CELLS = (250, 330), (80, 176)
"""Of the parts of the samples that are shown; the cells at half their size."""


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

    cells, _ = samples.load("cells")
    found = nu.segment(cells, "cells", device="cpu")
    shown(np.asarray(cells.array)[::2, ::2] / 255, found[::2, ::2], CELLS, 1).save(SHIPPED / "cells.png", optimize=True)

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
