"""``agnostic.load``: a native model by its specification."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import SourceLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from agnostic.contracts.devices import DEVICES
from agnostic.contracts.models import MODELS
from agnostic.contracts.weights import WEIGHTS
from agnostic.errors import InvalidInput, MissingDependency, UnknownName, nearest
from agnostic.models.attached import attach
from agnostic.models.cards import card_as_given
from agnostic.models.specs import ModelSpec, WeightsChoice, parse, parse_weights
from agnostic.registry import Model, backend_name, default_backend, get_backend, registrations


def load(
    spec: str,
    *,
    backend: str | None = None,
    engine: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    trust: bool = False,
    card: Any = None,
) -> Model:
    """Load a native model in inference mode, with its card attached.

    Args:
        spec: ``"efficientnet_lite0"`` (also 1 and 2; part of agnostic, any backend builds it), ``"torchvision:vgg16"``,
            ``"timm:resnet18"``, ``"keras:VGG16"``, ``"model.keras"``, or ``"file.py:make_model"``: a function in your
            own file, which is executed and called without arguments; the mode of its model is not changed.
        backend: ``"torch"`` or ``"keras"``, or the name of a plug-in; None: the backend that the spec needs, else the
            first installed one.
        engine: the engine of Keras: ``"torch"``, ``"jax"`` or ``"tensorflow"``. Keras reads it once per process.
        weights: None and ``"default"``: the spec's own weights, pretrained for named networks (torchvision, timm and
            Keras download them), unchanged for a file or a function. ``"random"``: random weights, the same every time;
            the random state of the framework is not changed. Otherwise a weight file of the backend:
            ``.safetensors``, ``.pth`` or ``.pt`` for PyTorch. No code in a weight file is ever executed.
        trust: allow a ``.keras`` file to use any function of Keras and to contain code (a Lambda layer), which is
            executed. Otherwise it may only use layers, activations, initializers and the like, and what this process
            registered.

        card: what the model expects and what its outputs stand for, as in :func:`agnostic.set_card`: a mapping, or the
            path of a JSON file; it replaces the card of the spec.

    Returns:
        A ``torch.nn.Module``, a ``keras.Model``, or a model of a plug-in.

    Raises:
        UnknownName: no such model, function or backend; the message names the nearest.
        InvalidInput: the spec is incomplete, or contradicts ``backend`` or ``engine``; or a user's file fails.
        MissingDependency: a package is not installed; the message says how to install it.
        InvalidWeights: the weights are missing, damaged, do not fit, cannot be downloaded, or would execute code.

    Example:
        >>> network = ag.load("efficientnet_lite0", weights="random")
        >>> type(network).__name__, len(ag.layers(network))
        ('Sequential', 157)
    """
    parsed, chosen = parse(spec), parse_weights(weights)
    known = None if card is None else card_as_given(card, spec)
    name = _maker(parsed, spec, backend, engine)
    if parsed.family == "function":
        assert parsed.path is not None
        model = _from_function(parsed.path, parsed.name, name, chosen)
    else:
        model = (get_backend(name) if name is not None else default_backend())[MODELS].load(spec, chosen, trust=trust)
    if known is not None:
        attach(model, known)
    return model


@contextmanager
def loaded(
    spec: str, *, device: str | None = None, backend: str | None = None, engine: str | None = None, **options: Any
) -> Iterator[Model]:
    """A native model on a device; code inside the context runs there.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"gpu"`` (one thing), ``"cuda:1"``; None: the framework's default.
        spec, backend, engine, options: see :func:`load`.

    Raises:
        InvalidInput: there is no such device; or the spec is a function, whose framework is only known if ``backend``
            is given.
        AgnosticError: see :func:`load`.
    """
    if device is None:
        yield load(spec, backend=backend, engine=engine, **options)
        return
    parsed = parse(spec)
    name = _maker(parsed, spec, backend, engine)
    if name is None and parsed.family == "function":
        raise InvalidInput(
            f"the model of {spec!r} is to be made on the device {device!r}, and only the function knows its framework: "
            "give the backend as well"
        )
    with (get_backend(name) if name is not None else default_backend())[DEVICES].on_device(device) as place:
        yield place(load(spec, backend=backend, engine=engine, **options))


def _maker(parsed: ModelSpec, spec: str, backend: str | None, engine: str | None) -> str | None:
    """The name of the backend that makes a model; None if not known."""
    if parsed.backend is not None and backend not in (None, parsed.backend):
        raise InvalidInput(f"{spec!r} is made by the backend {parsed.backend!r}, not by {backend!r}: leave out backend")
    name = backend or parsed.backend
    if engine is not None:
        name = _with_engine(engine, name)
    return name


def _with_engine(engine: str, backend: str | None) -> str:
    """The name of the backend that computes with ``engine`` from now on, unless it is loaded with another."""
    known = {name: x for x in registrations().values() for name in x.engines}
    if engine not in known:
        raise UnknownName(f"no engine {engine!r}: there are {', '.join(known)}{nearest(engine, known)}")
    owner = known[engine]
    if backend not in (None, owner.name):
        raise InvalidInput(
            f"engine={engine!r} is for {owner.title}, and the backend is {backend!r}: give backend={owner.name!r} as "
            "well"
        )
    if sys.modules.get(owner.requires) is None:
        if importlib.util.find_spec(engine) is None:
            raise MissingDependency(f"engine {engine!r} is not installed: pip install 'agnostic-ml[{engine}]'")
        os.environ[owner.engine_variable] = engine
    elif (loaded := get_backend(owner.name).engine) != engine:
        raise InvalidInput(
            f"{owner.title} is loaded with the engine {loaded!r}, and a process has only one: start another for "
            f"{engine!r}"
        )
    return owner.name


def _from_function(path: Path, function: str, backend: str | None, weights: WeightsChoice) -> Model:
    if weights == "random":
        raise InvalidInput(f"the weights of {path}:{function} come from the function: leave out weights='random'")
    module = _imported(path)
    make = getattr(module, function, None)
    if not callable(make):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UnknownName(f"no function {function!r} in {path}{nearest(function, functions)}")
    with _user_code(path, function):
        model = make()
    owner = backend_name(model)
    if backend not in (None, owner):
        raise InvalidInput(f"{path}:{function} makes a model of the backend {owner!r}, not of {backend!r}")
    if isinstance(weights, Path):
        get_backend(owner)[WEIGHTS].load_weights(model, weights, f"{path}:{function}")
    return model


def _imported(path: Path) -> ModuleType:
    """The module that a user's file makes."""
    if not path.is_file():
        raise InvalidInput(f"there is no file {path}, which the specification of the model names")
    with _user_code(path, None):
        return executed(path)


def executed(path: Path) -> ModuleType:
    """The module that a file of Python makes, executed anew each time: the file may have changed."""
    name = f"_agnostic_{path.stem}"
    found = importlib.util.spec_from_file_location(name, path)
    assert found is not None
    assert isinstance(found.loader, SourceLoader)
    module = importlib.util.module_from_spec(found)
    # dataclasses and pickle look a class's module up by its name.
    sys.modules[name] = module
    # Not from bytecode, which is taken for that of a file of the same size that was written in the same second.
    where = found.loader.get_filename(name)
    exec(found.loader.source_to_code(found.loader.get_data(where), where), vars(module))  # noqa: S102
    return module


def executed_file(path: Path) -> ModuleType:
    """The module that a user's own file makes.

    Raises:
        InvalidInput: it fails; says how.
    """
    with _user_code(path, None):
        return executed(path)


@contextmanager
def _user_code(path: Path, function: str | None) -> Iterator[None]:
    """Run a user's code as ``python file.py`` would, with its folder importable, and name the file if it fails."""
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    except Exception as error:  # not our code: any error is reported, with the original as its cause
        where = f"{path}:{function}" if function else str(path)
        raise InvalidInput(f"{where} failed with {type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
