"""Sample images with their truth, packaged; the shipped models have not learned from them. See LICENSE.txt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..engine.errors import FileError
from ..engine.files import open_image
from ..engine.image import Image

NAMES = ("nuclei", "histology", "cells")
ORIGIN = {"nuclei": "dev/img_271.png", "histology": "dev/img_238.png", "cells": "usiigaci_phc/dev/img_002.png"}
"""Their names in the ledgers of the recipes that made `nuclei` and `cells`, where they are held out."""


def load(name: str) -> tuple[Image, NDArray[Any]]:
    """Return a sample image and its true instances.

    Parameters
    ----------
    name
        ``"nuclei"`` (fluorescence, grey), ``"histology"`` (H&E, RGB) or ``"cells"`` (phase contrast, grey).

    Returns
    -------
    image, truth
        The truth has shape ``image.label_shape``; 0 is background, each object has its number.
    """
    if name not in NAMES:
        raise FileError(f"There is no sample {name!r}: choose one of {', '.join(NAMES)}.")
    folder = Path(__file__).parent
    return open_image(folder / f"{name}.png"), np.asarray(open_image(folder / f"{name}_truth.png").array)
