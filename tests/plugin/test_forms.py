"""Settings become forms and come back as settings."""

from __future__ import annotations

import pytest

from napari_unet.engine.settings import ObjectSettings, SegmentSettings
from napari_unet.plugin.forms import Form, descriptions

pytestmark = pytest.mark.usefixtures("qtbot")


@pytest.fixture
def heard() -> list[object]:
    return []


def test_a_form_gives_back_what_it_was_given(heard) -> None:
    value = ObjectSettings(0.35, 0.65, 99)
    form = Form(
        value, {"foreground_threshold": "a", "seed_threshold": "b", "minimal_size": "c"}, heard.append, heard.append
    )
    assert form.value == value
    form.value = ObjectSettings()
    assert form.value == ObjectSettings()
    assert heard == []


def test_a_change_by_the_user_is_told(heard) -> None:
    form = Form(ObjectSettings(), {"minimal_size": "smallest"}, heard.append, heard.append)
    form.widgets["minimal_size"].value = 40
    assert heard == [ObjectSettings(minimal_size=40)]


def test_zero_stands_for_none_where_none_is_allowed(heard) -> None:
    form = Form(SegmentSettings(tile=128), {"tile": "tile"}, heard.append, heard.append)
    form.widgets["tile"].value = 0
    assert heard == [SegmentSettings(tile=None)]


def test_a_value_out_of_range_is_told_in_one_sentence(heard) -> None:
    form = Form(SegmentSettings(), {"tile": "tile"}, lambda value: None, heard.append)
    form.widgets["tile"].value = 3
    assert [str(e) for e in heard] == ["Tile 3 is too small: use 16 pixels or more."]


def test_the_tooltips_are_the_docstrings_of_the_fields() -> None:
    assert descriptions(ObjectSettings)["minimal_size"].startswith("Objects of fewer pixels")
    with pytest.raises(ValueError, match="no field 'size'"):
        Form(ObjectSettings(), {"size": "size"}, print, print)
