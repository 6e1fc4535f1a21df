"""Several models as one, so that images must mean the same to all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agnostic.contracts.ensembles import ENSEMBLES
from agnostic.errors import InvalidInput
from agnostic.models.attached import attach, card_of
from agnostic.models.call import image_among
from agnostic.models.cards import ModelCard, Preprocessing
from agnostic.models.preparing import preprocessing_of
from agnostic.registry import Model, model_backend


def ensemble(members: Sequence[Model]) -> Model:
    """A model that gives the same images to several models, and returns the mean of their outputs.

    An image that excites one network may do so by features that no other network sees; one that must excite several has
    fewer of them. Objectives may look at layers of any member: ``ag.layers`` lists them. Members that end in a softmax
    give the mean of probabilities: sum ``logit(class, layer=...)`` of each member's own last layer instead.

    Args:
        members: native models of one framework, two or more, each of which takes images alone. They are not copied.

    Returns:
        A native model with a card: images in [0, 1], each member's own preprocessing inside, and the members' class
        names where they agree.

    Raises:
        InvalidInput: fewer than two models, or of several frameworks, or of several layouts or numbers of channels.

    Example:
        >>> both = ag.ensemble([model, model])
        >>> ag.visualize(both, ag.objectives.logit(3), size=16, steps=2).labels
        ('class 3',)
    """
    models = list(members)
    if len(models) < 2:
        raise InvalidInput(f"an ensemble is made of two models or more, not of {len(models)}")
    backends = [model_backend(model) for model in models]
    if len({backend.name for backend in backends}) > 1:
        found = ", ".join(sorted({backend.name for backend in backends}))
        raise InvalidInput(f"an ensemble is of models of one framework, not of {found}: load all by one backend=")
    forms = [image_among(backend, model)[0] for backend, model in zip(backends, models, strict=True)]
    kinds = sorted({f"{form.axes}, {form.length('C')} channels" for form in forms})
    if len(kinds) > 1:
        raise InvalidInput(f"an ensemble is of models that take the same images, not {' and '.join(kinds)}")
    prepared = [preprocessing_of(backend, model) for backend, model in zip(backends, models, strict=True)]
    made = backends[0][ENSEMBLES].ensemble(models, prepared, forms[0].axes, int(forms[0].length("C") or 3))
    attach(made, _card([card_of(model) for model in models]))
    return made


def _card(cards: Sequence[ModelCard | None]) -> ModelCard:
    """Of an ensemble: what its members agree on."""

    def common(name: str) -> Any:
        values = {getattr(card, name, None) for card in cards}
        return values.pop() if len(values) == 1 else None

    names = ", ".join("?" if card is None else card.spec for card in cards)
    return ModelCard(f"ensemble of {names}", Preprocessing((0.0,), (1.0,)), common("size"), common("class_names"))
