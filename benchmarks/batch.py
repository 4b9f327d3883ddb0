"""What a batch costs beside the bare engine: throughput of a stack, overhead of an item, workers beside one process.

Run with ``python -m benchmarks.batch [--planes N] [--edge N] [--items N] [--workers N] [--json FILE]``. Stack and items
are judged by CPU time, so that other programs do not matter; ways take turns, and the median of the rounds counts.
For the workers the clock says something only if as many cores are free; ``--workers 0`` leaves them out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
import torch

from napari_unet.engine import batch
from napari_unet.engine.batch import BatchDone, plan_batch, run_batch
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.cluster import crew
from napari_unet.engine.image import Image
from napari_unet.engine.inference import segment
from napari_unet.engine.library import Library
from napari_unet.engine.model import Model, new_model
from napari_unet.engine.settings import BatchSettings, SegmentSettings
from napari_unet.samples import load

ROUNDS = 3
SETTINGS = BatchSettings(SegmentSettings(device="cpu"), resume=False)


def sample(edge: int, seed: int = 0) -> np.ndarray:
    """Return a crop of the sample, tiled where it is too small and turned by chance."""
    rng = np.random.default_rng(seed)
    pixels = np.rot90(np.asarray(load("nuclei")[0].array), rng.integers(4))
    return np.ascontiguousarray(np.tile(pixels, [-(-edge // n) for n in pixels.shape])[:edge, :edge])


def run(sources: list[str | Path | Image], out: Path, model: Model, settings: BatchSettings = SETTINGS) -> None:
    """Run a batch that must succeed."""
    *_, end = run_batch(plan_batch(sources, out, model, settings), model)
    assert isinstance(end, BatchDone)
    assert end.report.complete, end.report


def seconds(*ways: Callable[[], object]) -> list[float]:
    """Return the median CPU time of each, in rounds, after one to get warm."""
    times: list[list[float]] = [[] for _ in ways]
    for i in range(ROUNDS + 1):
        for way, taken in zip(ways, times, strict=True):
            began = time.process_time()
            way()
            if i:
                taken.append(time.process_time() - began)
    return [statistics.median(taken) for taken in times]


def stack(folder: Path, planes: int, edge: int) -> dict[str, float]:
    """A stack through a batch, in one go and plane by plane through the disk, beside the engine on the same planes."""
    model = Library().load("nuclei")
    pixels = np.stack([sample(edge, seed) for seed in range(planes)])
    source = folder / "stack.tif"
    tifffile.imwrite(source, pixels, imagej=True, metadata={"axes": "ZYX"})

    def by_regions() -> None:
        large, batch.LARGE = batch.LARGE, 0
        run([source], folder / "regions.zarr", model)
        batch.LARGE = large

    bare, whole, regions = seconds(
        lambda: list(segment(Image(pixels, "zyx"), model, SETTINGS.segment)),
        lambda: run([source], folder / "whole.tif", model),
        by_regions,
    )
    return {
        "planes": planes,
        "edge": edge,
        "engine CPU s": bare,
        "batch CPU s": whole,
        "batch / engine throughput": bare / whole,
        "by regions CPU s": regions,
        "by regions / engine throughput": bare / regions,
    }


def items(folder: Path, count: int) -> dict[str, float]:
    """What an item costs besides its pixels: many small images with a network that costs next to nothing."""
    spec = UNetSpec(dims=2, out_channels=2, channels=(2, 2), norm="none")
    model = new_model(ModelCard("next to nothing", "semantic", spec, ("background", "object")))
    sources: list[str | Path | Image] = []
    for number in range(count):
        sources.append(folder / f"{number}.tif")
        tifffile.imwrite(folder / f"{number}.tif", sample(64, number))
    images = [Image(sample(64, number), "yx") for number in range(count)]
    bare, batched = seconds(
        lambda: [list(segment(image, model, SETTINGS.segment)) for image in images],
        lambda: run(sources, folder / "labels", model),
    )
    return {"items": count, "overhead CPU ms an item": 1000 * (batched - bare) / count}


def spent() -> float:
    """CPU seconds of this process and of those that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def workers(folder: Path, count: int, edge: int, images: int) -> dict[str, float]:
    """Images by workers beside one process with as many threads; the start of the workers is counted apart."""
    model = Library().load("nuclei")
    sources: list[str | Path | Image] = []
    for number in range(images):
        sources.append(folder / f"w{number}.tif")
        tifffile.imwrite(folder / f"w{number}.tif", sample(edge, number))
    torch.set_num_threads(count)
    apart = replace(SETTINGS, workers=count)

    def start() -> None:
        with crew(model, count):
            pass

    times: dict[str, list[tuple[float, float]]] = {"one process": [], "workers": [], "their start and end": []}
    for _ in range(ROUNDS):
        for name, way in zip(
            times,
            (
                lambda: run(sources, folder / "one", model),
                lambda: run(sources, folder / "many", model, apart),
                start,
            ),
            strict=True,
        ):
            wall, cpu = time.perf_counter(), spent()
            way()
            times[name].append((time.perf_counter() - wall, spent() - cpu))
    (one, one_cpu), (many, many_cpu), (begin, begin_cpu) = (
        tuple(statistics.median(column) for column in zip(*rounds, strict=True)) for rounds in times.values()
    )
    return {
        "workers": count,
        "images": images,
        "one process s": one,
        "workers s": many,
        "of which start and end s": begin,
        "workers / one process, by the clock": one / (many - begin),
        "one process CPU s": one_cpu,
        "workers CPU s": many_cpu,
        "of which start and end CPU s": begin_cpu,
        "workers / one process, by CPU": one_cpu / (many_cpu - begin_cpu),
    }


def main() -> None:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--planes", type=int, default=30)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json")
    given = parser.parse_args()
    measured: dict[str, dict[str, float]] = {}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, part in (
            ("stack", lambda: stack(folder, given.planes, given.edge)),
            ("items", lambda: items(folder, given.items)),
            ("workers", lambda: workers(folder, given.workers, given.edge, given.items)),
        ):
            if not {"stack": given.planes, "items": given.items, "workers": given.workers}[title]:
                continue
            measured[title] = part()
            for what, value in measured[title].items():
                print(f"{title:>8}  {what:<34}{value:>10.3f}", flush=True)
    load_average = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"load of the machine at the end: {load_average:.1f}")
    if given.json:
        Path(given.json).write_text(json.dumps(measured | {"load": {"at the end": load_average}}, indent=1))


if __name__ == "__main__":
    main()
