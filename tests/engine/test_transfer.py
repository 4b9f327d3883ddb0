"""Models for another task or for 3D start with what their parent knows."""

import pytest
import torch

from napari_unet.engine.errors import InvalidModel
from napari_unet.engine.transfer import in_3d, semantic_from

from .conftest import make_model


def test_foreground_keeps_its_probability() -> None:
    parent = make_model(task="objects")
    child = semantic_from(parent)
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected, found = parent.network(x)[:, 0].sigmoid(), child.network(x).softmax(1)[:, 1]
    torch.testing.assert_close(found, expected)
    assert child.card.task == "semantic"


def test_a_semantic_model_stays_as_it_is() -> None:
    parent = make_model(classes=("background", "cell", "debris"))
    assert semantic_from(parent) is parent


def test_a_click_model_is_no_start() -> None:
    with pytest.raises(InvalidModel, match="answers clicks"):
        semantic_from(make_model(task="click"))


def test_a_3d_start_sees_each_slice_as_the_2d_model_does() -> None:
    parent = make_model()
    child = in_3d(parent)
    x = torch.rand(1, 1, 3, 32, 32)
    with torch.no_grad():
        expected = torch.stack([parent.network(x[:, :, z]) for z in range(3)], dim=2)
        torch.testing.assert_close(child.network(x), expected, atol=1e-5, rtol=1e-4)
    assert child.card.spec.total_stride == (1, 4, 4)
