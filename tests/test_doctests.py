"""The examples in the docstrings of the public API are true."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["api", "engine.card", "engine.comparison", "engine.image"])
def test_the_examples_are_true(name: str) -> None:
    results = doctest.testmod(import_module(f"napari_unet.{name}"))
    assert results.attempted
    assert not results.failed
