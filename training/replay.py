"""Pack the replay set of `nuclei`: crops of its own training images (CC0), one from each look-alike group first.

    python training/replay.py DATA/dsb2018 --out src/napari_unet/weights/nuclei.replay.npz

Reads `nuclei_ledger.json` beside this script; nothing that was held out from `nuclei` enters.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from recipe import read_grey
from skimage.io import imread
from skimage.measure import label

from napari_unet.engine.annotation import Annotation
from napari_unet.engine.replay import pack

EDGE = 128
PERCENTILES = (1.0, 99.8)


def crop(image: Path, mask: Path, rng: np.random.Generator) -> Annotation | None:
    """Return a crop that holds objects, normalised as the whole image is, or None if five tries found none."""
    grey, truth = read_grey(image), imread(mask).astype(np.int32)
    low, high = np.percentile(grey, PERCENTILES)
    for _ in range(5):
        y, x = rng.integers(0, np.array(grey.shape) - EDGE + 1)
        part = truth[y : y + EDGE, x : x + EDGE]
        if 0.03 < np.mean(part > 0) < 0.9:
            inside = (grey[y : y + EDGE, x : x + EDGE] - low) / max(high - low, 1e-6)
            return Annotation(inside[None], label(part, connectivity=1) + 1, name=image.name)
    return None


def main() -> None:
    """Choose, cut and pack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--crops", type=int, default=56)
    parser.add_argument("--seed", type=int, default=2015)
    options = parser.parse_args()
    ledger = json.loads((Path(__file__).parent / "nuclei_ledger.json").read_text())
    trained = [entry for entry in ledger["images"] if not entry["held_out"]]
    rng = np.random.default_rng(options.seed)
    order = [trained[i] for i in rng.permutation(len(trained))]
    seen: dict[int, int] = {}
    ranked = []
    for entry in order:
        seen[entry["group"]] = seen.get(entry["group"], 0) + 1
        ranked.append((seen[entry["group"]], entry["image"]))
    crops: list[Annotation] = []
    for _, image in sorted(ranked, key=lambda pair: pair[0]):  # stable: the k-th of every group before the next
        path = options.data / image
        try:
            found = crop(path, path.with_name(path.name.replace("img_", "mask_")), rng)
        except OSError as error:
            sys.exit(f"{path} or its mask cannot be read ({error}): restore the file.")
        if found is not None:
            crops.append(found)
        if len(crops) == options.crops:
            break
    options.out.write_bytes(pack(tuple(crops)))
    print(f"{len(crops)} crops, {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
