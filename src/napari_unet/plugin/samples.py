"""Sample images for File > Open Sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import samples as package
from ..samples import load

LayerData = tuple[Any, dict[str, Any], str]


def nuclei() -> list[LayerData]:
    """Return fluorescent nuclei, one channel."""
    return _layer("nuclei")


def histology() -> list[LayerData]:
    """Return nuclei in a stained section, RGB."""
    return _layer("histology")


def _layer(name: str) -> list[LayerData]:
    image = load(name)[0]
    path = Path(package.__file__).parent / f"{name}.png"
    return [(image.array, {"name": name, "rgb": image.rgb, "metadata": {"path": str(path)}}, "image")]
