"""The gate: may a trained model replace the one in use? Asked of the strokes, above all of those that were held out."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from .annotation import Annotation
from .execution import Executor, probability
from .image import cut
from .model import Model
from .objects import SMALLEST, pixel_counts

FEWEST_HELD_OUT = 20
"""Fewer held-out pixels than this, of either class, cannot judge a model."""
MARGIN = 0.02
"""A model must be ahead by so much: less means nothing on a few strokes."""
FIT = 0.7
"""A model that agrees less with the strokes, those that taught it included, has not learned what they say."""

BLOCK = {2: (64, 64), 3: (8, 32, 32)}
"""Strokes are judged in blocks of this size, 2D and 3D..."""
CONTEXT = {2: (32, 32), 3: (4, 16, 16)}
"""...with this much around each: about what a training patch shows, and a tenth of the work of a full halo."""
MOST_BLOCKS = 200
"""Of more blocks than this a part is judged, spread evenly: whole volumes may be painted."""

CONTRADICTION = "The strokes contradict each other, or were not learned yet"


class Verdict(Enum):
    """What the gate says of a trained model."""

    BETTER = "better"
    """It may replace the model in use."""
    NO_BETTER = "no better"
    CONTRADICTORY = "contradictory"
    """What it learned from the strokes makes it no better than a guess on those held out."""
    DOUBTFUL = "doubtful"
    """It is better on the held-out strokes, but disagrees with too many, or with those it learned from: the user must look."""
    UNKNOWN = "unknown"
    """The held-out strokes cannot tell, for they are too few, or say the same of both models: the user must look."""

    @property
    def accepted(self) -> bool | None:
        """True: the model replaces the one in use; False: it does not; None: the user must judge by a look."""
        return {Verdict.BETTER: True, Verdict.NO_BETTER: False, Verdict.CONTRADICTORY: False}.get(self)

    def sentence(self, score: float | None, baseline: float | None, judges: str = "the held-out strokes") -> str:
        """Say it to the user, with both scores; `judges` is who gave them."""
        if score is None or baseline is None:
            return "Too few held-out strokes to judge: look at before and after."
        both = f"{_both(score, baseline)} on {judges}"
        match self:
            case Verdict.UNKNOWN:
                return f"Too close to call: {both}, but the new model agrees better with the others. Look at before and after."
            case Verdict.BETTER:
                return f"Better: {both}."
            case Verdict.CONTRADICTORY:
                return f"{CONTRADICTION}: {both} is no better than a guess."
            case Verdict.DOUBTFUL:
                return f"{CONTRADICTION}: {both}, but it disagrees with too many. Look at before and after."
        hardly = "Hardly better" if round(score - baseline, 3) > 0 else "No better"
        return f"{hardly}: {both}."


def judge(
    model: Model,
    in_use: Model,
    score: float | None,
    baseline: float | None,
    annotations: Sequence[Annotation],
    device: str,
) -> Verdict:
    """Return the verdict on a trained `model` whose `held_out_score` is `score`; that of the one `in_use` is `baseline`.

    Scores that differ by no more than MARGIN say the same of both. A model that then agrees better with all strokes, most
    of which corrected the one in use, is left to the user's look.
    """
    if score is None or baseline is None:
        return Verdict.UNKNOWN
    guess = 1 / len(model.card.classes)  # the soft Dice of a model that gives every class the same chance
    ahead, sound = score > baseline + MARGIN, score >= guess
    if not ahead and not sound:
        return Verdict.CONTRADICTORY
    if score < baseline - MARGIN:
        return Verdict.NO_BETTER
    strokes = [(a.pixels, a.labels) for a in annotations]
    fit = agreement(model, strokes, device)
    assert fit is not None  # where some strokes can judge, all can
    learned = fit >= FIT
    if ahead:
        return Verdict.BETTER if sound and learned else Verdict.DOUBTFUL if sound or learned else Verdict.CONTRADICTORY
    before = agreement(in_use, strokes, device)
    assert before is not None
    return Verdict.UNKNOWN if learned and fit > before + MARGIN else Verdict.NO_BETTER


def held_out_score(model: Model, annotations: Sequence[Annotation], device: str) -> float | None:
    """Return the agreement of a model with the held-out strokes; None if there are too few to judge."""
    return agreement(model, [(a.pixels, a.judged) for a in annotations], device)


def agreement(
    model: Model, strokes: Sequence[tuple[NDArray[np.floating], NDArray[np.integer]]], device: str
) -> float | None:
    """Return the mean soft Dice over the classes on labelled pixels; None if there are too few to judge.

    Only blocks that hold such pixels are computed, with `CONTEXT` around them. Within a class every stroke counts the
    same, so a long easy one does not hide the short one that corrected a mistake, and every class is weighed to the same
    mass before Dice is taken, so a background stroke does not make up for a missed object. Dice is taken from
    probabilities: a few easy strokes would soon score 1 by labels, and then nothing could be better.

    Parameters
    ----------
    strokes
        Pixels ``(c, *spatial)`` and labels ``(*spatial)`` (0: not labelled) of each plane or volume.
    """
    executor, spec = Executor(model.network, device), model.card.spec
    counts = np.zeros((len(model.card.classes),) * 2)
    pixels_of = np.zeros(len(counts), dtype=np.intp)
    stride, dims = np.array(spec.total_stride), spec.dims
    inner, around = (-(-np.array(n[dims]) // stride) * stride for n in (BLOCK, CONTEXT))
    blocks = [
        (pixels, labels, weight, corner * inner)
        for pixels, labels in strokes
        for weight in [by_stroke(labels)]
        for corner in _blocks(labels, inner)
    ]
    for pixels, labels, weight, corner in blocks[:: -(-len(blocks) // MOST_BLOCKS) or 1]:
        block = tuple(slice(a, b) for a, b in zip(corner, np.minimum(corner + inner, labels.shape), strict=True))
        patch = cut(pixels, tuple(corner - around), tuple(corner + inner + around))
        truth, weighed = labels[block], weight[block]
        middle = tuple(slice(a, a + n) for a, n in zip(around, truth.shape, strict=True))
        logits = executor(patch[None])[0][(slice(None), *middle)]
        if model.card.task == "objects":
            logits, truth = np.stack([-logits[0] / 2, logits[0] / 2]), np.minimum(truth, 2)
        chance = probability(logits, False)
        for kind in np.unique(truth[truth > 0]):
            here = truth == kind
            counts[kind - 1] += chance[:, here] @ weighed[here]
            pixels_of[kind - 1] += np.count_nonzero(here)
    present = pixels_of > 0
    if (pixels_of[present] < FEWEST_HELD_OUT).any() or present.sum() < 2:
        return None
    rates = counts[present] / counts[present].sum(1, keepdims=True)
    agreed = rates[:, present].diagonal()
    return float(np.mean(2 * agreed / (1 + rates.sum(0)[present])))


def by_stroke(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return weights ``(*spatial)`` that sum to 1 in each connected stroke, to less in one of fewer than `SMALLEST` pixels."""
    strokes = label(labels, background=0)  # type: ignore[no-untyped-call]
    weights = 1 / np.maximum(pixel_counts(strokes), SMALLEST).astype(np.float32)
    weights[0] = 0
    return np.asarray(weights[strokes])


def _blocks(labels: NDArray[np.integer], size: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return which blocks of a size hold labelled pixels, in order, ``(n, dims)``."""
    held = np.zeros(-(-np.array(labels.shape) // size), dtype=bool)
    held[tuple(places // n for places, n in zip(np.nonzero(labels), size, strict=True))] = True
    return np.argwhere(held)


def _both(score: float, baseline: float) -> str:
    """Return both scores with as many digits as tell them apart, up to three."""
    digits = 2 if f"{score:.2f}" != f"{baseline:.2f}" else 3
    if f"{score:.{digits}f}" == f"{baseline:.{digits}f}":
        return f"{score:.{digits}f}, as before,"
    return f"{score:.{digits}f} instead of {baseline:.{digits}f}"
