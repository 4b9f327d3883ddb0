"""Axes, channels and lazy reading."""

import numpy as np
import pytest

from napari_unet.engine.errors import InvalidImage
from napari_unet.engine.image import Image, describe, guess_axes


class Counting:
    """An array that remembers how many pixels were read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.read = array, 0
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, index):
        part = self.array[index]
        self.read += np.size(part)
        return part


@pytest.mark.parametrize(
    ("array", "axes", "words"),
    [
        (np.zeros((0, 5)), "yx", "is empty"),
        (np.zeros((5, 5), dtype=complex), "yx", "complex128 values"),
        (np.zeros((5, 5), dtype="U1"), "yx", "<U1 values"),
        (np.zeros((5, 5)), "zyx", "name 3 axes"),
        (np.zeros((5, 5)), "yy", "not understood"),
        (np.zeros((5, 5)), "qx", "not understood"),
        (np.zeros((2, 5, 5)), "yzx", "out of order"),
    ],
)
def test_what_is_no_image_is_told_in_one_sentence(array: np.ndarray, axes: str, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        Image(array, axes)


@pytest.mark.parametrize(
    ("shape", "rgb", "axes"),
    [
        ((64, 48), False, "yx"),
        ((10, 64, 48), False, "zyx"),
        ((3, 64, 48), False, "cyx"),
        ((64, 48, 3), False, "yxc"),
        ((64, 48, 3), True, "yxc"),
        ((20, 64, 48, 4), True, "zyxc"),
        ((30, 20, 64, 48), False, "tzyx"),
        ((20, 2, 64, 48), False, "zcyx"),
        ((2, 20, 64, 48), False, "czyx"),
        ((5, 2, 20, 64, 48), False, "tczyx"),
        ((5, 7, 20, 64, 48), False, "tczyx"),
        ((1, 64, 48), False, "zyx"),
        ((4, 5), False, "yx"),
    ],
)
def test_guessed_axes(shape: tuple[int, ...], rgb: bool, axes: str) -> None:
    assert guess_axes(shape, rgb) == axes


@pytest.mark.parametrize("shape", [(5,), (), (9, 8, 7, 6, 50, 50)])
def test_axes_that_cannot_be_guessed(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImage, match="shape"):
        guess_axes(shape)


@pytest.mark.parametrize(
    ("shape", "axes", "rgb", "dims", "words"),
    [
        ((9, 9), "yx", False, 2, "one 2D image"),
        ((3, 9, 9), "tyx", False, 2, "3 time points of 2D images"),
        ((3, 2, 9, 9), "tcyx", False, 2, "3 time points of 2D images, 2 channels"),
        ((3, 5, 9, 9), "tzyx", False, 2, "3 time points of 5 slices of 2D images"),
        ((3, 5, 9, 9), "tzyx", False, 3, "3 time points of 3D volumes"),
        ((5, 9, 9), "zyx", False, 3, "one 3D volume"),
        ((9, 9, 3), "yxc", True, 2, "one 2D image, RGB"),
    ],
)
def test_described_in_words(shape: tuple[int, ...], axes: str, rgb: bool, dims: int, words: str) -> None:
    assert describe(Image(np.zeros(shape, np.uint8), axes, rgb=rgb), dims) == words


def test_items_step_through_time_and_depth_and_put_channels_first() -> None:
    array = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    items = list(Image(array, "tczyx").items(2, channel=1))
    assert len(items) == 8
    last = items[-1]
    assert last.position == {"t": 1, "z": 3}
    assert (last.read((slice(0, 5), slice(0, 6))) == array[1, 1:2, 3]).all()
    assert last.region((slice(1, 3), slice(0, 2))) == (slice(1, 2), slice(3, 4), slice(1, 3), slice(0, 2))


def test_grey_is_made_from_rgb_and_alpha_ignored() -> None:
    array = np.zeros((4, 5, 4), dtype=np.uint8)
    array[..., 1], array[..., 3] = 100, 255
    (item,) = Image(array, "yxc", rgb=True).items(2)
    assert item.read((slice(0, 4), slice(0, 5))) == pytest.approx(58.7)


@pytest.mark.parametrize(
    ("channel", "wanted", "words"),
    [
        (None, 1, r"takes 1 channel, but 'image' has 2: choose one of its channels 0 to 1"),
        (None, 3, "takes 3 channels, but 'image' has 2: choose a model that fits"),
        (2, 1, "Channel 2 was asked for, but 'image' has 2"),
        (0, 2, "leave the choice of one channel empty"),
    ],
)
def test_channels_that_do_not_fit(channel: int | None, wanted: int, words: str) -> None:
    with pytest.raises(InvalidImage, match=words):
        list(Image(np.zeros((2, 8, 8)), "cyx").items(2, channel, wanted))


def test_3d_needs_z() -> None:
    with pytest.raises(InvalidImage, match="without z"):
        list(Image(np.zeros((8, 8)), "yx").items(3))


@pytest.mark.parametrize("shape", [(9, 7), (1, 5), (2, 3, 6)])
def test_reading_over_the_border_mirrors_like_numpy(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    array, pad = rng.random(shape), 17
    (item,) = Image(array, "zyx"[-len(shape) :]).items(len(shape))
    padded = array
    for axis, n in enumerate(shape):
        widths = [(0, 0)] * len(shape)
        widths[axis] = (pad, pad)
        padded = np.pad(padded, widths, mode="reflect" if n > 1 else "edge")
    read = item.read_mirrored((-pad,) * len(shape), tuple(n + pad for n in shape))
    assert (read[0] == padded).all()


def test_only_the_pixels_needed_are_read() -> None:
    array = Counting(np.zeros((1000, 1000), dtype=np.uint8))
    (item,) = Image(array, "yx").items(2)
    item.read_mirrored((-20, 100), (80, 200))
    assert array.read == 80 * 100
