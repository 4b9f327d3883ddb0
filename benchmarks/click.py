"""How many clicks does an object take? A robot user clicks; beside us, what a person would use without us.

    NAPARI_UNET_DATA=DATA python -m benchmarks.click [--objects 40] [--json OUT] [--sets NAME ...]

DATA holds the public image sets (see `SETS`). The robot clicks in the middle of the largest error: the point of the
error region that lies farthest from its boundary, the image's border counted as boundary. It stops at IoU 0.90 or after
20 clicks. NoC@85 and NoC@90 are the mean numbers of clicks to those IoUs (20 where they are not reached: a failure).

"click, begun with nuclei" is what a user has who pressed Segment before: the automatic object under the first click
starts the mask. "click, learning" (with --learning) is a user who does all objects of a set one after the other: each
teaches the model as it stands when the robot stops, before the next is clicked.

Peers, from the same robot's clicks: scikit-image's flood fill (tolerance tuned for each set on other objects of it),
and its random walker (default beta, a crop of 192 pixels, whose border is background).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.io import imread
from skimage.segmentation import flood, random_walker

if TYPE_CHECKING:
    from napari_unet import ClickSegmenter
    from napari_unet.engine.adaptation import Learned

REPOSITORY = Path(__file__).parent.parent
MOST_CLICKS = 20
TARGETS = (0.85, 0.90)
SMALLEST_AREA = 60
CROP = 192
"""Edge, in pixels, of what the random walker works on."""
TUNED_ON = 10
"""Objects of each set, not among those judged, that choose flood fill's tolerance."""
TOLERANCES = (0.03, 0.05, 0.08, 0.12, 0.17, 0.23, 0.3, 0.4, 0.5)

Plane = NDArray[Any]
Mask = NDArray[np.bool_]
Clicks = list[tuple[tuple[int, int], bool]]
Method = Callable[[Clicks, Mask | None], Mask]
Pairs = Iterator[tuple[Plane, Plane]]


@dataclass(frozen=True, slots=True, eq=False)
class Thing:
    """An object to click out."""

    image: Plane
    truth: Mask


@dataclass(frozen=True, slots=True)
class Round:
    """One object clicked out: the IoU after each click, and what each took."""

    ious: list[float]
    seconds: list[float]

    def clicks_to(self, target: float) -> int:
        """Return the clicks needed; MOST_CLICKS if the target was not reached."""
        return next((i for i, v in enumerate(self.ious, start=1) if v >= target), MOST_CLICKS)

    def failed(self, target: float) -> bool:
        """Tell whether the target was never reached."""
        return max(self.ious) < target

    def after(self, clicks: int) -> float:
        """Return the IoU after so many clicks, or at the end if it came earlier."""
        return self.ious[min(clicks, len(self.ious)) - 1]


# --- the sets ---------------------------------------------------------------------------------------------------------


def pairs(folder: Path, note: str = "") -> Iterator[tuple[str, Plane, Plane]]:
    """Yield name, image and mask of the part for development."""
    with open(folder / "manifest.csv", newline="") as file:
        for row in csv.DictReader(file):
            there = row["split"] == "dev" and row["mask"] and (folder / row["image"]).exists()
            if there and (not note or row["note"] == note):
                yield row["image"], imread(folder / row["image"]), imread(folder / row["mask"])


def kept_out(ledger: str) -> set[str]:
    """Return the images of a ledger that were not trained on."""
    entries = json.loads((REPOSITORY / "training" / ledger).read_text())["images"]
    return {entry["image"] for entry in entries if entry["held_out"]}


def nuclei(data: Path) -> Pairs:
    """Fluorescence nuclei that neither `nuclei` nor `click` was trained on."""
    names = kept_out("nuclei_ledger.json")
    return ((image, mask) for name, image, mask in pairs(data / "dsb2018", "fluo") if name in names)


def phase_contrast(data: Path) -> Pairs:
    """The fields of usiigaci_phc that `click` was not trained on; their kind was."""
    names = kept_out("click_ledger.json")
    return ((image, mask) for name, image, mask in pairs(data / "usiigaci_phc") if f"usiigaci_phc/{name}" in names)


def planes(folder: str) -> Callable[[Path], Pairs]:
    """Return a reader of 2D images, or of every eighth slice of volumes."""

    def read(data: Path) -> Pairs:
        for _, image, mask in pairs(data / folder):
            if mask.ndim == 2:
                yield image, mask
            else:
                yield from zip(image[4::8], mask[4::8], strict=True)

    return read


def membranes(data: Path) -> Pairs:
    """EM: the cells are the connected pieces between membranes."""
    for image, mask in planes("isbi2012_em")(data):
        yield image, ndimage.label(mask > 0)[0]


NUCLEI = {"dsb2018, held out", "Fluo-N2DH-GOWT1", "lightsheet slices", "plant nuclei slices"}
"""Sets of nuclei, which the model `nuclei` is for."""
SETS = {
    "dsb2018, held out": ("known kind", nuclei),
    "usiigaci_phc, held out": ("known kind", phase_contrast),
    "PhC-C2DH-U373": ("unseen kind", planes("ctc_PhC-C2DH-U373")),
    "DIC-C2DH-HeLa": ("unseen kind", planes("ctc_DIC-C2DH-HeLa")),
    "Fluo-N2DH-GOWT1": ("unseen kind", planes("ctc_Fluo-N2DH-GOWT1")),
    "ISBI 2012 EM cells": ("unseen kind", membranes),
    "lightsheet slices": ("unseen kind", planes("lightsheet_nuclei_3d")),
    "plant nuclei slices": ("unseen kind", planes("plant_nuclei_3d")),
}


def sample(images: list[tuple[Plane, Plane]], count: int, seed: int) -> list[Thing]:
    """Draw objects, the same ones for the same seed; each is the largest connected piece of its label."""
    rng, places = np.random.default_rng(seed), []
    for number, (_, mask) in enumerate(images):
        areas = np.bincount(mask.ravel())
        areas[0] = 0
        places += [(number, int(label)) for label in np.flatnonzero(areas >= SMALLEST_AREA)]
    things: list[Thing] = []
    for index in rng.permutation(len(places)):
        number, label = places[index]
        image, mask = images[number]
        pieces, found = ndimage.label(mask == label)
        truth = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1 if found > 1 else pieces > 0
        if SMALLEST_AREA <= np.count_nonzero(truth) < truth.size // 2:
            things.append(Thing(image, truth))
        if len(things) == count:
            break
    return things


# --- the robot --------------------------------------------------------------------------------------------------------


def iou(a: Mask, b: Mask) -> float:
    """Return intersection over union."""
    return float(np.count_nonzero(a & b) / max(np.count_nonzero(a | b), 1))


def next_click(answer: Mask | None, truth: Mask) -> tuple[tuple[int, int], bool]:
    """Return the middle of the largest connected error, and whether the object is missing there."""
    if answer is None:
        answer = np.zeros_like(truth)
    best: tuple[int, Mask, tuple[slice, ...], bool] | None = None
    for missing, wrong in ((True, truth & ~answer), (False, answer & ~truth)):
        pieces, count = ndimage.label(wrong)
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            label = int(sizes.argmax())
            if best is None or sizes[label] > best[0]:
                box = ndimage.find_objects(pieces, max_label=label)[label - 1]
                best = (int(sizes[label]), pieces[box] == label, box, missing)
    assert best is not None
    _, region, box, missing = best
    distance = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), distance.shape)
    return (int(y) + box[0].start, int(x) + box[1].start), missing


def play(method: Method, truth: Mask) -> Round:
    """Click until the object is found, or the robot gives up."""
    clicks: Clicks = []
    mask: Mask | None = None
    ious: list[float] = []
    seconds: list[float] = []
    while len(clicks) < MOST_CLICKS and (not ious or ious[-1] < max(TARGETS)):
        clicks.append(next_click(mask, truth))
        began = time.perf_counter()
        mask = method(clicks, mask)
        seconds.append(time.perf_counter() - began)
        ious.append(iou(mask, truth))
    return Round(ious, seconds)


def begun_with(segmenter: ClickSegmenter, automatic: Plane) -> Method:
    """Return the segmenter as the window uses it where there is an automatic result."""

    def answer(clicks: Clicks, previous: Mask | None) -> Mask:
        under = automatic[clicks[0][0]]
        return segmenter.segment(clicks, previous, automatic == under if under else None)

    return answer


class Learning:
    """The segmenter as the window uses it: each object that is accepted teaches it, before the next is clicked."""

    def __init__(self, segmenter: ClickSegmenter) -> None:
        self.segmenter = segmenter
        self.seconds: list[float] = []
        self.learned: Learned | None = None
        self.automatic: Plane | None = None
        """What a model saw in the image before: the object under the first click starts the mask."""
        self._first: tuple[int, int] = (0, 0)
        self._mask: Mask | None = None

    def __call__(self, clicks: Clicks, previous: Mask | None) -> Mask:
        """Answer, and keep the answer."""
        self._first = clicks[0][0]
        method = self.segmenter.segment if self.automatic is None else begun_with(self.segmenter, self.automatic)
        self._mask = method(clicks, previous)
        return self._mask

    def accept(self) -> None:
        """Learn the object that was clicked last, as it is: the robot gave up, or it is good."""
        assert self._mask is not None
        began = time.process_time()
        self.segmenter.accept(self._mask, (self._first,))
        *_, self.learned = self.segmenter.learn()
        self.seconds.append(time.process_time() - began)


# --- the peers --------------------------------------------------------------------------------------------------------


def grey(image: Plane) -> NDArray[np.float32]:
    """Return the image as flood fill and random walker like it: grey, 0 to 1, a little smoothed."""
    plane = image[..., :3].mean(-1) if image.ndim == 3 else image
    plane = plane.astype(np.float32)
    low, high = np.percentile(plane, (1, 99.8))
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(((plane - low) / max(high - low, 1e-6)).clip(0, 1), 1)
    return smooth


def flood_fill(image: Plane, tolerance: float) -> Method:
    """Flood fill from each positive click, less the flood fill from each negative one."""
    plane = grey(image)

    def answer(clicks: Clicks, _: Mask | None) -> Mask:
        mask = np.zeros(plane.shape, dtype=bool)
        for point, positive in clicks:
            if positive:
                mask |= flood(plane, point, tolerance=tolerance)
        for point, positive in clicks:
            if not positive:
                mask &= ~flood(plane, point, tolerance=tolerance / 2)  # else it wipes out all
        return mask

    return answer


def walker(image: Plane) -> Method:
    """Random walker from the clicks, in a crop around them."""
    plane = grey(image)

    def answer(clicks: Clicks, _: Mask | None) -> Mask:
        points = np.array([p for p, _ in clicks])
        middle = (points.min(0) + points.max(0)) // 2
        half = np.maximum(CROP // 2, (points.max(0) - points.min(0)) // 2 + 16)
        low = np.maximum(middle - half, 0)
        high = np.minimum(middle + half, plane.shape)
        seeds = np.zeros(high - low, dtype=np.int32)
        seeds[[0, -1]] = 2
        seeds[:, [0, -1]] = 2
        for point, positive in clicks:
            y, x = np.array(point) - low
            seeds[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = 1 if positive else 2
        mask = np.zeros(plane.shape, dtype=bool)
        if (seeds == 1).any():
            part = (slice(low[0], high[0]), slice(low[1], high[1]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the probabilities by a hair, which no one here looks at
                mask[part] = random_walker(plane[part], seeds, mode="cg_j", tol=1e-2) == 1
        return mask

    return answer


def tuned(things: list[Thing]) -> float:
    """Return the tolerance whose first click is best on average."""

    def score(tolerance: float) -> float:
        return statistics.mean(
            iou(flood_fill(t.image, tolerance)([next_click(None, t.truth)], None), t.truth) for t in things
        )

    return max(TOLERANCES, key=score)


# --- through slices ---------------------------------------------------------------------------------------------------


def through_slices(segmenter: ClickSegmenter, folder: Path, count: int, seed: int) -> dict[str, float]:
    """Extend objects from their true mask in the slice where they are largest; return the IoU in 3D and the speed."""
    volumes = [(image, mask) for _, image, mask in pairs(folder)]
    rng, ious, seconds = np.random.default_rng(seed), [], []
    for volume, mask in volumes:
        for label in rng.permutation(np.unique(mask)[1:])[:count]:
            truth = mask == label
            areas = truth.sum((1, 2))
            z = int(areas.argmax())
            if areas[z] < SMALLEST_AREA:
                continue
            found = np.zeros_like(truth)
            found[z] = truth[z]
            began = time.perf_counter()
            for event in segmenter.extend(volume, truth[z], z):
                found[event.z] = event.mask
            seconds.append((time.perf_counter() - began) / max(int(found.any((1, 2)).sum()), 1))
            ious.append(iou(found, truth))
    return {"objects": len(ious), "IoU": statistics.mean(ious), "ms a slice": 1000 * statistics.median(seconds)}


# --- the table --------------------------------------------------------------------------------------------------------


def summary(rounds: list[Round]) -> dict[str, float]:
    """Return the numbers of one row."""
    row = {f"NoC@{round(100 * t)}": statistics.mean(r.clicks_to(t) for r in rounds) for t in TARGETS}
    row |= {f"IoU@{k}": statistics.mean(r.after(k) for r in rounds) for k in (1, 2, 3, 5)}
    row |= {f"failed@{round(100 * t)}": sum(r.failed(t) for r in rounds) for t in TARGETS}
    return row | {"ms": 1000 * statistics.median(s for r in rounds for s in r.seconds)}


def main() -> None:
    """Click, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=os.environ.get("NAPARI_UNET_DATA"))
    parser.add_argument("--objects", type=int, default=40, help="objects of each set")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="only these")
    parser.add_argument("--model", default="click", help="name or file of the click model")
    parser.add_argument(
        "--peer-objects", type=int, default=40, help="the peers, which are slow, see only the first ones"
    )
    parser.add_argument("--learning", action="store_true", help="play once more, learning from each accepted object")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    if options.data is None:
        sys.exit("No data: give the folder of the image sets as the first argument, or set NAPARI_UNET_DATA.")
    data = Path(options.data)
    if not data.is_dir():
        sys.exit(f"There is no folder {data}: give the folder of the image sets, or set NAPARI_UNET_DATA.")
    import torch

    import napari_unet as nu
    from napari_unet import ClickSegmenter

    torch.set_num_threads(options.threads)
    segmenter = ClickSegmenter(options.model, device="cpu")
    print(f"{segmenter.model.card.identity}, {options.objects} objects a set, seed {options.seed}\n")
    columns = ["NoC@85", "NoC@90", "IoU@1", "IoU@2", "IoU@3", "IoU@5", "failed@85", "failed@90", "ms"]
    print("| set | method | objects | " + " | ".join(columns) + " |")
    print("|---|---|---:|" + "---:|" * len(columns))
    results: dict[str, dict[str, Any]] = {}
    waits = []
    for name in options.sets:
        kind, read = SETS[name]
        try:
            images = list(read(data))
        except FileNotFoundError as error:
            sys.exit(f"Set {name!r} is not complete (there is no {error.filename}): leave it out with --sets.")
        things = sample(images, options.objects + TUNED_ON, options.seed)
        judged, others = things[:-TUNED_ON], things[-TUNED_ON:]
        rounds: dict[str, list[Round]] = {"click": []}
        if name in NUCLEI:
            rounds["click, begun with nuclei"] = []
        learners: dict[str, Learning] = {}
        if options.learning:
            ways = [way for way in rounds if way.startswith("click")]
            learners = {f"{way}, learning": Learning(ClickSegmenter(options.model, device="cpu")) for way in ways}
            rounds |= {way: [] for way in learners}
        if options.peer_objects:
            tolerance = tuned(others)
            rounds |= {f"flood fill ({tolerance:g})": [], "random walker": []}
        for number, thing in enumerate(judged):
            began = time.perf_counter()
            segmenter.set_image(thing.image)
            waits.append(time.perf_counter() - began)
            rounds["click"].append(play(segmenter.segment, thing.truth))
            if name in NUCLEI:
                automatic = nu.segment(thing.image, "nuclei", device="cpu")
                rounds["click, begun with nuclei"].append(play(begun_with(segmenter, automatic), thing.truth))
            for way, learning in learners.items():
                learning.segmenter.set_image(thing.image)
                learning.automatic = automatic if "nuclei" in way else None
                rounds[way].append(play(learning, thing.truth))
                learning.accept()
            if number < options.peer_objects:
                rounds[f"flood fill ({tolerance:g})"].append(play(flood_fill(thing.image, tolerance), thing.truth))
                rounds["random walker"].append(play(walker(thing.image), thing.truth))
        results[name] = {"kind": kind}
        for method, played in rounds.items():
            row = summary(played)
            results[name][method] = {"objects": len(played)} | row
            values = (f"{row[c]:.0f}" if c.startswith(("failed", "ms")) else f"{row[c]:.2f}" for c in columns)
            print(f"| {name} | {method} | {len(played)} | " + " | ".join(values) + " |", flush=True)
        for way, learning in learners.items():
            assert learning.learned is not None
            facts = asdict(learning.learned) | {"CPU s an object": statistics.median(learning.seconds)}
            results[name][way] |= facts
            print(f"  {way}: " + ", ".join(f"{k} {v:.3g}" for k, v in facts.items() if v is not None), flush=True)
    for name in ("lightsheet_nuclei_3d", "plant_nuclei_3d"):
        if (data / name).is_dir():
            row = through_slices(segmenter, data / name, options.objects // 2, options.seed)
            results[f"{name}, extended through slices"] = row
            print(f"\nThrough slices, {name}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    big = np.random.default_rng(0).integers(0, 65536, (2048, 2048), dtype=np.uint16)
    began = time.perf_counter()
    segmenter.set_image(big)
    wait = time.perf_counter() - began
    print(f"\nset_image: {1000 * statistics.median(waits):.1f} ms median, {1000 * wait:.0f} ms for 2048 x 2048, 16 bit")
    if options.json:
        cores, torch_version = os.cpu_count(), torch.__version__
        record = {
            "command": "python -m benchmarks.click " + " ".join(sys.argv[1:]),
            "date": datetime.now(UTC).isoformat(timespec="minutes"),
            "machine": f"{platform.machine()}, {cores} cores, {options.threads} threads, torch {torch_version}",
            "model": segmenter.model.card.identity,
            "set_image_2048_ms": 1000 * wait,
            "sets": results,
        }
        options.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
