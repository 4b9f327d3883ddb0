"""All models as a tree, and what can be done with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent
from qtpy.QtWidgets import QInputDialog, QTreeWidgetItem

from napari_unet.engine.exchange import export_model
from napari_unet.engine.model import Model
from napari_unet.plugin.dock import UNetDock, dropped_model
from napari_unet.plugin.learning import Learning
from napari_unet.plugin.models_panel import ModelsPanel

from ..engine import zoo
from .fakes import bright_is_foreground


@pytest.fixture
def learning(session):
    made = Learning(session)
    yield made
    made.close()


@pytest.fixture
def panel(qtbot, session, learning) -> ModelsPanel:
    """Models of their own, two versions of `bright`, and `child`, which was trained from it."""
    bright = session.library.add(bright_is_foreground("bright"))
    child = bright_is_foreground("child")
    session.library.add(Model(child.card.with_(parent=bright.card.identity), child.network))
    session.refresh_models()
    made = ModelsPanel(learning)
    qtbot.addWidget(made)
    return made


def item(panel: ModelsPanel, text: str) -> QTreeWidgetItem:
    (found,) = panel.tree.findItems(text, Qt.MatchFlag.MatchExactly | Qt.MatchFlag.MatchRecursive)
    return found


def type_in(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(QInputDialog, "getText", lambda *args, **kwargs: (text, True))


def test_versions_and_children_stand_below_their_model(panel: ModelsPanel) -> None:
    top = item(panel, "bright")
    assert top.parent() is None
    assert {top.child(i).text(0) for i in range(top.childCount())} == {"version 2, in use", "version 1", "child"}


def test_the_card_is_told_in_words(panel: ModelsPanel) -> None:
    panel.tree.setCurrentItem(item(panel, "pair"))
    assert "pair, version 1: gives each pixel a class; background, object.\nTakes 2D, 2 channels." in panel.card.text()


def test_a_version_is_put_in_use(panel: ModelsPanel, session) -> None:
    panel.tree.setCurrentItem(item(panel, "version 1"))
    panel.use.click()
    assert (session.entry.card.name, session.entry.card.version) == ("bright", 1)
    assert session.library.find("bright").card.version == 1


def test_what_answers_clicks_is_not_for_segmenting(panel: ModelsPanel) -> None:
    panel.tree.setCurrentItem(item(panel, "click"))
    assert not panel.use.isEnabled()
    assert "Click tab" in panel.use.toolTip()
    assert not panel.delete.isEnabled()
    assert "part of the program" in panel.delete.toolTip()


def test_a_model_gets_another_name_with_all_its_versions(panel: ModelsPanel, session, monkeypatch) -> None:
    before = [entry.card.content_hash for entry in session.library.versions("bright")]
    type_in(monkeypatch, "brighter")
    panel.tree.setCurrentItem(item(panel, "bright"))
    panel.rename.click()
    assert [entry.card.content_hash for entry in session.library.versions("brighter")] == before
    assert session.library.versions("bright") == []
    assert session.library.load("brighter@1").card.name == "brighter"
    assert item(panel, "brighter").childCount() == 2  # the child's parent is called by its old name


def test_a_name_that_is_taken_is_refused(panel: ModelsPanel, session, monkeypatch, heard) -> None:
    type_in(monkeypatch, "pair")
    panel.tree.setCurrentItem(item(panel, "bright"))
    panel.rename.click()
    assert heard.last.text == "There is a model 'pair' already: choose another name."
    assert len(session.library.versions("bright")) == 2


def test_a_model_is_duplicated(panel: ModelsPanel, session, monkeypatch) -> None:
    type_in(monkeypatch, "twin")
    panel.tree.setCurrentItem(item(panel, "pair"))
    panel.copy.click()
    assert session.library.find("twin").card.content_hash == session.library.find("pair").card.content_hash
    assert item(panel, "twin").parent().text(0) == "pair"


def drop(path: Path) -> QDropEvent:
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(path))])
    event = QDropEvent(
        QPointF(5, 5), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    event.kept = data  # type: ignore[attr-defined]
    return event


def test_a_model_file_dropped_on_the_dock_is_taken_in(qtbot, viewer, session, jobs, tmp_path: Path) -> None:
    dock = UNetDock(viewer, session)
    qtbot.addWidget(dock)
    path = export_model(session.library, session.library.find("pair"), tmp_path / "pair.safetensors")
    session.library.delete(session.library.find("pair"))
    dock.dropEvent(drop(path))
    jobs.finish()
    assert session.library.find("pair").card.version == 1
    dock.shut()


@pytest.mark.parametrize("name", ["cells.zip", "cells.onnx", "rdf.yaml", "."])
def test_packages_and_networks_of_others_may_be_dropped_too(tmp_path: Path, name: str) -> None:
    (tmp_path / "rdf.yaml").touch()
    assert dropped_model(drop(tmp_path / name)) == tmp_path / name


def test_the_card_of_another_programs_network_says_where_it_came_from(
    qtbot, session, learning, jobs, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
    panel = ModelsPanel(learning)
    qtbot.addWidget(panel)
    learning.import_file(zoo.package(tmp_path / "cells.zip", zoo.cells()))
    jobs.finish()
    panel.tree.setCurrentItem(item(panel, "Cells of somebody"))
    assert panel.card.text().splitlines()[-4:] == [
        "From cells.zip (bioimage.io package) by A. Body.",
        "Licence: MIT.",
        "Cite: Body: Cells (2024) 10.1000/182",
        "It segments but cannot be trained; its tiles agree as far as the 8 pixels of context that were given suffice.",
    ]


def test_a_model_shows_its_picture_in_its_panel_and_in_the_box(qtbot, viewer, session) -> None:
    dock = UNetDock(viewer, session)
    qtbot.addWidget(dock)
    panel = dock.models_panel
    panel.tree.setCurrentItem(item(panel, "nuclei"))
    assert panel.picture.pixmap().width() == 112
    assert panel.picture.isVisibleTo(panel)
    shown = dock.model.itemData(dock.model.findText("nuclei"), Qt.ItemDataRole.ToolTipRole)
    assert '<img src="data:image/png;base64,' in shown
    panel.tree.setCurrentItem(item(panel, "pair"))
    assert not panel.picture.isVisibleTo(panel)
    dock.shut()


def test_an_image_dropped_on_the_dock_is_none_of_its_business() -> None:
    assert dropped_model(drop(Path("/cells.tif"))) is None
