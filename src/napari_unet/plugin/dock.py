"""The dock widget: model and device on top, the panels, progress and Cancel below."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Generator
from functools import partial
from html import escape
from pathlib import Path
from time import perf_counter

import napari.viewer
from qtpy.QtCore import QEvent, QSize, Qt, QTimer
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QKeySequence
from qtpy.QtWidgets import (
    QComboBox,
    QFrame,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QShortcut,
    QStackedWidget,
    QTabWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from ..engine.library import Entry
from ..engine.log import keep_log
from . import jobs
from .batch_panel import BatchPanel
from .batching import Batching
from .click_panel import ClickPanel
from .click_tool import ClickTool
from .compare_panel import ComparePanel
from .comparing import Comparing
from .controls import allow
from .learning import Learning
from .live import Live
from .live_panel import LivePanel
from .models_panel import ModelsPanel, is_model
from .preferences import Preferences
from .segment_panel import SegmentPanel, form_layout, in_time, label, narrow
from .session import BUSY, NO_MODEL, Message, Progress, Session
from .shortcuts import KEYS, shortcut_list, with_key
from .train_panel import TrainPanel
from .verbs import press
from .welcome import Welcome

FRAME = 6
"""Pixels that tabs are wider than the panel in front."""
REDRAW, SLOWEST = 100, 500
"""Milliseconds between two looks at the tiles that arrived: at least, at most."""
LEISURE = 8
"""A look that took long, as without a graphics card, is followed by a pause of so many times its length."""
LEAST = 312
"""Pixels that the widest panel needs beside a scroll bar."""
READY = "Ready: press Segment."
DEVICES = {"auto": "automatic", "cuda": "GPU (CUDA)", "mps": "GPU (Apple)", "cpu": "processor (CPU)"}


class Panels(QTabWidget):
    """Tabs as tall as the panel in front; Qt would make them as tall as the tallest one."""

    def __init__(self) -> None:
        super().__init__()
        self.currentChanged.connect(self.updateGeometry)

    def hasHeightForWidth(self) -> bool:
        """Texts wrap."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height of the tabs and the panel in front."""
        page, pages = self.currentWidget(), self.findChild(QStackedWidget)
        assert page is not None
        assert pages is not None
        tabs = super().sizeHint().height() - pages.sizeHint().height()
        inside = page.heightForWidth(width) if page.hasHeightForWidth() else page.sizeHint().height()
        return int(tabs + inside)

    def sizeHint(self) -> QSize:
        """Return as much width as the widest needs, and the height of the one in front."""
        width = super().sizeHint().width()
        return QSize(width, self.heightForWidth(self.width()))

    def minimumSizeHint(self) -> QSize:
        """Return what the panel in front needs: what does not fit the window is scrolled by the dock, in height only."""
        page = self.currentWidget()
        assert page is not None
        return QSize(page.minimumSizeHint().width() + FRAME, self.heightForWidth(self.width()))


class UNetDock(QWidget):
    """U-Net: segment the open images, and teach the network where it is wrong.

    Parameters
    ----------
    napari_viewer
        The viewer (napari hands it in).
    session
        Only for tests.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer, session: Session | None = None) -> None:
        super().__init__()
        keep_log()
        viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)  # a proxy's layers are not those of the events
        preferences = Preferences.read()
        if session is None:
            session = Session(viewer, jobs.start, preferences.open_library())
            session.choose(device=preferences.device, memory=preferences.memory or None)
        self.session = session
        self._closed = False
        self._pictures: dict[str, str] = {}

        self.model = narrow(QComboBox())
        self.model.currentIndexChanged.connect(self._on_model)
        self.device = narrow(QComboBox())
        self.device.setToolTip("Where the network runs; automatic takes a graphics card if there is one.")
        self.device.currentIndexChanged.connect(self._on_device)
        self._offer_devices(["cpu"])
        top = form_layout()
        top.addRow(label("model"), self.model)
        self.help = QToolButton(text="?")
        self.help.setToolTip("The list of shortcuts.")
        self.help.clicked.connect(lambda: shortcut_list(self).open())
        where = QHBoxLayout()
        where.addWidget(self.device, 1)
        where.addWidget(self.help)
        top.addRow(label("device"), where)

        self.compare_panel = ComparePanel(Comparing(self.session))
        self.segment_panel = SegmentPanel(self.session, self.compare_panel)
        self.panels = Panels()
        self.panels.setTabBarAutoHide(True)
        self.panels.setDocumentMode(True)
        self.panels.addTab(self.segment_panel, "Segment")
        self.click_tool = ClickTool(self.session, jobs.start)
        self.click_panel = ClickPanel(self.click_tool)
        self.panels.addTab(self.click_panel, "Click")
        self.learning = Learning(self.session)
        self.live = Live(self.learning, jobs.start)
        self.live_panel = LivePanel(self.live)
        self._live_wanted = preferences.live
        self.learning.changed.connect(self._begin_live)
        self.train_panel = TrainPanel(self.learning, self, self.live_panel)
        self.panels.addTab(self.train_panel, "Train")

        self.batch_panel = BatchPanel(Batching(self.session))
        self.panels.addTab(self.batch_panel, "Batch")
        self.models_panel = ModelsPanel(self.learning)
        self.models_panel.tree.setToolTip("All models, each below the one that it was trained from, with its versions.")
        self.panels.addTab(self.models_panel, "Models")
        self.setAcceptDrops(True)

        self.bar = QProgressBar()
        self.bar.setTextVisible(True)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip(with_key("Stop; the viewer is as it was before.", "cancel"))
        self.cancel.clicked.connect(lambda: self.session.cancel())
        below = QHBoxLayout()
        below.addWidget(self.bar, 1)
        below.addWidget(self.cancel)
        self.message = QLabel()
        self.message.setWordWrap(True)
        self.message.setTextFormat(Qt.TextFormat.PlainText)  # names in it come from files of strangers
        self.message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.message.setAlignment(Qt.AlignmentFlag.AlignTop)

        inside = QWidget()
        layout = QVBoxLayout(inside)
        layout.setContentsMargins(8, 8, 8, 8)
        self.welcome = Welcome(self.session)
        layout.addWidget(self.welcome)
        layout.addLayout(top)
        layout.addWidget(self.panels)
        layout.addLayout(below)
        layout.addWidget(self.message)
        layout.addStretch(1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inside)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(scroll)
        self.setMinimumWidth(LEAST)
        for verb, key in KEYS.items():
            QShortcut(QKeySequence(key), self).activated.connect(partial(press, self, verb))

        self._progress: Progress | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(REDRAW)
        self._timer.timeout.connect(self._on_tick)
        self.session.changed.connect(self._refresh)
        self.session.state_changed.connect(self._on_state)
        self.session.progressed.connect(self._on_progress)
        self.session.told.connect(self._on_message)
        self.session.refresh_models()  # once more, now that what is wrong with it can be heard
        self._on_state("idle")
        self._warm_up = warm_up = jobs.start(_torch_devices, on_event=self._offer_devices)
        running, learning, tool, live = self.session, self.learning, self.click_tool, self.live
        self.destroyed.connect(warm_up.cancel)  # the window was closed as a whole
        self.destroyed.connect(lambda: tool.close())
        self.destroyed.connect(lambda: live.close())
        self.destroyed.connect(lambda: learning.close())
        self.destroyed.connect(lambda: running.close())

    def event(self, event: QEvent) -> bool:
        """Stop what runs when the dock is closed: napari then takes the parent away, and no other event comes."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.shut()
        return bool(super().event(event))

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take model files; what else is dragged here is not ours."""
        if dropped_model(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Take in a model file."""
        path = dropped_model(event)
        if path is not None:
            self.learning.import_file(path)
            event.acceptProposedAction()

    def shut(self) -> None:
        """Stop what runs and let go of the viewer; may be called more than once."""
        if not self._closed:
            self._closed = True
            self._timer.stop()
            self._warm_up.cancel()
            self.click_tool.close()
            self.live_panel.shut()
            self.train_panel.shut()
            self.session.close()

    def show_panel(self, name: str) -> None:
        """Bring a panel to the front, by the name of its tab."""
        names = [self.panels.tabText(i) for i in range(self.panels.count())]
        self.panels.setCurrentIndex(names.index(name))

    def _begin_live(self) -> None:
        """Switch Live on with the first annotations, if the user prefers so; from then on it is theirs to switch."""
        page = self.learning.page
        if self._live_wanted and page is not None and page.layer is not None and not self._closed:
            self._live_wanted = False
            self.live.switch(True)

    def _refresh(self) -> None:
        session = self.session
        with signals_blocked(self.model):
            self.model.clear()
            for i, entry in enumerate(session.models):
                card = entry.card
                self.model.addItem(f"{card.name}" if entry.shipped else f"{card.name} (version {card.version})", entry)
                kind = "of another program" if card.is_foreign else card.task
                about = f"{card.description or card.name} ({card.spec.dims}D, {kind}, version {card.version})"
                tip = f"<qt>{self._picture(entry)}{escape(about)}</qt>"  # the words come from files of strangers
                self.model.setItemData(i, tip, Qt.ItemDataRole.ToolTipRole)
                if session.entry is not None and entry.path == session.entry.path:
                    self.model.setCurrentIndex(i)
                    self.model.setToolTip(tip)
            if not self.model.count():
                self.model.addItem("no model")
                self.model.setToolTip(NO_MODEL.format(folder=session.library.folder))
        obstacle = session.obstacle()
        if self.message.property("obstacle") and not obstacle:
            self._on_message(Message(READY))
        elif obstacle and self.message.text() in ("", READY):
            self._on_message(Message(obstacle))

    def _picture(self, entry: Entry) -> str:
        """Return the picture of a model for a tooltip, read once."""
        if (key := entry.card.content_hash) not in self._pictures:
            picture = b64encode(self.session.library.picture(entry)).decode()
            self._pictures[key] = picture and f'<img src="data:image/png;base64,{picture}"><br>'
        return self._pictures[key]

    def _offer_devices(self, devices: list[str]) -> None:
        with signals_blocked(self.device):
            self.device.clear()
            for name in ["auto", *devices]:
                self.device.addItem(DEVICES.get(name, name), name)
            self.device.setCurrentIndex(max(0, self.device.findData(self.session.settings.device)))

    def _on_model(self, index: int) -> None:
        self.session.choose_model(self.model.itemData(index))

    def _on_device(self, index: int) -> None:
        self.session.choose(device=self.device.itemData(index))

    def _on_state(self, state: str) -> None:
        allow(self.cancel, "" if state == "running" else "Nothing is running.")
        self.model.setEnabled(state == "idle")
        allow(self.device, "" if state == "idle" else BUSY)
        if state == "running":
            self.bar.setRange(0, 0)
            self.bar.setFormat("")
            self._timer.start()
        else:
            self._timer.stop()
            self._progress = None
            self.bar.setRange(0, 1)
            self.bar.setValue(0)
            self.bar.setFormat("stopping ..." if state == "stopping" else "")

    def _on_tick(self) -> None:
        began = perf_counter()
        self.session.redraw()
        self._show_progress()
        if why := self.session.standing_still():
            self.bar.setFormat(why)
        drawing = round(1000 * (perf_counter() - began))
        self._timer.setInterval(min(max(REDRAW, LEISURE * drawing), SLOWEST))

    def _on_progress(self, progress: Progress) -> None:
        """Show the first step at once, the others at the next tick: a bar that moves paints the whole window anew."""
        self._progress = progress
        if not self.bar.maximum():
            self._show_progress()

    def _show_progress(self) -> None:
        progress, self._progress = self._progress, None
        if progress is None or not progress.done:
            return
        self.bar.setRange(0, progress.tiles)
        self.bar.setValue(progress.done)
        self.bar.setFormat(f"%p %, {in_time(progress.seconds_left)} left" if progress.done < progress.tiles else "%p %")

    def _on_message(self, message: Message) -> None:
        self.message.setProperty("obstacle", bool(message.text) and message.text == self.session.obstacle())
        self.message.setText(message.text)
        self.message.setStyleSheet("color: #e5534b;" if message.is_error else "")


def dropped_model(event: QDropEvent) -> Path | None:
    """Return the model file that is dragged or dropped; None: something else."""
    paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
    return next((path for path in paths if is_model(path)), None)


def segment_active(viewer: napari.viewer.Viewer) -> None:
    """Segment the active image of a viewer, from the menu or the command palette; opens the dock when needed."""
    dock_of(viewer).session.segment()


def dock_of(viewer: napari.viewer.Viewer) -> UNetDock:
    """Return the dock of a viewer; opens it when needed."""
    docks = [w for w in viewer.window.dock_widgets.values() if isinstance(w, UNetDock)]
    dock = docks[0] if docks else viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")[1]
    assert isinstance(dock, UNetDock)
    return dock


def _torch_devices() -> Generator[list[str], None, None]:
    """Import torch in the background, so that the first press of Segment need not wait, and see what it can use."""
    from ..engine.execution import available_devices

    yield available_devices()
