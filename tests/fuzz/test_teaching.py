"""Annotations and clicks of any kind: a model or a mask that is sound, or an error of ours."""

from __future__ import annotations

import contextlib
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_unet.engine.adaptation import Learned
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.click import ClickSegmenter
from napari_unet.engine.errors import NapariUnetError
from napari_unet.engine.image import Image
from napari_unet.engine.lesson import Lesson, teach
from napari_unet.engine.model import new_model
from napari_unet.engine.prompts import CHANNELS
from napari_unet.engine.settings import TrainSettings
from napari_unet.engine.strokes import Strokes
from napari_unet.engine.training import Trained

from .test_images import MODELS, pixels

ONE_STEP = TrainSettings(steps=1, batch=1, patch=16, validate_every=1, device="cpu")
LABELS = ["bool", "u1", "i1", "<u2", ">i4", "<i8", "<u8", "<f4"]
CLICKER = ClickSegmenter(
    new_model(ModelCard("small", "click", UNetSpec(in_channels=CHANNELS, out_channels=1, channels=(2, 2)))), "cpu"
)


@st.composite
def strokes(draw: st.DrawFn, shape: tuple[int, ...]) -> NDArray[Any]:
    """Labels as people, programs and accidents make them: a few boxes of a few values, some of them absurd."""
    dtype = np.dtype(draw(st.sampled_from(LABELS)))
    usual = st.integers(0, 3)
    if dtype.kind == "f":
        odd: st.SearchStrategy[Any] = st.sampled_from([np.nan, np.inf, 1.5, -1.0])
    elif dtype.kind == "b":
        usual, odd = st.booleans(), st.booleans()  # type: ignore[assignment]
    else:
        odd = st.sampled_from([int(np.iinfo(dtype).min), int(np.iinfo(dtype).max), 200 % np.iinfo(dtype).max])
    if draw(st.integers(0, 3)) == 0:
        shape = draw(st.sampled_from([shape[1:], (1, *shape), (*shape[:-1], shape[-1] + 1), shape[::-1]]))
    labels = np.full(shape, draw(st.sampled_from([0, 0, 1])), dtype)
    for _ in range(draw(st.integers(0, 4))):
        box = tuple(slice(*sorted(draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in shape)
        labels[box] = draw(odd if draw(st.integers(0, 4)) == 0 else usual)
    return labels


@given(
    axes=st.sampled_from(["yx", "yx", "yxc", "cyx", "zyx", "tzyx"]),
    model=st.sampled_from(sorted(MODELS)),
    data=st.data(),
)
def test_train(axes: str, model: tuple[int, str], data: st.DataObject) -> None:
    array = data.draw(pixels(axes))
    shape = tuple(n for n, a in zip(array.shape, axes, strict=True) if a != "c")
    labels = data.draw(strokes(shape))
    flags = [None if data.draw(st.booleans()) else data.draw(strokes(shape)) > 0 for _ in range(2)]
    try:
        lesson = Lesson(Image(array, axes), labels, *flags, channel=data.draw(st.sampled_from([None, 0, 5])))
        *_, last = teach(MODELS[model], [lesson], ONE_STEP)
    except NapariUnetError:
        return
    assert isinstance(last, Trained)
    assert all(torch.isfinite(w).all() for w in last.model.network.state_dict().values())
    assert last.score is None or 0 <= last.score <= 1


@given(dims=st.sampled_from([2, 3]), objects=st.booleans(), data=st.data())
def test_strokes_follow_whatever_is_painted(dims: int, objects: bool, data: st.DataObject) -> None:
    """What is held out or new is painted, and what is counted is there; going back to nothing leaves nothing."""
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)))
    followed = Strokes("zyx", shape, dims, objects)
    for _ in range(data.draw(st.integers(1, 4))):
        labels = data.draw(strokes(shape).filter(lambda painted: painted.dtype.kind != "f"))  # as napari's layers
        try:
            followed.look(labels)
        except NapariUnetError:
            continue
        np.testing.assert_array_equal(followed.labels, labels)
        assert not (followed.held_out | followed.newest)[labels == 0].any()
        teach, judge = followed.count()
        assert (teach + judge > 0) == bool(labels.any())
    followed.look(np.zeros(shape, np.uint8))
    assert followed.count() == (0, 0)
    assert not followed.held_out.any()


NUMBERS = st.one_of(st.integers(-3, 45), st.floats(-2, 42), st.sampled_from([np.nan, np.inf, -np.inf, 1e300, 2**70]))
CLICKS = st.tuples(st.tuples(NUMBERS, NUMBERS), st.booleans())


@given(axes=st.sampled_from(["yx", "yxc", "cyx", "zyx"]), clicks=st.lists(CLICKS, max_size=3), data=st.data())
def test_click(axes: str, clicks: list[Any], data: st.DataObject) -> None:
    array = data.draw(pixels(axes))
    masks = [None if data.draw(st.booleans()) else data.draw(strokes(array.shape[:2])) for _ in range(2)]
    with contextlib.suppress(NapariUnetError):
        CLICKER.set_image(Image(array, axes), channel=data.draw(st.sampled_from([None, None, 0, 7])))
        mask = CLICKER.segment(clicks, *masks)
        assert mask.dtype == bool
        assert mask.shape == tuple(n for n, a in zip(array.shape, axes, strict=True) if a in "yx")


@given(z=st.integers(-2, 4), axis=st.integers(0, 2), data=st.data())
def test_an_object_is_followed(z: int, axis: int, data: st.DataObject) -> None:
    volume = data.draw(pixels("zyx"))
    mask = data.draw(strokes(tuple(n for i, n in enumerate(volume.shape) if i != axis)))
    with contextlib.suppress(NapariUnetError):
        found = list(CLICKER.extend(volume, mask, z, axis=axis))
        assert len({done.z for done in found} | {z}) == len(found) + 1
        assert all(done.mask.any() for done in found)


@given(axes=st.sampled_from(["yx", "yxc", "cyx"]), click=st.none() | CLICKS, data=st.data())
def test_an_object_is_learned(axes: str, click: Any, data: st.DataObject) -> None:
    """Whatever is accepted, learning ends, and leaves a model that still answers with numbers."""
    array = data.draw(pixels(axes))
    learner = ClickSegmenter(CLICKER.model, "cpu")
    with patch("napari_unet.engine.click.STEPS", 1), contextlib.suppress(NapariUnetError):
        learner.accept(data.draw(strokes(array.shape[:2])), click, Image(array, axes))
        *_, learned = learner.learn()
        assert isinstance(learned, Learned)
        assert learned.objects <= 1
        assert learner._adaptation is not None
        assert all(torch.isfinite(w).all() for w in learner._adaptation.model.network.state_dict().values())
