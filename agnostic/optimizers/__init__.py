"""Optimizers written once, over Ops: specifications, update rules, groups, conversion."""

from agnostic.optimizers.average import averaged_weights
from agnostic.optimizers.build import build
from agnostic.optimizers.convert import convert, read
from agnostic.optimizers.groups import Groups, groups
from agnostic.optimizers.specs import (
    KINDS,
    LAMB,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Lion,
    Muon,
    NAdam,
    RAdam,
    RMSprop,
    Spec,
)

__all__ = [
    "KINDS",
    "LAMB",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Groups",
    "Lion",
    "Muon",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Spec",
    "averaged_weights",
    "build",
    "convert",
    "groups",
    "read",
]


def __dir__() -> list[str]:
    return sorted(__all__)
