"""An example of a backend for a real framework: Flax's nnx modules, with taps, ascent, weights and gradients."""

from agnostic.registry import Registration

_CAPABILITIES = ("layers", "inputs", "taps", "ops", "ascent", "weights", "gradients")

registration = Registration(
    name="flax",
    title="Flax",
    requires="flax",
    extra="flax",
    provides={name: f"agnostic_flax.backend:{name}" for name in _CAPABILITIES},
    model_classes=("flax.nnx:Module",),
)
