"""Sample images for File > Open Sample."""

from __future__ import annotations

from typing import Any

from ..samples import load

LayerData = tuple[Any, dict[str, Any], str]


def nuclei() -> list[LayerData]:
    """Return fluorescent nuclei, one channel."""
    return _layer("nuclei")


def histology() -> list[LayerData]:
    """Return nuclei in a stained section, RGB."""
    return _layer("histology")


def _layer(name: str) -> list[LayerData]:
    return [(load(name)[0], {"name": name}, "image")]
