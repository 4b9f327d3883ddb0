"""Workers of a dask cluster: the same labels as one process, also when a worker dies; what is wrong is said at once."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

pytest.importorskip("distributed")

import distributed

from napari_unet.engine import batch, cluster
from napari_unet.engine.batch import BatchDone, BatchReport, plan_batch, run_batch
from napari_unet.engine.errors import ClusterError, FileError, InvalidSettings
from napari_unet.engine.files import open_image
from napari_unet.engine.image import Image
from napari_unet.engine.model import Model, save_model
from napari_unet.engine.settings import BatchSettings, SegmentSettings

SETTINGS = BatchSettings(SegmentSettings(device="cpu", tile=32), block=32)


def save(path: Path, *shape: int, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, shape or (40, 50), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


@pytest.fixture
def scheduler() -> Iterator[str]:
    """A scheduler and a worker in this process, which start at once."""
    with distributed.LocalCluster(1, processes=False, threads_per_worker=2, dashboard_address=None) as made:
        yield made.scheduler_address


def run(sources: list, out: Path, model: Model, settings: BatchSettings) -> BatchReport:
    *_, last = run_batch(plan_batch(sources, out, model, settings), model)
    assert isinstance(last, BatchDone)
    return last.report


def read(path: Path) -> np.ndarray:
    return np.asarray(open_image(path).array[...])


def test_a_scheduler_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # and accepts, but says nothing
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ClusterError, match=f"^The scheduler {address} does not answer: check the address"):
            cluster.connected(address).__enter__()


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nowhere", "ftp://x:1"])
def test_an_address_of_nobody_is_one_sentence(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    with pytest.raises(ClusterError, match="does not answer"):
        cluster.connected(address).__enter__()


def test_another_version_is_known_while_planning(
    scheduler: str, tmp_path: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_version_of_scheduler", lambda client, package: "0.0.1")
    settings = replace(SETTINGS, scheduler=scheduler)
    with pytest.raises(ClusterError, match=r"has napari-unet 0\.0\.1, but here is .*: install the same version"):
        plan_batch([save(tmp_path / "a.tif")], tmp_path / "out", tiny, settings)


def test_a_scheduler_without_workers_is_known_while_planning(
    scheduler: str, tmp_path: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributed.Client, "nthreads", lambda self: {})
    with pytest.raises(ClusterError, match="has no workers: start some"):
        plan_batch([save(tmp_path / "a.tif")], tmp_path / "out", tiny, replace(SETTINGS, scheduler=scheduler))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny) -> None:
    monkeypatch.setattr(batch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ClusterError, match=r"pip install 'napari-unet\[cluster\]'"):
        plan_batch([save(tmp_path / "a.tif")], tmp_path / "out", tiny, replace(SETTINGS, workers=2))


def test_a_scheduler_and_workers_exclude_each_other() -> None:
    with pytest.raises(InvalidSettings, match="leave out workers"):
        BatchSettings(workers=2, scheduler="tcp://a:1")


def test_a_broken_image_stops_no_other(scheduler: str, tmp_path: Path, tiny: Model) -> None:
    sources = [save(tmp_path / "a.tif"), tmp_path / "flat.tif", save(tmp_path / "c.tif", 60, 70)]
    tifffile.imwrite(sources[1], np.full((40, 50), 7, np.uint8))
    report = run(sources, tmp_path / "out", tiny, replace(SETTINGS, scheduler=scheduler))
    assert [o.state for o in report.outcomes] == ["done", "failed", "done"]
    assert report.outcomes[1].sentence.startswith("Every pixel of 'flat' is 7")
    run(sources, tmp_path / "here", tiny, SETTINGS)
    np.testing.assert_array_equal(read(tmp_path / "out" / "c_labels.tif"), read(tmp_path / "here" / "c_labels.tif"))
    assert batch.record_path(tmp_path / "out" / "c_labels.tif").is_file()


def test_open_images_and_files_the_workers_cannot_see_are_sent(
    scheduler: str, tmp_path: Path, tiny: Model, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.Crew, "sees", lambda self, paths: [False] * len(paths))
    sources = [save(tmp_path / "a.tif"), Image(rng.random((40, 50)), "yx", name="open")]
    report = run(sources, tmp_path / "out", tiny, replace(SETTINGS, scheduler=scheduler))
    assert report.complete, report
    run(sources, tmp_path / "here", tiny, SETTINGS)
    for name in ("a", "open"):
        there, here = (read(tmp_path / folder / f"{name}_labels.tif") for folder in ("out", "here"))
        np.testing.assert_array_equal(there, here)


def test_regions_need_a_folder_that_the_workers_see(
    scheduler: str, tmp_path: Path, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster.Crew, "sees", lambda self, paths: [False] * len(paths))
    monkeypatch.setattr(batch, "LARGE", 100)
    report = run([save(tmp_path / "a.tif")], tmp_path / "out", tiny, replace(SETTINGS, scheduler=scheduler))
    assert "use a shared folder" in report.outcomes[0].sentence


def test_an_error_of_a_worker_keeps_what_the_system_said(scheduler: str, tiny: Model) -> None:
    with cluster.crew(tiny, scheduler=scheduler) as workers:
        (done,) = [d for d in workers.each(full_disk, [()]) if isinstance(d, cluster.Done)]
    assert isinstance(done.error, FileError)
    assert batch._is_lost(done.error)


def full_disk(desk: cluster.Desk):
    yield 0, 1
    raise FileError("full") from OSError(28, "No space left on device")


def test_to_close_is_to_cancel(scheduler: str, tmp_path: Path, tiny: Model) -> None:
    with cluster.crew(tiny, scheduler=scheduler) as workers:
        news = workers.each(count_up, [(tmp_path / "count",)])
        assert next(news) == cluster.Told(0, 1, 1000)
        news.close()
        (done,) = [d for d in workers.each(idle, [()]) if isinstance(d, cluster.Done)]  # once the first has stopped
    assert done.result == "idle"
    assert not (tmp_path / "count").exists()


def count_up(desk: cluster.Desk, path: Path):
    for i in range(1000):
        time.sleep(0.51 if i == 0 else 0.01)
        yield i + 1, 1000
    path.write_text("counted to the end")


def idle(desk: cluster.Desk):
    yield 0, 1
    return "idle"


# ---------------------------------------------------------------- kill -9 of a worker

KILLED = """
import os, signal, sys
from pathlib import Path
from napari_unet.engine import batch, cluster
from napari_unet.engine.model import load_model_file
from napari_unet.engine.settings import BatchSettings, ObjectSettings, SegmentSettings

def main():
    model, sources, out = load_model_file(Path(sys.argv[1])), sys.argv[2], sys.argv[3]
    batch.LARGE = 10000  # so that two files go side by side, and one region by region
    segment = SegmentSettings(device="cpu", tile=32, objects=ObjectSettings(0.42, 0.24, 3))
    settings = BatchSettings(segment, block=64)
    list(batch.run_batch(batch.plan_batch([sources], out + "/one", model, settings), model))
    settings = BatchSettings(segment, block=64, workers=2)
    killed = []
    plain = cluster.Crew.each

    def each(crew, work, given):
        "A worker is killed when the first region is done."
        for news in plain(crew, work, given):
            if isinstance(news, cluster.Done) and work is batch._piece_on_worker and not killed:
                killed.append(next(iter(crew._client.run(os.getpid).values())))
                os.kill(killed[0], signal.SIGKILL)
            yield news

    cluster.Crew.each = each
    *_, end = batch.run_batch(batch.plan_batch([sources], out + "/two", model, settings), model)
    assert killed
    assert end.report.complete, end.report

if __name__ == "__main__":
    main()
"""


def members(group: int) -> list[psutil.Process]:
    """Return the processes of a group, without those that are only waited for."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_worker_that_dies_changes_nothing(tmp_path: Path) -> None:
    from .conftest import make_model

    save_model(make_model(task="objects"), tmp_path / "m.safetensors")
    (tmp_path / "in").mkdir()
    for name, shape in (("a", (40, 50)), ("b", (40, 50)), ("large", (150, 100))):
        save(tmp_path / "in" / f"{name}.tif", *shape)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    arguments = [str(tmp_path / part) for part in ("m.safetensors", "in", "out")]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(script), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        _, said = process.communicate(timeout=240)
        _, left = psutil.wait_procs(members(process.pid), timeout=30)
    finally:  # a test that fails leaves nobody behind
        for member in members(process.pid):
            member.kill()
    assert process.returncode == 0, said
    assert not left, "workers were left behind"
    for name in ("a", "b", "large"):
        one, two = (read(tmp_path / "out" / folder / f"{name}_labels.tif") for folder in ("one", "two"))
        assert one.max() > 3
        np.testing.assert_array_equal(two, one)
