"""How good is the shipped model `nuclei` on images it never saw? Beside it, in the same run: Otsu and a distance watershed.

    python -m benchmarks.nuclei DATA [--json FILE] [--picture FILE]

DATA holds `dsb2018` as training/nuclei.py takes it. Scored are the held-out groups of training/nuclei_ledger.json, whose
file hashes are checked. AP is TP / (TP + FP + FN) at an IoU, for each image, then the mean over images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.io import imread, imsave
from skimage.segmentation import find_boundaries, watershed
from skimage.transform import resize

import napari_unet as nu
from napari_unet.engine.image import LUMINANCE
from napari_unet.engine.metrics import average_precision

LEDGER = Path(__file__).parent.parent / "training" / "nuclei_ledger.json"
SHOWN = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)


def otsu_watershed(grey: np.ndarray) -> np.ndarray:
    """Return what a person gets from scikit-image alone; dark nuclei are recognised by a bright background."""
    smooth = gaussian(grey, 1)
    level = threshold_otsu(smooth)
    mask = smooth > level
    if mask.mean() > 0.5:
        mask = ~mask
    distance = gaussian(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, min_distance=5, labels=ndimage.label(mask)[0])
    seeds = np.zeros(grey.shape, dtype=int)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, seeds, mask=mask)


def outlines(image: np.ndarray, labels: np.ndarray, color: tuple[float, ...]) -> np.ndarray:
    """Return a 256 x 256 RGB picture of an image with the outlines of its labels."""
    low, high = np.percentile(image, (1, 99.8))
    grey = ((image - low) / max(high - low, 1e-6)).clip(0, 1) ** 0.6
    picture = np.stack([grey] * 3, axis=-1)
    picture[find_boundaries(labels, mode="inner")] = color
    return resize(picture[:384, :384], (256, 256))


def main() -> None:
    """Score, print a table, write JSON and a contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="a contact sheet: truth (green), result (red), Otsu (blue)")
    parser.add_argument("--every", type=int, default=1, help="score every n-th image only")
    options = parser.parse_args()
    rows = [row for row in json.loads(LEDGER.read_text())["images"] if row["held_out"]][:: options.every]
    model = nu.load_model(options.model)
    scores: dict[tuple[str, str], list[list[float]]] = {}
    seconds, sheet = 0.0, []
    for number, row in enumerate(rows):
        path = options.data / "dsb2018" / row["image"]
        truth_path = path.with_name(path.name.replace("img_", "mask_"))
        if not path.exists():
            sys.exit(f"{path} is missing: give the folder that holds dsb2018.")
        if hashlib.sha256(path.read_bytes() + truth_path.read_bytes()).hexdigest() != row["sha256"]:
            sys.exit(f"{path} is not the file of the ledger: its hash differs.")
        pixels, truth = imread(path), imread(truth_path).astype(int)
        rgb = pixels.ndim == 3
        began = time.perf_counter()
        ours = nu.segment(nu.Image(pixels, "yxc" if rgb else "yx", rgb=rgb), model, device="cpu")
        seconds += time.perf_counter() - began
        grey = pixels[..., :3] @ LUMINANCE if rgb else pixels.astype(float)
        peer = otsu_watershed(grey)
        for name, found in (("nuclei", ours), ("Otsu + watershed", peer)):
            ap = average_precision(found, truth)
            scores.setdefault((row["stain"], name), []).append(list(ap.values()))
        if options.picture and number % max(1, len(rows) // 12) == 0:
            parts = ((truth, (0, 1, 0)), (ours, (1, 0.2, 0.2)), (peer, (0.4, 0.6, 1)))
            sheet.append(np.concatenate([outlines(grey, labels, c) for labels, c in parts], axis=1))
    thresholds = list(average_precision(np.zeros((2, 2), int), np.zeros((2, 2), int)))
    print(f"{model.card.identity}, {len(rows)} images, {seconds / len(rows):.2f} s an image")
    print(
        f"{'stain':12}{'method':18}{'images':>7}"
        + "".join(f"{'AP@' + format(t, '.2f'):>9}" for t in SHOWN)
        + f"{'mean':>8}"
    )
    result = {
        "model": model.card.identity,
        "seconds_an_image": seconds / len(rows),
        "thresholds": thresholds,
        "scores": {},
    }
    for (stain, name), values in scores.items():
        means = dict(zip(thresholds, np.mean(values, axis=0).tolist(), strict=True))
        chosen = "".join(f"{means[min(means, key=lambda k, t=t: abs(k - t))]:9.3f}" for t in SHOWN)
        print(f"{stain:12}{name:18}{len(values):7}{chosen}{np.mean(list(means.values())):8.3f}")
        result["scores"][f"{stain} | {name}"] = {"images": len(values), "ap": list(means.values())}
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))
    if options.picture:
        imsave(options.picture, (np.concatenate(sheet) * 255).astype(np.uint8))


if __name__ == "__main__":
    main()
