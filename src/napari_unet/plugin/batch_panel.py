"""The Batch panel: what is segmented and where to, the plan, and what became of each image."""

from __future__ import annotations

from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QInputDialog,
    QLineEdit,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from ..engine.settings import ENDINGS, BatchSettings
from .batching import Batching
from .controls import allow
from .forms import descriptions
from .segment_panel import PRIMARY, form_layout, in_time, label, narrow
from .session import BUSY

FORMATS = {".tif": "OME-TIFF (.tif)", ".zarr": "OME-Zarr (.zarr), any size", ".npy": "NumPy (.npy)", ".png": "PNG"}
MARGIN = 4
"""Pixels beside the text of a row."""
NO_COMMAND = "An open image has no file, so no command does the same: save it first."
LINKS = {"none": "each plane on its own", "z": "one through z, by overlap", "t": "one through time, by overlap"}


class BatchPanel(QWidget):
    """Many images: chosen, planned, run."""

    def __init__(self, batching: Batching) -> None:
        super().__init__()
        self.batching = batching
        tips = descriptions(BatchSettings)

        self.sources = QListWidget()
        self.sources.setToolTip(
            "Open images, and files that were added; only ticked ones take part (untick an added one to remove it)."
        )
        self.sources.setMaximumHeight(110)
        self.sources.itemChanged.connect(self._on_tick)
        add = QHBoxLayout()
        for text, tip, action in (
            ("Files ...", "Add image files", self._add_files),
            ("Folder ...", "Add all images of a folder", self._add_folder),
            ("Pattern ...", "Add the files that fit a pattern, such as day*/c1_*.tif", self._add_pattern),
        ):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(action)
            add.addWidget(button)

        self.out = QLineEdit(batching.out)
        self.out.setToolTip("The folder for the labels; made when it is needed.")
        self.out.editingFinished.connect(self._on_out)
        browse = QPushButton("...")
        browse.setToolTip("Choose the folder")
        browse.setFixedWidth(30)
        browse.clicked.connect(self._choose_out)
        where = QHBoxLayout()
        where.addWidget(self.out, 1)
        where.addWidget(browse)
        self.ending = narrow(QComboBox())
        self.ending.setToolTip(tips["ending"])
        for ending in ENDINGS:
            self.ending.addItem(FORMATS[ending], ending)
        self.ending.currentIndexChanged.connect(lambda i: batching.choose(ending=self.ending.itemData(i)))
        self.link = narrow(QComboBox())
        self.link.setToolTip(tips["link"])
        for name, words in LINKS.items():
            self.link.addItem(words, name)
        self.link.currentIndexChanged.connect(lambda i: batching.choose(link=self.link.itemData(i)))
        self.scheduler = QLineEdit()
        self.scheduler.setPlaceholderText("this computer")
        self.scheduler.setToolTip(tips["scheduler"])
        self.scheduler.editingFinished.connect(self._on_scheduler)
        self.form = form_layout()
        self.form.addRow(label("into"), where)
        self.form.addRow(label("format"), self.ending)
        self.form.addRow(label("objects"), self.link)
        self.form.addRow(label("on"), self.scheduler)

        self.button = QPushButton()
        self.button.setMinimumHeight(34)
        self.button.setStyleSheet(PRIMARY)
        self.button.clicked.connect(self._on_button)
        self.pause = QPushButton("Pause")
        self.pause.setToolTip("Hold after the tile under way; the machine is free until you go on.")
        self.pause.clicked.connect(batching.pause)
        main = QHBoxLayout()
        main.addWidget(self.button, 1)
        main.addWidget(self.pause)

        self.table = QTreeWidget()
        self.table.setHeaderLabels(["image", "plan and result"])
        self.table.setRootIsDecorated(False)
        self.table.setMinimumHeight(120)
        self.table.setToolTip("Double click a finished image to see its labels.")
        self.table.setWordWrap(True)  # a failure is a sentence
        self.table.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        self.table.header().resizeSection(0, 110)
        self.table.header().sectionResized.connect(lambda *_: self._fit_rows())
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.table.itemDoubleClicked.connect(lambda item: self._open(item))

        self.open = QPushButton("Open")
        self.open.setToolTip("Show the labels of the chosen images as layers")
        self.open.clicked.connect(self._open_chosen)
        self.save = QPushButton("Report ...")
        self.save.setToolTip("Write what became of each image to a JSON file")
        self.save.clicked.connect(self._save)
        self.again = QPushButton("Failed again")
        self.again.setToolTip("Plan those that failed once more")
        self.again.clicked.connect(batching.check_failed)
        self.copy = QPushButton("Copy")
        self.copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(batching.command()))
        below = QHBoxLayout()
        for button in (self.open, self.save, self.again, self.copy):
            button.setStyleSheet("padding: 3px 4px;")
            below.addWidget(button)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addWidget(self.sources)
        layout.addLayout(add)
        layout.addLayout(self.form)
        layout.addLayout(main)
        layout.addWidget(self.table)
        layout.addLayout(below)
        batching.changed.connect(self.refresh)
        batching.session.state_changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what the batch says."""
        batching, session = self.batching, self.batching.session
        self._refresh_sources()
        for edit, text in ((self.out, batching.out), (self.scheduler, batching.settings.scheduler)):
            if not edit.hasFocus():
                edit.setText(text)
        for box, value in ((self.ending, batching.settings.ending), (self.link, batching.settings.link)):
            with signals_blocked(box):
                box.setCurrentIndex(box.findData(value))
        idle = session.state == "idle"
        for widget in (self.sources, self.out, self.ending, self.link, self.scheduler):
            allow(widget, BUSY if batching.running else "")
        self.form.setRowVisible(2, session.entry is not None and session.entry.card.task == "objects")
        plan, obstacle = batching.plan, batching.obstacle()
        if plan is None:
            self.button.setText("Plan")
            tip = "See what will be done and what cannot be; nothing runs yet."
        else:
            count = len(plan.todo)
            time = f", about {in_time(plan.seconds)}" if plan.seconds and count else ""
            self.button.setText(
                f"Run {count} image{'s' * (count != 1)}{time}" if batching.report is None else "Plan again"
            )
            tip = "Compute the images of the plan."
        nothing = plan is not None and not plan.todo and batching.report is None
        done = "Nothing is left to do: choose other images, another folder or other settings." if nothing else ""
        busy = "" if idle else BUSY
        allow(self.button, obstacle or busy or done, tip)
        self.pause.setText("Go on" if batching.paused else "Pause")
        allow(self.pause, "" if batching.running else "No batch is running.")
        self._refresh_table()
        unrun = "" if batching.report is not None else "No batch has run yet."
        failed = "" if batching.report is not None and not batching.report.complete else "None has failed."
        allow(self.open, "" if self._any_done() else "No image is done yet.")
        allow(self.save, unrun)
        allow(self.again, unrun or busy or failed)
        command = batching.command()
        allow(self.copy, "" if command else NO_COMMAND, f"Copy the command that does the same:\n{command}")

    def _refresh_sources(self) -> None:
        batching = self.batching
        with signals_blocked(self.sources):
            self.sources.clear()
            for layer in batching.session.image_layers():
                self._add_source(layer.name, layer, layer not in batching.unticked)
            for path in batching.paths:
                self._add_source(path, path, True)

    def _add_source(self, text: str, value: object, on: bool) -> None:
        item = QListWidgetItem(text)
        item.setData(Qt.ItemDataRole.UserRole, value)
        item.setToolTip(text)
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)
        self.sources.addItem(item)

    def _refresh_table(self) -> None:
        plan = self.batching.plan
        items = plan.items if plan else ()
        if self.table.topLevelItemCount() != len(items):
            self.table.clear()
            self.table.addTopLevelItems([QTreeWidgetItem(["", ""]) for _ in items])
        for number, item in enumerate(items):
            row, state = self.table.topLevelItem(number), self.batching.states[number]
            row.setText(0, item.name)
            row.setText(1, state)
            row.setToolTip(0, f"{item.name}\n{item.target}")
            row.setToolTip(1, state)
        self._fit_rows()

    def _fit_rows(self) -> None:
        """Give each row the lines that its sentence needs, which Qt's trees do not do."""
        metrics, wrap = self.table.fontMetrics(), int(Qt.TextFlag.TextWordWrap)
        within = QRect(0, 0, self.table.columnWidth(1) - 2 * MARGIN, 10_000)
        for number in range(self.table.topLevelItemCount()):
            row = self.table.topLevelItem(number)
            row.setSizeHint(1, metrics.boundingRect(within, wrap, row.text(1)).size() + QSize(MARGIN, 2))

    def _any_done(self) -> bool:
        return any(state.startswith(("done", "skipped", "finished")) for state in self.batching.states) and bool(
            self.batching.plan
        )

    def _on_button(self) -> None:
        if self.batching.plan is None or self.batching.report is not None:
            self.batching.check()
        else:
            self.batching.run()

    def _on_tick(self, item: QListWidgetItem) -> None:
        value, on = item.data(Qt.ItemDataRole.UserRole), item.checkState() == Qt.CheckState.Checked
        if isinstance(value, str):
            self.batching.remove(value)
        else:
            self.batching.tick(value, on)

    def _on_out(self) -> None:
        if self.out.text().strip() != self.batching.out:
            self.batching.choose(out=self.out.text())

    def _on_scheduler(self) -> None:
        if (address := self.scheduler.text().strip()) != self.batching.settings.scheduler:
            self.batching.choose(scheduler=address)

    def _choose_out(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder for the labels", self.batching.out):
            self.out.setText(folder)
            self._on_out()

    def _add_files(self) -> None:
        self.batching.add(*QFileDialog.getOpenFileNames(self, "Images to segment")[0])

    def _add_folder(self) -> None:
        self.batching.add(QFileDialog.getExistingDirectory(self, "Folder of images"))

    def _add_pattern(self) -> None:
        self.batching.add(
            QInputDialog.getText(self, "Pattern", "Files that fit, such as /data/day*/c1_*.tif:")[0].strip()
        )

    def _open(self, item: QTreeWidgetItem) -> None:
        self.batching.open_result(self.table.indexOfTopLevelItem(item))

    def _open_chosen(self) -> None:
        chosen = self.table.selectedItems()
        for number, state in enumerate(self.batching.states):
            row = self.table.topLevelItem(number)
            if state.startswith(("done", "skipped", "finished")) and (not chosen or row in chosen):
                self._open(row)

    def _save(self) -> None:
        if path := QFileDialog.getSaveFileName(self, "Report", "report.json", "JSON (*.json)")[0]:
            self.batching.save_report(path)
