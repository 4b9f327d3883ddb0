"""napari layers <-> Image and labels. No Qt.

napari aligns layers by their *trailing* axes. Labels have no channel axis, so where c stands in the middle or at the
end of an image, its labels get a c axis of length 1 that is as long in the world as all channels together: the one
label plane is then seen at every channel position. A leading c axis is dropped, and so are the colours of RGB.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from ..engine.card import ModelCard
from ..engine.errors import InvalidImage
from ..engine.image import AXES, Image, guess_axes

if TYPE_CHECKING:
    from napari.components import ViewerModel

WORDS = {
    "t": ("t", "time", "frame", "frames", "timepoint"),
    "c": ("c", "ch", "channel", "channels", "wavelength"),
    "z": ("z", "depth", "plane", "slice", "section"),
    "y": ("y", "row", "rows", "height"),
    "x": ("x", "column", "columns", "col", "width"),
}
"""What people and readers write into a layer's axis labels."""


def axes_of(layer: ImageLayer, dims: int = 2) -> str:
    """Return one letter for each axis of the pixels: from the layer's axis labels if they make sense, else guessed."""
    letters = {word: letter for letter, words in WORDS.items() for word in words}
    named = "".join(letters.get(str(label).strip().lower(), "?") for label in layer.axis_labels)
    if set("yx") <= set(named) <= set(AXES) and len(set(named)) == len(named):
        return named + "c" * bool(layer.rgb)
    return guess_axes(_finest(layer).shape, rgb=bool(layer.rgb), dims=dims)


def image_from(layer: Layer, axes: str | None = None, dims: int = 2) -> Image:
    """Return the pixels of an image layer as an Image; nothing is read.

    Parameters
    ----------
    layer
        Any image layer; of a multiscale one the finest level.
    axes
        One letter of ``tczyx`` an axis (for RGB with or without a final c); None: see `axes_of`.
    dims
        Spatial dimensions of the model, for the guess.

    Raises
    ------
    InvalidImage
        If it is no image layer, or its pixels or axes cannot be used.
    """
    if not isinstance(layer, ImageLayer):
        kind = type(layer).__name__.lower()
        raise InvalidImage(f"{layer.name!r} is a {kind} layer: choose an image layer.")
    array = _finest(layer)
    axes = axes.strip().lower() if axes else axes_of(layer, dims)
    if layer.rgb and len(axes) == len(array.shape) - 1:
        axes += "c"
    scale = [*np.abs(layer.scale), *([1.0] * bool(layer.rgb))]
    spacing = tuple(1.0 if a in "tc" else float(s) for a, s in zip(axes, scale, strict=False))
    if len(axes) != len(array.shape):
        spacing = ()
    return Image(array, axes, spacing, str(layer.units[-1]), layer.name, rgb=bool(layer.rgb))


def _finest(layer: ImageLayer) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _channel_axis(layer: ImageLayer, image: Image) -> int | None:
    """Where among the layer's own axes the channels stand; None: nowhere (RGB colours are no axis of a layer)."""
    return None if image.rgb or "c" not in image.axes else image.axes.index("c")


def label_array(layer: ImageLayer, image: Image, labels: NDArray[Any]) -> NDArray[Any]:
    """Return labels (or a map) of shape `Image.label_shape` as a view shaped for a layer on top of `layer`."""
    where = _channel_axis(layer, image)
    if where is None or _drops_channels(layer, where):
        return labels
    return np.expand_dims(labels, where)


def _drops_channels(layer: ImageLayer, where: int) -> bool:
    """Whether the channel axis leads and is not mixed with the others by a rotation or shear."""
    if where != 0:
        return False
    for matrix in (_linear(layer), np.asarray(layer.affine.affine_matrix)):
        if np.any(matrix[0, 1:] != 0) or np.any(matrix[1:, 0] != 0):
            return False
    return True


def _linear(layer: ImageLayer) -> NDArray[np.float64]:
    return np.asarray(layer.rotate @ _shear_matrix(layer) @ np.diag(layer.scale))


def _shear_matrix(layer: ImageLayer) -> NDArray[np.float64]:
    shear, n = np.asarray(layer.shear), layer.ndim
    if shear.ndim == 2:
        return shear
    matrix = np.eye(n)
    matrix[np.triu_indices(n, 1)] = shear
    return matrix


def check_axes(layer: ImageLayer, image: Image) -> None:
    """Raise InvalidImage if a layer was given pixels with more or fewer axes since `image` was taken from it."""
    if layer.ndim != len(image.axes) - image.rgb:
        raise InvalidImage(f"{layer.name!r} has other axes than when this was begun: begin anew.")


def placement(layer: ImageLayer, image: Image) -> dict[str, Any]:
    """Return the layer arguments that put labels of an image where its pixels are in the world; see `check_axes`."""
    check_axes(layer, image)
    n, where = layer.ndim, _channel_axis(layer, image)
    scale, translate, shear = np.array(layer.scale), np.array(layer.translate), _shear_matrix(layer)
    keep = list(range(n))
    if where is not None:
        if _drops_channels(layer, where):
            keep.remove(where)
        else:
            translate = translate + _linear(layer)[:, where] * (image.channels - 1) / 2
            scale[where] *= image.channels
    affine = np.asarray(layer.affine.affine_matrix)[np.ix_([*keep, n], [*keep, n])]
    names: Sequence[str] | None = layer.axis_labels
    if all(str(name).lstrip("-").isdigit() for name in layer.axis_labels):
        names = None  # napari's own numbers, which it gives again
    return {
        "scale": scale[keep],
        "translate": translate[keep],
        "rotate": np.asarray(layer.rotate)[np.ix_(keep, keep)],
        "shear": shear[np.ix_(keep, keep)],
        "affine": affine,
        "units": [layer.units[i] for i in keep],
        "axis_labels": None if names is None else [names[i] for i in keep],
    }


def smallest_dtype(highest: int) -> np.dtype[Any]:
    """Return the type for labels up to `highest`; napari draws 8 and 16 bits without a copy."""
    return np.dtype(np.uint8 if highest < 1 << 8 else np.uint16 if highest < 1 << 16 else np.int32)


def compact(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return labels in the smallest type that holds them."""
    return labels.astype(smallest_dtype(int(labels.max(initial=0))), copy=False)


def new_labels(layer: ImageLayer, image: Image, card: ModelCard, name: str) -> Labels:
    """Return an empty Labels layer on top of an image layer, to be filled tile by tile."""
    dtype = np.uint16 if card.task == "objects" else np.uint8
    empty = label_array(layer, image, np.zeros(image.label_shape, dtype=dtype))
    result = Labels(empty, name=name, **placement(layer, image))
    if card.task == "semantic":
        colors: dict[int | None, str] = dict(enumerate(card.colors))
        result.colormap = DirectLabelColormap(color_dict={**colors, 0: "transparent", None: "white"})
        result.features = {"index": list(range(len(card.classes))), "class": list(card.classes)}
    return result


def object_features(
    labels: NDArray[Any], foreground: NDArray[Any] | None, accepted: Collection[int]
) -> dict[str, list[Any]]:
    """Return a table of the objects of one plane or volume, as napari keeps it: a row for each number.

    Parameters
    ----------
    labels
        The objects.
    foreground
        The probability of each pixel; None: not kept.
    accepted
        The objects that the user has seen to.
    """
    areas = np.bincount(labels.ravel())
    numbers = [0, *(np.flatnonzero(areas[1:]) + 1).tolist()]
    table: dict[str, list[Any]] = {
        "index": numbers,
        "area": [int(areas[n]) for n in numbers],
        "state": ["background", *("accepted" if n in accepted else "automatic" for n in numbers[1:])],
    }
    if foreground is not None:
        sums = np.bincount(labels.ravel(), weights=foreground.ravel())
        table["probability"] = [round(float(sums[n] / areas[n]), 4) if areas[n] else 0.0 for n in numbers]
    return table


def probability_layers(
    layer: ImageLayer, image: Image, maps: NDArray[np.float32], names: Sequence[str], prefix: str
) -> list[ImageLayer]:
    """Return one image layer for each of ``(k, *label_shape)`` probabilities, hidden, on top of an image layer."""
    return [
        ImageLayer(
            label_array(layer, image, plane),
            name=f"{prefix} {name}",
            contrast_limits=(0, 1),
            colormap="magma",
            opacity=0.7,
            visible=False,
            **placement(layer, image),
        )
        for plane, name in zip(maps, names, strict=True)
    ]


def in_view(viewer: ViewerModel, layer: ImageLayer, image: Image) -> tuple[slice, ...] | None:
    """Return the part of the label array that the window shows, or None if that is not known; see `check_axes`."""
    check_axes(layer, image)
    corners = np.array(layer.corner_pixels, dtype=float)
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors)[layer.data_level]
    size = layer.ndim
    point = np.asarray(layer.world_to_data(np.asarray(viewer.dims.point)[-size:])) if viewer.dims.ndim >= size else None
    shown = set(viewer.dims.displayed)
    region = []
    for axis, (letter, length) in enumerate(zip(image.axes, image.shape, strict=True)):
        if letter == "c":
            continue
        if axis + viewer.dims.ndim - size in shown:
            start, stop = int(corners[0, axis]), int(corners[1, axis]) + 1
            if corners[1, axis] <= corners[0, axis]:
                start, stop = 0, length
        elif point is not None and np.isfinite(point[axis]):
            start = round(float(point[axis]))
            stop = start + 1
        else:
            return None
        start = min(max(start, 0), length - 1)
        region.append(slice(start, min(max(stop, start + 1), length)))
    return tuple(region)


def file_of(layer: Layer) -> str:
    """Return the path a layer was opened from, or what its file would be called."""
    path = layer.source.path or layer.metadata.get("path")
    return str(path) if path else f"{layer.name}.tif"


def with_record(metadata: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Return a layer's metadata with the record of how its labels were made."""
    return {**metadata, "napari_unet": copy.deepcopy(record)}
