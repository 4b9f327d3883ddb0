"""The files of a bioimage.io package: a zip, a folder, or the description in a folder.

Nothing is unpacked to disk, no file outside of the package is read, nothing is unpickled, and nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import InvalidModel, ModelNotFound
from .library import DESCRIPTIONS, SUFFIX
from .model import MOST_BYTES

OWN = "model" + SUFFIX
"""Under this name a package of ours holds the model as we keep it."""
ENDINGS = (".yaml", ".yml")
MOST_DESCRIPTION = 1 << 20
"""A longer description is an attack or damage."""
MOST_TENSOR = 1 << 28
"""Likewise a test image of more bytes."""


class Files(Protocol):
    """The files of a package."""

    @property
    def name(self) -> str:
        """What the package is called."""

    def size(self, member: str) -> int | None:
        """Return the size of a file; None: there is none."""

    def read(self, member: str) -> bytes:
        """Return what is in a file."""


@dataclass(frozen=True, slots=True)
class _Folder:
    path: Path
    name: str

    def _place(self, member: str) -> Path:
        place = (self.path / member).resolve()
        if not place.is_relative_to(self.path.resolve()):
            raise InvalidModel(f"{self.name} names the file {member!r} outside of itself, which is not read.")
        return place

    def size(self, member: str) -> int | None:
        place = self._place(member)
        return place.stat().st_size if place.is_file() else None

    def read(self, member: str) -> bytes:
        return self._place(member).read_bytes()


@dataclass(frozen=True, slots=True)
class _Archive:
    archive: zipfile.ZipFile
    name: str

    def size(self, member: str) -> int | None:
        return self.archive.getinfo(member).file_size if member in self.archive.namelist() else None

    def read(self, member: str) -> bytes:
        return self.archive.read(member)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Files, str]]:
    """Open a package (zip, folder, or the description in a folder); gives its files and the name of its description.

    Raises
    ------
    ModelNotFound, InvalidModel
        Also for what goes wrong while it is open: damage, or a disk that is gone.
    """
    try:
        if path.suffix in (".yaml", ".yml"):
            if not path.is_file():
                raise FileNotFoundError(path)
            yield _Folder(path.parent, path.name), path.name
        elif path.is_dir():
            folder = _Folder(path, path.name)
            yield folder, _description_of(folder)
        else:
            with zipfile.ZipFile(path) as opened_zip:
                archive = _Archive(opened_zip, path.name)
                yield archive, _description_of(archive)
    except FileNotFoundError as error:
        raise ModelNotFound(f"There is no model file {path}.") from error
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read: {error.strerror}.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InvalidModel(f"{path.name} is no zip file, or it is damaged.") from error


def _description_of(files: Files) -> str:
    name = next((n for n in DESCRIPTIONS if files.size(n) is not None), None)
    if name is None:
        raise InvalidModel(f"{files.name} is no bioimage.io package: it holds no rdf.yaml.")
    return name


def content(files: Files, source: Any, sha256: Any = None, most: int = MOST_BYTES) -> bytes:
    """Return a file that a description names, after a look at where it lies, how large it is, and its checksum."""
    if not isinstance(source, str) or "://" in source:
        raise InvalidModel(
            f"{files.name} names {source!r:.100}, which is no file in it: napari-unet downloads nothing."
        )
    place = PurePosixPath(source)
    if place.is_absolute() or ".." in place.parts or "\\" in source or ":" in source:
        raise InvalidModel(f"{files.name} names the file {source!r:.100} outside of itself, which is not read.")
    size = files.size(str(place))
    if size is None:
        raise InvalidModel(f"{files.name} is damaged: its file {str(place)!r} is missing.")
    if size > most:
        raise InvalidModel(f"{files.name} cannot be used: its file {str(place)!r} is larger than any model.")
    found = files.read(str(place))
    if sha256 is not None and hashlib.sha256(found).hexdigest() != str(sha256).lower():
        raise InvalidModel(f"{files.name} is damaged: its file {str(place)!r} has another checksum than it says.")
    return found


def read_description(files: Files, name: str) -> dict[str, Any]:
    """Return the description of a model package.

    Raises
    ------
    InvalidModel
    """
    import yaml

    if (files.size(name) or 0) > MOST_DESCRIPTION:
        raise InvalidModel(f"{files.name} is no bioimage.io package: its description is too long.")
    try:
        record = yaml.safe_load(files.read(name))
        length = _written_out(record, {})
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InvalidModel(f"{files.name} is damaged: its description {name} cannot be read.") from error
    if length > 8 * MOST_DESCRIPTION:
        raise InvalidModel(f"{files.name} is no bioimage.io package: its description repeats itself without an end.")
    if not isinstance(record, dict) or record.get("type") != "model":
        raise InvalidModel(f"{files.name} is a package, but not of a model.")
    return record


def _written_out(value: Any, known: dict[int, int]) -> int:
    """Return how long a description would be with all its references written out: YAML can name a thing many times."""
    if id(value) not in known:
        known[id(value)] = 9 * MOST_DESCRIPTION  # what holds itself has no end
        inside = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else ()
        length = len(value) if isinstance(value, str) else 1
        known[id(value)] = length + sum(_written_out(v, known) for v in inside)
    return known[id(value)]


def own_model(files: Files, record: dict[str, Any]) -> bytes:
    """Return the model file in a package of ours; raises InvalidModel if any of its files is not what it says."""
    for name, wanted in _checksums(record):
        content(files, name, wanted)
    return content(files, OWN)


def _checksums(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the files with checksums that a description names, wherever it does."""
    found = []
    if isinstance(record.get("source"), str) and isinstance(record.get("sha256"), str):
        found.append((record["source"], record["sha256"]))
    for value in record.values():
        for inside in value if isinstance(value, list) else [value]:
            if isinstance(inside, dict):
                found += _checksums(inside)
    return found


def tensor(files: Files, place: tuple[Any, Any]) -> NDArray[Any]:
    """Return an array in a file; nothing in it is unpickled, and no memory is taken for what is only claimed."""
    found = content(files, *place, most=MOST_TENSOR)
    stream = io.BytesIO(found)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype.kind not in "buif" or math.prod(shape) * dtype.itemsize > len(found):
            raise ValueError(f"{shape} of {dtype}")
        stream.seek(0)
        return np.asarray(np.load(stream, allow_pickle=False))
    except (ValueError, EOFError, SyntaxError, MemoryError) as error:
        raise InvalidModel(f"{files.name} is damaged: its test tensor {place[0]!r:.100} cannot be read.") from error
