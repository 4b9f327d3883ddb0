"""The Train panel: paint, train, judge, keep or go back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor, QIcon, QKeySequence, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QColorDialog,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QInputDialog,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QShortcut,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from .controls import allow
from .learning import Learning, Verdict
from .models_panel import History, button
from .segment_panel import PRIMARY, form_layout, label, narrow, section
from .session import BUSY
from .shortcuts import with_key

if TYPE_CHECKING:
    from ..engine.training import StepDone, Validated
    from .plots import Curve

LOOK = 1000
"""Milliseconds between two looks at what was painted: so far a crash may throw the user back."""
DRAW = 250
"""Milliseconds between two drawings of the learning curve."""
FILES = "Labels (*.tif *.tiff *.zarr *.npy *.png)"
GOOD, BAD, OPEN = "#57b894", "#e0a03a", "#5b8ff9"
"""Edges of the verdict: better, not better, for the user to judge; seen on dark and on light."""
SHORTCUTS = 9


class TrainPanel(QWidget):
    """Annotations, training, versions.

    Parameters
    ----------
    learning
        What it shows and steers.
    window
        The widget in which the shortcuts hold.
    live
        What stands below the classes.
    """

    def __init__(self, learning: Learning, window: QWidget | None = None, live: QWidget | None = None) -> None:
        super().__init__()
        self.learning = learning
        self.curve: Curve | None = None
        self._last: StepDone | None = None

        self.kept = QFrame()
        self.kept_text = _wrapped("")
        kept = QVBoxLayout(self.kept)
        kept.addWidget(self.kept_text)
        self.restore = button("Restore", "Bring these strokes back.", learning.restore)
        self.forget = button("Discard", "Throw these strokes away.", learning.forget)
        kept.addLayout(_row(self.restore, self.forget))
        self.kept.setObjectName("kept")
        self.kept.setStyleSheet(_edge(OPEN, "#kept"))

        self.annotate = button(
            with_key("New annotations", "annotate"),
            "Add a layer to paint on; corrections in a result layer count as well.",
            learning.annotate,
        )
        self.classes = QGridLayout()
        self.classes.setSpacing(4)
        self.buttons: list[QPushButton] = []
        self.next = button(
            "Next object (Alt+N)", "Paint another object; each one must be painted whole.", learning.next_object
        )
        self.add = button("Add class ...", "Add a class; the model learns it in the next round.", self._on_add)
        self.count = _wrapped("")

        self.name = QLineEdit()
        self.name.setToolTip("What the trained model is called; each better round becomes a version of it.")
        self.name.editingFinished.connect(self._on_name)
        self.steps = QSpinBox()
        self.steps.setRange(1, 100_000)
        self.steps.setValue(learning.settings.steps)
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 10_000)
        self.minutes.setDecimals(1)
        self.minutes.setValue(2)
        for length in (self.steps, self.minutes):
            length.setToolTip("How long a round lasts; Stop ends it early.")
        self.unit = QComboBox()
        self.unit.setToolTip("What the length of a round is counted in.")
        self.unit.addItems(["steps", "minutes"])
        for changed in (self.steps.valueChanged, self.minutes.valueChanged, self.unit.currentIndexChanged):
            changed.connect(self._on_length)
        self.form = form_layout()
        self.form.addRow(label("save as"), self.name)
        self.form.addRow(label("train for"), _row(self.steps, self.minutes, self.unit))

        self.train = button(
            with_key("Train", "train_now"), "Teach a copy of the model in use what is painted.", learning.train
        )
        self.train.setMinimumHeight(34)
        self.train.setStyleSheet(PRIMARY)
        self.stop = button("Stop", "End the training now and judge the best of it so far.", learning.stop)
        self.drop = button("Discard", "End the training; the model in use stays.", learning.discard)
        self.speed = _wrapped("")
        self.curve_place = QVBoxLayout()

        self.verdict = _wrapped("")
        self.verdict.setFrameShape(QFrame.Shape.NoFrame)
        self.before = _toggle("Before", "What the model in use finds.")
        self.after = _toggle("After", "What the trained model finds.")
        self.before.clicked.connect(lambda: self._on_compare(False))
        self.after.clicked.connect(lambda: self._on_compare(True))
        self.keep = button("Keep", "Put the trained model in use, as a version.", learning.keep)
        self.reject = button("Discard", "Drop the trained model; the one in use stays.", learning.discard)
        self.refresh_after = QCheckBox("segment again with a better model")
        self.refresh_after.setToolTip("Show at once what a better model finds in the chosen image.")
        self.refresh_after.setChecked(learning.refresh_after)
        self.refresh_after.toggled.connect(self._on_refresh_after)

        self.history = History(learning)
        self.history.versions.setToolTip("The versions of the model in use, newest first, and what they began with.")
        self.versions = section("Versions", self.history)
        files = QWidget()
        grid = QGridLayout(files)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        self.save = button("Save strokes ...", "Write the annotations as TIFF or OME-Zarr.", self._on_save)
        self.load = button("Load strokes ...", "Take annotations from a label image.", self._on_load)
        self.new = button("New model ...", "Make a model for another task, other classes, or 3D.", self._on_new)
        grid.addWidget(self.save, 0, 0)
        grid.addWidget(self.load, 0, 1)
        grid.addWidget(self.new, 1, 0, 1, 2)
        self.more = section("Files and new models", files)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addWidget(self.kept)
        layout.addWidget(self.annotate)
        layout.addLayout(self.classes)
        layout.addWidget(self.next)
        layout.addWidget(self.add)
        layout.addWidget(self.count)
        if live is not None:
            layout.addWidget(live)
        layout.addLayout(self.form)
        layout.addWidget(self.train)
        layout.addLayout(_row(self.stop, self.drop))
        layout.addWidget(self.speed)
        layout.addLayout(self.curve_place)
        layout.addWidget(self.verdict)
        layout.addLayout(_row(self.before, self.after))
        layout.addLayout(_row(self.keep, self.reject))
        layout.addWidget(self.refresh_after)
        layout.addWidget(self.versions)
        layout.addWidget(self.more)
        layout.addStretch(1)

        for i in range(SHORTCUTS):
            key = QShortcut(QKeySequence(f"Alt+{i + 1}"), window or self)
            key.activated.connect(lambda i=i: self._on_key(i))
        QShortcut(QKeySequence("Alt+N"), window or self).activated.connect(learning.next_object)

        learning.changed.connect(self.refresh)
        learning.session.state_changed.connect(self.refresh)
        learning.stepped.connect(self._on_step)
        learning.validated.connect(self._on_validated)
        learning.judged.connect(self._on_verdict)
        self._looking = QTimer(self)
        self._looking.setInterval(LOOK)
        self._looking.timeout.connect(learning.look)
        self._looking.start()
        self._drawing = QTimer(self)
        self._drawing.setInterval(DRAW)
        self._drawing.timeout.connect(self._draw)
        self._on_verdict(Verdict(""))
        self.refresh()

    def shut(self) -> None:
        """Look for the last time; what was painted is on disk when this returns."""
        self._looking.stop()
        self._drawing.stop()
        self.learning.close()

    def refresh(self) -> None:
        """Show what is so."""
        learning = self.learning
        idle, obstacle = learning.session.state == "idle", learning.obstacle()
        kept = learning.kept()
        self.kept.setVisible(bool(kept))
        self.kept_text.setText("Strokes on this image were kept from an earlier session.")
        page = learning.page
        self.annotate.setText(with_key("New annotations" if page is None else "Show annotations", "annotate"))
        allow(self.annotate, learning.session.obstacle() or obstacle)
        self._refresh_classes()
        foreign = learning.session.entry is not None and learning.session.entry.card.cannot_learn
        self.count.setText(foreign or _in_words(*learning.strokes()))
        with signals_blocked(self.name):
            if not self.name.hasFocus():
                self.name.setText(learning.model_name)
        minutes = learning.settings.minutes is not None
        self.steps.setVisible(not minutes)
        self.minutes.setVisible(minutes)
        training, judging = learning.state == "training", learning.state == "judging"
        self.train.setVisible(not training)
        allow(self.train, obstacle or ("" if idle or learning.state == "idle" else BUSY))
        for widget in (self.stop, self.drop):
            widget.setVisible(training)
            allow(widget, "" if learning.session.state == "running" else "The training is ending already.")
        self.speed.setVisible(training)
        for widget in (self.keep, self.reject):
            widget.setVisible(judging)
            allow(widget, "" if idle else BUSY)
        for widget in (self.before, self.after):
            widget.setVisible(judging and learning.comparing)
        allow(self.new, "" if idle else BUSY)
        if self.curve is not None:
            self.curve.setVisible(training or bool(self.curve.losses))
        if training and not self._drawing.isActive():
            self._begin()
        elif not training and self._drawing.isActive():
            self._drawing.stop()
            self._draw()

    # ---- classes

    def _refresh_classes(self) -> None:
        scheme, learning = self.learning.scheme, self.learning
        if len(self.buttons) != len(scheme.names):
            self._make_buttons(len(scheme.names))
        for i, (widget, name, color) in enumerate(zip(self.buttons, scheme.names, scheme.colors, strict=True)):
            widget.setText(name)
            widget.setIcon(_icon(color))
            chosen = min(learning.value, 2) if scheme.objects else learning.value
            widget.setChecked(chosen == i + 1)
            key = f" (Alt+{i + 1})" if i < SHORTCUTS else ""
            widget.setToolTip(f"Paint {name}{key}. A right click renames it or changes its colour.")
        self.next.setVisible(scheme.objects)
        self.add.setVisible(not scheme.objects)

    def _make_buttons(self, count: int) -> None:
        for old in self.buttons:
            old.hide()
            self.classes.removeWidget(old)
            old.deleteLater()
        self.buttons = []
        for i in range(count):
            widget = QPushButton(checkable=True)
            widget.clicked.connect(lambda _, i=i: self._on_class(i))
            widget.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
            widget.customContextMenuRequested.connect(lambda at, i=i: self._on_menu(i, at))
            self.buttons.append(widget)
            self.classes.addWidget(widget, i // 2, i % 2)

    def _on_class(self, index: int) -> None:
        learning = self.learning
        page = learning.page
        learning.value = index + 1
        if page is None or page.layer is None or page.layer not in learning.viewer.layers:
            learning.annotate()
        else:
            learning.pick(index + 1)
        self.refresh()

    def _on_key(self, index: int) -> None:
        if index < len(self.buttons):
            self._on_class(index)

    def _on_menu(self, index: int, at: object) -> None:
        menu = QMenu(self)
        menu.addAction("Rename ...", lambda: self._on_rename(index))
        menu.addAction("Colour ...", lambda: self._on_recolour(index))
        menu.exec(self.buttons[index].mapToGlobal(at))

    def _on_rename(self, index: int) -> None:
        old = self.learning.scheme.names[index]
        name, given = QInputDialog.getText(self, "Rename the class", "Name:", text=old)
        if given:
            self.learning.rename_class(index, name.strip())

    def _on_recolour(self, index: int) -> None:
        color = QColorDialog.getColor(QColor(self.learning.scheme.colors[index]), self, "Colour of the class")
        if color.isValid():
            self.learning.recolour_class(index, color.name())

    def _on_add(self) -> None:
        name, given = QInputDialog.getText(self, "Add a class", "Name:")
        if given:
            self.learning.add_class(name.strip())

    # ---- training

    def _on_name(self) -> None:
        self.learning.name = self.name.text().strip()

    def _on_length(self) -> None:
        minutes = self.minutes.value() if self.unit.currentText() == "minutes" else None
        steps = self.steps.value() if minutes is None else 100_000
        self.learning.settings = replace(self.learning.settings, steps=steps, minutes=minutes)
        self.refresh()

    def _on_refresh_after(self, on: bool) -> None:
        self.learning.refresh_after = on

    def _begin(self) -> None:
        """A round begins: only now is the plot's library imported."""
        from .plots import Curve

        if self.curve is None:
            self.curve = Curve()
            self.curve_place.addWidget(self.curve)
        self.curve.clear()
        self._last = None
        self.speed.setText("Preparing ...")
        self._on_verdict(Verdict(""))
        self._drawing.start()

    def _on_step(self, event: StepDone) -> None:
        self._last = event
        if self.curve is not None:
            self.curve.step(event.loss)

    def _on_validated(self, event: Validated) -> None:
        if self.curve is not None:
            self.curve.score(event.step, event.score, event.baseline)

    def _draw(self) -> None:
        if self._last is None or self.curve is None:
            return
        last = self._last
        self.curve.draw()
        of = "" if self.learning.settings.minutes is not None else f" of {last.steps}"
        self.speed.setText(f"Step {last.step}{of}, {last.step / max(last.seconds, 1e-6):.1f} steps a second")

    def _on_verdict(self, verdict: Verdict) -> None:
        self.verdict.setText(verdict.text)
        self.verdict.setVisible(bool(verdict.text))
        self.verdict.setStyleSheet(_edge({True: GOOD, False: BAD, None: OPEN}[verdict.good]))
        self.after.setChecked(True)
        self.before.setChecked(False)

    def _on_compare(self, after: bool) -> None:
        self.before.setChecked(not after)
        self.after.setChecked(after)
        self.learning.show_after(after)

    # ---- files

    def _on_save(self) -> None:
        page = self.learning.page
        start = f"{page.source.name if page else 'image'}_annotations.tif"
        path, _ = QFileDialog.getSaveFileName(self, "Save the annotations", start, FILES)
        if path:
            self.learning.save(Path(path))

    def _on_load(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Load annotations", "", FILES)
        if path:
            self.learning.load(Path(path))

    def _on_new(self) -> None:
        dialog = NewModel(self.learning, self)
        while dialog.exec() and not dialog.make():
            pass


class NewModel(QDialog):
    """Asks what a new model is for."""

    def __init__(self, learning: Learning, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("New model")
        self.learning = learning
        used = learning.session.entry
        self.name = QLineEdit("my model")
        self.task = narrow(QComboBox())
        self.task.addItem("classes: a class for each pixel", "semantic")
        self.task.addItem("objects: each one apart", "objects")
        self.classes = QLineEdit("background, cell")
        self.classes.setToolTip("Names, background first; for objects: background and what they are.")
        self.dims = QComboBox()
        self.dims.addItem("2D, plane by plane", 2)
        self.dims.addItem("3D", 3)
        self.channels = QSpinBox()
        self.channels.setRange(1, 64)
        self.start = narrow(QComboBox())
        self.start.addItem("nothing: learn from your strokes alone", None)
        if used is not None and used.card.task != "click" and not used.card.is_foreign:
            self.start.addItem(f"{used.card.name!r}: learn faster", used)
            self.start.setCurrentIndex(1)
        form = form_layout()
        form.setContentsMargins(12, 12, 12, 12)
        for text, widget in (
            ("name", self.name),
            ("task", self.task),
            ("classes", self.classes),
            ("images", self.dims),
            ("channels", self.channels),
            ("start", self.start),
        ):
            form.addRow(text, widget)
        self.problem = _wrapped("")
        form.addRow(self.problem)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        form.addRow(buttons)
        self.setLayout(form)
        self.resize(380, self.sizeHint().height())

    def make(self) -> bool:
        """Make the model; False, with the reason shown, if that cannot be."""
        classes = [name.strip() for name in self.classes.text().split(",") if name.strip()]
        problem = self.learning.new_model(
            self.name.text().strip(),
            self.task.currentData(),
            classes,
            self.dims.currentData(),
            self.channels.value(),
            self.start.currentData(),
        )
        self.problem.setText(problem)
        return not problem


def _row(*widgets: QWidget) -> QHBoxLayout:
    layout = QHBoxLayout()
    layout.setSpacing(4)
    for widget in widgets:
        layout.addWidget(widget, 1)
    return layout


def _wrapped(text: str) -> QLabel:
    result = QLabel(text)
    result.setWordWrap(True)
    return result


def _toggle(text: str, tip: str) -> QPushButton:
    result = QPushButton(text, checkable=True)
    result.setToolTip(tip)
    return result


def _edge(color: str, which: str = "") -> str:
    """Return the look of a note: a coloured edge, whatever the theme."""
    return f"QFrame{which} {{ border: none; border-left: 3px solid {color}; padding: 4px 4px 4px 8px; }}"


def _icon(color: str) -> QIcon:
    pixels = QPixmap(12, 12)
    pixels.fill(QColor(color))
    return QIcon(pixels)


def _in_words(images: int, teach: int, judge: int) -> str:
    """Say how much is painted."""
    strokes = teach + judge
    if not strokes:
        return "Nothing is painted yet."
    many = f"{strokes} stroke{'s' * (strokes != 1)}" + (f" on {images} images" if images > 1 else "")
    return f"{many}, {judge} of them held out to judge." if judge else f"{many}."
