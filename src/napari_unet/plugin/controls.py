"""What all panels ask of their controls: one that is disabled says why."""

from __future__ import annotations

from qtpy.QtWidgets import QWidget


def allow(widget: QWidget, why_not: str = "", tip: str = "") -> None:
    """Enable a control with its own tooltip, or disable it with the reason as its tooltip.

    Parameters
    ----------
    widget
        Its tooltip at the first call is its own one.
    why_not
        Empty: it is enabled.
    tip
        Another tooltip of its own from now on.
    """
    if tip or widget.property("tip") is None:
        widget.setProperty("tip", tip or widget.toolTip())
    widget.setEnabled(not why_not)
    widget.setToolTip(why_not or widget.property("tip"))
