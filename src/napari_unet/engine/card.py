"""What a model is, in words and numbers: UNetSpec (the network's shape) and ModelCard (all but the weights). Torch-free."""

from __future__ import annotations

import json
import stat
import struct
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from .errors import InvalidModel, InvalidSettings, ModelNotFound
from .settings import ObjectSettings

FORMAT = 1
T = TypeVar("T")
MOST_HEADER = 4 << 20
"""A header longer than this is an attack or damage, not a card."""
MOST_TEXT = 10_000
"""Characters of one text on a card."""
DEEPEST = 16
"""Lists in lists in the record of a training."""
MOST_STRIDE = 64
"""Largest total stride: what one deepest pixel spans must be read for the smallest of tiles."""
Task = Literal["semantic", "objects", "click"]
OBJECT_MAPS = ("foreground", "distance", "border")
"""The `objects` task's network maps, in the order of the output channels."""
PALETTE = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Colours for background and the first classes (Paul Tol's bright scheme, safe for colour-blind eyes)."""


@dataclass(frozen=True, slots=True)
class UNetSpec:
    """The shape of a U-Net, 2D or 3D.

    Attributes
    ----------
    dims
        2 or 3 spatial dimensions.
    in_channels, out_channels
        Channels of the image and of the logits.
    channels
        Feature channels at each level, finest first; one level more than there are poolings.
    strides
        Pooling factor per axis between a level and the next; empty: 2 on every axis.
        Anisotropic stacks use e.g. ``((1, 2, 2), (2, 2, 2))``.
    kernels
        Convolution kernel per axis at each level; empty: 3 on every axis.
    padding
        ``"same"``, or ``"valid"``: the unpadded convolutions of Ronneberger et al. 2015.
    norm
        ``"batch"`` or ``"none"``. Norms that look at the tile itself cannot be tiled without seams.
    dropout
        Probability at the end of the contracting path (2015, section 3.1); only while training.

    Examples
    --------
    >>> UNetSpec().total_stride, UNetSpec(dims=3, channels=(8, 16, 32)).total_stride
    ((16, 16), (4, 4, 4))
    >>> UNetSpec(padding="reflect")
    Traceback (most recent call last):
    napari_unet.engine.errors.InvalidModel: The network's padding 'reflect' is neither 'same' nor 'valid'.
    """

    dims: int = 2
    in_channels: int = 1
    out_channels: int = 2
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    strides: tuple[tuple[int, ...], ...] = ()
    kernels: tuple[tuple[int, ...], ...] = ()
    padding: Literal["same", "valid"] = "same"
    norm: Literal["batch", "none"] = "batch"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise InvalidModel(f"The network's dims is {self.dims}, not 2 or 3.")
        levels = len(self.channels)
        if not self.strides:
            object.__setattr__(self, "strides", ((2,) * self.dims,) * (levels - 1))
        if not self.kernels:
            object.__setattr__(self, "kernels", ((3,) * self.dims,) * levels)
        checks = {
            f"channels {self.channels} must be 1 to 8 numbers from 1 to 4096": 1 <= levels <= 8
            and all(1 <= c <= 4096 for c in self.channels),
            f"in_channels {self.in_channels} and out_channels {self.out_channels} must lie between 1 and 1024": all(
                1 <= c <= 1024 for c in (self.in_channels, self.out_channels)
            ),
            f"strides {self.strides} do not fit {levels} levels in {self.dims}D": len(self.strides) == levels - 1
            and all(len(s) == self.dims and all(1 <= f <= 4 for f in s) for s in self.strides),
            f"kernels {self.kernels} do not fit {levels} levels in {self.dims}D": len(self.kernels) == levels
            and all(len(k) == self.dims and all(f in (1, 3, 5) for f in k) for k in self.kernels),
            f"padding {self.padding!r} is neither 'same' nor 'valid'": self.padding in ("same", "valid"),
            f"norm {self.norm!r} is neither 'batch' nor 'none'": self.norm in ("batch", "none"),
            f"dropout {self.dropout} is not between 0 and 1": 0 <= self.dropout < 1,
        }
        for problem, good in checks.items():
            if not good:
                raise InvalidModel(f"The network's {problem}.")
        if max(self.total_stride) > MOST_STRIDE:
            raise InvalidModel(f"The network's strides {self.strides} multiply to more than {MOST_STRIDE}.")

    @classmethod
    def paper(cls, classes: int = 2) -> UNetSpec:
        """The network of Ronneberger, Fischer, Brox 2015, Figure 1: unpadded, 64 to 1024 channels, 31.0 M parameters."""
        return cls(out_channels=classes, channels=(64, 128, 256, 512, 1024), padding="valid", norm="none", dropout=0.5)

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Pixels per axis that one pixel of the deepest level spans; tiles start on multiples of it."""
        result = [1] * self.dims
        for stride in self.strides:
            result = [a * b for a, b in zip(result, stride, strict=True)]
        return tuple(result)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that is known of a model but its weights; stored as JSON in the metadata of its file."""

    name: str
    task: Task
    spec: UNetSpec
    classes: tuple[str, ...] = ("background", "foreground")
    """Background first. For the `objects` task: background and what the objects are."""
    colors: tuple[str, ...] = ()
    version: int = 1
    parent: str = ""
    """``name@version:hash`` of the model this one was trained from; empty: from scratch."""
    description: str = ""
    percentiles: tuple[float, float] = (1.0, 99.8)
    """Intensities at these percentiles of the whole image become 0 and 1."""
    spacing: tuple[float, ...] = ()
    """Pixel size, in micrometres, of the training images (z, y, x); empty: unknown or mixed."""
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    """Defaults for turning the maps into objects."""
    diameter: float = 0.0
    """Median diameter, in pixels, of the objects trained on; 0: unknown."""
    licence: str = ""
    """Licence of the training data."""
    training: dict[str, Any] = field(default_factory=dict)
    """Record of the training: data, steps, seed, held-out scores."""
    created: str = ""
    """UTC time in ISO 8601."""
    content_hash: str = ""
    """SHA-256 of spec and tensors; set on saving, checked on loading."""

    def __post_init__(self) -> None:
        if self.task not in get_args(Task):
            raise InvalidModel(f"Task {self.task!r} is not one of {', '.join(get_args(Task))}.")
        if len(self.classes) < 2:
            raise InvalidModel(f"A model needs a background and one class or more, not {len(self.classes)} in all.")
        if not self.colors:
            colors = tuple(PALETTE[i % len(PALETTE)] for i in range(len(self.classes)))
            object.__setattr__(self, "colors", colors)
        needed = {"semantic": len(self.classes), "objects": len(OBJECT_MAPS), "click": 1}[self.task]
        if self.spec.out_channels != needed:
            raise InvalidModel(
                f"A {self.task} model with classes {', '.join(self.classes)} needs {needed} output channels, "
                f"not {self.spec.out_channels}."
            )

    @property
    def identity(self) -> str:
        """``name@version:hash``, enough to find the very same weights again."""
        return f"{self.name}@{self.version}:{self.content_hash[:12]}"

    def to_json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card; raises InvalidModel if it is damaged or of a newer format."""
        try:
            record = json.loads(text)
            version = record.pop("format")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidModel("The model's card cannot be read: the file is damaged or not one of ours.") from error
        if version != FORMAT:
            raise InvalidModel(
                f"The model has format {version}, but this version of napari-unet reads format {FORMAT}: update napari-unet."
            )
        try:
            spec = _build(UNetSpec, record.pop("spec"))
            objects = _build(ObjectSettings, record.pop("objects"))
            card = _build(cls, record, spec=spec, objects=objects)
        except (TypeError, ValueError, KeyError, AttributeError, InvalidSettings) as error:
            raise InvalidModel(f"The model's card does not fit this program: {str(error).rstrip('.')}.") from error
        return card

    def with_(self, **changes: Any) -> ModelCard:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def _tuples(value: Any) -> Any:
    """JSON has lists where our values have tuples."""
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _build(kind: type[T], record: dict[str, Any], **extra: Any) -> T:
    """Build a dataclass from parsed JSON; an unknown or ill-typed field raises TypeError."""
    known, values = get_type_hints(kind), {}
    for name, value in record.items():
        if name not in known:
            raise TypeError(f"unknown field {name!r:.60}")
        values[name] = value if name == "training" else _tuples(value)
        if not _fits(values[name], known[name]):
            raise TypeError(f"{name} cannot be {value!r:.60}")
    return kind(**values, **extra)


def _fits(value: Any, kind: Any) -> bool:
    """Tell whether a value from a file is of the type that our own would be, and harmless to show and to reckon with."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if origin is tuple:
        kinds = inside[:1] * len(value) if inside[-1:] == (...,) and isinstance(value, tuple) else inside
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and _is_harmless(value, DEEPEST)
    if kind in (int, float):
        return isinstance(value, int if kind is int else (int, float)) and value is not True and abs(value) < 1e15
    return kind is str and _is_harmless(value, 1) and isinstance(value, str)


def _is_harmless(value: Any, depth: int) -> bool:
    """Tell whether nothing in a value from JSON steers a terminal, or is too long or nested too deep to be a record."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        return depth > 0 and all(_is_harmless(v, depth - 1) for v in value)
    return not isinstance(value, str) or (len(value) <= MOST_TEXT and value.replace("\n", " ").isprintable())


def read_card(path: Path) -> ModelCard:
    """Read only the card of a model file; imports no torch and reads no tensor.

    Raises
    ------
    ModelNotFound, InvalidModel
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidModel(f"{path} is not a file: give the file of a model.")
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MOST_HEADER:
                raise InvalidModel(f"{path.name} is not a model: its header claims {length} bytes.")
            header = json.loads(file.read(length))
        text = header["__metadata__"]["napari_unet"]
    except FileNotFoundError as error:
        raise ModelNotFound(f"There is no model file {path}.") from error
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidModel(f"{path.name} is not a model of napari-unet, or it is damaged.") from error
    return ModelCard.from_json(text)
