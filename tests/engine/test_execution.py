"""An executor on a device of low precision: compared with the processor once, and what is done when it differs.

The processor stands in for such a device: with PRECISE emptied, it computes in bfloat16 as they do.
"""

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from napari_unet.engine import execution
from napari_unet.engine.card import UNetSpec
from napari_unet.engine.errors import DeviceError
from napari_unet.engine.execution import LARGEST_ERROR, Executor, trial
from napari_unet.engine.unet import UNet

from .conftest import make_model, with_statistics

VALID = UNetSpec(channels=(2, 4), padding="valid", norm="none")


@pytest.fixture
def imprecise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "PRECISE", set())


def difference(network: UNet, executor: Executor) -> float:
    tile = trial(network.spec)
    with torch.inference_mode():
        expected = network(torch.from_numpy(tile)).numpy()
    return float(np.abs(executor(tile) - expected).max() / np.abs(expected).max())


@pytest.mark.usefixtures("imprecise")
@pytest.mark.parametrize(
    "network", [make_model().network, make_model(dims=3).network, UNet(VALID).eval()], ids=["2D", "3D", "valid"]
)
def test_half_precision_is_kept_where_it_only_rounds(network: UNet, caplog: pytest.LogCaptureFixture) -> None:
    assert 1e-5 < difference(network, Executor(network, "cpu")) < LARGEST_ERROR / 2
    assert not caplog.records


def broken(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Let the network compute something else in half precision, or always but on the processor."""
    forward, calls = UNet.forward, 0

    def wrong(self: UNet, x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        is_off = x.dtype == torch.bfloat16 if when == "in half precision" else calls > 1
        return forward(self, x) * (1 + is_off)

    monkeypatch.setattr(UNet, "forward", wrong)


@pytest.mark.usefixtures("imprecise")
def test_single_precision_is_used_where_half_is_wrong(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    network = with_statistics(UNet(UNetSpec(channels=(2, 4))))
    broken(monkeypatch, "in half precision")
    with caplog.at_level(logging.WARNING):
        executor = Executor(network, "cpu")
    assert difference(network, executor) < 1e-5
    assert [r.message for r in caplog.records] == [
        "Half precision on cpu computes something else than the processor: single precision is used."
    ]


@pytest.mark.usefixtures("imprecise")
def test_a_device_that_is_always_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "always")
    with pytest.raises(DeviceError, match="'cpu' computes something else than the processor: choose the device cpu"):
        Executor(UNet(UNetSpec(channels=(2, 4))).eval(), "cpu")


def test_the_processor_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    broken(monkeypatch, "always")
    Executor(UNet(UNetSpec(channels=(2, 4))).eval(), "cpu")
