"""agnostic.extract on a cluster of Ray; cluster_checks.py runs where the plug-in of tests/plugin is found."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

import agnostic as ag
from tests.engines import run_apart
from tests.extract.killing import plugin_found


@pytest.mark.slow
def test_a_cluster(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("zarr")
    paths = os.pathsep.join(plugin_found(tmp_path))
    run_apart(Path(__file__).with_name("cluster_checks.py"), variables={"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"})


def test_ray_that_is_not_installed_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("zarr")
    monkeypatch.setitem(sys.modules, "ray", None)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    with pytest.raises(ag.MissingDependency, match=r"pip install 'agnostic-ml\[cluster\]'"):
        ag.extract(model, images, "0", tmp_path / "a.zarr", engine="ray")
