"""No network, whatever is done: what SECURITY.md promises."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

import napari_unet
from napari_unet.engine.batch import plan_batch, run_batch
from napari_unet.engine.click import Click, ClickSegmenter
from napari_unet.engine.image import Image
from napari_unet.engine.lesson import Lesson, teach
from napari_unet.engine.library import Library
from napari_unet.engine.settings import BatchSettings, SegmentSettings, TrainSettings


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Sockets that reach out are noted and refused; a pair inside the process (asyncio's) is none."""
    tried: list[object] = []

    def refuse(_: socket.socket, address: object) -> None:
        tried.append(address)
        raise OSError(101, "Network is unreachable")

    def unknown(host: object, *_: object, **__: object) -> None:
        tried.append(host)
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    return tried


def test_nothing_reaches_out(closed: list[object], tmp_path: Path) -> None:
    """Segment, click, teach, save, a batch to OME-Zarr: one after the other."""
    pixels = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    napari_unet.segment(pixels, "nuclei", device="cpu")
    segmenter = ClickSegmenter(device="cpu")
    segmenter.set_image(pixels)
    segmenter.segment([Click((30, 30))])
    labels = np.zeros((64, 64), np.uint8)
    labels[10:20, 10:20], labels[40:50, 40:50] = 2, 1
    model = napari_unet.load_model("nuclei")
    *_, end = teach(model, [Lesson(Image(pixels, "yx"), labels)], TrainSettings(steps=1, patch=32, device="cpu"))
    Library().add(end.model)
    np.save(tmp_path / "a.npy", pixels)
    settings = BatchSettings(SegmentSettings(device="cpu"), ending=".zarr")
    *_, done = run_batch(plan_batch([tmp_path / "a.npy"], tmp_path / "out/", model, settings), model)
    assert done.report.complete
    assert closed == []
