"""Scores of a segmentation against the truth: Dice, AP, PQ, SEG, V_Rand, V_Info, VOI.

All start from one table, the overlap in pixels of each predicted object with each true one, so an image is read once.
A stack whose planes were segmented one by one gives a table for each plane: see `score`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from skimage.segmentation import watershed

from .errors import InvalidImage

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
"""The overlaps (IoU) at which AP is usually given."""
TENTHS = tuple(i / 10 for i in range(10))
"""The thresholds that the ISBI 2012 score tries; its last, 1, leaves nothing above it."""
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

    planes: int
    """How many planes or volumes were compared, each by itself."""

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
    matched: int
    """Pairs of a predicted and a true object with an IoU of 0.5 or more."""

    @property
    def missed(self) -> int:
        """True objects without a match."""
        return self.true_objects - self.matched

    @property
    def invented(self) -> int:
        """Predicted objects without a match."""
        return self.predicted_objects - self.matched

    @property
    def mean_average_precision(self) -> float:
        """Mean of `average_precision` over its thresholds."""
        return float(np.mean(list(self.average_precision.values())))


class ClassScore(NamedTuple):
    """How well the pixels of one class were found."""

    value: int
    """The label of the class."""
    dice: float
    iou: float


class Matching(NamedTuple):
    """Which objects belong together, by their labels."""

    predicted: NDArray[Any]
    """The k-th match is of the objects ``predicted[k]`` and ``true[k]``."""
    true: NDArray[Any]
    missed: NDArray[Any]
    """True objects without a match."""
    invented: NDArray[Any]
    """Predicted objects without a match."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Pixels shared by predicted and true objects; index 0 is background, the others count objects without gaps."""

    predicted_labels: NDArray[Any]
    """The label of each index of `prediction`; 0 first."""
    true_labels: NDArray[Any]
    prediction: NDArray[np.intp]
    truth: NDArray[np.intp]
    pixels: NDArray[np.int64]
    """The k-th pair, ``prediction[k]`` and ``truth[k]``, shares ``pixels[k]`` > 0 pixels; each pair stands once."""

    @property
    def shape(self) -> tuple[int, int]:
        """How many predicted and true objects there are, each with background."""
        return len(self.predicted_labels), len(self.true_labels)

    @property
    def predicted_areas(self) -> NDArray[np.float64]:
        return _sums(self.prediction, self.pixels, self.shape[0])

    @property
    def true_areas(self) -> NDArray[np.float64]:
        return _sums(self.truth, self.pixels, self.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class _Matches:
    """The matched pairs with their IoU, and how many objects there are on either side."""

    rows: NDArray[np.intp]
    """The predicted object of each pair, counted from 0."""
    columns: NDArray[np.intp]
    ious: NDArray[np.float64]
    predicted: int
    true: int


def dice(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return the Dice score of foreground (labels above 0) against background; 1.0 if both are empty."""
    return _dice(overlaps(prediction, truth))


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
    return _average_precision(overlaps(prediction, truth), thresholds)


def panoptic_quality(prediction: ArrayLike, truth: ArrayLike, threshold: float = 0.5) -> PanopticQuality:
    """Return panoptic quality (Kirillov et al. 2019) at an IoU of `threshold` or more; 1.0 if both are empty."""
    return _panoptic_quality(overlaps(prediction, truth), threshold)


def v_rand(prediction: ArrayLike, truth: ArrayLike) -> Agreement:
    """Return the Rand F-score over the true foreground (Arganda-Carreras et al. 2015), as Fiji computes it.

    Pixels of true background are left out; each pixel of predicted background is an object of its own. Without true
    foreground all is NaN. The ISBI 2012 score thins the predicted background first and takes the best threshold.
    """
    return _v_rand(overlaps(prediction, truth))


def v_info(prediction: ArrayLike, truth: ArrayLike) -> Agreement:
    """Return the information-theoretic F-score over the true foreground (Arganda-Carreras et al. 2015), as in Fiji.

    Precision is C(T|S), recall C(S|T). Where one side has no entropy (a single object), there is nothing to lose and
    its part is 1; Fiji says 0 even for a perfect single object. Without true foreground all is NaN.
    """
    return _v_info(overlaps(prediction, truth))


def thinned(interior: ArrayLike) -> NDArray[np.int32]:
    """Return the regions of a plane grown until lines of one pixel (label 0) part them, as Fiji thins borders.

    Parameters
    ----------
    interior
        bool, True inside of cells; regions are 4-connected. Where nothing is inside, all is 0.
    """
    inside = np.asarray(interior, dtype=bool)
    regions, _ = ndimage.label(inside)
    return np.asarray(watershed(~inside, regions, watershed_line=True), dtype=np.int32)  # type: ignore[no-untyped-call]


def after_thinning(
    interior: ArrayLike, truth: ArrayLike, thresholds: Sequence[float] = TENTHS
) -> dict[float, tuple[Agreement, Agreement]]:
    """Return V_Rand and V_Info of a plane at each threshold, its borders thinned first: the ISBI 2012 challenge's scores.

    Of a stack the challenge gives the largest mean over its planes, each score at its own threshold.

    Parameters
    ----------
    interior
        Probability that a pixel is inside of a cell; it is where this lies above the threshold.
    truth
        bool, True inside of cells; its regions are 4-connected.
    """
    chance, true = np.asarray(interior), ndimage.label(np.asarray(truth, dtype=bool))[0]
    tables = {t: overlaps(thinned(chance > t), true) for t in thresholds}
    return {t: (_v_rand(table), _v_info(table)) for t, table in tables.items()}


def seg(prediction: ArrayLike, truth: ArrayLike) -> float:
    """Return SEG of the Cell Tracking Challenge (Maška et al. 2014); NaN without true objects.

    The mean over true objects of the IoU with the object that covers more than half of each, 0 where none does.
    """
    table = overlaps(prediction, truth)
    real = (table.prediction > 0) & (table.truth > 0)
    rows, columns, shared = table.prediction[real], table.truth[real], table.pixels[real]
    predicted, true = table.predicted_areas[rows], table.true_areas[columns]
    iou = shared / (predicted + true - shared)
    count = table.shape[1] - 1
    return float(iou[2 * shared > true].sum() / count) if count else float("nan")


def variation_of_information(prediction: ArrayLike, truth: ArrayLike) -> Variation:
    """Return H(prediction | truth) and H(truth | prediction) in bits (Meila 2007).

    Pixels of true background are left out; predicted background counts as one object. NaN without true foreground.
    """
    return _variation_of_information(overlaps(prediction, truth))


def evaluate(prediction: ArrayLike, truth: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> Scores:
    """Return every score of this module, from a single pass over the pixels."""
    return score([overlaps(prediction, truth)], thresholds)


def score(tables: Sequence[Overlaps], thresholds: Sequence[float] = THRESHOLDS) -> Scores:
    """Return every score of this module, of planes (or volumes) that were compared one by one.

    Dice, AP and PQ count the pixels and objects of all planes together; V_Rand, V_Info and VOI, which compare every
    pair of pixels, are means over the planes that have true objects.
    """
    whole = _joined(tables)
    return Scores(
        planes=len(tables),
        dice=_dice(whole),
        average_precision=_average_precision(whole, thresholds),
        panoptic_quality=_panoptic_quality(whole, 0.5),
        v_rand=Agreement(*_mean([_v_rand(table) for table in tables])),
        v_info=Agreement(*_mean([_v_info(table) for table in tables])),
        variation_of_information=Variation(*_mean([_variation_of_information(table) for table in tables])),
        predicted_objects=whole.shape[0] - 1,
        true_objects=whole.shape[1] - 1,
        matched=len(_match(whole, 0.5).ious),
    )


def match(table: Overlaps, threshold: float = 0.5) -> Matching:
    """Return which objects match one to one at an IoU of `threshold` or more, and which have no match."""
    pairs = _match(table, threshold)
    predicted, true = table.predicted_labels[1:], table.true_labels[1:]
    return Matching(
        predicted=predicted[pairs.rows],
        true=true[pairs.columns],
        missed=np.delete(true, pairs.columns),
        invented=np.delete(predicted, pairs.rows),
    )


def class_scores(tables: Sequence[Overlaps]) -> tuple[ClassScore, ...]:
    """Return the scores of each class above 0 that is in the prediction or in the truth, in their order.

    Here the labels are classes, and the pixels of all tables count together.
    """
    area: Counter[int] = Counter()
    both: Counter[int] = Counter()
    for table in tables:
        predicted, true = table.predicted_labels[table.prediction], table.true_labels[table.truth]
        for p, t, pixels in zip(predicted.tolist(), true.tolist(), table.pixels.tolist(), strict=True):
            area[p] += pixels
            area[t] += pixels
            both[p] += pixels * (p == t)
    return tuple(ClassScore(v, 2 * both[v] / area[v], both[v] / (area[v] - both[v])) for v in sorted(area) if v)


def _mean(values: Sequence[tuple[float, ...]]) -> NDArray[np.float64]:
    """Return the mean over planes, without those that have none; NaN if none has one."""
    table = np.array(values)
    some = table[~np.isnan(table[:, 0])]
    return np.asarray(some.mean(axis=0) if len(some) else table[0])


def _joined(tables: Sequence[Overlaps]) -> Overlaps:
    """Return one table of the objects of all, each an object of its own; only the pair of backgrounds repeats."""
    if len(tables) == 1:
        return tables[0]
    predicted, true = (np.cumsum([0, *(table.shape[side] - 1 for table in tables)]) for side in (0, 1))

    def shifted(index: NDArray[np.intp], by: int) -> NDArray[np.intp]:
        return np.where(index > 0, index + by, 0)

    return Overlaps(
        predicted_labels=np.arange(predicted[-1] + 1),
        true_labels=np.arange(true[-1] + 1),
        prediction=np.concatenate([shifted(t.prediction, by) for t, by in zip(tables, predicted[:-1], strict=True)]),
        truth=np.concatenate([shifted(t.truth, by) for t, by in zip(tables, true[:-1], strict=True)]),
        pixels=np.concatenate([table.pixels for table in tables]),
    )


def overlaps(prediction: ArrayLike, truth: ArrayLike) -> Overlaps:
    """Return the table that all scores start from.

    Raises
    ------
    InvalidImage
        If the shapes differ or the arrays are no labels.
    """
    p, t = _labels(prediction, "prediction"), _labels(truth, "truth")
    if p.shape != t.shape:
        raise InvalidImage(
            f"The prediction has shape {p.shape}, but the truth has {t.shape}: compare label images of one shape."
        )
    p_index, p_labels = _without_gaps(p)
    t_index, t_labels = _without_gaps(t)
    ones = np.ones(p_index.size, dtype=np.int64)
    # compressed rows add up equal pairs in linear time; numpy.unique on pair codes would sort
    table = scipy.sparse.coo_matrix((ones, (p_index, t_index)), shape=(len(p_labels), len(t_labels))).tocsr().tocoo()
    return Overlaps(p_labels, t_labels, table.row.astype(np.intp), table.col.astype(np.intp), table.data)


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


def _without_gaps(labels: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Number the labels in use from 1, 0 stays 0; return them flat, and the label of each number."""
    flat = labels.ravel()
    highest = int(flat.max())
    if highest > _MOST_SLOTS:
        used, position = np.unique(flat, return_inverse=True)
        shift = int(used[0] != 0)
        return (position + shift).astype(np.int32), np.concatenate([np.zeros(shift, used.dtype), used])
    present = np.zeros(highest + 1, dtype=bool)
    present[flat.astype(np.intp, copy=False)] = True
    present[0] = True
    number = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return number[flat.astype(np.intp, copy=False)], np.flatnonzero(present)


def _dice(table: Overlaps) -> float:
    predicted, true = float(table.predicted_areas[1:].sum()), float(table.true_areas[1:].sum())
    both = float(table.pixels[(table.prediction > 0) & (table.truth > 0)].sum())
    return 2 * both / (predicted + true) if predicted + true else 1.0


def _match(table: Overlaps, threshold: float) -> _Matches:
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
        return _Matches(rows, columns, iou, predicted, true)
    graph = scipy.sparse.coo_matrix((iou, (rows, columns + predicted)), shape=(predicted + true,) * 2)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[rows], kind="stable")
    borders = np.flatnonzero(np.diff(group[rows][order])) + 1
    matched: list[tuple[NDArray[Any], ...]] = []
    for pairs in np.split(order, borders):
        used_rows, r = np.unique(rows[pairs], return_inverse=True)
        used_columns, c = np.unique(columns[pairs], return_inverse=True)
        gain = np.zeros((len(used_rows), len(used_columns)))
        gain[r, c] = 1 + iou[pairs] / (2 * min(gain.shape))
        chosen = linear_sum_assignment(gain, maximize=True)
        real_ones = gain[chosen] > 0
        r, c = chosen[0][real_ones], chosen[1][real_ones]
        matched.append((used_rows[r], used_columns[c], (gain[r, c] - 1) * 2 * min(gain.shape)))
    chosen_rows, chosen_columns, ious = (np.concatenate(part) for part in zip(*matched, strict=True))
    return _Matches(chosen_rows, chosen_columns, ious, predicted, true)


def _average_precision(table: Overlaps, thresholds: Sequence[float]) -> dict[float, float]:
    scores = {}
    for threshold in thresholds:
        matches = _match(table, threshold)
        found = len(matches.ious)
        either = matches.predicted + matches.true - found
        scores[float(threshold)] = found / either if either else 1.0
    return scores


def _panoptic_quality(table: Overlaps, threshold: float) -> PanopticQuality:
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


def _foreground(table: Overlaps) -> _Foreground | None:
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


def _v_rand(table: Overlaps) -> Agreement:
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


def _v_info(table: Overlaps) -> Agreement:
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


def _variation_of_information(table: Overlaps) -> Variation:
    share = _foreground(table)
    if share is None:
        return Variation(float("nan"), float("nan"))
    both = _entropy(share.pairs_with_background)
    predicted = _entropy(np.append(share.predicted, share.missed))
    return Variation(split=max(both - _entropy(share.true), 0.0), merge=max(both - predicted, 0.0))
