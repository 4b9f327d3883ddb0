"""How wide are the objects? An estimate from looks at the middle of the image at several sizes."""

from __future__ import annotations

from dataclasses import replace

from .doubts import diameter
from .errors import InvalidImage
from .image import Image
from .inference import Segmented, segment
from .model import Model
from .settings import SegmentSettings
from .zoom import check_diameter

PART = {2: 1024, 3: 128}
"""Edge of the part in the middle that is looked at, by the dimensions of the model."""
LOOKS = (8, 4, 2, 1)
"""How many times smaller the model sees the image; the smallest first."""
LEAST = 0.5
"""A look is believed if what it finds is at least so many times as wide as what the model knows."""


def estimate_diameter(image: Image, model: Model, settings: SegmentSettings = SegmentSettings()) -> int:
    """Estimate how wide the objects of an image are, for `SegmentSettings.diameter`.

    The middle of the middle plane (or volume) is segmented at up to four sizes, the smallest first. Objects that are
    seen too small vanish or melt together to something small, those that are seen too large break to pieces; so the
    first look that finds objects about as wide as the model knows is believed.

    Parameters
    ----------
    image, model, settings
        As for `segment`; its diameter and its thresholds do not matter.

    Returns
    -------
    diameter
        In pixels.

    Raises
    ------
    InvalidSettings
        If it is not known how large the objects of the model should be.
    InvalidImage
        If no size shows enough objects, or the image does not fit the model.
    OutOfMemory, DeviceError
    """
    card = model.card
    check_diameter(card)
    dims = card.spec.dims
    items = list(image.items(dims, settings.channel, card.spec.in_channels))
    item, edge = items[len(items) // 2], PART[dims]
    corner = [max(0, (n - edge) // 2) for n in item.shape]
    pixels = item.read(tuple(slice(a, a + edge) for a in corner))
    part = Image(pixels, "c" + item.spatial, name=image.name)
    plain = replace(settings, channel=None, objects=None, probabilities=False, tile=None)
    for look in LOOKS:
        known = round(card.diameter * look)
        *_, last = segment(part, model, replace(plain, diameter=known))
        assert isinstance(last, Segmented)
        if (width := diameter(last.labels, dims)) >= LEAST * known:
            return round(width)
    raise InvalidImage(
        f"Too few objects were found in the middle of {image.name!r} at any size: measure one and give its diameter."
    )
