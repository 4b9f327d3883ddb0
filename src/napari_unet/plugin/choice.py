"""Choice: which image, with which model, how; what that means in words and as a command line. No Qt."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from napari.layers import Image as ImageLayer

from ..engine.errors import InvalidImage, NapariUnetError
from ..engine.image import Image, describe
from ..engine.library import Entry
from ..engine.settings import ObjectSettings, SegmentSettings
from . import layers

NO_IMAGE = "No image is open: drop a file into the window, or take one from File > Open Sample > napari-unet."


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """Which image is segmented with which model, and how."""

    layer: ImageLayer | None = None
    entry: Entry | None = None
    settings: SegmentSettings = SegmentSettings()
    given_axes: str = ""
    """Empty: they are guessed."""
    guessed_channel: bool = False
    """The channel was taken because the model wants one, and nobody said which."""

    def with_(self, **changes: Any) -> Choice:
        """Return a copy with another image, model or axes, and a channel that fits them."""
        return replace(self, **changes)._with_a_channel()

    def _with_a_channel(self) -> Choice:
        """Take the first of several channels if the model wants one; none where there is no choice."""
        try:
            image = self.image()
        except NapariUnetError:
            return replace(self, settings=replace(self.settings, channel=None), guessed_channel=False)
        wanted = self.entry.card.spec.in_channels if self.entry else 1
        channel, guessed = self.settings.channel, self.guessed_channel
        if wanted != 1 or image.rgb or image.channels == 1:
            channel, guessed = None, False
        elif channel is None or channel >= image.channels:
            channel, guessed = 0, True
        return replace(self, settings=replace(self.settings, channel=channel), guessed_channel=guessed)

    def doubt(self) -> str:
        """Say what of the choice was a guess that the result hangs on; empty: nothing."""
        if not self.guessed_channel:
            return ""
        which = f"channel {self.settings.channel} of {self.channels()} (counted from 0)"
        return f"No channel was chosen, so {which} was segmented."

    @property
    def axes(self) -> str:
        """The axes of the image, given or guessed; empty if they are not understood."""
        if self.given_axes or self.layer is None:
            return self.given_axes
        try:
            return layers.axes_of(self.layer, self.dims)
        except NapariUnetError:
            return ""

    @property
    def dims(self) -> int:
        """Spatial dimensions of the model."""
        return self.entry.card.spec.dims if self.entry else 2

    @property
    def thresholds(self) -> ObjectSettings:
        """The chosen thresholds, else those of the model's card."""
        return self.settings.objects or (self.entry.card.objects if self.entry else ObjectSettings())

    def image(self) -> Image:
        """Return the image; raises InvalidImage if it cannot be used."""
        if self.layer is None:
            raise InvalidImage(NO_IMAGE)
        return layers.image_from(self.layer, self.given_axes or None, self.dims)

    def channels(self) -> int:
        """Return the number of channels of which one must be chosen; 0: nothing to choose."""
        try:
            image = self.image()
        except NapariUnetError:
            return 0
        wanted = self.entry.card.spec.in_channels if self.entry else 1
        return image.channels if wanted == 1 and not image.rgb and image.channels > 1 else 0

    def in_words(self) -> str:
        """Say what the model makes of the image, or what is wrong with it."""
        try:
            return describe(self.image(), self.dims)
        except NapariUnetError as error:
            return str(error)

    def command(self) -> str:
        """Return the command line that gives the same labels; empty without image or model."""
        if self.layer is None or self.entry is None:
            return ""
        path = layers.file_of(self.layer)
        parts = ["napari-unet", "segment", path, "-o", f"{Path(path).stem}_labels.tif"]
        card, settings = self.entry.card, self.settings
        parts += ["--model", card.name if self.entry.shipped else f"{card.name}@{card.version}"]
        if self.axes:
            parts += ["--axes", self.axes.upper()]
        if settings.channel is not None:
            parts += ["--channel", str(settings.channel)]
        if settings.device != "auto":
            parts += ["--device", settings.device]
        if settings.tile is not None:
            parts += ["--tile", str(settings.tile)]
        if settings.diameter is not None:
            parts += ["--diameter", str(settings.diameter)]
        if settings.probabilities:
            parts += ["--probabilities"]
        if settings.objects is not None and card.task == "objects":
            for name, value in asdict(settings.objects).items():
                if value != getattr(card.objects, name):
                    parts += [f"--{name.replace('_', '-')}", f"{value:g}"]
        return shlex.join(parts)
