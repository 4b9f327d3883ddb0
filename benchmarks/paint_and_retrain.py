"""What does a stroke buy? A simulated user paints, the U-Net learns, the user corrects; peers learn from the same strokes.

    python -m benchmarks paint_and_retrain DATA [--seeds 3] [--strokes 24] [--json OUT] [--sets NAME ...]

DATA holds the public image sets (see `SETS`). Two images of each set are painted (crops), two or three others judge.
The user (`painter.py`) makes 8 strokes, then 4 a round on what is wrong in the prediction shown. Every round is one press
of Train, from the model shown; what the gate rejects is not shown. Where the gate cannot judge, the user looks: the
new model is taken if its Dice on the two painted images is higher.

Beside us, on the same strokes in the same run:

- a random forest on scikit-image's multiscale features (the ilastik and Labkit way), held-out strokes included;
- the same U-Net, steps and gate with RootPainter's loss as its code computes it (written anew);
- the U-Net trained on every pixel of the same two images, with as many steps as all rounds together (one seed).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import multiscale_basic_features
from skimage.io import imread
from skimage.transform import downscale_local_mean
from torch import Tensor
from torch.nn import functional as F

from benchmarks.painter import Painter, Stroke, annotation
from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.card import ModelCard
from napari_unet.engine.execution import Executor
from napari_unet.engine.gate import Verdict, held_out_score, judge
from napari_unet.engine.image import LUMINANCE, cut
from napari_unet.engine.library import Library
from napari_unet.engine.metrics import average_precision, dice
from napari_unet.engine.model import Model, load_model_file
from napari_unet.engine.objects import labels_from_maps
from napari_unet.engine.replay import load_replay
from napari_unet.engine.settings import TrainSettings
from napari_unet.engine.tiling import canvas
from napari_unet.engine.training import Sampler, Trained, optimise, way_of_statistics
from napari_unet.engine.transfer import in_3d, semantic_from

REPOSITORY = Path(__file__).parent.parent
EDGE = 320
"""Images are cut to this, in pixels."""
WHOLE = 1 << 16
"""No image is cut to this."""
FIRST, THEN = 8, 4
"""Strokes before the first round, and before each other one."""
PEERS = ("forest", "rootpainter")
FLIPPED = 0.3
"""Part of the strokes that lie in the test of the gate."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """Images to paint and images that judge, each with its truth (0 background; classes or objects)."""

    kind: str
    painted: list[tuple[Array, Array]]
    unpainted: list[tuple[Array, Array]]
    objects: bool = False
    whole: Array | None = None
    """The image that all of them were cut from and that the app would scale by its percentiles; None: each its own."""

    @property
    def dims(self) -> int:
        return self.painted[0][0].ndim


# --- the sets ---------------------------------------------------------------------------------------------------------


def read(
    folder: Path, number: int, edge: int = EDGE, corner: tuple[int, int] | None = None, binned: int = 1
) -> tuple[Array, Array]:
    """Return the middle (or what starts at `corner`) of an image, and its truth, `binned` pixels a side made one."""
    image, mask = (imread(folder / "dev" / f"{what}_{number:03d}.png") for what in ("img", "mask"))
    if image.ndim == 3:
        image = image[..., :3].astype(np.float32) @ LUMINANCE
    if binned > 1:
        image = downscale_local_mean(image, (binned, binned))
        mask = mask[binned // 2 :: binned, binned // 2 :: binned]
        image = image[: mask.shape[0], : mask.shape[1]]
    y, x = corner or tuple(max(0, (n - edge) // 2) for n in image.shape)
    part = (slice(y, y + edge), slice(x, x + edge))
    return image[part], mask[part].astype(np.int32)


def foreground(pair: tuple[Array, Array]) -> tuple[Array, Array]:
    return pair[0], (pair[1] > 0).astype(np.int32)


def fields(
    folder: str, kind: str, painted: Sequence[int], unpainted: Sequence[int], binned: int = 1
) -> Callable[[Path], Task]:
    """Return a reader of a foreground-background task on 2D images."""

    def task(data: Path) -> Task:
        return Task(
            kind,
            [foreground(read(data / folder, i, binned=binned)) for i in painted],
            [foreground(read(data / folder, i, binned=binned)) for i in unpainted],
        )

    return task


def crowded_nuclei(data: Path) -> Task:
    """Two frames of Fluo-N2DL-HeLa: their left parts are painted, their right parts judge."""
    folder = data / "ctc_Fluo-N2DL-HeLa"
    left, right = ([read(folder, i, corner=(y, x)) for i, y in ((0, 60), (1, 320))] for x in (60, 720))
    return Task("fluorescence nuclei, objects; unseen", left, right, objects=True)


def volume(
    folder: str, kind: str, painted: Sequence[tuple[int, int]], unpainted: Sequence[tuple[int, int]]
) -> Callable[[Path], Task]:
    """Return a reader of a foreground-background task on blocks of one volume, each given by its first z and x."""

    def task(data: Path) -> Task:
        image, mask = (imread(data / folder / "dev" / f"{what}_000.tif") for what in ("img", "mask"))

        def blocks(corners: Sequence[tuple[int, int]]) -> list[tuple[Array, Array]]:
            parts = [(slice(z, z + 16), slice(2, 98), slice(x, x + 96)) for z, x in corners]
            return [foreground((image[p], mask[p].astype(np.int32))) for p in parts]

        return Task(kind, blocks(painted), blocks(unpainted), whole=image)

    return task


SETS: dict[str, Callable[[Path], Task]] = {
    "usiigaci_phc": fields("usiigaci_phc", "phase contrast, binned 2 x 2; unseen", (0, 6), (11, 14, 18), 2),
    "isbi2012_em": fields("isbi2012_em", "EM membranes; unseen", (0, 3), (12, 15, 18)),
    "DIC-C2DH-HeLa": fields("ctc_DIC-C2DH-HeLa", "DIC, binned 2 x 2; unseen", (0, 1), (3, 5, 7), 2),
    "Fluo-N2DL-HeLa": crowded_nuclei,
    "plant_nuclei_3d": volume("plant_nuclei_3d", "confocal nuclei, 3D; unseen", ((8, 0), (28, 4)), ((60, 0), (80, 4))),
    "lightsheet_nuclei_3d": volume(
        "lightsheet_nuclei_3d", "light-sheet nuclei, 3D; unseen", ((20, 0), (50, 60)), ((100, 4), (130, 60))
    ),
}


def parents_own(data: Path) -> list[tuple[Array, Array]]:
    """Return whole images that were held out from `nuclei`, one of each group that looks alike."""
    entries = json.loads((REPOSITORY / "training" / "nuclei_ledger.json").read_text())["images"]
    chosen: dict[int, str] = {}
    for entry in entries:
        if entry["held_out"]:
            chosen.setdefault(entry["group"], entry["image"])
    numbers = [int(name[-7:-4]) for name in chosen.values()]
    return [foreground(read(data / "dsb2018", number, WHOLE)) for number in numbers]


# --- models -----------------------------------------------------------------------------------------------------------


def normalised(image: Array, card: ModelCard, whole: Array | None = None) -> NDArray[np.float32]:
    """Return ``(1, *spatial)``, scaled as inference does, of the `whole` image if it is a part of one."""
    low, high = np.percentile(image if whole is None else whole, card.percentiles)
    return ((image.astype(np.float32) - low) / max(high - low, 1e-6)).clip(-1, 4)[None].astype(np.float32)


def start_model(parent: Model, task: Task) -> Model:
    """Return the shipped model, changed to the task."""
    model = parent if task.objects else semantic_from(parent)
    if task.dims == 2:
        return model
    levels = len(model.card.spec.channels)
    kernels = tuple((3 if level in (1, 2) else 1, 3, 3) for level in range(levels))
    return in_3d(model, kernels=kernels)


class Predictor:
    """A model at work on small images: computed in one pass."""

    def __init__(self, model: Model, whole: Array | None = None) -> None:
        self._card, self._executor, self._whole = model.card, Executor(model.network, "cpu"), whole

    def __call__(self, image: Array) -> NDArray[np.integer]:
        """Return labels: classes, or objects."""
        pixels = normalised(image, self._card, self._whole)
        end = canvas(self._card.spec, image.shape)
        logits = self._executor(cut(pixels, (0,) * image.ndim, end)[None])[0]
        logits = logits[(slice(None), *(slice(0, n) for n in image.shape))]
        if self._card.task == "objects":
            return labels_from_maps(1 / (1 + np.exp(-logits.clip(-60, 60))), self._card.objects)
        return logits.argmax(0)


def score(guesses: Sequence[Array], pairs: Sequence[tuple[Array, Array]], objects: bool) -> tuple[float, float | None]:
    """Return mean Dice over images, and mean AP at IoU 0.5 for objects."""
    mean = statistics.mean(dice(g, t) for g, (_, t) in zip(guesses, pairs, strict=True))
    if not objects:
        return mean, None
    return mean, statistics.mean(average_precision(g, t, (0.5,))[0.5] for g, (_, t) in zip(guesses, pairs, strict=True))


def rootpainter_loss(card: ModelCard, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """RootPainter's loss: Dice plus 0.3 times cross-entropy over every pixel, the logits of unlabelled ones set to 0.

    So their softmax of 0.5 enters Dice's denominator, and few labelled pixels drown in the mean.
    """
    labelled = (weight[:, :1] > 0).float()
    if card.task == "objects":  # its U-Net has two classes; ours are the two sides of each map
        total = logits.sum() * 0
        for i in range(logits.shape[1]):
            known = (weight[:, i] > 0).float()
            z, y = logits[:, i] * known, target[:, i] * known
            p = z.sigmoid()
            total = total + 1 - 2 * (p * y).sum() / (p.sum() + y.sum()).clamp(min=1e-6)
            total = total + 0.3 * F.binary_cross_entropy_with_logits(z, y)
        return total
    z, y = logits * labelled, target[:, 1] * labelled[:, 0]
    p = z.softmax(1)[:, 1]
    overlap = 1 - 2 * (p * y).sum() / (p.sum() + y.sum()).clamp(min=1e-6)
    return overlap + 0.3 * F.cross_entropy(z, y.long())


class Forest:
    """Pixel classification: a random forest on a scale space of intensity, edges and texture."""

    def __init__(self, task: Task, seed: int) -> None:
        from sklearn.ensemble import RandomForestClassifier

        began = time.process_time()
        self._objects = task.objects
        self._painted, self._unpainted = (
            [
                np.asarray(multiscale_basic_features(i.astype(np.float32), sigma_max=8 if task.dims == 3 else 16))
                for i, _ in p
            ]
            for p in (task.painted, task.unpainted)
        )
        self._forest = RandomForestClassifier(n_estimators=100, random_state=seed, n_jobs=1)
        self.seconds = time.process_time() - began

    def learn(self, labels: Sequence[Array]) -> list[Array]:
        """Fit to strokes and return the labels of the unpainted images."""
        began = time.process_time()
        x = np.concatenate([f[a > 0] for f, a in zip(self._painted, labels, strict=True)])
        y = np.concatenate([np.minimum(a[a > 0], 2) - 1 for a in labels])
        self._forest.fit(x, y)
        guesses = [
            self._forest.predict(f.reshape(-1, f.shape[-1])).reshape(f.shape[:-1]).astype(np.int32)
            for f in self._unpainted
        ]
        self.seconds += time.process_time() - began
        return [ndimage.label(g)[0] for g in guesses] if self._objects else guesses


# --- a session --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """What stands on the screen after one press of Train, and how it got there."""

    strokes: int
    labelled: float
    """Part of the painted images' pixels."""
    painting: float
    """Seconds the user painted so far."""
    machine: float
    """CPU seconds of training so far."""
    dice: float
    ap: float | None
    verdict: str
    forest_dice: float | None
    forest_ap: float | None
    forest_machine: float
    rootpainter_dice: float | None
    rootpainter_ap: float | None
    rootpainter_verdict: str | None


def annotations(task: Task, card: ModelCard, strokes: Sequence[Stroke], newest: Sequence[Stroke]) -> list[Annotation]:
    """Return what the app would hand to training."""
    result, plane = [], 0
    for image, truth in task.painted:
        planes = range(plane, plane + (len(truth) if task.dims == 3 else 1))
        plane = planes.stop
        parts = [
            (*annotation(strokes, i, truth.shape[-2:]), annotation(newest, i, truth.shape[-2:])[0] > 0) for i in planes
        ]
        labels, held_out, new = (np.stack(a) if task.dims == 3 else a[0] for a in zip(*parts, strict=True))
        result.append(Annotation(normalised(image, card, task.whole), labels, held_out, new))
    return result


def planes_of(arrays: Sequence[Array], dims: int) -> list[Array]:
    """Return the planes a user paints in: images, or the slices of volumes."""
    return [plane for array in arrays for plane in (array if dims == 3 else [array])]


def train(
    model: Model,
    data: TrainingSet,
    settings: TrainSettings,
    loss_of: Callable[[ModelCard, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> tuple[Trained, float]:
    """Press Train once, with the app's loss or another; return the result and the CPU seconds."""
    began = time.process_time()
    sampler = Sampler(data, model.card, settings)
    score_of = partial(held_out_score, annotations=data.annotations, device="cpu")

    def verdict_of(candidate: Model, reached: float | None, baseline: float | None) -> Verdict:
        return judge(candidate, model, reached, baseline, data.annotations, "cpu")

    way = way_of_statistics(model, data.annotations, "cpu")
    *_, end = optimise(model, sampler, settings, score_of, verdict_of, loss_of, way)
    assert isinstance(end, Trained)
    return end, time.process_time() - began


def shown(before: Model, end: Trained, task: Task) -> Model:
    """Return the model in use after a round: the gate's choice, or the user's by a look at the painted images."""
    if end.verdict.accepted is not None:
        return end.model if end.verdict.accepted else before
    new, old = (
        score([Predictor(m, task.whole)(i) for i, _ in task.painted], task.painted, task.objects)[0]
        for m in (end.model, before)
    )
    return end.model if new > old else before


def play(
    task: Task,
    start: Model,
    settings: TrainSettings,
    seed: int,
    strokes_wanted: int,
    replay: bool,
    peers: Sequence[str],
) -> Iterator[Round | dict[str, Any]]:
    """Paint and retrain; yields each round, then what only the end can tell."""
    settings = replace(settings, seed=seed)
    painter = Painter(planes_of([t for _, t in task.painted], task.dims), task.objects, seed)
    crops = load_replay(start.card) if replay else ()
    pixels = sum(t.size for _, t in task.painted)
    model = other = start
    forest = Forest(task, seed) if "forest" in peers else None
    strokes: list[Stroke] = []
    machine, predictions = 0.0, None
    root_ap = forest_ap = root_dice = root_verdict = None
    forest_dice: float | None = None
    while len(strokes) < strokes_wanted:
        new = painter.correct(planes_of(predictions, task.dims), THEN) if predictions else painter.first(FIRST)
        if not new:
            break
        strokes += new
        noted = annotations(task, start.card, strokes, new)
        data = TrainingSet(tuple(noted), crops)
        end, seconds = train(model, data, settings)
        machine += seconds
        model = shown(model, end, task)
        predictor = Predictor(model, task.whole)
        predictions = [predictor(i) for i, _ in task.painted]
        own_dice, own_ap = score([predictor(i) for i, _ in task.unpainted], task.unpainted, task.objects)
        if forest is not None:
            forest_dice, forest_ap = score(forest.learn([a.labels for a in noted]), task.unpainted, task.objects)
        if "rootpainter" in peers:
            root, _ = train(other, data, settings, rootpainter_loss)
            other = shown(other, root, task)
            predictor = Predictor(other, task.whole)
            root_dice, root_ap = score([predictor(i) for i, _ in task.unpainted], task.unpainted, task.objects)
            root_verdict = root.verdict.value
        yield Round(
            len(strokes),
            sum(np.count_nonzero(a.labels) for a in noted) / pixels,
            sum(s.seconds for s in strokes),
            machine,
            own_dice,
            own_ap,
            end.verdict.value,
            forest_dice,
            forest_ap,
            forest.seconds if forest else 0.0,
            root_dice,
            root_ap,
            root_verdict,
        )
    rng = np.random.default_rng([seed, zlib.crc32(task.kind.encode())])
    lies = set(rng.choice(len(strokes), round(FLIPPED * len(strokes)), replace=False).tolist())
    lying = [
        replace(s, value=3 - min(s.value, 2)) if i in lies else replace(s, value=min(s.value, 2))
        for i, s in enumerate(strokes)
    ]
    ending: dict[str, Any] = {"model": model}
    if not task.objects:
        end, _ = train(model, TrainingSet(tuple(annotations(task, start.card, lying, lying)), crops), settings)
        ending |= {"flipped_verdict": end.verdict.value, "flipped_score": end.score, "flipped_baseline": end.baseline}
    yield ending


def ceiling(task: Task, start: Model, settings: TrainSettings, rounds: int, replay: bool) -> tuple[float, float | None]:
    """Return the scores of the U-Net that saw every pixel of the painted images."""
    dense = [Annotation(normalised(i, start.card, task.whole), t + 1) for i, t in task.painted]
    steps = rounds * settings.steps
    crops = load_replay(start.card) if replay else ()
    longer = replace(settings, steps=steps, validate_every=steps)
    predictor = Predictor(train(start, TrainingSet(tuple(dense), crops), longer)[0].model, task.whole)
    return score([predictor(i) for i, _ in task.unpainted], task.unpainted, task.objects)


# --- the table --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Play every session, print as it goes."""
    parser = argparse.ArgumentParser(
        prog="paint_and_retrain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, default=os.environ.get("NAPARI_UNET_DATA"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="only these")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--strokes", type=int, default=24)
    parser.add_argument("--start", default="nuclei", help="name or file of the model to start from")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="who learns beside us")
    parser.add_argument("--no-replay", action="store_true")
    parser.add_argument("--no-ceiling", action="store_true", help="no training on dense labels")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="other training settings")
    parser.add_argument("--json", type=Path, help="write the numbers here too, after every session")
    parser.add_argument("--tables", type=Path, nargs="+", metavar="JSON", help="only print the tables of these runs")
    options = parser.parse_args(arguments)
    if options.tables:
        runs = [json.loads(path.read_text())["sets"] for path in options.tables]
        print("\n".join(tables(merged(runs))))
        return
    if options.data is None or not Path(options.data).is_dir():
        sys.exit("No data: give the folder of the image sets as the first argument, or set NAPARI_UNET_DATA.")
    if "forest" in options.peers and find_spec("sklearn") is None:
        sys.exit(
            "The random forest needs scikit-learn: pip install 'napari-unet[bench]', or leave it out with --peers."
        )
    torch.set_num_threads(options.threads)
    changes = {name: json.loads(value) for name, value in (pair.split("=", 1) for pair in options.set)}
    settings = replace(TrainSettings(device="cpu"), **changes)
    path = Path(options.start)
    parent = load_model_file(path) if path.suffix else Library().load(options.start)
    report: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.processor() or platform.machine(),
        "threads": options.threads,
        "model": parent.card.identity,
        "settings": asdict(settings),
        "replay": not options.no_replay,
        "sets": {},
    }
    print(f"{parent.card.identity}; {settings}", flush=True)
    judges = parents_own(options.data)
    rounds = 1 + -(-(options.strokes - FIRST) // THEN)
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.sets:
            task = SETS[name](options.data)
            start = start_model(parent, task)
            entry = report["sets"].setdefault(name, {"kind": task.kind, "sessions": []})
            if "start" not in entry:
                predictor = Predictor(start, task.whole)
                entry["start"] = score([predictor(i) for i, _ in task.unpainted], task.unpainted, task.objects)
                if not options.no_ceiling:
                    entry["dense"] = ceiling(task, start, settings, rounds, not options.no_replay)
                print(f"\n{name} ({task.kind}): start {entry['start']}, dense {entry.get('dense')}", flush=True)
            session: dict[str, Any] = {"seed": seed, "rounds": []}
            for event in play(task, start, settings, seed, options.strokes, not options.no_replay, options.peers):
                if isinstance(event, Round):
                    session["rounds"].append(asdict(event))
                    print(f"{name} {seed}: " + line(event), flush=True)
                    continue
                last = event.pop("model")
                session |= event
                if task.dims == 2:
                    before, after = (
                        score([Predictor(m)(i) for i, _ in judges], judges, False)[0] for m in (start, last)
                    )
                    session |= {"parents_before": before, "parents_after": after}
                print(
                    f"{name} {seed}: " + ", ".join(f"{k} {v}" for k, v in session.items() if k != "rounds"), flush=True
                )
            entry["sessions"].append(session)
            if options.json:
                options.json.write_text(json.dumps(report, indent=1))
    print("\n" + "\n".join(tables(report["sets"])))


def line(r: Round) -> str:
    """Return a round as text."""
    text = f"{r.strokes:3d} strokes {100 * r.labelled:.2f} % {r.machine:6.1f} s  dice {r.dice:.3f} {r.verdict}"
    if r.ap is not None:
        text += f" ap {r.ap:.3f}"
    if r.forest_dice is not None:
        text += f"  forest {r.forest_dice:.3f} ({r.forest_machine:.1f} s)"
    if r.rootpainter_dice is not None:
        text += f"  rootpainter {r.rootpainter_dice:.3f} {r.rootpainter_verdict}"
    return text


def median(values: Sequence[float]) -> str:
    """Return the median of scores as text."""
    return f"{statistics.median(values):.3f}" if values else ""


def tables(sets: dict[str, Any]) -> Iterator[str]:
    """Yield lines of markdown: Dice against strokes (medians over seeds), then what only a whole session tells."""
    yield (
        "| set | strokes | labelled | machine | **Dice** | of dense | forest | RootPainter's loss "
        "| AP 0.5: ours, forest, RootPainter's |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---|"
    for name, entry in sets.items():
        sessions = [s["rounds"] for s in entry["sessions"] if s["rounds"]]
        dense = entry.get("dense", [None])[0]
        yield f"| {name} | 0 | | | {entry['start'][0]:.3f} | | | | {entry['start'][1] or ''} |"
        for strokes in sorted({r["strokes"] for s in sessions for r in s}):
            here = [next(r for r in reversed(s) if r["strokes"] <= strokes) for s in sessions]
            dices = [r["dice"] for r in here]
            part = f"{100 * statistics.median(dices) / dense:.1f} %" if dense else ""
            aps = ", ".join(
                median([r[key] for r in here if r[key] is not None]) for key in ("ap", "forest_ap", "rootpainter_ap")
            )
            yield (
                f"| | {strokes} | {100 * statistics.median(r['labelled'] for r in here):.2f} % "
                f"| {statistics.median(r['machine'] for r in here):.0f} s | **{median(dices)}** | {part} "
                f"| {median([r['forest_dice'] for r in here if r['forest_dice'] is not None])} "
                f"| {median([r['rootpainter_dice'] for r in here if r['rootpainter_dice'] is not None])} "
                f"| {aps.strip(', ')} |"
            )
        if dense:
            yield f"| | all pixels | 100 % | | {dense:.3f} | 100 % | | | {entry['dense'][1] or ''} |"
    yield ""
    yield (
        "| set | largest drop between models shown | verdicts | verdicts with 30 % lies "
        "| Dice on the parent's own images |"
    )
    yield "|---|---:|---:|---:|---|"
    for name, entry in sets.items():
        sessions = [s for s in entry["sessions"] if s["rounds"]]
        drops = [largest_drop([entry["start"][0], *(r["dice"] for r in s["rounds"])]) for s in sessions]
        verdicts = [r["verdict"] for s in sessions for r in s["rounds"]]
        lies = [s["flipped_verdict"] for s in sessions if "flipped_verdict" in s]
        forgot = [f"{s['parents_before']:.3f} to {s['parents_after']:.3f}" for s in sessions if "parents_after" in s]
        yield (
            f"| {name} | {', '.join(f'{d:.3f}' for d in drops)} | {counted(verdicts)} "
            f"| {counted(lies)} | {', '.join(forgot)} |"
        )


def counted(verdicts: Sequence[str]) -> str:
    """Return how often each verdict was given, commonest first."""
    return ", ".join(f"{n} {verdict}" for verdict, n in Counter(verdicts).most_common())


def merged(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the sets of several runs as one: sessions together, the rest from whichever run has it."""
    sets: dict[str, Any] = {}
    for run in runs:
        for name, entry in run.items():
            there = sets.setdefault(name, {"sessions": []})
            sets[name] = entry | there | {"sessions": there["sessions"] + entry["sessions"]}
    return sets


def largest_drop(shown_dice: Sequence[float]) -> float:
    """Return by how much a round made the prediction shown worse, at most; 0 if none did."""
    return max([0.0, *(a - b for a, b in pairwise(shown_dice))])


if __name__ == "__main__":
    main()
