"""The replay set of a shipped model: some of its own training crops, so that a child does not forget its parent's work."""

from __future__ import annotations

import io
import zipfile
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from .annotation import Annotation
from .card import ModelCard
from .errors import InvalidModel

LOWEST, HIGHEST = -0.25, 1.5
"""The range of normalised intensities that the 8 bits of a packed crop span."""


def load_replay(card: ModelCard) -> tuple[Annotation, ...]:
    """Return the crops packed with the shipped model that `card` is, or descends from; empty if there are none.

    For a `semantic` model every object becomes its second class. That holds for children of `semantic_from`, whose
    second class began as the parent's foreground.

    Raises
    ------
    InvalidModel
        If the packed file is damaged.
    """
    if card.spec.dims != 2 or card.spec.in_channels != 1 or card.task == "click":
        return ()
    for name in _lineage(card):
        source = files("napari_unet") / "weights" / f"{name}.replay.npz"
        if source.is_file():
            return _unpack(source.read_bytes(), name, card.task == "semantic")
    return ()


def pack(annotations: tuple[Annotation, ...]) -> bytes:
    """Return the file that `load_replay` reads: 8-bit pixels and 16-bit labels; all crops have one shape."""
    pixels = np.stack([a.pixels[0] for a in annotations])
    scaled = (pixels - LOWEST) / (HIGHEST - LOWEST) * 255
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        pixels=np.rint(scaled).clip(0, 255).astype(np.uint8),
        labels=np.stack([a.labels for a in annotations]).astype(np.uint16),
    )
    return buffer.getvalue()


def _lineage(card: ModelCard) -> list[str]:
    """Return the names the set may be filed under: the one on record, the model's own, its parent's."""
    names = [str(card.training.get("replay", "")), card.name, card.parent.split("@")[0]]
    return [n for n in names if n.isidentifier()]


def _unpack(data: bytes, name: str, semantic: bool) -> tuple[Annotation, ...]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as packed:
            pixels, labels = packed["pixels"], packed["labels"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidModel(f"The replay set of {name!r} is damaged: install napari-unet again.") from error
    if pixels.dtype != np.uint8 or labels.dtype != np.uint16 or pixels.ndim != 3 or pixels.shape != labels.shape:
        raise InvalidModel(f"The replay set of {name!r} is damaged: install napari-unet again.")
    values = pixels.astype(np.float32) / 255 * (HIGHEST - LOWEST) + LOWEST
    truth: NDArray[np.int32] = labels.astype(np.int32)
    if semantic:
        truth = np.minimum(truth, 2)
    return tuple(Annotation(v[None], t, name=f"{name} replay") for v, t in zip(values, truth, strict=True))
