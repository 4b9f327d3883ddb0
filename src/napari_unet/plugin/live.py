"""Live: an overlay that follows every stroke, and the way to where the next one helps most. No Qt.

Nothing is computed in the window's thread. One job learns and answers (`_answering`); a stroke that arrives meanwhile ends
it after the tile at hand and starts the next, so requests never pile up. Once some strokes are held out, a second job lets
the U-Net answer too (`_rivalling`), and the better of the two on those strokes is shown.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image as ImageLayer
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from psygnal import Signal
from scipy import ndimage

from .. import __version__
from ..engine.errors import InvalidImage, NapariUnetError
from ..engine.image import Image, Item
from ..engine.settings import SegmentSettings
from . import layers
from .annotating import Page
from .learning import Learning
from .planes import Plane, plane_in_view
from .preview import same_active
from .session import Progress, in_one_sentence

if TYPE_CHECKING:
    from ..engine.inference import Normalisation
    from ..engine.instant import Answered, Box, Canvas, Classifier, Instant, Place, Verdict
    from .jobs import Handle, Starter

NAME, DOUBT = "live", "live doubt"
MOST_CHANNELS = 6
"""Of an image with more channels, only the chosen one is looked at."""
PLANES = 8
"""Planes of each image among which the next place to paint is looked for, at even steps."""
PERCENTILES = (1.0, 99.8)


@dataclass(frozen=True, slots=True, eq=False)
class Sheet:
    """A plane, and what is painted on it now."""

    plane: Plane
    channel: int | None
    labels: NDArray[np.integer]
    held_out: NDArray[np.bool_]

    def says_what(self, other: Sheet) -> bool:
        """Whether the same is painted on the same plane, and held out."""
        return (
            self.plane.key == other.plane.key
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.held_out, other.held_out)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """What is to be answered, and what is new since the last request."""

    sheets: tuple[Sheet, ...]
    """The first is the one in view."""
    region: Box
    doubt: bool
    rivals: tuple[tuple[Sheet, Box, NDArray[np.integer]], ...]
    """Answers of the U-Net."""

    def asks_what(self, other: Request) -> bool:
        """Whether it asks what another one asked."""
        return (
            not self.rivals
            and (self.region, self.doubt, len(self.sheets)) == (other.region, other.doubt, len(other.sheets))
            and all(a.says_what(b) for a, b in zip(self.sheets, other.sheets, strict=True))
        )


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What the worker says beside its answers."""

    missing: str
    verdict: Verdict
    classifier: Classifier | None


@dataclass(eq=False)
class Studio:
    """What the answering job knows from one request to the next; only it touches this."""

    scales: dict[Any, Normalisation] = field(default_factory=dict)
    verdict: Verdict | None = None

    @cached_property
    def instant(self) -> Instant:
        """Learns."""
        from ..engine.instant import Instant

        return Instant()

    def canvas(self, sheet: Sheet) -> Canvas:
        """Return a plane as the engine sees it."""
        image = sheet.plane.image
        key = id(sheet.plane.layer), sheet.channel
        if key not in self.scales:
            self.scales[key] = _scale(image, sheet.channel)
        return _canvas(sheet.plane.key, image, sheet.plane.labels_position, sheet.channel, self.scales[key])


class Live:
    """The live mode of one viewer.

    Parameters
    ----------
    learning
        What is painted.
    start
        `jobs.start`, or what behaves like it.
    """

    changed = Signal()
    """On or off, or the hint."""

    def __init__(self, learning: Learning, start: Starter) -> None:
        self.learning, self.session, self.viewer = learning, learning.session, learning.viewer
        self.on = False
        self.hint = ""
        """One line: what is missing, or which of the two is shown and why."""
        self.layer: Labels | None = None
        self.doubt: ImageLayer | None = None
        self.classifier: Classifier | None = None
        """What was learned last; None: nothing yet."""
        self._start = start
        self._verdict: Verdict | None = None
        self._forget()

    def _forget(self) -> None:
        """Begin anew: other images or another model."""
        self._studio = Studio()
        self._identity: tuple[Any, ...] = ()
        self._asked: tuple[Any, ...] = ()
        self._painted: dict[Any, tuple[Page, Plane]] = {}
        self._judged: dict[Any, Sheet] = {}
        """Planes with strokes held out."""
        self._looked: set[Any] = set()
        """Planes that the U-Net has looked at."""
        self._arrived: list[tuple[Sheet, Box, NDArray[np.integer]]] = []
        self._last: Request | None = None
        """What was asked last; None: nothing, or its answer was lost."""
        self._verdict = self.classifier = None

    _job: Handle | None = None
    _rival: Handle | None = None
    _again = _seeking = _dirty = _recount = False
    _shown: Plane | None = None
    _heard: Labels | None = None

    # ---- what the user does

    def switch(self, on: bool) -> None:
        """Switch the live mode on or off."""
        if on == self.on:
            return
        self.on = on
        if on:
            self.learning.changed.connect(self._on_changed)
            self.viewer.layers.events.removed.connect(self._on_removed)
            if self.learning.page is None:
                self.learning.annotate()
            self._dirty = True
            self.tick()
        else:
            self.learning.changed.disconnect(self._on_changed)
            self.viewer.layers.events.removed.disconnect(self._on_removed)
            self._stop()
        self.changed.emit()

    def show_doubt(self, on: bool) -> None:
        """Show where the answer is unsure, or hide it."""
        if on and self.doubt is None:
            self.doubt = ImageLayer(np.zeros((1, 1), dtype=np.float32), name=DOUBT, colormap="magma", opacity=0.5)
            self.doubt.contrast_limits, self.doubt.blending = (0, 1), "additive"
            self.doubt.metadata = layers.with_record({}, {})  # so that nobody takes it for an image to segment
            self._shown = None
        elif not on:
            self._remove(self.doubt)
            self.doubt = None
        self._dirty = True

    def next_region(self) -> None:
        """Look for the place where the next strokes help most, and bring it into view."""
        if self.on:
            self._seeking = True
            self.session.tell("Looking for the next region ...")
            self._ask()

    def keep(self) -> None:
        """Turn what is shown into a result, of all planes of the image."""
        self.learning.look()
        page, classifier = self.learning.page, self.classifier
        if self._verdict is not None and self._verdict.unet_is_better:
            self.session.segment()
            return
        if page is None or classifier is None:
            self.session.tell(self.hint or "Switch Live on and paint first.", is_error=True)
            return
        made: list[NDArray[np.integer]] = []

        def on_event(event: tuple[int, int, NDArray[np.integer] | None]) -> None:
            done, tiles, labels = event
            self.session.advance(Progress(done, tiles))
            if labels is not None:
                made.append(labels)

        self.session.run(
            partial(_classifying, classifier, page.image, self._channel(page), page.scheme.objects),
            f"Turning the live overlay of {page.source.name!r} into a result ...",
            on_event=on_event,
            on_done=lambda: self._add_result(page, made[0]),
            on_error=lambda error: self.session.tell(in_one_sentence(error), is_error=True),
            on_cancelled=lambda: self.session.tell("Cancelled; nothing was changed."),
        )

    def close(self) -> None:
        """Stop, and let go of the viewer; may be called more than once."""
        self.switch(False)

    # ---- asking

    def tick(self) -> None:
        """Ask again if a stroke was made, undone or moved out of view, or the view moved; to be called many times a second."""
        page = self.learning.page
        if not self.on or (page is not None and page.pressed):
            return
        try:
            plane, region = self._view(page)
        except NapariUnetError as error:
            self._clear()
            self._asked = ()
            self._say(str(error))
            return
        assert page is not None
        self._listen(page.layer)
        self._recognise()
        asked = (plane.key, region)
        if self._dirty or asked != self._asked:
            self._asked, self._dirty = asked, False
            self._ask()
        elif self._job is None:
            self._ask_the_unet()

    def _view(self, page: Page | None) -> tuple[Plane, Box]:
        if page is None:
            raise InvalidImage("Press New annotations, then paint a stroke on an object and one on the background.")
        plane = plane_in_view(self.viewer, page.source, page.image)
        seen = layers.in_view(self.viewer, page.source, page.image)
        if {"y", "x"} & set(plane.position) or seen is None:
            raise InvalidImage("The view shows no slice along y and x: turn it with Ctrl+E.")
        part = dict(zip(page.image.label_axes, seen, strict=True))
        return plane, (part["y"], part["x"])

    def _recognise(self) -> None:
        """Begin anew if images, channels or the model are others than before."""
        entry = self.session.entry
        pages = tuple((id(p.source), id(p.source.data), p.image.axes, self._channel(p)) for p in self.learning.pages)
        identity = (None if entry is None else entry.path, self.learning.scheme.objects, pages)
        if identity == self._identity:
            return
        if self._job is not None:
            self._job.cancel()
        if self._rival is not None:
            self._rival.cancel()
        self._forget()
        self._identity = identity
        self._dirty = self._recount = True

    def _ask(self) -> None:
        """Start the job; if one is running on something older, end it after the tile at hand, and then start."""
        page = self.learning.page
        try:
            plane, region = self._view(page)
        except NapariUnetError as error:
            self._say(str(error))
            return
        assert page is not None
        request = self._request(page, plane, region)
        if not self._seeking and self._last is not None and request.asks_what(self._last):
            return
        if self._job is not None:
            self._again, self._last = True, None  # its answer is lost
            self._job.cancel()
            return
        self._again, self._last, self._arrived = False, request, []
        self._judged = {s.plane.key: s for s in request.sheets if s.held_out.any()}
        seeking, self._seeking = self._seeking, False
        function = (
            partial(_seeking, self._studio, request, self._candidates(page))
            if seeking
            else partial(_answering, self._studio, request)
        )
        places: list[tuple[Sheet, Box] | None] = []
        self._job = self._start(
            function,
            on_event=places.append if seeking else partial(self._on_event, self._studio, plane),
            on_done=partial(self._on_found, places) if seeking else self._on_end,
            on_error=self._on_error,
            on_cancelled=self._on_end,
        )

    def _request(self, page: Page, plane: Plane, region: Box) -> Request:
        if self._recount:  # a look at whole stacks: not for every stroke
            self._recount = False
            self._find_painted(page)
        self._painted[plane.key] = page, plane
        sheets = [self._sheet(p, other) for key, (p, other) in self._painted.items() if key != plane.key]
        return Request((self._sheet(page, plane), *sheets), region, self.doubt is not None, tuple(self._arrived))

    def _find_painted(self, page: Page) -> None:
        """Note the planes with anything painted; one that is empty again stays, so that its strokes are taken back."""
        for other in self.learning.pages:
            if _maps(other.image, self._channel(other)) != _maps(page.image, self._channel(page)):
                continue
            axes = other.image.label_axes
            beside = tuple(i for i, a in enumerate(axes) if a not in "yx")
            for at in np.argwhere(other.labels.any(axis=(axes.index("y"), axes.index("x")))).tolist():
                position = {axes[i]: n for i, n in zip(beside, at, strict=True)}
                plane = Plane(other.source, other.image, position)
                self._painted.setdefault(plane.key, (other, plane))

    def _sheet(self, page: Page, plane: Plane) -> Sheet:
        labels = np.minimum(page.labels[plane.where], 2 if page.scheme.objects else 255).astype(np.uint8)
        return Sheet(plane, self._channel(page), labels, page.strokes.held_out[plane.where].copy())

    def _candidates(self, page: Page) -> tuple[Sheet, ...]:
        """Return the planes, of all images that are annotated, among which the next region is looked for."""
        found = []
        for other in self.learning.pages:
            if _maps(other.image, self._channel(other)) != _maps(page.image, self._channel(page)):
                continue
            axes = [a for a in other.image.label_axes if a not in "yx"]
            lengths = [other.image.shape[other.image.axes.index(a)] for a in axes]
            total = int(np.prod(lengths, dtype=int))
            for at in np.unique(np.linspace(0, total - 1, min(total, PLANES)).astype(int)):
                position = {a: int(n) for a, n in zip(axes, np.unravel_index(at, lengths), strict=True)} if axes else {}
                found.append(self._sheet(other, Plane(other.source, other.image, position)))
        return tuple(found)

    def _channel(self, page: Page) -> int | None:
        """Return the one channel to look at; None: all of them."""
        if page.image.rgb or page.image.channels <= MOST_CHANNELS:
            return None
        return page.channel or 0

    def _ask_the_unet(self) -> None:
        """Let the U-Net answer where strokes are held out, and where its answer is shown; never beside another job."""
        entry, busy = self.session.entry, self.session.running
        if busy and self._rival is not None:
            self._rival.cancel()
        if busy or self._rival is not None or entry is None or entry.card.spec.dims != 2 or entry.card.task == "click":
            return
        page = self.learning.page
        wanted = dict(self._judged)
        if page is not None and self._shown is not None and self._verdict is not None and self._verdict.unet_is_better:
            wanted.setdefault(self._shown.key, self._sheet(page, self._shown))
        sheet = next((s for key, s in wanted.items() if key not in self._looked), None)
        if sheet is None:
            return
        studio = self._studio

        def ended(*_: object) -> None:
            self._rival = None
            if studio is self._studio:
                self._looked.add(sheet.plane.key)
                self._dirty = True

        def cancelled() -> None:
            self._rival = None

        def arrived(event: tuple[Box, NDArray[np.integer]]) -> None:
            if studio is self._studio:
                self._arrived.append((sheet, *event))

        self._rival = self._start(
            partial(_rivalling, sheet.plane, entry.path, self.session.settings),
            on_event=arrived,
            on_done=ended,
            on_error=ended,  # it cannot take part: the image does not fit it
            on_cancelled=cancelled,
        )

    # ---- what the worker says

    def _on_event(self, studio: Studio, plane: Plane, event: Said | Answered) -> None:
        if not self.on or studio is not self._studio:
            return
        if type(event).__name__ == "Answered":  # by name: importing the class would import torch
            self._draw(plane, event)  # type: ignore[arg-type]
            return
        assert isinstance(event, Said)
        self.classifier, self._verdict = event.classifier, event.verdict
        if event.missing:
            self._clear()
        self._say(event.missing or self._in_words(event.verdict))

    def _in_words(self, verdict: Verdict) -> str:
        name = "the U-Net" if self.session.entry is None else self.session.entry.card.name
        if verdict.instant is None or verdict.unet is None:
            return "Shown: the instant head."
        if verdict.unet_is_better:
            return f"Shown: {name} ({verdict.unet:.2f} on held-out strokes; the instant head {verdict.instant:.2f})."
        return f"Shown: the instant head ({verdict.instant:.2f} on held-out strokes; {name} {verdict.unet:.2f})."

    def _on_found(self, places: list[tuple[Sheet, Box] | None]) -> None:
        place = places[-1] if places else None
        self._job = None
        self._last = None  # it was not answered
        if self.on and place is not None:
            self._go_to(*place)
        elif self.on:
            self.session.tell("There is no next region: paint a stroke first.")
        if self._again:
            self._ask()

    def _on_end(self) -> None:
        self._job = None
        if self._again and self.on:
            self._ask()

    def _on_error(self, error: Exception) -> None:
        self._job = None
        self._clear()
        if self.on:
            self._say(in_one_sentence(error))
        if self._again and self.on:
            self._ask()

    def _on_changed(self) -> None:
        """Strokes were taken in, so it is known which are held out; or the images are others."""
        self._dirty = self._recount = True

    def _on_touched(self) -> None:
        self._dirty = True

    def _on_removed(self, event: Any) -> None:
        if event.value is self.layer:
            self.layer = None
            self.switch(False)
        elif event.value is self.doubt:
            self.doubt = None
            self.changed.emit()

    def _listen(self, layer: Labels | None) -> None:
        if layer is self._heard:
            return
        for old, listen in ((self._heard, False), (layer, True)):
            if old is not None:
                for event in (old.events.paint, old.events.labels_update, old.events.set_data, old.events.data):
                    (event.connect if listen else event.disconnect)(self._on_touched)
        self._heard = layer

    # ---- what is seen

    def _draw(self, plane: Plane, event: Answered) -> None:
        page = self.learning.page
        if page is None or not event.parts:
            return
        overlays = [layer for layer in (self.layer, self.doubt) if layer is not None]
        fit = all(np.size(layer.data) == math.prod(plane.shape) for layer in overlays)
        if self._shown is None or self._shown.key != plane.key or self.layer is None or not fit:
            self._show(page, plane)
        assert self.layer is not None
        for part in event.parts:
            np.asarray(self.layer.data).reshape(plane.shape)[part.box] = part.labels
            if self.doubt is not None and part.doubt is not None:
                np.asarray(self.doubt.data).reshape(plane.shape)[part.box] = part.doubt
        for layer in (self.layer, self.doubt):
            if layer is not None:
                layer.refresh(extent=False, thumbnail=False, highlight=False)

    def _show(self, page: Page, plane: Plane) -> None:
        """Put empty overlays on a plane, below the annotations."""
        data, place = plane.overlay(np.zeros(plane.shape, dtype=np.uint8))
        if self.layer is None:
            self.layer = Labels(data, name=NAME, opacity=0.4, **place)
            self.layer.editable = False
        else:
            _move(self.layer, data, place)
        colors: dict[int | None, Any] = {0: "transparent", 1: "transparent", None: "transparent"}
        self.layer.colormap = DirectLabelColormap(
            color_dict=colors | {i + 1: color for i, color in enumerate(page.scheme.colors) if i}
        )
        if self.doubt is not None:
            _move(self.doubt, *plane.overlay(np.zeros(plane.shape, dtype=np.float32)))
        top = self.viewer.layers
        with same_active(self.viewer):
            for layer in (self.doubt, self.layer):
                if layer is not None and layer not in top:
                    top.append(layer)
                    if page.layer in top:
                        top.move(top.index(layer), top.index(page.layer))
        self._shown = plane

    def _clear(self) -> None:
        """Empty the overlay; the layer stays."""
        self._last = None
        for layer in (self.layer, self.doubt):
            if layer is not None and layer in self.viewer.layers:
                layer.data = np.zeros_like(layer.data)

    def _remove(self, layer: Labels | ImageLayer | None) -> None:
        if layer is not None and layer in self.viewer.layers:
            with same_active(self.viewer):
                self.viewer.layers.remove(layer)

    def _stop(self) -> None:
        for job in (self._job, self._rival):
            if job is not None:
                job.cancel()
        self._again = self._seeking = False
        self._listen(None)
        for layer in (self.layer, self.doubt):
            self._remove(layer)
        self.layer = self.doubt = self._shown = None
        self._forget()
        self._say("")

    def _go_to(self, sheet: Sheet, box: Box) -> None:
        """Bring a place into view."""
        plane, dims = sheet.plane, self.viewer.dims
        if plane.layer is not self.session.image_layer:
            self.session.choose_image(plane.layer)
            self.learning.annotate()
        middle = {a: (b.start + b.stop - 1) / 2 for a, b in zip("yx", box, strict=True)} | plane.labels_position
        here = plane.layer.world_to_data(np.asarray(dims.point)[-plane.layer.ndim :])
        point = [middle.get(a, here[i]) for i, a in enumerate(plane.image.axes[: plane.layer.ndim])]
        world = np.asarray(dims.point, dtype=float)
        world[-plane.layer.ndim :] = plane.layer.data_to_world(point)
        hidden = [a for a in range(dims.ndim) if a not in dims.displayed]
        if hidden:
            dims.set_point(hidden, [world[a] for a in hidden])
        camera = getattr(self.viewer, "scene", self.viewer).camera  # it moved in napari 0.9
        camera.center = tuple(world[list(dims.displayed)])
        self.session.tell("Paint here: the middle of the view looks least like what is painted.")
        self._dirty = True

    def _add_result(self, page: Page, labels: NDArray[np.integer]) -> None:
        entry = self.session.entry
        if entry is None or page.source not in self.viewer.layers:
            return
        layer = layers.new_labels(page.source, page.image, entry.card, f"{page.source.name} labels (live)")
        layer.data = layers.label_array(page.source, page.image, layers.compact(labels))
        if not page.scheme.objects:
            layer.colormap = page.scheme.result_colormap()
        teach, judge = page.strokes.count()
        record = {"software": f"napari-unet {__version__}", "instant": {"strokes": teach + judge}}
        layer.metadata = layers.with_record(layer.metadata, record)
        self.viewer.add_layer(layer)
        self.session.tell(f"The live overlay is now the layer {layer.name!r}.")

    def _say(self, hint: str) -> None:
        if hint != self.hint:
            self.hint = hint
            self.changed.emit()


def _move(layer: Labels | ImageLayer, data: NDArray[Any], place: dict[str, Any]) -> None:
    """Show other data in a layer, somewhere else."""
    layer.data = data
    for name, value in place.items():
        if value is not None:
            setattr(layer, name, value)


def _maps(image: Image, channel: int | None) -> int:
    """Return how many channels are looked at."""
    if channel is not None:
        return 1
    return min(image.channels, 3) if image.rgb else image.channels


# ---- what the worker does: torch is imported here, not in the window's thread


def _scale(image: Image, channel: int | None) -> Normalisation:
    from ..engine.inference import normalisation

    return normalisation(list(image.items(2, channel, _maps(image, channel))), PERCENTILES, image.name)


def _canvas(name: Any, image: Image, position: dict[str, int], channel: int | None, scale: Normalisation) -> Canvas:
    from ..engine.instant import Canvas

    return Canvas(name, Item(image, position, "yx", channel, _maps(image, channel)), scale)


def _answering(studio: Studio, request: Request) -> Generator[Said | Answered, None, None]:
    """Take in what is new, answer, and then see whether the U-Net would have been better."""
    instant, first = studio.instant, request.sheets[0]
    for sheet in request.sheets:
        instant.look(studio.canvas(sheet), sheet.labels, sheet.held_out)
    for sheet, box, labels in request.rivals:
        instant.saw(studio.canvas(sheet), box, labels)
    better = studio.verdict is not None and studio.verdict.unet_is_better
    if instant.missing:
        yield Said(instant.missing, instant.judge(), None)
    yield from instant.answer(first.plane.key, request.region, better, request.doubt)
    studio.verdict = instant.judge()
    yield Said(instant.missing, studio.verdict, instant.fit())
    if studio.verdict.unet_is_better != better:
        yield from instant.answer(first.plane.key, request.region, not better, request.doubt)


def _seeking(
    studio: Studio, request: Request, candidates: tuple[Sheet, ...]
) -> Generator[tuple[Sheet, Box] | None, None, None]:
    """Yield the best place to paint next, so far."""
    instant = studio.instant
    for sheet in (*request.sheets, *candidates):
        instant.look(studio.canvas(sheet), sheet.labels, sheet.held_out)
    sheets: dict[Any, Sheet] = {sheet.plane.key: sheet for sheet in candidates}
    place: Place | None
    for place in instant.next_place(list(sheets)):
        yield None if place is None else (sheets[place[0]], place[1])


def _rivalling(
    plane: Plane, path: Path, settings: SegmentSettings
) -> Generator[tuple[Box, NDArray[np.integer]], None, None]:
    """Yield the U-Net's answers to a plane: 1 background, 2 and up a class (2: any object)."""
    from ..engine.inference import ItemDone, Started, TileDone, segment
    from ..engine.model import load_model_file

    model, axes = load_model_file(path), plane.image.label_axes
    view = tuple(
        slice(p, p + 1) if (p := plane.labels_position.get(a)) is not None else slice(0, n)
        for a, n in zip(axes, plane.image.label_shape, strict=True)
    )
    for event in segment(plane.image, model, settings, in_view=view):
        if isinstance(event, ItemDone):
            return
        if isinstance(event, TileDone):
            where = dict(zip(axes, event.region, strict=True))
            box = where["y"], where["x"]
            labels = event.labels.reshape(box[0].stop - box[0].start, -1)
            yield box, (np.minimum(labels, 1) if model.card.task == "objects" else labels) + 1
        else:
            assert isinstance(event, Started)


def _classifying(
    classifier: Classifier, image: Image, channel: int | None, objects: bool
) -> Generator[tuple[int, int, NDArray[np.integer] | None], None, None]:
    """Yield how many tiles of the whole image are done, of how many; at last the labels."""
    from ..engine.instant import box_of

    scale = _scale(image, channel)
    labels = np.zeros(image.label_shape, dtype=np.int32 if objects else np.uint8)
    items = list(image.items(2, channel, _maps(image, channel)))
    done = 0
    for item in items:
        canvas = _canvas(None, image, item.position, channel, scale)
        flat, tiles = np.zeros(canvas.shape, dtype=np.uint8), canvas.tiles()
        for tile in tiles:
            box = box_of(tile, canvas.shape)
            flat[box] = classifier.labels(canvas.described(tile)).reshape(flat[box].shape) - 1
            done += 1
            yield done, len(tiles) * len(items), None
        whole = item.region(tuple(slice(0, n) for n in item.shape))
        labels[whole] = (ndimage.label(flat)[0] if objects else flat).reshape(labels[whole].shape)
    yield done, done, labels
