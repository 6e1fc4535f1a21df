"""Operators that nobody knows: named, left to fill in with a test of them, or taught."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import agnostic as ag
from agnostic.port.verb import taught_in
from agnostic.program.evaluate import run
from tests.forks import run_prepared

pytestmark = pytest.mark.usefixtures("prepared_processes")

Tensor = torch.Tensor


@torch.library.custom_op("agnostic_tests::twist", mutates_args=())
def twist(x: Tensor, scale: float, places: list[int]) -> Tensor:
    """Rows in another order, scaled; without a fake kernel."""
    return x[:, places] * scale


class Leaving(torch.autograd.Function):
    """Computes outside of torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: int) -> tuple[Tensor, Tensor]:
        """The power, and its negative."""
        array = x.detach().numpy() ** power
        return torch.from_numpy(array), torch.from_numpy(-array)

    @staticmethod
    def backward(ctx: Any, *given: Tensor) -> tuple[Any, ...]:
        """Not used."""
        return given[0], None


class Straight(torch.autograd.Function):
    """Rounds, and lets gradients pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Whole numbers."""
        return x.round()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """As it came."""
        return gradient


leaving = Leaving.apply  # as users name it


class Inside(nn.Module):
    """A layer that runs operators of strangers."""

    def forward(self, x: Tensor) -> Tensor:
        """Two of them, one under no_grad."""
        with torch.no_grad():
            x = twist(x, 2.0, [1, 0, 3, 2])
        up, down = leaving(x, 3)
        return up - down * 2


class Filled(nn.Module):
    """Four operators that have no translation: two of strangers, two of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.inside = Inside()
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.inside(self.conv(x))
        square = x.flatten(2)[:, :, :4]
        seen = torch.linalg.matrix_exp(square @ square.transpose(1, 2) / 1024)
        return self.head(torch.special.bessel_j0(seen.mean(1)) + Straight.apply(x.mean((2, 3))))


class Unfilled(Filled):
    """The same."""


def inputs() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def test_all_operators_without_translation_are_named_with_layer_line_and_shapes() -> None:
    with pytest.raises(ag.InvalidInput) as caught:
        ag.port(made(Filled), "keras", inputs())
    said = str(caught.value)
    assert said.startswith("4 operators of Filled")
    for name in ("agnostic_tests::twist", r"\S*Leaving", "aten::linalg_matrix_exp", "aten::special_bessel_j0"):
        assert re.search(rf"operator {name} has no .*?test_stubs\.py:\d+; by hand it is a function of \(2 x 4", said)
    assert re.search(r"twist .*?layer 'inside' \(Inside\)", said)
    assert "--stubs" in said
    assert "--operators" in said


BODIES = {
    "twist": "return ops.take(x, np.array(places), axis=1) * scale",
    "leaving": "return x**power, -(x**power)",
    "linalg_matrix_exp": """term = total = ops.eye(4) + ops.zeros_like(self)
    for n in range(1, 30):
        term = term @ self / n
        total = total + term
    return total""",
    "special_bessel_j0": "return self",
}
"""The last is wrong."""


def test_functions_to_fill_in_fail_their_test_and_pass_when_they_are_filled(tmp_path: Path) -> None:
    for kind in (Filled, Unfilled):
        ported = ag.port(made(kind), "keras", inputs(), stubs=True)
        assert not ported.report.is_same
        assert re.search(
            r"4 functions to fill in \(twist, leaving, linalg_matrix_exp, special_bessel_j0\)", ported.report.verdict
        )
        assert any("Straight" in note and "gradient" in note for note in ported.report.notes)
        ported.save(tmp_path)
    source = (tmp_path / "filled.py").read_text()
    for name, body in BODIES.items():
        pattern = rf'(def {name}\(.*?\n    """\n)    raise NotImplementedError\([^\n]*\n'
        assert len(re.findall(pattern, source, re.S)) == 1
        source = re.sub(pattern, rf"\g<1>    {body}\n", source, flags=re.S)
    (tmp_path / "filled.py").write_text(source)
    done = run_prepared(
        "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))", "-q", "-rA", "-p", "no:cacheprovider", str(tmp_path),
        cwd=tmp_path, variables={"KERAS_BACKEND": "torch"},
    )  # fmt: skip
    found = re.findall(r"^(PASSED|FAILED) (?:.*/)?(test_\w+\.py::\w+)", done.stdout, re.M)
    results = {name: how for how, name in found}
    wrong = "special_bessel_j0_1"
    names = ["twist_1", "leaving_1", "linalg_matrix_exp_1", wrong, "the_model"]
    assert {f"test_unfilled.py::test_{name}" for name in names} == {x for x in results if "unfilled" in x}, done.stdout
    assert all(how == "FAILED" for name, how in results.items() if "unfilled" in name)
    right = {name: results[f"test_filled.py::test_{name}"] for name in names}
    # One was filled in wrongly, and its test and the model's say so.
    assert right == {name: "FAILED" if name in (wrong, "the_model") else "PASSED" for name in names}, done.stdout


# Taught ---------------------------------------------------------------------------------------------------------------
class Gated(torch.autograd.Function):
    """x times the sigmoid of scale times x, with a backward of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        """Element by element."""
        return x * torch.sigmoid(scale * x)


class Taught(nn.Module):
    """Operators of strangers around convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """An image."""
        return twist(self.conv2(Gated.apply(self.conv1(x), 1.5)), 0.5, [3, 2, 1, 0])


@ag.custom_operator(
    "agnostic_tests::twist", to="keras", shape=lambda x, scale, places: x,
    reference=lambda x, scale, places: x[:, list(places)] * scale, flops=lambda x, scale, places: int(np.prod(x)),
)  # fmt: skip
def twist_in_keras(x, scale, places):  # type: ignore[no-untyped-def]
    """Rows in another order, scaled."""
    return ops.take(x, np.array(places), axis=1) * scale  # noqa: F821 (the written file has it)


@ag.custom_operator("Gated", to="keras", elementwise=True)
def gated(x, scale):  # type: ignore[no-untyped-def]
    """x times the sigmoid of scale times x."""
    return x * ops.sigmoid(scale * x)  # noqa: F821


def test_taught_operators_are_written_and_compute_the_same() -> None:
    model = made(Taught)
    ported = ag.port(model, "keras", inputs(), engine="torch", operators=[twist_in_keras, gated])
    assert ported.report.is_same, str(ported.report)
    assert ported.report.free == "batch and image size"
    assert "def twist_in_keras(x, scale, places):" in ported.source
    assert "custom_operator" not in ported.source
    # What works place by place needs no other order of axes; what does not is given the source's.
    assert [move.operator for move in ported.report.draft.laid.moves] == ["custom"]
    assert ported.report.draft.program.flops > 0


def test_a_reference_makes_a_program_with_a_taught_operator_computable() -> None:
    from agnostic.contracts.program import PROGRAM
    from agnostic.program.custom import known, with_meanings

    x = torch.randn(2, 4, 3, 3)
    model = nn.Sequential(Twisting()).eval()
    backend = ag.backend_of(model)
    raw = backend[PROGRAM].program(model, x)
    with pytest.raises(ag.InvalidInput, match=r"agnostic_tests::twist has no reference"):
        run(raw, {"input": x.numpy()}, {})
    program = with_meanings(raw, known("keras", [twist_in_keras]))
    np.testing.assert_allclose(run(program, {"input": x.numpy()}, {})[""], model(x).numpy(), rtol=1e-6)


class Twisting(nn.Module):
    """One operator of a stranger."""

    def forward(self, x: Tensor) -> Tensor:
        """Twisted."""
        return twist(x, 3.0, [2, 3, 0, 1])


def test_mistakes_in_what_is_taught_are_named() -> None:
    model, x = nn.Sequential(Twisting()).eval(), torch.randn(2, 4, 3, 3)

    def with_operator(function: Any, **options: Any) -> None:
        operator = ag.custom_operator("agnostic_tests::twist", to="keras", **options)(function)
        ag.port(model, "keras", x, check=False, operators=[operator])

    def short(x):  # type: ignore[no-untyped-def]
        return x

    def stranger(x, scale, places):  # type: ignore[no-untyped-def]
        return model(x)

    with pytest.raises(ag.InvalidInput, match=r"has 3 operands, and its spelling short takes \(x\)"):
        with_operator(short)
    with pytest.raises(ag.InvalidInput, match=r"uses model, which the written file does not have"):
        with_operator(stranger)
    with pytest.raises(ag.InvalidInput, match=r"no function made by def"):
        with_operator(lambda x, scale, places: x)
    with pytest.raises(ag.InvalidInput, match=r"rule of shapes .* says \(2,\).*\(2, 4, 3, 3\)"):
        with_operator(twist_in_keras.function, shape=lambda x, scale, places: (2,))
    with pytest.raises(ag.InvalidInput, match="spelled twice"):
        ag.port(model, "keras", x, operators=[twist_in_keras, twist_in_keras])
    with pytest.raises(ag.InvalidInput, match=r"agnostic\.custom_operator"):
        ag.port(model, "keras", x, operators=[short])  # type: ignore[list-item]


@torch.library.custom_op("my_library::twist", mutates_args=())
def documented(x: Tensor, scale: float) -> Tensor:
    """What docs/port.md teaches."""
    return x.flip(1) * scale


class Documented(nn.Module):
    """The model of the page."""

    def forward(self, x: Tensor) -> Tensor:
        """Twisted."""
        return documented(x, 0.5)


def test_the_file_of_the_documentation_teaches_its_operator(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "port.md").read_text("utf-8")
    [code] = re.findall(r'^```python title="operators\.py"\n(.*?)^```$', page, re.M | re.S)
    assert len(code.strip().splitlines()) <= 10
    (tmp_path / "operators.py").write_text(code)
    operators = taught_in(tmp_path / "operators.py")
    ported = ag.port(Documented().eval(), "keras", torch.randn(2, 4), operators=operators, engine="torch")
    assert ported.report.is_same, str(ported.report)
    with pytest.raises(ag.InvalidInput, match="there is no file"):
        taught_in(tmp_path / "other.py")
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ag.InvalidInput, match="defines no operator"):
        taught_in(tmp_path / "empty.py")
