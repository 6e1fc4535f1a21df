"""Records on disk, on the engine of this process."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

import agnostic as ag


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_record_goes_to_a_file_and_back(tmp_path: Path, dtype: str) -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), kl.Conv2D(4, 3, name="conv", dtype=dtype)])
    record = ag.capture(model, np.random.default_rng(0).random((2, 8, 8, 3), np.float32), "conv")
    record.save(tmp_path / "record.safetensors")
    found = ag.taps.open(tmp_path / "record.safetensors")
    np.testing.assert_array_equal(found["conv"], record.numpy()["conv"])
    assert found.dtype("conv") == dtype
    assert found.axes("conv") == "NHWC"
    assert found.about["backend"] == "keras"
    numbers = (tmp_path / "record.safetensors").stat().st_size
    assert numbers < 4096 + 2 * 6 * 6 * 4 * (2 if dtype == "bfloat16" else 4)
