"""The Train panel, without a window around it: buttons, keys, and what it says in each state."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from qtpy.QtWidgets import QShortcut

from napari_unet.engine.gate import Verdict as Judgement
from napari_unet.plugin.learning import Learning
from napari_unet.plugin.train_panel import NewModel, TrainPanel

from .test_annotating import paint
from .test_learning import draw, few
from .test_session import two_squares


@pytest.fixture
def panel(qtbot, session) -> Iterator[TrainPanel]:
    learning = Learning(session)
    learning.settings = replace(learning.settings, steps=2, batch=1, patch=32, validate_every=1)
    made = TrainPanel(learning)
    qtbot.addWidget(made)
    made.resize(300, 900)
    made.show()
    yield made
    made.shut()


@pytest.fixture
def squares(viewer, panel):
    return viewer.add_image(two_squares(), name="squares")


def press(panel: TrainPanel, key: str) -> None:
    """Press a key; which window is active is the business of the tests with a real one."""
    (shortcut,) = [s for s in panel.findChildren(QShortcut) if s.key().toString() == key]
    shortcut.activated.emit()


def test_without_an_image_nothing_can_be_painted(panel: TrainPanel) -> None:
    assert not panel.annotate.isEnabled()
    assert panel.count.text() == "Nothing is painted yet."


def test_each_class_has_a_button_with_its_name_and_a_key(panel: TrainPanel, squares) -> None:
    panel.annotate.click()
    assert [b.text() for b in panel.buttons] == ["background", "object"]
    press(panel, "Alt+1")
    assert panel.learning.page.layer.selected_label == 1
    assert [b.isChecked() for b in panel.buttons] == [True, False]
    press(panel, "Alt+2")
    assert panel.learning.page.layer.selected_label == 2
    press(panel, "Alt+9")  # there is no such class
    assert panel.learning.page.layer.selected_label == 2


def test_classes_that_are_renamed_recoloured_and_added_are_seen(panel: TrainPanel, squares) -> None:
    panel.annotate.click()
    panel.learning.rename_class(1, "cell")
    panel.learning.recolour_class(1, "#00ff00")
    panel.learning.add_class("debris")
    assert [b.text() for b in panel.buttons] == ["background", "cell", "debris"]
    assert panel.buttons[1].icon().pixmap(12, 12).toImage().pixelColor(6, 6).name() == "#00ff00"


def test_next_object_is_for_objects_only(panel: TrainPanel, session, squares) -> None:
    assert not panel.next.isVisible()
    session.choose_model(session.library.find("objects"))
    assert panel.next.isVisible()
    assert not panel.add.isVisible()
    panel.annotate.click()
    press(panel, "Alt+N")
    assert panel.learning.page.layer.selected_label == 2  # nothing is painted, so the first is still free


def test_while_it_trains_there_are_stop_and_discard_and_a_curve(panel: TrainPanel, squares, jobs) -> None:
    few(panel.learning)
    panel.train.click()
    assert panel.stop.isVisible()
    assert panel.drop.isVisible()
    assert not panel.train.isVisible()
    jobs.step()
    assert len(panel.curve.losses) == 1
    panel._draw()
    assert panel.speed.text().startswith("Step 1 of 2, ")
    panel.drop.click()
    jobs.finish()
    assert panel.verdict.text() == "Discarded; the model in use stays."
    assert panel.train.isVisible()


@pytest.mark.parametrize(
    ("judgement", "words", "looks"),
    [
        (Judgement.NO_BETTER, "The model in use stays.", False),
        (Judgement.CONTRADICTORY, "The strokes contradict each other, ", False),
        (Judgement.DOUBTFUL, "Look at before and after.", True),
    ],
)
def test_the_verdict_is_said_in_words(
    panel: TrainPanel, squares, jobs, monkeypatch, judgement: Judgement, words: str, looks: bool
) -> None:
    monkeypatch.setattr("napari_unet.engine.training.judge", lambda *arguments: judgement)
    draw(panel.learning)
    panel.train.click()
    jobs.finish()
    if looks:
        jobs.finish()  # before and after
    assert words in panel.verdict.text()
    assert panel.keep.isVisible() is looks
    assert panel.before.isVisible() is looks


def test_an_error_is_said_where_the_verdict_stands(panel: TrainPanel, squares, jobs) -> None:
    panel.annotate.click()
    paint(panel.learning.page.layer, 2, (slice(5, 9), slice(4, 12)))
    panel.train.click()
    jobs.finish()
    assert panel.verdict.text() == "Only one class is painted: paint a stroke of 'background' too."


def test_a_new_model_is_asked_for_in_one_dialog(panel: TrainPanel, session, qtbot) -> None:
    dialog = NewModel(panel.learning)
    qtbot.addWidget(dialog)
    dialog.classes.setText("background")
    assert not dialog.make()
    assert "each with a name of its own" in dialog.problem.text()
    dialog.classes.setText("background, cell, debris")
    assert dialog.make()
    assert session.entry.card.classes == ("background", "cell", "debris")
