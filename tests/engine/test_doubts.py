"""A result that should not be believed without a look says so, before the user believes it."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.doubts import conditions, diameter, doubts, doubts_of_image, learned
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


def seen(**conditions: list[float]) -> ModelCard:
    """Return a card that says under what conditions its model has learned."""
    return card(training={"conditions": conditions})


def test_pixels_are_compared_in_whatever_unit_they_are_given() -> None:
    image = Image(np.zeros((9, 9), np.uint8), "yx", (650.0, 650.0), "nanometer")
    assert doubts_of_image(image, seen(pixel_size=[0.4, 0.7]), 200) == ""
    assert "A pixel of this image is 0.65 µm wide, of those that nuclei learned from 2 to 3 µm" in doubts_of_image(
        image, seen(pixel_size=[2.0, 3.0]), 200
    )
    assert doubts_of_image(Image(image.array, "yx"), seen(pixel_size=[2.0, 3.0]), 200) == ""


@pytest.mark.parametrize(("apart", "doubted"), [(0.9, True), (1.1, False), (9.9, False), (10.1, True)])
def test_slices_of_another_distance_are_doubted_by_a_3d_model(apart: float, doubted: bool) -> None:
    image = Image(np.zeros((3, 9, 9), np.uint8), "zyx", (apart, 1.0, 1.0), "micrometer")
    known = make_model(dims=3, task="objects").card.with_(training={"conditions": {"flatness": [2.0, 5.0]}})
    assert ("The slices of this image are" in doubts_of_image(image, known, 200)) == doubted


@pytest.mark.parametrize(("brightness", "word"), [(0.65, "mostly bright"), (0.55, ""), (None, "")])
def test_an_inverted_image_is_doubted(brightness: float | None, word: str) -> None:
    image = Image(np.zeros((9, 9), np.uint8), "yx")
    sentence = doubts_of_image(image, seen(brightness=[0.1, 0.2]), 200, brightness)
    assert word in sentence
    assert bool(sentence) == bool(word)


def test_what_was_learned_under_is_the_span_of_all_rounds() -> None:
    image = Image(np.zeros((120, 120), np.uint8), "yx", (0.5, 0.5), "micrometer")
    painted = np.where(discs((120, 120), SIX, radius=6) > 0, discs((120, 120), SIX, radius=6) + 1, 1)
    first = conditions(card(diameter=30.0), [image], [0.2], [painted])
    assert first == {"brightness": [0.2, 0.2], "pixel_size": [0.5, 0.5], "diameter": [11.9948, 30.0]}
    known = card(diameter=30.0, training={"conditions": first})
    assert conditions(known, [], [0.1], [])["brightness"] == [0.1, 0.2]
    assert learned(known, "diameter") == (11.9948, 30.0)


@pytest.mark.parametrize("nonsense", [None, 3, "x", [], [1], ["a", "b"], [None, 2], {"a": 1}])
def test_nonsense_in_the_record_of_a_stranger_is_no_condition(nonsense: object) -> None:
    assert learned(card(training={"conditions": {"brightness": nonsense}}), "brightness") == ()
    assert learned(card(training={"conditions": nonsense}), "brightness") == ()
