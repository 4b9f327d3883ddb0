"""SIGKILL at random moments of painting, saving, training, batches and OME-Zarr: what is lost, what is damaged.

Run with ``python -m benchmarks kills [TIMES] [SEED]`` (Linux, macOS). Each row is a kind of work done over and over by
a process of its own, which says what it has finished; it is killed TIMES times, each time at another moment, and what
is on the disk is then opened as after a restart. Lost: finished work that is not there. Damaged: what can be opened and
is wrong, or makes something else fail. The last rows: two processes that add versions to one library at the same time,
and a disk that is full.
"""

from __future__ import annotations

import errno
import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from napari_unet.engine import batch
from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.errors import NapariUnetError
from napari_unet.engine.files import open_image, write_labels
from napari_unet.engine.image import Image
from napari_unet.engine.library import Library
from napari_unet.engine.model import Model, load_model_file, new_model
from napari_unet.engine.settings import BatchSettings, SegmentSettings, TrainSettings
from napari_unet.engine.strokes import Change
from napari_unet.engine.training import Trained, fine_tune
from napari_unet.plugin.journal import About, Journal, kept

ABOUT = About("image", "image", (512, 512), "semantic", ("background", "cell"), ("#000000", "#ffffff"))
MODEL = new_model(ModelCard("tiny", "objects", UNetSpec(out_channels=3, channels=(8, 16))))
IMAGES = 5
LONGEST = {"paint": 0.3, "save a version": 1.2, "train and save": 5.0, "batch to TIFF": 2.0, "batch to OME-Zarr": 2.0,
           "batch by regions": 3.0, "replace an OME-Zarr": 1.0}  # fmt: skip
"""Seconds within which the kill comes: some rounds of the work."""
Work = Callable[[Path], Iterator[str]]


@dataclass
class Found:
    """What was on the disk after a kill."""

    finished: int = 0
    lost: int = 0
    damaged: int = 0


# ---------------------------------------------------------------- the work: yields the name of what is finished


def paint(folder: Path) -> Iterator[str]:
    """Strokes into a journal."""
    journal = Journal(folder, ABOUT)
    for i in range(100_000):
        where = np.arange(i, i + 400)
        journal.write(Change(where, np.full(400, i + 1, np.uint32), np.zeros(400, bool)))
        yield str(i + 1)


def save(folder: Path) -> Iterator[str]:
    """Versions of one model."""
    library = Library(folder)
    while True:
        yield library.add(MODEL).path.name


def train(folder: Path) -> Iterator[str]:
    """Rounds of training, each of them saved."""
    labels = np.zeros((64, 64), np.uint8)
    labels[10:20, 10:20], labels[40:60, 40:60] = 2, 1
    pixels = np.random.default_rng(0).random((1, 64, 64), dtype=np.float32)
    data, library = TrainingSet((Annotation(pixels, labels),)), Library(folder)
    model = MODEL
    while True:
        *_, end = fine_tune(model, data, TrainSettings(steps=4, patch=32, batch=2, device="cpu"))
        assert isinstance(end, Trained)
        model = end.model
        yield library.add(model).path.name


def run_batch(folder: Path, ending: str) -> Iterator[str]:
    """A batch from its beginning, or from where it was killed."""
    settings = BatchSettings(SegmentSettings(device="cpu", tile=32), ending=ending, block=64)
    for event in batch.run_batch(batch.plan_batch([folder / "in"], folder / "out", MODEL, settings), MODEL):
        if isinstance(event, batch.ItemFinished):
            yield event.item.target.name
    while True:
        time.sleep(1)


def tiff(folder: Path) -> Iterator[str]:
    """Label files."""
    yield from run_batch(folder, ".tif")


def ome_zarr(folder: Path) -> Iterator[str]:
    """Label folders, written at once."""
    yield from run_batch(folder, ".zarr")


def regions(folder: Path) -> Iterator[str]:
    """Label folders, written region by region."""
    with mock.patch.object(batch, "LARGE", 0):
        yield from run_batch(folder, ".zarr")


def replace(folder: Path) -> Iterator[str]:
    """One label folder over and over, each time with another value everywhere."""
    image = Image(np.zeros((600, 600), np.uint8), "yx")
    for i in range(100_000):
        write_labels(folder / "labels.zarr", np.full((600, 600), i + 1, np.int32), image, {"value": i + 1})
        yield str(i + 1)


# ---------------------------------------------------------------- after the restart


def check_journal(folder: Path, said: list[str]) -> Found:
    """All strokes are there, in order; one more may be."""
    found = Found(len(said))
    journals = kept(folder, "image")
    changes = [int(c.values[0]) for j in journals for c in j.changes()]
    found.lost = max(0, len(said) - len(changes))
    found.damaged = int(changes != list(range(1, len(changes) + 1)) or len(journals) > 1)
    return found


def check_library(folder: Path, said: list[str]) -> Found:
    """The library opens, every version loads, and the one in use is there."""
    found, library = Found(len(said)), Library(folder)
    found.damaged = len(library.damaged())
    found.lost = sum(not (folder / name).is_file() for name in said)
    for entry in library.versions("tiny"):
        try:
            load_model_file(entry.path)
        except NapariUnetError:
            found.damaged += 1
    if said:
        library.load("tiny")
    return found


def check_batch(folder: Path, said: list[str], reference: dict[str, np.ndarray]) -> Found:
    """Every output that has its name is whole and right."""
    found, out = Found(len(said)), folder / "out"
    found.lost = sum(not (out / name).exists() for name in said)
    for path in out.glob("[!.]*"):
        try:
            right = np.array_equal(np.asarray(open_image(path).array[...]), reference[path.name.partition("_")[0]])
        except NapariUnetError:
            right = False
        found.damaged += not right
    return found


def check_replaced(folder: Path, said: list[str]) -> Found:
    """It is there and of one value, the last one said or the next."""
    path, found = folder / "labels.zarr", Found(len(said))
    if not path.exists():
        found.lost = int(bool(said))
        return found
    values = np.unique(np.asarray(open_image(path).array[...]))
    found.damaged = int(len(values) != 1)
    found.lost = int(bool(said) and int(values[0]) < int(said[-1]))
    return found


# ---------------------------------------------------------------- the kill


def killed(work: Work, folder: Path, after: float) -> list[str]:
    """Do the work in a process of its own, kill it `after` seconds, and return what it said was finished."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        try:
            for name in work(folder):
                os.write(writable, name.encode() + b"\n")
        finally:
            os._exit(1)
    os.close(writable)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(readable, "rb") as pipe:
        said = pipe.read().decode().splitlines()
    if not os.WIFSIGNALED(status):
        sys.exit(f"{work.__name__} ended by itself: a bug in it or here")
    return said


def images(folder: Path) -> None:
    """Write what the batches read."""
    (folder / "in").mkdir()
    for i in range(IMAGES):
        np.save(folder / "in" / f"{i}.npy", np.random.default_rng(i).random((96, 128), dtype=np.float32))


def trial(name: str, times: int, rng: random.Random, reference: dict[str, np.ndarray]) -> tuple[Found, int, int]:
    """Kill one kind of work; return the sum of what was found, how many kills left all well, and the litter left."""
    works: dict[str, Work] = {
        "paint": paint,
        "save a version": save,
        "train and save": train,
        "batch to TIFF": tiff,
        "batch to OME-Zarr": ome_zarr,
        "batch by regions": regions,
        "replace an OME-Zarr": replace,
    }
    total, survived, litter = Found(), 0, 0
    for _ in range(times):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if "batch" in name:
                images(folder)
            said = killed(works[name], folder, rng.uniform(0, LONGEST[name]))
            if name == "paint":
                found = check_journal(folder, said)
            elif "batch" in name:
                found = check_batch(folder, said, reference)
            elif name == "replace an OME-Zarr":
                found = check_replaced(folder, said)
            else:
                found = check_library(folder, said)
            litter += sum(p.name.startswith(".") and not p.name.endswith(".json") for p in folder.rglob("*"))
            survived += not (found.lost or found.damaged)
            total = Found(total.finished + found.finished, total.lost + found.lost, total.damaged + found.damaged)
    return total, survived, litter


def two_windows(rounds: int) -> tuple[int, int]:
    """Two processes add versions to one library at once; return how many they added and how many are there."""
    with tempfile.TemporaryDirectory() as place:
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                library = Library(Path(place))
                for _ in range(rounds):
                    library.add(MODEL)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        library = Library(Path(place))
        whole = sum(isinstance(load_model_file(e.path), Model) for e in library.versions("tiny"))
        return 2 * rounds, whole if not library.damaged() else 0


def full_disk(times: int, rng: random.Random) -> int:
    """The disk is full after a random number of bytes of a new version; return how often the library stayed as it was."""
    good = 0
    for _ in range(times):
        with tempfile.TemporaryDirectory() as place:
            library = Library(Path(place))
            first = library.add(MODEL).path.read_bytes()
            room = rng.randrange(len(first))

            def fsync(descriptor: int, room: int = room) -> None:
                os.ftruncate(descriptor, min(room, os.fstat(descriptor).st_size))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            with mock.patch("os.fsync", fsync):
                try:
                    library.add(MODEL)
                except NapariUnetError as error:
                    told = "free some space" in str(error)
            files = [p for p in Path(place).iterdir() if p.suffix == ".safetensors"]
            good += told and len(files) == 1 and files[0].read_bytes() == first and not library.damaged()
    return good


def main() -> None:
    """Print the table."""
    importlib.import_module("ome_zarr.writer")  # seconds, which no child shall spend
    times = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        images(folder)
        settings = BatchSettings(SegmentSettings(device="cpu", tile=32), ending=".npy")
        list(batch.run_batch(batch.plan_batch([folder / "in"], folder / "out", MODEL, settings), MODEL))
        reference = {p.name.partition("_")[0]: np.load(p) for p in (folder / "out").glob("[!.]*.npy")}
        shutil.rmtree(folder / "out")
    print(f"{'killed while':22} {'times':>5} {'survived':>8} {'finished':>8} {'lost':>5} {'damaged':>8} {'litter':>6}")
    for name in LONGEST:
        found, survived, litter = trial(name, times, rng, reference)
        row = f"{name:22} {times:5} {survived:8} {found.finished:8} {found.lost:5} {found.damaged:8} {litter:6}"
        print(row, flush=True)
    added, there = two_windows(20)
    print(f"two processes, one library: {added} versions added, {there} there and whole")
    print(f"disk full while saving a version: {times} times, {full_disk(times, rng)} times as before and told")


if __name__ == "__main__":
    main()
