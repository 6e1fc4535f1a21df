"""Checks of what looks into models: layers, inputs, taps, calls, descriptions, programs, weights, models, devices."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from agnostic.contracts.calls import CALLS
from agnostic.contracts.description import DESCRIPTION
from agnostic.contracts.devices import DEVICES
from agnostic.contracts.guards import GUARDS
from agnostic.contracts.inputs import INPUTS
from agnostic.contracts.layers import LAYERS
from agnostic.contracts.models import MODELS
from agnostic.contracts.program import PROGRAM
from agnostic.contracts.taps import TAPS
from agnostic.contracts.transfer import TRANSFER
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import AgnosticError, InvalidWeights, NonFinite, UnknownName
from agnostic.models.forms import Input
from agnostic.models.inputs import run_layers
from agnostic.program.evaluate import run as evaluate
from agnostic.registry import backend_name
from agnostic.taps.verbs import capture
from agnostic.testing import operations
from agnostic.testing.subject import Broken, Subject, require


def models_are_recognized(subject: Subject) -> None:
    """``model_classes`` of the Registration."""
    found = backend_name(subject.model())
    if found != subject.backend:
        raise Broken(f"the model belongs to backend {found!r}, not {subject.backend!r}: check model_classes")


def layers_are_listed(subject: Subject) -> None:
    """``tree`` and a run name the same layers; shapes, axes and channels fit each other."""
    backend, model = subject.owner, subject.model()
    tree, listing = backend[LAYERS].tree(model), run_layers(backend, model, subject.images(model))
    names = [x.name for x in listing]
    require(len(set(names)) == len(names), LAYERS, "tree", "two layers have one name")
    require({x.name for x in tree} == set(names), LAYERS, "tree", "tree and a run name different layers")
    require(subject.layer in names, LAYERS, "tree", f"layer {subject.layer!r} is not listed")
    require(all(x.calls == 0 and x.shape is None for x in tree), LAYERS, "tree", "tree tells shapes or calls")
    require(backend[LAYERS].layer_name(model, object()) is None, LAYERS, "layer_name", "any object has a name")
    for x in listing:
        if x.shape is not None and x.axes is not None:
            fits = len(x.shape) == len(x.axes)
            require(fits, INPUTS, "trial", f"{x.name}: {x.axes} are not the axes of {x.shape}")
            if "C" in x.axes:
                same = x.channels == x.shape[x.axes.index("C")]
                require(same, INPUTS, "trial", f"{x.name}: channels and shape differ")


def a_failing_run_is_told(subject: Subject) -> None:
    """``trial`` keeps the model's error, which ``is_refusal`` recognizes."""
    backend, model = subject.owner, subject.model()
    wrong = backend[INPUTS].native_inputs(model, [np.zeros((1, 2), np.float32)])
    error = backend[INPUTS].trial(model, wrong).error
    require(error is not None, INPUTS, "trial", "a run on an array of two dimensions is said to have worked")
    refused = error is not None and backend[INPUTS].is_refusal(error)
    require(refused, INPUTS, "is_refusal", f"{type(error).__name__} is not taken for a refusal")
    require(not backend[INPUTS].is_refusal(MemoryError()), INPUTS, "is_refusal", "a lack of memory is a refusal")


def inputs_are_declared(subject: Subject) -> None:
    """``stated_inputs`` and ``input_count`` agree."""
    backend, model = subject.owner, subject.model()
    stated, count = backend[INPUTS].stated_inputs(model), backend[INPUTS].input_count(model)
    if stated is not None:
        right = all(isinstance(x, Input) and len(x.shape) == len(x.axes) for x in stated)
        require(right, INPUTS, "stated_inputs", "an input is no Input, or its axes are not those of its shape")
        require(len(stated) >= count, INPUTS, "input_count", f"{count} inputs are needed, {len(stated)} are stated")


def captures_are_what_is_listed(subject: Subject) -> None:
    """``capture`` records one array of the listed shape, as ``watch``, ``submodel`` and ``loop`` do."""
    backend, model = subject.owner, subject.model()
    images = subject.images(model)
    shape = next(x for x in run_layers(backend, model, images) if x.name == subject.layer).shape or ()
    captured = backend[TAPS].capture(model, images, [subject.layer]).numpy()[subject.layer]
    fits = captured.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, captured.shape, strict=False))
    require(fits, TAPS, "capture", f"shape {captured.shape}, listed {shape}")
    part = backend.ops.numpy(backend[TAPS].submodel(model, [subject.layer])(images))
    same = part.shape == captured.shape and np.abs(part - captured).max() <= operations.tolerance(captured)
    require(same, TAPS, "submodel", "a submodel returns something else than capture")
    loop = backend[TAPS].loop(model, [subject.layer])
    if loop is not None:
        (looped,) = map(backend.ops.numpy, loop(images)[subject.layer])
        same = looped.shape == captured.shape and np.abs(looped - captured).max() <= operations.tolerance(captured)
        require(same, TAPS, "loop", "a loop returns something else than capture")
    with backend[TAPS].watch(model, [subject.layer]) as record:
        model(images)
        model(images)
    require(len(record.calls(subject.layer)) == 2, TAPS, "watch", "two calls of the model did not make two records")
    model(images)
    require(len(record.calls(subject.layer)) == 2, TAPS, "watch", "a hook records after the context has ended")


def hooks_go_after_an_error(subject: Subject) -> None:
    """``watch`` removes what it put into the model also where the body raises."""
    backend, model = subject.owner, subject.model()
    with ExitStack() as stack:
        record = stack.enter_context(backend[TAPS].watch(model, [subject.layer]))
        stack.pop_all().__exit__(ValueError, ValueError(), None)
    model(subject.images(model))
    require(not record.calls(subject.layer), TAPS, "watch", "a hook records after an error has ended the context")


def unknown_layers_are_refused(subject: Subject) -> None:
    """A name that no layer has is answered with the nearest one."""
    model = subject.model()
    try:
        capture(model, subject.images(model), subject.layer + "_")
    except UnknownName as error:
        require(subject.layer in str(error), LAYERS, "tree", f"the nearest layer is not named: {error}")
        return
    raise Broken("capture of an unknown layer raised nothing")


def calls_are_handed_over(subject: Subject) -> None:
    """``run`` is a call of the model; ``intercept`` replaces what a layer returns, until it ends."""
    backend, model = subject.owner, subject.model()
    calls, images, plain = backend[CALLS], subject.images(model), subject.output(model)
    most = operations.tolerance(plain)

    def ran() -> Any:
        return calls.numpy(calls.run(model, images, seed=0)[0])

    require(np.abs(ran() - plain).max() <= most, CALLS, "run", "it returns something else than a call of the model")
    seen: list[str] = []

    def unchanged(call: Any) -> Any:
        seen.append(call.name)
        outputs = call.run()
        layouts = call.output_layouts(outputs)
        require(len(layouts) == len(outputs), CALLS, "intercept", "not one layout for each output")
        return outputs

    with calls.intercept(model, [subject.layer], unchanged):
        same = ran()
    require(seen == [subject.layer], CALLS, "intercept", f"the calls handed over are {seen}")
    require(np.abs(same - plain).max() <= most, CALLS, "intercept", "a call that is passed on changes the output")
    with calls.intercept(model, [subject.layer], lambda call: [y * 0.0 for y in call.run()]):
        changed = ran()
    require(
        not np.array_equal(changed, plain), CALLS, "intercept", "what is returned in place of a layer has no effect"
    )
    require(np.array_equal(ran(), same), CALLS, "intercept", "the model is not as before afterwards")
    require(isinstance(calls.is_training(model), bool), CALLS, "is_training", "it is no bool")
    require(dict(calls.versions()), CALLS, "versions", "no version is told")


def arrays_go_out_and_in(subject: Subject) -> None:
    """``native`` and ``numpy`` are each other's inverse."""
    backend, model = subject.owner, subject.model()
    x, like = np.arange(6, dtype=np.float32).reshape(2, 3), subject.images(model)
    back = backend[CALLS].numpy(backend[CALLS].native(x, like))
    require(np.array_equal(back, x), CALLS, "native", "an array comes back changed")
    whole = backend[CALLS].numpy(backend[CALLS].native(np.arange(3), like, dtype="int32"))
    require(whole.dtype == np.int32, CALLS, "native", f"dtype='int32' made {whole.dtype}")


def descriptions_have_names(subject: Subject) -> None:
    """``describe`` gives one description for each name that is asked for, in that order."""
    backend, model = subject.owner, subject.model()
    names = [subject.layer, backend[LAYERS].tree(model)[0].name]
    found = backend[DESCRIPTION].describe(model, names)
    require([x.name for x in found] == names, DESCRIPTION, "describe", f"{[x.name for x in found]}, asked for {names}")
    own = all(x.framework == subject.backend for x in found)
    require(own, DESCRIPTION, "describe", f"config['framework'] is not {subject.backend!r}")


def programs_compute_the_same(subject: Subject) -> None:
    """``program``, run in NumPy in float64, returns what the model does."""
    backend, model = subject.owner, subject.model()
    images, plain = subject.images(model), subject.output(model)
    program = backend[PROGRAM].program(model, images)
    names = [leaf.name for leaf in program.leaves if leaf.role == "input"]
    require(len(names) == 1, PROGRAM, "program", f"its inputs are {names}, and the model takes one")
    found = evaluate(program, {names[0]: backend.ops.numpy(images)}, backend[WEIGHTS].weights(model))
    require(len(found) == 1, PROGRAM, "program", f"its outputs are {list(found)}, and the model returns one")
    apart = float(np.abs(next(iter(found.values())) - plain).max())
    # float32 in the model: a small network's sums of some ten to hundred products (see CONTRIBUTING, Tolerances).
    require(apart <= operations.tolerance(plain), PROGRAM, "program", f"an output differs by {apart:.1e}")


def guards_stop(subject: Subject) -> None:
    """``guard`` raises NonFinite where a weight is NaN, and nothing where all is finite."""
    backend, model = subject.owner, subject.model()
    with backend[GUARDS].guard(model):
        model(subject.images(model))
    values = {name: np.array(x) for name, x in backend[WEIGHTS].weights(model).items()}
    backend[WEIGHTS].set_weights(model, {name: x * x.dtype.type(np.nan) for name, x in values.items()})
    images = subject.images(model)
    try:
        with backend[GUARDS].guard(model):
            model(images)
    except NonFinite:
        return
    raise Broken("a model whose weights are NaN runs inside the guard")


def weights_go_out_and_in(subject: Subject) -> None:
    """``set_weights`` of ``weights`` changes nothing; others change the output; wrong ones are refused as a whole."""
    backend, model = subject.owner[WEIGHTS], subject.model()
    weights, before = backend.weights(model), subject.output(model)
    backend.set_weights(model, weights)
    require(np.array_equal(subject.output(model), before), WEIGHTS, "set_weights", "its own weights changed the output")
    backend.set_weights(model, {name: x + x.dtype.type(1) for name, x in weights.items()})
    changed = not np.array_equal(subject.output(model), before)
    require(changed, WEIGHTS, "set_weights", "other weights changed nothing")
    backend.set_weights(model, weights)
    first, *others = weights
    for broken in ({name: weights[name] for name in others}, {**weights, first: np.zeros((1, 2, 3, 4, 5), np.float32)}):
        try:
            backend.set_weights(model, broken)
        except InvalidWeights:
            continue
        require(False, WEIGHTS, "set_weights", f"a missing or misshapen {first!r} was accepted")
    same = np.array_equal(subject.output(model), before)
    require(same, WEIGHTS, "set_weights", "weights that do not fit were set in part")


def missing_files_are_refused(subject: Subject) -> None:
    """``read_weights`` raises InvalidWeights."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            subject.owner[WEIGHTS].read_weights(Path(folder) / "none.safetensors")
        except InvalidWeights:
            return
    require(False, WEIGHTS, "read_weights", "a file that is not there was read")


def files_bring_weights_back(subject: Subject) -> None:
    """``save`` writes what ``load_weights`` reads, in each format of the Registration that holds weights alone."""
    backend, model = subject.owner, subject.model()
    before = subject.output(model)
    registration = backend.registration
    with tempfile.TemporaryDirectory() as folder:
        for suffix in registration.weight_files:
            if suffix in registration.model_files:
                continue
            path, other = Path(folder) / f"weights{suffix}", subject.model()
            backend[WEIGHTS].save(model, path)
            values = backend[WEIGHTS].weights(other)
            backend[WEIGHTS].set_weights(other, {name: np.zeros_like(x) for name, x in values.items()})
            backend[WEIGHTS].load_weights(other, path, "the model")
            same = np.array_equal(subject.output(other), before)
            require(same, WEIGHTS, "load_weights", f"a {suffix} file brings other weights back")


def unknown_specifications_are_refused(subject: Subject) -> None:
    """``load`` answers what it does not know with an error of agnostic."""
    for prefix in subject.owner.registration.specs:
        try:
            subject.owner[MODELS].load(f"{prefix}:there_is_no_such_model", "random")
        except AgnosticError:
            continue
        require(False, MODELS, "load", f"'{prefix}:there_is_no_such_model' was loaded")


def models_come_to_the_processor(subject: Subject) -> None:
    """``on_device("cpu")`` gives a function that returns the model."""
    with subject.owner[DEVICES].on_device("cpu") as place:
        model = place(subject.model())
    found = backend_name(model)
    require(found == subject.backend, DEVICES, "on_device", "it gives something else than a model")


def some_weights_are_set(subject: Subject) -> None:
    """``assign`` sets what it is given, and nothing else."""
    model = subject.model()
    with subject.owner[TRANSFER].inference(model):
        before = dict(subject.owner[WEIGHTS].weights(model))
        name = next(name for name, x in before.items() if x.dtype.kind == "f" and x.size)
        subject.owner[TRANSFER].assign(model, {name: before[name] * 0 + 0.5})
        after = subject.owner[WEIGHTS].weights(model)
        require(bool((after[name] == 0.5).all()), TRANSFER, "assign", f"{name!r} is not what was given")
        same = all((after[other] == x).all() for other, x in before.items() if other != name)
        require(same, TRANSFER, "assign", f"other weights than {name!r} have changed")
        subject.owner[TRANSFER].assign(model, {name: before[name]})


CHECKS: Mapping[str, Sequence[Callable[[Subject], None]]] = {
    "layers": (models_are_recognized, layers_are_listed, unknown_layers_are_refused),
    "inputs": (inputs_are_declared, a_failing_run_is_told),
    "taps": (captures_are_what_is_listed, hooks_go_after_an_error),
    "calls": (calls_are_handed_over, arrays_go_out_and_in),
    "description": (descriptions_have_names,),
    "program": (programs_compute_the_same,),
    "guards": (guards_stop,),
    "weights": (weights_go_out_and_in, missing_files_are_refused, files_bring_weights_back),
    "models": (unknown_specifications_are_refused,),
    "devices": (models_come_to_the_processor,),
    "transfer": (some_weights_are_set,),
}
