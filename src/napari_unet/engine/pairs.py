"""Folders of images and masks as training data: which belongs to which, and what is wrong."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import FileError, InvalidAnnotation
from .files import collect_inputs, open_image, stem
from .lesson import Lesson

ROLE = re.compile(r"[ _-]((?:cp_)?masks?|labels?|truth|gt|seg|annotations?|images?|img|raw)$", re.IGNORECASE)
"""Endings of names that say what a file is, not which; cp_masks is how cellpose calls them."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """What belongs together, and the files that were left over."""

    together: tuple[tuple[Path, Path], ...]
    """Image and mask."""
    left_over: tuple[str, ...]
    """A sentence for each file without a partner."""


def pair_up(images: str | Path, masks: str | Path) -> Pairs:
    """Pair the files of two folders (or patterns) by name: ``a.tif`` with ``a.png``, ``a_mask.png`` or ``a-labels.tif``.

    Raises
    ------
    FileError
        If a folder has no image, two files have the same name, or nothing belongs together.
    """
    ours, theirs = _by_name(images), _by_name(masks)
    together = tuple((ours[name], theirs[name]) for name in ours if name in theirs)
    if not together:
        raise FileError(
            f"No image of {images} has a mask in {masks}: give both the same name, such as a.tif and a_mask.tif."
        )
    left = [f"{path.name} has no mask and is left out." for name, path in ours.items() if name not in theirs]
    left += [f"{path.name} has no image and is left out." for name, path in theirs.items() if name not in ours]
    return Pairs(together, tuple(left))


def _by_name(folder: str | Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in collect_inputs([folder]):
        name = ROLE.sub("", stem(path))
        if name in found:
            raise FileError(f"{found[name].name} and {path.name} are called the same: keep one of them in {folder}.")
        found[name] = path
    return found


def open_pair(image: Path, mask: Path, axes: str | None = None, channel: int | None = None) -> Lesson:
    """Read an image and its mask (0 background, 1 and up a class or an object); every pixel is labelled.

    Raises
    ------
    FileError, InvalidImage, InvalidAnnotation
    """
    opened = open_image(image, axes=axes)
    labels = np.asarray(open_image(mask).array[...]).squeeze()
    if labels.dtype.kind not in "bui":
        raise InvalidAnnotation(f"{mask.name} holds {labels.dtype} values: a mask needs whole numbers.")
    if labels.ndim > len(opened.label_shape) or labels.size != np.prod(opened.label_shape):
        raise InvalidAnnotation(
            f"{mask.name} has shape {labels.shape}, but {image.name} needs {opened.label_shape}: take the mask of this image."
        )
    return Lesson(opened, labels.reshape(opened.label_shape).astype(np.int32) + 1, channel=channel)
