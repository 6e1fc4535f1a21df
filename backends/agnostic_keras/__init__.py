"""The Keras 3 backend, on all its engines. Importing this package imports no framework; :mod:`.backend` does."""

from agnostic.backend import Registration

registration = Registration(
    name="keras",
    model_classes=("keras.src.layers.layer:Layer",),
    factory="agnostic_keras.backend:KerasBackend",
    requires="keras",
    extra="agnostic-ml[keras]",
    # Read by the C++ code of TensorFlow, which Keras imports on other engines too, and of XLA: 2 leaves errors.
    quiet={"TF_CPP_MIN_LOG_LEVEL": "2"},
)
