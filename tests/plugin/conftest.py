"""A viewer without a window, and a session whose jobs run step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from napari.components import ViewerModel

from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.model import new_model
from napari_unet.engine.prompts import CHANNELS
from napari_unet.plugin.click_tool import ClickTool
from napari_unet.plugin.session import Message, Session

from .fakes import Stepwise, bright_is_foreground, library_of
from .flood import Flood, squares


class Heard(list[Message]):
    """What the session told the user."""

    @property
    def last(self) -> Message:
        return self[-1]


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def jobs() -> Stepwise:
    return Stepwise()


@pytest.fixture
def session(viewer: ViewerModel, jobs: Stepwise, tmp_path: Path) -> Session:
    library = library_of(
        tmp_path / "models",
        bright_is_foreground("bright"),
        bright_is_foreground("objects", task="objects"),
        bright_is_foreground("volume", dims=3),
        bright_is_foreground("pair", in_channels=2),
    )
    made = Session(viewer, jobs, library)
    made.choose_model(library.find("bright"))
    made.choose(device="cpu")
    return made


@pytest.fixture
def heard(session: Session) -> Heard:
    messages = Heard()
    session.told.connect(messages.append)
    return messages


@pytest.fixture
def flood() -> Flood:
    return Flood()


@pytest.fixture
def clicks() -> Stepwise:
    """The starter of the tool's own jobs."""
    return Stepwise()


@pytest.fixture
def lessons() -> Stepwise:
    """The starter of the jobs that learn."""
    return Stepwise()


@pytest.fixture
def tool(session: Session, clicks: Stepwise, lessons: Stepwise, flood: Flood) -> Iterator[ClickTool]:
    spec = UNetSpec(in_channels=CHANNELS, out_channels=1, channels=(2,))
    session.library.add(new_model(ModelCard("click", "click", spec)))
    session.choose_model(session.library.find("objects"))
    made = ClickTool(session, clicks, lambda entry, device: flood, lessons)
    yield made
    made.close()


@pytest.fixture
def ready(viewer, tool: ClickTool, clicks: Stepwise) -> ClickTool:
    """The tool, switched on, on `squares`."""
    viewer.add_image(squares(), name="squares")
    tool.switch(True)
    clicks.finish()
    return tool


@pytest.fixture
def segmented(viewer, session, jobs, ready) -> ClickTool:
    session.segment()
    jobs.finish()
    return ready
