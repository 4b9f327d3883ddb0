"""Page: what is painted on one image, in its own layer or as corrections of a result. No Qt.

The annotations are one array. The user paints in the layer that shows it, or in a result layer; `Page.look` takes in
both, so undo is nothing special: what counts is what stands there when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap, label_colormap
from numpy.typing import NDArray

from ..engine.card import ModelCard
from ..engine.errors import InvalidAnnotation
from ..engine.image import Image
from ..engine.strokes import Change, Strokes
from . import layers
from .journal import About, Journal, Kept, identity, kept

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from ..engine.lesson import Lesson
    from .result import Result

ANNOTATIONS = "napari_unet_annotations"
"""Under this name the metadata of a layer of annotations say so."""
COLOURS = 200
"""Objects with a colour of their own; beyond that all look alike."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """What the values of annotations mean: 1 is the first class (background), 2 the second or an object, and so on."""

    task: str
    dims: int
    names: tuple[str, ...]
    colors: tuple[str, ...]

    @classmethod
    def of(cls, card: ModelCard) -> Scheme:
        """Return the scheme of a model."""
        return cls(card.task, card.spec.dims, card.classes, card.colors)

    @property
    def objects(self) -> bool:
        """Whether values from 2 up are objects."""
        return self.task == "objects"

    def colormap(self) -> DirectLabelColormap:
        """Return the colours of an annotation layer: those of a result layer, and the background seen."""
        colors: dict[int | None, Any] = {0: "transparent", None: "white"}
        colors |= dict(enumerate(self.colors, start=1))
        if self.objects:
            ring = label_colormap(49).map(np.arange(1, COLOURS))
            colors |= dict(enumerate(ring, start=2))
        return DirectLabelColormap(color_dict=colors)

    def result_colormap(self) -> DirectLabelColormap:
        """Return the colours of a result layer of classes."""
        colors: dict[int | None, Any] = dict(enumerate(self.colors))
        return DirectLabelColormap(color_dict={**colors, 0: "transparent", None: "white"})


class Page:
    """The annotations of one image.

    Parameters
    ----------
    source, image
        The image as a layer and as the engine sees it.
    scheme
        What the values mean.
    folder
        Where journals are kept.

    Attributes
    ----------
    layer
        Shows the annotations; None: not shown yet.
    strokes
        The strokes at the last look.
    channel
        Which channel feeds a one-channel model.
    """

    def __init__(self, source: ImageLayer, image: Image, scheme: Scheme, folder: Path) -> None:
        self.source, self.image, self.scheme = source, image, scheme
        self.channel: int | None = None
        self.layer: Labels | None = None
        self.strokes = self._new_strokes()
        self.identity = identity(image, layers.file_of(source))
        self._folder = folder
        self._labels: NDArray[Any] = np.zeros(image.label_shape, dtype=np.uint16 if scheme.objects else np.uint8)
        self._journal: Journal | None = None
        self._draft: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._touched = self._pressed = False
        self._reserved = 1

    @property
    def empty(self) -> bool:
        """Whether nothing is painted."""
        return not self.strokes.labels.any()

    @property
    def labels(self) -> NDArray[Any]:
        """The annotations as they stand now, of the image's `label_shape`; a view."""
        shown = self.layer is not None and self.layer.data.size == self._labels.size
        return np.asarray(self.layer.data).reshape(self.image.label_shape) if self.layer and shown else self._labels

    @property
    def pressed(self) -> bool:
        """Whether a stroke is being made."""
        return self._pressed

    @property
    def journal_path(self) -> Path | None:
        """The journal being written."""
        return self._journal.path if self._journal else None

    # ---- what is seen

    def show(self, viewer: ViewerModel) -> Labels:
        """Show the annotations as a layer, ready to be painted on; the layer that is there, if there is one."""
        if self.layer is None or self.layer not in viewer.layers:
            array = layers.label_array(self.source, self.image, self._labels)
            place = layers.placement(self.source, self.image)
            layer = Labels(array, name=f"{self.source.name} annotations", opacity=0.6, **place)
            layer.metadata = {ANNOTATIONS: True}
            layer.colormap = self.scheme.colormap()
            layer.brush_size, layer.selected_label, layer.mode = 8, 2, "paint"
            layer.events.data.connect(self._on_touched)
            self._listen(layer)
            self.layer = layer
            viewer.add_layer(layer)
        viewer.layers.selection.active = self.layer
        return self.layer

    def follow(self, scheme: Scheme) -> None:
        """Use another model's classes; strokes keep their values and their parts."""
        if scheme == self.scheme:
            return
        before, old, self.scheme = self.strokes, self.scheme, scheme
        if (scheme.objects, scheme.dims) != (old.objects, old.dims):
            self.strokes = self._new_strokes()
            self.strokes.take(before.labels, before.held_out)
            self.strokes.newest = before.newest
        if self.layer is not None:
            self.layer.colormap = scheme.colormap()

    def next_object(self) -> int:
        """Return a value that no object has."""
        return max(self._reserved, int(self._labels.max(initial=0))) + 1

    # ---- what was painted

    def watch(self, result: Result) -> None:
        """Hear of corrections in a result layer."""
        self._listen(result.layer)
        self._touched = True

    def look(self, results: list[Result]) -> bool:
        """Take in what was painted here and corrected in results since the last look, and keep it on disk.

        Returns
        -------
        changed
            Whether anything was.

        Raises
        ------
        FileError
            If it cannot be kept on disk; it is taken in all the same.
        InvalidAnnotation
            If the layer was given data of another shape.
        """
        if not self._touched:
            return False
        self._read_layer()
        if self._pressed:  # in mid-stroke
            self._write(self._drafted())
            return False
        self._touched = False
        corrected = [self._take_corrections(result) for result in results]
        if any(corrected) and self.layer is not None:
            self.layer.refresh()
            self._touched = False
        change = self.strokes.look(self._labels)
        draft, self._draft = self._draft, np.empty(0, dtype=np.int64)
        if draft.size:
            change = self.strokes.at(np.union1d(draft, change.where) if change else draft)
        if change is None:
            return False
        self._write(change)
        return True

    def lesson(self) -> Lesson:
        """Return a copy of what was painted, so that painting can go on."""
        from ..engine.lesson import Lesson  # it imports torch

        s = self.strokes
        return Lesson(self.image, s.labels.copy(), s.held_out.copy(), s.newest.copy(), self.channel)

    def _read_layer(self) -> None:
        """The layer may have been given another array."""
        if self.layer is None:
            return
        array = np.asarray(self.layer.data)
        if array.size != self._labels.size:
            raise InvalidAnnotation(
                f"The layer {self.layer.name!r} has shape {array.shape}, but its image needs {self.image.label_shape}: "
                "make new annotations."
            )
        self._labels = array.reshape(self.image.label_shape)

    def _take_corrections(self, result: Result) -> bool:
        """Turn what was changed in a result since the last look into annotations."""
        if result.automatic is None or result.seen is None:
            return False
        now = np.asarray(result.layer.data)
        if now.size != result.seen.size:
            return False
        now = now.reshape(result.seen.shape)
        changed = now != result.seen
        if not changed.any():
            return False
        if self.scheme.objects:
            if result.first_value is None:
                result.first_value = self.next_object()
                self._reserved = result.first_value + int(max(now.max(), result.seen.max()))
            for item in self.image.items(self.scheme.dims, *_any_channel(self.image)):
                where = item.region(tuple(slice(0, n) for n in item.shape))
                if changed[where].any():
                    self._correct_objects(result, now, changed, where)
        else:
            values = np.where(now == result.automatic, 0, now + 1)
            self._hold(int(values.max(initial=0)))
            self._labels[changed] = values[changed]
        result.seen[...] = now
        return True

    def _correct_objects(
        self, result: Result, now: NDArray[Any], changed: NDArray[np.bool_], where: tuple[slice, ...]
    ) -> None:
        """An object that a change touched counts as complete as it now stands, or not at all if it is as it was."""
        assert result.automatic is not None
        assert result.seen is not None
        assert result.first_value is not None
        n, automatic, new = now[where], result.automatic[where], changed[where]
        shift = result.first_value - 1
        self._hold(int(n.max(initial=0)) + shift)
        labels = self._labels[where]
        labels[new] = np.where((n == 0) & (automatic != 0), 1, 0)[new]
        for value in np.unique(np.concatenate([n[new], result.seen[where][new]])).tolist():
            if value:
                mine = n == value
                labels[labels == value + shift] = 0
                if not np.array_equal(mine, automatic == value):
                    labels[mine] = value + shift

    def _hold(self, highest: int) -> None:
        """Make room for larger values."""
        if highest > np.iinfo(self._labels.dtype).max:
            self._labels = self._labels.astype(layers.smallest_dtype(highest))
            if self.layer is not None:
                self.layer.data = layers.label_array(self.source, self.image, self._labels)

    def _listen(self, layer: Labels) -> None:
        """Hear of painting, of undo (which is no `paint` event), and of the button held down in mid-stroke."""
        for event in (layer.events.paint, layer.events.labels_update, layer.events.set_data):
            event.connect(self._on_touched)
        layer.mouse_drag_callbacks.append(self._on_drag)

    def _on_touched(self) -> None:
        self._touched = True

    def _on_drag(self, _: Labels, event: Any) -> Iterator[None]:
        self._pressed = True
        yield
        while event.type == "mouse_move":
            yield
        self._pressed = False

    def _new_strokes(self) -> Strokes:
        return Strokes(self.image.label_axes, self.image.label_shape, self.scheme.dims, self.scheme.objects)

    # ---- on disk

    def kept(self) -> list[Kept]:
        """Return what earlier sessions left of this image."""
        mine = frozenset() if self._journal is None else frozenset({self._journal.path})
        return kept(self._folder, self.identity, mine)

    def take_back(self, journals: list[Kept]) -> None:
        """Bring back what earlier sessions left; their journals become this session's."""
        for journal in journals:
            if journal.about.shape != self.image.label_shape:
                raise InvalidAnnotation(
                    f"The strokes kept have shape {journal.about.shape}, but the image needs {self.image.label_shape}: "
                    "check the axes of the image."
                )
        self.strokes.take_back(change for journal in journals for change in journal.changes())
        self._replace(self.strokes.labels)
        self._write(self.strokes.everything())
        for journal in journals:
            journal.discard()

    def save(self, path: Path) -> None:
        """Write the annotations, and beside them which ones only judge; then no journal is needed any more.

        Raises
        ------
        FileError
        """
        from ..engine.lesson import write_lesson

        about = {"classes": self.scheme.names, "colors": self.scheme.colors, "task": self.scheme.task}
        write_lesson(path, self.lesson(), {"annotations": about})
        if self._journal is not None:
            self._journal.discard()
            self._journal = None

    def load(self, path: Path) -> None:
        """Take annotations from a file, in place of what is there.

        Raises
        ------
        FileError, InvalidAnnotation
        """
        from ..engine.lesson import open_lesson

        lesson = open_lesson(self.image, path)
        self.strokes = self._new_strokes()
        if lesson.held_out is None:
            self.strokes.look(lesson.labels)
        else:
            self.strokes.take(lesson.labels, lesson.held_out)
        if lesson.newest is not None:
            self.strokes.newest = lesson.newest
        self._replace(lesson.labels)
        self._write(self.strokes.everything())

    def close(self) -> None:
        """Write nothing more; what was painted stays on disk for the next session."""
        self._journal = None

    def discard(self) -> None:
        """Forget what was painted, on disk too."""
        if self._journal is not None:
            self._journal.discard()
            self._journal = None
        self.strokes = self._new_strokes()
        self._replace(np.zeros_like(self._labels))

    def _replace(self, labels: NDArray[np.integer]) -> None:
        self._hold(int(labels.max(initial=0)))
        self._labels[...] = labels
        if self.layer is not None:
            self.layer.refresh()
        self._touched = False

    def _drafted(self) -> Change | None:
        """Return an unfinished stroke; who judges is decided when it is finished."""
        where = np.flatnonzero(self._labels != self.strokes.labels).astype(np.int64)
        self._draft = np.union1d(self._draft, where)
        self._touched = False
        if not where.size:
            return None
        return Change(where, self._labels.flat[where].astype(np.uint32), np.zeros(where.size, dtype=bool))

    def _write(self, change: Change | None) -> None:
        if change is None:
            return
        if self._journal is None:
            scheme = self.scheme
            about = About(
                self.identity, self.image.name, self.image.label_shape, scheme.task, scheme.names, scheme.colors
            )
            self._journal = Journal(self._folder, about)
            change = self.strokes.everything() or change
        self._journal.write(change)


def _any_channel(image: Image) -> tuple[int | None, int]:
    """Return a choice of channels that every image allows, for stepping through its planes."""
    return (0, 1) if image.channels > 1 and not image.rgb else (None, 1)
