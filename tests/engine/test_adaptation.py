"""A click model that goes on learning: from accepted objects, judged by objects that it did not learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_unet.engine import adaptation
from napari_unet.engine.adaptation import MEMORY, MOST_STEPS, STEPS, Adaptation, Learned
from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.click import ClickSegmenter
from napari_unet.engine.errors import InvalidImage, InvalidSettings
from napari_unet.engine.model import Model, load_model_file, new_model, save_model
from napari_unet.engine.prompts import CHANNELS
from napari_unet.engine.training import StepDone


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "BATCH", 2)


def small() -> Model:
    return new_model(ModelCard("small", "click", UNetSpec(in_channels=CHANNELS, out_channels=1, channels=(4, 8))))


def scene(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy image with a bright disk, and the disk."""
    rng = np.random.default_rng(number)
    rows, columns = np.ogrid[:120, :120]
    disk = (rows - rng.integers(40, 80)) ** 2 + (columns - rng.integers(40, 80)) ** 2 < rng.integers(12, 25) ** 2
    return (100 * disk + rng.normal(0, 5, disk.shape)).astype(np.float32), disk


def weights_of(model: Model) -> list[torch.Tensor]:
    return [t.clone() for t in model.network.state_dict().values()]


def taught(segmenter: ClickSegmenter, objects: int, **how: object) -> Learned:
    for number in range(objects):
        image, disk = scene(number)
        segmenter.set_image(image)
        segmenter.accept(disk, **how)
        *_, learned = segmenter.learn()
    return learned


def test_the_loss_falls_and_the_model_that_was_handed_in_stays_as_it_is() -> None:
    torch.manual_seed(0)
    model = small()
    before = weights_of(model)
    learner = Adaptation(model, "cpu")
    image, disk = scene(0)
    assert learner.add(image / 100, disk)
    losses = [step.loss for step in learner.steps(60)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert all(torch.equal(a, b) for a, b in zip(before, weights_of(model), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, weights_of(learner.model), strict=True))


def test_statistics_of_batch_normalisation_stay() -> None:
    model = small()
    learner = Adaptation(model, "cpu")
    learner.add(scene(0)[0] / 100, scene(0)[1])
    list(learner.steps(3))
    for name, tensor in learner.model.network.state_dict().items():
        if "running" in name:
            assert torch.equal(tensor, model.network.state_dict()[name])


def test_the_same_objects_teach_the_same() -> None:
    models = []
    for _ in range(2):
        learner = Adaptation(small(), "cpu", seed=3)
        learner.add(scene(0)[0] / 100, scene(0)[1])
        list(learner.steps(2))
        models.append(weights_of(learner.model))
    assert all(torch.equal(a, b) for a, b in zip(*models, strict=True))


def test_specks_teach_nothing() -> None:
    mask = np.zeros((50, 50), dtype=bool)
    mask[10, 10:15] = True
    assert not Adaptation(small(), "cpu").add(np.zeros((50, 50)), mask)


def test_the_oldest_objects_are_forgotten() -> None:
    learner = Adaptation(small(), "cpu")
    for _ in range(MEMORY + 3):
        learner.add(scene(0)[0][40:80, 40:80], scene(0)[1][40:80, 40:80])
    assert len(learner._pictures) == MEMORY


def test_an_object_of_which_too_little_is_seen_ends_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptation, "begin", lambda *_: None)
    learner = Adaptation(small(), "cpu")
    learner.add(scene(0)[0] / 100, scene(0)[1])
    (step,) = learner.steps(1)
    assert np.isfinite(step.loss)


# --- in the segmenter -------------------------------------------------------------------------------------------------


def test_the_first_object_is_learned_but_nothing_says_yet_that_it_helps() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    start = segmenter.model
    image, disk = scene(0)
    segmenter.set_image(image)
    segmenter.accept(disk)
    *steps, learned = segmenter.learn()
    assert [type(s) for s in steps] == [StepDone] * STEPS
    assert (learned.objects, learned.taught, learned.untaught, learned.better) == (1, None, None, False)
    assert segmenter.model is start


def judged(segmenter: ClickSegmenter, monkeypatch: pytest.MonkeyPatch, untaught: float, taught: float) -> None:
    """Say how good both models are."""
    answers = {True: untaught, False: taught}
    monkeypatch.setattr(segmenter, "_after_one_click", lambda executor, _: answers[executor is segmenter._untaught])


def test_a_taught_model_that_is_better_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    judged(segmenter, monkeypatch, 0.5, 0.6)
    learned = taught(segmenter, 2)
    assert (learned.objects, learned.untaught, learned.taught, learned.better) == (2, 0.5, 0.6, True)
    assert segmenter._executor is segmenter._taught
    assert segmenter.model.card.training == {"objects": 2, "untaught": 0.5, "taught": 0.6}


def test_a_taught_model_that_is_no_better_does_not_and_one_that_became_worse_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    start = segmenter.model
    judged(segmenter, monkeypatch, 0.5, 0.5)
    assert not taught(segmenter, 2).better
    assert segmenter.model is start
    judged(segmenter, monkeypatch, 0.5, 0.7)
    assert taught(segmenter, 1).better
    judged(segmenter, monkeypatch, 0.5, 0.1)
    assert not taught(segmenter, 1).better
    assert segmenter.model is start
    assert segmenter._executor is segmenter._untaught


def test_an_object_is_judged_before_it_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    taught(segmenter, 1)
    known: list[int] = []
    assert segmenter._adaptation is not None
    pictures = segmenter._adaptation._pictures
    monkeypatch.setattr(segmenter, "_after_one_click", lambda *_: known.append(len(pictures)) or 0.5)
    taught(segmenter, 1)
    assert known == [1, 1]


def test_many_objects_at_once_take_no_more_steps_than_a_few() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    for number in range(5):
        image, disk = scene(number)
        segmenter.accept(disk, image=image)
    *steps, learned = segmenter.learn()
    assert len(steps) == MOST_STEPS
    assert learned.objects == 5


def test_nothing_accepted_is_nothing_learned() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    assert [e.objects for e in segmenter.learn()] == [0]


def test_masks_that_teach_nothing_have_no_part() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    image, disk = scene(0)
    segmenter.accept(np.zeros_like(disk), image=image)
    segmenter.accept(disk, image=np.zeros_like(image))  # constant
    assert [e.objects for e in segmenter.learn()] == [0]


def test_an_object_that_fills_its_image_teaches_nothing() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    image, _ = scene(0)
    everywhere = np.ones(image.shape, dtype=bool)
    everywhere[0] = False
    segmenter.accept(everywhere, image=image)
    assert [e.objects for e in segmenter.learn()] == [0]


def test_what_is_wrong_with_an_accepted_object_is_said() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    image, disk = scene(0)
    with pytest.raises(InvalidImage, match="set_image"):
        segmenter.accept(disk)
    with pytest.raises(InvalidImage, match="mask of this image"):
        segmenter.accept(disk[:50], image=image)
    with pytest.raises(InvalidSettings, match="outside"):
        segmenter.accept(disk, ((500, 5),), image)
    image[60, 60] = np.nan
    with pytest.raises(InvalidImage, match="NaN"):
        segmenter.accept(disk, image=image)


def test_clicks_are_answered_while_it_learns() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    image, disk = scene(0)
    segmenter.set_image(image)
    before = segmenter.segment([(tuple(np.argwhere(disk).mean(0)),)])
    segmenter.accept(disk)
    lesson = segmenter.learn()
    next(lesson)
    np.testing.assert_array_equal(segmenter.segment([(tuple(np.argwhere(disk).mean(0)),)]), before)
    lesson.close()


def test_a_lesson_that_was_broken_off_goes_on_with_the_next_object() -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    image, disk = scene(0)
    segmenter.set_image(image)
    segmenter.accept(disk)
    lesson = segmenter.learn()
    next(lesson)
    lesson.close()
    assert taught(segmenter, 1).objects == 2


def test_what_was_taught_can_be_saved_and_answers_alike(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = ClickSegmenter(small(), device="cpu")
    judged(segmenter, monkeypatch, 0.1, 0.9)
    taught(segmenter, 2)
    save_model(segmenter.model, tmp_path / "taught.safetensors")
    again = ClickSegmenter(load_model_file(tmp_path / "taught.safetensors"), device="cpu")
    image, disk = scene(7)
    point = [(tuple(np.argwhere(disk).mean(0)),)]
    for one in (segmenter, again):
        one.set_image(image)
    np.testing.assert_array_equal(segmenter.segment(point), again.segment(point))
    assert again.model.card.training["objects"] == 2
