"""Accepted objects teach the click model, in jobs of their own; the segmenter is played by a flood fill."""

from __future__ import annotations

import numpy as np
import pytest

from napari_unet.engine.errors import InvalidImage, LibraryError
from napari_unet.plugin.teaching import LEARNING, NOTHING_TO_FORGET, NOTHING_TO_KEEP, NOTHING_YET, OFF

from .flood import click, result

FIRST, SECOND = (6, 6), (26, 36)


def accept(tool, at) -> None:
    click(tool, *at)
    tool.accept()


def test_an_accepted_object_is_learned_with_its_first_click(ready, lessons, flood) -> None:
    accept(ready, FIRST)
    assert ready.teaching.sentence() == "Learning from the first object ..."
    lessons.finish()
    ((mask, first),) = flood.accepted
    assert np.count_nonzero(mask) == 64
    assert first == (FIRST,)
    assert ready.teaching.sentence() == "It has learned from 1 object; the next one shows whether that helps."


def test_a_corrected_object_is_learned_without_a_first_click(viewer, ready, lessons, flood) -> None:
    accept(ready, FIRST)
    lessons.finish()
    ready.pick_up(FIRST)
    ready.accept()
    lessons.finish()
    assert [first for _, first in flood.accepted] == [(FIRST,), None]


def test_it_says_whether_that_helps(ready, lessons, flood) -> None:
    assert ready.teaching.sentence() == NOTHING_YET
    flood.scores = 0.84, 0.61
    accept(ready, FIRST)
    lessons.finish()
    assert ready.teaching.sentence() == "Taught by 1 object: one click finds 0.84 of an object, untaught 0.61 (IoU)."
    flood.scores = 0.4, 0.6
    accept(ready, SECOND)
    lessons.finish()
    assert ready.teaching.sentence() == (
        "Taught by 2 objects it is no better: one click finds 0.40 of an object, untaught 0.60 (IoU). "
        "The untaught model answers."
    )


def test_what_is_accepted_meanwhile_follows(ready, lessons, flood) -> None:
    accept(ready, FIRST)
    lessons.step()
    accept(ready, SECOND)
    assert len(flood.accepted) == 1
    lessons.finish()
    lessons.finish()
    assert len(flood.accepted) == 2
    assert not lessons.running


def test_clicks_go_first(ready, clicks, lessons) -> None:
    accept(ready, FIRST)
    ready.click(SECOND)
    assert lessons.held
    clicks.finish()
    assert not lessons.held
    lessons.finish()


def test_clicks_are_answered_while_it_learns(viewer, ready, lessons) -> None:
    accept(ready, FIRST)
    assert lessons.running
    click(ready, *SECOND)
    assert ready.draft is not None
    assert result(viewer).data.max() == 1
    lessons.finish()


def test_it_can_be_switched_off(ready, lessons, flood) -> None:
    ready.teaching.switch(False)
    accept(ready, FIRST)
    assert not lessons.running
    assert ready.teaching.sentence() == OFF
    ready.teaching.switch(True)
    accept(ready, SECOND)
    lessons.finish()
    assert len(flood.accepted) == 1


def test_switching_it_off_stops_the_lesson(ready, lessons) -> None:
    accept(ready, FIRST)
    ready.teaching.switch(False)
    lessons.finish()
    assert lessons.closed == 1


def test_what_was_learned_survives_the_tool_switched_off_and_on(ready, clicks, lessons, flood) -> None:
    flood.scores = 0.8, 0.6
    accept(ready, FIRST)
    lessons.finish()
    ready.switch(False)
    assert not flood.images  # the picture is let go
    ready.switch(True)
    clicks.finish()
    assert "Taught by 1 object" in ready.teaching.sentence()


def test_forgetting_makes_a_new_segmenter(session, viewer, ready, clicks, lessons, flood) -> None:
    made: list[object] = []
    ready._make = lambda entry, device: made.append(entry) or flood
    assert ready.teaching.cannot_forget() == NOTHING_TO_FORGET
    accept(ready, FIRST)
    lessons.finish()
    assert not ready.teaching.cannot_forget()
    ready.forget()
    clicks.finish()
    assert len(made) == 1
    assert ready.teaching.sentence() == NOTHING_YET
    assert result(viewer).data.max() == 1  # the object itself stays


def test_what_is_forgotten_while_the_tool_is_off_starts_nothing(ready, clicks, lessons, heard) -> None:
    accept(ready, FIRST)
    lessons.finish()
    ready.switch(False)
    told = len(heard)
    ready.forget()
    assert not clicks.running
    assert len(heard) == told
    ready.switch(True)
    assert clicks.running  # now it warms up
    clicks.finish()


def test_forgetting_ends_a_lesson(ready, clicks, lessons) -> None:
    accept(ready, FIRST)
    ready.forget()
    lessons.finish()
    assert lessons.closed == 1
    assert ready.teaching.sentence() == NOTHING_YET


def test_keeping_makes_a_version_that_answers_from_then_on(session, ready, clicks, lessons, flood, heard) -> None:
    used: list[str] = []
    ready._make = lambda entry, device: used.append(f"{entry.card.name}@{entry.card.version}") or flood
    flood.scores = 0.8, 0.6
    accept(ready, FIRST)
    lessons.finish()
    before = session.library.find("click").card.version
    ready.keep()
    assert heard.last.text.startswith(f"Kept as click@{before + 1}:")
    clicks.finish()
    assert used == [f"click@{before + 1}"]
    session.library.rollback("click")
    click(ready, *SECOND)
    assert used[-1] == f"click@{before}"


def test_nothing_is_kept_in_mid_lesson(session, ready, lessons, flood, heard) -> None:
    flood.scores = 0.8, 0.6
    accept(ready, FIRST)
    lessons.finish()
    accept(ready, SECOND)
    ready.keep()
    assert heard.last.text == LEARNING
    lessons.finish()
    assert not ready.teaching.cannot_keep()


def test_what_is_no_better_cannot_be_kept(session, ready, lessons, flood, heard) -> None:
    assert ready.teaching.cannot_keep() == NOTHING_TO_KEEP
    flood.scores = 0.5, 0.6
    accept(ready, FIRST)
    lessons.finish()
    versions = len(session.library.versions("click"))
    ready.keep()
    assert heard.last.text == NOTHING_TO_KEEP
    assert len(session.library.versions("click")) == versions


def test_a_library_that_cannot_be_written_is_said_and_nothing_forgotten(
    session, ready, lessons, flood, heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: object) -> None:
        raise LibraryError("The disk is full.")

    flood.scores = 0.8, 0.6
    accept(ready, FIRST)
    lessons.finish()
    monkeypatch.setattr(session.library, "add", full)
    ready.keep()
    assert heard.last.text == "The disk is full."
    assert "Taught by 1 object" in ready.teaching.sentence()


def test_what_goes_wrong_in_a_lesson_is_said(ready, lessons, flood, heard, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise InvalidImage("There are holes in it.")

    monkeypatch.setattr(flood, "accept", fails)
    accept(ready, FIRST)
    lessons.finish()
    assert heard.last.text == "There are holes in it."
    assert ready.teaching.sentence() == NOTHING_YET
    monkeypatch.undo()
    accept(ready, SECOND)
    lessons.finish()
    assert len(flood.accepted) == 1


def test_closing_the_tool_stops_the_lesson(ready, lessons) -> None:
    accept(ready, FIRST)
    ready.close()
    lessons.finish()
    assert lessons.closed == 1
