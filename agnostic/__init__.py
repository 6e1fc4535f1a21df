"""Look inside vision models, and move them between PyTorch and Keras.

The verbs below are all there is at this level; each is imported when it is first used, so that ``import agnostic``
loads no framework and next to nothing else.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from types import ModuleType
from typing import TYPE_CHECKING, Any

from agnostic.version import __version__ as __version__

if TYPE_CHECKING:
    from agnostic import attribution, augmentation, data, ops, optimizers, sklearn, taps, testing
    from agnostic.attribution.verb import explain
    from agnostic.compare.verbs import compare, trace
    from agnostic.errors import AgnosticError, InvalidInput, InvalidWeights, MissingDependency, NonFinite, UnknownName
    from agnostic.extract.similarity import similar
    from agnostic.extract.top import top
    from agnostic.extract.verb import extract
    from agnostic.gradients import gradients
    from agnostic.models.attached import set_card
    from agnostic.models.ensemble import ensemble
    from agnostic.models.load import load
    from agnostic.port.verb import Ported, port
    from agnostic.program.custom import CustomOperator, custom_operator
    from agnostic.program.verb import program
    from agnostic.registry import backend_of
    from agnostic.taps.verbs import capture, layers, prepare, submodel, watch
    from agnostic.transfer.report import TransferReport
    from agnostic.transfer.verb import transfer
    from agnostic.visualization import animation, objectives, recipes
    from agnostic.visualization.mosaic import mosaic
    from agnostic.visualization.verb import visualize


__all__ = [
    "AgnosticError",
    "CustomOperator",
    "InvalidInput",
    "InvalidWeights",
    "MissingDependency",
    "NonFinite",
    "Ported",
    "TransferReport",
    "UnknownName",
    "animation",
    "attribution",
    "augmentation",
    "backend_of",
    "capture",
    "compare",
    "custom_operator",
    "data",
    "ensemble",
    "explain",
    "extract",
    "gradients",
    "layers",
    "load",
    "mosaic",
    "objectives",
    "ops",
    "optimizers",
    "port",
    "prepare",
    "program",
    "recipes",
    "set_card",
    "similar",
    "sklearn",
    "submodel",
    "taps",
    "testing",
    "top",
    "trace",
    "transfer",
    "visualize",
    "watch",
]

_WHERE = {
    "AgnosticError": "agnostic.errors:AgnosticError",
    "InvalidInput": "agnostic.errors:InvalidInput",
    "InvalidWeights": "agnostic.errors:InvalidWeights",
    "MissingDependency": "agnostic.errors:MissingDependency",
    "NonFinite": "agnostic.errors:NonFinite",
    "TransferReport": "agnostic.transfer.report:TransferReport",
    "UnknownName": "agnostic.errors:UnknownName",
    "animation": "agnostic.visualization.animation",
    "attribution": "agnostic.attribution",
    "augmentation": "agnostic.augmentation",
    "backend_of": "agnostic.registry:backend_of",
    "capture": "agnostic.taps.verbs:capture",
    "compare": "agnostic.compare.verbs:compare",
    "data": "agnostic.data",
    "ensemble": "agnostic.models.ensemble:ensemble",
    "explain": "agnostic.attribution.verb:explain",
    "extract": "agnostic.extract.verb:extract",
    "gradients": "agnostic.gradients:gradients",
    "layers": "agnostic.taps.verbs:layers",
    "load": "agnostic.models.load:load",
    "mosaic": "agnostic.visualization.mosaic:mosaic",
    "objectives": "agnostic.visualization.objectives",
    "prepare": "agnostic.taps.verbs:prepare",
    "ops": "agnostic.ops",
    "optimizers": "agnostic.optimizers",
    "Ported": "agnostic.port.verb:Ported",
    "port": "agnostic.port.verb:port",
    "program": "agnostic.program.verb:program",
    "CustomOperator": "agnostic.program.custom:CustomOperator",
    "custom_operator": "agnostic.program.custom:custom_operator",
    "recipes": "agnostic.visualization.recipes",
    "set_card": "agnostic.models.attached:set_card",
    "similar": "agnostic.extract.similarity:similar",
    "sklearn": "agnostic.sklearn",
    "submodel": "agnostic.taps.verbs:submodel",
    "taps": "agnostic.taps",
    "testing": "agnostic.testing",
    "top": "agnostic.extract.top:top",
    "trace": "agnostic.compare.verbs:trace",
    "transfer": "agnostic.transfer.verb:transfer",
    "visualize": "agnostic.visualization.verb:visualize",
    "watch": "agnostic.taps.verbs:watch",
}
"""Where each public name lives: ``"module:attribute"``, or a module."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        hint = ""
        if not name.startswith("_"):
            from agnostic.errors import nearest

            hint = nearest(name, __all__)
        raise AttributeError(f"module 'agnostic' has no attribute {name!r}{hint}", name=name, obj=sys.modules[__name__])
    module, _, attribute = _WHERE[name].partition(":")
    value: Any = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


class _Package(ModuleType):
    """This package's own class, because some verbs share their name with a submodule.

    Python binds a submodule to its package when it is first imported: ``from agnostic.layers import Layer``, anywhere,
    would turn ``agnostic.layers``, the verb, into the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _WHERE and isinstance(value, ModuleType) and _WHERE[name] != value.__name__:
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def _has_conflict(folder: str) -> bool:
    """Whether a folder of installed packages has metadata of a distribution ``agnostic``, by their names alone."""
    try:
        names = os.listdir(folder or ".")
    except OSError:  # no folder: an archive, or not there
        return False
    return any(name.startswith(("agnostic-", "agnostic.")) and name.endswith("-info") for name in names)


def _conflict() -> tuple[str, str] | None:
    """What the other distribution that installs a package ``agnostic`` does, and the fix; None where it is absent."""
    if not any(map(_has_conflict, dict.fromkeys(sys.path))):
        return None
    import importlib.metadata  # takes most of the time of this import, and a signal that arrives meanwhile is nobody's

    try:
        other = importlib.metadata.distribution("agnostic")
    except importlib.metadata.PackageNotFoundError:
        return None
    return (
        f"the distribution 'agnostic' {other.version} (another project, for database migrations) and 'agnostic-ml' "
        "install the same package and the same command 'agnostic', and the later one overwrites files of the other",
        "pip uninstall agnostic agnostic-ml, then install only the one you want",
    )


if (_found := _conflict()) is not None:
    # A warning, of a kind that is shown by default, not an error: what is imported here is ours, and works.
    warnings.warn(": ".join(_found), RuntimeWarning, stacklevel=2)
del _found
