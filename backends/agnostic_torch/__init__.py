"""The PyTorch backend. Importing this package imports no framework; :mod:`agnostic_torch.backend` does."""

from agnostic.backend import Registration

registration = Registration(
    name="torch",
    model_classes=("torch.nn.modules.module:Module",),
    factory="agnostic_torch.backend:TorchBackend",
    requires="torch",
    extra="agnostic-ml[torch]",
)
