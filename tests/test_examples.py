"""The examples run, and find what they say."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize(
    ("name", "pattern", "least"),
    [
        ("segment", r"AP@0.5 ([\d.]+)", 0.7),
        ("click", r"two clicks: ([\d.]+)", 0.6),
        ("train", r"Dice of the membranes ([\d.]+)", 0.5),
    ],
)
def test_an_example_runs(name: str, pattern: str, least: float, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    found = re.search(pattern, capsys.readouterr().out)
    assert found
    assert float(found[1]) >= least
