"""The Keras 3 backend, on all its engines. Importing this package imports no framework; its modules do."""

from agnostic.registry import Facts, Registration

_CAPABILITIES = (
    "ascent", "attribution", "augmentation", "calls", "copies", "data", "description", "devices", "doctor", "ensembles",
    "fixes", "gradients", "guards", "inputs", "layers", "learning", "models", "ops", "optimizers", "ported", "program",
    "recording", "taps", "transfer", "weights", "writer",
)  # fmt: skip

registration = Registration(
    name="keras",
    title="Keras",
    requires="keras",
    extra="agnostic-ml[keras]",
    provides={name: f"agnostic_keras.{name}" for name in _CAPABILITIES},
    model_classes=("keras:Layer",),
    # Those of its engines jax and tensorflow, which need no Keras; torch's belong to the torch backend.
    array_classes=(
        "keras:Variable",
        "keras:KerasTensor",
        "jax:Array",
        "tensorflow:Tensor",
        "tensorflow:Variable",
        "tensorflow:RaggedTensor",
    ),
    optimizer_classes=("keras:Optimizer",),
    facts=Facts(
        rate_schedules=True,
        attention_inputs=("query", "value", "key"),
        set_inference="call its layers with training=False",
    ),
    specs={"keras": "keras:VGG16"},
    model_files=(".keras",),
    weight_files=(".keras", ".weights.h5", ".safetensors"),
    engines=("torch", "jax", "tensorflow"),
    engine_variable="KERAS_BACKEND",
    views={
        "augmentation": {
            "keras_layer": "agnostic_keras.augmentation:augmentation_layer",
            "tensorflow_map": "agnostic_keras.augmentation:tensorflow_map",
        },
        "batches": {
            "keras": "agnostic_keras.batches:ImageSequence",
            "keras_stream": "agnostic_keras.batches:ImageStream",
        },
    },
    # Read by the C++ code of TensorFlow, which Keras imports on other engines too, and of XLA: 2 leaves errors.
    quiet={"TF_CPP_MIN_LOG_LEVEL": "2"},
)
