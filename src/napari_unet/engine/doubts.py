"""doubts(): says in one sentence why a result should not be believed without a look."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .card import ModelCard
from .image import Image

FACTOR = 2.0
"""Pixels so many times larger or smaller than those learned from are another matter."""
WIDTHS = 4.0
"""So are objects: the images that `nuclei` learned from have medians from 9 to 52 pixels about the 20 on its card, and
were shown at half to twice their size."""
FEWEST = 5
"""The median size of fewer objects says nothing."""
FEWEST_LEVELS = 8
"""Fewer grey levels than this from dark to bright are hardly an image."""
PLANES = 16
"""So many planes at most are measured, spread evenly."""


def doubts(image: Image, card: ModelCard, labels: NDArray[np.integer], contrast: float) -> str:
    """Return why this result may be wrong: the model was used for what it did not learn; empty: nothing speaks against it.

    Parameters
    ----------
    image, card, labels
        What was segmented, with what, and what came out.
    contrast
        The span of intensities between dark and bright, the smallest of all channels.
    """
    if card.task == "objects" and not labels.any():
        return "No objects were found: lower the thresholds, check the channel, or choose another model."
    if card.task == "semantic" and labels.min() == labels.max():
        return f"Every pixel became {card.classes[int(labels.min())]!r}: check the channel, or choose another model."
    width = diameter(labels, card.spec.dims) if card.task == "objects" else 0.0
    if width and card.diameter and not 1 / WIDTHS <= width / card.diameter <= WIDTHS:
        return (
            f"These objects are about {width:.0f} pixels wide, those that {card.name} learned from {card.diameter:.0f}: "
            "check them, or bring the image to that size."
        )
    finest, learned = image.label_spacing[-1], card.spacing[-1] if card.spacing else 0.0
    if learned and image.unit == "micrometer" and not 1 / FACTOR <= finest / learned <= FACTOR:
        return (
            f"A pixel of this image is {finest:.3g} µm wide, of those that {card.name} learned from {learned:.3g} µm: "
            "check the result, or bring the image to that size."
        )
    if np.dtype(image.array.dtype).kind in "iu" and contrast < FEWEST_LEVELS:
        return f"The image has hardly any contrast ({contrast:.0f} grey levels): check the result closely."
    return ""


def diameter(labels: NDArray[np.integer], dims: int) -> float:
    """Return the median diameter, in pixels, of discs or balls as large as the objects; 0: too few of them."""
    items = labels.reshape(-1, *labels.shape[-dims:])
    sizes = [np.bincount(item.ravel())[1:] for item in items[:: max(1, len(items) // PLANES)]]
    areas = np.concatenate(sizes)
    areas = areas[areas > 0]
    if len(areas) < FEWEST:
        return 0.0
    area = float(np.median(areas))
    return 2 * math.sqrt(area / math.pi) if dims == 2 else (6 * area / math.pi) ** (1 / 3)
