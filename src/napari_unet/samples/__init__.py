"""Sample images with their truth, packaged; the shipped models have not learned from them. See LICENSE.txt (CC0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import FileError
from ..engine.files import open_image
from ..engine.image import Image

NAMES = ("nuclei", "histology")
ORIGIN = {"nuclei": "dev/img_271.png", "histology": "dev/img_238.png"}
"""Their names in the ledger of the recipe that made the shipped model, where they are held out."""


def load(name: str) -> tuple[Image, NDArray[Any]]:
    """Return a sample image and its true instances.

    Parameters
    ----------
    name
        ``"nuclei"`` (fluorescence, grey) or ``"histology"`` (H&E, RGB).

    Returns
    -------
    image, truth
        The truth has shape ``image.label_shape``; 0 is background, each nucleus has its number.
    """
    if name not in NAMES:
        raise FileError(f"There is no sample {name!r}: choose one of {', '.join(NAMES)}.")
    folder = Path(__file__).parent
    return open_image(folder / f"{name}.png"), np.asarray(open_image(folder / f"{name}_truth.png").array)
