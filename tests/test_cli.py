"""The command line, run in this process unless start-up itself is measured."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

import napari_unet
from napari_unet import cli
from napari_unet.engine.adaptation import Learned
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.errors import OutOfMemory
from napari_unet.engine.files import open_image, write_labels
from napari_unet.engine.gate import Verdict
from napari_unet.engine.image import Image
from napari_unet.engine.library import Library
from napari_unet.engine.model import new_model
from napari_unet.engine.training import StepDone
from napari_unet.samples import load as load_sample

from .engine import zoo

SPEC = UNetSpec(channels=(4, 8), out_channels=2)


@pytest.fixture
def run(tmp_path: Path, monkeypatch, capsys):
    """Run a command in an empty folder with two small random models; gives exit status, stdout and stderr."""
    monkeypatch.setenv("NAPARI_UNET_HOME", str(tmp_path / "home"))
    library = Library()
    library.add(new_model(ModelCard(name="tiny", task="semantic", spec=SPEC)))
    objects = UNetSpec(channels=(4, 8), out_channels=3)
    library.add(new_model(ModelCard(name="blobs", task="objects", spec=objects)))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["napari-unet", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        said = capsys.readouterr()
        return int(stopped.value.code or 0), said.out, said.err

    return call


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def save(name: str, *shape: int) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(name, noise(*(shape or (32, 48))), photometric="minisblack")


# ---------------------------------------------------------------- start-up


HELP = """
import resource, sys
sys.argv = ["napari-unet", *sys.argv[1:]]
from napari_unet.cli import main
try:
    main()
except SystemExit:
    pass
heavy = {"torch", "numpy", "napari", "qtpy", "rich.console"} & set(sys.modules)
print("loaded:", sorted(heavy))
"""


@pytest.mark.parametrize("command", [[], ["segment"], ["evaluate"], ["models"], ["info"], ["demo"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    said = subprocess.run([sys.executable, "-c", HELP, *command, "--help"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "loaded: []"


def test_the_version_is_printed(run) -> None:
    from napari_unet import __version__

    assert run("--version") == (0, f"{__version__}\n", "")


def test_a_wrong_option_has_the_exit_status_of_a_wrong_usage(run) -> None:
    status, _, err = run("segment", "--no-such-option")
    assert status == 2
    assert "--no-such-option" in err


# ---------------------------------------------------------------- segment


def test_segment_writes_labels_and_prints_their_path_only(run) -> None:
    save("a.tif")
    assert run("segment", "a.tif", "-o", "new/labels.tif", "--model", "tiny") == (0, f"{Path('new/labels.tif')}\n", "")
    assert open_image("new/labels.tif").shape == (32, 48)


def test_segment_gives_the_labels_of_the_python_call(run) -> None:
    from napari_unet import segment

    save("a.tif")
    run("segment", "a.tif", "-o", "labels.npy", "--model", "blobs", "--device", "cpu")
    np.testing.assert_array_equal(np.load("labels.npy"), segment(noise(32, 48), "blobs", device="cpu"))


def test_thresholds_reach_the_objects(run) -> None:
    save("a.tif")
    run(
        "segment", "a.tif", "-o", "all.npy", "--model", "blobs", "--foreground-threshold", "0.01", "--minimal-size", "0"
    )
    run("segment", "a.tif", "-o", "none.npy", "--model", "blobs", "--minimal-size", "100000")
    assert np.load("all.npy").max() > 0
    assert np.load("none.npy").max() == 0


def test_thresholds_are_refused_for_classes(run) -> None:
    save("a.tif")
    status, _, err = run("segment", "a.tif", "-o", "l.tif", "--model", "tiny", "--seed-threshold", "0.4")
    assert status == 1
    assert err == "napari-unet: --seed-threshold is for models that find objects, but 'tiny' is not: leave it out.\n"


def test_the_channel_is_chosen(run) -> None:
    tifffile.imwrite("c.tif", np.stack([noise(32, 48), noise(32, 48, seed=1)]), imagej=True, metadata={"axes": "CYX"})
    tifffile.imwrite("one.tif", noise(32, 48, seed=1))
    run("segment", "c.tif", "-o", "c.npy", "--model", "tiny", "--channel", "1")
    run("segment", "one.tif", "-o", "one.npy", "--model", "tiny")
    np.testing.assert_array_equal(np.load("c.npy"), np.load("one.npy"))


def test_the_object_diameter_is_given_or_estimated(run) -> None:
    y, x = np.indices((240, 240)) % 80 - 40
    tifffile.imwrite("discs.tif", (np.hypot(y, x) < 25).astype(np.uint8))
    status, _, err = run("segment", "discs.tif", "-o", "auto.npy", "--diameter", "auto")
    width = int(err.split("look about ")[1].split()[0])
    assert (status, width) == (0, pytest.approx(50, abs=5))
    run("segment", "discs.tif", "-o", "given.npy", "--diameter", str(width))
    np.testing.assert_array_equal(np.load("auto.npy"), np.load("given.npy"))
    assert np.load("given.npy").max() == 9
    same = napari_unet.segment(tifffile.imread("discs.tif"), diameter=width, device="cpu")
    np.testing.assert_array_equal(same, np.load("given.npy"))


@pytest.mark.parametrize(
    ("model", "diameter", "words"),
    [
        ("nuclei", "wide", "--diameter 'wide' is not understood: give a number of pixels, or auto."),
        ("nuclei", "0", "diameter is 0; it must be above 0 pixels."),
        ("blobs", "20", "How large the objects of 'blobs' should be is not known: leave the object diameter out."),
    ],
)
def test_an_object_diameter_that_cannot_be_is_told(run, model: str, diameter: str, words: str) -> None:
    save("a.tif")
    status, _, err = run("segment", "a.tif", "-o", "l.tif", "--model", model, "--diameter", diameter)
    assert status == 1
    assert err == f"napari-unet: {words}\n"


def test_axes_are_named(run) -> None:
    save("a.tif", 3, 32, 48)
    run("segment", "a.tif", "-o", "l.tif", "--model", "tiny", "--axes", "TYX")
    assert open_image("l.tif").axes == "tyx"


@pytest.mark.parametrize("name", ["l.tif", "l.zarr"])
def test_probabilities_are_written_beside_the_labels(run, name: str) -> None:
    save("a.tif")
    status, out, _ = run("segment", "a.tif", "-o", name, "--model", "tiny", "--probabilities")
    beside = f"l_probabilities{Path(name).suffix}"
    assert (status, out.split()) == (0, [name, beside])
    np.testing.assert_allclose(np.asarray(open_image(beside).array[:]).sum(0), 1, rtol=1e-5)


@pytest.mark.parametrize("out", ["results", "results/"])
def test_several_images_go_to_a_folder(run, out: str) -> None:
    for name in ("in/a.tif", "in/b.ome.tif"):
        save(name)
    status, printed, _ = run("segment", "in", "-o", out, "--model", "tiny")
    assert (status, printed.split()) == (0, [str(Path("results/a_labels.tif")), str(Path("results/b_labels.tif"))])


def test_one_image_goes_into_a_folder_that_exists(run) -> None:
    save("a.tif")
    Path("there.d").mkdir()
    assert run("segment", "a.tif", "-o", "there.d", "--model", "tiny")[1].strip() == str(Path("there.d/a_labels.tif"))


def test_several_images_do_not_go_to_one_file(run) -> None:
    save("a.tif")
    save("b.tif")
    status, _, err = run("segment", "a.tif", "b.tif", "-o", "labels.tif", "--model", "tiny")
    assert status == 1
    assert err == "napari-unet: Several images cannot all be written to labels.tif: give a folder, such as labels/.\n"


def test_images_of_one_name_are_refused_before_the_first_is_segmented(run) -> None:
    save("a/x.tif")
    save("b/x.tif")
    status, out, err = run("segment", "a/x.tif", "b/x.tif", "-o", "results", "--model", "tiny")
    assert (status, out) == (1, "")
    assert "would both be written to" in err
    assert not Path("results").exists()


def test_an_image_is_not_replaced_by_its_labels(run) -> None:
    save("a.tif")
    status, _, err = run("segment", "a.tif", "-o", "a.tif", "--model", "tiny")
    assert status == 1
    assert "would replace the image" in err


def test_a_failed_image_does_not_stop_the_others(run) -> None:
    save("b.tif")
    Path("a.tif").write_text("no image")
    status, out, err = run("segment", "a.tif", "missing.tif", "b.tif", "-o", "results", "--model", "tiny")
    assert status == 1
    assert out.split() == [str(Path("results/b_labels.tif"))]
    damaged, missing, summary = err.splitlines()
    assert missing == "napari-unet: missing.tif does not exist: check the spelling and the folder."
    assert damaged.startswith("napari-unet: a.tif cannot be read as an image")
    assert summary == "napari-unet: 1 done, 2 failed."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.tif", "-o", "l.tif"], "missing.tif does not exist"),
        (["a.tif", "-o", "l.gif"], "l.gif has no ending that can be written"),
        (["a.tif", "-o", "l.tif", "--model", "none"], "There is no model 'none'"),
        (["a.tif", "-o", "l.tif", "--device", "abacus"], "Device 'abacus' is not known"),
        (["a.tif", "-o", "l.tif", "--tile", "3"], "Tile 3 is too small"),
        (["a.tif", "-o", "l.tif", "--channel", "7"], "a.tif: Channel 7 was asked for"),
        (["a.tif", "-o", "l.tif", "--axes", "QYX"], "a.tif: Axes 'qyx'"),
        (["a.tif", "-o", "a.tif/l.tif"], f"{Path('a.tif/l.tif')} cannot be written"),
    ],
)
def test_every_failure_is_one_line(run, arguments: list[str], sentence: str) -> None:
    save("a.tif")
    status, out, err = run("segment", *arguments, *([] if "--model" in arguments else ["--model", "tiny"]))
    assert (status, out) == (1, "")
    assert err.startswith(f"napari-unet: {sentence}")
    assert err.count("\n") == 1


def test_progress_is_drawn_on_a_terminal_only(run, monkeypatch) -> None:
    save("a.tif")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    status, out, err = run("segment", "a.tif", "-o", "l.tif", "--model", "tiny")
    assert (status, out) == (0, "l.tif\n")
    assert "tiles" in err


def test_an_interrupt_ends_with_130_and_leaves_no_file(run, monkeypatch) -> None:
    save("a.tif")

    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_unet.engine.inference.parts", interrupted)
    assert run("segment", "a.tif", "-o", "l.tif", "--model", "tiny")[0] == 130
    assert not Path("l.tif").exists()


def test_out_of_memory_is_one_line_too(run, monkeypatch) -> None:
    save("a.tif")

    def full(*arguments: object) -> None:
        raise OutOfMemory("No memory: close other programs.")

    monkeypatch.setattr("napari_unet.engine.inference.normalisation", full)
    assert run("segment", "a.tif", "-o", "l.tif", "--model", "tiny") == (
        1,
        "",
        "napari-unet: a.tif: No memory: close other programs.\n",
    )


def test_the_same_command_again_computes_nothing(run) -> None:
    save("a.tif")
    command = ("segment", "a.tif", "-o", "l.tif", "--model", "tiny")
    run(*command)
    assert run(*command) == (0, "", "napari-unet: l.tif: finished before\n")
    assert run(*command, "--no-resume")[:2] == (0, "l.tif\n")


def test_a_file_of_somebody_else_is_not_replaced(run) -> None:
    save("a.tif")
    Path("l.tif").write_text("precious")
    status, out, err = run("segment", "a.tif", "-o", "l.tif", "--model", "tiny")
    assert (status, out) == (1, "")
    assert "l.tif exists, and not from a batch" in err
    assert Path("l.tif").read_text() == "precious"


def test_a_report_names_every_image(run) -> None:
    save("a.tif")
    run("segment", "a.tif", "missing.tif", "-o", "results", "--model", "tiny", "--report", "r.json")
    states = [(o["source"], o["state"]) for o in json.loads(Path("r.json").read_text())["outcomes"]]
    assert states == [("a.tif", "done"), ("missing.tif", "failed")]


def test_planes_are_linked_and_written_as_zarr(run) -> None:
    save("a.tif", 9, 32, 48)
    assert run("segment", "a.tif", "-o", "results", "--model", "blobs", "--link", "z", "--format", ".zarr")[0] == 0
    assert open_image(Path("results/a_labels.zarr")).axes == "zyx"


def test_segment_on_the_workers_of_a_scheduler(run) -> None:
    distributed = pytest.importorskip("distributed")
    save("a.tif")
    with distributed.LocalCluster(1, processes=False, dashboard_address=None) as cluster:
        status, out, err = run(
            "segment",
            "a.tif",
            "missing.tif",
            "-o",
            "there",
            "--model",
            "tiny",
            "--scheduler",
            cluster.scheduler_address,
        )
    assert (status, out) == (1, f"{Path('there/a_labels.tif')}\n")
    assert "1 done, 1 failed." in err
    run("segment", "a.tif", "-o", "here.tif", "--model", "tiny")
    np.testing.assert_array_equal(tifffile.imread("there/a_labels.tif"), tifffile.imread("here.tif"))


# ---------------------------------------------------------------- click


@pytest.fixture
def segmenter(monkeypatch):
    """Plays the click model: each click is the pixel under it. Returns what it was asked."""
    from types import SimpleNamespace

    import napari_unet.engine.click

    asked: list[tuple[list[object], np.ndarray | None]] = []

    class Points:
        def __init__(self, device: str) -> None:
            self.model = SimpleNamespace(card=SimpleNamespace(identity="click@1:0"))

        def set_image(self, image, *, channel) -> None:
            assert (image.name, channel) == ("cell", None)
            self.shape = image.label_shape

        def accept(self, mask) -> None:
            self.taught = [*getattr(self, "taught", []), np.argwhere(mask).tolist()]

        def learn(self):
            yield StepDone(1, 1, 0.5, 0.1)
            yield Learned(len(self.taught), 0.8, 0.6)

        def segment(self, clicks, previous):
            asked.append((clicks, previous))
            mask = np.zeros(self.shape, bool) if previous is None else previous.copy()
            (y, x), positive = clicks[-1]
            mask[int(y), int(x)] = positive
            return mask

    monkeypatch.setattr(napari_unet.engine.click, "ClickSegmenter", Points)
    return asked


def test_click_writes_the_mask(run, segmenter) -> None:
    save("cell.tif")
    status, out, err = run("click", "cell.tif", "--at", "3,4", "--at", "5,6", "--not-at", "3,4", "-o", "mask.tif")
    assert (status, out, err) == (0, "mask.tif\n", "")
    assert np.argwhere(tifffile.imread("mask.tif")).tolist() == [[5, 6]]
    assert [len(clicks) for clicks, _ in segmenter] == [1, 2, 3]


def test_click_says_when_the_mask_is_empty(run, segmenter) -> None:
    save("cell.tif")
    status, _, err = run("click", "cell.tif", "--at", "3,4", "--not-at", "3,4", "-o", "mask.tif")
    assert status == 0
    assert "The mask is empty" in err


def test_click_learns_from_labels_first(run, segmenter) -> None:
    save("cell.tif")
    labels = np.zeros((32, 48), np.uint16)
    labels[2, 2:4], labels[8, 8] = 7, 3
    tifffile.imwrite("right.tif", labels)
    status, out, err = run("click", "cell.tif", "--at", "3,4", "--learn-from", "right.tif", "-o", "mask.tif")
    assert (status, out) == (0, "mask.tif\n")
    assert err == "Taught by 2 objects: one click finds 0.80 of an object, untaught 0.60 (IoU).\n"


def test_click_says_when_there_is_nothing_to_learn_from(run, segmenter) -> None:
    save("cell.tif")
    tifffile.imwrite("empty.tif", np.zeros((32, 48), np.uint16))
    status, _, err = run("click", "cell.tif", "--at", "3,4", "--learn-from", "empty.tif", "-o", "mask.tif")
    assert (status, err) == (0, "There is no object to learn from.\n")


def test_click_refuses_labels_of_another_image(run) -> None:
    save("cell.tif")
    tifffile.imwrite("right.tif", np.ones((5, 5), np.uint16))
    status, _, err = run("click", "cell.tif", "--at", "3,4", "--learn-from", "right.tif", "-o", "mask.tif")
    assert status == 1
    assert "The mask has shape (5, 5)" in err


@pytest.mark.parametrize("text", ["3", "3,4,5", "a,b"])
def test_click_wants_row_and_column(run, segmenter, text: str) -> None:
    save("cell.tif")
    status, out, err = run("click", "cell.tif", "--at", text, "-o", "mask.tif")
    assert (status, out) == (1, "")
    assert err == f"napari-unet: --at {text} is no point: give row and column, such as --at 40,52.\n"


# ---------------------------------------------------------------- train


def strokes(name: str, shape: tuple[int, int] = (32, 48)) -> None:
    """Paint ten strokes of each class, two of each to be held out, on noise."""
    labels = np.zeros(shape, np.uint8)
    labels[1:30:3, 2:20], labels[1:30:3, 24:44] = 1, 2
    tifffile.imwrite(name, labels)


QUICK = ("--steps", "2", "--device", "cpu")


@pytest.fixture
def verdict(monkeypatch):
    """Let the gate say what a test wants."""

    def say(which: Verdict) -> None:
        monkeypatch.setattr("napari_unet.engine.training.judge", lambda *arguments: which)

    return say


def test_train_saves_a_version_and_prints_it(run, verdict) -> None:
    save("a.tif")
    strokes("p.tif")
    verdict(Verdict.BETTER)
    status, out, err = run(
        "train", "--image", "a.tif", "--annotation", "p.tif", "--name", "tiny", "--from", "tiny", *QUICK
    )
    assert status == 0
    assert out.startswith("tiny@2:")
    assert err.startswith("napari-unet: Better: ")
    card = Library().find("tiny").card
    assert (card.version, card.parent.partition(":")[0], card.training["steps"]) == (2, "tiny@1", 2)


def test_a_training_that_ends_no_better_is_no_error_but_has_a_status_of_its_own(run, verdict) -> None:
    save("a.tif")
    strokes("p.tif")
    verdict(Verdict.NO_BETTER)
    status, out, err = run(
        "train", "--image", "a.tif", "--annotation", "p.tif", "--name", "tiny", "--from", "tiny", *QUICK
    )
    assert (status, out) == (cli.NO_BETTER, "")
    assert err.endswith("on the held-out strokes. Nothing was saved.\n")
    assert [e.card.version for e in Library().versions("tiny")] == [1]


def test_with_too_few_strokes_train_saves_and_says_so(run) -> None:
    save("a.tif")
    labels = np.zeros((32, 48), np.uint8)
    labels[4, :20], labels[9, :20] = 1, 2
    np.save("p.npy", labels)
    status, out, err = run(
        "train", "--image", "a.tif", "--annotation", "p.npy", "--name", "mine", "--from", "tiny", *QUICK
    )
    assert (status, out.partition(":")[0]) == (0, "mine@1")
    assert "Too few held-out strokes to judge" in err


def test_train_makes_a_new_model_of_the_classes_asked_for(run) -> None:
    save("a.tif")
    labels = np.zeros((32, 48), np.uint8)
    labels[4], labels[9], labels[14] = 1, 2, 3
    np.save("p.npy", labels)
    arguments = ("--image", "a.tif", "--annotation", "p.npy", "--name", "mine", "--classes", "ground, cell, debris")
    assert run("train", *arguments, *QUICK)[0] == 0
    assert Library().find("mine").card.classes == ("ground", "cell", "debris")


@pytest.mark.parametrize(
    ("painted", "sentence"),
    [
        (np.zeros((32, 48), np.uint8), "Nothing is painted yet"),
        (np.ones((32, 48), np.uint8), "Only one class is painted: paint a stroke of"),
        (np.ones((9, 9), np.uint8), "The annotation of 'a' has shape (9, 9), but the image needs (32, 48)"),
        (np.full((32, 48), 7, np.uint8), "Label 7 is painted, but the model 'tiny' has 2 classes"),
        (np.ones((32, 48), np.float32), "p.npy holds float32 values, not labels"),
    ],
)
def test_what_cannot_be_learned_from_is_one_line_and_saves_nothing(run, painted: np.ndarray, sentence: str) -> None:
    save("a.tif")
    if painted.max() > 1:
        painted[0] = 1
    np.save("p.npy", painted)
    status, out, err = run(
        "train", "--image", "a.tif", "--annotation", "p.npy", "--name", "tiny", "--from", "tiny", *QUICK
    )
    assert (status, out) == (1, "")
    assert err.startswith(f"napari-unet: {sentence}")
    assert err.count("\n") == 1
    assert [e.card.version for e in Library().versions("tiny")] == [1]


def test_images_and_annotations_come_in_pairs(run) -> None:
    status, _, err = run("train", "--image", "a.tif", "--image", "b.tif", "--annotation", "p.tif", "--name", "x")
    assert status == 1
    assert err == "napari-unet: 2 images, but 1 annotations: give --image and --annotation in pairs.\n"


# ---------------------------------------------------------------- evaluate


def test_evaluate_prints_every_score(run) -> None:
    np.save("p.npy", np.array([[1, 1, 1, 0]]))
    np.save("t.npy", np.array([[1, 1, 1, 1]]))
    status, out, _ = run("evaluate", "p.npy", "t.npy")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert status == 0
    assert lines["Dice"] == f"{6 / 7:.4f}"
    assert (lines["AP@0.75"], lines["AP@0.8"]) == ("1.0000", "0.0000")


def test_evaluate_prints_json_without_nan(run) -> None:
    np.save("p.npy", np.array([[1, 1, 1, 0]]))
    np.save("t.npy", np.zeros((1, 4), int))
    status, out, _ = run("evaluate", "p.npy", "t.npy", "--json")
    scores = json.loads(out, parse_constant=pytest.fail)
    assert status == 0
    assert scores["average_precision"]["0.5"] == 0
    assert scores["v_rand"]["f"] is None


def test_evaluate_compares_as_the_result_was_made(run) -> None:
    stack = np.array([[[1, 1, 0]], [[1, 1, 0]]], np.uint8)
    np.save("t.npy", np.array([[[1, 1, 0]], [[2, 2, 0]]], np.uint8))
    image = Image(stack, "zyx")
    write_labels("planes.tif", stack, image, {"dims": 2})
    write_labels("linked.tif", stack, image, {"dims": 2, "link": "z"})
    for name, way, matched in (("planes.tif", "plane by plane, 2 planes", 2), ("linked.tif", "as one volume", 1)):
        status, out, _ = run("evaluate", name, "t.npy")
        assert status == 0
        assert out.splitlines()[0].endswith(way)
        assert f"{matched} matched" in out
    assert "2 matched" in run("evaluate", "linked.tif", "t.npy", "--by-plane")[1]
    assert "say --by-plane" in run("evaluate", "t.npy", "t.npy")[1]


def test_evaluate_scores_classes(run) -> None:
    truth = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0]], np.uint8)
    np.save("t.npy", truth)
    found = np.array([[1, 1, 1, 0, 0, 1, 0, 2, 2, 2]], np.uint8)
    write_labels("p.tif", found, Image(found, "yx"), {"dims": 2, "task": "semantic", "classes": ["none", "a", "b"]})
    _, out, _ = run("evaluate", "p.tif", "t.npy")
    lines = out.splitlines()
    assert lines[1:3] == ["class 1 a   Dice 0.7500, IoU 0.6000", "class 2 b   Dice 0.5714, IoU 0.4000"]
    values = json.loads(run("evaluate", "p.tif", "t.npy", "--json")[1])
    assert values["classes"]["2"] == pytest.approx({"dice": 4 / 7, "iou": 2 / 5})


def test_evaluate_draws_the_errors_of_the_worst_plane_or_of_the_one_asked_for(run) -> None:
    truth = np.zeros((5, 40, 60), np.uint8)
    truth[:, 5:15, 5:15] = 1
    found = truth.copy()
    found[1, 20:30, 20:40] = 2
    np.save("t.npy", truth)
    np.save("p.npy", found)
    np.save("i.npy", noise(5, 40, 60))
    options = ("p.npy", "t.npy", "--by-plane", "--picture", "errors.png", "--image", "i.npy")
    status, out, _ = run("evaluate", *options)
    assert status == 0
    assert out.splitlines()[-3:] == [
        "errors.png  z 1",
        "green       outline of a matched object",
        "pink        invented: only in the result",
    ]
    drawn = np.asarray(Picture.open("errors.png"))
    assert drawn.shape == (80, 120, 3)
    assert drawn[40, 40].tolist() == [0xE0, 0x5F, 0xC4]
    assert run("evaluate", *options, "--plane", "2")[1].splitlines()[-1].startswith("green")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--picture", "e.png", "--plane", "5"), "--plane 5 is none of the planes: there is z 0 to 4."),
        (("--picture", "e.png", "--plane", "top"), "--plane top is none of the planes: there is z 0 to 4."),
        (("--picture", "e.bmp"), "--picture e.bmp is no picture file: let its name end in .png."),
        (("--picture", "e.png", "--image", "small.npy"), "'small' of shape (4, 4) is not what was segmented"),
        (("--task", "guess"), "'guess' is no task"),
    ],
)
def test_what_evaluate_cannot_do_is_one_line(run, options, sentence: str) -> None:
    np.save("p.npy", np.ones((5, 40, 60), np.uint8))
    np.save("small.npy", noise(4, 4))
    status, _, err = run("evaluate", "p.npy", "p.npy", *options)
    assert status == 1
    assert err.startswith(f"napari-unet: {sentence}")
    assert err.count("\n") == 1


def test_evaluate_refuses_different_shapes(run) -> None:
    np.save("p.npy", np.zeros((3, 4), int))
    np.save("t.npy", np.zeros((5, 4), int))
    status, out, err = run("evaluate", "p.npy", "t.npy")
    assert (status, out) == (1, "")
    assert "(3, 4), but the truth has (5, 4)" in err


# ---------------------------------------------------------------- train


def test_folders_of_images_and_masks_are_paired_aloud_and_learned_from(run) -> None:
    for folder in ("images", "masks"):
        Path(folder).mkdir()
    mask = np.zeros((48, 48), np.uint8)
    mask[8:20, 8:20] = mask[30:40, 26:40] = 1
    np.save("images/a.npy", np.where(mask, 200, 20).astype(np.uint8) + np.arange(48, dtype=np.uint8))
    np.save("masks/a_mask.npy", mask)
    np.save("masks/b.npy", mask)
    status, out, err = run(
        *("train", "--images", "images", "--masks", "masks", "--name", "new", "--task", "semantic"),
        *("--steps", "2", "--device", "cpu"),
    )
    assert "a.npy with a_mask.npy" in err
    assert "b.npy has no image and is left out." in err
    assert (status, "new@1" in out) in ((0, True), (1, False))  # two steps may be no better


def test_nothing_to_learn_from_is_said(run) -> None:
    assert "Nothing to learn from" in run("train", "--name", "new")[2]


# ---------------------------------------------------------------- convert


def test_labels_become_outlines_and_come_back(run) -> None:
    labels = np.zeros((6, 7), np.uint8)
    labels[1:3, 2:5] = 3
    np.save("l.npy", labels)
    assert run("convert", "l.npy", "l.geojson") == (0, "l.geojson\n", "napari-unet: 1 outline.\n")
    assert run("convert", "l.geojson", "back.npy", "--like", "l.npy")[0] == 0
    np.testing.assert_array_equal(np.load("back.npy"), labels)


def test_outlines_become_annotations(run) -> None:
    np.save("l.npy", np.eye(4, dtype=np.uint8))
    run("convert", "l.npy", "l.geojson")
    run("convert", "l.geojson", "a.npy", "--like", "l.npy", "--annotation")
    np.testing.assert_array_equal(np.load("a.npy"), 2 * np.eye(4, dtype=np.uint8))


def test_outlines_need_their_image(run) -> None:
    Path("l.geojson").write_text("{}")
    assert run("convert", "l.geojson", "l.tif")[2] == (
        "napari-unet: Say which image the outlines of l.geojson lie on, with --like IMAGE.\n"
    )


# ---------------------------------------------------------------- models, info, demo


def test_models_are_listed(run) -> None:
    status, out, _ = run("models", "list")
    assert status == 0
    assert any(line.split()[:4] == ["*", "tiny@1", "semantic", "2D,"] for line in out.splitlines())


def test_damaged_models_are_named(run) -> None:
    (Library().folder / "bad@1.safetensors").write_bytes(b"x")
    status, _, err = run("models", "list")
    assert status == 0
    assert "bad@1.safetensors is left out" in err


def test_a_model_is_shown(run) -> None:
    status, out, _ = run("models", "show", "blobs")
    assert status == 0
    assert "foreground 0.5, seed 0.5, minimal size 15" in out


def test_rollback_export_import_and_delete(run) -> None:
    library = Library()
    first = library.find("tiny")
    library.add(new_model(ModelCard(name="tiny", task="semantic", spec=SPEC), seed=1))
    assert run("models", "rollback", "tiny") == (0, f"{first.card.identity}\n", "")
    assert library.find("tiny").path.read_bytes() == first.path.read_bytes()

    assert run("models", "export", "tiny@1", "kept.safetensors") == (0, "kept.safetensors\n", "")
    assert Path("kept.safetensors").read_bytes() == first.path.read_bytes()

    assert run("models", "delete", "tiny")[2] == (
        "napari-unet: 'tiny' has several versions: say which one, such as tiny@1.\n"
    )
    assert run("models", "delete", "tiny@1") == (0, "deleted tiny@1\n", "")
    assert not first.path.exists()

    status, out, _ = run("models", "import", "kept.safetensors")
    assert (status, out.partition(":")[0]) == (0, "tiny@3")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rollback", "tiny"], "Model 'tiny' has no version before 1."),
        (["rollback", "tiny", "8"], "Model 'tiny' has no version '8'; there are: 1."),
        (["export", "none", "x"], "There is no model 'none'"),
        (["import", "missing.safetensors"], "There is no model file missing.safetensors."),
        (["delete", "nuclei"], "'nuclei' is part of the program and cannot be deleted."),
    ],
)
def test_what_cannot_be_done_to_a_model_is_one_line(run, arguments: list[str], sentence: str) -> None:
    status, out, err = run("models", *arguments)
    assert (status, out) == (1, "")
    assert err.startswith(f"napari-unet: {sentence}")
    assert err.count("\n") == 1


def test_a_model_goes_out_as_a_package_and_comes_in_again(run) -> None:
    assert run("models", "export", "tiny", "tiny.zip")[:2] == (0, "tiny.zip\n")
    status, out, _ = run("models", "import", "tiny.zip")
    assert (status, out) == (0, f"{Library().find('tiny').card.identity}\n")


def test_every_line_of_info_is_explained_in_the_docs(run) -> None:
    page = Path(__file__).parent.parent / "docs" / "troubleshooting.md"
    rows = [line.split("|")[1] for line in page.read_text("utf-8").splitlines() if line.startswith("|")]
    explained = {name.strip() for row in rows for name in row.split(",")}
    assert {line.split("  ")[0] for line in run("info")[1].splitlines()} <= explained


def test_info_names_versions_devices_and_the_models_folder(run) -> None:
    status, out, _ = run("info")
    names = {line.split()[0] for line in out.splitlines()}
    assert status == 0
    assert {"napari-unet", "Python", "torch", "devices", "models"} <= names
    assert str(Library().folder) in out


def test_the_demo_writes_labels_and_a_picture_without_a_display(run, monkeypatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    status, out, _ = run("demo", "-o", "shown")
    score, labels, picture = out.splitlines()
    assert status == 0
    assert float(score.split()[-1]) > 0.7
    assert open_image(labels).shape == (520, 696)
    with Picture.open(picture) as opened:
        assert opened.size == (4 * 696, 2 * 520)


def test_what_speaks_against_a_result_is_said_on_stderr(run) -> None:
    """The corner of the sample holds no nucleus, only grey levels of 1 to 4."""
    pixels = np.asarray(load_sample("nuclei")[0].array)[:100, :100]
    np.save("corner.npy", pixels)
    status, out, err = run("segment", "corner.npy", "-o", "labels.tif", "--device", "cpu")
    assert (status, out) == (0, "labels.tif\n")
    assert "No objects were found: lower the thresholds" in err


def test_a_report_says_what_was_done(run, tmp_path: Path) -> None:
    save("a.tif")
    run("segment", "a.tif", "--model", "nothing", "-o", "b.tif")
    assert run("info", "--report", "report.zip")[:2] == (0, "report.zip\n")
    with zipfile.ZipFile("report.zip") as archive:
        assert archive.read("info.txt").startswith(b"napari-unet")
        log = archive.read("napari-unet.log").decode()
    assert "INFO command: segment a.tif --model nothing -o b.tif" in log
    assert "ERROR There is no model 'nothing'" in log


def test_the_network_of_another_program_is_imported_listed_and_used(run) -> None:
    pytest.importorskip("onnxruntime", reason='needs the extra "onnx"')
    zoo.package(Path("cells.zip"), zoo.cells())
    status, out, _ = run("models", "import", "cells.zip")
    assert (status, out.partition(":")[0]) == (0, "Cells of somebody@1")
    listed = " ".join(run("models", "list")[1].split())
    assert "Cells of somebody@1 semantic 2D, 1 channel another program" in listed
    shown = run("models", "show", "Cells of somebody")[1]
    assert "from         cells.zip (bioimage.io package) by A. Body" in shown
    assert "cite         Body: Cells (2024) 10.1000/182" in shown
    tifffile.imwrite("image.tif", noise(70, 64))
    assert run("segment", "image.tif", "-o", "out.tif", "--model", "Cells of somebody")[0] == 0
    assert tifffile.imread("out.tif").max() == 1
    tifffile.imwrite("strokes.tif", np.ones((70, 64), dtype=np.uint8))
    arguments = ("--image", "image.tif", "--annotation", "strokes.tif", "--name", "mine", "--from", "Cells of somebody")
    status, _, err = run("train", *arguments)
    assert status == 1
    assert err.splitlines()[-1] == (
        "napari-unet: 'Cells of somebody' came from another program: it segments, but cannot be trained; "
        "choose another model."
    )
