r"""The recipe of the shipped model `nuclei`: 2D nuclei in fluorescence and H&E, from the DSB 2018 training images (CC0).

Since the fourth leg also from nuclei drawn as fluorescence shows them, some of them very large, and from empty fields; in
the fifth some of those divide or die. What is shipped has the mean weights of the fourth and the fifth.

    python training/nuclei.py DATA/dsb2018 --out leg1.safetensors                       # 2e-3, saved every 250 steps
    python training/nuclei.py DATA/dsb2018 --out leg2.safetensors --start leg1.safetensors \
        --learning-rate 1.2e-3 --steps 2600 --seed 2016                                 # goes on where a run was stopped
    python training/nuclei.py DATA/dsb2018 --out leg3.safetensors --start leg2.safetensors \
        --learning-rate 1.5e-3 --steps 9000 --seed 2017
    python training/nuclei.py DATA/dsb2018 --out leg4.safetensors --start leg3.safetensors \
        --learning-rate 1.5e-3 --steps 18000 --minutes 100 --seed 2018 --drawn 400 --copies 4
    python training/nuclei.py DATA/dsb2018 --out leg5.safetensors --start leg4.safetensors \
        --learning-rate 1.5e-3 --steps 100000 --minutes 55 --seed 2019 --drawn 600 --copies 4 --patch 192
    python training/nuclei.py DATA/dsb2018 --out src/napari_unet/weights/nuclei.safetensors \
        --start leg5.safetensors --average leg4.safetensors --calibrate                 # thresholds, on training images

DATA/dsb2018 holds `manifest.csv` and `dev/img_*.png`, `dev/mask_*.png` (instance ids). Everything is seeded; the
ledger (files, hashes, split) is written beside this script. The same `fine_tune` runs in the app.

The held-out block: images are grouped by what they look like on the plate (shape, stain, and a coarse histogram and
texture signature clustered by single linkage), since many are crops of one plate; whole groups are held out, chosen by
SPLIT_SEED until at least 80 fluorescence images are out. Nearly all H&E images are alike and stay in; few are out.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from recipe import digest, models_of, normalise, read_grey, read_rows
from scenes import glow, nuclei
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.ndimage import gaussian_filter
from skimage.io import imread

from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.image import Image
from napari_unet.engine.inference import relabel, segment
from napari_unet.engine.metrics import average_precision
from napari_unet.engine.model import Model, load_model_file, new_model, save_model
from napari_unet.engine.settings import AugmentSettings, ObjectSettings, SegmentSettings, TrainSettings
from napari_unet.engine.training import fine_tune

HERE = Path(__file__).parent
SPLIT_SEED = 2015
CALIBRATION = 60
"""Training images on which the thresholds are chosen."""
HELD_OUT = 96
"""Images held out, at least."""
RARE = 16
"""Images of which no more than this look alike are rare; most images are of four plates."""


def signature(grey: np.ndarray, mask: np.ndarray, stain: str) -> np.ndarray:
    """Describe how an image was taken: size, stain, brightness, contrast, sharpness, noise, size of the nuclei."""
    fine, coarse = gaussian_filter(grey, 1), gaussian_filter(grey, 4)
    areas = np.bincount(mask.ravel())[1:]
    area = np.median(areas[areas > 0]) if areas.any() else 1.0
    return np.array(
        [
            3 * ["fluo", "he", "brightfield"].index(stain),
            *(np.log2(grey.shape) * 2),
            *(np.log2(1 + np.percentile(grey, (5, 50, 95)))),
            np.log2(1e-2 + (grey - fine).std()),
            np.log2(1e-2 + (fine - coarse).std()),
            np.log2(area) / 2,
        ]
    )


def split(signatures: np.ndarray, stains: list[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each image's group, and which images are held out (whole groups, both stains, at least HELD_OUT)."""
    groups = fcluster(linkage(signatures, "single"), t=0.6, criterion="distance")
    rng, held_out = np.random.default_rng(seed), np.zeros(len(groups), dtype=bool)
    wanted = {"fluo": HELD_OUT - 16, "he": 16}
    for group in rng.permutation(np.unique(groups)):
        members = groups == group
        stain = stains[int(np.flatnonzero(members)[0])]
        taken = sum(held_out[i] for i in range(len(stains)) if stains[i] == stain)
        if stain in wanted and taken < wanted[stain] and members.sum() <= 40:
            held_out |= members
    return groups, held_out


def calibrate(
    model: Model,
    annotations: list[Annotation],
    seed: int,
    foreground: tuple[float, ...] = (0.8, 0.9, 0.95),
    seeds: tuple[float, ...] = (0.2, 0.3, 0.4),
) -> ObjectSettings:
    """Return the thresholds with the best mean AP (IoU 0.5 to 0.8) on a seeded sample of the *training* images."""
    chosen = np.random.default_rng(seed).choice(
        len(annotations), size=min(CALIBRATION, len(annotations)), replace=False
    )
    grid = [ObjectSettings(*values) for values in itertools.product(foreground, seeds, (15, 30))]
    settings = SegmentSettings(device="cpu", diameter=round(model.card.diameter) if model.card.scaled else None)
    totals = np.zeros(len(grid))
    for i in chosen:
        pixels, truth = annotations[i].pixels[0], annotations[i].labels - 1
        *_, result = segment(Image(pixels, "yx"), model, settings)
        for k, thresholds in enumerate(grid):
            ap = average_precision(relabel(result, thresholds), truth, (0.5, 0.6, 0.7, 0.8))
            totals[k] += np.mean(list(ap.values()))
    for thresholds, total in zip(grid, totals, strict=True):
        print(f"{thresholds}: mean AP {total / len(chosen):.4f} on {len(chosen)} training images", flush=True)
    return grid[int(totals.argmax())]


def averaged(model: Model, other: Model) -> Model:
    """Return a model with the mean of the weights, and of BatchNorm's statistics, of two legs of one training."""
    network, theirs = copy.deepcopy(model.network), other.network.state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.add_(theirs[name]).div_(2)
    training = model.card.training | {"averaged_with": other.card.identity}
    return Model(model.card.with_(training=training), network)


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, help="no longer than this")
    parser.add_argument("--start", type=Path, help="go on from this model file, as a further leg")
    parser.add_argument(
        "--drawn", type=int, default=0, help="so many drawn scenes in fluorescence are among the images"
    )
    parser.add_argument("--copies", type=int, default=1, help="how often an image counts that few others look like")
    parser.add_argument("--patch", type=int, default=128, help="edge of a patch; the larger, the fewer in a step")
    parser.add_argument("--calibrate", action="store_true", help="only choose the thresholds of the model --start")
    parser.add_argument("--average", type=Path, help="with --calibrate: take the mean of its weights and of --start's")
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=2015)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    card = ModelCard(
        name="nuclei",
        task="objects",
        spec=UNetSpec(out_channels=3),
        classes=("background", "nucleus"),
        description=(
            "Nuclei in 2D: fluorescence and H&E. One channel; grey is made from RGB. Average precision at an IoU of 0.5 "
            "is 0.85 in fluorescence and, on four images, 0.72 in H&E of plates it never saw. For whole cells choose `cells`."
        ),
        licence="CC0 (BBBC038, Data Science Bowl 2018; Caicedo et al. 2019)",
    )
    rows, annotations, signatures, ledger, diameters = read_rows(options.data), [], [], [], []
    for row in rows:
        image, mask = options.data / row["image"], options.data / row["mask"]
        try:
            grey, truth = read_grey(image), imread(mask).astype(np.int32)
        except (OSError, ValueError) as error:
            sys.exit(
                f"{image} or its mask cannot be read ({error}): restore the file or take its row from the manifest."
            )
        signatures.append(signature(grey, truth, row["note"]))
        annotations.append(Annotation(normalise(grey, card.percentiles)[None], truth + 1, name=row["image"]))
        areas = np.bincount(truth.ravel())[1:]
        diameters.extend(2 * np.sqrt(areas[areas > 0] / np.pi))
        ledger.append({"image": row["image"], "stain": row["note"], "sha256": digest(image, mask)})
    groups, held_out = split(np.array(signatures), [row["note"] for row in rows], SPLIT_SEED)
    for entry, group, out in zip(ledger, groups, held_out, strict=True):
        entry |= {"group": int(group), "held_out": bool(out)}
    record = {"recipe": "training/nuclei.py", "seed": options.seed, "licence": card.licence, "images": ledger}
    (HERE / "nuclei_ledger.json").write_text(json.dumps(record, indent=0))
    used = [a for a, out in zip(annotations, held_out, strict=True) if not out]
    alike = np.bincount(groups[~held_out], minlength=groups.max() + 1)[groups]
    rare = [a for a, out, n in zip(annotations, held_out, alike, strict=True) if not out and n <= RARE]
    rng = np.random.default_rng(options.seed)
    drawn: list[Annotation] = []
    for number in range(options.drawn):
        labels = nuclei(rng)
        drawn.append(Annotation(glow(labels, rng)[None], labels + 1, name=f"drawn {number}"))
    print(
        f"{len(used)} images to learn from, {len(rare)} of them rare, {held_out.sum()} held out in "
        f"{len(set(groups[held_out]))} groups, {len(drawn)} drawn",
        flush=True,
    )

    settings = TrainSettings(
        steps=options.steps,
        minutes=options.minutes,
        batch=round(8 * (128 / options.patch) ** 2),
        patch=options.patch,
        learning_rate=options.learning_rate,
        weight_decay=1e-3,
        balance=1.0,
        frozen_statistics=False,
        averaging=0.995,
        pull=0,
        validate_every=250,
        seed=options.seed,
        device=options.device,
        augment=AugmentSettings(),
    )
    model = load_model_file(options.start) if options.start else new_model(card, options.seed)
    if options.calibrate:
        if options.average:
            model = averaged(model, load_model_file(options.average))
        finished = model.card.with_(objects=calibrate(model, used, SPLIT_SEED), description=card.description)
        save_model(replace(model, card=finished), options.out, half=True)
        return
    legs = model.card.training.get("legs", [])
    data = TrainingSet((*used, *rare * (options.copies - 1), *drawn))
    for learned, steps, minutes in models_of(fine_tune(model, data, settings)):
        leg = {
            "steps": steps,
            "planned": options.steps,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
            "drawn": options.drawn,
            "copies": options.copies,
            "patch": options.patch,
            "minutes": minutes,
        }
        facts = {
            "recipe": "training/nuclei.py",
            "ledger": "training/nuclei_ledger.json",
            "images": len(used),
            "legs": [*legs, leg],
        }
        finished = replace(card, training=facts, diameter=round(float(np.median(diameters)), 1))
        save_model(replace(learned, card=finished), options.out, half=True)


if __name__ == "__main__":
    main()
