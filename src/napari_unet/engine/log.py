"""The log: what a bug report needs, in a few small files of the user's own; sentences and tracebacks, never pixels."""

from __future__ import annotations

import io
import logging
import platform
import time
import zipfile
from logging.handlers import RotatingFileHandler
from pathlib import Path

from .. import __version__
from .library import Library
from .storage import write_atomically

MOST = 500_000
"""Bytes of one file."""
FILES = 3
LOGGER = logging.getLogger("napari_unet")


class _Log(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A log that cannot be written (disk full, folder read-only) must not disturb the work."""


def log_folder() -> Path:
    """Return the folder of the log files, beside the models."""
    return Library().folder.parent / "log"


def keep_log() -> None:
    """Write what is logged from now on to the log file; may be called more than once."""
    path = log_folder() / "napari-unet.log"
    for handler in [h for h in LOGGER.handlers if isinstance(h, _Log)]:
        if Path(handler.baseFilename) == path.absolute():
            return
        LOGGER.removeHandler(handler)
        handler.close()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    log = _Log(path, maxBytes=MOST, backupCount=FILES - 1, encoding="utf-8", delay=True)
    form = logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    form.converter = time.gmtime
    log.setFormatter(form)
    LOGGER.addHandler(log)
    LOGGER.setLevel(logging.INFO)
    LOGGER.info("napari-unet %s, Python %s, %s", __version__, platform.python_version(), platform.platform())


def write_report(path: Path, about: str) -> None:
    """Pack `about` and the log files into a zip archive; the home folder's name is left out.

    Raises
    ------
    LibraryError
        If it cannot be written.
    """
    home, packed = str(Path.home()), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("info.txt", about.replace(home, "~"))
        for file in sorted(log_folder().glob("napari-unet.log*")):
            archive.writestr(file.name, file.read_text("utf-8", errors="replace").replace(home, "~"))
    write_atomically(path, packed.getvalue())
