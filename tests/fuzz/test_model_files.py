"""Model files from strangers: an error of ours or a model that works, in bounded memory and time; never code that runs."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from napari_unet.engine import execution
from napari_unet.engine.card import ModelCard, UNetSpec, read_card
from napari_unet.engine.errors import InvalidModel, LibraryError, NapariUnetError, OutOfMemory
from napari_unet.engine.image import Image
from napari_unet.engine.inference import segment
from napari_unet.engine.library import SHIPPED, Library
from napari_unet.engine.model import Model, content_hash, load_model_file, new_model, save_model
from napari_unet.engine.settings import SegmentSettings

from ..engine.conftest import make_model

PIXELS = np.random.default_rng(0).random((40, 48), dtype=np.float32)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole model file."""
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    save_model(make_model(task="objects"), path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the damaged one is put."""
    return tmp_path_factory.mktemp("library") / "models" / "tiny@1.safetensors"


def survives(path: Path, content: bytes) -> bool:
    """Put a file into a library, list, load and use it; True: it was a model. What is not ours to raise is raised."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    library = Library(path.parent)
    assert len(library.entries()) + len(library.damaged()) == 1 + len(list(SHIPPED.glob("*.safetensors")))
    assert library.current()
    try:
        model = load_model_file(path)
        *_, result = segment(Image(PIXELS, "yx"), model, SegmentSettings(device="cpu"))
    except NapariUnetError:
        return False
    assert result.labels.shape == PIXELS.shape
    return True


def parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and what comes after it."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def joined(header: dict[str, Any], rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + rest


def with_card(content: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Return the file with another card."""
    header, rest = parts(content)
    card = json.loads(header["__metadata__"]["napari_unet"])
    change(card)
    header["__metadata__"]["napari_unet"] = json.dumps(card)
    return joined(header, rest)


def forged(tensors: dict[str, torch.Tensor], card: ModelCard) -> bytes:
    """Return a file whose hash is right, as somebody makes it who means harm."""
    return save(tensors, {"napari_unet": card.with_(content_hash=content_hash(card, tensors)).to_json()})


def test_the_whole_file_works(place: Path, content: bytes) -> None:
    assert survives(place, content)


@given(data=st.data())
def test_flipped_bits(place: Path, content: bytes, data: st.DataObject) -> None:
    """In the header as often as in the far longer rest."""
    (length,) = struct.unpack("<Q", content[:8])
    damaged = bytearray(content)
    anywhere = st.one_of(st.integers(0, 7), st.integers(8, 8 + length), st.integers(0, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(anywhere)] ^= 1 << data.draw(st.integers(0, 7))
    survives(place, bytes(damaged))


@given(data=st.data())
def test_pieces_cut_out_doubled_or_put_in(place: Path, content: bytes, data: st.DataObject) -> None:
    start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    middle = data.draw(st.one_of(st.just(b""), st.binary(max_size=64), st.just(content[start:stop] * 2)))
    survives(place, content[:start] + middle + content[stop:])


@given(length=st.integers(0, 2**64 - 1), rest=st.binary(max_size=200))
def test_any_bytes(place: Path, length: int, rest: bytes) -> None:
    assert not survives(place, struct.pack("<Q", length) + rest)


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from([10**18, -1, 0, "\x1b[2J", "\ud800", "../../x", "<img src=x>", 10**400]),
    ),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(max_size=4), inside, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_a_field_of_the_card_holds_anything(place: Path, content: bytes, data: st.DataObject) -> None:
    """One value is replaced, wherever in the card it stands; the hash does not cover most of them."""

    def change(card: dict[str, Any]) -> None:
        where = data.draw(st.sampled_from([card, card["spec"], card["objects"]]))
        where[data.draw(st.sampled_from(sorted(where)))] = data.draw(JSON)

    survives(place, with_card(content, change))


@given(data=st.data())
def test_a_tensor_in_the_header_claims_anything(place: Path, content: bytes, data: st.DataObject) -> None:
    header, rest = parts(content)
    tensor = header[data.draw(st.sampled_from(sorted(header.keys() - {"__metadata__"})))]
    size = st.one_of(st.integers(0, 100), st.sampled_from([2**31, 2**32, 2**63 - 1, 2**64, -1]))
    tensor[data.draw(st.sampled_from(["shape", "data_offsets"]))] = data.draw(st.lists(size, max_size=5))
    assert not survives(place, joined(header, rest)) or header == parts(content)[0]


@given(
    value=st.sampled_from(["nan", "inf", "1e38", "-1e38", "0"]),
    dtype=st.sampled_from(["float32", "float16", "bfloat16", "float64", "int64", "uint8"]),
    which=st.integers(0, 99),
)
def test_a_tensor_holds_anything(place: Path, content: bytes, value: str, dtype: str, which: int) -> None:
    """With the right hash: somebody may mean harm."""
    tensors = load(content)
    name = sorted(tensors)[which % len(tensors)]
    tensors[name] = torch.full_like(tensors[name].float(), float(value)).to(getattr(torch, dtype))
    card = ModelCard.from_json(parts(content)[0]["__metadata__"]["napari_unet"])
    survives(place, forged(tensors, card))


@given(
    dims=st.sampled_from([2, 3]),
    widths=st.lists(st.integers(1, 3), min_size=1, max_size=4),
    stride=st.integers(1, 4),
    kernel=st.sampled_from([1, 3, 5]),
    padding=st.sampled_from(["same", "valid"]),
    norm=st.sampled_from(["batch", "none"]),
)
def test_any_network_that_a_card_may_describe(place: Path, dims, widths, stride, kernel, padding, norm) -> None:
    try:
        spec = UNetSpec(
            dims=dims,
            channels=tuple(widths),
            strides=((stride,) * dims,) * (len(widths) - 1),
            kernels=((kernel,) * dims,) * len(widths),
            padding=padding,
            norm=norm,
        )
    except InvalidModel:
        return
    if dims == 3 and max(spec.total_stride) > 4:
        return  # right, but slow
    network = new_model(ModelCard("any", "semantic", spec)).network
    model = Model(ModelCard("any", "semantic", spec), network)
    pixels, axes = (PIXELS, "yx") if dims == 2 else (PIXELS[:12, :].reshape(4, 12, 12), "zyx")
    try:
        *_, result = segment(Image(pixels, axes), model, SegmentSettings(device="cpu"))
    except OutOfMemory:
        return
    assert result.labels.shape == pixels.shape


# --- what was found, and what an attacker would try first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(version="1"), "version cannot be '1'"),
        (lambda c: c.update(name=5), "name cannot be 5"),
        (lambda c: c.update(name="a\x1b[2Jb"), "name cannot be"),
        (lambda c: c.update(content_hash=7), "content_hash cannot be 7"),
        (lambda c: c.update(percentiles=[1]), "percentiles cannot be"),
        (lambda c: c.update(classes=[]), "needs a background and one class or more"),
        (lambda c: c["objects"].update(seed_threshold=7), "seed_threshold is 7"),
        (lambda c: c["spec"].update(dims=10**14), "dims is 100000000000000"),
        (lambda c: c["spec"].update(channels=[4.5, 8, 16]), "channels cannot be"),
        (lambda c: c["spec"].update(strides=[[8, 8], [8, 8]]), "do not fit 3 levels"),
        (
            lambda c: c["spec"].update(channels=[1] * 8, strides=[[4, 4]] * 7, kernels=[[5, 5]] * 8),
            "multiply to more than 64",
        ),
        (lambda c: c["training"].update({"note": "\x1b]0;owned\x07"}), "training cannot be"),
    ],
)
def test_a_hostile_card_is_refused_and_the_library_lives_on(place: Path, content: bytes, change, words: str) -> None:
    assert not survives(place, with_card(content, change))
    with pytest.raises(InvalidModel, match=words):
        read_card(place)


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip", "empty", "text"])
def test_a_file_of_another_kind_is_refused_and_runs_nothing(place: Path, tmp_path: Path, kind: str) -> None:
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    bomb = tmp_path / "bomb"
    if kind == "torch":
        torch.save({"weights": Bomb()}, bomb)
    elif kind == "zip":
        with zipfile.ZipFile(bomb, "w") as archive:
            archive.writestr("../../evil.py", "raise SystemExit")
    else:
        bomb.write_bytes({"pickle": pickle.dumps(Bomb()), "empty": b"", "text": b"I am a model\n" * 9}[kind])
    assert not survives(place, bomb.read_bytes())
    assert not (tmp_path / "ran").exists()


def test_a_name_that_is_a_path_writes_nowhere_else(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "in.safetensors"
    file.write_bytes(with_card(content, lambda c: c.update(name="../../evil")))
    library = Library(tmp_path / "deep" / "models")
    with pytest.raises(LibraryError, match="cannot be called"):
        library.import_file(file)
    assert {p.name for p in tmp_path.rglob("*")} <= {"in.safetensors", "deep"}


@pytest.mark.skipif(os.name != "posix", reason="links need a right there")
def test_a_link_in_the_library_is_not_followed(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "secret.safetensors"
    secret.write_bytes(content)
    library = Library(tmp_path / "models")
    library.folder.mkdir()
    (library.folder / "tiny@1.safetensors").symlink_to(secret)
    (library.folder / "tiny.current").symlink_to(secret)
    assert [reason for _, reason in library.damaged()] == [
        "tiny@1.safetensors is a link to another place: import the file that it points to."
    ]
    library.add(make_model())
    assert secret.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name there")
def test_a_pipe_or_a_device_in_the_library_does_not_stop_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe@1.safetensors")
    (tmp_path / "folder@1.safetensors").mkdir()
    assert len(Library(tmp_path).damaged()) == 2
    with pytest.raises(InvalidModel, match="is not a file"):
        load_model_file(Path("/dev/zero"))


BOUNDED = """
import resource, sys
from pathlib import Path
from napari_unet.engine.model import load_model_file
from napari_unet.engine.errors import NapariUnetError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    try:
        load_model_file(Path(path))
    except NapariUnetError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_what_claims_gigabytes_takes_few_megabytes(tmp_path: Path, content: bytes) -> None:
    """A sparse file of 40 GB, a card that describes 70 thousand million weights, a header of nothing but brackets."""
    sparse, giant, deep = (tmp_path / f"{name}.safetensors" for name in ("sparse", "giant", "deep"))
    sparse.write_bytes(content)
    os.truncate(sparse, 40 << 30)
    sizes = {"dims": 3, "channels": [4096] * 7, "strides": [[2] * 3] * 6, "kernels": [[5] * 3] * 7}
    giant.write_bytes(with_card(content, lambda card: card["spec"].update(sizes)))
    deep.write_bytes(struct.pack("<Q", 4 << 20) + b"[" * (4 << 20))
    run = subprocess.run(
        [sys.executable, "-c", BOUNDED, sparse, giant, deep], capture_output=True, text=True, timeout=120
    )
    assert run.returncode == 0, run.stderr
    *sentences, megabytes = run.stdout.splitlines()
    assert len(sentences) == 3
    assert int(megabytes) < 200


def test_a_small_file_cannot_ask_for_more_memory_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees 64 voxels each way of the smallest image, for so much is pooled to one."""
    spec = UNetSpec(dims=3, channels=(8,) * 7, kernels=((5,) * 3,) * 7, norm="none")
    model = Model(ModelCard("wide", "semantic", spec), new_model(ModelCard("wide", "semantic", spec)).network)
    monkeypatch.setattr(execution, "free_memory", lambda device: 100_000)
    with pytest.raises(OutOfMemory, match=r"GB of memory, and .* GB are free"):
        list(segment(Image(np.eye(8, dtype=np.float32).reshape(1, 8, 8), "zyx"), model, SegmentSettings(device="cpu")))
