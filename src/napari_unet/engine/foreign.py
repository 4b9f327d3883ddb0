"""Foreign: a network of another program, as ONNX, run by onnxruntime on the CPU (needs the extra "onnx").

ONNX is a list of arithmetic, not a program: what could be more (files beside it, operators of other libraries, loops
without an end) is refused before onnxruntime sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .card import ForeignSpec
from .errors import InvalidModel, OutOfMemory
from .steps import applied

NEEDS_RUNTIME = (
    "Networks of other programs run by the packages onnx and onnxruntime, which are not installed: "
    "run pip install onnx onnxruntime."
)
DOMAINS = ("", "ai.onnx")
ENDLESS = ("Loop", "Scan")
DTYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16} | {
    f"tensor({name})": np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "int32", "int64")
}
"""What a network may take."""


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A network of another program; never changed, and cannot be trained."""

    spec: ForeignSpec
    onnx: bytes
    picture: NDArray[np.uint8] | None = None
    """What its authors show of it, ``(h, w, 3)``."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return what is saved of it."""
        saved = {"onnx": torch.frombuffer(bytearray(self.onnx), dtype=torch.uint8)}
        return saved if self.picture is None else saved | {"picture": torch.from_numpy(self.picture)}

    def ready(self) -> Running:
        """Return the network ready to run.

        Raises
        ------
        InvalidModel
            If it is damaged, not what is wanted, or onnxruntime is not installed.
        """
        return Running(self)


class Running:
    """A network in onnxruntime. Call it with ``(n, c, *spatial)`` and get a map of each class back."""

    def __init__(self, network: Foreign) -> None:
        checked(network.onnx)
        import onnxruntime

        self.spec = network.spec
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what goes wrong is raised
        self._errors = _errors()
        try:
            self._session = onnxruntime.InferenceSession(
                network.onnx, options, providers=["CPUExecutionProvider"], enable_fallback=0
            )
        except self._errors as error:
            raise InvalidModel(f"The ONNX network cannot be used: {_first_line(error)}.") from error
        given = self._session.get_inputs()[0]
        if given.type not in DTYPES or len(given.shape) != len(self.spec.axes):
            raise InvalidModel(
                f"The ONNX network takes {len(given.shape)} axes of {given.type}, "
                f"not the axes {self.spec.axes!r} of numbers: its description does not fit it."
            )
        self._name, self._dtype = given.name, DTYPES[given.type]

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network, one image of the batch after the other; raises OutOfMemory or InvalidModel."""
        return np.stack([self.classes(self.maps(pixels)) for pixels in batch])

    def maps(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the maps ``(k, *spatial)`` for normalised pixels ``(c, *spatial)``, post-processed."""
        order = "c" + "zyx"[-self.spec.dims :]
        try:
            found = self._session.run(None, {self._name: arranged(pixels, order, self.spec.axes).astype(self._dtype)})
            result = np.asarray(found[0], dtype=np.float32)
        except self._errors as error:
            if "alloc" in str(error).lower():
                raise OutOfMemory("Memory ran out: close other programs, or choose smaller tiles.") from error
            raise InvalidModel(f"The ONNX network failed: {_first_line(error)}.") from error
        if result.ndim != len(self.spec.out_axes):
            raise InvalidModel(f"The ONNX network gives {result.ndim} axes, not {self.spec.out_axes!r}.")
        maps = arranged(result, self.spec.out_axes, order)
        wanted = tuple(n - 2 * e for n, e in zip(pixels.shape[1:], self.spec.eaten, strict=True))
        if maps.shape[1:] != wanted:
            raise InvalidModel(
                f"The ONNX network made {maps.shape[1:]} pixels of {pixels.shape[1:]}, where its description "
                f"promises {wanted}."
            )
        if any(len(n) not in (1, len(maps)) for _, numbers in self.spec.after for n in numbers):
            raise InvalidModel(
                f"The ONNX network makes {len(maps)} maps, not as many as its post-processing has numbers."
            )
        return np.asarray(applied(self.spec.after, maps), dtype=np.float32)

    def classes(self, maps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a map of each class, background first: the largest one wins."""
        if self.spec.background == "rest":
            maps = np.concatenate([1 - maps.max(axis=0, keepdims=True), maps])
        if len(maps) != self.spec.out_channels:
            raise InvalidModel(f"The ONNX network makes {len(maps)} classes, not {self.spec.out_channels}.")
        return maps


def arranged(array: NDArray[Any], axes: str, wanted: str) -> NDArray[Any]:
    """Return an array with its axes in another order; those of length 1 may come and go."""
    for axis, name in reversed(list(enumerate(axes))):
        if name not in wanted:
            if array.shape[axis] != 1:
                raise InvalidModel(f"The network's axis {name} has {array.shape[axis]} pixels where one was promised.")
            array = array.squeeze(axis)
    kept = [a for a in axes if a in wanted]
    array = array.transpose([kept.index(a) for a in wanted if a in kept])
    missing = tuple(i for i, a in enumerate(wanted) if a not in kept)
    return np.expand_dims(array, missing)


def checked(content: bytes) -> Any:
    """Return the parsed ONNX file if it is arithmetic alone; raises InvalidModel."""
    if not (find_spec("onnx") and find_spec("onnxruntime")):
        raise InvalidModel(NEEDS_RUNTIME)
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except DecodeError as error:
        raise InvalidModel("The ONNX network is damaged: it cannot be read.") from error
    own = {function.domain for function in model.functions}
    for part in (model.graph, *model.functions):
        for node, tensor in _parts(part):
            if tensor is not None and (tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data):
                raise InvalidModel(
                    "The ONNX network keeps its weights in another file, which is not read: "
                    "save it as one file, with onnx.save_model(..., save_as_external_data=False)."
                )
            if node is not None and node.domain not in {*DOMAINS, *own}:
                raise InvalidModel(f"The ONNX network needs the operator {node.op_type!r} of {node.domain!r}: refused.")
            if node is not None and node.op_type in ENDLESS:
                raise InvalidModel(f"The ONNX network holds a loop ({node.op_type}), which may never end: refused.")
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise InvalidModel(
            f"The ONNX network takes {len(inputs)} arrays and gives {len(model.graph.output)}: "
            "napari-unet uses those that take one and give one."
        )
    return model


def _parts(graph: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every node (first) and every tensor (second) of a graph or function, and of what is inside of nodes."""
    for tensor in getattr(graph, "initializer", ()):
        yield None, tensor
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from ((None, sparse.values), (None, sparse.indices))
    for node in graph.node:
        yield node, None
        for attribute in node.attribute:
            yield from ((None, tensor) for tensor in (attribute.t, *attribute.tensors))
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from ((None, sparse.values), (None, sparse.indices))
            for inside in (attribute.g, *attribute.graphs):
                yield from _parts(inside)


def _errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises: it has a class for each of its codes."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kinds = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*kinds, RuntimeError, ValueError, MemoryError)


def _first_line(error: Exception) -> str:
    """Return what onnxruntime says, without its codes and the places in its source."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    said = re.sub(r"/onnxruntime_src/.*?\)( |$)", "", line.rpartition(" : ")[2])
    return said.strip(" .")[:300] or "onnxruntime does not say why"
