"""Do tiles meet? The tiled result against one pass over the whole image, and what a pass costs in memory.

    python -m benchmarks.tiles [--json FILE]

Beside our plan, in the same run, the plans that must fail: a halo one stride too small, an origin off the grid, tiles
normalised one by one, and MONAI's usual overlap of a quarter (64 px at 256), averaged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

import napari_unet as nu
from napari_unet.engine.execution import Executor, run_tiles
from napari_unet.engine.image import Image
from napari_unet.engine.tiling import TilePlan
from napari_unet.engine.unet import UNet

Run = Callable[[Executor, np.ndarray], np.ndarray]


def textured(shape: tuple[int, ...]) -> np.ndarray:
    """Return noise whose contrast varies from place to place."""
    return np.random.default_rng(0).random(shape, dtype=np.float32) * np.linspace(0.1, 1.5, shape[-1], dtype=np.float32)


def planned(executor: Executor, image: np.ndarray, plan: TilePlan, normalise: bool = False) -> np.ndarray:
    """Return the logits by a plan."""
    item = next(Image(image, "zyx"[-image.ndim :]).items(image.ndim))
    result = np.zeros((executor.spec.out_channels, *image.shape), dtype=np.float32)

    def read(start: tuple[int, ...], stop: tuple[int, ...]) -> np.ndarray:
        pixels = item.read_mirrored(start, stop)
        return (pixels - pixels.mean()) / pixels.std() if normalise else pixels

    for tile, logits in run_tiles(executor, read, plan):
        result[(slice(None), *tile.inner)] = logits
    return result


def whole(executor: Executor, image: np.ndarray) -> np.ndarray:
    """Return the logits of one pass."""
    return planned(executor, image, TilePlan.make(executor.spec, image.shape, tuple(n + 64 for n in image.shape)))


def ours(tile: int) -> Run:
    """Return our plan with tiles of an edge."""
    return lambda e, x: planned(e, x, TilePlan.make(e.spec, x.shape, (tile,) * x.ndim))


def shifted(pixels: int) -> Run:
    """Return our plan with origins off the pooling grid."""

    def run(executor: Executor, image: np.ndarray) -> np.ndarray:
        plan = TilePlan.make(executor.spec, image.shape, (128,) * image.ndim)
        before = tuple(b - pixels for b in plan.before)
        after = tuple(a + pixels for a in plan.after)
        return planned(executor, image, replace(plan, before=before, after=after, lead=before))

    return run


def short_halo(executor: Executor, image: np.ndarray) -> np.ndarray:
    """Our plan with one stride less of context."""
    plan = TilePlan.make(executor.spec, image.shape, (128,) * image.ndim)
    less = tuple(b - s for b, s in zip(plan.before, executor.spec.total_stride, strict=True))
    return planned(executor, image, replace(plan, before=less, after=less, lead=less))


def blended(executor: Executor, image: np.ndarray, window: int = 256, step: int = 192) -> np.ndarray:
    """Windows of 256 that overlap by a quarter, averaged: the usual way."""
    result = np.zeros((executor.spec.out_channels, *image.shape), dtype=np.float32)
    count = np.zeros(image.shape, dtype=np.float32)
    starts = [sorted({*range(0, max(n - window, 0), step), max(n - window, 0)}) for n in image.shape]
    for origin in itertools.product(*starts):
        part = tuple(slice(o, o + window) for o in origin)
        result[(slice(None), *part)] += executor(image[part][None, None])[0]
        count[part] += 1
    return result / count


def peak(edge: int, dims: int, base: int, answer: multiprocessing.connection.Connection) -> None:
    """Send the peak memory of one pass, in units of the finest level's float32 channels a pixel."""
    spec = nu.UNetSpec(dims=dims, channels=tuple(base * 2**i for i in range(5 if dims == 2 else 4)))
    executor = Executor(UNet(spec).eval(), "cpu")
    executor(np.zeros((1, 1, *(64 if dims == 2 else 16,) * dims), dtype=np.float32))
    before = highest_memory()
    executor(np.zeros((1, 1, *(edge,) * dims), dtype=np.float32))
    answer.send((highest_memory() - before) * 1024 / edge**dims / 4 / base)


def highest_memory() -> int:
    """Return this process's highest resident memory in KiB; `ru_maxrss` would count that of its parent too (Linux)."""
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith("VmHWM"))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    model = nu.load_model("nuclei")
    executor = Executor(model.network, "cpu")
    volume = nu.UNetSpec(dims=3, channels=(8, 16, 32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        executor_3d = Executor(UNet(volume).eval(), "cpu")
    runs: list[tuple[str, Executor, tuple[int, ...], Run]] = [
        *[(f"ours, tile {t}", executor, s, ours(t)) for s in ((1, 1), (7, 900), (701, 900)) for t in (64, 128, 304)],
        *[(f"ours, tile {t}", executor_3d, (21, 50, 70), ours(t)) for t in (8, 16)],
        ("halo one stride short", executor, (701, 900), short_halo),
        *[(f"origin off by {p}", executor, (701, 900), shifted(p)) for p in (1, 8)],
        (
            "each tile normalised",
            executor,
            (701, 900),
            lambda e, x: planned(e, x, TilePlan.make(e.spec, x.shape, (128, 128)), normalise=True),
        ),
        ("256, overlap 1/4, mean", executor, (701, 900), blended),
    ]
    rows = []
    print(f"{'plan':26}{'image':>14}{'max difference':>16}{'labels changed':>16}")
    for name, e, shape, run in runs:
        image = textured(shape)
        if "normalised" in name:
            image = (image - image.mean()) / image.std()
        expected, found = whole(e, image), run(e, image)
        relative = float(np.abs(found - expected).max() / np.abs(expected).max())
        changed = float(((found[0] > 0) != (expected[0] > 0)).mean())
        rows.append({"plan": name, "shape": shape, "relative": relative, "changed": changed})
        print(f"{name:26}{'x'.join(map(str, shape)):>14}{relative:16.2e}{changed:16.6%}", flush=True)
    if sys.platform == "linux":
        print("\npeak memory of one pass, in float32 values a pixel for each channel of the finest level")
        context = multiprocessing.get_context("spawn")
        for dims, edge, base in ((2, 512, 16), (2, 1024, 16), (2, 1024, 32), (3, 64, 16), (3, 128, 16)):
            receiver, sender = context.Pipe(duplex=False)
            child = context.Process(target=peak, args=(edge, dims, base, sender))
            child.start()
            value = receiver.recv()
            child.join()
            rows.append({"dims": dims, "edge": edge, "base": base, "floats": value})
            print(f"{dims}D, edge {edge}, base {base}: {value:.1f}")
    if options.json:
        options.json.write_text(json.dumps({"model": model.card.identity, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
