"""The network of another program becomes a model: its description and its answers say what its maps mean."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture

from .card import MOST_TEXT, ForeignSpec, ModelCard, Step
from .description import Description
from .errors import InvalidModel, ModelNotFound
from .foreign import Foreign, Running, arranged, checked
from .library import PICTURE
from .model import MOST_BYTES, Model
from .packages import Files, content, tensor
from .steps import applied, measured
from .tiling import accepted

TORCHSCRIPT = (
    "its weights are TorchScript, a program that PyTorch advises not to run when it comes from strangers: "
    "ask its authors for ONNX weights, or add them with bioimageio.core"
)
CODE = "its weights need Python code that comes with it, and napari-unet runs no code of a model file"
MOST_COVER, LARGEST_COVER = 16 << 20, 4096
"""Bytes and pixels of an edge of a cover; a larger one is not looked at."""
DIFFERENT = 0.01
"""Answers to the package's own test image may differ so much, in units of their span, and at so many of its pixels."""
OURS: tuple[Step, ...] = (
    ("scale_range", ((1.0,), (99.8,), (1e-10,), (0.0,))),
    ("clip", ((-1.0,), (4.0,))),
)
"""How pixels are prepared for a bare network: as for ours."""
FREE = {2: 32, 3: 16}
"""Of what the sizes of a bare network are multiples, where it does not say: enough for five poolings, or four."""
LOOK = {2: 256, 3: 64}
"""Edge of the noise on which the reach of a bare network is measured."""
FELT = 1e-4
"""A change of the answer that is larger, in units of its span, counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a package holds of the network of another program."""

    card: ModelCard
    network: bytes
    names: tuple[str, ...] = ()
    """What its maps are called; empty: it does not say."""
    test: tuple[NDArray[Any], ...] = ()
    """An image and the answer to it; empty: it has none."""
    picture: NDArray[np.uint8] | None = None
    """What its authors show of it, small."""


def found_in(files: Files, record: dict[str, Any]) -> Found:
    """Return the network of another program in a package.

    Raises
    ------
    InvalidModel
        If it needs code, a file is missing or damaged, or its description is not understood.
    """
    weights = record.get("weights")
    if not isinstance(weights, dict) or not isinstance(onnx := weights.get("onnx"), dict):
        raise InvalidModel(f"{files.name} cannot be used: {_why_not(weights)}.")
    if onnx.get("external_data"):
        raise InvalidModel(f"{files.name} cannot be used: its weights lie in a file beside the ONNX file.")
    network = content(files, onnx.get("source"), onnx.get("sha256"))
    try:
        description = Description(record)
        card = _card(files.name, record, description)
        places = description.test_files()
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, StopIteration) as error:
        raise InvalidModel(
            f"{files.name} cannot be used: its description is not understood ({error!r:.100})."
        ) from error
    except InvalidModel as error:
        raise InvalidModel(f"{files.name} cannot be used: {str(error).rstrip('.')}.") from error
    test = tuple(tensor(files, place) for place in places)
    return Found(card, network, description.classes, test, _picture(files, record.get("covers")))


def _picture(files: Files, covers: Any) -> NDArray[np.uint8] | None:
    """Return the first cover of a package, small; None if there is none, or none that can be read."""
    cover = covers[0] if isinstance(covers, list) and covers else None
    source = cover.get("source") if isinstance(cover, dict) else cover
    if not isinstance(source, str) or files.size(source) is None:
        return None
    found = content(files, source, cover.get("sha256") if isinstance(cover, dict) else None, MOST_COVER)
    try:
        with Picture.open(io.BytesIO(found), formats=("PNG", "JPEG")) as picture:
            if max(picture.size) > LARGEST_COVER:
                return None
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    small.thumbnail((PICTURE, PICTURE))
    return np.array(small)


def _why_not(weights: Any) -> str:
    kinds = set(weights) if isinstance(weights, dict) else set()
    if "onnx" in kinds:
        return "what it says of its ONNX weights is not understood"
    if "torchscript" in kinds:
        return TORCHSCRIPT
    if "pytorch_state_dict" in kinds:
        return CODE
    return f"its weights are for other programs ({', '.join(sorted(map(str, kinds))) or 'none'}), not ONNX"


def _card(name: str, record: dict[str, Any], description: Description) -> ModelCard:
    """Return the card of a network of another program."""
    spec = description.spec()
    spatial = [axis for a in "zyx" for axis in description.inputs if axis.letter == a]
    authors = [str(a.get("name", "")) for a in record.get("authors") or () if isinstance(a, dict)]
    cited = [c for c in record.get("cite") or () if isinstance(c, dict)]
    known = [str(record[key]) for key in ("id", "version") if record.get(key)]
    where = f"{name} (bioimage.io {', '.join(['package', *known])})" + f" by {', '.join(authors)}" * bool(authors)
    return ModelCard(
        name=safe_name(str(record.get("name", Path(name).stem))),
        task="semantic",
        spec=spec,
        classes=("background", *(f"map {i}" for i in range(1, spec.out_channels))),
        description=plain(record.get("description")),
        spacing=tuple(a.scale for a in spatial) if all(a.unit == "micrometer" and a.scale > 0 for a in spatial) else (),
        licence=plain(record.get("license")) or "not stated",
        source=plain(where),
        cite="\n".join(plain(" ".join(str(c[key]) for key in ("text", "doi", "url") if c.get(key))) for c in cited),
    )


def safe_name(text: str) -> str:
    """Return a name that a model may have: no path, nothing that steers a terminal."""
    return re.sub(r"[^\w .+-]+", "-", text).strip(" .+-")[:80].strip() or "imported"


def plain(text: Any) -> str:
    """Return words of a stranger as one line that is harmless to show."""
    words = " ".join(str(text).split()) if text else ""
    return "".join(c if c.isprintable() else " " for c in words)[: MOST_TEXT // 10]


def adopted(found: Found) -> Model:
    """Return the model, tried on its own test image; what its halo does not cover is said in its description.

    Raises
    ------
    InvalidModel
        If it is not arithmetic alone, fails, or does not answer as its authors promise.
    """
    card, network, names, test = found.card, found.network, found.names, found.test
    spec = card.spec
    assert isinstance(spec, ForeignSpec)
    running = Running(Foreign(spec, network))
    order = "c" + "zyx"[-spec.dims :]
    image = arranged(test[0], spec.axes, order) if test else _noise(spec, 2 * FREE[spec.dims])
    maps = running.maps(_prepared(spec, image))
    if test:
        _compare(card.name, maps, arranged(test[1], spec.out_axes, order))
    reach, rim = max(measured_reach(running, image)), max(spec.halo) + max(spec.eaten)
    about = card.description
    if reach > rim:
        about += (
            f" Its answer was measured to reach {reach} pixels far, its halo is {rim}: tiles may show at their edges."
        )
    spec = _with_activation(replace(spec, out_channels=len(maps) + 1), names, maps)
    names = tuple(plain(name)[:60] for name in names)
    if len(names) != len(maps) or len({"background", *names}) <= len(maps) - (spec.background == "first"):
        names = ("foreground",) if len(maps) == 1 else tuple(f"map {i + 1}" for i in range(len(maps)))
    classes = names if spec.background == "first" else ("background", *names)
    return Model(
        card.with_(spec=spec, classes=classes, colors=(), description=about.strip()),
        Foreign(spec, network, found.picture),
    )


def _noise(
    spec: ForeignSpec, edge: int, low: float = 0.0, high: float = 255.0, seed: int = 2015
) -> NDArray[np.float64]:
    """Return an image ``(c, *spatial)`` about `edge` wide, the same each time."""
    return np.random.default_rng(seed).uniform(low, high, (spec.in_channels, *accepted(spec, edge)))


def _prepared(spec: ForeignSpec, image: NDArray[Any]) -> NDArray[np.float32]:
    """Return a whole image as the network sees it."""
    steps = measured(spec.before, image.reshape(len(image), -1))
    return np.asarray(applied(steps, image.astype(np.float64)), dtype=np.float32)


def _compare(name: str, ours: NDArray[Any], theirs: NDArray[Any]) -> None:
    if ours.shape != theirs.shape:
        raise InvalidModel(f"{name!r} answers its own test image with the shape {ours.shape}, not {theirs.shape}.")
    wanted = theirs.astype(np.float64)
    wrong = ~(np.abs(ours - wanted) <= DIFFERENT * max(float(np.ptp(wanted)), 1e-6))  # NaN is wrong too
    if wrong.mean() > DIFFERENT:
        raise InvalidModel(
            f"{name!r} answers its own test image otherwise than its authors promise, at {wrong.mean():.0%} of the "
            "pixels: its description does not fit its weights."
        )


def _with_activation(spec: ForeignSpec, names: tuple[str, ...], maps: NDArray[np.float32]) -> ForeignSpec:
    """Return the spec with what makes probabilities of the maps, and what the background is, as far as can be told."""
    several = len(maps) > 1
    first = several and (
        (spec.after[-1:] and spec.after[-1][0] == "softmax")
        or names[:1] in (("background",), ("Background",), ("bg",))
        or bool(np.allclose(maps.sum(axis=0), 1, atol=0.01))
    )
    if maps.min() < -DIFFERENT or maps.max() > 1 + DIFFERENT:  # no probabilities yet
        spec = replace(spec, after=(*spec.after, ("softmax" if several else "sigmoid", ())))
        first = several
    return replace(spec, background="first" if first else "rest", out_channels=len(maps) + (not first))


def found_alone(path: Path) -> Found:
    """Return the network in an ONNX file without a description: its axes as it says, its pixels prepared as for ours.

    Raises
    ------
    ModelNotFound, InvalidModel
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InvalidModel(f"{path.name} is larger than any model.")
        network = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelNotFound(f"There is no model file {path}.") from error
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error
    given = checked(network).graph.input
    sizes = [d.dim_value for d in given[0].type.tensor_type.shape.dim]
    axes = {4: "bcyx", 5: "bczyx"}.get(len(sizes), "")
    if not axes or not 1 <= sizes[1] <= 64:
        raise InvalidModel(
            f"{path.name} takes an array of shape {sizes} (0: any), not batch, channels, (z,) y and x: import its package."
        )
    dims = len(axes) - 2
    spec = ForeignSpec(
        axes=axes,
        out_axes=axes,
        in_channels=sizes[1],
        out_channels=2,
        smallest=tuple(n or FREE[dims] for n in sizes[2:]),
        step=tuple(0 if n else FREE[dims] for n in sizes[2:]),
        halo=(0,) * dims,
        eaten=(0,) * dims,
        before=OURS,
    )
    reach = measured_reach(Running(Foreign(spec, network)), _noise(spec, FREE[dims]))
    room = tuple(
        (n - g) // 2 if not s else r
        for n, s, r, g in zip(spec.smallest, spec.step, reach, spec.total_stride, strict=True)
    )
    card = ModelCard(
        name=safe_name(path.stem),
        task="semantic",
        spec=replace(spec, halo=tuple(max(0, min(r, n)) for r, n in zip(reach, room, strict=True))),
        description=f"An ONNX network without a description; its answer was measured to reach {max(reach)} pixels far.",
        licence="not stated",
        source=plain(f"{path.name} (ONNX)"),
    )
    return Found(card, network)


def measured_reach(running: Running, image: NDArray[Any]) -> tuple[int, ...]:
    """Return how many pixels beyond a change of the image the answer still changes, along each axis.

    Measured on noise as bright as `image`: half of it is changed, then the other half.
    """
    spec = running.spec
    bright = float(image.min()), float(image.max())
    noise, other = (_prepared(spec, _noise(spec, LOOK[spec.dims], *bright, seed)) for seed in (0, 1))
    answer = running.maps(noise)
    reach = []
    for axis, (size, eaten) in enumerate(zip(noise.shape[1:], spec.eaten, strict=True), start=1):
        at = np.arange(size)
        beyond = np.maximum(at - size // 2 + 1, size // 2 - at)[eaten : size - eaten]
        found = 0
        for changed in (at < size // 2, at >= size // 2):
            mask = changed.reshape([-1 if i == axis else 1 for i in range(noise.ndim)])
            change = np.abs(running.maps(np.where(mask, other, noise)) - answer) > FELT * np.ptp(answer)
            felt = change.any(axis=tuple(i for i in range(noise.ndim) if i != axis))
            found = max(found, int(beyond[felt & ~changed[eaten : size - eaten]].max(initial=0)))
        reach.append(found)
    return tuple(reach)
