"""Cut out one object by clicks. Each `# %%` is a cell for Jupyter, VS Code or Spyder."""

# %% Look at an image once.
import numpy as np

import napari_unet as nu
from napari_unet import samples

image, truth = samples.load("nuclei")
clicks = nu.ClickSegmenter(device="cpu")
clicks.set_image(image)

# %% One click in the middle of a nucleus.
nucleus = truth == 50
y, x = np.argwhere(nucleus).mean(axis=0)
mask = clicks.segment([nu.Click((y, x))])
print(f"one click: {(mask & nucleus).sum() / (mask | nucleus).sum():.2f} of the union with the truth")

# %% It took a neighbour along. A second click, in the middle of the neighbour, says that this is not it.
wrong = np.argwhere(mask & ~nucleus)
neighbour = wrong[np.abs(wrong - wrong.mean(axis=0)).sum(axis=1).argmin()]
mask = clicks.segment([nu.Click((y, x)), nu.Click(tuple(neighbour), False)], mask)
print(f"two clicks: {(mask & nucleus).sum() / (mask | nucleus).sum():.2f}")
