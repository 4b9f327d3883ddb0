"""Objects that were clicked teach the network: from the click to the lesson of a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_unet.plugin.correcting import DELETE
from napari_unet.plugin.learning import Learning

from .flood import click, result, squares


@pytest.fixture
def learning(session):
    made = Learning(session)
    yield made
    made.close()


def lesson(learning: Learning) -> np.ndarray:
    learning.look()
    return learning.pages[0].lesson().labels


def test_an_accepted_object_is_a_complete_object(viewer, learning, segmented) -> None:
    click(segmented, 26, 36)
    segmented.accept()
    labels = lesson(learning)
    mine = result(viewer).data == 3
    assert len(np.unique(labels[mine])) == 1
    assert labels[mine][0] >= 2
    assert not labels[squares() * (np.arange(60) < 20) > 0].any()  # the object that nobody looked at


def test_a_click_where_no_model_ran_teaches_too(viewer, learning, ready) -> None:
    click(ready, 6, 6)
    ready.accept()
    np.testing.assert_array_equal(lesson(learning) >= 2, squares() * (np.arange(60) < 20) > 0)


def test_a_deleted_object_is_background(viewer, learning, segmented) -> None:
    segmented.choose(DELETE)
    click(segmented, 6, 6)
    assert np.unique(lesson(learning)[4:12, 4:12]).tolist() == [1]


def test_what_is_undone_teaches_nothing(viewer, learning, segmented) -> None:
    click(segmented, 6, 6)
    segmented.accept()
    lesson(learning)
    segmented.undo()
    assert not (lesson(learning) >= 2).any()


def test_a_new_run_leaves_the_lesson_as_it_was(viewer, session, jobs, learning, segmented) -> None:
    click(segmented, 6, 6)
    segmented.accept()
    before = lesson(learning).copy()
    session.segment()
    jobs.finish()
    np.testing.assert_array_equal(lesson(learning), before)
    assert not learning.pages[0].strokes.newest[before == 0].any()


def test_a_training_uses_what_was_clicked(viewer, session, jobs, learning, segmented) -> None:
    click(segmented, 6, 6)
    segmented.accept()
    learning.settings = replace(learning.settings, steps=2, batch=1, patch=32, validate_every=1)
    learning.train()
    assert learning.state == "training"
    assert learning._round is not None
    assert (learning._round.lessons[0].labels >= 2).sum() == 64
    jobs.finish()
    assert learning.state != "training"
