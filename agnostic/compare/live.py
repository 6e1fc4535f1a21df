"""A model that can be run, with what is known of it before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from agnostic.compare.calls import LayerCall
from agnostic.compare.inputs import Inputs, prepared
from agnostic.compare.watching import StepCounter
from agnostic.contracts.calls import CALLS
from agnostic.contracts.description import DESCRIPTION
from agnostic.description import LayerDescription
from agnostic.errors import AgnosticError, InvalidInput
from agnostic.models.attached import card_of
from agnostic.registry import Model, backend_of

Array = np.ndarray[Any, Any]


def leaves(descriptions: Sequence[LayerDescription]) -> list[str]:
    """The layers that are compared as a whole: those without layers inside, or that are described as a whole."""
    found: list[str] = []
    closed: tuple[str, ...] = ()
    for x in descriptions:
        if x.kind != "block" and not (closed and x.name.startswith(closed)):
            found.append(x.name)
            closed += (f"{x.name}.",)
    return found


class _Carried(BaseException):
    """Takes an error of ours through a framework that would rewrite it."""

    def __init__(self, error: AgnosticError) -> None:
        self.error = error


class Live:
    """A model that can be run, with what is known of it before it runs."""

    def __init__(self, model: Model, inputs: Inputs, spec: str | None = None) -> None:
        self.model, self.backend, self.inputs = model, backend_of(model), inputs
        described = self.backend[DESCRIPTION].describe(model)
        self.names = leaves(described)
        chosen = set(self.names)
        self.descriptions = {x.name: x for x in described if x.name in chosen}
        self.training = self.backend[CALLS].is_training(model)
        card = card_of(model)
        self.about: dict[str, Any] = {
            "class": type(model).__name__,
            "spec": spec or (card.spec if card else None),
            "backend": self.backend.name,
            "engine": self.backend.engine,
            "versions": dict(self.backend[CALLS].versions()),
            "training": self.training,
            "dtype": _dtype(described),
            "preprocessing": asdict(card.preprocessing) if card else None,
        }

    @property
    def title(self) -> str:
        """What the model is called in a sentence."""
        return str(self.about["spec"] or self.about["class"])

    def run(
        self, around: Callable[[LayerCall], Sequence[Any]] | None = None, seed: int = 0, names: Sequence[str] = ()
    ) -> tuple[Any, ...]:
        """Run the model; where it fails, say for which inputs.

        Args:
            around: called in place of each layer, or of those of the names.

        Raises:
            InvalidInput: it does not take the inputs.
        """
        given, counter = self.given(), StepCounter(len(self.names))

        def carried(call: LayerCall) -> Sequence[Any]:
            assert around is not None
            counter.count()
            try:
                return around(call)
            except AgnosticError as error:
                raise _Carried(error) from None

        with self.explaining():
            if around is None:
                return self.backend[CALLS].returned(self.model, given, seed=seed)
            with self.backend[CALLS].intercept(self.model, names or self.names, carried):
                return self.backend[CALLS].run(self.model, given, seed=seed)

    def given(self) -> Any:
        """What the model itself is called with."""
        return prepared(self.backend, self.model, self.inputs)

    def explaining(self) -> _Explaining:
        """Inside, what a framework raises becomes a sentence on the inputs."""
        return _Explaining(self)

    def numpy(self, x: Any) -> Array:
        """See :meth:`agnostic.contracts.calls.Calls.numpy`."""
        return self.backend[CALLS].numpy(x)


class _Explaining:
    def __init__(self, live: Live) -> None:
        self._live = live

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, _Carried):
            raise error.error from None
        if not isinstance(error, RuntimeError | ValueError | TypeError | IndexError | KeyError | AttributeError):
            return
        if isinstance(error, InvalidInput):
            return
        shapes = ", ".join(str(x.shape) for x in self._live.inputs.arrays.values())
        said = " ".join(str(error).split())[:240] or type(error).__name__
        kind = self._live.inputs.kind
        raise InvalidInput(f"{self._live.title} does not take {kind} inputs of shape {shapes} ({said})") from error


def _dtype(described: Sequence[LayerDescription]) -> str:
    """The type that most layers with weights compute in."""
    found = [str(x.config["dtype"]) for x in described if x.weights and "dtype" in x.config]
    return max(set(found), key=found.count) if found else "float32"
