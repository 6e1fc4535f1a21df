"""Several PyTorch models as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agnostic.models.cards import Preprocessing
from agnostic_torch.ops import TorchOps


class Ensemble(nn.Module):
    """Models that are given the same images, each in its own range."""

    def __init__(self, members: Sequence[nn.Module], preprocessing: Sequence[Preprocessing | None], axes: str) -> None:
        super().__init__()
        for number, member in enumerate(members):
            self.add_module(str(number), member)
        self._preprocessing, self._axes = tuple(preprocessing), axes

    def forward(self, images: Tensor) -> Tensor | tuple[Any, ...]:
        """Images in [0, 1] to the mean of the outputs, or to all of them where they differ in shape."""
        # Not children(), which passes by a model that is a member twice.
        members = zip(self._modules.values(), self._preprocessing, strict=True)
        outputs = [member(self._prepared(images, own)) for member, own in members if member is not None]
        alike = all(isinstance(x, Tensor) for x in outputs) and len({x.shape for x in outputs}) == 1
        return torch.stack(outputs).mean(0) if alike else tuple(outputs)

    def _prepared(self, images: Tensor, preprocessing: Preprocessing | None) -> Tensor:
        if preprocessing is None:
            return images
        last = images.permute(*(self._axes.index(axis) for axis in "NHWC"))
        found: Tensor = preprocessing.apply(TorchOps(images.device), last)
        return found.permute(*("NHWC".index(axis) for axis in self._axes))


def ensemble(
    members: Sequence[nn.Module], preprocessing: Sequence[Preprocessing | None], axes: str, channels: int
) -> nn.Module:
    """See :meth:`agnostic.contracts.ensembles.Ensembles.ensemble`."""
    return Ensemble(members, preprocessing, axes).eval()
