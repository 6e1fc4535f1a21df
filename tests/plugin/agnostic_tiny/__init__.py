"""A backend for agnostic: small networks in NumPy. Importing this package imports nothing heavy."""

from agnostic.registry import Facts, Registration

registration = Registration(
    name="tiny",
    requires="numpy",
    extra="agnostic-tiny",
    provides={
        **{name: f"agnostic_tiny.looking:{name}" for name in ("layers", "inputs", "taps", "calls", "description")},
        **{name: f"agnostic_tiny.storing:{name}" for name in ("models", "weights", "data", "augmentation")},
        **{name: f"agnostic_tiny.learning:{name}" for name in ("ops", "gradients", "ascent", "optimizers", "learning")},
    },
    model_classes=("agnostic_tiny.networks:Network",),
    array_classes=("agnostic_tiny.tape:Tensor",),
    optimizer_classes=("agnostic_tiny.learning:Optimizer",),
    facts=Facts(channels_last=True, kernels_last=True),
    specs={"tiny": "tiny:net"},
    weight_files=(".npz",),
    views={"batches": {"tiny": "agnostic_tiny.storing:stream"}},
)
