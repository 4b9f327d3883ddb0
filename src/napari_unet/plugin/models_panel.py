"""The versions of the model in use, and all models there are: use, go back, duplicate, rename, export, import, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QInputDialog,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QMessageBox,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from ..engine.card import ForeignSpec, ModelCard
from ..engine.errors import NapariUnetError
from ..engine.library import DESCRIPTIONS, ONNX, PACKAGE, SUFFIX, Entry
from .controls import allow
from .learning import Learning
from .session import BUSY

TO = f"Models (*{SUFFIX});;bioimage.io packages (*.zip);;ONNX (*.onnx)"
UNSELECTED = "Select a version in the list first."
PICTURE_HEIGHT = 112
"""Pixels; the whole panel fits a small screen then."""
SHIPPED = "This model is part of the program: duplicate it to have one of your own."
FROM = f"Models (*{SUFFIX} *.zip *.onnx rdf.yaml bioimageio.yaml)"
BRING = "Take in a model file, a bioimage.io package or an ONNX network; it may also be dropped on the dock."


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
        self.bring = button("Import ...", BRING, self._on_import)
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
        none = "" if entry is not None else UNSELECTED
        busy = "" if idle else BUSY
        allow(self.back, none or busy or ("" if other else "This version is in use already."))
        allow(self.keep, none or busy)
        allow(self.export, none)
        allow(self.delete, none or busy or (SHIPPED if entry is not None and entry.shipped else ""))
        allow(self.bring, busy)

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
        if self.selected is not None:
            ask_export(self, self.learning, self.selected)

    def _on_import(self) -> None:
        ask_import(self, self.learning)

    def _on_delete(self) -> None:
        if self.selected is not None:
            ask_delete(self, self.learning, self.selected)


class ModelsPanel(QWidget):
    """All models as a tree, each below the one it was trained from, with its versions; the card of the selected one."""

    def __init__(self, learning: Learning) -> None:
        super().__init__()
        self.learning, self.session = learning, learning.session
        self.tree = QTreeWidget()
        self.tree.setHeaderHidden(True)
        self.tree.setIndentation(14)
        self.tree.setFixedHeight(150)
        self.tree.currentItemChanged.connect(lambda *_: self._refresh_card())
        self.tree.itemDoubleClicked.connect(lambda *_: self._on_use())
        self.card = QLabel("Choose a model to see its card.")
        self.card.setWordWrap(True)
        self.card.setTextFormat(Qt.TextFormat.PlainText)  # the words come from files of strangers
        self.card.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.picture = QLabel()
        self.picture.setToolTip("What the model finds, as those who made it show it.")
        self.use = button(
            "Use for this image", "Put the selected version in use; also by a double click.", self._on_use
        )
        self.copy = button("Duplicate ...", "Keep the selected version as a model of its own.", self._on_duplicate)
        self.rename = button("Rename ...", "Give the model another name, with all its versions.", self._on_rename)
        self.export = button("Export ...", "To a file, a bioimage.io package, or ONNX.", self._on_export)
        self.bring = button("Import ...", BRING, self._on_import)
        self.delete = button("Delete", "Delete the selected version.", self._on_delete)
        grid = QGridLayout()
        grid.setSpacing(4)
        for i, each in enumerate((self.copy, self.rename, self.export, self.bring, self.delete)):
            grid.addWidget(each, i // 3, i % 3)
        layout = QVBoxLayout(self)
        layout.addWidget(self.tree)
        layout.addWidget(self.picture, 0, Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(self.card)
        layout.addWidget(self.use)
        layout.addLayout(grid)
        self._shown: list[tuple[Entry, bool]] = []
        self.session.changed.connect(self.refresh)
        self.session.state_changed.connect(lambda _: self._refresh_buttons())
        self.refresh()

    @property
    def selected(self) -> Entry | None:
        """The version that is selected; of a model, the one in use."""
        item = self.tree.currentItem()
        return item.data(0, Qt.ItemDataRole.UserRole) if item is not None else None

    def refresh(self) -> None:
        """Show what the library says."""
        try:
            entries, current = self.session.library.entries(), self.session.library.current()
        except NapariUnetError:
            entries, current = [], []  # the session says why
        in_use = {entry.path for entry in current}
        shown = [(entry, entry.path in in_use) for entry in entries]
        if shown != self._shown:
            self._shown = shown
            self._fill(entries, current)
        self._refresh_buttons()

    def _fill(self, entries: list[Entry], current: list[Entry]) -> None:
        before = self.selected
        self.tree.clear()
        nodes = {entry.card.name: self._item(entry, entry.card.name) for entry in current}
        for entry in current:
            name, parent = entry.card.name, entry.card.parent.partition("@")[0]
            above = nodes.get(parent)
            if above is None or name in _above(above):
                self.tree.addTopLevelItem(nodes[name])
            else:
                above.addChild(nodes[name])
            versions = [e for e in entries if e.card.name == name]
            for each in reversed(versions if len(versions) > 1 else []):
                nodes[name].addChild(self._item(each, version_in_words(each, entry)))
        self.tree.expandAll()
        for item in nodes.values():
            if before is not None and self._entry(item).card.name == before.card.name:
                self.tree.setCurrentItem(item)
        self._refresh_card()

    def _item(self, entry: Entry, text: str) -> QTreeWidgetItem:
        item = QTreeWidgetItem([text])
        item.setData(0, Qt.ItemDataRole.UserRole, entry)
        item.setToolTip(0, f"{entry.card.identity}\n{entry.card.created}")
        return item

    def _entry(self, item: QTreeWidgetItem) -> Entry:
        entry: Entry = item.data(0, Qt.ItemDataRole.UserRole)
        return entry

    def _refresh_card(self) -> None:
        if self.selected is not None:
            self.card.setText(card_in_words(self.selected))
            picture = QPixmap()
            picture.loadFromData(self.session.library.picture(self.selected))
            self.picture.setVisible(not picture.isNull())
            if not picture.isNull():
                smooth = Qt.TransformationMode.SmoothTransformation
                self.picture.setPixmap(picture.scaledToHeight(min(PICTURE_HEIGHT, picture.height()), smooth))
        self._refresh_buttons()

    def _refresh_buttons(self) -> None:
        entry, idle = self.selected, self.session.state == "idle"
        none = "" if entry is not None else UNSELECTED
        busy = "" if idle else BUSY
        clicks = "This model answers clicks: the Click tab uses it."
        allow(self.use, none or busy or (clicks if entry is not None and entry.card.task == "click" else ""))
        for each in (self.rename, self.delete):
            allow(each, none or busy or (SHIPPED if entry is not None and entry.shipped else ""))
        allow(self.copy, none or busy)
        allow(self.export, none)
        allow(self.bring, busy)

    def _on_use(self) -> None:
        entry = self.selected
        if entry is None or not self.use.isEnabled():
            return
        try:
            if not entry.shipped:
                self.session.library.rollback(entry.card.name, entry.card.version)
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        self.session.refresh_models()
        self.session.choose_model(entry)
        self.session.tell(f"In use: {entry.card.name!r}, version {entry.card.version}.")

    def _on_duplicate(self) -> None:
        if (entry := self.selected) is None:
            return
        name, given = QInputDialog.getText(self, "Duplicate the model", "Name:", text=f"{entry.card.name} copy")
        if given:
            self.learning.name_version(entry, name.strip())

    def _on_rename(self) -> None:
        if (entry := self.selected) is None:
            return
        name, given = QInputDialog.getText(self, "Rename the model", "Name:", text=entry.card.name)
        if not given or name.strip() == entry.card.name:
            return
        try:
            renamed = self.session.library.rename(entry.card.name, name.strip())
        except NapariUnetError as error:
            self.session.tell(str(error), is_error=True)
            return
        was_in_use = self.session.entry is not None and self.session.entry.card.name == entry.card.name
        self.session.refresh_models()
        if was_in_use:
            self.session.choose_model(renamed)
        self.session.tell(f"{entry.card.name!r} is called {renamed.card.name!r} now.")

    def _on_export(self) -> None:
        if (entry := self.selected) is not None:
            ask_export(self, self.learning, entry)

    def _on_import(self) -> None:
        ask_import(self, self.learning)

    def _on_delete(self) -> None:
        if (entry := self.selected) is not None:
            ask_delete(self, self.learning, entry)


def version_in_words(entry: Entry, used: Entry) -> str:
    """Say which version it is, whether it is in use, and its score on held-out strokes."""
    score = entry.card.training.get("score")
    scored = f", score {score:.2f}" if isinstance(score, float) else ""
    return f"version {entry.card.version}" + scored + ", in use" * (entry.path == used.path)


def _above(item: QTreeWidgetItem) -> set[str]:
    """Return the names on the way up from an item, which end where parents run in a circle."""
    names = set()
    while item is not None:
        names.add(item.text(0))
        item = item.parent()
    return names


def card_in_words(entry: Entry) -> str:
    """Return what a user wants to know of a model, a line each."""
    card, spec = entry.card, entry.card.spec
    task = {"objects": "finds objects", "semantic": "gives each pixel a class", "click": "answers clicks"}[card.task]
    lines = [
        card.description,
        f"{card.name}, version {card.version}: {task}; {', '.join(card.classes)}.",
        f"Takes {spec.dims}D, {spec.in_channels} channel{'s' * (spec.in_channels > 1)}.",
        f"Objects of about {card.diameter:g} pixels." if card.diameter else "",
        f"Trained from {card.parent.partition(':')[0]}." if card.parent else "",
        f"Licence of the training data: {card.licence}." if card.licence and not card.is_foreign else "",
        *(_origin_in_words(card) if card.is_foreign else ()),
    ]
    return "\n".join(line for line in lines if line)


def _origin_in_words(card: ModelCard) -> list[str]:
    """Say where the network of another program came from, and what can be done with it."""
    assert isinstance(card.spec, ForeignSpec)
    rim = max(card.spec.halo) + max(card.spec.eaten)
    return [
        f"From {card.source}.",
        f"Licence: {card.licence}.",
        *(f"Cite: {line}" for line in card.cite.splitlines()),
        f"It segments but cannot be trained; its tiles agree as far as the {rim} pixels of context that were given suffice.",
    ]


def is_model(path: Path) -> bool:
    """Tell whether a file or folder looks like a model that can be imported."""
    if path.is_dir():
        return any((path / name).is_file() for name in DESCRIPTIONS)
    return path.suffix in (SUFFIX, PACKAGE, ONNX) or path.name in DESCRIPTIONS


def ask_export(parent: QWidget, learning: Learning, entry: Entry) -> None:
    """Ask where to, and export a version."""
    start = f"{entry.card.name}@{entry.card.version}{SUFFIX}"
    path, _ = QFileDialog.getSaveFileName(parent, "Export the model", start, TO)
    if path:
        learning.export(entry, Path(path))


def ask_import(parent: QWidget, learning: Learning) -> None:
    """Ask for a file, and take the model in."""
    path, _ = QFileDialog.getOpenFileName(parent, "Import a model", "", FROM)
    if path:
        learning.import_file(Path(path))


def ask_delete(parent: QWidget, learning: Learning, entry: Entry) -> None:
    """Ask whether, and delete a version."""
    question = f"Delete version {entry.card.version} of {entry.card.name!r} for good?"
    if QMessageBox.question(parent, "Delete a version", question) == QMessageBox.StandardButton.Yes:
        learning.delete(entry)


def in_words(entry: Entry, used: Entry | None) -> str:
    """Say what a version is: its number, its score, whether it is in use."""
    card = entry.card
    text = f"{card.name} (shipped)" if entry.shipped else f"{card.name} {card.version}"
    score, baseline = card.training.get("score"), card.training.get("baseline")
    if isinstance(score, float) and isinstance(baseline, float):
        text += f": {score:.2f} instead of {baseline:.2f}"
    return text + "  (in use)" * (used is not None and used.path == entry.path)
