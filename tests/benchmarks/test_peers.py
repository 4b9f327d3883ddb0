"""The peers that are taught beside us: they learn, and stop when their time is spent."""

import sys
import time
from importlib.util import find_spec

import numpy as np
import pytest
from benchmarks.peers import monai_unet, stardist


def squares(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with bright squares, and where they are."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((80, 96), dtype=np.int32)
    for y, x in rng.integers(5, 60, (6, 2)):
        labels[y : y + 12, x : x + 12] = 1
    return (labels + rng.normal(0, 0.3, labels.shape)).astype(np.float32), labels


def test_monais_unet_learns_until_its_time_is_spent() -> None:
    pytest.importorskip("monai")
    began = time.process_time()
    answer, steps = monai_unet([squares(i) for i in range(4)], 2, 8, 64, seed=0)
    assert steps > 5
    assert time.process_time() - began >= 8
    image, labels = squares(9)
    chances = answer(image)
    assert chances.shape == (2, *image.shape)
    np.testing.assert_allclose(chances.sum(0), 1, atol=1e-5)
    found = chances[1] > 0.5
    assert (found & (labels > 0)).sum() / (found | (labels > 0)).sum() > 0.7


@pytest.mark.skipif(find_spec("stardist") is not None, reason="StarDist is installed here")
def test_a_python_without_stardist_is_named() -> None:
    with pytest.raises(SystemExit, match=f"StarDist did not run with {sys.executable}: .*No module named"):
        stardist([squares(0)], [squares(1)[0]], 1, sys.executable, seed=0)


def test_a_python_that_is_not_there_is_named() -> None:
    with pytest.raises(SystemExit, match="There is no Python at nowhere/python: name one that has StarDist"):
        stardist([squares(0)], [squares(1)[0]], 1, "nowhere/python", seed=0)
