"""Compare with truth: two Labels layers, their scores in words, and a layer of the errors. No Qt."""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from psygnal import Signal

from ..engine.comparison import COLORS, MEANINGS, Comparison, Kind, PlaneCompared, comparing, object_axes
from ..engine.errors import InvalidImage
from .annotating import ANNOTATIONS
from .session import Progress, Session, in_one_sentence

ERRORS = "napari_unet_errors"
"""Under this name the metadata of a layer of errors say so."""
FEW = "Two labels layers are needed: a result, and the truth to compare it with."


class Comparing:
    """Which two layers are compared, and what came of it.

    Attributes
    ----------
    result, truth
        The layers chosen; None: there is none.
    by_plane
        Whether each plane of a stack is compared by itself; None: as the result was made.
    found
        The newest comparison.
    """

    changed = Signal()

    def __init__(self, session: Session) -> None:
        self.session, self.viewer = session, session.viewer
        self.result: Labels | None = None
        self.truth: Labels | None = None
        self.by_plane: bool | None = None
        self.found: Comparison | None = None
        self.errors: Labels | None = None
        self._chosen: dict[str, Labels] = {}
        session.changed.connect(self._follow)
        session.state_changed.connect(self._follow)
        self._follow()

    def layers(self) -> list[Labels]:
        """Return the layers there are to choose from: neither errors nor annotations, where 1 means background."""
        return [x for x in self.viewer.layers if isinstance(x, Labels) and not {ERRORS, ANNOTATIONS} & set(x.metadata)]

    def choose(self, **layers: Labels | None) -> None:
        """Choose `result` or `truth`."""
        self._chosen |= {name: layer for name, layer in layers.items() if layer is not None}
        self._follow()

    def compare_by_plane(self, on: bool) -> None:
        """Say whether each plane is compared by itself."""
        self.by_plane, self.found = on, None
        self.changed.emit()

    @property
    def record(self) -> dict[str, Any]:
        """How the result was made, as far as it says."""
        record = self.result.metadata.get("napari_unet") if self.result is not None else None
        return record if isinstance(record, dict) else {}

    @property
    def axes(self) -> str:
        """The axes of the result that are y, x, or longer than one."""
        return "" if self.result is None else "".join(_long_axes(self.result))

    @property
    def together(self) -> str:
        """The axes that an object spans."""
        if self.by_plane is None:
            return object_axes(self.record, self.axes)
        return "yx" if self.by_plane else self.axes

    def obstacle(self) -> str:
        """Say why nothing can be compared now; empty: it can."""
        if self.result is None or self.truth is None:
            return FEW
        if self.result is self.truth:
            return "Result and truth are the same layer: choose two."
        shapes = [tuple(_long_axes(layer).values()) for layer in (self.result, self.truth)]
        if shapes[0] != shapes[1]:
            result, truth = (f"{x.name!r} has" for x in (self.result, self.truth))
            return f"{result} shape {shapes[0]}, but {truth} {shapes[1]}: choose labels of one image."
        return ""

    def compare(self) -> None:
        """Compare; scores and errors come when it is done."""
        if problem := self.obstacle():
            self.session.tell(problem, is_error=True)
            return
        assert self.result is not None
        assert self.truth is not None
        task = "semantic" if self.record.get("task") == "semantic" else "objects"
        result, truth = (np.squeeze(_pixels(x), _short_axes(x)) for x in (self.result, self.truth))
        layer, name = self.result, self.truth.name
        self.session.run(
            partial(_comparison, result, truth, name, self.axes, self.together, task),
            f"Comparing {layer.name!r} with {name!r} ...",
            on_event=partial(self._on_event, layer),
            on_done=lambda: None,
            on_error=lambda error: self.session.tell(in_one_sentence(error), is_error=True),
            on_cancelled=lambda: self.session.tell("Cancelled; nothing was changed."),
        )

    def in_words(self) -> str:
        """Say what was found, in a few lines; empty: nothing was compared yet."""
        found = self.found
        if found is None:
            return ""
        scores = found.scores
        if found.task == "semantic":
            names = self.record.get("classes", [])
            called = [names[c.value] if c.value < len(names) else f"class {c.value}" for c in found.classes]
            lines = [
                f"{name}: Dice {c.dice:.3f}, IoU {c.iou:.3f}" for name, c in zip(called, found.classes, strict=True)
            ]
        else:
            precision = scores.average_precision
            lines = [
                f"Of {scores.true_objects} true object{'s' * (scores.true_objects != 1)} {scores.matched} "
                f"{'was' if scores.matched == 1 else 'were'} found, {scores.missed} missed; {scores.invented} invented.",
                f"AP@0.5 {precision[0.5]:.3f}, AP@0.75 {precision[0.75]:.3f}",
                f"PQ {scores.panoptic_quality.pq:.3f}, Dice {scores.dice:.3f}",
            ]
        return "\n".join([*lines, f"Compared {found.way}."])

    def _follow(self, _: object = None) -> None:
        """Keep what the user chose while it is there; else take the newest result, and the newest of the others."""
        there, before = self.layers(), (self.result, self.truth)
        self._chosen = {name: layer for name, layer in self._chosen.items() if layer in there}
        made = [x for x in there if "napari_unet" in x.metadata]
        self.result = self._chosen.get("result") or _newest(there, made, self._chosen.get("truth"))
        self.truth = self._chosen.get("truth") or _newest(there, [x for x in there if x not in made], self.result)
        if (self.result, self.truth) != before:
            self.found = None
        if self.result is not before[0]:
            self.by_plane = None
        self.changed.emit()

    def _on_event(self, layer: Labels, event: PlaneCompared | Comparison) -> None:
        if isinstance(event, PlaneCompared):
            self.session.progressed.emit(Progress(event.done, event.planes))
            return
        self.found = event
        if layer in self.viewer.layers:
            self._show(layer, event)
        scores = event.scores
        wrong = f"{scores.missed} missed, {scores.invented} invented" if event.task == "objects" else "by their pixels"
        self.session.tell(f"Compared, {wrong}: the errors are a layer of their own.")
        self.changed.emit()

    def _show(self, layer: Labels, found: Comparison) -> None:
        """Show the errors where the result lies, and hide what would cover them."""
        if self.errors in self.viewer.layers:
            self.viewer.layers.remove(self.errors)
        self.errors = errors_layer(layer, found)
        for covering in (layer, self.truth):
            if covering is not None:
                covering.visible = False
        self.viewer.add_layer(self.errors)


def _newest(there: list[Labels], rather: list[Labels], other: Labels | None) -> Labels | None:
    """Return the newest layer that is not the other one, rather one of some."""
    return next((x for x in [*reversed(rather), *reversed(there)] if x is not other), None)


def errors_layer(layer: Labels, found: Comparison) -> Labels:
    """Return the errors of a result as a layer on top of it; hovering tells the kind of each."""
    kinds = list(Kind)
    colors: dict[int | None, str] = {**{int(k): COLORS[k] for k in kinds}, 0: "transparent", None: "red"}
    return Labels(
        found.errors.reshape(_pixels(layer).shape),
        name=f"errors of {layer.name}",
        colormap=DirectLabelColormap(color_dict=colors),
        features={"index": [0, *map(int, kinds)], "what": ["", *(MEANINGS[found.task][k] for k in kinds)]},
        metadata={ERRORS: True},
        opacity=0.8,
        affine=layer.affine,
        axis_labels=layer.axis_labels,
        rotate=layer.rotate,
        scale=layer.scale,
        shear=layer.shear,
        translate=layer.translate,
        units=layer.units,
    )


def _pixels(layer: Labels) -> Any:
    return layer.data[0] if layer.multiscale else layer.data


def _letters(layer: Labels) -> str:
    """Return one letter for each axis; without a record the usual ones, which may be wrong but are told apart."""
    record = layer.metadata.get("napari_unet")
    named = record.get("axes", "") if isinstance(record, dict) else ""
    for axes in (named, named.replace("c", "")):
        if len(axes) == layer.ndim:
            return str(axes)
    return "mnopqtczyx"[-layer.ndim :]


def _long_axes(layer: Labels) -> dict[str, int]:
    return {a: n for a, n in zip(_letters(layer), _pixels(layer).shape, strict=True) if n > 1 or a in "yx"}


def _short_axes(layer: Labels) -> tuple[int, ...]:
    """Return the axes of length 1, such as the one that stands for the channels of the image."""
    shape = _pixels(layer).shape
    return tuple(i for i, (a, n) in enumerate(zip(_letters(layer), shape, strict=True)) if n == 1 and a not in "yx")


def _comparison(
    result: NDArray[Any], truth: NDArray[Any], name: str, axes: str, together: str, task: str
) -> Generator[PlaneCompared | Comparison, None, None]:
    """Run in the worker: copies, since the user may go on painting."""
    true = np.array(truth)
    if not true.any():
        raise InvalidImage(f"The truth {name!r} is empty: choose labels with objects in them.")
    yield from comparing(np.array(result), true, axes, together, task)
