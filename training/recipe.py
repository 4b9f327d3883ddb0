"""What the recipes share: how photographs are read, which are held out, and what is told of a run."""

from __future__ import annotations

import csv
import hashlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from skimage.io import imread

from napari_unet.engine.image import LUMINANCE
from napari_unet.engine.model import Model
from napari_unet.engine.training import StepDone, Trained, Validated

USIIGACI_HELD_OUT = 7
"""The first fields of usiigaci_phc/dev, about a third, are not trained on."""


def read_rows(folder: Path) -> list[dict[str, str]]:
    """Return the manifest's rows of the part that may be trained on."""
    with open(folder / "manifest.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "dev"]


def rows_there(folder: Path) -> list[dict[str, str]]:
    """Return those of them whose image is there: a manifest may list more than was copied."""
    return [row for row in read_rows(folder) if (folder / row["image"]).exists()]


def digest(image: Path, mask: Path) -> str:
    """Return the hash of a pair, for the ledger."""
    return hashlib.sha256(image.read_bytes() + mask.read_bytes()).hexdigest()


def read_grey(path: Path) -> np.ndarray:
    """Read an image as float32 grey."""
    pixels = imread(path)
    if pixels.ndim == 3:
        return pixels[..., :3].astype(np.float32) @ LUMINANCE
    return pixels.astype(np.float32)


def normalise(pixels: np.ndarray, percentiles: tuple[float, float]) -> np.ndarray:
    """Scale the percentiles of one image to 0 and 1, as inference does."""
    low, high = np.percentile(pixels, percentiles)
    return ((pixels - low) / max(high - low, 1e-6)).clip(-1, 4)


def models_of(events: Iterable[StepDone | Validated | Trained]) -> Iterator[tuple[Model, int, float]]:
    """Print the loss now and then; yield each model that was looked at, with the steps and minutes so far."""
    began, losses = time.monotonic(), []
    for event in events:
        if isinstance(event, StepDone):
            losses.append(event.loss)
            if event.step % 50 == 0:
                print(f"step {event.step} loss {np.mean(losses[-50:]):.4f} {event.seconds:.0f} s", flush=True)
        else:
            yield event.model, len(losses), round((time.monotonic() - began) / 60, 1)
