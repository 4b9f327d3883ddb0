"""A start model for another task or for 3D, made from a model that exists: nothing learned is thrown away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from .card import OBJECT_MAPS, ModelCard, UNetSpec
from .errors import InvalidModel
from .model import Model, extend_classes, new_model
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

    spec = replace(card.unet, out_channels=2)
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
    old = model.card.unet
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


def start_model(
    name: str,
    task: str,
    classes: tuple[str, ...],
    dims: int,
    channels: int,
    parent: Model | None = None,
    seed: int = 0,
) -> Model:
    """Return a model to begin with: untrained, or with what `parent` knows.

    Parameters
    ----------
    task, classes, dims, channels
        "semantic" or "objects"; the names, background first; 2 or 3 dimensions; channels of the images.
    parent
        It may be of another task (objects become classes) and of fewer dimensions.
    seed
        Of the weights of an untrained model.

    Raises
    ------
    InvalidModel
        If the classes make no sense, or `parent` cannot become such a model.
    """
    if len(classes) < 2 or len(set(classes)) < len(classes):
        raise InvalidModel("A model needs a background and one class more, each with a name of its own.")
    if task not in ("semantic", "objects"):
        raise InvalidModel(f"Task {task!r} is not known: choose semantic or objects.")
    if task == "objects" and len(classes) > 2:
        raise InvalidModel(
            f"A model that tells objects apart finds one kind of them: give two classes, not {len(classes)}."
        )
    if parent is None:
        widths = (16, 32, 64, 128, 256) if dims == 2 else (16, 32, 64, 128)
        outputs = len(classes) if task == "semantic" else len(OBJECT_MAPS)
        spec = UNetSpec(dims=dims, in_channels=channels, out_channels=outputs, channels=widths)
        return new_model(ModelCard(name, "semantic" if task == "semantic" else "objects", spec, classes), seed)
    old = parent.card
    old.check_it_learns()
    if task == "objects" and old.task != "objects":
        raise InvalidModel(f"{old.name!r} finds classes, not objects: start from nothing, or from another model.")
    if old.spec.in_channels != channels or old.spec.dims > dims:
        raise InvalidModel(
            f"{old.name!r} is {old.spec.dims}D and takes {old.spec.in_channels} channels: start from nothing, "
            "or ask for the same."
        )
    model = semantic_from(parent, (classes[0], classes[1])) if task == "semantic" else parent
    if dims > old.spec.dims:
        model = in_3d(model)
    known = len(model.card.classes)
    if len(classes) < known:
        raise InvalidModel(f"{old.name!r} knows {known} classes: give at least as many.")
    model = Model(model.card.with_(classes=classes[:known]), model.network)
    if len(classes) > known:
        model = extend_classes(model, classes[known:])
    card = model.card.with_(name=name, colors=(), parent=old.identity, training={}, created="", description="")
    return Model(card, model.network)


def _network(model: Model, spec: UNetSpec, change: Callable[[str, Tensor], Tensor]) -> UNet:
    """Return the network of `spec` with the changed tensors of `model`."""
    with torch.device("meta"):
        network = UNet(spec)
    tensors = {name: change(name, t.detach()).clone() for name, t in model.unet.state_dict().items()}
    network.load_state_dict(tensors, strict=True, assign=True)
    return network.eval()
