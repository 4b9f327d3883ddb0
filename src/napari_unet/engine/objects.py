"""Network maps <-> instance labels: targets for training, seeded watershed for results.

Three maps share one decoder (the order is `card.OBJECT_MAPS`):

- *foreground*: is the pixel part of any object?
- *distance*: distance to the object's own boundary, divided by its largest value in that object, so that one threshold
  serves objects of every size (after the distance targets of Archit et al. 2025, micro-sam, and torch-em);
- *border*: are two objects within two pixels of here? (the separation borders of Ronneberger et al. 2015, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import watershed

from .settings import ObjectSettings

RING = 3
"""Unlabelled pixels this close to a painted object are known not to be the inside of another one."""
SMALLEST = 30
"""Objects below this many pixels weigh as if they had this many: a two-pixel crumb must not weigh like a nucleus."""
SMOOTHING = 1.0
"""Pixels by which the distance is smoothed, so that noise does not seed."""
BORDER = 0.7
"""How much a certain border lowers the distance; 1 splits large objects (chosen on training images, as SMOOTHING is)."""
SEED = 3
"""Seeds of fewer pixels than this are noise."""
FLOODED = 1 << 22
"""About so many pixels are flooded at once: the flood takes some 30 bytes for each."""


def targets(annotation: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what the network should answer for painted objects, and how much each pixel counts.

    Parameters
    ----------
    annotation
        ``(*spatial)``: 0 not labelled, 1 background, 2 and up one *complete* object each.

    Returns
    -------
    maps, weight
        Both ``(3, *spatial)``, in the order of `OBJECT_MAPS`. The weight is 0 where nothing is known. Every object has
        the same total weight in the foreground map.
    """
    objects = np.where(annotation > 1, annotation, 0)
    inside, known = objects > 0, annotation > 0
    maps = np.zeros((3, *annotation.shape), dtype=np.float32)
    weight = np.zeros_like(maps)
    maps[0] = inside
    weight[:] = known
    boxes = ndimage.find_objects(objects)
    areas = np.bincount(objects.ravel())
    count = np.count_nonzero(areas[1:])
    for label, box in enumerate(boxes, start=1):
        if box is None:
            continue
        mine = np.pad(objects[box] == label, 1)
        distance = ndimage.distance_transform_edt(mine)[(slice(1, -1),) * mine.ndim]
        mine = mine[(slice(1, -1),) * mine.ndim]
        maps[1][box][mine] = distance[mine] / distance.max()
        weight[0][box][mine] = inside.sum() / (count * max(areas[label], SMALLEST))
    highest = ndimage.maximum_filter(objects, size=5, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(inside, objects, np.iinfo(objects.dtype).max), size=5, mode="nearest")
    maps[2] = (highest > 0) & (lowest < highest)
    if not known.all() and inside.any():
        near = ndimage.distance_transform_edt(~inside) <= RING
        weight[1][near & ~known] = 1
    return maps, weight


def inwardness(maps: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return how far inside its object each pixel is; depends on the maps up to 4 `SMOOTHING` away."""
    inner = maps[2].astype(np.float32)
    inner *= -BORDER
    inner += 1
    inner *= maps[1]
    return np.asarray(ndimage.gaussian_filter(inner, SMOOTHING, output=inner))


def labels_from_maps(maps: NDArray[np.floating], settings: ObjectSettings) -> NDArray[np.int32]:
    """Turn stitched maps into objects by seeded watershed.

    Parameters
    ----------
    maps
        ``(3, *spatial)`` in 0 to 1, in the order of `OBJECT_MAPS`.
    settings
        Thresholds and minimal size.

    Returns
    -------
    labels
        int32 ``(*spatial)``: 0 background, 1 to n the objects.
    """
    foreground = maps[0] > settings.foreground_threshold
    if not foreground.any():
        return np.zeros(foreground.shape, dtype=np.int32)
    inner = inwardness(maps)
    seeds, count = ndimage.label((inner > settings.seed_threshold) & foreground)
    seeds = without_small(seeds, SEED)
    pieces, number = ndimage.label(foreground)
    seeded = seeds > 0
    piece_of = np.zeros(count + 1, dtype=np.intp)
    piece_of[seeds[seeded]] = pieces[seeded]
    del seeded
    used = np.flatnonzero(piece_of)
    # A piece of foreground with one seed, or none, is one object; only the others need the flood, which is slow.
    label_of = np.arange(count, count + number + 1, dtype=np.int32)
    label_of[piece_of[used]] = used
    crowded = np.bincount(piece_of[used], minlength=number + 1) > 1
    label_of[0] = 0
    labels = label_of[pieces]
    boxes = ndimage.find_objects(pieces)
    rows = [(int(p), boxes[p - 1][0].start, boxes[p - 1][0].stop) for p in np.flatnonzero(crowded)]
    for together, low, high in bands(rows, FLOODED // max(1, inner[0].size)):
        crowded[:] = False
        crowded[together] = True
        mask = crowded[pieces[low:high]]
        seeds_here = np.where(mask, seeds[low:high], 0)
        found = watershed(-inner[low:high], seeds_here, mask=mask)  # type: ignore[no-untyped-call]
        labels[low:high][mask] = found[mask]
    return renumbered(labels, settings.minimal_size)


def bands(pieces: Sequence[tuple[int, int, int]], height: int) -> Iterator[tuple[list[int], int, int]]:
    """Put pieces, each with its first row and the row after its last, in bands of about a height; none is cut."""
    together: list[int] = []
    top = bottom = 0
    for piece, low, high in sorted(pieces, key=lambda p: p[1]):
        if together and high - top > height:
            yield together, top, bottom
            together = []
        if not together:
            top = bottom = low
        together.append(piece)
        bottom = max(bottom, high)
    if together:
        yield together, top, bottom


def renumbered(labels: NDArray[np.integer], minimal_size: int) -> NDArray[np.int32]:
    """Return the labels without those of fewer pixels than `minimal_size`, the others numbered from 1 in their order."""
    keep = pixel_counts(labels) >= max(1, minimal_size)
    keep[0] = False
    return np.asarray((np.cumsum(keep) * keep).astype(np.int32)[labels])


def pixel_counts(labels: NDArray[np.integer]) -> NDArray[np.intp]:
    """Return how many pixels each label has, part by part: `bincount` copies all that it counts."""
    total = np.zeros(int(labels.max(initial=0)) + 1, dtype=np.intp)
    for part in np.array_split(labels.ravel(), max(1, labels.size >> 22)):
        total += np.bincount(part, minlength=len(total))
    return total


def without_small(labels: NDArray[np.integer], minimal_size: int) -> NDArray[np.integer]:
    """Return the labels with those of fewer pixels than `minimal_size` set to 0."""
    keep = pixel_counts(labels) >= minimal_size
    keep[0] = False
    return np.where(keep[labels], labels, 0)
