"""Five minutes of simulated use in the real window: left out of the suite, run by ``pytest -m slow``."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.gui
@pytest.mark.slow
def test_five_minutes_of_use_leave_no_error_no_thread_and_no_memory_behind() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "soak", "5", "20"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
