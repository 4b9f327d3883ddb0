"""The benchmark of speed: its gates close, and its synthetic maps hold the objects it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.speed import check, difference, maps_of

from napari_unet.engine.objects import labels_from_maps
from napari_unet.engine.settings import ObjectSettings


def rows(ratio: float, differs: float = 1e-6, labels: float = 0.0) -> list[dict[str, Any]]:
    shape = (1024, 1024)
    return [
        {"shape": shape, "name": "ours, level by level", "times_cpu": 1.0, "differs": differs, "labels": labels},
        {"shape": shape, "name": "MONAI, batch 1", "times_cpu": ratio, "differs": 0.4, "labels": 0.04},
        {"shape": shape, "name": "MONAI, batch 4", "times_cpu": 9.0, "differs": 0.4, "labels": 0.04},
    ]


def test_a_good_run_passes() -> None:
    check(rows(1.6))


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (rows(1.4), "MONAI takes only 1.40 times our CPU time"),
        (rows(1.6, differs=3e-5), "differs by 3.0e-05"),
        (rows(1.6, labels=2e-5), "labels by 0.00200%"),
    ],
    ids=["slow", "inexact", "labels"],
)
def test_a_missed_gate_is_told(bad: list[dict[str, Any]], words: str) -> None:
    with pytest.raises(SystemExit, match=words):
        check(bad)


def test_a_result_is_compared_where_something_is_expected(tmp_path: Path) -> None:
    expected = np.zeros((2, 4, 4), dtype=np.float32)
    expected[0] = 8.0
    found = np.pad(expected, [(0, 0), (0, 3), (0, 2)], constant_values=99)
    found[:, 1, 1] = 7.0, 7.5
    np.save(tmp_path / "expected.npy", expected)
    np.save(tmp_path / "found.npy", found)
    largest, changed = difference(tmp_path / "found.npy", tmp_path / "expected.npy")
    assert largest == 7.5 / 8
    assert changed == 1 / 16


def test_the_maps_hold_as_many_objects_as_they_should() -> None:
    assert labels_from_maps(maps_of(200, 7), ObjectSettings()).max() == 49
