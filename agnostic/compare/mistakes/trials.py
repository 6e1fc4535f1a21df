"""What can be tried at a layer: B corrected by one of A's entries, or A with a mistake put in.

Where B's description is the whole truth (computing it gives what B gave), B is corrected and compared with A. Where it
is not, because B's class computes otherwise or cannot be described, A is spoiled and compared with what B gave.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from agnostic.compare.mistakes import weights as weight
from agnostic.compare.mistakes.relations import ACTIVATIONS, words
from agnostic.compare.mistakes.segments import pairs
from agnostic.description import Array, LayerDescription

LayerDescriptions = Sequence[LayerDescription]


@dataclass(frozen=True)
class Trial:
    """One mistake at one place.

    Attributes:
        mistake: a key of the catalogue.
        layers: what to compute.
        against: ``"truth"``: the layers are B without the mistake. ``"output"``: they are A with it.
        values, note: for the words.
        layer: B's layer.
    """

    mistake: str
    layers: LayerDescriptions
    against: Literal["truth", "output"]
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    layer: str = ""


# Mending B ------------------------------------------------------------------------------------------------------------
Slots = list[LayerDescription | None]
DescriptionChange = Callable[[LayerDescription], LayerDescription | None]
Edited = Callable[[Slots], Slots]


@dataclass(frozen=True)
class _Edit:
    mistake: str
    apply: Edited
    values: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    layer: str = ""


def corrected(a: LayerDescriptions, b: LayerDescriptions) -> Iterator[Trial]:
    """B with one difference from A taken out, then with two, then with all."""
    edits = list(_edits(a, b))
    start: Slots = list(b)
    for edit in edits:
        yield _trial(edit.mistake, edit.apply(start), edit.values, edit.note, edit.layer)
    for one, two in itertools.islice(itertools.combinations(edits, 2), 60):
        note = f"{one.note}; and also: {two.mistake.replace('_', ' ')} {two.note}".strip("; ")
        yield _trial(one.mistake, two.apply(one.apply(start)), one.values, note, one.layer)
    config = [x for x in edits if not x.mistake.startswith("weights")]
    if len(config) > 2:
        layers = start
        for edit in edits:
            layers = edit.apply(layers)
        names = ", ".join(dict.fromkeys(x.mistake.replace("_", " ") for x in edits[1:]))
        yield _trial(edits[0].mistake, layers, edits[0].values, f"and also: {names}", edits[0].layer)


def _trial(
    mistake: str, layers: Sequence[LayerDescription | None], values: Mapping[str, Any], note: str, layer: str
) -> Trial:
    return Trial(mistake, [x for x in layers if x is not None], "truth", values, note, layer)


def _edits(a: LayerDescriptions, b: LayerDescriptions) -> Iterator[_Edit]:
    """One for each difference. Positions are kept: what is taken out leaves None, and what is put in stands beside."""
    matched = pairs(a, b)
    for i, j in matched:
        if i is not None and j is not None and a[i].kind == b[j].kind:
            if a[i].kind == "attention" and a[i].config.get("heads") != b[j].config.get("heads"):
                values = {"a": a[i].config.get("heads"), "b": b[j].config.get("heads")}
                yield _Edit("attention_heads", _changing(j, functools.partial(_split, a[i])), values, "", b[j].name)
                continue
            for mistake, config, values, note in entries(a[i], b[j]):
                yield _Edit(mistake, _changing(j, functools.partial(_with, config, {})), values, note, b[j].name)
    for i, j in matched:
        if i is not None and j is not None and a[i].kind != b[j].kind:
            mistake, values = _other_kind(a[i], b[j])
            own = {n: x for n, x in b[j].weights.items() if n in a[i].weights and x.shape == a[i].weights[n].shape}
            new = a[i].replace(weights=own)
            yield _Edit(mistake, _changing(j, functools.partial(_instead, new)), values, "", b[j].name)
    yield from _structure(a, b, matched)
    changed: list[_Edit] = []
    for i, j in matched:
        if i is None or j is None or a[i].kind != b[j].kind:
            continue
        names = weight.differing(a[i], b[j])
        if names:
            mistake, values, note = weight.name_of(a[i], b[j], names)
            theirs = {n: a[i].weights.get(n) for n in names}
            changed.append(_Edit(mistake, _changing(j, functools.partial(_with, {}, theirs)), values, note, b[j].name))
    yield from changed
    if len(changed) > 1:
        mistakes = {x.mistake for x in changed}
        mistake = mistakes.pop() if len(mistakes) == 1 else "weights_differ"
        yield _Edit(mistake, _all(changed), changed[0].values, changed[0].note, changed[0].layer)


def _changing(j: int, change: DescriptionChange) -> Edited:
    """Another layer at one position; None takes it out."""

    def apply(layers: Slots) -> Slots:
        old = layers[j]
        return [*layers[:j], None if old is None else change(old), *layers[j + 1 :]]

    return apply


def _all(edits: Sequence[_Edit]) -> Edited:
    return lambda layers: functools.reduce(lambda now, edit: edit.apply(now), edits, layers)


def _structure(
    a: LayerDescriptions, b: LayerDescriptions, matched: Sequence[tuple[int | None, int | None]]
) -> Iterator[_Edit]:
    """A layer that one side has too much or too little, or two that changed places."""
    position = 0
    for i, j in matched:
        if j is not None:
            position = j + 1
        if i is not None and j is None:
            yield _Edit(
                "activation_missing" if a[i].kind == "activation" else "layer_missing",
                _inserting(position, a[i]), {"a": said(a[i])}, "", b[max(position - 1, 0)].name if b else "",
            )  # fmt: skip
        if i is None and j is not None:
            alike = any(x.kind == b[j].kind and _activation(x) == _activation(b[j]) for x in a)
            kind = "activation" if b[j].kind == "activation" else "layer"
            mistake = f"{kind}_doubled" if alike and kind == "activation" else f"{kind}_extra"
            yield _Edit(mistake, _changing(j, lambda old: None), {"b": said(b[j])}, "", b[j].name)
    for j in range(len(b) - 1):
        turned = [*b[:j], b[j + 1], b[j], *b[j + 2 :]]
        if [x.kind for x in turned] == [x.kind for x in a]:
            order = ", ".join(said(x) for x in a)
            yield _Edit("layer_order", _placing(turned), {"a": order}, "", b[j].name)


def _split(a: LayerDescription, layer: LayerDescription) -> LayerDescription:
    """An attention with A's heads."""
    own = {n: w.reshape(a.weights[n].shape) for n, w in layer.weights.items() if n in a.weights}
    changed: LayerDescription = layer.replace(
        weights=own, **{k: a.config.get(k) for k in ("heads", "key_dim", "scale")}
    )
    return changed


def _instead(new: LayerDescription, old: LayerDescription) -> LayerDescription:
    return new


def _placing(new: LayerDescriptions) -> Edited:
    return lambda layers: list(new)


def _with(config: Mapping[str, Any], weights: Mapping[str, Any], layer: LayerDescription) -> LayerDescription:
    changed: LayerDescription = layer.replace(weights=weights, **config)
    return changed


def _inserting(j: int, new: LayerDescription) -> Edited:
    # At the end of the list positions stay what they are, in the middle only without another edit behind.
    return lambda layers: [*layers[:j], new, *layers[j:]]


def said(layer: LayerDescription) -> str:
    """A layer in a word or two."""
    if layer.kind == "activation":
        return words(str(layer.config.get("activation")), layer.config.get("activation_options"))
    return layer.kind.replace("_", " ")


def _activation(layer: LayerDescription) -> Any:
    return layer.config.get("activation"), layer.config.get("activation_options")


def _other_kind(a: LayerDescription, b: LayerDescription) -> tuple[str, dict[str, Any]]:
    kinds = {a.kind, b.kind}
    if kinds in ({"conv", "depthwise_conv"}, {"conv", "separable_conv"}):
        return "groups", {"a": a.config.get("groups", "as many as channels")}
    if all("pool" in kind for kind in kinds):
        return "pool_kind", {"a": said(a), "b": said(b)}
    if a.kind == "activation":
        return "layer_kind", {"a": said(a), "b": said(b)}
    return "layer_kind", {"a": said(a), "b": said(b)}


# Differences of entries -----------------------------------------------------------------------------------------------
EntryTrial = tuple[str, dict[str, Any], dict[str, Any], str]
"""Mistake, entries to change in B, values for the words, a clause."""

_SIMPLE: Mapping[str, Sequence[tuple[str, str]]] = {
    "conv": (("strides", "strides"), ("dilation", "dilation"), ("padding_mode", "padding_mode"), ("groups", "groups")),
    "depthwise_conv": (("strides", "strides"), ("dilation", "dilation"), ("padding_mode", "padding_mode")),
    "separable_conv": (("strides", "strides"), ("dilation", "dilation")),
    "conv_transpose": (("strides", "strides"), ("dilation", "dilation"), ("crop", "transposed_padding")),
    "batch_norm": (("training", "train_mode"), ("epsilon", "batch_norm_epsilon")),
    "layer_norm": (("epsilon", "layer_norm_epsilon"), ("axes", "norm_axes")),
    "rms_norm": (("epsilon", "norm_epsilon"), ("axes", "norm_axes")),
    "group_norm": (("groups", "norm_groups"), ("epsilon", "norm_epsilon")),
    "max_pool": (
        ("pool_size", "pool_size"),
        ("strides", "strides"),
        ("ceil_mode", "ceil_mode"),
        ("dilation", "dilation"),
        ("padding_value", "max_pool_padding"),
    ),
    "average_pool": (
        ("count_include_pad", "average_pool_padding"),
        ("uneven", "average_pool_padding"),
        ("pool_size", "pool_size"),
        ("strides", "strides"),
        ("ceil_mode", "ceil_mode"),
        ("divisor", "average_pool_padding"),
    ),
    "adaptive_pool": (("mode", "pool_kind"), ("output_size", "pool_size")),
    "flatten": (("order", "flatten_order"),),
    "lstm": (
        ("go_backwards", "direction"),
        ("recurrent_activation", "recurrent_activation"),
        ("activation", "recurrent_activation"),
        ("return_sequences", "return_sequences"),
    ),
    "gru": (
        ("reset_after", "reset_after"),
        ("go_backwards", "direction"),
        ("recurrent_activation", "recurrent_activation"),
        ("activation", "recurrent_activation"),
        ("return_sequences", "return_sequences"),
    ),
    "rnn": (
        ("go_backwards", "direction"),
        ("activation", "recurrent_activation"),
        ("return_sequences", "return_sequences"),
    ),
    "attention": (("scale", "attention_scale"), ("causal", "attention_mask")),
    "concatenate": (("axis", "concatenation_order"),),
    "padding": (("padding", "padding"), ("mode", "padding_mode"), ("value", "padding_mode")),
    "crop": (("padding", "padding"),),
    "rescaling": (("factor", "preprocessing_range"), ("offset", "preprocessing_range")),
}

_UNSAID: Mapping[str, Any] = {
    "go_backwards": False,
    "causal": None,
    "reset_after": True,
    "padding_value": None,
    "uneven": None,
    "divisor": None,
}


def entries(a: LayerDescription, b: LayerDescription) -> Iterator[EntryTrial]:
    """The differences of two layers of one kind, each as what to change in B."""
    if a.kind == "activation":
        yield from _activation_entries(a, b)
        return
    for key, mistake in _SIMPLE.get(a.kind, ()):
        ours, theirs = a.config.get(key, _UNSAID.get(key)), b.config.get(key, _UNSAID.get(key))
        if ours != theirs and not (key in ("dilation",) and {ours, theirs} <= {None, (1,), (1, 1), (1, 1, 1)}):
            yield (
                mistake,
                {key: ours},
                {"a": _value(ours), "b": _value(theirs)},
                f"{_value(theirs)} where A has {_value(ours)}",
            )
    if a.kind in ("conv", "depthwise_conv", "separable_conv", "max_pool", "average_pool"):
        yield from _padding_entries(a, b)
    if a.kind == "resize":
        yield from _resize_entries(a, b)


def _value(x: Any) -> str:
    if isinstance(x, tuple) and x and len(set(x)) == 1 and not isinstance(x[0], tuple):
        return str(x[0])
    return f"{x:.6g}" if isinstance(x, float) else str(x)


def _padding_entries(a: LayerDescription, b: LayerDescription) -> Iterator[EntryTrial]:
    ours, theirs = a.config.get("padding"), b.config.get("padding")
    if _plain(ours) == _plain(theirs):
        return
    changed: dict[str, Any] = {"padding": ours}
    if a.kind == "average_pool":
        changed["count_include_pad"] = a.config.get("count_include_pad")
    strided = max(a.config.get("strides") or (1,)) > 1
    if "same" in (ours, theirs):
        mistake = "same_padding"
    elif a.config.get("padded_apart") or b.config.get("padded_apart") or strided:
        mistake = "pad_then_stride"
    else:
        mistake = "padding"
    yield mistake, changed, {"a": ours, "b": theirs}, f"{theirs} where A has {ours}"


def _plain(padding: Any) -> Any:
    return "valid" if isinstance(padding, tuple) and not any(map(any, padding)) else padding


def _resize_entries(a: LayerDescription, b: LayerDescription) -> Iterator[EntryTrial]:
    def pick(*keys: str) -> dict[str, Any]:
        return {key: a.config.get(key) for key in keys}

    def values(key: str) -> dict[str, Any]:
        return {"a": a.config.get(key), "b": b.config.get(key)}

    one, two = bool(a.config.get("align_corners")), bool(b.config.get("align_corners"))
    interpolation = a.config.get("interpolation") != b.config.get("interpolation")
    if interpolation:
        # Nearest has no corners to align: what else differs comes with it.
        note = f"{b.config.get('interpolation')} where A has {a.config.get('interpolation')}"
        keys = ("interpolation", "align_corners", "half_pixel", "antialias")
        changed = {"cubic": a.config.get("cubic", -0.75), "edges": a.config.get("edges", "clamp")}
        yield "interpolation", {**pick(*keys), **changed}, values("interpolation"), note
        return
    if one != two:
        yield "align_corners", pick("align_corners", "half_pixel"), values("align_corners"), ""
    elif a.config.get("half_pixel") != b.config.get("half_pixel"):
        yield "half_pixel", pick("half_pixel"), values("half_pixel"), ""
    if bool(a.config.get("antialias")) != bool(b.config.get("antialias")):
        yield "antialias", pick("antialias"), values("antialias"), ""
    if a.config.get("cubic", -0.75) != b.config.get("cubic", -0.75) and a.config.get("interpolation") == "bicubic":
        yield (
            "cubic",
            {"cubic": a.config.get("cubic", -0.75), "edges": a.config.get("edges", "clamp")},
            values("cubic"),
            "",
        )


def _activation_entries(a: LayerDescription, b: LayerDescription) -> Iterator[EntryTrial]:
    ours, theirs = str(a.config.get("activation")), str(b.config.get("activation"))
    one, two = dict(a.config.get("activation_options") or {}), dict(b.config.get("activation_options") or {})
    if ours == theirs and one == two:
        return
    changed = {"activation": ours, "activation_options": one, "data_format": a.config.get("data_format")}
    yield _activation_name(ours, theirs, one, two), changed, _activation_values(ours, theirs, one, two), ""


def activation_difference(
    a: tuple[str, Mapping[str, Any]], b: tuple[str, Mapping[str, Any]]
) -> tuple[str, dict[str, Any]]:
    """What tells B's activation from A's: (mistake, values for its words)."""
    if b[0] == "linear":
        return "activation_missing", {"a": words(*a)}
    if a[0] == "linear":
        return "activation_extra", {"b": words(*b)}
    return _activation_name(a[0], b[0], a[1], b[1]), _activation_values(a[0], b[0], a[1], b[1])


def _activation_name(ours: str, theirs: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> str:
    if {ours, theirs} == {"gelu", "gelu_tanh"}:
        return "gelu_tanh"
    if ours == theirs and "axis" in one and one.get("axis") != two.get("axis"):
        return "softmax_axis"
    if ours == theirs and one.get("negative_slope") != two.get("negative_slope"):
        return "activation_slope"
    return "activation_differs"


def _activation_values(ours: str, theirs: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, Any]:
    if {ours, theirs} == {"gelu", "gelu_tanh"}:
        # The same word in both frameworks, but PyTorch's is 'tanh' or 'none'.
        return {"a": ours == "gelu_tanh", "b": theirs == "gelu_tanh"}
    if ours == theirs and "axis" in one:
        return {"a": one.get("axis"), "b": two.get("axis")}
    if ours == theirs and "negative_slope" in one:
        return {"a": one["negative_slope"], "b": two.get("negative_slope")}
    return {"a": words(ours, one), "b": words(theirs, two)}


# Spoiling A -----------------------------------------------------------------------------------------------------------
def spoiling(layers: LayerDescriptions, against: Literal["truth", "output"]) -> Iterator[Trial]:
    """A with each mistake that its kinds of layers can have, one at a time; or B without it, by the same changes."""
    layers = list(layers)
    for i, layer in enumerate(layers):
        for mistake, new, values, note in variants(layer):
            yield Trial(mistake, [*layers[:i], new, *layers[i + 1 :]], against, values, note, layer.name)
    for i, layer in enumerate(layers):
        rest = [*layers[:i], *layers[i + 1 :]]
        if rest:
            missing, extra = ("missing", "extra") if against == "output" else ("extra", "missing")
            kind = "activation" if layer.kind == "activation" else "layer"
            mistake = f"{kind}_{missing if against == 'output' else extra}"
            yield Trial(mistake, rest, against, {"a": said(layer), "b": said(layer)}, "", layer.name)
        if layer.kind == "activation":
            doubled = [*layers[: i + 1], layer, *layers[i + 1 :]]
            yield Trial("activation_doubled", doubled, against, {"b": said(layer)}, "", layer.name)
    if layers and layers[-1].kind != "activation":
        for name, options in ACTIVATIONS:
            extra_one = LayerDescription(
                layers[-1].name, "activation", {"activation": name, "activation_options": options}
            )
            yield Trial(
                "activation_extra", [*layers, extra_one], against, {"b": words(name, options)}, "", layers[-1].name
            )
    for i in range(len(layers) - 1):
        turned = [*layers[:i], layers[i + 1], layers[i], *layers[i + 2 :]]
        order = ", ".join(said(x) for x in layers)
        yield Trial("layer_order", turned, against, {"a": order}, "", layers[i].name)


DescriptionVariant = tuple[str, LayerDescription, dict[str, Any], str]

_EPSILONS = (1e-3, 1e-5, 1e-6, 1e-12, 1e-7, 1e-8, 1e-4, 1e-2, 0.0)


def variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    """A layer with each of the mistakes that its kind can have."""
    config = x.config
    if x.kind in ("batch_norm", "layer_norm", "group_norm", "rms_norm"):
        yield from _norm_variants(x)
    elif x.kind in ("conv", "depthwise_conv", "separable_conv"):
        yield from _conv_variants(x)
    elif x.kind == "conv_transpose":
        for shift in ((1, -1), (-1, 1), (1, 1), (-1, -1)):
            crop = tuple((low + shift[0], high + shift[1]) for low, high in config["crop"])
            yield "transposed_padding", x.replace(crop=crop), {"a": config["crop"]}, ""
    elif x.kind in ("max_pool", "average_pool"):
        yield from _pool_variants(x)
    elif x.kind in ("global_average_pool", "global_max_pool"):
        other = "global_max_pool" if x.kind == "global_average_pool" else "global_average_pool"
        yield "pool_kind", x.replace(kind=other), {"a": said(x), "b": other.replace("_", " ")}, ""
    elif x.kind == "activation":
        for name, options in ACTIVATIONS:
            new = x.replace(activation=name, activation_options=options, data_format=None)
            ours, one = str(config.get("activation")), config.get("activation_options") or {}
            if (name, dict(options)) != (ours, dict(one)):
                mistake = _activation_name(ours, name, one, options)
                yield mistake, new, _activation_values(ours, name, one, options), ""
        if config.get("activation") in ("softmax", "log_softmax"):
            for axis in (1, 2, 3):
                new = x.replace(activation_options={"axis": axis}, data_format=None)
                yield "softmax_axis", new, {"a": (config.get("activation_options") or {}).get("axis")}, ""
    elif x.kind == "resize":
        yield from _resize_variants(x)
    elif x.kind in ("lstm", "gru", "rnn"):
        yield from _recurrent_variants(x)
    elif x.kind == "attention":
        yield from _attention_variants(x)
    elif x.kind == "flatten":
        other = "channels_last" if config.get("order") == "channels_first" else "channels_first"
        yield "flatten_order", x.replace(order=other), {}, ""
    yield from _weight_variants(x)


def _norm_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    key = {"batch_norm": "batch_norm_epsilon", "layer_norm": "layer_norm_epsilon"}.get(x.kind, "norm_epsilon")
    if x.kind == "batch_norm":
        yield (
            "train_mode",
            x.replace(training=not x.config.get("training")),
            {"a": x.config.get("training"), "b": not x.config.get("training")},
            "",
        )
        if {"moving_mean", "moving_variance"} <= x.weights.keys():
            mean, variance = x.weights["moving_mean"], x.weights["moving_variance"]
            plain = {"moving_mean": np.zeros_like(mean), "moving_variance": np.ones_like(variance)}
            yield "statistics_missing", x.replace(weights=plain), {}, ""
            if (mean >= 0).all():
                yield (
                    "mean_variance_swapped",
                    x.replace(weights={"moving_mean": variance, "moving_variance": mean}),
                    {},
                    "",
                )
    for epsilon in _EPSILONS:
        if epsilon != x.config["epsilon"]:
            note = f"{epsilon:g} where A has {x.config['epsilon']:g}"
            yield key, x.replace(epsilon=epsilon), {"a": x.config["epsilon"], "b": epsilon}, note
    if x.kind == "group_norm":
        channels = next((len(w) for w in x.weights.values()), 0)
        for groups in (n for n in range(1, channels + 1) if channels % n == 0):
            if groups != x.config["groups"]:
                yield "norm_groups", x.replace(groups=groups), {"a": x.config["groups"], "b": groups}, ""
    if x.kind == "layer_norm":
        for axes in ((-1,), (-2, -1), (-3, -2, -1)):
            if axes != x.config["axes"]:
                yield "norm_axes", x.replace(axes=axes), {"a": x.config["axes"], "b": axes}, ""


def _conv_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    config, rank = x.config, int(x.config.get("rank", 2))
    ours, size = config["padding"], config["kernel_size"]
    strided = max(config["strides"]) > 1
    if ours != "same":
        yield "same_padding", x.replace(padding="same"), {"a": ours, "b": "same"}, ""
    tried = []
    for k in range(3):
        tried += [((k, k),) * rank, ((k, k + 1),) * rank, ((k + 1, k),) * rank]
    tried.append(tuple((n // 2, n // 2) for n in size))
    for padding in tried:
        if padding != ours:
            mistake = "same_padding" if ours == "same" else "pad_then_stride" if strided else "padding"
            yield mistake, x.replace(padding=padding), {"a": ours, "b": padding}, f"{padding} where A has {ours}"
    for mode in ("reflect", "replicate", "circular", "zeros"):
        if mode != config.get("padding_mode", "zeros"):
            yield "padding_mode", x.replace(padding_mode=mode), {"a": config.get("padding_mode", "zeros")}, ""
    for d in (1, 2, 3):
        if config["dilation"] != (d,) * rank:
            note = f"{d} where A has {_value(config['dilation'])}"
            yield "dilation", x.replace(dilation=(d,) * rank), {"a": _value(config["dilation"])}, note
            if isinstance(ours, tuple):
                padding = tuple(((k - 1) * d // 2,) * 2 for k in size)
                yield (
                    "dilation",
                    x.replace(dilation=(d,) * rank, padding=padding),
                    {"a": _value(config["dilation"])},
                    note,
                )
    for s in (1, 2, 3):
        if config["strides"] != (s,) * rank:
            yield "strides", x.replace(strides=(s,) * rank), {"a": _value(config["strides"])}, ""


def _pool_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    config = x.config
    rank = len(config["pool_size"])
    other = "average_pool" if x.kind == "max_pool" else "max_pool"
    for include in (True, False):
        new = x.replace(kind=other, count_include_pad=include)
        yield "pool_kind", new, {"a": said(x), "b": other.replace("_", " ")}, ""
    if x.kind == "average_pool":
        include = not config.get("count_include_pad")
        yield "average_pool_padding", x.replace(count_include_pad=include), {"a": not include}, ""
    else:
        yield "max_pool_padding", x.replace(padding_value=0.0), {}, ""
    strided = max(config["strides"]) > 1
    for padding in ("same", *(((a, b),) * rank for a in range(3) for b in range(3))):
        if padding != config["padding"]:
            mistake = (
                "same_padding"
                if "same" in (padding, config["padding"])
                else "pad_then_stride"
                if strided
                else "padding"
            )
            for value in (None, 0.0) if x.kind == "max_pool" else (None,):
                new = x.replace(padding=padding) if value is None else x.replace(padding=padding, padding_value=0.0)
                yield "max_pool_padding" if value == 0.0 else mistake, new, {"a": config["padding"], "b": padding}, ""
    yield "ceil_mode", x.replace(ceil_mode=not config.get("ceil_mode")), {"a": config.get("ceil_mode")}, ""
    for n in (2, 3):
        if config["pool_size"] != (n,) * rank:
            yield "pool_size", x.replace(pool_size=(n,) * rank), {"a": _value(config["pool_size"])}, ""
    for n in (1, 2, 3):
        if config["strides"] != (n,) * rank:
            yield "strides", x.replace(strides=(n,) * rank), {"a": _value(config["strides"])}, ""


def _resize_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    config = x.config
    for interpolation in ("nearest", "bilinear", "bicubic", "area"):
        for align, half in ((True, False), (False, True), (False, False)):
            for cubic, edges in (
                ((-0.75, "clamp"), (-0.5, "renormalize")) if interpolation == "bicubic" else ((-0.75, "clamp"),)
            ):
                new = x.replace(
                    interpolation=interpolation, align_corners=align, half_pixel=half, cubic=cubic, edges=edges
                )
                found = next(_resize_entries(x, new), None)
                if found is not None:
                    yield found[0], new, found[2], found[3]
    yield "antialias", x.replace(antialias=not config.get("antialias")), {"a": config.get("antialias")}, ""


def _recurrent_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    if x.kind == "gru":
        yield (
            "reset_after",
            x.replace(reset_after=not x.config.get("reset_after", True)),
            {"a": x.config.get("reset_after", True)},
            "",
        )
    gates = {"lstm": "ifco", "gru": "zrh", "rnn": "h"}[x.kind]
    for order in itertools.permutations(range(len(gates))):
        if order != tuple(range(len(gates))):
            moved = {}
            for name, w in x.weights.items():
                if name.rpartition(".")[2] in ("kernel", "recurrent_kernel", "bias"):
                    split = np.split(w, len(gates), axis=-1)
                    moved[name] = np.concatenate([split[g] for g in order], -1)
            note = f"in the order {''.join(gates[g] for g in order)}"
            yield "gate_order", x.replace(weights=moved), {}, note
    yield (
        "direction",
        x.replace(go_backwards=not x.config.get("go_backwards")),
        {"a": bool(x.config.get("go_backwards"))},
        "",
    )
    for name in ("hard_sigmoid", "hard_sigmoid_fifth", "tanh"):
        yield (
            "recurrent_activation",
            x.replace(recurrent_activation=name),
            {"a": x.config.get("recurrent_activation")},
            name,
        )
    for name in ("relu", "sigmoid", "hard_tanh", "linear"):
        yield "recurrent_activation", x.replace(activation=name), {"a": x.config.get("activation")}, name


def _attention_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    size, heads = int(x.config["key_dim"]), int(x.config["heads"])
    for scale in (1.0, (size * heads) ** -0.5, 1.0 / size, heads**-0.5):
        if abs(scale - x.config["scale"]) > 1e-9:
            yield "attention_scale", x.replace(scale=scale), {"a": f"{x.config['scale']:.6g}"}, f"{scale:.6g}"
    yield "attention_mask", x.replace(causal=not x.config.get("causal")), {"a": bool(x.config.get("causal"))}, ""
    names = ("query", "key", "value")
    for order in itertools.permutations(range(3)):
        if order != (0, 1, 2):
            moved = {}
            for k, name in enumerate(names):
                for part in ("kernel", "bias"):
                    if f"{names[order[k]]}_{part}" in x.weights:
                        moved[f"{name}_{part}"] = x.weights[f"{names[order[k]]}_{part}"]
            yield "weights_permuted", x.replace(weights=moved), {}, ", ".join(names[k] for k in order)


def _weight_variants(x: LayerDescription) -> Iterator[DescriptionVariant]:
    weights = x.weights
    for name in weights:
        plain = name.rpartition(".")[2].removeprefix("output_")
        if plain in ("bias", "beta"):
            yield "bias_missing", x.replace(weights={name: np.zeros_like(weights[name])}), {}, ""
        elif plain in ("gamma", "scale"):
            yield (
                "scale_missing",
                x.replace(weights={name: np.ones_like(weights[name])}),
                {"a": "A's factor per channel"},
                "",
            )
    if {"gamma", "beta"} <= weights.keys():
        yield "gamma_beta_swapped", x.replace(weights={"gamma": weights["beta"], "beta": weights["gamma"]}), {}, ""
    kernel = weights.get("kernel")
    if kernel is None or kernel.ndim < 2 or x.kind in ("lstm", "gru", "rnn", "einsum_dense"):
        return
    spatial = tuple(range(kernel.ndim - 2))
    for n in range(len(spatial), 0, -1):
        for axes in itertools.combinations(spatial, n):
            yield "kernel_flipped", x.replace(weights={"kernel": np.flip(kernel, axes)}), {}, ""
    if len(spatial) == 2 and kernel.shape[0] == kernel.shape[1] > 1:
        yield (
            "kernel_transposed",
            x.replace(weights={"kernel": kernel.swapaxes(0, 1)}),
            {},
            "height and width are swapped",
        )
    if kernel.shape[-1] == kernel.shape[-2]:
        yield (
            "kernel_transposed",
            x.replace(weights={"kernel": kernel.swapaxes(-1, -2)}),
            {},
            "inputs and outputs are swapped",
        )
    if kernel.shape[-2] > 1:
        yield "channel_order", x.replace(weights={"kernel": np.flip(kernel, kernel.ndim - 2)}), {}, ""
    if x.kind == "conv":
        for g in {int(x.config.get("groups", 1)), 2, 4}:
            if g > 1 and kernel.shape[-1] % g == 0:
                mixed = kernel.reshape(*kernel.shape[:-1], g, -1).swapaxes(-1, -2).reshape(kernel.shape)
                yield (
                    "groups",
                    x.replace(weights={"kernel": np.ascontiguousarray(mixed)}),
                    {"a": x.config.get("groups", 1)},
                    "",
                )


def described_output(layers: LayerDescriptions) -> str | None:
    """The activation that a segment ends with, or None."""
    if layers and layers[-1].kind == "activation":
        return str(layers[-1].config.get("activation"))
    return None


__all__ = ["Array", "Trial", "corrected", "described_output", "entries", "said", "spoiling", "variants"]
