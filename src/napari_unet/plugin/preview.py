"""Preview: the object that is not yet accepted, as a layer of its own. No Qt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from scipy import ndimage

from .planes import Plane

if TYPE_CHECKING:
    from napari.components import ViewerModel

NAME = "click preview"
COLOURS: dict[int | None, Any] = {None: "transparent", 0: "transparent", 1: (1, 0.75, 0, 0.4), 2: (1, 0.9, 0.2, 1)}
"""1 its inside, 2 its outline."""


class Preview:
    """Shows one mask on top of the slice it belongs to."""

    def __init__(self, viewer: ViewerModel) -> None:
        self.layer: Labels | None = None
        self._viewer = viewer
        self._of: tuple[Any, ...] = ()

    def show(self, plane: Plane, mask: NDArray[np.bool_]) -> None:
        """Show a mask."""
        picture = mask.astype(np.uint8)
        picture[mask & ~ndimage.binary_erosion(mask)] = 2
        data, place = plane.overlay(picture)
        layers = self._viewer.layers
        if self.layer is not None and self._of == plane.key:
            self.layer.data = data
            if layers[-1] is not self.layer:
                with same_active(self._viewer):
                    layers.move(layers.index(self.layer), len(layers))
            return
        self.remove()
        layer = Labels(data, name=NAME, opacity=1, **place)
        layer.colormap = DirectLabelColormap(color_dict=COLOURS)
        layer.editable = False
        self.layer, self._of = layer, plane.key
        with same_active(self._viewer):
            self._viewer.add_layer(layer)

    def clear(self) -> None:
        """Show nothing; the layer stays for the next mask."""
        if self.layer is not None:
            self.layer.data = np.zeros_like(self.layer.data)

    def remove(self) -> None:
        """Take the layer away."""
        layer, self.layer = self.layer, None
        if layer is not None and layer in self._viewer.layers:
            with same_active(self._viewer):
                self._viewer.layers.remove(layer)


@contextmanager
def same_active(viewer: ViewerModel) -> Iterator[None]:
    """While layers are added or removed here, the user's active layer stays active."""
    before = viewer.layers.selection.active
    yield
    if before is not None and before in viewer.layers:
        viewer.layers.selection.active = before
