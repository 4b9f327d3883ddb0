"""Sample images for File > Open Sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import samples as package
from ..engine.image import Image
from ..samples import drawn, load

LayerData = tuple[Any, dict[str, Any], str]


def nuclei() -> list[LayerData]:
    """Return fluorescent nuclei, one channel."""
    return _layer("nuclei")


def histology() -> list[LayerData]:
    """Return nuclei in a stained section, RGB."""
    return _layer("histology")


def cells() -> list[LayerData]:
    """Return whole cells in phase contrast, one channel."""
    return _layer("cells")


def stack() -> list[LayerData]:
    """Return drawn nuclei in a volume."""
    return _drawn(drawn.stack()[0])


def timelapse() -> list[LayerData]:
    """Return drawn nuclei that wander."""
    return _drawn(drawn.timelapse()[0])


def membranes() -> list[LayerData]:
    """Return drawn membranes, as an electron microscope sees them."""
    return _drawn(drawn.membranes()[0])


def _drawn(image: Image) -> list[LayerData]:
    about = {"name": image.name, "scale": image.spacing, "axis_labels": tuple(image.axes)}
    return [(image.array, {**about, "units": ["pixel" if a == "t" else image.unit for a in image.axes]}, "image")]


def _layer(name: str) -> list[LayerData]:
    image = load(name)[0]
    path = Path(package.__file__).parent / f"{name}.png"
    return [(image.array, {"name": name, "rgb": image.rgb, "metadata": {"path": str(path)}}, "image")]
