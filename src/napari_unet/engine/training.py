"""fine_tune(): one step loop for the app, the command line and the recipes of the shipped models."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import augment
from .annotation import Annotation, Prepared, TrainingSet, prepare
from .card import ModelCard
from .execution import CHANNELS_LAST, device_errors, pick_device
from .gate import MARGIN, Verdict, agreement, held_out_score, judge
from .model import Model
from .settings import TrainSettings
from .unet import UNet

RARE = 10.0
"""The rarest class counts at most this many times more, per pixel, than the commonest."""
WARM_UP = 0.05
"""Part of the steps over which the learning rate rises."""
MEASURED = 12
"""Batches from which BatchNorm's statistics are measured before the first step."""
HALF_WAY = 0.5
"""How far BatchNorm's statistics go to those of the user's patches where the model in use knows such images; else whole."""
RATE = {2: 2e-3, 3: 1e-3}
"""Peak of the learning rate in 2D and 3D: a patch of a volume has few labels, in few planes, so its steps are noisier."""
LARGEST_GRADIENT = 12.0
"""Gradients are clipped to this norm (nnU-Net)."""


@dataclass(frozen=True, slots=True)
class StepDone:
    """A gradient step."""

    step: int
    steps: int
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Validated:
    """The averaged model so far, its score on the held-out strokes (None: too few of them) and what that means."""

    step: int
    score: float | None
    baseline: float | None
    model: Model
    verdict: Verdict


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """The end: the best model seen, and whether it may replace the model in use."""

    model: Model
    verdict: Verdict
    score: float | None
    baseline: float | None
    steps: int
    seconds: float


def balanced(losses: Tensor, weight: Tensor, classes: Tensor, count: int, balance: float = 1.0) -> Tensor:
    """Return the mean of `losses` in which each class weighs the same, up to a factor of RARE per pixel.

    All arguments are 1-D over labelled elements; `classes` holds 0 to count - 1. With a `balance` of 0 each element
    weighs the same; between, a class weighs as a power of its elements, at 0.5 as their square root.
    """
    sums = torch.zeros(count, device=losses.device).index_add_(0, classes, losses * weight)
    masses = torch.zeros(count, device=losses.device).index_add_(0, classes, weight)
    present = masses > 0
    share = torch.where(present, masses.clamp(min=1e-6) ** -balance, 0)
    share = torch.where(present, share.clamp(max=RARE * share[present].min()), 0)
    return (share * sums).sum() / (share * masses).sum()


def dice_loss(probability: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Return 1 - soft Dice over labelled elements (1-D)."""
    overlap = (weight * probability * truth).sum()
    return 1 - (2 * overlap + 1) / ((weight * probability).sum() + (weight * truth).sum() + 1)


def loss(card: ModelCard, logits: Tensor, target: Tensor, weight: Tensor, balance: float = 1.0) -> Tensor:
    """Return the training loss; pixels without weight have no part in it, not even as zeros.

    Cross-entropy, normalised per labelled pixel and per class (how far, `balance` says: see `balanced`), plus Dice, both
    over labelled pixels only. For the `objects` task: the same for foreground and border, and cross-entropy with the soft
    target for the distance. The `click` task has the foreground map alone.

    Parameters
    ----------
    logits, target, weight
        ``(n, k, *spatial)``.
    """
    if card.task != "semantic":
        total = logits.sum() * 0
        for i, with_dice in enumerate((True, False, False)[: logits.shape[1]]):
            labelled = weight[:, i] > 0
            if not labelled.any():
                continue
            z, y, w = logits[:, i][labelled], target[:, i][labelled], weight[:, i][labelled]
            entropy = F.binary_cross_entropy_with_logits(z, y, reduction="none")
            total = total + balanced(entropy, w, (y > 0).long(), 2, balance)
            if with_dice:
                total = total + dice_loss(z.sigmoid(), y, w)
        return total
    labelled = weight[:, 0] > 0
    z, y = logits.movedim(1, -1)[labelled], target.movedim(1, -1)[labelled]
    if not len(z):
        return logits.sum() * 0
    classes, w = y.argmax(-1), weight[:, 0][labelled]
    total = balanced(F.cross_entropy(z, classes, reduction="none"), w, classes, y.shape[-1], balance)
    probability = z.softmax(-1)
    present = [c for c in range(y.shape[-1]) if bool((classes == c).any())]
    return total + torch.stack([dice_loss(probability[:, c], y[:, c], w) for c in present]).mean()


def volume_patch(patch: int, depth: int) -> tuple[int, int, int]:
    """Return the edges of a 3D patch for a `patch` setting: half as wide, an eighth as deep, or as deep as the image.

    So 128 stands for 16 x 64 x 64, four times the work of 128 x 128; 128 cubed would be 128 times.
    """
    return min(max(patch // 8, 1), depth), patch // 2, patch // 2


class Sampler:
    """Draws batches of augmented patches around labelled places."""

    def __init__(self, data: TrainingSet, card: ModelCard, settings: TrainSettings) -> None:
        self._card, self._settings = card, settings
        self._own = [p for a in data.annotations if (p := prepare(a, card)) is not None]
        self._newest = [replace(p, places=(p.newest,)) for p in self._own if p.newest.size]
        self._replay = [p for a in data.replay if (p := prepare(a, card)) is not None]
        self._rng = np.random.default_rng(settings.seed)
        self._mass = 0.0
        depth = max(p.stack.shape[1] for p in self._own)
        edges = (settings.patch,) * 2 if card.spec.dims == 2 else volume_patch(settings.patch, depth)
        self._size = tuple(-(-n // s) * s for n, s in zip(edges, card.spec.total_stride, strict=True))

    def batch(self, network: UNet) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels, targets and weights, each ``(n, ·, *patch)``."""
        drawn = [self._patch() for _ in range(self._settings.batch)]
        pixels, target, weight = (torch.stack(column) for column in zip(*drawn, strict=True))
        return pixels, target, weight

    def _patch(self) -> tuple[Tensor, Tensor, Tensor]:
        rng, channels = self._rng, self._card.spec.in_channels
        source = self._own
        if self._replay and self._mass and rng.random() < self._settings.replay:
            source = self._replay
        elif self._newest and rng.random() < self._settings.newest:
            source = self._newest
        chosen: Prepared = source[rng.integers(len(source))]
        places = chosen.places[rng.integers(len(chosen.places))]
        place = np.unravel_index(places[rng.integers(places.size)], chosen.stack.shape[1:])
        jitter = rng.integers([-(n // 4) for n in self._size], [n // 4 + 1 for n in self._size])
        center = tuple(int(p + j) for p, j in zip(place, jitter, strict=True))
        pixels, rest = augment.patch(chosen.stack, channels, center, self._size, self._settings.augment, rng)
        target, weight = rest.chunk(2)
        # a replay crop is labelled all over: it must not outweigh the strokes, which the loss counts by the pixel
        mass = float(torch.count_nonzero(weight[0]))
        if source is self._replay:
            weight = weight * min(1.0, self._mass / max(mass, 1.0))
        else:
            self._mass = mass if not self._mass else 0.9 * self._mass + 0.1 * mass
        return augment.intensities(pixels, self._settings.augment, rng), target, weight


def learning_rate(peak: float, progress: float) -> float:
    """Return the learning rate at a progress of 0 to 1: linear rise, then half a cosine down to 1 %."""
    if progress < WARM_UP:
        return peak * (0.1 + 0.9 * progress / WARM_UP)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))))


def between(start: Model, end: Model, way: float) -> Model:
    """Return the model that lies part of the way from `start` to `end`, weight by weight."""
    network = copy.deepcopy(end.network)
    for a, b in zip(network.state_dict().values(), start.network.state_dict().values(), strict=True):
        if a.is_floating_point():
            a.lerp_(b.to(a.device), 1 - way)
    return Model(end.card, network)


def part_of_the_way(
    model: Model, learned: Model, score_of: Callable[[Model], float | None], way: float
) -> tuple[Model, float | None]:
    """Return the model that lies `way` from `model` to what was `learned`, and its score.

    Unless the whole way, or less by as much again, scores better by MARGIN. On images that nobody painted weights in
    between are mostly better than either end, and lose less often what the model in use could do than the whole way
    does (Wortsman et al. 2022). Without scores it is the whole way.
    """
    score = score_of(learned)
    if score is None or way == 1:
        return learned, score
    found = [(learned, score)]
    for part in (max(0.0, 2 * way - 1), way):
        between_both = between(model, learned, part)
        found.append((between_both, score_of(between_both) or 0.0))
    best, usual = max(found, key=lambda one: one[1]), found[-1]
    return best if best[1] > usual[1] + MARGIN else usual


def measure_statistics(network: UNet, batches: Sequence[Tensor], way: float = HALF_WAY) -> None:
    """Move BatchNorm's statistics some way to those of batches ``(n, c, *patch)`` under the weights as they are.

    The user's images are not those that the model in use was made from; with its statistics the first round on a new
    kind of image often fails, and with those of a few patches around strokes alone it loses what it knew (Schneider et
    al. 2020, who weigh both). A network that has seen nothing yet takes the measured ones whole.
    """
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm2d, nn.BatchNorm3d))]
    before = [copy.deepcopy(norm) for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over the batches (Wu and Johnson 2021)
    network.train()
    with torch.no_grad():
        for pixels in batches:
            network(pixels)
        network.eval()
        for norm, old in zip(norms, before, strict=True):
            norm.momentum = old.momentum
            now, was = dict(norm.named_buffers()), dict(old.named_buffers())
            if was["running_mean"].any():
                for name in ("running_mean", "running_var"):
                    now[name].lerp_(was[name], 1 - way)


def way_of_statistics(model: Model, annotations: Sequence[Annotation], device: str) -> float:
    """Return how far BatchNorm's statistics go: half-way, or whole where a model is no better than a guess on the strokes.

    Then it knows nothing of such images that could be kept, and half-way a first round may learn nothing.
    """
    known = agreement(model, [(a.pixels, a.labels) for a in annotations], device)
    return 1.0 if known is not None and known < 1 / len(model.card.classes) else HALF_WAY


class Batches(Protocol):
    """Where the step loop gets its patches from."""

    def batch(self, network: UNet) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixels, targets and weights ``(n, ·, *patch)``; `network` is the one being trained, on its device."""
        ...


def fine_tune(
    model: Model, data: TrainingSet, settings: TrainSettings = TrainSettings()
) -> Iterator[StepDone | Validated | Trained]:
    """Teach a copy of `model` what `data` shows; yields an event for each step and look at the held-out strokes.

    The weights returned are an exponential average over the steps, or lie part of the way there (`part_of_the_way`); of all
    that were validated, the best. Closing the generator stops the training and frees what it took.

    Raises
    ------
    InvalidModel, InvalidAnnotation
        If the model came from another program, or nothing can be learned from `data`.
    OutOfMemory, DeviceError
    """
    model.card.check_it_learns()
    data.check(model.card)
    device = pick_device(settings.device)
    yield from optimise(
        model,
        Sampler(data, model.card, settings),
        settings,
        lambda candidate: held_out_score(candidate, data.annotations, device),
        lambda candidate, score, baseline: judge(candidate, model, score, baseline, data.annotations, device),
        statistics=way_of_statistics(model, data.annotations, device) if settings.frozen_statistics else HALF_WAY,
    )


def trainable(model: Model, device: str) -> UNet:
    """Return a copy of a model's network that can learn."""
    network = copy.deepcopy(model.unet).to(device).requires_grad_(True)
    layout: Any = CHANNELS_LAST[model.card.spec.dims]
    return network.to(memory_format=layout)  # type: ignore[no-any-return,call-overload]


def gradient_step(
    network: UNet,
    optimizer: torch.optim.Optimizer,
    card: ModelCard,
    batch: tuple[Tensor, Tensor, Tensor],
    loss_of: Callable[[ModelCard, Tensor, Tensor, Tensor], Tensor] = loss,
) -> float:
    """Go one step down the loss of a batch ``(pixels, target, weight)`` and return it; in half precision on CUDA."""
    device = next(network.parameters()).device
    layout: Any = CHANNELS_LAST[card.spec.dims]
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    pixels, target, weight = (x.to(device) for x in batch)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        logits = network(pixels.contiguous(memory_format=layout))
    value = loss_of(card, logits.float(), target, weight)
    optimizer.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
    optimizer.step()
    return float(value.detach())


def by_score(model: Model, score: float | None, baseline: float | None) -> Verdict:
    """Return the verdict where there is nothing but a score: the higher one is better."""
    if score is None or baseline is None:
        return Verdict.UNKNOWN
    return Verdict.BETTER if score > baseline else Verdict.NO_BETTER


def optimise(
    model: Model,
    batches: Batches,
    settings: TrainSettings,
    score_of: Callable[[Model], float | None],
    verdict_of: Callable[[Model, float | None, float | None], Verdict] = by_score,
    loss_of: Callable[[ModelCard, Tensor, Tensor, Tensor], Tensor] | None = None,
    statistics: float = HALF_WAY,
) -> Iterator[StepDone | Validated | Trained]:
    """The step loop: AdamW on `batches` and weight averaging; every so often `score_of` and `verdict_of` judge.

    A score of None means that it cannot be judged; `verdict_of` is asked with it and that of the start. `statistics` is
    how far BatchNorm's go to those of the batches, where they are measured.
    """
    loss_of = loss_of or partial(loss, balance=settings.balance)
    device, card = pick_device(settings.device), model.card
    network = trainable(model, device)
    if settings.frozen_statistics:
        with device_errors(device):
            pixels = torch.cat([batches.batch(network)[0] for _ in range(MEASURED)]).to(device)
            measure_statistics(network, pixels.split(max(settings.batch, 2)), statistics)  # one pixel has no spread
    average = copy.deepcopy(network).eval().requires_grad_(False)
    start = Model(card, copy.deepcopy(average))
    peak = settings.learning_rate or RATE[card.spec.dims]
    optimizer = torch.optim.AdamW(network.parameters(), lr=peak, weight_decay=settings.weight_decay)
    baseline = score_of(model)
    best: Validated | None = None
    began, step, elapsed = time.monotonic(), 0, 0.0
    over = False
    while not over:
        progress = step / settings.steps
        if settings.minutes is not None:
            progress = max(progress, elapsed / (60 * settings.minutes))
        rate = learning_rate(peak, min(progress, 1.0))
        for group in optimizer.param_groups:
            group["lr"] = rate
        network.train(not settings.frozen_statistics)
        with device_errors(device):
            value = gradient_step(network, optimizer, card, batches.batch(network), loss_of)
        step += 1
        with torch.no_grad():
            if settings.pull:
                for p, p0 in zip(network.parameters(), start.unet.parameters(), strict=True):
                    p.lerp_(p0, rate * settings.pull)
            decay = min(settings.averaging, step / (step + 10))
            for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                a.lerp_(b, 1 - decay) if a.is_floating_point() else a.copy_(b)
        elapsed = time.monotonic() - began
        yield StepDone(step, settings.steps, value, elapsed)
        over = step >= settings.steps or (settings.minutes is not None and elapsed >= 60 * settings.minutes)
        if over or step % settings.validate_every == 0:
            learned = Model(card, copy.deepcopy(average).cpu().eval())
            candidate, score = part_of_the_way(model, learned, score_of, settings.way)
            seen = Validated(step, score, baseline, candidate, verdict_of(candidate, score, baseline))
            if best is None or best.score is None or score is None or score >= best.score:
                best = seen
            yield seen
    assert best is not None
    yield Trained(best.model, best.verdict, best.score, baseline, step, elapsed)
