r"""The recipe of the shipped model `cells`: whole cells in phase contrast, DIC, bright-field and membrane stains, in 2D.

    python training/cells.py DATA --start src/napari_unet/weights/nuclei.safetensors --out leg1.safetensors \
        --minutes 24 --steps 100000
    python training/cells.py DATA --start leg1.safetensors --out leg2.safetensors --minutes 88 --steps 100000
    python training/cells.py DATA --start leg2.safetensors --out src/napari_unet/weights/cells.safetensors --calibrate
    python training/cells.py DATA --start leg2.safetensors --out src/napari_unet/weights/cells.replay.npz --pack 56

DATA holds `usiigaci_phc` (MIT), `plant_ovule_cells_3d` (CC BY) and `dsb2018` (CC0), each with `manifest.csv`. Open
images of cells in transmitted light are few, so most of what it sees is drawn (`scenes.py`). A third of the fields
of usiigaci_phc are held out, the same ones as from `click`. Everything is brought to a scale where the median object is
WIDTH pixels wide, which is also how the model sees an image when it is used (`ModelCard.scaled`). Everything
is seeded; the ledger is written beside this script, and the loop is the app's own `fine_tune`. The shipped weights had
their first leg of 4055 steps before there were scenes in transmitted light: with 8 copies of each phase contrast image, 500
scenes, none of them with arms or transmitted, and a zoom of up to 2; the second, of 23047 steps, with what stands here.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from nuclei import calibrate
from recipe import USIIGACI_HELD_OUT, digest, models_of, normalise, read_grey, rows_there
from scenes import Grey, Labels, blobs, branches, rings, rods, scene, spread, tiling
from skimage.io import imread
from skimage.measure import label

from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.model import load_model_file, save_model
from napari_unet.engine.replay import pack
from napari_unet.engine.settings import AugmentSettings, TrainSettings
from napari_unet.engine.training import fine_tune
from napari_unet.engine.zoom import Zoom, resampled

HERE = Path(__file__).parent
WIDTH = 28
"""Median width, in pixels, of the objects of every image that it sees."""
CROP = 128
"""Edge of a crop of the replay set."""
COPIES = 24
"""Each phase contrast image is brought to so many scales around that, since there are few."""
DRAWN = 1500
DRAWN_KINDS = ((blobs, 0.28), (spread, 0.22), (tiling, 0.25), (rods, 0.12), (branches, 0.03), (rings, 0.1))
TRANSMITTED = 0.55
"""Share of the drawn scenes that are seen in phase contrast, DIC or bright-field."""
FLUORESCENCE = 80
"""So many images of nuclei: cells that are stained as a whole look like large ones."""


def brought(grey: Grey, truth: Labels, name: str, rng: np.random.Generator) -> list[Annotation]:
    """Return an image at a scale where its objects are about WIDTH pixels wide; nothing if it has none."""
    areas = np.bincount(truth.ravel())[1:]
    if not areas.any():
        return []
    width = 2 * np.sqrt(np.median(areas[areas > 0]) / np.pi)
    factor = float(np.clip(WIDTH / width * np.exp(rng.normal(0, 0.2)), 0.1, 2))
    zoom = Zoom(grey.shape, tuple(max(32, round(n * factor)) for n in grey.shape))
    everything = tuple(slice(0, n) for n in zoom.seen)
    pixels = resampled(lambda region: grey[(None, *region)], everything, zoom.full, zoom.seen).astype(np.float32)
    nearest = Zoom(zoom.seen, zoom.full).labels(truth.__getitem__, everything)
    return [Annotation(pixels, label(nearest, connectivity=1) + 1, name=name)]


def photographs(
    data: Path, percentiles: tuple[float, float], seed: int
) -> tuple[list[Annotation], list[dict[str, object]]]:
    """Return the images to learn from, and the ledger of every file that was looked at."""
    nuclei = json.loads((HERE / "nuclei_ledger.json").read_text())["images"]
    fluorescence = [e["image"] for e in nuclei if e["stain"] == "fluo" and not e["held_out"]]
    chosen = {*np.random.default_rng(seed).permutation(fluorescence)[:FLUORESCENCE]}
    chosen |= {e["image"] for e in nuclei if e["stain"] == "brightfield" and not e["held_out"]}
    used: list[Annotation] = []
    rng = np.random.default_rng(seed)
    ledger: list[dict[str, object]] = []
    for name in ("usiigaci_phc", "plant_ovule_cells_3d", "dsb2018"):
        for number, row in enumerate(rows_there(data / name)):
            image, mask = data / name / row["image"], data / name / row["mask"]
            if name == "dsb2018" and row["image"] not in chosen:
                continue
            held_out = name == "usiigaci_phc" and number < USIIGACI_HELD_OUT
            known_as = f"{name}/{row['image']}"
            ledger.append({"image": known_as, "sha256": digest(image, mask), "held_out": held_out})
            if held_out:
                continue
            truth = imread(mask).astype(np.int32)
            if truth.ndim == 3:
                volume = normalise(imread(image).astype(np.float32), percentiles)
                for plane, there in zip(volume, truth, strict=True):
                    used += brought(plane, there, known_as, rng) if (there > 0).mean() > 0.2 else []
                continue
            grey = normalise(read_grey(image), percentiles)
            for _ in range(COPIES if name == "usiigaci_phc" else 1):
                used += brought(grey, truth, known_as, rng)
    return used, ledger


def crops(annotations: list[Annotation], count: int, rng: np.random.Generator) -> list[Annotation]:
    """Return crops that hold cells, one of each image at most."""
    found: list[Annotation] = []
    for i in rng.permutation(len(annotations)):
        pixels, labels, name = annotations[i].pixels, annotations[i].labels, annotations[i].name
        if min(labels.shape) < CROP or len(found) == count:
            continue
        y, x = rng.integers(0, np.array(labels.shape) - CROP + 1)
        part = labels[y : y + CROP, x : x + CROP]
        if 0.05 < np.mean(part > 1) < 0.95:
            own = np.unique(part, return_inverse=True)[1].reshape(part.shape) + 1 + (part.min() > 1)
            found.append(Annotation(pixels[:, y : y + CROP, x : x + CROP], own.astype(np.int32), name=name))
    return found


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--start", type=Path, required=True, help="the shipped nuclei, or this model to go on")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--calibrate", action="store_true", help="only choose the thresholds of the model --start")
    parser.add_argument("--pack", type=int, help="only pack a replay set of so many crops, half of them drawn")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=2015)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()

    card = ModelCard(
        name="cells",
        task="objects",
        spec=UNetSpec(out_channels=3),
        classes=("background", "cell"),
        description=(
            "Whole cells in 2D: phase contrast, DIC, bright-field, membrane stains. One channel; their diameter is "
            "estimated unless you give it. It has seen few photographs and many drawn scenes: average precision at an "
            "IoU of 0.5 is 0.61 in fields of a culture it learned, 0.37 and 0.41 in two it never saw. Look at the "
            "result, and retrain it on your images."
        ),
        diameter=float(WIDTH),
        scaled=True,
        licence="MIT (Usiigaci; Tsai et al. 2019), CC BY (PlantSeg sample; Wolny et al. 2020), CC0 (BBBC038), and drawn",
    )
    try:
        used, ledger = photographs(options.data, card.percentiles, options.seed)
    except (OSError, ValueError) as error:
        sys.exit(f"The training data cannot be read ({error}): give the folder that holds usiigaci_phc and the others.")
    record = {"recipe": "training/cells.py", "seed": options.seed, "licence": card.licence, "images": ledger}
    (HERE / "cells_ledger.json").write_text(json.dumps(record, indent=0))
    model = load_model_file(options.start)
    rng = np.random.default_rng(options.seed)
    drawn: list[Annotation] = []
    for number in range(DRAWN):
        drawn += brought(*scene(rng, DRAWN_KINDS, TRANSMITTED), f"drawn {number}", rng)
    print(f"{len(used)} photographs, {len(drawn)} drawn scenes", flush=True)
    if options.pack:
        of_cells = [a for a in used if not a.name.startswith("dsb2018")]
        half = options.pack // 2
        chosen = (*crops(of_cells, half, rng), *crops(drawn, options.pack - half, rng))
        options.out.write_bytes(pack(chosen))
        print(f"{len(chosen)} crops, {options.out.stat().st_size / 1e6:.2f} MB")
        return
    if options.calibrate:
        cells = [a for a in (*used, *drawn) if not a.name.startswith("dsb2018")]
        thresholds = calibrate(model, cells, options.seed, (0.5, 0.6, 0.7, 0.8), (0.2, 0.3, 0.4, 0.5))
        save_model(replace(model, card=model.card.with_(objects=thresholds)), options.out, half=True)
        return

    settings = TrainSettings(
        steps=options.steps,
        minutes=options.minutes,
        batch=6,
        patch=128,
        learning_rate=options.learning_rate,
        weight_decay=1e-3,
        balance=1.0,
        frozen_statistics=False,
        averaging=0.995,
        way=1.0,
        pull=0,
        validate_every=250,
        seed=options.seed,
        device=options.device,
        augment=AugmentSettings(scale=1.6),
    )
    legs = [] if model.card.name != card.name else model.card.training.get("legs", [])
    start = model.card.identity
    data = TrainingSet((*used, *drawn))
    for learned, steps, minutes in models_of(fine_tune(replace(model, card=card), data, settings)):
        leg = {
            "start": start,
            "steps": steps,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
            "minutes": minutes,
        }
        facts = {
            "recipe": "training/cells.py",
            "ledger": "training/cells_ledger.json",
            "photographs": len(used),
            "drawn": DRAWN,
            "legs": [*legs, leg],
        }
        save_model(replace(learned, card=card.with_(training=facts)), options.out, half=True)


if __name__ == "__main__":
    main()
