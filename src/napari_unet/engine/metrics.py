"""Scores of a segmentation against the truth: Dice, AP, PQ, V_Rand, V_Info, VOI.

All start from one table, the overlap in pixels of each predicted object with each true one, so an image is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components

from .errors import InvalidImage

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The overlaps (IoU) at which AP is usually given."""
_MOST_SLOTS = 1 << 26


class PanopticQuality(NamedTuple):
    """Kirillov et al. 2019: quality = mean IoU of what was found (sq) times F1 of finding it (rq)."""

    pq: float
    sq: float
    rq: float


class Agreement(NamedTuple):
    """An F-score with its parts: precision falls when objects are merged, recall when they are split."""

    f: float
    precision: float
    recall: float


class Variation(NamedTuple):
    """Variation of information in bits: `split` counts over-segmentation, `merge` under-segmentation; 0 is perfect."""

    split: float
    merge: float


@dataclass(frozen=True, slots=True)
class Scores:
    """All scores of one prediction; NaN where the truth holds nothing to compare with."""

    dice: float
    average_precision: dict[float, float]
    """For each IoU threshold TP / (TP + FP + FN)."""
    panoptic_quality: PanopticQuality
    """At IoU 0.5."""
    v_rand: Agreement
    v_info: Agreement
    variation_of_information: Variation
    predicted_objects: int
    true_objects: int

    @property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision` over its thresholds."""
        return float(np.mean(list(self.average_precision.values())))


@dataclass(frozen=True, slots=True, eq=False)
class _Overlaps:
    """Pixels shared by predicted and true objects; index 0 is background, the others count objects without gaps."""

    prediction: NDArray[np.intp]
    truth: NDArray[np.intp]
    pixels: NDArray[np.int64]
    """The k-th pair, ``prediction[k]`` and ``truth[k]``, shares ``pixels[k]`` > 0 pixels; each pair stands once."""
    shape: tuple[int, int]

    @property
    def predicted_areas(self) -> NDArray[np.float64]:
        return _sums(self.prediction, self.pixels, self.shape[0])

    @property
    def true_areas(self) -> NDArray[np.float64]:
        return _sums(self.truth, self.pixels, self.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """IoU of the matched pairs, and how many objects there are on either side."""

    ious: NDArray[np.float64]
    predicted: int
    true: int


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return the Dice score of foreground (labels above 0) against background; 1.0 if both are empty."""
    return _dice(_overlaps(prediction, truth))


def average_precision(
    prediction: ArrayLike, truth: ArrayLike, thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, float]:
    """Return TP / (TP + FP + FN) at each IoU threshold, as the Data Science Bowl 2018 and StarDist count it.

    Parameters
    ----------
    prediction, truth
        Integer labels of one shape, 0 is background.
    thresholds
        Least overlap of a match. Objects are matched one to one so that most are matched (Hungarian method).

    Returns
    -------
    dict
        Threshold to score; 1.0 where neither image has an object.

    Raises
    ------
    InvalidImage
        If the shapes differ or the arrays are no labels.
    """
    return _average_precision(_overlaps(prediction, truth), thresholds)


def panoptic_quality(prediction: ArrayLike, truth: ArrayLike, threshold: float = 0.5) -> PanopticQuality:
    """Return panoptic quality (Kirillov et al. 2019) at an IoU of `threshold` or more; 1.0 if both are empty."""
    return _panoptic_quality(_overlaps(prediction, truth), threshold)


def v_rand(prediction: ArrayLike, truth: ArrayLike) -> Agreement:
    """Return the Rand F-score over the true foreground (Arganda-Carreras et al. 2015), as Fiji computes it.

    Pixels of true background are left out; each pixel of predicted background is an object of its own. Without true
    foreground all is NaN. The ISBI 2012 score thins the predicted background first and takes the best threshold.
    """
    return _v_rand(_overlaps(prediction, truth))


def v_info(prediction: ArrayLike, truth: ArrayLike) -> Agreement:
    """Return the information-theoretic F-score over the true foreground (Arganda-Carreras et al. 2015), as in Fiji.

    Precision is C(T|S), recall C(S|T). Where one side has no entropy (a single object), there is nothing to lose and
    its part is 1; Fiji says 0 even for a perfect single object. Without true foreground all is NaN.
    """
    return _v_info(_overlaps(prediction, truth))


def variation_of_information(prediction: ArrayLike, truth: ArrayLike) -> Variation:
    """Return H(prediction | truth) and H(truth | prediction) in bits (Meila 2007).

    Pixels of true background are left out; predicted background counts as one object. NaN without true foreground.
    """
    return _variation_of_information(_overlaps(prediction, truth))


def evaluate(prediction: ArrayLike, truth: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> Scores:
    """Return every score of this module, from a single pass over the pixels."""
    table = _overlaps(prediction, truth)
    return Scores(
        dice=_dice(table),
        average_precision=_average_precision(table, thresholds),
        panoptic_quality=_panoptic_quality(table, 0.5),
        v_rand=_v_rand(table),
        v_info=_v_info(table),
        variation_of_information=_variation_of_information(table),
        predicted_objects=table.shape[0] - 1,
        true_objects=table.shape[1] - 1,
    )


def _overlaps(prediction: ArrayLike, truth: ArrayLike) -> _Overlaps:
    p, t = _labels(prediction, "prediction"), _labels(truth, "truth")
    if p.shape != t.shape:
        raise InvalidImage(
            f"The prediction has shape {p.shape}, but the truth has {t.shape}: compare label images of one shape."
        )
    p_index, p_count = _without_gaps(p)
    t_index, t_count = _without_gaps(t)
    ones = np.ones(p_index.size, dtype=np.int64)
    # compressed rows add up equal pairs in linear time; numpy.unique on pair codes would sort
    table = scipy.sparse.coo_matrix((ones, (p_index, t_index)), shape=(p_count, t_count)).tocsr().tocoo()
    return _Overlaps(
        prediction=table.row.astype(np.intp), truth=table.col.astype(np.intp), pixels=table.data, shape=table.shape
    )


def _sums(index: NDArray[np.intp], values: NDArray[Any], count: int) -> NDArray[np.float64]:
    return np.bincount(index, weights=values, minlength=count).astype(np.float64, copy=False)


def _labels(array: ArrayLike, what: str) -> NDArray[Any]:
    labels = np.asarray(array)
    if labels.dtype.kind not in "bui":
        raise InvalidImage(f"The {what} holds {labels.dtype} values, no labels: give whole numbers, 0 for background.")
    if labels.size == 0:
        raise InvalidImage(f"The {what} is empty (shape {labels.shape}): choose label images with pixels.")
    if labels.dtype.kind == "i" and labels.min() < 0:
        raise InvalidImage(f"The {what} holds the label {labels.min()}: labels count from 0, which is background.")
    return labels


def _without_gaps(labels: NDArray[Any]) -> tuple[NDArray[np.int32], int]:
    """Number the labels in use from 1, 0 stays 0; return them flat, and how many numbers there are with 0."""
    flat = labels.ravel()
    highest = int(flat.max())
    if highest > _MOST_SLOTS:
        used, position = np.unique(flat, return_inverse=True)
        shift = int(used[0] != 0)
        return (position + shift).astype(np.int32), len(used) + shift
    present = np.zeros(highest + 1, dtype=bool)
    present[flat.astype(np.intp, copy=False)] = True
    present[0] = True
    number = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return number[flat.astype(np.intp, copy=False)], int(number[-1]) + 1


def _dice(table: _Overlaps) -> float:
    predicted, true = float(table.predicted_areas[1:].sum()), float(table.true_areas[1:].sum())
    both = float(table.pixels[(table.prediction > 0) & (table.truth > 0)].sum())
    return 2 * both / (predicted + true) if predicted + true else 1.0


def _match(table: _Overlaps, threshold: float) -> _Matches:
    """Match objects one to one by IoU; among the largest sets of matches, one with the highest IoU in total."""
    if not 0 < threshold <= 1:
        raise InvalidImage(f"The IoU threshold {threshold} must lie above 0 and at most at 1.")
    real = (table.prediction > 0) & (table.truth > 0)
    rows, columns, shared = table.prediction[real] - 1, table.truth[real] - 1, table.pixels[real]
    union = table.predicted_areas[rows + 1] + table.true_areas[columns + 1] - shared
    iou = shared / union
    enough = iou >= threshold
    rows, columns, iou = rows[enough], columns[enough], iou[enough]
    predicted, true = table.shape[0] - 1, table.shape[1] - 1
    # Above IoU 0.5 nothing competes, and a dense table of 10^4 x 10^4 objects is never built: only pairs that
    # compete, directly or through others, are assigned together.
    crowded = (np.bincount(rows, minlength=predicted)[rows] > 1) | (np.bincount(columns, minlength=true)[columns] > 1)
    if not crowded.any():
        return _Matches(iou, predicted, true)
    graph = scipy.sparse.coo_matrix((iou, (rows, columns + predicted)), shape=(predicted + true,) * 2)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[rows], kind="stable")
    borders = np.flatnonzero(np.diff(group[rows][order])) + 1
    matched = []
    for pairs in np.split(order, borders):
        used_rows, r = np.unique(rows[pairs], return_inverse=True)
        used_columns, c = np.unique(columns[pairs], return_inverse=True)
        gain = np.zeros((len(used_rows), len(used_columns)))
        gain[r, c] = 1 + iou[pairs] / (2 * min(gain.shape))
        best = gain[linear_sum_assignment(gain, maximize=True)]
        matched.append((best[best > 0] - 1) * 2 * min(gain.shape))
    return _Matches(np.concatenate(matched), predicted, true)


def _average_precision(table: _Overlaps, thresholds: Sequence[float]) -> dict[float, float]:
    scores = {}
    for threshold in thresholds:
        matches = _match(table, threshold)
        found = len(matches.ious)
        either = matches.predicted + matches.true - found
        scores[float(threshold)] = found / either if either else 1.0
    return scores


def _panoptic_quality(table: _Overlaps, threshold: float) -> PanopticQuality:
    matches = _match(table, threshold)
    if matches.predicted + matches.true == 0:
        return PanopticQuality(1.0, 1.0, 1.0)
    found = len(matches.ious)
    sq = float(matches.ious.mean()) if found else 0.0
    rq = 2 * found / (matches.predicted + matches.true)
    return PanopticQuality(sq * rq, sq, rq)


@dataclass(frozen=True, slots=True, eq=False)
class _Foreground:
    """Shares of the pixels of true foreground."""

    pairs: NDArray[np.float64]
    """Of each overlap of a true with a predicted object."""
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]
    missed: float
    """Of predicted background."""
    pairs_with_background: NDArray[np.float64]
    """Of each overlap of a true object with a predicted one or with predicted background."""
    size: float


def _foreground(table: _Overlaps) -> _Foreground | None:
    inside = table.truth > 0
    prediction, truth, pixels = table.prediction[inside], table.truth[inside], table.pixels[inside].astype(np.float64)
    size = float(pixels.sum())
    if not size:
        return None
    share = pixels / size
    predicted = _sums(prediction, share, table.shape[0])
    return _Foreground(
        pairs=share[prediction > 0],
        predicted=predicted[1:],
        true=_sums(truth, share, table.shape[1])[1:],
        missed=float(predicted[0]),
        pairs_with_background=share,
        size=size,
    )


_NOTHING = Agreement(float("nan"), float("nan"), float("nan"))


def _agreement(precision: float, recall: float) -> Agreement:
    both = precision + recall
    return Agreement(2 * precision * recall / both if both else 0.0, precision, recall)


def _v_rand(table: _Overlaps) -> Agreement:
    share = _foreground(table)
    if share is None:
        return _NOTHING
    singles = share.missed / share.size
    together = float((share.pairs**2).sum()) + singles
    return _agreement(
        precision=together / (float((share.predicted**2).sum()) + singles),
        recall=together / float((share.true**2).sum()),
    )


def _entropy(shares: NDArray[np.float64]) -> float:
    """Entropy in bits of shares, which need not add up to 1."""
    some = shares[shares > 0]
    return float(-(some * np.log2(some)).sum()) + 0.0


def _v_info(table: _Overlaps) -> Agreement:
    share = _foreground(table)
    if share is None:
        return _NOTHING
    singles = share.missed * float(np.log2(share.size))
    true = _entropy(share.true)
    predicted = _entropy(share.predicted) + singles
    mutual = true + predicted - (_entropy(share.pairs) + singles)
    tiny = 1e-12
    return _agreement(
        precision=min(max(mutual / true, 0.0), 1.0) if true > tiny else 1.0,
        recall=min(max(mutual / predicted, 0.0), 1.0) if predicted > tiny else 1.0,
    )


def _variation_of_information(table: _Overlaps) -> Variation:
    share = _foreground(table)
    if share is None:
        return Variation(float("nan"), float("nan"))
    both = _entropy(share.pairs_with_background)
    predicted = _entropy(np.append(share.predicted, share.missed))
    return Variation(split=max(both - _entropy(share.true), 0.0), merge=max(both - predicted, 0.0))
