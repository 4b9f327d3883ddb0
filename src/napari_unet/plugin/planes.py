"""Plane: the slice of an image that the window shows, and what lies under a click on it. No Qt."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from numpy.typing import ArrayLike, NDArray

from ..engine.errors import InvalidImage
from ..engine.image import Image
from . import layers

if TYPE_CHECKING:
    from napari.components import ViewerModel

Index = tuple[int | slice, ...]
Pixel = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Plane:
    """A slice of an image.

    Attributes
    ----------
    layer, image
        The image as a layer and as the engine sees it.
    position
        Where it lies along each axis that is not shown, channels included.
    """

    layer: ImageLayer
    image: Image
    position: dict[str, int]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for the same slice of the same layer, whatever its channel."""
        return id(self.layer), self.image.axes, tuple(self.labels_position.items())

    @property
    def pixels_key(self) -> tuple[Any, ...]:
        """Equal for the same pixels."""
        return id(self.layer.data), self.image.axes, tuple(self.position.items())

    @property
    def where(self) -> Index:
        """Its place in an array of `Image.label_shape`."""
        return self._index(self.image.label_axes)

    @property
    def labels_position(self) -> dict[str, int]:
        """Its place along the axes of the labels, without the channel."""
        return {axis: at for axis, at in self.position.items() if axis != "c"}

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        rows, columns = (n for n, part in zip(self.image.label_shape, self.where, strict=True) if part == slice(None))
        return rows, columns

    def pixels(self) -> Image:
        """Return it as an image of its own; of a dask array nothing is read."""
        image = self.image
        return Image(image.array[self._index(image.axes)], "yxc" if image.rgb else "yx", name=image.name, rgb=image.rgb)

    def stack(self, along: str, part: slice) -> tuple[Any, int]:
        """Return neighbouring slices as one array, and which of its axes steps through them."""
        index = self._index(self.image.axes, {along: part})
        kept = [axis for axis, i in zip(self.image.axes, index, strict=True) if isinstance(i, slice)]
        return self.image.array[index], kept.index(along)

    def _index(self, axes: str, parts: dict[str, slice] | None = None) -> Index:
        there: dict[str, int | slice] = {**self.position, **(parts or {})}
        return tuple(there.get(axis, slice(None)) for axis in axes)

    def pixel(self, world: ArrayLike) -> Pixel:
        """Return the pixel under a point of the world.

        Raises
        ------
        InvalidImage
            If none is.
        """
        shown = [i for i, axis in enumerate(self.image.axes) if axis not in self.position][:2]
        y, x = (math.floor(float(v) + 0.5) for v in np.asarray(self.layer.world_to_data(world))[shown])
        if not (0 <= y < self.shape[0] and 0 <= x < self.shape[1]):
            raise InvalidImage(f"That is outside the image {self.layer.name!r}: click inside it.")
        return y, x

    def overlay(self, plane: NDArray[Any]) -> tuple[NDArray[Any], dict[str, Any]]:
        """Return data and placement of a Labels layer that shows an array of its shape on top of it alone."""
        hidden = tuple(i for i, part in enumerate(self.where) if isinstance(part, int))
        data = layers.label_array(self.layer, self.image, np.expand_dims(plane, hidden))
        place = layers.placement(self.layer, self.image)
        offset = np.zeros(data.ndim)
        axes = self.image.label_axes if data.ndim == len(self.where) else self.image.axes
        for i, axis in enumerate(axes):
            offset[i] = self.labels_position.get(axis, 0)
        linear = place["rotate"] @ place["shear"] @ np.diag(place["scale"])
        return data, {**place, "translate": place["translate"] + linear @ offset}


def plane_in_view(viewer: ViewerModel, layer: ImageLayer, image: Image) -> Plane:
    """Return the slice of an image that a viewer shows; of several channels, the one in view.

    Raises
    ------
    InvalidImage
        If it shows no slice, or the layer has other axes by now.
    """
    layers.check_axes(layer, image)
    dims = viewer.dims
    shown = {axis - dims.ndim + layer.ndim for axis in dims.displayed}
    letters = image.axes[: layer.ndim]
    if len(shown) != 2:
        raise InvalidImage("The view is 3D, where a click hits no slice: switch to 2D with Ctrl+Y.")
    if min(shown) < 0 or "c" in (letters[i] for i in shown):
        raise InvalidImage(
            f"The view does not show slices of {layer.name!r}: turn it with Ctrl+E until y and x are seen."
        )
    point = np.asarray(layer.world_to_data(dims.point))
    position = {
        axis: min(max(math.floor(float(at) + 0.5), 0), n - 1)
        for i, (axis, at, n) in enumerate(zip(letters, point, image.shape, strict=False))
        if i not in shown
    }
    return Plane(layer, image, position)
