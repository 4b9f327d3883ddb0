"""How quick and how good is the instant head, and does "Next region" save painting?

    python -m benchmarks instant DATA [--parts speed quality where] [--seeds 5] [--json OUT]

DATA holds the public image sets (see `SETS`). A simulated user (`painter.py`) paints; every number has a peer beside it.

- speed: one 1024 x 1024 view; the time from a stroke to its redrawn overlay, beside scikit-image's TrainableSegmenter with
  its default random forest (100 trees), its features computed once, on the same image and strokes in the same run.
- quality: the user paints two strokes, then corrects the overlay stroke by stroke. Dice on the images painted on (what the
  overlay shows, painted pixels left out) and on others, after 8 and 20 strokes, beside a random forest of 100 trees on the
  same features and strokes; and what was tried instead: ridge regression, the U-Net's last maps beside the filters.
- teach (only if asked for: it trains): three rounds of the U-Net on the strokes alone, and with the 70 % of the pixels that the
  instant head is surest of drawn beside them, in a part of the patches that fades out.
- where: the user visits one region after another and paints at most three strokes in each, in random order or where
  "Next region" sends them; labelled pixels until Dice on other images reaches 95 % of what random order ends with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import future
from skimage.feature import multiscale_basic_features

from benchmarks.paint_and_retrain import Predictor, Task, crowded_nuclei, fields, foreground, normalised, read
from benchmarks.painter import Painter, Stroke
from napari_unet.engine import instant as engine
from napari_unet.engine.annotation import Annotation, TrainingSet
from napari_unet.engine.card import ModelCard
from napari_unet.engine.execution import folded
from napari_unet.engine.image import Image, cut
from napari_unet.engine.inference import normalisation
from napari_unet.engine.instant import Cache, Canvas, Instant, box_of, fitted
from napari_unet.engine.library import Library
from napari_unet.engine.metrics import dice
from napari_unet.engine.settings import TrainSettings
from napari_unet.engine.training import Sampler, Trained, optimise
from napari_unet.engine.transfer import semantic_from

PERCENTILES = (1.0, 99.8)
LOOKS = (8, 20)
VIEW = 1024
WINDOW = 64
"""Edge of a region, in pixels."""
A_VISIT = 3
"""Strokes at most in one region."""
VISITS = 12
STEP = 5
"""Milliseconds of a bar of the histogram."""
SURE = 0.7
"""Part of the pixels, the least doubtful, that the instant head may teach the U-Net."""
SHARES = (0.5, 0.33, 0.17)
"""Part of each batch that these are, round by round."""

Array = NDArray[Any]


def nuclei(data: Path) -> Task:
    """The crowded nuclei as one class."""
    task = crowded_nuclei(data)
    both = ([(i, (t > 0).astype(np.int32)) for i, t in pairs] for pairs in (task.painted, task.unpainted))
    return Task(task.kind, *both)


SETS: dict[str, Callable[[Path], Task]] = {
    "usiigaci_phc": fields("usiigaci_phc", "phase contrast, binned 2 x 2", (0, 6), (11, 14, 18), 2),
    "isbi2012_em": fields("isbi2012_em", "EM membranes", (0, 3), (12, 15, 18)),
    "vnc_sstem": fields("vnc_sstem", "EM mitochondria, binned 2 x 2", (0, 3), (5, 10), 2),
    "DIC-C2DH-HeLa": fields("ctc_DIC-C2DH-HeLa", "DIC, binned 2 x 2", (0, 1), (3, 5, 7), 2),
    "PhC-C2DH-U373": fields("ctc_PhC-C2DH-U373", "phase contrast", (0, 3), (8, 12)),
    "Fluo-N2DH-GOWT1": fields("ctc_Fluo-N2DH-GOWT1", "fluorescence, uneven, binned 2 x 2", (0,), (2, 3), 2),
    "Fluo-N2DL-HeLa": nuclei,
}
REGION_SETS = ("isbi2012_em", "Fluo-N2DL-HeLa", "DIC-C2DH-HeLa")


# --- what learns ------------------------------------------------------------------------------------------------------


def canvas_of(name: int, image: Array) -> Canvas:
    """Return an image as the engine sees it."""
    items = list(Image(image, "yx").items(2))
    return Canvas(name, items[0], normalisation(items, PERCENTILES, str(name)))


def whole(instant: Instant, canvas: Canvas) -> Array:
    """Return what is told of a whole image: 0 background."""
    result = np.zeros(canvas.shape, dtype=np.int32)
    for event in instant.answer(canvas.name):
        for part in event.parts:
            result[part.box] = part.labels.astype(np.int32) - 1
    return result


def labels_of(strokes: Sequence[Stroke], plane: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return what is painted on a plane; earlier strokes are painted over."""
    labels = np.zeros(shape, dtype=np.uint8)
    for stroke in strokes:
        if stroke.plane == plane:
            labels[stroke.mask] = stroke.value
    return labels


def maps_of(canvas: Canvas) -> Array:
    """Return the description of every pixel, ``(h, w, maps)``."""
    tiles = [(box_of(t, canvas.shape), canvas.described(t).float().numpy()) for t in canvas.tiles()]
    result = np.zeros((*canvas.shape, tiles[0][1].shape[1]), dtype=np.float32)
    for box, maps in tiles:
        result[box] = maps.reshape(box[0].stop - box[0].start, box[1].stop - box[1].start, -1)
    return result


def unet_maps(image: Array) -> Array:
    """Return what the last layer of the shipped U-Net sees, as roots, ``(h, w, 16)``."""
    model = Library().load("nuclei")
    low, high = np.percentile(image, PERCENTILES)
    pixels = ((image.astype(np.float32) - low) / (high - low)).clip(-1, 4)[None]
    h, w = image.shape
    stop = tuple(-(-n // 16) * 16 + 96 for n in (h, w))
    with torch.inference_mode():
        seen = folded(model.network).features(torch.from_numpy(cut(pixels, (-96, -96), stop)[None]))
    return seen[0, :, 96 : 96 + h, 96 : 96 + w].sqrt().movedim(0, -1).numpy()


def forest(x: Array, y: Array, seed: int) -> Callable[[Array], Array]:
    """Return a random forest's answer to rows."""
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(100, random_state=seed, n_jobs=1, class_weight="balanced").fit(x, y)
    return lambda rows: np.asarray(model.predict(rows))


# --- quality ----------------------------------------------------------------------------------------------------------


class Studio:
    """The images of a set, described once, and a session on them."""

    def __init__(self, task: Task) -> None:
        pairs = [*task.painted, *task.unpainted]
        self.canvases = [canvas_of(i, image) for i, (image, _) in enumerate(pairs)]
        self.images = [image for image, _ in pairs]
        self.truths = [truth for _, truth in pairs]
        self.painted = len(task.painted)
        self.cache = Cache(1 << 34)
        self._maps: dict[bool, list[Array]] = {}

    def begin(self) -> Instant:
        """Return a learner that has seen nothing yet."""
        instant = Instant()
        instant.cache = self.cache
        for canvas in self.canvases:
            instant.look(canvas, np.zeros(canvas.shape, dtype=np.uint8))
        return instant

    def maps(self, deep: bool) -> list[Array]:
        """Return every pixel's description, with the U-Net's last maps or without."""
        if deep not in self._maps:
            self._maps[deep] = [
                np.concatenate([maps_of(c), unet_maps(i)], axis=-1) if deep else maps_of(c)
                for c, i in zip(self.canvases, self.images, strict=True)
            ]
        return self._maps[deep]

    def scores(self, guesses: Sequence[Array], strokes: Sequence[Stroke]) -> tuple[float, float]:
        """Return mean Dice on the images painted on, without the painted pixels, and on the others."""
        here = []
        for i in range(self.painted):
            free = labels_of(strokes, i, self.truths[i].shape) == 0
            here.append(dice(guesses[i][free][None], self.truths[i][free][None]))
        there = [dice(g, t) for g, t in zip(guesses[self.painted :], self.truths[self.painted :], strict=True)]
        return statistics.mean(here), statistics.mean(there)


def guesses_of(instant: Instant, studio: Studio, strokes: Sequence[Stroke], only_painted: bool = False) -> list[Array]:
    """Take in what is painted and return the answers."""
    canvases = studio.canvases[: studio.painted] if only_painted else studio.canvases
    for i, canvas in enumerate(studio.canvases[: studio.painted]):
        instant.look(canvas, labels_of(strokes, i, canvas.shape))
    return [whole(instant, canvas) for canvas in canvases]


def by_forest(studio: Studio, strokes: Sequence[Stroke], seed: int, deep: bool = False) -> list[Array]:
    """Return what a random forest makes of the same strokes and descriptions."""
    maps = studio.maps(deep)
    painted = [labels_of(strokes, i, maps[i].shape[:2]) for i in range(studio.painted)]
    x = np.concatenate([m[p > 0] for m, p in zip(maps, painted, strict=False)])
    y = np.concatenate([p[p > 0].astype(np.int32) - 1 for p in painted])
    told = forest(x, y, seed)
    return [told(m.reshape(-1, m.shape[-1])).reshape(m.shape[:2]) for m in maps]


def by_ridge(instant: Instant, studio: Studio) -> list[Array]:
    """Return the answers of ridge regression: Newton's first step."""
    before, engine.NEWTON = engine.NEWTON, 1
    try:
        return [whole(instant, canvas) for canvas in studio.canvases]
    finally:
        engine.NEWTON = before


def with_unet(instant: Instant, studio: Studio) -> list[Array]:
    """Return the answers with the U-Net's last maps beside the filters."""
    maps = studio.maps(True)
    strokes = []
    for s in instant.strokes:
        seen = maps[int(str(s.canvas))]
        flat = seen.reshape(-1, seen.shape[-1])
        sample = flat[:: engine.SAMPLED]
        usual = np.stack([sample.mean(0), np.square(sample).mean(0)])
        strokes.append(replace(s, rows=flat[s.where], usual=usual))
    told = fitted(strokes)
    assert told is not None
    return [
        told.labels(torch.from_numpy(m.reshape(-1, m.shape[-1]))).reshape(m.shape[:2]).astype(np.int32) - 1
        for m in maps
    ]


def quality(data: Path, sets: Sequence[str], seeds: int, report: dict[str, Any]) -> None:
    """Play sessions of 20 strokes; scores after each of LOOKS."""
    for name in sets:
        studio = Studio(SETS[name](data))
        for seed in range(seeds):
            painter = Painter(studio.truths[: studio.painted], seed=seed)
            instant, strokes = studio.begin(), painter.first(2)
            while len(strokes) < LOOKS[-1]:
                seen = guesses_of(instant, studio, strokes, only_painted=True)
                new = painter.correct(seen, 1)
                strokes += new
                if len(strokes) in LOOKS or not new:
                    told = {
                        "instant": guesses_of(instant, studio, strokes),
                        "forest": by_forest(studio, strokes, seed),
                        "ridge": by_ridge(instant, studio),
                        "with the U-Net": with_unet(instant, studio),
                    }
                    # where nothing is left to correct, more strokes would not come
                    looks = [len(strokes)] if new else [n for n in LOOKS if n > len(strokes)]
                    for who, guesses in told.items():
                        here, there = studio.scores(guesses, strokes)
                        for look in looks:
                            report.setdefault(name, []).append(
                                {"seed": seed, "strokes": look, "who": who, "here": here, "there": there}
                            )
                if not new:
                    break
        print("\n".join(line for line in quality_rows(name, report[name])), flush=True)


def quality_rows(name: str, found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a set's lines of the table: medians over seeds."""
    names = list(dict.fromkeys(f["who"] for f in found))
    for strokes in LOOKS:
        cells = []
        for who in names:
            mine = [f for f in found if f["who"] == who and f["strokes"] == strokes]
            cells.append(" / ".join(f"{statistics.median(f[k] for f in mine):.3f}" for k in ("here", "there")))
        yield f"| {name} | {strokes} | " + " | ".join(cells) + " |"


# --- speed ------------------------------------------------------------------------------------------------------------


def view(data: Path) -> tuple[Array, Array]:
    """Return a picture of 1024 x 1024 and its truth: four EM images, each mirrored where it is smaller."""
    image, truth = foreground(read(data / "isbi2012_em", 0, 512))
    twice = [np.block([[a, a[:, ::-1]], [a[::-1], a[::-1, ::-1]]])[:VIEW, :VIEW] for a in (image, truth)]
    return twice[0], twice[1]


def speed(data: Path, report: dict[str, Any]) -> None:
    """Time the description of a view, then 40 strokes on it, some of them with the peer."""
    image, truth = view(data)
    canvas, painter = canvas_of(0, image), Painter([truth], seed=0)
    instant = Instant()
    labels = np.zeros(canvas.shape, dtype=np.uint8)
    instant.look(canvas, labels)
    clocks = time.perf_counter, time.process_time

    def timed(function: Callable[[], Any]) -> tuple[Any, list[float]]:
        began = [clock() for clock in clocks]
        result = function()
        return result, [clock() - b for clock, b in zip(clocks, began, strict=True)]

    _, report["describe"] = timed(lambda: list(instant.answer(canvas.name)))
    report["cache_bytes"] = instant.cache.bytes
    features, report["peer_describe"] = timed(lambda: multiscale_basic_features(image))
    peer = future.TrainableSegmenter(features_func=lambda _: features)
    report["strokes"], report["peer"] = [], []
    strokes = painter.first(2)
    for number in range(40):
        labels = labels_of(strokes, 0, canvas.shape)

        def redraw(labels: Array = labels) -> Array:
            instant.look(canvas, labels)
            return whole(instant, canvas)

        guess, seconds = timed(redraw)
        report["strokes"].append(seconds)
        if number in (4, 14, 34):

            def fit_and_predict(labels: Array = labels) -> Array:
                peer.fit(image, labels)
                return np.asarray(peer.predict(image))

            report["peer"].append(timed(fit_and_predict)[1])
        strokes += painter.correct([guess], 1)
    print("\n".join(speed_rows(report)), flush=True)


def speed_rows(report: dict[str, Any]) -> Iterator[str]:
    """Yield what `speed` found, in milliseconds of wall and of processor time, and a histogram."""
    for key in ("describe", "peer_describe"):
        yield f"{key}: {report[key][0]:.2f} s wall, {report[key][1]:.2f} s processor"
    yield f"cache: {report['cache_bytes'] / 2**20:.0f} MB for the view"
    wall = sorted(1000 * s[0] for s in report["strokes"][1:])
    used = sorted(1000 * s[1] for s in report["strokes"][1:])
    for name, values in (("wall", wall), ("processor", used)):
        yield f"stroke to overlay, {name}: median {statistics.median(values):.0f} ms, p95 {values[int(0.95 * len(values))]:.0f} ms"
    peers = statistics.median(p[1] for p in report["peer"])
    yield f"TrainableSegmenter: median {statistics.median(p[0] for p in report['peer']):.1f} s wall, {peers:.1f} s processor"
    yield f"ratio (processor): {1000 * peers / statistics.median(used):.0f}"
    edges = np.arange(0, max(used) + STEP, STEP)
    for low, count in zip(edges, np.histogram(used, edges)[0], strict=False):
        if count:
            yield f"{low:5.0f} to {low + STEP:3.0f} ms of processor time  {'#' * int(count)}"


# --- where to paint next ----------------------------------------------------------------------------------------------


Place = tuple[int, tuple[slice, slice]]
Order = Callable[[Instant, Studio, list[Place]], NDArray[np.float64]]


def regions(studio: Studio) -> list[Place]:
    """Return all regions of the painted images."""
    return [
        (i, (slice(y, y + WINDOW), slice(x, x + WINDOW)))
        for i in range(studio.painted)
        for y in range(0, studio.canvases[i].shape[0] - WINDOW + 1, WINDOW)
        for x in range(0, studio.canvases[i].shape[1] - WINDOW + 1, WINDOW)
    ]


def doubt(instant: Instant, studio: Studio, places: list[Place]) -> NDArray[np.float64]:
    """Return how unsure the answer is in each place."""
    told = instant.fit()
    assert told is not None
    maps = []
    for i in range(studio.painted):
        seen = studio.maps(False)[i]
        maps.append(told.doubt(torch.from_numpy(seen.reshape(-1, seen.shape[-1]))).reshape(seen.shape[:2]))
    return np.array([maps[i][box].mean() for i, box in places])


def novelty(instant: Instant, studio: Studio, places: list[Place]) -> NDArray[np.float64]:
    """Return how far the descriptions in each place lie from those painted: what "Next region" goes by."""
    x = np.concatenate([s.rows for s in instant.strokes if s.rows is not None]).astype(np.float64)
    spread = np.cov(x.T) + 1e-2 * np.diag(x.var(0) + 1e-6)
    pull, middle = np.linalg.inv(spread), x.mean(0)
    values = []
    for i, box in places:
        rows = studio.maps(False)[i][box][::4, ::4].reshape(-1, x.shape[1]) - middle
        values.append(np.sqrt(np.einsum("ni,ij,nj->n", rows, pull, rows)).mean())
    return np.array(values)


def both(instant: Instant, studio: Studio, places: list[Place]) -> NDArray[np.float64]:
    """Return the product of the two."""
    return doubt(instant, studio, places) * novelty(instant, studio, places)


ORDERS: dict[str, Order | None] = {"random": None, "doubt": doubt, "novelty": novelty, "both": both}


def where(data: Path, sets: Sequence[str], seeds: int, report: dict[str, Any]) -> None:
    """Visit regions in every order; Dice on the other images after each visit, and how many pixels are labelled by then."""
    for name in sets:
        studio = Studio(SETS[name](data))
        report[name] = {
            order: [list(visits(studio, choose, s)) for s in range(seeds)] for order, choose in ORDERS.items()
        }
        print("\n".join(where_rows(name, report[name])), flush=True)


def visits(studio: Studio, choose: Order | None, seed: int) -> Iterator[tuple[int, float]]:
    """Play a session; yields pixels labelled and Dice."""
    truths = studio.truths[: studio.painted]
    painter, rng = Painter(truths, seed=seed), np.random.default_rng(seed)
    instant, strokes, left = studio.begin(), painter.first(2), regions(studio)
    guesses = guesses_of(instant, studio, strokes)
    for _ in range(VISITS):
        number = int(rng.integers(len(left)) if choose is None else choose(instant, studio, left).argmax())
        image, box = left.pop(number)
        for _ in range(A_VISIT):
            seen = [t.copy() for t in truths]  # elsewhere nothing is seen, so nothing is corrected
            seen[image][box] = guesses[image][box]
            strokes += painter.correct(seen, 1)
            guesses = guesses_of(instant, studio, strokes)
        labelled = sum(int((labels_of(strokes, i, t.shape) > 0).sum()) for i, t in enumerate(truths))
        yield labelled, studio.scores(guesses, strokes)[1]


def where_rows(name: str, found: dict[str, list[list[tuple[int, float]]]]) -> Iterator[str]:
    """Yield a set's lines: pixels labelled until Dice is at 95 % of what random order ends with, and the last Dice."""
    goal = 0.95 * statistics.median(session[-1][1] for session in found["random"])

    def reached(session: list[tuple[int, float]]) -> float:
        return next((pixels for pixels, score in session if score >= goal), np.inf)

    usual = statistics.median(reached(s) for s in found["random"])
    for order, sessions in found.items():
        pixels = statistics.median(reached(s) for s in sessions)
        late = sum(max(score for _, score in s) < goal for s in sessions)
        last = statistics.median(s[-1][1] for s in sessions)
        yield f"| {name} | {goal:.3f} | {order} | {pixels:.0f} | {pixels / usual - 1:+.0%} | {late} | {last:.3f} |"


# --- does it teach the U-Net? -----------------------------------------------------------------------------------------


def taught(studio: Studio, instant: Instant, strokes: Sequence[Stroke], card: ModelCard) -> TrainingSet:
    """Return the strokes as training sees them, and what the instant head is sure of as crops to be drawn beside them."""
    told = instant.fit()
    assert told is not None
    own, sure = [], []
    for i in range(studio.painted):
        image, seen = studio.images[i], studio.maps(False)[i]
        pixels, rows = normalised(image, card), torch.from_numpy(seen.reshape(-1, seen.shape[-1]))
        own.append(Annotation(pixels, labels_of(strokes, i, image.shape).astype(np.int32)))
        unsure = told.doubt(rows)
        labels = np.where(unsure <= np.quantile(unsure, SURE), told.labels(rows), 0).reshape(image.shape)
        sure.append(Annotation(pixels, labels.astype(np.int32)))
    return TrainingSet(tuple(own), tuple(sure))


def teach(data: Path, sets: Sequence[str], seeds: int, steps: int, report: dict[str, Any]) -> None:
    """Train the U-Net in three rounds, with and without what the instant head is sure of; its share fades out."""
    parent = Library().load("nuclei")
    for name in sets:
        studio = Studio(SETS[name](data))
        for seed in range(seeds):
            painter = Painter(studio.truths[: studio.painted], seed=seed)
            instant, strokes = studio.begin(), painter.first(2)
            models = dict.fromkeys(("strokes alone", "and what is sure"), semantic_from(parent))
            for number, share in enumerate(SHARES):
                while len(strokes) < 8 + 4 * number:
                    new = painter.correct(guesses_of(instant, studio, strokes, only_painted=True), 1)
                    strokes += new
                    if not new:  # nothing is left to correct
                        break
                told = {"instant": guesses_of(instant, studio, strokes)}
                known = taught(studio, instant, strokes, parent.card)
                for arm, model in models.items():
                    part = share if arm == "and what is sure" else 0.0
                    settings = TrainSettings(
                        device="cpu", steps=steps, validate_every=steps, patch=96, replay=part, seed=seed
                    )
                    crops = known if part else TrainingSet(known.annotations)
                    *_, end = optimise(model, Sampler(crops, model.card, settings), settings, lambda _: None)
                    assert isinstance(end, Trained)
                    models[arm] = end.model
                    told[arm] = [Predictor(end.model)(image) for image in studio.images]
                for who, guesses in told.items():
                    here, there = studio.scores(guesses, strokes)
                    report.setdefault(name, []).append(
                        {"seed": seed, "strokes": len(strokes), "who": who, "here": here, "there": there}
                    )
                    print(f"| {name} | {seed} | {len(strokes)} | {who} | {here:.3f} / {there:.3f} |", flush=True)


# --- the table --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, print as they go."""
    parser = argparse.ArgumentParser(
        prog="instant", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="?", type=Path, default=os.environ.get("NAPARI_UNET_DATA"))
    parser.add_argument(
        "--parts", nargs="+", choices=("speed", "quality", "where", "teach"), default=["speed", "quality", "where"]
    )
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="only these, for quality")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="of each round of training, for teach")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args(arguments)
    if options.data is None or not Path(options.data).is_dir():
        sys.exit("No data: give the folder of the image sets as the first argument, or set NAPARI_UNET_DATA.")
    if find_spec("sklearn") is None:
        sys.exit("The random forest needs scikit-learn: pip install 'napari-unet[bench]'.")
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {part: {} for part in options.parts}
    if "speed" in options.parts:
        speed(options.data, report["speed"])
    if "quality" in options.parts:
        print("| set | strokes | instant | forest | ridge | with the U-Net's maps |\n|---|---:|---|---|---|---|")
        quality(options.data, options.sets, options.seeds, report["quality"])
    if "where" in options.parts:
        print("| set | Dice to reach | order | pixels labelled | against random | never reached | last Dice |")
        print("|---|---:|---|---:|---:|---:|---:|")
        sets = [name for name in REGION_SETS if name in options.sets]
        where(options.data, sets, options.seeds, report["where"])
    if "teach" in options.parts:
        print("| set | seed | strokes | who | Dice here / on others |\n|---|---:|---:|---|---|")
        teach(options.data, options.sets, options.seeds, options.steps, report["teach"])
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
