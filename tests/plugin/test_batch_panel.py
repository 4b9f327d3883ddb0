"""The Batch panel, without a window around it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QWidget

from napari_unet.plugin.batch_panel import BatchPanel
from napari_unet.plugin.batching import NOTHING, Batching

from .test_session import two_squares


@pytest.fixture
def panel(qtbot, session, tmp_path) -> Iterator[BatchPanel]:
    batching = Batching(session)
    batching.choose(out=str(tmp_path / "out"))
    made = BatchPanel(batching)
    qtbot.addWidget(made)
    made.resize(300, 600)
    made.show()
    return made


def test_without_an_image_the_button_says_why(panel: BatchPanel) -> None:
    assert not panel.button.isEnabled()
    assert panel.button.toolTip() == NOTHING


def test_first_the_plan_then_the_run_then_the_report(viewer, panel: BatchPanel, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    viewer.add_image(np.full((40, 60), 7), name="flat")
    assert panel.button.text() == "Plan"
    panel.button.click()
    jobs.finish()
    assert panel.button.text().startswith("Run 2 images, about ")
    assert panel.table.topLevelItem(0).text(1) == "one 2D image"
    panel.button.click()
    assert panel.pause.isEnabled()
    jobs.finish()
    assert panel.table.topLevelItem(0).text(1) == "done"
    assert panel.again.isEnabled()
    assert panel.save.isEnabled()
    panel.open.click()
    assert "squares_labels.tif" in viewer.layers


def test_a_box_that_is_not_ticked_leaves_its_image_out(viewer, panel: BatchPanel) -> None:
    layer = viewer.add_image(two_squares(), name="squares")
    panel.sources.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert panel.batching.unticked == {layer}
    assert not panel.button.isEnabled()


def test_an_added_path_that_is_unticked_is_removed(panel: BatchPanel) -> None:
    panel.batching.add("/data/*.tif")
    panel.sources.item(0).setCheckState(Qt.CheckState.Unchecked)
    assert panel.batching.paths == []


def test_a_sentence_is_not_cut_off(viewer, panel: BatchPanel, jobs) -> None:
    viewer.add_image(two_squares(), name="squares")
    viewer.add_image(np.full((40, 60), 7), name="flat")
    for _ in range(2):
        panel.button.click()
        jobs.finish()
    short, long = (panel.table.topLevelItem(i).sizeHint(1).height() for i in range(2))
    assert "Every pixel of 'flat' is 7" in panel.table.topLevelItem(1).text(1)
    assert long >= 3 * short


def test_a_scheduler_can_be_named(panel: BatchPanel) -> None:
    panel.scheduler.setText(" tcp://server:8786 ")
    panel.scheduler.editingFinished.emit()
    assert panel.batching.settings.scheduler == "tcp://server:8786"


def test_nothing_is_cut_off(viewer, panel: BatchPanel, session, qtbot) -> None:
    session.choose_model(session.library.find("objects"))
    viewer.add_image(two_squares(), name="an image with a name much longer than the panel is wide, and more")
    panel.batching.add("/a/very/long/path/to/a/folder/of/very/many/images/that/nobody/can/read/at/once")
    qtbot.wait(1)  # one turn of the event loop: the layout
    assert panel.minimumSizeHint().width() <= 300
    for widget in panel.findChildren(QWidget):
        if widget.isVisibleTo(panel) and widget.parent() is panel:
            assert widget.geometry().right() <= panel.width(), widget
