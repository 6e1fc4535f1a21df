"""What a user sees of a comparison: the table in a terminal, the message of a test, and how far it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import agnostic as ag
from agnostic.compare.report import Comparison, text
from agnostic.compare.results import Divergence, Row
from agnostic.compare.watching import receiver, sender, watched

ROOT = Path(__file__).parents[2]


def _row(name: str, distance: float = 1.0, verdict: str = "same") -> Row:
    return Row(name, name, "batch_norm", (1, 2, 2, 3), distance, 1e-3, 1e-6, 1.0, verdict)


def _long(culprit: int | None = None) -> Comparison:
    names = [f"encoder.stage{i // 30}.block{i}.norm" for i in range(150)]
    rows = tuple(
        _row(x) if culprit is None or i < culprit else _row(x, 1e4, "layer") if i == culprit else _row(x, 1e3, "shows")
        for i, x in enumerate(names)
    )
    found = () if culprit is None else (Divergence(names[culprit], names[culprit], "layer", "", 1e4),)
    about = {"class": "Net", "versions": {"torch": "2.15"}}
    return Comparison(about, about, rows, found, output=(_row("output"),))


def test_a_table_of_150_layers_fits_on_a_screen() -> None:
    lines = text(_long()).splitlines()
    assert len(lines) <= 24
    assert sum("the same" in line and line.startswith("...") for line in lines) >= 1
    lines = text(_long(100)).splitlines()
    assert len(lines) <= 32
    assert any("block100.norm" in line and line.endswith("<- differs") for line in lines)
    # What is left out behind the culprit shows its error: it is not called the same.
    left = [line for line in lines if line.startswith("...")]
    assert any("that show it" in line for line in left)
    assert sum(int(part) for line in left for part in line.split() if part.isdigit()) + sum(
        "batch_norm" in line for line in lines
    ) == 151  # fmt: skip


@pytest.mark.parametrize("width", [60, 80])
def test_names_are_shortened_to_the_terminal(width: int) -> None:
    lines = text(_long(100), width=width).splitlines()
    table = [line for line in lines if ".norm" in line and "noise floors" not in line]
    assert len(table) >= 5
    assert max(map(len, table)) <= width
    assert any("100.norm" in line for line in table)  # the end of a name, which tells layers apart


# Models --------------------------------------------------------------------------------------------------------------
def _branches(names: tuple[str, str], order: tuple[int, int], flipped: bool) -> Any:
    """Two branches that run in an order, and whose kernels may be turned round."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for k, name in enumerate(names):
                with torch.random.fork_rng():
                    torch.manual_seed(k)
                    layer = torch.nn.Conv2d(3, 4, 3)
                if flipped:
                    layer.weight.data = layer.weight.data.flip(2, 3)
                self.add_module(name, layer)

        def forward(self, x: Any) -> Any:
            found = {k: getattr(self, names[k])(x) for k in order}
            return found[0] * 2 + found[1]

    return Net().eval()


def test_a_map_puts_right_what_neither_order_nor_weights_tell(images: np.ndarray[Any, Any]) -> None:
    a, b = _branches(("left", "right"), (0, 1), False), _branches(("p", "q"), (1, 0), True)
    alone = ag.compare(a, b, images)
    assert alone.matches[0] == ("left", "q")
    assert alone.diagnosis.mistake == "kernel_flipped"  # the operators tell, whichever layers are matched
    mapped = ag.compare(a, b, images, map={"left": "p", "right": "q"})
    assert set(mapped.matches) == {("left", "p"), ("right", "q")}
    assert mapped.diagnosis.mistake == "kernel_flipped"


def test_a_map_to_a_layer_that_is_not_there(images: np.ndarray[Any, Any]) -> None:
    a = _branches(("left", "right"), (0, 1), False)
    with pytest.raises(ag.UnknownName, match=r"no layer 'rigth' runs in B \(2 layers\); did you mean 'right'"):
        ag.compare(a, a, images, map={"left": "rigth"})


def test_the_message_of_a_failing_test_is_the_table(images: np.ndarray[Any, Any]) -> None:
    torch = pytest.importorskip("torch")
    a, b = _branches(("left", "right"), (0, 1), False), _branches(("left", "right"), (0, 1), False)
    ag.testing.assert_same_model(a, b, images)
    b.add_module("more", torch.nn.Identity())
    b.right.bias.data += 1
    with pytest.raises(AssertionError) as error:
        ag.testing.assert_same_model(a, b, images)
    said = str(error.value)
    assert said.startswith("\nA: Net (torch")
    assert "<- differs" in said
    assert "different: first at layer 'right'" in said
    assert "weights_differ" in said


def test_what_stays_unmatched_is_listed(images: np.ndarray[Any, Any]) -> None:
    torch = pytest.importorskip("torch")
    a = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 4, 3))
    b = torch.nn.Sequential(a[0], a[1], torch.nn.Conv2d(4, 4, 1), a[2])
    found = ag.compare(a.eval(), b.eval(), images)
    assert found.unmatched["b"] == ("2",)
    assert "in B alone, without a partner in A: '2'" in str(found)


# How far it is -------------------------------------------------------------------------------------------------------
def test_a_recording_is_watched(images: np.ndarray[Any, Any], tmp_path: Path) -> None:
    model, seen = _branches(("left", "right"), (0, 1), False), list[tuple[int, int]]()
    with watched(lambda what, done, total: seen.append((done, total))):
        ag.trace(model, images, tmp_path / "a.trace")
    assert seen[-1][0] == seen[-1][1]
    seen.clear()
    ag.trace(model, images, tmp_path / "b.trace")
    assert not seen


def test_another_process_is_watched_through_a_pipe() -> None:
    seen = list[tuple[str, int, int]]()
    with watched(lambda *x: seen.append(x)), receiver("recording net") as pipe:
        assert pipe is not None
        sender(pipe)("", 3, 9)
    assert seen == [("recording net", 3, 9)]
    with receiver("nobody looks") as pipe:
        assert pipe is None


def test_a_killed_recording_leaves_no_trace(tmp_path: Path) -> None:
    code = (
        "import numpy as np, os, sys\n"
        "from agnostic.compare.traces import writing\n"
        "with writing(sys.argv[1], 1) as (writer, about):\n"
        "    for i in range(9): writer.add(str(i), np.ones(100_000))\n"
        "    writer.read('8')\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    path = tmp_path / "a.trace"
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False,
                          env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"})  # fmt: skip
    assert done.returncode == -9
    assert not path.exists()
    (folder,) = tmp_path.iterdir()  # under another name, and no trace
    (left,) = (x for x in folder.rglob("*") if x.suffix == ".trace")
    with pytest.raises(ag.InvalidInput, match="is no trace"):
        ag.compare(left, left)
