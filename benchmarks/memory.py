"""Peak memory of a whole run, measured in a process of its own: at once and region by region.

Run with ``python -m benchmarks.memory [EDGE ...] [--volume EDGE ...] [--model NAME] [--way regions] [--json FILE]``:
squares (default 2048 4096 8192) and cubes of so many pixels along each edge, uint8, as OME-Zarr. The model ``bright``
is a network of two channels that takes bright for foreground: it costs next to nothing, so large images can be measured
in minutes, and its maps, objects and files are of the same size as those of any other.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = {2: 1024, 3: 128}


def make(path: Path, edge: int, dims: int) -> None:
    """Write an image that is tiled from the sample, chunk by chunk."""
    import zarr

    from napari_unet.samples import load

    sample = np.asarray(load("nuclei")[0].array)
    chunk = CHUNK[dims]
    unit = np.tile(sample, (4, 4))[:chunk, :chunk]
    unit = np.clip(unit / np.percentile(unit, 99.9) * 255, 0, 255).astype(np.uint8)
    if dims == 3:  # nuclei become balls: bright in the middle slices of each layer of 32
        bright = np.sin((np.arange(chunk) + 0.5) * np.pi / 32) ** 2
        unit = (bright[:, None, None] * unit).astype(np.uint8)
    array = zarr.create_array(
        str(path), shape=(edge,) * dims, chunks=(chunk,) * dims, dtype="u1", dimension_names=list("zyx"[-dims:])
    )
    for corner in np.ndindex(*(-(-edge // chunk),) * dims):
        start = [chunk * i for i in corner]
        array[tuple(slice(a, a + chunk) for a in start)] = unit[tuple(slice(edge - a) for a in start)]


def bright(dims: int) -> Any:
    """Return a model that finds objects where it is bright, and takes the brightness for the distance."""
    import torch

    from napari_unet.engine.card import ModelCard, UNetSpec
    from napari_unet.engine.model import new_model

    spec = UNetSpec(dims=dims, out_channels=3, channels=(2, 2), norm="none")
    model = new_model(ModelCard("bright", "objects", spec, ("background", "object")))
    network, middle = model.network, (0, 0, *(1,) * dims)
    kinds = (torch.nn.Conv2d, torch.nn.Conv3d)
    convolutions = [
        m for part in (network.encoder[0], *network.decoder) for m in part.modules() if isinstance(m, kinds)
    ]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for convolution in convolutions:
            convolution.weight[middle] = 1
        network.head.weight[:2, 0] = torch.tensor([12.0, 6.0]).reshape(2, *(1,) * dims)
        network.head.bias[:] = torch.tensor([-4.0, -3.0, -10.0])
    return model


def measure(how: str, name: str, dims: int, source: Path, target: Path) -> None:
    """Segment, and print seconds, peak memory in MB, that of the interpreter with all imports, and objects."""
    from napari_unet.engine import batch
    from napari_unet.engine.files import open_image
    from napari_unet.engine.library import Library
    from napari_unet.engine.settings import BatchSettings, SegmentSettings

    batch.LARGE = 0 if how == "regions" else 1 << 60
    model = bright(dims) if name == "bright" else Library().load(name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    plan = batch.plan_batch([source], target, model, BatchSettings(SegmentSettings(device="cpu")))
    *_, end = batch.run_batch(plan, model)
    assert isinstance(end, batch.BatchDone)
    assert end.report.complete, end.report
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    labels = open_image(target).array
    objects = max(int(np.asarray(labels[i : i + 64]).max()) for i in range(0, labels.shape[0], 64))
    print(f"{spent:.1f} {peak / 1024:.0f} {before / 1024:.0f} {objects}")


def row(folder: Path, source: Path, how: str, name: str, edge: int, dims: int) -> dict[str, Any]:
    """Measure one way in a process of its own and print it."""
    target = folder / "labels.zarr"
    code = (
        "from benchmarks.memory import *; "
        f"measure({how!r}, {name!r}, {dims}, Path({str(source)!r}), Path({str(target)!r}))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    result: dict[str, Any] = {"image": "x".join([str(edge)] * dims), "way": how, "model": name}
    if done.returncode:
        result["failed"] = (done.stderr.strip().splitlines() or ["killed"])[-1]
        print(f"{result['image']:>12} {how:>8} {result['failed']}", flush=True)
    else:
        spent, peak, before, objects = map(float, done.stdout.split())
        speed = edge**dims / 1e6 / spent
        result |= {"cpu seconds": spent, "peak MB": peak, "above the interpreter MB": peak - before, "objects": objects}
        print(
            f"{result['image']:>12} {how:>8} {spent:>8.1f} {speed:>6.2f} {peak:>8.0f} {peak - before:>11.0f} "
            f"{objects:>9.0f}",
            flush=True,
        )
    for left in (target, *folder.glob(".labels.zarr*")):
        shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return result


def main() -> None:
    """Print a row for each size and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("edges", nargs="*", type=int)
    parser.add_argument("--volume", nargs="*", type=int, default=[])
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--way", choices=("regions", "at once"))
    parser.add_argument("--json")
    given = parser.parse_args()
    squares = given.edges or ([] if given.volume else [2048, 4096, 8192])
    rows = []
    print(f"{'image':>12} {'way':>8} {'CPU s':>8} {'Mpx/s':>6} {'peak MB':>8} {'above start':>11} {'objects':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for edge, dims in [(n, 2) for n in squares] + [(n, 3) for n in given.volume]:
            source = Path(folder) / "image.zarr"
            make(source, edge, dims)
            for how in [given.way] if given.way else ("regions", "at once"):
                rows.append(row(Path(folder), source, how, given.model, edge, dims))
            shutil.rmtree(source)
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
