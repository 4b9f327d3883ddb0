"""A round of lessons: what is painted becomes annotations, and a version that says how it was made."""

import numpy as np
import pytest

from napari_unet.engine.card import ModelCard
from napari_unet.engine.errors import InvalidAnnotation, InvalidImage
from napari_unet.engine.image import Image
from napari_unet.engine.lesson import Lesson, digest, teach
from napari_unet.engine.model import Model
from napari_unet.engine.settings import TrainSettings
from napari_unet.engine.training import StepDone, Trained

from .conftest import discs, make_model

QUICK = TrainSettings(steps=3, batch=1, patch=32, validate_every=2, device="cpu")


def painted() -> np.ndarray:
    """Return strokes through discs and ground: every fourth row."""
    labels = np.zeros((96, 96), dtype=np.uint8)
    labels[::4] = (discs() > 0)[::4] + 1
    return labels


def picture(shape: tuple[int, ...] = (96, 96)) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.broadcast_to(discs() > 0, shape) * 100.0 + rng.normal(0, 5, shape)


def test_only_painted_planes_become_annotations() -> None:
    labels = np.zeros((4, 96, 96), dtype=np.uint8)
    labels[2] = painted()
    lesson = Lesson(Image(picture((4, 96, 96)), "tyx"), labels)
    (annotation,) = lesson.annotations(make_model().card)
    np.testing.assert_array_equal(annotation.labels, painted())
    assert annotation.pixels.shape == (1, 96, 96)


def test_pixels_are_normalised_over_the_whole_image_not_over_the_plane() -> None:
    stack = picture((2, 96, 96))
    stack[0] = stack[0] * 10
    labels = np.zeros(stack.shape, dtype=np.uint8)
    labels[1] = painted()
    (annotation,) = Lesson(Image(stack, "zyx"), labels).annotations(make_model().card)
    low, high = np.percentile(stack, (1.0, 99.8))
    np.testing.assert_allclose(annotation.pixels[0], (stack[1] - low) / (high - low), atol=1e-5)


def test_a_volume_is_one_annotation() -> None:
    labels = np.zeros((8, 96, 96), dtype=np.uint8)
    labels[2] = painted()
    lesson = Lesson(Image(picture((8, 96, 96)), "zyx"), labels)
    (annotation,) = lesson.annotations(make_model(dims=3).card)
    assert annotation.labels.shape == (8, 96, 96)


def test_what_was_chosen_to_be_held_out_stays_so() -> None:
    held_out = np.zeros((96, 96), dtype=bool)
    held_out[8] = True
    (annotation,) = Lesson(Image(picture(), "yx"), painted(), held_out).annotations(make_model().card)
    np.testing.assert_array_equal(annotation.held_out, held_out)


def test_a_stroke_that_judges_is_counted_apart_from_one_that_it_touches() -> None:
    labels, held_out = np.zeros((96, 96), dtype=np.uint8), np.zeros((96, 96), dtype=bool)
    labels[4:8, 10:30], held_out[6:8] = 2, True
    assert Lesson(Image(picture(), "yx"), labels, held_out).strokes(make_model().card).count() == (1, 1)


def test_another_shape_is_told() -> None:
    with pytest.raises(InvalidAnnotation, match=r"shape \(50, 50\), but the image needs \(96, 96\)"):
        Lesson(Image(picture(), "yx"), np.zeros((50, 50), dtype=np.uint8))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.full((4, 5), np.nan), "holds float64 values: give whole numbers"),
        (np.full((4, 5), -128, np.int8), "holds the value -128: use 0 to 16777215"),
        (np.full((4, 5), 2**64 - 1, np.uint64), "holds the value 18446744073709551615"),
    ],
)
def test_values_that_mean_nothing_are_told(labels: np.ndarray, words: str) -> None:
    with pytest.raises(InvalidAnnotation, match=words):
        Lesson(Image(np.eye(4, 5), "yx"), labels)


def test_annotations_of_any_small_type_teach(tiny: Model) -> None:
    """Found by fuzzing: int8 holds no 255, with which labels were compared."""
    for dtype in (np.int8, np.uint64):
        labels = np.ones((32, 32), dtype)
        labels[8:20] = 2
        *_, last = teach(tiny, [Lesson(Image(np.eye(32), "yx"), labels)], TrainSettings(steps=1, batch=1, device="cpu"))
        assert last.steps == 1


def test_nan_in_the_image_is_told(tiny: Model) -> None:
    pixels = picture()
    pixels[3, 3] = np.nan
    with pytest.raises(InvalidImage, match="1 NaN or infinite values"):
        list(teach(tiny, [Lesson(Image(pixels, "yx"), painted())], QUICK))


def test_without_lessons_nothing_is_painted(tiny: Model) -> None:
    with pytest.raises(InvalidAnnotation, match="Nothing is painted yet"):
        list(teach(tiny, [], QUICK))


def test_the_version_says_how_it_was_made(tiny: Model) -> None:
    *events, last = teach(tiny, [Lesson(Image(picture(), "yx", name="discs"), painted())], QUICK, name="mine")
    assert isinstance(last, Trained)
    card = last.model.card
    assert card.name == "mine"
    assert card.parent == tiny.card.identity
    assert card.training["steps"] == 3
    assert card.training["images"] == ["discs"]
    assert card.training["held_out_strokes"] > 0
    assert len(card.training["annotations"]) == 64
    assert ModelCard.from_json(card.to_json()) == card
    assert sum(isinstance(e, StepDone) for e in events) == 3


def test_the_version_says_how_wide_objects_were(tiny: Model) -> None:
    model = make_model(task="objects", diameter=10.0)
    *_, last = teach(model, [Lesson(Image(picture(), "yx"), painted(), diameter=20)], QUICK)
    assert isinstance(last, Trained)
    assert last.model.card.training["diameters"] == [20]
    assert last.model.card.diameter == 10


def test_several_images_train_one_model(tiny: Model) -> None:
    lessons = [Lesson(Image(picture(), "yx", name=name), painted()) for name in ("first", "second")]
    *_, last = teach(tiny, lessons, QUICK)
    assert last.model.card.training["images"] == ["first", "second"]


def test_a_class_that_is_new_is_added(tiny: Model) -> None:
    labels = painted()
    labels[50] = 3
    lesson = Lesson(Image(picture(), "yx"), labels)
    *_, last = teach(tiny, [lesson], QUICK, classes=("background", "foreground", "debris"))
    assert last.model.card.classes == ("background", "foreground", "debris")
    assert last.model.card.spec.out_channels == 3


def test_the_digest_tells_annotations_and_held_out_strokes_apart() -> None:
    card, image = make_model().card, Image(picture(), "yx")
    other = painted()
    other[0, 0] = 0
    found = [
        digest(lesson.annotations(card))
        for lesson in (
            Lesson(image, painted()),
            Lesson(image, painted().astype(np.int32)),
            Lesson(image, other),
            Lesson(image, painted(), np.zeros((96, 96), dtype=bool)),
        )
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 3
