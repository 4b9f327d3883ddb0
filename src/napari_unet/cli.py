"""The command line: calls the engine, prints, draws progress; decides nothing.

The engine is imported inside the commands, so that ``--help`` need not wait for torch.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from .engine.errors import FileError, InvalidSettings, NapariUnetError
from .engine.log import LOGGER, keep_log

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from .engine.batch import BatchPlan, BatchReport, Outcome
    from .engine.card import ModelCard
    from .engine.click import ClickSegmenter
    from .engine.comparison import Comparison
    from .engine.image import Image
    from .engine.inference import Segmented
    from .engine.lesson import Lesson
    from .engine.library import Library
    from .engine.model import Model
    from .engine.settings import SegmentSettings

app = typer.Typer(
    name="napari-unet",
    help="Segment images with a U-Net.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help is ready three times sooner
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="See the models there are.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")

NO_BETTER = 3
"""Exit status of a training that ended well, but with a model that is no better; 1 is an error, 2 a wrong usage."""
INTERRUPTED = 130
"""Exit status after Ctrl+C, as shells have it."""


def main() -> NoReturn:
    """Run the command line; the entry point of ``napari-unet``."""
    try:
        app(prog_name="napari-unet")
    except NapariUnetError as error:
        _complain(error)
        sys.exit(1)
    except OSError as error:
        _complain(f"{error.filename or 'A file'}: {error.strerror or error}.")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _complain(what: object) -> None:
    LOGGER.error("%s", what)
    print(f"napari-unet: {' '.join(str(what).split())}", file=sys.stderr)


def _version(asked: bool) -> None:
    if asked:
        from . import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    keep_log()
    LOGGER.info("command: %s", shlex.join(sys.argv[1:]))


# ---------------------------------------------------------------- segment


@app.command()
def segment(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="TIFF, PNG, npy, Zarr or OME-Zarr; a folder; a pattern.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="A file (.tif, .zarr, .npy or .png), or a folder for several images.")
    ],
    model: Annotated[str, typer.Option(help="Name, name@version, or a model file.")] = "nuclei",
    axes: Annotated[
        str | None, typer.Option(help="What the axes are, such as ZYX or CYX; else read or guessed.")
    ] = None,
    channel: Annotated[int | None, typer.Option(help="Which channel to segment, counted from 0.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
    tile: Annotated[int | None, typer.Option(help="Edge of a tile in pixels; else from free memory.")] = None,
    memory: Annotated[
        float | None, typer.Option(metavar="GB", help="Gigabytes that tiles may take; else a quarter of what is free.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probabilities, beside the labels.")
    ] = False,
    foreground_threshold: Annotated[
        float | None, typer.Option(help="Objects only: a pixel above this probability belongs to one.")
    ] = None,
    seed_threshold: Annotated[
        float | None, typer.Option(help="Objects only: lower merges more, higher splits more.")
    ] = None,
    minimal_size: Annotated[
        int | None, typer.Option(help="Objects only: those of fewer pixels or voxels are dropped.")
    ] = None,
    diameter: Annotated[
        str | None,
        typer.Option(
            help="Objects only: how wide they are in pixels, or auto; else shrunk where they are much larger than known."
        ),
    ] = None,
    link: Annotated[
        str,
        typer.Option(
            help="Objects only: none, or z or t, to give objects that overlap from plane to plane one number."
        ),
    ] = "none",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Keep what is finished; else compute and replace all.")
    ] = True,
    report: Annotated[str | None, typer.Option(help="Also write what became of each image to this JSON file.")] = None,
    ending: Annotated[
        str,
        typer.Option(
            "--format", help="Of the labels in a folder: .tif, .zarr (large ones region by region), .npy, .png."
        ),
    ] = ".tif",
    workers: Annotated[
        int, typer.Option(help="Compute in so many processes, one for each GPU or a few cores; 0: in this one.")
    ] = 0,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Compute on the workers of a dask scheduler, tcp://server:8786.")
    ] = "",
) -> None:
    """Segment images and write their labels; prints the path of each file written."""
    from dataclasses import replace

    from .engine.batch import plan_batch
    from .engine.library import Library
    from .engine.settings import BatchSettings

    loaded = Library().load(model)
    thresholds = {
        "foreground_threshold": foreground_threshold,
        "seed_threshold": seed_threshold,
        "minimal_size": minimal_size,
    }
    one = _settings(
        loaded,
        thresholds,
        channel=channel,
        device=device,
        tile=tile,
        memory=memory,
        probabilities=probabilities,
        diameter=_diameter(diameter, loaded),
    )
    settings = BatchSettings(one, ending=ending, link=link, resume=resume, workers=workers, scheduler=scheduler)
    plan = plan_batch(images, out, loaded, settings, axes)
    if diameter == AUTO:
        one = replace(one, diameter=_estimated(plan, loaded))
        plan = plan_batch(images, out, loaded, replace(settings, segment=one), axes)
    if plan.warning:
        _complain(plan.warning)
    outcome = _run_plan(plan, loaded)
    if report:
        outcome.save(Path(report))
    if not outcome.complete:
        if len(plan.items) > 1:
            _complain(f"{outcome.sentence()}.")
        raise typer.Exit(1)


AUTO = "auto"


def _diameter(given: str | None, loaded: Model) -> int | None:
    """Return the object diameter if one is given."""
    from .engine.zoom import check_diameter

    if given is None:
        return None
    check_diameter(loaded.card)
    if given == AUTO:
        return None
    if not given.isdecimal():
        raise InvalidSettings(f"--diameter {given!r} is not understood: give a number of pixels, or auto.")
    return int(given)


def _estimated(plan: BatchPlan, loaded: Model) -> int:
    """Return the object diameter estimated from the first image, and say it."""
    from .engine.files import open_image
    from .engine.inference import estimate_diameter

    item = plan.items[0]
    image = open_image(item.source, axes=plan.axes) if isinstance(item.source, Path) else item.source
    found = estimate_diameter(image, loaded, plan.settings.segment)
    _complain(f"The objects of {item.name} look about {found} pixels wide.")
    return found


def _run_plan(plan: BatchPlan, loaded: Model) -> BatchReport:
    """Run a batch with progress on stderr, of the item under way or (by workers) of all; prints what is written."""
    from .engine.batch import BatchDone, ItemFinished, ItemProgress, ItemStarted, run_batch

    total, todo = len(plan.items), len(plan.todo)
    apart = bool(plan.settings.workers or plan.settings.scheduler)
    shares: dict[int, float] = {}
    draw, close = _progress(f"{todo} image{'s' * (todo != 1)}", "%") if apart and todo else _silent()
    with contextlib.closing(run_batch(plan, loaded)) as events:  # type: ignore[type-var]
        try:
            for event in events:
                if isinstance(event, ItemStarted) and not apart:
                    of = f" ({event.number + 1} of {total})" if total > 1 else ""
                    draw, close = _progress(event.item.name + of)
                elif isinstance(event, ItemProgress) and not apart:
                    draw(event.done, event.tiles)
                elif isinstance(event, ItemProgress):
                    shares[event.number] = event.done / max(1, event.tiles)
                    draw(round(100 * sum(shares.values()) / todo), 100)
                elif isinstance(event, ItemFinished):
                    shares[event.number] = 1.0
                    if not apart:
                        close()
                    _print_outcome(event.outcome, probabilities=plan.settings.segment.probabilities)
                elif isinstance(event, BatchDone):
                    return event.report
        finally:
            close()
    raise AssertionError("run_batch() ends with BatchDone")


def _print_outcome(outcome: Outcome, *, probabilities: bool) -> None:
    from .engine.batch import probabilities_path

    if outcome.state == "done":
        print(outcome.target, flush=True)
        if probabilities:
            print(probabilities_path(Path(outcome.target)), flush=True)
    if outcome.sentence:
        about = outcome.target if outcome.state in ("done", "skipped") else outcome.source
        _complain(outcome.sentence if about in outcome.sentence else f"{about}: {outcome.sentence}")


def _settings(loaded: Model, thresholds: dict[str, float | int | None], **others: Any) -> SegmentSettings:
    from dataclasses import replace

    from .engine.settings import SegmentSettings

    given = {name: value for name, value in thresholds.items() if value is not None}
    if given and loaded.card.task != "objects":
        option = "--" + next(iter(given)).replace("_", "-")
        raise InvalidSettings(
            f"{option} is for models that find objects, but {loaded.card.name!r} is not: leave it out."
        )
    objects = replace(loaded.card.objects, **given) if given else None  # type: ignore[arg-type]
    return SegmentSettings(objects=objects, **others)


def _run(image: Image, model: Model, settings: SegmentSettings, title: str) -> Segmented:
    """Segment one image, with progress on stderr if that is a terminal."""
    from .engine.inference import Segmented, TileDone
    from .engine.inference import segment as segment_events

    events = segment_events(image, model, settings)
    draw, close = _progress(title)
    try:
        for event in events:
            if isinstance(event, TileDone):
                draw(event.done, event.tiles)
            elif isinstance(event, Segmented):
                return event
    finally:
        events.close()  # type: ignore[attr-defined]
        close()
    raise AssertionError("segment() ends with Segmented")


def _silent() -> tuple[Callable[[int, int], None], Callable[[], None]]:
    return lambda done, of: None, lambda: None


def _progress(title: str, unit: str = "tiles") -> tuple[Callable[[int, int], None], Callable[[], None]]:
    """Return a function that draws progress, and one that ends it."""
    if not sys.stderr.isatty():
        return _silent()
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task(title, total=None)
    bar.start()
    return lambda done, of: bar.update(task, completed=done, total=of), bar.stop


# ---------------------------------------------------------------- click


@app.command()
def click(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="An image of one plane.")],
    at: Annotated[list[str], typer.Option(metavar="Y,X", help="A pixel of the object; may be given several times.")],
    out: Annotated[str, typer.Option("--out", "-o", help="The mask: a file (.tif, .zarr, .npy or .png).")],
    not_at: Annotated[
        list[str] | None, typer.Option(metavar="Y,X", help="A pixel that is not of it; may be given several times.")
    ] = None,
    learn_from: Annotated[
        str | None,
        typer.Option(
            metavar="LABELS", help="Objects of this image that are right: they are learned first, one by one."
        ),
    ] = None,
    axes: Annotated[str | None, typer.Option(help="What the axes are, such as CYX; else read or guessed.")] = None,
    channel: Annotated[int | None, typer.Option(help="Which channel to look at, counted from 0.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
) -> None:
    """Cut out one object by clicks and write its mask; prints the path of the file written."""
    from . import __version__
    from .engine.click import ClickSegmenter
    from .engine.files import checked_ending, open_image, write_labels

    clicks = [(_point(text, "--at"), True) for text in at] + [
        (_point(text, "--not-at"), False) for text in not_at or []
    ]
    checked_ending(Path(out))
    opened = open_image(image, axes=axes)
    segmenter = ClickSegmenter(device=device)
    segmenter.set_image(opened, channel=channel)
    if learn_from:
        print(_learned(segmenter, _read_labels(learn_from)[0]), file=sys.stderr)
    mask = None
    for count in range(1, len(clicks) + 1):  # as in the window, each builds on the answer before
        mask = segmenter.segment(clicks[:count], mask if mask is not None and mask.any() else None)
    assert mask is not None
    record = {"software": f"napari-unet {__version__}", "model": segmenter.model.card.identity, "clicks": clicks}
    write_labels(out, mask.astype("uint8").reshape(opened.label_shape), opened, record)
    print(out)
    if not mask.any():
        _complain("The mask is empty, for nothing stands out at the click: click on the middle of an object.")


def _learned(segmenter: ClickSegmenter, labels: NDArray[np.integer]) -> str:
    """Teach a segmenter the objects of its image, as the window does; returns what to say."""
    import numpy as np

    from .engine.adaptation import Learned

    sentence, values = "There is no object to learn from.", np.unique(labels[labels > 0])
    draw, close = _progress("learning", "objects")
    try:
        for number, value in enumerate(values):
            draw(number, len(values))
            segmenter.accept(labels == value)
            *_, learned = segmenter.learn()
            assert isinstance(learned, Learned)
            sentence = learned.sentence()
    finally:
        close()
    return sentence


def _point(text: str, option: str) -> tuple[float, float]:
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidSettings(f"{option} {text} is no point: give row and column, such as {option} 40,52.") from error
    return y, x


# ---------------------------------------------------------------- train


@app.command()
def train(
    name: Annotated[str, typer.Option(help="What the trained model is called; it becomes a version of that name.")],
    images: Annotated[
        list[str] | None, typer.Option("--image", metavar="IMAGE", help="May be given several times.")
    ] = None,
    annotations: Annotated[
        list[str] | None,
        typer.Option(
            "--annotation", metavar="LABELS", help="One for each image: 0 not labelled, 1 background, 2 and up."
        ),
    ] = None,
    folder: Annotated[str | None, typer.Option("--images", metavar="FOLDER", help="A folder of images.")] = None,
    masks: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="A folder of masks of the same names: 0 background, 1 and up."),
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Name, name@version or file; else nuclei, or nothing.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(help="semantic or objects, for a new model; else that of the model begun with.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names for a new model, background first: background,cell,debris.")
    ] = None,
    dims: Annotated[int | None, typer.Option(help="2 or 3 dimensions of a new model.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Train so long.")] = None,
    steps: Annotated[int | None, typer.Option(help="Train so many gradient steps.")] = None,
    seed: Annotated[
        int, typer.Option(help="The same seed gives the same model on the same device and number of threads.")
    ] = 0,
    axes: Annotated[str | None, typer.Option(help="What the axes of the images are; else read or guessed.")] = None,
    channel: Annotated[int | None, typer.Option(help="Which channel to look at, counted from 0.")] = None,
    diameter: Annotated[int | None, typer.Option(help="Objects only: how wide they are, as for segment.")] = None,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:N, mps or cpu.")] = "auto",
) -> None:
    """Teach a model what is painted; it is saved if it is better on the strokes held out, and printed."""
    from dataclasses import replace

    from .engine.execution import pick_device
    from .engine.lesson import teach
    from .engine.library import Library
    from .engine.settings import TrainSettings
    from .engine.training import StepDone, Trained

    if minutes is not None and steps is not None:
        raise InvalidSettings("Both --minutes and --steps were given: leave one out.")
    pick_device(device)
    settings = TrainSettings(seed=seed, device=device)
    if minutes is not None:
        settings = replace(settings, steps=MANY_STEPS, minutes=minutes)
    elif steps is not None:
        settings = replace(settings, steps=steps)
    library = Library()
    lessons = _lessons(images or [], annotations or [], folder, masks, axes, channel)
    lessons = [replace(lesson, diameter=diameter) for lesson in lessons]
    model = _begin(library, lessons[0].image, start, task, classes, dims, channel, name, seed)
    draw, close = _progress(name, "steps" if minutes is None else "seconds")
    events = teach(model, lessons, settings, name=name)
    try:
        for event in events:
            if isinstance(event, StepDone) and minutes is not None:
                draw(int(event.seconds), round(60 * minutes))
            elif isinstance(event, StepDone):
                draw(event.step, event.steps)
    finally:
        events.close()  # type: ignore[attr-defined]
        close()
    assert isinstance(event, Trained)
    sentence = event.verdict.sentence(event.score, event.baseline)
    if event.verdict.accepted is False:
        _complain(f"{sentence} Nothing was saved.")
        raise typer.Exit(NO_BETTER)
    saved = library.add(event.model)
    _complain(sentence)
    print(saved.card.identity)


MANY_STEPS = 100_000
"""More than fit into any number of minutes."""


def _lessons(
    images: list[str],
    annotations: list[str],
    folder: str | None,
    masks: str | None,
    axes: str | None,
    channel: int | None,
) -> list[Lesson]:
    """Open what is taught: images with annotations, and folders of images and masks, whose pairs are shown."""
    from .engine.files import open_image
    from .engine.lesson import open_lesson
    from .engine.pairs import open_pair, pair_up

    if len(images) != len(annotations):
        raise InvalidSettings(
            f"{len(images)} images, but {len(annotations)} annotations: give --image and --annotation in pairs."
        )
    if (folder is None) != (masks is None):
        raise InvalidSettings("A folder of images needs one of masks: give --images and --masks together.")
    lessons = [
        open_lesson(open_image(image, axes=axes), Path(path), channel)
        for image, path in zip(images, annotations, strict=True)
    ]
    if folder is not None and masks is not None:
        pairs = pair_up(folder, masks)
        for sentence in (*(f"{image.name} with {mask.name}" for image, mask in pairs.together), *pairs.left_over):
            _complain(sentence)
        lessons += [open_pair(image, mask, axes, channel) for image, mask in pairs.together]
    if not lessons:
        raise InvalidSettings("Nothing to learn from: give --image and --annotation, or --images and --masks.")
    return lessons


def _begin(
    library: Library,
    image: Image,
    start: str | None,
    task: str | None,
    classes: str | None,
    dims: int | None,
    channel: int | None,
    name: str,
    seed: int,
) -> Model:
    """Return the model to begin with: the one named, one made from it, or an untrained one."""
    from .engine.transfer import start_model

    new = task is not None or classes is not None or dims is not None
    parent = library.load(start or "nuclei") if start or not new else None
    if not new:
        assert parent is not None
        return parent
    known = parent.card if parent else None
    names = tuple(n.strip() for n in classes.split(",")) if classes else known.classes if known else ()
    channels = 1 if channel is not None or image.rgb else image.channels
    return start_model(
        name,
        task or (known.task if known else "semantic"),
        names or ("background", "foreground"),
        dims or (known.spec.dims if known else 2),
        known.spec.in_channels if known else channels,
        parent,
        seed,
    )


# ---------------------------------------------------------------- convert


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Labels, or outlines: .geojson, .zip or .roi.")],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="Labels (.tif, .zarr, .npy, .png), .geojson, or .zip for ImageJ.")
    ],
    like: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The image that outlines lie on; gives size and axes.")
    ] = None,
    annotation: Annotated[
        bool, typer.Option("--annotation", help="Outlines become annotations to train on: 2 and up, background 1.")
    ] = False,
    classes: Annotated[
        str | None, typer.Option(help="Names of the outlines' classes, background first: background,cell,debris.")
    ] = None,
) -> None:
    """Turn labels into outlines for QuPath or ImageJ, outlines into labels, or labels into another format."""
    from .engine.files import open_image, write_labels
    from .engine.image import Image
    from .engine.outlines import ENDINGS, rasterised, read_outlines, write_outlines

    source_path, target_path = Path(source), Path(target)
    names = tuple(n.strip() for n in classes.split(",")) if classes else ()
    if source_path.suffix.lower() in ENDINGS:
        if like is None:
            raise InvalidSettings(f"Say which image the outlines of {source_path.name} lie on, with --like IMAGE.")
        image = open_image(like, lazy=True)
        found = read_outlines(source_path)
        labels: NDArray[np.integer] = rasterised(
            found, image, annotation=annotation, classes=names, name=source_path.name
        )
    else:
        image = open_image(source)
        if image.channels > 1:
            raise InvalidSettings(f"{source_path.name} has {image.channels} channels, but labels have none.")
        labels = _whole_numbers(image).reshape(image.label_shape)
        image = Image(labels, image.label_axes, image.label_spacing, image.unit, image.name)
    if target_path.suffix.lower() in ENDINGS:
        count = write_outlines(target_path, labels, image.label_axes)
        _complain(f"{count} outline{'s' * (count != 1)}.")
    else:
        write_labels(target_path, labels, image, {"converted": source_path.name})
    print(target)


def _whole_numbers(image: Image) -> NDArray[np.integer]:
    import numpy as np

    labels = np.asarray(image.array[...])
    if labels.dtype.kind not in "bui":
        raise InvalidSettings(f"{image.name} holds {labels.dtype} values, but labels are whole numbers.")
    return labels


# ---------------------------------------------------------------- evaluate


@app.command()
def evaluate(
    prediction: Annotated[str, typer.Argument(metavar="PREDICTION", help="A label image.")],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="A label image of the same shape.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    task: Annotated[
        str | None, typer.Option(help="objects or semantic; else as the prediction was made, or objects.")
    ] = None,
    by_plane: Annotated[
        bool | None,
        typer.Option("--by-plane/--as-one", help="Compare each plane by itself, or all at once; else as it was made."),
    ] = None,
    picture: Annotated[
        str | None, typer.Option(metavar="FILE.png", help="Also draw what is matched, missed and invented.")
    ] = None,
    image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="What was segmented; drawn in grey below the errors.")
    ] = None,
    plane: Annotated[
        str | None, typer.Option(metavar="N", help="Which plane is drawn, such as 7, or 0,7; else the worst one.")
    ] = None,
) -> None:
    """Score labels against the truth: Dice, AP at 0.5 to 0.95, PQ, V_Rand, V_Info, VOI; of classes Dice and IoU."""
    from .engine.comparison import COLOR_NAMES, MEANINGS, Kind, compare, grey, object_axes
    from .engine.comparison import picture as draw
    from .engine.files import open_image, read_record

    labels, axes = _read_labels(prediction)
    record = read_record(prediction)
    together = object_axes(record, axes) if by_plane is None else "yx" if by_plane else axes
    task = task or ("semantic" if record.get("task") == "semantic" else "objects")
    found = compare(labels, _read_labels(truth)[0], axes, together, task)
    if as_json:
        import json

        print(json.dumps(_finite(_as_values(found)), indent=2))
    else:
        unknown = by_plane is None and not record and len(axes) > 2
        hint = "; say --by-plane if planes were segmented one by one" if unknown else ""
        classes = record.get("classes")
        names = [str(name) for name in classes] if isinstance(classes, list) else []
        _print_rows([("compared", found.way + hint), *_scores_in_words(found, names)])
    if picture:
        at = _position(plane, found.errors, axes)
        below = grey(open_image(image), at, labels.shape[-2:], record) if image else None
        drawn = found.errors[at]
        _save_picture(Path(picture), draw(drawn, below))
        where = ", ".join(f"{axis} {index}" for axis, index in zip(axes, at, strict=False))
        legend = [(COLOR_NAMES[kind], MEANINGS[task][kind]) for kind in Kind if (drawn == kind).any()]
        lines = _lined_up([(picture, where or "the whole image"), *legend])
        print("\n".join(lines), file=sys.stderr if as_json else sys.stdout)


def _scores_in_words(found: Comparison, names: list[str]) -> list[tuple[str, str]]:
    scores = found.scores
    if found.task == "semantic":
        called = {c.value: f"class {c.value}" + f" {names[c.value]}" * (c.value < len(names)) for c in found.classes}
        rows = [(called[c.value], f"Dice {c.dice:.4f}, IoU {c.iou:.4f}") for c in found.classes]
        return [*rows, ("foreground", f"Dice {scores.dice:.4f}")]
    pq, rand, info, voi = scores.panoptic_quality, scores.v_rand, scores.v_info, scores.variation_of_information
    return [
        ("objects", f"{scores.predicted_objects} predicted, {scores.true_objects} true"),
        ("at IoU 0.5", f"{scores.matched} matched, {scores.missed} missed, {scores.invented} invented"),
        ("Dice", f"{scores.dice:.4f}"),
        *((f"AP@{at:g}", f"{value:.4f}") for at, value in scores.average_precision.items()),
        ("mean AP", f"{scores.mean_average_precision:.4f}"),
        ("PQ", f"{pq.pq:.4f}  (SQ {pq.sq:.4f}, RQ {pq.rq:.4f})"),
        ("V_Rand", f"{rand.f:.4f}  (precision {rand.precision:.4f}, recall {rand.recall:.4f})"),
        ("V_Info", f"{info.f:.4f}  (precision {info.precision:.4f}, recall {info.recall:.4f})"),
        ("VOI", f"{voi.split + voi.merge:.4f}  (split {voi.split:.4f}, merge {voi.merge:.4f} bits)"),
    ]


def _read_labels(path: str) -> tuple[NDArray[np.integer], str]:
    """Return labels and their axes, without those of length 1 before y and x; labels have no channels."""
    import numpy as np

    from .engine.files import open_image

    image = open_image(path)
    axes = image.axes.replace("c", "z" if "z" not in image.axes else "t" if "t" not in image.axes else "c")
    gone = tuple(i for i, n in enumerate(image.shape) if n == 1 and axes[i] not in "yx")
    return np.asarray(image.array[...]).squeeze(gone), "".join(a for i, a in enumerate(axes) if i not in gone)


def _position(plane: str | None, errors: NDArray[np.uint8], axes: str) -> tuple[int, ...]:
    """Return which plane of the errors to draw."""
    from .engine.comparison import worst

    if plane is None:
        return worst(errors)
    sizes = errors.shape[:-2]
    try:
        at = tuple(int(part) for part in plane.split(","))
    except ValueError:
        at = ()
    if len(at) != len(sizes) or any(not 0 <= i < n for i, n in zip(at, sizes, strict=False)):
        ranges = (
            " and ".join(f"{a} 0 to {n - 1}" for a, n in zip(axes, sizes, strict=False)) or "one plane, so leave it out"
        )
        raise InvalidSettings(f"--plane {plane} is none of the planes: there is {ranges}.")
    return at


def _save_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    from PIL import Image as Picture

    if path.suffix.lower() != ".png":
        raise InvalidSettings(f"--picture {path} is no picture file: let its name end in .png.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(pixels).save(path)
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror or error}): choose another folder.") from error


def _as_values(found: Comparison) -> dict[str, Any]:
    scores = found.scores
    compared = {"task": found.task, "compared": found.way, "planes": scores.planes}
    if found.task == "semantic":
        return compared | {
            "classes": {str(c.value): {"dice": c.dice, "iou": c.iou} for c in found.classes},
            "dice": scores.dice,
        }
    return compared | {
        "predicted_objects": scores.predicted_objects,
        "true_objects": scores.true_objects,
        "matched": scores.matched,
        "missed": scores.missed,
        "invented": scores.invented,
        "dice": scores.dice,
        "average_precision": {f"{at:g}": value for at, value in scores.average_precision.items()},
        "mean_average_precision": scores.mean_average_precision,
        "panoptic_quality": scores.panoptic_quality._asdict(),
        "v_rand": scores.v_rand._asdict(),
        "v_info": scores.v_info._asdict(),
        "variation_of_information": scores.variation_of_information._asdict(),
    }


def _finite(value: Any) -> Any:
    """Put null where JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(inside) for key, inside in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_rows(rows: list[tuple[str, str]]) -> None:
    print("\n".join(_lined_up(rows)))


def _lined_up(rows: list[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


# ---------------------------------------------------------------- models


@models_app.command("list")
def models_list() -> None:
    """List the models: the shipped ones and your own; a star marks the version in use."""
    from .engine.library import Library

    library = Library()
    in_use = {entry.path for entry in library.current()}
    rows = [("", "model", "task", "takes", "from")]
    for entry in library.entries():
        card, spec = entry.card, entry.card.spec
        takes = f"{spec.dims}D, {spec.in_channels} channel{'s' * (spec.in_channels > 1)}"
        star = "*" if entry.path in in_use else ""
        origin = "shipped" if entry.shipped else "another program" if card.is_foreign else "yours"
        rows.append((star, f"{card.name}@{card.version}", card.task, takes, origin))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for path, reason in library.damaged():
        _complain(f"{path} is left out: {reason}")


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name, name@version, or a model file.")],
) -> None:
    """Show what is known of a model."""
    from .engine.library import Library

    entry = Library().find(name)
    card, spec = entry.card, entry.card.spec
    rows = [
        ("model", card.identity),
        ("file", str(entry.path)),
        ("description", card.description),
        ("task", card.task),
        ("classes", ", ".join(card.classes)),
        ("takes", f"{spec.dims}D, {spec.in_channels} channel{'s' * (spec.in_channels > 1)}"),
        ("network", _network_in_words(card)),
        ("percentiles", "" if card.is_foreign else " to ".join(f"{p:g}" for p in card.percentiles)),
        ("diameter", f"{card.diameter:g} pixels" if card.diameter else ""),
        ("spacing", " x ".join(f"{s:g}" for s in card.spacing) + " µm" if card.spacing else ""),
        ("parent", card.parent),
        ("created", card.created),
        ("licence", card.licence),
        ("from", card.source),
        *(("cite", line) for line in card.cite.splitlines()),
        *((f"training {key}", str(value)) for key, value in card.training.items()),
    ]
    if card.task == "objects":
        objects = card.objects
        rows.insert(
            7,
            (
                "thresholds",
                f"foreground {objects.foreground_threshold:g}, seed {objects.seed_threshold:g}, "
                f"minimal size {objects.minimal_size}",
            ),
        )
    _print_rows([(key, value) for key, value in rows if value])


def _network_in_words(card: ModelCard) -> str:
    if card.is_foreign:
        return "of another program, run by onnxruntime; it cannot be trained"
    spec = card.unet
    return f"{' '.join(map(str, spec.channels))} feature channels, {spec.padding} convolutions"


@models_app.command("rollback")
def models_rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model.")],
    version: Annotated[int | None, typer.Argument(metavar="VERSION", help="Else the one before.")] = None,
) -> None:
    """Use an earlier version again, bit by bit as it was; prints which one."""
    from .engine.library import Library

    print(Library().rollback(name, version).card.identity)


@models_app.command("export")
def models_export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name or name@version.")],
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Where to: .zip (bioimage.io), .onnx, else a model file of ours.")
    ],
) -> None:
    """Copy a model to a file, for other programs by its ending; prints its path."""
    from .engine.exchange import export_model
    from .engine.library import Library

    library = Library()
    print(export_model(library, library.find(name), Path(file)))


@models_app.command("import")
def models_import(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE", help="A model file, a bioimage.io package (.zip, folder, rdf.yaml), or .onnx."),
    ],
) -> None:
    """Take in a model; prints what it is called. What another program made is tried on its own test image first."""
    from .engine.exchange import import_model
    from .engine.library import Library

    print(import_model(Library(), Path(file)).card.identity)


@models_app.command("delete")
def models_delete(
    name: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="One version, or a name with a single one.")],
) -> None:
    """Delete one version of a model."""
    from .engine.library import Library

    library = Library()
    entry = library.find(name)
    if "@" not in name and len(library.versions(entry.card.name)) > 1:
        raise InvalidSettings(f"{name!r} has several versions: say which one, such as {name}@{entry.card.version}.")
    library.delete(entry)
    print(f"deleted {entry.card.name}@{entry.card.version}")


# ---------------------------------------------------------------- info


@app.command()
def info(
    report: Annotated[
        str | None, typer.Option(help="Pack this and the log, without any image, into this zip file.")
    ] = None,
) -> None:
    """Print versions, devices and the models folder: what a bug report needs."""
    from . import __version__
    from .engine.execution import available_devices
    from .engine.library import Library
    from .engine.log import log_folder, write_report

    library = Library()
    rows = [
        ("napari-unet", __version__),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", platform.platform()),
        ("processors", str(os.cpu_count())),
        *(
            (name, _version_of(name))
            for name in ("napari", "torch", "onnxruntime", "numpy", "scikit-image", "tifffile", "zarr")
        ),
        ("devices", ", ".join(available_devices())),
        ("models folder", str(library.folder)),
        ("log", str(log_folder())),
        ("models", ", ".join(f"{entry.card.name}@{entry.card.version}" for entry in library.entries()) or "none"),
    ]
    if damaged := library.damaged():
        rows.append(("damaged models", ", ".join(str(path) for path, _ in damaged)))
    if report is None:
        _print_rows(rows)
        return
    write_report(Path(report), "\n".join(_lined_up(rows)) + "\n")
    print(report)


def _version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


# ---------------------------------------------------------------- demo


@app.command()
def demo(
    out: Annotated[
        str, typer.Option("--out", "-o", help="Folder for the results, where there is no window.")
    ] = "demo-out",
    window: Annotated[bool, typer.Option("--window/--no-window", help="Open napari if there is a display.")] = True,
) -> None:
    """Segment a sample image and show it in napari; without a display, write the labels and a picture."""
    import numpy as np

    from .engine.files import write_labels
    from .engine.library import Library
    from .engine.metrics import average_precision
    from .samples import load

    image, truth = load("nuclei")
    model = Library().load("nuclei")
    result = _run(image, model, _settings(model, {}), image.name)
    score = average_precision(result.labels, truth, (0.5,))[0.5]
    print(f"{int(result.labels.max())} nuclei found, {int(truth.max())} in the truth; AP@0.5 {score:.3f}")
    if window and _has_display() and importlib.util.find_spec("napari"):
        _open_window()
        return
    folder = Path(out)
    labels_path, picture_path = folder / "nuclei_labels.tif", folder / "nuclei.png"
    write_labels(labels_path, result.labels, image, result.record)
    try:
        _picture(np.asarray(image.array), result).save(picture_path)
    except OSError as error:
        raise FileError(f"{picture_path} cannot be written: {error}; choose another folder with -o.") from error
    print(labels_path)
    print(picture_path)


def _has_display() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open_window() -> None:
    """Open napari with the sample and the dock, which segments it."""
    import napari

    from .plugin.dock import segment_active

    viewer = napari.Viewer()
    viewer.open_sample("napari-unet", "nuclei")
    viewer.window.add_plugin_dock_widget("napari-unet", "U-Net")
    segment_active(viewer)
    napari.run()


def _picture(pixels: NDArray[Any], result: Segmented) -> Any:
    """Return the image and, beside it, the image with the outlines of its objects; twice as large."""
    import numpy as np
    from PIL import Image as Picture
    from skimage.segmentation import mark_boundaries

    scale = result.record["normalisation"]
    grey = ((pixels - scale["low"][0]) / (scale["high"][0] - scale["low"][0])).clip(0, 1).astype(np.float32)
    large, labels = (np.kron(a, np.ones((2, 2), a.dtype)) for a in (grey, result.labels))
    outlined = mark_boundaries(large, labels, color=(1, 0.8, 0.2), mode="inner")
    both = np.concatenate([np.stack([large] * 3, axis=-1), outlined], axis=1)
    return Picture.fromarray((255 * both).round().astype(np.uint8))
