"""Ports are trained as their sources: gradients of all weights, statistics of batch norms, rates of dropouts.

The truth is the source in float64. A gradient may be off by 16 times what the source's own float32 is, as outputs may
(sums are added in another order), or by 64 roundings of the largest gradient.
"""

from __future__ import annotations

import ast
import copy
import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from agnostic.contracts.weights import WEIGHTS
from agnostic.contracts.writer import WRITER
from agnostic.port.verb import drafted_for
from agnostic.registry import backend_of, get_backend
from tests.engines import ROOT
from tests.forks import run_prepared
from tests.port.models import Convolutional, Deep, Quantized, Transformer
from tests.port.training import weighted


def cases() -> dict[str, tuple[nn.Module, torch.Tensor]]:
    torch.manual_seed(1)
    return {
        "convolutional": (Convolutional().eval(), torch.randn(4, 3, 32, 32)),
        "deep": (Deep().eval(), torch.randn(4, 3, 8, 8)),
        "transformer": (Transformer().eval(), torch.randn(2, 3, 16, 16)),
        "quantized": (Quantized().eval(), torch.randn(2, 3, 6, 6)),
    }


def stepped(model: nn.Module, x: torch.Tensor, training: bool, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """The gradients of a source by name, and its buffers after the step; statistics as Keras keeps them."""
    model = copy.deepcopy(model).to(dtype).train(training)
    counts: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        if hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.register_forward_pre_hook(
                lambda m, args, name=name: counts.__setitem__(name, args[0].numel() // args[0].shape[1])
            )
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    y = model(x.to(dtype))
    weighted([y], lambda numbers, like: torch.as_tensor(numbers, dtype=like.dtype)).backward()
    found = {name: (torch.zeros_like(p) if p.grad is None else p.grad).numpy() for name, p in model.named_parameters()}
    for name, buffer in model.named_buffers():
        owner = name.rpartition(".")[0]
        if training and name.endswith("running_var"):
            # Keras divides the variance that it keeps by n, torch by n - 1; the momentum is 0.1.
            share = (counts[owner] - 1) / counts[owner]
            buffer = 0.9 * before[name] + (buffer - 0.9 * before[name]) * share
        found[name] = buffer.numpy()
    return found


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each port did, with its source and how it was written."""
    if importlib.util.find_spec("keras") is None:  # importing it here would import tensorflow beside triton
        pytest.skip("keras is not installed")
    folder = tmp_path_factory.mktemp("trained")
    writer, drafts = get_backend("keras")[WRITER], {}
    for name, (model, x) in cases().items():
        written = drafted_for(backend_of(model), model, x, writer.dialect())
        (folder / f"{name}.py").write_text(written.draft.written.text)
        writer.write_weights(written.arrays, folder, name)
        [order] = written.draft.laid.inputs.values()
        np.save(folder / f"{name}.npy", np.ascontiguousarray(x.numpy().transpose(order)))
        drafts[name] = (model, x, written.draft)
    code = "import pathlib, sys; from tests.port.training import main; main(pathlib.Path(sys.argv[1]))"
    done = run_prepared(code, str(folder), cwd=ROOT, variables={"KERAS_BACKEND": "torch"})
    assert done.returncode == 0, done.stderr[-3000:]
    return {name: (*drafts[name], dict(np.load(folder / f"{name}.found.npz"))) for name in drafts}


@pytest.mark.parametrize("training", [False, True])
def test_gradients_and_statistics_are_the_sources(steps: dict[str, Any], training: bool) -> None:
    for name, (model, x, draft, found) in steps.items():
        weights = backend_of(model)[WEIGHTS].weights(model)
        exact = draft.arrays({**weights, **stepped(model, x, training, torch.float64)})
        rough = draft.arrays({**weights, **stepped(model, x, training, torch.float32)})
        own = {key.partition("/")[2]: array for key, array in found.items() if key.startswith(f"{training}/")}
        own = {key: array for key, array in own.items() if key in exact}
        assert own.keys() == exact.keys(), name
        largest = max(np.abs(array).max() for array in exact.values())
        for key, array in own.items():
            floor = np.abs(rough[key] - exact[key]).max()
            error = np.abs(array - exact[key]).max()
            assert error <= max(16 * floor, 64 * 2.0**-24 * largest), (name, key, error, floor)


def test_dropouts_and_stochastic_depth_keep_their_rates_and_fit_trains(steps: dict[str, Any]) -> None:
    drops = {name: ast.literal_eval(str(found["drops"])) for name, (_, _, _, found) in steps.items()}
    assert drops["convolutional"] == {"head.1": [0.2, "None"]}
    assert drops["deep"] == {
        "blocks.0.drop_path": [0.1, "(None, 1, 1, 1)"],
        "blocks.1.drop_path": [0.3, "(None, 1, 1, 1)"],
        "drop": [0.5, "(None, 1, 1, None)"],
    }
    assert all(found["fits"] for _, _, _, found in steps.values())


def test_reading_leaves_stochastic_depth_as_it_was() -> None:
    model = Deep().eval()
    drafted_for(backend_of(model), model, torch.randn(2, 3, 8, 8), get_backend("keras")[WRITER].dialect())
    assert all("forward" not in vars(module) for module in model.modules())
