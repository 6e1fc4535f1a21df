"""The Keras 3 backend, on all its engines. Importing this package imports no framework; :mod:`.backend` does."""

from agnostic.backend import Registration

registration = Registration(
    name="keras",
    model_classes=("keras.src.layers.layer:Layer",),
    factory="agnostic_keras.backend:KerasBackend",
    requires="keras",
    extra="agnostic-ml[keras]",
)
