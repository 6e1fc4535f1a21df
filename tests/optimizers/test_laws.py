"""What holds for every hyperparameter: laws of the rules in NumPy float64, and of what is built of them in PyTorch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from agnostic import optimizers as ago
from agnostic.optimizers import rules
from agnostic.optimizers.specs import KINDS, Spec, replace
from agnostic.reference import optimizers as reference

START, GRADIENT, _ = reference.standard_problem()
# A few steps of some twenty roundings of 1.1e-16 each on numbers below 10, enlarged by denominators down to 1e-2.
EXACT = 1e-12


def law(*strategies: Any) -> Any:
    """``given``, with few examples: they are many laws, and a step of a rule takes a millisecond."""
    return lambda test: settings(max_examples=25)(given(*strategies)(test))


shares = st.floats(0.05, 0.98)
rates = st.lists(st.floats(1e-3, 0.2), min_size=1, max_size=6)
# Epsilons large enough that a denominator does not enlarge rounding beyond EXACT.
epsilons = st.floats(1e-6, 1e-1)


def run(spec: Spec, rates: Sequence[float], start: Any = None) -> list[np.ndarray]:
    return reference.run(spec, START if start is None else start, GRADIENT, rates)[-1]


def far(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


@st.composite
def specs(draw: Any, elementwise: bool = False) -> Spec:
    """Any rule with any hyperparameters and conventions."""
    kinds = [k for k, cls in KINDS.items() if k != "Muon" and (rules.RULES[cls].elementwise or not elementwise)]
    cls = KINDS[draw(st.sampled_from(kinds))]
    options: dict[str, Any] = {"learning_rate": 0.1, "weight_decay": draw(st.sampled_from([0.0, 0.1]))}
    for name, values in cls.choices.items():
        options[name] = draw(st.sampled_from(values))
    options["decay"] = draw(st.sampled_from(cls.choices.get("decay", Spec.choices["decay"])))
    fields = cls.__dataclass_fields__
    for name in ("beta_1", "beta_2", "rho", "momentum", "dampening"):
        if name in fields and draw(st.booleans()):
            options[name] = draw(shares)
    for name in ("centered", "amsgrad"):
        if name in fields:
            options[name] = draw(st.booleans())
    if "epsilon" in fields:
        options["epsilon"] = draw(epsilons)
    return cls(**options)


# Rules ----------------------------------------------------------------------------------------------------------------
@law(shares, st.floats(1e-3, 0.5), st.integers(1, 6), st.booleans())
def test_at_a_constant_rate_all_forms_of_momentum_are_one(m: float, rate: float, steps: int, nesterov: bool) -> None:
    ends = [run(ago.SGD(rate, m, nesterov, form), [rate] * steps) for form in ("torch", "keras", "classical")]
    assert far(ends[0], ends[1]) < EXACT
    assert far(ends[0], ends[2]) < EXACT


@law(shares, rates, st.booleans())
def test_keras_form_and_the_classical_one_are_one_at_any_rate(m: float, rates: list[float], nesterov: bool) -> None:
    keras, classical = (run(ago.SGD(0.1, m, nesterov, form), rates) for form in ("keras", "classical"))
    assert far(keras, classical) < EXACT


@law(rates, st.floats(0, 0.5))
def test_without_momentum_or_adaption_both_decays_are_one(rates: list[float], decay: float) -> None:
    # p - lr (g + w p) = (1 - lr w) p - lr g
    coupled, decoupled = (run(ago.SGD(0.1, weight_decay=decay, decay=d), rates) for d in ("coupled", "decoupled"))
    assert far(coupled, decoupled) < EXACT


@law(specs(), rates)
def test_without_decay_its_place_is_nothing(spec: Spec, rates: list[float]) -> None:
    spec = replace(spec, {"weight_decay": 0.0})
    other = "decoupled" if spec.decay == "coupled" else "coupled"
    assert far(run(spec, rates), run(replace(spec, {"decay": other}), rates)) == 0


@law(specs(), st.integers(1, 4), st.integers(1, 3))
def test_accumulating_equal_gradients_is_one_step_with_them(spec: Spec, steps: int, calls: int) -> None:
    gradients = [[g * (1 + k) for g in GRADIENT(START)] for k in range(steps)]
    repeated = [g for g in gradients for _ in range(calls)]
    once = reference.replay(spec, START, gradients)
    summed = reference.replay(replace(spec, {"accumulate": calls}), START, repeated)
    assert far(once[-1], summed[-1]) < EXACT


@law(specs(), st.floats(0.0, 1.0), st.integers(1, 3))
def test_accumulation_takes_the_mean(spec: Spec, share: float, steps: int) -> None:
    pairs = [[(1 + share) * g for g in GRADIENT(START)], [(1 - share) * g for g in GRADIENT(START)]] * steps
    mean = [GRADIENT(START)] * steps
    got = reference.replay(replace(spec, {"accumulate": 2}), START, pairs)[-1]
    # The mean is rounded twice where the gradient itself is not: as for one step of EXACT.
    assert far(got, reference.replay(spec, START, mean)[-1]) < EXACT


@law(specs(elementwise=True), rates, st.permutations(range(12)))
def test_elementwise_rules_do_not_see_the_order_of_elements(spec: Spec, rates: list[float], order: list[int]) -> None:
    gradients = [[np.sin(np.arange(12.0) + k)] for k in range(len(rates))]
    start = np.cos(np.arange(12.0))
    end = reference.replay(spec, [start], gradients, rates)[-1][0]
    turned = reference.replay(spec, [start[order]], [[g[order]] for (g,) in gradients], rates)[-1][0]
    assert np.array_equal(end[order], turned)


@law(specs(), rates)
def test_parameters_do_not_see_each_other(spec: Spec, rates: list[float]) -> None:
    gradients = [GRADIENT(START)] * len(rates)
    together = reference.replay(spec, START, gradients, rates)[-1]
    for i, p in enumerate(START):
        alone = reference.replay(spec, [p], [[g[i]] for g in gradients], rates)[-1]
        assert np.array_equal(alone[0], together[i])


@law(st.sampled_from(["RMSprop", "Adagrad", "Adam", "Adamax", "NAdam"]), st.floats(0.01, 100.0))
def test_adaptive_rules_do_not_see_the_scale_of_gradients(kind: str, scale: float) -> None:
    spec = KINDS[kind](0.1, epsilon=0.0)
    gradients = [[np.sin(np.arange(4.0) + 1 + k)] for k in range(4)]
    scaled = [[scale * g] for (g,) in gradients]
    ends = [reference.replay(spec, [np.ones(4)], g)[-1] for g in (gradients, scaled)]
    assert far(*ends) < EXACT


@law(st.floats(1e-3, 10), st.sampled_from(["torch", "keras"]))
def test_clipping_never_lengthens_and_leaves_short_gradients(most: float, convention: str) -> None:
    gradients = GRADIENT(START)
    length = float(np.sqrt(sum((g**2).sum() for g in gradients)))
    spec = ago.SGD(1.0, clip_global_norm=most, clip_convention=convention)
    (end,) = reference.replay(spec, START, [gradients])
    step = float(np.sqrt(sum(((p - q) ** 2).sum() for p, q in zip(START, end, strict=True))))
    # PyTorch's 1e-6 makes it shorter still.
    assert step <= min(most, length) * (1 + 1e-12)
    assert step >= min(most, length) * (1 - 2e-6 / length - 1e-12)


@law(st.floats(0.0, 0.99), rates)
def test_the_average_lies_between_the_weights_that_it_is_of(m: float, rates: list[float]) -> None:
    path = reference.run(ago.SGD(0.1), START, GRADIENT, rates)
    overwritten = ago.SGD(0.1, ema_momentum=m, ema_overwrite=len(rates))
    end = reference.run(overwritten, START, GRADIENT, rates)[-1]
    for i, got in enumerate(end):
        every = np.stack([p[i] for p in path])
        assert (got >= every.min(0) - EXACT).all()
        assert (got <= every.max(0) + EXACT).all()


# PyTorch --------------------------------------------------------------------------------------------------------------
def torch() -> Any:
    return pytest.importorskip("torch")


def follow(optimizer: Any, parameters: Sequence[Any], rates: Sequence[float]) -> list[np.ndarray]:
    for rate in rates:
        for group in optimizer.param_groups:
            group["lr"] = rate
        for p, g in zip(parameters, GRADIENT([p.detach().numpy() for p in parameters]), strict=True):
            p.grad = torch().tensor(g)
        optimizer.step()
    return [p.detach().numpy().copy() for p in parameters]


def leaves() -> list[Any]:
    return [torch().tensor(p).requires_grad_() for p in START]


@law(specs(), rates)
def test_the_fused_operations_of_every_rule_follow_the_reference(spec: Spec, rates: list[float]) -> None:
    parameters = leaves()
    got = follow(ago.build(spec, [{"params": parameters}], native=False), parameters, rates)
    assert far(got, run(spec, rates)) < EXACT


@law(specs(), rates, st.integers(0, 3))
def test_what_is_native_equals_ours(spec: Spec, rates: list[float], at: int) -> None:
    parameters = leaves()
    optimizer = ago.build(spec, [{"params": parameters}])
    # NAdam's product is in float32 in PyTorch, which is a convention of its own: native only where that is asked for.
    assert far(follow(optimizer, parameters, rates), run(spec, rates)) < EXACT


@law(specs(), st.integers(0, 4))
def test_conversion_to_the_same_framework_is_the_identity(spec: Spec, steps: int) -> None:
    layers = torch().nn.Linear(3, 4).double(), torch().nn.Linear(3, 4).double()
    one = ago.build(spec, layers[0])
    x = torch().linspace(-1, 1, 6, dtype=torch().float64).reshape(2, 3)

    def train(net: Any, optimizer: Any, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()

    train(layers[0], one, steps)
    layers[1].load_state_dict(layers[0].state_dict())
    two = ago.convert(one, "torch", layers[1], source=layers[0])
    assert [s for s, _ in ago.read(two, layers[1]).groups] == [s for s, _ in ago.read(one, layers[0]).groups]
    for layer, optimizer in zip(layers, (one, two), strict=True):
        train(layer, optimizer, 3)
    for p, q in zip(layers[0].parameters(), layers[1].parameters(), strict=True):
        assert torch().equal(p, q)


@law(specs(), st.integers(1, 3))
def test_a_copy_and_a_checkpoint_go_on_alike(spec: Spec, steps: int) -> None:
    parameters = leaves()
    optimizer = ago.build(spec, [{"params": parameters}], native=False)
    follow(optimizer, parameters, [0.1] * steps)
    twins, again = copy.deepcopy((parameters, optimizer))
    others = [p.detach().clone().requires_grad_() for p in parameters]
    loaded = ago.build(spec, [{"params": others}], native=False)
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ends = [follow(o, ps, [0.03, 0.05]) for o, ps in ((optimizer, parameters), (again, twins), (loaded, others))]
    assert far(ends[0], ends[1]) == 0
    assert far(ends[0], ends[2]) == 0


@law(st.permutations(["0", "1", "2"]), st.lists(st.floats(1e-3, 0.1), min_size=3, max_size=3))
def test_the_order_of_disjoint_groups_does_not_matter(order: list[str], rates: list[float]) -> None:
    def net() -> Any:
        torch().manual_seed(0)
        linear = torch().nn.Linear
        return torch().nn.Sequential(linear(3, 3), linear(3, 3), linear(3, 3)).double()

    ends = []
    for names in (sorted(order), order):
        model = net()
        groups = ago.groups(model, {name: {"lr": rates[int(name)]} for name in names})
        optimizer = ago.build(ago.Adam(1.0, epsilon_place="before correction"), groups)
        for _ in range(2):
            optimizer.zero_grad()
            model(torch().ones(2, 3, dtype=torch().float64)).square().sum().backward()
            optimizer.step()
        ends.append([p.detach().numpy() for p in model.parameters()])
    assert far(*ends) == 0
