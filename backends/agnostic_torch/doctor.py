"""What ``agnostic doctor`` looks at for the torch backend. Nothing is imported here."""

from __future__ import annotations

from collections.abc import Sequence

from agnostic.contracts.doctor import Advice, Package

_TORCH = """
import torch
devices = ["cpu"] + [f"cuda:{i} {torch.cuda.get_device_name(i)}" for i in range(torch.cuda.device_count())]
devices += ["mps"] if torch.backends.mps.is_available() else []
(torch.ones(2, 2) @ torch.ones(2, 2)).sum().item()
answer = {"version": torch.__version__, "devices": devices, "kernels": torch.backends.cpu.get_cpu_capability()}
"""
# A torchvision that was built for another torch fails at import, or at its first operator.
_TORCHVISION = """
import torch, torchvision
torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([1.0]), 0.5)
answer = {"version": torchvision.__version__}
"""


def packages() -> Sequence[Package]:
    """See :meth:`agnostic.contracts.doctor.Doctor.packages`."""
    return (
        Package("torch", _TORCH),
        Package(
            "torchvision",
            _TORCHVISION,
            built_for="torch",
            fix="each torchvision is built for one torch: pip install --upgrade --force-reinstall torch torchvision, "
            "without version numbers",
        ),
    )


def unusable(installed: Sequence[str]) -> Advice | None:
    """None: whether PyTorch works is found by importing it."""
    return None


def notes(installed: Sequence[str]) -> Sequence[Advice]:
    """None."""
    return ()
