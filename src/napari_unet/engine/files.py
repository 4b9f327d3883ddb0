"""Images in, labels out: TIFF, PNG, JPEG, BMP, npy, Zarr and OME-Zarr, with axes and pixel size.

What is large is opened lazily. Results are written beside their place and renamed, so a kill leaves no half file.
Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import struct
import tokenize
import uuid
import warnings
import weakref
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from PIL import Image as Picture
from PIL import PngImagePlugin

from .errors import FileError, InvalidImage
from .image import AXES, ArrayLike, Image, guess_axes, looks_coloured
from .storage import sweep

TIFF = (".tif", ".tiff", ".lsm", ".stk")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
READABLE = (*TIFF, *PICTURES, ".npy", ".zarr")
WRITABLE = (".tif", ".tiff", ".zarr", ".npy", ".png")
LARGE = 1 << 28
"""TIFF files of more bytes than this are not read at once."""
TILED = 1 << 22
"""Planes of more pixels than this are written in tiles."""
LEVELS = 5
HALVED = 512
"""Planes with edges from here on get a coarser level, up to LEVELS of them."""
CHUNK = 1024
TILE = 512
"""Edge of the tiles of a TIFF."""
BIG = 1 << 31
"""Labels of more bytes than this make a BigTIFF; packed they may be few, but that is known too late."""
UNITS = {
    "nm": "nanometer",
    "µm": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "m": "meter",
    "Å": "angstrom",
    "in": "inch",
}
"""OME's symbols of length and the names that OME-Zarr and `Image.unit` use."""
_ALIASES = {
    "um": "micrometer",
    "\u03bcm": "micrometer",
    "\\u00b5m": "micrometer",
    "micron": "micrometer",
    "microns": "micrometer",
    "inch": "inch",
    "pixels": "pixel",
    "": "pixel",
}
_CENTIMETRES = {"nanometer": 1e-7, "micrometer": 1e-4, "millimeter": 0.1, "centimeter": 1.0, "meter": 100.0}
DAMAGED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    EOFError,
    SyntaxError,
    struct.error,
    zlib.error,
    tokenize.TokenError,
    tifffile.TiffFileError,
)
"""What libraries raise when a file is not what its ending says."""


def open_image(path: str | Path, *, axes: str | None = None, lazy: bool = False) -> Image:
    """Open an image file, or the Zarr folder of one; large ones are read when a region is asked for.

    Parameters
    ----------
    path
        TIFF (with ImageJ or OME axes; the first series), PNG, JPEG, BMP, npy, a Zarr array or an OME-Zarr group
        (its full resolution; the first image if there are several).
    axes
        One letter of ``tczyx`` for each axis, for files that do not say it rightly; None: from the file, or guessed.
    lazy
        Do not read the pixels of small TIFF files either, only see what is in them and that they are complete.

    Raises
    ------
    FileError
        If there is no such file, its ending is unknown, or it is damaged.
    InvalidImage
        If the axes are not understood.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path} does not exist: check the spelling and the folder.")
    try:
        if is_zarr(path):
            return _open_zarr(path, axes)
        if path.is_dir():
            raise FileError(f"{path} is a folder: give one image file of it, or a Zarr folder.")
        ending = path.suffix.lower()
        if ending in TIFF:
            return _open_tiff(path, axes, lazy)
        if ending in PICTURES:
            return _open_picture(path, axes)
        if ending == ".npy":
            return _named(path, np.load(path, mmap_mode="r", allow_pickle=False), axes)
    except (FileError, InvalidImage):
        raise
    except MemoryError as error:
        raise FileError(f"{path} does not fit into memory: store it as OME-Zarr or as tiled TIFF.") from error
    except DAMAGED as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileError(
            f"{path} cannot be read as an image ({reason.rstrip('.')}): check that it is complete."
        ) from error
    raise FileError(f"{path} is no image that can be opened here: use one of {', '.join(READABLE)}.")


def is_zarr(path: Path) -> bool:
    """Tell whether a folder is a Zarr array or group."""
    marks = ("zarr.json", ".zarray", ".zgroup", ".zattrs")
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / mark).is_file() for mark in marks))


def collect_inputs(paths: Sequence[str | Path]) -> list[Path]:
    """Return the image files that paths, folders (not their subfolders) and patterns stand for, each once.

    Files of a folder or pattern come in natural order: ``t2.tif`` before ``t10.tif``.

    Raises
    ------
    FileError
        If a path does not exist, or a folder or pattern gives no image.
    """
    found: dict[Path, None] = {}
    for given in paths:
        path, several = Path(given), [Path(given)]
        if path.is_dir() and not is_zarr(path):
            several = sorted(filter(_readable, path.iterdir()), key=_natural)
            if not several:
                raise FileError(f"The folder {path} holds no image: expected one of {', '.join(READABLE)}.")
        elif not path.exists():
            if not glob.has_magic(str(given)):
                raise FileError(f"{path} does not exist: check the spelling and the folder.")
            several = sorted(filter(_readable, map(Path, glob.glob(str(given), recursive=True))), key=_natural)
            if not several:
                raise FileError(f"No image fits the pattern {str(given)!r}: check the spelling and the folder.")
        found |= dict.fromkeys(several)
    if not found:
        raise FileError("No image was given: name at least one file, folder or pattern.")
    return list(found)


def write_labels(path: str | Path, labels: NDArray[Any], image: Image, record: dict[str, Any]) -> None:
    """Write labels in the smallest unsigned type, with the axes and pixel size of their image.

    Parameters
    ----------
    path
        Its ending says the format: ``.tif`` (OME-TIFF, compressed), ``.zarr`` (OME-Zarr 0.5 with a pyramid), ``.npy``
        (numbers only) or ``.png`` (planes of at most 65535 labels). Missing folders are made, an old file is replaced.
    labels
        Shape ``image.label_shape``.
    image
        What was segmented.
    record
        How; stored as JSON in the file where the format has a place for it.

    Raises
    ------
    FileError
        If the format cannot hold the labels or the file cannot be written.
    """
    path = Path(path)
    if labels.shape != image.label_shape:
        raise FileError(
            f"Labels of shape {labels.shape} do not fit {image.name!r}: give the shape {image.label_shape}."
        )
    highest = int(labels.max())
    smallest = next((t for t in (np.uint8, np.uint16, np.uint32) if highest <= np.iinfo(t).max), np.uint64)
    small = labels.astype(smallest, copy=False)
    ending = checked_ending(path)
    if ending == ".npy":
        with _replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, small, allow_pickle=False)
    elif ending == ".png":
        plane = small.reshape(small.shape[-2:]) if small.size == np.prod(small.shape[-2:]) else small
        if plane.ndim != 2 or highest > np.iinfo(np.uint16).max:
            what = f"{highest} labels" if plane.ndim == 2 else f"labels of shape {labels.shape}"
            raise FileError(f"PNG cannot hold {what}: write {path.with_suffix('.tif').name} instead.")
        notes = PngImagePlugin.PngInfo()
        notes.add_text("napari-unet", json.dumps(record))
        with _replacing(path) as temporary:
            Picture.fromarray(plane).save(temporary, format="png", pnginfo=notes)
    else:
        if small.dtype == np.uint64:
            raise FileError(f"{path.name} cannot hold the label {highest}: number the labels without gaps first.")
        axes, spacing = image.label_axes, image.label_spacing
        write = _write_zarr if ending == ".zarr" else _write_tiff
        write(path, small, axes, spacing, image, record, ())


def read_record(path: str | Path) -> dict[str, Any]:
    """Return how the labels in a file were made, as `write_labels` noted it; empty: nothing that can be read."""
    path = Path(path)
    found: Any = None
    try:
        if is_zarr(path):
            found = zarr.open(str(path), mode="r").attrs.get("napari-unet")
        elif path.suffix.lower() in TIFF:
            with tifffile.TiffFile(path) as file:
                notes = ElementTree.fromstring(file.ome_metadata or "<none/>").iterfind(".//{*}Description")
                found = next((json.loads(note.text) for note in notes if note.text and note.text[0] == "{"), None)
        elif path.suffix.lower() == ".png":
            with Picture.open(path) as opened:
                found = json.loads(opened.info.get("napari-unet", "null"))
    except DAMAGED:  # what others write into these places is none of ours; that pixels are whole is checked elsewhere
        return {}
    return found if isinstance(found, dict) else {}


def write_maps(
    path: str | Path, maps: NDArray[Any], image: Image, names: Sequence[str], record: dict[str, Any]
) -> None:
    """Write probabilities ``(k, *image.label_shape)`` as float32 channels of an OME-TIFF or OME-Zarr.

    Parameters
    ----------
    names
        What each of the k channels is.
    path, image, record
        As for `write_labels`.

    Raises
    ------
    FileError
        If the shapes do not fit or the file cannot be written.
    """
    path = Path(path)
    if maps.shape != (len(names), *image.label_shape):
        raise FileError(f"Maps of shape {maps.shape} do not fit {len(names)} names and labels of {image.label_shape}.")
    ending = checked_ending(path)
    if ending in (".npy", ".png"):
        raise FileError(f"Probabilities cannot be written as {path.name}: use an ending of .tif or .zarr.")
    write = _write_zarr if ending == ".zarr" else _write_tiff
    axes, spacing = "c" + image.label_axes, (1.0, *image.label_spacing)
    write(path, maps.astype(np.float32, copy=False), axes, spacing, image, record, tuple(names))


def checked_ending(path: Path) -> str:
    """Return the lower-case ending of an output; raises FileError if nothing can be written so."""
    ending = path.suffix.lower()
    if ending not in WRITABLE:
        raise FileError(f"{path} has no ending that can be written: use one of {', '.join(WRITABLE)}.")
    return ending


# ---------------------------------------------------------------- reading


def _named(
    path: Path,
    array: ArrayLike,
    axes: str | None,
    known: str | None = None,
    spacing: dict[str, float] | None = None,
    unit: str = "pixel",
    rgb: bool = False,
) -> Image:
    """Return the Image of an array whose axes the file knows (`known`) or not; given `axes` win."""
    shape = tuple(array.shape)
    rgb = rgb or (not (axes or known) and looks_coloured(shape))
    axes = axes.lower() if axes else known or guess_axes(shape, rgb)
    sizes = tuple((spacing or {}).get(a, 1.0) for a in axes)
    sizes = tuple(s if 0 < s < float("inf") else 1.0 for s in sizes)
    colour = rgb and "c" in axes and len(axes) == len(shape) and shape[axes.index("c")] in (3, 4)
    return Image(array, axes, sizes, unit, stem(path), colour)


def stem(path: Path) -> str:
    """Return a file's name without its ending, or endings such as ``.ome.tif``."""
    return re.sub(r"(\.ome)?\.[^.]+$", "", path.name, flags=re.IGNORECASE) or path.name


def _readable(path: Path) -> bool:
    return path.suffix.lower() in READABLE and not path.name.startswith(".")


def _natural(path: Path) -> list[tuple[int, str]]:
    parts = re.split(r"(\d+)", str(path).lower())
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def unit_name(unit: object) -> str:
    """Return the name that `Image.unit` and OME-Zarr use for a unit as files spell it."""
    text = str(unit or "").strip().strip("\x00")
    return UNITS.get(text) or _ALIASES.get(text.lower(), text)


def _open_picture(path: Path, axes: str | None) -> Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # size and odd metadata are no concern; what cannot be read raises
        try:
            with Picture.open(path) as picture:
                if picture.mode in ("P", "PA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"):
                    pixels = np.asarray(picture.convert("RGB"))
                elif picture.mode in ("LA", "La"):
                    pixels = np.asarray(picture.convert("L"))
                else:
                    pixels = np.asarray(picture)
        except Picture.DecompressionBombError as error:
            raise FileError(f"{path} is too large for {path.suffix}: store it as TIFF or OME-Zarr.") from error
    return _named(path, pixels, axes, rgb=pixels.ndim == 3)


def _open_tiff(path: Path, axes: str | None, lazy: bool) -> Image:
    with tifffile.TiffFile(path) as file:
        _refuse_endless(path, file)
        if not file.series:
            raise FileError(f"{path} holds no image: choose another file.")
        series = file.series[0]
        letters, shape = series.axes.upper(), tuple(series.shape)
        spacing, unit = _tiff_spacing(file)
        lazy = lazy or series.nbytes > LARGE
        last = series.pages[-1] or series.keyframe
        end = max(map(sum, zip(last.dataoffsets, last.databytecounts, strict=True)), default=0)
        if (size := path.stat().st_size) < max(
            end, (series.dataoffset or 0) + series.nbytes * (series.dataoffset is not None)
        ):
            raise FileError(f"{path} cannot be read: it is cut off after {size} bytes; copy it again.")
        whole = None if lazy else series.asarray()
        offset = series.dataoffset if lazy else None
    array: ArrayLike
    if whole is not None:
        array = whole
    elif offset is not None:
        array = tifffile.memmap(path, mode="r", series=0)
    else:
        store = tifffile.imread(path, aszarr=True, series=0, level=0)
        opened = zarr.open(store, mode="r")
        assert isinstance(opened, zarr.Array), "one level of a series is an array"
        weakref.finalize(opened, store.close)  # the file stays open as long as somebody may read from it
        array = opened
    samples = letters.find("S")
    if samples >= 0 and "C" in letters:
        if axes is None:
            raise FileError(f"{path} has both channels and colour samples (axes {letters}): save one of them first.")
        samples = -1
    rgb = samples >= 0 and shape[samples] in (3, 4)
    known = letters.replace("S", "C").lower() if samples >= 0 else letters.lower()
    if not set(known) <= set(AXES):
        rest = guess_axes(tuple(n for i, n in enumerate(shape) if i != samples))
        if samples >= 0 and "c" in rest:
            raise FileError(f"{path} has axes {letters} of sizes {shape}, which are not understood: name its axes.")
        known = rest if samples < 0 else rest[:samples] + "c" + rest[samples:]
    return _named(path, array, axes, known, spacing, unit, rgb)


def _refuse_endless(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a chain of pages that leads back into itself: tifffile would follow it for ever."""
    layout, handle, seen = file.tiff, file.filehandle, set[int]()
    if layout.is_ndpi:  # other offsets, and its slides have a dozen pages
        return
    place = layout.offsetsize if layout.is_bigtiff else 4

    def number(at: int, size: int, form: str) -> int:
        handle.seek(at)
        read = handle.read(size)
        return int(struct.unpack(form, read)[0]) if len(read) == size else 0

    while offset := number(place, layout.offsetsize, layout.offsetformat):
        if offset in seen:
            raise FileError(f"{path} cannot be read: its pages run in a circle; save the image anew.")
        seen.add(offset)
        tags = number(offset, layout.tagnosize, layout.tagnoformat)
        place = offset + layout.tagnosize + tags * layout.tagsize


def _tiff_spacing(file: tifffile.TiffFile) -> tuple[dict[str, float], str]:
    """Return the pixel size of the spatial axes, as OME or ImageJ stored it."""
    if file.is_ome and file.ome_metadata:
        pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
        values = {} if pixels is None else pixels.attrib
        unit = unit_name(values.get("PhysicalSizeXUnit", "µm")) if "PhysicalSizeX" in values else "pixel"
        return {a: float(values[key]) for a in "zyx" if (key := f"PhysicalSize{a.upper()}") in values}, unit
    if file.imagej_metadata:
        tags, notes = file.pages.first.tags, file.imagej_metadata
        spacing = {"z": float(notes.get("spacing", 1.0))}
        for axis, name in (("x", "XResolution"), ("y", "YResolution")):
            if name in tags:
                pixels_a_unit, of = tags[name].value
                spacing[axis] = of / pixels_a_unit if pixels_a_unit and of else 1.0
        return spacing, unit_name(notes.get("unit"))
    return {}, "pixel"


def _open_zarr(path: Path, axes: str | None) -> Image:
    node = zarr.open(str(path), mode="r")
    if isinstance(node, zarr.Array):
        _refuse_pickles(path, node)
        names = getattr(node.metadata, "dimension_names", None)
        return _named(path, node, axes, _zarr_axes(names))
    group, about = _first_image(path, node)
    scale = about["multiscales"][0]
    level = group[scale["datasets"][0]["path"]]
    if not isinstance(level, zarr.Array):
        raise FileError(f"{path} says that {scale['datasets'][0]['path']!r} is its finest array, but that is a group.")
    _refuse_pickles(path, level)
    described = scale.get("axes") or list(AXES[-level.ndim :] if level.ndim == 5 else "")
    described = [a if isinstance(a, dict) else {"name": a} for a in described]
    known = _zarr_axes([a.get("name") for a in described])
    factors = np.ones(level.ndim)
    for step in (s for part in (scale["datasets"][0], scale) for s in part.get("coordinateTransformations", ())):
        if step.get("type") == "scale" and "scale" in step:
            factors = factors * np.asarray(step["scale"], dtype=float)
    spacing = {a: float(s) for a, s in zip(known or "", factors, strict=False) if a in "zyx"}
    units = [unit_name(a.get("unit")) for a in described if a.get("name") in ("z", "y", "x")]
    return _named(path, level, axes, known, spacing, units[-1] if units else "pixel")


def _first_image(path: Path, group: zarr.Group) -> tuple[zarr.Group, dict[str, Any]]:
    """Return the group that holds the resolutions of the first image, and its OME metadata."""
    about: Any = group.attrs.get("ome", group.attrs)
    if "multiscales" in about:
        return group, dict(about)
    if "plate" in about or "well" in about:
        raise FileError(f"{path} is a plate of many images: give the folder of one field, such as {path.name}/A/1/0.")
    first = group.get("0")
    if isinstance(first, zarr.Group):
        return _first_image(path, first)
    inside = ", ".join(sorted(name for name, _ in group.members())[:5])
    raise FileError(f"{path} is a Zarr group without an OME-Zarr image: give the folder of an array in it ({inside}).")


def _zarr_axes(names: Sequence[object] | None) -> str | None:
    """Return axes as one string if each is one of ours."""
    letters = [str(name).lower() for name in names or ()]
    return "".join(letters) if letters and set(letters) <= set(AXES) else None


def _refuse_pickles(path: Path, array: zarr.Array[Any]) -> None:
    if "pickle" in json.dumps(array.metadata.to_dict(), default=str).lower():
        raise FileError(f"{path} holds pickled values, which can run foreign code: ask for plain numbers instead.")


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write a file or folder to, and move it there when all went well."""
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}"
    try:
        if path.is_dir() and not is_zarr(path):
            raise FileError(f"{path} is a folder: choose another name for the output.")
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, f".{glob.escape(path.name)}.????????")
        yield temporary
        _flush(temporary)
        if path.is_dir():
            old = temporary.with_name(temporary.name + ".old")
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{path} cannot be written: {reason}; choose another folder or free some space.") from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        elif temporary.exists():
            temporary.unlink()


def _flush(path: Path) -> None:
    """Put a file, or all files of a folder, on the disk: after a power cut no empty file may have the name of a whole one."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())


def _in_order(
    array: NDArray[Any], axes: str, spacing: tuple[float, ...]
) -> tuple[NDArray[Any], str, tuple[float, ...]]:
    """Put axes into the order ``tczyx`` that OME asks for."""
    order = sorted(range(len(axes)), key=lambda i: AXES.index(axes[i]))
    return array.transpose(order), "".join(axes[i] for i in order), tuple(spacing[i] for i in order)


def _write_tiff(
    path: Path,
    array: NDArray[Any],
    axes: str,
    spacing: tuple[float, ...],
    image: Image,
    record: dict[str, Any],
    names: tuple[str, ...],
) -> None:
    """Write an OME-TIFF; the plain resolution tags are set as well, since ImageJ's own reader looks only at these."""
    array, axes, spacing = _in_order(array, axes, spacing)
    large = array.shape[-1] * array.shape[-2] > TILED
    with _replacing(path) as temporary:
        tifffile.imwrite(
            temporary,
            array,
            photometric="minisblack",
            compression="zlib",
            predictor=array.dtype.kind != "f",
            tile=(TILE, TILE) if large else None,
            **_tiff_notes(axes, spacing, image, record, names),
        )


def _tiff_notes(
    axes: str, spacing: tuple[float, ...], image: Image, record: dict[str, Any], names: tuple[str, ...]
) -> dict[str, Any]:
    """Return what tifffile is told of the axes, the pixel size and the making of an OME-TIFF."""
    sizes = dict(zip(axes, spacing, strict=True))
    metadata: dict[str, Any] = {"axes": axes.upper(), "Name": image.name, "Description": json.dumps(record)}
    unit = unit_name(image.unit)
    calibrated = unit != "pixel" or any(sizes[a] != 1 for a in axes if a in "zyx")
    if calibrated:
        symbol = {name: symbol for symbol, name in UNITS.items()}.get(unit, "pixel")
        for axis in set(axes) & set("zyx"):
            metadata[f"PhysicalSize{axis.upper()}"] = sizes[axis]
            metadata[f"PhysicalSize{axis.upper()}Unit"] = symbol
    if names:
        metadata["Channel"] = {"Name": list(names)}
    centimetres = _CENTIMETRES.get(unit)
    return {
        "ome": True,
        "metadata": metadata,
        "resolution": (1 / (sizes["x"] * centimetres), 1 / (sizes["y"] * centimetres)) if centimetres else None,
        "resolutionunit": "CENTIMETER" if centimetres else None,
    }


def _write_zarr(
    path: Path,
    array: NDArray[Any],
    axes: str,
    spacing: tuple[float, ...],
    image: Image,
    record: dict[str, Any],
    names: tuple[str, ...],
) -> None:
    """Write an OME-Zarr 0.5 image with a pyramid made by taking every second pixel, exact for labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # importing it meets its own deprecated class
        from ome_zarr.format import FormatV05
        from ome_zarr.writer import write_multiscale

    array, axes, spacing = _in_order(array, axes, spacing)
    pyramid = [array]
    while len(pyramid) < LEVELS and min(pyramid[-1].shape[-2:]) >= HALVED:
        pyramid.append(np.ascontiguousarray(pyramid[-1][..., ::2, ::2]))
    described = _ome_axes(axes, image.unit)
    steps = [_ome_scale(axes, spacing, level) for level in range(len(pyramid))]
    options = [
        {"chunks": tuple(min(n, CHUNK if a in "yx" else 1) for n, a in zip(level.shape, axes, strict=True))}
        for level in pyramid
    ]
    with _replacing(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
        with warnings.catch_warnings():
            # explicit transformations are exact where shapes are odd; ome-zarr would rather compute its own
            warnings.simplefilter("ignore")
            write_multiscale(
                pyramid,
                group,
                fmt=FormatV05(),
                axes=described,
                coordinate_transformations=steps,
                storage_options=options,
                name=image.name,
            )
        about = dict(group.attrs["ome"])  # type: ignore[arg-type]
        if names:
            window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
            about["omero"] = {
                "channels": [{"label": n, "color": "FFFFFF", "active": True, "window": window} for n in names]
            }
        else:
            about["image-label"] = {"version": "0.5"}
        group.attrs["ome"] = about
        group.attrs["napari-unet"] = record


def _ome_axes(axes: str, unit: str) -> list[dict[str, str]]:
    kinds = {"t": "time", "c": "channel"}
    described = [{"name": a, "type": kinds.get(a, "space")} for a in axes]
    for axis in described:
        if axis["type"] == "space" and unit_name(unit) in UNITS.values():
            axis["unit"] = unit_name(unit)
    return described


def _ome_scale(axes: str, spacing: tuple[float, ...], level: int) -> list[dict[str, Any]]:
    factors = [s * (2**level if a in "yx" else 1) for a, s in zip(axes, spacing, strict=True)]
    return [{"type": "scale", "scale": [float(f) for f in factors]}]


class LabelStore:
    """Labels of an image, written region by region into an OME-Zarr 0.5 that gets its name when it is finished, or a TIFF.

    Parameters
    ----------
    folder
        Where it is written; one that was begun before is continued.
    image
        What is segmented.
    dtype
        Type of the labels.
    chunk
        Chunk along each of ``image.label_axes``. Regions of whole chunks can be written at any time and again.
    """

    def __init__(self, folder: Path, image: Image, dtype: np.dtype[Any], chunk: tuple[int, ...]) -> None:
        self._folder, self._image = folder, image
        self._order = sorted(range(len(chunk)), key=lambda i: AXES.index(image.label_axes[i]))
        self._group = zarr.open_group(str(folder), mode="a", zarr_format=3)
        self._array = self._level(0, self._sorted(image.label_shape), self._sorted(chunk), dtype)

    def __getitem__(self, region: tuple[slice, ...]) -> NDArray[np.integer]:
        """Read a region of the label array."""
        return np.asarray(self._array[self._sorted(region)]).transpose(np.argsort(self._order))

    def __setitem__(self, region: tuple[slice, ...], labels: NDArray[np.integer]) -> None:
        """Write a region of the label array."""
        self._array[self._sorted(region)] = labels.transpose(self._order)

    def finish(self, path: Path, record: dict[str, Any], highest: int) -> None:
        """Move the labels to `path`, a .zarr with coarser levels or a .tif in tiles; what was there is replaced.

        `highest` is the highest label; the .tif holds the smallest type for it.
        """
        if path.suffix.lower() == ".zarr":
            self._finish_zarr(path, record)
            return
        axes, spacing = "".join(self._sorted(tuple(self._image.label_axes))), self._sorted(self._image.label_spacing)
        dtype = next(np.dtype(t) for t in (np.uint8, np.uint16, np.uint32) if highest <= np.iinfo(t).max)
        with _replacing(path) as temporary:
            tifffile.imwrite(
                temporary,
                self._tiles(dtype),
                shape=self._array.shape,
                dtype=dtype,
                photometric="minisblack",
                compression="zlib",
                predictor=True,
                tile=(TILE, TILE),
                bigtiff=self._array.size * dtype.itemsize > BIG,
                **_tiff_notes(axes, spacing, self._image, record, ()),
            )

    def _tiles(self, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
        """Yield every tile of every plane, filled up with 0 at the border; a row of tiles is read at once."""
        *steps, height, width = self._array.shape
        for position in np.ndindex(*steps):
            for y in range(0, height, TILE):
                row = np.asarray(self._array[(*position, slice(y, y + TILE))]).astype(dtype)
                row = np.pad(row, [(0, TILE - len(row)), (0, -width % TILE)])
                for x in range(0, width, TILE):
                    yield np.ascontiguousarray(row[:, x : x + TILE])

    def _finish_zarr(self, path: Path, record: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # importing it meets its own deprecated class
            from ome_zarr.format import FormatV05
            from ome_zarr.writer import write_multiscales_metadata

        image = self._image
        axes = "".join(self._sorted(tuple(image.label_axes)))
        levels = [self._array]
        while len(levels) < LEVELS and min(levels[-1].shape[-2:]) >= HALVED:
            levels.append(self._halved(levels[-1], len(levels)))
        datasets = [
            {
                "path": f"s{i}",
                "coordinateTransformations": _ome_scale(axes, self._sorted(image.label_spacing), i),
            }
            for i in range(len(levels))
        ]
        write_multiscales_metadata(
            self._group, datasets, fmt=FormatV05(), axes=_ome_axes(axes, image.unit), name=image.name
        )
        about = dict(self._group.attrs["ome"])  # type: ignore[arg-type]
        self._group.attrs["ome"] = {**about, "image-label": {"version": "0.5"}}
        self._group.attrs["napari-unet"] = record
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        self._folder.rename(path)  # a kill before this line loses nothing: the folder is found again
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)

    def _halved(self, finer: zarr.Array[Any], number: int) -> zarr.Array[Any]:
        """Write every second pixel of a level as the next one, chunk by chunk."""
        shape = (*finer.shape[:-2], *(-(-n // 2) for n in finer.shape[-2:]))
        chunk = tuple(min(n, m) for n, m in zip(shape, finer.chunks, strict=True))
        result = self._level(number, shape, chunk, finer.dtype)
        for index in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunk, strict=True))):
            start = [i * c for i, c in zip(index, chunk, strict=True)]
            stop = [min(a + c, n) for a, c, n in zip(start, chunk, shape, strict=True)]
            fine = [slice(a, b) for a, b in zip(start[:-2], stop[:-2], strict=True)]
            fine += [slice(2 * a, 2 * b, 2) for a, b in zip(start[-2:], stop[-2:], strict=True)]
            result[tuple(map(slice, start, stop))] = finer[tuple(fine)]
        return result

    def _level(
        self, number: int, shape: tuple[int, ...], chunk: tuple[int, ...], dtype: np.dtype[Any]
    ) -> zarr.Array[Any]:
        axes = self._sorted(tuple(self._image.label_axes))
        return self._group.require_array(
            f"s{number}", shape=shape, chunks=chunk, dtype=dtype, fill_value=0, dimension_names=axes
        )

    def _sorted(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put one value an axis from the image's order into that of OME."""
        return tuple(values[i] for i in self._order)
