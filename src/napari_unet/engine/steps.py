"""Pre- and post-processing of other programs' networks, after the bioimage.io: steps, each a name and its numbers.

A number is one for all channels, or one a channel. The steps that look at the whole image (`card.STATISTICS`) become
`scale_shifted`, with the numbers found, before the first tile is read; so every step that runs looks at one pixel only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .card import DTYPES, STATISTICS, Step


def measured(steps: Sequence[Step], sample: NDArray[Any]) -> tuple[Step, ...]:
    """Return the steps with the statistics of an image put in: those of its own pixels, not of what earlier steps made.

    So does the official library, by which the test images of packages are made.

    Parameters
    ----------
    sample
        Pixels of the image, ``(c, n)``.
    """
    values = sample.astype(np.float64)
    return tuple(_with_numbers(*step, values) if step[0] in STATISTICS else step for step in steps)


def _with_numbers(name: str, numbers: tuple[tuple[float, ...], ...], values: NDArray[Any]) -> Step:
    """Return what a step with statistics does to these values: subtract, then multiply."""
    *settings, (together,) = numbers
    rows = values.reshape(1, -1) if together else values
    (eps,) = settings[-1]
    if name == "zero_mean_unit_variance":
        shift, span = rows.mean(axis=1), rows.std(axis=1)
    else:
        shift, high = np.percentile(rows, [settings[0][0], settings[1][0]], axis=1)
        span = high - shift
    return "scale_shifted", (tuple(map(float, shift)), tuple(map(float, 1 / (span + eps))))


def applied(steps: Sequence[Step], pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels ``(c, ...)`` after some steps, none of which needs statistics any more."""
    for name, numbers in steps:
        columns = [np.array(n, dtype=pixels.dtype).reshape(-1, *(1,) * (pixels.ndim - 1)) for n in numbers]
        pixels = _one(name, numbers, columns, pixels)
    return pixels


def _one(
    name: str, numbers: tuple[tuple[float, ...], ...], columns: list[NDArray[Any]], pixels: NDArray[Any]
) -> NDArray[Any]:
    if name == "scale_linear":
        return np.asarray(pixels * columns[0] + columns[1])
    if name == "scale_shifted":
        return np.asarray((pixels - columns[0]) * columns[1])
    if name == "clip":
        return pixels.clip(columns[0], columns[1])
    if name == "sigmoid":
        return sigmoid(pixels)
    if name == "softmax":
        return softmax(pixels)
    if name == "binarize":
        return (pixels > columns[0]).astype(pixels.dtype)
    assert name == "ensure_dtype"
    return pixels.astype(DTYPES[int(numbers[0][0])]).astype(pixels.dtype)


def sigmoid(maps: NDArray[Any]) -> NDArray[Any]:
    """Return the sigmoid of each map."""
    return np.asarray(1 / (1 + np.exp(-maps.clip(-60, 60))))


def softmax(maps: NDArray[Any]) -> NDArray[Any]:
    """Return the softmax over the maps ``(k, ...)``."""
    powers = np.exp(maps - maps.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))
