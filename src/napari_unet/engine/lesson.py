"""Lesson: what a user painted on one image; teach(): one round, the same for the window and for the terminal."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .annotation import Annotation, TrainingSet
from .card import ModelCard
from .doubts import conditions
from .errors import FileError, InvalidAnnotation
from .files import open_image, stem, write_labels
from .image import Image
from .inference import normalisation, object_diameter
from .model import Model, extend_classes
from .replay import load_replay
from .settings import SegmentSettings, TrainSettings
from .strokes import Strokes
from .training import StepDone, Trained, Validated, fine_tune
from .zoom import Zoom

HIGHEST = (1 << 24) - 1
"""Annotations hold no higher value: a list as long as that is made of objects."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """An image and what was painted on it.

    Attributes
    ----------
    image
        Nothing is read before training.
    labels
        ``(*image.label_shape)``: 0 not labelled, 1 background, 2 and up a class or an object.
    held_out, newest
        bool, of the same shape; None: one stroke in five is chosen now, and everything is new.
    channel
        Which channel feeds a one-channel model.
    diameter
        About how wide the objects are, in pixels, as in `SegmentSettings`; None: the model sees them as they are.
    """

    image: Image
    labels: NDArray[np.integer]
    held_out: NDArray[np.bool_] | None = None
    newest: NDArray[np.bool_] | None = None
    channel: int | None = None
    diameter: int | None = None

    def __post_init__(self) -> None:
        dtype = self.labels.dtype
        if dtype.kind not in "bui":
            raise InvalidAnnotation(f"The annotation of {self.image.name!r} holds {dtype} values: give whole numbers.")
        lowest, highest = int(self.labels.min(initial=0)), int(self.labels.max(initial=0))
        if lowest < 0 or highest > HIGHEST:
            wrong = lowest if lowest < 0 else highest
            raise InvalidAnnotation(
                f"The annotation of {self.image.name!r} holds the value {wrong}: use 0 to {HIGHEST} (0 not labelled, "
                "1 background, 2 and up a class or an object)."
            )
        object.__setattr__(self, "labels", self.labels.astype(np.int32, copy=False))
        for painted in (self.labels, self.held_out, self.newest):
            if painted is not None and painted.shape != self.image.label_shape:
                raise InvalidAnnotation(
                    f"The annotation of {self.image.name!r} has shape {painted.shape}, but the image needs "
                    f"{self.image.label_shape}: make new annotations for this image."
                )

    def strokes(self, card: ModelCard) -> Strokes:
        """Return the strokes as a model sees them."""
        strokes = Strokes(self.image.label_axes, self.labels.shape, card.spec.dims, card.task == "objects")
        if self.held_out is None:
            strokes.look(self.labels)
        else:
            strokes.take(self.labels, self.held_out)
        return strokes

    def annotations(self, card: ModelCard) -> list[Annotation]:
        """Return the planes or volumes that are painted on, normalised as inference does: over the whole image.

        Raises
        ------
        InvalidImage
            If the image does not fit the model, is constant, or holds NaN or infinite values.
        InvalidSettings
            If a diameter is given for a model that knows none.
        """
        items = list(self.image.items(card.spec.dims, self.channel, card.spec.in_channels))
        zoom = Zoom.make(card, self.diameter, items[0].shape)
        scale = normalisation(items, card.percentiles, self.image.name)
        held_out = self.strokes(card).held_out if self.held_out is None else self.held_out
        found = []
        for item in items:
            where = item.region(tuple(slice(0, n) for n in item.shape))
            labels = self.labels[where].reshape(item.shape)
            if labels.any():
                pixels = scale(zoom.item(item).read(tuple(slice(0, n) for n in zoom.seen)))
                newest = labels > 0 if self.newest is None else self.newest[where].reshape(item.shape)
                judging = held_out[where].reshape(item.shape)
                labels, judging, newest = map(zoom.strokes, (labels, judging, newest))
                found.append(Annotation(pixels, labels, judging, newest, self.image.name))
        return found


def held_out_file(path: Path) -> Path:
    """Return the file beside saved annotations: 1 for pixels that only judge, 2 for new ones, 3 for both."""
    return path.with_name(f"{stem(path)}_held_out{path.suffix}")


def write_lesson(path: Path, lesson: Lesson, record: dict[str, Any]) -> None:
    """Write the annotations as a label image, and beside it which of them only judge and which are new.

    Raises
    ------
    FileError
        If a file cannot be written.
    """
    write_labels(path, lesson.labels, lesson.image, record)
    if lesson.held_out is not None:
        newest = lesson.labels > 0 if lesson.newest is None else lesson.newest
        write_labels(held_out_file(path), lesson.held_out + np.uint8(2) * newest, lesson.image, record)


def open_lesson(image: Image, path: Path, channel: int | None = None) -> Lesson:
    """Read annotations of an image, and which of them only judge or are new if a file beside says so.

    Raises
    ------
    FileError, InvalidAnnotation
        If the file cannot be read, or its shape is another one.
    """
    labels = _read(path, image)
    beside = held_out_file(path)
    if not beside.exists():
        return Lesson(image, labels, channel=channel)
    parts = _read(beside, image)
    return Lesson(image, labels, parts & 1 > 0, parts & 2 > 0, channel)


def _read(path: Path, image: Image) -> NDArray[np.integer]:
    """Read labels and put their axes into the order of the image; axes of length 1 may come and go."""
    found = open_image(path)
    array = np.asarray(found.array[...])
    if array.dtype.kind not in "bui":
        raise FileError(f"{path} holds {array.dtype} values, not labels: choose a label image.")
    if sorted(found.axes) == sorted(image.label_axes):
        array = array.transpose([found.axes.index(a) for a in image.label_axes])
    if array.squeeze().shape == tuple(n for n in image.label_shape if n != 1):
        array = array.reshape(image.label_shape)
    return array


def digest(annotations: Sequence[Annotation]) -> str:
    """Return the SHA-256 of what is painted and what is held out, to tell later whether two rounds saw the same."""
    result = hashlib.sha256()
    for annotation in annotations:
        result.update(repr(annotation.labels.shape).encode())
        result.update(annotation.labels.astype("<u4").tobytes())
        result.update(np.packbits(annotation.judged > 0).tobytes())
    return result.hexdigest()


def _with_diameter(lesson: Lesson, model: Model, device: str) -> Lesson:
    """Return a lesson with the object diameter that `segment` would take."""
    settings = SegmentSettings(lesson.channel, device, diameter=lesson.diameter)
    return replace(lesson, diameter=object_diameter(lesson.image, model, settings))


def teach(
    model: Model,
    lessons: Sequence[Lesson],
    settings: TrainSettings = TrainSettings(),
    *,
    name: str = "",
    classes: Sequence[str] = (),
    colors: Sequence[str] = (),
) -> Iterator[StepDone | Validated | Trained]:
    """Teach a copy of `model` one round of lessons; the last event carries a model whose card says how it was made.

    Parameters
    ----------
    model, lessons, settings
        What, from what, how.
    name
        Of the model that is made; empty: that of its parent.
    classes, colors
        Of the model that is made; classes behind those of `model` are added to it. Empty: as they are.

    Raises
    ------
    InvalidModel, InvalidAnnotation, InvalidImage
        If the model came from another program, or nothing can be learned from the lessons.
    OutOfMemory, DeviceError
    """
    model.card.check_it_learns()
    parent = model.card.identity
    classes, colors = tuple(classes) or model.card.classes, tuple(colors) or model.card.colors
    known = len(model.card.classes)
    model = Model(model.card.with_(classes=classes[:known], name=name or model.card.name), model.network)
    if len(classes) > known:
        model = extend_classes(model, classes[known:])
    card = model.card.with_(colors=colors if len(colors) == len(classes) else model.card.colors)
    model = Model(card, model.network)
    replay = load_replay(card.with_(parent=parent)) if settings.replay else ()
    lessons = [_with_diameter(lesson, model, settings.device) for lesson in lessons]
    annotations = [a for lesson in lessons for a in lesson.annotations(card)]
    counts = np.array([lesson.strokes(card).count() for lesson in lessons]).sum(axis=0) if lessons else (0, 0)
    data = TrainingSet(tuple(annotations), replay)
    brightness = [float(np.median(a.pixels.reshape(len(a.pixels), -1), axis=1).mean()) for a in annotations]
    made_from = {
        "annotations": digest(annotations),
        "images": sorted({lesson.image.name for lesson in lessons}),
        "strokes": int(counts[0]),
        "held_out_strokes": int(counts[1]),
        "settings": asdict(settings),
        "diameters": sorted({lesson.diameter for lesson in lessons if lesson.diameter is not None}),
        "conditions": conditions(
            model.card, [lesson.image for lesson in lessons], brightness, [a.labels for a in annotations]
        ),
        "threads": torch.get_num_threads(),  # on a processor the last digits of a gradient depend on it
    }
    if replay:
        made_from["replay"] = replay[0].name.partition(" ")[0]

    def with_card(made: Model, **scores: float | int | None) -> Model:
        training = made_from | scores
        return Model(card.with_(parent=parent, training=training, created="", content_hash=""), made.network)

    for event in fine_tune(model, data, settings):
        if isinstance(event, Validated):
            yield replace(
                event, model=with_card(event.model, steps=event.step, score=event.score, baseline=event.baseline)
            )
        elif isinstance(event, Trained):
            made = with_card(event.model, steps=event.steps, score=event.score, baseline=event.baseline)
            yield replace(event, model=made)
        else:
            yield event
