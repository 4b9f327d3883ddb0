"""Labels <-> outlines: GeoJSON polygons (QuPath) and ImageJ ROIs (Fiji).

Outlines run along the edges of the pixels, in pixels from the upper left corner of the image, y down, as QuPath and
ImageJ count: what is drawn is exactly what was labelled, and comes back so. Stacks give one outline for each plane.
"""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FileError
from .files import DAMAGED
from .image import Image
from .storage import write_atomically

GEOJSON, ROIS = (".geojson", ".json"), (".zip", ".roi")
ENDINGS = (*GEOJSON, *ROIS)
Ring = NDArray[np.float64]
"""Corners ``(n, 2)`` as y, x; the first is not repeated."""
IGNORED = "background"
"""Outlines of this class are no object; as annotations they are background."""
TURNS: dict[tuple[int, int], tuple[tuple[int, int], ...]] = {
    (0, 1): ((1, 0), (0, 1), (-1, 0)),
    (1, 0): ((0, -1), (1, 0), (0, 1)),
}
TURNS |= {(-a, -b): tuple((-c, -d) for c, d in turns) for (a, b), turns in TURNS.items()}
"""Where to go on at a corner, coming along a direction with the object on the right: right first, so that pixels that
meet at a corner only are two outlines."""


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """One object in one plane.

    Attributes
    ----------
    label
        Its number; 0: not known.
    rings
        Outer rings and holes, in any order.
    position
        The plane, such as ``{"z": 3}``.
    kind
        The name of its class; empty: none.
    """

    label: int
    rings: tuple[Ring, ...]
    position: dict[str, int]
    kind: str = ""


def outlines(labels: NDArray[Any], axes: str, kind: str = "") -> Iterator[Outline]:
    """Yield the outline of each object, plane by plane; `axes` has one letter for each axis and ends with ``yx``."""
    from scipy.ndimage import find_objects

    for index in np.ndindex(labels.shape[:-2]):
        plane = labels[index]
        numbers, dense = np.unique(plane, return_inverse=True)
        if numbers[0] != 0:  # no background in this plane
            numbers, dense = np.concatenate([[0], numbers]), dense + 1
        for value, box in zip(numbers[1:], find_objects(dense.reshape(plane.shape)), strict=True):
            corner = np.array([s.start for s in box], dtype=float)
            rings = tuple(ring + corner for ring in trace(plane[box] == value))
            yield Outline(int(value), rings, dict(zip(axes, map(int, index), strict=False)), kind)


def trace(mask: NDArray[np.bool_]) -> list[Ring]:
    """Return the rings along the pixel edges of a mask, the mask on their right: outer ones clockwise, holes not."""
    padded = np.pad(mask, 1)
    ahead: dict[tuple[int, int], set[tuple[int, int]]] = {}
    inside = padded[1:-1, 1:-1]
    sides = (
        (~padded[:-2, 1:-1], (0, 0), (0, 1)),
        (~padded[1:-1, 2:], (0, 1), (1, 0)),
        (~padded[2:, 1:-1], (1, 1), (0, -1)),
        (~padded[1:-1, :-2], (1, 0), (-1, 0)),
    )
    for outside, offset, direction in sides:
        for y, x in (np.argwhere(inside & outside) + offset).tolist():
            ahead.setdefault((y, x), set()).add(direction)
    rings = []
    while ahead:
        start = y, x = min(ahead)  # nothing lies above it, so no ring passes it twice
        corners: list[tuple[int, int]] = []
        came: tuple[int, int] | None = None
        while came is None or (y, x) != start:
            ways = ahead[y, x]
            direction = next(turn for turn in TURNS[came] if turn in ways) if came else min(ways)
            ways.remove(direction)
            if not ways:
                del ahead[y, x]
            if direction != came:
                corners.append((y, x))
            came, y, x = direction, y + direction[0], x + direction[1]
        rings.append(np.array(corners, dtype=float))
    return rings


def fill(shape: tuple[int, ...], rings: Sequence[Ring]) -> NDArray[np.bool_]:
    """Return the pixels whose middles lie inside an odd number of rings."""
    from skimage.draw import polygon2mask

    mask = np.zeros(shape, dtype=bool)
    for ring in rings:
        mask ^= polygon2mask(shape, ring - 0.5)  # type: ignore[no-untyped-call]
    return mask


def area(ring: Ring) -> float:
    """Return the area inside a ring: above 0 if it runs clockwise as seen on the screen."""
    y, x = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


# ---------------------------------------------------------------- out


def write_outlines(path: Path, labels: NDArray[Any], axes: str, kind: str = "") -> int:
    """Write the outlines of all objects and return how many there are: .geojson, or a .zip of ImageJ ROIs.

    ImageJ's polygons have no holes: they are filled there, and an object of several pieces is several ROIs.

    Raises
    ------
    FileError, LibraryError
    """
    found = list(outlines(labels, axes, kind))
    ending = path.suffix.lower()
    if ending in GEOJSON:
        text = json.dumps({"type": "FeatureCollection", "features": [_feature(o) for o in found]})
        write_atomically(path, text.encode())
    elif ending == ".zip":
        write_atomically(path, _zipped(found))
    else:
        raise FileError(f"Outlines cannot be written to {path.name}: give it the ending .geojson, or .zip for ImageJ.")
    return len(found)


def _feature(outline: Outline) -> dict[str, Any]:
    closed = [[[x, y] for y, x in (*ring.tolist(), ring[0].tolist())] for ring in outline.rings]
    outer = [i for i, ring in enumerate(outline.rings) if area(ring) > 0]
    parts = [[closed[i]] for i in outer]
    for i, ring in enumerate(outline.rings):
        if i not in outer:
            parts[_around(ring, [outline.rings[k] for k in outer])].append(closed[i])
    geometry: dict[str, Any] = {"type": "MultiPolygon", "coordinates": parts}
    if len(parts) == 1:
        geometry = {"type": "Polygon", "coordinates": parts[0]}
    if outline.position:
        geometry["plane"] = {"c": -1, "z": outline.position.get("z", 0), "t": outline.position.get("t", 0)}
    properties: dict[str, Any] = {"objectType": "annotation", "name": str(outline.label), "label": outline.label}
    if outline.kind:
        properties["classification"] = {"name": outline.kind}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def _around(hole: Ring, candidates: list[Ring]) -> int:
    """Return which ring is around a hole: the smallest whose box holds it."""

    def holds(ring: Ring) -> bool:
        return bool((ring.min(0) <= hole.min(0)).all() and (ring.max(0) >= hole.max(0)).all())

    return min(range(len(candidates)), key=lambda i: (not holds(candidates[i]), area(candidates[i])))


def _roifile() -> Any:
    try:
        import roifile
    except ImportError as error:
        raise FileError("ImageJ ROIs need the package roifile, which is not installed: pip install roifile.") from error
    return roifile


def _zipped(found: list[Outline]) -> bytes:
    roifile = _roifile()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rois.zip"
        rois = []
        for o in found:
            name = "-".join([f"{o.label:05d}", *(f"{axis}{n + 1}" for axis, n in o.position.items())])
            outer = [ring for ring in o.rings if area(ring) > 0]
            for k, ring in enumerate(outer):
                part = name if len(outer) == 1 else f"{name}-part{k + 1}"
                rois.append(roifile.ImagejRoi.frompoints(ring[:, ::-1].astype(np.int32), name=part, **o.position))
        if not rois:
            with zipfile.ZipFile(path, "w"):
                pass
        else:
            roifile.roiwrite(path, rois)
        return path.read_bytes()


# ---------------------------------------------------------------- in


def read_outlines(path: Path) -> list[Outline]:
    """Read polygons from GeoJSON, or ImageJ ROIs.

    Raises
    ------
    FileError
        If there is no such file, it is damaged, or it holds no polygon.
    """
    if not path.is_file():
        raise FileError(f"{path} does not exist: check the spelling and the folder.")
    try:
        is_geojson = path.suffix.lower() in GEOJSON
        found = _read_geojson(json.loads(path.read_bytes())) if is_geojson else _read_rois(path)
    except FileError:
        raise
    except (*DAMAGED, zipfile.BadZipFile, RecursionError) as error:
        raise FileError(f"{path.name} is damaged, or holds no outlines ({type(error).__name__}).") from error
    if not found:
        raise FileError(f"{path.name} holds no polygon: draw outlines, not points or lines.")
    return found


def _read_geojson(record: Any) -> list[Outline]:
    features = record["features"] if isinstance(record, dict) and "features" in record else record
    features = [features] if isinstance(features, dict) else features
    found = []
    for feature in features:
        geometry, about = feature["geometry"], feature.get("properties") or {}
        if geometry["type"] not in ("Polygon", "MultiPolygon"):
            continue
        parts = geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
        rings = tuple(np.array([[float(y), float(x)] for x, y, *_ in ring]) for part in parts for ring in part)
        plane = geometry.get("plane") or {}
        label = about.get("label")
        found.append(
            Outline(
                label if isinstance(label, int) and label > 0 else 0,
                rings,
                {axis: int(plane[axis]) for axis in "tz" if axis in plane},
                str((about.get("classification") or {}).get("name") or ""),
            )
        )
    return found


def _read_rois(path: Path) -> list[Outline]:
    roifile = _roifile()
    rois: Any = roifile.roiread(path)
    kinds = roifile.ROI_TYPE
    found = []
    for roi in rois if isinstance(rois, list) else [rois]:
        if roi.roitype in (kinds.POLYGON, kinds.FREEHAND, kinds.TRACED, kinds.RECT, kinds.OVAL):
            number = (roi.name or "").partition("-")[0]
            position = {axis: n - 1 for axis, n in (("t", roi.t_position), ("z", roi.z_position)) if n > 0}
            corners = np.asarray(roi.coordinates(), dtype=float)[:, ::-1]
            found.append(Outline(int(number) if number.isdigit() else 0, (corners,), position))
    return found


def rasterised(
    found: Sequence[Outline], image: Image, *, annotation: bool = False, classes: Sequence[str] = (), name: str = ""
) -> NDArray[np.int32]:
    """Return the labels ``image.label_shape`` that outlines stand for; where some overlap, the last one is kept.

    Parameters
    ----------
    annotation
        Make annotations: 0 not labelled, 1 background (outlines of that class), 2 and up; else labels.
    classes
        Names, background first: each outline gets the number of its class instead of its own.
    name
        Of the file, for messages.

    Raises
    ------
    FileError
        If an outline does not lie on the image, or its class is not among `classes`.
    """
    labels = np.zeros(image.label_shape, dtype=np.int32)
    numbers = _numbers(found)
    sizes = dict(zip(image.label_axes, image.label_shape, strict=True))
    for outline, number in zip(found, numbers, strict=True):
        where = tuple(outline.position.get(axis, 0) for axis in image.label_axes[:-2])
        far = [f"{a}={n}" for a, n in outline.position.items() if not 0 <= n < sizes.get(a, 1)]
        corners = np.concatenate(outline.rings)
        far += [
            f"{a}={v:g}" for a, v in zip("yx", corners.max(0).tolist(), strict=True) if not 0 <= v <= sizes[a] + 0.5
        ]
        if far:
            raise FileError(
                f"{name or 'The file'} has an outline that reaches {', '.join(far)}, outside {image.name!r} "
                f"(shape {image.label_shape}): take the outlines of this image."
            )
        kind = outline.kind.casefold()
        if classes:
            known = [c.casefold() for c in classes]
            if kind not in known:
                raise FileError(f"{name or 'The file'} has the class {outline.kind!r}: name it among the classes.")
            value = known.index(kind)
        else:
            value = 0 if kind == IGNORED else number
        plane = labels[where]
        plane[fill(plane.shape, outline.rings)] = value + 1 if annotation else value
    return labels


def _numbers(found: Sequence[Outline]) -> list[int]:
    """Return the outlines' own numbers if all have one, else count them."""
    if all(outline.label for outline in found):
        return [outline.label for outline in found]
    return list(range(1, len(found) + 1))
