"""Paint, train, judge, keep and go back, in a viewer without a window and with jobs that run step by step."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from napari.layers import Labels
from tifffile import imwrite

from napari_unet import cli
from napari_unet.engine.errors import LibraryError
from napari_unet.engine.gate import Verdict as Judgement
from napari_unet.engine.library import Library
from napari_unet.engine.model import Model, load_model_file
from napari_unet.engine.settings import TrainSettings
from napari_unet.plugin.learning import NOTHING, Learning, Verdict

from ..engine import zoo
from .fakes import bright_is_foreground
from .test_annotating import paint
from .test_session import two_squares


@pytest.fixture
def learning(session):
    made = Learning(session)
    made.settings = replace(made.settings, steps=4, batch=1, patch=32, validate_every=2, learning_rate=1e-2)
    yield made
    made.close()


@pytest.fixture
def verdicts(learning: Learning) -> list[Verdict]:
    found: list[Verdict] = []
    learning.judged.connect(found.append)
    return found


def draw(learning: Learning) -> Labels:
    """Paint strokes on squares and ground, one a look, so that some are held out."""
    learning.annotate()
    layer = learning.page.layer
    for row in range(0, 8, 2):
        for value, rows, columns in ((2, 4, slice(4, 12)), (2, 20, slice(30, 38)), (1, 4, slice(20, 50))):
            paint(layer, value, (slice(rows + row, rows + row + 2), columns))
            learning.look()
    return layer


@pytest.fixture
def squares(viewer):
    return viewer.add_image(two_squares(), name="squares")


def blind(name: str) -> Model:
    """Return a model that sees background only, so that there is something to learn."""
    model = bright_is_foreground(name)
    with torch.no_grad():
        model.network.head.bias[0] = 11
    return model


def test_without_strokes_nothing_is_trained(learning: Learning, squares, heard, jobs) -> None:
    learning.train()
    assert heard.last.text == NOTHING
    assert not jobs.running
    learning.annotate()
    learning.train()
    assert heard.last.text == NOTHING


def test_one_class_is_not_enough(learning: Learning, squares, heard, jobs, verdicts) -> None:
    learning.annotate()
    paint(learning.page.layer, 2, (slice(5, 9), slice(4, 12)))
    learning.train()
    jobs.finish()
    assert verdicts[-1].text == "Only one class is painted: paint a stroke of 'background' too."
    assert learning.state == "idle"
    assert not learning.page.empty


def test_nan_in_the_image_is_told_and_the_strokes_stay(learning: Learning, viewer, jobs, verdicts) -> None:
    pixels = two_squares()
    pixels[0, 0] = np.nan
    viewer.add_image(pixels, name="holed", contrast_limits=(0, 1))
    draw(learning)
    learning.train()
    jobs.finish()
    assert "1 NaN or infinite values" in verdicts[-1].text
    assert not learning.page.empty


def test_a_better_model_becomes_a_version_and_the_image_is_segmented_again(
    learning: Learning, session, squares, jobs, verdicts, viewer
) -> None:
    worse = session.library.add(blind("bright"))
    session.refresh_models()
    session.choose_model(worse)
    layer = draw(learning)
    learning.settings = replace(learning.settings, steps=80, validate_every=40)
    learning.train()
    assert learning.state == "training"
    jobs.finish()
    jobs.finish()  # saving
    assert verdicts[-1].good
    assert verdicts[-1].text.startswith("Better: ")
    assert verdicts[-1].text.endswith("held-out strokes. Now in use as version 3.")
    card = session.entry.card
    assert card.version == 3
    assert card.parent == worse.card.identity
    assert card.training["score"] > card.training["baseline"]
    assert session.state == "running"
    jobs.finish()  # segmenting again
    assert any("labels" in x.name for x in viewer.layers)
    assert viewer.layers.selection.active is layer
    assert not learning.page.strokes.newest.any()


def test_a_model_that_is_no_better_is_not_used(learning: Learning, session, squares, jobs, verdicts) -> None:
    before = session.entry
    draw(learning)
    learning.settings = replace(learning.settings, learning_rate=1e-30)  # so it learns nothing
    learning.train()
    jobs.finish()
    assert verdicts[-1].good is False
    assert verdicts[-1].text.startswith("No better: ")
    assert verdicts[-1].text.endswith("The model in use stays.")
    assert session.entry.path == before.path
    assert len(session.library.versions("bright")) == 1


def lie(learning: Learning) -> None:
    """Say of every stroke that judges the contrary of what it shows."""
    strokes = learning.page.strokes
    strokes.labels[strokes.held_out] = 3 - strokes.labels[strokes.held_out]
    learning.page.layer.data[...] = strokes.labels


def test_strokes_that_contradict_each_other_teach_nothing(learning: Learning, session, squares, jobs, verdicts) -> None:
    draw(learning)
    lie(learning)
    learning.settings = replace(learning.settings, learning_rate=1e-30)  # it stays as it is
    learning.train()
    jobs.finish()
    assert verdicts[-1].good is False
    assert verdicts[-1].text.startswith("The strokes contradict each other, ")
    assert verdicts[-1].text.endswith("The model in use stays.")
    assert len(session.library.versions("bright")) == 1


def few(learning: Learning) -> None:
    """Paint too little to be judged."""
    learning.annotate()
    paint(learning.page.layer, 2, (slice(5, 9), slice(4, 12)))
    paint(learning.page.layer, 1, (slice(5, 9), slice(20, 40)))


def train_and_keep(learning: Learning, jobs) -> None:
    """Train, look at before and after, keep it, and see the image segmented again."""
    learning.train()
    for _ in range(2):
        jobs.finish()
    learning.keep()
    for _ in range(2):
        jobs.finish()


def test_with_too_few_strokes_the_user_judges_by_a_look(
    learning: Learning, session, squares, jobs, verdicts, viewer
) -> None:
    few(learning)
    learning.train()
    jobs.finish()
    assert verdicts[-1].good is None
    assert verdicts[-1].text == "Too few held-out strokes to judge: look at before and after."
    assert learning.state == "judging"
    jobs.finish()  # before and after
    (comparison,) = [x for x in viewer.layers if x.name.endswith("before and after")]
    assert not learning.page.layer.visible
    learning.show_after(False)
    np.testing.assert_array_equal(comparison.data, two_squares() > 0)
    learning.keep()
    jobs.finish()
    assert verdicts[-1].text == "Kept. Now in use as version 2."
    assert comparison not in viewer.layers
    assert learning.page.layer.visible
    assert learning.state == "idle"


def test_what_does_not_convince_is_discarded(learning: Learning, session, squares, jobs, viewer) -> None:
    few(learning)
    learning.train()
    jobs.finish()
    jobs.finish()
    learning.discard()
    assert learning.state == "idle"
    assert learning.candidate is None
    assert session.entry.card.version == 1
    assert [x.name for x in viewer.layers] == ["squares", "squares annotations"]


def test_stop_judges_the_best_so_far(learning: Learning, squares, jobs, verdicts) -> None:
    few(learning)
    learning.train()
    for _ in range(3):  # two steps and a look
        jobs.step()
    learning.stop()
    jobs.finish()
    assert learning.state == "judging"
    assert learning.candidate.card.training["steps"] == 2


def test_stop_before_the_first_look_changes_nothing(learning: Learning, squares, jobs, verdicts) -> None:
    few(learning)
    learning.train()
    jobs.step()
    learning.stop()
    jobs.finish()
    assert verdicts[-1].text.startswith("Stopped before the first look")
    assert learning.state == "idle"


def test_strokes_teach_at_the_size_that_the_model_will_see(learning: Learning, session, squares, jobs) -> None:
    few(learning)
    session.choose(diameter=16)
    learning.train()
    assert jobs.running
    assert [lesson.diameter for lesson in learning._round.lessons] == [16]


def test_discard_ends_the_training(learning: Learning, session, squares, jobs, verdicts) -> None:
    few(learning)
    learning.train()
    for _ in range(3):
        jobs.step()
    learning.discard()
    jobs.finish()
    assert verdicts[-1].text == "Discarded; the model in use stays."
    assert len(session.library.versions("bright")) == 1


def test_removing_the_image_while_it_is_trained_on_loses_nothing(
    learning: Learning, squares, jobs, verdicts, heard, viewer
) -> None:
    draw(learning)
    painted = learning.page.strokes.labels.copy()
    learning.train()
    jobs.step()
    viewer.layers.remove(squares)
    assert "was removed; what you painted on it is kept" in heard.last.text
    while jobs.running:
        jobs.finish()
    assert " held-out strokes" in verdicts[-1].text
    viewer.layers.append(squares)
    learning.restore()
    np.testing.assert_array_equal(learning.page.strokes.labels, painted)


def test_a_full_disk_keeps_the_model_in_use_and_the_trained_one(
    learning: Learning, session, squares, jobs, verdicts, monkeypatch
) -> None:
    few(learning)
    learning.train()
    jobs.finish()
    jobs.finish()

    def full(*_: object) -> None:
        raise LibraryError("models cannot be written: No space left on device; free some space.")

    with monkeypatch.context() as broken:
        broken.setattr(Library, "add", full)
        learning.keep()
        jobs.finish()
    assert "No space left on device" in verdicts[-1].text
    assert session.entry.card.version == 1
    assert learning.state == "judging"
    learning.keep()
    jobs.finish()
    assert session.entry.card.version == 2


def test_going_back_is_bit_identical(learning: Learning, session, squares, jobs, verdicts) -> None:
    first = session.entry.path.read_bytes()
    few(learning)
    train_and_keep(learning, jobs)
    newest, oldest = learning.history()
    assert (newest.card.version, oldest.card.version) == (2, 1)
    learning.go_back(oldest)
    assert session.entry.path.read_bytes() == first
    assert session.library.find("bright").card.version == 1
    assert len(learning.history()) == 2


def test_several_images_train_one_model(learning: Learning, session, viewer, jobs, verdicts) -> None:
    for name in ("first", "second"):
        viewer.add_image(two_squares(), name=name)
        session.choose_image(viewer.layers[name])
        few(learning)
    learning.look()
    assert learning.strokes() == (2, 4, 0)
    learning.train()
    jobs.finish()
    assert learning.candidate.card.training["images"] == ["first", "second"]


def test_the_terminal_gives_the_same_model_for_the_same_seed(
    learning: Learning, session, squares, jobs, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("napari_unet.engine.training.judge", lambda *arguments: Judgement.UNKNOWN)  # so that it is kept
    draw(learning)
    learning.page.strokes.newest[:8] = False  # an earlier round knew them
    imwrite(tmp_path / "squares.tif", two_squares())
    learning.save(tmp_path / "strokes.tif")
    learning.settings = TrainSettings(steps=3, seed=5)
    learning.train()
    jobs.finish()
    assert learning.candidate.card.training["held_out_strokes"] > 0

    monkeypatch.setenv("NAPARI_UNET_HOME", str(tmp_path))
    files = ("--image", str(tmp_path / "squares.tif"), "--annotation", str(tmp_path / "strokes.tif"))
    how = ("--from", "bright", "--name", "same", "--steps", "3", "--seed", "5", "--device", "cpu")
    monkeypatch.setattr(sys, "argv", ["napari-unet", "train", *files, *how])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    there, here = (m.network.state_dict() for m in (session.library.load("same"), learning.candidate))
    assert all(torch.equal(there[name], here[name]) for name in here)
    assert session.library.find("same").card.training["annotations"] == learning.candidate.card.training["annotations"]


def test_corrections_of_a_result_are_trained_on(learning: Learning, session, squares, jobs) -> None:
    session.segment()
    jobs.finish()
    (result,) = session.results
    paint(result.layer, 0, (slice(4, 8), slice(4, 12)))
    learning.look()  # the timer of the panel
    paint(result.layer, 1, (slice(15, 18), slice(40, 50)))
    learning.look()
    assert learning.page.layer is None
    assert learning.strokes() == (1, 2, 0)
    learning.train()
    jobs.finish()
    assert learning.candidate is not None
    assert learning.candidate.card.training["strokes"] == 2


def test_a_result_with_corrections_is_kept_when_the_image_is_segmented_again(
    learning: Learning, session, squares, jobs
) -> None:
    session.segment()
    jobs.finish()
    (result,) = session.results
    paint(result.layer, 0, (slice(4, 8), slice(4, 12)))
    corrected = result.layer.data.copy()
    learning.look()
    few(learning)
    train_and_keep(learning, jobs)
    assert len(session.results) == 2
    np.testing.assert_array_equal(result.layer.data, corrected)
    assert not result.layer.visible


def test_a_class_that_is_added_is_learned(learning: Learning, session, squares, jobs) -> None:
    learning.annotate()
    learning.add_class("debris")
    assert learning.page.layer.selected_label == 3
    few(learning)
    paint(learning.page.layer, 3, (slice(30, 34), slice(4, 12)))
    learning.train()
    for _ in range(2):
        jobs.finish()
    learning.keep()
    jobs.finish()
    assert session.entry.card.classes == ("background", "object", "debris")
    assert load_model_file(session.entry.path).network.head.weight.shape[0] == 3


def test_a_class_that_is_renamed_keeps_its_strokes(learning: Learning, session, squares, jobs) -> None:
    few(learning)
    learning.rename_class(1, "cell")
    learning.train()
    jobs.finish()
    assert learning.candidate.card.classes == ("background", "cell")
    assert (learning.page.strokes.labels == 2).any()


def test_a_class_needs_a_name_of_its_own(learning: Learning, squares, heard) -> None:
    learning.annotate()
    learning.add_class("object")
    assert heard.last.text.startswith("Every class needs a name of its own")
    assert learning.scheme.names == ("background", "object")


def test_recolouring_a_class_recolours_annotations_and_results(learning: Learning, session, squares, jobs) -> None:
    session.segment()
    jobs.finish()
    learning.annotate()
    learning.recolour_class(1, "#00ff00")
    (result,) = session.results
    for colormap, value in ((learning.page.layer.colormap, 2), (result.layer.colormap, 1)):
        np.testing.assert_allclose(colormap.map(value), (0, 1, 0, 1))


def test_each_next_object_has_a_value_of_its_own(learning: Learning, session, squares) -> None:
    session.choose_model(session.library.find("objects"))
    learning.annotate()
    layer = learning.page.layer
    paint(layer, layer.selected_label, (slice(4, 8), slice(4, 8)))
    learning.next_object()
    assert layer.selected_label == 3
    paint(layer, 3, (slice(20, 24), slice(4, 8)))
    learning.next_object()
    assert layer.selected_label == 4


def test_closing_loses_nothing(learning: Learning, session, squares, viewer) -> None:
    few(learning)
    learning.close()
    viewer.layers.clear()
    again = Learning(session)
    viewer.add_image(two_squares(), name="squares")
    assert len(again.kept()) == 1
    again.restore()
    assert (again.page.layer.data[5:9, 4:12] == 2).all()
    again.close()


def test_forgetting_removes_what_was_kept(learning: Learning, session, squares, viewer) -> None:
    few(learning)
    learning.close()
    again = Learning(session)
    again.forget()
    again.close()
    assert list((session.library.folder.parent / "strokes").iterdir()) == []


def test_another_model_is_trained_when_the_refresh_is_in_its_way(learning: Learning, squares, jobs) -> None:
    few(learning)
    learning.train()
    for _ in range(2):
        jobs.finish()
    learning.keep()
    jobs.finish()
    assert jobs.running  # segmenting again
    jobs.step()
    learning.train()
    jobs.finish()
    assert learning.state == "training"
    jobs.finish()


@pytest.mark.parametrize(
    ("task", "dims", "start"), [("semantic", 2, None), ("objects", 2, None), ("semantic", 3, "bright")]
)
def test_a_new_model_is_in_use_at_once(learning: Learning, session, task: str, dims: int, start: str | None) -> None:
    entry = session.library.find(start) if start else None
    assert learning.new_model("mine", task, ("background", "cell"), dims, 1, entry) == ""
    card = session.entry.card
    assert (card.name, card.task, card.spec.dims, card.classes) == ("mine", task, dims, ("background", "cell"))


def test_a_new_model_that_cannot_be_says_why(learning: Learning, session) -> None:
    assert "each with a name of its own" in learning.new_model("mine", "semantic", ("background",), 2, 1)
    assert "cannot be called '../x'" in learning.new_model("../x", "semantic", ("background", "cell"), 2, 1)
    assert session.entry.card.name == "bright"


def test_versions_are_named_exported_imported_and_deleted(learning: Learning, session, jobs, tmp_path: Path) -> None:
    first = session.entry
    learning.name_version(first, "best")
    assert session.entry.card.name == "best"
    assert session.entry.card.parent == first.card.identity
    learning.export(session.entry, tmp_path / "best")
    assert (tmp_path / "best.safetensors").read_bytes() == session.entry.path.read_bytes()
    learning.delete(session.entry)
    assert session.entry.card.name != "best"
    learning.import_file(tmp_path / "best.safetensors")
    jobs.finish()
    assert session.entry.card.name == "best"


def test_a_file_that_is_no_model_says_so_and_changes_nothing(
    learning: Learning, session, jobs, heard, tmp_path
) -> None:
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    before = session.entry
    learning.import_file(tmp_path / "bad.zip")
    jobs.finish()
    assert heard[-1].text == "bad.zip is no zip file, or it is damaged."
    assert session.entry is before


@pytest.fixture
def foreign(learning: Learning, session, jobs, tmp_path: Path) -> Learning:
    """A network of another program is in use."""
    pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
    learning.import_file(zoo.package(tmp_path / "cells.zip", zoo.cells()))
    jobs.finish()
    assert session.entry.card.name == "Cells of somebody"
    return learning


def test_the_network_of_another_program_segments(foreign: Learning, session, viewer, jobs) -> None:
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (64, 70)).astype(np.uint8), name="noise")
    session.segment()
    jobs.finish()
    assert viewer.layers[-1].data.max() == 1


def test_but_it_cannot_be_trained_and_every_press_says_so(foreign: Learning, session, viewer, jobs, heard) -> None:
    viewer.add_image(np.zeros((64, 70), dtype=np.uint8), name="black")
    why = "'Cells of somebody' came from another program: it segments, but cannot be trained; choose another model."
    for press in (foreign.annotate, foreign.train, partial(foreign.add_class, "wall")):
        session.tell("")
        press()
        assert heard[-1].text == why
    assert why in foreign.new_model("mine", "semantic", ("background", "cell"), 2, 1, session.entry)
