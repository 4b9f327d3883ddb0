"""What the description of a bioimage.io package (formats 0.4 and 0.5) says of its network: a `ForeignSpec`.

Understood is what the formats say of plain networks: one image in, one out, sizes that are fixed or `min` + n * `step`,
a halo, and processing pixel by pixel. The rest is refused by its name, in words to stand behind "cannot be used:".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from .card import AXES, DTYPES, ForeignSpec, Step
from .errors import InvalidModel

NO_AXIS = "its axis {!r} is not understood: napari-unet knows batch, channel, z, y and x"
HUGE = 3e38
"""No number at which to clip."""


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis of a tensor, as its description says."""

    letter: str
    id: str
    smallest: int = 1
    step: int = 0
    """-1: follows another tensor's axis, with `eaten` pixels less on each side."""
    halo: int = 0
    eaten: int = 0
    names: tuple[str, ...] = ()
    channels: int = 0
    scale: float = 1.0
    unit: str = ""


class Description:
    """What a description says, of either version of its format."""

    def __init__(self, record: dict[str, Any]) -> None:
        inputs, outputs = record["inputs"], record["outputs"]
        if len(inputs) != 1 or len(outputs) != 1:
            raise InvalidModel(
                f"it takes {len(inputs)} images and gives {len(outputs)}: napari-unet uses those that take one and give one"
            )
        self.record, self.given, self.made = record, inputs[0], outputs[0]
        self.is_old = isinstance(self.given["axes"], str)
        if self.is_old:
            self.inputs = _old_axes(self.given)
            self.outputs = _old_axes(self.made, self.inputs)
        else:
            name = str(self.given.get("id", "input"))
            self.inputs = [_axis(axis, name, self.given["axes"]) for axis in self.given["axes"]]
            self.outputs = [_axis(axis, name, self.given["axes"], self.inputs) for axis in self.made["axes"]]
        self.classes = next((axis.names for axis in self.outputs if axis.letter == "c"), ())
        """What its maps are called; empty: it does not say."""

    def test_files(self) -> list[tuple[Any, Any]]:
        """Return the files of its test image and the answer to it, with their checksums; empty: it has none."""
        if self.is_old:
            both = [*self.record.get("test_inputs", ()), *self.record.get("test_outputs", ())]
            places = [
                (place, None) if isinstance(place, str) else (place["source"], place.get("sha256")) for place in both
            ]
        else:
            both = [tensor.get("test_tensor") for tensor in (self.given, self.made)]
            places = [(place["source"], place.get("sha256")) for place in both if place]
        return places if len(places) == 2 else []

    def spec(self) -> ForeignSpec:
        """Return the shape of the network."""
        given, made = ({axis.letter: axis for axis in axes} for axes in (self.inputs, self.outputs))
        spatial = [a for a in "zyx" if a in given]
        channels = given["c"].channels if "c" in given else 1
        maps = made["c"].channels if "c" in made else 1
        both = [(given[a], made[a]) for a in spatial]  # an axis that is missing raises KeyError
        return ForeignSpec(
            axes="".join(axis.letter for axis in self.inputs),
            out_axes="".join(axis.letter for axis in self.outputs),
            in_channels=channels,
            out_channels=maps + 1,
            smallest=tuple(axis.smallest for axis, _ in both),
            step=tuple(axis.step for axis, _ in both),
            halo=tuple(axis.halo for _, axis in both),
            eaten=tuple(_eaten(axis, out) for axis, out in both),
            before=_steps(self.given.get("preprocessing") or (), self.inputs, channels, is_input=True),
            after=_steps(self.made.get("postprocessing") or (), self.outputs, maps, is_input=False),
        )


def _axis(axis: dict[str, Any], tensor: str, others: list[dict[str, Any]], inputs: list[Axis] | None = None) -> Axis:
    """Read an axis of format 0.5; of an output, if `inputs` are given."""
    kind, name = axis["type"], str(axis.get("id", axis["type"]))
    if kind == "channel":
        names = axis["channel_names"]
        return Axis("c", name, names=tuple(map(str, names)), channels=len(names))
    if kind == "batch":
        return Axis("b", name)
    if kind != "space" or name not in ("z", "y", "x"):
        raise InvalidModel(NO_AXIS.format(name))
    found = Axis(
        name, name, halo=int(axis.get("halo") or 0), scale=float(axis.get("scale", 1)), unit=str(axis.get("unit") or "")
    )
    size = axis["size"]
    if isinstance(size, int):
        return replace(found, smallest=int(size))
    if inputs is None:
        if "axis_id" not in size:
            return replace(found, smallest=int(size["min"]), step=int(size["step"]))
        like = next(other for other in others if other.get("id") == size["axis_id"])
        twin = _axis(like, tensor, [])
        return replace(found, smallest=twin.smallest + int(size.get("offset", 0)), step=twin.step)
    source = next((a for a in inputs if a.letter == name), None)
    offset = int(size.get("offset", 0)) if size.get("axis_id") == name and size.get("tensor_id") == tensor else 1
    if source is None or source.scale != found.scale or offset > 0 or offset % 2:
        raise InvalidModel(f"its output has another size along {name} than its input, in a way that is not understood")
    return replace(found, step=-1, eaten=-offset // 2)


def _old_axes(tensor: dict[str, Any], inputs: list[Axis] | None = None) -> list[Axis]:
    """Read the axes of format 0.4; of an output, if `inputs` are given."""
    letters, shape = tensor["axes"], tensor["shape"]
    halo = tensor.get("halo") or [0] * len(letters)
    result = []
    for i, letter in enumerate(letters):
        if letter not in AXES:
            raise InvalidModel(NO_AXIS.format(letter))
        axis = Axis(letter, letter, halo=int(halo[i]))
        if isinstance(shape, list):
            axis = replace(axis, smallest=int(shape[i]), channels=int(shape[i]))
        elif "min" in shape:
            axis = replace(
                axis, smallest=int(shape["min"][i]), channels=int(shape["min"][i]), step=int(shape["step"][i])
            )
        else:
            scale, offset = float(shape["scale"][i] or 0), float(shape["offset"][i])
            source = next((a for a in inputs or () if a.letter == letter), None)
            axis = replace(axis, channels=int((source.channels if source else 0) * scale + 2 * offset), step=-1)
            if letter in "zyx" and (source is None or scale != 1 or offset > 0 or offset % 1):
                raise InvalidModel(f"its output has another size along {letter} than its input")
            axis = replace(axis, eaten=int(-offset))
        result.append(axis)
    return result


def _eaten(given: Axis, made: Axis) -> int:
    """Return how many pixels the output lacks on each side."""
    if made.step == -1:
        return made.eaten
    if given.step or made.step or (given.smallest - made.smallest) % 2 or made.smallest > given.smallest:
        raise InvalidModel(
            f"its output has another size along {made.letter} than its input, in a way that is not understood"
        )
    return (given.smallest - made.smallest) // 2


def _steps(records: Any, axes: list[Axis], channels: int, *, is_input: bool) -> tuple[Step, ...]:
    """Read pre- or post-processing."""
    where = "pre-processing" if is_input else "post-processing"
    result: list[Step] = []
    for record in records:
        name = str(record.get("id", record.get("name")))
        settings = {key: value for key, value in (record.get("kwargs") or {}).items() if value is not None}
        step = _step(name, settings, axes, channels, is_input)
        if step is None or settings:
            of = f" with {', '.join(map(str, settings))}" if step is not None else ""
            raise InvalidModel(f"its {where} {name!r}{of} is not one that napari-unet knows")
        result.append(step)
    return tuple(result)


def _step(name: str, settings: dict[str, Any], axes: list[Axis], channels: int, is_input: bool) -> Step | None:
    """Read one step; takes the settings that it understands out of them. None: there is no such step."""

    def numbers(key: str, default: float | None = None) -> tuple[float, ...]:
        value = settings.pop(key, default)
        found = tuple(map(float, value)) if isinstance(value, list) else (float(value),)
        if len(found) not in (1, channels) or not all(map(math.isfinite, found)):
            raise InvalidModel(f"the {key} of its {name!r} does not fit its {channels} channels")
        return found

    if name in ("zero_mean_unit_variance", "scale_range") and settings.get("mode") != "fixed":
        if not is_input or settings.pop("mode", "per_sample") != "per_sample":
            return None
        settings.pop("reference_tensor", None) if settings.get("reference_tensor") == "input" else None
        together = (float(_is_together(name, settings.pop("axes", None), axes)),)
        if name == "zero_mean_unit_variance":
            return name, (numbers("eps", 1e-6), together)
        low, high = numbers("min_percentile", 0), numbers("max_percentile", 100)
        return name, (low, high, numbers("eps", 1e-6), together)
    if name in ("zero_mean_unit_variance", "fixed_zero_mean_unit_variance"):
        for key in ("mode", "axes", "axis", "eps"):
            settings.pop(key, None)
        spans = tuple(1 / (span + 1e-6) for span in numbers("std"))
        return "scale_shifted", (numbers("mean"), spans)
    if name == "softmax":
        _of_channels(name, settings, axes)
        return name, ()
    if name == "sigmoid":
        return name, ()
    if name == "ensure_dtype":
        return name, ((float(DTYPES.index(settings.pop("dtype"))),),)
    if name == "clip":
        return name, (numbers("min", -HUGE), numbers("max", HUGE))
    if name in ("scale_linear", "binarize"):
        _of_channels(name, settings, axes)
        return name, (numbers("gain", 1), numbers("offset", 0)) if name == "scale_linear" else (numbers("threshold"),)
    return None


def _is_together(name: str, along: Any, axes: list[Axis]) -> bool:
    """Tell whether statistics are taken over all channels together; they must be over all of space."""
    if along is None:
        return True
    letters = {next((a.letter for a in axes if axis in (a.id, a.letter)), "?") for axis in along}
    for axis in axes:
        if axis.letter in "zyx" and axis.letter not in letters:
            raise InvalidModel(f"its {name!r} looks at each {axis.letter} by itself, which is not understood")
    return "c" in letters or not any(axis.letter == "c" for axis in axes)


def _of_channels(name: str, settings: dict[str, Any], axes: list[Axis]) -> None:
    """Take the axis of a list of numbers out of the settings: it must be that of the channels."""
    axis = settings.pop("axis", None)
    settings.pop("axes", None)  # format 0.4 names those that share a number
    if axis is not None and not any(a.letter == "c" and axis in (a.id, a.letter) for a in axes):
        raise InvalidModel(f"its {name!r} runs along {axis!r}, not along the channels")
