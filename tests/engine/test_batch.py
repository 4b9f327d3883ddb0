"""Many images: planned and checked first, one broken one stops no other, finished ones are kept, a kill changes nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from napari_unet.engine import batch
from napari_unet.engine.batch import (
    BatchDone,
    BatchReport,
    ItemFinished,
    ItemProgress,
    ItemStarted,
    plan_batch,
    run_batch,
)
from napari_unet.engine.errors import FileError, InvalidSettings
from napari_unet.engine.files import open_image
from napari_unet.engine.image import Image
from napari_unet.engine.model import Model, save_model
from napari_unet.engine.settings import BatchSettings, ObjectSettings, SegmentSettings

from .conftest import make_model

CPU = SegmentSettings(device="cpu", tile=32)
SETTINGS = BatchSettings(CPU)


def save(path: Path, *shape: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, shape or (40, 50), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack", compression="zlib")
    return path


def run(sources: list, out: Path, model: Model, settings: BatchSettings = SETTINGS) -> BatchReport:
    *_, last = run_batch(plan_batch(sources, out, model, settings), model)
    assert isinstance(last, BatchDone)
    return last.report


def states(report: BatchReport) -> list[str]:
    return [o.state for o in report.outcomes]


def read(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).array[...])


# ---------------------------------------------------------------- the plan


def test_a_plan_says_what_goes_where_and_computes_nothing(tmp_path: Path, tiny: Model) -> None:
    save(tmp_path / "in" / "a.tif", 9, 40, 50)
    plan = batch.with_times(plan_batch([tmp_path / "in"], tmp_path / "out", tiny, SETTINGS), tiny)
    (item,) = plan.todo
    assert (item.target, item.words, item.pixels) == (tmp_path / "out" / "a_labels.tif", "9 slices of 2D images", 18000)
    assert plan.seconds > 0
    assert not (tmp_path / "out").exists()


def problem_of(plan: batch.BatchPlan) -> str:
    (item,) = plan.items
    return item.problem


def test_a_truncated_file_is_known_before_it_is_read(tmp_path: Path, tiny: Model) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((64, 64), np.uint8))
    path.write_bytes(path.read_bytes()[:2000])
    assert (
        problem_of(plan_batch([path], tmp_path / "out", tiny, SETTINGS))
        == f"{path} cannot be read: it is cut off after 2000 bytes; copy it again."
    )


@pytest.mark.parametrize(
    ("shape", "settings", "sentence"),
    [
        ((40, 50), replace(SETTINGS, segment=replace(CPU, channel=3)), "Channel 3 was asked for"),
        ((40, 50), replace(SETTINGS, link="t"), "no axis t of planes to link"),
        ((9, 40, 50), replace(SETTINGS, ending=".png"), "PNG cannot hold labels of shape (9, 40, 50)"),
    ],
)
def test_what_does_not_fit_is_known_before(
    shape: tuple[int, ...], settings: BatchSettings, sentence: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.tif", *shape)
    assert sentence in problem_of(plan_batch([path], tmp_path / "out", make_model(task="objects"), settings))


def test_an_image_too_large_for_memory_is_known_before(tmp_path: Path, tiny: Model) -> None:
    huge = Image(
        zarr.create_array(zarr.storage.MemoryStore(), shape=(10**6, 10**6), chunks=(1000, 1000), dtype="u1"), "yx"
    )
    npy = replace(SETTINGS, ending=".npy")
    assert "write it as .zarr or .tif" in problem_of(plan_batch([huge], tmp_path / "out", tiny, npy))
    assert problem_of(plan_batch([huge], tmp_path / "out", tiny, replace(SETTINGS, ending=".zarr"))) == ""


def test_an_image_without_pixels_is_known_before(tmp_path: Path, tiny: Model) -> None:
    np.save(tmp_path / "a.npy", np.zeros((0, 50)))
    assert "is empty" in problem_of(plan_batch([tmp_path / "a.npy"], tmp_path / "out", tiny, SETTINGS))


def test_images_of_one_name_would_replace_each_other(tmp_path: Path, tiny: Model) -> None:
    one, other = save(tmp_path / "one" / "a.tif"), save(tmp_path / "other" / "a.tif")
    plan = plan_batch([one, other], tmp_path / "out", tiny, SETTINGS)
    assert [item.problem for item in plan.items] == [
        f"{one} and {other} would both be written to {tmp_path / 'out' / 'a_labels.tif'}: rename one of them."
    ] * 2


def test_images_of_any_shape_and_axes_go_together(tmp_path: Path, tiny: Model) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    sources = [save(tmp_path / "plane.tif"), save(tmp_path / "stack.tif", 9, 30, 60), tmp_path / "rgb.tif"]
    assert run(sources, tmp_path / "out", tiny).complete
    shapes = {p.name: tifffile.imread(tmp_path / "out" / f"{p.stem}_labels.tif").shape for p in sources}
    assert shapes == {"plane.tif": (40, 50), "stack.tif": (9, 30, 60), "rgb.tif": (40, 50)}


def test_an_output_without_a_record_is_not_replaced(tmp_path: Path, tiny: Model) -> None:
    path = save(tmp_path / "a.tif")
    save(tmp_path / "out" / "a_labels.tif")
    assert "exists, and not from a batch" in problem_of(plan_batch([path], tmp_path / "out", tiny, SETTINGS))
    assert states(run([path], tmp_path / "out", tiny, replace(SETTINGS, resume=False))) == ["done"]


def test_the_output_may_not_lie_inside_the_input(tmp_path: Path, tiny: Model) -> None:
    save(tmp_path / "a.tif")
    with pytest.raises(FileError, match="lies inside the input"):
        plan_batch([tmp_path], tmp_path / "out", tiny, SETTINGS)


def test_classes_are_not_linked(tmp_path: Path, tiny: Model) -> None:
    with pytest.raises(InvalidSettings, match="need no linking"):
        plan_batch([save(tmp_path / "a.tif")], tmp_path / "out", tiny, replace(SETTINGS, link="z"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_known_before(tmp_path: Path, tiny: Model) -> None:
    path = save(tmp_path / "a.tif")
    (tmp_path / "out").mkdir(mode=0o500)
    assert "no permission" in problem_of(plan_batch([path], tmp_path / "out", tiny, SETTINGS))


# ---------------------------------------------------------------- the run


def test_one_broken_image_stops_no_other(tmp_path: Path, tiny: Model) -> None:
    good = [save(tmp_path / f"{n}.tif") for n in "ac"]
    broken = tmp_path / "b.tif"
    broken.write_bytes(b"II*\0 no tiff")
    events = list(run_batch(plan_batch([good[0], broken, good[1]], tmp_path / "out", tiny, SETTINGS), tiny))
    assert [e.number for e in events if isinstance(e, ItemStarted)] == [0, 2]
    assert [(e.number, e.outcome.state) for e in events if isinstance(e, ItemFinished)] == [
        (1, "failed"),  # known before
        (0, "done"),
        (2, "done"),
    ]
    assert [(e.done, e.tiles) for e in events if isinstance(e, ItemProgress)][:4] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    report = events[-1].report
    assert not report.complete
    assert report.sentence() == "2 done, 1 failed"


def test_a_full_disk_stops_the_rest_and_keeps_what_is_done(tmp_path: Path, tiny: Model, monkeypatch) -> None:
    paths, write = [save(tmp_path / f"{n}.tif") for n in "abc"], batch.write_labels

    def full(path: Path, *arguments: object) -> None:
        if path.name.startswith("b"):
            raise FileError("full") from OSError(errno.ENOSPC, "No space left on device")
        write(path, *arguments)

    monkeypatch.setattr(batch, "write_labels", full)
    report = run(paths, tmp_path / "out", tiny)
    assert states(report) == ["done", "failed", "not begun"]
    monkeypatch.undo()
    assert states(run(paths, tmp_path / "out", tiny)) == ["skipped", "done", "done"]


def test_what_is_finished_is_skipped_until_image_model_or_settings_change(tmp_path: Path) -> None:
    path, out, model = save(tmp_path / "a.tif"), tmp_path / "out", make_model(task="objects")
    assert states(run([path], out, model)) == ["done"]
    assert states(run([path], out, model)) == ["skipped"]
    other = replace(SETTINGS, segment=replace(CPU, objects=ObjectSettings(minimal_size=99)))
    assert run([path], out, model, other).outcomes[0].sentence.startswith("computed again, since the settings changed")
    save(path, seed=1)
    assert run([path], out, model, other).outcomes[0].sentence.startswith("computed again, since the image changed")
    save_model(model, tmp_path / "m.safetensors")
    renamed = Model(model.card.with_(content_hash="f" * 64), model.network)
    assert run([path], out, renamed, other).outcomes[0].sentence.startswith("computed again, since the model changed")


def test_an_output_whose_record_is_not_complete_is_computed_again(tmp_path: Path, tiny: Model) -> None:
    path = save(tmp_path / "a.tif")
    run([path], tmp_path / "out", tiny)
    record = batch.record_path(tmp_path / "out" / "a_labels.tif")
    record.write_text(record.read_text().replace('"done"', '"under way"'))
    assert states(run([path], tmp_path / "out", tiny)) == ["done"]


def test_what_speaks_against_a_result_is_said_of_one_by_regions_too(tmp_path: Path) -> None:
    pixels = np.zeros((40, 50), np.uint8)
    pixels[10:20, 10:20] = 3
    model = make_model(channels=(2, 3), task="objects", objects=ObjectSettings(0.01, 0.01, 0))
    plan = plan_batch([Image(pixels, "yx", name="dim")], tmp_path / "out", model, BatchSettings(CPU, ending=".zarr"))
    plan = replace(plan, items=tuple(replace(item, by_regions=True) for item in plan.items))
    *_, last = run_batch(plan, model)
    assert last.report.outcomes[0].sentence.startswith("The image has hardly any contrast (3 grey levels)")


def test_open_images_are_sources_too(tmp_path: Path, tiny: Model, rng: np.random.Generator) -> None:
    image = Image(rng.random((40, 50)), "yx", name="a/b: c")
    assert states(run([image], tmp_path / "out", tiny)) == ["done"]
    assert states(run([image], tmp_path / "out", tiny)) == ["skipped"]
    assert read(tmp_path / "out" / "a_b_ c_labels.tif").shape == (40, 50)


def test_planes_are_linked_in_each_time_point_on_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    plane = rng.random((40, 50))
    image = Image(np.broadcast_to(plane, (2, 3, 40, 50)).copy(), "tzyx", name="a")
    segment = replace(CPU, objects=ObjectSettings(0.42, 0.24, 3))
    run([image], tmp_path / "out", make_model(task="objects"), replace(SETTINGS, segment=segment, link="z"))
    labels = read(tmp_path / "out" / "a_labels.tif")
    assert labels.max() > 3
    np.testing.assert_array_equal(labels, np.broadcast_to(labels[0, 0], labels.shape))


def test_the_report_is_json(tmp_path: Path, tiny: Model) -> None:
    report = run([save(tmp_path / "a.tif"), tmp_path / "b.tif"], tmp_path / "out", tiny)
    report.save(tmp_path / "report.json")
    said = json.loads((tmp_path / "report.json").read_text())
    assert [o["state"] for o in said["outcomes"]] == ["done", "failed"]
    assert said["complete"] is False


# ---------------------------------------------------------------- kill -9


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np, torch
from napari_unet.engine import batch
from napari_unet.engine.model import load_model_file
from napari_unet.engine.settings import BatchSettings, ObjectSettings, SegmentSettings

ending, model, source, folder = sys.argv[1:]
torch.set_num_threads(1)
batch.LARGE = 100  # region by region
segment = SegmentSettings(device="cpu", tile=32, objects=ObjectSettings(0.42, 0.24, 3))
settings, model = BatchSettings(segment, ending=ending, block=32), load_model_file(Path(model))

def run(out, moment):
    "Run in a process of its own, which dies at a moment counted in files opened, renamed and folders made."
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event == "open" and folder in str(arguments[0]) or event in ("os.rename", "os.mkdir"):
            seen += 1
            if seen == moment:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(count)
    *_, end = batch.run_batch(batch.plan_batch([source], out, model, settings), model)
    Path(folder, "seen").write_text(str(seen))
    os._exit(0 if end.report.complete else 1)

assert run(folder + "/whole", -1) == 0
steps = int(Path(folder, "seen").read_text())
for moment in np.random.default_rng(3).uniform(0, 0.5, 8) * steps:
    assert run(folder + "/killed", max(1, int(moment))) in (0, -signal.SIGKILL)
assert run(folder + "/killed", -1) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kill -9")
@pytest.mark.parametrize("ending", [".tif", ".zarr"])
def test_killed_at_random_moments_and_resumed_the_result_is_the_same(ending: str, tmp_path: Path) -> None:
    model = tmp_path / "m.safetensors"
    save_model(make_model(task="objects"), model)
    for i, name in enumerate("ab"):
        save(tmp_path / "in" / f"{name}.tif", 60, 70, seed=i)
    arguments = [ending, str(model), str(tmp_path / "in"), str(tmp_path)]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", KILLED, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in "ab":
        whole, killed = (read(tmp_path / folder / f"{name}_labels{ending}") for folder in ("whole", "killed"))
        assert whole.max() > 0
        np.testing.assert_array_equal(killed, whole)
