"""The tables beside the paper of 2015: its data and its recipe, our default and a peer, each trained in the same run.

    python -m benchmarks paper DATA [--tables isbi ctc crops volumes ablations] [--steps N] [--only TEXT] [--json FILE]
        [--stardist PYTHON]

DATA is the folder of the public image sets. Every U-Net here learns in the app's own step loop, with as many steps as any
other of its table. Parts that judge were never trained on; thresholds are chosen on what was trained on.

- isbi: membranes (ISBI 2012), five folds of four contiguous slices; V_Rand and V_Info after border thinning, each at its
  best threshold, V_Rand also at the one that is best on trained slices, and at one for all parts, as on the board;
- ctc: PhC-C2DH-U373 and DIC-C2DH-HeLa, the first half of the annotated frames against the second, and back;
- crops: dsb2018 fluorescence from 10, 38 and 152 crops of 128 pixels, three draws, from random weights, judged on held-out
  groups; beside us MONAI's U-Net and, where it is installed (`benchmarks.peers`), StarDist, each on the same crops for as
  much CPU time as ours learned;
- volumes: three volumes, the left half against the right; a start from `nuclei` beside random weights;
- ablations: one change at a time, on membranes and on nuclei, from random weights.

Runs that the JSON file holds already are not run again, so a table can be made in parts; `--only` picks runs whose name
holds a text, such as "isbi/paper" or "/0".
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import multiscale_basic_features
from skimage.io import imread
from skimage.segmentation import watershed
from skimage.transform import downscale_local_mean, resize
from torch import Tensor
from torch.nn import functional as F

from benchmarks.click import pairs as manifest_pairs
from benchmarks.paint_and_retrain import normalised
from benchmarks.peers import monai_unet, stardist
from benchmarks.quality import grey_of, held_out, otsu_watershed
from napari_unet.engine import augment
from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.annotation import targets as targets_of
from napari_unet.engine.card import OBJECT_MAPS, ModelCard, UNetSpec
from napari_unet.engine.image import Image
from napari_unet.engine.inference import Segmented, segment
from napari_unet.engine.library import Library
from napari_unet.engine.metrics import TENTHS, after_thinning, average_precision, seg
from napari_unet.engine.model import Model, new_model
from napari_unet.engine.objects import labels_from_maps
from napari_unet.engine.settings import AugmentSettings, ObjectSettings, SegmentSettings, TrainSettings
from napari_unet.engine.training import Sampler, Trained, balanced, fine_tune, optimise
from napari_unet.engine.transfer import in_3d, start_model
from napari_unet.engine.unet import UNet

LEDGERS = Path(__file__).parent.parent / "training"
STEPS = 600
FOLDS = 5
DENSE = TrainSettings(
    steps=STEPS,
    batch=4,
    patch=128,
    balance=1,
    frozen_statistics=False,
    averaging=0.99,
    way=1,
    pull=0,
    replay=0,
    device="cpu",
)
"""The app's settings, but classes weigh the same, statistics of BatchNorm follow, nothing is pulled back to the start."""
TILE = 380
"""Edge of a tile of the paper's recipe in pixels; unpadded convolutions leave 196 of it (572 and 388 in 2015)."""
PAPER = replace(
    DENSE,
    batch=1,
    learning_rate=5e-4,  # without BatchNorm
    augment=AugmentSettings(scale=1, elastic=10, inversion=0, gamma=0.2, contrast=0.1, noise=0, blur=0),
)
"""Elastic displacements of 10 pixels, rotations, grey values (3.1). AdamW is the app's; 2015 had SGD, momentum 0.99."""
W0, SIGMA = 10.0, 5
"""Of the separation border's weight (2015, equation 2)."""
FOREGROUNDS, SEEDS = (0.5, 0.7, 0.9), (0.2, 0.35, 0.5)
"""Thresholds of objects that are tried on trained images."""

Array = NDArray[Any]
Pair = tuple[Array, Array]
Scores = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """A line of a table, or one fold of it: what is trained and scored, and under which name."""

    table: str
    images: str
    method: str
    part: str
    work: Callable[[], Scores]

    @property
    def name(self) -> str:
        return "/".join((self.table, self.images, self.method, self.part))


# --- learning and answering -------------------------------------------------------------------------------------------


def learned(model: Model, pairs: Iterable[Pair], settings: TrainSettings = DENSE) -> Model:
    """Return the model taught with images and their labels: -1 not known, 0 background, 1 and up class or object."""
    return taught(
        model,
        [Annotation(normalised(image, model.card), labels.astype(np.int32) + 1) for image, labels in pairs],
        settings,
    )


def taught(model: Model, annotations: Sequence[Annotation], settings: TrainSettings) -> Model:
    """Return the model as it is at the end, for nothing is held out to choose by."""
    return last(fine_tune(model, TrainingSet(tuple(annotations)), replace(settings, validate_every=settings.steps)))


def last(events: Iterable[Any]) -> Model:
    """Return the model at the end of a training."""
    *_, end = events
    assert isinstance(end, Trained)
    return end.model


def chances(model: Model, image: Array, flips: bool = False) -> Array:
    """Return the maps ``(k, *spatial)`` in 0 to 1; with `flips` the mean over those of the flipped image."""
    ways: Sequence[tuple[int, ...]] = ((), (-1,), (-2,), (-2, -1)) if flips else ((),)
    total = 0
    for axes in ways:
        settings = SegmentSettings(device="cpu", probabilities=True)
        *_, end = segment(Image(np.flip(image, axes), "zyx"[-image.ndim :]), model, settings)
        assert isinstance(end, Segmented)
        assert end.probabilities is not None
        total = total + np.flip(end.probabilities, axes) / len(ways)
    return np.asarray(total)


def blank(task: str, classes: int = 2, seed: int = 0, **changes: Any) -> Model:
    """Return random weights; `changes` are fields of `UNetSpec`."""
    names = ("background", "cell", "border")[:classes]
    outputs = len(OBJECT_MAPS) if task == "objects" else classes
    return new_model(ModelCard("blank", task, UNetSpec(out_channels=outputs, **changes), names), seed)  # type: ignore[arg-type]


@cache
def nuclei() -> Model:
    """Return the shipped model."""
    return Library().load("nuclei")


def grey(image: Array) -> Array:
    """Return the grey values that ours and its peers learn from, normalised by the whole image."""
    return normalised(image, nuclei().card)[0]


def chosen(maps: Sequence[Array], truths: Sequence[Array]) -> ObjectSettings:
    """Return the thresholds with the best mean AP (IoU 0.5 to 0.8) on images that were trained on."""
    grid = [ObjectSettings(f, s, 30) for f, s in itertools.product(FOREGROUNDS, SEEDS)]

    def mean(thresholds: ObjectSettings) -> float:
        found = [labels_from_maps(m, thresholds) for m in maps]
        scores = [average_precision(f, t, (0.5, 0.6, 0.7, 0.8)) for f, t in zip(found, truths, strict=True)]
        return float(np.mean([list(s.values()) for s in scores]))

    return max(grid, key=mean)


# --- the paper's recipe -----------------------------------------------------------------------------------------------


def border_weights(labels: Array) -> Array:
    """Return how much each pixel counts (2015, equation 2): classes balanced, and more where two cells are near.

    The second term is for background alone, which it is there to keep open.
    """
    inside = labels > 0
    near = np.full((2, *labels.shape), np.inf)
    reach = 4 * SIGMA
    for label, box in enumerate(ndimage.find_objects(np.maximum(labels, 0)), start=1):
        if box is None:
            continue
        around = tuple(slice(max(0, s.start - reach), s.stop + reach) for s in box)
        distance = ndimage.distance_transform_edt(labels[around] != label)
        both = np.concatenate([near[(slice(None), *around)], distance[None]])
        near[(slice(None), *around)] = np.sort(both, axis=0)[:2]
    balance = np.where(inside, 0.5 / max(inside.mean(), 1e-6), 0.5 / max(1 - inside.mean(), 1e-6))
    return np.asarray(balance + ~inside * W0 * np.exp(-(near.sum(axis=0) ** 2) / (2 * SIGMA**2)))


def parted(labels: Array) -> Array:
    """Return objects with background between those that touch, a pixel off each."""
    highest = ndimage.maximum_filter(labels, size=3)
    lowest = ndimage.minimum_filter(np.where(labels > 0, labels, np.iinfo(labels.dtype).max), size=3)
    return np.where(lowest < highest, 0, labels)


class PaperTiles:
    """Batches of one bent, mirrored tile; targets and weights are those of the middle, which the network answers for."""

    def __init__(self, pairs: Iterable[Pair], card: ModelCard, settings: TrainSettings) -> None:
        self._settings, self._rng = settings, np.random.default_rng(settings.seed)
        self._stacks = []
        for image, labels in pairs:
            apart = parted(labels)
            target, _ = targets_of(card, (apart > 0).astype(np.int32) + 1)
            weight = np.where(labels < 0, 0, border_weights(apart))
            self._stacks.append(np.concatenate([normalised(image, card), target, weight[None]]).astype(np.float16))

    def batch(self, network: UNet) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels ``(1, 1, TILE, TILE)``, targets and weights of the pixels that are left of them."""
        rng = self._rng
        stack = self._stacks[rng.integers(len(self._stacks))]
        center = tuple(int(rng.integers(n)) for n in stack.shape[1:])
        pixels, rest = augment.patch(stack, 1, center, (TILE, TILE), self._settings.augment, rng)
        rim = slice(92, TILE - 92)
        target, weight = rest[:, rim, rim].split((len(rest) - 1, 1))
        return augment.intensities(pixels, self._settings.augment, rng)[None], target[None], weight[None]


def weighted_entropy(card: ModelCard, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of 2015, equation 1."""
    return (F.cross_entropy(logits, target.argmax(1), reduction="none") * weight[:, 0]).sum() / weight.sum()


def as_in_2015(pairs: list[Pair], settings: TrainSettings) -> Model:
    """Return the paper's network, with 16 channels in place of 64, taught with its recipe."""
    model = blank("semantic", padding="valid", norm="none", dropout=0.5, seed=settings.seed)
    settings = replace(settings, validate_every=settings.steps)
    return last(
        optimise(model, PaperTiles(pairs, model.card, settings), settings, lambda _: None, loss_of=weighted_entropy)
    )


# --- isbi -------------------------------------------------------------------------------------------------------------


AT_EACH, ONE = "V_Rand at each t", "V_Rand, one t for all parts"


@cache
def slices(data: Path) -> list[Pair]:
    """Return the slices of ISBI 2012 with their cells numbered, each slice by itself."""
    return [
        (image, ndimage.label(mask > 0)[0].astype(np.int32)) for _, image, mask in manifest_pairs(data / "isbi2012_em")
    ]


def fold(pairs: list[Pair], number: int, of: int = FOLDS) -> tuple[list[Pair], list[Pair]]:
    """Return what is trained on, and a contiguous part that judges."""
    size = len(pairs) // of
    judges = slice(number * size, len(pairs) if number == of - 1 else (number + 1) * size)
    return pairs[: judges.start] + pairs[judges.stop :], pairs[judges]


def membranes(train: list[Pair], test: list[Pair], interior: Callable[[Array], Array]) -> Scores:
    """Return the scores of a method that gives the probability of a cell's interior."""

    def at_each(pairs: list[Pair]) -> Array:
        scores = [after_thinning(interior(image), labels > 0) for image, labels in pairs]
        return np.array([[[s[t][0].f, s[t][1].f] for t in TENTHS] for s in scores]).mean(axis=0)

    known, found = at_each(train[::4]), at_each(test)
    return {
        "V_Rand": found[:, 0].max(),
        "V_Info": found[:, 1].max(),
        "V_Rand, t of trained": found[known[:, 0].argmax(), 0],
        AT_EACH: found[:, 0].tolist(),
    }


def classes(pairs: list[Pair]) -> list[Pair]:
    """Return the pairs with what is inside of any cell as one class."""
    return [(image, (labels > 0).astype(np.int32)) for image, labels in pairs]


@cache
def taught_membranes(data: Path, number: int, settings: TrainSettings) -> tuple[Model, float]:
    """Return what a fold taught `nuclei`, and the CPU seconds that it took."""
    start = start_model("cells", "semantic", ("membrane", "cell"), 2, 1, nuclei())
    began = time.process_time()
    return learned(start, classes(fold(slices(data), number)[0]), settings), time.process_time() - began


def membranes_ours(data: Path, number: int, settings: TrainSettings) -> Scores:
    model, _ = taught_membranes(data, number, settings)
    return membranes(*fold(slices(data), number), lambda image: chances(model, image)[1])


def membranes_monai(data: Path, number: int, settings: TrainSettings) -> Scores:
    """From random weights, for as much CPU time."""
    train, test = ([(grey(image), labels) for image, labels in part] for part in fold(slices(data), number))
    answer, steps = monai_unet(classes(train), 2, taught_membranes(data, number, settings)[1], 128, settings.seed)
    return {**membranes(train, test, lambda image: answer(image)[1]), "steps": steps}


def membranes_as_in_2015(data: Path, number: int, settings: TrainSettings) -> Scores:
    train, test = fold(slices(data), number)
    model = as_in_2015(train, settings)
    return membranes(train, test, lambda image: chances(model, image)[1])


def membranes_forest(data: Path, number: int, settings: TrainSettings) -> Scores:
    """A random forest on scikit-image's features, from 4000 pixels of each slice."""
    from sklearn.ensemble import RandomForestClassifier

    train, test = fold(slices(data), number)
    rng = np.random.default_rng(settings.seed)

    def features(image: Array) -> Array:
        return np.asarray(multiscale_basic_features(image, sigma_max=16)).reshape(image.size, -1)

    x, y = [], []
    for image, labels in train:
        some = rng.choice(image.size, 4000, replace=False)
        x.append(features(image)[some])
        y.append(labels.ravel()[some] > 0)
    forest = RandomForestClassifier(50, min_samples_leaf=3, random_state=settings.seed, n_jobs=1)
    forest.fit(np.concatenate(x), np.concatenate(y))
    return membranes(
        train, test, lambda image: forest.predict_proba(features(image))[:, 1].reshape(image.shape).astype(np.float32)
    )


def isbi(data: Path, settings: TrainSettings) -> Iterator[Run]:
    """Yield the runs of the table of membranes."""
    for number in range(FOLDS):
        for method, work, how in (
            ("ours, from nuclei", membranes_ours, settings),
            ("ours, statistics kept", membranes_ours, kept(settings)),
            ("MONAI's U-Net", membranes_monai, settings),
            ("the paper's recipe", membranes_as_in_2015, as_paper(settings)),
            ("random forest", membranes_forest, settings),
        ):
            yield Run("isbi", "ISBI 2012", method, str(number), partial(work, data, number, how))


def kept(settings: TrainSettings) -> TrainSettings:
    """Return the settings with BatchNorm's statistics measured once, before the first step, as in the app."""
    return replace(settings, frozen_statistics=True)


def as_paper(settings: TrainSettings) -> TrainSettings:
    """Return the paper's recipe with the steps and seed that were asked for."""
    return replace(PAPER, steps=settings.steps, seed=settings.seed)


# --- ctc --------------------------------------------------------------------------------------------------------------


RIM = 50
"""Objects wholly inside this rim of a frame, in pixels, are not judged: the challenge's rule for these two sets."""


@cache
def frames(data: Path, name: str) -> list[Pair]:
    """Return the annotated frames of a movie, in their order; in the rim of U373 not every cell is annotated."""
    found = []
    for _, image, mask in manifest_pairs(data / f"ctc_{name}"):
        labels = mask.astype(np.int32)
        if name == "PhC-C2DH-U373":
            labels[in_rim(labels.shape) & (labels == 0)] = -1
        found.append((image, labels))
    return found


def in_rim(shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where the rim is."""
    rim = np.ones(shape, dtype=bool)
    rim[(slice(RIM, -RIM),) * len(shape)] = False
    return rim


def judged(labels: Array) -> Array:
    """Return the objects that are judged, without what is not known."""
    inside = np.unique(labels[~in_rim(labels.shape)])
    return np.where(np.isin(labels, inside[inside > 0]), labels, 0)


def binned(pair: Pair) -> Pair:
    """Return an image and its truth with 2 x 2 pixels made one."""
    image = downscale_local_mean(pair[0].astype(np.float32), (2, 2))
    labels = pair[1][1::2, 1::2]
    return image[: labels.shape[0], : labels.shape[1]], labels


def cells(test: list[Pair], answer: Callable[[Array], Array]) -> Scores:
    """Return mean IoU of foreground over the frames, and SEG over the objects of all frames."""
    found = [judged(answer(image)) for image, _ in test]
    truths = [judged(labels) for _, labels in test]
    ious = [((f > 0) & (t > 0)).sum() / ((f > 0) | (t > 0)).sum() for f, t in zip(found, truths, strict=True)]
    return {"IoU": float(np.mean(ious)), "SEG": seg(numbered(found), numbered(truths))}


def numbered(frames: Sequence[Array]) -> Array:
    """Return frames as a stack in which no object of one has the number of one of another."""
    above = np.cumsum([0, *(int(f.max()) for f in frames)])
    return np.stack([np.where(f > 0, f + a, 0) for f, a in zip(frames, above[:-1], strict=True)])


@cache
def taught_cells(data: Path, name: str, number: int, settings: TrainSettings, half: bool) -> tuple[Model, float]:
    """Return what one half of the frames taught `nuclei`, and the CPU seconds that it took."""
    train, _ = fold(frames(data, name), number, 2)
    start = start_model("cells", "objects", ("background", "cell"), 2, 1, nuclei())
    shown, how = (map(binned, train), settings) if half else (train, replace(settings, batch=2, patch=192))
    began = time.process_time()
    return learned(start, shown, how), time.process_time() - began


def cells_ours(data: Path, name: str, number: int, settings: TrainSettings, half: bool = False) -> Scores:
    """Objects; at half the resolution the maps are brought back to all pixels."""
    train, test = fold(frames(data, name), number, 2)
    model, _ = taught_cells(data, name, number, settings, half)

    def maps(image: Array) -> Array:
        if not half:
            return chances(model, image)
        return np.stack([resize(m, image.shape, order=1) for m in chances(model, binned((image, image))[0])])

    thresholds = chosen([maps(image) for image, _ in train], [np.maximum(labels, 0) for _, labels in train])
    return cells(test, lambda image: labels_from_maps(maps(image), thresholds))


def cells_monai(data: Path, name: str, number: int, settings: TrainSettings) -> Scores:
    """From random weights, for as much CPU time; the rim is cut off where it is not annotated, as its loss knows no gaps."""
    train, test = fold(frames(data, name), number, 2)
    rim = slice(RIM, -RIM) if any((labels < 0).any() for _, labels in train) else slice(None)
    shown = [(grey(image)[rim, rim], three_classes(labels[rim, rim])) for image, labels in train]
    _, cpu_s = taught_cells(data, name, number, settings, False)
    answer, steps = monai_unet(shown, 3, cpu_s, 192, settings.seed)
    return {**cells(test, lambda image: from_three_classes(answer(grey(image)))), "steps": steps}


def cells_as_in_2015(data: Path, name: str, number: int, settings: TrainSettings) -> Scores:
    """Cells parted by background, each connected component one."""
    train, test = fold(frames(data, name), number, 2)
    model = as_in_2015(train, settings)
    return cells(test, lambda image: ndimage.label(chances(model, image)[1] > 0.5)[0])


def cells_otsu(data: Path, name: str, number: int, settings: TrainSettings) -> Scores:
    _, test = fold(frames(data, name), number, 2)
    return cells(test, lambda image: otsu_watershed(image.astype(float)))


def ctc(data: Path, settings: TrainSettings) -> Iterator[Run]:
    """Yield the runs of the table of the cell tracking challenge."""
    for number, name in itertools.product(range(2), ("PhC-C2DH-U373", "DIC-C2DH-HeLa")):
        for method, work, how in (
            ("ours, from nuclei", cells_ours, settings),
            ("ours, statistics kept", cells_ours, kept(settings)),
            ("ours, half resolution", partial(cells_ours, half=True), settings),
            ("MONAI's U-Net", cells_monai, settings),
            ("the paper's recipe", cells_as_in_2015, as_paper(settings)),
            ("Otsu + watershed", cells_otsu, settings),
        ):
            yield Run("ctc", name, method, str(number), partial(work, data, name, number, how))


# --- crops ------------------------------------------------------------------------------------------------------------

CROP, DRAWS = 128, 3


@cache
def fluorescence(data: Path) -> tuple[list[Pair], list[Pair]]:
    """Return the fluorescence images of dsb2018 that `nuclei` learned from, and every second that was held out."""
    folder, known = data / "dsb2018", []
    for entry in json.loads((LEDGERS / "nuclei_ledger.json").read_text())["images"]:
        if entry["stain"] == "fluo" and not entry["held_out"]:
            image = imread(folder / entry["image"])
            known.append((grey_of(image), imread(folder / entry["image"].replace("img_", "mask_")).astype(np.int32)))
    unknown = held_out("nuclei_ledger.json", folder, lambda e: e["stain"] == "fluo")
    return known, [(grey_of(image), labels) for image, labels in itertools.islice(unknown, 0, None, 2)]


def crops_of(pairs: list[Pair], count: int, seed: int) -> list[Pair]:
    """Return crops of CROP pixels from as many images, each with an object in its middle part."""
    rng, found = np.random.default_rng(seed), []
    for i in rng.permutation(len(pairs)):
        image, labels = pairs[i]
        if min(image.shape) < CROP or not labels.any():
            continue
        place = rng.permutation(np.argwhere(labels))[0] - CROP // 2
        y, x = np.clip(place, 0, np.array(image.shape) - CROP)
        part = (slice(y, y + CROP), slice(x, x + CROP))
        found.append((grey(image)[part], labels[part]))
        if len(found) == count:
            return found
    sys.exit(f"There are only {len(found)} images to cut {count} crops from: give the whole of dsb2018.")


def annotated(crops: list[Pair]) -> list[Annotation]:
    """Return crops, which are normalised already, as what is learned from."""
    return [Annotation(image[None], labels.astype(np.int32) + 1) for image, labels in crops]


def precision(test: list[Pair], answer: Callable[[Array], Array]) -> Scores:
    """Return AP at an IoU of 0.5, 0.7 and 0.9 for each image, then the mean over images."""
    scores = [average_precision(answer(image), labels, (0.5, 0.7, 0.9)) for image, labels in test]
    return {f"AP@{t:g}": float(np.mean([s[t] for s in scores])) for t in (0.5, 0.7, 0.9)}


@cache
def taught_few(data: Path, count: int, settings: TrainSettings) -> tuple[list[Pair], Model, float]:
    """Return the crops, what they taught random weights, and the CPU seconds that it took."""
    crops = crops_of(fluorescence(data)[0], count, settings.seed)
    began = time.process_time()
    model = taught(blank("objects", seed=settings.seed), annotated(crops), settings)
    return crops, model, time.process_time() - began


def few_crops(data: Path, count: int, settings: TrainSettings) -> Scores:
    crops, model, _ = taught_few(data, count, settings)
    thresholds = chosen_on_crops(model, crops)
    return precision(fluorescence(data)[1], lambda image: labels_from_maps(chances(model, image), thresholds))


def few_crops_monai(data: Path, count: int, settings: TrainSettings) -> Scores:
    """Inside, border and background, since its U-Net tells classes and not objects."""
    crops, _, cpu_s = taught_few(data, count, settings)
    shown = [(image, three_classes(labels)) for image, labels in crops]
    answer, steps = monai_unet(shown, 3, cpu_s, 96, settings.seed)
    scores = precision(fluorescence(data)[1], lambda image: from_three_classes(answer(grey(image))))
    return {**scores, "steps": steps}


def few_crops_stardist(data: Path, count: int, python: str, settings: TrainSettings) -> Scores:
    crops, _, cpu_s = taught_few(data, count, settings)
    unknown = fluorescence(data)[1]
    found, steps = stardist(crops, [grey(image) for image, _ in unknown], cpu_s, python, settings.seed)
    answers = iter(found)
    return {**precision(unknown, lambda _: next(answers)), "steps": steps}


def chosen_on_crops(model: Model, crops: list[Pair]) -> ObjectSettings:
    """Return thresholds from at most 30 of the crops."""
    crops = crops[:30]
    return chosen([chances(model, image) for image, _ in crops], [labels for _, labels in crops])


def nuclei_otsu(data: Path) -> Scores:
    return precision(fluorescence(data)[1], otsu_watershed)


def crops(data: Path, settings: TrainSettings, python: str = "") -> Iterator[Run]:
    """Yield the runs of the curve of few labels; each draw has its own random weights, too."""
    methods = {"ours": few_crops, "MONAI's U-Net": few_crops_monai}
    if python:
        methods["StarDist"] = partial(few_crops_stardist, python=python)
    for count, draw in itertools.product((10, 38, 152), range(DRAWS)):
        how = replace(settings, seed=settings.seed + draw)
        for method, work in methods.items():
            name = f"{count} crops, {method}"
            yield Run("crops", "dsb2018 fluorescence", name, str(draw), partial(work, data, count, settings=how))
    yield Run("crops", "dsb2018 fluorescence", "Otsu + watershed", "0", partial(nuclei_otsu, data))


# --- volumes ----------------------------------------------------------------------------------------------------------

VOLUMES = ("plant_nuclei_3d", "lightsheet_nuclei_3d", "cells3d_nuclei_3d")


@cache
def volume(data: Path, name: str) -> tuple[Pair, Pair]:
    """Return the left and the right half of a volume."""
    ((_, image, mask),) = itertools.islice(manifest_pairs(data / name), 1)
    half = image.shape[-1] // 2
    labels = mask.astype(np.int32)
    return (image[..., :half], labels[..., :half]), (image[..., half:], labels[..., half:])


def inflated() -> Model:
    """Return `nuclei` as a 3D model that begins as the 2D one on each slice."""
    kernels = tuple((3 if level in (1, 2) else 1, 3, 3) for level in range(len(nuclei().card.unet.channels)))
    return in_3d(nuclei(), kernels=kernels)


def volume_scores(data: Path, name: str, start: Model, settings: TrainSettings | None) -> Scores:
    """Return the scores on the right half of a start taught with the left half; without settings it is not taught."""
    train, test = volume(data, name)
    model = learned(start, [train], replace(settings, batch=2, patch=96)) if settings else start
    thresholds = chosen([chances(model, train[0])], [train[1]])
    return precision([test], lambda image: labels_from_maps(chances(model, image), thresholds))


def volume_otsu(data: Path, name: str) -> Scores:
    return precision([volume(data, name)[1]], lambda image: otsu_watershed(image.astype(float)))


def volumes(data: Path, settings: TrainSettings) -> Iterator[Run]:
    """Yield the runs of the table of volumes."""
    for name in VOLUMES:
        random = new_model(inflated().card, settings.seed)
        for method, start, how in (
            ("from nuclei", inflated(), settings),
            ("from nuclei, statistics kept", inflated(), kept(settings)),
            ("from random weights", random, settings),
            ("nuclei on each slice, not taught", inflated(), None),
        ):
            yield Run("volumes", name, method, "0", partial(volume_scores, data, name, start, how))
        yield Run("volumes", name, "Otsu + watershed", "0", partial(volume_otsu, data, name))


# --- ablations --------------------------------------------------------------------------------------------------------

FLIPS = "flips at test time"


@dataclass(frozen=True, slots=True)
class Change:
    """What is done otherwise."""

    norm: Literal["batch", "none"] = "batch"
    base: int = 16
    elastic: float = AugmentSettings().elastic
    dice: bool = True
    border: bool = False
    """Three classes, the third the border, in place of distance and border maps."""


USUAL = Change()
CHANGES = {
    "as it is": USUAL,
    FLIPS: USUAL,
    "no elastic deformation": Change(elastic=0),
    "no Dice in the loss": Change(dice=False),
    "no norm": Change(norm="none"),
    "border class, no distance": Change(border=True),
    "32 channels": Change(base=32),
}
CROPS = 152
"""Crops of nuclei that the ablations learn from."""


def entropy_alone(card: ModelCard, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the app's loss without Dice."""
    if card.task == "objects":
        maps = zip(logits.unbind(1), target.unbind(1), weight.unbind(1), strict=True)
        total = logits.sum() * 0
        for z, y, w in maps:
            entropy = F.binary_cross_entropy_with_logits(z, y, reduction="none")
            total = total + balanced(entropy.flatten(), w.flatten(), (y > 0).long().flatten(), 2)
        return total
    kinds = target.argmax(1)
    entropy = F.cross_entropy(logits, kinds, reduction="none")
    return balanced(entropy.flatten(), weight[:, 0].flatten(), kinds.flatten(), target.shape[1])


def changed(change: Change, task: str, annotations: Sequence[Annotation], settings: TrainSettings) -> Model:
    """Return random weights taught with one change."""
    settings = replace(settings, augment=replace(settings.augment, elastic=change.elastic))
    channels = tuple(change.base << level for level in range(5))
    model = blank(task, 3 if change.border else 2, settings.seed, norm=change.norm, channels=channels)
    if change.dice:
        return taught(model, annotations, settings)
    settings = replace(settings, validate_every=settings.steps)
    sampler = Sampler(TrainingSet(tuple(annotations)), model.card, settings)
    return last(optimise(model, sampler, settings, lambda _: None, loss_of=entropy_alone))


def three_classes(labels: Array) -> Array:
    """Return 0 background, 1 inside, 2 border: an object's pixels that touch another label."""
    edge = (ndimage.maximum_filter(labels, 3) != labels) | (ndimage.minimum_filter(labels, 3) != labels)
    return np.where(labels == 0, 0, np.where(edge, 2, 1))


def from_three_classes(maps: Array) -> Array:
    """Return objects: connected insides, grown over the border."""
    best = maps.argmax(0)
    return np.asarray(watershed(-maps[1], ndimage.label(best == 1)[0], mask=best > 0))


@cache
def changed_for_membranes(data: Path, change: Change, settings: TrainSettings) -> Model:
    train, _ = fold(slices(data), 0)
    card = blank("semantic").card
    shown = [Annotation(normalised(image, card), labels + 1) for image, labels in classes(train)]
    return changed(change, "semantic", shown, settings)


def ablated_membranes(data: Path, name: str, settings: TrainSettings) -> Scores:
    model = changed_for_membranes(data, CHANGES[name], settings)
    return membranes(*fold(slices(data), 0), lambda image: chances(model, image, name == FLIPS)[1])


@cache
def changed_for_nuclei(data: Path, change: Change, settings: TrainSettings) -> Model:
    crops = crops_of(fluorescence(data)[0], CROPS, settings.seed)
    truths = [three_classes(labels) if change.border else labels for _, labels in crops]
    shown = annotated([(image, truth) for (image, _), truth in zip(crops, truths, strict=True)])
    return changed(change, "semantic" if change.border else "objects", shown, settings)


def ablated_nuclei(data: Path, name: str, settings: TrainSettings) -> Scores:
    known, unknown = fluorescence(data)
    model, test = changed_for_nuclei(data, CHANGES[name], settings), unknown
    if CHANGES[name].border:
        return precision(test, lambda image: from_three_classes(chances(model, image)))
    thresholds = chosen_on_crops(model, crops_of(known, CROPS, settings.seed))
    return precision(test, lambda image: labels_from_maps(chances(model, image, name == FLIPS), thresholds))


def ablations(data: Path, settings: TrainSettings) -> Iterator[Run]:
    """Yield the runs of the ablations."""
    for name, change in CHANGES.items():
        yield Run("ablations", "dsb2018, 152 crops", name, "0", partial(ablated_nuclei, data, name, settings))
        if not change.border:
            yield Run("ablations", "ISBI 2012, fold 0", name, "0", partial(ablated_membranes, data, name, settings))


# --- the program ------------------------------------------------------------------------------------------------------

TABLES: dict[str, Callable[[Path, TrainSettings], Iterator[Run]]] = {
    "ctc": ctc,
    "isbi": isbi,
    "volumes": volumes,
    "crops": crops,
    "ablations": ablations,
}


def lines(results: dict[str, Scores], table: str) -> Iterator[str]:
    """Yield a table, or one for each kind of scores: a line for each method, mean and standard deviation over its parts."""
    rows: dict[tuple[str, str], list[Scores]] = {}
    for name, scores in results.items():
        of, images, method, _ = name.split("/")
        if of == table:
            rows.setdefault((images, method), []).append(scores)
    titles: list[str] = []
    for (images, method), parts in sorted(rows.items()):
        shown = [k for k, v in parts[0].items() if isinstance(v, float) and k != "seconds"]
        values = [mean_and_spread([p[k] for p in parts]) for k in shown]
        if AT_EACH in parts[0]:
            shown.append(ONE)
            values.append(f"{np.mean([p[AT_EACH] for p in parts], axis=0).max():.3f}")
        if shown != titles:
            titles = shown
            yield "\n| images | method | parts | steps | " + " | ".join(shown) + " | CPU s |"
            yield "|---|---|" + "---:|" * (len(shown) + 3)
        seconds = np.mean([p["seconds"] for p in parts])
        yield f"| {images} | {method} | {len(parts)} | {parts[0]['steps']} | {' | '.join(values)} | {seconds:.0f} |"


def mean_and_spread(values: Sequence[float]) -> str:
    """Return the mean, and the standard deviation where there are several."""
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def main() -> None:
    """Train, score, print; after each run write what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="runs whose name holds this text")
    parser.add_argument(
        "--stardist", default="", metavar="PYTHON", help="a Python with StarDist, to train it beside us"
    )
    parser.add_argument("--json", type=Path, help="results so far are read from here, all are written here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = replace(DENSE, steps=options.steps, seed=options.seed)
    tables = TABLES | {"crops": partial(crops, python=options.stardist)}
    results: dict[str, Scores] = {}
    if options.json and options.json.exists():
        results = json.loads(options.json.read_text())
    for table in options.tables:
        for run in tables[table](options.data, settings):
            if run.name in results or options.only not in run.name:
                continue
            began = time.process_time()
            try:
                scores = run.work()
            except FileNotFoundError as error:
                sys.exit(f"There is no {error.filename}: give the folder of the image sets, or fewer --tables.")
            spent = time.process_time() - began
            results[run.name] = {"steps": options.steps, "seed": options.seed, **scores, "seconds": spent}
            told = ", ".join(f"{k} {v:.3f}" for k, v in scores.items() if isinstance(v, float))
            print(f"{run.name}: {told} ({results[run.name]['seconds']:.0f} CPU s)", flush=True)
            if options.json:
                options.json.write_text(json.dumps(results, indent=1))
    for table in options.tables:
        print("\n".join(lines(results, table)))


if __name__ == "__main__":
    main()
