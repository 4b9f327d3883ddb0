"""The loss knows only labelled pixels; training is seeded, judged apart, and learns."""

import numpy as np
import pytest
import torch

from napari_unet.engine import augment
from napari_unet.engine.annotation import Annotation, TrainingSet, prepare
from napari_unet.engine.card import ModelCard
from napari_unet.engine.errors import InvalidAnnotation
from napari_unet.engine.gate import Verdict
from napari_unet.engine.image import cut
from napari_unet.engine.model import Model
from napari_unet.engine.settings import AugmentSettings, TrainSettings
from napari_unet.engine.training import (
    Sampler,
    StepDone,
    Trained,
    Validated,
    balanced,
    between,
    fine_tune,
    learning_rate,
    loss,
    measure_statistics,
    optimise,
    volume_patch,
    way_of_statistics,
)

from .conftest import discs, make_model

PLAIN = AugmentSettings(rotation=False, scale=1, elastic=0, inversion=0, gamma=0, contrast=0, noise=0, blur=0)


def example(card: ModelCard, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, target, weight of a batch in which a third of the pixels is labelled."""
    generator = torch.Generator().manual_seed(seed)
    outputs = card.spec.out_channels
    logits = torch.randn(2, outputs, 20, 20, generator=generator)
    labelled = (torch.rand(2, 1, 20, 20, generator=generator) < 0.3).float()
    if card.task == "objects":
        target = (torch.rand(2, outputs, 20, 20, generator=generator) - 0.3).clamp(0)
    else:
        target = (
            torch.nn.functional.one_hot(torch.randint(outputs, (2, 20, 20), generator=generator), outputs)
            .movedim(-1, 1)
            .float()
        )
    return logits, target, labelled.expand_as(target).clone()


@pytest.mark.parametrize("task", ["semantic", "objects", "click"])
def test_unlabelled_pixels_have_no_part_in_loss_and_gradient(task: str) -> None:
    card = make_model(task=task).card
    logits, target, weight = example(card)
    plain = logits.clone().requires_grad_()
    value = loss(card, plain, target, weight)
    value.backward()
    assert (plain.grad[weight == 0] == 0).all()
    assert (plain.grad[weight > 0] != 0).any()

    pad = (0, 17, 3, 0)  # many more unlabelled pixels, with logits and targets that are anything
    wide = torch.nn.functional.pad(logits, pad, value=7.0).requires_grad_()
    other = loss(card, wide, torch.nn.functional.pad(target, pad, value=1.0), torch.nn.functional.pad(weight, pad))
    other.backward()
    assert other.item() == value.item()
    assert torch.equal(wide.grad[..., 3:, :20], plain.grad)


def test_classes_weigh_the_same_whatever_their_pixels() -> None:
    losses = torch.tensor([1.0] * 50 + [3.0] * 10)
    classes = torch.tensor([0] * 50 + [1] * 10)
    assert balanced(losses, torch.ones(60), classes, 2).item() == pytest.approx(2.0)


@pytest.mark.parametrize(("balance", "share"), [(1.0, 1 / 2), (0.5, 1 / 3), (0.0, 1 / 5)])
def test_balance_says_how_far_a_class_with_few_pixels_is_helped(balance: float, share: float) -> None:
    losses = torch.tensor([0.0] * 40 + [1.0] * 10)
    classes = torch.tensor([0] * 40 + [1] * 10)
    assert balanced(losses, torch.ones(50), classes, 2, balance).item() == pytest.approx(share)


@pytest.mark.parametrize("task", ["semantic", "objects"])
def test_training_balances_as_the_settings_say(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def told(losses: torch.Tensor, *rest: object) -> torch.Tensor:
        given.append(rest[-1])
        return losses.mean()

    monkeypatch.setattr("napari_unet.engine.training.balanced", told)
    list(fine_tune(make_model(task=task), TrainingSet((bright_discs(),)), short(steps=1, balance=0.25)))
    assert set(given) == {0.25}


def test_a_very_rare_class_counts_at_most_ten_times_more_a_pixel() -> None:
    losses = torch.tensor([0.0] * 1000 + [1.0])
    classes = torch.tensor([0] * 1000 + [1])
    assert balanced(losses, torch.ones(1001), classes, 3).item() == pytest.approx(10 / 1010)


def test_nothing_labelled_gives_zero_loss() -> None:
    card = make_model().card
    logits, target, weight = example(card)
    assert loss(card, logits, target, weight * 0).item() == 0


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(1.0, p) for p in (0, 0.05, 0.5, 1)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[1] == pytest.approx(1.0)
    assert rates[1] > rates[2] > rates[3] == pytest.approx(0.01)


# --- annotations


def bright_discs(seed: int = 0, sparse: bool = True) -> Annotation:
    rng = np.random.default_rng(seed)
    truth = discs()
    pixels = (truth > 0) * 0.8 + rng.normal(0, 0.1, truth.shape)
    labels = (truth > 0).astype(np.int32) + 1
    held_out = None
    if sparse:
        strokes = np.zeros_like(labels)
        for row in (22, 24, 26, 64, 66, 68):
            strokes[row] = labels[row]
        labels, held_out = strokes, np.zeros(truth.shape, dtype=bool)
        held_out[24] = held_out[66] = True
    return Annotation(pixels[None], labels, held_out)


def test_held_out_strokes_are_never_trained_on() -> None:
    annotation = bright_discs()
    assert not annotation.trained[annotation.held_out].any()
    assert not annotation.judged[~annotation.held_out].any()
    prepared = prepare(annotation, make_model().card)
    weight = prepared.stack[-1].astype(bool)
    assert not weight[annotation.held_out].any()
    for places in prepared.places:
        assert not annotation.held_out.ravel()[places].any()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((96, 96), int), "Nothing is painted yet"),
        (np.eye(96, dtype=int), "Only one class is painted: paint a stroke of 'foreground'"),
        (np.eye(96, dtype=int) * 2, "Only one class is painted: paint a stroke of 'background'"),
    ],
)
def test_what_cannot_be_learned_from_is_told(labels: np.ndarray, words: str, tiny: Model) -> None:
    annotation = Annotation(np.zeros((1, 96, 96)), labels)
    with pytest.raises(InvalidAnnotation, match=words):
        next(fine_tune(tiny, TrainingSet((annotation,)), TrainSettings(device="cpu")))


def test_an_unknown_class_is_told(tiny: Model) -> None:
    labels = np.ones((96, 96), int)
    labels[:9], labels[20:30] = 2, 5
    with pytest.raises(InvalidAnnotation, match="Label 5 is painted, but the model 'tiny' has 2 classes"):
        next(fine_tune(tiny, TrainingSet((Annotation(np.zeros((1, 96, 96)), labels),)), TrainSettings(device="cpu")))


def test_an_annotation_of_another_shape_is_told() -> None:
    with pytest.raises(InvalidAnnotation, match=r"shape \(5, 5\), the image \(6, 6\)"):
        Annotation(np.zeros((1, 6, 6)), np.zeros((5, 5), int))


def test_patches_mirror_at_the_border() -> None:
    stack = np.arange(20, dtype=np.float16).reshape(1, 4, 5)
    assert cut(stack, (-1, -2), (2, 3))[0].tolist() == [[7, 6, 5, 6, 7], [2, 1, 0, 1, 2], [7, 6, 5, 6, 7]]


# --- augmentation


@pytest.mark.parametrize("dims", [2, 3])
def test_without_changes_a_patch_is_a_cut(dims: int, rng: np.random.Generator) -> None:
    stack = rng.random((3, *(9, 30, 40)[-dims:])).astype(np.float16)
    center, size = (4, 15, 20)[-dims:], (5, 9, 11)[-dims:]
    pixels, rest = augment.patch(stack, 1, center, size, PLAIN, rng)
    cut = tuple(slice(c - s // 2, c + s // 2 + 1) for c, s in zip(center, size, strict=True))
    np.testing.assert_allclose(torch.cat([pixels, rest]), stack[(slice(None), *cut)], atol=1e-3)
    assert torch.equal(augment.intensities(pixels, PLAIN, rng), pixels)


def test_labels_follow_their_pixels(rng: np.random.Generator) -> None:
    truth = (discs() > 0).astype(np.float16)
    strong = AugmentSettings(inversion=0, gamma=0, contrast=0, noise=0, blur=0)
    for _ in range(20):
        pixels, rest = augment.patch(np.stack([truth, truth]), 1, (48, 48), (64, 64), strong, rng)
        assert ((pixels[0] > 0.5) == (rest[0] > 0.5)).float().mean() > 0.97
        assert set(np.unique(rest)) <= {0.0, 1.0}


def test_every_change_of_intensity_leaves_finite_values(rng: np.random.Generator) -> None:
    for _ in range(50):
        assert torch.isfinite(augment.intensities(torch.rand(2, 32, 32), AugmentSettings(), rng)).all()


# --- the loop


def short(**changes) -> TrainSettings:
    values = {"steps": 30, "batch": 2, "patch": 48, "validate_every": 10, "device": "cpu", "averaging": 0.8, "pull": 0}
    return TrainSettings(**(values | changes))


def test_training_learns_and_the_gate_accepts() -> None:
    model = make_model()
    settings = short(steps=60, frozen_statistics=False, learning_rate=1e-2)
    *events, end = fine_tune(model, TrainingSet((bright_discs(),)), settings)
    assert isinstance(end, Trained)
    assert end.verdict is Verdict.BETTER
    assert end.score > max(end.baseline, 0.8)
    assert [e.step for e in events if isinstance(e, StepDone)] == list(range(1, 61))
    assert [e.step for e in events if isinstance(e, Validated)] == [10, 20, 30, 40, 50, 60]


def test_the_model_in_use_is_untouched() -> None:
    model = make_model()
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    list(fine_tune(model, TrainingSet((bright_discs(),)), short(steps=5)))
    assert all(torch.equal(v, before[k]) for k, v in model.network.state_dict().items())


def test_a_seed_gives_one_result() -> None:
    data = TrainingSet((bright_discs(),))
    first, second, other = (
        list(fine_tune(make_model(), data, short(steps=4, seed=s)))[-1].model.network.head.weight for s in (3, 3, 4)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_statistics_are_measured_once_then_kept() -> None:
    model = make_model()
    short_one, longer = (
        list(fine_tune(model, TrainingSet((bright_discs(),)), short(steps=n, way=1)))[-1].model.network.encoder[0][1]
        for n in (1, 5)
    )
    assert torch.equal(short_one.running_mean, longer.running_mean)
    assert not torch.allclose(short_one.running_mean, model.network.encoder[0][1].running_mean)


def test_what_has_seen_nothing_takes_the_statistics_of_the_batches_and_later_goes_half_way() -> None:
    network = make_model().network
    bright, dark = torch.full((2, 1, 32, 32), 3.0), torch.full((2, 1, 32, 32), -1.0)
    convolution, norm = network.encoder[0][0], network.encoder[0][1]
    norm.reset_running_stats()
    with torch.no_grad():
        first, second = (convolution(x).mean((0, 2, 3)) for x in (bright, dark))
    measure_statistics(network, [bright, dark])
    torch.testing.assert_close(norm.running_mean, (first + second) / 2)
    measure_statistics(network, [bright])
    torch.testing.assert_close(norm.running_mean, ((first + second) / 2 + first) / 2)
    measure_statistics(network, [dark], way=1)
    torch.testing.assert_close(norm.running_mean, second)
    assert norm.momentum == 0.1
    assert not network.training


def test_statistics_go_half_way_only_where_there_is_something_to_keep() -> None:
    annotation = bright_discs()
    *_, end = fine_tune(make_model(), TrainingSet((annotation,)), short(steps=60, frozen_statistics=False))
    lies = Annotation(annotation.pixels, np.where(annotation.labels, 3 - annotation.labels, 0), annotation.held_out)
    empty = Annotation(annotation.pixels, np.zeros_like(annotation.labels), annotation.held_out)
    assert [way_of_statistics(end.model, [a], "cpu") for a in (annotation, lies, empty)] == [0.5, 1, 0.5]


def test_the_smallest_patch_alone_is_enough_to_measure() -> None:
    *_, end = fine_tune(make_model(), TrainingSet((bright_discs(),)), short(steps=1, batch=1, patch=16))
    assert end.steps == 1


def test_another_microscope_is_learned_too() -> None:
    image = bright_discs()
    shifted = Annotation(image.pixels * 3 + 5, image.labels, image.held_out)
    *_, end = fine_tune(make_model(), TrainingSet((shifted,)), short(steps=40))
    assert end.verdict is Verdict.BETTER


def test_strokes_that_lie_are_rejected_by_the_gate() -> None:
    model = make_model()
    good = list(fine_tune(model, TrainingSet((bright_discs(),)), short(steps=60, frozen_statistics=False)))[-1].model
    annotation = bright_discs()
    lies = np.where(annotation.held_out, annotation.labels, np.where(annotation.labels, 3 - annotation.labels, 0))
    wrong = Annotation(annotation.pixels, lies, annotation.held_out)
    end = list(fine_tune(good, TrainingSet((wrong,)), short(steps=40)))[-1]
    assert end.verdict.accepted is False


def test_without_held_out_strokes_nobody_claims_to_know() -> None:
    annotation = bright_discs()
    end = list(fine_tune(make_model(), TrainingSet((Annotation(annotation.pixels, annotation.labels),)), short()))[-1]
    assert end.verdict is Verdict.UNKNOWN
    assert end.score is None


def test_objects_and_3d_train_too() -> None:
    model = make_model(dims=3, task="objects")
    truth = np.stack([np.zeros((96, 96), int), *[discs()] * 6])
    annotation = Annotation((truth > 0)[None].astype(float), truth + 1)
    end = list(fine_tune(model, TrainingSet((annotation,)), short(steps=2)))[-1]
    assert end.steps == 2


def test_a_crop_to_replay_weighs_no_more_than_strokes() -> None:
    strokes, dense = bright_discs(), bright_discs(sparse=False)
    sampler = Sampler(TrainingSet((strokes,), (dense,)), make_model().card, short(batch=40, replay=0.5))
    _, _, weight = sampler.batch(make_model().network)
    masses = weight[:, 0].sum(dim=(1, 2))
    replayed = (weight[:, 0] > 0).flatten(1).all(dim=1)
    assert 10 < replayed.sum() < 30
    assert masses[replayed].max() <= masses[~replayed].max()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.8])
def test_as_many_patches_as_asked_lie_around_the_newest_strokes(share: float) -> None:
    labels = np.zeros((96, 96), dtype=np.int32)
    labels[20, :48], labels[20, 48:], labels[76, :48] = 1, 2, 2
    rows = np.broadcast_to(np.arange(96.0)[:, None], labels.shape)
    annotation = Annotation(rows[None], labels, newest=labels * (rows > 48) > 0)
    settings = short(batch=400, patch=16, newest=share, augment=PLAIN)
    pixels, _, _ = Sampler(TrainingSet((annotation,)), make_model().card, settings).batch(make_model().network)
    expected = share + (1 - share) / 4  # of the others half are centred on foreground, half of which is new
    assert (pixels.mean(dim=(1, 2, 3)) > 48).float().mean() == pytest.approx(expected, abs=0.08)


def test_half_of_the_way_is_half_of_each_weight() -> None:
    start, end = make_model(), make_model()
    with torch.no_grad():
        end.network.head.weight += 2
    middle = between(start, end, 0.5)
    assert torch.allclose(middle.network.head.weight, start.network.head.weight + 1)
    assert not torch.equal(end.network.head.weight, middle.network.head.weight)


@pytest.mark.parametrize(
    ("scores", "gone"),
    [  # of the whole way, half of it, and three quarters
        ((0.9, 0.8, 0.87), 1.0),
        ((0.9, 0.8, 0.89), 0.75),
        ((0.8, 0.9, 0.89), 0.75),
        ((0.6, 0.9, 0.8), 0.5),
        ((0.0, 0.0, 0.0), 0.75),
        ((None,), 1.0),
    ],
)
def test_a_model_goes_three_quarters_of_the_way_unless_scores_ask_for_more_or_less(
    scores: tuple[float | None, ...], gone: float
) -> None:
    model, told = make_model(), iter((0.1, *scores))
    data = TrainingSet((bright_discs(),))
    seen = []

    def score_of(candidate: Model) -> float | None:
        seen.append(candidate.network.head.weight.detach().clone())
        return next(told)

    *_, end = optimise(model, Sampler(data, model.card, short(steps=3)), short(steps=3), score_of)
    before, whole = seen[0], seen[1]
    assert not torch.allclose(before, whole)
    assert torch.allclose(end.model.network.head.weight, before + gone * (whole - before))
    old, new = (m.network.encoder[0][1].running_mean for m in (model, end.model))
    assert not torch.equal(old, new)  # statistics go along


def test_a_3d_patch_is_flat() -> None:
    assert volume_patch(96, depth=40) == (12, 48, 48)
    assert volume_patch(96, depth=5) == (5, 48, 48)
