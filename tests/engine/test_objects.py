"""Targets by hand, and objects found again from perfect maps."""

import math

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import relabel_sequential, watershed

from napari_unet.engine import objects
from napari_unet.engine.objects import SEED, inwardness, labels_from_maps, renumbered, targets, without_small
from napari_unet.engine.settings import ObjectSettings

from .conftest import discs


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len({x for x, _ in pairs}) == len({y for _, y in pairs})


def test_targets_of_a_bar_by_hand() -> None:
    annotation = np.ones((9, 14), dtype=np.int32)
    annotation[3:6, 4:11] = 2  # 3 x 7 pixels: boundary distance 1, and 2 in the middle row
    maps, weight = targets(annotation)
    assert maps[0].sum() == 21
    assert maps[1, 3, 4:11].tolist() == [0.5] * 7
    assert maps[1, 4, 4:11].tolist() == [0.5, 1, 1, 1, 1, 1, 0.5]
    assert maps[2].sum() == 0
    assert (weight[1:] == 1).all()


def test_objects_that_touch_make_a_border_two_pixels_wide_on_each_side() -> None:
    annotation = np.ones((9, 20), dtype=np.int32)
    annotation[:, 4:10], annotation[:, 10:16] = 2, 3
    assert np.flatnonzero(targets(annotation)[0][2, 4]).tolist() == [8, 9, 10, 11]


def test_unlabelled_pixels_weigh_nothing_but_a_ring_is_known_not_to_be_inside() -> None:
    annotation = np.zeros((30, 30), dtype=np.int32)
    annotation[10:20, 10:20] = 2
    maps, weight = targets(annotation)
    assert (weight[0] > 0).sum() == (weight[2] > 0).sum() == 100
    assert weight[1, 15, 7] == weight[1, 15, 9] == 1
    assert weight[1, 15, 6] == 0
    assert maps[1, 15, 9] == 0


def test_every_object_weighs_the_same() -> None:
    annotation = np.ones((40, 60), dtype=np.int32)
    annotation[2:22, 2:22], annotation[2:12, 40:50] = 2, 3
    weight = targets(annotation)[1][0]
    assert weight[annotation == 2].sum() == pytest.approx(weight[annotation == 3].sum())


@pytest.mark.parametrize("dims", [2, 3])
def test_objects_are_found_again_from_perfect_maps(dims: int) -> None:
    truth = discs()
    if dims == 3:
        truth = np.stack([np.zeros_like(truth), *[truth] * 7, np.zeros_like(truth)])
    found = labels_from_maps(targets(truth + 1)[0], ObjectSettings())
    assert found.max() == 3
    assert same_partition(found, truth)


def test_two_touching_discs_stay_two() -> None:
    truth = discs(centers=((40, 30), (40, 50)), radius=11)
    found = labels_from_maps(targets(truth + 1)[0], ObjectSettings())
    assert found.max() == 2
    assert (found > 0).sum() == (truth > 0).sum()


def test_foreground_without_a_seed_is_one_object() -> None:
    maps = np.zeros((3, 20, 20), dtype=np.float32)
    maps[0, 5:15, 5:15] = 0.9
    assert labels_from_maps(maps, ObjectSettings()).max() == 1


def test_small_objects_are_dropped_and_numbers_close_up() -> None:
    truth = discs(radius=6)
    truth[0:2, 0:2] = 9
    found = labels_from_maps(targets(truth + 1)[0], ObjectSettings(minimal_size=10))
    assert sorted(np.unique(found).tolist()) == [0, 1, 2, 3]
    assert (without_small(np.array([0, 1, 1, 2]), 2) == [0, 1, 1, 0]).all()


def test_nothing_in_nothing_out() -> None:
    assert labels_from_maps(np.zeros((3, 8, 8), dtype=np.float32), ObjectSettings()).max() == 0


def flooded_everywhere(maps: np.ndarray, settings: ObjectSettings) -> np.ndarray:
    """Return the objects by one watershed of the whole foreground."""
    foreground = maps[0] > settings.foreground_threshold
    inner = inwardness(maps)
    seeds, count = ndimage.label((inner > settings.seed_threshold) & foreground)
    seeds = without_small(seeds, SEED)
    pieces, _ = ndimage.label(foreground)
    unseeded = ~np.isin(pieces, pieces[seeds > 0]) & foreground
    seeds[unseeded] = pieces[unseeded] + count
    labels = watershed(-inner, seeds, mask=foreground)
    return relabel_sequential(without_small(labels, settings.minimal_size))[0]


@pytest.mark.parametrize("shape", [(120, 150), (16, 48, 48)], ids=str)
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.6])
@pytest.mark.parametrize("minimal", [0, 15])
def test_only_crowded_pieces_are_flooded_and_the_labels_are_the_same(
    shape: tuple[int, ...], threshold: float, minimal: int, rng: np.random.Generator
) -> None:
    noise = ndimage.gaussian_filter(rng.random((3, *shape)), (0, *(1.5,) * len(shape)))
    maps = (noise - noise.min()) / np.ptp(noise)
    settings = ObjectSettings(foreground_threshold=threshold, seed_threshold=0.5, minimal_size=minimal)
    expected = flooded_everywhere(maps, settings)
    assert expected.max() > 1
    assert (labels_from_maps(maps, settings) == expected).all()


def test_numbers_have_no_gaps() -> None:
    assert renumbered(np.array([0, 3, 3, 7, 9, 9]), 2).tolist() == [0, 1, 1, 0, 2, 2]
    assert renumbered(np.array([0, 3, 7]), 0).tolist() == [0, 1, 2]


@pytest.mark.parametrize("shape", [(90, 70), (24, 40, 40)])
def test_pieces_flooded_in_bands_are_those_flooded_at_once(shape: tuple[int, ...], rng, monkeypatch) -> None:
    smooth = (0, *(2,) * len(shape))
    maps = np.clip(ndimage.gaussian_filter(rng.random((3, *shape)), smooth) * 12 - 5.5, 0, 1).astype(np.float16)
    thresholds = ObjectSettings(foreground_threshold=0.4, seed_threshold=0.3, minimal_size=5)
    once = labels_from_maps(maps, thresholds)
    assert once.max() > 10
    monkeypatch.setattr(objects, "FLOODED", 8 * math.prod(shape[1:]))
    assert np.array_equal(labels_from_maps(maps, thresholds), once)


def test_bands_hold_every_piece_once_and_whole() -> None:
    pieces = [(1, 0, 5), (2, 3, 9), (3, 30, 60), (4, 8, 12), (5, 61, 62)]
    assert [*objects.bands(pieces, 10)] == [([1, 2], 0, 9), ([4], 8, 12), ([3], 30, 60), ([5], 61, 62)]
