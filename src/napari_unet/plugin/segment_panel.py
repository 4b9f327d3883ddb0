"""The Segment panel: what to segment, how, and the command that does the same."""

from __future__ import annotations

from napari.layers import Image as ImageLayer
from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase, QGuiApplication
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible
from superqt.utils import signals_blocked

from ..engine.errors import NapariUnetError
from ..engine.settings import SegmentSettings
from .choice import NO_IMAGE
from .controls import allow
from .forms import Form, descriptions
from .session import BUSY, Session
from .shortcuts import with_key

THRESHOLDS = {
    "foreground_threshold": "foreground",
    "seed_threshold": "separation",
    "minimal_size": "smallest size",
}
MORE = {"tile": "tile size"}
PRIMARY = """
QPushButton:enabled { background-color: #3d5af1; color: white; font-weight: bold; }
QPushButton:enabled:hover { background-color: #5b74f5; }
"""
"""The look of the one button that matters most; the same in napari's light and dark theme."""


def narrow(combo: QComboBox) -> QComboBox:
    """Let a combo box be narrower than its longest entry."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


def form_layout() -> QFormLayout:
    """Return the layout that all our forms share."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
    layout.setHorizontalSpacing(8)
    return layout


def label(text: str) -> QLabel:
    """Return the words before a field, as wide in every form, so that the fields stand in one line."""
    result = QLabel(text)
    result.setFixedWidth(64)
    return result


def section(title: str, content: QWidget) -> QCollapsible:
    """Return a part of a panel that opens and closes by a click on its title."""
    result = QCollapsible(title, expandedIcon="▾", collapsedIcon="▸")
    result.layout().setContentsMargins(0, 0, 0, 0)
    result.content().layout().setContentsMargins(12, 0, 0, 4)
    result.addWidget(content)
    result.collapse(animate=False)
    return result


def in_time(seconds: float | None) -> str:
    """Say a duration: "12 s", "3 min", "2.5 h"."""
    if seconds is None:
        return "?"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class SegmentPanel(QWidget):
    """Image, axes, channel, object diameter, thresholds, Segment.

    Parameters
    ----------
    session
        What it shows and steers.
    compare
        What stands below the settings.
    """

    def __init__(self, session: Session, compare: QWidget | None = None) -> None:
        super().__init__()
        self.session = session
        tips = descriptions(SegmentSettings)

        self.image = narrow(QComboBox())
        self.image.setToolTip("The image layer to segment; follows the layer that is active in the layer list.")
        self.image.currentIndexChanged.connect(self._on_image)
        self.axes = QLineEdit()
        self.axes.setToolTip(
            "What each axis of the image is: t (time), c (channel), z, y, x. Guessed; change it if it is wrong."
        )
        self.axes.editingFinished.connect(self._on_axes)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.channel = narrow(QComboBox())
        self.channel.setToolTip(tips["channel"])
        self.channel.currentIndexChanged.connect(self._on_channel)
        self.diameter = QSpinBox()
        self.diameter.setRange(0, 9999)
        self.diameter.setSpecialValueText("as it is")
        self.diameter.setSuffix(" pixels")
        self.diameter.setKeyboardTracking(False)
        self.diameter.setToolTip(tips["diameter"])
        self.diameter.valueChanged.connect(lambda value: session.choose(diameter=value or None))
        self.estimate = QPushButton("Estimate")
        self.estimate.clicked.connect(session.estimate_diameter)
        sizes = QHBoxLayout()
        sizes.addWidget(self.diameter, 1)
        sizes.addWidget(self.estimate)
        self.sizes = QWidget()
        self.sizes.setLayout(sizes)
        sizes.setContentsMargins(0, 0, 0, 0)
        self.probabilities = QCheckBox("show probabilities too")
        self.probabilities.setToolTip("Also add the network's own maps, as image layers.")
        self.probabilities.toggled.connect(lambda on: session.choose(probabilities=on))

        self.form = form_layout()
        self.form.addRow(label("image"), self.image)
        self.form.addRow(label("axes"), self.axes)
        self.form.addRow(label(""), self.words)
        self.form.addRow(label("channel"), self.channel)
        self.form.addRow(label("diameter"), self.sizes)

        self.thresholds = Form(session.choice.thresholds, THRESHOLDS, session.rethreshold, self._on_wrong)
        self.objects = section("Objects: thresholds", self.thresholds.container.native)
        self.more = Form(session.settings, MORE, self._on_more, self._on_wrong)
        rest = QWidget()
        more = QVBoxLayout(rest)
        more.setContentsMargins(0, 0, 0, 0)
        more.addWidget(self.more.container.native)
        more.addWidget(self.probabilities)
        self.advanced = section("More", rest)

        self.button = QPushButton(with_key("Segment", "segment"))
        self.button.setObjectName("segment")
        self.button.setMinimumHeight(34)
        self.button.setStyleSheet(PRIMARY)
        self.button.clicked.connect(session.segment)

        self.command = QLineEdit(readOnly=True)
        self.command.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.copy = QPushButton("Copy")
        self.copy.setToolTip("Copy the command line")
        self.copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(self.command.text()))
        same = QHBoxLayout()
        same.addWidget(self.command, 1)
        same.addWidget(self.copy)
        self.same = QLabel("The same from a terminal:")

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addLayout(self.form)
        layout.addWidget(self.button)
        layout.addWidget(self.objects)
        layout.addWidget(self.advanced)
        if compare is not None:
            layout.addWidget(compare)
        layout.addWidget(self.same)
        layout.addLayout(same)
        layout.addStretch(1)

        session.changed.connect(self.refresh)
        session.state_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what the session says."""
        session = self.session
        layers = session.image_layers()
        with signals_blocked(self.image):
            self.image.clear()
            for layer in layers:
                self.image.addItem(layer.name, layer)
            if not layers:
                self.image.addItem("no image is open")
            self.image.setCurrentIndex(layers.index(session.image_layer) if session.image_layer in layers else 0)
        allow(self.image, "" if layers else NO_IMAGE)
        if not self.axes.hasFocus():
            self.axes.setText(session.choice.axes)
        allow(self.axes, "" if layers else NO_IMAGE)
        self.words.setText(session.choice.in_words() if layers else "")
        self.form.setRowVisible(self.words, bool(layers))
        self._refresh_channels()
        objects = session.entry is None or session.entry.card.task == "objects"
        self.objects.setVisible(objects)
        self.thresholds.value = session.choice.thresholds
        self.more.value = session.settings
        obstacle = session.obstacle()
        busy = "" if session.state == "idle" else BUSY
        with signals_blocked(self.diameter):
            estimates = session.entry is not None and session.entry.card.estimates
            self.diameter.setSpecialValueText("automatic" if estimates else "as it is")
            self.diameter.setValue(session.settings.diameter or 0)
        self.form.setRowVisible(self.sizes, session.entry is not None and bool(session.entry.card.diameter))
        allow(self.estimate, obstacle or busy, "Look how wide the objects are.")
        allow(self.button, obstacle or busy, "Segment the image with the chosen model.")
        command = session.choice.command()
        self.command.setText(command)
        self.command.setCursorPosition(0)
        self.command.setToolTip(command)
        for widget in (self.same, self.command, self.copy):
            widget.setVisible(bool(command))

    def _refresh_channels(self) -> None:
        count = self.session.choice.channels()
        with signals_blocked(self.channel):
            self.channel.clear()
            for channel in range(count):
                self.channel.addItem(str(channel), channel)
            self.channel.setCurrentIndex(self.session.settings.channel or 0)
        self.form.setRowVisible(self.channel, count > 0)

    def _on_image(self, index: int) -> None:
        layer = self.image.itemData(index, Qt.ItemDataRole.UserRole)
        if isinstance(layer, ImageLayer):
            self.session.choose_image(layer)

    def _on_axes(self) -> None:
        if self.axes.text().strip().lower() != self.session.choice.axes:
            self.session.choose_axes(self.axes.text())

    def _on_channel(self, index: int) -> None:
        self.session.choose(channel=index)

    def _on_more(self, settings: SegmentSettings) -> None:
        self.session.choose(tile=settings.tile)

    def _on_wrong(self, error: NapariUnetError) -> None:
        self.session.tell(str(error), is_error=True)
