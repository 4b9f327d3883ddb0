"""Objects of consecutive planes or time points become one where they overlap most.

Between two neighbours, pairs are taken in the order of their overlap (intersection over union), each object at most
once, down to a threshold: above 0.5 that is the only possible pairing. An object without a partner gets a new number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


class Overlaps:
    """Pixels that the objects of two neighbouring planes share, counted block by block."""

    def __init__(self, before: int, after: int) -> None:
        """`before` and `after` are the highest labels of the two planes."""
        self._before, self._after = np.zeros(before + 1, np.int64), np.zeros(after + 1, np.int64)
        self._shared: dict[int, int] = {}

    def add(self, before: NDArray[np.integer], after: NDArray[np.integer]) -> None:
        """Count a block of both planes."""
        self._before += np.bincount(before.ravel(), minlength=len(self._before))
        self._after += np.bincount(after.ravel(), minlength=len(self._after))
        both = (before > 0) & (after > 0)
        codes, counts = np.unique(before[both].astype(np.int64) * len(self._after) + after[both], return_counts=True)
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            self._shared[code] = self._shared.get(code, 0) + count

    def partners(self, threshold: float) -> Iterator[tuple[int, int]]:
        """Yield pairs ``(before, after)`` of objects whose intersection over union is at least `threshold`."""
        pairs = []
        for code, shared in self._shared.items():
            a, b = divmod(code, len(self._after))
            ratio = shared / (int(self._before[a]) + int(self._after[b]) - shared)
            if ratio >= threshold:
                pairs.append((-ratio, a, b))
        taken_before, taken_after = set(), set()
        for _, a, b in sorted(pairs):
            if a not in taken_before and b not in taken_after:
                taken_before.add(a)
                taken_after.add(b)
                yield a, b


class Chain:
    """The numbers of objects along a series of planes.

    Attributes
    ----------
    numbers
        For each label of the newest plane the number of its object; ``numbers[0]`` is 0.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._used = 0
        self.numbers: NDArray[np.int64] = np.zeros(1, np.int64)

    def extend(self, highest: int, blocks: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]]) -> None:
        """Go on to the next plane.

        Parameters
        ----------
        highest
            The highest label in it.
        blocks
            The last plane and this one, as they were labelled on their own, in pieces of equal place; empty for the first plane.
        """
        overlaps = Overlaps(len(self.numbers) - 1, highest)
        for before, after in blocks:
            overlaps.add(before, after)
        numbers = np.zeros(highest + 1, np.int64)
        for a, b in overlaps.partners(self._threshold):
            numbers[b] = self.numbers[a]
        alone = np.flatnonzero(numbers == 0)[1:]
        numbers[alone] = self._used + 1 + np.arange(len(alone))
        self._used += len(alone)
        self.numbers = numbers


def link(labels: NDArray[np.integer], axis: int, threshold: float) -> NDArray[np.int64]:
    """Return labels whose objects keep their number along an axis.

    Parameters
    ----------
    labels
        Numbered on their own at each position of `axis`.
    axis
        The axis to follow.
    threshold
        Smallest intersection over union of an object with itself one step on.

    Returns
    -------
    linked
        Same shape; 1 to n without gaps, unless a plane had gaps.
    """
    planes = np.moveaxis(labels, axis, 0)
    linked = np.zeros(labels.shape, np.int64)
    result = np.moveaxis(linked, axis, 0)
    chain = Chain(threshold)
    for i, plane in enumerate(planes):
        chain.extend(int(plane.max(initial=0)), [(planes[i - 1], plane)] if i else [])
        result[i] = chain.numbers[plane]
    return linked
