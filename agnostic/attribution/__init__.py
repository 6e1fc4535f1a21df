"""Which pixels an output depends on: gradients, relevance, class activation maps, attention, hidden parts."""

from agnostic.attribution.explanation import Explanation
from agnostic.attribution.judges import Judgement, Judgements, judge
from agnostic.attribution.methods import METHODS

__all__ = ["METHODS", "Explanation", "Judgement", "Judgements", "judge"]


def __dir__() -> list[str]:
    return sorted(__all__)
