"""Gestures: clicks, lines and keys in a viewer, beside panning and zooming, which go on as ever. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari.components import ViewerModel

STILL = 4
"""Pixels of the screen: a press that moves further is a drag, which pans."""
World = tuple[float, ...]


class Gestures:
    """Listens while it is switched on, and leaves no trace when it is switched off.

    Parameters
    ----------
    viewer
        A viewer or its model.
    clicked
        Called with a point of the world, and False for the right button and with Alt or Ctrl.
    double_clicked
        Called with a point of the world, after `clicked`.
    drawn
        Called with both ends of a line drawn with Shift, where `drawing` says that lines are wanted.
    keys
        What to call for a key.
    changed
        Called when the active layer or its mode becomes another.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        *,
        clicked: Callable[[World, bool], object],
        double_clicked: Callable[[World], object],
        drawn: Callable[[World, World], object],
        drawing: Callable[[], bool],
        keys: Mapping[str, Callable[[], object]],
        changed: Callable[[], object],
    ) -> None:
        self._viewer = viewer
        self._clicked, self._double_clicked, self._drawn = clicked, double_clicked, drawn
        self._drawing, self._changed = drawing, changed
        self._keys = keys
        self._others: list[Any] = []
        self._bound: list[tuple[Any, dict[str, Any]]] = []

    @property
    def painting(self) -> bool:
        """Whether the active layer has a use of its own for clicks."""
        active = self._viewer.layers.selection.active
        return active is not None and str(active.mode) != "pan_zoom"

    def begin(self) -> None:
        """Switch it on."""
        viewer = self._viewer
        if (active := viewer.layers.selection.active) is not None:
            active.mode = "pan_zoom"
        viewer.mouse_drag_callbacks.append(self._on_press)
        # two quick clicks must not zoom, as they do in napari
        self._others = list(viewer.mouse_double_click_callbacks)
        viewer.mouse_double_click_callbacks[:] = [self._on_double_click]
        viewer.layers.selection.events.active.connect(self._on_active)
        self._bind()

    def end(self) -> None:
        """Switch it off."""
        viewer = self._viewer
        viewer.mouse_drag_callbacks.remove(self._on_press)
        since = [other for other in viewer.mouse_double_click_callbacks if other != self._on_double_click]
        viewer.mouse_double_click_callbacks[:] = [*self._others, *since]
        viewer.layers.selection.events.active.disconnect(self._on_active)
        self._unbind()

    def _on_press(self, viewer: Any, event: Any) -> Iterator[None]:
        """A click is a press and a release with no drag between them."""
        if self.painting:
            return
        start, pos, button = tuple(event.position), np.asarray(event.pos), event.button
        modifiers = {str(getattr(m, "name", m)) for m in event.modifiers}
        drawing = "Shift" in modifiers and self._drawing()
        moved, event.handled = False, drawing
        yield
        while event.type == "mouse_move":
            moved |= float(np.abs(np.asarray(event.pos) - pos).max()) > STILL
            event.handled = drawing
            yield
        if not moved:
            self._clicked(start, button == 1 and not modifiers & {"Control", "Alt"})
        elif drawing:
            self._drawn(start, tuple(event.position))

    def _on_double_click(self, viewer: Any, event: Any) -> None:
        if event.button == 1 and not len(event.modifiers) and not self.painting:
            self._double_clicked(tuple(event.position))

    def _on_active(self, event: Any) -> None:
        self._unbind()
        self._bind()
        self._changed()

    def _on_mode(self, event: Any) -> None:
        self._changed()

    def _bind(self) -> None:
        """Bind the keys where they are heard first: those of the active layer come before those of the viewer."""
        active = self._viewer.layers.selection.active
        for provider in (self._viewer,) if active is None else (self._viewer, active):
            before = {
                key: provider.bind_key(key, _key(function), overwrite=True) for key, function in self._keys.items()
            }
            self._bound.append((provider, before))
        if active is not None:
            active.events.mode.connect(self._on_mode)

    def _unbind(self) -> None:
        for provider, before in self._bound:
            for key, function in before.items():
                provider.bind_key(key, function, overwrite=True)
            if provider is not self._viewer:
                provider.events.mode.disconnect(self._on_mode)
        self._bound.clear()


def _key(function: Callable[[], object]) -> Callable[[Any], None]:
    """Return what napari can bind to a key: it wants a name, which a `partial` has not."""

    def pressed(provider: Any) -> None:
        function()

    return pressed
