"""The Click panel: the tool on and off, what the next click does, corrections, and the keys."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from .click_tool import KEY, ClickTool
from .controls import allow
from .correcting import VERBS
from .segment_panel import PRIMARY, section

KEYS = (
    ("left click", "this object"),
    ("right click, Alt or Ctrl + click", "not this"),
    ("double click", "correct an object that is there"),
    ("Enter or N", "accept"),
    ("Escape", "drop"),
    ("Ctrl+Z", "take back a click, or a change"),
    ("T", "extend through the slices"),
    *((verb.key, verb.name.lower()) for verb in VERBS),
    ("Shift + drag, while splitting", "cut along a line"),
    ("drag, wheel", "pan and zoom, as ever"),
)
OFF = "Switch the click tool on first."


class ClickPanel(QWidget):
    """Click objects, and correct those that are there."""

    def __init__(self, tool: ClickTool) -> None:
        super().__init__()
        self.tool = tool
        self.switch = QPushButton(checkable=True)
        self.switch.setMinimumHeight(34)
        self.switch.setStyleSheet(PRIMARY)
        self.switch.clicked.connect(tool.switch)
        self.hint = _three_lines()

        self.accept = _button(
            "Accept (N)", "Enter does it too: write the object into the result, where it is locked", tool.accept
        )
        self.drop = _button("Drop (Esc)", "Forget the object", tool.drop)
        self.undo = _button("Undo (Ctrl+Z)", "Take back the newest click, or the newest change", tool.undo)
        first = QHBoxLayout()
        first.setSpacing(4)
        for button in (self.accept, self.drop, self.undo):
            first.addWidget(button)
        self.extend = _button(
            "Extend through slices (T)", "Follow the object along z, or along time, as one object", tool.extend
        )

        self.verbs: dict[str, QPushButton] = {}
        grid = QGridLayout()
        for i, verb in enumerate(VERBS):
            button = _button(f"{verb.name} ({verb.key})", verb.hints[0], lambda _=False, verb=verb: tool.choose(verb))
            button.setCheckable(True)
            grid.addWidget(button, i // 3, i % 3)
            self.verbs[verb.name] = button

        self.learned = _three_lines()
        self.learn = QCheckBox("Learn as I click")
        self.learn.setToolTip("A few seconds after each object the next ones may need fewer clicks; nothing is saved")
        self.learn.setChecked(tool.teaching.on)
        self.learn.toggled.connect(tool.teaching.switch)
        self.keep = _button("Keep", "Save what was learned: it answers after the next start, too", tool.keep)
        self.forget = _button("Forget", "Answer as if nothing had been accepted", tool.forget)
        second = QHBoxLayout()
        second.setSpacing(4)
        for widget in (self.learn, self.keep, self.forget):
            second.addWidget(widget)

        keys = QWidget()
        rows = QGridLayout(keys)
        rows.setContentsMargins(0, 0, 0, 0)
        for i, (press, effect) in enumerate(KEYS):
            for column, text in enumerate((press, effect)):
                words = QLabel(text)
                words.setWordWrap(True)
                rows.addWidget(words, i, column)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 4, 0, 0)
        layout.addWidget(self.switch)
        layout.addWidget(self.hint)
        layout.addLayout(first)
        layout.addWidget(self.extend)
        layout.addLayout(second)
        layout.addWidget(self.learned)
        layout.addWidget(QLabel("Correct objects that are there:"))
        layout.addLayout(grid)
        layout.addWidget(section("Mouse and keys", keys))
        layout.addStretch(1)
        tool.changed.connect(self.refresh)
        tool.teaching.changed.connect(self.refresh)
        self.refresh()

    def refresh(self) -> None:
        """Show what the tool says."""
        tool = self.tool
        obstacle = "" if tool.on else tool.obstacle()
        self.switch.setChecked(tool.on)
        self.switch.setText(("Stop clicking" if tool.on else "Click objects") + f" ({KEY})" * tool.has_key)
        allow(self.switch, obstacle, "Cut out objects by clicks.")
        self.hint.setText(tool.hint())
        why = "" if tool.on else OFF
        pending = why or ("" if tool.draft is not None else "There is no object to accept: click one first.")
        allow(self.accept, pending)
        allow(self.drop, pending if not (tool.on and (tool.verb or tool.extending)) else "")
        allow(self.undo, why)
        self.learned.setText(tool.teaching.sentence())
        allow(self.keep, tool.teaching.cannot_keep())
        allow(self.forget, tool.teaching.cannot_forget())
        allow(self.extend, why or tool.cannot_extend())
        for name, button in self.verbs.items():
            allow(button, why)
            button.setChecked(tool.verb is not None and tool.verb.name == name)


def _three_lines() -> QLabel:
    """Return an empty label with room for three lines, so that what lies below stays where it is."""
    label = QLabel()
    label.setWordWrap(True)
    label.setMinimumHeight(3 * label.fontMetrics().lineSpacing())
    label.setAlignment(Qt.AlignmentFlag.AlignTop)
    return label


def _button(text: str, tip: str, function: object) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the keys stay with the picture
    button.clicked.connect(function)
    return button
