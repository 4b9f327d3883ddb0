"""Files that a kill or a power cut never leaves half-written."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .errors import LibraryError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that at any moment either the old or the new content is there, also after a power cut."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        with open(temporary, "xb") as file:  # not tempfile: the umask decides who may read it
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if os.name == "posix":
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise LibraryError(
            f"{path} cannot be written: {error.strerror}; choose another folder or free some space."
        ) from error
