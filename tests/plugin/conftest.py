"""A viewer without a window, and a session whose jobs run step by step."""

from __future__ import annotations

from pathlib import Path

import pytest
from napari.components import ViewerModel

from napari_unet.plugin.session import Message, Session

from .fakes import Stepwise, bright_is_foreground, library_of


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
