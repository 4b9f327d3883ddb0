"""Strokes survive: a kill, a torn record, a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_unet.engine.errors import FileError
from napari_unet.engine.image import Image
from napari_unet.engine.strokes import Change, Strokes
from napari_unet.plugin.journal import About, Journal, identity, kept

ABOUT = About("abc", "image", (30, 40), "semantic", ("background", "cell"), ("#000000", "#ffffff"))


def change(*where: int, value: int = 1) -> Change:
    return Change(np.array(where), np.full(len(where), value, np.uint32), np.array([i % 2 == 0 for i in where]))


def values(folder: Path) -> list[list[int]]:
    """Return where each change of the only journal was made."""
    (found,) = kept(folder, "abc")
    return [c.where.tolist() for c in found.changes()]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT)
    first, second = change(3, 4, 900, value=70_000), change(0)
    for made in (first, second):
        journal.write(made)
    (found,) = kept(tmp_path, "abc")
    for before, after in zip((first, second), found.changes(), strict=True):
        for name in ("where", "values", "held_out"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert found.about.classes == ("background", "cell")


@pytest.mark.parametrize("torn", [1, 7, 20])
def test_a_torn_last_record_is_not_read(tmp_path: Path, torn: int) -> None:
    journal = Journal(tmp_path, ABOUT)
    journal.write(change(1))
    journal.write(change(2))
    journal.path.write_bytes(journal.path.read_bytes()[:-torn])
    assert values(tmp_path) == [[1]]


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT)
    journal.write(change(1))
    journal.write(change(2))
    content = bytearray(journal.path.read_bytes())
    content[-3] ^= 4
    journal.path.write_bytes(content)
    assert values(tmp_path) == [[1]]


def test_a_file_torn_in_its_first_record_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT)
    journal.path.write_bytes(journal.path.read_bytes()[:20])
    assert kept(tmp_path, "abc") == []


def test_it_is_removed_only_when_discarded(tmp_path: Path) -> None:
    journal = Journal(tmp_path, ABOUT)
    assert journal.path.exists()
    Journal(tmp_path, ABOUT).discard()
    assert len(kept(tmp_path, "abc")) == 1


def test_journals_that_are_written_or_of_other_images_are_not_offered(tmp_path: Path) -> None:
    mine = Journal(tmp_path, ABOUT)
    assert kept(tmp_path, "abc", frozenset({mine.path})) == []
    assert kept(tmp_path, "abd") == []
    code = (
        "import sys; from pathlib import Path; from napari_unet.plugin.journal import *\n"
        "j = Journal(Path(sys.argv[1]), About('other', 'x', (1,), 'semantic', (), ())); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=-1, stdout=-1) as other:
        other.stdout.readline()
        assert kept(tmp_path, "other") == []
        other.kill()
    assert len(kept(tmp_path, "other")) == 1


def test_a_full_disk_is_told_and_leaves_a_journal_that_goes_on(tmp_path: Path, monkeypatch) -> None:
    journal = Journal(tmp_path, ABOUT)
    journal.write(change(1))
    with monkeypatch.context() as broken:

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        broken.setattr(os, "fsync", full)
        with pytest.raises(FileError, match=r"No space left on device\): free some space, or save"):
            journal.write(change(2))
    journal.write(change(3))
    assert values(tmp_path) == [[1], [3]]


def test_the_identity_is_of_shape_type_origin_and_pixels() -> None:
    pixels = np.random.default_rng(0).random((90, 70)).astype(np.float32)
    brighter = pixels + 1
    same = identity(Image(pixels.copy(), "yx"), "a.tif")
    assert same == identity(Image(pixels, "yx", name="renamed"), "a.tif")
    others = [(pixels, "b.tif"), (brighter, "a.tif"), (pixels.astype(np.float64), "a.tif"), (pixels[1:], "a.tif")]
    assert len({same, *(identity(Image(p, "yx"), s) for p, s in others)}) == 5


PAINTER = """
import sys, time
from pathlib import Path
import numpy as np
from napari_unet.engine.strokes import Strokes
from napari_unet.plugin.journal import About, Journal

journal = Journal(Path(sys.argv[1]), About("abc", "image", (400, 500), "semantic", (), ()))
strokes, labels = Strokes("yx", (400, 500), 2, False), np.zeros((400, 500), np.uint8)
rng, written = np.random.default_rng(0), time.monotonic()
for i in range(1, 10_000):
    y, x = rng.integers(0, 380), rng.integers(0, 380)
    labels[y : y + 20, x : x + 120] = 1 + i % 3  # painted ...
    journal.write(strokes.look(labels))
    print(i, flush=True)  # ... and promised to be on the disk
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_at_any_moment_loses_nothing_that_was_promised(tmp_path: Path, seed: int) -> None:
    """The window looks once a second, so what a kill can cost is what was painted since the last look."""
    process = subprocess.Popen([sys.executable, "-c", PAINTER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + np.random.default_rng(seed).uniform(0, 0.5)
    promised = 1
    while time.monotonic() < deadline:
        promised = int(process.stdout.readline())
    process.kill()
    rest = process.stdout.read().split("\n")
    process.wait()
    process.stdout.close()
    promised = max([promised, *(int(line) for line in rest[:-1] if line)])

    (found,) = kept(tmp_path, "abc")
    strokes, labels, again = (
        Strokes("yx", (400, 500), 2, False),
        np.zeros((400, 500), np.uint8),
        np.random.default_rng(0),
    )
    count = sum(1 for _ in found.changes())
    assert promised <= count <= promised + 1
    for i in range(1, count + 1):
        y, x = again.integers(0, 380), again.integers(0, 380)
        labels[y : y + 20, x : x + 120] = 1 + i % 3
    strokes.take_back(found.changes())
    np.testing.assert_array_equal(strokes.labels, labels)
