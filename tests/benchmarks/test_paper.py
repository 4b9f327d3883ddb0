"""The tables beside the paper: its loss by hand, and splits that share nothing."""

import math

import numpy as np
import pytest
import torch
from benchmarks.paper import (
    PAPER,
    PaperTiles,
    blank,
    border_weights,
    crops_of,
    entropy_alone,
    fold,
    from_three_classes,
    judged,
    lines,
    numbered,
    parted,
    three_classes,
    weighted_entropy,
)

from napari_unet.engine.training import dice_loss, loss

BLANK = np.zeros((20, 30), dtype=np.int32)


def two_cells(gap: int) -> np.ndarray:
    """Return two squares side by side."""
    labels = BLANK.copy()
    labels[5:15, 5:10] = 1
    labels[5:15, 10 + gap : 15 + gap] = 2
    return labels


def test_background_between_two_cells_weighs_more() -> None:
    labels = two_cells(gap=3)
    # 100 of 600 pixels are cell: background weighs 0.5 / (5/6); in the middle of the gap both are 2 pixels away
    assert border_weights(labels)[10, 11] == pytest.approx(0.6 + 10 * math.exp(-(4**2) / 50))


def test_cells_weigh_what_balances_the_classes() -> None:
    assert border_weights(two_cells(gap=3))[10, 7] == pytest.approx(3)


def test_background_beside_one_cell_weighs_no_more() -> None:
    assert border_weights(np.minimum(two_cells(gap=0), 1))[10, 17] == pytest.approx(0.6)


def test_touching_cells_are_parted_and_others_left() -> None:
    assert (parted(two_cells(gap=0))[10, 8:12] == (1, 0, 0, 2)).all()
    np.testing.assert_array_equal(parted(two_cells(gap=3)), two_cells(gap=3))


def test_the_papers_loss_is_the_weighted_mean() -> None:
    logits = torch.zeros(1, 2, 1, 2)
    logits[0, 0, 0, 1] = math.log(3)  # the second pixel: 3 to 1 for class 0
    target = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    weight = torch.tensor([[[[1.0, 3.0]]]])
    expected = (1 * math.log(2) + 3 * math.log(4)) / 4
    assert float(weighted_entropy(blank("semantic").card, logits, target, weight)) == pytest.approx(expected)


def test_what_lies_wholly_in_the_rim_is_not_judged() -> None:
    labels = np.full((120, 120), -1)
    labels[0:40, 0:10], labels[0:60, 60:70] = 1, 2
    assert np.unique(judged(labels)).tolist() == [0, 2]


def test_what_is_not_known_weighs_nothing_in_a_tile() -> None:
    labels = np.full((400, 400), -1, dtype=np.int32)
    tiles = PaperTiles([(np.random.default_rng(0).random(labels.shape), labels)], blank("semantic").card, PAPER)
    assert not tiles.batch(blank("semantic").unet)[2].any()


def test_a_tile_comes_with_the_truth_of_its_middle() -> None:
    labels = np.zeros((400, 420), dtype=np.int32)
    labels[100:200, 150:300] = 1
    card = blank("semantic", padding="valid", norm="none").card
    tiles = PaperTiles([(labels.astype(float), labels)], card, PAPER)
    pixels, target, weight = tiles.batch(blank("semantic").unet)
    assert (pixels.shape, target.shape, weight.shape) == ((1, 1, 380, 380), (1, 2, 196, 196), (1, 1, 196, 196))
    middle = pixels[0, 0, 92:-92, 92:-92]
    bright = middle > (middle.amin() + middle.amax()) / 2
    assert (bright == (target[0, 1] > 0)).float().mean() > 0.98


def test_the_loss_without_dice_lacks_dice_alone() -> None:
    card, generator = blank("semantic").card, torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 8, 8, generator=generator)
    cell = (torch.rand(2, 8, 8, generator=generator) > 0.5).float()
    target, weight = torch.stack([1 - cell, cell], dim=1), torch.ones(2, 2, 8, 8)
    chance = logits.softmax(1)
    dice = [dice_loss(chance[:, c].flatten(), target[:, c].flatten(), torch.ones(128)) for c in range(2)]
    expected = loss(card, logits, target, weight) - torch.stack(dice).mean()
    torch.testing.assert_close(entropy_alone(card, logits, target, weight), expected)


def test_folds_are_contiguous_and_judge_everything_once() -> None:
    pairs = [(np.array(i), np.array(i)) for i in range(15)]
    judged = [[int(image) for image, _ in fold(pairs, number, 2)[1]] for number in range(2)]
    assert judged == [list(range(7)), list(range(7, 15))]
    assert [int(image) for image, _ in fold(pairs, 0, 2)[0]] == judged[1]


def test_crops_lie_inside_and_show_an_object() -> None:
    labels = np.zeros((150, 200), dtype=np.int32)
    labels[2:6, 190:195] = 1
    ((image, truth),) = crops_of([(labels.astype(float), labels)], 1, seed=0)
    assert image.shape == truth.shape == (128, 128)
    assert truth.any()


def test_objects_of_two_frames_share_no_number() -> None:
    assert numbered([np.array([[0, 2]]), np.array([[1, 1]])]).tolist() == [[[0, 2]], [[3, 3]]]


def test_three_classes_hold_the_objects() -> None:
    labels = two_cells(gap=0)
    maps = np.stack([three_classes(labels) == c for c in range(3)]).astype(float)
    found = from_three_classes(maps)
    np.testing.assert_array_equal(found > 0, labels > 0)
    assert len(np.unique(found[labels == 1])) == len(np.unique(found[labels == 2])) == 1
    assert found.max() == 2


def test_a_table_has_the_mean_and_spread_of_the_parts() -> None:
    results = {f"isbi/EM/ours/{i}": {"V_Rand": v, "seconds": 2.0, "steps": 5} for i, v in enumerate((0.8, 0.9))}
    assert list(lines(results, "isbi"))[-1] == "| EM | ours | 2 | 5 | 0.850 ± 0.071 | 2 |"


def test_one_threshold_is_chosen_for_all_parts() -> None:
    at_each = {"0": [0.9, 0.8, 0.1], "1": [0.1, 0.6, 0.9]}
    results = {
        f"isbi/EM/ours/{part}": {"V_Rand": max(v), "V_Rand at each t": v, "seconds": 2.0, "steps": 5}
        for part, v in at_each.items()
    }
    assert list(lines(results, "isbi"))[-1] == "| EM | ours | 2 | 5 | 0.900 ± 0.000 | 0.700 | 2 |"
