"""A small network and two images, the same wherever they are made: what other libraries' numbers are recorded of."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

IMAGES: npt.NDArray[np.float32] = np.random.default_rng(1).random((2, 10, 10, 3)).astype(np.float32)
RANGE = (-1, 1)
"""Of what the network is given."""


def network() -> Any:
    """Convolutions with batch norm, with and without bias, pooling, a convolution without batch norm, a dense layer."""
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    filled(model)
    return model


def filled(model: Any, *, bias: bool = True) -> None:
    """Give every weight and every buffer numbers of a fixed seed."""
    import torch

    generator = np.random.default_rng(2)
    with torch.no_grad():
        for name, x in [*model.named_parameters(), *model.named_buffers()]:
            if not x.is_floating_point():
                continue
            values = generator.standard_normal(tuple(x.shape))
            if name.endswith("running_var"):
                values = 0.5 + np.abs(values)
            elif x.ndim > 1:
                values = values * np.sqrt(2 / (x.numel() / len(x)))
            elif not bias and name.endswith(("bias", "running_mean")):
                values = 0 * values
            x.copy_(torch.from_numpy(values))
