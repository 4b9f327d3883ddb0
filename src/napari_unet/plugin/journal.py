"""Journal: strokes on disk while the user paints, and back after a crash. No Qt, no napari.

A journal is a file of records that is only ever appended to. Each record is ``length, checksum, payload``; the first
payload says what the journal is of, the others are changes. A kill can leave the last record torn, and no other; a
torn one is not read. Each session writes a file of its own, so two windows never write into one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ..engine.errors import FileError
from ..engine.image import Image
from ..engine.strokes import Change

SUFFIX = ".strokes"
RECORD = struct.Struct("<II")
SAMPLE = 4096
"""Pixels of an image that its identity looks at."""


@dataclass(frozen=True, slots=True)
class About:
    """What a journal is of."""

    identity: str
    name: str
    shape: tuple[int, ...]
    """Of the annotations."""
    task: str
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    process: int = 0
    started: float = 0.0
    """When that process began: numbers of processes come again."""

    @property
    def is_open(self) -> bool:
        """Whether the session that writes it still runs."""
        try:
            return abs(psutil.Process(self.process).create_time() - self.started) < 1
        except psutil.Error:
            return False


def identity(image: Image, source: str) -> str:
    """Return what tells an image from others: its shape, type and origin, and a grid of its pixels."""
    every = [max(1, round(n / SAMPLE ** (1 / len(image.shape)))) for n in image.shape]
    sample = np.asarray(image.array[tuple(slice(s // 2, None, s) for s in every)])
    said = json.dumps([image.shape, str(sample.dtype), image.axes, source])
    return hashlib.sha256(said.encode() + sample.tobytes()).hexdigest()[:32]


class Journal:
    """The strokes of one image, written as they are made.

    Parameters
    ----------
    folder
        Made when needed.
    about
        What it is of; the process is filled in.

    Raises
    ------
    FileError
        Here and by `write`, if the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, about: About) -> None:
        process = psutil.Process()
        record = asdict(about) | {"process": process.pid, "started": process.create_time()}
        self.path = folder / f"{about.identity}-{uuid.uuid4().hex[:12]}{SUFFIX}"
        with _told(self.path):
            folder.mkdir(parents=True, exist_ok=True)
        self._append(json.dumps(record).encode())

    def write(self, change: Change) -> None:
        """Append what was painted; when this returns it is on the disk."""
        self._append(_packed(change))

    def discard(self) -> None:
        """Remove it: the strokes are saved elsewhere, or not wanted."""
        self.path.unlink(missing_ok=True)

    def _append(self, payload: bytes) -> None:
        with _told(self.path), self.path.open("ab", buffering=0) as file:
            place = file.tell()
            try:
                written = file.write(RECORD.pack(len(payload), zlib.crc32(payload)) + payload)
                os.fsync(file.fileno())
                if written != RECORD.size + len(payload):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(place)  # so that what is written next can be read
                raise


@dataclass(frozen=True, slots=True)
class Kept:
    """A journal that an earlier session left."""

    about: About
    path: Path

    def changes(self) -> Iterator[Change]:
        """Yield what was painted, in order, up to the first record that is torn."""
        records = _records(self.path)
        next(records, None)
        for payload in records:
            yield _unpacked(payload)

    def discard(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)


def kept(folder: Path, image_identity: str, busy: frozenset[Path] = frozenset()) -> list[Kept]:
    """Return the journals of an image, oldest first, but for those that are still written.

    Parameters
    ----------
    busy
        Those that this very process writes.
    """
    found = []
    for path in folder.glob(f"{image_identity}-*{SUFFIX}"):
        first = next(_records(path), None)
        if path in busy or first is None:
            continue
        record = json.loads(first)
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}
        about = About(**values)
        if about.process == os.getpid() or not about.is_open:
            found.append(Kept(about, path))
    return sorted(found, key=lambda k: (k.path.stat().st_mtime_ns, k.path.name))


def _records(path: Path) -> Iterator[bytes]:
    """Yield the payloads of a file up to the first that is torn."""
    with path.open("rb") as file:
        while len(head := file.read(RECORD.size)) == RECORD.size:
            length, checksum = RECORD.unpack(head)
            payload = file.read(length)
            if len(payload) < length or zlib.crc32(payload) != checksum:
                return
            yield payload


def _packed(change: Change) -> bytes:
    """Distances between changed pixels are mostly 1, so they compress to next to nothing."""
    steps = np.diff(change.where, prepend=0).astype("<i8")
    values = change.values.astype("<u4")
    content = steps.tobytes() + values.tobytes() + np.packbits(change.held_out).tobytes()
    return struct.pack("<Q", change.where.size) + zlib.compress(content, 1)


def _unpacked(payload: bytes) -> Change:
    (size,) = struct.unpack_from("<Q", payload)
    content = zlib.decompress(payload[8:])
    where = np.cumsum(np.frombuffer(content, "<i8", size))
    values = np.frombuffer(content, "<u4", size, offset=8 * size)
    bits = np.frombuffer(content, np.uint8, offset=12 * size)
    return Change(where.astype(np.int64), values.astype(np.uint32), np.unpackbits(bits, count=size).astype(bool))


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FileError(
            f"The strokes cannot be kept in {path.parent} ({error.strerror}): free some space, or save the annotations."
        ) from error
