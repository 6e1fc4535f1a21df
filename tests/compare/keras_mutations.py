"""Faults made by a rule in the source of Keras networks, on any engine: one call of one line, or one weight.

The networks are those of :mod:`tests.compare.architectures`, ported: source of one file, whose lines are changed.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np

import agnostic as ag
from agnostic.contracts.inputs import INPUTS
from tests.compare import architectures, mutations

FED_OTHERWISE = ("causal", "video", "siamese")
"""Networks whose inputs have another order of axes in Keras, which one array does not tell."""


def ported(folder: Path, names: Any = tuple(architectures.ARCHITECTURES)) -> None:
    """Write the ports; by a process without tensorflow, beside which torch.export does not run."""
    import torch

    for name in names:
        if name not in FED_OTHERWISE and not (folder / name).exists():
            model, x = architectures.made(name)
            given = tuple(map(torch.from_numpy, x)) if isinstance(x, tuple) else torch.from_numpy(x)
            ag.port(model, "keras", given, check=False).save(folder / name)


def source_of(folder: Path, name: str) -> Path:
    """The file of a port."""
    [found] = [x for x in (folder / name).glob("*.py") if not x.name.startswith("broken_")]
    return found


def built(file: Path, weights: Path) -> Any:
    """A model of a file."""
    from agnostic.port.verb import executed

    return executed(file).make_model(weights)


def _turned(inputs: Any) -> Any:
    """Inputs as a network of Keras takes them: images with the channels last."""
    return np.ascontiguousarray(np.moveaxis(inputs, 1, -1)) if getattr(inputs, "ndim", 0) == 4 else inputs


def right(folder: Path, name: str, *, itself: bool = False) -> tuple[Any, Any, Any]:
    """A network, or its port, its port once more, and its inputs."""
    source, inputs = architectures.made(name)
    file = source_of(folder, name)
    made = [built(file, file.with_suffix(".npz")) for _ in range(1 + itself)]
    return (made[0] if itself else source), made[-1], _turned(inputs) if itself else inputs


# Changes of one line -------------------------------------------------------------------------------------------------
_OTHERS = {"relu": "gelu", "gelu": "relu", "silu": "relu", "sigmoid": "tanh", "tanh": "sigmoid", "hard_silu": "silu",
           "hard_sigmoid": "sigmoid"}  # fmt: skip
_CALLED = "|".join(_OTHERS)


_NESTED = r"[^()]*(?:\([^()]*(?:\([^()]*(?:\([^()]*\)[^()]*)*\)[^()]*)*\)[^()]*)*?"
"""What stands between the parentheses of a call."""


def _other(match: re.Match[str]) -> str:
    return f"ops.{_OTHERS[match[1]]}({match[2]})"


RULES: tuple[tuple[str, str, Any, tuple[str, ...]], ...] = (
    ("epsilon", r"(BatchNormalization\(.*)epsilon=[\de.-]+", r"\1epsilon=0.05", ("batch_norm_epsilon",)),
    ("epsilon", r"(LayerNormalization\(.*)epsilon=[\de.-]+", r"\1epsilon=0.05", ("layer_norm_epsilon",)),
    ("epsilon", r"(GroupNormalization\(.*)epsilon=[\de.-]+", r"\1epsilon=0.05", ("norm_epsilon",)),
    ("groups", r"GroupNormalization\(2", r"GroupNormalization(1", ("norm_groups",)),
    ("replaced", rf"ops\.({_CALLED})\(({_NESTED})(?:, approximate=False)?\)", _other,
     ("activation_differs", "activation_slope", "gelu_tanh")),
    ("left out", rf"ops\.({_CALLED})\((.*)", lambda m: f"(lambda x, **_: x)({m[2]}",
     ("activation_missing", "layer_missing")),
    ("approximate", r"approximate=False", "approximate=True", ("gelu_tanh",)),
    ("slope", r"negative_slope=[\d.]+", "negative_slope=0.05", ("activation_slope",)),
    ("axis", r"ops\.softmax\(([^(),]+)\)", r"ops.softmax(\1, axis=-2)", ("softmax_axis",)),
    ("number", r"([*/]) ([\d.]+)$", r"\1 (1.5 * \2)",
     ("constant_factor", "attention_scale", "scale_missing", "constant_offset", "preprocessing_range")),
    ("order", r"ops\.concatenate\(\[(\w+), (\w+)", r"ops.concatenate([\2, \1", ("concatenation_order", "layer_order")),
    ("left out", r"return (\w+) \+ (self\.\w+\(.*)", r"return \1", ("residual_missing",)),
    ("left out", r"^(\s+)(\w+) = \2 \+ (.*)$", r"\1\2 = \2", ("residual_missing", "attention_mask")),
    ("left out", r" \+ self\.(position|table)", "", ("residual_missing", "attention_mask", "layer_missing")),
    ("left out", r"self\.gamma \* ", "", ("scale_missing", "layer_missing")),
    ("step", r"\[:, -1\]", "[:, 0]", ("sequence_step",)),
    ("step", r"\[:, 0\]", "[:, 1]", ("sequence_step",)),
    ("direction", r"ops\.roll\(ops\.roll\((.*), -1, axis=1\)", r"ops.roll(ops.roll(\1, 1, axis=1)",
     ("direction", "features_permuted")),
    ("pool", r"ops\.max_pool\(", "ops.average_pool(", ("pool_kind",)),
    ("pool", r"ops\.average_pool\(", "ops.max_pool(", ("pool_kind",)),
    ("method", r'"bilinear"\)', '"nearest")', ("interpolation", "half_pixel")),
    ("fill", r'float\("-inf"\)', "0.0", ("attention_mask",)),
    ("mean", r"ops\.mean\(", "ops.max(", ("pool_kind", "sequence_step")),
    ("sides", r"\(\(0, 0\), \(1, 1\), \(1, 1\), \(0, 0\)\)", "((0, 0), (0, 2), (0, 2), (0, 0))",
     ("same_padding", "padding", "pad_then_stride")),
    ("padding", r"(Conv2D\(\d+, 3, strides=2.*)padding=\"same\"", r'\1padding="valid"', ("padding", "pad_then_stride")),
    ("repeat", r"ops\.repeat\((\w+), 2, axis=2\)", r"ops.tile(\1, (1, 1, 2, 1))",
     ("features_permuted", "attention_heads", "layer_kind")),
)  # fmt: skip
"""What is done, where, what stands there then, and what names it rightly."""


def changes(text: str, rules: Any = RULES) -> Iterator[tuple[int, str, str, tuple[str, ...]]]:
    """(line, from 1; what is done; the new line; the right names)."""
    start = text.index("def resize") if "def resize" in text else len(text)
    skipped = range(
        text[:start].count("\n"), text[: text.find("@register", start)].count("\n") if start < len(text) else 0
    )
    for k, line in enumerate(text.split("\n")):
        if k in skipped or line.lstrip().startswith(("#", "around")):
            continue
        for name, pattern, new, mistakes in rules:
            for match in re.finditer(pattern, line):
                made = match.expand(new) if isinstance(new, str) else new(match)
                yield k + 1, name, line[: match.start()] + made + line[match.end() :], mistakes


# Changes of one weight -----------------------------------------------------------------------------------------------
_WEIGHTS: dict[str, tuple[tuple[str, ...], Callable[[Any], Any]]] = {
    "flipped": (("kernel_flipped", "weights_permuted", "channel_order"), lambda p: np.flip(p, 0)),
    "scaled": (("weights_scaled",), lambda p: p * 1.3),
    "zero": (
        ("bias_missing", "scale_missing", "statistics_missing", "weights_differ", "weights_scaled"), np.zeros_like
    ),
    "rolled": (("weights_permuted", "gate_order", "groups", "flatten_order"), lambda p: np.roll(p, 1, -1)),
    "halved": (
        ("gate_order", "weights_permuted", "flatten_order", "groups"), lambda p: np.roll(p, p.shape[-1] // 2, -1)
    ),
    "others": (("weights_differ",), lambda p: p + np.linspace(-1, 1, p.size).reshape(p.shape)),
    "transposed": (("kernel_transposed",), lambda p: p.T.reshape(p.shape) if p.ndim == 2 else p),
}  # fmt: skip


@dataclass(frozen=True)
class KerasFault:
    """A network, its faulty port, and what is right to say.

    Attributes:
        name: architecture, place and change.
        mistakes: keys that are right.
        a, b, inputs: for :func:`agnostic.compare`.
        line: of the source; None for a weight.
        layers: those at that line, or of that weight.
    """

    name: str
    mistakes: tuple[str, ...]
    a: Any
    b: Any
    inputs: Any
    line: int | None
    layers: frozenset[str]


def faults(folder: Path, seed: int, count: int, *, itself: bool = False) -> Iterator[KerasFault]:
    """So many faults, drawn from all that there are.

    Args:
        folder: of the ports.
        seed: of the drawing.
        count: how many.
        itself: A is the port as well, in place of the source.
    """
    rng = np.random.default_rng(seed)
    names = sorted(x.name for x in folder.iterdir() if x.name not in FED_OTHERWISE)
    drawn = 0
    while drawn < count:
        name = names[int(rng.integers(len(names)))]
        source, inputs = architectures.made(name)
        inputs = _turned(inputs) if itself else inputs
        file = source_of(folder, name)
        right = built(file, file.with_suffix(".npz"))
        make = _weight if rng.random() < 0.35 else _line
        try:
            title, mistakes, b, line, layers = make(file, rng)
            before, after = (_outputs(x, inputs) for x in (right, b))
        except (ValueError, RuntimeError, TypeError):
            continue  # it does not run
        if before.shape != after.shape or not np.isfinite(after).all():
            continue
        if not all(layer.built for layer in b._flatten_layers()):
            continue  # a layer that is not called has no weights in Keras, and the model is refused
        if np.abs(before - after).max() > 1e-3 * np.abs(before).max():
            drawn += 1
            yield KerasFault(f"{name}: {title}", mistakes, right if itself else source, b, inputs, line, layers)


# Networks that are written in Keras -----------------------------------------------------------------------------------
_NAMED = {"relu": "gelu", "elu": "selu", "tanh": "sigmoid", "sigmoid": "tanh", "swish": "mish", "gelu": "relu",
          "mish": "relu", "selu": "elu", "hard_sigmoid": "sigmoid", "relu6": "relu"}  # fmt: skip
_DIFFERS = ("activation_differs", "activation_slope")
_KIND = ("pool_kind", "sequence_step")
_MASK = ("attention_mask", "layer_missing")


def _named_otherwise(match: re.Match[str]) -> str:
    return f'{match[1]}"{_NAMED[match[2]]}"'


_WORDS = "|".join(_NAMED)

WRITTEN: tuple[tuple[str, str, Any, tuple[str, ...]], ...] = (
    ("replaced", rf'(activation=|Activation\()"({_WORDS})"', _named_otherwise, _DIFFERS),
    ("left out", rf', activation="({_WORDS})"', "", ("activation_missing", "layer_missing", "activation_differs")),
    ("epsilon", r"(BatchNormalization\()(?:epsilon=[\de.-]+)?", r"\1epsilon=0.05", ("batch_norm_epsilon",)),
    ("epsilon", r"(LayerNormalization\()(?:epsilon=[\de.-]+)?", r"\1epsilon=0.05", ("layer_norm_epsilon",)),
    ("epsilon", r"(GroupNormalization\(4, )epsilon=[\de.-]+", r"\1epsilon=0.05", ("norm_epsilon",)),
    ("groups", r"GroupNormalization\(4", "GroupNormalization(2", ("norm_groups",)),
    ("groups", r"groups=4, padding", "groups=4, dilation_rate=2, padding", ("dilation", "padding")),
    ("padding", r'padding="causal"', 'padding="same"', ("padding", "same_padding", "pad_then_stride")),
    ("dilation", r"dilation_rate=(2|rate)", "dilation_rate=1", ("dilation", "padding", "same_padding")),
    ("dilation", r"(Conv2D\(\d, 3, padding=\"same\")", r"\1, dilation_rate=2", ("dilation", "padding")),
    ("mask", r", mask_zero=True", "", _MASK),
    ("mask", r"Embedding\((\d+), (\d+)\)", r"Embedding(\1, \2, mask_zero=True)", (*_MASK, "layer_extra")),
    ("mask", r", use_causal_mask=True", "", _MASK),
    ("pool", r"(Global)?Average(Pooling[123]D|\()", lambda m: f"{m[1] or ''}Max{m[2]}", _KIND),
    ("pool", r"(Global)?Max(Pooling[123]D)", lambda m: f"{m[1] or ''}Average{m[2]}", _KIND),
    ("pool", r"layers\.Maximum\(", "layers.Average(", ("layer_kind", "pool_kind", "residual_differs")),
    ("replaced", r"layers\.Multiply\(", "layers.Add(", ("layer_kind", "residual_differs", "scale_missing")),
    ("left out", r"layers\.Add\(\)\(\[(.*), (\w+)\]\)", r"\1", ("residual_missing",)),
    ("left out", r"layers\.Multiply\(\)\(\[(\w+), (\w+)\]\)", r"\1", ("scale_missing", "layer_missing")),
    ("left out", r"= x \+ (.*)$", r"= \1", ("residual_missing",)),
    ("left out", r" \+ (self\.)?position", "", ("residual_missing", "layer_missing", "constant_offset")),
    ("order", r"Concatenate\(([^()]*)\)\(\[(\w+), (\w+)", r"Concatenate(\1)([\3, \2",
     ("concatenation_order", "layer_order")),
    ("order", r"ops\.concatenate\(\[(\w+), (\w+)", r"ops.concatenate([\2, \1", ("concatenation_order", "layer_order")),
    ("order", r"\[ops\.abs\(a - b\), a \* b\]", "[a * b, ops.abs(a - b)]", ("concatenation_order", "layer_order")),
    ("order", r"initial_state=\[h, c\]", "initial_state=[c, h]", ("layer_order", "features_permuted")),
    ("left out", r", initial_state=\[h, c\]", "", ("layer_missing", "layer_order", "statistics_missing")),
    ("direction", r"(GRU|LSTM|SimpleRNN)\((\d)", r"\1(\2, go_backwards=True", ("direction", "reversed")),
    ("number", r"1 / 127.5", "1 / 255", ("preprocessing_range", "constant_factor")),
    ("number", r"offset=-1.0", "offset=0.0", ("preprocessing_range", "constant_offset")),
    ("number", r"mean=\(0.1", "mean=(0.4", ("preprocessing_range", "weights_differ")),
    ("number", r"\* 0.3", "* 0.2", ("constant_factor",)),
    ("number", r" \* \(width // self.heads\) \*\* -0.5", "", ("attention_scale", "scale_missing", "constant_factor")),
    ("slope", r"negative_slope=0.2", "negative_slope=0.3", ("activation_slope",)),
    ("method", r"bilinear", "nearest", ("interpolation", "half_pixel")),
    ("axis", r"Softmax\(axis=1\)", "Softmax(axis=2)", ("softmax_axis",)),
    ("axis", r"softmax\(scores, axis=-1\)", "softmax(scores, axis=-2)", ("softmax_axis",)),
    ("step", r"x\[:, 0\]", "x[:, -1]", ("sequence_step",)),
    ("heads", r"num_heads=2, key_dim=4", "num_heads=4, key_dim=2", ("attention_heads", "attention_scale")),
    ("sides", r"\(\(1, 1\), \(1, 1\)\)", "((0, 2), (0, 2))", ("same_padding", "padding", "pad_then_stride")),
    ("sides", r"Cropping2D\(\(\(1, 0\), \(0, 1\)\)", "Cropping2D(((0, 1), (0, 1))", ("wrong_part", "padding")),
    ("sides", r"approximate=False", "approximate=True", ("gelu_tanh",)),
)  # fmt: skip
"""As :data:`RULES`, for :mod:`tests.compare.keras_architectures`."""


def written(folder: Path) -> None:
    """Write the networks as modules of PyTorch; by a process whose engine is that of the faults or any other."""
    from tests.compare import keras_architectures as networks

    for name in networks.NETWORKS:
        if not (folder / "written" / name).exists():
            model, inputs = _network(networks, name)
            ag.port(model, "torch", inputs, check=False).save(folder / "written" / name)


def _network(module: Any, name: str) -> tuple[Any, Any]:
    from tests.compare import keras_architectures as networks

    make, inputs = networks.NETWORKS[name]
    model = getattr(module, name)()
    numbers, shapes = networks.weights(make()), [tuple(w.shape) for w in model.weights]
    if len(numbers) != len(shapes):
        raise ValueError("other weights")
    model.set_weights([np.reshape(x, shape) for x, shape in zip(numbers, shapes, strict=True)])
    return model, inputs()


def right_written(folder: Path, name: str, *, itself: bool) -> tuple[Any, Any, Any]:
    """A network, or the same in PyTorch; the network once more; and inputs."""
    from tests.compare import keras_architectures as networks

    model, inputs = _network(networks, name)
    if itself:
        return _network(networks, name)[0], model, inputs
    from agnostic.port.verb import executed

    [file] = (folder / "written" / name).glob("*.py")
    return model, executed(file).make_model(file.with_suffix(".safetensors")), inputs


def faults_of_written(folder: Path, seed: int, count: int, *, itself: bool = False) -> Iterator[KerasFault]:
    """As :func:`faults`, in the networks that are written in Keras; their other side is PyTorch's, or the right one."""
    from tests.compare import keras_architectures as networks

    rng, drawn = np.random.default_rng(seed), 0
    while drawn < count:
        name = list(networks.NETWORKS)[int(rng.integers(len(networks.NETWORKS)))]
        model, other, inputs = right_written(folder, name, itself=itself)
        given = inputs if itself else _as_taken(other, inputs, model)
        try:
            made = _of_weight(model, rng) if rng.random() < 0.3 else _of_source(folder, name, rng)
            title, mistakes, b, line, layers = made
            before, after = (_outputs(x, inputs) for x in (_network(networks, name)[0], b))
        except (NameError, SyntaxError):
            continue  # it is no program
        except Exception as error:
            if not ag.backend_of(model)[INPUTS].is_refusal(error):
                raise
            continue  # it does not run
        if before.shape == after.shape and np.abs(before - after).max() > 1e-3 * np.abs(before).max():
            drawn += 1
            yield KerasFault(f"{name}: {title}", mistakes, other, b, given, line, layers)


def _as_taken(other: Any, inputs: Any, model: Any) -> Any:
    """Inputs of a network with their axes in the order of the other framework."""
    from agnostic.compare.feeding import turned
    from agnostic.compare.inputs import as_given, native

    backend = ag.backend_of(other)
    return native(turned(backend, other, as_given(backend, inputs), [_outputs(model, inputs)]))


def _of_source(
    folder: Path, name: str, rng: np.random.Generator
) -> tuple[str, tuple[str, ...], Any, int | None, frozenset[str]]:
    from tests.compare import keras_architectures as networks

    text = Path(networks.__file__).read_text()
    lines, starts = text.split("\n"), [f"def {name}("]
    if name == "vision":
        starts.append("class Patches")
    found = []
    for start in starts:
        first = text[: text.index(start)].count("\n")
        ends = [k for k in range(first + 1, len(lines)) if lines[k].startswith("def ")]
        found += [x for x in changes(text, WRITTEN) if first < x[0] <= ends[0] and x[3]]
    number, what, new, mistakes = found[int(rng.integers(len(found)))]
    lines[number - 1] = new
    broken = folder / f"broken_{number}.py"
    broken.write_text("\n".join(lines).replace('serializable("tests")', f'serializable("t{number}_{hash(new)}")'))
    module = ModuleType("broken")
    module.__file__ = str(broken)
    sys.modules["broken"] = module  # as an import would
    linecache.checkcache(str(broken))
    with _calls_at(str(broken), number) as layers:
        exec(compile(broken.read_text(), str(broken), "exec"), vars(module))  # noqa: S102 - our own text
        model, _ = _network(module, name)
    return f"line {number}: {what}: {new.strip()}", mistakes, model, number, frozenset(x.name for x in layers)


@contextmanager
def _calls_at(file: str, line: int) -> Iterator[list[Any]]:
    """Inside, the layers that are made or called at a line, or beside it."""
    import keras

    found: list[Any] = []

    def noting(original: Any) -> Any:
        def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
            frame: Any = sys._getframe(1)
            while frame is not None and frame.f_code.co_filename != file:
                frame = frame.f_back
            if frame is not None and abs(frame.f_lineno - line) < 2:
                found.append(self)
            return original(self, *args, **kwargs)

        return noted

    with (
        mock.patch.object(keras.layers.Layer, "__call__", noting(keras.layers.Layer.__call__)),
        mock.patch.object(keras.layers.Layer, "__init__", noting(keras.layers.Layer.__init__)),
    ):
        yield found


def _of_weight(model: Any, rng: np.random.Generator) -> tuple[str, tuple[str, ...], Any, None, frozenset[str]]:
    found = [v for v in model.weights if len(v.shape) and np.prod(v.shape) > 2 and "float" in str(v.dtype)]
    variable, how = found[int(rng.integers(len(found)))], list(_WEIGHTS)[int(rng.integers(len(_WEIGHTS)))]
    mistakes, change = _WEIGHTS[how]
    variable.assign(np.ascontiguousarray(change(_numpy(variable)), np.float32))
    return f"{variable.path}: {how}", mistakes, model, None, frozenset(variable.path.split("/")) - {model.name}


def _line(file: Path, rng: np.random.Generator) -> tuple[str, tuple[str, ...], Any, int | None, frozenset[str]]:
    lines = file.read_text().split("\n")
    found = list(changes("\n".join(lines)))
    number, what, new, mistakes = found[int(rng.integers(len(found)))]
    near = " ".join(lines[max(number - 2, 0) : number + 1])
    lines[number - 1] = new
    broken = file.with_name(f"broken_{file.name}")
    broken.write_text(
        "\n".join(lines).replace("register_keras_serializable(", f'register_keras_serializable("{number}" + ')
    )
    model = built(broken, file.with_suffix(".npz"))
    return f"line {number}: {what}: {new.strip()}", mistakes, model, number, frozenset(re.findall(r"self\.(\w+)", near))


def _weight(file: Path, rng: np.random.Generator) -> tuple[str, tuple[str, ...], Any, int | None, frozenset[str]]:
    return _of_weight(built(file, file.with_suffix(".npz")), rng)


def _numpy(variable: Any) -> Any:
    import keras

    return np.array(keras.ops.convert_to_numpy(variable))


def _outputs(model: Any, inputs: Any) -> Any:
    from agnostic.compare.inputs import collect, prepared
    from agnostic.contracts.calls import CALLS

    backend = ag.backend_of(model)
    given = prepared(backend, model, collect(backend, model, inputs))
    return np.array(backend[CALLS].numpy(backend[CALLS].run(model, given)[0]))


def judged(fault: KerasFault) -> dict[str, Any]:
    """Whether a fault was seen, located, named and proven."""

    def is_there(first: Any, best: Any) -> bool:
        names = {part for x in (first.a, first.b, first.after) for part in re.split(r"[./]", x.partition(" (call")[0])}
        places = {best.place_b} if best is not None and fault.line is not None else set()
        near = {str((fault.line or 0) + k) for k in (-1, 0, 1)}
        said = best is not None and fault.line is None and any(len(x) > 3 and x in best.sentence for x in fault.layers)
        return said or any(place.rpartition(":")[2] in near for place in places) or bool(names & fault.layers)

    return mutations.said(fault, is_there)


def checked(folder: str, seed: int = 0, count: int = 6) -> None:
    """Correct ports raise no alarm, faults are named, and a fix that is printed runs."""
    where = Path(folder)
    for name in sorted(x.name for x in where.iterdir()):
        source, inputs = architectures.made(name)
        file = source_of(where, name)
        found = ag.compare(source, built(file, file.with_suffix(".npz")), inputs)
        assert found.same, f"{name}: {found}"
        assert not any("not by the operators" in note for note in found.notes), found.notes
    results = [judged(fault) for fault in faults(where, seed, count)]
    assert all(x["seen"] for x in results), [x for x in results if not x["seen"]]
    assert sum(x["named"] for x in results) >= 0.8 * count, [x for x in results if not x["named"]]
    source, inputs = architectures.made("squeeze")
    file = source_of(where, "squeeze")
    model = built(file, file.with_suffix(".npz"))
    model.get_layer("n2").epsilon = 0.1
    finding = ag.compare(source, model, inputs).diagnosis[0]
    assert finding.mistake == "batch_norm_epsilon", finding
    assert finding.proven, finding
    exec(finding.fix, {"model": model, "other": source, "ag": ag})  # noqa: S102 - our own text
    assert ag.compare(source, model, inputs).same
