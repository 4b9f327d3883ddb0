"""Labels layers saved as outlines, the way napari saves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_unet.engine.errors import FileError
from napari_unet.engine.outlines import read_outlines
from napari_unet.plugin.writing import write_labels_layer


def test_napari_saves_a_labels_layer_as_geojson(viewer: ViewerModel, tmp_path: Path) -> None:
    labels = np.zeros((6, 7), np.uint8)
    labels[1:3, 2:5] = 9
    data, attributes, _ = viewer.add_labels(labels).as_layer_data_tuple()
    path = str(tmp_path / "a.geojson")
    assert write_labels_layer(path, data, attributes) == [path]
    assert [outline.label for outline in read_outlines(Path(path))] == [9]


def test_too_many_axes_are_said(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="5 axes"):
        write_labels_layer(str(tmp_path / "a.zip"), np.zeros((1, 1, 1, 4, 4), int), {})
