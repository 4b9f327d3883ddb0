"""A settings dataclass -> magicgui form -> settings dataclass. The tooltips are the fields' own docstrings."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Generic, TypeVar, get_type_hints

from magicgui.widgets import CheckBox, Container, FloatSlider, SpinBox
from magicgui.widgets.bases import ValueWidget
from qtpy.QtWidgets import QAbstractSpinBox

from ..engine.errors import InvalidSettings

T = TypeVar("T")


def descriptions(kind: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for line, after in zip(body.body, body.body[1:], strict=False):
        text = after.value if isinstance(after, ast.Expr) else None
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(text, ast.Constant):
            found[line.target.id] = inspect.cleandoc(str(text.value))
    return found


class Form(Generic[T]):
    """A form for some fields of a frozen dataclass.

    Parameters
    ----------
    value
        The dataclass to start from; fields without a widget keep its values.
    labels
        The fields shown, in this order, each with the words beside it.
    on_change
        Called with the new value after the user changed it; not by setting `value`.
    on_wrong
        Called instead when what the user chose is out of its range.
    """

    def __init__(
        self,
        value: T,
        labels: Mapping[str, str],
        on_change: Callable[[T], object],
        on_wrong: Callable[[InvalidSettings], object],
    ) -> None:
        if not is_dataclass(value):
            raise TypeError(f"{value!r} is no dataclass")
        self._value, self._on_change, self._on_wrong = value, on_change, on_wrong
        hints, tips = get_type_hints(type(value)), descriptions(type(value))
        known = {f.name for f in fields(value)}
        self.widgets: dict[str, ValueWidget[Any]] = {}
        for name, label in labels.items():
            if name not in known:
                raise ValueError(f"{type(value).__name__} has no field {name!r}")
            self.widgets[name] = _widget(hints[name], getattr(value, name), label=label, tooltip=tips.get(name, ""))
            self.widgets[name].changed.connect(self._on_user)
        self.container = Container(widgets=list(self.widgets.values()), labels=True)
        self.container.margins = (0, 0, 0, 0)

    @property
    def value(self) -> T:
        """What the form says; raises InvalidSettings if a field is out of its range."""
        return replace(self._value, **{n: _out(w) for n, w in self.widgets.items()})  # type: ignore[type-var]

    @value.setter
    def value(self, value: T) -> None:
        self._value = value
        for name, widget in self.widgets.items():
            with widget.changed.blocked():
                widget.value = _in(widget, getattr(value, name))

    def _on_user(self) -> None:
        try:
            value = self.value
        except InvalidSettings as error:
            self._on_wrong(error)
        else:
            self._on_change(value)


class OptionalSpinBox(SpinBox):
    """A whole number or none: 0 reads "automatic" and stands for None."""


def _widget(hint: Any, value: Any, **options: Any) -> ValueWidget[Any]:
    if hint is bool:
        return CheckBox(value=value, text=options.pop("label"), label="", **options)
    if hint is float:
        slider = FloatSlider(value=value, min=0.05, max=0.95, step=0.05, tracking=True, **options)
        for readout in slider.native.findChildren(QAbstractSpinBox):
            readout.setToolTip(slider.tooltip)
            readout.setFixedWidth(44)  # else it takes half of a narrow dock
        return slider
    if hint is int:
        return SpinBox(value=value, min=0, max=1_000_000, **options)
    if hint == int | None:
        box = OptionalSpinBox(value=value or 0, min=0, max=16384, step=64, **options)
        box.native.setSpecialValueText("automatic")
        return box
    raise TypeError(f"there is no widget for {hint}")


def _out(widget: ValueWidget[Any]) -> Any:
    return (widget.value or None) if isinstance(widget, OptionalSpinBox) else widget.value


def _in(widget: ValueWidget[Any], value: Any) -> Any:
    return (value or 0) if isinstance(widget, OptionalSpinBox) else value
