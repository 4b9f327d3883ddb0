"""Teach a model from a few strokes. Each `# %%` is a cell for Jupyter, VS Code or Spyder."""

# %% An image of another kind than the model knows: membranes. Four bands that are labelled, and nothing else.
import numpy as np

from napari_unet.engine.card import ModelCard, UNetSpec
from napari_unet.engine.inference import Segmented, segment
from napari_unet.engine.lesson import Lesson, teach
from napari_unet.engine.metrics import dice
from napari_unet.engine.model import new_model
from napari_unet.engine.settings import SegmentSettings, TrainSettings
from napari_unet.engine.training import StepDone, Trained
from napari_unet.samples import drawn

image, truth = drawn.membranes()
strokes = np.zeros(truth.shape, dtype=np.int32)  # 0: not labelled
for row in (40, 120, 200, 280):
    strokes[row : row + 6, 20:300] = 1 + (truth[row : row + 6, 20:300] == 0)  # 1: background, 2: membrane

# %% A small new model; a trained one is loaded with napari_unet.load_model(name).
spec = UNetSpec(channels=(8, 16, 32), out_channels=2)
model = new_model(ModelCard("membranes", "semantic", spec, ("background", "membrane")))

# %% One round. The last event carries the model, and the verdict of the strokes held out.
for event in teach(model, [Lesson(image, strokes)], TrainSettings(steps=40, validate_every=20, device="cpu")):
    if isinstance(event, StepDone) and event.step % 20 == 0:
        print(f"step {event.step}: loss {event.loss:.3f}")
    elif isinstance(event, Trained):
        trained = event
print(f"{trained.verdict}: {trained.score} on the held-out strokes, {trained.baseline} before")

# %% What it finds. To keep it: napari_unet.engine.library.Library().add(trained.model)
*_, result = segment(image, trained.model, SegmentSettings(device="cpu"))
assert isinstance(result, Segmented)
print(f"Dice of the membranes {dice(result.labels == 1, truth == 0):.3f}")
