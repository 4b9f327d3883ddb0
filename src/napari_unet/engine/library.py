"""Library: the models a user can choose from; the shipped ones, and their own with versions and parents.

A version is one file, ``NAME@VERSION.safetensors``; nothing else is stored, so a kill can at worst lose the file being
written (see `model.write_atomically`). The current version of a name is the highest, unless ``NAME.current`` names
another one.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from .card import ModelCard, read_card
from .errors import LibraryError, ModelError, ModelNotFound
from .storage import write_atomically

if TYPE_CHECKING:
    from .model import Model

SHIPPED = Path(__file__).parent.parent / "weights"
SUFFIX = ".safetensors"
PACKAGE, ONNX = ".zip", ".onnx"
DESCRIPTIONS = ("rdf.yaml", "bioimageio.yaml")
"""What a package of the bioimage.io may call its description."""
PICTURE = 160
"""Edge, in pixels, of the picture of a model."""
NAME = re.compile(r"[\w][\w .+-]{0,99}")
"""What a model may be called; above all no path."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A model file and its card."""

    card: ModelCard
    path: Path
    shipped: bool = False


class Library:
    """The models folder of a user, and the shipped models before it.

    Parameters
    ----------
    folder
        Default: ``$NAPARI_UNET_HOME/models``, else the user's data folder of the platform.
    """

    def __init__(self, folder: Path | None = None) -> None:
        home = os.environ.get("NAPARI_UNET_HOME")
        self.folder = folder or (Path(home) if home else user_data_path("napari-unet", appauthor=False)) / "models"

    def _read(self) -> Iterator[Entry | tuple[Path, str]]:
        for path in (*sorted(SHIPPED.glob("*" + SUFFIX)), *sorted(self.folder.glob("*" + SUFFIX))):
            if path.name.startswith("."):
                continue
            if path.is_symlink() and path.parent != SHIPPED:  # an installer may link those
                yield path, f"{path.name} is a link to another place: import the file that it points to."
                continue
            try:
                yield Entry(read_card(path), path, shipped=path.parent == SHIPPED)
            except ModelError as error:
                yield path, str(error)

    def entries(self) -> list[Entry]:
        """Return every readable version, shipped ones first, then by name and version."""
        found = [e for e in self._read() if isinstance(e, Entry)]
        return sorted(found, key=lambda e: (not e.shipped, e.card.name, e.card.version))

    def damaged(self) -> list[tuple[Path, str]]:
        """Return the files that cannot be read, each with the reason."""
        return [e for e in self._read() if not isinstance(e, Entry)]

    def current(self) -> list[Entry]:
        """Return one entry for each name: the version in use."""
        latest: dict[str, Entry] = {}
        for entry in self.entries():
            latest[entry.card.name] = entry
        for name in latest:
            latest[name] = self.find(name)
        return list(latest.values())

    def versions(self, name: str) -> list[Entry]:
        """Return all versions of a name, oldest first."""
        return [e for e in self.entries() if e.card.name == name]

    def find(self, model: str) -> Entry:
        """Return the entry for ``name``, ``name@version`` or the path of a model file.

        Raises
        ------
        ModelNotFound
            With the names there are.
        InvalidModel
            If it is a path and the file is damaged.
        """
        if model.endswith(SUFFIX):
            return Entry(read_card(Path(model)), Path(model))
        name, _, wanted = model.partition("@")
        versions = self.versions(name)
        if not versions:
            names = ", ".join(sorted({e.card.name for e in self.entries()})) or "none"
            raise ModelNotFound(f"There is no model {model!r}; there are: {names}.")
        if not wanted:
            wanted = self._chosen(name)
        for entry in versions:
            if str(entry.card.version) == wanted.partition(":")[0]:
                return entry
        if "@" not in model:
            return versions[-1]
        there = ", ".join(str(e.card.version) for e in versions)
        raise ModelNotFound(f"Model {name!r} has no version {wanted!r}; there are: {there}.")

    def picture(self, entry: Entry) -> bytes:
        """Return the picture of a model as a PNG file of at most PICTURE pixels; empty: it has none.

        Those of other programs' networks are plain pixels in their file (see `adopt`), so no decoder meets a stranger's.
        """
        import numpy as np
        from PIL import Image as Picture
        from safetensors import SafetensorError, safe_open

        if entry.shipped:
            beside = entry.path.with_suffix(".png")
            return beside.read_bytes() if beside.is_file() else b""
        if not entry.card.is_foreign:
            return b""
        try:
            with safe_open(entry.path, framework="numpy") as file:
                pixels = file.get_tensor("picture") if "picture" in file.keys() else None  # noqa: SIM118
        except (SafetensorError, OSError):
            return b""
        if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            return b""
        if not 0 < min(pixels.shape) <= max(pixels.shape) <= PICTURE:
            return b""
        content = io.BytesIO()
        Picture.fromarray(pixels).save(content, "PNG")
        return content.getvalue()

    def load(self, model: str) -> Model:
        """Load the model that `find` finds."""
        from .model import load_model_file

        return load_model_file(self.find(model).path)

    def add(self, model: Model) -> Entry:
        """Save a model as the next version of its name and put it in use.

        Raises
        ------
        LibraryError
            If the name cannot be a file name, or the folder cannot be written; what was there stays.
        """
        from .model import save_model

        name = model.card.name
        if not NAME.fullmatch(name):
            raise LibraryError(f"A model cannot be called {name!r}: use letters, digits, spaces, '.', '-', '_' or '+'.")
        version = max((e.card.version for e in self.versions(name)), default=0) + 1
        while True:
            path = self.folder / f"{name}@{version}{SUFFIX}"
            try:
                saved = save_model(type(model)(model.card.with_(version=version), model.network), path, new=True)
                break
            except FileExistsError:  # another window was quicker, or that version is damaged and may be rescued
                version += 1
        self._choose(name, version)
        return Entry(saved.card, path)

    def delete(self, entry: Entry) -> None:
        """Delete one version; raises LibraryError if it is shipped or cannot be deleted."""
        if entry.shipped:
            raise LibraryError(f"{entry.card.name!r} is part of the program and cannot be deleted.")
        try:
            entry.path.unlink()
        except OSError as error:
            raise LibraryError(f"{entry.path} cannot be deleted: {error.strerror}.") from error

    def rename(self, name: str, new: str) -> Entry:
        """Give a model another name, with all its versions, and return the one in use; a kill leaves both names, none lost.

        Raises
        ------
        ModelNotFound, InvalidModel, LibraryError
            If it is shipped, the new name is taken or cannot be a file name, or the folder cannot be written.
        """
        from .model import renamed

        versions, in_use = self.versions(name), self.find(name)
        if any(entry.shipped for entry in versions):
            raise LibraryError(f"{name!r} is part of the program and keeps its name: duplicate it under another one.")
        if not NAME.fullmatch(new):
            raise LibraryError(f"A model cannot be called {new!r}: use letters, digits, spaces, '.', '-', '_' or '+'.")
        if self.versions(new):
            raise LibraryError(f"There is a model {new!r} already: choose another name.")
        for entry in versions:
            write_atomically(self.folder / f"{new}@{entry.card.version}{SUFFIX}", renamed(entry.path, new))
        self._choose(new, in_use.card.version)
        for entry in versions:
            self.delete(entry)
        return self.find(new)

    def rollback(self, name: str, version: int | None = None) -> Entry:
        """Put an earlier version in use (default: the one before) and return it; no file is changed or lost.

        Raises
        ------
        ModelNotFound
            If there is no such version, or none before the one in use.
        """
        now = self.find(name)
        if version is None:
            earlier = [e for e in self.versions(name) if e.card.version < now.card.version]
            if not earlier:
                raise ModelNotFound(f"Model {name!r} has no version before {now.card.version}.")
            version = earlier[-1].card.version
        entry = self.find(f"{name}@{version}")
        self._choose(name, version)
        return entry

    def export(self, entry: Entry, path: Path) -> Path:
        """Copy a version to a file, bit by bit, for others to import; an ending is added where it is missing.

        Raises
        ------
        LibraryError
            If the file cannot be read or written.
        """
        path = path if path.name.endswith(SUFFIX) else path.with_name(path.name + SUFFIX)
        try:
            content = entry.path.read_bytes()
        except OSError as error:
            raise LibraryError(f"{entry.path} cannot be read: {error.strerror}.") from error
        write_atomically(path, content)
        return path

    def import_file(self, path: Path) -> Entry:
        """Take a model file in as the next version of its name; the same weights are not taken in twice.

        Raises
        ------
        ModelNotFound, InvalidModel, LibraryError
        """
        from .model import load_model_file

        return self.take_in(load_model_file(path))

    def take_in(self, model: Model) -> Entry:
        """Add a model unless a version of its name has the same weights already; returns that, or the new one."""
        for entry in self.versions(model.card.name):
            if entry.card.content_hash == model.card.content_hash:
                return entry
        return self.add(model)

    def _choose(self, name: str, version: int) -> None:
        write_atomically(self.folder / f"{name}.current", str(version).encode())

    def _chosen(self, name: str) -> str:
        try:
            return (self.folder / f"{name}.current").read_text().strip()
        except (OSError, UnicodeDecodeError):
            return ""
