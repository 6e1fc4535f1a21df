"""Runs the checks beside it in a process of their own: Keras has one engine a process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKS = Path(__file__).with_name("folder_keras_checks.py")


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
def test_folders_feed_keras() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CHECKS)],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        cwd=CHECKS.parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
