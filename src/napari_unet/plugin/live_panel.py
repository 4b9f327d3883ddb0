"""The live part of the Train panel: the overlay that follows every stroke, and where to paint next."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QPushButton, QWidget

from .live import Live
from .models_panel import button
from .shortcuts import with_key

TICK = 30
"""Milliseconds between two looks for a new stroke or another view."""


class LivePanel(QWidget):
    """Live, Next region, and what becomes of the overlay.

    Parameters
    ----------
    live
        What it shows and steers.
    """

    def __init__(self, live: Live) -> None:
        super().__init__()
        self.live = live
        self.toggle = QPushButton(with_key("Live", "live"), checkable=True)
        self.toggle.setToolTip("Show after every stroke what can be told from the strokes so far, before any training.")
        self.toggle.toggled.connect(live.switch)
        self.next = button(
            with_key("Next region", "next_region"),
            "Bring the place into view where the next strokes help most.",
            live.next_region,
        )
        self.doubt = QCheckBox("show doubt")
        self.doubt.setToolTip("Show where the answer is unsure: the brighter, the less sure.")
        self.doubt.toggled.connect(live.show_doubt)
        self.keep = button("Make it a result", "Turn the overlay into a result, of the whole image.", live.keep)
        self.hint = QLabel()
        self.hint.setWordWrap(True)

        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.toggle, 0, 0)
        layout.addWidget(self.next, 0, 1)
        layout.addWidget(self.doubt, 1, 0)
        layout.addWidget(self.keep, 1, 1)
        layout.addWidget(self.hint, 2, 0, 1, 2)

        self._ticking = QTimer(self)
        self._ticking.setInterval(TICK)
        self._ticking.timeout.connect(live.tick)
        live.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is so."""
        on = self.live.on
        self.toggle.setChecked(on)
        for widget in (self.next, self.doubt, self.keep):
            widget.setVisible(on)
        self.doubt.setChecked(on and self.live.doubt is not None)
        self.hint.setText(self.live.hint)
        self.hint.setVisible(bool(self.live.hint))
        if on != self._ticking.isActive():
            (self._ticking.start if on else self._ticking.stop)()

    def shut(self) -> None:
        """Stop; may be called more than once."""
        self._ticking.stop()
        self.live.close()
