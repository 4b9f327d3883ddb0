"""The packaged sample images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_unet import samples
from napari_unet.engine.errors import FileError
from napari_unet.samples import drawn

TRAINING = Path(__file__).parent.parent / "training"


@pytest.mark.parametrize(
    ("name", "axes", "objects"), [("nuclei", "yx", 101), ("histology", "yxc", 8), ("cells", "yx", 29)]
)
def test_a_sample_has_a_truth_of_its_shape(name: str, axes: str, objects: int) -> None:
    image, truth = samples.load(name)
    assert (image.axes, image.rgb) == (axes, "c" in axes)
    assert truth.shape == image.label_shape
    np.testing.assert_array_equal(np.unique(truth), np.arange(objects + 1))


@pytest.mark.parametrize("name", samples.NAMES)
def test_the_shipped_model_has_not_learned_from_a_sample(name: str) -> None:
    ledgers = [json.loads(path.read_text())["images"] for path in TRAINING.glob("*_ledger.json")]
    entries = [e for ledger in ledgers for e in ledger if e["image"] == samples.ORIGIN[name]]
    assert entries
    assert all(e["held_out"] for e in entries)


def test_an_unknown_sample_is_answered_with_the_known() -> None:
    with pytest.raises(FileError, match="nuclei, histology, cells"):
        samples.load("cat")


@pytest.mark.parametrize(("draw", "objects"), [(drawn.stack, 45), (drawn.timelapse, 14), (drawn.membranes, 60)])
def test_a_drawn_sample_is_the_same_each_time_and_has_its_truth(draw, objects: int) -> None:
    image, truth = draw()
    np.testing.assert_array_equal(image.array, draw()[0].array)
    assert truth.shape == image.shape
    assert len(np.unique(truth)) == objects + 1
