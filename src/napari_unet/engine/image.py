"""Image: pixels of any size with named axes, read region by region and mirrored at the border."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import FileError, InvalidImage

AXES = "tczyx"
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""
UNREADABLE = (OSError, ValueError, LookupError, RuntimeError, EOFError, zlib.error)
"""What lazy arrays raise when the file behind them is damaged, or its disk is gone."""
Index = tuple[int | slice, ...]


class ArrayLike(Protocol):
    """What numpy, dask and zarr arrays share."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __getitem__(self, index: Any, /) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Image:
    """An image of any size; nothing is read before a region is asked for.

    Attributes
    ----------
    array
        numpy, dask or zarr array.
    axes
        One letter for each axis of `array`: each of ``tczyx`` at most once, with ``y`` and ``x`` among them.
    spacing
        Pixel size along each axis (1.0 for t and c); empty: 1.0 everywhere.
    unit
        Unit of the spatial spacing.
    name
        For messages and the names of results.
    rgb
        The c axis holds red, green, blue (and alpha, which is ignored).
    """

    array: ArrayLike
    axes: str
    spacing: tuple[float, ...] = ()
    unit: str = "pixel"
    name: str = "image"
    rgb: bool = False

    def __post_init__(self) -> None:
        shape, dtype = tuple(self.array.shape), np.dtype(self.array.dtype)
        if len(self.axes) != len(shape):
            raise InvalidImage(
                f"Axes {self.axes!r} name {len(self.axes)} axes, but {self.name!r} has {len(shape)} (shape {shape}): "
                f"give one letter of {AXES!r} for each axis."
            )
        if len(set(self.axes)) != len(self.axes) or not set("yx") <= set(self.axes) <= set(AXES):
            raise InvalidImage(
                f"Axes {self.axes!r} of {self.name!r} are not understood: use each of {', '.join(AXES)} at most once, and y and x."
            )
        spatial = [a for a in self.axes if a in "zyx"]
        if spatial != sorted(spatial, key="zyx".index):
            raise InvalidImage(f"Axes {self.axes!r} of {self.name!r} are out of order: z stands before y, y before x.")
        if 0 in shape:
            raise InvalidImage(f"{self.name!r} is empty (shape {shape}): choose an image with pixels.")
        if dtype.kind not in "buif":
            raise InvalidImage(f"{self.name!r} holds {dtype} values: convert it to integers or real numbers first.")
        if not self.spacing:
            object.__setattr__(self, "spacing", (1.0,) * len(shape))
        elif len(self.spacing) != len(shape):
            raise InvalidImage(f"Spacing {self.spacing} has {len(self.spacing)} numbers for {len(shape)} axes.")
        if self.rgb and ("c" not in self.axes or shape[self.axes.index("c")] not in (3, 4)):
            raise InvalidImage(f"{self.name!r} is marked as RGB but has no axis c of 3 or 4 colours (shape {shape}).")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.array.shape)

    @property
    def channels(self) -> int:
        """Number of channels; 1 without a c axis."""
        return self.shape[self.axes.index("c")] if "c" in self.axes else 1

    @property
    def label_axes(self) -> str:
        """The axes of its labels: all but c."""
        return self.axes.replace("c", "")

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of its labels."""
        return tuple(n for n, a in zip(self.shape, self.axes, strict=True) if a != "c")

    @property
    def label_spacing(self) -> tuple[float, ...]:
        """The spacing of its labels."""
        return tuple(s for s, a in zip(self.spacing, self.axes, strict=True) if a != "c")

    def items(self, dims: int, channel: int | None = None, in_channels: int = 1) -> Iterator[Item]:
        """Yield every plane (``dims=2``) or volume (``dims=3``) that a network sees as one image.

        Raises
        ------
        InvalidImage
            If a 3D model meets an image without z, or the channels do not fit.
        """
        if dims == 3 and "z" not in self.axes:
            raise InvalidImage(
                f"The model is 3D, but {self.name!r} has axes {self.axes!r} without z: choose a 2D model or name a z axis."
            )
        self._check_channels(channel, in_channels)
        spatial = "zyx"[-dims:]
        steps = [a for a in self.label_axes if a not in spatial]
        for position in itertools.product(*(range(self.shape[self.axes.index(a)]) for a in steps)):
            yield Item(self, dict(zip(steps, position, strict=True)), spatial, channel, in_channels)

    def _check_channels(self, channel: int | None, in_channels: int) -> None:
        if channel is not None:
            if in_channels != 1:
                raise InvalidImage(f"The model takes {in_channels} channels: leave the choice of one channel empty.")
            if channel >= self.channels:
                raise InvalidImage(
                    f"Channel {channel} was asked for, but {self.name!r} has {self.channels} (counted from 0)."
                )
            return
        offered = min(self.channels, 3) if self.rgb else self.channels
        if in_channels == offered or (in_channels == 1 and self.rgb):
            return
        remedy = f"choose one of its channels 0 to {offered - 1}" if in_channels == 1 else "choose a model that fits"
        raise InvalidImage(
            f"The model takes {in_channels} channel{'s' * (in_channels > 1)}, but {self.name!r} has {offered}: {remedy}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One plane or volume of an image, as ``(channels, *spatial)``; read lazily.

    A thin wrapper around an image and the position along the axes that a network does not see.
    """

    image: Image
    position: dict[str, int]
    spatial: str
    channel: int | None
    in_channels: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape."""
        return tuple(self.image.shape[self.image.axes.index(a)] for a in self.spatial)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Pixel size along the spatial axes."""
        return tuple(self.image.spacing[self.image.axes.index(a)] for a in self.spatial)

    def region(self, slices: tuple[slice, ...]) -> tuple[slice, ...]:
        """Where a spatial region of this item lies in the label array."""
        inside = dict(zip(self.spatial, slices, strict=True))
        here = {a: slice(p, p + 1) for a, p in self.position.items()}
        return tuple((inside | here)[a] for a in self.image.label_axes)

    def read(self, slices: tuple[slice, ...]) -> NDArray[Any]:
        """Read a region inside the image, in the image's own type except grey from RGB; shape ``(c, *region)``."""
        image, inside = self.image, dict(zip(self.spatial, slices, strict=True))
        index: list[int | slice] = []
        for axis in image.axes:
            if axis in inside:
                index.append(inside[axis])
            elif axis == "c":
                index.append(slice(None) if self.channel is None else slice(self.channel, self.channel + 1))
            else:
                index.append(self.position[axis])
        try:
            pixels = np.asarray(image.array[tuple(index)])
        except UNREADABLE as error:
            raise FileError(
                f"A part of {image.name!r} cannot be read ({type(error).__name__}): check the file and its disk."
            ) from error
        kept = [a for a in image.axes if a in inside or a == "c"]
        if "c" not in kept:
            pixels, kept = pixels[None], ["c", *kept]
        pixels = np.moveaxis(pixels, kept.index("c"), 0)
        if image.rgb and self.channel is None:
            pixels = pixels[:3]
            if self.in_channels == 1:
                pixels = np.tensordot(LUMINANCE, pixels.astype(np.float32), axes=1)[None]
        return pixels

    def read_mirrored(self, start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[Any]:
        """Read a region that may reach over the image's border; what lies beyond is mirrored about the outermost pixels.

        Only the pixels needed are read. Equal to ``numpy.pad(image, ..., mode="reflect")`` of the whole image.
        """
        where = [mirrored(a, b, n) for a, b, n in zip(start, stop, self.shape, strict=True)]
        low = [int(w.min()) for w in where]
        pixels = self.read(tuple(slice(a, int(w.max()) + 1) for a, w in zip(low, where, strict=True)))
        for axis, (w, a) in enumerate(zip(where, low, strict=True), start=1):
            if len(w) != pixels.shape[axis] or w[0] > w[-1] or (np.diff(w) != 1).any():
                pixels = np.take(pixels, w - a, axis=axis)
        return pixels


def mirrored(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return the indices inside ``0 .. size - 1`` that mirror ``start .. stop - 1`` about the first and last pixel."""
    if size == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (size - 1)
    index = np.abs(np.arange(start, stop)) % period
    return np.where(index < size, index, period - index)


def cut(array: NDArray[Any], start: tuple[int, ...], stop: tuple[int, ...]) -> NDArray[Any]:
    """Return the region of a ``(c, *spatial)`` array in memory from start to stop, mirrored beyond its border."""
    part = array[:, *(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))]
    if part.shape[1:] == tuple(b - a for a, b in zip(start, stop, strict=True)):
        return part
    where = [mirrored(a, b, n) for a, b, n in zip(start, stop, array.shape[1:], strict=True)]
    beyond: NDArray[Any] = array[:, *np.ix_(*where)]  # type: ignore[arg-type]
    return beyond


def guess_axes(shape: tuple[int, ...], rgb: bool = False, dims: int = 2) -> str:
    """Guess what each axis of an array is; the user sees the guess in words and can change it.

    A small axis (2 to 4) at either end of three or more is taken for channels. What is left, counted from the last
    axis, is x, y, z, t; with a 2D model a third axis is still called z, since either name gives the same labels.

    Examples
    --------
    >>> guess_axes((520, 696)), guess_axes((20, 520, 696)), guess_axes((2, 520, 696)), guess_axes((520, 696, 3), rgb=True)
    ('yx', 'zyx', 'cyx', 'yxc')
    """
    if len(shape) < 2:
        raise InvalidImage(f"An array of shape {shape} is no image: it needs at least two axes.")
    if rgb:
        return guess_axes(shape[:-1], dims=dims) + "c"
    rest: list[int] = list(range(len(shape)))
    channel: int | None = None
    if len(shape) >= 3:
        others = sorted(shape)[-2]
        candidates = (0, len(shape) - 1) if len(shape) == 3 else (0, 1, len(shape) - 1)
        small = (i for i in candidates if 2 <= shape[i] <= 4 and others > 8 * shape[i])
        channel = next(small, None)
    if len(shape) == 5 and channel is None:
        channel = 1
    if channel is not None:
        rest.remove(channel)
    if len(rest) > 4:
        raise InvalidImage(f"An array of shape {shape} has more axes than t, c, z, y, x: take one part of it first.")
    names = dict(zip(rest, "tzyx"[-len(rest) :], strict=True))
    return "".join("c" if i == channel else names[i] for i in range(len(shape)))


def looks_coloured(shape: tuple[int, ...]) -> bool:
    """Tell whether an array of which nothing is known holds colours last, by the rule that napari shows images by.

    Examples
    --------
    >>> looks_coloured((520, 696, 3)), looks_coloured((520, 696, 2)), looks_coloured((3, 520, 696))
    (True, False, False)
    """
    return len(shape) > 2 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 30


def describe(image: Image, dims: int) -> str:
    """Say in words what a model of `dims` dimensions makes of an image: ``"3 time points of 2D images, 2 channels"``."""
    sizes = dict(zip(image.axes, image.shape, strict=True))
    words = []
    if sizes.get("t", 1) > 1:
        words.append(f"{sizes['t']} time points of")
    if dims == 2 and sizes.get("z", 1) > 1:
        words.append(f"{sizes['z']} slices of")
    kind = "3D volume" if dims == 3 else "2D image"
    text = " ".join([*words, kind + "s"]) if words else f"one {kind}"
    if image.rgb:
        return text + ", RGB"
    return text + (f", {image.channels} channels" if image.channels > 1 else "")
