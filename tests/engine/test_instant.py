"""The classifier of pixels: what it learns, that undo is exact, and that nothing upsets it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.engine.image import Image
from napari_unet.engine.inference import normalisation
from napari_unet.engine.instant import (
    EDGE,
    MOST_PIXELS,
    OCTAVES,
    REACH,
    Cache,
    Canvas,
    Instant,
    Stroke,
    Verdict,
    balanced_dice,
    box_of,
    describe,
)

PERCENTILES = (1.0, 99.8)


def canvas_of(
    pixels: np.ndarray, axes: str = "yx", name: str = "plane", channels: int = 1, rgb: bool = False
) -> Canvas:
    items = list(Image(pixels, axes, rgb=rgb).items(2, None, channels))
    return Canvas(name, items[0], normalisation(items, PERCENTILES, name))


def halves(shape=(96, 96)) -> np.ndarray:
    """Dark on the left, bright on the right, with some noise."""
    pixels = np.random.default_rng(0).normal(0, 0.05, shape)
    pixels[:, shape[1] // 2 :] += 1
    return pixels.astype(np.float32)


def painted(shape=(96, 96), background=True, foreground=True) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.uint8)
    if background:
        labels[20:24, 10:30] = 1
    if foreground:
        labels[60:64, 66:86] = 2
    return labels


def whole(instant: Instant, canvas: Canvas, **options) -> np.ndarray:
    """Return the answer to a whole plane; 0 where there is none."""
    result = np.zeros(canvas.shape, dtype=np.uint8)
    for event in instant.answer(canvas.name, **options):
        for part in event.parts:
            result[part.box] = part.labels
    return result


@pytest.fixture
def canvas() -> Canvas:
    return canvas_of(halves())


def test_two_strokes_tell_two_halves_apart(canvas) -> None:
    instant = Instant()
    assert instant.look(canvas, painted())
    result = whole(instant, canvas)
    assert (result[:, :44] == 1).all()
    assert (result[:, 52:] == 2).all()


def test_three_classes() -> None:
    pixels = halves((96, 144))
    pixels[:, 96:] += 1
    labels = painted((96, 144))
    labels[60:64, 110:130] = 3
    instant, canvas = Instant(), canvas_of(pixels)
    instant.look(canvas, labels)
    result = whole(instant, canvas)
    assert [int(np.median(result[:, a : a + 40])) for a in (0, 52, 100)] == [1, 2, 3]


def test_a_stroke_that_is_undone_leaves_no_trace(canvas) -> None:
    instant = Instant()
    instant.look(canvas, painted())
    before = instant.fit().weights.copy()
    more = painted()
    more[40:60, 60:70] = 1
    assert instant.look(canvas, more)
    assert not np.array_equal(instant.fit().weights, before)
    assert instant.look(canvas, painted())
    assert np.array_equal(instant.fit().weights, before)


def test_a_stroke_painted_over_belongs_to_the_later_one(canvas) -> None:
    instant = Instant()
    instant.look(canvas, painted())
    labels = painted()
    labels[labels == 2] = 1
    instant.look(canvas, labels)
    assert {s.value for s in instant.strokes} == {1}
    assert instant.missing == "Paint a stroke on an object too."


@pytest.mark.parametrize(
    ("background", "foreground", "missing"),
    [
        (False, False, "Paint a stroke on an object and one on the background."),
        (True, False, "Paint a stroke on an object too."),
        (False, True, "Paint a stroke on the background too."),
    ],
)
def test_with_less_than_two_classes_it_waits_and_says_why(canvas, background, foreground, missing) -> None:
    instant = Instant()
    instant.look(canvas, painted(background=background, foreground=foreground))
    assert not whole(instant, canvas).any()
    assert instant.missing == missing
    assert instant.judge() == Verdict()


def test_a_look_at_nothing_new_is_no_news(canvas) -> None:
    instant = Instant()
    instant.look(canvas, painted())
    assert not instant.look(canvas, painted())


def test_a_view_of_no_size_has_no_tiles(canvas) -> None:
    assert canvas.tiles((slice(5, 5), slice(0, 9))) == []
    assert canvas.tiles((slice(200, 300), slice(200, 300))) == []
    instant = Instant()
    instant.look(canvas, painted())
    assert list(instant.answer(canvas.name, (slice(5, 5), slice(0, 9)))) == []


def test_a_picture_where_all_pixels_look_alike_is_no_error() -> None:
    pixels = np.zeros((64, 64), dtype=np.float32)
    pixels[0, 0] = 1  # a wholly constant image is refused when its intensities are normalised
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[30:34, 40:50], labels[50:54, 40:50] = 1, 2
    instant, canvas = Instant(), canvas_of(pixels)
    instant.look(canvas, labels)
    assert set(np.unique(whole(instant, canvas)).tolist()) <= {1, 2}
    assert np.isfinite(instant.fit().weights).all()


def test_tiles_meet() -> None:
    pixels = np.random.default_rng(1).normal(size=(EDGE + 70, EDGE + 40)).astype(np.float32)
    canvas = canvas_of(pixels)
    step, inside = 1 << (OCTAVES - 1), [-(-n // (1 << (OCTAVES - 1))) * (1 << (OCTAVES - 1)) for n in pixels.shape]
    padded = canvas._scale(canvas._item.read_mirrored((-REACH, -REACH), tuple(n + REACH + 1 for n in inside)))
    assert all((n - 1) % step == 0 for n in padded.shape[1:])
    expected = describe(torch.from_numpy(padded))[:, REACH : REACH + pixels.shape[0], REACH : REACH + pixels.shape[1]]
    for tile in canvas.tiles():
        box = box_of(tile, canvas.shape)
        found = canvas.described(tile).float().T.reshape(expected.shape[0], *expected[(slice(None), *box)].shape[1:])
        part = expected[(slice(None), *box)]
        torch.testing.assert_close(found, part.sign() * part.abs().sqrt(), atol=4e-3, rtol=2e-3)


def test_what_is_described_comes_first_and_at_once() -> None:
    canvas = canvas_of(halves((3 * EDGE, 96)))
    instant = Instant()
    instant.look(canvas, painted((3 * EDGE, 96)))
    first, *rest = instant.answer(canvas.name)
    assert [len(first.parts), first.left] == [1, 2]  # the tile of the strokes
    assert [(len(e.parts), e.left) for e in rest] == [(1, 1), (1, 0)]
    (again,) = instant.answer(canvas.name)
    assert [len(again.parts), again.left] == [3, 0]


def test_the_cache_keeps_no_more_than_it_may() -> None:
    cache = Cache(most_bytes=100)
    for key in "abc":
        cache.put(key, torch.zeros(10, dtype=torch.float32))
        cache.get("a")
    assert cache.bytes == 80
    assert [cache.get(key) is not None for key in "abc"] == [True, False, True]


def test_strokes_elsewhere_teach_too(canvas) -> None:
    other = canvas_of(halves(), name="another slice")
    instant = Instant()
    instant.look(other, painted())
    instant.look(canvas, np.zeros(canvas.shape, dtype=np.uint8))
    assert (whole(instant, canvas)[:, 52:] == 2).all()


def test_a_long_stroke_is_thinned_and_counts_in_full(canvas) -> None:
    labels = painted()
    labels[30:60, 4:40] = 1
    instant = Instant()
    instant.look(canvas, labels)
    stroke = max(instant.strokes, key=lambda s: s.size)
    assert (stroke.size, stroke.where.size) == (30 * 36, MOST_PIXELS)


@pytest.mark.parametrize(("axes", "shape", "rgb"), [("cyx", (2, 96, 96), False), ("yxc", (96, 96, 3), True)])
def test_channels_and_colours(axes, shape, rgb) -> None:
    pixels = np.random.default_rng(0).normal(0, 0.05, shape)
    second = np.moveaxis(pixels, axes.index("c"), 0)[1]
    second[:, 48:] += 1  # only one of the channels tells
    instant = Instant()
    canvas = canvas_of(pixels.astype(np.float32), axes, channels=shape[axes.index("c")], rgb=rgb)
    instant.look(canvas, painted())
    assert (whole(instant, canvas)[:, 52:] == 2).all()


def four_strokes() -> tuple[np.ndarray, np.ndarray]:
    """Return two strokes that teach and two that judge, and which those are."""
    labels = painted()
    labels[70:74, 10:30], labels[10:14, 66:86] = 1, 2
    held_out = np.zeros(labels.shape, dtype=bool)
    held_out[70:74], held_out[10:14] = True, True
    return labels, held_out


def test_the_better_of_the_two_on_held_out_strokes_is_shown(canvas) -> None:
    instant = Instant()
    instant.look(canvas, *four_strokes())
    everywhere = (slice(0, 96), slice(0, 96))
    assert instant.judge() == Verdict()  # the U-Net has not looked
    instant.saw(canvas, everywhere, np.ones((96, 96), dtype=np.uint8))
    verdict = instant.judge()
    assert verdict.instant == pytest.approx(1)
    # of the background: 2 * 1 / (1 + 2); of the objects: 0
    assert verdict.unet == pytest.approx(1 / 3)
    assert not verdict.unet_is_better


def test_the_unet_is_shown_where_it_has_answered(canvas) -> None:
    instant = Instant()
    instant.look(canvas, *four_strokes())
    answer = np.full((96, 96), 2, dtype=np.uint8)
    instant.saw(canvas, (slice(0, 96), slice(0, 96)), answer)
    assert (whole(instant, canvas, unet=True) == 2).all()


def test_doubt_is_highest_between_the_classes(canvas) -> None:
    instant = Instant()
    instant.look(canvas, painted())
    doubt = instant.fit().doubt(instant.described(canvas.name, (0, 0))).reshape(96, 96)
    assert doubt[:, 46:50].mean() > 3 * doubt[:, :30].mean()


def test_the_next_place_is_one_that_looks_like_nothing_painted() -> None:
    pixels = halves((2 * EDGE, 96))
    pixels[300:340, 70:90] += 3
    canvas, instant = canvas_of(pixels), Instant()
    instant.look(canvas, painted((2 * EDGE, 96)))
    *_, (name, (rows, columns)) = instant.next_place([canvas.name])
    assert name == canvas.name
    assert rows.start < 340 + 20  # the coarsest filter sees a bright spot from 20 pixels away
    assert rows.stop > 300 - 20
    assert columns.stop > 70


def test_the_next_place_is_never_one_that_is_painted(canvas) -> None:
    instant = Instant()
    labels = painted()
    labels[::8, ::8] = 1  # something in every window
    instant.look(canvas, labels)
    assert list(instant.next_place([canvas.name])) == [None]


def test_without_strokes_there_is_no_next_place(canvas) -> None:
    instant = Instant()
    instant.look(canvas, painted(background=False, foreground=False))
    assert list(instant.next_place([canvas.name])) == [None]


def test_only_so_many_tiles_are_searched_for_the_next_place(monkeypatch) -> None:
    monkeypatch.setattr("napari_unet.engine.instant.MOST_TILES", 2)
    large, instant = canvas_of(halves((5 * EDGE, 96))), Instant()
    instant.look(large, painted((5 * EDGE, 96)))
    assert len(list(instant.next_place([large.name]))) == 2


def test_every_stroke_counts_the_same_however_long_but_not_a_crumb() -> None:
    def stroke(value: int, size: int) -> Stroke:
        return Stroke("plane", value, np.arange(size), size)

    def guess(value: int) -> np.ndarray:
        return np.full(4, value, dtype=np.uint8)

    strokes = [stroke(1, 50), stroke(2, 400), stroke(2, 40), stroke(2, 3)]
    guesses = [guess(1), guess(2), guess(1), guess(2)]
    right = 33 / 63  # one of two strokes, and a tenth of one
    expected = (2 / (2 + 1 - right) + 2 * right / (1 + right)) / 2
    assert balanced_dice(strokes, guesses) == pytest.approx(expected)
