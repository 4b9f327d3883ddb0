"""Segment an image, look at the scores, move a threshold. Each `# %%` is a cell for Jupyter, VS Code or Spyder."""

# %% An image, and the truth for it. Yours: any numpy, dask or zarr array, or a file opened with open_image(path).
import napari_unet as nu
from napari_unet import samples
from napari_unet.engine.inference import Segmented, relabel, segment
from napari_unet.engine.metrics import average_precision

image, truth = samples.load("nuclei")

# %% The short way: labels, of the image's shape without its channels.
labels = nu.segment(image, "nuclei", device="cpu")
print(f"{labels.max()} nuclei, {truth.max()} in the truth, AP@0.5 {average_precision(labels, truth, (0.5,))[0.5]:.3f}")

# %% The long way: events, tile by tile. The last one carries the result with its maps and how it was made.
for event in segment(image, nu.load_model("nuclei"), nu.SegmentSettings(device="cpu", tile=256)):
    if isinstance(event, Segmented):
        result = event
print(result.record["model"], result.record["tile"])

# %% Other thresholds, without running the network again.
fewer = relabel(result, nu.ObjectSettings(foreground_threshold=0.95, seed_threshold=0.3, minimal_size=100))
print(f"{fewer.max()} nuclei of at least 100 pixels")
