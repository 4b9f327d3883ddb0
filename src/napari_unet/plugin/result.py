"""Result: a Labels layer that fills tile by tile, can be taken back, and knows whether the user has edited it. No Qt."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from numpy.typing import NDArray

from ..engine.card import OBJECT_MAPS
from ..engine.image import Image
from ..engine.library import Entry
from ..engine.settings import ObjectSettings
from . import layers, proofread

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from ..engine.inference import Segmented


ACCEPTED = "napari_unet_accepted"
"""Under this name the metadata of a result layer say which objects no run may change."""


class Result:
    """The labels of one image by one model, in a viewer.

    Objects that the user accepted are locked: a run into the same layer fills the space around them.

    Attributes
    ----------
    source, image, entry
        What was segmented, as a layer and as the engine sees it, and the model.
    layer
        The Labels layer.
    edited
        Whether the user has painted in it or given it other data since it was made.
    segmented
        What the engine said, without probabilities; None: not finished yet.
    automatic, seen
        The labels as they were made, and as they were when corrections were last taken from them; None: not finished.
    first_value
        The value of annotations that stands for object 1; None: no object was corrected yet.
    """

    def __init__(self, viewer: ViewerModel, source: ImageLayer, image: Image, entry: Entry) -> None:
        self.source, self.image, self.entry = source, image, entry
        self.layer = layers.new_labels(source, image, entry.card, f"{source.name} labels ({entry.card.name})")
        self.edited = False
        self.segmented: Segmented | None = None
        self.automatic: NDArray[Any] | None = None
        self.seen: NDArray[Any] | None = None
        self.first_value: int | None = None
        self._unfinished: tuple[NDArray[Any] | None, NDArray[Any] | None, int | None] = (None, None, None)
        self._viewer = viewer
        self._probabilities: list[ImageLayer] = []
        self._before: NDArray[Any] | None = None
        self._kept: NDArray[Any] | None = None
        self._highest = 0
        self._pixels: NDArray[Any] = np.empty(0)
        self._writing = False
        self.layer.events.paint.connect(self._on_edit)
        self.layer.events.data.connect(self._on_edit)

    @property
    def on_screen(self) -> bool:
        """Whether the layer is still in the viewer."""
        return self.layer in self._viewer.layers

    def is_of(self, source: ImageLayer | None, entry: Entry | None) -> bool:
        """Whether it shows this image by this model (of any version)."""
        same_model = entry is not None and entry.card.name == self.entry.card.name
        return self.on_screen and source is self.source and same_model

    def can_be_replaced(self, image: Image) -> bool:
        """Whether a new run may use the layer: the same axes and shape, and nothing of the user's in it."""
        return not self.edited and image.axes == self.image.axes and image.label_shape == self.image.label_shape

    @property
    def pixels(self) -> NDArray[Any]:
        """The labels as they stand, of the image's `label_shape`; a view."""
        return np.asarray(self.layer.data).reshape(self.image.label_shape)

    @property
    def accepted(self) -> dict[int, list[dict[str, int]]]:
        """The locked objects, each with the positions of the slices where the user has seen to it."""
        return self.layer.metadata.get(ACCEPTED, {})

    def blank(self) -> None:
        """Show an empty result, for objects that are clicked where no model ran."""
        self._viewer.add_layer(self.layer)
        self.automatic, self.seen = self.pixels.copy(), self.pixels.copy()

    def correct(
        self, where: proofread.Index, labels: NDArray[Any], accept: Collection[int], position: dict[str, int]
    ) -> bool:
        """Write a part of `pixels` as one step of undo, and lock objects; False: all that stands there already."""
        self._make_room(int(labels.max(initial=0)))
        index = list(where)
        if self.layer.ndim > len(index):
            index.insert(self.image.axes.index("c"), 0)
        with self._own_change():
            changed = proofread.write(self.layer, tuple(index), labels)
        accepted = {**self.accepted}
        for value in accept:
            accepted[value] = [*(p for p in accepted.get(value, []) if p != position), position]
        self.layer.metadata = {**self.layer.metadata, ACCEPTED: accepted}
        self._tabulate()
        if not accept:
            self.edited |= changed  # nothing is locked that would tell the next run of it
        return changed

    def _make_room(self, highest: int) -> None:
        """Use a larger type if the layer's cannot hold a value."""
        if highest > np.iinfo(self.layer.data.dtype).max:
            dtype = layers.smallest_dtype(highest)
            with self._own_change():
                self.layer.data = self.layer.data.astype(dtype)
            self.seen = None if self.seen is None else self.seen.astype(dtype)

    def begin(self, image: Image, entry: Entry) -> None:
        """Show an empty layer, ready for the tiles of a run; what it held before can be brought back."""
        self.image, self.entry = image, entry
        self._unfinished = self.automatic, self.seen, self.first_value
        self.automatic = self.seen = None
        dtype = np.uint16 if entry.card.task == "objects" else np.uint8
        self._keep_accepted()
        with self._own_change():
            if self.on_screen:
                self._before = self.layer.data
                self.layer.data = np.zeros(
                    self._before.shape, dtype=np.promote_types(dtype, layers.smallest_dtype(self._highest))
                )
                for name, value in layers.placement(self.source, image).items():
                    if value is not None:
                        setattr(self.layer, name, value)
            else:
                self._viewer.add_layer(self.layer)
            self.layer.editable = False
        self._pixels = self.pixels
        if self._kept is not None:
            self._pixels[...] = self._kept

    def write(self, region: tuple[slice, ...], labels: NDArray[np.integer]) -> None:
        """Fill in a region; `redraw` shows it."""
        labels = self._around_accepted(labels, region)
        highest = int(labels.max(initial=0))
        if highest > np.iinfo(self._pixels.dtype).max:
            self._pixels = self._pixels.astype(layers.smallest_dtype(highest))
            with self._own_change():
                self.layer.data = layers.label_array(self.source, self.image, self._pixels)
        self._pixels[region] = labels

    def redraw(self) -> None:
        """Show what was written; cheap."""
        self.layer.refresh(extent=False, thumbnail=False, highlight=False)

    def finish(self, segmented: Segmented) -> None:
        """Show the final labels, and the probabilities if there are any."""
        self.segmented = replace(segmented, probabilities=None)
        self._before, self._pixels, self.edited = None, np.empty(0), False
        self.layer.editable = True
        self._show(segmented.labels, segmented.record)
        for old in self._probabilities:
            if old in self._viewer.layers:
                self._viewer.layers.remove(old)
        self._probabilities = []
        if segmented.probabilities is not None:
            card = self.entry.card
            names: Sequence[str] = OBJECT_MAPS if card.task == "objects" else card.classes
            self._probabilities = layers.probability_layers(
                self.source, self.image, segmented.probabilities, names, self.source.name
            )
            for layer in self._probabilities:
                layer.metadata = layers.with_record(layer.metadata, segmented.record)
                self._viewer.layers.insert(self._viewer.layers.index(self.layer), layer)
        self._viewer.layers.selection.active = self.layer

    def relabel(self, labels: NDArray[np.integer], thresholds: ObjectSettings) -> None:
        """Show labels made from the same maps with other thresholds."""
        assert self.segmented is not None
        record = self.segmented.record
        self._keep_accepted()
        self._show(labels, {**record, "settings": {**record["settings"], "objects": asdict(thresholds)}})

    def restore(self) -> None:
        """Make the viewer what it was before an unfinished run."""
        before, self._before = self._before, None
        if not self.on_screen:
            return
        if before is None:
            self._viewer.layers.remove(self.layer)
        else:
            self.automatic, self.seen, self.first_value = self._unfinished
            with self._own_change():
                self.layer.data = before
                self.layer.editable = True

    def _show(self, labels: NDArray[np.integer], record: dict[str, Any]) -> None:
        with self._own_change():
            # copies: what the user paints must not change what was made
            shown = layers.compact(self._around_accepted(labels, ...).copy())
            self.automatic = shown if self._kept is None else self._numbered(labels).astype(shown.dtype)
            self.seen = self.automatic.copy()
            if self._kept is None:  # else what was accepted keeps its value in the annotations
                self.first_value = None
            self.layer.data = layers.label_array(self.source, self.image, shown.copy())
        self.layer.metadata = layers.with_record(self.layer.metadata, record)
        self._tabulate()

    def _tabulate(self) -> None:
        """Give other plugins a table of the objects; planes that count anew would share its rows, so they have none."""
        pixels, found = self.pixels, self.segmented
        if self.entry.card.task != "objects" or pixels.squeeze().ndim > self.entry.card.spec.dims:
            return
        foreground = found.foreground if found is not None and found.labels.shape == pixels.shape else None
        self.layer.features = layers.object_features(pixels, foreground, self.accepted)

    def _keep_accepted(self) -> None:
        """Note the accepted objects, if there are any, before the labels are made anew."""
        self._kept, self._highest = None, 0
        if self.accepted and self.on_screen:
            locked = np.isin(self.pixels, list(self.accepted))
            if locked.any():
                self._kept, self._highest = np.where(locked, self.pixels, 0), int(self.pixels.max())

    def _numbered(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return labels with numbers that no object had so far."""
        return np.where(labels > 0, labels.astype(np.int32) + self._highest, 0)

    def _around_accepted(self, labels: NDArray[Any], region: Any) -> NDArray[Any]:
        """Return labels of a region with the accepted objects in it."""
        if self._kept is None:
            return labels
        kept = self._kept[region]
        return np.where(kept > 0, kept, self._numbered(labels))

    def _on_edit(self) -> None:
        """Hear of a brush (event `paint`) or of other data."""
        if not self._writing:
            self.edited = True

    @contextmanager
    def _own_change(self) -> Iterator[None]:
        self._writing = True
        try:
            yield
        finally:
            self._writing = False
