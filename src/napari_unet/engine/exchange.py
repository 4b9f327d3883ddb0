"""Models for other programs, and from them: bioimage.io packages (.zip), ONNX files (.onnx), our own files.

A package that we write holds the weights as a PyTorch state dict with `architecture.py` beside it, as ONNX where the
package `onnx` is installed, and as our own file, from which it comes back bit by bit. Of other programs' packages the
ONNX weights are taken (see `adopt`). No code of a package is ever run, nothing is unpickled, nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import re
import tempfile
import zipfile
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .adopt import adopted, found_alone, found_in
from .card import OBJECT_MAPS, ModelCard, UNetSpec
from .errors import LibraryError
from .foreign import Foreign
from .library import DESCRIPTIONS, ONNX, PACKAGE, Entry, Library
from .model import Model, content_hash, load_model_file
from .packages import ENDINGS, OWN, opened, own_model, read_description
from .storage import write_atomically
from .tiling import halo, valid_output

if TYPE_CHECKING:
    from .unet import UNet

FORMAT = "0.5.12"
OPSET = 17
PAPER = {
    "text": "Ronneberger, Fischer, Brox: U-Net: Convolutional Networks for Biomedical Image Segmentation (2015)",
    "doi": "10.1007/978-3-319-24574-4_28",
}
NEEDS_ONNX = "ONNX files are written with the package onnx, which is not installed: run pip install onnx."


def export_model(library: Library, entry: Entry, path: Path) -> Path:
    """Write a version for others, by the ending: .zip (bioimage.io), .onnx, else our own file; returns where.

    Raises
    ------
    InvalidModel, LibraryError
    """
    if path.suffix == PACKAGE:
        if entry.card.is_foreign:
            raise LibraryError(
                f"{entry.card.name!r} came from another program: pass its own package on, or export .onnx."
            )
        write_atomically(path, package(load_model_file(entry.path), entry.path.read_bytes()))
    elif path.suffix == ONNX:
        write_atomically(path, _onnx_of(load_model_file(entry.path)))
    else:
        return library.export(entry, path)
    return path


def _onnx_of(model: Model) -> bytes:
    if isinstance(model.network, Foreign):
        return model.network.onnx
    if not find_spec("onnx"):
        raise LibraryError(NEEDS_ONNX)
    return onnx_file(model.network)


def import_model(library: Library, path: Path) -> Entry:
    """Take in a model as the next version of its name; what is there is not taken in twice.

    Parameters
    ----------
    path
        A model file, a bioimage.io package (.zip, its folder, or the description in it), or an ONNX file.

    Raises
    ------
    ModelNotFound, InvalidModel, LibraryError
    """
    if path.suffix == ONNX:
        return _adopt(library, adopted(found_alone(path)))
    if path.suffix not in (PACKAGE, *ENDINGS) and not path.is_dir():
        return library.import_file(path)
    with opened(path) as (files, name):
        record = read_description(files, name)
        own = own_model(files, record) if files.size(OWN) is not None else None
        found = found_in(files, record) if own is None else None
    if found is not None:
        return _adopt(library, adopted(found))
    assert own is not None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / OWN
        copy.write_bytes(own)
        return library.import_file(copy)


def _adopt(library: Library, model: Model) -> Entry:
    """Add the network of another program under its name, unless a model of ours has that."""
    card, network = model.card, model.network
    if any(not entry.card.is_foreign for entry in library.versions(card.name)):
        card = card.with_(name=f"{card.name} imported")
    return library.take_in(Model(card.with_(content_hash=content_hash(card, network.state_dict())), network))


# ---------------------------------------------------------------- out


def package(model: Model, own: bytes) -> bytes:
    """Return a bioimage.io package.

    Parameters
    ----------
    model
        The model.
    own
        Its file.
    """
    import torch

    image = example(model.card)
    prepared, answer = answered(model, image)
    state = io.BytesIO()
    torch.save(model.network.state_dict(), state)
    files = {
        "weights.pt": state.getvalue(),
        "architecture.py": (Path(__file__).parent / "architecture.py").read_bytes(),
        OWN: own,
        "README.md": document(model.card).encode(),
        "cover.png": cover(prepared, answer),
        "test_input.npy": _npy(image[None]),
        "test_output.npy": _npy(answer[None]),
    }
    if find_spec("onnx"):
        files["weights.onnx"] = onnx_file(model.unet)
    files[DESCRIPTIONS[0]] = json.dumps(description(model.card, files, torch.__version__), indent=1).encode()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return whole.getvalue()


def input_shape(spec: UNetSpec) -> tuple[int, ...]:
    """Return the smallest spatial shape that leaves a pixel inside the halo."""
    if spec.padding == "valid":
        return tuple(
            next(n for n in itertools.count(stride) if valid_output(spec, axis, n))
            for axis, stride in enumerate(spec.total_stride)
        )
    return tuple(-(-(2 * m + 1) // s) * s for m, s in zip(halo(spec), spec.total_stride, strict=True))


def example(card: ModelCard) -> NDArray[np.float32]:
    """Return an image ``(c, *spatial)`` of bright spots to try a model on, the same each time."""
    from scipy.ndimage import gaussian_filter

    shape = (card.spec.in_channels, *input_shape(card.unet))
    noise = np.random.default_rng(2015).standard_normal(shape)
    spots = gaussian_filter(noise, sigma=(0, *(5.0,) * card.spec.dims), mode="wrap")
    spots = (spots / spots.std()).clip(0, 4)
    if card.task == "click":  # what it sees is ready-made: grey, clicks, counter-clicks, mask
        spots[0] /= 4
        spots[1:] = 0
        spots[1, shape[1] // 2 - 3 : shape[1] // 2 + 4, shape[2] // 2 - 3 : shape[2] // 2 + 4] = 1
        return np.asarray(spots, dtype=np.float32)
    return np.asarray((60 * spots).round(), dtype=np.float32)


def answered(model: Model, image: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return what the network sees of an image ``(c, *spatial)``, and the probabilities, in one pass without tiles."""
    from .execution import Executor, probability
    from .image import Image
    from .inference import normalisation

    card = model.card
    if card.task != "click":
        items = list(Image(image, "czyx"[:1] + "zyx"[-card.spec.dims :]).items(card.spec.dims, None, len(image)))
        image = normalisation(items, card.percentiles, "example")(image)
    logits = Executor(model.network, "cpu")(image[None])[0]
    return image, probability(logits, card.task != "semantic")


def cover(image: NDArray[np.float32], answer: NDArray[np.float32]) -> bytes:
    """Return a PNG: what the network sees beside the probability of its first class, in the middle plane."""
    from PIL import Image as Picture

    def plane(maps: NDArray[np.float32]) -> NDArray[np.float32]:
        while maps.ndim > 2:
            maps = maps[len(maps) // 2]
        return maps.clip(0, 1)

    shown = answer[1] if len(answer) == 2 else answer[0]
    margins = [(a - b) // 2 for a, b in zip(image.shape[1:], shown.shape, strict=True)]
    seen = image[0][tuple(slice(m, m + n) for m, n in zip(margins, shown.shape, strict=True))]
    both = np.concatenate([plane(seen), plane(shown)], axis=1)
    file = io.BytesIO()
    Picture.fromarray((255 * both).round().astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def document(card: ModelCard) -> str:
    """Return the card as a page."""
    spec = card.unet
    maps = outputs(card)
    lines = [
        f"# {card.name}, version {card.version}",
        card.description,
        f"A U-Net ({spec.dims}D, {' '.join(map(str, spec.channels))} feature channels) made with napari-unet. "
        f"Identity: `{card.identity}`." + (f" Trained from `{card.parent}`." if card.parent else ""),
        f"- Input: {spec.in_channels} channel{'s' * (spec.in_channels > 1)}; "
        + (
            "grey (0 to 1), clicks, counter-clicks and the mask so far, as napari-unet prepares them."
            if card.task == "click"
            else f"the intensities at {card.percentiles[0]:g} and {card.percentiles[1]:g} % become 0 and 1."
        ),
        f"- Output: {len(maps)} probabilities: {', '.join(maps)}.",
        f"- Licence of the training data: {card.licence or 'not stated'}.",
        "## How objects are made of the maps" if card.task == "objects" else "",
        "napari-unet starts an object where the distance exceeds the seed threshold, and lets it grow inside the "
        f"foreground: thresholds {card.objects.foreground_threshold:g} (foreground) and "
        f"{card.objects.seed_threshold:g} (seed), at least {card.objects.minimal_size} pixels."
        if card.task == "objects"
        else "",
        "## Training",
        "\n".join(f"- {key}: {value}" for key, value in card.training.items()) or "Nothing is on record.",
        "## Validation",
        "Compare with a truth of your own: `napari-unet evaluate LABELS TRUTH` prints Dice, AP, PQ, V_Rand and VOI.",
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def outputs(card: ModelCard) -> tuple[str, ...]:
    """Return what the network's maps are called."""
    return {"objects": OBJECT_MAPS, "semantic": card.classes, "click": ("object",)}[card.task]


def description(card: ModelCard, files: dict[str, bytes], torch_version: str) -> dict[str, Any]:
    """Return the description of a package; JSON is YAML too."""

    def file(name: str) -> dict[str, Any]:
        return {"source": name, "sha256": hashlib.sha256(files[name]).hexdigest()}

    weights: dict[str, Any] = {
        "pytorch_state_dict": {
            **file("weights.pt"),
            "architecture": {**file("architecture.py"), "callable": "UNet", "kwargs": architecture(card.unet)},
            "pytorch_version": torch_version.partition("+")[0],
        }
    }
    if "weights.onnx" in files:
        weights["onnx"] = {**file("weights.onnx"), "opset_version": OPSET, "parent": "pytorch_state_dict"}
    return {
        "type": "model",
        "format_version": FORMAT,
        "name": re.sub(r"[^\w ()-]", "-", f"{card.name} {card.version} (napari-unet)", flags=re.ASCII),
        "description": (card.description or f"A U-Net for {', '.join(card.classes[1:])}.")[:1000],
        "authors": [{"name": "napari-unet user"}],
        "cite": [PAPER],
        **({"license": "CC0-1.0"} if card.licence.startswith("CC0") else {}),  # else it is the maker's to choose
        "tags": ["unet", "segmentation", f"{card.spec.dims}d", "napari-unet"],
        "documentation": file("README.md"),
        "covers": [file("cover.png")],
        "attachments": [file(OWN)],
        "inputs": [{**input_tensor(card), "test_tensor": file("test_input.npy")}],
        "outputs": [{**output_tensor(card), "test_tensor": file("test_output.npy")}],
        "weights": weights,
        "config": {
            "bioimageio": {"reproducibility_tolerance": [{"relative_tolerance": 1e-3, "absolute_tolerance": 1e-4}]},
            "napari_unet": json.loads(card.to_json()),
        },
    }


def architecture(spec: UNetSpec) -> dict[str, Any]:
    """Return what `architecture.UNet` is called with."""
    fields: dict[str, Any] = json.loads(json.dumps(asdict(spec)))
    del fields["dropout"]
    return fields


def _placed(card: ModelCard) -> list[dict[str, Any]]:
    """Return the spatial axes with what is known of the size of a pixel."""
    axes = "zyx"[-card.spec.dims :]
    sizes = [{"unit": "micrometer", "scale": s} for s in card.spacing] if card.spacing else [{} for _ in axes]
    return [{"type": "space", "id": axis, **size} for axis, size in zip(axes, sizes, strict=True)]


def input_tensor(card: ModelCard) -> dict[str, Any]:
    """Describe what goes in: any size on the grid of the poolings, mirrored at the border, percentiles of the whole."""
    spec = card.unet
    sizes = [{"min": n, "step": s} for n, s in zip(input_shape(spec), spec.total_stride, strict=True)]
    names = ["grey", "clicks", "counter-clicks", "mask"] if card.task == "click" else None
    names = names or [f"channel{i}" for i in range(spec.in_channels)]
    spatial = [{**axis, "size": size} for axis, size in zip(_placed(card), sizes, strict=True)]
    low, high = card.percentiles
    scaling = [
        {
            "id": "scale_range",
            "kwargs": {"axes": [a["id"] for a in spatial], "min_percentile": low, "max_percentile": high, "eps": 1e-10},
        },
        {"id": "clip", "kwargs": {"min": -1.0, "max": 4.0}},
    ]
    return {
        "id": "input",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": names}, *spatial],
        "data": {"type": "float32"},
        "pad": {"mode": "reflect"},
        "preprocessing": [] if card.task == "click" else scaling,
    }


def output_tensor(card: ModelCard) -> dict[str, Any]:
    """Describe what comes out: probabilities, and how far from the border of a tile they can be trusted."""
    spec = card.unet
    spatial = []
    for axis, margin in zip(_placed(card), halo(spec), strict=True):
        eaten = -2 * margin if spec.padding == "valid" else 0
        size = {"tensor_id": "input", "axis_id": axis["id"], "offset": eaten}
        spatial.append({**axis, "size": size, **({} if eaten else {"halo": margin})})
    last = {"id": "softmax", "kwargs": {"axis": "channel"}} if card.task == "semantic" else {"id": "sigmoid"}
    return {
        "id": "output",
        "axes": [{"type": "batch"}, {"type": "channel", "channel_names": list(outputs(card))}, *spatial],
        "data": {"type": "float32", "range": [0.0, 1.0]},
        "postprocessing": [last],
    }


def _npy(array: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


# ---------------------------------------------------------------- ONNX


def onnx_file(network: UNet) -> bytes:
    """Return the network as ONNX, for any batch and any size on the grid of the poolings; raw pixels in, logits out.

    Written node by node: the network has six kinds of them, and torch's own exporters need more packages or go.
    """
    import onnx
    from torch import nn

    from .execution import folded

    spec = network.spec
    ready = folded(network)
    nodes: list[Any] = []
    weights: list[Any] = []

    def add(kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind.lower()}{len(nodes)}"
        nodes.append(onnx.helper.make_node(kind, inputs, [name], name=f"node_{name}", **attributes))
        return name

    def constant(values: NDArray[Any]) -> str:
        name = f"constant{len(weights)}"
        weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    def convolve(x: str, layer: Any) -> str:
        kind = "ConvTranspose" if isinstance(layer, (nn.ConvTranspose2d, nn.ConvTranspose3d)) else "Conv"
        pads = list(layer.padding) * 2
        values = [constant(layer.weight.numpy()), constant(layer.bias.numpy())]
        return add(kind, [x, *values], kernel_shape=list(layer.kernel_size), strides=list(layer.stride), pads=pads)

    def block(x: str, layers: Any) -> str:
        for layer in layers:
            if isinstance(layer, nn.ReLU):
                x = add("Relu", [x])
            elif not isinstance(layer, nn.Identity):
                x = convolve(x, layer)
        return x

    x, skips = "input", []
    for level, stride in enumerate(spec.strides):
        x = block(x, ready.encoder[level])
        skips.append(x)
        x = add("MaxPool", [x], kernel_shape=list(stride), strides=list(stride))
    x = block(x, ready.encoder[-1])
    for level, margin in reversed(list(enumerate(skip_margins(spec)))):
        x = convolve(x, ready.up[level])
        skip = skips[level]
        if any(margin):
            starts, stops = np.array(margin), -np.array(margin)
            stops[stops == 0] = np.iinfo(np.int64).max
            along = np.arange(2, 2 + spec.dims)
            skip = add("Slice", [skip, *(constant(v.astype(np.int64)) for v in (starts, stops, along))])
        x = block(add("Concat", [skip, x], axis=1), ready.decoder[level])
    last = convolve(x, ready.head)
    nodes[-1].output[0] = last = "output"

    def value(name: str, channels: int, sizes: list[str]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", channels, *sizes])

    axes = list("zyx"[-spec.dims :])
    results = [f"{a}_out" for a in axes] if spec.padding == "valid" else axes
    graph = onnx.helper.make_graph(
        nodes,
        "unet",
        [value("input", spec.in_channels, axes)],
        [value(last, spec.out_channels, results)],
        weights,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    made = onnx.helper.make_model(graph, producer_name="napari-unet", opset_imports=opset, ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return bytes(made.SerializeToString())


def skip_margins(spec: UNetSpec) -> list[tuple[int, ...]]:
    """Return, for each level, what is cut from each side of its skip: 0 with "same" convolutions."""
    if spec.padding == "same":
        return [(0,) * spec.dims for _ in spec.strides]
    sizes = input_shape(spec)
    eaten = [tuple(2 * (k - 1) for k in kernel) for kernel in spec.kernels]
    skips = []
    for level, stride in enumerate(spec.strides):
        skips.append(tuple(n - e for n, e in zip(sizes, eaten[level], strict=True)))
        sizes = tuple(n // s for n, s in zip(skips[-1], stride, strict=True))
    sizes = tuple(n - e for n, e in zip(sizes, eaten[-1], strict=True))
    margins = []
    for level in reversed(range(len(skips))):
        sizes = tuple(n * s for n, s in zip(sizes, spec.strides[level], strict=True))
        margins.append(tuple((a - b) // 2 for a, b in zip(skips[level], sizes, strict=True)))
        sizes = tuple(n - e for n, e in zip(sizes, eaten[level], strict=True))
    return margins[::-1]
