"""U-Nets of others, taught on the same images for as much CPU time as ours took: MONAI's and StarDist.

Each has the recipe that its own tutorial shows, but takes images that are normalised already: the same grey values as ours.
StarDist needs TensorFlow, so it may live in an environment of its own; it is
run as a process of its own with the Python that is named:

    python -m venv PEER && PEER/bin/pip install stardist tensorflow-cpu
    python -m benchmarks paper DATA --tables crops --stardist PEER/bin/python
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Pair = tuple[Array, Array]


def monai_unet(
    pairs: Sequence[Pair], classes: int, cpu_s: float, patch: int, seed: int
) -> tuple[Callable[[Array], Array], int]:
    """Return MONAI's U-Net and the number of its steps: image in, chances of the classes ``(classes, y, x)`` out.

    Residual units, Adam at 1e-3, the sum of Dice and cross-entropy, turned and mirrored patches, four a step, and a sliding
    window with a quarter of overlap, as in MONAI's tutorials of segmentation.
    """
    import torch
    from monai.inferers import SlidingWindowInferer
    from monai.losses import DiceCELoss
    from monai.networks.nets import UNet
    from monai.transforms import Compose, RandFlipd, RandRotate90d, RandSpatialCropSamplesd
    from monai.utils import set_determinism

    set_determinism(seed)
    network = UNet(2, 1, classes, channels=(16, 32, 64, 128, 256), strides=(2, 2, 2, 2), num_res_units=2)
    draw = Compose(
        [
            RandSpatialCropSamplesd(("image", "labels"), (patch, patch), num_samples=4, random_size=False),
            RandFlipd(("image", "labels"), 0.5, 0),
            RandFlipd(("image", "labels"), 0.5, 1),
            RandRotate90d(("image", "labels"), 0.5),
        ]
    ).set_random_state(seed)
    shown = [{"image": image[None].astype(np.float32), "labels": labels[None]} for image, labels in pairs]
    loss_of = DiceCELoss(softmax=True, to_onehot_y=True)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    rng, began, steps = np.random.default_rng(seed), time.process_time(), 0
    while time.process_time() - began < cpu_s:
        drawn = draw(shown[rng.integers(len(shown))])
        x, y = (torch.stack([torch.as_tensor(np.ascontiguousarray(d[k])) for d in drawn]) for k in ("image", "labels"))
        optimizer.zero_grad()
        loss_of(network(x.float()), y).backward()
        optimizer.step()
        steps += 1
    network.eval()
    window = SlidingWindowInferer((patch, patch), 4, 0.25)

    def answer(image: Array) -> Array:
        x = torch.as_tensor(image[None, None].astype(np.float32))
        with torch.inference_mode():
            return np.asarray(window(x, network).softmax(1)[0].numpy())

    return answer, steps


def stardist(
    pairs: Sequence[Pair], images: Sequence[Array], cpu_s: float, python: str, seed: int
) -> tuple[list[Array], int]:
    """Return the objects that StarDist finds in `images`, and its training steps, from a process with one thread."""
    if shutil.which(python) is None:
        sys.exit(f"There is no Python at {python}: name one that has StarDist.")
    with tempfile.TemporaryDirectory() as folder:
        shown, found = Path(folder) / "shown.npz", Path(folder) / "found.npz"
        arrays = {f"image{i}": image for i, (image, _) in enumerate(pairs)}
        arrays |= {f"labels{i}": labels for i, (_, labels) in enumerate(pairs)}
        np.savez(shown, **arrays, **{f"asked{i}": image for i, image in enumerate(images)})
        alone = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
        command = [python, __file__, str(shown), str(found), str(cpu_s), str(seed)]
        told = subprocess.run(
            command, env=os.environ | alone | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
        )
        if told.returncode:
            sys.exit(f"StarDist did not run with {python}: {told.stderr.strip().splitlines()[-1]}")
        with np.load(found) as answers:
            return [answers[f"asked{i}"] for i in range(len(images))], int(answers["steps"])


def stardist_alone(shown: Path, found: Path, cpu_s: float, seed: int) -> None:
    """Teach StarDist until `cpu_s` seconds of this process are spent, choose its thresholds, answer. Runs where it is installed.

    32 rays on a grid of 2 x 2, batches of four turned and mirrored patches with grey values changed, one image in seven kept to
    judge by, thresholds chosen on those: as in StarDist's example notebooks.
    """
    import keras
    from stardist.models import Config2D, StarDist2D

    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    with np.load(shown) as arrays:
        count = sum(name.startswith("image") for name in arrays)
        images = [arrays[f"image{i}"] for i in range(count)]
        labels = [arrays[f"labels{i}"] for i in range(count)]
        asked = [arrays[f"asked{i}"] for i in range(len(arrays) - 2 * count)]
    kept = max(1, count // 7)
    patch = min(256, *images[0].shape)

    def augmented(image: Array, mask: Array) -> tuple[Array, Array]:
        turns, mirror = rng.integers(4), rng.random() < 0.5
        image, mask = (np.rot90(a[::-1] if mirror else a, turns) for a in (image, mask))
        image = image * rng.uniform(0.6, 2) + rng.uniform(-0.2, 0.2)
        return image + 0.02 * rng.random() * rng.normal(size=image.shape), mask

    steps, began = 0, time.process_time()

    class Until(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            nonlocal steps
            steps += 1
            self.model.stop_training = time.process_time() - began > cpu_s

    class InTime(StarDist2D):  # type: ignore[misc]
        def prepare_for_training(self, optimizer: Any = None) -> None:
            super().prepare_for_training(optimizer)
            self.callbacks.append(Until())

    with tempfile.TemporaryDirectory() as folder:
        config = Config2D(
            n_rays=32,
            grid=(2, 2),
            n_channel_in=1,
            train_patch_size=(patch, patch),
            train_epochs=10_000,
            train_steps_per_epoch=50,
            train_tensorboard=False,
        )
        model = InTime(config, name="peer", basedir=folder)
        known, judges = slice(kept, None), slice(kept)
        model.train(
            images[known],
            labels[known],
            validation_data=(images[judges], labels[judges]),
            augmenter=augmented,
            seed=seed,
        )
        model.optimize_thresholds(images[judges], labels[judges])
        answers = {f"asked{i}": model.predict_instances(a)[0] for i, a in enumerate(asked)}
    np.savez(found, steps=steps, **answers)


if __name__ == "__main__":
    stardist_alone(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
