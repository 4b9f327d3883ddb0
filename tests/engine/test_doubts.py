"""A result that should not be believed without a look says so, before the user believes it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.doubts import diameter, doubts
from napari_unet.engine.image import Image

from .conftest import discs, make_model

SIX = [(16 * i + 12, 16 * i + 12) for i in range(6)]


def card(**known) -> ModelCard:
    return make_model(task="objects").card.with_(name="nuclei", **known)


def said(labels: np.ndarray, known: ModelCard, contrast: float = 200.0, spacing: float = 1.0) -> str:
    image = Image(np.zeros(labels.shape, np.uint8), "yx", (spacing, spacing), "micrometer")
    return doubts(image, known, labels, contrast)


def test_the_diameter_is_that_of_a_disc() -> None:
    """A disc drawn with radius 6 has 113 pixels: 2 * sqrt(113 / pi) = 11.995."""
    assert diameter(discs((120, 120), SIX, radius=6), 2) == pytest.approx(11.995, abs=0.001)
    assert diameter(discs((120, 120), SIX[:4], radius=6), 2) == 0


@pytest.mark.parametrize(("learned", "doubted"), [(2.9, True), (3.1, False), (47.9, False), (48.1, True), (0.0, False)])
def test_objects_of_a_quarter_or_four_times_the_size_are_doubted(learned: float, doubted: bool) -> None:
    sentence = said(discs((120, 120), SIX, radius=6), card(diameter=learned))
    assert ("These objects are about 12 pixels wide, those that nuclei learned from" in sentence) == doubted
    assert bool(sentence) == doubted


def test_an_empty_result_is_told() -> None:
    assert said(np.zeros((50, 50), np.int32), card()).startswith("No objects were found: lower the thresholds")


def test_one_class_everywhere_is_told() -> None:
    model = ModelCard("cells", "semantic", UNetSpec(), ("background", "cell"))
    assert said(np.ones((9, 9), np.uint8), model).startswith("Every pixel became 'cell'")


@pytest.mark.parametrize(("spacing", "doubted"), [(0.1, True), (0.3, False), (0.9, False), (1.1, True)])
def test_pixels_of_another_size_are_doubted(spacing: float, doubted: bool) -> None:
    sentence = said(discs(), card(spacing=(0.5, 0.5)), spacing=spacing)
    assert ("of those that nuclei learned from 0.5 µm" in sentence) == doubted


@pytest.mark.parametrize(("levels", "doubted"), [(7.0, True), (8.0, False)])
def test_hardly_any_contrast_is_doubted(levels: float, doubted: bool) -> None:
    assert ("hardly any contrast (7 grey levels)" in said(discs(), card(), levels)) == doubted
