"""The window, the terminal and Python give the same labels, bit for bit; and every figure that is shown is true."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from numpy.typing import NDArray

import napari_unet
from napari_unet import cli
from napari_unet.engine.errors import OutOfMemory
from napari_unet.engine.execution import Executor
from napari_unet.engine.gate import Verdict as Judgement
from napari_unet.engine.library import Library
from napari_unet.engine.settings import ObjectSettings, SegmentSettings
from napari_unet.plugin.batch_panel import BatchPanel
from napari_unet.plugin.batching import Batching
from napari_unet.plugin.dock import UNetDock
from napari_unet.plugin.learning import Learning
from napari_unet.plugin.session import Progress
from napari_unet.plugin.train_panel import TrainPanel

from ..engine.conftest import make_model
from .test_learning import blind, draw
from .test_session import two_squares

RNG = np.random.default_rng(0)
IMAGES = {
    "rgb": (RNG.integers(0, 255, (70, 90, 3), dtype=np.uint8), "yxc", {"rgb": True}),
    "stack": (RNG.integers(0, 4000, (6, 70, 90), dtype=np.uint16), "zyx", {}),
    "channels": (RNG.random((2, 70, 90), dtype=np.float32), "cyx", {}),
}
MANY = {"task": "objects", "objects": ObjectSettings(0.4, 0.5, 3)}
"""At about the median of what random weights answer, so that rounding would show."""
MODELS = {
    "flat": make_model(channels=(8, 16), name="flat", **MANY),
    "classes": make_model(channels=(8, 16), name="classes"),
    "deep": make_model(dims=3, channels=(4, 8), name="deep", **MANY | {"objects": ObjectSettings(0.55, 0.45, 3)}),
    "pair": make_model(channels=(8, 16), in_channels=2, name="pair"),
}


@pytest.fixture
def library(session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """The session's library, which the command line reads too."""
    monkeypatch.setenv("NAPARI_UNET_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for model in MODELS.values():
        session.library.add(model)
    return session.library


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("rgb", "flat"),
        ("rgb", "classes"),
        ("stack", "flat"),
        ("stack", "deep"),
        ("channels", "flat"),
        ("channels", "pair"),
    ],
)
def test_window_terminal_and_python_give_the_same_labels(
    viewer, session, jobs, library, monkeypatch: pytest.MonkeyPatch, name: str, model: str
) -> None:
    pixels, axes, how = IMAGES[name]
    written = {"photometric": "rgb"} if name == "rgb" else {"photometric": "minisblack"}
    tifffile.imwrite(f"{name}.tif", pixels, **written)
    viewer.add_image(pixels, name=name, metadata={"path": f"{name}.tif"}, **how)
    viewer.dims.set_point(0, 1)  # another slice in view, so the window computes in another order
    session.choose_model(library.find(model))
    session.segment()
    jobs.finish()
    window = session.results[0].pixels
    assert 0.1 < (window > 0).mean() < 0.9

    command = session.choice.command()
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    terminal: NDArray[np.integer] = tifffile.imread(f"{name}_labels.tif")

    image = napari_unet.Image(pixels, axes, rgb=name == "rgb")
    python = napari_unet.segment(image, model, channel=session.settings.channel, device="cpu")
    np.testing.assert_array_equal(terminal, window)
    np.testing.assert_array_equal(python, window)


# --- figures


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(session) -> Clock:
    session.clock = Clock()
    return session.clock


@pytest.fixture
def reports(session) -> list[Progress]:
    """How far the session said that it was."""
    found: list[Progress] = []
    session.progressed.connect(found.append)
    return found


def steps(jobs, clock: Clock, seconds: float) -> None:
    """Run to the end; every event takes so many seconds."""
    while True:
        clock.now += seconds
        if not jobs.step():
            return


def is_forward(reports: list[Progress]) -> bool:
    shares = [report.share for report in reports]
    return len(shares) > 1 and shares == sorted(shares)


def test_the_time_left_is_what_it_takes(viewer, session, jobs, clock, reports) -> None:
    viewer.add_image(two_squares())
    session.choose(tile=32)
    session.segment()
    jobs.step()  # four tiles are planned
    steps(jobs, clock, 3.0)
    assert [(r.done, r.tiles, r.seconds_left) for r in reports] == [(1, 4, 9.0), (2, 4, 6.0), (3, 4, 3.0), (4, 4, 0.0)]


def test_the_bar_never_goes_back_and_a_shortage_of_memory_is_said(
    viewer, session, jobs, clock, reports, heard, monkeypatch
) -> None:
    """Three of four tiles are done when memory runs out; then there are more."""
    calls, forward = iter(range(1000)), Executor.begin

    def tight(self: Executor, *given: Any) -> Any:
        if next(calls) == 3:
            raise OutOfMemory("Memory ran out.")
        return forward(self, *given)

    monkeypatch.setattr(Executor, "begin", tight)
    viewer.add_image(np.tile(two_squares(), (3, 2))[:100, :100])
    session.choose(tile=64)
    session.segment()
    steps(jobs, clock, 1.0)
    assert is_forward(reports)
    assert reports[-1].share == 1
    assert any(m.text.startswith("Memory ran short: going on with smaller tiles, 19 in all") for m in heard)


def test_a_bar_that_stands_still_says_why(qtbot, viewer, session, jobs, clock) -> None:
    dock = UNetDock(viewer, session)
    qtbot.addWidget(dock)
    viewer.add_image(two_squares())
    session.choose(tile=32)
    session.segment()
    jobs.step()
    jobs.step()
    clock.now += 4
    dock._on_tick()
    assert " left" in dock.bar.text()
    clock.now += 4
    dock._on_tick()
    assert dock.bar.text() == "computing, 8 s"
    while jobs.step() and dock.bar.value() < 4:
        dock._on_tick()
    clock.now += 6
    dock._on_tick()
    assert dock.bar.text() == "putting the result together, 6 s"
    jobs.finish()
    assert session.standing_still() == ""
    dock.shut()


@pytest.mark.parametrize("minutes", [None, 0.05])
def test_a_training_says_its_pace_and_the_time_left(
    qtbot, viewer, session, jobs, reports, monkeypatch, minutes: float | None
) -> None:
    """Each step takes half a second: twelve of them six seconds, unless three seconds are all there are."""
    now = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr("napari_unet.engine.training.time", SimpleNamespace(monotonic=lambda: float(next(now))))
    viewer.add_image(two_squares(), name="squares")
    learning = Learning(session)
    panel = TrainPanel(learning)
    qtbot.addWidget(panel)
    draw(learning)
    learning.settings = replace(learning.settings, steps=12, minutes=minutes, batch=1, patch=32, validate_every=5)
    learning.train()
    jobs.finish()
    many = 12 if minutes is None else 6
    assert [r.done for r in reports] == list(range(1, many + 1))
    assert [r.seconds_left for r in reports] == [(many - done) / 2 for done in range(1, many + 1)]
    assert is_forward(reports)
    assert [r.done for r in reports if r.doing == "judging"] == ([5, 10, 12] if minutes is None else [5])
    panel._draw()
    assert panel.speed.text() == (
        "Step 12 of 12, 2.0 steps a second" if minutes is None else "Step 6, 2.0 steps a second"
    )
    panel.shut()


def score_of(model, pixels: NDArray[np.float32], strokes: NDArray[np.integer]) -> float:
    """Soft Dice of each class, all classes weighed the same, averaged: written anew from its definition."""
    *_, result = napari_unet.engine.inference.segment(
        napari_unet.Image(pixels, "yx"), model, SegmentSettings(device="cpu", probabilities=True)
    )
    classes = range(len(model.card.classes))
    rates = np.array([[result.probabilities[k][strokes == c + 1].mean() for k in classes] for c in classes])
    return float(np.mean([2 * rates[c, c] / (1 + rates[:, c].sum()) for c in classes]))


def test_the_held_out_score_is_that_of_the_strokes(qtbot, viewer, session, jobs, monkeypatch) -> None:
    monkeypatch.setattr("napari_unet.engine.training.judge", lambda *arguments: Judgement.UNKNOWN)
    worse = session.library.add(blind("bright"))
    session.refresh_models()
    session.choose_model(worse)
    viewer.add_image(two_squares(), name="squares")
    learning = Learning(session)
    panel = TrainPanel(learning)
    qtbot.addWidget(panel)
    draw(learning)
    learning.settings = replace(learning.settings, steps=6, batch=1, patch=32, validate_every=6, learning_rate=0.01)
    panel.train.click()
    jobs.finish()
    page = learning.page
    held_out = np.where(page.strokes.held_out, np.asarray(page.layer.data), 0)
    assert set(np.unique(held_out)) == {0, 1, 2}
    before = score_of(session.library.load(worse.card.identity.partition(":")[0]), two_squares(), held_out)
    after = score_of(learning.candidate, two_squares(), held_out)
    assert panel.curve.scores == [(6, pytest.approx(after, abs=1e-5))]
    assert learning.candidate.card.training["score"] == pytest.approx(after, abs=1e-5)
    assert learning.candidate.card.training["baseline"] == pytest.approx(before, abs=1e-5)
    panel.shut()


def test_objects_are_counted_in_all_planes_and_again_with_other_thresholds(viewer, session, jobs, heard) -> None:
    """Planes with two objects, one and none; one of the two has half of the other's 64 pixels."""
    stack = np.zeros((5, 40, 60), np.float32)
    stack[:2] = two_squares()
    stack[1, :, 20:] = stack[0, 20:24] = 0
    viewer.add_image(stack, name="stack")
    session.choose_model(session.library.find("objects"))
    session.segment()
    jobs.finish()
    assert heard.last.text.startswith("Found 3 objects in ")
    session.rethreshold(ObjectSettings(minimal_size=40))
    jobs.finish()
    assert heard.last.text == "2 objects with these thresholds."
    (labels,) = (x.data for x in viewer.layers if isinstance(x, Labels))
    assert [len(np.unique(plane)) - 1 for plane in labels] == [1, 1, 0, 0, 0]


@pytest.fixture
def batch(qtbot, viewer, session, tmp_path: Path):
    """A panel with three good images, of which one is half as tall, and a constant one."""
    for name in "abc":
        viewer.add_image(two_squares()[: 20 if name == "c" else 40], name=name)
    viewer.add_image(np.full((40, 60), 7), name="flat")
    batching = Batching(session)
    batching.choose(out=str(tmp_path / "out"))
    session.choose(tile=32)
    panel = BatchPanel(batching)
    qtbot.addWidget(panel)
    return panel


def test_the_counts_of_a_batch_are_those_of_the_files(batch: BatchPanel, jobs, heard, clock, reports) -> None:
    batching = batch.batching
    batch.button.click()
    jobs.finish()
    assert heard.last.text.startswith("4 to compute, ")
    assert batch.button.text().startswith("Run 4 images")
    batch.button.click()
    while "done" not in batching.states:
        jobs.step()
    batching.session.cancel()
    jobs.finish()
    assert len(list(Path(batching.out).glob("*.tif"))) == 1
    assert batch.button.text().startswith("Run 3 images")
    reports.clear()
    batch.button.click()
    steps(jobs, clock, 1.0)
    assert heard.last.text == "2 done, 1 skipped, 1 failed."
    assert batching.states.count("done") == len(list(Path(batching.out).glob("*.tif"))) - 1 == 2
    assert is_forward(reports)


def test_the_time_left_of_a_batch_follows_its_pace(
    batch: BatchPanel, jobs, clock, reports, viewer, monkeypatch
) -> None:
    """A tile takes two seconds, and there are ten of them in three images: 4, 4 and 2."""
    forward = Executor.begin

    def slow(self: Executor, *given: Any) -> Any:
        clock.now += 2.0
        return forward(self, *given)

    monkeypatch.setattr(Executor, "begin", slow)
    viewer.layers.remove("flat")
    batch.button.click()
    jobs.finish()
    batch.button.click()
    jobs.finish()
    assert is_forward(reports)
    assert [r.seconds_left for r in reports[1:]] == pytest.approx([2.0 * (10 - done) for done in range(2, 11)])


# --- a model where it was not meant


def test_a_channel_that_nobody_chose_is_said_with_the_result(viewer, session, jobs, heard) -> None:
    viewer.add_image(np.stack([two_squares(), two_squares()]), name="two")
    session.segment()
    jobs.finish()
    assert heard.last.text.endswith(" No channel was chosen, so channel 0 of 2 (counted from 0) was segmented.")
    session.choose(channel=0)
    session.segment()
    jobs.finish()
    assert "No channel was chosen" not in heard.last.text


def test_a_model_that_learned_here_says_where_it_does_not_belong(viewer, session, jobs, heard, monkeypatch) -> None:
    """Taught on a dark image of half a micrometre a pixel; then asked about a coarser one, and about an inverted one."""
    monkeypatch.setattr("napari_unet.engine.training.judge", lambda *arguments: Judgement.BETTER)
    pixels = (200 * two_squares()).astype(np.uint8)
    there = {"units": ("micrometer", "micrometer")}
    viewer.add_image(pixels, name="squares", scale=(0.5, 0.5), **there)
    learning = Learning(session)
    learning.refresh_after = False
    learning.settings = replace(learning.settings, steps=2, batch=1, patch=32)
    draw(learning)
    learning.train()
    jobs.finish()
    jobs.finish()  # saving
    assert session.entry.card.training["conditions"] == {"brightness": [0.0, 0.0], "pixel_size": [0.5, 0.5]}
    said = []
    for name, array, size in (("same", pixels, 0.5), ("coarse", pixels, 1.1), ("inverted", 200 - pixels, 0.5)):
        session.choose_image(viewer.add_image(array, name=name, scale=(size, size), **there))
        session.segment()
        jobs.finish()
        said.append(heard.last.text)
    assert re.fullmatch(r"Segmented in \S+ s\.", said[0])
    assert "A pixel of this image is 1.1 µm wide, of those that bright learned from 0.5 µm" in said[1]
    assert "This image is mostly bright, those that bright learned from mostly dark" in said[2]
    learning.close()
