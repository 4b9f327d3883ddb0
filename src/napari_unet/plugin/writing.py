"""File > Save Selected Layers: labels as outlines for QuPath (.geojson) and ImageJ (.zip). No Qt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..engine.errors import FileError
from ..engine.outlines import write_outlines


def write_labels_layer(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write the outlines of a labels layer."""
    labels = np.asarray(data[0] if attributes.get("multiscale") else data)
    if labels.ndim > 4:
        raise FileError(f"Outlines of {labels.ndim} axes cannot be written: save one channel or time series at a time.")
    write_outlines(Path(path), labels, "tzyx"[-labels.ndim :])
    return [path]
