"""Norms in clipping and in rules: squares that the type cannot hold, in every floating-point type of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from agnostic import optimizers as ago  # noqa: E402
from agnostic.ops import norm, norms, safe_norm  # noqa: E402
from agnostic.optimizers import specs  # noqa: E402
from agnostic.reference import optimizers as reference  # noqa: E402
from agnostic.reference.ops import ops as numpy_ops  # noqa: E402
from agnostic_torch.ops import TorchOps  # noqa: E402

OPS = TorchOps()
# Twice the unit roundoff: the spacing of numbers, relative to them.
SPACING = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-23, torch.float64: 2.0**-52}
# Far from 1, and well inside the type; squares of the first and the last are not.
SIZES = {
    torch.float16: (3e4, 1.0, 1e-4),
    torch.bfloat16: (1e30, 1.0, 1e-30),
    torch.float32: (1e30, 1e-20, 1e-30),
    torch.float64: (1e300, 1.0, 1e-300),
}
CASES = [(dtype, size) for dtype, sizes in SIZES.items() for size in sizes]
WAVE = np.sin(np.arange(12.0) + 1).reshape(3, 4)


class Traced(torch.Tensor):
    """A tensor whose value is not at hand, as on a GPU or in a trace."""


@pytest.mark.parametrize(("dtype", "size"), CASES)
def test_a_norm_is_that_of_numbers_near_one(dtype: Any, size: float) -> None:
    x = torch.tensor(size * WAVE).to(dtype)
    expected = size * np.linalg.norm(x.double().numpy() / size)
    wide = max(SPACING[dtype], SPACING[torch.float64]) if dtype == torch.float64 else SPACING[torch.float32]
    for given in (x, x.as_subclass(Traced)):
        # 12 squares and a root, each rounded.
        assert float(norm(OPS, given)) == pytest.approx(expected, rel=14 * wide)
        rows = norm(OPS, given, axis=1, keepdims=True)
        assert rows.shape == (3, 1)
        assert float(norm(OPS, rows)) == pytest.approx(expected, rel=20 * wide)
        assert norm(OPS, given, axis=0).shape == (4,)
    assert safe_norm(OPS, x).dtype == dtype


def test_a_scale_changes_no_bit_and_special_numbers_are_kept() -> None:
    rng = np.random.default_rng(0)
    many = [torch.tensor(rng.normal(size=n), dtype=torch.float32) for n in (1, 40, 5000, 2**17 + 3)]
    # With the scale of numbers near 1, and with none.
    assert torch.equal(norms(OPS, many), norms(OPS, [x.as_subclass(Traced) for x in many]).as_subclass(torch.Tensor))
    exact = [float(np.linalg.norm(x.double().numpy())) for x in many]
    assert norms(OPS, many).tolist() == pytest.approx(exact, rel=1e-6)
    found = norms(OPS, [torch.zeros(3), torch.tensor([np.inf, 1.0]), torch.tensor([np.nan]), torch.zeros(0, 2)])
    assert found.tolist() == pytest.approx([0.0, np.inf, np.nan, 0.0], nan_ok=True)
    assert norm(numpy_ops, np.array([3e200, 4e200])) == pytest.approx(5e200, rel=1e-15)
    x = torch.zeros(3, requires_grad=True)
    safe_norm(OPS, x).backward()
    assert x.grad.tolist() == [0, 0, 0]
    x = torch.tensor([3e30, 4e30], requires_grad=True)
    safe_norm(OPS, x).backward()
    assert x.grad.tolist() == pytest.approx([0.6, 0.8])
    batch = torch.func.vmap(lambda row: safe_norm(OPS, row))(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    assert batch.tolist() == [5.0, 0.0]


def step(spec: specs.Spec, parameter: Any, gradient: Any) -> Any:
    p = parameter.clone().requires_grad_()
    p.grad = gradient.clone()
    ago.build(spec, [{"params": [p]}], native=False).step()
    return p.detach()


@pytest.mark.parametrize("convention", ["torch", "keras"])
@pytest.mark.parametrize("way", ["clip_norm", "clip_global_norm"])
@pytest.mark.parametrize(("dtype", "size"), CASES)
def test_clipping_is_to_the_norm_that_was_asked_for(dtype: Any, size: float, way: str, convention: str) -> None:
    g = torch.tensor(size * WAVE).to(dtype)
    most = size / 8
    spec = ago.SGD(1.0, clip_convention=convention, **{way: most})
    got = -step(spec, torch.zeros_like(g), g).double().numpy() / size
    exact = g.double().numpy() / size
    # PyTorch adds 1e-6 to the norm.
    length = float(np.linalg.norm(exact)) + (1e-6 / size if convention == "torch" else 0.0)
    # The quotient and the product are rounded, and the numbers of float16 end at 6e-8.
    tolerance = 4 * SPACING[dtype] + (2.0**-24 / size if dtype == torch.float16 else 0.0)
    np.testing.assert_allclose(got, exact / (8 * length), rtol=tolerance, atol=tolerance)


def test_clipping_in_float16() -> None:
    got = step(ago.SGD(1.0, clip_norm=1.0), torch.zeros(2).half(), torch.tensor([300.0, 400.0]).half())
    assert got.tolist() == pytest.approx([-0.6, -0.8], rel=1e-3)
    # Their squares are less than the least number; the norm is 0.1.
    many = torch.full((10**6,), 1e-4).half()
    got = step(ago.SGD(1.0, clip_global_norm=0.01), torch.zeros(10**6).half(), many)
    assert got.unique().tolist() == pytest.approx([-1e-5], abs=2.0**-25)
    # The factor is too small for the type, and the product is not.
    got = step(ago.SGD(1.0, clip_global_norm=1.0), torch.zeros(10**6).half(), torch.full((10**6,), 6e4).half())
    assert got.unique().tolist() == pytest.approx([-1e-3], rel=1e-3)


@pytest.mark.parametrize(
    "spec",
    [ago.LAMB(0.1), ago.LAMB(0.1, weight_decay=0.1), ago.Adafactor(0.1), ago.Adafactor.keras(), ago.Muon(0.1)],
    ids=repr,
)
def test_trust_ratios_and_root_means_are_of_numbers_of_any_size(spec: specs.Spec) -> None:
    """A rule whose step follows the size of the weights does so at all sizes; Muon does not see that of gradients."""
    for dtype, (large, _, small) in SIZES.items():
        muon = isinstance(spec, ago.Muon)
        for size in (large,) if muon else (large, small):
            p = torch.tensor((1.0 if muon else size) * (2 + WAVE) / 4).to(dtype)
            g = torch.tensor((size if muon else 1.0) * WAVE).to(dtype)
            got = step(spec, p, g).double().numpy()
            start, gradient = p.double().numpy(), g.double().numpy()
            expected = reference.replay(spec, [start], [[gradient]])[-1][0]
            # What moves is rounded with the weights, or is the step where it is larger. Muon's iteration enlarges
            # rounding by 3^5 at most.
            tolerance = (243 if muon else 8) * SPACING[dtype] * np.abs([start, expected]).max()
            np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=f"{dtype} {size}")


def test_clipped_steps_of_half_precision_are_rounded_once() -> None:
    g = torch.tensor(WAVE).bfloat16()
    got = -step(ago.SGD(1.0, clip_norm=0.5, clip_convention="keras"), torch.zeros_like(g), g)
    exact = torch.tensor(g.double().numpy() * (0.5 / np.linalg.norm(g.double().numpy())))
    assert torch.equal(got, exact.bfloat16())
