"""Labels written as OME-Zarr come back as a layer on top of their image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from napari_unet.engine.files import write_labels
from napari_unet.engine.image import Image
from napari_unet.plugin.reading import labels_reader


def test_labels_come_back_as_a_pyramid_with_size_unit_and_record(viewer, tmp_path: Path) -> None:
    image = Image(np.zeros((2, 600, 520), np.uint8), "zyx", (2.0, 0.5, 0.25), "micrometer", "a")
    labels = np.arange(2 * 600 * 520).reshape(2, 600, 520) // 5000
    path = str(tmp_path / "a_labels.zarr")
    write_labels(path, labels, image, {"model": "nuclei@1"})
    read = labels_reader(path)
    assert read is not None
    ((levels, options, kind),) = read(path)
    (layer,) = [viewer._add_layer_from_data(levels, options, kind)[0]]
    assert (kind, layer.name, layer.multiscale, len(levels)) == ("labels", "a_labels", True, 2)
    assert tuple(layer.scale) == (2.0, 0.5, 0.25)
    assert str(layer.units[-1]) == "micrometer"
    assert layer.metadata == {"napari_unet": {"model": "nuclei@1"}}
    np.testing.assert_array_equal(levels[0], labels)


def test_what_others_wrote_is_left_to_others(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "x_labels.zarr")
    assert labels_reader(str(tmp_path / "x_labels.zarr")) is None
    assert labels_reader([str(tmp_path / "x_labels.zarr")]) is None
    (tmp_path / "a.tif").write_bytes(b"")
    assert labels_reader(str(tmp_path / "a.tif")) is None
