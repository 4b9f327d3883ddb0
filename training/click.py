r"""The recipe of the shipped model `click`: one click, one object, in images of any kind.

    cd src/napari_unet/weights
    python ../../../training/click.py DATA --features nuclei.safetensors --out leg1.safetensors --minutes 38
    python ../../../training/click.py DATA --start leg1.safetensors --out leg2.safetensors --minutes 98 \
        --steps 1000000 --learning-rate 1.5e-3 --seed 2018 --bfloat16       # 11 425 steps on one core
    python ../../../training/click.py DATA --start leg2.safetensors --out leg3.safetensors --minutes 52 \
        --steps 1000000 --learning-rate 1.5e-3 --seed 2019 --bfloat16       # 9 070 steps
    python ../../../training/click.py DATA --start leg3.safetensors --out leg4.safetensors --minutes 48 \
        --steps 1000000 --learning-rate 1.5e-3 --seed 2020 --bfloat16       # 9 584 steps
    python ../../../training/click.py DATA --start leg4.safetensors --out click.safetensors --minutes 100 \
        --steps 1000000 --learning-rate 1.5e-3 --seed 2021 --bfloat16       # 20 350 steps

DATA holds `dsb2018`, `usiigaci_phc`, `cells3d_nuclei_3d` and `plant_ovule_cells_3d` (all open: CC0, BSD, MIT, CC BY),
each with `manifest.csv`. The images of `nuclei_ledger.json` that are held out there are held out here too, and a third
of `usiigaci_phc`. At least half of every batch is drawn (`scenes.py`): blobs, nuclei, cells with arms, rods, branching
lines, tilings with membranes, rings, nested and porous shapes, in many contrasts. Everything is seeded; the ledger is
written beside this script. The first three legs had neither the nuclei nor the cells with arms, and none in transmitted
light or fluorescence.

Clicks are simulated by `napari_unet.engine.prompts`, up to five corrections each. Some patches start from a spoilt truth
instead: that is what the prediction of an automatic model looks like. Starting from the features of `nuclei` (trained
on a part of the same data) the loss reaches after 200 steps what it does not reach in 1100 from random weights.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from recipe import USIIGACI_HELD_OUT, digest, models_of, normalise, read_grey, rows_there
from scenes import blobs, branches, nuclei, pores, rings, rods, scene, smooth_noise, spread, tiling
from scipy import ndimage
from skimage.io import imread
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from napari_unet.engine.augment import gaussian
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.model import Model, load_model_file, new_model, save_model
from napari_unet.engine.prompts import CHANNELS, SIZE, Picture, begin, converse, correct, draw_disk, view, weights
from napari_unet.engine.settings import TrainSettings
from napari_unet.engine.training import optimise
from napari_unet.engine.unet import UNet

HERE = Path(__file__).parent
SYNTHETIC = 0.55
"""Part of the patches that are drawn, not photographed."""
DRAWN_KINDS = (
    (blobs, 0.2),
    (nuclei, 0.15),
    (spread, 0.13),
    (rods, 0.1),
    (branches, 0.1),
    (tiling, 0.2),
    (rings, 0.06),
    (pores, 0.06),
)
TRANSMITTED, GLOWING = 0.25, 0.35
"""Share of the drawn scenes seen in transmitted light, and of the others in fluorescence."""
POOL = 400
"""Drawn scenes kept at a time; one is replaced for each batch."""
SMALLEST_AREA = 40
"""Real objects of fewer pixels teach nothing about a boundary."""
ROUNDS = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
"""Probabilities of 0, 1, 2 and more simulated corrections."""
SPOILT = 0.2
"""Part of the patches that start from a spoilt truth."""


def drawn(rng: np.random.Generator) -> Picture:
    """Return one drawn scene."""
    picture, labels = scene(rng, DRAWN_KINDS, TRANSMITTED, GLOWING)
    if rng.random() < 0.15:  # what is between the objects is an object too
        gaps = ndimage.label(labels == 0)[0]
        labels = np.where(labels > 0, labels, gaps + labels.max()).astype(np.int32)
    return Picture.of(picture, labels, 30)


def spoilt(truth: NDArray[np.bool_], others: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return a truth as an automatic model might see it: too small, too large, moved, merged, broken."""
    way = rng.integers(6)
    size = int(rng.integers(1, 6))
    if way == 0:
        return ndimage.binary_erosion(truth, iterations=size)
    if way == 1:
        return ndimage.binary_dilation(truth, iterations=size)
    if way == 2:
        return np.roll(truth, tuple(rng.integers(-8, 9, 2)), axis=(0, 1))
    if way == 3:
        return truth | others
    rough = smooth_noise(rng, SIZE, rng.uniform(10, 40)) > rng.uniform(-1, 0.5)
    return truth & rough if way == 4 else (truth | (ndimage.binary_dilation(truth, iterations=8) & rough))


class Patches(IterableDataset[tuple[Tensor, NDArray[np.bool_]]]):
    """Batches of patches with one object each and a first click on it: all that needs no network, made beside it."""

    def __init__(self, sources: list[list[Picture]], seed: int, batch: int) -> None:
        self._real, self._batch = sources, batch
        self._rng = np.random.default_rng(seed)
        self._drawn: list[Picture] = []

    def __iter__(self) -> Iterator[tuple[Tensor, NDArray[np.bool_]]]:
        rng = self._rng
        self._drawn = [drawn(rng) for _ in range(POOL)]
        while True:
            self._drawn[rng.integers(POOL)] = drawn(rng)
            pixels = torch.zeros(self._batch, CHANNELS, SIZE, SIZE)
            truths = np.zeros((self._batch, SIZE, SIZE), dtype=bool)
            for i in range(self._batch):
                truths[i] = self._fill(pixels[i])
            yield pixels, truths

    def _fill(self, pixels: Tensor) -> NDArray[np.bool_]:
        """Draw one patch and its first click into ``(CHANNELS, SIZE, SIZE)``; returns the object."""
        rng, begun = self._rng, None
        while begun is None:
            grey, truth, others = view(self._picture(), rng)
            begun = begin(grey, truth, changed, rng)
        pixels[:], truth, click = begun
        if rng.random() < SPOILT:
            guess = spoilt(truth, others, rng)
            pixels[3] = torch.from_numpy(guess.astype(np.float32))
            if rng.random() < 0.6 and correct(pixels, guess, truth, rng):
                return truth
        draw_disk(pixels[1].numpy(), click)
        return truth

    def _picture(self) -> Picture:
        """Return a drawn or photographed picture that has objects."""
        rng = self._rng
        while True:
            chosen = self._drawn if rng.random() < SYNTHETIC else self._real[rng.integers(len(self._real))]
            picture = chosen[rng.integers(len(chosen))]
            if len(picture.boxes):
                return picture


class ClickSampler:
    """Batches for the step loop: patches, and the network's own answers corrected."""

    def __init__(self, patches: Patches, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._patches = iter(DataLoader(patches, batch_size=None, num_workers=1, prefetch_factor=4))

    def batch(self, network: UNet) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels (grey, clicks, mask so far), targets and weights, each ``(n, ·, SIZE, SIZE)``."""
        pixels, truths = next(self._patches)
        truths = np.asarray(truths)
        converse(network, pixels, truths, self._rng.choice(len(ROUNDS), len(pixels), p=ROUNDS), self._rng)
        target = torch.from_numpy(truths.astype(np.float32))[:, None]
        return pixels, target, weights(target)


class HalfUNet(UNet):
    """The same network computed in bfloat16: twice as fast on processors that have it."""

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 logits."""
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            logits = super().forward(x.contiguous(memory_format=torch.channels_last))
        return logits.float()


def changed(grey: Tensor, rng: np.random.Generator) -> Tensor:
    """Change the grey values of a patch: contrast, gamma, inversion, shading, blur, noise."""
    if rng.random() < 0.35:
        grey = gaussian(grey, rng.uniform(0.3, 2))
    if rng.random() < 0.5:  # as if the window itself had been normalised
        low, high = torch.quantile(grey.flatten(), torch.tensor([0.01, 0.995]))
        grey = ((grey - low) / (high - low).clamp(min=1e-3)).clamp(-1, 4)
    low = grey.amin()
    span = (grey.amax() - low).clamp(min=1e-3)
    grey = ((grey - low) / span) ** float(2 ** rng.normal(0, 0.6)) * span + low
    if rng.random() < 0.5:
        grey = 1 - grey
    grey = grey * float(np.exp(rng.normal(-0.1, 0.4))) + float(rng.normal(0, 0.2))
    if rng.random() < 0.3:
        grey = grey + torch.from_numpy(smooth_noise(rng, SIZE, 80))[None] * float(rng.uniform(0, 0.2))
    if rng.random() < 0.6:
        noise = torch.from_numpy(rng.standard_normal(grey.shape, dtype=np.float32))
        grey = grey + noise * float(rng.uniform(0, 0.15))
    return grey.clamp(-1, 4)


# --- data and training ------------------------------------------------------------------------------------------------


def photographs(data: Path, ledger: list[dict[str, object]]) -> Iterator[list[Picture]]:
    """Yield the sources of each data set, and write down what was used."""
    nuclei = json.loads((HERE / "nuclei_ledger.json").read_text())["images"]
    kept_out = {entry["image"] for entry in nuclei if entry["held_out"]}
    for name in ("dsb2018", "usiigaci_phc", "cells3d_nuclei_3d", "plant_ovule_cells_3d"):
        sources = []
        for number, row in enumerate(rows_there(data / name)):
            image, mask = data / name / row["image"], data / name / row["mask"]
            held_out = row["image"] in kept_out if name == "dsb2018" else False
            held_out |= name == "usiigaci_phc" and number < USIIGACI_HELD_OUT
            entry = {"image": f"{name}/{row['image']}", "sha256": digest(image, mask), "held_out": held_out}
            ledger.append(entry)
            if held_out:
                continue
            labels = imread(mask).astype(np.int32)
            if labels.ndim == 2:
                sources.append(Picture.of(normalise(read_grey(image), (1.0, 99.8)), labels, SMALLEST_AREA))
            else:
                volume = normalise(imread(image).astype(np.float32), (1.0, 99.8))
                every = max(1, len(volume) // 16)
                for plane, truth in zip(volume[::every], labels[::every], strict=True):
                    sources.append(Picture.of(plane, truth, SMALLEST_AREA))
        yield [s for s in sources if len(s.boxes)]


def take_over(network: UNet, model: Model) -> None:
    """Copy every tensor that fits, and the weights for the grey channel; the click channels stay random but small."""
    own, given = network.state_dict(), model.network.state_dict()
    for name, tensor in own.items():
        if given[name].shape == tensor.shape:
            tensor.copy_(given[name])
        elif name == "encoder.0.0.weight":
            tensor[:, :1] = given[name]
            tensor[:, 1:] *= 0.5


def main() -> None:
    """Train and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--start", type=Path, help="go on from this model file")
    parser.add_argument("--features", type=Path, help="take over what fits from this model, e.g. the shipped nuclei")
    parser.add_argument("--seed", type=int, default=2015)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--bfloat16", action="store_true", help="compute in half precision")
    options = parser.parse_args()

    card = ModelCard(
        name="click",
        task="click",
        spec=UNetSpec(in_channels=CHANNELS, out_channels=1),
        classes=("background", "object"),
        description=(
            "One click, one object, in 2D images of any kind. Trained on nuclei (fluorescence, H&E), cells in phase "
            "contrast, plant cells and, for the larger part, drawn shapes. Limits: objects without a visible boundary, "
            "and objects that consist of separate pieces, need more clicks."
        ),
        licence="CC0 (BBBC038), MIT (Usiigaci), BSD-3 (cells3d of scikit-image), CC BY (PlantSeg sample), and drawn",
    )
    ledger: list[dict[str, object]] = []
    try:
        sources = list(photographs(options.data, ledger))
    except (OSError, ValueError) as error:
        sys.exit(f"The training data cannot be read ({error}): give the folder that holds dsb2018 and the other sets.")
    record = {"recipe": "training/click.py", "seed": options.seed, "licence": card.licence, "images": ledger}
    (HERE / "click_ledger.json").write_text(json.dumps(record, indent=0))
    print([(len(part), sum(len(s.boxes) for s in part)) for part in sources], flush=True)

    settings = TrainSettings(
        steps=options.steps,
        minutes=options.minutes,
        batch=options.batch,
        patch=SIZE,
        learning_rate=options.learning_rate,
        weight_decay=1e-3,
        balance=1.0,
        frozen_statistics=False,
        averaging=0.997,
        pull=0,
        validate_every=300,
        seed=options.seed,
        device=options.device,
    )
    # most of the nuclei are in one set: each set is weighted by how often it stands here
    dsb, usiigaci, cells3d, ovule = sources
    patches = Patches([dsb, dsb, dsb, usiigaci, usiigaci, cells3d, ovule], options.seed, options.batch)
    sampler = ClickSampler(patches, options.seed)
    start = load_model_file(options.start) if options.start else new_model(card, options.seed)
    network = (HalfUNet if options.bfloat16 else UNet)(card.spec)
    network.load_state_dict(start.network.state_dict())
    features = ""
    if options.features:
        given = load_model_file(options.features)
        take_over(network, given)
        features = given.card.identity
    model = Model(card, network.to(memory_format=torch.channels_last).eval())
    legs = start.card.training.get("legs", [])
    for learned, steps, minutes in models_of(optimise(model, sampler, settings, lambda _: None)):
        leg = {
            "steps": steps,
            "learning_rate": options.learning_rate,
            "seed": options.seed,
            "features": features,
            "minutes": minutes,
        }
        facts = {
            "recipe": "training/click.py",
            "ledger": "training/click_ledger.json",
            "images": sum(not entry["held_out"] for entry in ledger),
            "drawn": SYNTHETIC,
            "legs": [*legs, leg],
        }
        save_model(Model(replace(card, training=facts), learned.network), options.out, half=True)


if __name__ == "__main__":
    main()
