"""The way of arrays to a device and back: on CUDA the copies run beside the computing, through pinned memory used again."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RAW = {np.dtype(t) for t in (np.uint8, np.int8, np.uint16, np.int16)}
"""Integers that go to a device as they are; a float32 holds each of their values."""
UNSIGNED = 0xFFFF
"""What of an int32 is a uint16: not every torch and device can compute with that type itself."""


def pinned(size: int) -> Tensor:
    """Return so many bytes of the host's memory that a device copies from and to by itself."""
    return torch.empty(size, dtype=torch.uint8, pin_memory=True)


class _Buffer:
    """Pinned memory that is used again as soon as the last copy from it or to it is done."""

    def __init__(self) -> None:
        self._memory: Tensor | None = None
        self.copied = torch.cuda.Event()

    def take(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        self.copied.synchronize()
        size = math.prod(shape) * dtype.itemsize
        if self._memory is None or self._memory.numel() < size:
            self._memory = pinned(size)
        return self._memory[:size].view(dtype).view(shape)


class Conveyor:
    """Takes arrays up to a device and brings tensors down.

    On CUDA neither waits for the computing, nor the computing for it: a stream and two buffers of pinned memory for each
    way. Where such memory cannot be had, and on other devices, arrays are copied plainly.
    """

    def __init__(self, device: str, *, pins: bool | None = None) -> None:
        self._device = torch.device(device)
        self._pins = self._device.type == "cuda" if pins is None else pins
        if not self._pins:
            return
        try:
            self._up, self._down = (torch.cuda.Stream(self._device) for _ in range(2))
            self._to, self._back = (itertools.cycle((_Buffer(), _Buffer())) for _ in range(2))
            self._pins = self._carries()
        except RuntimeError:
            self._pins = False
        if not self._pins:
            logging.getLogger(__name__).warning("Pinned memory of %s cannot be used: plain copies are made.", device)

    def _carries(self) -> bool:
        """Tell whether arrays come back as they went, with each buffer used twice and the next under way."""
        sent = [np.arange(10 * n, 10 * n + 7, dtype=np.float32) for n in range(4)]
        coming = [self.down(self.up(array)) for array in sent[:2]]
        back = []
        for array in sent[2:]:
            back.append(coming.pop(0)())
            coming.append(self.down(self.up(array)))
        return all(map(np.array_equal, sent, [*back, *(arrived() for arrived in coming)]))

    def up(self, array: NDArray[np.generic]) -> Tensor:
        """Return an array on the device: its values as float32, or integers if it is of one of the types in RAW."""
        if array.dtype not in RAW:
            array = array.astype(np.float32, copy=False)
        unsigned = array.dtype == np.uint16
        here = np.require(array.view(np.int16) if unsigned else array, requirements=("C", "W"))  # else torch warns
        there = self._there(torch.from_numpy(here))
        return there.to(torch.int32) & UNSIGNED if unsigned else there

    def _there(self, here: Tensor) -> Tensor:
        if not self._pins:
            return here.to(self._device)
        buffer = next(self._to)
        staged = buffer.take(here.shape, here.dtype).copy_(here)
        with torch.cuda.stream(self._up):
            there = staged.to(self._device, non_blocking=True)
        buffer.copied.record(self._up)
        computing = torch.cuda.current_stream(self._device)
        computing.wait_stream(self._up)
        there.record_stream(computing)
        return there

    def down(self, there: Tensor) -> Callable[[], NDArray[np.generic]]:
        """Start to bring a tensor back; the function that is returned waits for it. At most two are under way."""
        if not self._pins:
            return lambda: np.asarray(there.cpu().numpy())
        buffer = next(self._back)
        here = buffer.take(there.shape, there.dtype)
        self._down.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._down):
            here.copy_(there, non_blocking=True)
        there.record_stream(self._down)
        buffer.copied.record(self._down)

        def arrived() -> NDArray[np.generic]:
            buffer.copied.synchronize()
            return np.array(here.numpy())

        return arrived
