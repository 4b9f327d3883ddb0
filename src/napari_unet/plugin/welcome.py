"""What the dock shows on an empty viewer: three steps, and samples to take them with."""

from __future__ import annotations

from functools import partial

from qtpy.QtWidgets import QGridLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from .session import Session

STEPS = (
    "<b>1.</b> Drop an image into the window, or take a sample:",
    "<b>2.</b> Press <b>Segment</b>.",
    "<b>3.</b> Where it is wrong, paint it under <b>Train</b>, or click it under <b>Click</b>.",
)
SAMPLES = {
    "nuclei": ("Nuclei", "nuclei"),
    "cells": ("Cells", "cells"),
    "histology": ("Histology", "nuclei"),
    "stack": ("Stack", "nuclei"),
    "timelapse": ("Time-lapse", "nuclei"),
    "membranes": ("Membranes", "cells"),
}
"""What the buttons say, and the model that knows such images."""


class Welcome(QWidget):
    """Seen as long as no image is open."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.buttons: dict[str, QPushButton] = {}
        grid = QGridLayout()
        grid.setSpacing(4)
        for i, (key, (text, _)) in enumerate(SAMPLES.items()):
            self.buttons[key] = made = QPushButton(text)
            made.setToolTip(f"Open the sample {text.lower()} and choose a model for it.")
            made.clicked.connect(partial(self._open, key))
            grid.addWidget(made, i // 3, i % 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 4)
        for i, text in enumerate(STEPS):
            step = QLabel(text)
            step.setWordWrap(True)
            layout.addWidget(step)
            if i == 0:
                layout.addLayout(grid)
        session.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show or hide."""
        self.setVisible(self.session.image_layer is None)

    def _open(self, key: str, checked: bool = False) -> None:
        if (fitting := self.session.model_named(SAMPLES[key][1])) is not None:
            self.session.choose_model(fitting)
        self.session.viewer.open_sample("napari-unet", key)
