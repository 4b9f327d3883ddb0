"""What a user can choose, as frozen and checked values. Imports no torch, so forms and ``--help`` stay fast."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import InvalidSettings

DEVICES = ("auto", "cuda", "mps", "cpu")
ENDINGS = (".tif", ".zarr", ".npy", ".png")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise InvalidSettings(message)


def _check_device(device: str) -> None:
    _check(
        device in DEVICES or device.startswith("cuda:"),
        f"Device {device!r} is not known: choose one of {', '.join(DEVICES)}.",
    )


def _check_percentiles(percentiles: tuple[float, float]) -> None:
    low, high = percentiles
    _check(
        0 <= low < high <= 100,
        f"Percentiles {low} and {high} must rise and lie between 0 and 100.",
    )


@dataclass(frozen=True, slots=True)
class ObjectSettings:
    """How network maps become objects; can be changed without running the network again."""

    foreground_threshold: float = 0.5
    """A pixel belongs to an object above this foreground probability (0 to 1)."""
    seed_threshold: float = 0.5
    """An object starts where its normalised boundary distance exceeds this (0 to 1); lower merges more."""
    minimal_size: int = 15
    """Objects of fewer pixels (2D) or voxels (3D) are dropped."""

    def __post_init__(self) -> None:
        for name in ("foreground_threshold", "seed_threshold"):
            value = getattr(self, name)
            _check(0 < value < 1, f"{name} is {value}; it must lie between 0 and 1.")
        _check(self.minimal_size >= 0, f"minimal_size is {self.minimal_size}; it must be 0 or more.")


@dataclass(frozen=True, slots=True)
class SegmentSettings:
    """How an image is segmented."""

    channel: int | None = None
    """Which channel feeds a one-channel model; None: the only one, or grey made from RGB."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), cuda, cuda:N, mps or cpu."""
    tile: int | None = None
    """Edge of a tile's inner part in pixels; None: from free memory."""
    memory: float | None = None
    """Gigabytes that tiles may take, of the graphics card if that computes; None: a quarter of what is free."""
    probabilities: bool = False
    """Also return the network's maps as probabilities."""
    percentiles: tuple[float, float] | None = None
    """Intensities at these percentiles of the whole image become 0 and 1; None: those of the model's card."""
    objects: ObjectSettings | None = None
    """Only for the `objects` task; None: the defaults of the model's card."""
    diameter: int | None = None
    """About how wide the objects are, in pixels: the model then sees them as wide as those it knows. None: as they
    are, or estimated where they are much larger or the model needs it."""

    def __post_init__(self) -> None:
        _check_device(self.device)
        _check(self.diameter is None or self.diameter > 0, f"diameter is {self.diameter}; it must be above 0 pixels.")
        if self.percentiles is not None:
            _check_percentiles(self.percentiles)
        _check(self.memory is None or self.memory > 0, f"memory is {self.memory}; it must be above 0 gigabytes.")
        _check(self.tile is None or self.tile >= 16, f"Tile {self.tile} is too small: use 16 pixels or more.")
        _check(self.channel is None or self.channel >= 0, f"Channel {self.channel} is negative: count channels from 0.")


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How many images are segmented, and where their labels go."""

    segment: SegmentSettings = SegmentSettings()
    """How each of them is segmented."""
    ending: str = ".tif"
    """Format of the labels in an output folder: .tif, .zarr (written region by region), .npy or .png."""
    link: str = "none"
    """none: the objects of each plane stand alone; z or t: objects that overlap from plane to plane are one."""
    overlap: float = 0.3
    """Smallest overlap (intersection over union) of an object with itself one plane or time point on."""
    resume: bool = True
    """Keep what is finished; False: compute all again and replace what is there."""
    block: int | None = None
    """Edge in pixels of the regions in which large images are computed; None: 2048 (2D) or 128 (3D)."""
    workers: int = 0
    """Processes of this machine that share the work, one for each GPU or a few cores; 0: none besides this one."""
    scheduler: str = ""
    """Address of a dask scheduler whose workers compute, such as tcp://server:8786; empty: this machine computes."""

    def __post_init__(self) -> None:
        _check(self.ending in ENDINGS, f"Format {self.ending!r} is not known: choose one of {', '.join(ENDINGS)}.")
        _check(self.link in ("none", "z", "t"), f"Link {self.link!r} is not known: choose none, z or t.")
        _check(0 < self.overlap <= 1, f"overlap is {self.overlap}; it must be above 0 and at most 1.")
        _check(self.block is None or self.block >= 16, f"Block {self.block} is too small: use 16 pixels or more.")
        _check(self.workers >= 0, f"workers is {self.workers}; it must be 0 or more.")
        _check(not (self.workers and self.scheduler), "A scheduler brings its own workers: leave out workers.")


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """Strength of the random changes made to a training patch; 0 switches one off."""

    rotation: bool = True
    """Flips on every in-plane axis and rotation by any angle about z."""
    scale: float = 2.0
    """Largest zoom factor: sizes are drawn log-uniformly from 1/scale to scale."""
    elastic: float = 3.0
    """Standard deviation, in pixels, of the displacements on a coarse grid (Ronneberger et al. 2015, 3.1)."""
    inversion: float = 0.2
    """Probability that bright and dark are exchanged."""
    gamma: float = 0.5
    """Standard deviation of log2 of the exponent applied to the normalised intensities."""
    contrast: float = 0.25
    """Standard deviation of the factor and of the offset applied to the normalised intensities."""
    noise: float = 0.1
    """Largest standard deviation of the added Gaussian noise."""
    blur: float = 1.5
    """Largest standard deviation, in pixels, of the Gaussian blur (half of the patches)."""

    def __post_init__(self) -> None:
        _check(self.scale >= 1, f"scale is {self.scale}; it must be 1 or more.")
        _check(0 <= self.inversion <= 1, f"inversion is {self.inversion}; it must lie between 0 and 1.")
        for name in ("elastic", "gamma", "contrast", "noise", "blur"):
            _check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be 0 or more.")


GENTLE = AugmentSettings(scale=1.3, inversion=0.0, gamma=0.2, contrast=0.1, noise=0.05, blur=0.7)
"""For the user's own few images: they vary less than all the world's, and a round has few steps."""


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """How a model learns, in the app and in the recipes of the shipped models."""

    steps: int = 80
    """Gradient steps."""
    minutes: float | None = None
    """Stop after so many minutes, whatever `steps` says."""
    batch: int = 4
    """Patches a step."""
    patch: int = 96
    """Edge of a patch in pixels, rounded up to the model's stride; a 3D patch is half as wide and an eighth as deep."""
    learning_rate: float | None = None
    """Peak of the AdamW learning rate; None: 0.002 in 2D, 0.001 in 3D."""
    weight_decay: float = 1e-4
    """AdamW weight decay."""
    balance: float = 0.5
    """How much classes with few labelled pixels are helped: 0 not at all, 1 until each class weighs the same."""
    frozen_statistics: bool = True
    """Move BatchNorm's statistics to those of the first patches, mostly half-way, then keep them; False: for much data."""
    averaging: float = 0.98
    """Decay of the exponential weight average that is returned; 0 switches it off."""
    way: float = 0.75
    """How far a model goes from the one in use to the average, unless all or less of it scores better; 1: always all."""
    pull: float = 1e-3
    """Strength of the pull towards the start weights (L2-SP); 0 switches it off."""
    replay: float = 0.25
    """Part of each batch drawn from the replay set, when there is one."""
    newest: float = 0.33
    """Part of the annotated patches that are centred on the newest strokes."""
    validate_every: int = 40
    """Steps between two looks at the held-out strokes."""
    seed: int = 0
    """Seed of every random choice."""
    device: str = "auto"
    """auto, cuda, cuda:N, mps or cpu."""
    augment: AugmentSettings = GENTLE

    def __post_init__(self) -> None:
        _check_device(self.device)
        for name in ("steps", "batch", "validate_every"):
            _check(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; it must be 1 or more.")
        _check(self.patch >= 16, f"patch is {self.patch}; it must be 16 pixels or more.")
        _check(
            self.learning_rate is None or self.learning_rate > 0,
            f"learning_rate is {self.learning_rate}; it must be above 0.",
        )
        _check(self.minutes is None or self.minutes > 0, f"minutes is {self.minutes}; it must be above 0.")
        for name in ("averaging", "way", "replay", "newest", "balance"):
            _check(0 <= getattr(self, name) <= 1, f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
        for name in ("pull", "weight_decay"):
            _check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be 0 or more.")
