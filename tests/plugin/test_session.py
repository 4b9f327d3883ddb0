"""The verbs of a session, in a viewer without a window."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from numpy.typing import NDArray

from napari_unet.engine.errors import InvalidModel, OutOfMemory
from napari_unet.engine.execution import Executor
from napari_unet.engine.settings import ObjectSettings
from napari_unet.plugin.choice import NO_IMAGE


def two_squares() -> NDArray[np.float32]:
    """Two bright squares of 8 x 8 on dark ground."""
    pixels = np.zeros((40, 60), dtype=np.float32)
    pixels[4:12, 4:12] = pixels[20:28, 30:38] = 1
    return pixels


def results(viewer: ViewerModel) -> list[Labels]:
    return [layer for layer in viewer.layers if isinstance(layer, Labels)]


def test_segmenting_adds_labels_that_say_how_they_were_made(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares(), name="squares")
    session.segment()
    jobs.finish()
    (layer,) = results(viewer)
    np.testing.assert_array_equal(layer.data, two_squares() > 0)
    assert layer.name == "squares labels (bright)"
    assert layer.metadata["napari_unet"]["model"].startswith("bright@1:")
    assert session.state == "idle"
    assert heard.last.text.startswith("Segmented in")


def test_objects_are_counted_and_kept_in_a_small_type(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares())
    session.choose_model(session.library.find("objects"))
    session.segment()
    jobs.finish()
    (layer,) = results(viewer)
    assert layer.data.dtype == np.uint8
    assert set(np.unique(layer.data)) == {0, 1, 2}
    assert heard.last.text.startswith("Found 2 objects in")


def test_labels_appear_tile_by_tile(viewer, session, jobs) -> None:
    viewer.add_image(two_squares())
    session.choose(tile=32)
    session.segment()
    jobs.step()
    (layer,) = results(viewer)
    assert not layer.data.any()
    jobs.step()
    assert layer.data.any() != (layer.data == (two_squares() > 0)).all()
    assert session.dirty
    session.redraw()
    assert not session.dirty
    jobs.finish()
    np.testing.assert_array_equal(layer.data, two_squares() > 0)


def test_how_wide_objects_are_is_estimated_then_used(viewer, session, jobs, heard) -> None:
    y, x = np.indices((360, 360)) % 120 - 60
    viewer.add_image((np.hypot(y, x) < 40).astype(np.float32), name="discs")
    session.choose_model(session.library.find("nuclei"))
    session.estimate_diameter()
    assert session.state == "running"
    jobs.finish()
    assert session.settings.diameter == pytest.approx(80, abs=8)
    assert heard.last.text == f"The objects look about {session.settings.diameter} pixels wide: press Segment."
    session.segment()
    jobs.finish()
    assert heard.last.text.startswith("Found 9 objects in")
    (layer,) = results(viewer)
    assert layer.data.shape == (360, 360)
    assert layer.metadata["napari_unet"]["settings"]["diameter"] == session.settings.diameter
    assert len(layer.features) == 10
    assert layer.features.filter(like="probability").iloc[1:].to_numpy().min() > 0.9


def test_large_objects_are_shrunk_and_it_is_said(viewer, session, jobs, heard) -> None:
    y, x = np.indices((360, 360)) % 120 - 60
    viewer.add_image((np.hypot(y, x) < 40).astype(np.float32), name="discs")
    session.choose_model(session.library.find("nuclei"))
    session.segment()
    jobs.finish()
    (layer,) = results(viewer)
    width = layer.metadata["napari_unet"]["diameter"]
    assert width == pytest.approx(80, abs=16)
    assert heard.last.text.startswith("Found 9 objects in")
    assert f", seen as {width} pixels wide." in heard.last.text
    assert session.settings.diameter is None


def test_an_estimate_that_fails_changes_nothing(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares(), name="squares")
    session.choose_model(session.library.find("nuclei"))
    session.choose(diameter=9)
    session.estimate_diameter()
    jobs.finish()
    assert "measure one and give its diameter" in heard.last.text
    assert heard.last.is_error
    assert session.settings.diameter == 9


def test_running_again_replaces_the_result(viewer, session, jobs) -> None:
    viewer.add_image(two_squares())
    for _ in range(2):
        session.segment()
        jobs.finish()
    assert len(results(viewer)) == 1


@pytest.mark.parametrize("how", ["paint", "data"])
def test_running_again_leaves_an_edited_result_alone(viewer, session, jobs, how: str) -> None:
    viewer.add_image(two_squares())
    session.segment()
    jobs.finish()
    (edited,) = results(viewer)
    if how == "paint":
        edited.paint((35, 50), 1)
    else:
        edited.data = np.ones_like(edited.data)
    kept = edited.data.copy()
    session.segment()
    jobs.finish()
    assert len(results(viewer)) == 2
    np.testing.assert_array_equal(edited.data, kept)


def test_another_model_gets_a_layer_of_its_own(viewer, session, jobs) -> None:
    viewer.add_image(two_squares())
    for model in ("bright", "objects"):
        session.choose_model(session.library.find(model))
        session.segment()
        jobs.finish()
    assert len(results(viewer)) == 2


def test_cancel_takes_the_unfinished_layer_away_and_closes_the_generator(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares())
    session.segment()
    jobs.step()
    session.cancel()
    assert results(viewer) == []
    assert session.state == "stopping"
    jobs.finish()
    assert jobs.closed == 1
    assert session.state == "idle"
    assert heard.last.text == "Cancelled; nothing was changed."


def test_cancelling_a_second_run_brings_the_first_result_back(viewer, session, jobs) -> None:
    viewer.add_image(two_squares())
    session.segment()
    jobs.finish()
    session.segment()
    jobs.step()
    (layer,) = results(viewer)
    assert not layer.data.any()
    session.cancel()
    np.testing.assert_array_equal(layer.data, two_squares() > 0)
    jobs.finish()
    assert layer.editable


def test_only_one_job_runs_at_a_time(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares())
    session.segment()
    session.segment()  # the starter would fail on a second job
    assert heard.last.is_error
    assert "One job is running" in heard.last.text
    jobs.finish()


def test_other_thresholds_change_the_result_without_the_network(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares())
    session.choose_model(session.library.find("objects"))
    session.segment()
    jobs.finish()
    session.rethreshold(ObjectSettings(minimal_size=65))
    assert jobs.step()
    jobs.finish()
    (layer,) = results(viewer)
    assert not layer.data.any()
    assert layer.metadata["napari_unet"]["settings"]["objects"]["minimal_size"] == 65
    assert heard.last.text == "0 objects with these thresholds."
    assert session.state == "idle"


def test_of_many_new_thresholds_only_the_newest_is_computed(viewer, session, jobs) -> None:
    viewer.add_image(two_squares())
    session.choose_model(session.library.find("objects"))
    session.segment()
    jobs.finish()
    for size in (65, 66, 10):
        session.rethreshold(ObjectSettings(minimal_size=size))
    jobs.finish()
    assert jobs.running  # the newest request follows the first one, the one between them is dropped
    jobs.finish()
    assert not jobs.running
    assert results(viewer)[0].data.max() == 2


def test_new_thresholds_leave_an_edited_result_alone(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares())
    session.choose_model(session.library.find("objects"))
    session.segment()
    jobs.finish()
    results(viewer)[0].paint((35, 50), 5)
    session.rethreshold(ObjectSettings(minimal_size=65))
    assert not jobs.running
    assert "edited" in heard.last.text


def test_probabilities_come_as_hidden_image_layers(viewer, session, jobs) -> None:
    squares = viewer.add_image(two_squares(), name="squares")
    session.choose(probabilities=True)
    for _ in range(2):  # the second run replaces those of the first
        session.segment()
        jobs.finish()
    names = [layer.name for layer in viewer.layers]
    assert names == ["squares", "squares background", "squares object", "squares labels (bright)"]
    assert not viewer.layers["squares object"].visible
    assert session.image_layer is squares  # our own maps are not taken for images to segment
    assert session.image_layers() == [squares]


def test_the_chosen_image_follows_the_active_layer(viewer, session) -> None:
    first = viewer.add_image(two_squares(), name="first")
    second = viewer.add_image(two_squares(), name="second")
    assert session.image_layer is second
    viewer.layers.selection.active = first
    assert session.image_layer is first
    viewer.layers.remove(first)
    assert session.image_layer is second
    viewer.layers.clear()
    assert session.image_layer is None


def test_after_closing_nothing_is_heard_from_the_viewer(viewer, session, jobs) -> None:
    viewer.add_image(two_squares())
    session.segment()
    session.close()
    assert not jobs.step()  # cancelled
    viewer.add_image(two_squares(), name="later")
    assert session.image_layer.name != "later"


# ---- bad input: one sentence, the viewer as it was


def bad(pixels: NDArray[np.generic], axes: str = "", model: str = "bright"):
    return pixels, axes, model


NAN, INF = two_squares(), two_squares()
NAN[3, 3], INF[3, 3] = np.nan, np.inf
BAD = {
    "constant": bad(np.full((20, 20), 7)),
    "one pixel": bad(np.ones((1, 1))),
    "NaN": bad(NAN),
    "infinite": bad(INF),
    "too many axes": bad(np.zeros((2, 2, 2, 2, 20, 20))),
    "unknown axes": bad(two_squares(), "qx"),
    "axes of another number": bad(two_squares(), "zyx"),
    "channels that do not fit": bad(np.random.default_rng(0).random((3, 40, 60)), "", "pair"),
    "no z for a 3D model": bad(two_squares(), "", "volume"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore")  # napari warns of such images itself
def test_bad_input_gets_one_sentence_and_leaves_the_viewer_as_it_was(viewer, session, jobs, heard, name: str) -> None:
    pixels, axes, model = BAD[name]
    viewer.add_image(pixels, name="bad", contrast_limits=(0, 1))
    session.choose_model(session.library.find(model))
    if axes:
        session.choose_axes(axes)
    session.segment()
    if jobs.running:
        jobs.finish()
    assert heard.last.is_error
    assert heard.last.text.endswith(".")
    assert "\n" not in heard.last.text
    assert "unforeseen" not in heard.last.text
    assert [layer.name for layer in viewer.layers] == ["bad"]
    assert session.state == "idle"


def test_without_an_image_it_says_where_to_get_one(session, jobs, heard) -> None:
    session.segment()
    assert not jobs.running
    assert heard.last.text == NO_IMAGE
    assert session.obstacle() == NO_IMAGE


def test_a_damaged_model_is_refused_in_one_sentence(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares())
    path = session.entry.path
    path.write_bytes(path.read_bytes()[:-7])
    session.segment()
    jobs.finish()
    assert heard.last.is_error
    assert "damaged" in heard.last.text
    assert results(viewer) == []


def test_a_library_that_cannot_be_read_is_said_in_one_sentence(session, heard, monkeypatch) -> None:
    def unreadable(*_: object) -> None:
        raise InvalidModel("nuclei.safetensors is damaged.")

    monkeypatch.setattr(session.library, "current", unreadable)
    session.refresh_models()
    assert heard.last.text == "nuclei.safetensors is damaged."
    assert session.entry is None


def test_a_bug_is_told_in_one_sentence_too(viewer, session, jobs, heard, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("size mismatch\nat line 3")

    monkeypatch.setattr("napari_unet.engine.model.load_model_file", broken)
    viewer.add_image(two_squares())
    session.segment()
    jobs.finish()
    assert heard.last.text == "Something unforeseen went wrong (RuntimeError: size mismatch): please report it."


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_removing_the_image_stops_its_segmentation(viewer, session, jobs, heard, steps: int) -> None:
    layer = viewer.add_image(two_squares(), name="gone")
    session.segment()
    for _ in range(steps):
        jobs.step()
    viewer.layers.remove(layer)
    jobs.finish()
    assert heard.last.text == "The image 'gone' was removed, so its segmentation was stopped."
    assert list(viewer.layers) == []
    assert session.state == "idle"


def test_removing_the_labels_while_they_are_made_stops_the_run(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares(), name="squares")
    session.segment()
    jobs.step()
    viewer.layers.remove("squares labels (bright)")
    jobs.finish()
    assert "was removed" in heard.last.text
    assert [layer.name for layer in viewer.layers] == ["squares"]
    session.segment()
    jobs.finish()
    assert len(results(viewer)) == 1


def test_the_objects_of_one_plane_have_a_table(viewer, session, jobs) -> None:
    session.choose_model(session.library.find("objects"))
    viewer.add_image(two_squares(), name="squares")
    session.segment()
    jobs.finish()
    table = viewer.layers["squares labels (objects)"].features
    assert table["index"].tolist() == [0, 1, 2]
    assert table["state"].tolist() == ["background", "automatic", "automatic"]
    pixels = viewer.layers["squares labels (objects)"].data
    assert table["area"].tolist() == np.bincount(pixels.ravel()).tolist()
    assert table["probability"][1] > 0.9


def test_planes_that_count_anew_have_no_table(viewer, session, jobs) -> None:
    session.choose_model(session.library.find("objects"))
    viewer.add_image(np.stack([two_squares()] * 5), name="squares")
    session.segment()
    jobs.finish()
    assert viewer.layers["squares labels (objects)"].features.empty


def test_what_speaks_against_a_result_is_said_with_it(viewer, session, jobs, heard) -> None:
    """Three grey levels are no image to believe a network on."""
    session.choose_model(session.library.find("bright"))
    viewer.add_image((two_squares() > 0).astype(np.uint8) * 3)
    session.segment()
    jobs.finish()
    assert heard.last.text.startswith("Segmented in ")
    assert heard.last.text.endswith("hardly any contrast (3 grey levels): check the result closely.")


# --- faults in mid-run


@pytest.mark.parametrize(
    "error", [RuntimeError("CUDA error: device-side assert"), MemoryError(), KeyError("x"), OSError(5, "I/O error")]
)
@pytest.mark.parametrize("after", [0, 1])
def test_any_fault_in_mid_run_is_one_sentence_and_the_next_run_works(
    viewer, session, jobs, heard, monkeypatch, error: Exception, after: int
) -> None:
    calls = iter(range(100))
    forward = Executor.begin

    def fails(self: Executor, *given: Any) -> Any:
        if next(calls) >= after:
            raise error
        return forward(self, *given)

    viewer.add_image(two_squares(), name="squares")
    session.choose(tile=32)
    with monkeypatch.context() as patch:
        patch.setattr(Executor, "begin", fails)
        session.segment()
        jobs.finish()
    assert heard.last.is_error
    assert "\n" not in heard.last.text
    assert (session.state, results(viewer)) == ("idle", [])
    session.segment()
    jobs.finish()
    assert not heard.last.is_error
    assert len(results(viewer)) == 1


def test_memory_that_runs_out_once_is_answered_with_smaller_tiles(viewer, session, jobs, heard, monkeypatch) -> None:
    calls, forward = iter(range(100)), Executor.begin

    def tight(self: Executor, *given: Any) -> Any:
        if next(calls) == 0:
            raise OutOfMemory("Memory ran out.")
        return forward(self, *given)

    viewer.add_image(np.tile(two_squares(), (3, 2)), name="squares")
    monkeypatch.setattr(Executor, "begin", tight)
    session.segment()
    jobs.finish()
    assert not heard.last.is_error
    np.testing.assert_array_equal(results(viewer)[0].data > 0, np.tile(two_squares(), (3, 2)) > 0.5)


def test_an_image_that_gets_another_name_and_shape_in_mid_run_keeps_its_result(viewer, session, jobs, heard) -> None:
    """The run goes on with what was there when it began."""
    layer = viewer.add_image(two_squares(), name="squares")
    session.segment()
    jobs.step()
    layer.name = "other"
    layer.data = np.zeros((5, 6))
    jobs.finish()
    assert session.state == "idle"
    assert [r.data.shape for r in results(viewer)] == [(40, 60)]
    session.segment()
    jobs.finish()
    assert heard.last.is_error


def test_everything_may_be_removed_in_mid_run(viewer, session, jobs, heard) -> None:
    viewer.add_image(two_squares(), name="squares")
    session.segment()
    jobs.step()
    viewer.layers.clear()
    jobs.finish()
    assert (session.state, len(viewer.layers)) == ("idle", 0)
