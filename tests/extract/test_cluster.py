"""agnostic.extract on a cluster of Ray; cluster_checks.py runs where the plug-in of tests/plugin is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.cluster import Task, Workers
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


class _Died(Exception):
    pass


class _Ray:
    """In the place of ray: what is waited for ends at once; some workers die while they start."""

    exceptions = SimpleNamespace(RayActorError=_Died, WorkerCrashedError=_Died, RayTaskError=ZeroDivisionError)

    def __init__(self, dying: Collection[int]) -> None:
        self.dying, self.started = dying, 0

    def actor(self) -> Any:
        ray = self

        class Actor:
            def __init__(self, number: int) -> None:
                self.ready = SimpleNamespace(remote=lambda: ("ready", number))
                self.do = SimpleNamespace(remote=lambda work: ("do", work))

        def remote(made: object) -> Actor:
            ray.started += 1
            return Actor(ray.started - 1)

        return SimpleNamespace(remote=remote)

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        # Starts end before work does, as those of a machine that is lost.
        first = next((x for x in references if x[0] == "ready"), references[0])
        return [first], []

    def get(self, reference: Any) -> Any:
        how, value = reference
        if how == "ready" and value in self.dying:
            raise _Died("the machine is lost")
        return value


def test_workers_that_die_while_they_start_end_a_run_only_where_none_works() -> None:
    ray = _Ray(dying=range(1, 99))
    tasks = [Task(str(n), n) for n in range(9)]
    assert list(Workers(ray, ray.actor(), None, 4).results(tasks)) == list(range(9))
    # Each attempt starts a process: after three, and those that were starting then, a task must have been done first.
    assert ray.started <= (3 + 4) * (1 + len(tasks))
    ray = _Ray(dying=range(99))
    with pytest.raises(ag.InvalidInput, match=r"3 workers ended while they started \(the machine is lost\)"):
        list(Workers(ray, ray.actor(), None, 1).results(tasks))


def test_a_cluster_that_does_not_start_and_says_nothing_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("zarr")

    def init(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(is_initialized=lambda: False, init=init))
    images, model = np.zeros((2, 8, 8, 3), np.uint8), torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
    with pytest.raises(ag.InvalidInput, match=r"cannot start a local Ray cluster \(RuntimeError\)"):
        ag.extract(model, images, "0", tmp_path / "a.zarr", engine="ray")
