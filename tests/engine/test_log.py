"""The log helps to find a bug, stays small, holds no image, and never disturbs the work."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_unet.engine import log
from napari_unet.engine.log import LOGGER, keep_log, log_folder, write_report


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No handler of a test outlives it."""
    yield
    for handler in [h for h in LOGGER.handlers if isinstance(h, log._Log)]:
        LOGGER.removeHandler(handler)
        handler.close()


def files() -> list[Path]:
    return sorted(log_folder().iterdir())


def test_what_is_logged_stands_in_the_user_s_own_file(home: Path) -> None:
    keep_log()
    keep_log()
    LOGGER.error("The disk is full.")
    (file,) = files()
    assert file.is_relative_to(home)
    first, second = file.read_text().splitlines()
    assert "napari-unet" in first
    assert "Python" in first
    assert second.endswith("ERROR The disk is full.")


def test_it_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MOST", 1000)
    keep_log()
    for i in range(200):
        LOGGER.info("sentence %d", i)
    assert [f.name for f in files()] == ["napari-unet.log", "napari-unet.log.1", "napari-unet.log.2"]
    assert all(f.stat().st_size <= 1000 for f in files())
    assert "sentence 199" in files()[0].read_text()


def test_a_folder_that_cannot_be_made_disturbs_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "log").write_text("in the way")
    keep_log()
    LOGGER.info("lost")
    assert capsys.readouterr().err == ""


def test_a_disk_that_gets_full_disturbs_nothing(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    keep_log()
    (handler,) = (h for h in LOGGER.handlers if isinstance(h, log._Log))

    class Full(io.StringIO):
        def write(self, text: str, /) -> int:
            raise OSError(28, "No space left on device")

    before = handler.setStream(Full())
    LOGGER.info("lost")
    handler.setStream(before)
    assert capsys.readouterr().err == ""


def test_a_report_packs_the_log_without_the_name_of_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/somebody"))
    keep_log()
    LOGGER.warning("%s cannot be read.", Path("/home/somebody/cells.tif"))
    write_report(tmp_path / "report.zip", "models folder  /home/somebody/models\n")
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        assert archive.namelist() == ["info.txt", "napari-unet.log"]
        assert archive.read("info.txt") == b"models folder  ~/models\n"
        assert b"~/cells.tif cannot be read." in archive.read("napari-unet.log")
