"""Every kind of layer gives labels that lie on its pixels in the world."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet.engine.errors import InvalidImage
from napari_unet.plugin import layers


def same(pixels: NDArray[Any]) -> Any:
    return pixels


def as_zarr(pixels: NDArray[Any]) -> Any:
    stored = zarr.create_array({}, shape=pixels.shape, dtype=pixels.dtype, chunks=(16,) * pixels.ndim)
    stored[...] = pixels
    return stored


def pyramid(pixels: NDArray[Any]) -> Any:
    half = (slice(None),) * (pixels.ndim - 2) + (slice(None, None, 2),) * 2
    return [pixels, pixels[half]]


@dataclass(frozen=True)
class Layout:
    axes: str = "yx"
    dtype: Any = np.uint8
    to: Callable[[NDArray[Any]], Any] = same
    options: dict[str, Any] = field(default_factory=dict)
    model: str = "bright"
    sizes: dict[str, int] = field(default_factory=dict)
    slanted: bool = False
    """Rotated out of the plane: napari cuts such layers only along their own axes, and says so."""


TURNED = np.array([[0.8, -0.6, 3], [0.6, 0.8, -7], [0, 0, 1]])
TURNED_4D = np.eye(5)
TURNED_4D[2:4, 2:4], TURNED_4D[2:4, 4] = TURNED[:2, :2], (5, 9)
MIXED = np.eye(4)
MIXED[0, 2] = 0.5  # the channels are shifted against each other
LAYOUTS = {
    "2D": Layout(),
    "2D uint16": Layout(dtype=np.uint16),
    "2D int32": Layout(dtype=np.int32),
    "2D float32": Layout(dtype=np.float32),
    "2D float64": Layout(dtype=np.float64),
    "2D bool": Layout(dtype=bool),
    "2D dask": Layout(to=lambda a: da.from_array(a, chunks=16)),
    "2D zarr": Layout(to=as_zarr),
    "2D multiscale": Layout(to=pyramid, options={"multiscale": True, "scale": (0.5, 0.25)}),
    "2D RGB": Layout("yxc", options={"rgb": True}, sizes={"c": 3}),
    "2D RGBA": Layout("yxc", options={"rgb": True, "scale": (2, 3), "translate": (1, 2)}, sizes={"c": 4}),
    "2D RGB turned": Layout("yxc", options={"rgb": True, "affine": TURNED}, sizes={"c": 3}),
    "stack of RGB": Layout("zyxc", options={"rgb": True, "scale": (4, 1, 1)}, sizes={"c": 3}),
    "2D scaled and moved": Layout(options={"scale": (0.3, 2.5), "translate": (-40, 17)}),
    "2D rotated": Layout(options={"rotate": 30, "scale": (2, 1)}),
    "2D sheared": Layout(options={"shear": [0.4], "translate": (3, 4)}),
    "2D affine": Layout(options={"affine": TURNED, "scale": (2, 1)}),
    "3D as slices": Layout("zyx", options={"scale": (5, 1, 1)}),
    "3D as a volume": Layout("zyx", options={"scale": (2, 1, 1)}, model="volume"),
    "3D rotated": Layout("zyx", options={"rotate": (30, 0, 0)}, slanted=True),
    "3D dask": Layout("zyx", to=lambda a: da.from_array(a, chunks=16)),
    "time series": Layout("tyx", options={"axis_labels": ("t", "y", "x")}),
    "time series in words": Layout("tyx", options={"axis_labels": ("time", "row", "column")}),
    "channels first": Layout("cyx", options={"scale": (1, 0.5, 0.5), "translate": (10, 20, 30)}),
    "channels first, mixed by an affine": Layout("cyx", options={"affine": MIXED}, slanted=True),
    "channels last": Layout("yxc", options={"rgb": False}),
    "channels in the middle": Layout("zcyx", options={"scale": (3, 2, 1, 1), "translate": (1, 7, 2, 3)}),
    "channels in the middle, turned": Layout("zcyx", options={"affine": TURNED_4D}),
    "CZYX": Layout("czyx", options={"scale": (1, 3, 1, 1)}, model="volume"),
    "TZYX": Layout("tzyx", options={"scale": (1, 3, 1, 1)}),
    "TCZYX": Layout("tczyx", options={"scale": (1, 1, 3, 0.5, 0.5), "translate": (0, 5, 1, 2, 3)}),
    "TCZYX zarr": Layout("tczyx", to=as_zarr, model="volume"),
    "ZCYX multiscale": Layout("zcyx", to=pyramid, options={"multiscale": True}),
    "singleton z": Layout("zyx", sizes={"z": 1}),
    "singleton t, c and z": Layout("tczyx", sizes={"t": 1, "c": 1, "z": 1}),
}
SIZES = {"t": 2, "c": 2, "z": 3, "y": 24, "x": 36}


def pixels_of(layout: Layout) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return an image and what is foreground in it: a block at another place in every plane."""
    sizes = SIZES | layout.sizes
    truth = np.zeros([sizes[a] for a in layout.axes if a != "c"], dtype=bool)
    for i, plane in enumerate(truth.reshape(-1, *truth.shape[-2:])):
        plane[2 + i : 12 + i, 3 + 2 * i : 19 + 2 * i] = True
    pixels = truth.astype(layout.dtype)
    if "c" in layout.axes:
        where = layout.axes.index("c")
        pixels = np.stack([pixels] * sizes["c"], axis=where)
    return pixels, truth


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize("name", LAYOUTS)
def test_labels_lie_on_the_pixels(viewer: ViewerModel, session, jobs, heard, name: str) -> None:
    layout = LAYOUTS[name]
    pixels, truth = pixels_of(layout)
    source = viewer.add_image(layout.to(pixels), name="image", contrast_limits=(0, 1), **layout.options)
    session.choose_model(session.library.find(layout.model))
    if session.choice.axes != layout.axes:
        session.choose_axes(layout.axes)
    session.segment()
    jobs.finish()
    assert not heard.last.is_error, heard.last.text
    labels = viewer.layers["image labels (" + layout.model + ")"]
    assert isinstance(labels, Labels)
    np.testing.assert_array_equal(labels.data.reshape(truth.shape), truth)
    assert labels.units[-2:] == source.units[-2:]

    where = layout.axes.index("c") if "c" in layout.axes and not source.rgb else None
    ends = [{0, n // 2, n - 1} for n in truth.shape]
    for place, channel in itertools.product(
        itertools.product(*ends), range(pixels.shape[where] if where is not None else 1)
    ):
        index = list(place)
        if where is not None:
            index.insert(where, channel)
        world = source.data_to_world(index)
        there = np.asarray(labels.world_to_data(world[-labels.ndim :]))
        if labels.ndim == len(place):
            wanted = place
        else:  # a c axis of length 1
            wanted = (*place[:where], 0, *place[where:])
            assert abs(there[where]) < 0.5
            there[where] = 0
        np.testing.assert_allclose(there, wanted, atol=1e-6)
        if layout.slanted:
            continue
        viewer.dims.set_point(range(viewer.dims.ndim), world)
        value = labels.get_value(world, view_direction=None, dims_displayed=list(viewer.dims.displayed), world=True)
        assert value == truth[place]
    assert len(viewer.dims.point) == source.ndim  # the labels add no axis to the viewer


@pytest.mark.parametrize(
    ("labels", "axes"),
    [(("t", "y", "x"), "tyx"), (("Channel", "Row", "Column"), "cyx"), (("a", "b", "c"), "zyx"), (None, "zyx")],
)
def test_axis_labels_count_if_they_make_sense(labels: tuple[str, ...] | None, axes: str) -> None:
    assert layers.axes_of(ImageLayer(np.zeros((30, 40, 50)), axis_labels=labels)) == axes


def test_the_name_the_spacing_and_the_unit_come_from_the_layer() -> None:
    layer = ImageLayer(np.zeros((9, 40, 50)), name="cells", scale=(-2, 0.5, 0.25), units=("um", "um", "um"))
    image = layers.image_from(layer)
    assert (image.name, image.spacing, image.unit) == ("cells", (2, 0.5, 0.25), "micrometer")


def test_only_image_layers_can_be_segmented() -> None:
    with pytest.raises(InvalidImage, match="'Labels' is a labels layer: choose an image layer"):
        layers.image_from(Labels(np.zeros((9, 9), dtype=int)))


def test_what_the_window_shows_is_computed_first(viewer: ViewerModel) -> None:
    layer = viewer.add_image(np.zeros((5, 2, 40, 50)), scale=(3, 1, 1, 1))
    image = layers.image_from(layer, "zcyx")
    viewer.dims.set_point(0, 6)
    layer.corner_pixels = np.array([[2, 0, 10, 20], [2, 0, 19, 29]])
    assert layers.in_view(viewer, layer, image) == (slice(2, 3), slice(10, 20), slice(20, 30))


@pytest.mark.parametrize(
    ("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (65536, np.int32)]
)
def test_labels_take_the_smallest_type_that_holds_them(highest: int, dtype: type) -> None:
    assert layers.compact(np.array([[0, highest]], dtype=np.int32)).dtype == dtype
