"""How fast, how exact, how much memory: ours beside three peers' ways and one eager pass, and as the work grows.

    python -m benchmarks.speed                  the short form: 1024² and a small volume, two rounds, under three minutes
    python -m benchmarks.speed --full           2048² and 128 x 256 x 256
    python -m benchmarks.speed --growth         time and memory against the edge of the image, up to 16384² and 512³;
                                                with --picture FILE.png plotted too
    python -m benchmarks.speed --objects        from maps to labels, stage by stage
    python -m benchmarks.speed --training       50 steps of a round, and what of them goes into drawing augmented patches
    python -m benchmarks.speed --gate           768² and the small volume beside MONAI alone, as CI runs it; fails below
                                                the ratios that hold on any machine

Every contestant has a process of its own, with the same network (base 32 in 2D, 16 in 3D, four poolings, random weights
with statistics of random images) and the same image. Rounds are interleaved, and ratios are taken within a round, so
that a busy machine slows all alike; CPU time counts for more than wall time. "differs" is the largest difference to one
eager pass over the whole image (for bioimageio.core, which mirrors its border, over the mirrored one),
relative to the largest logit; "labels" is the part of the pixels whose class changes. The rate counts what the network
needs once for each pixel of the image, so whatever is computed twice lowers it; beside it stand a matrix product and a
single convolution, measured in the same rounds: the machine's limit.

The peers: MONAI's sliding window with an overlap of a quarter; the same with the settings of nnU-Net's predictor (windows
of 512 pixels, in 3D of MONAI's size; half a window apart, Gaussian weights; without its mirrored copies, which take 4 times
as long in 2D and 8 in 3D); that predictor itself, where `--nnunet FOLDER` names the packages of an environment with it
(`pip install nnunetv2==2.8.1`), which run on our torch; and bioimageio.core with blocks of its default size, run on the package
that we export, with its PyTorch weights and our halo.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np

Run = Callable[[], Any]
WARM = {2: 96, 3: 32}
"""Edge of the small image on which each contestant warms up, by dimensions."""
CORNER = 2048
"""Edge of what is compared with one pass over the mirrored image."""
GROWTH = {2: (512, 1024, 2048, 4096, 8192, 16384), 3: (64, 128, 256, 512)}
GATES = {2: 1.5, 3: 2.5}
"""Smallest ratio of CPU time, the better of MONAI's to ours, that any machine must reach, by dimensions."""
LARGEST_DIFFERENCE, MOST_LABELS = 2e-5, 1e-5


@dataclass(frozen=True)
class Work:
    """A network and an image."""

    shape: tuple[int, ...]
    base: int
    threads: int
    window: int
    """Edge of MONAI's window."""
    depth: int = 4
    nnunet: str = ""
    """A folder of packages with nnU-Net's."""

    @property
    def dims(self) -> int:
        return len(self.shape)


def shape_of(work: Work) -> Any:
    """Return the specification of the network."""
    from napari_unet import UNetSpec

    return UNetSpec(dims=work.dims, out_channels=3, channels=tuple(work.base * 2**i for i in range(work.depth + 1)))


def network(work: Work) -> Any:
    """Return a network with fixed random weights."""
    import torch

    from napari_unet.engine.unet import UNet

    torch.manual_seed(0)
    result = UNet(shape_of(work)).train()
    with torch.no_grad():
        for _ in range(2):
            result(torch.rand(2, 1, *(64 if work.dims == 2 else 32,) * work.dims))
    return result.eval()


def picture(shape: tuple[int, ...]) -> np.ndarray:
    """Return noise whose contrast varies from place to place."""
    return np.random.default_rng(0).random(shape, dtype=np.float32) * np.linspace(0.1, 1.5, shape[-1], dtype=np.float32)


def ours(work: Work, image: np.ndarray) -> Run:
    """Level by level, as `segment` does on the CPU."""
    from napari_unet.engine.image import Image
    from napari_unet.engine.levels import Levels
    from napari_unet.engine.tiling import TilePlan, canvas

    item = next(Image(image, "zyx"[-work.dims :]).items(work.dims))
    levels = Levels(network(work))

    def run() -> np.ndarray:
        result = np.empty((3, *image.shape), dtype=np.float32)
        block = levels.largest_block(image.shape, canvas(levels.spec, image.shape))
        plan = TilePlan.make(levels.spec, image.shape, block)
        for tile in plan:
            for part in levels.run(item.read_mirrored, tile.inner, plan.canvas):
                if part is not None:
                    result[(slice(None), *part[0])] = part[1]
        return result

    return run


def whole_tiles(work: Work, image: np.ndarray) -> Run:
    """Our tiles through the whole network, with its whole context: the simple way."""
    from napari_unet.engine.execution import Executor, run_tiles
    from napari_unet.engine.image import Image
    from napari_unet.engine.tiling import TilePlan, halo

    item = next(Image(image, "zyx"[-work.dims :]).items(work.dims))
    executor = Executor(network(work), "cpu")

    def run() -> np.ndarray:
        result = np.empty((3, *image.shape), dtype=np.float32)
        plan = TilePlan.make(executor.spec, image.shape, executor.largest_tile(halo(executor.spec)))
        for tile, logits in run_tiles(executor, item.read_mirrored, plan):
            result[(slice(None), *tile.inner)] = logits
        return result

    return run


def whole(work: Work, image: np.ndarray) -> Run:
    """One eager pass over the image."""
    import torch

    net, x = network(work), torch.from_numpy(image)[None, None]

    def run() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(net(x)[0].numpy())

    return run


def monai(work: Work, image: np.ndarray, batch: int) -> Run:
    """MONAI's sliding window, overlap a quarter."""
    import torch
    from monai.inferers import sliding_window_inference

    net, x = network(work), torch.from_numpy(image)[None, None]

    def run() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(
                sliding_window_inference(x, (work.window,) * work.dims, batch, net, overlap=0.25)[0].numpy()
            )

    return run


def nnunet(work: Work, image: np.ndarray) -> Run:
    """MONAI's sliding window with the settings of nnU-Net's predictor."""
    import torch
    from monai.inferers import sliding_window_inference

    net, x = network(work), torch.from_numpy(image)[None, None]
    window = window_of_nnunet(work)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(sliding_window_inference(x, window, 1, net, overlap=0.5, mode="gaussian")[0].numpy())

    return run


def nnunet_package(work: Work, image: np.ndarray) -> Run:
    """nnU-Net's own predictor, without its mirrored copies; it adds up in half precision."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        tile_step_size=0.5,
        use_gaussian=True,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.network = network(work)
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=3)
    predictor.configuration_manager = SimpleNamespace(patch_size=window_of_nnunet(work))
    x = torch.from_numpy(image).reshape(1, *(1,) * (3 - work.dims), *image.shape)
    return lambda: predictor.predict_sliding_window_return_logits(x).float().numpy().reshape(3, *image.shape)


def window_of_nnunet(work: Work) -> tuple[int, ...]:
    """Return 512 pixels each way, in 3D the size of MONAI's window; no larger than the image."""
    return tuple(min(2 * work.window if work.dims == 2 else work.window, n) for n in work.shape)


def bioimageio(work: Work, image: np.ndarray) -> Run:
    """The blocks of bioimageio.core."""
    from bioimageio import core
    from bioimageio.core.digest_spec import create_sample_for_model

    import napari_unet as nu
    from napari_unet.engine.exchange import package
    from napari_unet.engine.model import Model

    classes = ("background", "one", "two")
    model = Model(nu.ModelCard(name="random", task="semantic", classes=classes, spec=shape_of(work)), network(work))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.zip"
        path.write_bytes(package(model, b""))
        described = core.load_model_description(path)
        pipeline = core.create_prediction_pipeline(described, weight_format="pytorch_state_dict", devices=["cpu"])
    sample = create_sample_for_model(described, inputs=image[None, None])

    def run() -> np.ndarray:
        found = pipeline.predict_sample_with_blocking(sample, skip_preprocessing=True, skip_postprocessing=True)
        return np.asarray(next(iter(found.members.values())).data)[0]

    return run


def matrix_product(work: Work, image: np.ndarray) -> Run:
    """A product of two matrices of 1536²."""
    import torch

    a = torch.rand(1536, 1536)
    return lambda: a @ a


def convolution(work: Work, image: np.ndarray) -> Run:
    """Sixteen convolutions of 64 to 64 channels on tiles in the cache, channels last."""
    import torch
    from torch.nn import functional as F

    kind, layout, edge = (
        (F.conv2d, torch.channels_last, 128) if work.dims == 2 else (F.conv3d, torch.channels_last_3d, 24)
    )
    x = torch.rand(1, 64, *(edge,) * work.dims).contiguous(memory_format=layout)  # type: ignore[call-overload]
    w = torch.rand(64, 64, *(3,) * work.dims).contiguous(memory_format=layout)  # type: ignore[call-overload]

    def run() -> None:
        with torch.inference_mode():
            for _ in range(16):
                kind(x, w)  # type: ignore[operator]

    return run


NNUNET = "nnU-Net's package"
CONTESTANTS: dict[str, Callable[[Work, np.ndarray], Run]] = {
    "ours, level by level": ours,
    "ours, whole-network tiles": whole_tiles,
    "one eager pass": whole,
    "MONAI, batch 1": lambda work, image: monai(work, image, 1),
    "MONAI, batch 4": lambda work, image: monai(work, image, 4),
    "nnU-Net's settings": nnunet,
    NNUNET: nnunet_package,
    "bioimageio.core": bioimageio,
    "matrix product": matrix_product,
    "convolution": convolution,
}
LIMITS = {"matrix product", "convolution"}
PLANES_ONLY = {"bioimageio.core"}
"""What takes no image that is smaller than its halo, as these volumes are; our package tells it to mirror the border."""
GATED = ["ours, level by level", "MONAI, batch 1", "MONAI, batch 4"]


@dataclass(frozen=True)
class Measured:
    """One run."""

    wall: float
    cpu: float
    peak: int
    """Bytes above what the process held when it was ready."""


def serve(name: str, work: Work, pipe: Connection) -> None:
    """Run a contestant whenever asked; what is sent is the file to save the result in, or an empty string."""
    import torch

    if name == NNUNET:
        sys.path.append(work.nnunet)  # behind our own
    torch.set_num_threads(work.threads)
    edge = 512 if name in PLANES_ONLY else WARM[work.dims]
    small = replace(work, shape=(edge,) * work.dims, window=edge // 2)
    CONTESTANTS[name](small, picture(small.shape))()
    run = CONTESTANTS[name](work, picture(work.shape))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pipe.send(None)
    while (path := pipe.recv()) is not None:
        began, cpu = time.perf_counter(), time.process_time()
        result = run()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if path:
            np.save(path, result)
        del result
        pipe.send(Measured(wall, cpu, peak * 1024))


def contest(work: Work, names: list[str], rounds: int, folder: Path) -> dict[str, list[Measured]]:
    """Let all run in turn; the results of the last round are in the folder."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name in names:
        here, there = context.Pipe()
        context.Process(target=serve, args=(name, work, there), daemon=True).start()
        there.close()  # so that one that fails is noticed
        here.recv()
        pipes[name] = here
    measured: dict[str, list[Measured]] = {name: [] for name in names}
    for i in range(rounds):
        for name, pipe in pipes.items():
            pipe.send(str(folder / f"{name}.npy") if i == rounds - 1 and name not in LIMITS else "")
            measured[name].append(pipe.recv())
    for pipe in pipes.values():
        pipe.send(None)
    return measured


def reference(work: Work, folder: Path) -> None:
    """Save what one eager pass gives, and for the contestant that mirrors what it gives of the corner of a mirrored image."""
    import torch

    from napari_unet.engine.tiling import halo

    torch.set_num_threads(work.threads)
    image, net = picture(work.shape), network(work)
    with torch.inference_mode():
        np.save(folder / "zeros.npy", net(torch.from_numpy(image)[None, None])[0].numpy())
    if work.dims == 3:
        return
    margin = halo(net.spec)
    corner = tuple(min(n, CORNER) for n in image.shape)
    padded = np.pad(image, [(m, m) for m in margin], mode="reflect")
    padded = padded[tuple(slice(0, n + 2 * m) for n, m in zip(corner, margin, strict=True))]
    inner = tuple(slice(m, m + n) for m, n in zip(margin, corner, strict=True))
    with torch.inference_mode():
        np.save(folder / "mirrored.npy", net(torch.from_numpy(padded)[None, None])[0].numpy()[(slice(None), *inner)])


def difference(found: Path, expected: Path) -> tuple[float, float]:
    """Return the largest relative difference and the part of the labels that changes, where something is expected."""
    b = np.load(expected)
    a = np.load(found)[tuple(slice(0, n) for n in b.shape)]
    return float(np.abs(a - b).max() / np.abs(b).max()), float((a.argmax(0) != b.argmax(0)).mean())


def operations(work: Work) -> float:
    """Return the floating-point operations that the network needs for the image, each pixel once."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from napari_unet.engine.unet import UNet

    edge = (64 if work.dims == 2 else 32,) * work.dims
    with torch.device("meta"):
        net, x = UNet(shape_of(work)).eval(), torch.empty(1, 1, *edge)
    with FlopCounterMode(display=False) as counter:
        net(x)
    return counter.get_total_flops() / math.prod(edge) * math.prod(work.shape)


def compare(work: Work, rounds: int, names: list[str]) -> list[dict[str, Any]]:
    """Print and return the table of one work; ours is the first name."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measured = contest(work, names, rounds, folder)
        child = multiprocessing.get_context("spawn").Process(target=reference, args=(work, folder))
        child.start()
        child.join()
        differences = {
            n: difference(folder / f"{n}.npy", folder / ("mirrored.npy" if n in PLANES_ONLY else "zeros.npy"))
            for n in names
            if n not in LIMITS
        }
    flops = operations(work)
    counted = {
        "matrix product": 2 * 1536**3,
        "convolution": 16 * 2 * 64 * 64 * 3**work.dims * (126**2 if work.dims == 2 else 22**3),
    }
    size = " x ".join(map(str, work.shape))
    print(f"\n{size}, base {work.base}, {work.threads} threads, {rounds} rounds, {flops / 1e9:.0f} GFLOP")
    heads = [("wall s", 8), ("CPU s", 8), ("x wall", 8), ("x CPU", 8), ("GFLOP/CPU s", 13), ("peak MB", 9)]
    print(" " * 27 + "".join(f"{h:>{n}}" for h, n in [*heads, ("differs", 10), ("labels", 11)]))
    rows = []
    first = measured[names[0]]
    for name in names:
        runs = measured[name]
        row = {
            "name": name,
            "shape": work.shape,
            "base": work.base,
            "threads": work.threads,
            "wall": median(r.wall for r in runs),
            "cpu": median(r.cpu for r in runs),
            "times_wall": median(r.wall / f.wall for r, f in zip(runs, first, strict=True)),
            "times_cpu": median(r.cpu / f.cpu for r, f in zip(runs, first, strict=True)),
            "rate": median(counted.get(name, flops) / r.cpu / 1e9 for r in runs),
            "peak": max(r.peak for r in runs) / 2**20,
            "runs": [asdict(r) for r in runs],
        }
        text = f"{name:27}{row['wall']:8.2f}{row['cpu']:8.2f}"
        if name in LIMITS:
            text += f"{'':16}{row['rate']:13.0f}"
        else:
            row["differs"], row["labels"] = differences[name]
            text += f"{row['times_wall']:8.2f}{row['times_cpu']:8.2f}{row['rate']:13.0f}{row['peak']:9.0f}"
            text += f"{row['differs']:10.1e}{row['labels']:11.5%}"
        print(text, flush=True)
        rows.append(row)
    return rows


def check(rows: list[dict[str, Any]]) -> None:
    """Exit with a sentence if a gate is missed."""
    for shape in {row["shape"] for row in rows}:
        here = {row["name"]: row for row in rows if row["shape"] == shape}
        ratio = min(row["times_cpu"] for name, row in here.items() if name.startswith("MONAI"))
        if ratio < GATES[len(shape)]:
            sys.exit(f"{shape}: MONAI takes only {ratio:.2f} times our CPU time, not {GATES[len(shape)]}.")
        mine = here["ours, level by level"]
        if mine["differs"] > LARGEST_DIFFERENCE or mine["labels"] > MOST_LABELS:
            sys.exit(f"{shape}: level by level differs by {mine['differs']:.1e}, labels by {mine['labels']:.5%}.")


def measure_growth(dims: int, edge: int, threads: int, pipe: Connection) -> None:
    """Segment a picture with the shipped model, or in 3D with a random one of base 8; send time and memory."""
    import torch

    import napari_unet as nu
    from napari_unet.engine.image import Image
    from napari_unet.engine.inference import segment
    from napari_unet.engine.model import new_model
    from napari_unet.engine.settings import SegmentSettings
    from napari_unet.samples import load

    torch.set_num_threads(threads)
    if dims == 2:
        model = nu.load_model("nuclei")
        sample = np.asarray(load("nuclei")[0].array)
        image = np.tile(sample, [-(-edge // n) for n in sample.shape])[:edge, :edge]
    else:
        spec = nu.UNetSpec(dims=3, channels=(8, 16, 32, 64))
        model, image = new_model(nu.ModelCard(name="random", task="semantic", spec=spec)), picture((edge,) * 3)
    settings = SegmentSettings(device="cpu")
    list(segment(Image(image[(slice(0, 48),) * dims], "zyx"[-dims:]), model, settings))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu = time.perf_counter(), time.process_time()
    gaps, last, first = [], began, 0.0
    middle = tuple(slice(n // 2 - 50, n // 2 + 50) for n in image.shape) if dims == 2 else None
    for event in segment(Image(image, "zyx"[-dims:]), model, settings, in_view=middle):
        gaps.append(time.perf_counter() - last)
        last = time.perf_counter()
        if not first and type(event).__name__ == "TileDone" and event.labels.size:
            first = last - began
    wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    pipe.send({"wall": wall, "cpu": cpu, "peak": peak, "first": first, "gap": max(gaps[1:-3])})


def growth(threads: int) -> list[dict[str, Any]]:
    """Print and return time and memory against the edge of the image, all of `segment`."""
    context = multiprocessing.get_context("spawn")
    print(
        f"{'edge':>10}{'wall s':>9}{'CPU s':>9}{'us/pixel':>10}{'peak MB':>9}{'B/pixel':>9}{'first s':>9}{'gap ms':>8}"
    )
    rows = []
    for dims, edges in GROWTH.items():
        for edge in edges:
            here, there = context.Pipe()
            child = context.Process(target=measure_growth, args=(dims, edge, threads, there))
            child.start()
            row = here.recv() | {"dims": dims, "edge": edge, "threads": threads}
            child.join()
            pixels = edge**dims
            print(
                f"{edge:>8}^{dims}{row['wall']:9.2f}{row['cpu']:9.2f}{row['cpu'] / pixels * 1e6:10.2f}"
                f"{row['peak'] / 2**20:9.0f}{row['peak'] / pixels:9.0f}{row['first']:9.2f}{row['gap'] * 1e3:8.0f}",
                flush=True,
            )
            rows.append(row)
    return rows


def plot(rows: list[dict[str, Any]], target: Path) -> None:
    """Draw time and memory against the number of pixels, both axes in powers of ten, beside lines of slope one."""
    import pyqtgraph as pg
    from pyqtgraph.exporters import ImageExporter

    pg.setConfigOptions(background="w", foreground="k", antialias=True)
    app = pg.mkQApp()
    window = pg.GraphicsLayoutWidget(size=(1000, 420))
    for column, (key, unit, title) in enumerate((("cpu", 1, "CPU time, s"), ("peak", 2**20, "peak memory, MB"))):
        axes = window.addPlot(row=0, col=column, title=title)
        axes.setLogMode(x=True, y=True)
        axes.showGrid(x=True, y=True, alpha=0.3)
        axes.setLabel("bottom", "pixels")
        axes.addLegend(offset=(10, 10))
        for dims, colour in ((2, "#3d5af1"), (3, "#d1495b")):
            mine = [row for row in rows if row["dims"] == dims]
            pixels = np.array([row["edge"] ** row["dims"] for row in mine], dtype=float)
            values = np.array([row[key] / unit for row in mine])
            axes.plot(pixels, values, pen=pg.mkPen(colour, width=2), symbol="o", symbolBrush=colour, name=f"{dims}D")
            dashed = pg.mkPen(colour, style=pg.QtCore.Qt.PenStyle.DashLine)
            axes.plot(pixels, values[-1] * pixels / pixels[-1], pen=dashed, name=f"{dims}D, linear")
    window.show()
    app.processEvents()
    ImageExporter(window.scene()).export(str(target))
    print(f"The plot is in {target}.")


def maps_of(edge: int, across: int) -> np.ndarray:
    """Return noisy maps of a grid of ellipses, as a network gives them; some touch."""
    from scipy import ndimage

    from napari_unet.engine.objects import targets

    rng = np.random.default_rng(0)
    truth = np.zeros((edge, edge), dtype=np.int32)
    y, x = np.mgrid[-12:13, -12:13]
    for i, place in enumerate(np.ndindex(across, across), start=1):
        row, column = (min(max(int((p + 0.5) * edge / across + rng.integers(-3, 4)), 12), edge - 13) for p in place)
        window = truth[row - 12 : row + 13, column - 12 : column + 13]
        high, wide = rng.uniform(5, 10, 2)
        window[((y / high) ** 2 + (x / wide) ** 2 <= 1) & (window == 0)] = i
    maps = ndimage.gaussian_filter(targets(truth + 1)[0], (0, 1, 1))
    return np.clip(maps + rng.normal(0, 0.03, maps.shape), 0, 1).astype(np.float16)


def objects() -> list[dict[str, Any]]:
    """Print and return the time from maps to labels: 2048², ten thousand objects."""
    from napari_unet.engine.objects import labels_from_maps
    from napari_unet.engine.settings import ObjectSettings

    maps, rows = maps_of(2048, 100), []
    print(f"{'seed threshold':>15}{'objects':>9}{'wall s':>8}{'CPU s':>8}")
    for threshold in (0.3, 0.5, 0.8):
        began, cpu = time.perf_counter(), time.process_time()
        labels = labels_from_maps(maps, ObjectSettings(seed_threshold=threshold))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        rows.append({"seed_threshold": threshold, "objects": int(labels.max()), "wall": wall, "cpu": cpu})
        print(f"{threshold:15}{labels.max():9}{wall:8.2f}{cpu:8.2f}", flush=True)
    return rows


class Clocked:
    """Batches, with the CPU time that they took."""

    def __init__(self, batches: Any) -> None:
        self._batches, self.cpu = batches, 0.0

    def batch(self, network: Any) -> Any:
        """Return the next batch."""
        cpu = time.process_time()
        drawn = self._batches.batch(network)
        self.cpu += time.process_time() - cpu
        return drawn


def training(rounds: int, threads: int) -> list[dict[str, Any]]:
    """Print and return the time of 50 steps of `nuclei` with the app's settings, on its sample and what it finds there."""
    import torch

    import napari_unet as nu
    from benchmarks.paint_and_retrain import normalised
    from napari_unet.engine.annotation import Annotation, TrainingSet
    from napari_unet.engine.settings import TrainSettings
    from napari_unet.engine.training import Sampler, optimise
    from napari_unet.samples import load

    torch.set_num_threads(threads)
    model, image = nu.load_model("nuclei"), np.asarray(load("nuclei")[0].array)
    shown = Annotation(normalised(image, model.card), nu.segment(image, model=model) + 1)
    settings, rows = TrainSettings(steps=50, device="cpu"), []
    print(f"{'wall s':>8}{'CPU s':>8}{'patches':>9}")
    for _ in range(rounds):
        batches = Clocked(Sampler(TrainingSet((shown,)), model.card, settings))
        clocks = [(time.perf_counter(), time.process_time(), batches.cpu)]
        for _ in optimise(model, batches, settings, lambda _: None):
            clocks.append((time.perf_counter(), time.process_time(), batches.cpu))
        wall, cpu, _ = np.subtract(clocks[-1], clocks[0])
        # before the first event, patches are drawn for the statistics as well
        _, steps, drawing = np.subtract(clocks[-1], clocks[1])
        rows.append({"wall": wall, "cpu": cpu, "patches": drawing / steps, "threads": threads})
        print(f"{wall:8.2f}{cpu:8.2f}{drawing / steps:9.1%}", flush=True)
    return rows


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--growth", action="store_true")
    parser.add_argument("--objects", action="store_true")
    parser.add_argument("--training", action="store_true")
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nnunet", default="", help="a folder of packages, nnunetv2 among them")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="of --growth")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    everyone = [name for name in CONTESTANTS if name != NNUNET or options.nnunet]
    of_volumes = [name for name in everyone if name not in PLANES_ONLY]
    of_large_volumes = [name for name in of_volumes if name != "ours, whole-network tiles"]  # they would take an hour
    work = partial(Work, threads=options.threads, nnunet=options.nnunet)
    small = work((64, 128, 128), 16, window=64, depth=3)
    if options.growth:
        rows = growth(options.threads)
        if options.picture:
            plot(rows, options.picture)
    elif options.objects:
        rows = objects()
    elif options.training:
        rows = training(options.rounds, options.threads)
    elif options.full:
        rows = compare(work((2048, 2048), 32, window=256), options.rounds, everyone)
        rows += compare(work((128, 256, 256), 16, window=96), 1, of_large_volumes)
    elif options.gate:
        rows = compare(work((768, 768), 32, window=256), options.rounds, GATED)
        rows += compare(small, 1, GATED)
    else:
        rows = compare(work((1024, 1024), 32, window=256), options.rounds, everyone)
        rows += compare(small, 1, of_volumes)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    if options.gate:
        check(rows)


if __name__ == "__main__":
    main()
