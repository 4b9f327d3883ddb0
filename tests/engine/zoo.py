"""Packages of other programs, made with their own tools: torch.onnx and the official library of the bioimage.io."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    """A U-Net with one pooling, which reaches 4 pixels far; not one of ours."""

    def __init__(self, dims: int = 2, channels: int = 1, outputs: int = 1, eaten: int = 0, gain: float = 1.0) -> None:
        super().__init__()
        conv, pool = (nn.Conv2d, nn.MaxPool2d) if dims == 2 else (nn.Conv3d, nn.MaxPool3d)
        self.first = conv(channels, 4, 3, padding=1)
        self.deep = nn.Sequential(pool(2), conv(4, 6, 3, padding=1), nn.LeakyReLU(), nn.Upsample(scale_factor=2))
        self.last = conv(10, outputs, 1)
        self.eaten, self.gain = eaten, gain

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = self.gain * self.last(torch.cat([x, self.deep(x)], dim=1))
        if not self.eaten:
            return x
        e = self.eaten
        return x[:, :, e:-e, e:-e]


def net(**kwargs: Any) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Net(**kwargs).eval()


def onnx_bytes(network: nn.Module, shape: tuple[int, ...], *, free: bool = True) -> bytes:
    """Export as other people do."""
    file = io.BytesIO()
    axes = {i: name for i, name in enumerate("bczyx" if len(shape) == 5 else "bcyx") if i != 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(shape),),
            file,
            dynamo=False,
            opset_version=17,
            input_names=["raw"],
            output_names=["prediction"],
            dynamic_axes={"raw": axes, "prediction": axes} if free else None,
        )
    return file.getvalue()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def answer(network: nn.Module, prepared: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(prepared.astype(np.float32))).numpy()


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


ABOUT: dict[str, Any] = {
    "description": "Finds cells.",
    "authors": [{"name": "A. Body"}],
    "cite": [{"text": "Body: Cells (2024)", "doi": "10.1000/182"}],
    "license": "MIT",
}
"""What packages of both formats say of themselves."""


def entry(files: dict[str, bytes], name: str) -> dict[str, str]:
    return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}


def record(files: dict[str, bytes], **changes: Any) -> dict[str, Any]:
    """Return a description of format 0.5: probabilities by a sigmoid, sizes 32 + 16 n, a halo of 8."""
    spatial = [{"type": "space", "id": a, "size": {"min": 32, "step": 16}} for a in "yx"]
    outer = [
        {"type": "space", "id": a, "halo": 8, "size": {"tensor_id": "raw", "axis_id": a, "offset": 0}} for a in "yx"
    ]
    described = {
        "type": "model",
        "format_version": "0.5.3",
        "name": "Cells of somebody",
        **ABOUT,
        "documentation": entry(files, "README.md"),
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["grey"]}, *spatial],
                "test_tensor": entry(files, "in.npy"),
                "data": {"type": "float32"},
                "pad": {"mode": "reflect"},
                "preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}],
            }
        ],
        "outputs": [
            {
                "id": "prediction",
                "axes": [{"type": "batch"}, {"type": "channel", "channel_names": ["cell"]}, *outer],
                "test_tensor": entry(files, "out.npy"),
                "data": {"type": "float32"},
                "postprocessing": [{"id": "sigmoid"}],
            }
        ],
        "weights": {
            "onnx": {**entry(files, "weights.onnx"), "opset_version": 17},
        },
    }
    return described | changes


def cells(network: nn.Module | None = None, shape: tuple[int, ...] = (1, 1, 64, 64)) -> dict[str, bytes]:
    """Return the files that `record` describes, but for the description."""
    network = network or net()
    image = np.random.default_rng(5).integers(0, 200, shape).astype(np.float32)
    prepared = (image - image.mean()) / (image.std() + 1e-6)
    return {
        "weights.onnx": onnx_bytes(network, shape),
        "README.md": b"# Cells of somebody\n\n## Validation\n\nCompare.\n",
        "in.npy": npy(image),
        "out.npy": npy(1 / (1 + np.exp(-answer(network, prepared)))),
    }


def package(path: Path, files: dict[str, bytes], described: dict[str, Any] | None = None) -> Path:
    text = json.dumps(described if described is not None else record(files)).encode()
    return zipped(path, {**files, "rdf.yaml": text})
