"""Batching: what is chosen, the plan before the run, the report after it; without a window."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Labels

from napari_unet import cli
from napari_unet.plugin.batching import NOTHING, Batching

from .test_session import two_squares


@pytest.fixture
def batching(session, tmp_path: Path) -> Batching:
    made = Batching(session)
    made.choose(out=str(tmp_path / "out"))
    return made


def finish(batching: Batching, jobs) -> None:
    batching.check()
    jobs.finish()
    batching.run()
    jobs.finish()


def test_nothing_chosen_is_said(batching: Batching, heard) -> None:
    batching.check()
    assert (heard.last.text, heard.last.is_error) == (NOTHING, True)


def test_the_plan_is_listed_before_anything_runs(viewer, batching: Batching, jobs, tmp_path: Path) -> None:
    viewer.add_image(two_squares(), name="squares")
    batching.add(str(tmp_path / "missing.tif"))
    batching.check()
    jobs.finish()
    assert batching.states == [
        "one 2D image",
        f"cannot: {tmp_path / 'missing.tif'} does not exist: check the spelling and the folder.",
    ]
    assert not (tmp_path / "out").exists()


def test_a_layer_that_is_not_ticked_takes_no_part(viewer, batching: Batching, jobs) -> None:
    one, two = viewer.add_image(two_squares(), name="one"), viewer.add_image(two_squares(), name="two")
    batching.tick(one, False)
    assert batching.ticked() == [two]


def test_a_broken_item_is_reported_and_the_others_are_done(
    viewer, batching: Batching, jobs, heard, tmp_path: Path
) -> None:
    viewer.add_image(two_squares(), name="squares")
    viewer.add_image(np.full((40, 60), 7), name="flat")
    finish(batching, jobs)
    assert batching.states[0] == "done"
    assert batching.states[1].startswith("failed: Every pixel of 'flat' is 7")
    assert heard.last.text == "1 done, 1 failed."
    batching.save_report(str(tmp_path / "r.json"))
    assert json.loads((tmp_path / "r.json").read_text())["complete"] is False


def test_the_failed_ones_can_be_planned_again(viewer, batching: Batching, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    viewer.add_image(np.full((40, 60), 7), name="flat")
    finish(batching, jobs)
    batching.check_failed()
    jobs.finish()
    assert [item.name for item in batching.plan.items] == ["flat"]


def test_a_stopped_batch_goes_on_where_it_was(viewer, batching: Batching, jobs) -> None:
    for name in ("one", "two"):
        viewer.add_image(two_squares(), name=name)
    batching.check()
    jobs.finish()
    batching.run()
    while batching.states[0] != "done":
        jobs.step()
    batching.session.cancel()
    jobs.finish()
    batching.run()
    jobs.finish()
    assert batching.states == ["skipped: finished before", "done"]


def test_pause_holds_the_job(viewer, batching: Batching, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    batching.check()
    jobs.finish()
    batching.run()
    batching.pause()
    assert jobs.held
    batching.pause()
    assert not jobs.held


def test_a_result_opens_on_top_of_its_image(viewer, batching: Batching, jobs) -> None:
    viewer.add_image(two_squares(), name="squares", scale=(0.5, 0.5), translate=(3, 4))
    finish(batching, jobs)
    batching.open_result(0)
    (labels,) = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    assert tuple(labels.scale) == (0.5, 0.5)
    assert tuple(labels.translate) == (3, 4)
    assert labels.data[8, 8] == 1


def test_a_scheduler_that_is_not_there_is_said_by_the_plan(
    viewer, batching: Batching, jobs, heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pytest.importorskip("napari_unet.engine.cluster"), "ANSWER", 0.3)
    viewer.add_image(two_squares(), name="squares")
    batching.choose(scheduler="tcp://127.0.0.1:1")
    batching.check()
    jobs.finish()
    assert heard.last.is_error
    assert heard.last.text.startswith("The scheduler tcp://127.0.0.1:1 does not answer")


def test_another_model_drops_the_plan(viewer, batching: Batching, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    batching.check()
    jobs.finish()
    batching.session.choose_model(batching.session.library.find("objects"))
    assert batching.plan is None


def test_the_command_names_what_was_chosen(batching: Batching, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    batching.session.choose_model(batching.session.library.find("objects"))
    batching.add(str(tmp_path / "a.tif"))
    batching.choose(ending=".zarr", link="z", scheduler="tcp://server:8786")
    assert shlex.split(batching.command()) == [
        *("napari-unet", "segment", str(tmp_path / "a.tif"), "-o", f"{tmp_path / 'out'}/", "--model", "objects@1"),
        *("--format", ".zarr", "--link", "z", "--scheduler", "tcp://server:8786", "--device", "cpu"),
    ]


def test_the_command_gives_the_labels_of_the_window(
    batching: Batching, jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_UNET_HOME", str(tmp_path))  # where the session has its models too
    tifffile.imwrite(tmp_path / "a.tif", two_squares())
    batching.session.choose_model(batching.session.library.find("objects"))
    batching.add(str(tmp_path / "a.tif"))
    finish(batching, jobs)
    command = batching.command().replace(str(tmp_path / "out"), str(tmp_path / "again"))
    monkeypatch.setattr(sys, "argv", shlex.split(command))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    labels = tifffile.imread(tmp_path / "out" / "a_labels.tif")
    assert labels.max() == 2
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "again" / "a_labels.tif"), labels)
