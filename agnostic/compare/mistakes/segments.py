"""A few layers in a row, taken apart so that two frameworks' ways to write the same can be compared part by part."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from agnostic.description import LayerDescription

_NOTHING = ("dropout", "stochastic_depth", "noise", "permute")


def parts(layers: Sequence[LayerDescription]) -> list[LayerDescription]:
    """The same computation in the smallest parts.

    A fused activation stands by itself, zeros that a layer of their own puts around a convolution are its padding, and
    what does nothing is left out.
    """
    found: list[LayerDescription] = []
    for layer in layers:
        found.extend(_apart(layer))
    return _padded(found)


def _apart(layer: LayerDescription) -> Iterator[LayerDescription]:
    name = layer.config.get("activation") or "linear"
    if layer.kind in ("lstm", "gru", "rnn"):
        yield layer
    elif layer.kind == "activation":
        if name != "linear":
            yield layer
    elif layer.kind not in _NOTHING or layer.config.get("training"):
        yield layer.replace(activation="linear", activation_options={})
        if name != "linear":
            shared = {key: layer.config[key] for key in ("framework", "data_format", "class") if key in layer.config}
            options = layer.config.get("activation_options") or {}
            yield LayerDescription(
                layer.name, "activation", {**shared, "activation": name, "activation_options": options, "fused": True}
            )


def separated(layers: Sequence[LayerDescription]) -> list[LayerDescription]:
    """The same parts, each separable convolution as the depthwise and the pointwise one that it is."""
    found: list[LayerDescription] = []
    for layer in layers:
        if layer.kind != "separable_conv":
            found.append(layer)
            continue
        ones = (1,) * len(layer.config["strides"])
        nothing: dict[str, Any] = dict.fromkeys(("depthwise_kernel", "pointwise_kernel", "bias"))
        depthwise = {**nothing, "kernel": layer.weights["depthwise_kernel"]}
        pointwise = {**nothing, "kernel": layer.weights["pointwise_kernel"], "bias": layer.weights.get("bias")}
        point = {"kernel_size": ones, "strides": ones, "dilation": ones, "padding": ((0, 0),) * len(ones), "groups": 1}
        found.append(layer.replace(kind="depthwise_conv", weights=depthwise))
        found.append(layer.replace(kind="conv", weights=pointwise, **point))
    return found


def _padded(layers: list[LayerDescription]) -> list[LayerDescription]:
    found: list[LayerDescription] = []
    for layer in layers:
        merged = _with_its_padding(found[-1], layer) if found and found[-1].kind == "padding" else None
        if merged is None:
            found.append(layer)
        else:
            found[-1] = merged
    return found


def _with_its_padding(before: LayerDescription, layer: LayerDescription) -> LayerDescription | None:
    """A padding layer and what follows it as one layer that pads; None where none computes the same."""
    value, padding = before.config.get("value") or 0.0, layer.config.get("padding")
    if before.config.get("mode", "constant") != "constant" or padding == "same":
        return None
    outer: Any = before.config["padding"]
    inner: Any = ((0, 0),) * len(outer) if padding in ("valid", None) else padding
    both = tuple((a + c, b + d) for (a, b), (c, d) in zip(outer, inner, strict=True))
    plain = not any(map(any, inner)) and not layer.config.get("ceil_mode")
    if layer.kind in ("conv", "depthwise_conv") and value == 0:
        return _replaced(layer, padding=both, padded_apart=True)
    if layer.kind == "average_pool" and value == 0 and plain:
        # Zeros that a layer put there are counted.
        return _replaced(layer, padding=both, count_include_pad=True, padded_apart=True)
    if layer.kind == "max_pool" and plain and value in (0.0, -float("inf")):
        return _replaced(layer, padding=both, padded_apart=True, padding_value=0.0 if value == 0 else None)
    return None


def _replaced(layer: LayerDescription, **config: Any) -> LayerDescription:
    found: LayerDescription = layer.replace(**config)
    return found


def pairs(a: Sequence[LayerDescription], b: Sequence[LayerDescription]) -> list[tuple[int | None, int | None]]:
    """Which part of A stands for which of B; None where there is none."""
    matcher = difflib.SequenceMatcher(None, [x.kind for x in a], [x.kind for x in b], autojunk=False)
    found: list[tuple[int | None, int | None]] = []
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        both = min(i_end - i, j_end - j) if tag in ("equal", "replace") else 0
        found += [(i + k, j + k) for k in range(both)]
        found += [(k, None) for k in range(i + both, i_end)]
        found += [(None, k) for k in range(j + both, j_end)]
    return found
