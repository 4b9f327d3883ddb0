"""The gate: what is better, what is not, what cannot be judged, and strokes that contradict each other."""

import numpy as np
import pytest
import torch

from napari_unet.engine.annotation import Annotation
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.gate import FIT, MARGIN, Verdict, agreement, by_stroke, held_out_score, judge
from napari_unet.engine.model import Model, new_model


def constant(chance: float) -> Model:
    """Return a model that gives the second of two classes this chance everywhere."""
    model = new_model(ModelCard("even", "semantic", UNetSpec(out_channels=2, channels=(2,), norm="none")))
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.zero_()
        model.network.head.bias[1] = float(np.log(chance / (1 - chance)))
    return model


def bright(sharpness: float = 20.0) -> Model:
    """Return a model that finds what is above 0.5; the sharper, the surer."""
    model = constant(0.5)
    with torch.no_grad():
        first, _, second, _ = model.network.encoder[0]
        first.weight[0, 0, 1, 1] = second.weight[0, 0, 1, 1] = 1
        model.network.head.weight[1, 0] = sharpness
        model.network.head.bias[1] = -sharpness / 2
    return model


def halves(lies: int = 0) -> Annotation:
    """Return an image with a bright half, ten strokes of 20 pixels in each; `lies` of each half say the contrary.

    Every fifth stroke is held out: two of each half.
    """
    pixels = np.zeros((1, 64, 64), dtype=np.float32)
    pixels[..., 32:] = 1
    labels, held_out = np.zeros((64, 64), dtype=np.uint8), np.zeros((64, 64), dtype=bool)
    for i in range(10):
        row = 2 + 6 * i
        labels[row, 4:24], labels[row, 36:56] = (1, 2) if i >= lies else (2, 1)
        held_out[row] = i % 5 == 4
    return Annotation(pixels, labels, held_out)


def test_a_guess_scores_one_over_the_number_of_classes() -> None:
    assert held_out_score(constant(0.5), [halves()], "cpu") == pytest.approx(0.5)


def test_a_model_that_is_right_scores_nearly_one() -> None:
    assert held_out_score(bright(), [halves()], "cpu") > 0.99


def test_classes_weigh_the_same_however_long_their_strokes() -> None:
    annotation = halves()
    annotation.labels[:, :24] = 1  # the dark half is painted all over
    score = agreement(constant(0.8), [(annotation.pixels, annotation.labels)], "cpu")
    assert score == pytest.approx((2 * 0.2 / (1 + 0.4) + 2 * 0.8 / (1 + 1.6)) / 2, abs=1e-4)


def test_strokes_weigh_the_same_however_long_they_are() -> None:
    annotation = halves()
    annotation.labels[3::6] = annotation.labels[2::6]  # ten dark strokes of 40 pixels ...
    annotation.pixels[0, 2:4] = 1  # ... of which one is wrong
    short = agreement(bright(), [(annotation.pixels, annotation.labels)], "cpu")
    annotation.labels[6:13, 4:24] = 1  # another one, which is right, has become three times as long
    assert agreement(bright(), [(annotation.pixels, annotation.labels)], "cpu") == pytest.approx(short, abs=1e-3)
    assert short == pytest.approx((2 * 0.9 / 1.9 + 2 / 2.1) / 2, abs=1e-3)


def test_a_crumb_does_not_weigh_like_a_stroke() -> None:
    labels = np.zeros((64, 64), dtype=np.uint8)
    labels[2, 4:64], labels[10, 4] = 1, 1
    weights = by_stroke(labels)
    assert weights[2].sum() == pytest.approx(1)
    assert weights[10].sum() == pytest.approx(1 / 30)


def test_a_surer_answer_scores_higher_so_that_easy_strokes_do_not_end_the_contest() -> None:
    score, higher = (held_out_score(bright(s), [halves()], "cpu") for s in (2, 4))
    assert 0.5 < score < higher < 1


def test_one_class_alone_cannot_judge() -> None:
    annotation = halves()
    annotation.labels[:, 32:] = 0
    assert held_out_score(bright(), [annotation], "cpu") is None


def test_too_few_pixels_cannot_judge() -> None:
    annotation = halves()
    annotation.held_out[:, 45:] = False  # nine pixels in each of two strokes
    assert held_out_score(bright(), [annotation], "cpu") is None


@pytest.mark.parametrize("chance", [0.3, 0.7, 0.9])
def test_just_enough_pixels_can_judge_whatever_the_model_says_of_them(chance: float) -> None:
    annotation = halves()
    annotation.held_out[:, 24:26] = annotation.held_out[:, 46:] = False
    annotation.held_out[50:] = False  # one stroke of each half: 20 pixels and 10 ...
    annotation.labels[25, 36:56] = 2  # ... and 10 more below those
    annotation.held_out[25, 36:46] = True
    assert [np.count_nonzero(annotation.judged == c) for c in (1, 2)] == [20, 20]
    assert held_out_score(constant(chance), [annotation], "cpu") is not None


def test_of_very_many_blocks_a_part_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_unet.engine.gate.MOST_BLOCKS", 2)
    labels = np.ones((64, 64 * 6), dtype=np.uint8)
    labels[32:] = 2
    pixels = np.zeros((1, *labels.shape), dtype=np.float32)
    pixels[:, 32:] = 1
    pixels[:, :, 64:192] = 0.5  # the second and the third of six blocks would be wrong; every third is looked at
    assert agreement(bright(), [(pixels, labels)], "cpu") > 0.99


@pytest.mark.parametrize(
    ("score", "baseline", "verdict"),
    [
        (None, None, Verdict.UNKNOWN),
        (0.9, 0.8, Verdict.BETTER),
        (0.8, 0.9, Verdict.NO_BETTER),
        (0.9, 0.9 - MARGIN / 2, Verdict.NO_BETTER),
        (0.45, 0.44, Verdict.CONTRADICTORY),
        (0.45, 0.1, Verdict.DOUBTFUL),  # better than what is in use, and still no better than a guess
        (0.05, 0.1, Verdict.CONTRADICTORY),
    ],
)
def test_the_verdict_follows_from_the_scores(score: float, baseline: float, verdict: Verdict) -> None:
    assert judge(bright(), bright(), score, baseline, [halves()], "cpu") is verdict


def test_a_model_that_disagrees_with_its_own_strokes_is_left_to_the_user() -> None:
    annotation = halves(lies=4)  # 0.6 of them are true
    fit = agreement(bright(), [(annotation.pixels, annotation.labels)], "cpu")
    assert fit == pytest.approx(0.6, abs=1e-3)
    assert fit < FIT
    assert judge(bright(), bright(), 0.9, 0.5, [annotation], "cpu") is Verdict.DOUBTFUL


def test_a_model_below_a_guess_that_did_not_learn_either_is_rejected() -> None:
    assert judge(bright(), bright(), 0.45, 0.1, [halves(lies=4)], "cpu") is Verdict.CONTRADICTORY


@pytest.mark.parametrize(
    ("model", "in_use", "score", "baseline", "verdict"),
    [
        (bright(), constant(0.6), 0.99, 0.99, Verdict.UNKNOWN),  # all strokes say that it learned something
        (bright(), constant(0.6), 0.97, 0.985, Verdict.UNKNOWN),
        (bright(), constant(0.6), 0.96, 0.985, Verdict.NO_BETTER),  # behind on what it did not learn from
        (bright(), bright(), 0.999, 0.985, Verdict.NO_BETTER),  # no better on any strokes
        (bright(), constant(0.6), 0.85, 0.84, Verdict.UNKNOWN),  # ahead by too little to tell
        (constant(0.6), constant(0.8), 0.85, 0.84, Verdict.NO_BETTER),  # has not learned what the strokes say
    ],
)
def test_where_held_out_strokes_say_the_same_of_both_all_strokes_call_for_a_look(
    model: Model, in_use: Model, score: float, baseline: float, verdict: Verdict
) -> None:
    assert judge(model, in_use, score, baseline, [halves()], "cpu") is verdict


@pytest.mark.parametrize(
    ("verdict", "accepted", "words"),
    [
        (Verdict.BETTER, True, "Better: 0.80 instead of 0.60 on 4 held-out strokes."),
        (Verdict.NO_BETTER, False, "Hardly better: 0.80 instead of 0.60 on 4 held-out strokes."),
        (Verdict.CONTRADICTORY, False, "The strokes contradict each other, or were not learned yet: 0.80"),
        (Verdict.UNKNOWN, None, "Too close to call: 0.80 instead of 0.60 on 4 held-out strokes, but the new model"),
        (Verdict.DOUBTFUL, None, "The strokes contradict each other, or were not learned yet"),
    ],
)
def test_each_verdict_has_its_words(verdict: Verdict, accepted: bool | None, words: str) -> None:
    assert verdict.accepted is accepted
    assert verdict.sentence(0.8, 0.6, "4 held-out strokes").startswith(words)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (0.6032, "Hardly better: 0.603 instead of 0.602 on the held-out strokes."),
        (0.6022, "No better: 0.602, as before, on the held-out strokes."),
        (0.5, "No better: 0.50 instead of 0.60 on the held-out strokes."),
    ],
)
def test_scores_that_hardly_differ_are_told_apart(score: float, words: str) -> None:
    assert Verdict.NO_BETTER.sentence(score, 0.6018) == words


def test_without_scores_the_user_must_look() -> None:
    assert Verdict.UNKNOWN.accepted is None
    assert Verdict.UNKNOWN.sentence(None, None).startswith("Too few held-out strokes to judge")
