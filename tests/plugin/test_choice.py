"""What is chosen, in words and as a command line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_unet.plugin.choice import NO_IMAGE, Choice

from .test_session import two_squares


def test_nothing_chosen_is_no_command_but_a_sentence() -> None:
    assert Choice().command() == ""
    assert Choice().in_words() == NO_IMAGE


def test_a_file_on_disk_is_named_by_its_path(viewer, session) -> None:
    viewer.add_image(two_squares(), name="cells", metadata={"path": "data/cells 1.png"})
    assert "segment 'data/cells 1.png' -o 'cells 1_labels.tif'" in session.choice.command()


def test_a_channel_is_chosen_only_where_there_is_a_choice(viewer, session) -> None:
    viewer.add_image(np.zeros((2, 40, 60)), name="two")
    assert session.choice.axes == "cyx"
    assert session.settings.channel == 0
    session.choose_model(session.library.find("pair"))
    assert session.settings.channel is None
    viewer.add_image(two_squares())
    session.choose_model(session.library.find("bright"))
    assert session.settings.channel is None


def test_the_command_line_repeats_the_run(viewer, session) -> None:
    viewer.add_image(np.zeros((2, 40, 60)), name="my cells")
    session.choose(tile=64)
    assert session.choice.command() == (
        "napari-unet segment 'my cells.tif' -o 'my cells_labels.tif' --model bright@1 --axes CYX --channel 0 "
        "--device cpu --tile 64"
    )


def test_the_object_diameter_is_chosen_only_for_models_that_know_one(viewer, session) -> None:
    viewer.add_image(two_squares(), name="cells")
    session.choose_model(session.library.find("nuclei"))
    session.choose(diameter=40)
    assert session.choice.command().endswith("--device cpu --diameter 40")
    session.choose_model(session.library.find("bright"))
    assert session.settings.diameter is None
    assert "--diameter" not in session.choice.command()


def test_the_command_line_names_thresholds_that_are_not_the_models_own(viewer, session) -> None:
    viewer.add_image(two_squares(), name="cells")
    session.choose_model(session.library.find("objects"))
    session.rethreshold(replace(session.choice.thresholds, seed_threshold=0.25))
    assert session.choice.command().endswith("--device cpu --seed-threshold 0.25")
