"""How good are the shipped models on images that they never saw? Beside them, in the same run, Otsu and a watershed.

    python -m benchmarks quality DATA [--tables nuclei elsewhere cells] [--model FILE] [--json FILE] [--picture FOLDER]

DATA is the folder of the public image sets. The tables:

- nuclei: the look-alike groups of dsb2018 that `training/nuclei.py` held out;
- elsewhere: `nuclei` on microscopes that are not in its training at all: two sets of the Cell Tracking Challenge, and
  slices of three volumes;
- cells (only if asked for): a model of `training/cells.py`, which is not shipped, given as --model: fields of
  usiigaci_phc that the recipe held out, and two kinds that it never saw.

Where a ledger names the files, their hashes are checked. AP is TP / (TP + FP + FN) at an IoU, for each image, then the
mean over images. All settings are those on the models' cards; a second row gives each image the object diameter that
is estimated for it.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.io import imread, imsave
from skimage.segmentation import find_boundaries, watershed
from skimage.transform import resize

import napari_unet as nu
from benchmarks.click import pairs as manifest_pairs
from napari_unet.engine.image import LUMINANCE
from napari_unet.engine.metrics import average_precision

LEDGERS = Path(__file__).parent.parent / "training"
SHOWN = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
SHEET = 10
"""Images of a set on its contact sheet."""
PEER = "Otsu + watershed"
ESTIMATED = ", diameter estimated"
"""After the name of a model: each image at the object diameter that is estimated for it."""

Array = NDArray[Any]
Pairs = Iterator[tuple[Array, Array]]


# --- the sets ---------------------------------------------------------------------------------------------------------


def held_out(ledger: str, folder: Path, chosen: Callable[[dict[str, Any]], bool]) -> Pairs:
    """Yield what a recipe kept out; a file that is not the one of the ledger ends the program."""
    for entry in json.loads((LEDGERS / ledger).read_text())["images"]:
        if not (entry["held_out"] and chosen(entry)):
            continue
        path = folder / entry["image"]
        truth = path.with_name(path.name.replace("img_", "mask_"))
        if not path.exists():
            sys.exit(f"{path} is missing: give the folder of the image sets.")
        if hashlib.sha256(path.read_bytes() + truth.read_bytes()).hexdigest() != entry["sha256"]:
            sys.exit(f"{path} is not the file of the ledger: its hash differs.")
        yield imread(path), imread(truth).astype(np.int32)


def foreign(folder: str) -> Callable[[Path], Pairs]:
    """Return a reader of 2D images, or of every 24th slice of volumes, at most four files."""

    def read(data: Path) -> Pairs:
        for _, image, truth in itertools.islice(manifest_pairs(data / folder), 4):
            truth = truth.astype(np.int32)
            yield from [(image, truth)] if truth.ndim == 2 else zip(image[8::24], truth[8::24], strict=True)

    return read


def stain(name: str) -> Callable[[Path], Pairs]:
    """Return a reader of what `nuclei` was not trained on."""
    return lambda data: held_out("nuclei_ledger.json", data / "dsb2018", lambda e: e["stain"] == name)


TABLES: dict[str, tuple[tuple[str, ...], dict[str, Callable[[Path], Pairs]]]] = {
    "nuclei": (("nuclei",), {"fluorescence": stain("fluo"), "H&E": stain("he")}),
    "elsewhere": (
        ("nuclei",),
        {
            "Fluo-N2DH-GOWT1": foreign("ctc_Fluo-N2DH-GOWT1"),
            "Fluo-N2DL-HeLa": foreign("ctc_Fluo-N2DL-HeLa"),
            "cells3d, slices": foreign("cells3d_nuclei_3d"),
            "light sheet, slices": foreign("lightsheet_nuclei_3d"),
            "plant nuclei, slices": foreign("plant_nuclei_3d"),
        },
    ),
    "cells": (
        ("cells", "nuclei"),
        {
            "usiigaci_phc, held out": lambda data: held_out("cells_ledger.json", data, lambda _: True),
            "PhC-C2DH-U373": foreign("ctc_PhC-C2DH-U373"),
            "DIC-C2DH-HeLa": foreign("ctc_DIC-C2DH-HeLa"),
        },
    ),
}
"""The models of each table, and its sets."""


# --- the peer, and the pictures ---------------------------------------------------------------------------------------


def grey_of(pixels: Array) -> Array:
    """Return an image as the peer and the pictures take it."""
    return pixels[..., :3] @ LUMINANCE if pixels.ndim == 3 else pixels.astype(float)


def otsu_watershed(grey: Array) -> Array:
    """Return what a person gets from scikit-image alone; dark objects are recognised by a bright background."""
    smooth = gaussian(grey, 1)
    mask = smooth > threshold_otsu(smooth)
    if mask.mean() > 0.5:
        mask = ~mask
    distance = gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=5, labels=ndimage.label(mask)[0])
    seeds = np.zeros(grey.shape, dtype=int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-distance, seeds, mask=mask))


def estimated(image: nu.Image, model: nu.Model) -> int | None:
    """Return the object diameter as Estimate gives it; None: it finds nothing, so the image stays as it is."""
    try:
        return nu.estimate_diameter(image, model, device="cpu")
    except nu.NapariUnetError:
        return None


def outlines(image: Array, labels: Array, color: tuple[float, ...]) -> Array:
    """Return a 256 x 256 RGB picture of an image with the outlines of its labels."""
    low, high = np.percentile(image, (1, 99.8))
    grey = ((image - low) / max(high - low, 1e-6)).clip(0, 1) ** 0.6
    picture = np.stack([grey] * 3, axis=-1)
    picture[find_boundaries(labels, mode="inner")] = color
    return np.asarray(resize(picture[:512, :512], (256, 256)))


# --- the tables -------------------------------------------------------------------------------------------------------


def scored(
    models: dict[str, nu.Model], pairs: list[tuple[Array, Array]]
) -> tuple[dict[str, list[list[float]]], dict[str, float], list[Array]]:
    """Return AP at every threshold for each method and image, seconds an image, and rows of a contact sheet."""
    names = [way for name, model in models.items() for way in (name, *[name + ESTIMATED] * bool(model.card.diameter))]
    scores: dict[str, list[list[float]]] = {name: [] for name in (*names, PEER)}
    seconds = dict.fromkeys(scores, 0.0)
    sheet = []
    for number, (pixels, truth) in enumerate(pairs):
        rgb, grey, found = pixels.ndim == 3, grey_of(pixels), {}
        for name in scores:
            began = time.perf_counter()
            if name == PEER:
                found[name] = otsu_watershed(grey)
            else:
                image, model = nu.Image(pixels, "yxc" if rgb else "yx", rgb=rgb), models[name.removesuffix(ESTIMATED)]
                diameter = estimated(image, model) if name.endswith(ESTIMATED) else None
                found[name] = nu.segment(image, model, diameter=diameter, device="cpu")
            seconds[name] += (time.perf_counter() - began) / len(pairs)
            scores[name].append(list(average_precision(found[name], truth).values()))
        if number % max(1, len(pairs) // SHEET) == 0:
            colors = ((1.0, 0.2, 0.2), (0.4, 0.6, 1.0), (1.0, 0.8, 0.2), (0.8, 0.4, 1.0), (0.2, 0.9, 0.9))
            drawn = [(truth, (0.0, 1.0, 0.0)), *zip(found.values(), colors, strict=False)]
            sheet.append(np.concatenate([outlines(grey, labels, color) for labels, color in drawn], axis=1))
    return scores, seconds, sheet


def main() -> None:
    """Score, print the tables, write JSON and contact sheets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=["nuclei", "elsewhere"])
    parser.add_argument("--model", help="another model or file in place of a table's first one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a folder for contact sheets: truth in green, then each method")
    options = parser.parse_args()
    thresholds = list(average_precision(np.zeros((2, 2), int), np.zeros((2, 2), int)))
    result: dict[str, Any] = {"thresholds": thresholds, "tables": {}}
    for table in options.tables:
        names, sets = TABLES[table]
        models = {name: nu.load_model((i == 0 and options.model) or name) for i, name in enumerate(names)}
        print(f"\n{table}: " + ", ".join(m.card.identity for m in models.values()))
        print("| images | method | " + " | ".join(f"AP@{t:g}" for t in SHOWN) + " | mean | s an image |")
        print("|---|---|" + "---:|" * (len(SHOWN) + 2))
        for name, read in sets.items():
            try:
                pairs = list(read(options.data))
            except FileNotFoundError as error:
                sys.exit(f"There is no {error.filename}: give the folder of the image sets, or fewer --tables.")
            scores, seconds, sheet = scored(models, pairs)
            for method, values in scores.items():
                means = np.mean(values, axis=0)
                shown = " | ".join(f"{means[np.abs(np.array(thresholds) - t).argmin()]:.3f}" for t in SHOWN)
                print(
                    f"| {name}, {len(pairs)} | {method} | {shown} | {means.mean():.3f} | {seconds[method]:.2f} |",
                    flush=True,
                )
                result["tables"].setdefault(table, {}).setdefault(name, {})[method] = {
                    "images": len(pairs),
                    "ap": means.tolist(),
                    "seconds": seconds[method],
                }
            if options.picture:
                options.picture.mkdir(parents=True, exist_ok=True)
                picture = options.picture / f"{table} {name}.png".replace(" ", "-").replace(",", "")
                imsave(picture, (np.concatenate(sheet) * 255).astype(np.uint8))
        result["tables"][table]["models"] = {name: model.card.identity for name, model in models.items()}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
