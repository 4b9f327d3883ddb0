"""The versions of the model in use: go back, keep under a name, export, import, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QInputDialog,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from ..engine.library import SUFFIX, Entry
from .learning import Learning

TO = f"Models (*{SUFFIX});;bioimage.io packages (*.zip);;ONNX (*.onnx)"
FROM = f"Models (*{SUFFIX} *.zip)"


def button(text: str, tip: str, pressed: Callable[[], object]) -> QPushButton:
    """Return a push button."""
    result = QPushButton(text)
    result.setToolTip(tip)
    result.clicked.connect(lambda: pressed())
    return result


class History(QWidget):
    """A list of versions, newest first, and what can be done with the one that is selected."""

    def __init__(self, learning: Learning) -> None:
        super().__init__()
        self.learning = learning
        self.versions = QListWidget()
        self.versions.setFixedHeight(96)
        self.versions.currentItemChanged.connect(lambda *_: self._refresh_buttons())
        self.back = button("Go back", "Use the selected version again, bit by bit as it was.", self._on_back)
        self.keep = button("Keep as ...", "Keep the selected version under a name of its own.", self._on_keep)
        self.export = button("Export ...", "Copy the selected version to a file.", self._on_export)
        self.delete = button("Delete", "Delete the selected version.", self._on_delete)
        self.bring = button("Import ...", "Take in a model file.", self._on_import)
        grid = QGridLayout()
        grid.setSpacing(4)
        for i, each in enumerate((self.back, self.keep, self.export, self.bring, self.delete)):
            grid.addWidget(each, i // 3, i % 3)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.versions)
        layout.addLayout(grid)
        learning.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what the library says."""
        entries, used = self.learning.history(), self.learning.session.entry
        shown = [self._entry(i) for i in range(self.versions.count())]
        lines = [in_words(entry, used) for entry in entries]
        if entries == shown and lines == [self.versions.item(i).text() for i in range(self.versions.count())]:
            self._refresh_buttons()
            return
        self.versions.clear()
        for entry, line in zip(entries, lines, strict=True):
            item = QListWidgetItem(line)
            item.setData(Qt.ItemDataRole.UserRole, entry)
            item.setToolTip(f"{entry.card.identity}\n{entry.card.created}")
            self.versions.addItem(item)
            if used is not None and entry.path == used.path:
                self.versions.setCurrentItem(item)
        self._refresh_buttons()

    @property
    def selected(self) -> Entry | None:
        """The version that is selected."""
        return self._entry(self.versions.currentRow())

    def _entry(self, row: int) -> Entry | None:
        item = self.versions.item(row)
        return item.data(Qt.ItemDataRole.UserRole) if item is not None else None

    def _refresh_buttons(self) -> None:
        entry, used = self.selected, self.learning.session.entry
        idle = self.learning.session.state == "idle"
        other = entry is not None and used is not None and entry.path != used.path
        self.back.setEnabled(idle and other)
        self.keep.setEnabled(idle and entry is not None)
        self.export.setEnabled(entry is not None)
        self.delete.setEnabled(idle and entry is not None and not entry.shipped)
        self.bring.setEnabled(idle)

    def _on_back(self) -> None:
        if self.selected is not None:
            self.learning.go_back(self.selected)

    def _on_keep(self) -> None:
        entry = self.selected
        if entry is None:
            return
        name, given = QInputDialog.getText(self, "Keep this version", "Name:", text=f"{entry.card.name} kept")
        if given:
            self.learning.name_version(entry, name.strip())

    def _on_export(self) -> None:
        entry = self.selected
        if entry is None:
            return
        start = f"{entry.card.name}@{entry.card.version}{SUFFIX}"
        path, _ = QFileDialog.getSaveFileName(self, "Export the model", start, TO)
        if path:
            self.learning.export(entry, Path(path))

    def _on_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Import a model", "", FROM)
        if path:
            self.learning.import_file(Path(path))

    def _on_delete(self) -> None:
        entry = self.selected
        if entry is None:
            return
        question = f"Delete version {entry.card.version} of {entry.card.name!r} for good?"
        if QMessageBox.question(self, "Delete a version", question) == QMessageBox.StandardButton.Yes:
            self.learning.delete(entry)


def in_words(entry: Entry, used: Entry | None) -> str:
    """Say what a version is: its number, its score, whether it is in use."""
    card = entry.card
    text = f"{card.name} (shipped)" if entry.shipped else f"{card.name} {card.version}"
    score, baseline = card.training.get("score"), card.training.get("baseline")
    if isinstance(score, float) and isinstance(baseline, float):
        text += f": {score:.2f} instead of {baseline:.2f}"
    return text + "  (in use)" * (used is not None and used.path == entry.path)
