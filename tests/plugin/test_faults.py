"""Whatever goes wrong or goes away while anything runs: one sentence, an idle dock, and the next run works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from napari.layers import Image as ImageLayer

from napari_unet.engine.execution import Executor
from napari_unet.engine.instant import Instant
from napari_unet.engine.training import Sampler
from napari_unet.plugin.batching import Batching
from napari_unet.plugin.click_tool import ClickTool
from napari_unet.plugin.learning import Learning
from napari_unet.plugin.live import Live

from .fakes import Stepwise
from .flood import Flood
from .test_annotating import paint
from .test_learning import few
from .test_live import GROUND, LEFT, Several
from .test_session import two_squares

FAULTS = [
    RuntimeError("CUDA error: device-side assert\ntriggered"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    MemoryError(),
    KeyError("x"),
    ImportError("no such library"),
]


@dataclass
class Room:
    """All that works in one viewer."""

    viewer: Any
    session: Any
    jobs: Stepwise
    clicks: Stepwise
    several: Several
    flood: Flood
    learning: Learning
    live: Live
    tool: ClickTool
    batching: Batching
    image: ImageLayer
    heard: list[Any]

    def settle(self) -> None:
        """Let all that runs come to its end."""
        for _ in range(20):
            self.live.tick()
            self.several.finish()
            for jobs in (self.jobs, self.clicks):
                if jobs.running:
                    jobs.finish()

    def step(self) -> None:
        """Let each that runs do a little."""
        for jobs in (self.jobs, self.clicks, *self.several.running):
            if jobs.running:
                jobs.step()

    @property
    def idle(self) -> bool:
        """A model that waits for the user's verdict keeps nothing busy."""
        busy = self.batching.running or self.jobs.running or self.clicks.running or self.several.running
        return self.session.state == "idle" and self.learning.state != "training" and not busy

    def close(self) -> None:
        for part in (self.tool, self.live, self.learning, self.session):
            part.close()

    # ---- what is begun

    def segment(self) -> None:
        self.session.segment()

    def train(self) -> None:
        few(self.learning)
        self.learning.train()

    def batch(self) -> None:
        self.batching.check()
        self.jobs.finish()
        self.batching.run()

    def paint_live(self) -> None:
        self.live.switch(True)
        for value, where in ((2, LEFT), (1, GROUND)):
            paint(self.learning.page.layer, value, where)
        self.live.tick()

    def click(self) -> None:
        self.tool.switch(True)
        self.clicks.finish()
        self.tool.click((6.0, 6.0))


VERBS = ["segment", "train", "batch", "paint_live", "click"]


@pytest.fixture
def room(viewer, session, jobs, heard, tool, clicks, flood, tmp_path: Path) -> Iterator[Room]:
    image = viewer.add_image(two_squares(), name="squares")
    session.choose_model(session.library.find("bright"))
    session.choose(tile=32)
    learning, several, batching = Learning(session), Several(), Batching(session)
    learning.settings = replace(learning.settings, steps=3, batch=1, patch=32, validate_every=2)
    batching.choose(out=str(tmp_path / "out"))
    live = Live(learning, several)
    made = Room(viewer, session, jobs, clicks, several, flood, learning, live, tool, batching, image, heard)
    yield made
    made.close()
    made.settle()


def failing(error: Exception, after: int, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that fails from so many calls on."""
    calls = iter(range(1000))

    def fail(*args: Any, **options: Any) -> Any:
        if next(calls) >= after:
            raise error
        return function(*args, **options)

    return fail


@pytest.mark.parametrize("error", FAULTS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("verb", VERBS)
def test_a_fault_of_any_class_is_one_sentence_and_the_next_run_works(
    room: Room, monkeypatch: pytest.MonkeyPatch, verb: str, error: Exception
) -> None:
    with monkeypatch.context() as patch:
        for owner, name, after in ((Executor, "begin", 3), (Sampler, "batch", 1), (Instant, "fit", 0)):
            patch.setattr(owner, name, failing(error, after, getattr(owner, name)))
        room.flood.error = error
        getattr(room, verb)()
        room.settle()
    assert room.idle
    said = [message.text for message in room.heard] + [room.live.hint] + room.batching.states
    bad = [text for text in said if type(error).__name__ in text or "Memory ran out" in text or "memory" in text]
    bad += [text for text in said if str(error).splitlines()[:1] and str(error).splitlines()[0] in text]
    assert bad
    assert all("\n" not in text for text in said)
    room.flood.error = None
    room.heard.clear()
    if room.live.on:
        room.live.switch(False)
    getattr(room, verb)()
    room.settle()
    assert room.idle
    assert not [message for message in room.heard if message.is_error]


DEEDS: dict[str, Callable[[Room], object]] = {
    "the image is removed": lambda room: room.viewer.layers.remove(room.image),
    "all layers are removed": lambda room: room.viewer.layers.clear(),
    "all layers get other names": lambda room: [setattr(x, "name", f"other {x.name}") for x in room.viewer.layers],
    "all layers get other shapes": lambda room: [
        setattr(x, "data", np.asarray(x.data)[:9]) for x in room.viewer.layers
    ],
    "the image gets more axes": lambda room: setattr(room.image, "data", np.stack([two_squares()] * 5)),
    "the dock is closed": Room.close,
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("verb", VERBS)
def test_layers_and_dock_may_go_while_anything_runs(room: Room, verb: str, steps: int, deed: str) -> None:
    getattr(room, verb)()
    for _ in range(steps):
        room.step()
    DEEDS[deed](room)
    room.settle()
    if deed != "the dock is closed":
        assert room.idle
        assert all("unforeseen" not in message.text for message in room.heard)
        assert "unforeseen" not in room.live.hint
