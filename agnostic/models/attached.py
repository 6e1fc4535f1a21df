"""The card that is attached to a model."""

from __future__ import annotations

from typing import Any

from agnostic.contracts.inputs import INPUTS
from agnostic.models.cards import ATTRIBUTE, ModelCard, card_as_given
from agnostic.registry import get_backend, model_owner


def set_card(model: Any, card: Any) -> None:
    """Attach a card to your own model: how its inputs are prepared, and what its outputs mean.

    Args:
        model: a native model; the card becomes one of its attributes.
        card: see :func:`card_as_given`.

    Raises:
        InvalidInput: it is not a card.

    Example:
        >>> class Model: ...
        >>> set_card(Model(), {"range": [0, 255], "size": [28, 28], "class_names": ["cat", "dog"]})
    """
    before = card_of(model)
    attach(model, card_as_given(card, type(model).__name__ if before is None else before.spec))


def attach(model: Any, card: ModelCard) -> None:
    """Attach the card to the model; it replaces an earlier one."""
    setattr(model, ATTRIBUTE, card)


def card_of(model: Any) -> ModelCard | None:
    """The card that is attached to a model, or that its own description implies, or None.

    Every model of timm describes itself. Models of other libraries do not: without :func:`agnostic.load` they have no
    card until one is attached.
    """
    card = getattr(model, ATTRIBUTE, None)
    if isinstance(card, ModelCard):
        return card
    found = model_owner(model)
    backend = None if found is None else get_backend(found.name)
    return backend[INPUTS].stated_card(model) if backend is not None and INPUTS in backend else None
