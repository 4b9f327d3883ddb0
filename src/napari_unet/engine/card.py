"""What a model is, in words and numbers: UNetSpec or ForeignSpec (its network) and ModelCard (all but the weights). Torch-free."""

from __future__ import annotations

import json
import math
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
AXES = "bczyx"
"""Axes that the network of another program may have: batch, channel and space."""
GRID = 32
"""On multiples of this start the tiles of a network that takes one size alone, where that size is one."""
MOST_EDGE, MOST_PIXELS = 1 << 13, 1 << 27
"""A network that asks for wider tiles, or for tiles of more pixels than this, is not one for images."""
STATISTICS = {"zero_mean_unit_variance": 2, "scale_range": 4}
"""Steps that look at the whole image first, and how many numbers they take: the last is 1 for all channels together."""
STEPS = {"scale_linear": 2, "scale_shifted": 2, "clip": 2, "binarize": 1, "ensure_dtype": 1, "sigmoid": 0, "softmax": 0}
"""Steps that look at one pixel at a time, and how many numbers they take."""
DTYPES = ("float16", "float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "bool")
"""What `ensure_dtype` may ask for, by its number."""
Step = tuple[str, tuple[tuple[float, ...], ...]]
"""What is done to pixels: its name in the bioimage.io, and its numbers, one of each kind or one a channel (see `steps`)."""
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
class ForeignSpec:
    """What the network of another program takes and gives, as its description says; spatial sizes are those of z, y, x.

    Attributes
    ----------
    axes, out_axes
        Letters of "bczyx": the axes of its input and of its output, in its own order.
    in_channels, out_channels
        Channels of the image; classes that are made of its maps, with the background.
    smallest, step
        It takes tiles of `smallest` + n * `step` pixels; a step of 0: of `smallest` alone.
    halo
        Rim of its output, in pixels on each side, that its author says cannot be trusted.
    eaten
        Pixels that its output lacks on each side.
    before, after
        What is done to the pixels first, and to its output.
    background
        Whether the first of its maps is the background, or the rest is: what no map claims.
    """

    axes: str
    out_axes: str
    in_channels: int
    out_channels: int
    smallest: tuple[int, ...]
    step: tuple[int, ...]
    halo: tuple[int, ...]
    eaten: tuple[int, ...]
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    background: Literal["first", "rest"] = "rest"

    def __post_init__(self) -> None:
        spatial = [a for a in AXES[2:] if a in self.axes]
        sizes = (self.smallest, self.step, self.halo, self.eaten)
        maps = self.out_channels - (self.background == "rest")
        checks = {
            f"axes {self.axes!r} and {self.out_axes!r} are not each of {', '.join(AXES)} once, with y and x": all(
                len(set(axes)) == len(axes) and set("yx") <= set(axes) <= set(AXES)
                for axes in (self.axes, self.out_axes)
            )
            and spatial == [a for a in AXES[2:] if a in self.out_axes],
            f"in_channels {self.in_channels} and out_channels {self.out_channels} must lie between 1 and 1024": 1
            <= self.in_channels
            <= 1024
            and 2 <= self.out_channels <= 1024
            and ("c" in self.axes or self.in_channels == 1),
            f"sizes {sizes} do not fit its axes {self.axes!r}": all(
                len(s) == len(spatial) and min(s) >= 0 for s in sizes
            )
            and min(self.smallest, default=0) > 0,
            f"pre-processing {self.before!r:.200} is not known": all(
                _is_step(step, STEPS | STATISTICS, self.in_channels) for step in self.before
            ),
            f"post-processing {self.after!r:.200} is not known": all(
                _is_step(step, STEPS, maps) for step in self.after
            ),
        }
        for problem, good in checks.items():
            if not good:
                raise InvalidModel(f"The network's {problem}.")
        if math.prod(self.smallest) > MOST_PIXELS or max(map(max, sizes)) > MOST_EDGE:
            raise InvalidModel(f"The network asks for tiles of {self.smallest} pixels or more: that is no image.")
        if any(s == 0 and n <= 2 * (h + e) for n, s, h, e in zip(*sizes, strict=True)):
            raise InvalidModel(f"The network's halo {self.halo} leaves nothing of its tiles of {self.smallest} pixels.")

    @property
    def dims(self) -> int:
        """2 or 3 spatial dimensions."""
        return len(self.smallest)

    @property
    def total_stride(self) -> tuple[int, ...]:
        """Pixels per axis on whose multiples tiles start, so that all of them pool on the same grid."""
        return tuple(s or math.gcd(n, GRID) for n, s in zip(self.smallest, self.step, strict=True))


def _is_step(step: Step, known: dict[str, int], channels: int) -> bool:
    """Tell whether a step is one of those known and has the numbers it takes, one of each or one a channel."""
    name, numbers = step
    if len(numbers) != known.get(name) or any(len(n) not in (1, channels) for n in numbers):
        return False
    if name == "ensure_dtype":
        return numbers[0][0] in range(len(DTYPES))
    if name == "scale_range" and not 0 <= numbers[0][0] < numbers[1][0] <= 100:
        return False
    return name not in STATISTICS or (all(len(n) == 1 for n in numbers) and numbers[-2][0] > 0)


Spec = UNetSpec | ForeignSpec


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All that is known of a model but its weights; stored as JSON in the metadata of its file."""

    name: str
    task: Task
    spec: Spec
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
    scaled: bool = False
    """It learned from images brought to that diameter, so where none is given for an image, it is estimated."""
    licence: str = ""
    """Licence of the training data; of a model of another program, its own."""
    source: str = ""
    """Where a model of another program came from; empty: it is one of ours."""
    cite: str = ""
    """What its authors ask to be cited, a line each."""
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
        if self.is_foreign and self.task != "semantic":
            raise InvalidModel(f"A network of another program cannot do the task {self.task!r}.")
        if self.spec.out_channels != needed:
            raise InvalidModel(
                f"A {self.task} model with classes {', '.join(self.classes)} needs {needed} output channels, "
                f"not {self.spec.out_channels}."
            )

    @property
    def is_foreign(self) -> bool:
        """Whether it came from another program: it segments, but cannot learn."""
        return isinstance(self.spec, ForeignSpec)

    @property
    def unet(self) -> UNetSpec:
        """The shape of the network, where it is one of ours.

        Raises
        ------
        InvalidModel
            If it came from another program.
        """
        self.check_it_learns()
        assert isinstance(self.spec, UNetSpec)
        return self.spec

    def check_it_learns(self) -> None:
        """Raise InvalidModel if it came from another program."""
        if self.cannot_learn:
            raise InvalidModel(self.cannot_learn)

    @property
    def cannot_learn(self) -> str:
        """Why it cannot be trained; empty: it can."""
        if not self.is_foreign:
            return ""
        return f"{self.name!r} came from another program: it segments, but cannot be trained; choose another model."

    @property
    def estimates(self) -> bool:
        """Whether it looks how wide an image's objects are, where no diameter is given.

        A model that was taught on images as they are takes others as they are, too.
        """
        as_they_are = self.spec.dims != 2 or self.training.get("diameters") == []
        return self.task == "objects" and self.diameter > 0 and (self.scaled or not as_they_are)

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
            spec = record.pop("spec")
            spec = _build(ForeignSpec if "axes" in spec else UNetSpec, spec)
            objects = _build(ObjectSettings, record.pop("objects"))
            card = _build(cls, record, spec=spec, objects=objects)
        except (TypeError, ValueError, KeyError, AttributeError, InvalidSettings) as error:
            raise InvalidModel(f"The model's card does not fit this program: {str(error).rstrip('.')}.") from error
        return card

    def with_(self, **changes: Any) -> ModelCard:
        """Return a copy with some fields changed."""
        return replace(self, **changes)


def tuples(value: Any) -> Any:
    """JSON has lists where our values have tuples."""
    return tuple(tuples(v) for v in value) if isinstance(value, list) else value


def _build(kind: type[T], record: dict[str, Any], **extra: Any) -> T:
    """Build a dataclass from parsed JSON; an unknown or ill-typed field raises TypeError."""
    known, values = get_type_hints(kind), {}
    for name, value in record.items():
        if name not in known:
            raise TypeError(f"unknown field {name!r:.60}")
        values[name] = value if name == "training" else tuples(value)
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
    if kind is bool:
        return isinstance(value, bool)
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
