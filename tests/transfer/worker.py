"""All pairs with Keras on one engine, in a process of its own: ``python worker.py jax OUT.json``."""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = sys.argv[1]
# tensorflow, which Keras imports here and there on any engine, and triton, which PyTorch does, abort together.
sys.modules["triton"] = None  # type: ignore[assignment]
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(Path(__file__).parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from checks import CHECKS  # noqa: E402
from pairs import PAIRS, randomized  # noqa: E402

import agnostic as ag  # noqa: E402
from agnostic.contracts.weights import WEIGHTS  # noqa: E402
from agnostic.registry import backend_of  # noqa: E402

TWINS = ("resnet18", "mobilenet_v2", "efficientnet_b0")


def inputs(shape: Any) -> Any:
    """Of PyTorch: channels first."""
    rng = np.random.default_rng(0)
    if isinstance(shape, int):
        return torch.from_numpy(rng.integers(1, 50, (2, shape)))
    return torch.from_numpy(rng.standard_normal((2, *shape)).astype(np.float32))


def both_ways(name: str) -> dict[str, Any]:
    """To Keras, and back into a PyTorch model of other weights."""
    make_torch, make_keras, shape = PAIRS[name]
    torch.manual_seed(0)
    source = randomized(make_torch())
    other = randomized(make_torch(), seed=1)
    target = make_keras()
    x = inputs(shape)
    convolves = "1d" in name or (not isinstance(shape, int) and len(shape) > 2)
    native = x.movedim(-1, 1) if convolves else x
    there = ag.transfer(source, target, inputs=native)
    back = ag.transfer(target, other, inputs=x.numpy())
    before, after = backend_of(source)[WEIGHTS].weights(source), backend_of(other)[WEIGHTS].weights(other)
    same = [k for k in before if np.array_equal(before[k], after[k])]
    return {
        "there": there.json(), "back": back.json(), "text": str(there), "back_text": str(back),
        "equal": len(same), "arrays": len(before), "unequal": [k for k in before if k not in same],
    }  # fmt: skip


def twin(name: str) -> dict[str, Any]:
    source = randomized(ag.load(f"torchvision:{name}", weights="random"))
    target = ag.load(name, backend="keras", weights="random")
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32)
    report = ag.transfer(source, target, inputs=x)
    return {"there": report.json(), "text": str(report)}


def checked(name: str) -> dict[str, Any]:
    try:
        CHECKS[name]()
    except Exception:  # noqa: BLE001 - the test says which
        return {"error": traceback.format_exc(limit=4)}
    return {}


def main() -> None:
    found: dict[str, Any] = {}
    for name in [x for x in PAIRS if x in sys.argv[3:] or not sys.argv[3:]]:
        try:
            found[name] = both_ways(name)
        except Exception as error:  # noqa: BLE001 - the test says which
            found[name] = {"error": f"{type(error).__name__}: {error}"}
    for name in [x for x in CHECKS if x in sys.argv[3:] or not sys.argv[3:]]:
        found[f"check {name}"] = checked(name)
    for name in TWINS if not sys.argv[3:] else ():
        found[f"twin {name}"] = twin(name)
    Path(sys.argv[2]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
