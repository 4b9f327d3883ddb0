"""What the click network is shown, and simulated clicks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from napari_unet.engine import prompts
from napari_unet.engine.prompts import SIZE, Picture, begin, converse, correct, inner_point, largest_error, reach, view


def square(shape: tuple[int, int], top: int, left: int, edge: int) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + edge, left : left + edge] = True
    return mask


def as_it_is(grey: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    return grey


def test_a_picture_knows_its_objects_but_no_specks_and_no_background() -> None:
    labels = np.zeros((60, 60), dtype=np.int32)
    labels[5:15, 5:25] = 1
    labels[40, 40] = 2
    assert Picture.of(np.zeros((60, 60)), labels, 9).boxes.tolist() == [[1, 5, 5, 15, 25]]
    assert Picture.of(np.zeros((60, 60)), np.ones((60, 60), dtype=np.int32), 9).boxes.tolist() == []


def test_grey_values_and_object_are_turned_together() -> None:
    mask = square((200, 200), 80, 90, 40)
    picture = Picture.of(mask.astype(np.float32), mask.astype(np.uint8), 9)
    rng = np.random.default_rng(0)
    shared = []
    for _ in range(40):
        grey, mine, others = view(picture, rng)
        assert mine.any()
        assert not others.any()
        bright = grey.numpy() > 0.5
        shared.append(np.count_nonzero(bright & mine) / np.count_nonzero(bright | mine))
    assert min(shared) > 0.9  # shrunk, grey values are averaged; masks are not


def test_objects_are_seen_from_near_and_from_far() -> None:
    mask = square((600, 600), 300, 300, 30)
    picture = Picture.of(mask.astype(np.float32), mask.astype(np.uint8), 9)
    rng = np.random.default_rng(1)
    edges = [np.sqrt(np.count_nonzero(view(picture, rng)[1])) / SIZE for _ in range(200)]
    assert min(edges) < 0.15
    assert max(edges) > 0.7


@pytest.mark.parametrize("extent", [10, 40, 300])
def test_what_is_kept_around_an_object_holds_all_that_is_seen(extent: int) -> None:
    """With and without the rest of the image the network sees the same, but where a bend reaches further."""
    rng = np.random.default_rng(2)
    n, r = extent + 2 * reach(extent) + 200, reach(extent)
    grey = rng.random((n, n)).astype(np.float32)
    mask = square((n, n), r + 100, r + 100, extent)
    inner = slice(100, n - 100)
    whole = Picture.of(grey, mask.astype(np.uint8), 9)
    part = Picture.of(grey[inner, inner], mask[inner, inner].astype(np.uint8), 9)
    same = [
        np.array_equal(view(whole, np.random.default_rng(i))[0], view(part, np.random.default_rng(i))[0])
        for i in range(20)
    ]
    assert np.mean(same) > 0.9


def test_the_first_click_is_on_the_object() -> None:
    mask = square((SIZE, SIZE), 30, 40, 20)
    for seed in range(50):
        y, x = inner_point(mask, np.random.default_rng(seed))
        assert mask[int(y), int(x)]


def test_too_little_of_an_object_is_no_object() -> None:
    begun = begin(torch.zeros(SIZE, SIZE), square((SIZE, SIZE), 3, 3, 3), as_it_is, np.random.default_rng(0))
    assert begun is None


def test_only_the_piece_that_is_clicked_is_the_object() -> None:
    both = square((SIZE, SIZE), 10, 10, 30) | square((SIZE, SIZE), 80, 80, 30)
    pixels, truth, click = begin(torch.zeros(SIZE, SIZE), both, as_it_is, np.random.default_rng(0))
    assert np.count_nonzero(truth) == 900
    assert truth[int(click[0]), int(click[1])]
    assert not pixels[1:].any()


def test_the_largest_error_is_corrected() -> None:
    truth, answer = square((SIZE, SIZE), 20, 20, 40), square((SIZE, SIZE), 20, 20, 30)
    answer |= square((SIZE, SIZE), 100, 100, 10)
    region, missing = largest_error(answer, truth)
    assert missing
    assert np.array_equal(region, truth & ~answer)
    pixels = torch.zeros(prompts.CHANNELS, SIZE, SIZE)
    assert correct(pixels, answer, truth, np.random.default_rng(0))
    assert pixels[1].any()
    assert not pixels[2].any()
    assert not correct(pixels, truth, truth, np.random.default_rng(0))


class Half(nn.Module):
    """Plays a network that sees the upper half of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = torch.full_like(x[:, :1], -1)
        logits[:, :, : SIZE // 2] = 1
        return logits


@pytest.mark.parametrize("learning", [True, False])
def test_a_conversation_leaves_the_answer_and_a_correction(learning: bool) -> None:
    pixels = torch.zeros(2, prompts.CHANNELS, SIZE, SIZE)
    truths = np.stack([square((SIZE, SIZE), 0, 0, 100)] * 2)
    network = Half().train(learning)
    converse(network, pixels, truths, np.array([0, 2]), np.random.default_rng(0))
    assert not pixels[0].any()
    assert pixels[1, 3, : SIZE // 2].all()
    assert not pixels[1, 3, SIZE // 2 :].any()
    assert pixels[1, 1].any() or pixels[1, 2].any()
    assert network.training is learning
