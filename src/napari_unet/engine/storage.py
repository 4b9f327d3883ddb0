"""Files that a kill or a power cut never leaves half-written."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from .errors import LibraryError

DAY = 86_400
"""Seconds after which an unfinished file is nobody's."""


def write_atomically(path: Path, content: bytes, *, new: bool = False) -> None:
    """Write a file so that at any moment either the old or the new content is there, also after a power cut.

    With `new` a file that is there already stays, and FileExistsError is raised: two programs may want one name.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, f".*{path.suffix}.????????")
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        with open(temporary, "xb") as file:  # not tempfile: the umask decides who may read it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _name(temporary, path, new)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if new and path.exists():
            raise FileExistsError(path) from error
        raise LibraryError(
            f"{path} cannot be written: {error.strerror}; choose another folder or free some space."
        ) from error


def sweep(folder: Path, pattern: str) -> None:
    """Remove what a kill left of earlier tries; what is a day old, nobody is writing any more."""
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another program's, which has its name by now
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _name(temporary: Path, path: Path, new: bool) -> None:
    """Give a finished file its name."""
    if new:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a disk that knows no links, such as a memory stick
            if path.exists():
                raise FileExistsError(path) from None
        else:
            temporary.unlink()
            return
    os.replace(temporary, path)
