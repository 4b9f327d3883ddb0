"""Images in, labels out: every format, with axes and pixel size by hand."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image as Picture

import napari_unet as nu
from napari_unet.engine import files
from napari_unet.engine.errors import FileError, InvalidImage
from napari_unet.engine.files import collect_inputs, open_image, read_record, write_labels, write_maps
from napari_unet.engine.image import Image

from .conftest import make_model


def ramp(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def write_ngff(path: Path, array: np.ndarray, version: str, axes: str, scale: list[float], extra: float = 1.0) -> None:
    """Write a small OME-Zarr without ome-zarr-py, so that reading is not tested against our own writing."""
    old = version == "0.4"
    group = zarr.open_group(str(path), mode="a", zarr_format=2 if old else 3)
    group.create_array("full", data=array)
    group.create_array("half", data=np.ascontiguousarray(array[..., ::2, ::2]))
    multiscales = {
        "axes": [
            {"name": a, "type": "space", "unit": "nanometer"} if a in "zyx" else {"name": a, "type": "channel"}
            for a in axes
        ],
        "datasets": [
            {"path": name, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for name in ("full", "half")
        ],
        "coordinateTransformations": [{"type": "scale", "scale": [extra] * len(scale)}],
    }
    if old:
        group.attrs["multiscales"] = [multiscales | {"version": version}]
    else:
        group.attrs["ome"] = {"version": version, "multiscales": [multiscales]}


# ---------------------------------------------------------------- reading


def test_imagej_tiff_gives_axes_pixel_size_and_unit(tmp_path: Path) -> None:
    pixels = ramp(2, 3, 4, 20, 30)
    metadata = {"axes": "TZCYX", "spacing": 2.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    image = open_image(tmp_path / "a.tif")
    assert (image.axes, image.spacing, image.unit) == ("tzcyx", (1, 2.5, 1, 0.5, 0.25), "micrometer")
    np.testing.assert_array_equal(image.array, pixels)


def test_ome_tiff_gives_axes_pixel_size_and_unit(tmp_path: Path) -> None:
    pixels = ramp(2, 3, 20, 30)
    metadata = {"axes": "CZYX", "PhysicalSizeX": 65.0, "PhysicalSizeY": 66.0, "PhysicalSizeZ": 200.0}
    metadata |= {f"PhysicalSize{a}Unit": "nm" for a in "XYZ"}
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, metadata=metadata)
    image = open_image(tmp_path / "a.ome.tif")
    assert (image.axes, image.spacing, image.unit) == ("czyx", (1, 200, 66, 65), "nanometer")
    assert image.name == "a"


def test_ome_tiff_without_pixel_size_is_in_pixels(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", ramp(20, 30), metadata={"axes": "YX"})
    image = open_image(tmp_path / "a.ome.tif")
    assert (image.spacing, image.unit) == ((1, 1), "pixel")


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_colour_tiff_is_rgb(tmp_path: Path, planar: str) -> None:
    shape = (20, 30, 3) if planar == "contig" else (3, 20, 30)
    tifffile.imwrite(tmp_path / "a.tif", ramp(*shape, dtype=np.uint8), photometric="rgb", planarconfig=planar)
    image = open_image(tmp_path / "a.tif")
    assert image.rgb
    assert image.axes == ("yxc" if planar == "contig" else "cyx")


def test_axes_of_a_plain_tiff_are_guessed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(7, 20, 30))
    assert open_image(tmp_path / "a.tif").axes == "zyx"


def test_given_axes_win_over_those_of_the_file(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(7, 20, 30), imagej=True, metadata={"axes": "ZYX"})
    assert open_image(tmp_path / "a.tif", axes="TYX").axes == "tyx"


def test_given_axes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ramp(20, 30))
    with pytest.raises(InvalidImage, match="'zyx'"):
        open_image(tmp_path / "a.tif", axes="ZYX")


def test_a_large_tiff_is_not_read_at_once(tmp_path: Path, monkeypatch) -> None:
    pixels = ramp(3, 64, 64)
    form = {"compression": "zlib", "tile": (32, 32), "photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **form)
    monkeypatch.setattr(files, "LARGE", 0)
    image = open_image(tmp_path / "a.tif")
    assert isinstance(image.array, zarr.Array)
    np.testing.assert_array_equal(image.array[1, 10:50, 3:40], pixels[1, 10:50, 3:40])


def test_a_large_plain_tiff_is_mapped(tmp_path: Path, monkeypatch) -> None:
    pixels = ramp(3, 64, 64)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "ZYX"})
    monkeypatch.setattr(files, "LARGE", 0)
    image = open_image(tmp_path / "a.tif")
    assert isinstance(image.array, np.memmap)
    np.testing.assert_array_equal(image.array, pixels)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".PNG"])
def test_grey_pictures_open(tmp_path: Path, ending: str) -> None:
    pixels = ramp(5, 6, dtype=np.uint8)
    Picture.fromarray(pixels).save(tmp_path / f"a{ending}")
    image = open_image(tmp_path / f"a{ending}")
    assert image.axes == "yx"
    np.testing.assert_array_equal(image.array, pixels)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("RGBA", 4), ("P", 3)])
def test_colour_pictures_are_rgb(tmp_path: Path, mode: str, channels: int) -> None:
    Picture.new(mode, (30, 20)).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert (image.axes, image.shape, image.rgb) == ("yxc", (20, 30, channels), True)


def test_a_picture_of_sixteen_bits_keeps_them(tmp_path: Path) -> None:
    Picture.fromarray(ramp(20, 30)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(open_image(tmp_path / "a.png").array, ramp(20, 30))


def test_a_black_and_white_picture_is_boolean(tmp_path: Path) -> None:
    Picture.new("1", (30, 20)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png").array.dtype == bool


def test_npy_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp(20, 30))
    assert isinstance(open_image(tmp_path / "a.npy").array, np.memmap)


class Trap:
    """Unpickling one creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_npy_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    with pytest.raises(FileError, match=r"a\.npy"):
        open_image(tmp_path / "a.npy")
    assert not (tmp_path / "sprung").exists()


def test_a_zarr_array_is_never_unpickled(tmp_path: Path) -> None:
    folder = tmp_path / "a.zarr"
    folder.mkdir()
    about = {"zarr_format": 2, "shape": [4, 4], "chunks": [4, 4], "dtype": "|u1", "order": "C", "fill_value": 0}
    about |= {"compressor": {"id": "pickle", "protocol": 5}, "filters": None}
    (folder / ".zarray").write_text(json.dumps(about))
    (folder / "0.0").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(FileError, match=r"a\.zarr"):
        open_image(folder)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_array_opens_lazily(tmp_path: Path, version) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=ramp(7, 20, 30), zarr_format=version)
    image = open_image(tmp_path / "a.zarr")
    assert isinstance(image.array, zarr.Array)
    assert image.axes == "zyx"


def test_names_of_zarr_dimensions_are_its_axes(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a.zarr"), data=ramp(7, 20, 30), dimension_names=("t", "y", "x"))
    assert open_image(tmp_path / "a.zarr").axes == "tyx"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_gives_full_resolution_axes_and_pixel_size(tmp_path: Path, version: str) -> None:
    pixels = ramp(2, 7, 20, 30)
    write_ngff(tmp_path / "a.ome.zarr", pixels, version, "czyx", [1, 200, 60, 50], extra=2)
    image = open_image(tmp_path / "a.ome.zarr")
    assert (image.axes, image.spacing, image.unit) == ("czyx", (1, 400, 120, 100), "nanometer")
    assert image.name == "a"
    np.testing.assert_array_equal(image.array[:], pixels)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_collection_gives_its_first_image(tmp_path: Path, version: str) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2 if version == "0.4" else 3)
    write_ngff(tmp_path / "a.zarr" / "0", ramp(20, 30), version, "yx", [3, 4])
    assert open_image(tmp_path / "a.zarr").spacing == (3, 4)


def test_a_zarr_group_without_an_image_names_its_arrays(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "a.zarr"), mode="w").create_array("raw", data=ramp(20, 30))
    with pytest.raises(FileError, match=r"\(raw\)"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("ending", [".tif", ".png", ".jpg", ".npy"])
@pytest.mark.parametrize("content", [b"", b"no image at all", b"II*\x00\xff\xff\xff\xff", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"a{ending}"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"cannot be read|holds no image"):
        open_image(path)


def test_a_truncated_tiff_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    tifffile.imwrite(buffer, noise, compression="zlib")
    (tmp_path / "a.tif").write_bytes(buffer.getvalue()[:2000])
    with pytest.raises(FileError, match="cannot be read"):
        open_image(tmp_path / "a.tif")


def test_a_damaged_zarr_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "zarr.json").write_text("{")
    with pytest.raises(FileError, match="cannot be read"):
        open_image(tmp_path / "a.zarr")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"nothing\.tif does not exist"):
        open_image(tmp_path / "nothing.tif")


def test_an_unknown_ending_is_answered_with_the_known(tmp_path: Path) -> None:
    (tmp_path / "a.docx").touch()
    with pytest.raises(FileError, match=r"\.tif, .*\.zarr"):
        open_image(tmp_path / "a.docx")


def test_a_folder_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is a folder"):
        open_image(tmp_path)


# ---------------------------------------------------------------- what to open


def test_a_folder_stands_for_its_images_in_natural_order(tmp_path: Path) -> None:
    for name in ("t10.tif", "t2.tif", "notes.txt", ".hidden.tif"):
        (tmp_path / name).touch()
    (tmp_path / "t3.zarr").mkdir()
    assert [p.name for p in collect_inputs([tmp_path])] == ["t2.tif", "t3.zarr", "t10.tif"]


def test_a_pattern_stands_for_the_images_that_fit(tmp_path: Path) -> None:
    for name in ("a1.tif", "a2.png", "b1.tif"):
        (tmp_path / name).touch()
    assert [p.name for p in collect_inputs([str(tmp_path / "a*")])] == ["a1.tif", "a2.png"]


def test_each_image_comes_once(tmp_path: Path) -> None:
    (tmp_path / "a.tif").touch()
    assert len(collect_inputs([tmp_path / "a.tif", tmp_path, str(tmp_path / "*.tif")])) == 1


@pytest.mark.parametrize(
    ("given", "reason"), [("missing.tif", "does not exist"), ("*.tif", "No image fits"), ("", "holds no image")]
)
def test_nothing_to_open_is_an_error(tmp_path: Path, given: str, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        collect_inputs([str(tmp_path / given)])


# ---------------------------------------------------------------- labels out


def volume() -> tuple[Image, np.ndarray]:
    """Return an image of two time points and channels, and labels with a pixel size by hand."""
    image = Image(np.zeros((2, 3, 20, 30, 2)), "tzyxc", (1, 2, 0.5, 0.25, 1), "micrometer", "cells")
    return image, np.random.default_rng(0).integers(0, 300, image.label_shape, dtype=np.int32)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tiff", "a.zarr", "a.ome.zarr"])
def test_labels_come_back_with_axes_pixel_size_and_unit(tmp_path: Path, name: str) -> None:
    image, labels = volume()
    write_labels(tmp_path / name, labels, image, {})
    back = open_image(tmp_path / name)
    np.testing.assert_array_equal(back.array[:], labels)
    assert (back.axes, back.spacing, back.unit) == ("tzyx", (1, 2, 0.5, 0.25), "micrometer")


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.npy", "a.png"])
@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (256, np.uint16)])
def test_labels_are_written_in_the_smallest_type(tmp_path: Path, name: str, highest: int, dtype: type) -> None:
    labels = np.full((20, 30), highest, dtype=np.int64)
    write_labels(tmp_path / name, labels, Image(labels, "yx"), {})
    back = open_image(tmp_path / name).array
    assert back.dtype == dtype
    assert (back[:] == highest).all()


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.npy"])
def test_more_than_sixteen_bits_of_labels_are_kept(tmp_path: Path, name: str) -> None:
    labels = np.full((20, 30), 70_000, dtype=np.int32)
    write_labels(tmp_path / name, labels, Image(labels, "yx"), {})
    assert open_image(tmp_path / name).array.dtype == np.uint32


@pytest.mark.parametrize("ending", [".tif", ".zarr", ".png"])
def test_the_record_is_read_again(tmp_path: Path, ending: str) -> None:
    labels, record = ramp(4, 5), {"dims": 2, "classes": ["none", "cell"]}
    write_labels(tmp_path / f"a{ending}", labels, Image(labels, "yx"), record)
    assert read_record(tmp_path / f"a{ending}") == record


def test_labels_that_nobody_knows_the_making_of_have_no_record(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ramp(4, 5))
    tifffile.imwrite(tmp_path / "a.tif", ramp(4, 5))
    tifffile.imwrite(tmp_path / "b.ome.tif", ramp(4, 5), metadata={"Description": "{no JSON"})
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert [read_record(tmp_path / name) for name in ("a.npy", "a.tif", "b.ome.tif", "a.png")] == [{}] * 4


def test_the_record_is_in_the_tiff(tmp_path: Path) -> None:
    image, labels = volume()
    write_labels(tmp_path / "a.tif", labels, image, {"model": "nuclei@1:0 <&> µ"})
    description = tifffile.xml2dict(tifffile.TiffFile(tmp_path / "a.tif").ome_metadata)["OME"]["Image"]["Description"]
    assert (description if isinstance(description, dict) else json.loads(description)) == {"model": "nuclei@1:0 <&> µ"}


def test_the_record_is_in_the_zarr(tmp_path: Path) -> None:
    image, labels = volume()
    write_labels(tmp_path / "a.zarr", labels, image, {"model": "nuclei"})
    assert zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs["napari-unet"] == {"model": "nuclei"}


def test_the_record_is_in_the_png(tmp_path: Path) -> None:
    write_labels(tmp_path / "a.png", ramp(20, 30), Image(ramp(20, 30), "yx"), {"model": "nuclei"})
    with Picture.open(tmp_path / "a.png") as picture:
        assert json.loads(picture.info["napari-unet"]) == {"model": "nuclei"}


def test_a_tiff_is_compressed(tmp_path: Path) -> None:
    labels = np.zeros((500, 500), np.int32)
    write_labels(tmp_path / "a.tif", labels, Image(labels, "yx"), {})
    assert (tmp_path / "a.tif").stat().st_size < 10_000


def test_a_large_tiff_is_tiled(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "TILED", 1000)
    labels = ramp(600, 40)
    write_labels(tmp_path / "a.tif", labels, Image(labels, "yx"), {})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.pages.first.tile == (512, 512)
        np.testing.assert_array_equal(file.asarray(), labels)


def test_a_tiff_tells_imagej_its_pixel_size(tmp_path: Path) -> None:
    labels = ramp(20, 30)
    write_labels(tmp_path / "a.tif", labels, Image(labels, "yx", (0.5, 0.25), "micrometer"), {})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        across = file.pages.first.tags["XResolution"].value
    assert across[0] / across[1] == pytest.approx(40_000)  # pixels a centimetre


def test_the_pyramid_of_a_zarr_takes_every_second_pixel(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 9, (1025, 513))
    write_labels(tmp_path / "a.zarr", labels, Image(labels, "yx", (0.5, 0.25), "micrometer"), {})
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    (about,) = group.attrs["ome"]["multiscales"]
    assert [d["coordinateTransformations"][0]["scale"] for d in about["datasets"]] == [[0.5, 0.25], [1, 0.5]]
    np.testing.assert_array_equal(group[about["datasets"][1]["path"]][:], labels[::2, ::2])


def test_a_zarr_says_that_it_holds_labels(tmp_path: Path) -> None:
    image, labels = volume()
    write_labels(tmp_path / "a.zarr", labels, image, {})
    about = zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs["ome"]
    assert about["version"] == "0.5"
    assert "image-label" in about
    assert about["multiscales"][0]["axes"][-1] == {"name": "x", "type": "space", "unit": "micrometer"}


@pytest.mark.parametrize("name", ["a.tif", "a.zarr"])
def test_probabilities_come_back_as_channels(tmp_path: Path, name: str) -> None:
    image = Image(np.zeros((3, 20, 30)), "zyx", (2, 0.5, 0.25), "nanometer")
    maps = np.random.default_rng(0).random((2, 3, 20, 30)).astype(np.float16)
    write_maps(tmp_path / name, maps, image, ("foreground", "border"), {})
    back = open_image(tmp_path / name)
    assert (back.axes, back.spacing, back.unit) == ("czyx", (1, 2, 0.5, 0.25), "nanometer")
    np.testing.assert_array_equal(back.array[:], maps.astype(np.float32))


def test_probabilities_are_no_png(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"\.tif or \.zarr"):
        write_maps(tmp_path / "a.png", np.zeros((1, 2, 3)), Image(np.zeros((2, 3)), "yx"), ("a",), {})


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.npy", "a.png"])
def test_missing_folders_are_made_and_old_files_replaced(tmp_path: Path, name: str) -> None:
    path, image = tmp_path / "new" / "folder" / name, Image(ramp(20, 30), "yx")
    for value in (1, 2):
        write_labels(path, np.full((20, 30), value), image, {})
    assert (open_image(path).array[:] == 2).all()
    assert [p.name for p in path.parent.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.npy", "a.png"])
def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be written"):
        write_labels(tmp_path / "file" / name, ramp(20, 30), Image(ramp(20, 30), "yx"), {})


@pytest.mark.parametrize("name", ["a.tif", "a.npy"])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, name: str, monkeypatch) -> None:
    path, image = tmp_path / name, Image(ramp(20, 30), "yx")
    write_labels(path, ramp(20, 30), image, {})

    def full_disk(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full_disk)
    monkeypatch.setattr(np, "save", full_disk)
    with pytest.raises(FileError, match="No space left"):
        write_labels(path, ramp(20, 30) + 1, image, {})
    np.testing.assert_array_equal(open_image(path).array, ramp(20, 30))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "labels", "reason"),
    [
        ("a.gif", ramp(20, 30), "no ending that can be written"),
        ("a.png", ramp(2, 20, 30), "PNG cannot hold labels of shape"),
        ("a.png", ramp(20, 30).astype(int) + 70_000, "PNG cannot hold 70599 labels"),
        ("a.tif", ramp(20, 30).astype(int) + 2**40, "without gaps"),
    ],
)
def test_labels_that_a_format_cannot_hold_are_refused(tmp_path: Path, name: str, labels, reason: str) -> None:
    with pytest.raises(FileError, match=reason):
        write_labels(tmp_path / name, labels, Image(labels, "zyx"[-labels.ndim :]), {})


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(FileError, match="is a folder"):
        write_labels(tmp_path / "a.tif", ramp(20, 30), Image(ramp(20, 30), "yx"), {})


def test_labels_must_fit_their_image(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="do not fit"):
        write_labels(tmp_path / "a.tif", ramp(20, 31), Image(ramp(20, 30), "yx"), {})


@pytest.mark.parametrize("ending", [".tif", ".zarr"])
def test_what_a_kill_left_is_swept_up_a_day_later(tmp_path: Path, ending: str) -> None:
    left = [tmp_path / f".labels{ending}.{name}" for name in ("01234567", "89abcdef")]
    for path in left:
        path.mkdir()
    os.utime(left[0], (0, 0))
    labels = np.ones((20, 20), np.uint8)
    write_labels(tmp_path / f"labels{ending}", labels, Image(labels, "yx"), {})
    assert [path.exists() for path in left] == [False, True]


def test_an_array_of_colours_is_rgb_as_in_napari(tmp_path: Path) -> None:
    pixels = ramp(40, 48, 3, dtype=np.uint8)
    np.save(tmp_path / "a.npy", pixels)
    image = open_image(tmp_path / "a.npy")
    assert (image.axes, image.rgb) == ("yxc", True)
    assert not open_image(tmp_path / "a.npy", axes="yxc").rgb
    coloured = nu.segment(pixels, make_model())
    np.testing.assert_array_equal(coloured, nu.segment(image, make_model()))
    np.testing.assert_array_equal(coloured, nu.segment(nu.Image(pixels, "yxc", rgb=True), make_model()))
