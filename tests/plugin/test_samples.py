"""The sample images of File > Open Sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_unet.plugin import samples


@pytest.mark.parametrize(("name", "rgb"), [("nuclei", False), ("histology", True), ("cells", False)])
def test_a_sample_opens_as_an_image_that_the_command_line_finds(
    viewer: ViewerModel, session, name: str, rgb: bool
) -> None:
    (data,) = getattr(samples, name)()
    layer = viewer.add_layer(Layer.create(*data))
    assert (layer.name, layer.rgb) == (name, rgb)
    assert Path(layer.metadata["path"]).is_file()
    assert layer.metadata["path"] in session.choice.command()


@pytest.mark.parametrize(
    ("name", "axes"), [("stack", ("z", "y", "x")), ("timelapse", ("t", "y", "x")), ("membranes", ("y", "x"))]
)
def test_a_drawn_sample_says_its_axes_and_pixel_size(viewer: ViewerModel, name: str, axes: tuple[str, ...]) -> None:
    (data,) = getattr(samples, name)()
    layer = viewer.add_layer(Layer.create(*data))
    assert layer.axis_labels == axes
    assert tuple(layer.scale) == ((2, 0.5, 0.5) if name == "stack" else (1,) * len(axes))
