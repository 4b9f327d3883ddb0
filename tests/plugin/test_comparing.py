"""Compare with truth, without a window around it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Labels

from napari_unet.engine.comparison import Kind
from napari_unet.plugin.compare_panel import ComparePanel
from napari_unet.plugin.comparing import FEW, Comparing

from .test_session import two_squares


@pytest.fixture
def comparing(session) -> Comparing:
    return Comparing(session)


@pytest.fixture
def panel(qtbot, comparing: Comparing) -> ComparePanel:
    made = ComparePanel(comparing)
    qtbot.addWidget(made)
    made.section.expand(animate=False)
    made.resize(300, 400)
    made.show()
    return made


@pytest.fixture
def found_and_true(viewer) -> tuple[Labels, Labels]:
    """One object that is matched, one missed, one invented."""
    truth, found = np.zeros((20, 30), np.uint8), np.zeros((20, 30), np.uint8)
    truth[2:8, 2:8], found[2:8, 2:8] = 1, 7
    truth[2:8, 20:26] = 2
    found[12:18, 2:8] = 3
    return viewer.add_labels(found, name="found"), viewer.add_labels(truth, name="true")


def compared(comparing: Comparing, jobs) -> Comparing:
    comparing.compare()
    jobs.finish()
    return comparing


def test_it_says_what_was_found_missed_and_invented(viewer, comparing, found_and_true, jobs) -> None:
    comparing.choose(result=found_and_true[0], truth=found_and_true[1])
    compared(comparing, jobs)
    assert comparing.in_words().splitlines() == [
        "Of 2 true objects 1 was found, 1 missed; 1 invented.",
        "AP@0.5 0.333, AP@0.75 0.333",
        "PQ 0.500, Dice 0.500",
        "Compared as one plane.",
    ]


def test_the_errors_are_a_layer_whose_colours_say_which_is_which(viewer, comparing, found_and_true, jobs) -> None:
    found, true = found_and_true
    found.scale, found.translate = (2, 2), (5, 6)
    comparing.choose(result=found, truth=true)
    errors = compared(comparing, jobs).errors
    assert errors in viewer.layers
    assert (errors.data[5, 22], errors.data[15, 5], errors.data[2, 2]) == (Kind.MISSED, Kind.INVENTED, Kind.MATCHED)
    assert errors.features["what"][int(Kind.MISSED)] == "missed: only in the truth"
    assert (list(errors.scale), list(errors.translate)) == ([2, 2], [5, 6])
    assert (errors.visible, found.visible, true.visible) == (True, False, False)


def test_comparing_again_replaces_the_errors(viewer, comparing, found_and_true, jobs) -> None:
    for _ in range(2):
        compared(comparing, jobs)
    assert len(viewer.layers) == 3
    assert comparing.errors not in comparing.layers()


def test_the_result_is_taken_for_the_result_and_the_other_for_the_truth(viewer, comparing, session, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    truth = viewer.add_labels((two_squares() > 0).astype(int), name="by hand")
    session.segment()
    jobs.finish()
    assert comparing.truth is truth
    assert comparing.result.name == "squares labels (bright)"
    compared(comparing, jobs)
    assert comparing.in_words().splitlines() == ["object: Dice 1.000, IoU 1.000", "Compared as one plane."]


def test_a_stack_is_compared_as_its_result_was_made(viewer, comparing, session, jobs) -> None:
    viewer.add_image(np.stack([two_squares()] * 5), name="stack")
    session.choose_model(session.library.find("objects"))
    session.segment()
    jobs.finish()
    made = comparing.result
    viewer.add_labels(np.asarray(made.data).copy(), name="true")
    assert comparing.together == "yx"
    compared(comparing, jobs)
    assert comparing.in_words().splitlines()[0] == "Of 10 true objects 10 were found, 0 missed; 0 invented."
    comparing.compare_by_plane(False)
    assert comparing.found is None
    compared(comparing, jobs)
    assert comparing.in_words().splitlines()[0] == "Of 2 true objects 2 were found, 0 missed; 0 invented."


def test_an_axis_that_stands_for_the_channels_is_no_obstacle(viewer, comparing, session, jobs) -> None:
    pixels = np.stack([np.stack([two_squares()] * 2)] * 3)
    viewer.add_image(pixels, name="channels", axis_labels=("z", "c", "y", "x"))
    session.segment()
    jobs.finish()
    assert comparing.result.data.shape == (3, 1, 40, 60)
    viewer.add_labels((pixels[:, 0] > 0).astype(int), name="true")
    compared(comparing, jobs)
    assert comparing.errors.data.shape == (3, 1, 40, 60)
    assert "Dice 1.000" in comparing.in_words()


def test_annotations_are_no_truth(viewer, comparing, session) -> None:
    from napari_unet.plugin.learning import Learning

    viewer.add_image(two_squares(), name="squares")
    Learning(session).annotate()
    assert comparing.layers() == []


@pytest.mark.parametrize("shape", [(20, 31), (2, 20, 30)])
def test_shapes_that_do_not_fit_are_one_sentence(viewer, comparing, heard, shape) -> None:
    viewer.add_labels(np.ones((20, 30), int), name="a")
    viewer.add_labels(np.ones(shape, int), name="b")
    comparing.compare()
    assert heard.last.text == f"'b' has shape {shape}, but 'a' has (20, 30): choose labels of one image."
    assert heard.last.is_error


def test_an_empty_truth_is_one_sentence(viewer, comparing, heard, jobs) -> None:
    viewer.add_labels(np.zeros((20, 30), int), name="blank")
    viewer.add_labels(np.ones((20, 30), int), name="found")
    assert (comparing.result.name, comparing.truth.name) == ("found", "blank")
    compared(comparing, jobs)
    assert heard.last.text == "The truth 'blank' is empty: choose labels with objects in them."
    assert comparing.found is None


def test_one_layer_cannot_be_compared_with_itself(viewer, comparing) -> None:
    only = viewer.add_labels(np.ones((20, 30), int))
    assert comparing.obstacle() == FEW
    comparing.choose(result=only, truth=only)
    assert comparing.obstacle() == "Result and truth are the same layer: choose two."


def test_removing_a_layer_forgets_what_was_found(viewer, comparing, found_and_true, jobs) -> None:
    compared(comparing, jobs)
    viewer.layers.remove(found_and_true[1])
    assert comparing.found is None
    assert comparing.obstacle() == FEW


def test_the_panel_says_why_it_cannot_compare(viewer, panel: ComparePanel) -> None:
    assert not panel.button.isEnabled()
    assert panel.button.toolTip() == FEW
    assert panel.truth.currentText() == "no labels are open"


def test_the_panel_shows_scores_and_what_the_colours_mean(viewer, panel: ComparePanel, found_and_true, jobs) -> None:
    assert not panel.scores.isVisible()
    assert not panel.by_plane.isVisible()
    panel.result.setCurrentIndex(panel.result.findText("found"))
    panel.truth.setCurrentIndex(panel.truth.findText("true"))
    panel.button.click()
    jobs.finish()
    assert panel.scores.text().startswith("Of 2 true objects 1 was found")
    assert "missed: only in the truth" in panel.legend.text()


def test_the_panel_offers_planes_where_there_are_some(viewer, panel: ComparePanel) -> None:
    for name in ("true", "found"):
        viewer.add_labels(np.ones((4, 20, 30), int), name=name)
    assert panel.by_plane.isVisible()
    assert not panel.by_plane.isChecked()
    panel.by_plane.click()
    assert panel.comparing.together == "yx"
