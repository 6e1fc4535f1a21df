"""Optimizers in one line of text."""

from __future__ import annotations

import pytest

from agnostic.errors import InvalidInput, UnknownName
from agnostic.optimizers import LAMB, SGD, Adam, Muon
from agnostic.optimizers.text import check, specification


@pytest.mark.parametrize(
    ("text", "framework", "expected"),
    [
        ("Adam", "torch", Adam.torch()),
        ("Adam", "keras", Adam.keras()),
        (" Adam(1e-3, epsilon=1e-7) ", "keras", Adam(1e-3, epsilon=1e-7)),
        ("Adam(0.01, 0.8)", "torch", Adam(0.01, 0.8)),
        ("SGD.keras(momentum=0.9, nesterov=True)", "torch", SGD.keras(momentum=0.9, nesterov=True)),
        ("SGD.torch", "keras", SGD.torch()),
        ("LAMB(1e-3)", "torch", LAMB(1e-3)),
        ("Muon.torch(coefficients=(3, -4.5, 2))", "torch", Muon.torch(coefficients=(3, -4.5, 2))),
    ],
)
def test_as_in_python(text: str, framework: str, expected: object) -> None:
    assert specification(text, framework) == expected


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("Adm", UnknownName, "did you mean 'Adam'"),
        ("Adam(1e-3, eps=1)", UnknownName, "did you mean 'epsilon'"),
        ("Adam.jax()", InvalidInput, "is written as"),
        ("Adam(", InvalidInput, "is written as"),
        ("", InvalidInput, "is written as"),
        ("Adam(**{'learning_rate': 1})", InvalidInput, "is written as"),
        ("Adam(open('x'))", InvalidInput, "is written as"),
        ("__import__('os').getcwd()", InvalidInput, "is written as"),
        ("Adam(epsilon=1e-3)", InvalidInput, "has no learning rate"),
        ("Adam(1, 2, 3, 4, 5, 6, 7)", InvalidInput, "fields without a name"),
        ("Adam(-1)", InvalidInput, "learning_rate must be"),
        ("LAMB", InvalidInput, r"torch has no LAMB: .* LAMB\(1e-3\)"),
    ],
)
def test_what_is_wrong_is_said(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said) as found:
        specification(text)
    assert "\n" not in str(found.value)


def test_checked_before_the_framework_is_known() -> None:
    check("LAMB")  # Keras has it
    with pytest.raises(UnknownName):
        check("Adm")
