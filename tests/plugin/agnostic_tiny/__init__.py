"""A backend for agnostic: one small network in NumPy. Importing this package imports nothing heavy."""

from agnostic.registry import Registration

registration = Registration(
    name="tiny",
    model_classes=("agnostic_tiny.backend:Tiny",),
    requires="numpy",
    extra="agnostic-tiny",
    provides=dict.fromkeys(("layers", "inputs", "taps", "ascent", "models", "weights", "ops"), "agnostic_tiny.backend"),
)
