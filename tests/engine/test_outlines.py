"""Labels to polygons and ROIs, and back."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_unet.engine.errors import FileError
from napari_unet.engine.image import Image
from napari_unet.engine.outlines import Outline, area, fill, rasterised, read_outlines, trace, write_outlines

from .conftest import discs

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=bool)


def test_the_outline_of_a_pixel_is_its_four_corners() -> None:
    (ring,) = trace(np.ones((1, 1), bool))
    np.testing.assert_array_equal(ring, [[0, 0], [0, 1], [1, 1], [1, 0]])
    assert area(ring) == 1


def test_a_hole_runs_the_other_way() -> None:
    assert sorted(area(ring) for ring in trace(RING)) == [-1, 9]


def test_pixels_that_meet_at_a_corner_are_two_outlines() -> None:
    assert [area(ring) for ring in trace(np.eye(2, dtype=bool))] == [1, 1]


def test_what_is_traced_fills_the_same_pixels(rng) -> None:
    for _ in range(20):
        mask = rng.random((9, 12)) < 0.6
        rings = trace(mask)
        np.testing.assert_array_equal(fill(mask.shape, rings), mask)
        assert sum(map(area, rings)) == mask.sum()


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_objects_come_back_as_they_were(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("roifile")
    labels = discs() * 7  # numbers with gaps are kept
    path = tmp_path / f"cells{ending}"
    assert write_outlines(path, labels, "yx", "nucleus") == 3
    image = Image(np.zeros(labels.shape), "yx")
    np.testing.assert_array_equal(rasterised(read_outlines(path), image), labels)


@pytest.mark.parametrize("ending", [".geojson", ".zip"])
def test_planes_of_a_stack_keep_their_place(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("roifile")
    labels = np.zeros((2, 3, 8, 9), int)
    labels[1, 2, 2:5, 3:6] = 4
    path = tmp_path / f"stack{ending}"
    write_outlines(path, labels, "tzyx")
    assert read_outlines(path)[0].position == {"t": 1, "z": 2}
    np.testing.assert_array_equal(rasterised(read_outlines(path), Image(np.zeros(labels.shape), "tzyx")), labels)


def test_geojson_is_what_qupath_reads(tmp_path: Path) -> None:
    write_outlines(tmp_path / "a.geojson", RING.astype(int), "yx", "cell")
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"]["classification"] == {"name": "cell"}
    outer, hole = feature["geometry"]["coordinates"]
    assert outer == [[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]]
    assert len(hole) == 5


def test_two_pieces_are_a_multipolygon(tmp_path: Path) -> None:
    write_outlines(tmp_path / "a.geojson", np.array([[1, 0, 1]]), "yx")
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["geometry"]["type"] == "MultiPolygon"


def test_annotations_start_at_two_and_background_is_one(tmp_path: Path) -> None:
    square = np.array([[0, 0], [0, 2], [2, 2], [2, 0]], float)
    found = [Outline(0, (square,), {}, "Cell"), Outline(0, (square + 2,), {}, "Background")]
    image = Image(np.zeros((4, 5)), "yx")
    assert np.unique(rasterised(found, image, annotation=True)).tolist() == [0, 1, 2]


def test_classes_give_the_numbers() -> None:
    square = np.array([[0, 0], [0, 2], [2, 2], [2, 0]], float)
    image = Image(np.zeros((4, 5)), "yx")
    labels = rasterised([Outline(9, (square,), {}, "wall")], image, classes=("background", "cell", "Wall"))
    assert np.unique(labels).tolist() == [0, 2]
    with pytest.raises(FileError, match="has the class 'dirt'"):
        rasterised([Outline(9, (square,), {}, "dirt")], image, classes=("background", "cell"), name="a.geojson")


def test_outlines_of_another_image_are_refused() -> None:
    square = np.array([[0, 0], [0, 90], [2, 90], [2, 0]], float)
    with pytest.raises(FileError, match=r"reaches x=90, outside 'small' \(shape \(4, 5\)\)"):
        rasterised([Outline(1, (square,), {})], Image(np.zeros((4, 5)), "yx", name="small"))
    with pytest.raises(FileError, match="reaches z=3"):
        rasterised([Outline(1, (square / 90,), {"z": 3})], Image(np.zeros((4, 5)), "yx", name="small"))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.geojson", b"{", "is damaged"),
        ("a.geojson", b'{"features": [{"geometry": 3}]}', "is damaged"),
        ("a.geojson", b'{"features": []}', "holds no polygon"),
        ("a.zip", b"PK", "is damaged"),
        ("a.roi", b"Iout", "is damaged"),
    ],
)
def test_damaged_files_are_said(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    pytest.importorskip("roifile")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=sentence):
        read_outlines(tmp_path / name)


def test_no_objects_are_an_empty_file(tmp_path: Path) -> None:
    assert write_outlines(tmp_path / "a.geojson", np.zeros((3, 4), int), "yx") == 0
    with pytest.raises(FileError, match="holds no polygon"):
        read_outlines(tmp_path / "a.geojson")


def test_without_roifile_it_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(FileError, match="pip install roifile"):
        write_outlines(tmp_path / "a.zip", np.ones((2, 2), int), "yx")
