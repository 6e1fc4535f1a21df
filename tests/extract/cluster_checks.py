"""Run where the plug-in is found: a local cluster of Ray writes the same bytes as one process, whoever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from tests.extract.killing import content

ray = pytest.importorskip("ray")
IMAGES = np.random.default_rng(0).integers(0, 256, (23, 8, 8, 3), np.uint8)
ARGUMENTS: dict[str, Any] = {
    "layers": ["conv", "mean"], "reduce": ["values", "mean", "max", "histogram", "covariance"], "top": 3,
    "batch_size": 2, "shard": 4,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    for left in (2, 1, 0):
        try:
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            break
        except Exception as error:
            # Ray gives a cluster 30 seconds to start, which a busy machine may not.
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    path = tmp_path_factory.mktemp("local") / "a.zarr"
    ag.extract(ag.load("tiny:net"), Images(), store=path, **ARGUMENTS)
    return content(path)


class Images:
    """A data set; the process that reads its image 10 is killed, as long as a file says so."""

    def __init__(self, deadly: Path | None = None, times: int = 1) -> None:
        self.deadly = None if deadly is None else str(deadly)
        if deadly is not None:
            deadly.write_text("x" * times)

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Any:
        if index == 10 and self.deadly is not None and (left := Path(self.deadly).read_text()):
            Path(self.deadly).write_text(left[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        return IMAGES[index]


class Stream:
    """A data set that is read one after the other."""

    def __iter__(self) -> Iterator[Any]:
        return iter(IMAGES)


def test_a_dead_worker_s_part_is_done_again_and_a_run_that_failed_goes_on(
    tmp_path: Path, expected: dict[str, bytes]
) -> None:
    dataset = Images(tmp_path / "deadly", times=4)
    where: dict[str, Any] = {"store": tmp_path / "a.zarr", "engine": "ray", **ARGUMENTS}
    with pytest.raises(ag.InvalidInput, match="samples 8 to 11 ended their worker 3 times"):
        ag.extract(ag.load("tiny:net"), dataset, workers=1, **where)
    assert ag.taps.open(tmp_path / "a.zarr").done == 8
    assert Path(tmp_path / "deadly").read_text() == "x"
    ag.extract(ag.load("tiny:net"), dataset, workers=2, **where)
    assert Path(tmp_path / "deadly").read_text() == ""
    assert content(tmp_path / "a.zarr") == expected


def test_workers_that_never_start_hold_nothing_up(tmp_path: Path, expected: dict[str, bytes]) -> None:
    """As in the place of those of a machine that is lost: the cluster has room for two."""
    ag.extract(ag.load("tiny:net"), Images(), store=tmp_path / "a.zarr", engine="ray", workers=4, **ARGUMENTS)
    assert content(tmp_path / "a.zarr") == expected


def test_samples_that_are_read_here_are_sent(tmp_path: Path) -> None:
    model = ag.load("tiny:net")
    ag.extract(model, Stream(), store=tmp_path / "here.zarr", **ARGUMENTS)
    ag.extract(model, Stream(), store=tmp_path / "there.zarr", engine="ray", workers=1, **ARGUMENTS)
    assert content(tmp_path / "here.zarr") == content(tmp_path / "there.zarr")


def test_a_data_set_of_ray_is_read_in_its_order(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import ray.data

    def dataset() -> Any:
        rows = [{"image": x, "path": f"{i}.png"} for i, x in enumerate(IMAGES)]
        return ray.data.from_items(rows, override_num_blocks=5).map(lambda row: row)

    model = ag.load("tiny:net")
    here = ag.extract(model, dataset(), store=tmp_path / "here.zarr", **ARGUMENTS)
    assert here.samples.tolist() == [f"{i}.png" for i in range(len(IMAGES))]
    expected = ag.extract(model, IMAGES, store=tmp_path / "array.zarr", **ARGUMENTS)
    np.testing.assert_array_equal(here["conv"]["mean"], expected["conv"]["mean"])
    # Both processors have a worker, and the data set's own tasks find room.
    ag.extract(model, dataset(), store=tmp_path / "there.zarr", engine="ray", workers=2, **ARGUMENTS)
    assert content(tmp_path / "there.zarr") == content(tmp_path / "here.zarr")


def test_what_a_worker_refuses_is_a_sentence(tmp_path: Path) -> None:
    rows = [np.zeros((4, 8, 3), np.float32)] * 6 + [np.zeros((5, 8, 3), np.float32)] * 4
    with pytest.raises(ag.InvalidInput, match=r"sample '6' has the shape \(5, 8, 3\)"):
        ag.extract(
            ag.load("tiny:net"), rows, store=tmp_path / "a.zarr", prepared=True, engine="ray", workers=1, **ARGUMENTS
        )


def test_ascents_give_the_same_images(tmp_path: Path) -> None:
    from agnostic.cli import main

    command = ["filters", "tiny:net", "--layer", "conv", "--recipe", "classic", "--size", "8", "--steps", "2"]
    command += ["--channels", "all", "--out"]
    assert main([*command, str(tmp_path / "here")]) == 0
    assert main([*command, str(tmp_path / "there"), "--engine", "ray"]) == 0
    here, there = content(tmp_path / "here"), content(tmp_path / "there")
    assert len(here) > 4
    assert here == there
