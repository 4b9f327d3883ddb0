"""napari-unet: segment, paint, retrain, click. Opening the dock or ``--help`` imports no torch."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("napari-unet")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0"

if TYPE_CHECKING:
    from .api import estimate_diameter, load_model, segment
    from .engine.annotation import Annotation, TrainingSet
    from .engine.card import ModelCard, UNetSpec
    from .engine.click import Click, ClickSegmenter
    from .engine.comparison import compare
    from .engine.errors import NapariUnetError
    from .engine.image import Image
    from .engine.model import Model
    from .engine.settings import ObjectSettings, SegmentSettings, TrainSettings
    from .engine.training import fine_tune

_HOMES = {
    "segment": ".api",
    "estimate_diameter": ".api",
    "load_model": ".api",
    "fine_tune": ".engine.training",
    "compare": ".engine.comparison",
    "Annotation": ".engine.annotation",
    "TrainingSet": ".engine.annotation",
    "Click": ".engine.click",
    "ClickSegmenter": ".engine.click",
    "Image": ".engine.image",
    "Model": ".engine.model",
    "ModelCard": ".engine.card",
    "UNetSpec": ".engine.card",
    "SegmentSettings": ".engine.settings",
    "ObjectSettings": ".engine.settings",
    "TrainSettings": ".engine.settings",
    "NapariUnetError": ".engine.errors",
}

__all__ = [
    "Annotation",
    "Click",
    "ClickSegmenter",
    "Image",
    "Model",
    "ModelCard",
    "NapariUnetError",
    "ObjectSettings",
    "SegmentSettings",
    "TrainSettings",
    "TrainingSet",
    "UNetSpec",
    "__version__",
    "compare",
    "estimate_diameter",
    "fine_tune",
    "load_model",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
