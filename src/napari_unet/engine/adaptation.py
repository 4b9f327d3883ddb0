"""Adaptation: a click model goes on learning from the objects that its user accepts.

Continual adaptation to a sequence of images after Kontogianni et al. 2020: an accepted object is exact over all of its
neighbourhood, so a few gradient steps on it, and on those before it, teach the network a kind of image that it never
saw. BatchNorm's statistics stay as they are. Whether the answers become better is told by the next object, which was
not learned yet.
"""

from __future__ import annotations

import copy
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .augment import intensities
from .model import Model
from .prompts import CHANNELS, SIZE, Mask, Picture, begin, converse, draw_disk, view, weights
from .settings import GENTLE
from .training import StepDone, gradient_step, trainable

STEPS = 10
"""Gradient steps for each accepted object."""
MOST_STEPS = 3 * STEPS
"""At most so many at a time, when objects were accepted faster than they were learned."""
BATCH = 8
"""Patches a step."""
RATE = 3e-4
"""Of AdamW; a tenth of what the model was trained with: its user shows a few objects, not thousands."""
CORRECTIONS = 2
"""A simulated user corrects the network's answer less often than this."""
MEMORY = 64
"""Of more objects the oldest are forgotten: about 1 MB each."""
SMALLEST_AREA = 9
"""Objects of fewer pixels teach nothing about a boundary."""
TRIES = 100
"""So often a patch is drawn anew where it shows too little of the object."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """What a click model has learned from its user so far.

    Attributes
    ----------
    objects
        How many were learned from.
    taught, untaught
        Mean intersection over union, after one click, of the taught and of the untaught model on the newest objects,
        each before it was learned; None: there was none to judge by.
    """

    objects: int
    taught: float | None
    untaught: float | None

    @property
    def better(self) -> bool:
        """Whether the taught model is better, so that it answers."""
        return self.taught is not None and self.untaught is not None and self.taught > self.untaught

    def sentence(self) -> str:
        """Say to the user what was learned, and whether it helps."""
        count = f"{self.objects} object{'s' * (self.objects != 1)}"
        if self.taught is None or self.untaught is None:
            return f"It has learned from {count}; the next one shows whether that helps."
        scores = f"one click finds {self.taught:.2f} of an object, untaught {self.untaught:.2f} (IoU)"
        if self.better:
            return f"Taught by {count}: {scores}."
        return f"Taught by {count} it is no better: {scores}. The untaught model answers."


class Adaptation:
    """A copy of a click model that learns; `model` stays as it is.

    Parameters
    ----------
    model
        Of the task `click`.
    device
        As `pick_device` returns it.
    seed
        Of the patches that are drawn.
    """

    def __init__(self, model: Model, device: str, seed: int = 0) -> None:
        self._card = model.card
        self._network = trainable(model, device).eval()
        self._optimizer = torch.optim.AdamW(self._network.parameters(), lr=RATE, weight_decay=0)
        self._pictures: deque[Picture] = deque(maxlen=MEMORY)
        self._rng = np.random.default_rng(seed)

    @property
    def model(self) -> Model:
        """A copy of the model as it is taught by now."""
        return Model(self._card, copy.deepcopy(self._network).cpu().eval().requires_grad_(False))

    def add(self, grey: NDArray[np.floating], mask: Mask) -> bool:
        """Remember an object, with normalised grey values around it, both ``(h, w)``; returns whether it can teach."""
        picture = Picture.of(grey, mask.astype(np.uint8), SMALLEST_AREA)
        if len(picture.boxes):
            self._pictures.append(picture)
        return len(picture.boxes) > 0

    def steps(self, count: int) -> Iterator[StepDone]:
        """Take some gradient steps on patches with the objects remembered; yields after each."""
        began = time.monotonic()
        for step in range(1, count + 1):
            value = gradient_step(self._network, self._optimizer, self._card, self._batch())
            yield StepDone(step, count, value, time.monotonic() - began)

    def _batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the network is shown, targets and weights, each ``(BATCH, ·, SIZE, SIZE)``."""
        drawn = [self._patch() for _ in range(BATCH)]
        pixels, truths = torch.stack([p for p, _ in drawn]), np.stack([t for _, t in drawn])
        converse(self._network, pixels, truths, self._rng.integers(0, CORRECTIONS, BATCH), self._rng)
        target = torch.from_numpy(truths.astype(np.float32))[:, None]
        return pixels, target, weights(target)

    def _patch(self) -> tuple[Tensor, Mask]:
        """Return one object as the network sees it, with a first click."""
        for _ in range(TRIES):
            picture = self._pictures[self._rng.integers(len(self._pictures))]
            grey, truth, _ = view(picture, self._rng)
            begun = begin(grey, truth, lambda pixels, rng: intensities(pixels, GENTLE, rng), self._rng)
            if begun is not None:
                pixels, truth, click = begun
                draw_disk(pixels[1].numpy(), click)
                return pixels, truth
        return torch.zeros(CHANNELS, SIZE, SIZE), np.zeros((SIZE, SIZE), dtype=bool)
