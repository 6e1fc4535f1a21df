"""Run models from source that :mod:`agnostic.port` wrote. See :mod:`agnostic.contracts.ported`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils import _pytree as pytree

from agnostic_torch.taps import watch


def run(
    model: nn.Module, inputs: Sequence[npt.NDArray[Any]], layers: Sequence[str]
) -> tuple[list[npt.NDArray[Any]], Mapping[str, npt.NDArray[Any]]]:
    """See :meth:`agnostic.contracts.ported.PortedModels.run`."""
    known = dict(model.named_modules())
    wanted = [name for name in layers if name in known]
    with torch.no_grad(), watch(model, wanted, detach=True) as record:
        result = model(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
    found = {}
    for name in wanted:
        calls = record.calls(name)
        if calls and isinstance(calls[0], torch.Tensor):
            found[name] = calls[0].numpy()
    return [x.numpy() for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)], found
