"""doubts(): says in one sentence why a result should not be believed without a look."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .card import ModelCard
from .image import Image

FACTOR = 2.0
"""Pixels so many times larger or smaller than those learned from are another matter."""
WIDTHS = 4.0
"""So are objects: the images that `nuclei` learned from have medians from 9 to 52 pixels about the 20 on its card, and
were shown at half to twice their size."""
BRIGHTNESS = 0.4
"""So far may the median intensity, from 0 (dark) to 1 (bright), lie from those learned: an inverted image is farther."""
MICROMETRES = {
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "meter": 1e6,
    "angstrom": 1e-4,
}
NO_OBJECTS = "No objects were found: lower the thresholds, check the channel, or choose another model."
FEWEST = 5
"""The median size of fewer objects says nothing."""
FEWEST_LEVELS = 8
"""Fewer grey levels than this from dark to bright are hardly an image."""
PLANES = 16
"""So many planes at most are measured, spread evenly."""


def conditions(
    card: ModelCard, images: Sequence[Image], brightness: Sequence[float], annotations: Sequence[NDArray[np.integer]]
) -> dict[str, list[float]]:
    """Return under what conditions a model has learned, once it has learned this too: the least and the largest values.

    Parameters
    ----------
    card
        Of the model before.
    images, brightness, annotations
        What it learns from: the images, the median normalised intensity of each plane or volume, and what is painted.
    """
    now = {
        "brightness": list(brightness),
        "pixel_size": [size for image in images if (size := pixel_size(image))],
        "flatness": [flatness(image) for image in images if pixel_size(image) and card.spec.dims == 3],
        "diameter": [],
    }
    if card.task == "objects":
        now["diameter"] = [w for a in annotations if (w := diameter(np.where(a > 1, a, 0), card.spec.dims))]
    found = {}
    for name, values in now.items():
        everything = [*values, *learned(card, name)]
        if everything:
            found[name] = [round(float(min(everything)), 4), round(float(max(everything)), 4)]
    return found


def learned(card: ModelCard, name: str) -> tuple[float, ...]:
    """Return the least and the largest value of a condition that a model has learned under; empty: not known."""
    record = card.training.get("conditions")
    known = record.get(name) if isinstance(record, dict) else None
    if isinstance(known, list) and len(known) == 2 and all(isinstance(v, (int, float)) for v in known):
        return tuple(known)
    if name == "diameter" and card.diameter:
        return card.diameter, card.diameter
    if name == "pixel_size" and card.spacing:
        return card.spacing[-1], card.spacing[-1]
    if name == "flatness" and len(card.spacing) == 3:
        return (card.spacing[0] / card.spacing[-1],) * 2
    return ()


def pixel_size(image: Image) -> float:
    """Return how wide a pixel is, in micrometres; 0: not known."""
    return image.label_spacing[-1] * MICROMETRES.get(image.unit, 0.0)


def flatness(image: Image) -> float:
    """Return how many times the width of a pixel the slices are apart."""
    return image.spacing[image.axes.index("z")] / image.label_spacing[-1] if "z" in image.axes else 1.0


def doubts(
    image: Image,
    card: ModelCard,
    labels: NDArray[np.integer],
    contrast: float,
    brightness: float | None = None,
    zoom: float = 1.0,
) -> str:
    """Return why this result may be wrong: the model was used for what it did not learn; empty: nothing speaks against it.

    Parameters
    ----------
    image, card, labels
        What was segmented, with what, and what came out.
    contrast
        The span of intensities between dark and bright, the smallest of all channels.
    brightness
        The median normalised intensity; None: not known.
    zoom
        How many times as wide as it is the model saw the image.
    """
    if card.task == "semantic" and labels.min() == labels.max():
        return f"Every pixel became {card.classes[int(labels.min())]!r}: check the channel, or choose another model."
    if card.task == "objects" and not labels.any():
        return NO_OBJECTS
    width = diameter(labels, card.spec.dims) if card.task == "objects" else 0.0
    sizes = learned(card, "diameter")
    if width and sizes and not min(sizes) / WIDTHS <= width * zoom <= max(sizes) * WIDTHS:
        return (
            f"These objects are about {width:.0f} pixels wide, those that {card.name} learned from {_span(sizes, '.0f')}: "
            f"check them{_remedy(card)}."
        )
    return doubts_of_image(image, card, contrast, brightness, zoom)


def doubts_of_image(
    image: Image, card: ModelCard, contrast: float, brightness: float | None = None, zoom: float = 1.0
) -> str:
    """Return why a model may fail on this image, whatever came out; empty: nothing speaks against it."""
    sizes, size = learned(card, "pixel_size"), pixel_size(image)
    if size and sizes and not min(sizes) / FACTOR <= size / zoom <= max(sizes) * FACTOR:
        return (
            f"A pixel of this image is {size:.3g} µm wide, of those that {card.name} learned from {_span(sizes, '.3g')} µm: "
            f"check the result{_remedy(card)}."
        )
    apart, ratios = flatness(image), learned(card, "flatness")
    if card.spec.dims == 3 and size and ratios and not min(ratios) / FACTOR <= apart <= max(ratios) * FACTOR:
        return (
            f"The slices of this image are {apart:.2g} times as far apart as its pixels are wide, of those that {card.name} "
            f"learned from {_span(ratios, '.2g')} times: check the result."
        )
    if np.dtype(image.array.dtype).kind in "iu" and contrast < FEWEST_LEVELS:
        return f"The image has hardly any contrast ({contrast:.0f} grey levels): check the result closely."
    usual = learned(card, "brightness")
    if brightness is not None and usual and not min(usual) - BRIGHTNESS <= brightness <= max(usual) + BRIGHTNESS:
        this, those = ("bright", "dark") if brightness > max(usual) else ("dark", "bright")
        return (
            f"This image is mostly {this}, those that {card.name} learned from mostly {those}: check the result, or invert "
            "the image."
        )
    return ""


def _remedy(card: ModelCard) -> str:
    """Return what to do about objects of another size."""
    if card.task == "objects" and card.diameter:
        return ", or say how wide the objects are (object diameter)"
    return ", or bring the image to that size"


def _span(values: Sequence[float], how: str) -> str:
    """Return one number, or two where they differ: ``"12"``, ``"12 to 40"``."""
    low, high = format(min(values), how), format(max(values), how)
    return low if low == high else f"{low} to {high}"


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
