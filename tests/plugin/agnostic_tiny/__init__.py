"""A backend for agnostic: one small network in NumPy. Importing this package imports nothing heavy."""

from agnostic.backend import Registration

registration = Registration(
    name="tiny",
    model_classes=("agnostic_tiny.backend:Tiny",),
    factory="agnostic_tiny.backend:TinyBackend",
    requires="numpy",
    extra="agnostic-tiny",
)
