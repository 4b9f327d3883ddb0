"""Model: a card and its network; safetensors files that hold both, written so that a kill leaves the old file whole."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .card import MOST_HEADER, PALETTE, ForeignSpec, ModelCard, read_card
from .errors import InvalidModel
from .foreign import Foreign, checked
from .storage import write_atomically
from .unet import UNet

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
MOST_BYTES = 1 << 30
"""A larger file is refused; the network of 2015 has 124 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A network (on the CPU, float32, evaluation mode) and its card. Never changed: training returns a new one."""

    card: ModelCard
    network: UNet | Foreign

    @property
    def unet(self) -> UNet:
        """The network, where it is one of ours.

        Raises
        ------
        InvalidModel
            If it came from another program.
        """
        if isinstance(self.network, Foreign):
            raise InvalidModel(self.card.cannot_learn)
        return self.network


def new_model(card: ModelCard, seed: int = 0) -> Model:
    """Return an untrained model with the weights of `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Model(card, UNet(card.unet).eval())


def extend_classes(model: Model, names: Sequence[str], colors: Sequence[str] = ()) -> Model:
    """Return a model with classes added behind those it has; what it answered for the old ones stays the same.

    The logit of an added class starts as the mean of the others, so it never wins before it is taught.

    Raises
    ------
    InvalidModel
        If the model is not `semantic`, or a class of that name is there.
    """
    card, spec = model.card, model.card.unet
    if card.task != "semantic":
        raise InvalidModel(f"Classes cannot be added to {card.name!r}: it finds {card.classes[-1]}; make a new model.")
    classes = (*card.classes, *names)
    if len(set(classes)) < len(classes):
        raise InvalidModel(f"{card.name!r} has a class of that name already: choose another one.")
    chosen = (*colors, *(PALETTE[i % len(PALETTE)] for i in range(len(card.classes) + len(colors), len(classes))))
    spec = replace(spec, out_channels=len(classes))
    extended = card.with_(spec=spec, classes=classes, colors=(*card.colors, *chosen))
    tensors = dict(model.unet.state_dict())
    for name in ("head.weight", "head.bias"):
        old = tensors[name]
        tensors[name] = torch.cat([old, old.mean(dim=0, keepdim=True).expand(len(names), *old.shape[1:])])
    network = new_model(extended).unet
    network.load_state_dict(tensors)
    return Model(extended, network)


def load_model_file(path: Path) -> Model:
    """Load a model file. No code in it is run, nothing is unpickled.

    Raises
    ------
    ModelNotFound, InvalidModel
        If there is no such file, it is damaged, or its tensors do not fit its card.
    """
    card = read_card(path)
    if isinstance(card.spec, ForeignSpec):
        tensors = _read_tensors(path, card, MOST_BYTES)
        if not {"onnx"} <= set(tensors) <= {"onnx", "picture"} or any(t.dtype != torch.uint8 for t in tensors.values()):
            raise InvalidModel(f"{path.name} does not hold the network of another program, as its card says.")
        content = tensors["onnx"].numpy().tobytes()
        checked(content)
        picture = tensors["picture"].numpy() if "picture" in tensors else None
        return Model(card, Foreign(card.spec, content, picture))
    with torch.device("meta"):
        network = UNet(card.spec)
    wanted = network.state_dict()
    tensors = _read_tensors(path, card, sum(t.numel() * t.dtype.itemsize for t in wanted.values()))
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in wanted.items()}:
        raise InvalidModel(f"The tensors of {path.name} do not fit the network on its card.")
    for name, tensor in tensors.items():
        if tensor.dtype not in (FLOATS if wanted[name].is_floating_point() else (torch.int64,)):
            raise InvalidModel(f"The tensor {name} of {path.name} cannot hold {tensor.dtype} values.")
        if not tensor.isfinite().all() or (name.endswith("running_var") and (tensor < 0).any()):
            raise InvalidModel(f"The tensor {name} of {path.name} holds values that no network can have.")
    network.load_state_dict(
        {n: t.float() if t.is_floating_point() else t for n, t in tensors.items()}, strict=True, assign=True
    )
    return Model(card, network.eval())


def _read_tensors(path: Path, card: ModelCard, most: int) -> dict[str, Tensor]:
    """Read the tensors of a file, which its network can have `most` bytes of, and check that they are what was saved."""
    try:
        if path.stat().st_size > min(2 * MOST_HEADER + most, MOST_BYTES):
            raise InvalidModel(f"{path.name} holds more than the network on its card can need: it is not one of ours.")
        tensors = load(path.read_bytes())
    except (SafetensorError, OSError, MemoryError) as error:
        raise InvalidModel(f"{path.name} is damaged: {error}.") from error
    if (found := content_hash(card, tensors)) != card.content_hash:
        raise InvalidModel(
            f"{path.name} was changed after it was saved (hash {found[:12]}, expected {card.content_hash[:12]})."
        )
    return tensors


def content_hash(card: ModelCard, tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of the network's shape and its tensors as stored."""
    digest = hashlib.sha256(repr(card.spec).encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_model(model: Model, path: Path, *, half: bool = False, new: bool = False) -> Model:
    """Save a model atomically (write beside, flush, rename) and return it with its content hash.

    Parameters
    ----------
    half
        Store the weights as float16, half the size; the returned model holds the rounded weights.
    new
        Raise FileExistsError rather than replace a file.

    Raises
    ------
    LibraryError
        If the file cannot be written; what was there before stays.
    """
    tensors = {
        name: (t.half() if half and t.is_floating_point() else t).contiguous()
        for name, t in model.network.state_dict().items()
    }
    created = model.card.created or datetime.now(UTC).isoformat(timespec="seconds")
    card = model.card.with_(content_hash=content_hash(model.card, tensors), created=created)
    write_atomically(path, save(tensors, metadata={"napari_unet": card.to_json()}), new=new)
    if isinstance(model.network, Foreign):
        return Model(card, model.network)
    network = copy.deepcopy(model.network)
    network.load_state_dict({n: t.float() if t.is_floating_point() else t for n, t in tensors.items()})
    return Model(card, network)


def renamed(path: Path, name: str) -> bytes:
    """Return the content of a model file under another name: the tensors as they are stored, so the hash stays.

    Raises
    ------
    ModelNotFound, InvalidModel
    """
    card = load_model_file(path).card
    return save(load(path.read_bytes()), metadata={"napari_unet": card.with_(name=name).to_json()})
