"""The learning curve: the loss, and the score on the held-out strokes beside that of the model in use."""

from __future__ import annotations

import pyqtgraph
from qtpy.QtWidgets import QVBoxLayout, QWidget

LOSS, SCORE, GREY = "#5b8ff9", "#f6903d", "#8c8c8c"
"""Colours that can be read on a dark and on a light window."""
SPAN = 0.1
"""The axis of scores shows at least so much, so that a change in the third digit does not look like a leap."""
SMOOTH = 0.9
"""Decay of the running mean that is drawn over the loss of each step."""


class Curve(QWidget):
    """Two small plots with one axis of steps."""

    def __init__(self) -> None:
        super().__init__()
        self._graphs = pyqtgraph.GraphicsLayoutWidget()
        self._graphs.setBackground(None)
        self._graphs.ci.layout.setSpacing(0)
        self._graphs.ci.layout.setContentsMargins(0, 0, 0, 0)
        self._score_plot = self._plot(0, "score")
        self._loss_plot = self._plot(1, "loss")
        self._score_plot.setXLink(self._loss_plot)
        self._score_plot.getAxis("bottom").setStyle(showValues=False)
        faint = pyqtgraph.mkColor(LOSS)
        faint.setAlpha(70)
        self._raw = self._loss_plot.plot(pen=faint)
        self._smooth = self._loss_plot.plot(pen=pyqtgraph.mkPen(LOSS, width=2))
        self._scores = self._score_plot.plot(
            pen=pyqtgraph.mkPen(SCORE, width=2), symbol="o", symbolSize=5, symbolBrush=SCORE, symbolPen=None
        )
        dashed = pyqtgraph.mkPen(GREY, width=1, style=pyqtgraph.QtCore.Qt.PenStyle.DashLine)
        self._baseline = pyqtgraph.InfiniteLine(angle=0, pen=dashed)
        self._score_plot.addItem(self._baseline)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._graphs)
        self.setFixedHeight(170)
        self.setToolTip("Above: the score on held-out strokes; dashed: that of the model in use. Below: the loss.")
        self.clear()

    def _plot(self, row: int, name: str) -> pyqtgraph.PlotItem:
        plot = self._graphs.addPlot(row=row, col=0)
        plot.setMenuEnabled(False)
        plot.setMouseEnabled(x=False, y=False)
        plot.hideButtons()
        plot.setLabel("left", name, color=GREY)
        for side in ("left", "bottom"):
            axis = plot.getAxis(side)
            axis.enableAutoSIPrefix(False)
            axis.setPen(GREY)
            axis.setTextPen(GREY)
        plot.getAxis("left").setWidth(48)
        return plot

    def clear(self) -> None:
        """Begin a new round."""
        self.losses: list[float] = []
        self.scores: list[tuple[int, float]] = []
        self._running: list[float] = []
        for curve in (self._raw, self._smooth, self._scores):
            curve.setData([], [])
        self._baseline.hide()
        self._score_plot.hide()

    def step(self, loss: float) -> None:
        """Add the loss of a step; `draw` shows it."""
        self.losses.append(loss)
        self._running.append(SMOOTH * self._running[-1] + (1 - SMOOTH) * loss if self._running else loss)

    def score(self, step: int, score: float | None, baseline: float | None) -> None:
        """Add a look at the held-out strokes; None: there are too few to judge."""
        if score is None:
            return
        self.scores.append((step, score))
        self._score_plot.show()
        self._scores.setData(*zip(*self.scores, strict=True))
        seen = [s for _, s in self.scores]
        if baseline is not None:
            self._baseline.setValue(baseline)
            self._baseline.show()
            seen.append(baseline)
        middle, half = (max(seen) + min(seen)) / 2, max(0.6 * (max(seen) - min(seen)), SPAN / 2)
        middle = min(middle, 1.01 - half)  # no score is above 1
        self._score_plot.setYRange(middle - half, middle + half, padding=0)

    def draw(self) -> None:
        """Show the steps made so far."""
        self._loss_plot.setXRange(0, max(len(self.losses), 2), padding=0.02)
        steps = list(range(1, len(self.losses) + 1))
        self._raw.setData(steps, self.losses)
        self._smooth.setData(steps, self._running)
