"""Model files: what is saved comes back, what is damaged or hostile is refused with one sentence."""

import json
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_unet.engine.card import ModelCard, UNetSpec, read_card
from napari_unet.engine.errors import InvalidModel, LibraryError, ModelNotFound
from napari_unet.engine.files import write_labels
from napari_unet.engine.image import Image
from napari_unet.engine.library import SHIPPED, Library
from napari_unet.engine.model import Model, extend_classes, load_model_file, new_model, save_model
from napari_unet.engine.storage import write_atomically

from .conftest import make_model


def with_header(content: bytes, change) -> bytes:
    """Return a safetensors file with another header."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(change(header)).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


@pytest.fixture
def saved(tmp_path: Path, tiny: Model) -> Path:
    path = tmp_path / "tiny.safetensors"
    save_model(tiny, path)
    return path


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_model_comes_back_bit_for_bit(tmp_path: Path, tiny: Model, half: bool) -> None:
    path = tmp_path / "a.safetensors"
    returned = save_model(tiny, path, half=half)
    loaded = load_model_file(path)
    assert loaded.card == returned.card
    for name, tensor in returned.network.state_dict().items():
        assert torch.equal(tensor, loaded.network.state_dict()[name])
    assert read_card(path) == loaded.card


def test_a_seed_gives_one_network() -> None:
    card = make_model().card
    a, b, c = (new_model(card, seed).network.head.weight for seed in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def newer(header: dict) -> dict:
    card = json.loads(header["__metadata__"]["napari_unet"])
    header["__metadata__"]["napari_unet"] = json.dumps(card | {"format": 2})
    return header


def wider(header: dict) -> dict:
    card = json.loads(header["__metadata__"]["napari_unet"])
    card["spec"]["channels"] = [5, 8, 16]
    header["__metadata__"]["napari_unet"] = json.dumps(card)
    return header


def without_card(header: dict) -> dict:
    return header | {"__metadata__": {"format": "pt"}}


def deep(header: dict) -> dict:
    return header | {"__metadata__": {"napari_unet": "[" * 100_000}}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (newer, "format 2.*update napari-unet"),
        (wider, "was changed after it was saved"),
        (without_card, "not a model of napari-unet"),
        (deep, "cannot be read"),
    ],
)
def test_a_changed_header_is_refused(saved: Path, change, words: str) -> None:
    saved.write_bytes(with_header(saved.read_bytes(), change))
    with pytest.raises(InvalidModel, match=words):
        load_model_file(saved)


@pytest.mark.parametrize("length", [0, 4, 100, 3000])
def test_a_truncated_file_is_refused(saved: Path, length: int) -> None:
    saved.write_bytes(saved.read_bytes()[:length])
    with pytest.raises(InvalidModel):
        load_model_file(saved)


def test_a_flipped_bit_in_the_weights_is_noticed(saved: Path) -> None:
    content = bytearray(saved.read_bytes())
    content[-10] ^= 1
    saved.write_bytes(content)
    with pytest.raises(InvalidModel, match="was changed after it was saved"):
        load_model_file(saved)


def test_a_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(InvalidModel, match="claims 1099511627776 bytes"):
        read_card(path)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    path = tmp_path / "bomb.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InvalidModel):
        load_model_file(path)
    assert not (tmp_path / "ran").exists()


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="There is no model file"):
        load_model_file(tmp_path / "none.safetensors")


def test_a_card_whose_task_does_not_fit_its_network_is_refused() -> None:
    with pytest.raises(InvalidModel, match="needs 3 output channels, not 2"):
        ModelCard(name="x", task="objects", spec=UNetSpec(out_channels=2))


def test_a_failed_save_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(LibraryError, match="No space left on device"):
        write_atomically(saved, b"new")
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


# --- the library


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "models")


def write_some_labels(path: Path) -> None:
    write_labels(path, np.ones((4, 4), np.int32), Image(np.ones((4, 4)), "yx"), {})


@pytest.mark.parametrize("write", [lambda path: write_atomically(path, b"mine"), write_some_labels])
def test_what_another_program_names_meanwhile_stops_no_write(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "mine.tif"
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([self / ".mine.tif.0123abcd"]))  # seen, then gone
    write(path)
    assert path.stat().st_size


def test_versions_count_up_and_the_newest_is_in_use(library: Library, tiny: Model) -> None:
    assert [library.add(tiny).card.version for _ in range(3)] == [1, 2, 3]
    assert library.find("tiny").card.version == 3
    assert [e.card.version for e in library.versions("tiny")] == [1, 2, 3]


def test_going_back_is_bit_identical_and_loses_nothing(library: Library, tiny: Model) -> None:
    library.add(tiny)
    other = Model(tiny.card, make_model(channels=(4, 8, 16)).network)
    with torch.no_grad():
        other.network.head.weight.add_(1)
    library.add(other)
    first = library.versions("tiny")[0].path.read_bytes()
    assert library.rollback("tiny").card.version == 1
    assert library.find("tiny").path.read_bytes() == first
    assert torch.equal(library.load("tiny").network.head.weight, tiny.network.head.weight)
    assert library.rollback("tiny", 2).card.version == 2
    library.rollback("tiny", 1)
    with pytest.raises(ModelNotFound, match="no version before 1"):
        library.rollback("tiny")


def test_names_are_told_when_one_is_not_found(library: Library, tiny: Model) -> None:
    library.add(tiny)
    with pytest.raises(ModelNotFound, match=r"There is no model 'other'; there are: .*tiny"):
        library.find("other")
    with pytest.raises(ModelNotFound, match="no version '7'; there are: 1"):
        library.find("tiny@7")


@pytest.mark.parametrize("name", ["../evil", "a/b", "", ".hidden", "x" * 200])
def test_a_name_cannot_leave_the_folder(library: Library, tiny: Model, name: str) -> None:
    with pytest.raises(LibraryError, match="cannot be called"):
        library.add(replace(tiny, card=tiny.card.with_(name=name)))
    assert not library.folder.exists()


def test_a_damaged_file_is_listed_apart(library: Library, tiny: Model) -> None:
    library.add(tiny)
    (library.folder / "bad@1.safetensors").write_bytes(bytes(20))
    assert "tiny" in [e.card.name for e in library.entries()]
    ((path, reason),) = library.damaged()
    assert path.name == "bad@1.safetensors"
    assert "damaged" in reason


def test_shipped_models_cannot_be_deleted(library: Library) -> None:
    with pytest.raises(LibraryError, match="part of the program"):
        library.delete(library.find("nuclei"))


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda p: p.stem)
def test_shipped_models_load_and_are_small(path: Path) -> None:
    model = load_model_file(path)
    assert model.card.licence
    assert path.stat().st_size < 10_000_000


# --- more classes


def test_a_class_can_be_added_and_the_old_answers_stay(tiny: Model) -> None:
    more = extend_classes(tiny, ["debris", "scratch"])
    assert more.card.classes == ("background", "foreground", "debris", "scratch")
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        old, new = tiny.network(x), more.network(x)
    torch.testing.assert_close(new[:, :2], old)
    assert torch.equal(new.argmax(1), old.argmax(1))


def test_a_class_cannot_be_added_twice_nor_to_objects(tiny: Model) -> None:
    with pytest.raises(InvalidModel, match="has a class of that name already"):
        extend_classes(tiny, ["foreground"])
    with pytest.raises(InvalidModel, match="it finds foreground; make a new model"):
        extend_classes(make_model(task="objects"), ["debris"])


# --- two windows, and what lies in the way


def test_two_windows_that_save_at_once_both_keep_their_version(library: Library, tiny: Model, monkeypatch) -> None:
    """The other window saves between our look at the versions and our writing."""
    library.add(tiny)
    other, seen = Library(library.folder), library.versions("tiny")
    other.add(tiny)
    monkeypatch.setattr(library, "versions", lambda name: seen)
    assert library.add(tiny).card.version == 3
    assert [e.card.version for e in other.versions("tiny")] == [1, 2, 3]


def test_a_damaged_version_is_not_written_over(library: Library, tiny: Model) -> None:
    path = library.add(tiny).path
    path.write_bytes(b"to be rescued")
    assert library.add(tiny).card.version == 2
    assert path.read_bytes() == b"to be rescued"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_library_that_may_only_be_read_still_gives_its_models(library: Library, tiny: Model) -> None:
    library.add(tiny)
    library.folder.chmod(0o500)
    try:
        assert library.load("tiny").card.name == "tiny"
        with pytest.raises(LibraryError, match="choose another folder"):
            library.add(tiny)
    finally:
        library.folder.chmod(0o700)


def test_a_disk_that_may_only_be_read_is_told(library: Library, tiny: Model, monkeypatch) -> None:
    library.add(tiny)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(LibraryError, match="Read-only file system"):
        write_atomically(library.folder / "tiny@2.safetensors", b"x")


def test_what_a_kill_left_is_swept_up_a_day_later(library: Library, tiny: Model) -> None:
    library.add(tiny)
    left = [library.folder / f".tiny@2.safetensors.{name}" for name in ("01234567", "89abcdef")]
    for path in left:
        path.write_bytes(b"half")
    os.utime(left[0], (0, 0))
    library.add(tiny)
    assert [path.exists() for path in left] == [False, True]


def test_loading_a_model_does_not_import_the_compiler_of_torch() -> None:
    code = "import sys, napari_unet; napari_unet.load_model('nuclei'); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
