"""torch against Keras, and Keras against itself, on each engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from tests.compare import keras_checks as checks
from tests.engines import ENGINES, call_on_engine


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_against_torch_and_itself(engine: str, images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    update = (ag.optimizers.Adam.torch(), 2)
    trace = ag.trace(checks.torch_model(), images, tmp_path / "torch.trace", update=update)
    others = [ag.trace(checks.torch_model(x), images, tmp_path / f"{x}.trace") for x in ("gelu", "none")]
    others += [
        ag.trace(checks.torch_recurrent(x), checks.SEQUENCES, tmp_path / f"{x}.trace", update=update)
        for x in ("LSTM", "GRU")
    ]
    files = [trace, tmp_path / "keras.trace", *others]
    call_on_engine(engine, "tests.compare.keras_checks:main", *map(str, files), needs=("keras", "torch"))


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tests.compare import keras_mutations

    folder = tmp_path_factory.mktemp("ports")
    keras_mutations.ported(folder, ("convnext", "decoder", "squeeze"))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_faults_of_ported_networks_are_named(engine: str, ports: Path) -> None:
    call_on_engine(engine, "tests.compare.keras_mutations:checked", str(ports), needs=("keras", "torch"))
