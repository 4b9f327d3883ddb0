"""Crops of the shipped model's own training images travel with it, and with its children."""

import numpy as np
import pytest

from napari_unet.engine import replay
from napari_unet.engine.annotation import Annotation
from napari_unet.engine.errors import InvalidModel
from napari_unet.engine.replay import load_replay, pack

from .conftest import make_model


@pytest.fixture
def crops(monkeypatch: pytest.MonkeyPatch, tmp_path) -> list[Annotation]:
    """Pack two crops beside a shipped model called "mine"."""
    rng = np.random.default_rng(0)
    crops = [Annotation(rng.random((1, 32, 32)), rng.integers(1, 5, (32, 32))) for _ in range(2)]
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "mine.replay.npz").write_bytes(pack(tuple(crops)))
    monkeypatch.setattr(replay, "files", lambda package: tmp_path)
    return crops


def test_what_is_packed_comes_back(crops: list[Annotation]) -> None:
    for before, after in zip(crops, load_replay(make_model(task="objects", name="mine").card), strict=True):
        np.testing.assert_allclose(after.pixels, before.pixels, atol=1.75 / 255)
        assert np.array_equal(after.labels, before.labels)


def test_objects_become_the_second_class(crops: list[Annotation]) -> None:
    found = load_replay(make_model(name="mine").card)[0]
    assert np.array_equal(found.labels, np.minimum(crops[0].labels, 2))


@pytest.mark.parametrize("card", [{"parent": "mine@1:abc"}, {"parent": "hers@2:abc", "training": {"replay": "mine"}}])
def test_children_inherit(crops: list[Annotation], card: dict) -> None:
    assert len(load_replay(make_model(name="hers", **card).card)) == 2


def test_others_have_none(crops: list[Annotation]) -> None:
    assert load_replay(make_model(name="other").card) == ()
    assert load_replay(make_model(name="mine", dims=3).card) == ()


def test_a_damaged_set_is_told(crops: list[Annotation], tmp_path) -> None:
    (tmp_path / "weights" / "mine.replay.npz").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InvalidModel, match="replay set of 'mine' is damaged"):
        load_replay(make_model(name="mine").card)
