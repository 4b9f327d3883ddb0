"""What the click tool asks of the engine; runs in the worker, where torch is imported."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..engine.library import Entry
from .planes import Pixel, Plane

if TYPE_CHECKING:
    from ..engine.adaptation import Learned
    from ..engine.click import ClickSegmenter, SliceDone
    from ..engine.training import StepDone

Mask = NDArray[np.bool_]
Accepted = tuple[Plane, Mask, Pixel | None]
"""Where an object is, what it is, and the first click on it."""


@dataclass(eq=False)
class Desk:
    """The segmenter and the slice that lies before it; belongs to the job that runs."""

    make: Callable[[], ClickSegmenter]
    segmenter: ClickSegmenter | None = None
    key: tuple[Any, ...] = ()

    def ready(self, plane: Plane) -> ClickSegmenter:
        """Return the segmenter with a slice set."""
        if self.segmenter is None:
            self.segmenter = self.make()
        if self.key != plane.pixels_key:
            self.key = ()
            self.segmenter.set_image(plane.pixels())
            self.key = plane.pixels_key
        return self.segmenter

    def clear(self) -> None:
        """Let go of the slice; what was learned stays."""
        self.key = ()
        if self.segmenter is not None:
            self.segmenter.clear_image()


def load(entry: Entry, device: str) -> ClickSegmenter:
    """Load the click model; imports torch, so it is for the worker."""
    from ..engine.click import ClickSegmenter
    from ..engine.model import load_model_file

    return ClickSegmenter(load_model_file(entry.path), device)


def readiness(desk: Desk, plane: Plane) -> Generator[None, None, None]:
    """Make the segmenter ready for a slice."""
    desk.ready(plane)
    yield None


def answers(
    desk: Desk, plane: Plane, clicks: list[tuple[Pixel, bool]], masks: list[Mask | None], prior: Mask | None
) -> Generator[list[Mask | None], None, None]:
    """Answer the clicks that have no answer yet, one after the other, for each builds on the one before."""
    segmenter = desk.ready(plane)
    for count in range(len(masks), len(clicks) + 1):
        before = masks[-1]
        seen = before if before is not None and before.any() else None
        masks.append(segmenter.segment(clicks[:count], seen, prior))
    yield masks


def lesson(segmenter: ClickSegmenter, accepted: list[Accepted]) -> Generator[StepDone | Learned, None, None]:
    """Learn objects that were accepted; touches nothing that a click needs, so it runs beside the clicks."""
    while accepted:
        plane, mask, first = accepted.pop(0)
        segmenter.accept(mask, None if first is None else (first,), plane.pixels())
    yield from segmenter.learn()


def extension(desk: Desk, plane: Plane, along: str, part: slice, mask: Mask) -> Generator[SliceDone, None, None]:
    """Follow an object through some slices, which are counted from the first of them."""
    volume, axis = plane.stack(along, part)
    yield from desk.ready(plane).extend(volume, mask, plane.labels_position[along] - part.start, axis=axis)
