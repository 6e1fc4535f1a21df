"""Second names for the layers of networks that another framework made famous under other names.

Keras names the layers of VGG ``block1_conv1`` ... ``block5_pool``, ``fc1``, ``fc2``, ``predictions``; torchvision
numbers them ``features.0`` ... ``classifier.6``. Here both choose the same layer.

One difference stays: a convolution of Keras' VGG has its ReLU inside, one of torchvision does not. So the output of
Keras' ``block1_conv1`` is the output of ``block1_relu1`` (``features.1``) here, and ``block1_conv1`` here is the value
before the ReLU; likewise ``fc1`` and ``fc1_relu``. Keras' ``predictions`` has its softmax inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_CONV, _DENSE = "Conv2d", "Linear"
_INSIDE = {"BatchNorm2d": "bn", "ReLU": "relu"}


def aliases_of(family: str, leaves: Sequence[tuple[str, str]]) -> Mapping[str, tuple[str, ...]]:
    """The other names of a model's layers, for models that are known to have some.

    Args:
        family: of networks: ``"vgg"``; anything else has no other names.
        leaves: (name, kind) of every layer without children, in execution order, such as ``("features.0", "Conv2d")``.

    Returns:
        The other names by layer name; a layer that has none is left out, so an unknown family gives an empty mapping.
    """
    names = _FAMILIES.get(family)
    return {} if names is None else {name: (alias,) for name, alias in names(leaves).items()}


def _vgg(leaves: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Keras' names for torchvision's VGG11, 13, 16 and 19, with batch normalization or without."""
    found: dict[str, str] = {}
    block, conv = 1, 0
    for name, kind in leaves:
        if not name.startswith("features."):
            continue
        if kind == _CONV:
            conv += 1
            found[name] = f"block{block}_conv{conv}"
        elif kind in _INSIDE:
            found[name] = f"block{block}_{_INSIDE[kind]}{conv}"
        elif kind == "MaxPool2d":
            found[name] = f"block{block}_pool"
            block, conv = block + 1, 0

    head = [(name, kind) for name, kind in leaves if name.startswith("classifier.") and kind in (_DENSE, "ReLU")]
    dense = [name for name, kind in head if kind == _DENSE]
    # The last one gives the classes, however many a user's own head has before it.
    names = {name: f"fc{i}" for i, name in enumerate(dense[:-1], 1)} | dict.fromkeys(dense[-1:], "predictions")
    before = ""
    for name, kind in head:
        if kind == _DENSE:
            before = found[name] = names[name]
        elif before:
            found[name] = f"{before}_relu"
    return found


_FAMILIES = {"vgg": _vgg}
