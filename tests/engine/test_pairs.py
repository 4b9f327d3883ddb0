"""Folders of images and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_unet.engine.errors import FileError, InvalidAnnotation
from napari_unet.engine.pairs import open_pair, pair_up


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    return tmp_path / "images", tmp_path / "masks"


def save(path: Path, shape=(4, 5), dtype=np.uint8) -> Path:
    np.save(path, np.arange(np.prod(shape)).reshape(shape).astype(dtype) % 3)
    return path


def test_files_of_one_name_belong_together(folders) -> None:
    images, masks = folders
    for name in ("a", "b_img", "c"):
        save(images / f"{name}.npy")
    for name in ("a_mask", "b", "c_cp_masks"):
        save(masks / f"{name}.npy")
    names = [(a.name, b.name) for a, b in pair_up(images, masks).together]
    assert names == [("a.npy", "a_mask.npy"), ("b_img.npy", "b.npy"), ("c.npy", "c_cp_masks.npy")]


def test_what_is_left_over_is_named(folders) -> None:
    images, masks = folders
    for path in (images / "a.npy", images / "b.npy", masks / "a.npy", masks / "c.npy"):
        save(path)
    assert pair_up(images, masks).left_over == (
        "b.npy has no mask and is left out.",
        "c.npy has no image and is left out.",
    )


def test_nothing_together_is_an_error(folders) -> None:
    images, masks = folders
    save(images / "a.npy")
    save(masks / "b.npy")
    with pytest.raises(FileError, match="give both the same name"):
        pair_up(images, masks)


def test_two_of_one_name_are_an_error(folders) -> None:
    images, masks = folders
    save(images / "a.npy")
    save(images / "a_raw.npy")
    save(masks / "a.npy")
    with pytest.raises(FileError, match=r"a.npy and a_raw.npy are called the same"):
        pair_up(images, masks)


def test_a_mask_labels_every_pixel(folders) -> None:
    images, masks = folders
    lesson = open_pair(save(images / "a.npy"), save(masks / "a.npy"))
    assert np.unique(lesson.labels).tolist() == [1, 2, 3]


def test_a_mask_of_another_image_is_refused(folders) -> None:
    images, masks = folders
    with pytest.raises(InvalidAnnotation, match=r"has shape \(4, 6\), but a.npy needs \(4, 5\)"):
        open_pair(save(images / "a.npy"), save(masks / "a.npy", (4, 6)))


def test_a_mask_of_real_numbers_is_refused(folders) -> None:
    images, masks = folders
    with pytest.raises(InvalidAnnotation, match="needs whole numbers"):
        open_pair(save(images / "a.npy"), save(masks / "a.npy", dtype=np.float32))
