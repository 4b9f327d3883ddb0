"""The sample images of File > Open Sample."""

from __future__ import annotations

from pathlib import Path

import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_unet.plugin import samples


@pytest.mark.parametrize(("name", "rgb"), [("nuclei", False), ("histology", True)])
def test_a_sample_opens_as_an_image_that_the_command_line_finds(
    viewer: ViewerModel, session, name: str, rgb: bool
) -> None:
    (data,) = getattr(samples, name)()
    layer = viewer.add_layer(Layer.create(*data))
    assert (layer.name, layer.rgb) == (name, rgb)
    assert Path(layer.metadata["path"]).is_file()
    assert layer.metadata["path"] in session.choice.command()
