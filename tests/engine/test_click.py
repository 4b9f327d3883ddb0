"""One click, one object. The network is played by a threshold where the test is about all the rest."""

from __future__ import annotations

import numpy as np
import pytest

import napari_unet
from napari_unet.engine import click
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.click import Click, ClickSegmenter, Window, innermost, merge, next_window
from napari_unet.engine.errors import InvalidImage, InvalidModel, InvalidSettings
from napari_unet.engine.image import Image
from napari_unet.engine.library import SHIPPED
from napari_unet.engine.model import Model, new_model
from napari_unet.engine.prompts import CHANNELS, SIZE, draw_disk

needs_weights = pytest.mark.skipif(
    not (SHIPPED / "click.safetensors").exists(), reason="the weights of the model `click` are not in this checkout"
)


def untrained(**changes: object) -> Model:
    """Return a small model of the task click."""
    spec = UNetSpec(in_channels=CHANNELS, out_channels=1, channels=(4, 8))
    return new_model(ModelCard("small", "click", spec, **changes))  # type: ignore[arg-type]


class Threshold:
    """Plays the network: what is brighter than the middle is object. Keeps what it was shown."""

    def __init__(self) -> None:
        self.shown: list[np.ndarray] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.shown.extend(batch.copy())
        return np.where(batch[:, :1] > 0.5, 5.0, -5.0).astype(np.float32)


@pytest.fixture
def network() -> Threshold:
    return Threshold()


@pytest.fixture
def segmenter(network: Threshold) -> ClickSegmenter:
    result = ClickSegmenter(untrained(), device="cpu")
    result._executor = network  # type: ignore[assignment]
    return result


def squares(shape: tuple[int, int], *corners: tuple[int, int, int]) -> np.ndarray:
    """Return black with white squares, each (top, left, edge)."""
    image = np.zeros(shape, dtype=np.uint8)
    for top, left, edge in corners:
        image[top : top + edge, left : left + edge] = 200
    return image


# --- one click --------------------------------------------------------------------------------------------------------


def test_only_the_piece_that_is_clicked_on_comes_back(segmenter: ClickSegmenter) -> None:
    image = squares((128, 128), (20, 20, 40), (80, 80, 30))
    segmenter.set_image(image)
    mask = segmenter.segment([Click((40, 40))])
    assert np.array_equal(mask, squares((128, 128), (20, 20, 40)) > 0)


def test_a_plain_tuple_is_a_click(segmenter: ClickSegmenter) -> None:
    segmenter.set_image(squares((128, 128), (20, 20, 40)))
    assert np.array_equal(segmenter.segment([((40, 40), True)]), segmenter.segment([Click((40, 40))]))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.int16, bool])
def test_every_pixel_type_gives_the_same_mask(segmenter: ClickSegmenter, dtype: type) -> None:
    image = squares((128, 128), (20, 20, 40)) // 200
    segmenter.set_image(image.astype(dtype) * (60000 if dtype is np.uint16 else dtype(1)))
    assert np.array_equal(segmenter.segment([Click((40, 40))]), image > 0)


@pytest.mark.parametrize("colours", [3, 4])
def test_colours_are_seen_as_grey(segmenter: ClickSegmenter, colours: int) -> None:
    image = np.repeat(squares((128, 128), (20, 20, 40))[..., None], colours, axis=2)
    segmenter.set_image(image)
    assert np.array_equal(segmenter.segment([Click((40, 40))]), image[..., 0] > 0)


def test_one_channel_of_many_is_chosen(segmenter: ClickSegmenter) -> None:
    array = np.stack([squares((96, 96), (60, 60, 30)), squares((96, 96), (10, 10, 40))])
    segmenter.set_image(Image(array, "cyx"), channel=1)
    assert np.array_equal(segmenter.segment([Click((30, 30))]), array[1] > 0)


def test_the_network_sees_both_kinds_of_clicks(segmenter: ClickSegmenter, network: Threshold) -> None:
    segmenter.set_image(squares((SIZE, SIZE), (20, 20, 60)))
    segmenter.segment([Click((40, 50)), Click((100, 110), positive=False)])
    (whole,) = (s for s in network.shown if s[2].any())
    assert (whole[1].sum() > 20, whole[2].sum() > 20, whole[3].sum()) == (True, True, 0)


def test_a_window_knows_where_the_network_sees_a_pixel() -> None:
    assert Window(10, 20, SIZE // 2).to_network((42, 36)) == (64.5, 32.5)  # the middle of four pixels


def test_a_click_is_a_disk() -> None:
    channel = np.zeros((SIZE, SIZE), dtype=np.float32)
    draw_disk(channel, (40, 50))
    assert (channel[40, 53], channel[40, 54], channel.sum()) == (1, 0, 29)


# --- zoom -------------------------------------------------------------------------------------------------------------


def test_an_object_larger_than_the_window_is_found_whole(segmenter: ClickSegmenter) -> None:
    image = squares((600, 600), (100, 100, 400))
    segmenter.set_image(image + np.random.default_rng(0).integers(0, 9, image.shape, dtype=np.uint8))
    mask = segmenter.segment([Click((300, 300))])
    both, either = np.count_nonzero(mask & (image > 0)), np.count_nonzero(mask | (image > 0))
    assert both / either > 0.97  # one pixel of the network's is more than four of the image


def test_the_first_windows_are_of_several_sizes() -> None:
    windows = click.first_windows([(500, 500)], (1000, 1000))
    assert [w.side for w in windows] == [32, 48, 72, 108, 160, 240, 360, 540]


def test_no_first_window_is_much_larger_than_the_image() -> None:
    assert [w.side for w in click.first_windows([(5, 5)], (60, 60))] == [32, 48, 72]


def test_clicks_far_apart_are_in_every_first_window() -> None:
    assert all(w.side >= 1.4 * 201 for w in click.first_windows([(100, 100), (300, 100)], (1000, 1000)))


def answer(top: int, left: int, edge: int, logit: float = 9.0) -> np.ndarray:
    logits = np.full((SIZE, SIZE), -9.0, dtype=np.float32)
    logits[top : top + edge, left : left + edge] = logit
    return logits


def test_an_answer_is_as_certain_as_its_probability() -> None:
    logits = answer(40, 40, 40, logit=float(np.log(4)))
    assert click.certainty(logits, Window(100, 100, SIZE), [((160, 160), True)]) == pytest.approx(0.8)


def test_an_answer_that_does_not_follow_a_click_counts_less() -> None:
    clicks = [((160, 160), True), ((150, 150), False)]
    certainty = click.certainty(answer(40, 40, 40), Window(100, 100, SIZE), clicks)
    assert certainty == pytest.approx(click.DISOBEYED, abs=1e-3)


def test_an_answer_without_the_clicked_pixel_is_worth_nothing() -> None:
    assert click.certainty(answer(90, 90, 30), Window(100, 100, SIZE), [((160, 160), True)]) == 0


def test_agreement_is_the_sum_of_overlaps() -> None:
    masks = [np.array([1, 1, 0, 0], bool)[None], np.array([1, 1, 1, 1], bool)[None], np.array([0, 0, 0, 0], bool)[None]]
    assert click.agreement(masks).tolist() == [0.5, 0.5, 0]


def test_the_answer_at_the_border_of_the_image_is_not_cut_off() -> None:
    found = np.zeros((128, 128), dtype=bool)
    found[:64, :64] = True
    assert next_window(Window(0, 0, 128), found, [(5, 5)], found.shape) is None


def test_an_answer_cut_off_by_the_window_doubles_it() -> None:
    found = np.zeros((512, 512), dtype=bool)
    found[100:228, 150:200] = True
    window = next_window(Window(100, 100, 128), found, [(160, 160)], found.shape)
    assert window is not None
    assert window.side == 256


def test_a_small_answer_gets_a_window_of_its_own_size() -> None:
    found = np.zeros((512, 512), dtype=bool)
    found[160:180, 160:180] = True
    window = next_window(Window(100, 100, 128), found, [(170, 170)], found.shape)
    assert window == Window(152, 152, 36)  # 20 pixels, 1.8 times


def test_a_fitting_answer_is_final() -> None:
    found = np.zeros((512, 512), dtype=bool)
    found[130:200, 130:200] = True
    assert next_window(Window(100, 100, 128), found, [(160, 160)], found.shape) is None


def test_a_window_is_moved_into_the_image() -> None:
    assert Window.around((2, 3), 64, (200, 200)) == Window(0, 0, 64)
    assert Window.around((198, 100), 64, (200, 200)) == Window(136, 68, 64)


def test_a_window_larger_than_the_image_is_centred_on_it() -> None:
    assert Window.around((0, 0), 64, (40, 200)) == Window(-12, 0, 64)


# --- corrections ------------------------------------------------------------------------------------------------------


def test_merging_takes_only_the_change_that_holds_the_click() -> None:
    previous = np.array([[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]], dtype=bool)
    found = np.array([[0, 1, 1, 0, 1], [1, 1, 1, 0, 0]], dtype=bool)
    merged = merge(previous, found, (1, 2), positive=True)
    assert merged.astype(int).tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]


def test_merging_a_negative_click_takes_the_piece_away() -> None:
    previous = np.array([[1, 1, 1, 1]], dtype=bool)
    found = np.array([[0, 1, 0, 0]], dtype=bool)
    assert merge(previous, found, (0, 3), positive=False).astype(int).tolist() == [[1, 1, 0, 0]]


def test_a_click_that_the_network_ignores_is_painted() -> None:
    previous = np.zeros((9, 9), dtype=bool)
    assert np.count_nonzero(merge(previous, previous, (4, 4), positive=True)) == 29


def test_a_click_that_agrees_changes_nothing() -> None:
    previous = np.array([[1, 1, 0]], dtype=bool)
    found = np.array([[1, 1, 1]], dtype=bool)
    assert np.array_equal(merge(previous, found, (0, 0), positive=True), previous)


def test_what_was_right_stays(segmenter: ClickSegmenter) -> None:
    image = squares((128, 128), (20, 20, 40), (20, 60, 20))
    segmenter.set_image(image)
    previous = np.zeros(image.shape, dtype=bool)
    previous[20:60, 20:56] = True  # drawn by hand, and not what the network would say
    previous[60:64, 20:30] = True
    mask = segmenter.segment([Click((40, 40)), Click((30, 70))], previous)
    assert mask[60:64, 20:30].all()
    assert mask[20:40, 56:80].all()


def test_a_pixel_clicked_negative_is_out(segmenter: ClickSegmenter) -> None:
    image = squares((128, 128), (20, 20, 40))
    segmenter.set_image(image)
    mask = segmenter.segment([Click((40, 40)), Click((50, 50), positive=False)], image > 0)
    assert not mask[50, 50]
    assert mask[40, 40]


def test_an_object_picked_up_stays_when_a_piece_apart_is_added(segmenter: ClickSegmenter) -> None:
    image = squares((128, 128), (20, 20, 40), (80, 80, 30))
    segmenter.set_image(image)
    previous = squares((128, 128), (20, 20, 40)) > 0
    assert np.array_equal(segmenter.segment([Click((95, 95))], previous), image > 0)


def test_the_previous_mask_is_not_changed(segmenter: ClickSegmenter) -> None:
    image = squares((128, 128), (20, 20, 40))
    segmenter.set_image(image)
    previous = image > 0
    segmenter.segment([Click((40, 40)), Click((50, 50), positive=False)], previous)
    assert np.array_equal(previous, image > 0)


def test_the_piece_of_the_prior_under_the_click_is_shown_to_the_network(
    segmenter: ClickSegmenter, network: Threshold
) -> None:
    image = squares((128, 128), (20, 20, 40), (80, 80, 30))
    segmenter.set_image(image)
    segmenter.segment([Click((40, 40))], prior=np.where(image > 0, 0.9, 0.1))
    assert network.shown[0][3].sum() == pytest.approx((40 / (40 * 1.4)) ** 2 * SIZE**2, rel=0.05)


def test_a_prior_elsewhere_has_no_part(segmenter: ClickSegmenter, network: Threshold) -> None:
    segmenter.set_image(squares((128, 128), (20, 20, 40)))
    segmenter.segment([Click((40, 40))], prior=squares((128, 128), (80, 80, 30)) > 0)
    assert network.shown[0][3].sum() == 0


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [(-1, 5), (5, 64), (64, 5), (5, -0.6)])
def test_a_click_outside_the_image_is_refused(segmenter: ClickSegmenter, position: tuple[float, float]) -> None:
    segmenter.set_image(squares((64, 64), (20, 20, 20)))
    with pytest.raises(InvalidSettings, match="outside the image of 64 x 64"):
        segmenter.segment([Click(position)])


@pytest.mark.parametrize("position", [(0, 0), (63, 63), (-0.5, 63.4)])
def test_a_click_on_the_border_is_fine(segmenter: ClickSegmenter, position: tuple[float, float]) -> None:
    segmenter.set_image(squares((64, 64), (20, 20, 20)))
    assert segmenter.segment([Click(position)]).shape == (64, 64)


def test_clicks_need_an_image(segmenter: ClickSegmenter) -> None:
    with pytest.raises(InvalidImage, match="call set_image first"):
        segmenter.segment([Click((0, 0))])


def test_no_click_is_refused(segmenter: ClickSegmenter) -> None:
    segmenter.set_image(squares((64, 64), (20, 20, 20)))
    with pytest.raises(InvalidSettings, match="give at least one"):
        segmenter.segment([])


def test_only_negative_clicks_are_refused(segmenter: ClickSegmenter) -> None:
    segmenter.set_image(squares((64, 64), (20, 20, 20)))
    with pytest.raises(InvalidSettings, match="All clicks are negative"):
        segmenter.segment([Click((5, 5), positive=False)])


@pytest.mark.parametrize("wrong", [(5, 5, 5), "ab", ((1, 2, 3), True), ((float("nan"), 1), True), ((1e400, 1), True)])
def test_what_is_no_click_is_refused(segmenter: ClickSegmenter, wrong: tuple[object, ...]) -> None:
    segmenter.set_image(squares((64, 64), (20, 20, 20)))
    with pytest.raises(InvalidSettings, match="no click"):
        segmenter.segment([wrong])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(segmenter: ClickSegmenter, value: float) -> None:
    image = np.random.default_rng(0).random((40, 40)).astype(np.float32)
    image[5, 5] = value
    with pytest.raises(InvalidImage, match="NaN or infinite"):
        segmenter.set_image(image)


@pytest.mark.parametrize("shape", [(5,), (4, 5, 6), (2, 3, 4, 5), (0, 5)])
def test_what_is_no_plane_is_refused(segmenter: ClickSegmenter, shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidImage, match=r"plane|empty"):
        segmenter.set_image(np.zeros(shape))


def test_a_stack_is_refused_with_the_remedy(segmenter: ClickSegmenter) -> None:
    with pytest.raises(InvalidImage, match=r"3 planes.*one at a time"):
        segmenter.set_image(Image(np.zeros((3, 8, 8)), "zyx"))


@pytest.mark.parametrize("word", ["previous", "prior"])
def test_a_mask_of_another_shape_is_refused(segmenter: ClickSegmenter, word: str) -> None:
    segmenter.set_image(squares((64, 64), (20, 20, 20)))
    with pytest.raises(InvalidImage, match=r"shape \(3, 3\)"):
        segmenter.segment([Click((5, 5))], **{word: np.ones((3, 3), dtype=bool)})


@pytest.mark.parametrize("shape", [(1, 1), (40, 300)])
def test_a_constant_image_holds_no_object(segmenter: ClickSegmenter, shape: tuple[int, int]) -> None:
    segmenter.set_image(np.full(shape, 7, dtype=np.uint8))
    assert not segmenter.segment([Click((0, 0))]).any()


@pytest.mark.parametrize("position", [(100, 100), (399, 450), (590, 590)])
def test_constant_background_holds_no_object(segmenter: ClickSegmenter, position: tuple[int, int]) -> None:
    segmenter.set_image(squares((600, 600), (400, 400, 100)))
    segmenter._executor = lambda batch: 1 - 2 * np.round(batch[:, :1])  # type: ignore[assignment]
    assert not segmenter.segment([Click(position)]).any()


def test_a_uniform_object_is_no_background(segmenter: ClickSegmenter) -> None:
    image = squares((600, 600), (400, 400, 200))  # it touches the border on two sides
    segmenter.set_image(image)
    assert np.count_nonzero(segmenter.segment([Click((500, 500))])) > 30000


@pytest.mark.parametrize("shape", [(1, 9), (3, 3), (2, 700)])
def test_tiny_and_thin_images_work(shape: tuple[int, int]) -> None:
    segmenter = ClickSegmenter(untrained(), device="cpu")
    segmenter.set_image(np.random.default_rng(0).random(shape))
    assert segmenter.segment([Click((0, 1))]).shape == shape


def test_a_model_of_another_task_is_refused() -> None:
    model = new_model(ModelCard("other", "semantic", UNetSpec(channels=(4, 8))))
    with pytest.raises(InvalidModel, match="does not answer clicks"):
        ClickSegmenter(model)


# --- through slices ---------------------------------------------------------------------------------------------------


def ellipsoid(shape: tuple[int, int, int], radii: tuple[float, float, float]) -> np.ndarray:
    """Return a bool ellipsoid in the middle of a volume."""
    grids = np.ogrid[tuple(slice(0, n) for n in shape)]
    return sum(((g - n // 2) / r) ** 2 for g, n, r in zip(grids, shape, radii, strict=True)) <= 1


def test_an_object_is_followed_to_both_its_ends(segmenter: ClickSegmenter) -> None:
    truth = ellipsoid((31, 96, 96), (10, 25, 25))
    volume = np.where(truth, 200, 20).astype(np.uint8)
    found = {event.z: event.mask for event in segmenter.extend(volume, truth[15], 15)}
    assert set(range(7, 24)) - {15} <= set(found) <= set(range(5, 26)) - {15}
    assert all(np.array_equal(found[z], truth[z]) for z in range(8, 23) if z != 15)


def test_slices_come_outwards_from_the_start(segmenter: ClickSegmenter) -> None:
    truth = ellipsoid((11, 64, 64), (3.5, 20, 20))
    events = [e.z for e in segmenter.extend(np.where(truth, 200, 20).astype(np.uint8), truth[5], 5)]
    up, down = [z for z in events if z > 5], [z for z in events if z < 5]
    assert events == up + down
    assert up == sorted(up)
    assert down == sorted(down, reverse=True)


def test_an_object_does_not_grow_into_a_larger_one(segmenter: ClickSegmenter) -> None:
    volume = np.full((4, 96, 96), 20, dtype=np.uint8)
    volume[:2, 40:56, 40:56] = 200
    volume[2:, 10:90, 10:90] = 200
    assert [e.z for e in segmenter.extend(volume, volume[0] > 100, 0)] == [1]


def test_a_stack_may_lie_along_another_axis(segmenter: ClickSegmenter) -> None:
    truth = ellipsoid((9, 64, 64), (4, 20, 20))
    volume = np.moveaxis(np.where(truth, 200, 20).astype(np.uint8), 0, 2)
    first = [e.z for e in segmenter.extend(volume, truth[4], 4, axis=2)]
    assert first == [e.z for e in segmenter.extend(np.moveaxis(volume, 2, 0), truth[4], 4)]


def test_extending_keeps_the_image_that_was_set(segmenter: ClickSegmenter) -> None:
    image = squares((64, 64), (10, 10, 30))
    segmenter.set_image(image)
    truth = ellipsoid((5, 64, 64), (2, 20, 20))
    list(segmenter.extend(np.where(truth, 200, 20).astype(np.uint8), truth[2], 2))
    assert np.array_equal(segmenter.segment([Click((20, 20))]), image > 0)


def test_a_slice_outside_the_stack_is_refused(segmenter: ClickSegmenter) -> None:
    with pytest.raises(InvalidSettings, match="0 to 2"):
        list(segmenter.extend(np.zeros((3, 8, 8)), np.ones((8, 8), dtype=bool), 3))


def test_an_empty_mask_cannot_be_extended(segmenter: ClickSegmenter) -> None:
    with pytest.raises(InvalidSettings, match="no object in slice 1"):
        list(segmenter.extend(np.zeros((3, 8, 8)), np.zeros((8, 8), dtype=bool), 1))


def test_the_innermost_point_counts_the_border_as_boundary() -> None:
    mask = np.zeros((7, 20), dtype=bool)
    mask[:, :9] = True
    assert innermost(mask)[0] == 3


# --- the shipped model ------------------------------------------------------------------------------------------------


def disks(shape: tuple[int, int], *places: tuple[int, int, int]) -> np.ndarray:
    """Return labels of disks, each (y, x, radius)."""
    labels = np.zeros(shape, dtype=np.int32)
    y, x = np.ogrid[: shape[0], : shape[1]]
    for number, (cy, cx, radius) in enumerate(places, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = number
    return labels


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.count_nonzero(a & b) / np.count_nonzero(a | b))


@pytest.fixture(scope="module")
def shipped() -> ClickSegmenter:
    return ClickSegmenter(device="cpu")


@needs_weights
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("radius", [8, 25, 90])
def test_one_click_finds_a_disk_of_any_size_and_contrast(shipped: ClickSegmenter, radius: int, inverted: bool) -> None:
    labels = disks((400, 400), (200, 180, radius), (60, 60, 30), (330, 340, 30))
    picture = np.where(labels > 0, 160.0, 60.0) + np.random.default_rng(0).normal(0, 8, labels.shape)
    shipped.set_image(255 - picture if inverted else picture)
    assert iou(shipped.segment([Click((200, 180))]), labels == 1) > 0.8


@needs_weights
def test_a_negative_click_takes_a_neighbour_away(shipped: ClickSegmenter) -> None:
    labels = disks((160, 160), (80, 60, 24), (80, 105, 24))
    picture = np.where(labels > 0, 160.0, 60.0) + np.random.default_rng(0).normal(0, 8, labels.shape)
    shipped.set_image(picture)
    mask = shipped.segment([Click((80, 55)), Click((80, 110), positive=False)], labels > 0)
    assert iou(mask, labels == 1) > 0.5  # before: 0.5


@needs_weights
def test_the_same_click_gives_the_same_mask(shipped: ClickSegmenter) -> None:
    shipped.set_image(np.random.default_rng(0).random((200, 200)))
    assert np.array_equal(shipped.segment([Click((90, 90))]), shipped.segment([Click((90, 90))]))


@needs_weights
def test_the_shipped_model_fits_a_laptop() -> None:
    size = (SHIPPED / "click.safetensors").stat().st_size
    assert size <= 10_000_000


def test_click_and_its_segmenter_are_public() -> None:
    assert napari_unet.Click is click.Click
    assert napari_unet.ClickSegmenter is click.ClickSegmenter
