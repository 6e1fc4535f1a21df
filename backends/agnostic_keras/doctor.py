"""What ``agnostic doctor`` looks at for the Keras backend. Nothing is imported here."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from agnostic.contracts.doctor import Advice, Package
from agnostic_keras import registration

_KERAS = """
import keras
keras.ops.convert_to_numpy(keras.ops.ones((2, 2)))
answer = {"version": keras.__version__, "engine": keras.backend.backend()}
"""
_JAX = """
import jax
jax.numpy.ones(2).sum().item()
answer = {"version": jax.__version__, "devices": [str(device) for device in jax.devices()]}
"""
_TENSORFLOW = """
import tensorflow as tf
answer = {"version": tf.__version__, "devices": [d.name for d in tf.config.list_physical_devices()]}
"""


def packages() -> Sequence[Package]:
    """See :meth:`agnostic.contracts.doctor.Doctor.packages`; the engine torch is the torch backend's."""
    return (
        Package("keras", _KERAS),
        Package("jax", _JAX),
        Package("tensorflow", _TENSORFLOW, distributions=("tensorflow", "tensorflow-cpu")),
    )


def unusable(installed: Sequence[str]) -> Advice | None:
    """Keras without its engine cannot be imported; a sentence about the engine says more than the traceback."""
    return check_engine(engine_of(os.environ), installed) if "keras" in installed else None


def notes(installed: Sequence[str]) -> Sequence[Advice]:
    """See :meth:`agnostic.contracts.doctor.Doctor.notes`."""
    if "tensorflow" not in installed or importlib.util.find_spec("triton") is None:
        return ()
    return (
        Advice(
            "tensorflow and triton (torch's compiler) are both installed: loaded into one process they end it "
            "without an exception",
            "use one framework a process, or put sys.modules['triton'] = None before the imports",
        ),
    )


def engine_of(environment: Mapping[str, str]) -> tuple[str, str]:
    """The engine that Keras will choose, and what chose it.

    Source: keras/src/backend/config.py: ``KERAS_BACKEND``, else ``keras.json`` in ``KERAS_HOME``, else tensorflow.
    """
    if environment.get("KERAS_BACKEND"):
        return environment["KERAS_BACKEND"], "KERAS_BACKEND names"
    home = environment.get("KERAS_HOME")
    if not home:
        # "~" stays as it is without HOME and without an entry of the user among the system's.
        user = os.path.expanduser("~")
        home = os.path.join(user if os.access(user, os.W_OK) else "/tmp", ".keras")
    config = Path(home) / "keras.json"
    try:
        return str(json.loads(config.read_text())["backend"]), f"{config} names"
    except (OSError, ValueError, KeyError, TypeError):
        return "tensorflow", "KERAS_BACKEND is not set, and Keras' default is"


def check_engine(engine: tuple[str, str], installed: Sequence[str]) -> Advice | None:
    """A finding if Keras' engine is unknown or not installed."""
    name, source = engine
    engines = registration.engines
    choices = [choice for choice in engines if choice in installed]
    fixes = [f"export KERAS_BACKEND={choices[0]}"] if choices else []
    if name in engines and name not in installed:
        return Advice(
            f"{source} the engine {name!r}, which is not installed",
            " or ".join([*fixes, f"pip install 'agnostic-ml[{name}]'"]),
        )
    if name not in engines:
        return Advice(
            f"{source} the engine {name!r}, which agnostic does not know",
            " or ".join(fixes or ["pip install 'agnostic-ml[torch]' and export KERAS_BACKEND=torch"]),
        )
    return None
