"""Annotation and TrainingSet: sparse labels, the strokes held out from training, and patches around the rest."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from . import objects
from .card import ModelCard
from .errors import InvalidAnnotation


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """One normalised plane or volume and what the user painted on it.

    Attributes
    ----------
    pixels
        float ``(c, *spatial)``, normalised.
    labels
        int ``(*spatial)``: 0 not labelled, 1 background, 2 and up a class or an object.
    held_out
        bool ``(*spatial)``: strokes that only judge; None: none.
    newest
        bool ``(*spatial)``: the strokes made since the last round; None: none.
    name
        For messages.
    """

    pixels: NDArray[np.floating]
    labels: NDArray[np.integer]
    held_out: NDArray[np.bool_] | None = None
    newest: NDArray[np.bool_] | None = None
    name: str = "image"

    def __post_init__(self) -> None:
        if self.labels.shape != self.pixels.shape[1:]:
            raise InvalidAnnotation(
                f"The annotation of {self.name!r} has shape {self.labels.shape}, the image {self.pixels.shape[1:]}: "
                "make new annotations for this image."
            )

    @property
    def trained(self) -> NDArray[np.integer]:
        """The labels that may be trained on."""
        return self.labels if self.held_out is None else np.where(self.held_out, 0, self.labels)

    @property
    def judged(self) -> NDArray[np.integer]:
        """The labels that only judge."""
        return np.zeros_like(self.labels) if self.held_out is None else np.where(self.held_out, self.labels, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An annotation with its training targets and the places patches may be centred on."""

    stack: NDArray[np.float16]
    """``(c + 2 k, *spatial)``: pixels, targets, weights."""
    places: tuple[NDArray[np.intp], ...]
    """Flat indices of labelled pixels: foreground, background; empty ones are left out."""
    newest: NDArray[np.intp]
    """Those of the newest strokes."""


def targets(card: ModelCard, labels: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return target and weight, both ``(k, *spatial)``, for a model's task; the weight is 0 where nothing is labelled."""
    if card.task == "objects":
        return objects.targets(labels)
    classes = len(card.classes)
    highest = int(labels.max(initial=0))
    if highest > classes:
        raise InvalidAnnotation(
            f"Label {highest} is painted, but the model {card.name!r} has {classes} classes: add a class to it first."
        )
    target = np.stack([labels == c + 1 for c in range(classes)]).astype(np.float32)
    return target, np.broadcast_to(labels > 0, target.shape).astype(np.float32)


def prepare(annotation: Annotation, card: ModelCard) -> Prepared | None:
    """Return the annotation ready for sampling, or None if nothing in it may be trained on."""
    labels = annotation.trained
    places = tuple(p for p in (np.flatnonzero(g) for g in (labels > 1, labels == 1)) if p.size)
    if not places:
        return None
    newest = np.zeros_like(labels) if annotation.newest is None else np.where(annotation.newest, labels, 0)
    target, weight = targets(card, labels)
    stack = np.concatenate([annotation.pixels, target, weight]).astype(np.float16)
    return Prepared(stack, places, np.flatnonzero(newest))


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """What a model learns from: the user's annotations and a replay set against forgetting."""

    annotations: tuple[Annotation, ...]
    replay: tuple[Annotation, ...] = field(default=())

    def check(self, card: ModelCard) -> None:
        """Raise InvalidAnnotation with one sentence if nothing can be learned from this set."""
        present: set[int] = set()
        for annotation in self.annotations:
            present |= set(np.unique(np.minimum(annotation.trained, 2 if card.task == "objects" else 255)).tolist())
        present.discard(0)
        if not present:
            raise InvalidAnnotation("Nothing is painted yet: paint a stroke on an object and one on the background.")
        if len(present) == 1:
            missing = card.classes[0] if present != {1} else card.classes[1]
            raise InvalidAnnotation(f"Only one class is painted: paint a stroke of {missing!r} too.")
