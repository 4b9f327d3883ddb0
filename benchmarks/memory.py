"""Peak memory of a whole run, measured in a process of its own: at once and region by region.

Run with ``python -m benchmarks.memory [EDGE ...]``: squares of so many pixels (default 2048 4096 8192), shipped model.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK = 1024


def make(path: Path, edge: int) -> None:
    """Write an image that is tiled from the sample, chunk by chunk."""
    import zarr

    from napari_unet.samples import load

    sample = np.asarray(load("nuclei")[0].array)
    unit = np.tile(sample, (4, 4))[:BLOCK, :BLOCK]
    unit = np.clip(unit / np.percentile(unit, 99.9) * 255, 0, 255).astype(np.uint8)
    array = zarr.create_array(
        str(path), shape=(edge, edge), chunks=(BLOCK, BLOCK), dtype="u1", dimension_names=["y", "x"]
    )
    for y in range(0, edge, BLOCK):
        for x in range(0, edge, BLOCK):
            array[y : y + BLOCK, x : x + BLOCK] = unit[: edge - y, : edge - x]


def measure(how: str, source: Path, target: Path) -> None:
    """Segment, and print seconds, peak memory in MB, that of the interpreter with all imports, and objects."""
    from napari_unet.engine import batch
    from napari_unet.engine.library import Library
    from napari_unet.engine.settings import BatchSettings, SegmentSettings

    batch.LARGE = 0 if how == "regions" else 1 << 60
    model = Library().load("nuclei")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    plan = batch.plan_batch([source], target, model, BatchSettings(SegmentSettings(device="cpu")))
    *_, end = batch.run_batch(plan, model)
    assert isinstance(end, batch.BatchDone)
    assert end.report.complete, end.report
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{time.perf_counter() - began:.1f} {peak / 1024:.0f} {before / 1024:.0f}")


def main() -> None:
    """Print a row for each size and way."""
    edges = [int(a) for a in sys.argv[1:]] or [2048, 4096, 8192]
    print(f"{'edge':>6} {'way':>8} {'seconds':>8} {'Mpx/s':>6} {'peak MB':>8} {'above start':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for edge in edges:
            source = Path(folder) / "image.zarr"
            make(source, edge)
            for how in ("regions", "at once"):
                target = Path(folder) / "labels.zarr"
                code = (
                    f"from benchmarks.memory import *; measure({how!r}, Path({str(source)!r}), Path({str(target)!r}))"
                )
                done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
                if done.returncode:
                    print(f"{edge:>6} {how:>8} {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
                else:
                    seconds, peak, before = map(float, done.stdout.split())
                    speed = edge**2 / 1e6 / seconds
                    print(
                        f"{edge:>6} {how:>8} {seconds:>8.1f} {speed:>6.2f} {peak:>8.0f} {peak - before:>11.0f}",
                        flush=True,
                    )
                shutil.rmtree(target, ignore_errors=True)
                for left in Path(folder).glob(".labels.zarr*"):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()
            shutil.rmtree(source)


if __name__ == "__main__":
    main()
