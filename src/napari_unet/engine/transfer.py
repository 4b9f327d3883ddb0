"""A start model for another task or for 3D, made from a model that exists: nothing learned is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .card import UNetSpec
from .errors import InvalidModel
from .model import Model
from .unet import UNet


def semantic_from(model: Model, classes: tuple[str, str] = ("background", "foreground")) -> Model:
    """Return a `semantic` model of two classes whose probabilities are at first those of the foreground map of `model`.

    The softmax of ``(-z/2, z/2)`` is the sigmoid of ``z``. A model that is semantic already is returned as it is.

    Raises
    ------
    InvalidModel
        If `model` answers clicks.
    """
    card = model.card
    if card.task == "click":
        raise InvalidModel(f"The model {card.name!r} answers clicks: start from a model that segments whole images.")
    if card.task == "semantic":
        return model

    def halved(name: str, tensor: Tensor) -> Tensor:
        return torch.stack([-tensor[0] / 2, tensor[0] / 2]) if name.startswith("head.") else tensor

    spec = replace(card.spec, out_channels=2)
    new_card = replace(card, task="semantic", classes=classes, colors=(), spec=spec)
    return Model(new_card, _network(model, spec, halved))


def in_3d(model: Model, strides: tuple[tuple[int, ...], ...] = (), kernels: tuple[tuple[int, ...], ...] = ()) -> Model:
    """Return a 3D model that starts as a 2D `model` applied to each slice.

    Each kernel becomes the middle slice of a 3D one whose other slices are 0, to be learned ("inflation" with a centred
    start). Slices are independent only while nothing is pooled along z, as with the default strides.

    Parameters
    ----------
    strides, kernels
        As in `UNetSpec`; empty: strides of 1 along z, kernels of 3 along z.
    """
    old = model.card.spec
    strides = strides or tuple((1, *s) for s in old.strides)
    kernels = kernels or tuple((3, *k) for k in old.kernels)
    spec = replace(old, dims=3, strides=strides, kernels=kernels)
    with torch.device("meta"):
        wanted = {name: t.shape for name, t in UNet(spec).state_dict().items()}

    def inflated(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim < 4:
            return tensor
        depth = wanted[name][2]
        if name.startswith("up."):
            return tensor[:, :, None].repeat(1, 1, depth, 1, 1)
        result = tensor.new_zeros(wanted[name])
        result[:, :, depth // 2] = tensor
        return result

    return Model(replace(model.card, spec=spec, spacing=()), _network(model, spec, inflated))


def _network(model: Model, spec: UNetSpec, change: Callable[[str, Tensor], Tensor]) -> UNet:
    """Return the network of `spec` with the changed tensors of `model`."""
    with torch.device("meta"):
        network = UNet(spec)
    tensors = {name: change(name, t.detach()).clone() for name, t in model.network.state_dict().items()}
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()
