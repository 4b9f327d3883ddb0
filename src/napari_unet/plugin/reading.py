"""File > Open, and drag and drop: labels that this package wrote as OME-Zarr, at their place and size. No Qt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import zarr

from ..engine.files import is_zarr, open_image, stem

LayerData = tuple[list[da.Array], dict[str, Any], str]


def labels_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """Return `read_labels` if a path is one of our own; napari's reader knows no pixel size and takes labels for an image."""
    if isinstance(path, list) or not is_zarr(Path(path)):
        return None
    node = zarr.open(path, mode="r")
    return read_labels if isinstance(node, zarr.Group) and "napari-unet" in node.attrs else None


def read_labels(path: str) -> list[LayerData]:
    """Return the levels of a pyramid of labels, lazily, with pixel size, unit and how they were made."""
    group = zarr.open_group(path, mode="r")
    about: Any = group.attrs["ome"]
    levels = [da.from_zarr(group[dataset["path"]]) for dataset in about["multiscales"][0]["datasets"]]
    finest = open_image(path)
    units = tuple(finest.unit if axis in "zyx" else "pixel" for axis in finest.axes)
    options = {
        "name": stem(Path(path)),
        "scale": finest.spacing,
        "units": units,
        "axis_labels": tuple(finest.axes),
        "metadata": {"napari_unet": group.attrs["napari-unet"]},
    }
    return [(levels, options, "labels" if "image-label" in about else "image")]
