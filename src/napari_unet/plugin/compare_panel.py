"""Compare with truth, a part of the Segment panel: two layers, their scores in words, and what the colours mean."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QPushButton, QVBoxLayout, QWidget
from superqt import QCollapsible
from superqt.utils import signals_blocked

from ..engine.comparison import COLORS, MEANINGS
from .comparing import Comparing
from .controls import allow
from .segment_panel import form_layout, label, narrow, section
from .session import BUSY
from .shortcuts import with_key

TIP = "Score the result, and add a layer that shows what was missed and what was invented."


class ComparePanel(QWidget):
    """Which layers, Compare, and what came of it.

    Parameters
    ----------
    comparing
        What it shows and steers.
    """

    def __init__(self, comparing: Comparing) -> None:
        super().__init__()
        self.comparing = comparing
        self.result, self.truth = narrow(QComboBox()), narrow(QComboBox())
        self.result.setToolTip("The labels to judge.")
        self.truth.setToolTip("Labels that are right, such as a mask that was drawn by hand; not annotations.")
        self.result.currentIndexChanged.connect(lambda i: comparing.choose(result=self.result.itemData(i)))
        self.truth.currentIndexChanged.connect(lambda i: comparing.choose(truth=self.truth.itemData(i)))
        self.by_plane = QCheckBox("plane by plane")
        self.by_plane.toggled.connect(comparing.compare_by_plane)
        form = form_layout()
        form.addRow(label("result"), self.result)
        form.addRow(label("truth"), self.truth)
        self.button = QPushButton(with_key("Compare", "compare"))
        self.button.clicked.connect(comparing.compare)
        self.scores = QLabel()
        self.scores.setWordWrap(True)
        self.scores.setTextFormat(Qt.TextFormat.PlainText)  # names of classes come from files of strangers
        self.scores.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.scores.setToolTip("AP: matched of all objects, at that overlap. PQ: how many were found, and how exactly.")
        self.legend = QLabel()
        self.legend.setWordWrap(True)

        content = QWidget()
        inside = QVBoxLayout(content)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.addLayout(form)
        inside.addWidget(self.by_plane)
        inside.addWidget(self.button)
        inside.addWidget(self.scores)
        inside.addWidget(self.legend)
        self.section: QCollapsible = section("Compare with truth", content)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.section)
        comparing.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what is so."""
        comparing = self.comparing
        there = comparing.layers()
        for box, chosen in ((self.result, comparing.result), (self.truth, comparing.truth)):
            with signals_blocked(box):
                box.clear()
                for layer in there:
                    box.addItem(layer.name, layer)
                if chosen is None:
                    box.addItem("no labels are open" if not there else "no other labels are open", None)
                box.setCurrentIndex(there.index(chosen) if chosen in there else box.count() - 1)
        many = len(comparing.axes) > 2
        with signals_blocked(self.by_plane):
            self.by_plane.setChecked(many and comparing.together == "yx")
        self.by_plane.setVisible(many)
        self.by_plane.setToolTip("Each plane has objects of its own; else an object has one number in all of them.")
        allow(self.button, comparing.obstacle() or ("" if comparing.session.state == "idle" else BUSY), TIP)
        self.scores.setText(comparing.in_words())
        self.scores.setVisible(comparing.found is not None)
        self.legend.setVisible(comparing.found is not None)
        if comparing.found is not None:
            lines = (
                f'<span style="color:{COLORS[k]}">■</span> {text}' for k, text in MEANINGS[comparing.found.task].items()
            )
            self.legend.setText("<br>".join(lines))
