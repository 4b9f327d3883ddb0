"""The verbs for Python users: arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .engine.image import ArrayLike, Image, guess_axes, looks_coloured
from .engine.inference import Segmented
from .engine.inference import estimate_diameter as estimated
from .engine.inference import segment as segment_events
from .engine.library import Library
from .engine.model import Model
from .engine.settings import SegmentSettings


def load_model(model: str) -> Model:
    """Load a model by name (``"nuclei"``), name and version (``"mine@3"``) or the path of its file.

    Raises
    ------
    ModelNotFound, InvalidModel

    Examples
    --------
    >>> load_model("nuclei").card.classes
    ('background', 'nucleus')
    """
    return Library().load(model)


def estimate_diameter(
    image: Image | ArrayLike, model: Model | str = "nuclei", *, axes: str | None = None, **settings: Any
) -> int:
    """Estimate how wide the objects of an image are in pixels, to give to `segment` as ``diameter``.

    Parameters
    ----------
    image, model, axes, settings
        As for `segment`.

    Raises
    ------
    InvalidSettings
        If it is not known how large the objects of the model should be.
    InvalidImage
        If too few objects are found at any size.

    Examples
    --------
    >>> import numpy as np, napari_unet as nu
    >>> y, x = np.mgrid[:120, :120] % 40 - 20
    >>> nu.estimate_diameter((np.hypot(y, x) < 12).astype(float), "nuclei", device="cpu")
    23
    """
    image, model = _opened(image, model, axes)
    return estimated(image, model, SegmentSettings(**settings))


def segment(
    image: Image | ArrayLike, model: Model | str = "nuclei", *, axes: str | None = None, **settings: Any
) -> NDArray[np.integer]:
    """Segment an image and return its labels.

    Parameters
    ----------
    image
        An `Image`, or a numpy, dask or zarr array.
    model
        A loaded model, or what `load_model` takes.
    axes
        One letter of ``tczyx`` for each axis of an array; None: guessed, and a last axis of 3 or 4 is colours (as in
        napari), of which the model sees the grey.
    **settings
        Fields of `SegmentSettings`.

    Returns
    -------
    labels
        The image's shape without its channel axis: 0 background, 1 and up classes or objects.

    Examples
    --------
    >>> import numpy as np, napari_unet as nu
    >>> labels = nu.segment(np.random.default_rng(0).random((64, 48)), "nuclei", device="cpu")
    >>> labels.shape
    (64, 48)
    """
    image, model = _opened(image, model, axes)
    *_, last = segment_events(image, model, SegmentSettings(**settings))
    assert isinstance(last, Segmented)
    return last.labels


def _opened(image: Image | ArrayLike, model: Model | str, axes: str | None) -> tuple[Image, Model]:
    if not isinstance(image, Image):
        shape = tuple(image.shape)
        rgb = axes is None and looks_coloured(shape)
        image = Image(image, axes or guess_axes(shape, rgb), rgb=rgb)
    return image, load_model(model) if isinstance(model, str) else model
