"""The fuzzer of image files, briefly; ``python tests/fuzz/images.py --seed S --seconds N`` goes on for longer."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def fuzzer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_images", Path(__file__).with_name("images.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_damaged_image_files_are_images_or_one_sentence(fuzzer: ModuleType) -> None:
    failures = list(fuzzer.run(seed=1, count=400))
    assert not failures, "\n".join(f"{x.kind}, {x.reader}, trial {x.trial}: {x.what}" for x in failures)


def test_the_fuzzer_finds_raw_errors_and_wrong_arrays(fuzzer: ModuleType, tmp_path: Path) -> None:
    import numpy as np

    def overflow(_: Path) -> np.ndarray:
        raise OverflowError("raw")

    assert "OverflowError: raw" in fuzzer.fault(overflow, np.uint8, tmp_path)
    assert "float64" in fuzzer.fault(lambda _: np.zeros((2, 2, 3)), np.uint8, tmp_path)
    assert fuzzer.fault(lambda _: np.zeros((2, 2, 3), np.uint8), np.uint8, tmp_path) is None
