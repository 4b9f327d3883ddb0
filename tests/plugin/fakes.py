"""A starter of jobs without threads, and models with chosen weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.errors import NapariUnetError
from napari_unet.engine.library import Library
from napari_unet.engine.model import Model, new_model
from napari_unet.plugin.jobs import Events, ignore


class Stepwise:
    """A starter whose job moves only when the test says so: one event a `step`."""

    def __init__(self) -> None:
        self.events: Events | None = None
        self.running = False
        self.closed = 0
        self.held = False
        self.before_event: Callable[[], object] = ignore

    def __call__(self, function: Callable[..., Events], *args: Any, **callbacks: Callable[..., object]) -> Stepwise:
        assert not self.running, "two jobs at once"
        self.events, self.callbacks, self.running = function(*args), callbacks, True
        self._cancelled = False
        return self

    def cancel(self) -> None:
        self._cancelled = True

    def hold(self, on: bool) -> None:
        self.held = on

    def step(self) -> bool:
        """Run to the next event; False: the job has ended."""
        assert self.events is not None
        if self._cancelled:
            self.events.close()
            self.closed += 1
            return self._end("on_cancelled")
        try:
            event = next(self.events)
        except StopIteration:
            return self._end("on_done")
        except Exception as error:
            return self._end("on_error", error)
        try:
            self.callbacks["on_event"](event)
        except NapariUnetError as error:  # as the runner does; what is no error of ours is a bug and shall be seen
            self.events.close()
            return self._end("on_error", error)
        return True

    def finish(self) -> None:
        """Run to the end."""
        while self.step():
            pass

    def _end(self, name: str, *args: object) -> bool:
        self.running = False
        self.callbacks[name](*args)
        return False


def bright_is_foreground(name: str = "bright", task: str = "semantic", dims: int = 2, in_channels: int = 1) -> Model:
    """Return a model whose answer can be told by hand: foreground where the (mean) normalised intensity is above 0.5."""
    classes = ("background", "object")
    out = 3 if task == "objects" else 2
    spec = UNetSpec(dims=dims, in_channels=in_channels, out_channels=out, channels=(2,), norm="none")
    model = new_model(ModelCard(name, task, spec, classes))  # type: ignore[arg-type]
    middle = (1,) * dims
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        first, _, second, _ = model.network.encoder[0]
        first.weight[(0, slice(None), *middle)] = 1 / in_channels
        second.weight[(0, 0, *middle)] = 1
        for output in range(2 if task == "objects" else 1):
            output += out == 2  # a semantic model's first output is the background
            model.network.head.weight[output, 0] = 20
            model.network.head.bias[output] = -10
        if task == "objects":
            model.network.head.bias[2] = -10
    return model


def library_of(folder: Path, *models: Model) -> Library:
    """Return a library with these models only."""
    library = Library(folder)
    for model in models:
        library.add(model)
    return library
