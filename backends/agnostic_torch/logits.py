"""What a softmax or a sigmoid was computed from, however it is written: as a module, a function or a method."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SQUASHING = frozenset({
    torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax, torch.log_softmax, Tensor.log_softmax,
    F.log_softmax, torch.special.log_softmax, torch.sigmoid, Tensor.sigmoid, F.sigmoid, torch.special.expit,
    F.logsigmoid,
})  # fmt: skip

_MOVING = frozenset({
    Tensor.float, Tensor.double, Tensor.half, Tensor.bfloat16, Tensor.to, Tensor.type, Tensor.type_as, Tensor.clone,
    torch.clone, Tensor.contiguous, Tensor.squeeze, torch.squeeze, Tensor.unsqueeze, torch.unsqueeze, Tensor.view,
    Tensor.view_as, Tensor.reshape, torch.reshape, Tensor.flatten, torch.flatten, Tensor.transpose, torch.transpose,
    Tensor.permute, torch.permute, Tensor.__getitem__,
})  # fmt: skip
"""What leaves each number what it is: done to the values before, it gives the values before its result."""


class Logits(TorchFunctionMode):
    """Inside, remembers for the result of every softmax or sigmoid what it was computed from."""

    def __init__(self) -> None:
        super().__init__()
        # The results are kept as well, so that no other tensor takes their identity.
        self._before: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = args[0] if args else (kwargs or {}).get("input")
        if isinstance(result, Tensor) and isinstance(given, Tensor):
            if func in _SQUASHING:
                self._before[id(result)] = result, given
            elif func in _MOVING and id(given) in self._before and result is not given:
                self._before[id(result)] = result, func(self._before[id(given)][1], *args[1:], **(kwargs or {}))
        return result

    def before(self, result: Tensor) -> Tensor | None:
        """What a tensor was computed from by a softmax or a sigmoid; None where it is the result of neither."""
        found = self._before.get(id(result))
        return None if found is None else found[1]
