"""What the user chose under Preferences > Plugins > napari-unet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from napari.settings import get_plugin_settings

from ..engine.library import Library


@dataclass(frozen=True, slots=True)
class Preferences:
    """How a new session begins."""

    device: str = "auto"
    threads: int = 0
    """0: all cores but one."""
    library: str = ""
    """The folder of the user's models; empty: the usual one."""

    live: bool = False
    """Whether Live is on as soon as there are annotations to paint on."""
    memory: float = 0.0
    """Gigabytes that tiles may take; 0: a quarter of what is free."""

    @classmethod
    def read(cls) -> Preferences:
        """Return what napari keeps, or the defaults where napari has not discovered the plugin."""
        try:
            running = get_plugin_settings("napari-unet").running
        except KeyError:
            return cls()
        return cls(running.device, running.threads, running.library, running.live, running.memory)

    def open_library(self) -> Library:
        """Return the models to choose from."""
        return Library(Path(self.library).expanduser() if self.library.strip() else None)
