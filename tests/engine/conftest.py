"""Small networks and images that the engine's tests share."""

import numpy as np
import pytest
import torch

from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.model import Model
from napari_unet.engine.unet import UNet


def with_statistics(network: UNet, seed: int = 0) -> UNet:
    """Give BatchNorm the statistics of random images, as a trained network has."""
    if network.spec.norm == "none":
        return network.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network.train()
        shape = (32, 64, 64)[-network.spec.dims :] if network.spec.dims == 2 else (16, 32, 32)
        with torch.no_grad():
            for _ in range(20):
                network(torch.rand(2, network.spec.in_channels, *shape))
    return network.eval()


def make_model(dims: int = 2, task: str = "semantic", in_channels: int = 1, channels=(4, 8, 16), **card) -> Model:
    """Return a small model with fixed random weights."""
    outputs = {"semantic": len(card.get("classes", ("background", "foreground"))), "objects": 3, "click": 1}[task]
    spec = UNetSpec(dims=dims, in_channels=in_channels, out_channels=outputs, channels=channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = UNet(spec)
    return Model(ModelCard(name=card.pop("name", "tiny"), task=task, spec=spec, **card), with_statistics(network))


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def tiny() -> Model:
    return make_model()


def discs(shape=(96, 96), centers=((24, 24), (24, 64), (66, 40)), radius=10) -> np.ndarray:
    """Return instance labels of discs."""
    y, x = np.indices(shape)
    labels = np.zeros(shape, dtype=np.int32)
    for i, (cy, cx) in enumerate(centers, start=1):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= radius**2] = i
    return labels
