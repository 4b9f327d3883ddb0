"""Zoom: the image brought to the size of objects that a model knows, in parts as in one; strokes and labels too."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from scipy.ndimage import gaussian_filter

from napari_unet.engine.errors import InvalidImage, InvalidSettings
from napari_unet.engine.files import open_image, read_record
from napari_unet.engine.image import Image
from napari_unet.engine.inference import Segmented, estimate_diameter, relabel, segment
from napari_unet.engine.lesson import Lesson
from napari_unet.engine.model import Model, load_model_file
from napari_unet.engine.regions import RegionsDone, segment_by_regions
from napari_unet.engine.settings import BatchSettings, ObjectSettings, SegmentSettings
from napari_unet.engine.zoom import Zoom, resampled

from .conftest import discs, make_model
from .test_regions import hills, landscape_model

SHAPES = [((97, 61), (31, 20)), ((40, 33), (97, 70)), ((9, 9), (1, 2)), ((12, 30, 31), (5, 40, 31))]


def whole(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def bright(diameter: float = 10.0) -> Model:
    """Return a model that takes bright for objects, and is used to objects of a diameter."""
    model = landscape_model()
    return Model(model.card.with_(diameter=diameter), model.network)


def result_of(image: np.ndarray, model: Model, **settings: object) -> Segmented:
    *_, last = segment(Image(image, "yx"), model, SegmentSettings(device="cpu", **settings))
    return last


@pytest.mark.parametrize(("full", "seen"), SHAPES[:3])
def test_an_image_is_resampled_as_pillow_does(
    full: tuple[int, int], seen: tuple[int, int], rng: np.random.Generator
) -> None:
    image = rng.random(full).astype(np.float32)
    found = resampled(lambda region: image[(None, *region)], whole(seen), full, seen)[0]
    pillow = PIL.Image.fromarray(image).resize(seen[::-1], PIL.Image.Resampling.BILINEAR)
    np.testing.assert_allclose(found, np.asarray(pillow), atol=1e-6)


@pytest.mark.parametrize(("full", "seen"), SHAPES)
def test_a_part_is_bit_for_bit_what_the_whole_is(
    full: tuple[int, ...], seen: tuple[int, ...], rng: np.random.Generator
) -> None:
    image = rng.random((2, *full))
    read = lambda region: image[(slice(None), *region)]  # noqa: E731
    part = tuple(slice(n // 3, n - n // 4) for n in seen)
    assert np.array_equal(
        resampled(read, part, full, seen), resampled(read, whole(seen), full, seen)[(slice(None), *part)]
    )


@pytest.mark.parametrize(("full", "seen"), SHAPES)
def test_each_pixel_of_the_image_belongs_to_one_that_is_seen(full: tuple[int, ...], seen: tuple[int, ...]) -> None:
    zoom, numbers = Zoom(full, seen), np.arange(np.prod(seen)).reshape(seen)
    labels = zoom.labels(numbers.__getitem__, whole(full))
    for at in np.ndindex(*seen):
        mine = zoom.inner(tuple(slice(i, i + 1) for i in at))
        assert (labels[mine] == numbers[at]).all()
    assert sum(labels[zoom.inner(tuple(slice(i, i + 1) for i in at))].size for at in np.ndindex(*seen)) == labels.size


@pytest.mark.parametrize(("full", "seen"), [((97, 61), (31, 20)), ((30, 44, 41), (12, 17, 16))])
def test_objects_come_back_smoothly_and_in_parts_as_in_one(
    full: tuple[int, ...], seen: tuple[int, ...], monkeypatch, rng
) -> None:
    zoom, small = Zoom(full, seen), rng.integers(0, 4, seen)
    once = zoom.objects(small.__getitem__, whole(full))
    monkeypatch.setattr("napari_unet.engine.zoom.AT_ONCE", 200)
    assert np.array_equal(zoom.objects(small.__getitem__, whole(full)), once)
    part = tuple(slice(n // 4, n // 2) for n in full)
    assert np.array_equal(zoom.objects(small.__getitem__, part), once[part])
    assert zoom.objects(small.__getitem__, tuple(slice(3, 3) for _ in full)).size == 0


def test_a_disc_comes_back_rounder_and_corners_stay() -> None:
    zoom = Zoom((120, 120), (40, 40))
    y, x = np.mgrid[:40, :40]
    disc = (np.hypot(y - 19.5, x - 19.5) < 12).astype(int)
    large = np.mgrid[:120, :120]
    true = np.hypot(large[0] - 59.5, large[1] - 59.5) < 36
    errors = [
        np.mean((found > 0) != true)
        for found in (
            zoom.objects(disc.__getitem__, whole(true.shape)),
            zoom.labels(disc.__getitem__, whole(true.shape)),
        )
    ]
    assert errors[0] < 0.85 * errors[1]
    four = zoom.objects((1 + (x > 19) + 2 * (y > 19)).__getitem__, whole(true.shape))
    assert np.array_equal(four, 1 + (large[1] > 59) + 2 * (large[0] > 59))


def test_a_thin_stroke_leaves_a_trace_and_the_middle_decides() -> None:
    painted = np.zeros((40, 40), dtype=np.int32)
    painted[17] = 3
    painted[:, 20:] = 1
    small = Zoom((40, 40), (10, 10)).strokes(painted)
    assert (small[:, 5:] == 1).all()
    assert small[4, :5].tolist() == [3] * 5
    assert np.count_nonzero(small[:, :5]) == 5
    assert (Zoom((40, 40), (80, 80)).strokes(painted)[34:36, :40] == 3).all()


def test_the_model_sees_objects_as_large_as_it_knows_them() -> None:
    assert Zoom.make(bright(10).card, 25, (100, 51)) == Zoom((100, 51), (40, 20))
    assert Zoom.make(bright(10).card, 5, (100, 51)).factor == 2
    assert not Zoom.make(bright(10).card, None, (100, 51)).changes


@pytest.mark.parametrize("diameter", [5, 16, 30])
def test_tiles_and_regions_give_the_same_objects(diameter: int, tmp_path: Path) -> None:
    image, model = hills((150, 190), 60), bright()
    settings = SegmentSettings(device="cpu", tile=32, diameter=diameter)
    once, tiled = result_of(image, model, diameter=diameter), result_of(image, model, diameter=diameter, tile=32)
    assert once.labels.shape == image.shape
    assert once.labels.max() > 5
    assert np.array_equal(once.labels, tiled.labels)
    for _ in segment_by_regions(
        Image(image, "yx"), model, BatchSettings(settings, ending=".zarr", block=32), tmp_path / "labels.zarr", {}
    ):
        pass
    regions = np.asarray(open_image(tmp_path / "labels.zarr").array[...])
    pairs = np.unique(np.stack([once.labels.ravel(), regions.ravel()]), axis=1)  # the numbers differ
    assert pairs.shape[1] == once.labels.max() + 1 == regions.max() + 1


def test_a_resumed_run_by_regions_does_not_estimate_the_diameter_again(tmp_path: Path, monkeypatch) -> None:
    estimated = []

    def estimate(*args: object) -> int:
        estimated.append(args)
        return 16

    monkeypatch.setattr("napari_unet.engine.regions.object_diameter", estimate)
    image, settings = Image(hills((150, 190), 60), "yx"), BatchSettings(SegmentSettings(device="cpu"), block=32)
    target = tmp_path / "labels.zarr"
    events = segment_by_regions(image, bright(), settings, target, {})
    for _ in range(9):
        next(events)
    events.close()
    assert [*segment_by_regions(image, bright(), settings, target, {})][-1] == RegionsDone()
    assert len(estimated) == 1
    assert read_record(target)["diameter"] == 16


def test_other_thresholds_are_tried_on_what_the_network_saw() -> None:
    image, model = hills((80, 90), 20), bright()
    thresholds = ObjectSettings(foreground_threshold=0.7, seed_threshold=0.3)
    first = result_of(image, model, diameter=20)
    assert first.maps is not None
    assert first.maps.shape == (3, 40, 45)
    assert np.array_equal(relabel(first, thresholds), result_of(image, model, diameter=20, objects=thresholds).labels)


def test_probabilities_have_the_shape_of_the_image() -> None:
    found = result_of(hills((80, 91), 20), bright(), diameter=20, probabilities=True).probabilities
    assert found is not None
    assert found.shape == (3, 80, 91)
    assert found[0].max() > 0.9


def test_a_volume_is_zoomed_along_all_axes(rng: np.random.Generator) -> None:
    model = landscape_model(3)
    model = Model(model.card.with_(diameter=5.0), model.network)
    *_, last = segment(Image(rng.random((12, 20, 22)), "zyx"), model, SegmentSettings(device="cpu", diameter=10))
    assert last.labels.shape == (12, 20, 22)
    assert last.maps.shape == (3, 6, 10, 11)


def test_strokes_are_learned_from_as_the_model_sees_them() -> None:
    image, labels = np.zeros((40, 60)), np.zeros((40, 60), dtype=np.uint8)
    image[10:20, 10:20], labels[12:16, 12:16], labels[30:34] = 1, 2, 1
    (found,) = Lesson(Image(image, "yx"), labels, diameter=20).annotations(bright(10).card)
    assert found.pixels.shape == (1, 20, 30)
    assert np.array_equal(np.argwhere(found.labels == 2), [[6, 6], [6, 7], [7, 6], [7, 7]])
    assert (found.labels[15:17] == 1).all()


@pytest.mark.parametrize("width", [12, 24, 60, 150])
def test_the_diameter_is_estimated(width: int) -> None:
    image = Image(grid(width, 2 * width, 6 * width), "yx")
    assert estimate_diameter(image, shipped(), SegmentSettings(device="cpu")) == pytest.approx(width, rel=0.15)


@cache
def shipped() -> Model:
    return load_model_file(Path(__file__).parents[2] / "src" / "napari_unet" / "weights" / "nuclei.safetensors")


def grid(width: int, apart: int, edge: int) -> np.ndarray:
    """Return bright discs in rows."""
    y, x = np.indices((edge, edge)) % apart - apart // 2
    return (np.hypot(y, x) < width / 2).astype(np.float32)


def taught(model: Model, *diameters: int) -> Model:
    """Return a model as a user's lessons at these diameters leave it; none: on images as they are."""
    return Model(model.card.with_(training={"diameters": list(diameters)}), model.network)


def test_large_objects_are_shrunk_without_being_asked(tmp_path: Path) -> None:
    image, nuclei = grid(60, 100, 600), shipped()
    found = result_of(image, nuclei)
    assert found.record["diameter"] == pytest.approx(60, rel=0.25)
    assert np.array_equal(found.labels, result_of(image, nuclei, diameter=found.record["diameter"]).labels)
    for _ in segment_by_regions(Image(image, "yx"), nuclei, BatchSettings(), tmp_path / "labels.zarr", {}):
        pass
    assert np.array_equal(open_image(tmp_path / "labels.zarr").array[...], found.labels)


@pytest.mark.parametrize("image", [grid(12, 24, 300), grid(24, 40, 400), np.eye(60)], ids=["small", "known", "nothing"])
def test_other_objects_are_seen_as_they_are(image: np.ndarray) -> None:
    assert result_of(image.astype(np.float32), shipped()).record["diameter"] is None


def test_a_cluster_of_small_objects_is_no_large_one() -> None:
    nuclei, image = shipped(), gaussian_filter(grid(12, 14, 600) * grid(80, 120, 600), 1)
    assert result_of(image, nuclei).record["diameter"] is None
    assert estimate_diameter(Image(image, "yx"), nuclei, SegmentSettings(device="cpu")) == pytest.approx(12, rel=0.2)


def test_a_taught_model_sees_objects_as_it_was_taught() -> None:
    nuclei = shipped()
    assert result_of(grid(60, 100, 600), taught(nuclei)).record["diameter"] is None
    assert result_of(grid(60, 100, 600), taught(nuclei, 50, 150)).record["diameter"] == 50
    assert result_of(grid(60, 100, 600), taught(nuclei, 150)).record["diameter"] == pytest.approx(60, rel=0.25)
    assert result_of(grid(24, 40, 400), taught(nuclei, 32)).record["diameter"] == 32
    assert result_of(grid(12, 24, 300), taught(nuclei, 32)).record["diameter"] is None


def test_a_model_of_large_objects_looks_at_the_image_as_it_is() -> None:
    y, x = np.indices((900, 900)) % 300 - 150
    image = Image((np.hypot(y, x) < 75).astype(np.float32), "yx")
    assert estimate_diameter(image, bright(170), SegmentSettings(device="cpu")) == pytest.approx(150, rel=0.15)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: result_of(discs(), make_model(), diameter=20), InvalidSettings, "leave the object diameter out"),
        (lambda: result_of(discs(), bright(0.0), diameter=20), InvalidSettings, "leave the object diameter out"),
        (lambda: result_of(discs(), bright(), diameter=1), InvalidSettings, "enlarged 10 times: give 2 or more"),
        (partial(SegmentSettings, diameter=0), InvalidSettings, "diameter is 0"),
        (
            lambda: estimate_diameter(Image(discs(), "yx"), bright(0.0)),
            InvalidSettings,
            "leave the object diameter out",
        ),
        (lambda: estimate_diameter(Image(np.eye(50), "yx"), bright()), InvalidImage, "give its diameter"),
    ],
)
def test_what_cannot_be_is_told(call, error: type[Exception], words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=words):
        call()


def test_a_model_that_learned_at_one_size_estimates_where_no_diameter_is_given(tmp_path: Path) -> None:
    y, x = np.indices((240, 240)) % 80 - 40
    image, plain = (np.hypot(y, x) < 20).astype(np.float32), bright(20)
    model = Model(plain.card.with_(scaled=True), plain.network)
    width = estimate_diameter(Image(image, "yx"), model, SegmentSettings(device="cpu"))
    found, given = result_of(image, model), result_of(image, plain, diameter=width)
    assert found.record["diameter"] == width == pytest.approx(40, abs=3)
    assert np.array_equal(found.labels, given.labels)
    for _ in segment_by_regions(Image(image, "yx"), model, BatchSettings(), tmp_path / "labels.zarr", {}):
        pass
    assert np.array_equal(open_image(tmp_path / "labels.zarr").array[...], given.labels)
    assert result_of(np.eye(60, dtype=np.float32), model).record["diameter"] is None
