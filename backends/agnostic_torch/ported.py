"""Run models from source that :mod:`agnostic.port` wrote. See :mod:`agnostic.contracts.ported`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.utils import _pytree as pytree

from agnostic.contracts.ported import first_outputs
from agnostic_torch.calls import intercept


def run(
    model: nn.Module, inputs: Sequence[npt.NDArray[Any]], layers: Sequence[str],
    keep: Callable[[str, npt.NDArray[Any]], None],
) -> list[npt.NDArray[Any]]:  # fmt: skip
    """See :meth:`agnostic.contracts.ported.PortedModels.run`."""
    known = dict(model.named_modules())
    wanted = [name for name in layers if name in known]
    with torch.no_grad(), intercept(model, wanted, first_outputs(lambda name, x: keep(name, x.numpy()))):
        result = model(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs))
    return [x.numpy() for x in pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
