"""How a network runs on a device: BatchNorm folded, channels last, low precision only where the hardware has it."""

from __future__ import annotations

import copy
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .card import Spec, UNetSpec
from .conveyor import Conveyor
from .errors import DeviceError, OutOfMemory
from .foreign import Foreign
from .steps import sigmoid, softmax
from .tiling import Tile, TilePlan
from .unet import UNet

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}
FLOATS_A_PIXEL = 10
"""Peak memory a pixel in units of the finest level's float32 channels; `benchmarks/tiles.py` measures 5 to 7."""
FEWEST_FLOATS = 5
"""What of them is certain."""
PRECISE = {"cpu"}
"""Devices that compute in single precision; the others in half precision, which is faster there."""
LARGEST_ERROR = 0.1
"""Largest difference of half to single precision on a small tile, relative to the largest logit; rounding makes 0.02."""
FOREIGN_WIDTH = 64
"""Channels that the finest level of another program's network is taken to have: those of 2015."""
Scale = Callable[[Tensor], Tensor]
Place = TypeVar("Place")


def available_devices() -> list[str]:
    """Return the devices of this machine, best first: cuda, mps, cpu."""
    devices = []
    if torch.cuda.is_available():
        devices.append("cuda")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def pick_device(name: str = "auto") -> str:
    """Return the device to use; raises DeviceError if it is not there."""
    devices = available_devices()
    if name == "auto":
        return devices[0]
    if name.split(":")[0] not in devices:
        raise DeviceError(
            f"Device {name!r} is not available on this machine: choose auto or one of {', '.join(devices)}."
        )
    if name.startswith("cuda:") and not (name[5:].isdigit() and int(name[5:]) < torch.cuda.device_count()):
        raise DeviceError(
            f"Device {name!r} is not available: this machine has {torch.cuda.device_count()} CUDA devices."
        )
    return name


def free_memory(device: str) -> int:
    """Return the bytes that a job may count on."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def check_memory(needed: int) -> None:
    """Raise OutOfMemory if the host has not so many bytes: asked for more, Linux does not refuse but ends the program."""
    if needed > (free := free_memory("cpu")):
        raise OutOfMemory(
            f"The smallest tiles of this model need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: "
            "close other programs, or choose another model."
        )


@contextmanager
def device_errors(device: str) -> Iterator[None]:
    """Turn what torch raises into our errors: OutOfMemory, or DeviceError when the device itself fails."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise OutOfMemory("Memory ran out: close other programs, or choose smaller tiles.") from error
        if device != "cpu":
            raise DeviceError(
                f"Device {device!r} failed ({str(error).splitlines()[0]}): choose the device cpu."
            ) from error
        raise


def folded(network: UNet) -> UNet:
    """Return a copy for inference whose BatchNorms are part of the convolutions before them."""
    result = copy.deepcopy(network).eval()
    for sequence in (*result.encoder, *result.decoder):
        layers = list(sequence)
        for i in range(len(layers) - 1):
            if isinstance(layers[i + 1], (nn.BatchNorm2d, nn.BatchNorm3d)):
                sequence[i] = fuse_conv_bn_eval(layers[i], layers[i + 1])
                sequence[i + 1] = nn.Identity()
    return result.requires_grad_(False)


class Head(nn.Module):
    """The last, 1 x 1 convolution as a matrix product, for the same logits on any number of threads.

    Torch's own convolution to so few channels differs in the last digits (4e-6) between one thread and several, and the
    window leaves a core free that a terminal does not.
    """

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.get_parameter("weight").flatten(1), requires_grad=False)
        self.bias = nn.Parameter(convolution.get_parameter("bias"), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of ``(n, c, *spatial)``."""
        return F.linear(x.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def ready(network: UNet) -> UNet:
    """Return a copy that computes: folded, and with a `Head` in place of the last convolution."""
    result = folded(network)
    result.head = Head(result.head)
    return result


def half_type(kind: str) -> torch.dtype:
    """Return the type of half precision that a kind of device computes with."""
    return torch.bfloat16 if kind == "cpu" or (kind == "cuda" and torch.cuda.is_bf16_supported()) else torch.float16


def trial(spec: UNetSpec) -> NDArray[np.float32]:
    """Return a small batch on which a device is compared with the processor: random, the same every time."""
    shape = tuple(2 * s for s in spec.total_stride)
    if spec.padding == "valid":
        shape = TilePlan.make(spec, shape, shape).outer
    return np.random.default_rng(0).random((1, spec.in_channels, *shape), dtype=np.float32)


class Placed:
    """A network on a device in the precision that is right there, and the way of pixels to it and of answers back."""

    def __init__(self, network: UNet, device: str) -> None:
        self.device = device
        self.layout: Any = CHANNELS_LAST[network.spec.dims]
        self._conveyor = Conveyor(device)
        kind = device.split(":")[0]
        if kind in PRECISE:
            self._place(network, torch.float32)
        else:
            self._place_checked(network, half_type(kind))

    def _place(self, network: UNet, dtype: torch.dtype) -> None:
        self.network, self.dtype = ready(network), dtype
        self.network.to(self.device, dtype).to(memory_format=self.layout)  # type: ignore[call-overload]

    @torch.inference_mode()
    def _place_checked(self, network: UNet, half: torch.dtype) -> None:
        """Take single precision, with a word in the log, if half precision computes something else on this device."""
        tile = trial(network.spec)
        expected = ready(network)(torch.from_numpy(tile)).numpy()
        for dtype in (half, torch.float32):
            self._place(network, dtype)
            if is_close(self.begin(tile)(), expected):
                return
            if dtype == half:
                logging.getLogger(__name__).warning(
                    "Half precision on %s computes something else than the processor: single precision is used.",
                    self.device,
                )
        raise DeviceError(f"Device {self.device!r} computes something else than the processor: choose the device cpu.")

    def send(self, pixels: NDArray[Any], scale: Scale | None = None) -> Tensor:
        """Return pixels ``(n, c, *spatial)`` on the device, in its precision; `scale` normalises integers there."""
        x = self._conveyor.up(pixels)
        if scale is not None and not x.is_floating_point():
            x = scale(x)
        return x.to(self.dtype)

    def fetch(self, logits: Tensor, classes: bool = False) -> Callable[[], NDArray[Any]]:
        """Begin to bring logits back as float32, or the largest class of each pixel ``(n, 1, *spatial)``."""
        if classes:
            wanted = logits.argmax(1, keepdim=True).to(torch.uint8 if logits.shape[1] <= 256 else torch.int32)
        else:  # float16 holds what bfloat16 does, and numpy knows it
            wanted = logits.to(torch.float32 if self.dtype == torch.float32 else torch.float16)
        arrived = self._conveyor.down(wanted)

        def finish() -> NDArray[Any]:
            with device_errors(self.device):
                found = arrived()
            return found if classes else found.astype(np.float32, copy=False)

        return finish

    @torch.inference_mode()
    def begin(
        self, batch: NDArray[Any], scale: Scale | None = None, classes: bool = False
    ) -> Callable[[], NDArray[Any]]:
        """See `Executor.begin`."""
        with device_errors(self.device):
            x = self.send(batch, scale).contiguous(memory_format=self.layout)
            return self.fetch(self.network(x), classes)


def is_close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Tell whether logits differ by no more than half precision does."""
    return bool(np.abs(found - expected).max() <= LARGEST_ERROR * np.abs(expected).max())


class Executor:
    """A network made ready for one device. Call it with ``(n, c, *spatial)`` float32 and get float32 logits back.

    The network of another program runs on the CPU, whatever the device, and gives a map of each class instead.
    """

    def __init__(self, network: UNet | Foreign, device: str) -> None:
        self.spec: Spec = network.spec
        self.device = "cpu" if isinstance(network, Foreign) else device
        with device_errors(self.device):
            self._network = network.ready() if isinstance(network, Foreign) else Placed(network, device)

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network; raises OutOfMemory or DeviceError."""
        logits: NDArray[np.float32] = self.begin(batch)()
        return logits

    def begin(
        self, batch: NDArray[Any], scale: Scale | None = None, classes: bool = False
    ) -> Callable[[], NDArray[Any]]:
        """Start to run the network; the function that is returned waits for the logits. Raises as a call does.

        Parameters
        ----------
        batch
            ``(n, c, *spatial)`` normalised pixels; integers of a type in `conveyor.RAW` are normalised by `scale`, on
            the device.
        classes
            The largest class of each pixel is wanted, ``(n, 1, *spatial)``, not the logits.
        """
        if isinstance(self._network, Placed):
            return self._network.begin(batch, scale, classes)
        maps = self._network(batch)
        return lambda: maps.argmax(1)[:, None] if classes else maps

    def check_memory(self, shape: tuple[int, ...]) -> None:
        """Raise OutOfMemory before a tile is read that cannot fit."""
        known = isinstance(self.spec, UNetSpec) and self.device == "cpu"
        floats = FEWEST_FLOATS * _width(self.spec) if known else self.spec.in_channels
        check_memory(4 * floats * math.prod(shape))

    def largest_tile(self, margin: tuple[int, ...], budget: int | None = None) -> tuple[int, ...]:
        """Return the inner size whose outer part fills a budget of bytes, at most 1024 px (2D) or 128 (3D).

        Without a budget it is a quarter of the free memory.
        """
        if budget is None:
            budget = free_memory(self.device) // 4
        bytes_a_pixel = 4 * FLOATS_A_PIXEL * _width(self.spec)
        edge = (budget / bytes_a_pixel) ** (1 / self.spec.dims)
        most = 1024 if self.spec.dims == 2 else 128
        return tuple(
            max(s, min(most, int(edge) - 2 * m) // s * s) for m, s in zip(margin, self.spec.total_stride, strict=True)
        )


def _width(spec: Spec) -> int:
    """Return the channels of the finest level."""
    return spec.channels[0] if isinstance(spec, UNetSpec) else FOREIGN_WIDTH


def run_tiles(
    executor: Executor,
    read: Callable[[tuple[int, ...], tuple[int, ...]], NDArray[Any]],
    tiles: Iterable[Tile],
    scale: Scale | None = None,
    classes: bool = False,
) -> Iterator[tuple[Tile, NDArray[Any]]]:
    """Yield each tile with the logits ``(k, *inner)`` of its inner part, or with its classes ``(1, *inner)``.

    On another device than the CPU the next tile is read and sent while one is computed.

    Parameters
    ----------
    read
        Gives pixels from start to stop.
    scale, classes
        See `Executor.begin`.
    """

    def sent() -> Iterator[tuple[Tile, Callable[[], NDArray[Any]]]]:
        for tile in tiles:
            executor.check_memory(tuple(b - a for a, b in zip(tile.start, tile.stop, strict=True)))
            yield tile, executor.begin(read(tile.start, tile.stop)[None], scale, classes)

    for tile, found in arriving(sent(), executor.device):
        yield tile, found[0][(slice(None), *tile.crop)]


def arriving(
    sent: Iterable[tuple[Place, Callable[[], NDArray[Any]]]], device: str
) -> Iterator[tuple[Place, NDArray[Any]]]:
    """Yield what comes back of each; where the device is not the CPU, the next is sent before the last is waited for."""
    waiting: deque[tuple[Place, Callable[[], NDArray[Any]]]] = deque()

    def first() -> tuple[Place, NDArray[Any]]:
        place, arrived = waiting.popleft()
        return place, arrived()

    for one in sent:
        waiting.append(one)
        if len(waiting) > (device != "cpu"):
            yield first()
    while waiting:
        yield first()


def probability(logits: NDArray[np.float32], is_objects: bool) -> NDArray[np.float32]:
    """Return the sigmoid of each map, or the softmax over the classes."""
    return np.asarray(sigmoid(logits) if is_objects else softmax(logits), dtype=np.float32)
